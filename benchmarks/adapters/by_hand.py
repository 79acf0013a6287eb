"""Stores written by hand: an index in memory beside a SQLite file.

Few statements, each prepared once; WAL, `synchronous=FULL`; FAISS on one thread, its fastest mode for one query.
They return no record objects, vectors, times or scores and validate nothing. They do not survive a second process, a
second writer, or a crash between row and index.
"""

import json
import sqlite3
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.adapters import Hit, Item, System, Unsupported
from benchmarks.workset import FIELDS, LIMIT, Filter, Vectors

_SCHEMA = """
CREATE TABLE memory (pk INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, content TEXT NOT NULL, metadata TEXT NOT NULL);
CREATE TABLE memory_vector (pk INTEGER PRIMARY KEY, vector BLOB NOT NULL);
CREATE TABLE tag (pk INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE memory_tag (tag_pk INTEGER, pk INTEGER, PRIMARY KEY (tag_pk, pk)) WITHOUT ROWID;
CREATE INDEX memory_tag_pk ON memory_tag (pk, tag_pk);
""" + "".join(f"CREATE INDEX memory_{field} ON memory (json_extract(metadata, '$.{field}'));\n" for field in FIELDS)
_BY_TAG = "SELECT {} FROM memory_tag WHERE tag_pk = (SELECT pk FROM tag WHERE name = ?)"
_BY_FIELD = "SELECT {} FROM memory WHERE json_extract(metadata, '$.{}') < ?"

Keys = npt.NDArray[np.int64]


class ByHand(System):
    """The rows in SQLite. A row's key is its position in the vector matrix plus one."""

    durability = "WAL, synchronous=FULL, one fsync a commit"
    durability_label = "FULL"

    async def open(self, folder: Path) -> None:
        self.folder = folder
        self.connection = sqlite3.connect(folder / "memories.db", isolation_level=None)
        for pragma in ("page_size=8192", "journal_mode=WAL", "synchronous=FULL"):
            self.connection.execute(f"PRAGMA {pragma}")
        if not self.connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            self.connection.executescript(_SCHEMA)
        self.rows = 0
        capacity = self.workset.rows + self.workset.extra_rows
        self.matrix: Vectors = np.empty((capacity, self.workset.dimension), np.float32)
        self.load_index()

    @abstractmethod
    def load_index(self) -> None:
        """Fill the index from the stored rows."""

    @abstractmethod
    def index_vectors(self, vectors: Vectors) -> None:
        """Add vectors to the index."""

    @abstractmethod
    def nearest(self, query: Vectors, positions: Keys | None) -> list[int]:
        """The keys nearest to *query*, best first, among *positions* of the matrix if they are given."""

    def stored_vectors(self) -> Vectors:
        """Read every stored vector into the matrix; return the filled part."""
        cursor = self.connection.execute("SELECT vector FROM memory_vector ORDER BY pk")
        while rows := cursor.fetchmany(64):
            block = np.frombuffer(b"".join(row[0] for row in rows), np.float32).reshape(len(rows), -1)
            self.matrix[self.rows : self.rows + len(rows)] = block
            self.rows += len(rows)
        return self.matrix[: self.rows]

    def prepare(self, items: list[Item]) -> dict[str, Any]:
        return {
            "vectors": np.stack([item.vector for item in items]),
            "memory": [(i.row + 1, i.key, i.content, json.dumps(i.metadata, separators=(",", ":"))) for i in items],
            "memory_vector": [(item.row + 1, item.vector.tobytes()) for item in items],
            "tag": [(name,) for name in sorted({tag for item in items for tag in item.tags})],
            "memory_tag": [(item.row + 1, tag) for item in items for tag in item.tags],
        }

    async def bulk(self, rows: dict[str, Any]) -> None:
        execute, executemany = self.connection.execute, self.connection.executemany
        execute("BEGIN IMMEDIATE")
        executemany("INSERT INTO memory VALUES (?, ?, ?, ?)", rows["memory"])
        executemany("INSERT INTO memory_vector VALUES (?, ?)", rows["memory_vector"])
        executemany("INSERT OR IGNORE INTO tag (name) VALUES (?)", rows["tag"])
        executemany("INSERT INTO memory_tag SELECT pk, ? FROM tag WHERE name = ?", rows["memory_tag"])
        execute("COMMIT")
        self.index_vectors(rows["vectors"])

    async def settle(self) -> None:
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    async def search(self, query: int, filter: Filter | None = None) -> list[Hit]:
        positions = None if filter is None else self.matching_positions(filter)
        keys = self.nearest(self.workset.queries[query], positions)
        marks = ",".join("?" * len(keys))
        rows = {row[0]: row for row in self.connection.execute(f"SELECT * FROM memory WHERE pk IN ({marks})", keys)}
        tags: dict[int, list[str]] = {}
        statement = f"SELECT t.pk, name FROM memory_tag t JOIN tag ON tag.pk = tag_pk WHERE t.pk IN ({marks})"
        for pk, name in self.connection.execute(statement, keys):
            tags.setdefault(pk, []).append(name)
        return [Hit(key - 1, rows[key][2], tags[key], json.loads(rows[key][3])) for key in keys]

    def matching_positions(self, filter: Filter) -> Keys:
        """Positions in the matrix of the rows that match."""
        return np.array([key for (key,) in self.select_matching("pk", filter)], np.int64) - 1

    def select_matching(self, column: str, filter: Filter) -> sqlite3.Cursor:
        """Select a column of the rows that match."""
        if filter.tag:
            return self.connection.execute(_BY_TAG.format(column), (filter.tag,))
        return self.connection.execute(_BY_FIELD.format(column, filter.field), (filter.below,))

    async def close(self) -> None:
        self.connection.close()


class Flat(ByHand):
    """FAISS's flat index on one thread: compares every vector, or every matching one."""

    index = "FAISS IndexFlatIP, exact, one thread; array selector under a filter"
    packages = ("faiss-cpu", "numpy")

    def load_index(self) -> None:
        import faiss  # lazy: the peers' environments have no FAISS

        self._faiss = faiss
        faiss.omp_set_num_threads(1)
        self.flat = faiss.IndexFlatIP(self.workset.dimension)
        self.flat.add(self.stored_vectors())
        del self.matrix

    def index_vectors(self, vectors: Vectors) -> None:
        self.flat.add(vectors)

    def nearest(self, query: Vectors, positions: Keys | None) -> list[int]:
        faiss = self._faiss
        parameters = None if positions is None else faiss.SearchParameters(sel=faiss.IDSelectorArray(positions))
        _, labels = self.flat.search(query[None], LIMIT, params=parameters)
        return [label + 1 for label in labels[0].tolist() if label >= 0]


class Tuned(ByHand):
    """Like `Flat`, with the optimisations that memstore uses: a harder baseline at every filter size.

    It calls `faiss.knn` over one NumPy matrix without the Python wrapper, and reads a filter's keys as one text:
    SQLite writes it and NumPy parses it five times faster than as many rows.
    """

    index = "faiss.knn over a NumPy matrix, exact, one thread; array selector under a filter, from one text of keys"
    packages = ("faiss-cpu", "numpy")

    def load_index(self) -> None:
        import faiss  # lazy: the peers' environments have no FAISS

        self._faiss = faiss
        faiss.omp_set_num_threads(1)
        self.stored_vectors()

    def matching_positions(self, filter: Filter) -> Keys:
        (text,) = self.select_matching("group_concat(pk)", filter).fetchone()
        return np.fromstring(text or "", np.int64, sep=",") - 1

    def index_vectors(self, vectors: Vectors) -> None:
        self.matrix[self.rows : self.rows + len(vectors)] = vectors
        self.rows += len(vectors)

    def nearest(self, query: Vectors, positions: Keys | None) -> list[int]:
        faiss, scores, labels = self._faiss, np.empty(LIMIT, np.float32), np.empty(LIMIT, np.int64)
        selector = None if positions is None else faiss.IDSelectorArray(len(positions), faiss.swig_ptr(positions))
        faiss.knn_inner_product(
            faiss.swig_ptr(query), faiss.swig_ptr(self.matrix), self.workset.dimension, 1, self.rows, LIMIT,
            faiss.swig_ptr(scores), faiss.swig_ptr(labels), selector,
        )  # fmt: skip
        return [label + 1 for label in labels.tolist() if label >= 0]


class Graph(ByHand):
    """An HNSW graph of usearch, saved beside the database by `settle`."""

    index = "usearch HNSW: connectivity 16, expansion 128 when adding"
    packages = ("usearch", "numpy")

    def load_index(self) -> None:
        from usearch.index import Index  # lazy: memstore's own environment has no usearch

        self.graph = Index(ndim=self.workset.dimension, metric="cos", dtype="f32", connectivity=16, expansion_add=128)
        self.graph.expansion_search = 128
        file = self.folder / "graph.usearch"
        if file.exists():
            self.graph.load(str(file))

    def index_vectors(self, vectors: Vectors) -> None:
        first = len(self.graph) + 1
        self.graph.add(np.arange(first, first + len(vectors)), vectors, threads=0)

    async def settle(self) -> None:
        await super().settle()
        self.graph.save(str(self.folder / "graph.usearch"))

    async def set_effort(self, effort: int) -> bool:
        self.graph.expansion_search = effort
        return True

    def nearest(self, query: Vectors, positions: Keys | None) -> list[int]:
        if positions is not None:
            raise Unsupported("usearch has no filters in Python")
        return self.graph.search(query, LIMIT).keys.tolist()

"""What a good engineer would write in an afternoon: an index in memory beside a small SQLite file, nothing between.

Few statements, each prepared once; WAL, `synchronous=FULL`; FAISS on one thread, which is its fastest for one query.
It builds no records, fetches no vectors, times or scores and checks nothing; a second process, a crash between row and
index, or a second writer would break it.
"""

import json
import sqlite3
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.adapters import Found, Item, System, Unsupported
from benchmarks.workset import LIMIT, Filter, Vectors

_SCHEMA = """
CREATE TABLE memory (pk INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, content TEXT NOT NULL, metadata TEXT NOT NULL);
CREATE TABLE memory_vector (pk INTEGER PRIMARY KEY, vector BLOB NOT NULL);
CREATE TABLE tag (pk INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE memory_tag (tag_pk INTEGER, pk INTEGER, PRIMARY KEY (tag_pk, pk)) WITHOUT ROWID;
CREATE INDEX memory_tag_pk ON memory_tag (pk, tag_pk);
CREATE INDEX memory_shelf ON memory (json_extract(metadata, '$.shelf'));
CREATE INDEX memory_near ON memory (json_extract(metadata, '$.near'));
"""
_BY_TAG = "SELECT {} FROM memory_tag WHERE tag_pk = (SELECT pk FROM tag WHERE name = ?)"
_BY_FIELD = "SELECT {} FROM memory WHERE json_extract(metadata, '$.{}') < ?"
_MARKS = ",".join("?" * LIMIT)

Keys = npt.NDArray[np.int64]


class ByHand(System):
    """The rows. A row's key is its place in the matrix of vectors plus one."""

    durability = "WAL, synchronous=FULL, one fsync a commit"
    kept = "FULL"

    async def open(self, folder: Path) -> None:
        self.folder = folder
        self.base = sqlite3.connect(folder / "memories.db", isolation_level=None)
        self.base.execute("PRAGMA page_size=8192")
        self.base.execute("PRAGMA journal_mode=WAL")
        self.base.execute("PRAGMA synchronous=FULL")
        if not self.base.execute("SELECT 1 FROM sqlite_master").fetchone():
            self.base.executescript(_SCHEMA)
        self.rows = 0
        self.matrix: Vectors = np.empty((self.made.rows + self.made.extra, self.made.dimension), np.float32)
        self.read()

    @abstractmethod
    def read(self) -> None:
        """Fill the index from what is stored."""

    @abstractmethod
    def grow(self, vectors: Vectors) -> None:
        """Put more vectors into the index."""

    @abstractmethod
    def nearest(self, query: Vectors, allowed: Keys | None) -> list[int]:
        """The keys nearest to *query*, best first."""

    def stored(self) -> Vectors:
        """Every stored vector, in a part of the matrix."""
        cursor = self.base.execute("SELECT vector FROM memory_vector ORDER BY pk")
        while some := cursor.fetchmany(64):
            block = np.frombuffer(b"".join(row[0] for row in some), np.float32).reshape(len(some), -1)
            self.matrix[self.rows : self.rows + len(some)] = block
            self.rows += len(some)
        return self.matrix[: self.rows]

    def prepare(self, items: list[Item]) -> dict[str, Any]:
        vectors = np.stack([item.vector for item in items])
        return {
            "vectors": vectors,
            "memory": [(i.row + 1, i.key, i.content, json.dumps(i.metadata, separators=(",", ":"))) for i in items],
            "blobs": [(item.row + 1, item.vector.tobytes()) for item in items],
            "tag": [(name,) for name in sorted({tag for item in items for tag in item.tags})],
            "carried": [(item.row + 1, tag) for item in items for tag in item.tags],
        }

    async def bulk(self, prepared: dict[str, Any]) -> None:
        base = self.base
        base.execute("BEGIN IMMEDIATE")
        base.executemany("INSERT INTO memory VALUES (?, ?, ?, ?)", prepared["memory"])
        base.executemany("INSERT INTO memory_vector VALUES (?, ?)", prepared["blobs"])
        base.executemany("INSERT OR IGNORE INTO tag (name) VALUES (?)", prepared["tag"])
        base.executemany("INSERT INTO memory_tag SELECT pk, ? FROM tag WHERE name = ?", prepared["carried"])
        base.execute("COMMIT")
        self.grow(prepared["vectors"])

    async def settle(self) -> None:
        self.base.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    async def search(self, query: int, filter: Filter | None = None) -> list[Found]:
        keys = self.nearest(self.made.queries[query], None if filter is None else self._allowed(filter))
        marks = _MARKS if len(keys) == LIMIT else ",".join("?" * len(keys))
        rows = {row[0]: row for row in self.base.execute(f"SELECT * FROM memory WHERE pk IN ({marks})", keys)}
        tags: dict[int, list[str]] = {}
        carried = f"SELECT t.pk, name FROM memory_tag t JOIN tag ON tag.pk = tag_pk WHERE t.pk IN ({marks})"
        for pk, name in self.base.execute(carried, keys):
            tags.setdefault(pk, []).append(name)
        return [Found(key - 1, rows[key][2], tags[key], json.loads(rows[key][3])) for key in keys]

    def _allowed(self, filter: Filter) -> Keys:
        return np.array([key for (key,) in self._asked("pk", filter)], np.int64) - 1

    def _asked(self, result: str, filter: Filter) -> sqlite3.Cursor:
        """The *result* of the memories that *filter* allows."""
        if filter.tag:
            return self.base.execute(_BY_TAG.format(result), (filter.tag,))
        return self.base.execute(_BY_FIELD.format(result, filter.field), (filter.below,))

    async def close(self) -> None:
        self.base.close()


class Flat(ByHand):
    """Every vector is compared, by FAISS's flat index on one thread; under a filter, the allowed."""

    index = "FAISS IndexFlatIP, exact, one thread; array selector under a filter"
    packages = ("faiss-cpu", "numpy")

    def read(self) -> None:
        import faiss  # late: the peers' environments have none

        self._faiss = faiss
        faiss.omp_set_num_threads(1)
        self.flat = faiss.IndexFlatIP(self.made.dimension)
        self.flat.add(self.stored())
        del self.matrix

    def grow(self, vectors: Vectors) -> None:
        self.flat.add(vectors)

    def nearest(self, query: Vectors, allowed: Keys | None) -> list[int]:
        faiss = self._faiss
        among = None if allowed is None else faiss.SearchParameters(sel=faiss.IDSelectorArray(allowed))
        _, found = self.flat.search(query[None], LIMIT, params=among)
        return [key + 1 for key in found[0].tolist() if key >= 0]


class Tuned(ByHand):
    """As `Flat`, with what memstore itself has found to be quicker: the harder opponent, at any size of filter.

    `faiss.knn` over one NumPy matrix, called without its Python wrapper, and the keys of a filter as one text: SQLite
    gives and NumPy reads it five times faster than as many rows.
    """

    index = "faiss.knn over a NumPy matrix, exact, one thread; array selector under a filter, from one text of keys"
    packages = ("faiss-cpu", "numpy")

    def read(self) -> None:
        import faiss  # late: the peers' environments have none

        self._faiss = faiss
        faiss.omp_set_num_threads(1)
        self.stored()

    def _allowed(self, filter: Filter) -> Keys:
        (text,) = self._asked("group_concat(pk)", filter).fetchone()
        return np.fromstring(text or "", np.int64, sep=",") - 1

    def grow(self, vectors: Vectors) -> None:
        self.matrix[self.rows : self.rows + len(vectors)] = vectors
        self.rows += len(vectors)

    def nearest(self, query: Vectors, allowed: Keys | None) -> list[int]:
        faiss, sims, found = self._faiss, np.empty(LIMIT, np.float32), np.empty(LIMIT, np.int64)
        selector = None if allowed is None else faiss.IDSelectorArray(len(allowed), faiss.swig_ptr(allowed))
        faiss.knn_inner_product(
            faiss.swig_ptr(query), faiss.swig_ptr(self.matrix), self.made.dimension, 1, self.rows, LIMIT,
            faiss.swig_ptr(sims), faiss.swig_ptr(found), selector,
        )  # fmt: skip
        return [key + 1 for key in found.tolist() if key >= 0]


class Graph(ByHand):
    """An HNSW graph by usearch, saved beside the database by `settle`. Its effort is set by `tune`."""

    index = "usearch HNSW: connectivity 16, expansion 128 when adding"
    packages = ("usearch", "numpy")

    def read(self) -> None:
        from usearch.index import Index  # late: memstore's own environment has none

        self.graph = Index(ndim=self.made.dimension, metric="cos", dtype="f32", connectivity=16, expansion_add=128)
        self.graph.expansion_search = 128
        file = self.folder / "graph.usearch"
        if file.exists():
            self.graph.load(str(file))

    def grow(self, vectors: Vectors) -> None:
        first = len(self.graph) + 1
        self.graph.add(np.arange(first, first + len(vectors)), vectors, threads=0)

    async def settle(self) -> None:
        await super().settle()
        self.graph.save(str(self.folder / "graph.usearch"))

    def tune(self, effort: int) -> None:
        """Set the effort of searches."""
        self.graph.expansion_search = effort

    def nearest(self, query: Vectors, allowed: Keys | None) -> list[int]:
        if allowed is not None:
            raise Unsupported("usearch takes no filter in Python")
        return self.graph.search(query, LIMIT).keys.tolist()

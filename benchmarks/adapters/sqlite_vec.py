"""sqlite-vec: a `vec0` table with the columns that filters compare, beside an ordinary table of rows."""

import json
from pathlib import Path
from typing import Any

from benchmarks.adapters.extension_sqlite3 import sqlite3  # isort: skip - before sqlite_vec imports its own
import sqlite_vec

from benchmarks.adapters import Hit, Item, System, Unsupported
from benchmarks.workset import LIMIT, Filter, item_key

_SCHEMA = """
CREATE TABLE memory (
    pk INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, content TEXT NOT NULL, tags TEXT NOT NULL, metadata TEXT NOT NULL
);
CREATE VIRTUAL TABLE nearest USING vec0 (
    pk INTEGER PRIMARY KEY, vector FLOAT[{}] DISTANCE_METRIC=cosine, bucket INTEGER, closeness INTEGER
);
"""
_SEARCH = """
SELECT memory.* FROM (SELECT pk, distance FROM nearest WHERE vector MATCH ? AND k = ? {}) AS hit
JOIN memory ON memory.pk = hit.pk ORDER BY hit.distance
"""


class SqliteVec(System):
    """Compares every vector inside SQLite."""

    durability = "WAL, synchronous=FULL, one fsync a commit"
    durability_label = "FULL"
    index = "vec0: exact, compares every vector"
    packages = ("sqlite-vec", "pysqlite3")

    async def open(self, folder: Path) -> None:
        self._connection = sqlite3.connect(str(folder / "memories.db"), isolation_level=None)
        self._connection.enable_load_extension(True)
        sqlite_vec.load(self._connection)
        self._connection.enable_load_extension(False)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        if not self._connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            self._connection.executescript(_SCHEMA.format(self.workset.dimension))

    def prepare(self, items: list[Item], keys: range | None = None) -> Any:
        keys = keys or range(items[0].row + 1, items[-1].row + 2)
        rows, vectors = [], []
        for key, item in zip(keys, items, strict=True):
            metadata = item.metadata
            rows.append((key, item_key(key - 1), item.content, json.dumps(item.tags), json.dumps(metadata)))
            vectors.append((key, item.vector.tobytes(), metadata["bucket"], metadata["closeness"]))
        return rows, vectors, [(key,) for key in keys]

    async def bulk(self, rows: Any) -> None:
        memory_rows, vectors, _ = rows
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("INSERT INTO memory VALUES (?, ?, ?, ?, ?)", memory_rows)
        self._connection.executemany("INSERT INTO nearest (pk, vector, bucket, closeness) VALUES (?, ?, ?, ?)", vectors)
        self._connection.execute("COMMIT")

    async def search(self, query: int, filter: Filter | None = None) -> list[Hit]:
        if filter is not None and filter.tag:
            raise Unsupported("vec0 columns cannot hold lists")
        condition = f"AND {filter.field} < {filter.below}" if filter is not None else ""
        rows = self._connection.execute(_SEARCH.format(condition), (self.workset.queries[query].tobytes(), LIMIT))
        return [Hit(row[0] - 1, row[2], json.loads(row[3]), json.loads(row[4])) for row in rows]

    def prepare_changes(self, start: int, stop: int) -> Any:
        replacements = list(self.workset.items(self.workset.rows - stop, self.workset.rows - start))
        return self.prepare(replacements, range(start + 1, stop + 1))

    async def delete(self, changes: Any) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("DELETE FROM memory WHERE pk = ?", changes[2])
        self._connection.executemany("DELETE FROM nearest WHERE pk = ?", changes[2])
        self._connection.execute("COMMIT")

    async def upsert(self, changes: Any) -> None:
        rows, vectors, keys = changes
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("INSERT OR REPLACE INTO memory VALUES (?, ?, ?, ?, ?)", rows)
        self._connection.executemany("DELETE FROM nearest WHERE pk = ?", keys)  # vec0 does not support REPLACE
        self._connection.executemany("INSERT INTO nearest (pk, vector, bucket, closeness) VALUES (?, ?, ?, ?)", vectors)
        self._connection.execute("COMMIT")

    async def close(self) -> None:
        self._connection.close()

"""sqlite-vec: a `vec0` table with the columns that filters ask for, beside an ordinary table of rows."""

import json
from pathlib import Path
from typing import Any

from benchmarks.adapters.withvec import sqlite3  # isort: skip - before sqlite_vec imports its own
import sqlite_vec

from benchmarks.adapters import Found, Item, System, Unsupported
from benchmarks.workset import LIMIT, Filter

_SCHEMA = """
CREATE TABLE memory (
    pk INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, content TEXT NOT NULL, tags TEXT NOT NULL, metadata TEXT NOT NULL
);
CREATE VIRTUAL TABLE nearest USING vec0 (
    pk INTEGER PRIMARY KEY, vector FLOAT[{}] DISTANCE_METRIC=cosine, shelf INTEGER, near INTEGER
);
"""
_SEARCH = """
SELECT memory.* FROM (SELECT pk, distance FROM nearest WHERE vector MATCH ? AND k = ? {}) AS hit
JOIN memory ON memory.pk = hit.pk ORDER BY hit.distance
"""


class SqliteVec(System):
    """Every vector is compared, inside SQLite."""

    durability = "WAL, synchronous=FULL, one fsync a commit"
    kept = "FULL"
    index = "vec0: exact, every vector is compared"
    packages = ("sqlite-vec", "pysqlite3")

    async def open(self, folder: Path) -> None:
        self._base = sqlite3.connect(str(folder / "memories.db"), isolation_level=None)
        self._base.enable_load_extension(True)
        sqlite_vec.load(self._base)
        self._base.enable_load_extension(False)
        self._base.execute("PRAGMA journal_mode=WAL")
        self._base.execute("PRAGMA synchronous=FULL")
        if not self._base.execute("SELECT 1 FROM sqlite_master").fetchone():
            self._base.executescript(_SCHEMA.format(self.made.dimension))

    def prepare(self, items: list[Item], keys: range | None = None) -> Any:
        keys = keys or range(items[0].row + 1, items[-1].row + 2)
        rows, vectors = [], []
        for key, item in zip(keys, items, strict=True):
            told = item.metadata
            rows.append((key, f"m-{key - 1:07d}", item.content, json.dumps(item.tags), json.dumps(told)))
            vectors.append((key, item.vector.tobytes(), told["shelf"], told["near"]))
        return rows, vectors, [(key,) for key in keys]

    async def bulk(self, prepared: Any) -> None:
        rows, vectors, _ = prepared
        self._base.execute("BEGIN IMMEDIATE")
        self._base.executemany("INSERT INTO memory VALUES (?, ?, ?, ?, ?)", rows)
        self._base.executemany("INSERT INTO nearest (pk, vector, shelf, near) VALUES (?, ?, ?, ?)", vectors)
        self._base.execute("COMMIT")

    async def search(self, query: int, filter: Filter | None = None) -> list[Found]:
        if filter is not None and filter.tag:
            raise Unsupported("vec0 columns hold no lists")
        condition = f"AND {filter.field} < {filter.below}" if filter is not None else ""
        rows = self._base.execute(_SEARCH.format(condition), (self.made.queries[query].tobytes(), LIMIT))
        return [Found(row[0] - 1, row[2], json.loads(row[3]), json.loads(row[4])) for row in rows]

    def rows_for_changes(self, start: int, stop: int) -> Any:
        new = list(self.made.items(self.made.rows - stop, self.made.rows - start))
        return self.prepare(new, range(start + 1, stop + 1))

    async def delete(self, prepared: Any) -> None:
        self._base.execute("BEGIN IMMEDIATE")
        self._base.executemany("DELETE FROM memory WHERE pk = ?", prepared[2])
        self._base.executemany("DELETE FROM nearest WHERE pk = ?", prepared[2])
        self._base.execute("COMMIT")

    async def upsert(self, prepared: Any) -> None:
        rows, vectors, keys = prepared
        self._base.execute("BEGIN IMMEDIATE")
        self._base.executemany("INSERT OR REPLACE INTO memory VALUES (?, ?, ?, ?, ?)", rows)
        self._base.executemany("DELETE FROM nearest WHERE pk = ?", keys)  # vec0 knows no REPLACE
        self._base.executemany("INSERT INTO nearest (pk, vector, shelf, near) VALUES (?, ?, ?, ?)", vectors)
        self._base.execute("COMMIT")

    async def close(self) -> None:
        self._base.close()

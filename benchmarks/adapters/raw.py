"""The fixed baseline of writes: memstore's own tables, filled by bare `sqlite3`.

The file is one that memstore made: its tables, indexes, constraints and triggers. The rows are those memstore itself
would write, taken ready-made from a store that it filled (`template.db`): keys, ids, checksums and JSON are there
before the clock starts. The connection has the pragmas of memstore's writer. No index is kept, nothing is validated.
"""

import shutil
import sqlite3
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.adapters import Found, Item, System, Unsupported
from benchmarks.workset import Filter, Vectors

TEMPLATE = "template.db"
EMPTY = "empty.db"
FILE = "memories.db"
TABLES = ("namespace", "memory", "memory_vector", "tag", "memory_tag")
"""What memstore fills by statements, in an order that foreign keys allow; everything else is filled by triggers."""

_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "temp_store=MEMORY",
    "cache_size=-16000",
    "secure_delete=FAST",
    "wal_autocheckpoint=0",  # as memstore where SQLite has the WAL-reset bug: it checkpoints after the answer
)

Rows = dict[str, list[tuple[Any, ...]]]


class Raw(System):
    """`executemany` per table, `synchronous=FULL`. Its searches fetch the ten right rows, which it is told."""

    durability = "WAL, synchronous=FULL, one fsync a commit"
    kept = "FULL"
    index = "none: it is told which rows to fetch"

    async def open(self, folder: Path) -> None:
        path = folder / FILE
        if not path.exists():
            shutil.copyfile(self.made.folder / EMPTY, path)
        self.base = sqlite3.connect(path, isolation_level=None)
        for pragma in _PRAGMAS:
            self.base.execute(f"PRAGMA {pragma}")
        self._template = sqlite3.connect(f"file:{self.made.folder / TEMPLATE}?mode=ro", uri=True)
        self._columns = {table: self._named(table) for table in TABLES}
        self._statements = {
            table: f"INSERT INTO {table} ({','.join(columns)}) VALUES ({','.join('?' * len(columns))})"
            for table, columns in self._columns.items()
        }
        self._truth: list[list[int]] = []

    def _named(self, table: str) -> list[str]:
        return [row[1] for row in self._template.execute(f"PRAGMA table_info({table})")]

    def prepare(self, items: list[Item]) -> Rows:
        keys = items[0].row + 1, items[-1].row + 1
        whole = items[0].row == 0
        return {
            "namespace": self._rows("namespace") if whole else [],
            "memory": self._rows("memory", "pk", keys),
            "memory_vector": self._rows("memory_vector", "memory_pk", keys),
            "tag": self._rows("tag") if whole else [],
            "memory_tag": self._rows("memory_tag", "memory_pk", keys),
        }

    def _rows(self, table: str, key: str = "", keys: tuple[int, ...] = ()) -> list[tuple[Any, ...]]:
        within = f"WHERE {key} BETWEEN ? AND ? ORDER BY {key}" if key else ""
        return self._template.execute(f"SELECT {','.join(self._columns[table])} FROM {table} {within}", keys).fetchall()

    async def bulk(self, prepared: Rows) -> None:
        self.base.execute("BEGIN IMMEDIATE")
        for table, rows in prepared.items():
            if rows:
                self.base.executemany(self._statements[table], rows)
        self.base.execute("COMMIT")

    async def settle(self) -> None:
        self.base.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def tell(self, rows: list[list[int]]) -> None:
        """The exact answers, query by query: what its searches fetch."""
        self._truth = rows

    async def search(self, query: int, filter: Filter | None = None) -> list[Found]:
        if filter is not None:
            raise Unsupported("it searches nothing")
        keys = [row + 1 for row in self._truth[query]]
        marks = ",".join("?" * len(keys))
        memories = self.base.execute(f"SELECT pk, id, content, metadata FROM memory WHERE pk IN ({marks})", keys)
        rows = {row[0]: row for row in memories}
        tags: dict[int, list[str]] = {}
        carried = "SELECT memory_pk, name FROM memory_tag JOIN tag ON tag.pk = tag_pk WHERE memory_pk IN"
        for pk, name in self.base.execute(f"{carried} ({marks})", keys):
            tags.setdefault(pk, []).append(name)
        return [Found(key - 1, rows[key][2], tags[key], rows[key][3]) for key in keys]

    def rows_for_changes(self, start: int, stop: int) -> Any:
        rows = self.made.rows
        new = self.prepare(list(self.made.items(rows - stop, rows - start)))
        keys = range(start + 1, stop + 1)
        back = dict(zip(range(rows - stop + 1, rows - start + 1), keys, strict=True))
        at = {name: self._columns["memory"].index(name) for name in ("pk", "content", "metadata")}
        now = time.time_ns() // 1_000
        return {
            "keys": [(key,) for key in keys],
            "memory": [(row[at["content"]], row[at["metadata"]], now, back[row[at["pk"]]]) for row in new["memory"]],
            "vector": self._moved("memory_vector", new["memory_vector"], back),
            "tags": self._moved("memory_tag", new["memory_tag"], back),
        }

    def _moved(self, table: str, rows: list[tuple[Any, ...]], back: dict[int, int]) -> list[tuple[Any, ...]]:
        at = self._columns[table].index("memory_pk")
        return [(*row[:at], back[row[at]], *row[at + 1 :]) for row in rows]

    async def delete(self, prepared: Any) -> None:
        self.base.execute("BEGIN IMMEDIATE")
        self.base.executemany("DELETE FROM memory WHERE pk = ?", prepared["keys"])  # the rest goes by cascade
        self.base.execute("COMMIT")

    async def upsert(self, prepared: Any) -> None:
        self.base.execute("BEGIN IMMEDIATE")
        changed = "UPDATE memory SET content = ?, metadata = ?, updated_at = ? WHERE pk = ?"
        self.base.executemany(changed, prepared["memory"])
        self.base.executemany("DELETE FROM memory_tag WHERE memory_pk = ?", prepared["keys"])
        self.base.executemany(self._statements["memory_tag"], prepared["tags"])
        replace = self._statements["memory_vector"].replace("INSERT", "INSERT OR REPLACE")
        self.base.executemany(replace, prepared["vector"])
        self.base.execute("COMMIT")

    def read(self) -> Vectors:
        """Every stored vector, read as fast as plain `sqlite3` goes: float32 (or 16), shape (rows, dimension)."""
        (size,) = self.base.execute("SELECT length(vector) FROM memory_vector LIMIT 1").fetchone()
        kind = np.float32 if size == 4 * self.made.dimension else np.float16
        into = np.empty((self.made.rows + self.made.extra, self.made.dimension), kind)
        cursor = self.base.execute("SELECT vector FROM memory_vector")
        at = 0
        while some := cursor.fetchmany(64):
            block = np.frombuffer(b"".join(row[0] for row in some), kind).reshape(len(some), -1)
            into[at : at + len(some)] = block
            at += len(some)
        return into[:at]

    async def close(self) -> None:
        self._template.close()
        self.base.close()

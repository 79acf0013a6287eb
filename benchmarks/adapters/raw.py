"""The baseline of writes: memstore's own tables, filled by the `sqlite3` module.

The file is an empty memstore store, with its tables, indexes, constraints and triggers. The rows are those that
memstore writes; they come from a store that memstore filled (`template.db`), so keys, ids, checksums and JSON exist
before the clock starts. The connection has the pragmas of memstore's writer. It keeps no index and no history and
validates nothing.
"""

import shutil
import sqlite3
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.adapters import Hit, Item, System, Unsupported
from benchmarks.workset import Filter

TEMPLATE = "template.db"
EMPTY = "empty.db"
FILE = "memories.db"
TABLES = ("namespace", "memory", "memory_vector", "tag", "memory_tag")
"""The tables that memstore fills by statements, in foreign-key order. Triggers fill the others."""

_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "temp_store=MEMORY",
    "cache_size=-16000",
    "secure_delete=FAST",
    "wal_autocheckpoint=0",  # like memstore on a SQLite with the WAL-reset bug: checkpoints follow the answer
)

Rows = dict[str, list[tuple[Any, ...]]]


class Raw(System):
    """One `executemany` a table. A search fetches the ten exact rows, which `set_answers` provides."""

    durability = "WAL, synchronous=FULL, one fsync a commit"
    durability_label = "FULL"
    index = "none: fetches known rows"

    async def open(self, folder: Path) -> None:
        path = folder / FILE
        if not path.exists():
            shutil.copyfile(self.workset.folder / EMPTY, path)
        self.connection = sqlite3.connect(path, isolation_level=None)
        for pragma in _PRAGMAS:
            self.connection.execute(f"PRAGMA {pragma}")
        self._template = sqlite3.connect(f"file:{self.workset.folder / TEMPLATE}?mode=ro", uri=True)
        self._columns = {
            table: [row[1] for row in self._template.execute(f"PRAGMA table_info({table})")] for table in TABLES
        }
        self._inserts = {
            table: f"INSERT INTO {table} ({','.join(columns)}) VALUES ({','.join('?' * len(columns))})"
            for table, columns in self._columns.items()
        }
        self._answers: list[list[int]] = []

    def prepare(self, items: list[Item]) -> Rows:
        keys = items[0].row + 1, items[-1].row + 1
        first = items[0].row == 0
        return {
            "namespace": self._template_rows("namespace") if first else [],
            "memory": self._template_rows("memory", "pk", keys),
            "memory_vector": self._template_rows("memory_vector", "memory_pk", keys),
            "tag": self._template_rows("tag") if first else [],
            "memory_tag": self._template_rows("memory_tag", "memory_pk", keys),
        }

    def _template_rows(self, table: str, key: str = "", keys: tuple[int, ...] = ()) -> list[tuple[Any, ...]]:
        where = f"WHERE {key} BETWEEN ? AND ? ORDER BY {key}" if key else ""
        return self._template.execute(f"SELECT {','.join(self._columns[table])} FROM {table} {where}", keys).fetchall()

    async def bulk(self, rows: Rows) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        for table, table_rows in rows.items():
            if table_rows:
                self.connection.executemany(self._inserts[table], table_rows)
        self.connection.execute("COMMIT")

    async def settle(self) -> None:
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    async def set_answers(self, rows: list[list[int]]) -> None:
        self._answers = rows

    async def search(self, query: int, filter: Filter | None = None) -> list[Hit]:
        if filter is not None:
            raise Unsupported("it searches nothing")
        keys = [row + 1 for row in self._answers[query]]
        marks = ",".join("?" * len(keys))
        memories = self.connection.execute(f"SELECT pk, id, content, metadata FROM memory WHERE pk IN ({marks})", keys)
        rows = {row[0]: row for row in memories}
        tags: dict[int, list[str]] = {}
        statement = "SELECT memory_pk, name FROM memory_tag JOIN tag ON tag.pk = tag_pk WHERE memory_pk IN"
        for pk, name in self.connection.execute(f"{statement} ({marks})", keys):
            tags.setdefault(pk, []).append(name)
        return [Hit(key - 1, rows[key][2], tags[key], rows[key][3]) for key in keys]

    def prepare_changes(self, start: int, stop: int) -> Any:
        rows = self.workset.rows
        replacements = self.prepare(list(self.workset.items(rows - stop, rows - start)))
        keys = range(start + 1, stop + 1)
        targets = dict(zip(range(rows - stop + 1, rows - start + 1), keys, strict=True))
        pk, content, metadata = (self._columns["memory"].index(name) for name in ("pk", "content", "metadata"))
        now = time.time_ns() // 1_000
        return {
            "keys": [(key,) for key in keys],
            "memory": [(row[content], row[metadata], now, targets[row[pk]]) for row in replacements["memory"]],
            "memory_vector": self._retarget("memory_vector", replacements, targets),
            "memory_tag": self._retarget("memory_tag", replacements, targets),
        }

    def _retarget(self, table: str, rows: Rows, targets: dict[int, int]) -> list[tuple[Any, ...]]:
        """The rows of a table with the primary key of the memory that they replace."""
        pk = self._columns[table].index("memory_pk")
        return [(*row[:pk], targets[row[pk]], *row[pk + 1 :]) for row in rows[table]]

    async def delete(self, changes: Any) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.executemany("DELETE FROM memory WHERE pk = ?", changes["keys"])  # cascades to the other tables
        self.connection.execute("COMMIT")

    async def upsert(self, changes: Any) -> None:
        execute, executemany = self.connection.execute, self.connection.executemany
        execute("BEGIN IMMEDIATE")
        executemany("UPDATE memory SET content = ?, metadata = ?, updated_at = ? WHERE pk = ?", changes["memory"])
        executemany("DELETE FROM memory_tag WHERE memory_pk = ?", changes["keys"])
        executemany(self._inserts["memory_tag"], changes["memory_tag"])
        replace = self._inserts["memory_vector"].replace("INSERT", "INSERT OR REPLACE")
        executemany(replace, changes["memory_vector"])
        execute("COMMIT")

    async def read_vectors(self) -> int:
        """Read every stored vector as fast as `sqlite3` allows; return their number."""
        (size,) = self.connection.execute("SELECT length(vector) FROM memory_vector LIMIT 1").fetchone()
        dtype = np.float32 if size == 4 * self.workset.dimension else np.float16
        vectors = np.empty((self.workset.rows + self.workset.extra_rows, self.workset.dimension), dtype)
        cursor = self.connection.execute("SELECT vector FROM memory_vector")
        count = 0
        while rows := cursor.fetchmany(64):
            vectors[count : count + len(rows)] = np.frombuffer(b"".join(row[0] for row in rows), dtype).reshape(
                len(rows), -1
            )
            count += len(rows)
        return count

    async def close(self) -> None:
        self._template.close()
        self.connection.close()

"""What is compared. A system is opened on a file of its own, filled once, searched, closed.

To add one, write a subclass of `System` and name it in `SYSTEMS`. Whatever a system may do before the clock starts
(making the file, encoding rows, importing libraries) belongs in `open`, and what it needs between filling and
searching in `ready`.
"""

import asyncio
import json
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection

import memstore
from benchmarks.data import Data
from memstore.database.file import configure, sync_engine
from memstore.fields import now, to_micros
from memstore.records import new_id
from memstore.settings import Settings
from memstore.vectors import checksum

Query = npt.NDArray[np.float32]


class System(ABC):
    """One way to keep memories. Methods are coroutines for all, so that all are timed by the same code."""

    @abstractmethod
    async def open(self, path: Path, data: Data) -> None:
        """Make the file, and do whatever is not to be timed."""

    @abstractmethod
    async def bulk(self) -> None:
        """Store all memories durably. Timed."""

    @abstractmethod
    async def ready(self) -> None:
        """Do once, after `bulk`, what the first search would otherwise pay for. Not timed."""

    @abstractmethod
    async def search(self, query: Query, limit: int) -> list[str]:
        """The contents of the nearest memories, best first; their tags and metadata are fetched too. Timed."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of the file."""


class Memstore(System):
    """This library, filled by one call of `memories.add_many` or of `store.load`."""

    def __init__(self, *, by_load: bool = False) -> None:
        self._by_load = by_load

    async def open(self, path: Path, data: Data) -> None:
        self._items = data.items
        self._query = data.queries[0]
        self.store = await memstore.open(path, dimension=data.vectors.shape[1])
        await self.store.memories.search(self._query)  # loads the index, so that it follows every commit from now on

    async def bulk(self) -> None:
        if self._by_load:
            await self.store.load(self._items)
        else:
            await self.store.memories.add_many(self._items)

    async def ready(self) -> None:
        await self.store.compact()
        await self.store.memories.search(self._query)

    async def search(self, query: Query, limit: int) -> list[str]:
        return [hit.memory.content for hit in await self.store.memories.search(query, limit)]

    async def close(self) -> None:
        await self.store.close()


class Raw(System):
    """By hand: prebuilt rows through `sqlite3`, one bare `faiss.knn`, and the rows it names.

    The file is one that memstore made: its tables, indexes, constraints, triggers. The connection has the pragmas of
    memstore's own writer, `synchronous=FULL` among them.
    """

    def __init__(self, *, triggers: bool = True) -> None:
        self._triggers = triggers

    async def open(self, path: Path, data: Data) -> None:
        import faiss  # late, as the store does: a bulk add never needs it

        self._faiss = faiss
        faiss.omp_set_num_threads(1)
        dimension = data.vectors.shape[1]
        async with memstore.open(path, dimension=dimension):
            pass
        self._base, self._connection = _connected(path)
        if not self._triggers:
            names = self._base.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
            for (name,) in names:
                self._base.execute(f"DROP TRIGGER {name}")
        self._rows = _encoded(data)
        self._matrix = data.vectors / np.linalg.norm(data.vectors, axis=1, keepdims=True)

    async def bulk(self) -> None:
        base = self._base
        base.execute("BEGIN IMMEDIATE")
        base.execute("INSERT INTO namespace (pk, path) VALUES (1, '')")
        for table, rows in self._rows.items():
            base.executemany(f"INSERT INTO {table} VALUES ({','.join('?' * len(rows[0]))})", rows)
        base.execute("COMMIT")

    async def ready(self) -> None:
        self._base.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    async def search(self, query: Query, limit: int) -> list[str]:
        return self._searched(query, limit)

    def _searched(self, query: Query, limit: int) -> list[str]:
        metric = self._faiss.METRIC_INNER_PRODUCT
        _, found = self._faiss.knn(query[None], self._matrix, limit, metric=metric)
        keys = (found[0] + 1).tolist()
        marks = ",".join("?" * len(keys))
        memories = self._base.execute(f"SELECT pk, id, content, metadata FROM memory WHERE pk IN ({marks})", keys)
        rows = {row[0]: row for row in memories}
        tags: dict[int, list[str]] = {}
        carried = "SELECT memory_pk, name FROM memory_tag JOIN tag ON tag.pk = tag_pk WHERE memory_pk IN"
        for pk, name in self._base.execute(f"{carried} ({marks})", keys):
            tags.setdefault(pk, []).append(name)
        return [rows[key][2] for key in keys]

    async def close(self) -> None:
        self._connection.close()
        self._rows = {}


class RawOnThread(Raw):
    """The same searches by hand, each run on a thread of its own as an asyncio application has to.

    What it adds to the bare baseline is the price of two thread switches here and now: little on a quiet machine,
    several milliseconds on a busy one.
    """

    async def open(self, path: Path, data: Data) -> None:
        await super().open(path, data)
        self._thread = ThreadPoolExecutor(1, initializer=self._faiss.omp_set_num_threads, initargs=(1,))

    async def search(self, query: Query, limit: int) -> list[str]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._searched, query, limit)

    async def close(self) -> None:
        self._thread.shutdown()
        await super().close()


def _connected(path: Path) -> tuple[sqlite3.Connection, Connection]:
    base = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection = sync_engine(lambda: base).connect()  # `configure` takes SQLAlchemy's connection
    configure(Settings(path=str(path)), writes=True)(connection)
    return base, connection


def _encoded(data: Data) -> dict[str, list[tuple[Any, ...]]]:
    """All rows but the namespace's, by table, in the order of their columns."""
    at = to_micros(now())
    names = sorted({name for item in data.items for name in item["tags"]})
    tags = {name: pk for pk, name in enumerate(names, 1)}
    memories, vectors, carried = [], [], []
    for pk, item in enumerate(data.items, 1):
        metadata = json.dumps(item["metadata"], separators=(",", ":"))
        memories.append((pk, 1, new_id(), item["content"], metadata, 0.5, at, at, None, None, 0))
        blob = item["embedding"].tobytes()
        vectors.append((pk, 1, blob, checksum(blob)))
        carried.extend((pk, key) for key in sorted(tags[name] for name in item["tags"]))
    return {
        "memory": memories,
        "memory_vector": vectors,
        "tag": [(pk, 1, name) for name, pk in tags.items()],
        "memory_tag": carried,
    }


RAW = "raw"
SYSTEMS: dict[str, Callable[[], System]] = {
    RAW: Raw,
    "raw, no triggers": partial(Raw, triggers=False),
    "raw, on a thread": RawOnThread,
    "add_many": Memstore,
    "load": partial(Memstore, by_load=True),
}


def named(names: Iterable[str]) -> dict[str, Callable[[], System]]:
    """The systems of *names*, the baseline always among them and first."""
    return {name: SYSTEMS[name] for name in dict.fromkeys([RAW, *names])}

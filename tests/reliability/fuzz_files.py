"""Store files with arbitrary contents, made from a seed, opened and used by a process with limits of time and memory."""

# ruff: noqa: E501 - tables of values read better across

import asyncio
import json
import random
import resource
import shutil
import sqlite3
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np

import memstore
from memstore import GraphOptions, MemstoreError, Store
from tests.support.children import Child, Link

ROOT = Path(__file__).parents[2]
DIMENSION = 4
MEMORY = 6 * 2**30  # bytes of address space: threads and their arenas alone reserve one
SECONDS = 60.0  # for one file, on a busy machine

VALUES: list[Any] = [
    None, 0, 1, -1, 2, 3, 2**31, 2**53 + 1, 2**62, 2**63 - 1, -(2**63), 0.5, -0.0, 1e308, float("inf"), float("-inf"),
    "", "x", "0", "abc", "\ud7ff", "[]", "{}", "null", '{"a":1}', "[" * 3_000 + "]" * 3_000, '{"a":' * 3_000, "[1,", "é" * 8,
    "a" * 16, "/", "~", "a/b", "~2/", "cosine", "l2", "memory", "assembly", "0002", b"", b"\0" * 16, b"\xff" * 16,
    b"\0\0\xc0\x7f" * 4, b"\0\0\x80\x3f" * 4, b"x" * 15, b"\xff\xfe", bytes(range(64)), "a" * 100_000, b"\x80" * 100_000,
]  # fmt: skip
PARAMETERS: list[Any] = [None, -1, 0, 1, 3, 2**31, 2**39, 2**40, 2**63, 10**30, 0.5, "x", [], {}, True]


def make_store(path: Path) -> None:
    """Make a store with records of every kind, and a graph."""

    async def fill() -> None:
        rows = np.random.default_rng(1).standard_normal((400, DIMENSION)).astype(np.float32)
        async with memstore.open(
            path,
            dimension=DIMENSION,
            index=memstore.IndexOptions(kind="graph", graph=GraphOptions(m=4), engine="faiss"),
        ) as store:
            await store.memories.add_many(
                [{"content": f"m {i}", "id": f"m:{i}", "embedding": row, "tags": {"t", f"t{i % 3}"}, "metadata": {"i": i}}
                 for i, row in enumerate(rows)]
            )  # fmt: skip
            await store.namespace("a", "b").memories.add("below", id="m:0", embedding=rows[0], ttl=10**6)
            for i in range(3):
                await store.assemblies.add(f"g:{i}", members=[f"m:{i}", f"m:{i + 1}"], topics=["t"], tags={"t"})
            await store.memories.delete_many(ids=["m:10", "m:11"])
            await store.optimize()

    asyncio.run(fill())


@contextmanager
def unguarded(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to the file without the checks of SQLite."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        connection.execute("PRAGMA ignore_check_constraints=ON")
        connection.execute("PRAGMA writable_schema=ON")
        yield connection


Change = Callable[[sqlite3.Connection, random.Random], str]


def _value(rng: random.Random) -> Any:
    return rng.choice(VALUES)


def _tables(connection: sqlite3.Connection) -> list[str]:
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_stat%' ORDER BY name"
    return [name for (name,) in connection.execute(query)]


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]


def cell(connection: sqlite3.Connection, rng: random.Random) -> str:
    """Replace one column in one row or in all."""
    table = rng.choice([t for t in _tables(connection) if t != "index_chunk" or rng.random() < 0.3])
    column, value = rng.choice(_columns(connection, table)), _value(rng)
    key = "rowid" if "WITHOUT ROWID" not in _sql(connection, table) else "1"
    condition = rng.choice(["", f"WHERE {key} = (SELECT {key} FROM {table} LIMIT 1 OFFSET {rng.randrange(5)})"])
    connection.execute(f"UPDATE OR REPLACE {table} SET {column} = ? {condition}", (value,))
    return f"{table}.{column} = {value!r:.60} {condition}"


def _sql(connection: sqlite3.Connection, name: str) -> str:
    return str(connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).fetchone()[0])


def row(connection: sqlite3.Connection, rng: random.Random) -> str:
    """Insert or replace a row of arbitrary values."""
    table = rng.choice(_tables(connection))
    values = [_value(rng) for _ in _columns(connection, table)]
    connection.execute(f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * len(values))})", values)
    return f"{table}: {values!r:.200}"


def no_rows(connection: sqlite3.Connection, rng: random.Random) -> str:
    """Delete all rows of a table."""
    table = rng.choice(_tables(connection))
    connection.execute(f"DELETE FROM {table}")
    return f"no rows in {table}"


def header(connection: sqlite3.Connection, rng: random.Random) -> str:
    """Replace a parameter in the header of the snapshots."""
    snapshots = connection.execute("SELECT pk, parameters FROM index_snapshot").fetchall()
    for pk, text in snapshots:
        parameters = json.loads(text)
        name, value = rng.choice(list(parameters)), rng.choice(PARAMETERS)
        parameters[name] = value
        connection.execute("UPDATE index_snapshot SET parameters = ? WHERE pk = ?", (json.dumps(parameters), pk))
    return f"snapshots with {name} = {value!r}" if snapshots else "no snapshot"


def options(connection: sqlite3.Connection, rng: random.Random) -> str:
    """Replace the stored index options."""
    value = rng.choice(["x", 5, [], {"graph": 5}, {"graph": {"m": 10**9}}, {"index": "ivf"}, {"index": []}, {"x": 1}, None,
                        {"graph": {"x": {}}}, {"vector_type": "float16", "index": "graph", "graph": {}}])  # fmt: skip
    connection.execute("UPDATE store_meta SET index_options = ?", (json.dumps(value),))
    return f"index_options {value!r}"


def dropped(connection: sqlite3.Connection, rng: random.Random) -> str:
    """Drop a table, an index or a trigger."""
    kinds = "('table', 'index', 'trigger')"
    objects = f"SELECT type, name FROM sqlite_master WHERE type IN {kinds} AND name NOT LIKE 'sqlite_%' ORDER BY name"
    kind, name = rng.choice(connection.execute(objects).fetchall())
    connection.execute(f"DROP {kind} {name}")
    return f"no {kind} {name}"


CHANGES: list[Change] = [cell, cell, cell, cell, row, row, no_rows, header, options, dropped]


def change_file(path: Path, rng: random.Random) -> str:
    """Change the file by raw SQL, one to three times; return a description."""
    changes = []
    with unguarded(path) as connection:
        for _ in range(rng.choice([1, 1, 2, 3])):
            with suppress(sqlite3.Error, OverflowError, UnicodeError):
                changes.append(rng.choice(CHANGES)(connection, rng))
    return "; ".join(changes)


# -- the other process


async def used(path: str) -> list[str]:
    """Open the store and call its verbs; return the memstore errors."""
    errors: list[str] = []

    async def tried(name: str, call: Any) -> None:
        try:
            async with asyncio.timeout(SECONDS * 0.8):
                if hasattr(call, "__anext__"):
                    async for _ in call:
                        pass
                else:
                    await call
        except MemstoreError as error:
            errors.append(f"{name}: {type(error).__name__}: {error}"[:300])

    await tried("verify", memstore.verify(path))
    await tried("restore", memstore.restore_backup(path, f"{path}.restored", timeout=2))
    for read_only in (True, False):
        try:
            store = await memstore.open(path, read_only=read_only, timeout=2)
        except MemstoreError as error:
            errors.append(f"open: {type(error).__name__}: {error}"[:300])
            continue
        async with store:
            for name, call in _calls(store, writes=not read_only):
                await tried(name, call())
    return errors


def _calls(store: Store, *, writes: bool) -> Iterator[tuple[str, Callable[[], Any]]]:
    ones = np.ones(store.dimension or 4, np.float32)
    yield "search", lambda: store.memories.search(ones, recursive=True)
    yield "search by tag", lambda: store.memories.search(ones, tags={"t"}, where={"metadata.i": {"$gt": 3}})
    yield "search assemblies", lambda: store.assemblies.search(ones)
    yield "list", lambda: store.memories.list(recursive=True)
    yield "list by time", lambda: store.memories.list(order="-updated_at", recursive=True)
    yield "list assemblies", lambda: store.assemblies.list(recursive=True)
    yield "members", lambda: store.assemblies.members("g:1")
    yield "tags", lambda: store.tags.list()
    yield "namespaces", lambda: store.namespaces()
    yield "stats", lambda: store.stats()
    yield "check", lambda: store.check()
    if writes:
        yield "add", lambda: store.memories.upsert("x", id="new", embedding=ones, tags={"t"})
        yield "update", lambda: store.memories.update("m:1", embedding=ones, metadata={"i": 1})
        yield "add assembly", lambda: store.assemblies.upsert("g:new", members=["m:3"])
        yield "delete", lambda: store.memories.delete("m:2")
        yield "optimize", lambda: store.optimize()
        yield "repair", lambda: store.repair()
        yield "search again", lambda: store.memories.search(ones)
        yield "compact", lambda: store.compact()


async def open_files(link: Link) -> None:
    """Open each file that the parent names; send the memstore errors, or a description of any other end."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("error", ResourceWarning)
    while True:
        path = await link.receive()
        try:
            link.send({"errors": await used(path)})
        except BaseException:
            link.send({"failure": traceback.format_exc(limit=-6)})


class Opener:
    """A process that opens files; it is restarted when it dies or hangs."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._child: Child | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def open(self, path: Path) -> dict[str, Any]:
        """The result of opening *path*: `errors`, the memstore errors; or `failure`, any other end."""
        if self._child is None:
            self._child = self._stack.enter_context(Child(open_files))
        try:
            self._child.send(str(path))
            return dict(self._child.receive(SECONDS))
        except AssertionError as error:
            self._stack.close()
            self._child = None
            return {"failure": str(error)}


def run(seed: int, count: int, folder: Path) -> list[str]:
    """Make and open *count* files; return a description of each failure."""
    original = folder / "whole.db"
    make_store(original)
    failures = []
    with Opener() as opener:
        for number in range(seed, seed + count):
            path = folder / "changed.db"
            shutil.copy(original, path)
            changes = change_file(path, random.Random(number))
            answer = opener.open(path)
            if "failure" in answer:
                failures.append(f"seed {number}: {changes}: {answer['failure']}")
            for file in folder.glob("changed.db*"):
                file.unlink()
    return failures

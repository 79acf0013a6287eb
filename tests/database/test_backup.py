"""Backups of a store that is in use, and `verify`, which describes a file without changing it."""

import asyncio
import os
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memstore
from memstore import ForeignFileError, InvalidError, MissingFileError, NewerFileError
from memstore.database import backup_copy
from memstore.database.inspect import HEAD
from memstore.maintenance import backup, check
from memstore.schema.tables import VERSION_TABLE
from tests.conftest import DIMENSION, vectors
from tests.database.test_migrations import frozen
from tests.support.children import Child, Link

BATCH = 20


async def write_batches(link: Link, path: Path, name: str) -> None:
    """Write batch after batch until this process is killed; send a message after the first."""
    async with memstore.open(path, durability="relaxed") as store:
        for number in count():
            await store.memories.add_many(batch(name, number))
            if number == 0:
                link.send("first batch")


def batch(name: str, number: int) -> list[dict[str, Any]]:
    embedding = [1.0, number, 1, 1, 1, 1, 1, 1]
    return [{"id": f"{name}:{number}:{i}", "content": "x" * 500, "embedding": embedding} for i in range(BATCH)]


def sql(path: Path, statement: str, *parameters: object) -> list[Any]:
    with closing(sqlite3.connect(path, isolation_level=None)) as base:
        return base.execute(statement, parameters).fetchall()


def files_beside(path: Path) -> set[str]:
    """The names of the files that SQLite or a backup made beside *path*."""
    return {p.name for p in path.parent.iterdir() if p.name.startswith(path.name)} - {path.name}


@asynccontextmanager
async def another_writer(path: Path, name: str) -> AsyncIterator[None]:
    """Another process that writes batches; the first is stored."""
    with Child(write_batches, path, name) as child:
        await asyncio.to_thread(child.receive)
        yield


# -- backup


async def test_backup_during_writes_of_a_task_and_a_process_is_one_consistent_snapshot(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = path.with_name("copy.bak")
    begun, written_meanwhile = threading.Event(), threading.Event()

    def copy_while_written(*arguments: Any) -> None:
        *others, progress = arguments

        def step(done: int, total: int) -> None:
            begun.set()
            assert written_meanwhile.wait(30), "nothing was written meanwhile"
            progress(done, total)

        backup_copy.copy_file(*others, step)

    monkeypatch.setattr(backup, "copy_file", copy_while_written)
    async with memstore.open(path, dimension=DIMENSION, durability="relaxed") as store:
        await store.memories.add_many([{"content": "x" * 5_000} for _ in range(2_000)])
        written, stop = 0, asyncio.Event()

        async def write() -> None:
            nonlocal written
            while not stop.is_set():
                late = begun.is_set()
                await store.memories.add_many(batch("here", written))
                written += 1
                if late:
                    written_meanwhile.set()

        async with another_writer(path, "there"):
            writing = asyncio.create_task(write())
            async with asyncio.timeout(60):
                await store.backup(copy)
            stop.set()
            await writing
    assert written_meanwhile.is_set()
    async with memstore.open(copy) as copied:
        assert await copied.check() == []
        batches: dict[tuple[str, int], int] = {}
        async for memory in copied.memories.list():
            if ":" in memory.id:
                name, number, _ = memory.id.split(":")
                batches[name, int(number)] = batches.get((name, int(number)), 0) + 1
    assert set(batches.values()) == {BATCH}, "the copy has a part of a batch"
    for name in ("here", "there"):
        numbers = sorted(number for owner, number in batches if owner == name)
        assert numbers == list(range(len(numbers))), "the copy has a batch without the one before it"


async def test_reading_a_backup_creates_no_file_beside_it(path: Path) -> None:
    copy = path.with_name("copy.bak")
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("x", id="a", embedding=[1, 2])
        await store.backup(copy)
        assert files_beside(copy) == set()
        content = copy.read_bytes()
        async with memstore.open(copy, read_only=True) as reader:
            assert (await reader.memories.search([1, 2]))[0].memory.id == "a"
            assert files_beside(copy) == set()
        assert (await memstore.verify(copy)).findings == []
    assert copy.read_bytes() == content
    assert files_beside(copy) == set()


async def test_of_two_backups_to_one_path_one_succeeds_and_the_other_raises(path: Path) -> None:
    copy = path.with_name("copy.bak")
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add_many([{"content": "x" * 5_000} for _ in range(1_000)])
        ended = await asyncio.gather(store.backup(copy), store.backup(copy), return_exceptions=True)
    assert sorted(type(e).__name__ for e in ended) == ["InvalidError", "NoneType"]
    assert (await memstore.verify(copy)).memories == 1_000


async def test_backup_overwrites_no_file_and_creates_no_folder(path: Path) -> None:
    notes = path.with_name("notes.txt")
    notes.write_text("mine")
    async with memstore.open(path, dimension=2) as store:
        for target in (notes, path, path.parent):
            with pytest.raises(InvalidError, match="overwrites no file"):
                await store.backup(target)
        with pytest.raises(MissingFileError, match="creates only files"):
            await store.backup(path.parent / "nowhere" / "copy.bak")
        assert await store.check() == []
    assert notes.read_text() == "mine"
    assert sorted(os.listdir(path.parent)) == ["notes.txt", "store.db"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
async def test_backup_has_the_read_permissions_of_the_store(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        path.chmod(0o600)
        await store.backup(path.with_name("copy.bak"))
    assert stat.S_IMODE(path.with_name("copy.bak").stat().st_mode) == 0o600


async def test_cancelled_backup_ends_and_leaves_no_file(path: Path) -> None:
    copy = path.with_name("copy.bak")
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add_many([{"content": "x" * 50_000} for _ in range(2_000)])
        progress: list[int] = []

        def stop(done: int, total: int) -> None:
            progress.append(done * 100 // total)
            task.cancel()

        task = asyncio.ensure_future(store.backup(copy, on_progress=stop))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not copy.exists()
        assert progress[-1] < 90, "the copy went on to its end"
        await store.backup(copy)
    assert (await memstore.verify(copy)).memories == 2_000


# -- verify


async def test_verify_describes_a_file_and_does_not_change_it(path: Path, rng: np.random.Generator) -> None:
    async with memstore.open(path, dimension=DIMENSION, metric="l2") as store:
        rows = vectors(rng, 3)
        await store.memories.add_many([{"id": str(i), "content": "x", "embedding": row} for i, row in enumerate(rows)])
        await store.memories.add("gone", ttl=-1)
        await store.namespace("a").assemblies.add("g")
        last = (await store.namespace("a").assemblies.get("g")).updated_at
    content = path.read_bytes()
    report = await memstore.verify(str(path))
    assert report == memstore.models.VerifyReport(
        path=str(path),
        file_bytes=len(content),
        revision=HEAD,
        dimension=DIMENSION,
        metric="l2",
        curvature=None,
        embedder=None,
        memories=3,
        assemblies=1,
        changed_at=last,
        findings=[],
    )
    assert path.read_bytes() == content


async def test_verify_reads_a_store_that_others_write_to(path: Path) -> None:
    async with memstore.open(path, dimension=DIMENSION) as store:
        await store.memories.add("x", embedding=[1.0] * 8)
        async with another_writer(path, "there"):
            report = await memstore.verify(path)
    assert report.findings == []
    assert (report.memories - 1) % BATCH == 0
    assert report.memories > BATCH


async def test_verify_does_not_upgrade_an_older_file(path: Path) -> None:
    old = frozen(path, "0001")
    content = old.read_bytes()
    report = await memstore.verify(old)
    assert (report.revision, report.findings) == ("0001", [])
    assert report.memories > 0
    assert old.read_bytes() == content
    assert sql(old, f"SELECT version_num FROM {VERSION_TABLE}") == [("0001",)]
    sql(old, "UPDATE memory_vector SET checksum = checksum + 1 WHERE rowid = 1")
    assert [f.kind for f in (await memstore.verify(old)).findings] == ["checksum"]


def garbage(path: Path, start: int, size: int) -> None:
    data = bytearray(path.read_bytes())
    data[start : start + size] = os.urandom(size)
    path.write_bytes(data)


DAMAGE = {
    "checksum": lambda p: sql(p, "UPDATE memory_vector SET checksum = 1 WHERE rowid = 1"),
    "wrong_dimension": lambda p: sql(p, "UPDATE memory_vector SET vector = x'00000000' WHERE rowid = 1"),
    "foreign_key": lambda p: sql(p, "DELETE FROM memory WHERE pk = 1"),
    "composite": lambda p: sql(p, "UPDATE assembly_vector SET vector = zeroblob(length(vector)), checksum = NULL"),
    "integrity": lambda p: garbage(p, 5 * 8_192, p.stat().st_size - 5 * 8_192),
    "cut off": lambda p: os.truncate(p, 3 * 8_192),
    "schema": lambda p: garbage(p, 100, 4_000),
}


@pytest.fixture
async def small(path: Path) -> Path:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add_many([{"id": str(i), "content": "x", "embedding": [1, i]} for i in range(20)])
        await store.assemblies.add("g", members=["1", "2"])
    return path


@pytest.mark.parametrize("kind", DAMAGE)
async def test_verify_finds(kind: str, small: Path) -> None:
    assert (await memstore.verify(small)).findings == []
    DAMAGE[kind](small)
    report = (await memstore.verify(small)).findings
    assert (kind if kind in ("checksum", "wrong_dimension", "foreign_key", "composite") else "integrity") in {
        finding.kind for finding in report
    }


async def test_verify_refuses_foreign_and_newer_files(small: Path) -> None:
    foreign = small.with_name("other")
    with pytest.raises(MissingFileError):
        await memstore.verify(foreign)
    foreign.touch()
    with pytest.raises(MissingFileError, match="no store"):
        await memstore.verify(foreign)
    foreign.write_text("notes " * 1_000)
    with pytest.raises(ForeignFileError):
        await memstore.verify(foreign)
    sql(small, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(NewerFileError):
        await memstore.verify(small)
    with pytest.raises(InvalidError):
        await memstore.verify(":memory:")


async def test_cancelled_verify_ends(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began, ended = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def lengthy(connection: Any, spaces: Any) -> list[memstore.models.Finding]:
        loop.call_soon_threadsafe(began.set)
        connection.exec_driver_sql(
            "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t LIMIT 50000000) SELECT max(n) FROM t"
        )
        ended.set()
        return []

    monkeypatch.setattr(check, "check_file", lengthy)
    verifying = asyncio.ensure_future(memstore.verify(small))
    await began.wait()
    verifying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await verifying
    assert not ended.is_set()

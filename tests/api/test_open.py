"""Opening: what a new file needs, what an existing one insists on, and what is left behind."""

import asyncio
import os
import sqlite3
import struct
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Literal

import pytest
from sqlalchemy import Connection

import memstore
from memstore import (
    DamagedError,
    ForeignFileError,
    InvalidError,
    MissingFileError,
    SettingsMismatchError,
    StorageError,
)
from memstore.config import Settings
from memstore.database import backup_copy, database
from memstore.database.engine import configure, switch_to_wal, sync_engine, uri
from memstore.database.file_identity import OpenedFile
from memstore.schema.tables import APPLICATION_ID
from memstore.testing import HashEmbedder
from tests.support.index_options import with_index


async def test_a_failed_open_leaves_no_file(path: Path) -> None:
    with pytest.raises(InvalidError, match="has no curvature"):
        await memstore.open(path, metric="l2", curvature=2.0)
    assert list(path.parent.iterdir()) == []
    with pytest.raises(MissingFileError):
        await memstore.open(path, dimension=2, read_only=True)
    assert list(path.parent.iterdir()) == []


async def test_read_only_open_of_a_file_without_a_store_raises(path: Path) -> None:
    memstore.migrate(str(path))
    with pytest.raises(MissingFileError, match="contains no store yet"):
        await memstore.open(path, read_only=True)
    async with memstore.open(path, dimension=2) as store:
        assert await store.check() == []


async def test_an_empty_file_becomes_a_store_as_a_missing_one_does(path: Path) -> None:
    path.touch()
    async with memstore.open(path) as store:
        await store.memories.add("x", id="x", embedding=[1.0, 0.0])
        assert [hit.memory.id for hit in await store.memories.search([1.0, 0.0])] == ["x"]
        assert await store.check() == []


async def test_update_repairs_damaged_metadata(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("x", id="x")
        with closing(sqlite3.connect(path)) as base, base:
            base.execute("PRAGMA ignore_check_constraints=ON")
            base.execute("UPDATE memory SET metadata = '{'")
        base.close()
        with pytest.raises(DamagedError, match=r"memory\.metadata of 'x': expected JSON object"):
            await store.memories.get("x")
        assert (await store.memories.update("x", metadata={"k": 1})).metadata == {"k": 1}


async def test_open_creates_no_folder(path: Path) -> None:
    with pytest.raises(MissingFileError, match="creates only files"):
        await memstore.open(path.parent / "none" / "store.db", dimension=2)
    with pytest.raises(FileNotFoundError):
        await memstore.open(path.parent / "none" / "store.db", dimension=2)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        {"dimension": 0},
        {"dimension": 65_537},
        {"dimension": 2.0},
        {"dimension": True},
        {"metric": "euclid"},
        {"timeout": -1},
        {"timeout": "soon"},
        {"durability": "off"},
        {"engine": "gpu"},
        {"embedder": object()},
    ],
)
def test_invalid_argument_raises_before_the_file_is_opened(path: Path, options: dict[str, object]) -> None:
    with pytest.raises(InvalidError):
        memstore.open(path, **with_index({"dimension": 2, **options}))
    with pytest.raises(InvalidError):
        memstore.open(":memory:", dimension=2)
    assert list(path.parent.iterdir()) == []


async def test_open_can_be_awaited_or_entered(path: Path) -> None:
    store = await memstore.open(path, dimension=2)
    await store.close()
    async with memstore.open(path) as store:
        assert (store.dimension, store.metric) == (2, "cosine")
    assert "closed" in repr(store)


@pytest.mark.parametrize("name", ["a b.db", "ünï ✓.db", "per%20cent?x=1#y.db", "a:b.db", "'quoted'.db"])
async def test_any_file_name_works(tmp_path: Path, name: str) -> None:
    async with memstore.open(tmp_path / name, dimension=2) as store:
        await store.memories.add("x", embedding=[1, 2])
        assert {f.name for f in tmp_path.iterdir()} == {name, f"{name}-wal", f"{name}-shm"}
    assert [f.name for f in tmp_path.iterdir()] == [name]
    async with memstore.open(tmp_path / name, read_only=True) as store:
        assert await store.memories.count() == 1


async def test_relative_path_works_after_a_change_of_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with memstore.open("store.db", dimension=2) as store:
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path / "other")
        await store.memories.add("x")
        assert (await store.stats()).file_bytes > 0
    assert os.listdir(tmp_path / "other") == []


async def test_another_embedder_than_the_stored_one_is_refused(path: Path) -> None:
    async with memstore.open(path, dimension=64):
        pass
    async with memstore.open(path, embedder=HashEmbedder()) as store:
        assert (await store.stats()).embedder is None
        await store.memories.add("x")
        assert (await store.stats()).embedder == HashEmbedder().name
    with pytest.raises(SettingsMismatchError):
        await memstore.open(path, embedder=HashEmbedder(seed=5))
    async with memstore.open(path) as store:  # without one, by vectors alone
        assert (await store.stats()).embedder == HashEmbedder().name


def run_without_close(path: Path, ending: str) -> str:
    """Run a program that opens a store at *path* as `store` and does not close it; its stderr."""
    program = f"""
import asyncio, gc, memstore
async def main():
    global store
    store = await memstore.open({str(path)!r}, dimension=2)
    await store.memories.add('x')
    {ending}
asyncio.run(main())
"""
    command = [sys.executable, "-W", "default", "-c", program]
    return subprocess.run(command, timeout=240, capture_output=True, text=True, check=True).stderr


def test_unclosed_store_warns(path: Path) -> None:
    assert "was not closed: use `async with`" in run_without_close(path, "del store; gc.collect()")


def test_program_that_does_not_close_its_store_ends(path: Path) -> None:
    run_without_close(path, "")
    assert asyncio.run(_count(path)) == 1


async def _count(path: Path) -> int:
    async with memstore.open(path) as store:
        return await store.memories.count()


async def test_damaged_file_raises_our_error(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add_many([{"content": "x" * 500} for _ in range(200)])
    data = bytearray(path.read_bytes())
    data[100:4000] = os.urandom(3900)
    path.write_bytes(data)
    with pytest.raises((DamagedError, memstore.ForeignFileError)):
        await memstore.open(path)


async def test_backup_is_a_complete_store_and_overwrites_nothing(path: Path, tmp_path: Path) -> None:
    progress: list[tuple[int, int]] = []
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add_many([{"id": str(i), "content": "x" * 1000, "embedding": [1, i]} for i in range(500)])
        copy = tmp_path / "copy.db"
        await store.backup(copy, on_progress=lambda done, total: progress.append((done, total)))
        await store.memories.add("after")
        with pytest.raises(InvalidError, match="overwrites no file"):
            await store.backup(copy)
        await asyncio.sleep(0)
    assert progress[-1][0] == progress[-1][1] > 0
    async with memstore.open(copy) as copied:
        assert await copied.memories.count() == 500
        assert len(await copied.memories.search([1, 5], 500)) == 500
        assert await copied.check() == []


async def test_compact_shrinks_the_file(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add_many([{"content": "x" * 5000, "tags": {"t"}} for _ in range(500)])
        await store.clear()
        await store._database.checkpoint()
        before = (await store.stats()).file_bytes
        freed = await store.compact()
        after = await store.stats()
        assert freed > 2_000_000
        assert after.file_bytes <= before - 2_000_000
        assert after.wal_bytes == 0
        assert (after.memories, after.tags, after.namespaces) == (0, 0, 0)


def _disable_auto_vacuum(path: Path) -> None:
    """Rewrite the file without auto-vacuum, as another tool may."""
    with closing(sqlite3.connect(path, isolation_level=None)) as base, base:
        base.execute("PRAGMA journal_mode=DELETE")
        base.execute("PRAGMA auto_vacuum=0")
        base.execute("VACUUM")
    base.close()


async def test_compact_frees_no_negative_number_of_bytes_when_the_file_grows(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add_many([{"content": "x" * 100} for _ in range(200)])
    _disable_auto_vacuum(path)
    before = path.stat().st_size
    async with memstore.open(path) as store:
        assert await store.compact() == 0
    assert path.stat().st_size > before


async def test_compact_works_without_incremental_vacuum(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add_many([{"content": "x" * 5000} for _ in range(100)])
        await store.clear()
    _disable_auto_vacuum(path)
    async with memstore.open(path) as store, asyncio.timeout(20):
        await store.memories.add_many([{"content": "x" * 5000} for _ in range(100)])
        await store.clear()
        assert await store.compact() > 100_000
        assert await store.check() == []


async def test_backup_during_writes_ends_and_has_its_own_epoch(path: Path, tmp_path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add_many([{"content": "x" * 10_000, "embedding": [1, i]} for i in range(2_000)])
        stop = asyncio.Event()

        async def write() -> int:
            written = 0
            while not stop.is_set():
                await store.memories.add("meanwhile", embedding=[1, 1])
                written += 1
            return written

        writing = asyncio.create_task(write())
        async with asyncio.timeout(60):
            await store.backup(tmp_path / "copy.db")
        stop.set()
        assert await writing > 0
        async with memstore.open(path, read_only=True) as reader:
            await reader.backup(tmp_path / "second.db")
        epoch = await store._database.read(lambda c: c.exec_driver_sql("SELECT epoch FROM store_meta").scalar_one())
    async with memstore.open(tmp_path / "copy.db") as copied:
        assert await copied.check() == []
        assert await copied.memories.count() >= 2_000
        other = await copied._database.read(lambda c: c.exec_driver_sql("SELECT epoch FROM store_meta").scalar_one())
    assert other != epoch


async def test_old_read_transaction_does_not_delay_writers(path: Path) -> None:
    import time

    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("x")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN")
        other.execute("SELECT * FROM memory").fetchall()
        await store.memories.add_many([{"content": "x" * 10_000} for _ in range(2_500)])
        begun = time.monotonic()
        for _ in range(40):
            await store.memories.add("y")
        assert time.monotonic() - begun < 30  # one try of a second, not one a write
        other.execute("ROLLBACK")
        other.close()


async def pragmas(store: memstore.Store, *names: str) -> list[int]:
    """What the writer's connection says of each."""

    def step(connection: Connection) -> list[int]:
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names]

    return await store._database._writer.thread.submit(step)


async def test_relaxed_durability_syncs_less(path: Path) -> None:
    names = "synchronous", "fullfsync", "checkpoint_fullfsync"
    async with memstore.open(path, dimension=2, durability="relaxed") as store:
        assert await pragmas(store, *names) == [1, 0, 1]
        assert (await store.stats()).durability == "relaxed"
    async with memstore.open(path) as store:
        assert await pragmas(store, *names) == [2, 1, 1]


async def test_background_checkpoints_limit_the_write_ahead_log(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        for _ in range(5):
            await store.memories.add_many([{"content": "x" * 10_000} for _ in range(600)])
        async with asyncio.timeout(60):
            while (await store.stats()).wal_bytes >= 16 * 1024 * 1024:
                await asyncio.sleep(0.05)


async def test_change_log_is_trimmed_and_an_older_index_is_rebuilt(path: Path) -> None:
    async with memstore.open(path, dimension=2) as one, memstore.open(path) as two:
        await two.memories.search([1, 0])
        for start in range(0, 30_000, 6_000):
            await one.memories.upsert_many(
                [{"id": str(i % 50), "content": str(i), "embedding": [1, i]} for i in range(start, start + 50)]
            )
            await one.memories.add_many(
                [{"id": str(start + i), "content": "x", "embedding": [i + 1, 1]} for i in range(50, 6_000)]
            )
        bounds = await one._database.read(
            lambda c: c.exec_driver_sql("SELECT min(seq), max(seq) FROM change_log").one()
        )
        assert 9_000 < bounds[1] - bounds[0] < 22_000
        hits = await two.memories.search([1, 24_000], 3)
        assert hits[0].memory.content == "24001" or hits[0].score > 0.999
        assert await two.check() == await one.check() == []


def half_made(path: Path, *, first_page: bool, pages_before: int = 0) -> None:
    """The file as a process leaves it that is killed, or a power cut, in the moment in which it is first written."""
    with closing(sqlite3.connect(path)) as base:
        base.execute("PRAGMA page_size=8192")
        base.execute(f"PRAGMA application_id={APPLICATION_ID}")
        base.execute("CREATE TABLE t (x)")
        base.execute("CREATE TABLE u (x)")
    pages = path.read_bytes()
    path.write_bytes((pages if first_page else bytes(8192))[:8192])
    head = bytes.fromhex("d9d505f920a163d7") + struct.pack(">5I", 0, 7, pages_before, 512, 8192)
    path.with_name(f"{path.name}-journal").write_bytes(head.ljust(512, b"\0"))


@pytest.mark.parametrize("first_page", [True, False])
async def test_file_with_an_interrupted_creation_is_created_at_the_next_open(path: Path, first_page: bool) -> None:
    half_made(path, first_page=first_page)
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("a", embedding=[1, 0])
        assert await store.check() == []


async def test_older_foreign_file_is_not_an_interrupted_creation(path: Path) -> None:
    half_made(path, first_page=False, pages_before=3)
    before = path.read_bytes()
    with pytest.raises(ForeignFileError):
        await memstore.open(path, dimension=2)
    assert path.read_bytes() == before


async def test_failed_connection_raises_our_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "migrate", lambda path, timeout: None)  # as if the last descriptor went after it
    before = set(threading.enumerate())
    with pytest.raises(StorageError, match="cannot be opened"):
        await memstore.open(path, dimension=2)
    for thread in set(threading.enumerate()) - before:
        thread.join()  # aiosqlite's, which tells the loop of its end


def test_file_damaged_during_open_raises_our_error(path: Path) -> None:
    path.write_bytes(b"no longer a database" * 1_000)
    with pytest.raises(DamagedError):
        switch_to_wal(str(path), 1.0)


def test_read_only_connection_is_refused_for_writing(path: Path) -> None:
    """SQLite makes one where a file cannot be opened for writing at that moment, and says nothing."""
    memstore.migrate(str(path))
    setup = configure(Settings(path=str(path)), writes=True)

    def connected(mode: Literal["ro", "rw"]) -> Connection:
        return sync_engine(lambda: sqlite3.connect(uri(str(path), mode), uri=True, isolation_level=None)).connect()

    with connected("ro") as reads, pytest.raises(StorageError, match="cannot be written"):
        setup(reads)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with connected("rw") as writes:
            setup(writes)  # that another is writing says nothing against it


def test_failed_copy_that_cannot_be_deleted_reports_both_errors(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memstore.migrate(str(path))

    def refused(self: Path, missing_ok: bool = False) -> None:
        raise OSError("the disk is broken")

    def stop(done: int, total: int) -> None:
        raise RuntimeError("it stops here")

    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(RuntimeError, match="it stops here") as caught:
        backup_copy.copy_file(str(path), OpenedFile(str(path)), str(path.with_name("copy.db")), stop)
    assert "could not be deleted: the disk is broken" in caught.value.__notes__[0]


def test_failed_copy_leaves_no_file(path: Path) -> None:
    memstore.migrate(str(path))

    def stop(done: int, total: int) -> None:
        path.with_name("copy.db-journal").touch()  # as one that could not be deleted when the transaction ended
        raise RuntimeError("it stops here")

    with pytest.raises(RuntimeError, match="it stops here"):
        backup_copy.copy_file(str(path), OpenedFile(str(path)), str(path.with_name("copy.db")), stop)
    assert not list(path.parent.glob("copy.db*"))

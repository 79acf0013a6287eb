"""Ordinary acts of the host program lose no data."""

import asyncio
import logging
import os
import resource
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import memstore
from memstore import OpenError, Store, StoreReplacedError
from tests.support.children import Child, Link, children
from tests.support.programs import run_python
from tests.support.sql import execute

VECTOR = [1.0, 0.0]


async def ids(store: Store) -> list[str]:
    return [memory.id async for memory in store.memories.list()]


async def write_and_close(link: Link, path: Path, rounds: int = 3) -> list[str]:
    """Open the store, add a memory, and close it; several times. Returns the ids that were acknowledged."""
    added = []
    for _ in range(rounds):
        async with memstore.open(path) as store:
            added.append((await store.memories.add("of the other process", embedding=VECTOR)).id)
    return added


async def other_process(path: Path) -> list[str]:
    with Child(write_and_close, path) as child:
        return child.receive()


# The file is read, copied, or its log removed while it is open.


async def test_commits_survive_a_read_of_the_file_and_another_process_that_closes_it(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("before", id="before", embedding=VECTOR)
        path.read_bytes()
        others = await other_process(path)
        await store.memories.add("after", id="after", embedding=VECTOR)
    async with memstore.open(path) as store:
        assert set(await ids(store)) == {"before", "after", *others}


async def test_commits_survive_a_copy_of_the_whole_folder(path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    async with memstore.open(path, dimension=2) as store:
        for i in range(3):
            shutil.copytree(path.parent, tmp_path_factory.mktemp("copy") / "copy")
            others = await other_process(path)
            await store.memories.add("mine", id=f"mine-{i}", embedding=VECTOR)
            assert {f"mine-{i}", *others} <= set(await ids(store))
        assert await store.check() == []


@pytest.mark.parametrize("suffixes", [["-wal"], ["-shm"], ["-wal", "-shm"]])
async def test_deleted_log_is_noticed_before_a_write_and_what_was_acknowledged_is_kept(
    path: Path, suffixes: list[str]
) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("acknowledged", id="a", embedding=VECTOR)
        for suffix in suffixes:
            Path(f"{path}{suffix}").unlink()
        with pytest.raises(StoreReplacedError, match=r"(wal|shm)' was deleted"):
            await store.memories.add("refused", id="refused", embedding=VECTOR)
        others = await other_process(path)
    async with memstore.open(path) as store:
        assert set(await ids(store)) == {"a", *others}


# Two SQLite libraries in one process.

LIBRARIES = pytest.mark.parametrize(
    ("memstore_uses", "other"), [("pysqlite3", "sqlite3"), ("stdlib", "pysqlite3")], ids=["pysqlite3", "stdlib"]
)


@LIBRARIES
async def test_other_sqlite_library_may_not_connect_to_the_file_of_an_open_store(
    path: Path, memstore_uses: str, other: str
) -> None:
    assert two_libraries(path, memstore_uses, other, "store first") == ["UsageError", "1"]


@LIBRARIES
async def test_store_does_not_open_a_file_to_which_the_other_sqlite_library_has_a_connection(
    path: Path, memstore_uses: str, other: str
) -> None:
    assert two_libraries(path, memstore_uses, other, "connection first") == ["OpenError", "1"]


def two_libraries(path: Path, memstore_uses: str, other: str, order: str) -> list[str]:
    """The error of whichever comes second, and the number of memories that the store has at the end."""
    pytest.importorskip("pysqlite3")
    ended = run_python("-c", TWO_LIBRARIES, path, other, order, MEMSTORE_SQLITE=memstore_uses)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split()


TWO_LIBRARIES = """
import asyncio, importlib, sys
import memstore

path, other, order = sys.argv[1:]
library = importlib.import_module(other)

def connect():
    connection = library.connect(path)
    connection.execute("SELECT 1 FROM memory").fetchone()
    return connection

async def main():
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("a", embedding=[1, 0])
        if order == "store first":
            try:
                connect()
            except memstore.MemstoreError as error:
                print(type(error).__name__)
    if order == "connection first":
        connection = connect()
        try:
            await memstore.open(path)
        except memstore.MemstoreError as error:
            print(type(error).__name__)
        connection.close()
    async with memstore.open(path) as store:
        print(await store.memories.count())

asyncio.run(main())
"""

# Two names of one file.


async def test_file_with_two_names_is_not_opened(path: Path) -> None:
    async with memstore.open(path, dimension=2):
        pass
    other = path.with_name("other name.db")
    os.link(path, other)
    for name in (path, other):
        with pytest.raises(OpenError, match="2 names"):
            await memstore.open(name)
    other.unlink()
    async with memstore.open(path) as store:
        assert await store.memories.count() == 0


async def test_symbolic_link_that_is_switched_while_open_is_noticed(path: Path) -> None:
    blue, green = path.with_name("blue.db"), path.with_name("green.db")
    for target in (blue, green):
        async with memstore.open(target, dimension=2):
            pass
    path.symlink_to(blue)
    async with memstore.open(path) as store:
        path.unlink()
        path.symlink_to(green)
        with pytest.raises(StoreReplacedError, match="another file"):
            await store.memories.add("for the new file", embedding=VECTOR)
        path.unlink()
        path.symlink_to(blue)
        await store.memories.add("for the first file", embedding=VECTOR)
    async with memstore.open(blue) as store:
        assert await store.memories.count() == 1


# A full disk.


async def test_store_goes_on_when_the_disk_has_room_again(path: Path) -> None:
    with Child(write_without_room, path) as child:
        acknowledged, errors = child.receive()
    assert errors
    assert set(errors) <= {"StorageError", "CommitUnknownError"}
    async with memstore.open(path) as store:
        assert set(await ids(store)) == set(acknowledged)
        assert "after" in acknowledged
        assert await store.check() == []


async def write_without_room(link: Link, path: Path) -> tuple[list[str], list[str]]:
    """Add memories until nothing can be added, and again with room. The ids that were stored, and the errors."""
    acknowledged, errors = [], []
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("before", id="before", embedding=VECTOR)
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (Path(f"{path}-wal").stat().st_size + 100_000, resource.RLIM_INFINITY)
        )
        while len(errors) < 10:
            try:
                acknowledged.append((await store.memories.add("x" * 3000, embedding=VECTOR)).id)
            except memstore.StorageError as error:
                errors.append(type(error).__name__)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await store.memories.add("after", id="after", embedding=VECTOR)
    return ["before", *acknowledged, "after"], errors


# Snapshots of several processes.


async def optimize_a_file(link: Link, _: int, path: Path) -> list[str]:
    """In a process of its own: when told to, store the graph; the log records of that."""
    records: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("memstore").addHandler(handler)
    async with memstore.open(path) as store:
        await store.memories.search(np.ones(16))
        link.send("ready")
        await link.receive()
        await store.optimize()
    return records


async def test_two_processes_that_store_the_graph_at_once_leave_one_whole_snapshot(path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((50, 16))[rng.integers(0, 50, 3_000)] + 0.3 * rng.standard_normal((3_000, 16))).tolist()
    async with memstore.open(path, dimension=16, index=memstore.IndexOptions(kind="graph")) as store:
        await store.memories.add_many([{"content": "", "embedding": row} for row in rows])
    for turn in range(2):
        with children(2, optimize_a_file, path) as processes:
            for process in processes:
                assert await asyncio.to_thread(process.receive) == "ready"
            for process in processes:
                process.send("go")
            for process in processes:
                assert await asyncio.to_thread(process.receive) == []
        assert execute(path, "SELECT complete FROM index_snapshot WHERE space_pk = 1") == [(1,)], turn
        async with memstore.open(path) as store:
            assert await store.check() == []
            await store.memories.add_many([{"content": "", "embedding": row} for row in rows[: 1_000 + turn]])


# Interrupted backups, restores and exports.


async def test_backup_that_is_cancelled_at_any_time_leaves_no_file(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add_many([{"content": "x" * 3000, "embedding": VECTOR} for _ in range(300)])
        for steps in range(40):
            target = path.with_name("copy.bak")
            work = asyncio.ensure_future(store.backup(target))
            for _ in range(steps * steps):
                await asyncio.sleep(0)
            work.cancel()
            try:
                await work
            except asyncio.CancelledError:
                assert not target.exists()
            else:
                assert (await memstore.verify(target)).memories == 300
                target.unlink()


async def test_restore_that_is_killed_leaves_no_content_in_the_folder_for_temporary_files(path: Path) -> None:
    backup, temporary = path.with_name("copy.bak"), path.parent / "temporary"
    temporary.mkdir()
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add_many([{"content": "secret" * 500, "embedding": VECTOR} for _ in range(2_000)])
        await store.backup(backup)
    set_page_size(backup, 4096)
    for delay in (0.0, 0.01, 0.03, 0.1):
        with Child(restore, backup, path, temporary) as child:
            child.receive()
            await asyncio.sleep(delay)
            child.kill()
        assert not [file for file in temporary.rglob("*") if file.is_file() and b"secret" in file.read_bytes()]
    assert (await memstore.verify(path)).memories == 2_000


async def restore(link: Link, backup: Path, path: Path, temporary: Path) -> None:
    tempfile.tempdir = os.environ["SQLITE_TMPDIR"] = str(temporary)
    link.send("started")
    await memstore.restore_backup(backup, path)


def set_page_size(path: Path, size: int) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as base:
        base.execute(f"PRAGMA page_size={size}")
        base.execute("VACUUM")


# `tests/cli/test_interruption.py` and `tests/cli/test_import_export.py` have the exports of the command line.

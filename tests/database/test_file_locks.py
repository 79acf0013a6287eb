"""Locks of an open store that survive what drops SQLite's: every act of the host program that closes the file."""

import asyncio
import hashlib
import os
import shutil
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import memstore
from memstore import BusyError, Store, StoreReplacedError
from memstore.database import file_locks
from memstore.database.sqlite import SOURCE
from tests.support.children import Child, Link

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="open file description locks are Linux's")
VECTOR = [1.0, 0.0]


def read_all(path: Path) -> None:
    for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        name.read_bytes()


ACTS: dict[str, Callable[[Path], object]] = {
    "reads the file": lambda path: path.read_bytes(),
    "opens the file for writing": lambda path: path.open("ab").close(),
    "hashes it": lambda path: hashlib.sha256(path.read_bytes()),
    "copies it": lambda path: shutil.copy(path, path.with_name("copy")),
    "reads the file and its log": read_all,
    "reads the shm file": lambda path: Path(f"{path}-shm").read_bytes(),
}


async def add_and_close(link: Link, path: Path, count: int) -> list[str]:
    """Open, add, compact and close *count* times; the ids that were acknowledged."""
    ids: list[str] = []
    for i in range(count):
        async with memstore.open(path, timeout=30) as store:
            added = await store.memories.add_many([{"content": "x" * 2000, "embedding": VECTOR} for _ in range(5)])
            ids += [memory.id for memory in added]
            if i % 2:
                await store.compact()
    return ids


def raw_ids(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as base:
        assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return {id for (id,) in base.execute("SELECT id FROM memory")}


@contextmanager
def repeated(act: Callable[[], object]):
    """Another thread repeats *act* during the block."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.is_set():
            try:
                act()
            except FileNotFoundError:
                continue

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    "act",
    [pytest.param(act, id=name, marks=[pytest.mark.slow] * (i > 1)) for i, (name, act) in enumerate(ACTS.items())],
)
async def test_nothing_is_lost_when_the_process_closes_the_file_while_others_write(
    path: Path, act: Callable[[Path], object]
) -> None:
    acknowledged: list[str] = []
    async with memstore.open(path, dimension=2, timeout=30) as store:
        await store.memories.add("first", id="first", embedding=VECTOR)
        with repeated(lambda: act(path)), Child(add_and_close, path, 8) as child:
            while not child._link.poll():
                id = f"mine-{len(acknowledged)}"
                await store.memories.add("y" * 2000, id=id, embedding=VECTOR)
                acknowledged.append(id)
            others = child.receive()
        assert await store.check() == []
    assert {"first", *acknowledged, *others} <= raw_ids(path)
    assert len(others) == 40
    assert len(acknowledged) > 0


async def test_nothing_is_lost_when_the_file_is_read_inside_a_transaction(path: Path) -> None:
    async with memstore.open(path, dimension=2, timeout=30) as store:
        for i in range(3):
            async with store.transaction() as tx:
                await tx.memories.add("mine", id=f"mine-{i}", embedding=VECTOR)
                read_all(path)
                with Child(add_and_close, path, 1) as child:
                    await asyncio.sleep(0.2)
                    await tx.memories.add("mine too", id=f"mine-too-{i}", embedding=VECTOR)
                    assert not child._link.poll(), "the other process wrote during the transaction"
                    child.kill()
        assert {f"mine-{i}" for i in range(3)} | {f"mine-too-{i}" for i in range(3)} <= raw_ids(path)
        assert await store.check() == []


async def test_two_stores_of_one_process_share_the_locks(path: Path) -> None:
    async with memstore.open(path, dimension=2) as first:
        await first.memories.add("a", id="a", embedding=VECTOR)
        async with memstore.open(path) as second:
            await second.memories.add("b", id="b", embedding=VECTOR)
        with Child(add_and_close, path, 2) as child:
            others = child.receive()
        await first.memories.add("c", id="c", embedding=VECTOR)
        assert {"a", "b", "c", *others} <= raw_ids(path)
    assert not Path(f"{path}-wal").exists(), "the last connection deletes the log"


async def test_log_is_deleted_and_no_handle_stays_open_after_the_last_close(path: Path) -> None:
    for _ in range(3):
        async with memstore.open(path, dimension=2) as store:
            await store.memories.add("a", embedding=VECTOR)
    assert sorted(name.name for name in path.parent.iterdir()) == [path.name]
    status = path.stat()
    assert file_locks.open_handles()[file_locks.identity_of(status)] == 0


async def test_handles_stay_open_while_other_code_of_the_process_has_the_file_open(path: Path) -> None:
    """Closing them would drop the locks of that connection."""
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("a", id="a", embedding=VECTOR)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("SELECT 1 FROM memory").fetchone()
    identity = file_locks.identity_of(path.stat())
    with Child(add_and_close, path, 1) as child:
        child.receive()
    assert Path(f"{path}-wal").exists(), "the other process took itself for the last one"
    assert other.execute("SELECT count(*) FROM memory").fetchone() == (6,)
    other.close()
    async with memstore.open(path) as store:
        assert await store.memories.count() == 6
    assert file_locks.open_handles()[identity] == 0


async def test_log_is_switched_off_by_nobody_while_a_store_is_open(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        path.read_bytes()
        with Child(switch_log_off, path) as child:
            assert child.receive() == "wal"
        await store.memories.add("a", embedding=VECTOR)


async def switch_log_off(link: Link, path: Path) -> str:
    with closing(sqlite3.connect(path, timeout=0.1)) as base:
        try:
            return base.execute("PRAGMA journal_mode=DELETE").fetchone()[0]
        except sqlite3.OperationalError:
            return base.execute("PRAGMA journal_mode").fetchone()[0]


async def test_forked_child_leaves_the_locks_to_its_parent(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("a", embedding=VECTOR)
        path.read_bytes()
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        with Child(add_and_close, path, 1) as child:
            others = child.receive()
        added = await store.memories.add("b", embedding=VECTOR)
        assert {added.id, *others} <= raw_ids(path)


async def test_file_that_another_process_uses_exclusively_is_busy(path: Path) -> None:
    async with memstore.open(path, dimension=2):
        pass
    with Child(hold_exclusively, path) as child:
        child.receive()
        with pytest.raises(BusyError):
            await memstore.open(path, timeout=0.2)
        child.send("end")
        child.receive()
    async with memstore.open(path) as store:
        assert await store.memories.count() == 0


async def hold_exclusively(link: Link, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as base:
        base.execute("PRAGMA locking_mode=EXCLUSIVE")
        base.execute("BEGIN EXCLUSIVE")
        link.send("held")
        await link.receive()
        base.execute("ROLLBACK")


# -- without the locks, as on other systems


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_locks, "acquire", lambda path, timeout: None)


@pytest.mark.skipif(SOURCE != "sqlite3", reason="a read of the file does not drop the locks of the newest SQLite")
async def test_without_the_locks_a_deleted_log_is_noticed_before_a_write(path: Path, without_locks: None) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("a", id="a", embedding=VECTOR)
        path.read_bytes()
        with Child(add_and_close, path, 1) as child:
            others = child.receive()
        with pytest.raises(StoreReplacedError):
            await store.memories.add("b", id="b", embedding=VECTOR)
        with pytest.raises(StoreReplacedError):
            await store.memories.get("a")
    assert raw_ids(path) == {"a", *others}


async def test_without_the_locks_a_log_that_is_deleted_during_a_transaction_is_noticed_before_commit(
    path: Path, without_locks: None
) -> None:
    async with memstore.open(path, dimension=2) as store:
        with pytest.raises(StoreReplacedError):
            await _delete_log_inside_a_transaction(store, path)
    assert raw_ids(path) == set()


async def _delete_log_inside_a_transaction(store: Store, path: Path) -> None:
    async with store.transaction() as tx:
        await tx.memories.add("inside", id="inside", embedding=VECTOR)
        Path(f"{path}-wal").unlink()

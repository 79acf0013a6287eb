"""Ordinary acts of the host program lose no data."""

import os
import shutil
from pathlib import Path

import pytest

import memstore
from memstore import OpenError, Store, StoreReplacedError
from tests.support.children import Child, Link

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

# Snapshots of several processes.

# Interrupted backups, restores and exports.

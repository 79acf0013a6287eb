"""A store whose file is moved, deleted or replaced by other hands says so, and writes nothing anywhere."""

import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

import memstore
from memstore import StorageError, Store, StoreReplacedError
from memstore.config import Settings
from memstore.database import database
from memstore.database.connection_thread import ConnectionThread
from memstore.database.file_identity import OpenedFile

VECTOR = [1.0, 0.0]
SWEEPS: dict[str, Callable[[Path, Path], None]] = {
    "deleted": lambda path, other: path.unlink(),
    "moved away": lambda path, other: path.rename(path.with_name("away.db")),
    "replaced": lambda path, other: other.replace(path),
    "gone with its folder": lambda path, other: path.parent.rename(path.parent.with_name("elsewhere")),
    "gone with its folder, which is a file": lambda path, other: _as_file(path.parent),
}


def _as_file(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.touch()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder / "store.db"


@asynccontextmanager
async def filled(path: Path, content: str = "the one") -> AsyncIterator[Store]:
    """An open store with one memory, all of it in the file itself."""
    async with memstore.open(path, dimension=2, timeout=5.0) as store:
        await store.memories.add(content, id="a", embedding=VECTOR)
        await store.memories.search(VECTOR)
        await store.compact()
        yield store


async def other(path: Path) -> Path:
    """Another store's file."""
    async with filled(path.with_name("other.db"), "another"):
        return path.with_name("other.db")


async def _listed(store: Store) -> list[object]:
    return [memory async for memory in store.memories.list()]


async def _together(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.memories.add("x")


VERBS: dict[str, Callable[[Store], Awaitable[object]]] = {
    "add": lambda store: store.memories.add("x", embedding=VECTOR),
    "add_many": lambda store: store.memories.add_many([{"content": "x"}] * 200),
    "an add beyond the cache": lambda store: store.memories.add("x" * 20_000_000),
    "delete": lambda store: store.memories.delete("a"),
    "search": lambda store: store.memories.search(VECTOR),
    "search of assemblies": lambda store: store.assemblies.search(VECTOR),
    "get": lambda store: store.memories.get("a"),
    "list": _listed,
    "transaction": _together,
    "check": lambda store: store.check(),
    "repair": lambda store: store.repair(),
    "stats": lambda store: store.stats(),
    "optimize": lambda store: store.optimize(),
    "compact": lambda store: store.compact(),
    "backup": lambda store: store.backup(Path(store._database.settings.path).parent.with_name("copy.db")),
}


@pytest.mark.parametrize("sweep", SWEEPS.values(), ids=SWEEPS)
async def test_every_verb_raises_when_the_file_is_no_longer_at_its_path(
    path: Path, sweep: Callable[[Path, Path], None]
) -> None:
    another, moved = await other(path), path.parent.with_name("kept.db")
    async with filled(path) as store:
        os.link(path, moved)
        content = moved.read_bytes()
        with Path(f"{path}-wal").open("rb") as log:
            sweep(path, another)
            for name, verb in VERBS.items():
                with pytest.raises(StoreReplacedError, match="open the path again") as caught:
                    await verb(store)
                assert isinstance(caught.value, StorageError), name
            assert os.fstat(log.fileno()).st_size == 0, "the log of the file that was opened was written to"
    assert moved.read_bytes() == content
    assert not path.parent.with_name("copy.db").exists()
    copy = path.parent.with_name("alone.db")  # a file with two names is refused
    copy.write_bytes(content)
    async with memstore.open(copy) as moved_store:
        assert [memory.content async for memory in moved_store.memories.list()] == ["the one"]
        assert await moved_store.check() == []


async def test_transaction_is_not_committed_to_a_file_that_was_moved_meanwhile(path: Path) -> None:
    away = path.with_name("away.db")
    async with filled(path) as store:
        with pytest.raises(StoreReplacedError):
            async with store.transaction() as tx:
                await tx.memories.add("never", embedding=VECTOR)
                path.rename(away)
        away.rename(path)
        assert [memory.content async for memory in store.memories.list()] == ["the one"]
        assert len(await store.memories.search(VECTOR)) == 1


async def test_file_that_is_moved_back_is_used_again(path: Path) -> None:
    away = path.with_name("away.db")
    async with filled(path) as store:
        path.rename(away)
        with pytest.raises(StoreReplacedError, match="deleted or moved"):
            await store.memories.add("lost", embedding=VECTOR)
        away.rename(path)
        await store.memories.add("kept", id="b", embedding=[0.0, 1.0])
        assert [hit.memory.id for hit in await store.memories.search([0.0, 1.0])] == ["b", "a"]
        assert await store.check() == []


async def test_close_does_not_touch_the_log_of_a_replacing_file(path: Path) -> None:
    another = await other(path)
    async with AsyncExitStack() as first:
        await first.enter_async_context(filled(path))
        another.replace(path)
        async with memstore.open(path) as new:
            await new.memories.add("in the log", id="b", embedding=VECTOR)
            await first.aclose()
            assert Path(f"{path}-wal").stat().st_size > 0
            # As after a crash of whoever has it open: another connection reads what the log holds.
            with closing(sqlite3.connect(path)) as third:
                assert third.execute("SELECT count(*) FROM memory").fetchone() == (2,)
            assert await new.check() == []


async def test_checkpoint_does_not_write_to_a_moved_file(path: Path) -> None:
    """Whoever opens it where it lies may have begun another log for it."""
    away = path.with_name("away.db")
    async with filled(path) as store:
        await store.memories.add("in the log", id="b", embedding=VECTOR)
        content = path.read_bytes()
        path.rename(away)
    assert away.read_bytes() == content
    Path(f"{path}-wal").rename(f"{away}-wal")  # moved one after the other
    async with memstore.open(away) as moved:
        assert await moved.memories.count() == 2
        assert await moved.check() == []


async def test_file_that_is_replaced_during_open_is_detected(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with filled(path):
        pass
    another, connect = await other(path), database._connect

    async def late(settings: Settings, *arguments: Any) -> list[ConnectionThread]:
        threads = await connect(settings, *arguments)
        another.replace(path)
        return threads

    monkeypatch.setattr(database, "_connect", late)
    with pytest.raises(StoreReplacedError):
        await memstore.open(path)


async def test_backup_copies_the_opened_file_or_raises(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    another, check = await other(path), OpenedFile.check

    def then_replaced(opened: OpenedFile) -> None:
        check(opened)
        if another.exists():
            another.replace(path)

    async with filled(path) as store:
        monkeypatch.setattr(OpenedFile, "check", then_replaced)
        with pytest.raises(StoreReplacedError):
            await store.backup(path.with_name("copy.db"))
    assert not path.with_name("copy.db").exists()

"""`restore_backup` replaces the content of a file completely or not at all, also under stores that have it open."""

import asyncio
import os
import random
import resource
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memstore
from memstore import (
    BusyError,
    DamagedError,
    ForeignFileError,
    InvalidError,
    MissingFileError,
    NewerFileError,
    SettingsMismatchError,
    StorageError,
    Store,
    TransactionError,
)
from memstore.database import restore_copy
from memstore.database.inspect import HEAD
from memstore.maintenance import backup as backup_module
from memstore.schema.tables import VERSION_TABLE
from tests.conftest import DIMENSION, vectors
from tests.database.test_backup import DAMAGE, files_beside, sql
from tests.database.test_migrations import frozen
from tests.support.children import Child, Link

BOUND = 60.0


async def serve(link: Link, path: Path) -> None:
    """Answer requests of the parent, a verb and its argument, until it kills this process."""
    async with memstore.open(path) as store:
        link.send("open")
        while True:
            verb, argument = await link.receive()
            if verb == "search":
                link.send([[hit.memory.id, hit.memory.content] for hit in await store.memories.search(argument, 5)])
            elif verb == "add":
                link.send((await store.memories.add(**argument)).id)
            else:
                link.send([str(finding) for finding in await store.check()])


@contextmanager
def served(path: Path) -> Iterator[Child]:
    """A store in another process."""
    with Child(serve, path) as child:
        assert child.receive() == "open"
        yield child


async def ask(child: Child, verb: str, argument: Any = None) -> Any:
    child.send((verb, argument))
    return await asyncio.to_thread(child.receive)


async def restore_with_limits(link: Link, backup: Path, path: Path, page: int, max_bytes: int) -> str | None:
    """Restore, and return the name of the error.

    The process is killed once *page* pages are copied (negative: that many before the end), or can write no file
    larger than *max_bytes*. Zero means no limit.
    """
    backup_module.on_current_loop = lambda function: function
    restore_copy._PAGES = 1
    if max_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, max_bytes))

    def report(done: int, total: int) -> None:
        if page and (done if page > 0 else done - total) >= page:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        await memstore.restore_backup(backup, path, on_progress=report)
    except StorageError as error:
        return type(error).__name__
    return None


async def restore_with_notice(link: Link, backup: Path, path: Path) -> None:
    """Restore, and send a message when the transaction is about to begin."""
    replace = backup_module.replace_content

    def replace_with_notice(*arguments: Any) -> None:
        link.send("writing")
        replace(*arguments)

    backup_module.replace_content = replace_with_notice
    await memstore.restore_backup(backup, path)


async def make_store(path: Path, content: str, count: int = 5, **options: Any) -> Path:
    """A store of *count* memories with ids from 0 on, all of one *content*; the first is nearest to the first axis."""
    rng = np.random.default_rng(len(content))
    async with memstore.open(path, **{"dimension": DIMENSION, **options}) as store:
        rows = vectors(rng, count, store.dimension)
        rows[0] = np.eye(store.dimension)[0] * (1 + len(content))
        await store.memories.add_many(
            [{"id": str(i), "content": content, "embedding": row} for i, row in enumerate(rows)]
        )
        if count > 3:
            await store.assemblies.add("g", name=content, members=["1", "2"])
    return path


async def contents(path: Path) -> set[str]:
    async with memstore.open(path) as store:
        assert await store.check() == []
        return {memory.content async for memory in store.memories.list()}


def epoch(path: Path) -> str:
    (report,) = sql(path, "SELECT epoch FROM store_meta")
    return str(report[0])


AXIS = [1.0] + [0.0] * (DIMENSION - 1)


@pytest.fixture
async def old(path: Path) -> Path:
    """The file whose content is replaced."""
    return await make_store(path, "old")


@pytest.fixture
async def new(path: Path) -> Path:
    """The backup."""
    return await make_store(path.with_name("new.bak"), "new one", 7)


# -- content, progress, epochs


async def test_open_stores_of_three_processes_read_the_restored_content(old: Path, new: Path) -> None:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(memstore.open(old))
        reader = await stack.enter_async_context(memstore.open(old, read_only=True))
        children = [stack.enter_context(served(old)) for _ in range(2)]
        for child in children:
            assert (await ask(child, "search", AXIS))[0] == ["0", "old"]
        assert (await store.memories.search(AXIS))[0].memory.content == "old"
        assert (await reader.memories.search(AXIS))[0].memory.content == "old"
        report = await memstore.restore_backup(new, old)
        assert (report.memories, report.assemblies, report.path, report.findings) == (7, 1, str(new), [])
        for child in children:
            answer = await ask(child, "search", AXIS)
            assert answer[0] == ["0", "new one"]
            assert {content for _, content in answer} == {"new one"}
            assert await ask(child, "check") == []
        for local in (store, reader):
            hits = await local.memories.search(AXIS, 10)
            assert [hit.memory.content for hit in hits] == ["new one"] * 7
            assert (await local.assemblies.search(AXIS))[0].assembly.name == "new one"
            assert await local.check() == []
        assert await ask(children[0], "add", {"content": "since", "id": "since", "embedding": AXIS}) == "since"
        assert {hit.memory.id for hit in await store.memories.search(AXIS, 2)} == {"0", "since"}
        assert ["since", "since"] in await ask(children[1], "search", AXIS)


def run_on_the_copying_thread(patch: pytest.MonkeyPatch, pages: int) -> None:
    """Call `on_progress` where the copy runs, after each *pages* pages: it can stop the copy in the middle."""
    patch.setattr(backup_module, "on_current_loop", lambda function: function)
    patch.setattr(restore_copy, "_PAGES", pages)


async def test_writers_wait_for_the_restore_and_then_write_to_the_restored_content(
    old: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_on_the_copying_thread(monkeypatch, 5)
    gate, midway = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def report(done: int, total: int) -> None:
        if total // 2 < done < total and not midway.is_set():
            loop.call_soon_threadsafe(midway.set)
            gate.wait(BOUND)

    async with memstore.open(old) as store:
        with served(old) as child:
            restoring = asyncio.ensure_future(memstore.restore_backup(new, old, on_progress=report))
            await midway.wait()
            assert (await store.memories.search(AXIS))[0].memory.content == "old", "readers do not wait"
            adding = asyncio.ensure_future(store.memories.add("here", id="here", embedding=AXIS))
            child.send(("add", {"content": "there", "id": "there", "embedding": AXIS}))
            await asyncio.sleep(0.2)
            assert not adding.done()
            gate.set()
            await restoring
            assert (await adding).id == "here"
            assert await asyncio.to_thread(child.receive) == "there"
        assert {hit.memory.id for hit in await store.memories.search(AXIS, 3)} == {"0", "here", "there"}
        assert await store.memories.count() == 9
        assert await store.check() == []


async def test_progress_covers_both_copies(old: Path, new: Path) -> None:
    outcomes: list[tuple[int, int]] = []
    await memstore.restore_backup(new, old, on_progress=lambda done, total: outcomes.append((done, total)))
    pages = new.stat().st_size // 8_192
    assert outcomes[-1] == (2 * pages, 2 * pages)
    assert [done for done, _ in outcomes] == sorted(done for done, _ in outcomes)


async def test_missing_target_is_created(path: Path, new: Path) -> None:
    content = new.read_bytes()
    await memstore.restore_backup(str(new), str(path))
    assert files_beside(path) == set()
    assert await contents(path) == {"new one"}
    assert new.read_bytes() == content
    assert sql(path, "PRAGMA auto_vacuum") == [(2,)]
    empty = path.with_name("empty.db")
    empty.touch()
    await memstore.restore_backup(new, empty)
    assert await contents(empty) == {"new one"}


async def test_open_store_can_be_the_source_of_a_restore(old: Path, new: Path) -> None:
    async with memstore.open(new) as store:
        await store.memories.add("not yet written back", embedding=AXIS)
        await memstore.restore_backup(new, old)
        await store.memories.add("later")
    assert await contents(old) == {"new one", "not yet written back"}


async def test_older_backup_is_migrated_before_it_is_read(old: Path) -> None:
    oldest = frozen(old.with_name("oldest.bak"), "0001")
    content = oldest.read_bytes()
    report = await memstore.restore_backup(oldest, old)
    assert report.revision == "0001"
    assert oldest.read_bytes() == content
    assert sql(old, f"SELECT version_num FROM {VERSION_TABLE}") == [(HEAD,)]
    async with memstore.open(old) as store:
        hits = await store.memories.search([1, 0, 0, 0])
        assert [hit.memory.id for hit in hits] == ["m0", "m1", "m2", "m3", "m4"]
        assert await store.check() == []


async def test_each_restore_of_one_backup_starts_a_new_epoch(old: Path, new: Path) -> None:
    """After two restores of one backup and as many changes after each, the index of the first is not reused."""
    await memstore.restore_backup(new, old)
    first = epoch(old)
    async with memstore.open(old) as store:
        await store.memories.add("first", id="after", embedding=AXIS)
        assert len(await store.memories.search(AXIS, 10)) == 8
        await memstore.restore_backup(new, old)
        async with memstore.open(old) as second:
            await second.memories.add("second", id="after", embedding=[-n for n in AXIS])
        assert (await store.memories.search([-n for n in AXIS], 1))[0].memory.content == "second"
        assert await store.check() == []
    assert len({first, epoch(old), epoch(new)}) == 3


async def test_stored_graphs_stay_valid_after_a_restore(old: Path, new: Path) -> None:
    sql(
        new,
        "INSERT INTO index_snapshot (space_pk, epoch, seq, parameters, chunks) "
        "SELECT 1, epoch, 1, '{}', 0 FROM store_meta UNION ALL SELECT 1, 'another', 1, '{}', 0",
    )
    await memstore.restore_backup(new, old)
    assert {name for (name,) in sql(old, "SELECT epoch FROM index_snapshot")} == {epoch(old), "another"}
    assert sql(old, "SELECT write_token FROM store_meta") != sql(new, "SELECT write_token FROM store_meta")


async def test_restore_repairs_derived_data_and_refuses_damaged_records(old: Path, new: Path) -> None:
    DAMAGE["composite"](new)
    report = await memstore.restore_backup(new, old)
    assert {finding.kind for finding in report.findings} == {"composite", "unusable"}
    assert await contents(old) == {"new one"}
    for damage in ("checksum", "foreign_key", "integrity"):
        broken = await make_store(new.with_name(damage), "broken", 20)
        DAMAGE[damage](broken)
        with pytest.raises(DamagedError, match="was not restored") as caught:
            await memstore.restore_backup(broken, old)
        assert "memstore repair" in str(caught.value)
        assert await contents(old) == {"new one"}


# -- backups with other vectors than those of an open store


EVERY: dict[str, Callable[[Store], Any]] = {
    "search": lambda store: store.memories.search(AXIS),
    "assemblies": lambda store: store.assemblies.search(AXIS),
    "add": lambda store: store.memories.add("x", embedding=AXIS),
    "update": lambda store: store.memories.update("0", embedding=AXIS),
    "members": lambda store: store.assemblies.add("h", members=["0"]),
    "delete": lambda store: store.memories.delete("0"),
    "stats": lambda store: store.stats(),
    "check": lambda store: store.check(),
    "repair": lambda store: store.repair(),
    "compact": lambda store: store.compact(),
}


async def in_transaction(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.memories.add("x", embedding=AXIS)


async def empty_transaction(store: Store) -> None:
    async with store.transaction():
        pass


@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "not loaded"])
@pytest.mark.parametrize(
    ("options", "setting"),
    [({"dimension": 4}, "dimension"), ({"metric": "l2"}, "metric")],
    ids=["dimension", "metric"],
)
async def test_an_open_store_of_other_vectors_fails_and_writes_nothing(
    old: Path, options: dict[str, Any], setting: str, loaded: bool
) -> None:
    new = await make_store(old.with_name("new.bak"), "new one", 7, **options)
    async with memstore.open(old) as store:
        if loaded:
            await store.memories.search(AXIS)
        await memstore.restore_backup(new, old)
        rows = sql(old, "SELECT * FROM memory"), sql(old, "SELECT * FROM memory_vector")
        for call in [*EVERY.values(), in_transaction, empty_transaction]:
            with pytest.raises(SettingsMismatchError, match="Close the store and open it again") as caught:
                await call(store)
            assert caught.value.setting == setting
            assert (caught.value.expected, caught.value.got) in [(4, DIMENSION), ("l2", "cosine")]
        if setting == "dimension":
            with pytest.raises(SettingsMismatchError):
                await store.memories.get("0")
        assert await store.memories.count() == 7
        assert (sql(old, "SELECT * FROM memory"), sql(old, "SELECT * FROM memory_vector")) == rows
    assert await contents(old) == {"new one"}


class Named:
    def __init__(self, name: str) -> None:
        self.name = name
        self.dimension = DIMENSION

    def embed(self, texts: Any) -> Any:
        return np.ones((len(texts), DIMENSION), dtype=np.float32)


async def test_an_open_store_with_another_embedder_fails_and_one_with_none_goes_on(path: Path) -> None:
    new = path.with_name("new.bak")
    for file, name in ((path, "one"), (new, "two")):
        async with memstore.open(file, embedder=Named(name)) as store:
            await store.memories.add(name, id=name)
    async with memstore.open(path, embedder=Named("one")) as store, memstore.open(path) as plain:
        await memstore.restore_backup(new, path)
        with pytest.raises(SettingsMismatchError, match="'two'") as caught:
            await store.memories.add("x")
        assert (caught.value.setting, caught.value.expected, caught.value.got) == ("embedder", "two", "one")
        with pytest.raises(SettingsMismatchError):
            await store.memories.search("x")
        await plain.memories.add("x", embedding=AXIS)
        assert len(await plain.memories.search([1.0] * DIMENSION)) == 2


async def test_transaction_after_a_restore_searches_the_restored_content_at_an_equal_log_position(
    old: Path, path: Path
) -> None:
    new = await make_store(path.with_name("new.bak"), "next")  # as many changes as the old one, other vectors
    async with memstore.open(old) as store:
        query = vectors(np.random.default_rng(len("next")), 5)[3]
        await store.memories.search(query)
        position = store._follower.indexes.applied
        await memstore.restore_backup(new, old)
        assert sql(old, "SELECT seq FROM sqlite_sequence WHERE name = 'change_log'") == [(position,)]
        async with store.transaction() as tx:
            hit = (await tx.memories.search(query))[0]
            assert (hit.memory.content, hit.memory.id, hit.score) == ("next", "3", pytest.approx(1.0))


# -- what is refused


async def test_foreign_target_is_refused_and_not_changed(new: Path) -> None:
    notes = new.with_name("notes.txt")
    notes.write_text("notes " * 2_000)
    with pytest.raises(ForeignFileError) as caught:
        await memstore.restore_backup(new, notes)
    assert "-wal" in caught.value.__notes__[0]
    assert notes.read_text() == "notes " * 2_000
    foreign = new.with_name("other.db")
    sql(foreign, "CREATE TABLE theirs (x)")
    content = foreign.read_bytes()
    with pytest.raises(ForeignFileError, match="another application"):
        await memstore.restore_backup(new, foreign)
    assert foreign.read_bytes() == content
    assert files_beside(foreign) | files_beside(notes) == set()


async def test_newer_files_missing_ones_and_the_file_itself_are_refused(old: Path, new: Path) -> None:
    for pair in ((old, old), (str(old), old)):
        with pytest.raises(InvalidError, match="itself"):
            await memstore.restore_backup(*pair)
    link = old.with_name("link.db")
    link.hardlink_to(old)
    with pytest.raises(InvalidError, match="itself"):
        await memstore.restore_backup(link, old)
    link.unlink()
    with pytest.raises(MissingFileError):
        await memstore.restore_backup(old.with_name("absent"), old)
    with pytest.raises(MissingFileError, match="creates only files"):
        await memstore.restore_backup(new, old.parent / "nowhere" / "x.db")
    with pytest.raises(InvalidError, match="timeout"):
        await memstore.restore_backup(new, old, timeout=-1)
    newer = await make_store(new.with_name("newer"), "newer")
    sql(newer, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    content = newer.read_bytes()
    with pytest.raises(NewerFileError):
        await memstore.restore_backup(newer, old)
    with pytest.raises(NewerFileError):
        await memstore.restore_backup(new, newer)
    assert newer.read_bytes() == content
    assert await contents(old) == {"old"}
    files_of_sqlite = {
        end for name in ("link.db", "new.bak", "newer", "store.db") for end in (f"{name}-wal", f"{name}-shm")
    }
    assert {p.name for p in old.parent.iterdir()} - files_of_sqlite == {"new.bak", "newer", "store.db"}


async def test_restore_inside_an_open_transaction_raises_at_once(old: Path, new: Path) -> None:
    async with memstore.open(old) as store:
        async with store.transaction() as tx:
            await tx.memories.add("x")
            async with asyncio.timeout(BOUND / 2):
                with pytest.raises(TransactionError, match="End the transaction first"):
                    await memstore.restore_backup(new, old)
        await memstore.restore_backup(new, old)
        assert await store.memories.count() == 7


async def test_busy_target_is_not_changed_after_the_timeout(old: Path, new: Path) -> None:
    async with memstore.open(old) as store:
        epoch_before = epoch(old)
        with closing(sqlite3.connect(old, isolation_level=None)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            for timeout in (0.3, 0.0):
                async with asyncio.timeout(BOUND):
                    with pytest.raises(BusyError, match="Nothing was changed"):
                        await memstore.restore_backup(new, old, timeout=timeout)
            writer.execute("UPDATE memory SET content = 'written meanwhile' WHERE id = '4'")
            writer.execute("COMMIT")
        assert epoch(old) == epoch_before
        assert {memory.content async for memory in store.memories.list()} == {"old", "written meanwhile"}
        await memstore.restore_backup(new, old, timeout=0.3)
        assert await store.memories.count() == 7


@pytest.mark.parametrize("share", [0.2, 0.7])
async def test_cancelled_restore_changes_nothing(
    old: Path, new: Path, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_on_the_copying_thread(monkeypatch, 1)
    loop, stopped = asyncio.get_running_loop(), threading.Event()

    def report(done: int, total: int) -> None:
        if done >= share * total and not stopped.is_set():
            loop.call_soon_threadsafe(restoring.cancel)
            loop.call_soon_threadsafe(stopped.set)
            stopped.wait(BOUND)

    restoring = asyncio.ensure_future(memstore.restore_backup(new, old, on_progress=report))
    with pytest.raises(asyncio.CancelledError):
        await restoring
    assert await contents(old) == {"old"}


async def test_cancelled_restore_creates_no_file(path: Path, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore_copy, "_PAGES", 1)
    restoring = asyncio.ensure_future(memstore.restore_backup(new, path, on_progress=lambda *_: restoring.cancel()))
    with pytest.raises(asyncio.CancelledError):
        await restoring
    assert not path.exists()


# -- files with another page size, and damaged ones


def set_page_size(path: Path, page: int) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as base:
        base.execute("PRAGMA journal_mode=DELETE")
        base.execute("PRAGMA auto_vacuum=0")
        base.execute(f"PRAGMA page_size={page}")
        base.execute("VACUUM")
        assert base.execute("PRAGMA page_size").fetchone() == (page,)


@pytest.mark.parametrize("page", [512, 4_096, 65_536])
@pytest.mark.parametrize("which", ["backup", "target"])
async def test_files_with_another_page_size_are_restored_under_open_stores(
    old: Path, new: Path, page: int, which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_page_size(new if which == "backup" else old, page)
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(restore_copy.tempfile, "tempdir", str(folder))
    async with memstore.open(old) as store:
        with served(old) as child:
            assert (await ask(child, "search", AXIS))[0] == ["0", "old"]
            await memstore.restore_backup(new, old)
            await store.memories.add_many([{"content": "new one", "embedding": AXIS} for _ in range(300)])
            assert len(await ask(child, "search", AXIS)) == 5
            assert await ask(child, "add", {"content": "new one", "id": "there"}) == "there"
        await store.memories.delete_many(where={"id": {"$gt": "3"}})
        assert await store.check() == []
    assert list(folder.iterdir()) == []
    assert await contents(old) == {"new one"}


@pytest.mark.parametrize("damage", ["schema", "integrity", "cut off"])
async def test_damaged_store_can_be_restored(old: Path, new: Path, damage: str) -> None:
    await make_store(old.with_name("larger"), "larger", 400)
    os.replace(old.with_name("larger"), old)
    DAMAGE[damage](old)
    assert (await memstore.verify(old)).findings != []
    await memstore.restore_backup(new, old)
    assert await contents(old) == {"new one"}
    assert (await memstore.verify(old)).findings == []


# -- killed in the middle, and full disks


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
async def test_restore_killed_at_any_page_is_complete_or_has_no_effect(old: Path, new: Path) -> None:
    """Ten kills. A store is open during half of them; after the others the next open recovers the file."""
    backups = {"old": old.with_name("old.bak"), "new one": new}
    async with memstore.open(old) as store:
        await store.backup(backups["old"])
    content, outcomes = "old", set()
    rng = random.Random(20_240_701)
    for turn in range(10):
        target = "new one" if content == "old" else "old"
        pages = backups[target].stat().st_size // 8_192
        page = 2 * pages if turn % 5 == 0 else rng.randrange(pages + 1, 2 * pages)
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(memstore.open(old)) if turn % 2 else None
            if store is not None:
                await store.memories.search(AXIS)
            with Child(restore_with_limits, backups[target], old, page, 0) as child:
                await asyncio.to_thread(child.process.join, BOUND)
                assert child.process.exitcode == -signal.SIGKILL
            if store is not None:
                hits = await store.memories.search(AXIS, 10)
                await store.memories.touch(["0"])
                assert await store.check() == []
                after_kill = {hit.memory.content for hit in hits}
                assert len(hits) == {"old": 5, "new one": 7}[hits[0].memory.content]
            else:
                after_kill = await contents(old)
        assert after_kill in ({content}, {target}), (turn, page)
        assert (after_kill == {target}) == (page == 2 * pages), (turn, page)
        outcomes.add(after_kill == {target})
        (content,) = after_kill
    assert outcomes == {True, False}


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
async def test_restore_killed_at_any_moment_is_complete_or_has_no_effect(old: Path, new: Path) -> None:
    async with memstore.open(old) as store:
        for delay in (0.0, 0.001, 0.005, 0.02):
            with Child(restore_with_notice, new, old) as child:
                assert await asyncio.to_thread(child.receive) == "writing"
                await asyncio.sleep(delay)
                child.kill()
            hits = await store.memories.search(AXIS, 10)
            assert (hits[0].memory.content, len(hits)) in [("old", 5), ("new one", 7)]
            assert await store.check() == []
    assert await contents(old) in ({"old"}, {"new one"})


@pytest.mark.skipif(os.name == "nt", reason="POSIX limits")
async def test_restore_to_a_full_disk_leaves_the_old_content_and_no_new_file(old: Path, path: Path) -> None:
    new = await make_store(path.with_name("large.bak"), "large", 1_500)

    async def restore_error(target: Path, share: float) -> Any:
        with Child(restore_with_limits, new, target, 0, int(share * new.stat().st_size)) as child:
            return await asyncio.to_thread(child.receive)

    async with memstore.open(old) as store:
        await store.memories.search(AXIS)
        for share in (0.1, 0.5, 0.99):
            assert await restore_error(old, share) == "StorageError"
            assert {hit.memory.content for hit in await store.memories.search(AXIS)} == {"old"}
            await store.memories.touch(["0"])
            assert await store.check() == []
        absent = path.with_name("absent.db")
        assert await restore_error(absent, 0.5) == "StorageError"
        assert not absent.exists()
        assert files_beside(absent) == set()
        await memstore.restore_backup(new, old)
        assert await store.memories.count() == 1_500
    assert await contents(old) == {"large"}


async def test_error_of_a_full_disk_is_translated(old: Path, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(sqlite3.Connection):
        def backup(self, *arguments: Any, **options: Any) -> None:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_FULL, "SQLITE_FULL"
            raise error

    connect = sqlite3.connect
    monkeypatch.setattr(restore_copy.sqlite3, "connect", lambda *a, **o: connect(*a, **{"factory": Full, **o}))
    with pytest.raises(StorageError, match="free some space"):
        await memstore.restore_backup(new, old)
    monkeypatch.undo()
    assert await contents(old) == {"old"}

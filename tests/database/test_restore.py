"""A backup put in the place of what a file holds: all of it or nothing, and everybody who has the file open sees it."""

import asyncio
import json
import os
import random
import signal
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
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
from tests.database.test_backup import DAMAGE, beside, of_the_first_revision, sql

ROOT = Path(__file__).parents[2]
BOUND = 60.0

SERVE = """
import asyncio, json, sys
import memstore

async def serve(path):
    loop = asyncio.get_running_loop()
    async with memstore.open(path) as store:
        print(json.dumps("open"), flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            verb, argument = json.loads(line)
            try:
                if verb == "search":
                    answer = [[hit.memory.id, hit.memory.content] for hit in await store.memories.search(argument, 5)]
                elif verb == "add":
                    answer = (await store.memories.add(**argument)).id
                else:
                    answer = [str(finding) for finding in await store.check()]
            except memstore.MemstoreError as error:
                answer = type(error).__name__
            print(json.dumps(answer), flush=True)

asyncio.run(serve(sys.argv[1]))
"""

RESTORE = """
import asyncio, os, resource, signal, sys
import memstore
from memstore.database import restore_copy
from memstore.maintenance import backup as backups

backups.on_current_loop = lambda told: told  # where the work is done, so that it ends in the middle of it
restore_copy._PAGES = 1
backup, path, page, most = sys.argv[1:3] + [int(n) for n in sys.argv[3:]]
if most:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

def told(done, total):
    if page and (done if page > 0 else done - total) >= page:
        os.kill(os.getpid(), signal.SIGKILL)

try:
    asyncio.run(memstore.restore_backup(backup, path, on_progress=told))
except memstore.StorageError as error:
    print(type(error).__name__)
    sys.exit(7)
"""


class Served:
    """A store in another process, and what it answers."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def answer(self) -> Any:
        assert self._process.stdout is not None
        async with asyncio.timeout(BOUND):
            return json.loads(await self._process.stdout.readline())

    def ask(self, verb: str, argument: Any = None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([verb, argument]).encode() + b"\n")

    async def __call__(self, verb: str, argument: Any = None) -> Any:
        self.ask(verb, argument)
        return await self.answer()


@asynccontextmanager
async def served(path: Path) -> AsyncIterator[Served]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVE, str(path), cwd=ROOT, stdin=pipe, stdout=pipe
    )
    try:
        made = Served(process)
        assert await made.answer() == "open"
        yield made
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def made(path: Path, content: str, count: int = 5, **options: Any) -> Path:
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
    """What is to be replaced."""
    return await made(path, "old")


@pytest.fixture
async def new(path: Path) -> Path:
    """What is to take its place: a file nobody has open."""
    return await made(path.with_name("new.bak"), "new one", 7)


# -- what it does


async def test_open_stores_of_three_processes_read_the_restored_content(old: Path, new: Path) -> None:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(memstore.open(old))
        reader = await stack.enter_async_context(memstore.open(old, read_only=True))
        others = [await stack.enter_async_context(served(old)) for _ in range(2)]
        for other in others:
            assert (await other("search", AXIS))[0] == ["0", "old"]
        assert (await store.memories.search(AXIS))[0].memory.content == "old"
        assert (await reader.memories.search(AXIS))[0].memory.content == "old"
        report = await memstore.restore_backup(new, old)
        assert (report.memories, report.assemblies, report.path, report.findings) == (7, 1, str(new), [])
        for other in others:
            answer = await other("search", AXIS)
            assert answer[0] == ["0", "new one"]
            assert {content for _, content in answer} == {"new one"}
            assert await other("check") == []
        for some in (store, reader):
            hits = await some.memories.search(AXIS, 10)
            assert [hit.memory.content for hit in hits] == ["new one"] * 7
            assert (await some.assemblies.search(AXIS))[0].assembly.name == "new one"
            assert await some.check() == []
        assert await others[0]("add", {"content": "since", "id": "since", "embedding": AXIS}) == "since"
        assert {hit.memory.id for hit in await store.memories.search(AXIS, 2)} == {"0", "since"}
        assert ["since", "since"] in await others[1]("search", AXIS)


async def test_writers_wait_for_the_restore_and_then_write_to_the_restored_content(old: Path, new: Path) -> None:
    gate, midway = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async with memstore.open(old) as store, served(old) as other:
        writes: list[asyncio.Task[memstore.Memory]] = []

        def told(done: int, total: int) -> None:  # on its thread, in the middle of its transaction
            if total // 2 < done < total and not midway.is_set():
                loop.call_soon_threadsafe(midway.set)
                gate.wait(BOUND)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(backup_module, "on_current_loop", lambda function: function)
            patch.setattr(restore_copy, "_PAGES", 5)
            restored = asyncio.ensure_future(memstore.restore_backup(new, old, on_progress=told))
            await midway.wait()
            assert (await store.memories.search(AXIS))[0].memory.content == "old", "readers read on"
            writes = [asyncio.ensure_future(store.memories.add("here", id="here", embedding=AXIS))]
            other.ask("add", {"content": "there", "id": "there", "embedding": AXIS})
            await asyncio.sleep(0.2)
            assert not writes[0].done()
            gate.set()
            await restored
        assert (await writes[0]).id == "here"
        assert await other.answer() == "there"
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
    assert beside(path) == set()
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


async def test_older_backup_is_migrated_before_anybody_reads_it(old: Path) -> None:
    oldest = of_the_first_revision(old.with_name("oldest.bak"))
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
    """Two restores of one backup, as many changes after each: no index of the first is taken for the second's."""
    await memstore.restore_backup(new, old)
    first = epoch(old)
    async with memstore.open(old) as store:
        await store.memories.add("first", id="after", embedding=AXIS)
        assert len(await store.memories.search(AXIS, 10)) == 8
        await memstore.restore_backup(new, old)
        async with memstore.open(old) as other:
            await other.memories.add("second", id="after", embedding=[-n for n in AXIS])
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
        broken = await made(new.with_name(damage), "broken", 20)
        DAMAGE[damage](broken)
        with pytest.raises(DamagedError, match="was not restored") as caught:
            await memstore.restore_backup(broken, old)
        assert "memstore repair" in str(caught.value)
        assert await contents(old) == {"new one"}


# -- other vectors than those who have the file open expect


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
    new = await made(old.with_name("new.bak"), "new one", 7, **options)
    async with memstore.open(old) as store:
        if loaded:
            await store.memories.search(AXIS)
        await memstore.restore_backup(new, old)
        before = sql(old, "SELECT * FROM memory"), sql(old, "SELECT * FROM memory_vector")
        for call in [*EVERY.values(), in_transaction, empty_transaction]:
            with pytest.raises(SettingsMismatchError, match="Close the store and open it again") as caught:
                await call(store)
            assert caught.value.setting == setting
            assert (caught.value.expected, caught.value.got) in [(4, DIMENSION), ("l2", "cosine")]
        if setting == "dimension":
            with pytest.raises(SettingsMismatchError):
                await store.memories.get("0")
        assert await store.memories.count() == 7
        assert (sql(old, "SELECT * FROM memory"), sql(old, "SELECT * FROM memory_vector")) == before
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
    new = await made(path.with_name("new.bak"), "next")  # as many changes as the old one, other vectors
    async with memstore.open(old) as store:
        query = vectors(np.random.default_rng(len("next")), 5)[3]
        await store.memories.search(query)
        at = store._follower.indexes.applied
        await memstore.restore_backup(new, old)
        assert sql(old, "SELECT seq FROM sqlite_sequence WHERE name = 'change_log'") == [(at,)]
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
    other = new.with_name("other.db")
    sql(other, "CREATE TABLE theirs (x)")
    content = other.read_bytes()
    with pytest.raises(ForeignFileError, match="another application"):
        await memstore.restore_backup(new, other)
    assert other.read_bytes() == content
    assert beside(other) | beside(notes) == set()


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
    newer = await made(new.with_name("newer"), "newer")
    sql(newer, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    content = newer.read_bytes()
    with pytest.raises(NewerFileError):
        await memstore.restore_backup(newer, old)
    with pytest.raises(NewerFileError):
        await memstore.restore_backup(new, newer)
    assert newer.read_bytes() == content
    assert await contents(old) == {"old"}
    made_by_sqlite = {
        end for name in ("link.db", "new.bak", "newer", "store.db") for end in (f"{name}-wal", f"{name}-shm")
    }
    assert {p.name for p in old.parent.iterdir()} - made_by_sqlite == {"new.bak", "newer", "store.db"}


async def test_restore_inside_an_open_transaction_raises_at_once(old: Path, new: Path) -> None:
    async with memstore.open(old) as store:
        async with store.transaction() as tx:
            await tx.memories.add("x")
            async with asyncio.timeout(BOUND / 2):
                with pytest.raises(TransactionError, match="end it"):
                    await memstore.restore_backup(new, old)
        await memstore.restore_backup(new, old)
        assert await store.memories.count() == 7


async def test_busy_target_is_not_changed_after_the_timeout(old: Path, new: Path) -> None:
    async with memstore.open(old) as store:
        before = epoch(old)
        with closing(sqlite3.connect(old, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for timeout in (0.3, 0.0):
                async with asyncio.timeout(BOUND):
                    with pytest.raises(BusyError, match="as it was"):
                        await memstore.restore_backup(new, old, timeout=timeout)
            other.execute("UPDATE memory SET content = 'written meanwhile' WHERE id = '4'")
            other.execute("COMMIT")
        assert epoch(old) == before
        assert {memory.content async for memory in store.memories.list()} == {"old", "written meanwhile"}
        await memstore.restore_backup(new, old, timeout=0.3)
        assert await store.memories.count() == 7


async def test_cancelled_restore_changes_nothing(old: Path, new: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backup_module, "on_current_loop", lambda function: function)
        patch.setattr(restore_copy, "_PAGES", 1)
        loop = asyncio.get_running_loop()

        async def stopped_at(part: float) -> None:
            stopped = threading.Event()

            def told(done: int, total: int) -> None:
                if done >= part * total and not stopped.is_set():
                    loop.call_soon_threadsafe(restored.cancel)
                    loop.call_soon_threadsafe(stopped.set)
                    stopped.wait(BOUND)

            restored = asyncio.ensure_future(memstore.restore_backup(new, old, on_progress=told))
            with pytest.raises(asyncio.CancelledError):
                await restored

        for part in (0.2, 0.7):
            await stopped_at(part)
            assert await contents(old) == {"old"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restore_copy, "_PAGES", 1)
        absent = old.with_name("absent.db")
        restored = asyncio.ensure_future(memstore.restore_backup(new, absent, on_progress=lambda *_: restored.cancel()))
        with pytest.raises(asyncio.CancelledError):
            await restored
        assert not absent.exists()


# -- files laid out in another way, and damaged ones


def laid_out(path: Path, page: int, vacuum: int) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as base:
        base.execute("PRAGMA journal_mode=DELETE")
        base.execute(f"PRAGMA auto_vacuum={vacuum}")
        base.execute(f"PRAGMA page_size={page}")
        base.execute("VACUUM")
        assert base.execute("PRAGMA page_size").fetchone() == (page,)


@pytest.mark.parametrize("page", [512, 4_096, 65_536])
@pytest.mark.parametrize("which", ["backup", "target"])
async def test_files_with_another_page_size_are_restored_under_open_stores(
    old: Path, new: Path, page: int, which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    laid_out(new if which == "backup" else old, page, 0)
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(restore_copy.tempfile, "tempdir", str(folder))
    async with memstore.open(old) as store, served(old) as other:
        assert (await other("search", AXIS))[0] == ["0", "old"]
        await memstore.restore_backup(new, old)
        await store.memories.add_many([{"content": "new one", "embedding": AXIS} for _ in range(300)])
        assert len(await other("search", AXIS)) == 5
        assert await other("add", {"content": "new one", "id": "there"}) == "there"
        await store.memories.delete_many(where={"id": {"$gt": "3"}})
        assert await store.check() == []
    assert list(folder.iterdir()) == []
    assert await contents(old) == {"new one"}


@pytest.mark.parametrize("damage", ["schema", "integrity", "cut off"])
async def test_damaged_store_can_be_restored(old: Path, new: Path, damage: str) -> None:
    await made(old.with_name("larger"), "larger", 400)
    os.replace(old.with_name("larger"), old)
    DAMAGE[damage](old)
    assert (await memstore.verify(old)).findings != []
    await memstore.restore_backup(new, old)
    assert await contents(old) == {"new one"}
    assert (await memstore.verify(old)).findings == []


# -- stopped in the middle


async def run_restore(backup: Path, path: Path, *, page: int = 0, most: int = 0) -> int:
    """Restore in a process that is killed once *page* pages were copied (negative: so many before the end), or that
    can write no file of more than *most* bytes; its exit code."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RESTORE, str(backup), str(path), str(page), str(most), cwd=ROOT
    )
    async with asyncio.timeout(60):
        return await process.wait()


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
async def test_restore_killed_at_any_page_is_complete_or_has_no_effect(old: Path, new: Path) -> None:
    """Ten kills: some with a store open meanwhile, some with none, so that the file is recovered when opened."""
    backups_of = {"old": old.with_name("old.bak"), "new one": new}
    async with memstore.open(old) as store:
        await store.backup(backups_of["old"])
    holds, outcomes = "old", set()
    rng = random.Random(20_240_701)
    for turn in range(10):
        other = "new one" if holds == "old" else "old"
        pages = backups_of[other].stat().st_size // 8_192
        page = 2 * pages if turn % 5 == 0 else rng.randrange(pages + 1, 2 * pages)
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(memstore.open(old)) if turn % 2 else None
            if store is not None:
                await store.memories.search(AXIS)
            assert await run_restore(backups_of[other], old, page=page) == -signal.SIGKILL
            if store is not None:
                hits = await store.memories.search(AXIS, 10)
                await store.memories.touch(["0"])
                assert await store.check() == []
                report = {hit.memory.content for hit in hits}
                assert len(hits) == {"old": 5, "new one": 7}[hits[0].memory.content]
            else:
                report = await contents(old)
        assert report in ({holds}, {other}), (turn, page)
        assert (report == {other}) == (page == 2 * pages), (turn, page)
        outcomes.add(report == {other})
        (holds,) = report
    assert outcomes == {True, False}


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
async def test_restore_killed_at_any_moment_is_complete_or_has_no_effect(old: Path, new: Path) -> None:
    async with memstore.open(old) as store:
        for delay in (0.0, 0.001, 0.005, 0.02):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", STARTED, str(new), str(old), cwd=ROOT, stdout=asyncio.subprocess.PIPE
            )
            assert process.stdout is not None
            assert await process.stdout.readline() == b"writing\n"
            await asyncio.sleep(delay)
            process.kill()
            await process.communicate()
            hits = await store.memories.search(AXIS, 10)
            assert (hits[0].memory.content, len(hits)) in [("old", 5), ("new one", 7)]
            assert await store.check() == []
    assert await contents(old) in ({"old"}, {"new one"})


STARTED = """
import asyncio, sys
import memstore
from memstore.maintenance import backup as backups

def replace(*arguments, really=backups.replace_content):
    print("writing", flush=True)
    really(*arguments)

backups.replace_content = replace
asyncio.run(memstore.restore_backup(*sys.argv[1:3]))
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX limits")
async def test_restore_to_a_full_disk_leaves_the_old_content_and_no_new_file(old: Path, path: Path) -> None:
    new = await made(path.with_name("large.bak"), "large", 1_500)
    async with memstore.open(old) as store:
        await store.memories.search(AXIS)
        for share in (0.1, 0.5, 0.99):
            assert await run_restore(new, old, most=int(share * new.stat().st_size)) == 7
            assert {hit.memory.content for hit in await store.memories.search(AXIS)} == {"old"}
            await store.memories.touch(["0"])
            assert await store.check() == []
        absent = path.with_name("absent.db")
        assert await run_restore(new, absent, most=new.stat().st_size // 2) == 7
        assert not absent.exists()
        assert beside(absent) == set()
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

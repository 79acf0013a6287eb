"""Pending writes share a transaction. Each is stored completely or not at all, in order, and fails alone."""

import asyncio
import logging
import math
import random
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection

import memstore
from memstore import BusyError, ClosedError, CommitUnknownError, DuplicateError, InvalidError, StorageError, Store
from memstore.concurrency import UncancellableFuture, call_on_loop, resolve
from memstore.database import write_queue, writer
from memstore.database.transactions import raw
from memstore.repository.sqlite_only import change_log
from tests.conftest import DIMENSION, vectors
from tests.support.waiting import eventually


@pytest.fixture(autouse=True)
def _no_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_MAX_SHARED_TIME", 60.0)


def on_thread(store: Store, function: Callable[[Connection], Any]) -> "UncancellableFuture[Any]":
    return store._database._writer.thread.submit(function)


@asynccontextmanager
async def recorded_statements(
    store: Store, words: tuple[str, ...] = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")
) -> AsyncIterator[list[str]]:
    """The statements of the writer's connection that begin with one of *words*."""
    statements: list[str] = []

    def record(statement: str) -> None:
        if statement.startswith(words):
            statements.append(statement)

    await on_thread(store, lambda c: raw(c).set_trace_callback(record))
    yield statements
    await on_thread(store, lambda c: raw(c).set_trace_callback(None))


@contextmanager
def busy_thread(store: Store) -> Iterator[None]:
    """The writer's thread is busy: the writes of the block stay in the queue until its end."""
    gate = threading.Event()
    store._database._writer.thread.post(lambda _: gate.wait())
    try:
        yield
    finally:
        gate.set()


@asynccontextmanager
async def open_transaction(store: Store) -> AsyncIterator[Callable[[], None]]:
    """Another task has a transaction open, until the function is called."""
    entered, go = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with store.transaction():
            entered.set()
            await go.wait()

    task = asyncio.ensure_future(hold())
    await entered.wait()
    yield go.set
    await outcomes([task])


async def started(*calls: Any) -> list["asyncio.Task[Any]"]:
    """A task for each call, all of them in the queue, in order."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0)
    return tasks


async def outcomes(tasks: list["asyncio.Task[Any]"]) -> list[Any]:
    async with asyncio.timeout(60):
        return await asyncio.gather(*tasks, return_exceptions=True)


async def queued(store: Store, *calls: Any) -> list[Any]:
    """The results or errors of *calls*, all of which are in the queue before the first runs."""
    with busy_thread(store):
        tasks = await started(*calls)
    return await outcomes(tasks)


async def ids(store: Store) -> list[str]:
    return [memory.id async for memory in store.memories.list()]


# -- shared transactions


async def test_fifty_concurrent_adds_share_commits_and_are_searchable_at_once(
    store: Store, rng: np.random.Generator
) -> None:
    rows = vectors(rng, 50)
    await store.memories.search(rows[0])
    async with recorded_statements(store) as statements:
        records = await asyncio.gather(*(store.memories.add(f"{i}", embedding=row) for i, row in enumerate(rows)))
        hits = await asyncio.gather(*(store.memories.search(row, 1) for row in rows))
    assert statements.count("COMMIT") <= 5
    assert [hit[0].memory for hit in hits] == records


async def test_queued_writes_are_one_transaction_and_are_answered_in_order(store: Store) -> None:
    answered = []

    async def add(id: str) -> None:
        await store.memories.add("x", id=id)
        answered.append(id)

    names = [f"{i}" for i in range(writer.MAX_SHARED)]
    async with recorded_statements(store) as statements:
        with busy_thread(store):
            tasks = await started(*map(add, names))
        assert await outcomes(tasks) == [None] * writer.MAX_SHARED
    assert [statements.count(word) for word in ("BEGIN IMMEDIATE", "COMMIT")] == [1, 1]
    assert answered == names == await ids(store)


async def test_single_write_needs_no_savepoint_and_one_hop(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    async with recorded_statements(store) as statements:
        back = []
        monkeypatch.setattr(
            loop, "call_soon_threadsafe", lambda *a: (back.append(a), type(loop).call_soon_threadsafe(loop, *a))
        )
        await store.memories.add("x")
        monkeypatch.undo()
    assert [word for word in statements if not word.startswith("BEGIN")] == ["COMMIT"]
    assert statements.count("BEGIN IMMEDIATE") == 1
    assert len(back) == 1


async def test_consecutive_writes_of_one_task_do_not_wait_for_others(store: Store) -> None:
    async with recorded_statements(store) as statements:
        for i in range(5):
            await store.memories.add(f"{i}")
    assert statements.count("COMMIT") == 5


async def test_limited_number_of_writes_share_a_transaction(store: Store) -> None:
    async with recorded_statements(store) as statements:
        await queued(store, *(store.memories.add("x", id=f"{i}") for i in range(writer.MAX_SHARED + 1)))
    assert statements.count("COMMIT") == 2
    assert len(await ids(store)) == writer.MAX_SHARED + 1


async def test_batch_shares_its_transaction_with_no_other_write(store: Store) -> None:
    many = [{"content": "x", "id": f"many-{i}"} for i in range(101)]
    async with recorded_statements(store) as statements:
        await queued(
            store,
            store.memories.add("x", id="a"),
            store.memories.add("x", id="b"),
            store.memories.add_many(many),
            store.memories.add("x", id="c"),
        )
    assert statements.count("COMMIT") == 3
    assert await ids(store) == ["a", "b", *(item["id"] for item in many), "c"]


async def test_old_transaction_takes_no_more_writes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_MAX_SHARED_TIME", 0.05)
    async with recorded_statements(store) as statements:
        slow = [store._database.write(lambda _: time.sleep(0.1)) for _ in range(3)]
        await queued(store, *slow, *(store.memories.add("x") for _ in range(5)))
    assert statements.count("COMMIT") >= 4
    assert len(await ids(store)) == 5


async def test_verbs_of_a_shared_transaction_see_earlier_changes(store: Store, rng: np.random.Generator) -> None:
    rows = vectors(rng, 3)
    await store.assemblies.add("g")
    async with recorded_statements(store) as statements:
        ended = await queued(
            store,
            store.memories.add("x", id="a", embedding=rows[0]),
            store.assemblies.add_members("g", ["a"]),
            store.memories.add("gone", id="gone", embedding=rows[1], ttl=-1),
            store.memories.add("there", id="gone"),  # what has expired is deleted before every verb
            store.memories.update("a", embedding=rows[2]),
            store.memories.upsert("y", id="a", embedding=rows[1]),
            store.memories.delete("gone"),
        )
    assert [end for end in ended if isinstance(end, BaseException)] == []
    assert statements.count("COMMIT") == 1
    assert (await store.assemblies.search(rows[1]))[0].score == pytest.approx(1)
    assert await ids(store) == ["a"]


async def test_shared_transaction_keeps_the_change_log_of_all_its_writes(
    store: Store, rng: np.random.Generator, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_log, "KEEP", 3)
    caplog.set_level(logging.INFO, "memstore")
    rows = vectors(rng, 40)
    await store.memories.search(rows[0])
    for half in (rows[:20], rows[20:]):
        await queued(store, *(store.memories.add("x", embedding=row) for row in half))
    log_rows = await store._database.read(lambda c: c.exec_driver_sql("SELECT count(*) FROM change_log").scalar_one())
    assert log_rows <= 20
    assert "rebuil" not in caplog.text
    assert all([len(await store.memories.search(row, 1)) == 1 for row in rows])


# -- operations that run as one call


async def test_queued_adds_run_as_one_call_and_each_returns_its_own_memory(
    store: Store, rng: np.random.Generator
) -> None:
    rows = vectors(rng, 30)
    items = [
        {
            "content": f"c{i}",
            "id": f"{i}",
            "embedding": None if i % 5 == 0 else row,
            "tags": {f"t{i % 3}", "all"} if i % 4 else (),
            "metadata": {"i": i},
            "importance": i / 30,
            "access_count": i,
        }
        for i, row in enumerate(rows)
    ]
    await store.memories.search(rows[0])
    async with recorded_statements(
        store, ("SAVEPOINT", "INSERT INTO memory ", "INSERT INTO memory_vector ")
    ) as statements:
        ended = await queued(
            store,
            *(store.memories.add(**item) for item in items[:20]),
            store.memories.add_many(items[20:27]),
            store.memories.add_many([]),
            *(store.memories.add(**item) for item in items[27:]),
        )
    records = [*ended[:20], *ended[20], *ended[22:]]
    assert ended[21] == []
    assert [(m.id, m.content, m.metadata, m.access_count) for m in records] == [
        (f"{i}", f"c{i}", {"i": i}, i) for i in range(30)
    ]
    assert [memory async for memory in store.memories.list()] == records
    assert all(
        [(await store.memories.search(m.embedding, 1))[0].memory == m for m in records if m.embedding is not None]
    )
    assert statements.count("SAVEPOINT job") == 1
    distinct = dict.fromkeys(statements)  # SQLite reports a statement again for each trigger
    assert len(distinct) == 1 + 3 + 3  # thirty rows are three statements of ten, those with a vector are as many


async def test_only_adjacent_operations_of_one_kind_run_as_one_call(store: Store) -> None:
    namespace = store.namespace("other")
    async with recorded_statements(store, ("SAVEPOINT",)) as statements:
        ended = await queued(
            store,
            store.memories.add("x", id="a"),
            store.memories.add("x", id="b"),
            namespace.memories.add("o", id="a"),
            namespace.memories.add("o", id="b"),
            store.memories.update("b", content="y", embedding=None),
            store.memories.add("x", id="c"),
        )
    assert [end.content for end in ended] == ["x", "x", "o", "o", "y", "x"]
    assert len(statements) == 3  # of four in two namespaces, of one, of one
    assert {m.id: m.content async for m in store.memories.list()} == {"a": "x", "b": "y", "c": "x"}
    assert [m.namespace async for m in namespace.memories.list()] == [("other",)] * 2


async def test_size_of_one_call_is_limited(store: Store) -> None:
    calls = [[{"content": "x", "id": f"{i}-{j}"} for j in range(40)] for i in range(5)]
    async with recorded_statements(store, ("SAVEPOINT", "COMMIT")) as statements:
        ended = await queued(store, *map(store.memories.add_many, calls))
    assert statements == [*["SAVEPOINT job"] * 3, "COMMIT"]  # eighty rows, eighty, forty
    assert [[m.id for m in records] for records in ended] == [[item["id"] for item in call] for call in calls]


async def test_of_adds_with_one_id_the_first_is_stored_unless_it_has_expired(store: Store) -> None:
    ended = await queued(
        store,
        store.memories.add("1", id="a"),
        store.memories.add("gone", id="b", ttl=-1),
        store.memories.add("2", id="a", tags={"two"}),
        store.memories.add("3", id="b"),
        store.memories.add("4", id="c"),
    )
    assert [type(end) for end in ended if isinstance(end, BaseException)] == [DuplicateError]
    assert isinstance(ended[2], DuplicateError)
    assert {m.id: m.content async for m in store.memories.list()} == {"a": "1", "b": "3", "c": "4"}
    assert [tag.name async for tag in store.tags.list()] == []


@pytest.mark.parametrize("earlier", [0, 1])
async def test_all_writes_fail_when_sqlite_ends_the_transaction_inside_one_call(
    store: Store, rng: np.random.Generator, earlier: int
) -> None:
    rows = vectors(rng, 5)
    await store.memories.search(rows[0])
    fatal = "BEFORE INSERT ON memory WHEN NEW.id = '2' BEGIN SELECT RAISE(ROLLBACK, 'full'); END"
    await on_thread(store, lambda c: raw(c).execute(f"CREATE TEMP TRIGGER fatal {fatal}"))
    ended = await queued(
        store,
        *[store.assemblies.add("g") for _ in range(earlier)],
        *(store.memories.add("x", id=f"{i}", embedding=row) for i, row in enumerate(rows)),
    )
    await on_thread(store, lambda c: raw(c).execute("DROP TRIGGER fatal"))
    assert [type(end) for end in ended] == [StorageError] * (earlier + 5)
    assert len({id(end) for end in ended}) == earlier + 5
    assert await ids(store) == []
    assert await store.assemblies.count() == 0
    await store.memories.add("goes on", embedding=rows[0])


# -- a failure of one write


@pytest.mark.parametrize("place", [0, 7, 19])
async def test_write_that_raises_leaves_nothing_and_the_others_go_on(
    store: Store, rng: np.random.Generator, place: int
) -> None:
    rows = vectors(rng, 20)
    await store.memories.add("taken", id="taken")
    await store.memories.search(rows[0])
    items = [[{"content": "x", "id": f"{i}", "embedding": row, "tags": {f"t{i}"}}] for i, row in enumerate(rows)]
    items[place].append({"content": "x", "id": "taken"})
    async with recorded_statements(store) as statements:
        ended = await queued(store, *map(store.memories.add_many, items))
    assert [i for i, end in enumerate(ended) if isinstance(end, DuplicateError)] == [place]
    remaining = [f"{i}" for i in range(20) if i != place]
    assert [end[0].id for end in ended if not isinstance(end, BaseException)] == remaining
    assert await ids(store) == ["taken", *remaining]
    assert sorted(hit.memory.id for hit in await store.memories.search(rows[place], 50)) == sorted(remaining)
    assert f"t{place}" not in [tag.name async for tag in store.tags.list()]
    assert statements.count("COMMIT") == 1


async def test_error_before_the_transaction_reaches_only_its_caller(store: Store) -> None:
    async with recorded_statements(store) as statements:
        ended = await queued(
            store,
            store.memories.add("x", embedding=[1.0]),
            store.memories.add("x", id="a"),
            store.memories.add("x", importance=7),
            store.memories.add("x", id="b"),
        )
        with pytest.raises(InvalidError):
            await store.memories.add("x", importance=7)
    assert [isinstance(end, InvalidError) for end in ended] == [True, False, True, False]
    assert await ids(store) == ["a", "b"]
    assert [statements.count(word) for word in ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK")][:2] == [1, 1]


async def test_stop_iteration_reaches_the_caller(store: Store) -> None:
    def stop(connection: Connection) -> None:
        raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        await store._database.write(stop)
    await store.memories.add("goes on")


# -- a failure of the transaction


def lost(connection: Connection) -> None:
    """A statement that fails and takes the whole transaction with it, as a full disk may."""
    raw(connection).execute("INSERT OR ROLLBACK INTO namespace SELECT * FROM namespace LIMIT 1")


def lost_unnoticed(connection: Connection) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        lost(connection)


@pytest.mark.parametrize("culprit", [lost, lost_unnoticed])
@pytest.mark.parametrize("earlier", [0, 3])
async def test_all_writes_of_a_transaction_that_sqlite_ends_fail_and_later_ones_go_on(
    store: Store, rng: np.random.Generator, earlier: int, culprit: Callable[[Connection], None]
) -> None:
    rows = vectors(rng, 6)
    await store.memories.add("x", id="old", embedding=rows[0])
    await store.memories.search(rows[0])
    adds = [store.memories.add("x", id=f"{i}", embedding=row) for i, row in enumerate(rows)]
    ended = await queued(store, *adds[:earlier], store._database.write(culprit), *adds[earlier:])
    failed = [isinstance(end, memstore.MemstoreError) for end in ended]
    assert failed == [True] * (earlier + 1) + [False] * (6 - earlier)
    assert all(isinstance(end, StorageError) for end in ended[:earlier])
    assert len({id(end) for end in ended}) == len(ended)
    stored_ids = ["old", *(f"{i}" for i in range(earlier, 6))]
    assert await ids(store) == stored_ids
    assert sorted(hit.memory.id for hit in await store.memories.search(rows[0], 50)) == sorted(stored_ids)


async def test_all_writes_fail_when_one_cannot_be_rolled_back(store: Store) -> None:
    def unmarked(connection: Connection) -> None:
        raw(connection).execute("RELEASE job")
        raise ZeroDivisionError

    ended = await queued(
        store, store.memories.add("x", id="a"), store._database.write(unmarked), store.memories.add("x", id="b")
    )
    assert [type(end) for end in ended[:2]] == [StorageError, ZeroDivisionError]
    assert await ids(store) == ["b"]


def refusing(*verdicts: bool, name: str = "COMMIT") -> Callable[[Connection], None]:
    """Make SQLite refuse the statement *name* where a verdict is true: one verdict each time, the last from then on."""
    remaining = list(verdicts)

    def authorize(action: int, statement: str | None, *_: object) -> int:
        if action != sqlite3.SQLITE_TRANSACTION or statement != name:
            return sqlite3.SQLITE_OK
        refused = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        return sqlite3.SQLITE_DENY if refused else sqlite3.SQLITE_OK

    return lambda connection: raw(connection).set_authorizer(authorize)


async def test_failed_begin_fails_all_pending_writes(store: Store) -> None:
    await on_thread(store, refusing(True, name="BEGIN"))
    ended = await queued(store, *(store.memories.add("x") for _ in range(5)), session(store, "never"))
    assert [type(end) for end in ended] == [StorageError] * 6
    assert len({id(end) for end in ended}) == 6
    await on_thread(store, lambda c: raw(c).set_authorizer(None))
    assert await ids(store) == []


async def test_failed_commit_fails_all_writes_of_the_transaction(store: Store, rng: np.random.Generator) -> None:
    row = vectors(rng, 1)[0]
    await store.memories.add("taken", id="taken")
    await on_thread(store, refusing(True, False))
    ended = await queued(
        store, *(store.memories.add("x", embedding=row) for _ in range(5)), store.memories.add("x", id="taken")
    )
    await on_thread(store, lambda c: raw(c).set_authorizer(None))
    assert all(type(end) is StorageError and end.__cause__ is not None for end in ended[:5]), ended
    assert len({id(end) for end in ended}) == 6
    assert isinstance(ended[5], DuplicateError)
    assert await ids(store) == ["taken"]
    assert await store.memories.search(row) == []
    await store.memories.add("goes on", embedding=row)


async def test_pending_writes_go_on_after_an_unknown_commit(path: Path) -> None:
    store = await memstore.open(path, dimension=2)
    await on_thread(store, refusing(True))
    ended = await queued(store, *(store.memories.add("x") for _ in range(writer.MAX_SHARED + 5)), session(store, "y"))
    assert all(isinstance(end, CommitUnknownError) for end in ended)
    assert len({id(end) for end in ended}) == len(ended)
    await on_thread(store, lambda c: raw(c).set_authorizer(None))
    await store.memories.add("goes on", id="z")
    assert await ids(store) == ["z"]
    await store.close()
    async with memstore.open(path) as again:
        assert await again.memories.count() == 1


async def session(store: Store, *ids: str) -> None:
    async with store.transaction() as tx:
        for id in ids:
            await tx.memories.add("x", id=id)
            await asyncio.sleep(0)


# -- cancellation


async def test_write_cancelled_in_the_queue_ends_at_once_and_is_never_stored(store: Store) -> None:
    with busy_thread(store):
        tasks = await started(*(store.memories.add("x", id=f"{i}") for i in range(10)))
        for task in tasks[::3]:  # the first, whose turn it is, among them
            task.cancel()
        async with asyncio.timeout(60):
            assert all(isinstance(e, asyncio.CancelledError) for e in await outcomes(tasks[::3]))
        assert not tasks[1].done()
    await outcomes(tasks)
    assert await ids(store) == [f"{i}" for i in range(10) if i % 3]


async def test_session_starts_when_the_write_before_it_is_cancelled(store: Store) -> None:
    with busy_thread(store):
        tasks = await started(
            store.memories.add("x", id="never"), session(store, "a", "b"), store.memories.add("x", id="c")
        )
        tasks[0].cancel()
        await asyncio.sleep(0)
    await outcomes(tasks)
    assert await ids(store) == ["a", "b", "c"]


async def test_next_request_starts_when_a_session_is_cancelled_in_the_queue_or_at_its_start(store: Store) -> None:
    with busy_thread(store):
        tasks = await started(store.memories.add("x", id="a"), session(store, "never"), store.memories.add("x", id="b"))
        tasks[1].cancel()
        await asyncio.sleep(0)
        assert tasks[1].cancelled()
    await outcomes(tasks)
    rng = random.Random(1)
    for _ in range(50):
        tasks = await started(session(store, "never"))
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        await asyncio.sleep(rng.choice([0, 0, 0.0001, 0.0003]))
        tasks[0].cancel()
        await outcomes(tasks)
        await store.memories.delete("never")  # its COMMIT may have begun
        async with asyncio.timeout(60):
            await store.memories.upsert("x", id="b")
    assert await ids(store) == ["a", "b"]


@pytest.mark.parametrize("kind", ["job", "session"])
async def test_session_cancelled_during_begin_leaves_no_open_transaction(store: Store, kind: str) -> None:
    loop, cancelled = asyncio.get_running_loop(), threading.Event()

    def record(statement: str) -> None:
        if statement == "BEGIN IMMEDIATE" and not cancelled.is_set():
            loop.call_soon_threadsafe(lambda: (task.cancel(), cancelled.set()))
            cancelled.wait(60)

    await on_thread(store, lambda c: raw(c).set_trace_callback(record))
    (task,) = await started(session(store, "never") if kind == "session" else store.memories.add("x", id="never"))
    (end,) = await outcomes([task])
    assert isinstance(end, asyncio.CancelledError)
    assert await on_thread(store, lambda c: raw(c).in_transaction) is False
    await store.memories.add("x", id="a")
    assert await ids(store) == ["a"]


async def test_error_of_an_abandoned_write_is_not_logged() -> None:
    loop, news = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, name: news.append(name))
    resolve(UncancellableFuture(), None, ValueError("lost"))
    assert news == []


async def test_write_cancelled_while_it_runs_is_completed_first(store: Store) -> None:
    running, go = threading.Event(), threading.Event()

    def slowly(connection: Connection) -> None:
        running.set()
        go.wait()
        raw(connection).execute("INSERT INTO namespace (path) VALUES ('new/')")

    (task,) = await started(store._database.write(slowly))
    while not running.is_set():
        await asyncio.sleep(0.001)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()
    go.set()
    (end,) = await outcomes([task])
    assert isinstance(end, asyncio.CancelledError)
    row_count = await store._database.read(
        lambda c: c.exec_driver_sql("SELECT count(*) FROM namespace WHERE path = 'new/'").scalar_one()
    )
    assert row_count == 1


async def test_future_is_awaited_through_cancellations_and_raises_them_at_its_end() -> None:
    loop = asyncio.get_running_loop()
    for value, error in ((1, None), (None, ValueError("lost"))):
        outcome: UncancellableFuture[int] = UncancellableFuture()

        async def wait(outcome: "UncancellableFuture[int]" = outcome) -> int:
            return await outcome

        tasks = await started(wait(), wait(), _within(0.01, wait()))
        tasks[0].cancel()
        await asyncio.sleep(0.03)
        assert not any(task.done() for task in tasks)
        threading.Thread(target=call_on_loop, args=(loop, resolve, outcome, value, error)).start()
        first, second, third = await outcomes(tasks)
        assert isinstance(first, asyncio.CancelledError)
        assert second == 1 or second is error
        assert isinstance(third, TimeoutError)


async def _within(seconds: float, call: Any) -> Any:
    async with asyncio.timeout(seconds):
        return await call


# -- waiting


async def test_writes_wait_at_most_their_timeout_for_another_process(store: Store, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        since = time.monotonic()

        async def write(id: str, wait: float) -> tuple[str, float]:
            def step(connection: Connection) -> None:
                raw(connection).execute("INSERT INTO namespace (path) VALUES (?)", (f"{id}/",))

            try:
                await store._database.write(step, wait=wait)
            except BusyError:
                return "busy", time.monotonic() - since
            return "done", time.monotonic() - since

        with busy_thread(store):
            tasks = await started(write("a", 250), write("b", 0.2), write("c", 250), write("d", 0.6))
        await asyncio.wait([tasks[1], tasks[3]], timeout=60)
        assert [task.done() for task in tasks] == [False, True, False, True]
        assert [tasks[i].result()[0] for i in (1, 3)] == ["busy", "busy"]
        assert 0.15 < tasks[1].result()[1] < tasks[3].result()[1]
        assert tasks[3].result()[1] > 0.55
        other.execute("ROLLBACK")
    assert [end[0] for end in await outcomes(tasks)] == ["done", "busy", "done", "busy"]
    records = await store._database.read(lambda c: c.exec_driver_sql("SELECT path FROM namespace").scalars().all())
    assert sorted(records) == ["a/", "c/"]


async def test_writes_behind_a_session_wait_at_most_their_timeout(path: Path) -> None:
    async with memstore.open(path, dimension=2, timeout=2.0) as store, open_transaction(store) as end_transaction:
        early = await started(*(store.memories.add("x", id=f"early-{i}") for i in range(3)), session(store, "never"))
        await asyncio.sleep(1.0)
        late = await started(store.memories.add("x", id="late"), session(store, "later"))
        assert all(isinstance(end, BusyError) for end in await outcomes(early))
        assert not any(task.done() for task in late)
        with pytest.raises(BusyError):
            await store._database.write(lambda _: None, wait=0)
        end_transaction()
        await outcomes(late)
        assert await ids(store) == ["late", "later"]


async def test_each_pending_write_has_its_own_deadline_in_any_order(store: Store) -> None:
    ended: list[tuple[str, bool]] = []

    async def write(name: str, wait: float) -> None:
        try:
            await store._database.write(lambda _: None, wait=wait)
        except BusyError:
            ended.append((name, False))
        else:
            ended.append((name, True))

    queue = store._database._writer._queue
    async with open_transaction(store) as end_transaction:
        tasks = await started(write("a", 60), write("b", 0.3), write("c", 0.1), write("d", 0.2), write("e", 50))
        async with asyncio.timeout(60):
            await asyncio.gather(*tasks[1:4])
        assert ended == [("c", False), ("d", False), ("b", False)]
        assert queue._timer is not None
        end_transaction()
        await outcomes(tasks)
    assert ended[3:] == [("a", True), ("e", True)]
    assert queue._timer is None  # and none is left for a loop that wants to end


async def test_suspended_deadline_is_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_queue, "_RECHECK", 0.05)
    queue = write_queue.WriteQueue(lambda request: True)
    queue.enqueue(write_queue.WriteRequest(queue, 60, exclusive=True))
    second: write_queue.WriteRequest[None] = queue.enqueue(write_queue.WriteRequest(queue, 0.1, exclusive=True))
    second.deadline = math.inf
    timer = queue._timer
    async with asyncio.timeout(60):
        while queue._timer is timer:
            await asyncio.sleep(0.01)
        assert not second.done()
        second.deadline = time.monotonic()
        with pytest.raises(BusyError):
            await second
    queue.start_next()
    assert queue.claim(next(iter(queue._requests)))
    queue.start_next()


async def test_size_of_the_log_is_checked_once_per_transaction(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    size_checks = []
    monkeypatch.setattr(type(store._database), "wal_bytes", lambda self: size_checks.append(self) or 0)
    await queued(store, *(store.memories.add("x") for _ in range(20)))
    assert len(size_checks) == 1
    await store.memories.add("x")
    async with store.transaction() as tx:
        await tx.memories.add("x")
    assert len(size_checks) == 3


async def test_preparation_time_does_not_count_as_waiting(path: Path) -> None:
    async with memstore.open(path, dimension=2, timeout=1.0) as store:
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:

            def prepare() -> None:
                other.execute("BEGIN IMMEDIATE")
                time.sleep(1.2)
                threading.Timer(0.1, other.execute, ["ROLLBACK"]).start()

            for earlier in (0, 1):
                with busy_thread(store):
                    adds = [store.memories.add("x") for _ in range(earlier)]
                    long = store._database.write(lambda _: "done", before=prepare, batch=True)
                    tasks = await started(*adds, long)
                assert (await outcomes(tasks))[-1] == "done"


async def test_writes_and_sessions_run_in_the_order_of_their_calls(store: Store) -> None:
    async with recorded_statements(store) as statements:
        await queued(
            store,
            store.memories.add("x", id="a"),
            store.memories.add("x", id="b"),
            session(store, "c", "d"),
            store.memories.add("x", id="e"),
            session(store, "f"),
            session(store, "g"),
            store.memories.add("x", id="h"),
            store.memories.add("x", id="i"),
        )
    assert await ids(store) == list("abcdefghi")
    assert statements.count("COMMIT") == 6


async def test_session_is_not_overtaken_by_later_writes(store: Store) -> None:
    stop = asyncio.Event()

    async def flood() -> None:
        while not stop.is_set():
            await store.memories.upsert("x", id="flood")

    flooding = await started(*(flood() for _ in range(20)))
    async with asyncio.timeout(60):
        for i in range(10):
            await session(store, f"{i}")
    stop.set()
    await outcomes(flooding)


# -- close


async def test_close_completes_earlier_writes_and_refuses_later_ones(path: Path) -> None:
    thread_count = threading.active_count()
    store = await memstore.open(path, dimension=2)
    ended = await queued(
        store,
        *(store.memories.add("x", id=f"{i}") for i in range(5)),
        session(store, "tx"),
        store.close(),
        store.memories.add("late"),
        session(store, "late"),
        store.close(),
    )
    assert [isinstance(end, ClosedError) for end in ended] == [False] * 7 + [True, True, False]
    for call in (store.memories.add("later"), store.memories.count()):
        with pytest.raises(ClosedError):
            await call
    assert not path.with_name(f"{path.name}-wal").exists()
    await eventually(lambda: threading.active_count() <= thread_count)
    async with memstore.open(path) as again:
        assert await ids(again) == ["0", "1", "2", "3", "4", "tx"]
        assert await again.check() == []


def test_loop_that_is_closed_during_writes_does_not_hang(path: Path) -> None:
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # it says of each task that it was destroyed
    store = loop.run_until_complete(memstore.open(path, dimension=2))
    with busy_thread(store):
        tasks = loop.run_until_complete(
            started(*(store.memories.add("x", id=f"{i}") for i in range(3)), session(store, "tx"))
        )
        loop.close()
    database = store._database
    threads = [
        driver._connection._thread for driver in (database._writer.thread, *database._readers.threads, database._upkeep)
    ]
    database._closed = True  # nobody can close it any more
    for driver in (database._writer.thread, *database._readers.threads, database._upkeep):
        driver.post(lambda c: c.close())
        driver._connection.stop()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    with closing(sqlite3.connect(path)) as base:
        assert base.execute("SELECT count(*) FROM memory").fetchone()[0] in (0, 3)
    for task in tasks:
        task._log_destroy_pending = False


# -- random interleavings


class Model:
    """The contents of a store after verbs in sequence."""

    def __init__(self) -> None:
        self.contents: dict[str, str] = {}

    def add(self, id: str, content: str) -> object:
        if id in self.contents:
            return DuplicateError
        self.contents[id] = content
        return content

    def upsert(self, id: str, content: str) -> object:
        self.contents[id] = content
        return content

    def delete(self, id: str, content: str) -> object:
        return 0 if self.contents.pop(id, None) is None else 1


async def result(face: Any, rows: np.ndarray[Any, Any], verb: str, id: str, content: str) -> object:
    if verb == "delete":
        return await face.memories.delete(id)
    row = rows[int(content) % len(rows)]
    try:
        return (await getattr(face.memories, verb)(content, id=id, embedding=row, tags={content[-1]})).content
    except DuplicateError:
        return DuplicateError


async def transaction(store: Store, rows: np.ndarray[Any, Any], ops: list[tuple[str, str, str]], fails: int) -> object:
    try:
        async with store.transaction() as tx:
            ended = [await result(tx, rows, *op) for op in ops]
            ops[fails]  # an IndexError, if it is to fail
    except IndexError:
        return "undone"
    return ended


@pytest.mark.parametrize("seed", range(4))
async def test_any_interleaving_equals_sequential_execution(path: Path, seed: int) -> None:
    rng, model = random.Random(seed), Model()
    rows = vectors(np.random.default_rng(seed), 30)
    async with memstore.open(path, dimension=DIMENSION, durability="relaxed") as store:
        await store.memories.search(rows[0])
        running: list[tuple[asyncio.Task[Any], object]] = []
        doomed: list[tuple[asyncio.Task[Any], list[str]]] = []
        for number in range(600):
            op = (rng.choice(["add", "upsert", "delete"]), f"{rng.randrange(15)}", f"{number}")
            kind = rng.random()
            if kind < 0.7:
                running.append((asyncio.ensure_future(result(store, rows, *op)), getattr(model, op[0])(*op[1:])))
            elif kind < 0.8:
                ops = [(v, f"{rng.randrange(15)}", f"{number}") for v in rng.choices(["add", "upsert", "delete"], k=3)]
                fails, contents = rng.random() < 0.3, dict(model.contents)
                expected: object = [getattr(model, v)(id, content) for v, id, content in ops]
                if fails:
                    expected, model.contents = "undone", contents
                running.append((asyncio.ensure_future(transaction(store, rows, ops, 9 * fails)), expected))
            else:
                names = [f"doomed-{number}-{i}" for i in range(rng.choice([1, 3]))]
                items = [{"content": "x", "id": id, "embedding": rows[0]} for id in names]
                doomed.append((asyncio.ensure_future(store.memories.add_many(items)), names))
            await asyncio.sleep(0)  # the queue has them in this order
            if doomed and rng.random() < 0.3:
                doomed[-1][0].cancel()
            if rng.random() < 0.02:
                await asyncio.sleep(rng.random() * 0.01)
        assert await outcomes([task for task, _ in running]) == [expected for _, expected in running]
        ended = await outcomes([task for task, _ in doomed])
        for (_, names), end in zip(doomed, ended, strict=True):
            stored_count = len(await store.memories.get_many(names))
            assert stored_count in (0, len(names))
            assert stored_count or isinstance(end, asyncio.CancelledError)
        assert {m.id: m.content async for m in store.memories.list() if not m.id.startswith("doomed")} == model.contents
        hit_ids = {hit.memory.id for hit in await store.memories.search(rows[0], 1_000)}
        assert hit_ids == set(await ids(store))
        assert await store.check() == []
        assert any(isinstance(end, asyncio.CancelledError) for end in ended)

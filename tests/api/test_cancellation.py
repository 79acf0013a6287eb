"""A call that is cancelled at any moment is complete or has no effect, and the store works afterwards.

Every public method is run once for each step that its task takes, and cancelled at that step: once, or several times
on end. After each the store takes a write, finds it, and `check` compares rows and index.
"""

import asyncio
import contextlib
import gc
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memstore
from memstore import MemstoreError, Store
from tests.api.test_regressions import EVERY, NAMES, Ground, bounded, expect_intact, ground, once, only_threads, threads
from tests.conftest import DIMENSION

ALONE = {"check", "repair", "compact", "backup", "optimize"}  # they take long: cancelled at fewer steps
MOST = 60  # steps of a call that are tried, spread over all of them where there are more


class Stepped:
    """A coroutine that counts its steps, and at one of them asks for the cancellation of the task it runs in."""

    def __init__(self, call: Coroutine[Any, Any, None], at: int, times: int) -> None:
        self.steps = 0
        self._call = call
        self._at = at
        self._times = times

    def __await__(self) -> Iterator[Any]:
        inner = self._call.__await__()
        value: Any = None
        error: BaseException | None = None
        while True:
            if self._at <= self.steps < self._at + self._times:
                asyncio.current_task().cancel()
            self.steps += 1
            try:
                waited = inner.send(value) if error is None else inner.throw(error)
            except StopIteration:
                return
            error = None
            try:
                value = yield waited
            except BaseException as thrown:
                error = thrown


async def stepped(call: Coroutine[Any, Any, None], at: int, times: int = 1) -> tuple[int, bool]:
    """Run *call* as a task of its own, cancelled at its step *at*: its steps, and whether it ended as cancelled."""
    runner = Stepped(call, at, times)

    async def run() -> None:
        await runner

    task = asyncio.create_task(run())
    await asyncio.wait([task], timeout=60)
    assert task.done(), f"it did not end when it was cancelled at step {at}"
    if task.cancelled():
        return runner.steps, True
    error = task.exception()
    assert error is None or isinstance(error, MemstoreError), error
    return runner.steps, False


@contextlib.asynccontextmanager
async def quiet() -> Any:
    """No task, no thread and no unheard exception is left by the block."""
    loop = asyncio.get_running_loop()
    heard: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: heard.append(context))
    tasks, running = asyncio.all_tasks(), threads()
    try:
        yield
        gc.collect()  # the loop closes a caller's abandoned async generator in a task of its own
        for _ in range(1_000):
            await asyncio.sleep(0.01)
            pending = {task for task in asyncio.all_tasks() - tasks if not task.done()}
            if not pending:
                break
        assert heard == []
        assert pending == set()
        assert await only_threads(running)
    finally:
        loop.set_exception_handler(None)


def rows(path: Path) -> dict[str, list[Any]]:
    """What is stored, but for what every write leaves behind."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        read = {
            table: connection.execute(f"SELECT {columns} FROM {table} ORDER BY 1, 2").fetchall()
            for table, columns in {
                "memory": "namespace_pk, id, content, importance, access_count",
                "memory_vector": "memory_pk, vector",
                "memory_tag": "memory_pk, tag_pk",
                "assembly": "namespace_pk, id, name",
                "assembly_member": "assembly_pk, memory_pk",
            }.items()
        }
    # Keys differ between two runs of the same call: how many of each there are says whether it was half done.
    return {table: [len(contents)] if table != "memory" else contents for table, contents in read.items()}


@pytest.mark.parametrize(("noun", "verb"), EVERY, ids=NAMES)
async def test_call_cancelled_at_any_step_is_complete_or_absent(path: Path, noun: type, verb: str) -> None:
    async with quiet():
        for inside in (False, True) if verb not in ALONE | {"close"} else (False,):
            await _at_every_step(path, noun, verb, inside=inside)
            for name in path.parent.glob("*"):
                name.unlink()


async def _at_every_step(path: Path, noun: type, verb: str, *, inside: bool) -> None:
    async with ground(path) as g:
        g.item = lambda: {"id": "new:item", "content": "x", "embedding": np.ones(DIMENSION), "tags": {"t"}}
        total, _ = await stepped(once(noun, verb, g, inside=inside), at=10**9)
        ends = 0
        at = 0
        while at < total + 2:
            if g.store._database.closed:
                g.store = await memstore.open(path, timeout=20, durability="relaxed")
            before = rows(path)
            _, cancelled = await stepped(once(noun, verb, g, inside=inside), at, times=1 + at % 3)
            ends += cancelled
            if cancelled and verb in ("add_many", "upsert_many", "load"):
                after = rows(path)["memory"]
                assert len(after) - len(before["memory"]) in (0, 1, 2)
            at += 1 if total <= MOST else total // MOST
        if g.store._database.closed:
            g.store = await memstore.open(path, timeout=20, durability="relaxed")
        if total > 2:
            assert ends, "it was never cancelled"
        await expect_intact(g.store)
        await g.store.close()


@pytest.mark.parametrize("there", [False, True], ids=["new", "there"])
async def test_open_cancelled_at_any_step_leaves_a_file_that_opens(path: Path, there: bool) -> None:
    opened: list[Store] = []

    async def opening() -> None:
        opened.append(await memstore.open(path, dimension=DIMENSION, indexed_metadata=("user",), timeout=5))

    async def closed() -> None:
        while opened:
            await opened.pop().close()

    async with quiet():
        total, _ = await stepped(opening(), at=10**9)
        await closed()
        assert total > 5
        ends = 0
        for at in range(total):
            if not there:
                for file in path.parent.glob("*"):
                    file.unlink()
            _, cancelled = await stepped(opening(), at, times=1 + at % 3)
            assert cancelled or opened
            ends += not opened  # what is cancelled in its last step has opened it already
            await closed()
            async with memstore.open(path, dimension=DIMENSION) as again:
                await expect_intact(again)
        assert ends


class Gate:
    """Holds the writer's thread at a place, until the test has done what it wants to do meanwhile."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._open = threading.Event()

    def wait(self) -> None:
        self._loop.call_soon_threadsafe(self.reached.set)
        assert self._open.wait(60)

    def open(self) -> None:
        self._open.set()


def stop_before_the_index_follows(store: Store, gate: Gate) -> None:
    follow = store._follower.after_commit

    def wait_and_follow(connection: Any) -> None:
        gate.wait()
        store._follower.after_commit = follow
        follow(connection)

    store._follower.after_commit = wait_and_follow


def stop_before_statement(store: Store, gate: Gate, beginning: str) -> None:
    """Stop where SQLite begins a statement."""
    base = store._database._writer.thread._sync.connection.dbapi_connection
    gates = [gate]

    def traced(statement: str) -> None:
        if statement.startswith(beginning) and gates:
            gates.pop().wait()

    base.set_trace_callback(traced)


STOPS: dict[str, Callable[[Store, Gate], None]] = {
    "first statement": partial(stop_before_statement, beginning="BEGIN IMMEDIATE"),
    "rows": partial(stop_before_statement, beginning="INSERT INTO memory "),
    "commit": partial(stop_before_statement, beginning="COMMIT"),
    "index": stop_before_the_index_follows,
}


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("where", STOPS)
async def test_write_cancelled_while_its_thread_runs_is_complete_or_absent(
    store: Store, where: str, times: int
) -> None:
    await store.memories.search(np.ones(DIMENSION))
    gate = Gate()
    STOPS[where](store, gate)
    task = asyncio.create_task(store.memories.add_many([{"content": "x", "id": id, "embedding": np.ones(DIMENSION)} for id in "ab"]))  # fmt: skip  # noqa: E501
    await bounded(gate.reached.wait())
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done() or where == "first statement"
    gate.open()
    with pytest.raises(asyncio.CancelledError):
        await task
    records = await store.memories.get_many(["a", "b"])
    assert len(records) in ((0, 2) if where == "first statement" else (2,))
    assert len(await store.memories.search(np.ones(DIMENSION))) == len(records)
    await expect_intact(store)


async def test_failed_task_group_leaves_a_complete_store(store: Store) -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError

    for turn in range(20):
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                for i in range(10):
                    group.create_task(store.memories.add("x", id=f"{turn}:{i}", embedding=np.ones(DIMENSION)))
                for _ in range(turn):
                    await asyncio.sleep(0)
                group.create_task(fail())
        assert [type(error) for error in caught.value.exceptions] == [LookupError]
        assert len(await store.memories.search(np.ones(DIMENSION), 1_000)) == await store.memories.count()
    await expect_intact(store)


TIMED = [(noun, verb) for noun, verb in EVERY if verb != "close"]


@pytest.mark.parametrize(("noun", "verb"), TIMED, ids=lambda x: getattr(x, "__name__", x))
async def test_timeout_around_any_call_leaves_a_complete_store(path: Path, noun: type, verb: str) -> None:
    async with ground(path) as g:
        async with g.store.snapshot():
            pass  # the store keeps this connection open for the next snapshot
        async with quiet():
            for seconds in (0, 0.0005, 0.002, 0.01):
                with contextlib.suppress(TimeoutError, MemstoreError):
                    async with asyncio.timeout(seconds):
                        await once(noun, verb, g, inside=False)
            await expect_intact(g.store)


async def _work(g: Ground, name: str) -> None:
    store = g.store
    many: dict[str, Callable[[], Awaitable[Any]]] = {
        "search": lambda: store.memories.search_many([g.vector() for _ in range(200)]),
        "batch": lambda: store.memories.add_many([{**g.item(), "id": g.new()} for _ in range(2_000)]),
        "optimize": store.optimize,
        "backup": lambda: store.backup(g.folder / f"{g.new()[4:]}.bak"),
        "load": lambda: store.load(({**g.item(), "id": g.new()} for _ in range(5_000)), chunk=100),
        "check": store.check,
        "compact": store.compact,
        "list": lambda: _drained(store.memories.list()),
    }
    await many[name]()


async def _drained(items: Any) -> None:
    async for _ in items:
        pass


@pytest.mark.parametrize("name", ["search", "batch", "optimize", "backup", "load", "check", "compact", "list"])
async def test_close_during_any_work_ends_and_leaves_a_complete_file(path: Path, name: str) -> None:
    async with quiet():
        for spins in (0, 1, 3, 10, 40):
            async with ground(path) as g:
                task = asyncio.create_task(_work(g, name))
                for _ in range(spins):
                    await asyncio.sleep(0)
                await bounded(g.store.close())
                await asyncio.wait([task], timeout=60)
                assert task.done()
                error = task.exception()
                assert error is None or isinstance(error, MemstoreError), error
            async with memstore.open(path) as again:
                await expect_intact(again)
            for file in path.parent.glob("*"):
                file.unlink()


async def test_close_waits_for_a_transaction_at_most_the_timeout(path: Path) -> None:
    store = await memstore.open(path, dimension=DIMENSION, timeout=0.3)
    begun, end = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with store.transaction() as tx:
            await tx.memories.add("x", id="a")
            begun.set()
            await end.wait()

    task = asyncio.create_task(hold())
    await bounded(begun.wait())
    with pytest.raises(memstore.BusyError):
        await bounded(store.close())
    end.set()
    await bounded(task)
    assert await store.memories.count() == 1
    await bounded(store.close())

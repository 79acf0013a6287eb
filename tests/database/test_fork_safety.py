"""Stores where they do not belong: in forked children, in other event loops, in threads without one."""

import asyncio
import gc
import inspect
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memstore
from memstore import (
    Assemblies,
    AssemblyForgetPolicy,
    Change,
    EventLoopError,
    ForgetPlan,
    ForgetPolicy,
    ForkedStoreError,
    Memories,
    Store,
    StoreNamespace,
    Tags,
    Transaction,
)
from memstore.concurrency import ProcessLock, UncancellableFuture
from memstore.database import fork_safety
from memstore.testing import HashEmbedder

ROOT = Path(__file__).parents[2]
forking = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

Calls = dict[str, Callable[[Any], Any]]


def empty_plan(record_kind: Any, owner: Any) -> ForgetPlan:
    """A plan that names nothing."""
    whole: Any = {
        "record_kind": record_kind,
        "policy": ForgetPolicy(older_than=1),
        "namespace": owner._namespace,
        "recursive": False,
    }
    return ForgetPlan(**whole, created_at=datetime.now(UTC), candidates=(), bytes=0, remaining=0, remaining_bytes=None)


CHANGE = Change(
    number=1,
    record_kind="memory",
    id="a",
    namespace=(),
    kind="added",
    at=datetime(2024, 1, 1, tzinfo=UTC),
    actor=None,
    reason=None,
    undoes=None,
    old={},
    new={},
    members_added=(),
    members_removed=(),
)
COLLECTION: Calls = {
    "get": lambda n: n.get("a"),
    "get_many": lambda n: n.get_many(["a"]),
    "delete": lambda n: n.delete("a"),
    "delete_many": lambda n: n.delete_many(ids=[]),
    "list": lambda n: n.list(),
    "count": lambda n: n.count(),
    "history": lambda n: n.history("a"),
    "search": lambda n: n.search("a text"),
    "search_many": lambda n: n.search_many([]),
    "update": lambda n: n.update("a", tags={"t"}),
    "add_many": lambda n: n.add_many([]),
    "upsert_many": lambda n: n.upsert_many([]),
    "trash": lambda n: n.trash(),
    "recover": lambda n: n.recover([]),
    "purge": lambda n: n.purge(older_than=0),
}
NAMESPACE: Calls = {
    "clear": lambda s: s.clear(),
    "undo": lambda s: s.undo(CHANGE),
    "namespaces": lambda s: s.namespaces(),
    "transaction": lambda s: s.transaction(),
}
CALLS: dict[type, Calls] = {
    Memories: {
        **COLLECTION,
        "add": lambda n: n.add("a text"),
        "upsert": lambda n: n.upsert("a text", id="a"),
        "touch": lambda n: n.touch([]),
        "explain": lambda n: n.explain("a text", "a"),
        "plan_forget": lambda n: n.plan_forget(ForgetPolicy(older_than=1)),
        "forget": lambda n: n.forget(empty_plan("memory", n)),
    },
    Assemblies: {
        **COLLECTION,
        "add": lambda n: n.add("b", name="B"),
        "upsert": lambda n: n.upsert("b", name="B"),
        "add_members": lambda n: n.add_members("g", []),
        "remove_members": lambda n: n.remove_members("g", []),
        "members": lambda n: n.members("g"),
        "containing": lambda n: n.containing("a"),
        "plan_forget": lambda n: n.plan_forget(AssemblyForgetPolicy(members_below=1)),
        "forget": lambda n: n.forget(empty_plan("assembly", n)),
        "merge": lambda n: n.merge(["g", "h"]),
        "unmerge": lambda n: n.unmerge("g"),
        "get_merged": lambda n: n.get_merged("g"),
        "lineage": lambda n: n.lineage("g"),
        "merge_candidates": lambda n: n.merge_candidates(0.5),
        "suggest": lambda n: n.suggest(0.5),
        "create_from": lambda n: n.create_from([]),
        "activate": lambda n: n.activate([]),
        "sync_state": lambda n: n.sync_state("g"),
    },
    Tags: {"list": lambda n: n.list(), "rename": lambda n: n.rename("t", "u"), "delete": lambda n: n.delete("t")},
    Transaction: NAMESPACE,
    StoreNamespace: {**NAMESPACE, "load": lambda s: s.load([])},
    Store: {
        **NAMESPACE,
        "load": lambda s: s.load(iter(())),
        "check": lambda s: s.check(),
        "repair": lambda s: s.repair(),
        "stats": lambda s: s.stats(),
        "optimize": lambda s: s.optimize(),
        "compact": lambda s: s.compact(),
        "backup": lambda s: s.backup("a copy"),
        "close": lambda s: s.close(),
    },
}
"""Every public verb, with good arguments; of those that take many, none, so that nothing but the place is at fault."""


@pytest.mark.parametrize("noun", CALLS, ids=lambda noun: noun.__name__)
def test_every_public_verb_is_covered_here(noun: type) -> None:
    public = {name for name, member in inspect.getmembers(noun, callable) if not name.startswith("_")}
    assert public - {"namespace"} == set(CALLS[noun])  # which asks nothing of the file


def nouns(store: Store, tx: Transaction) -> dict[str, tuple[object, Calls]]:
    """Every object that has verbs, with them."""
    of = {"store": store, "view": store.namespace("n"), "tx": tx, "tx view": tx.namespace("n")}
    results: dict[str, tuple[object, Calls]] = {name: (owner, CALLS[type(owner)]) for name, owner in of.items()}
    for name, owner in of.items():
        for part in ("memories", "assemblies", "tags"):
            results[f"{name}.{part}"] = (getattr(owner, part), CALLS[type(getattr(owner, part))])
    return results


async def use(made: Any) -> None:
    """Await, enter or iterate, whichever it is for."""
    if hasattr(made, "__anext__"):
        await anext(made)
    elif hasattr(made, "__aenter__"):
        await made.__aenter__()
    else:
        await made


def outcome(call: Callable[[], Any]) -> str:
    """What a call raises that has no loop to wait in."""
    try:
        use(call()).send(None)
    except StopIteration:
        return "returned"
    except BaseException as error:
        return type(error).__name__
    return "waits"


def outcomes(things: dict[str, tuple[object, Calls]]) -> dict[str, str]:
    return {
        f"{name}.{verb}": outcome(lambda call=call, owner=owner: call(owner))
        for name, (owner, calls) in things.items()
        for verb, call in calls.items()
    }


@pytest.fixture
async def opened(path: Path, monkeypatch: pytest.MonkeyPatch):
    """A store that has used all its threads, an open transaction of it, and iterations that have begun."""
    monkeypatch.chdir(path.parent)  # a backup that is not refused is made there
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(
            memstore.open(path, embedder=HashEmbedder(8), index=memstore.IndexOptions(engine="faiss"))
        )
        await store.memories.add_many([{"content": f"text {i}", "id": str(i), "tags": {"t", "u"}} for i in range(3)])
        await store.assemblies.add("g", name="G", members=["0", "1", "2"])
        await store.memories.search("text")
        tx = await stack.enter_async_context(store.transaction())
        yield store, tx
    async with memstore.open(path) as store:
        assert await store.check() == []


async def begun(store: Store, tx: Transaction) -> dict[str, Any]:
    """Iterations in the middle of a page."""
    results = {
        "list": store.memories.list(),
        "members": store.assemblies.members("g"),
        "tags": store.tags.list(),
        "tx list": tx.memories.list(),
    }
    for iterator in results.values():
        await anext(iterator)
    return results


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Kill this process if the block takes longer."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)


def in_child(function: Callable[[], object]) -> Any:
    """What *function* returns in a forked child. The test fails if it raises, or if the child was killed."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            output = json.dumps(function())
        except BaseException:
            output = json.dumps(["raised", traceback.format_exc()])
        os.write(writer, output.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as link:
        output = link.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "the child hung"
    return json.loads(output)


@forking
async def test_every_verb_raises_at_once_in_a_forked_child(opened) -> None:
    store, tx = opened
    things, iterations = nouns(store, tx), await begun(store, tx)

    def use_all() -> dict[str, str]:
        results = {}
        for name, (owner, calls) in things.items():
            for verb, call in calls.items():
                with at_most(1.0):
                    results[f"{name}.{verb}"] = outcome(lambda call=call, owner=owner: call(owner))
        for name, iterator in iterations.items():
            with at_most(1.0):
                results[f"{name} goes on"] = outcome(lambda iterator=iterator: iterator)
        with at_most(1.0):
            results["exit"] = outcome(lambda: store.__aexit__(None, None, None))
            assert repr(store)
        return results

    results = await hold_all_locks(store, lambda: in_child(use_all))
    assert len(results) > 100
    assert set(results.values()) == {"ForkedStoreError"}, {k: v for k, v in results.items() if v != "ForkedStoreError"}
    for iterator in iterations.values():
        await iterator.aclose()


async def hold_all_locks(store: Store, function: Callable[[], Any]) -> Any:
    """Run *function* while another thread has every lock that a verb may take, and a reader's thread is busy."""
    go, idle, database = threading.Event(), threading.Event(), store._database

    def hold() -> None:
        with (
            store._follower.indexes.lock.exclusive(),
            store._follower.indexes.lock._guard,
            database._writer._queue._lock,
        ):
            idle.set()
            go.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    idle.wait(60)
    busy = database._readers[0].submit(lambda c: go.wait(60))
    try:
        return function()
    finally:
        go.set()
        holder.join()
        await busy


@forking
async def test_blocks_end_at_once_in_a_child(path: Path) -> None:
    store = await memstore.open(path, dimension=2)
    block = store.transaction()
    tx = await block.__aenter__()
    part = tx.transaction()
    await part.__aenter__()

    def leave() -> list[str]:
        error = ValueError("of the block")
        with at_most(1.0):
            return [
                outcome(lambda: left(part.__aexit__(None, None, None))),
                outcome(lambda: left(block.__aexit__(ValueError, error, None))),
                outcome(lambda: left(store.__aexit__(ValueError, error, None))),
            ]

    assert in_child(leave) == ["ForkedStoreError", "returned", "returned"]
    await part.__aexit__(None, None, None)
    await tx.memories.add("x")
    await block.__aexit__(None, None, None)
    assert await store.check() == []
    assert await store.memories.count() == 1
    await store.close()


async def left(exit: Awaitable[object]) -> None:
    assert not await exit  # an error of the block goes on as it is


@forking
async def test_futures_of_a_thread_can_be_cancelled_in_a_child(store) -> None:
    waiting: UncancellableFuture[None] = UncancellableFuture()
    go = threading.Event()
    store._database._writer.thread.submit(lambda c: go.wait(60))
    adding = asyncio.ensure_future(store.memories.add("x"))
    await asyncio.sleep(0)
    place = next(iter(store._database._writer._queue._requests))

    def cancel() -> list[bool]:
        for future in (waiting, place):  # their callbacks are the parent's loop's
            future._callbacks.clear() if future._callbacks else None
        with at_most(5.0):
            return [waiting.cancel(), place.cancel()]

    with store._database._writer._queue._lock:
        assert in_child(cancel) == [True, True]
    assert waiting.cancel() is False
    go.set()
    await adding


@forking
def test_process_lock_is_free_in_a_child() -> None:
    lock = ProcessLock()

    def take() -> str:
        with at_most(1.0), lock:
            return "had"

    with lock:
        assert in_child(take) == "had"


async def one_row(path: Path) -> None:
    async with memstore.open(path) as store:
        await store.memories.add("of the child", id="child")


@forking
async def test_child_may_not_open_a_file_that_its_parent_is_writing_to(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        async with store.transaction() as tx:
            # more than the cache holds: what is not committed is in the log, and in the memory that children share
            await tx.memories.add_many([{"content": "x" * 10_000, "embedding": [1, i]} for i in range(3_000)])
            assert in_child(lambda: refused(path)) == "ForkedStoreError"
            assert await tx.memories.count() == 3_000
        assert await store.check() == []
        in_child(lambda: asyncio.run(one_row(path)))
        assert await store.memories.count() == 3_001


@forking
async def test_child_may_not_open_a_file_that_a_busy_thread_uses(path: Path, monkeypatch) -> None:
    monkeypatch.setattr(fork_safety, "_MAX_WAIT", 0.01)
    async with memstore.open(path, dimension=2) as store:
        go, began = threading.Event(), threading.Event()
        busy = store._database._readers[0].submit(lambda c: (began.set(), go.wait(60)))
        began.wait(60)
        assert in_child(lambda: refused(path)) == "ForkedStoreError"
        with fork_safety.temporary_connections(str(path)):
            go.set()
            await busy
            assert in_child(lambda: refused(path)) == "ForkedStoreError"
        in_child(lambda: asyncio.run(one_row(path)))


def refused(path: Path) -> str:
    try:
        asyncio.run(one_row(path))
    except ForkedStoreError as error:
        return type(error).__name__ if "spawn" in str(error) else str(error)
    return "opened"


class Idle:
    """A connection as `forks` sees it, that nothing else refers to."""

    gate, path, base = threading.RLock(), "none", None


@forking
def test_inherited_connections_are_never_freed_in_a_child() -> None:
    idle = [Idle()]
    there = weakref.ref(idle[0])
    fork_safety.register(idle[0])

    def forget() -> bool:
        idle.clear()
        gc.collect()
        return there() is not None

    assert in_child(forget)


class Gated:
    """A connection with a gate of its own."""

    path, base = "none", None

    def __init__(self) -> None:
        self.gate = threading.RLock()


def test_threads_that_fork_at_once_release_only_their_gates(monkeypatch) -> None:
    monkeypatch.setattr(fork_safety, "_MAX_WAIT", 0.01)
    first, second = Gated(), Gated()
    fork_safety.register(first)
    fork_safety.register(second)
    began, go = threading.Event(), threading.Event()

    def fork_meanwhile() -> None:
        fork_safety._before()
        began.set()
        go.wait(60)
        fork_safety._in_parent()

    second.gate.acquire()
    other = threading.Thread(target=fork_meanwhile)  # gets the first gate, not the second
    other.start()
    assert began.wait(60)
    second.gate.release()
    fork_safety._before()  # gets the second
    go.set()
    other.join()
    fork_safety._in_parent()
    for one in (first, second):
        assert in_thread(lambda one=one: one.gate.acquire(timeout=0))


def in_thread(function: Callable[[], object]) -> object:
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join(60)
    return results[0]


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-W", "default", "-W", "ignore:.*multi-threaded:DeprecationWarning", "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*line, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=240, check=False
    )


TURNS = """
import asyncio, os, sys, memstore
path, runner = sys.argv[1], asyncio.Runner()
store = runner.run(memstore.open(path, dimension=2).__aenter__())
runner.run(store.memories.add("parent's"))
(ready, tell), (go, say) = os.pipe(), os.pipe()

async def child():
    async with memstore.open(path) as own:
        await own.memories.add("child's first")
        os.write(tell, b"x")
        os.read(go, 1)
        await own.memories.add("child's second")
        os._exit(0)  # closing would write back what only this process has

if (pid := os.fork()) == 0:
    asyncio.run(child())
os.read(ready, 1)
runner.run(store.close())  # the last to close removes the log: the parent is not the last
os.write(say, b"x")
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

async def look():
    async with memstore.open(path) as own:
        print(sorted([m.content async for m in own.memories.list()]), await own.check())

runner.run(look())
runner.close()
"""


@forking
def test_commits_of_a_child_survive_the_close_of_its_parent(path: Path) -> None:
    process = run(TURNS, path)
    assert process.returncode == 0, process.stderr
    assert process.stdout == '["child\'s first", "child\'s second", "parent\'s"] []\n'


EXIT = """
import asyncio, gc, os, sys, memstore
path, runner = sys.argv[1], asyncio.Runner()
store = runner.run(memstore.open(path, dimension=2, index=memstore.IndexOptions(engine="faiss")).__aenter__())
runner.run(store.memories.add("parent's", embedding=[1, 2]))
runner.run(store.memories.search([1, 2]))
if (pid := os.fork()) == 0:
    loop = runner.get_loop()
    if "forget" in sys.argv:
        del store
    gc.collect()
    loop.is_closed = lambda: True  # a loop that is not closed warns, whoever made it: that is asyncio's
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
runner.run(store.memories.add("and again", embedding=[2, 1]))
print(runner.run(store.check()), runner.run(store.memories.count()))
runner.run(store.close())
runner.close()
"""


@forking
@pytest.mark.parametrize("how", ["forget", "keep"])
def test_child_that_drops_its_parents_store_ends_without_a_warning(path: Path, how: str) -> None:
    process = run(EXIT, path, how)
    assert process.returncode == 0, process.stderr
    assert process.stdout == "[] 2\n"
    output = [line for line in process.stderr.splitlines() if "socket" not in line and "tracemalloc" not in line]
    assert [line for line in output if "memstore.sqlite" not in line and "SQLite 3" not in line] == []


FAISS = """
import asyncio, os, sys, numpy, faiss, memstore
path = sys.argv[1]
rows = numpy.random.default_rng(5).standard_normal((6_000, 32)).astype("float32")
flat = faiss.IndexFlatL2(32)
flat.add(rows)
flat.search(rows, 5)  # on all the threads of this process

async def use(file):
    async with memstore.open(file, dimension=32, index=memstore.IndexOptions(engine="faiss")) as store:
        if not await store.memories.count():
            await store.memories.add_many([{"content": "x", "id": str(i), "embedding": r} for i, r in enumerate(rows)])
        hits = await store.memories.search(rows[17], limit=1)
        assert hits.plan.engine == "faiss"
        return hits[0].memory.id

print(asyncio.run(use(path)), flush=True)
if (pid := os.fork()) == 0:
    print(asyncio.run(use(path)), asyncio.run(use(path + "2")), flush=True)
    os._exit(0)
print(asyncio.run(use(path)), flush=True)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


@forking
def test_faiss_is_used_on_both_sides_of_a_fork(path: Path) -> None:
    process = run(FAISS, path)
    assert process.returncode == 0, process.stderr
    assert process.stdout.split() == ["17"] * 4


async def test_every_verb_raises_in_another_loop_and_in_a_thread_without_one(opened) -> None:
    store, tx = opened
    things, iterations = nouns(store, tx), await begun(store, tx)

    async def elsewhere() -> dict[str, str]:
        results = {}
        for name, (owner, calls) in things.items():
            for verb, call in calls.items():
                results[f"{name}.{verb}"] = await raised(call(owner))
        for name, iterator in iterations.items():
            results[f"{name} goes on"] = await raised(iterator)
        results["exit"] = await raised(store.__aexit__(None, None, None))
        return results

    async def raised(made: Any) -> str:
        try:
            async with asyncio.timeout(60):
                await use(made)
        except BaseException as error:
            return type(error).__name__
        return "returned"

    for place in (lambda: asyncio.run(elsewhere()), lambda: outcomes(things)):
        results = await asyncio.to_thread(place)
        assert len(results) > 100
        assert set(results.values()) == {"EventLoopError"}, {k: v for k, v in results.items() if v != "EventLoopError"}
    assert EventLoopError.__doc__
    for iterator in iterations.values():
        await iterator.aclose()
    assert await store.memories.count() == 3
    gc.collect()
    assert np.isfinite((await store.memories.get("0")).embedding).all()

"""A store raises at once in a forked child, in another event loop, and in a thread without one."""

import asyncio
import gc
import inspect
import json
import os
import signal
import subprocess
import threading
import traceback
import weakref
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memstore
from memstore import (
    Assemblies,
    AssemblyForgetPolicy,
    Change,
    ForgetPlan,
    ForgetPolicy,
    ForkedStoreError,
    Memories,
    Store,
    Transaction,
)
from memstore.concurrency import ProcessLock, UncancellableFuture
from memstore.database import fork_safety
from memstore.testing import HashEmbedder
from tests.support.programs import run_python

forking = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

Calls = dict[str, Callable[[], Any]]

POLICIES = {Memories: ForgetPolicy(older_than=1), Assemblies: AssemblyForgetPolicy(members_below=1)}
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
ARGUMENTS: dict[str, Any] = {
    **dict.fromkeys(("content", "id", "memory_id", "merge", "old", "query", "tag"), "a"),
    **dict.fromkeys(("ids", "items", "queries", "suggestions"), ()),
    "change": CHANGE,
    "new": "b",
    "older_than": 0,
    "path": "a copy",
    "threshold": 0.5,
}
"""Valid values of the parameters without a default. Sequences are empty: verbs must raise even with nothing to do."""
MORE_ARGUMENTS: dict[str, dict[str, Any]] = {
    "delete_many": {"ids": ()},
    "erase": {"ids": ()},
    "merge": {"ids": ["g", "h"]},
    "update": {"tags": {"t"}},
    "update_many": {"ids": (), "metadata_patch": {}},
}


def verbs(owner: Any) -> Calls:
    """Every public verb of *owner*, with valid arguments. `namespace` is left out: it does not use the file."""
    calls: Calls = {}
    for name, _ in inspect.getmembers(type(owner), callable):
        if name.startswith("_") or name == "namespace":
            continue
        verb = getattr(owner, name)
        parameters = inspect.signature(verb).parameters
        arguments = {
            n: v for n, v in MORE_ARGUMENTS.get(name, {}).items() if n in parameters or "changes" in parameters
        }
        for parameter in parameters.values():
            required = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
            if required and parameter.name not in arguments:
                arguments = {parameter.name: argument(owner, parameter.name), **arguments}
        calls[name] = partial(verb, **arguments)
    return calls


def argument(owner: Any, name: str) -> Any:
    if name == "policy":
        return POLICIES[type(owner)]
    if name == "plan":
        record_kind: Any = "memory" if isinstance(owner, Memories) else "assembly"
        return ForgetPlan(
            record_kind=record_kind,
            policy=POLICIES[type(owner)],
            namespace=owner._namespace,
            recursive=False,
            created_at=datetime.now(UTC),
            candidates=(),
            bytes=0,
            remaining=0,
            remaining_bytes=None,
        )
    return ARGUMENTS[name]


async def all_calls(store: Store, tx: Transaction, stack: AsyncExitStack) -> Calls:
    """Every verb of every object that has verbs, iterations in the middle of a page, and the exit of the store."""
    owners: dict[str, Any] = {"store": store, "view": store.namespace("n"), "tx": tx, "tx view": tx.namespace("n")}
    for name, owner in list(owners.items()):
        owners |= {f"{name}.{noun}": getattr(owner, noun) for noun in ("memories", "assemblies", "tags")}
    calls = {f"{name}.{verb}": call for name, owner in owners.items() for verb, call in verbs(owner).items()}
    iterators = [store.memories.list(), store.assemblies.members("g"), store.tags.list(), tx.memories.list()]
    for number, iterator in enumerate(iterators):
        await anext(await stack.enter_async_context(aclosing(iterator)))
        calls[f"iterator {number}"] = partial(lambda iterator: iterator, iterator)
    calls["exit"] = lambda: store.__aexit__(None, None, None)
    assert len(calls) > 100
    return calls


async def use(operation: Any) -> None:
    """Await, enter or iterate *operation*."""
    if hasattr(operation, "__anext__"):
        await anext(operation)
    elif hasattr(operation, "__aenter__"):
        await operation.__aenter__()
    else:
        await operation


def outcome(call: Callable[[], Any]) -> str:
    """The error of a call without an event loop."""
    try:
        use(call()).send(None)
    except StopIteration:
        return "returned"
    except BaseException as error:
        return type(error).__name__
    return "waits"


def other_than(name: str, outcomes: dict[str, str]) -> dict[str, str]:
    return {call: outcome for call, outcome in outcomes.items() if outcome != name}


@pytest.fixture
async def opened(path: Path, monkeypatch: pytest.MonkeyPatch):
    """A store that has used all its threads and has an open transaction, and a function that returns its calls."""
    monkeypatch.chdir(path.parent)  # a backup that is not refused is made there
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(
            memstore.open(path, embedder=HashEmbedder(8), index=memstore.IndexOptions(engine="faiss"))
        )
        await store.memories.add_many([{"content": f"text {i}", "id": str(i), "tags": {"t", "u"}} for i in range(3)])
        await store.assemblies.add("g", name="G", members=["0", "1", "2"])
        await store.memories.search("text")
        tx = await stack.enter_async_context(store.transaction())
        yield store, partial(all_calls, store, tx, stack)
    async with memstore.open(path) as store:
        assert await store.check() == []


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
    store, new_calls = opened
    calls = await new_calls()

    def use_all() -> dict[str, str]:
        outcomes = {}
        for name, call in calls.items():
            with at_most(1.0):
                outcomes[name] = outcome(call)
        with at_most(1.0):
            assert repr(store)
        return outcomes

    assert other_than("ForkedStoreError", await hold_all_locks(store, lambda: in_child(use_all))) == {}


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
    busy = database._readers.threads[0].submit(lambda c: go.wait(60))
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
                outcome(lambda: expect_no_suppression(part.__aexit__(None, None, None))),
                outcome(lambda: expect_no_suppression(block.__aexit__(ValueError, error, None))),
                outcome(lambda: expect_no_suppression(store.__aexit__(ValueError, error, None))),
            ]

    assert in_child(leave) == ["ForkedStoreError", "returned", "returned"]
    await part.__aexit__(None, None, None)
    await tx.memories.add("x")
    await block.__aexit__(None, None, None)
    assert await store.check() == []
    assert await store.memories.count() == 1
    await store.close()


async def expect_no_suppression(exit: Awaitable[object]) -> None:
    assert not await exit  # an error of the block goes on as it is


@forking
async def test_futures_of_a_thread_can_be_cancelled_in_a_child(store) -> None:
    waiting: UncancellableFuture[None] = UncancellableFuture()
    go = threading.Event()
    store._database._writer.thread.submit(lambda c: go.wait(60))
    adding = asyncio.ensure_future(store.memories.add("x"))
    await asyncio.sleep(0)
    request = next(iter(store._database._writer._queue._requests))

    def cancel() -> list[bool]:
        for future in (waiting, request):  # their callbacks are the parent's loop's
            future._callbacks.clear() if future._callbacks else None
        with at_most(5.0):
            return [waiting.cancel(), request.cancel()]

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
            return "taken"

    with lock:
        assert in_child(take) == "taken"


async def one_row(path: Path) -> None:
    async with memstore.open(path) as store:
        await store.memories.add("of the child", id="child")


@forking
async def test_child_may_not_open_a_file_that_its_parent_is_writing_to(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        async with store.transaction() as tx:
            # more than the cache holds: what is not committed is in the log, and in the memory that children share
            await tx.memories.add_many([{"content": "x" * 10_000, "embedding": [1, i]} for i in range(3_000)])
            assert in_child(lambda: open_error(path)) == "ForkedStoreError"
            assert await tx.memories.count() == 3_000
        assert await store.check() == []
        in_child(lambda: asyncio.run(one_row(path)))
        assert await store.memories.count() == 3_001


@forking
async def test_child_may_not_open_a_file_that_a_busy_thread_uses(path: Path, monkeypatch) -> None:
    monkeypatch.setattr(fork_safety, "_MAX_WAIT", 0.01)
    async with memstore.open(path, dimension=2) as store:
        go, began = threading.Event(), threading.Event()
        busy = store._database._readers.threads[0].submit(lambda c: (began.set(), go.wait(60)))
        began.wait(60)
        assert in_child(lambda: open_error(path)) == "ForkedStoreError"
        with fork_safety.temporary_connections(str(path)):
            go.set()
            await busy
            assert in_child(lambda: open_error(path)) == "ForkedStoreError"
        in_child(lambda: asyncio.run(one_row(path)))


def open_error(path: Path) -> str:
    try:
        asyncio.run(one_row(path))
    except ForkedStoreError as error:
        return type(error).__name__ if "spawn" in str(error) else str(error)
    return "opened"


class Gated:
    """A connection with a gate, as `fork_safety` registers it."""

    path, base = "none", None

    def __init__(self) -> None:
        self.gate = threading.RLock()


@forking
def test_inherited_connections_are_never_freed_in_a_child() -> None:
    idle = [Gated()]
    reference = weakref.ref(idle[0])
    fork_safety.register(idle[0])

    def drop() -> bool:
        idle.clear()
        gc.collect()
        return reference() is not None

    assert in_child(drop)


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
    thread = threading.Thread(target=fork_meanwhile)  # gets the first gate, not the second
    thread.start()
    assert began.wait(60)
    second.gate.release()
    fork_safety._before()  # gets the second
    go.set()
    thread.join()
    fork_safety._in_parent()
    for gated in (first, second):
        assert in_thread(lambda gated=gated: gated.gate.acquire(timeout=0))


def in_thread(function: Callable[[], object]) -> object:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result(60)


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return run_python("-W", "default", "-W", "ignore:.*multi-threaded:DeprecationWarning", "-c", code, *arguments)


TURNS = """
import asyncio, os, sys, memstore
path, runner = sys.argv[1], asyncio.Runner()
store = runner.run(memstore.open(path, dimension=2).__aenter__())
runner.run(store.memories.add("parent's"))
(ready_reader, ready_writer), (go_reader, go_writer) = os.pipe(), os.pipe()

async def child():
    async with memstore.open(path) as store:
        await store.memories.add("child's first")
        os.write(ready_writer, b"x")
        os.read(go_reader, 1)
        await store.memories.add("child's second")
        os._exit(0)  # closing would write back what only this process has

if (pid := os.fork()) == 0:
    asyncio.run(child())
os.read(ready_reader, 1)
runner.run(store.close())  # the last to close removes the log: the parent is not the last
os.write(go_writer, b"x")
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

async def print_contents():
    async with memstore.open(path) as store:
        print(sorted([m.content async for m in store.memories.list()]), await store.check())

runner.run(print_contents())
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
    lines = process.stderr.splitlines()
    assert [line for line in lines if "socket" not in line and "tracemalloc" not in line] == []


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
    store, new_calls = opened

    async def in_other_loop(calls: Calls) -> dict[str, str]:
        return {name: await raised(call()) for name, call in calls.items()}

    async def raised(operation: Any) -> str:
        try:
            async with asyncio.timeout(60):
                await use(operation)
        except BaseException as error:
            return type(error).__name__
        return "returned"

    def without_loop(calls: Calls) -> dict[str, str]:
        return {name: outcome(call) for name, call in calls.items()}

    for use_all in (lambda calls: asyncio.run(in_other_loop(calls)), without_loop):
        assert other_than("EventLoopError", await asyncio.to_thread(use_all, await new_calls())) == {}
    assert await store.memories.count() == 3
    gc.collect()
    assert np.isfinite((await store.memories.get("0")).embedding).all()

"""Waiting for threads from asyncio code. Work on a thread cannot be cancelled.

Work runs on the store's threads, never in the event loop's default executor, which belongs to the application.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import BuiltinFunctionType
from typing import Any, Protocol, TypeVar

from memstore.errors import EventLoopError, MemstoreError

Progress = Callable[[int, int], None]
"""Receives how much is done, and the total."""

T = TypeVar("T")

monotonic: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_MONOTONIC) if hasattr(time, "clock_gettime") else time.monotonic
)
"""Seconds of a clock that libraries which freeze the time of a test do not replace: every wait ends by it."""

CHUNK_SIZE = 100
"""Rows that a thread encodes or decodes before it lets other threads run (`yield_gil`)."""


def chunks(values: Sequence[T], size: int = CHUNK_SIZE) -> Iterator[Sequence[T]]:
    """*values* in slices of *size*, with `yield_gil` between them; not after the last, as it may take milliseconds."""
    for start in range(0, len(values), size):
        if start:
            yield_gil()
        yield values[start : start + size]


def yield_gil() -> None:
    """Release the GIL for a moment. Called between slices of pure Python work on a thread. Then as `check_stop`."""
    time.sleep(0)
    check_stop()


class UncancellableFuture(asyncio.Future[T]):
    """The result of work on a thread. Awaiting it lasts until the work ends, through any number of cancellations.

    asyncio keeps a cancellation that a future refuses, and raises it when the future is resolved, in place of the
    result. Nothing else does that: a shielded task is still a task, and `asyncio.run` cancels it at Ctrl-C.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pid = os.getpid()

    @property
    def orphaned(self) -> bool:
        """Whether this process is a forked child, which has no thread that would resolve the future."""
        return os.getpid() != self._pid

    def cancel(self, msg: Any | None = None) -> bool:
        """Refuse, except in a forked child."""
        return self.orphaned and self.cancel_now(msg)

    def cancel_now(self, msg: Any | None = None) -> bool:
        """Cancel it like a plain future. `asyncio.Future.cancel` may be of another class: nest_asyncio replaces it."""
        return super().cancel(msg)


class ProcessLock:
    """A lock for the whole process. In a forked child it is free, even if a thread of the parent held it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def resolve(future: "asyncio.Future[T]", result: T | None, error: BaseException | None) -> None:
    """Set the *result* or the *error* of *future*, unless it was cancelled."""
    if future.done():
        return
    if error is None:
        future.set_result(result)  # type: ignore[arg-type]  # it is of T, where there is no error
        return
    if isinstance(error, StopIteration):  # a future cannot raise it
        wrapped = RuntimeError("StopIteration was raised")
        wrapped.__cause__ = error
        error = wrapped
    if isinstance(error, MemstoreError):
        error = error.with_traceback(None)  # its message says what to do; the frames of the thread say nothing more
    future.set_exception(error)
    future.exception()  # marks it as retrieved: asyncio logs no error that nobody awaits any more


async def wait_to_end(future: "asyncio.Future[T]") -> T:
    """The result of *future*, any future or task. A cancellation is raised only after *future* has ended."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError as error:
            cancelled = cancelled or error
        except BaseException:  # noqa: BLE001 - raised again below, by result()
            break
    if cancelled is not None:
        raise cancelled
    return future.result()


def running_loop() -> asyncio.AbstractEventLoop:
    """The event loop that runs now. Raises `EventLoopError` where none of asyncio does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise EventLoopError(
            "memstore needs an event loop of asyncio, and none is running here: start with asyncio.run(main()). "
            "Under trio use the package trio-asyncio, or asyncio.run in a thread"
        ) from None


async def in_thread(function: Callable[[], T]) -> T:
    """Run *function* on a new thread, and wait for its end through any number of cancellations."""
    running_loop()
    future: UncancellableFuture[T] = UncancellableFuture()
    threading.Thread(target=run_and_resolve(future, function), name="memstore-once", daemon=True).start()
    return await future


class StoppedError(Exception):
    """Ends work on a thread whose caller was cancelled. Never raised to the user."""


class StopSignal:
    """Tells work on a thread that its caller was cancelled.

    Attributes:
        requested: whether the caller was cancelled.
        suspended: whether the work must not be stopped now; see `unstoppable`.
        lock: held to change either, and by whoever stops the work.
    """

    def __init__(self, lock: "threading.Lock | None" = None) -> None:
        self.requested = False
        self.suspended = False
        self.lock = threading.Lock() if lock is None else lock

    def check(self) -> None:
        """Raise `StoppedError` if the work must end."""
        if self.requested:
            raise StoppedError


_work = threading.local()  # `stop`: the signal of the work that this thread does


def run_stoppable(stop: StopSignal, function: Callable[..., T], *arguments: object) -> T:
    """Call *function*; `check_stop` in it checks *stop*."""
    _work.stop = stop
    try:
        return function(*arguments)
    finally:
        _work.stop = None


@contextmanager
def unstoppable() -> Iterator[None]:
    """Work that others need too, and that would be lost: it is not stopped inside the block, but at its end."""
    stop: StopSignal | None = getattr(_work, "stop", None)
    if stop is None or stop.suspended:
        yield
        return
    with stop.lock:
        stop.suspended = True
    try:
        yield
    finally:
        with stop.lock:
            stop.suspended = False


def check_stop() -> None:
    """Raise `StoppedError` if the caller of this thread's work was cancelled. Long work calls it often."""
    stop: StopSignal | None = getattr(_work, "stop", None)
    if stop is not None and stop.requested and not stop.suspended:
        raise StoppedError


class _StoppableFuture(UncancellableFuture[T]):
    """A future that passes a cancellation on to the work, and lasts until the work has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.stop = StopSignal()

    def cancel(self, msg: Any | None = None) -> bool:
        """Ask the work to end; refuse, as `UncancellableFuture` does."""
        self.stop.requested = True
        return super().cancel(msg)


async def in_cancellable_thread(function: Callable[[StopSignal], T]) -> T:
    """Run a long *function* on a new thread. A cancellation sets its stop signal, and then waits for its end."""
    running_loop()
    future: _StoppableFuture[T] = _StoppableFuture()
    work = run_and_resolve(future, lambda: function(future.stop))
    threading.Thread(target=work, name="memstore-once", daemon=True).start()
    return await future


def run_and_resolve(future: "asyncio.Future[T]", function: Callable[[], T]) -> Callable[[], None]:
    """A call for a thread that runs *function* and resolves *future* on its event loop."""
    work = [(function, future)]

    def call() -> None:
        function, future = work.pop()  # a queue may keep its last call alive: not with what the call refers to
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - raised where the future is awaited
            call_on_loop(future.get_loop(), resolve, future, None, error)
        else:
            call_on_loop(future.get_loop(), resolve, future, result, None)

    return call


def call_on_loop(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: Any) -> None:
    """Have *loop* call *function* soon. For threads."""
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        if not loop.is_closed():  # nobody waits on a loop that was closed
            raise


class Timer(Protocol):
    """A call that is scheduled, and can be cancelled."""

    def cancel(self) -> None:
        """Do not make the call."""
        ...


def call_later(seconds: float, function: Callable[[], None]) -> Timer:
    """Have the running event loop call *function* after *seconds*, also where its clock is frozen."""
    loop = asyncio.get_running_loop()
    if isinstance(time.monotonic, BuiltinFunctionType):
        return loop.call_later(seconds, function)
    timer = threading.Timer(seconds, call_on_loop, (loop, function))
    timer.daemon = True
    timer.start()
    return timer


def on_current_loop(function: Callable[..., None]) -> Callable[..., None]:
    """*function* for use on a thread: the event loop that runs now calls it soon."""
    return partial(call_on_loop, asyncio.get_running_loop(), function)

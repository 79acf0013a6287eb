"""Waiting for threads: what asyncio code may do about work that cannot be cancelled.

Work runs on threads of the store's own, never in the loop's default executor, which is the application's.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

CHUNK_SIZE = 100
"""Rows that a thread encodes or decodes before it lets the event loop's thread in (`yield_gil`)."""


def chunks(values: Sequence[T], size: int = CHUNK_SIZE) -> Iterator[Sequence[T]]:
    """*values* in slices, with a breath between them: none after the last, for it may cost milliseconds."""
    for start in range(0, len(values), size):
        if start:
            yield_gil()
        yield values[start : start + size]


def yield_gil() -> None:
    """Let go of the GIL: called between slices of pure Python work on a thread."""
    time.sleep(0)


class UncancellableFuture(asyncio.Future[T]):
    """What the work of a thread comes to. Whoever awaits it waits to its end, through any number of cancellations.

    A thread cannot be cancelled. A cancellation that a future refuses is kept by asyncio and let out when the future
    is settled, in place of the outcome. Nothing else has that effect: a shielded task is a task still, and
    `asyncio.run` cancels it at Ctrl-C.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pid = os.getpid()

    @property
    def orphaned(self) -> bool:
        """Whether this process is a forked child, in which there is no thread that would settle it."""
        return os.getpid() != self._pid

    def cancel(self, msg: Any | None = None) -> bool:
        """Refuse: see the class."""
        return self.orphaned and super().cancel(msg)


class ProcessLock:
    """A lock for the whole process. In a forked child it is free, whoever held it in the parent."""

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


def settle(outcome: "asyncio.Future[T]", result: T | None, error: BaseException | None) -> None:
    """Give *outcome* its result, or its *error*; one that was cancelled, so that nobody waits for it, stays so."""
    if outcome.done():
        return
    if error is None:
        outcome.set_result(result)  # type: ignore[arg-type]  # of T, where there is no error
        return
    if isinstance(error, StopIteration):  # a future cannot hold it
        wrapped = RuntimeError("StopIteration was raised")
        wrapped.__cause__ = error
        error = wrapped
    outcome.set_exception(error)
    outcome.exception()  # an error that nobody waits for any more is nobody's news


async def finished(outcome: "asyncio.Future[T]") -> T:
    """The result of *outcome*, any future or task, waited for to its end; a cancellation is let out then."""
    cancelled: asyncio.CancelledError | None = None
    while not outcome.done():
        try:
            await asyncio.shield(outcome)
        except asyncio.CancelledError as error:
            cancelled = cancelled or error
        except BaseException:  # noqa: BLE001 - raised again below, by result()
            break
    if cancelled is not None:
        raise cancelled
    return outcome.result()


async def in_thread(function: Callable[[], T]) -> T:
    """Run *function* on a thread made for it, and wait for its end through any number of cancellations."""
    outcome: UncancellableFuture[T] = UncancellableFuture()
    threading.Thread(target=run_and_resolve(outcome, function), name="memstore-once", daemon=True).start()
    return await outcome


class StoppedError(Exception):
    """Work on a thread ended early because nobody waits for it any more. Never seen outside."""


class Stopping:
    """Says, to work on a thread, that whoever waited for it was cancelled."""

    def __init__(self) -> None:
        self.asked = False

    def check(self) -> None:
        """Raise `StoppedError` where the work is to end."""
        if self.asked:
            raise StoppedError


class _Stoppable(UncancellableFuture[T]):
    """An outcome that passes a cancellation on, and is waited for until the work has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.stopping = Stopping()

    def cancel(self, msg: Any | None = None) -> bool:
        """Ask the work to end; refuse, as `UncancellableFuture` does."""
        self.stopping.asked = True
        return super().cancel(msg)


async def in_thread_until_stopped(function: Callable[[Stopping], T]) -> T:
    """Run *function*, which takes long, on a thread made for it; a cancellation asks it to end, and waits for that."""
    outcome: _Stoppable[T] = _Stoppable()
    work = run_and_resolve(outcome, lambda: function(outcome.stopping))
    threading.Thread(target=work, name="memstore-once", daemon=True).start()
    return await outcome


def run_and_resolve(outcome: "asyncio.Future[T]", function: Callable[[], T]) -> Callable[[], None]:
    """*function* as a thread runs it: its end settles *outcome*, on the loop that this belongs to."""
    work = [(function, outcome)]

    def call() -> None:
        function, outcome = work.pop()  # a queue may keep the last call it made: not what it held, nor what it gave
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            tell(outcome.get_loop(), settle, outcome, None, error)
        else:
            tell(outcome.get_loop(), settle, outcome, result, None)

    return call


def tell(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: Any) -> None:
    """Have *loop* call *function*; called on a thread."""
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        if not loop.is_closed():  # a loop that was closed under us has nobody who waits
            raise


def on_this_loop(function: Callable[..., None]) -> Callable[..., None]:
    """*function* as a thread may call it: the loop that runs now calls it soon."""
    return partial(tell, asyncio.get_running_loop(), function)

"""The threads on which a plain embedder runs, one call at a time unless the embedder allows more.

A call cannot be stopped. One that takes too long is abandoned: its caller gets an error, its thread ends when the call
returns, and the next call has another thread. The threads are daemons, so a call that never returns does not keep the
process alive.
"""

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from memstore.concurrency import call_later, call_on_loop, resolve, running_loop
from memstore.errors import ClosedError, EmbedderError

T = TypeVar("T")

PATIENCE = 5.0
"""Seconds of a call, at most half of its timeout, after which the next call no longer waits for its end."""

MAX_RUNNING = 16
"""Calls that have not returned, abandoned ones included, at which no further call is started."""


class EmbedderTimeoutError(EmbedderError, TimeoutError):
    """The embedder took too long; nothing was written."""


class EmbedderThreads:
    """Runs functions on daemon threads.

    Args:
        concurrency: how many functions run at once.
        is_strict: whether that is a limit until a call is abandoned. Otherwise more run while earlier ones take longer
            than `PATIENCE`.
    """

    def __init__(self, concurrency: int, *, is_strict: bool) -> None:
        self._is_strict = is_strict
        self._slots = asyncio.Semaphore(concurrency)
        self._idle: list[_Thread] = []
        self._running = 0
        self._closed = False

    async def run(self, function: Callable[[], T], timeout: float, error: Callable[[], EmbedderTimeoutError]) -> T:
        """The result of *function*; raises *error()* if it takes longer than *timeout* seconds.

        A cancelled caller does not wait for the end of the function.
        """
        await self._slots.acquire()
        release = _Once(self._slots.release)
        try:
            if self._closed:
                raise ClosedError("The store is closed: open it again")
            if self._running >= MAX_RUNNING:
                raise EmbedderError(
                    f"{self._running} calls of the embedder have not returned, so no further call is started: give its "
                    "requests a timeout of their own, and start the process again"
                )
            return await self._run(function, timeout, error, release)
        finally:
            release()

    async def _run(
        self,
        function: Callable[[], T],
        timeout: float,
        error: Callable[[], EmbedderTimeoutError],
        release: Callable[[], None],
    ) -> T:
        future: asyncio.Future[T] = running_loop().create_future()
        thread = self._idle.pop() if self._idle else _Thread()
        self._running += 1
        call = _Call(function, future, partial(self._ended, thread))
        thread.calls.put(call)
        timers = [
            call_later(timeout if self._is_strict else min(PATIENCE, timeout / 2), release),
            call_later(timeout, lambda: resolve(future, None, error())),
        ]
        try:
            return await future
        finally:
            for timer in timers:
                timer.cancel()
            if not call.ended:
                thread.calls.put(None)
                call.abandoned = True

    def _ended(self, thread: "_Thread", call: "_Call") -> None:
        """Called on the event loop when a function has returned."""
        self._running -= 1
        call.ended = True
        if self._closed:
            thread.calls.put(None)
        elif not call.abandoned:
            self._idle.append(thread)

    def close(self) -> None:
        """End each thread after its current call. Waiting calls raise `ClosedError`."""
        self._closed = True
        for thread in self._idle:
            thread.calls.put(None)
        self._idle.clear()


class _Call:
    """One function, its future, and what is told the event loop at its end."""

    def __init__(
        self, function: Callable[[], T], future: "asyncio.Future[T]", at_end: Callable[["_Call"], None]
    ) -> None:
        self._function = function
        self._future: asyncio.Future[Any] = future
        self._at_end = at_end
        self.ended = False
        self.abandoned = False

    def __call__(self) -> None:
        """Run the function, and resolve the future on its event loop."""
        result, failure = None, None
        try:
            result = self._function()
        except BaseException as error:  # noqa: BLE001 - raised where the future is awaited
            failure = error
        call_on_loop(self._future.get_loop(), self._finish, result, failure)

    def _finish(self, result: object, failure: BaseException | None) -> None:
        self._at_end(self)
        resolve(self._future, result, failure)


class _Thread:
    """A daemon thread that runs the calls in its queue, until None comes."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[_Call | None] = SimpleQueue()
        threading.Thread(target=self._run, name="memstore-embedder", daemon=True).start()

    def _run(self) -> None:
        while (call := self.calls.get()) is not None:
            call()
            del call  # not kept alive, with its texts, until the next one comes


class _Once:
    """A function that acts at its first call only."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function: Callable[[], None] | None = function

    def __call__(self) -> None:
        """Call the function, if it was not called before."""
        function, self._function = self._function, None
        if function is not None:
            function()

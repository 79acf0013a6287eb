"""Waiting for threads: what asyncio code may do about work that cannot be cancelled.

Work runs on threads of the store's own, never in the loop's default executor, which is the application's.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

SLICE = 100
"""Rows that a thread encodes or decodes before it lets the event loop's thread in (`breathe`)."""


def slices(values: Sequence[T], size: int = SLICE) -> Iterator[Sequence[T]]:
    """*values* in slices, with a breath between them: none after the last, for it may cost milliseconds."""
    for start in range(0, len(values), size):
        if start:
            breathe()
        yield values[start : start + size]


def breathe() -> None:
    """Let go of the GIL: called between slices of pure Python work on a thread."""
    time.sleep(0)


async def finished(outcome: "asyncio.Future[T]", on_cancel: Callable[[], None] | None = None) -> T:
    """The result of *outcome*, waited for to its end; the first cancellation that came meanwhile is let out then.

    *on_cancel* is called at a cancellation, to ask the thread to give up what it has not begun.

    A thread cannot be cancelled. A shielded task can (`asyncio.run` cancels it at Ctrl-C), so this waits on a
    bare future, which no loop cancels.
    """
    cancelled: asyncio.CancelledError | None = None
    while not outcome.done():
        try:
            await asyncio.shield(outcome)
        except asyncio.CancelledError as error:
            cancelled = cancelled or error
            if on_cancel is not None:
                on_cancel()
        except BaseException:  # noqa: BLE001 - raised again below, by result()
            break
    if cancelled is not None:
        raise cancelled
    return outcome.result()


async def in_thread(function: Callable[[], T]) -> T:
    """Run *function* on a thread made for it, and wait for its end through any number of cancellations."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()
    threading.Thread(target=telling(loop, outcome, function), name="memstore-once", daemon=True).start()
    return await finished(outcome)


def telling(
    loop: asyncio.AbstractEventLoop, outcome: "asyncio.Future[T]", function: Callable[[], T]
) -> Callable[[], None]:
    """*function* as a thread runs it: its end settles *outcome*, on *loop*."""
    outcome.add_done_callback(lambda o: o.exception())  # an error that nobody waits for any more is nobody's news

    work = [(function, outcome)]

    def call() -> None:
        function, outcome = work.pop()  # a queue may keep the last call it made: not what it held, nor what it gave
        try:
            result = function()
        except StopIteration as error:  # a future cannot hold it
            wrapped = RuntimeError("StopIteration was raised")
            wrapped.__cause__ = error
            _tell(loop, outcome.set_exception, wrapped)
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            _tell(loop, outcome.set_exception, error)
        else:
            _tell(loop, outcome.set_result, result)

    return call


def _tell(loop: asyncio.AbstractEventLoop, settle: Callable[[Any], None], value: Any) -> None:
    try:
        loop.call_soon_threadsafe(settle, value)
    except RuntimeError:
        if not loop.is_closed():  # a loop that was closed under us has nobody who waits
            raise

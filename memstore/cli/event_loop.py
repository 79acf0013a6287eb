"""Runs the coroutine of a command in an event loop of its own."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from memstore.cli.interrupts import exit_at_once, on_interrupt

T = TypeVar("T")


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """The result of *work*. The first Ctrl-C cancels it; a second one ends the process.

    With `asyncio.run` alone, the second one would raise KeyboardInterrupt at any line of any task.

    Raises:
        KeyboardInterrupt: Ctrl-C cancelled it.
    """
    interrupted = False

    async def run() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def cancel(*_: object) -> None:
            nonlocal interrupted
            interrupted = True
            signal.signal(signal.SIGINT, exit_at_once)
            if task is not None:
                loop.call_soon_threadsafe(task.cancel)

        with on_interrupt(cancel):
            return await work

    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        if interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        work.close()  # if it was cancelled before it began, Python would warn that it was never awaited

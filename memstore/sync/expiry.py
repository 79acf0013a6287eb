"""Expired memories whose rows are deleted in the background.

Expired memories are invisible from the moment on at which they expire. A write deletes a limited number of their rows,
so no write waits for tens of thousands of them. Where it leaves some, the sweeper deletes the rest, as many at a time,
in transactions of their own, and other writes come in between.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context

from memstore.errors import MemstoreError
from memstore.escaping import library_logger

_log = library_logger()


class ExpirySweeper:
    """Deletes rows of expired memories after a write left some.

    Args:
        step: deletes a limited number of rows in a transaction; whether there may be more.

    Attributes:
        requested: rows of expired memories exist, and no task deletes them yet. Set on any thread.
    """

    def __init__(self, step: Callable[[], Awaitable[bool]]) -> None:
        self._step = step
        self.requested = False
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin in the running event loop, if that was requested and no task is at work."""
        if self.requested and not self._stopping and (self._task is None or self._task.done()):
            self.requested = False
            # In a context of its own: the caller's actor is not that of the expiry.
            run = asyncio.get_running_loop().create_task
            self._task = run(self._run(), name="memstore-expiry", context=Context())

    async def stop(self) -> None:
        """Stop after the present step."""
        self._stopping = True
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])

    def resume(self) -> None:
        """Continue after `stop`."""
        self._stopping = False

    async def _run(self) -> None:
        try:
            while not self._stopping and await self._step():
                pass
        except MemstoreError as error:
            self.requested = True
            _log.info("rows of expired memories were not deleted, the next write tries again: %s", error)

"""History that is older than the file keeps, deleted in the background.

Writes delete what is too old as they go. In a store that is open and writes seldom, the trimmer looks once an hour, and
deletes in small transactions, so that other writes come in between.
"""

import asyncio
import weakref
from contextvars import Context

from memstore.database import Database
from memstore.errors import MemstoreError
from memstore.escaping import library_logger
from memstore.repository import history_retention

_FIRST_DELAY = 60.0  # seconds after the store was opened
_INTERVAL = 3_600.0  # seconds
_WAIT = 0.25  # seconds of one wait for other writers

_log = library_logger()


class HistoryTrimmer:
    """Deletes old history of one store. Created in the event loop that the store belongs to."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        if not database.settings.read_only:
            self._schedule(_FIRST_DELAY)

    async def stop(self) -> None:
        """Stop after the present step."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])

    def resume(self) -> None:
        """Continue after `stop`."""
        if self._timer is None and not self._database.settings.read_only:
            self._schedule(_INTERVAL)

    def _schedule(self, delay: float) -> None:
        # The loop refers to the trimmer weakly: a store that nobody refers to any more is not kept for an hour.
        method = weakref.WeakMethod(self._start)

        def start() -> None:
            start_trimmer = method()
            if start_trimmer is not None:
                start_trimmer()

        self._timer = self._loop.call_later(delay, start)

    def _start(self) -> None:
        # In a context of its own: the actor of whoever opened the store is not that of the deletion.
        self._task = self._loop.create_task(self._run(), name="memstore-retention", context=Context())

    async def _run(self) -> None:
        try:
            while self._timer is not None and await self._database.read(history_retention.is_due):
                await self._database.write(history_retention.trim_part, wait=_WAIT, batch=True)
        except MemstoreError as error:
            _log.info("old history was not deleted, the next attempt is in an hour: %s", error)
        if self._timer is not None:
            self._schedule(_INTERVAL)

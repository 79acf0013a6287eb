"""Connections that read one state of the file for several calls.

A snapshot keeps a read transaction open, so it has a connection of its own. SQLite cannot write its log back beyond the
state that the oldest snapshot reads. That, and their memory, is why there are at most `MAX_SNAPSHOTS`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from memstore.database.connection_thread import ConnectionThread
from memstore.database.readers import ReaderPool
from memstore.errors import BusyError, ClosedError

MAX_SNAPSHOTS = 8
"""Snapshots of one store that are open at the same time."""


class SnapshotPool:
    """The connections of snapshots. Those of ended snapshots are used again.

    Args:
        open_reader: opens a connection.
        timeout: seconds to wait while `MAX_SNAPSHOTS` are open.
    """

    def __init__(self, open_reader: Callable[[], Awaitable[ConnectionThread]], timeout: float) -> None:
        self.threads: list[ConnectionThread] = []
        self._open_reader = open_reader
        self._timeout = timeout
        self._free = asyncio.Semaphore(MAX_SNAPSHOTS)
        self._idle: list[ConnectionThread] = []
        self._opening = asyncio.Lock()
        self._closed = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[ReaderPool]:
        """A connection for one snapshot. Raises `BusyError`."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._free.acquire()
        except TimeoutError:
            raise BusyError(
                f"{MAX_SNAPSHOTS} snapshots of this store were open for {self._timeout:g} s: end one first, or raise "
                "`timeout`"
            ) from None
        try:
            thread = self._idle.pop() if self._idle else await self._connect()
            try:
                yield ReaderPool([thread], self._open_reader, keeps_transaction=True)
            finally:
                self._idle.append(thread)
        finally:
            self._free.release()

    async def _connect(self) -> ConnectionThread:
        async with self._opening:
            if self._closed:
                raise ClosedError("The store is closed: open it again")
            thread = await self._open_reader()
            self.threads.append(thread)
            return thread

    async def stop_opening(self) -> None:
        """Wait for a connection that is being opened, and open no more."""
        self._closed = True
        async with self._opening:
            pass

    def resume_opening(self) -> None:
        """Undo `stop_opening`: the store stays open."""
        self._closed = False

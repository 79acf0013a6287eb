"""The connections that read, and the reads that wait for one.

A read runs on the first connection that is free, in the order of arrival. Where all of them have been busy with one
read for a while, another connection is opened, up to `MAX_READERS`. Reads that are known to be long (`long=True`) never
use all connections, so that short reads do not wait for them.

A read whose caller was cancelled does not begin. One that runs is interrupted: SQLite's statements end by its
`interrupt`, code of Python at its next `concurrency.check_stop`.
"""

import asyncio
import gc
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection

from memstore.concurrency import StopSignal, call_on_loop, monotonic, resolve, run_stoppable
from memstore.database.connection_thread import ConnectionThread, Step
from memstore.database.sqlite import sqlite3
from memstore.database.transactions import raw
from memstore.errors import MemstoreError
from memstore.escaping import library_logger

T = TypeVar("T")

MAX_READERS = 8
MAX_LONG = 4
"""Long reads that run at the same time."""

_GROW_AFTER = 0.02  # seconds that a read waits before another connection is opened
_INTERRUPT_AGAIN = 0.05  # seconds; an interrupt between two statements has no effect
_log = library_logger()


class ReadRequest(asyncio.Future[T]):
    """A read and its result.

    Args:
        pool: where it runs.
        function: runs on the thread of a connection.
        long: it is known to take long.
    """

    def __init__(self, pool: "ReaderPool", function: Step[T], *, long: bool) -> None:
        super().__init__()
        self.long = long
        self.function: Step[T] | None = function  # None when it was run
        self.reader: ConnectionThread | None = None  # while it runs
        self.start = 0.0  # when it began to run
        self.stop = StopSignal(pool.lock)

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel it: it does not begin, or is interrupted. The caller does not wait for its end."""
        with self.stop.lock:
            cancelled = super().cancel(msg)
            self.stop.requested = self.stop.requested or cancelled
        if cancelled:
            self._interrupt()
        return cancelled

    def _interrupt(self) -> None:
        with self.stop.lock:
            reader = self.reader
            if reader is None:
                return
            if not self.stop.suspended and reader.base is not None:
                reader.base.interrupt()
        self.get_loop().call_later(_INTERRUPT_AGAIN, self._interrupt)


def _end_transaction(base: sqlite3.Connection) -> None:
    """Roll back what an interrupted read left, because the interrupt ended its rollback too."""
    try:
        if base.in_transaction:
            base.execute("ROLLBACK")
    except sqlite3.Error:
        gc.collect()  # a statement that is not finished keeps the interrupt in effect
        if base.in_transaction:
            base.execute("ROLLBACK")


class ReaderPool:
    """The reading connections of a store. Requests are submitted by the event loop, and taken by the threads.

    Args:
        threads: the connections that are open already.
        open_reader: opens another one.
        keeps_transaction: there is one connection, with a transaction that is open between two reads.
    """

    def __init__(
        self,
        threads: list[ConnectionThread],
        open_reader: Callable[[], Awaitable[ConnectionThread]],
        *,
        keeps_transaction: bool = False,
    ) -> None:
        self.threads = threads
        self.keeps_transaction = keeps_transaction
        self.open_reader = open_reader
        self.lock = threading.Lock()  # of the queues, and of the state of the requests
        self._idle = list(reversed(threads))
        self._short: deque[ReadRequest[Any]] = deque()
        self._long: deque[ReadRequest[Any]] = deque()
        self._running: dict[ConnectionThread, ReadRequest[Any]] = {}
        self._long_count = 0  # long requests that run
        self._timer: asyncio.TimerHandle | None = None
        self._growth: asyncio.Task[None] | None = None
        self._closed = keeps_transaction

    def submit(self, function: Step[T], *, long: bool = False) -> ReadRequest[T]:
        """Run *function* on a reader's thread."""
        request: ReadRequest[T] = ReadRequest(self, function, long=long)
        with self.lock:
            (self._long if long else self._short).append(request)
            reader = self._idle.pop() if self._idle and (not long or self._has_next()) else None
        if reader is not None:
            reader.post(partial(self._run_next, reader))
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_GROW_AFTER, self._grow)
        return request

    def _has_next(self) -> bool:
        """Whether a request is pending that may run now. Needs the lock."""
        return bool(self._short) or (bool(self._long) and self._long_count < self._max_long())

    def _max_long(self) -> int:
        return max(1, min(MAX_LONG, len(self.threads) - 1))

    def _run_next(self, reader: ConnectionThread, connection: Connection) -> None:
        """Run one request, arrange for the next, then answer; on the thread of *reader*."""
        value, failure = None, None
        with self.lock:
            request = self._short.popleft() if self._short else self._long.popleft() if self._has_next() else None
            function = None
            if request is not None:
                function, request.function = request.function, None  # not kept alive by whoever refers to the result
                self._long_count += request.long
                if request.cancelled():
                    function = None
                else:
                    request.reader, request.start = reader, monotonic()
                    self._running[reader] = request
        if request is not None and function is not None:
            try:
                value = run_stoppable(request.stop, function, connection)
            except BaseException as error:  # noqa: BLE001 - raised where the request is awaited
                failure = error
        with self.lock:
            if request is not None:
                request.reader = None
                self._long_count -= request.long
                self._running.pop(reader, None)
        if request is not None and request.stop.requested and not self.keeps_transaction:
            failure = None  # nobody awaits it, and its frames may have statements that are not finished
            _end_transaction(raw(connection))
        with self.lock:
            is_next = bool(self._short or self._long) and self._has_next()
            if not is_next:
                self._idle.append(reader)
        if is_next:
            reader.post(partial(self._run_next, reader))  # not at once: a fork waits until the thread is outside SQLite
        if request is not None:
            call_on_loop(request.get_loop(), resolve, request, value, failure)

    def _grow(self) -> None:
        """Open another connection if requests still wait, and those that run have all run for a while."""
        self._timer = None
        with self.lock:
            waiting = [request for request in (*self._short, *self._long) if not request.done()]
            last_start = max((request.start for request in self._running.values()), default=0.0)
        if not waiting or self._closed or self._growth is not None:
            return
        limit = MAX_READERS if any(not request.long for request in waiting) else MAX_LONG + 1
        if len(self.threads) < limit and monotonic() - last_start >= _GROW_AFTER:
            self._growth = asyncio.get_running_loop().create_task(self._add_reader())
        if len(self.threads) < MAX_READERS:
            self._timer = asyncio.get_running_loop().call_later(_GROW_AFTER, self._grow)

    async def _add_reader(self) -> None:
        try:
            reader = await self.open_reader()
        except MemstoreError as error:  # for instance, no free file descriptor: the requests wait
            _log.info("another connection for reads could not be opened: %s", error)
        else:
            self.threads.append(reader)
            reader.post(partial(self._run_next, reader))
        finally:
            self._growth = None

    async def stop_growing(self) -> None:
        """Wait for a connection that is being opened, and open no more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._growth is not None:
            await asyncio.wait([self._growth])

    def resume_growing(self) -> None:
        """Undo `stop_growing`: the store stays open."""
        self._closed = False

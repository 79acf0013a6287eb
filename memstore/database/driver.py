"""One SQLite connection on a thread of its own, where whole functions run.

SQLAlchemy's async engine opens the connection; aiosqlite owns its thread. aiosqlite has no public call that runs
one function of ours there, so this adapter puts it on that thread's queue (`Connection._tx`, as SQLAlchemy's own
dialect does). The function receives a synchronous SQLAlchemy `Connection` over the same SQLite connection: an
operation of any number of statements is one hop, and binding parameters and building rows stay off the event loop.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from memstore.threads import finished, telling

T = TypeVar("T")
Step = Callable[[Connection], T]


class Driver:
    """One connection and its thread. Functions run one after the other, in the order they were submitted."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._sync: Connection | None = None
        self.pending = 0

    @classmethod
    async def open(cls, engine: AsyncEngine, local: "LocalEngine", setup: Callable[[Connection], None]) -> "Driver":
        """Connect, and run *setup* on the new connection's thread."""
        connection = await engine.connect()
        pooled = await connection.get_raw_connection()
        driver = cls(pooled.driver_connection)
        pooled.detach()  # from here on it is ours, and closing it needs no awaiting of SQLAlchemy's
        try:
            driver._sync = await driver._run(lambda: local.adopt(driver._connection._conn))  # noqa: SLF001
            await driver.run(setup)
        except BaseException:
            await finished(driver.close())
            raise
        return driver

    def submit(self, function: Step[T]) -> "asyncio.Future[T]":
        """Have *function* run on the thread; the future is settled when it has ended, whoever still waits."""
        connection = self._sync
        if connection is None:
            raise RuntimeError("the connection is not open yet")
        self.pending += 1
        outcome = self._submit(lambda: function(connection))
        outcome.add_done_callback(self._ended)
        return outcome

    def _submit(self, function: Callable[[], T]) -> "asyncio.Future[T]":
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()
        self._connection._tx.put_nowait((None, telling(loop, outcome, function)))  # noqa: SLF001 - see the first lines
        return outcome

    def _ended(self, outcome: "asyncio.Future[Any]") -> None:  # noqa: ARG002 - a callback's form
        self.pending -= 1

    async def _run(self, function: Callable[[], T]) -> T:
        return await finished(self._submit(function))

    async def run(self, function: Step[T]) -> T:
        """Run *function* on the thread and wait for its end through any number of cancellations."""
        return await finished(self.submit(function))

    def close(self) -> "asyncio.Future[Any]":
        """Close the connection and end the thread after what is queued; a bare future that is settled by the end."""
        if self._sync is not None:
            self.submit(Connection.close)
        ended: asyncio.Future[Any] = self._connection.stop()
        return ended


class LocalEngine:
    """A synchronous engine whose connections are ones that a thread already has; one cache of compiled SQL."""

    def __init__(self, make: Callable[[Callable[[], Any]], Engine]) -> None:
        self._here = threading.local()
        self._engine = make(lambda: self._here.connection)
        self._engine.dialect.do_close = _nothing  # type: ignore[assignment,method-assign]  # aiosqlite closes them

    def adopt(self, connection: Any) -> Connection:
        """A SQLAlchemy connection over this thread's own SQLite *connection*."""
        self._here.connection = connection
        return self._engine.connect()


def _nothing(connection: object) -> None: ...

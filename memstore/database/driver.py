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
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from memstore.threads import finished, telling

T = TypeVar("T")
Step = Callable[[Connection], T]


class Driver:
    """One connection and its thread. Functions run one after the other, in the order they were submitted."""

    def __init__(self, connection: AsyncConnection, sync: Connection, aiosqlite_connection: Any) -> None:
        self._connection = connection
        self._sync = sync
        self._queue = aiosqlite_connection._tx  # noqa: SLF001 - see the module's first lines
        self.pending = 0

    @classmethod
    async def open(cls, engine: AsyncEngine, local: "LocalEngine", setup: Callable[[Connection], None]) -> "Driver":
        """Connect, and run *setup* on the new connection's thread."""
        connection = await engine.connect()
        try:
            raw: Any = (await connection.get_raw_connection()).driver_connection
            outcome: asyncio.Future[Connection] = _submit(raw._tx, lambda: local.adopt(raw._conn))  # noqa: SLF001
            driver = cls(connection, await finished(outcome), raw)
            await driver.run(setup)
        except BaseException:
            await asyncio.shield(connection.close())
            raise
        return driver

    def submit(self, function: Step[T]) -> "asyncio.Future[T]":
        """Have *function* run on the thread; the future is settled when it has ended, whoever still waits."""
        self.pending += 1
        outcome = _submit(self._queue, lambda: function(self._sync))
        outcome.add_done_callback(self._ended)
        return outcome

    def _ended(self, outcome: "asyncio.Future[Any]") -> None:  # noqa: ARG002 - a callback's form
        self.pending -= 1

    async def run(self, function: Step[T]) -> T:
        """Run *function* on the thread and wait for its end through any number of cancellations."""
        return await finished(self.submit(function))

    async def close(self) -> None:
        """Close the connection and end the thread."""
        await self.run(Connection.close)
        await self._connection.close()


class LocalEngine:
    """A synchronous engine whose connections are ones that a thread already has; one cache of compiled SQL."""

    def __init__(self, make: Callable[[Callable[[], Any]], Engine]) -> None:
        self._here = threading.local()
        self._engine = make(lambda: self._here.connection)
        self._engine.dialect.do_close = _nothing  # type: ignore[assignment,method-assign]  # the async engine's to close

    def adopt(self, connection: Any) -> Connection:
        """A SQLAlchemy connection over this thread's own SQLite *connection*."""
        self._here.connection = connection
        return self._engine.connect()


def _nothing(connection: object) -> None: ...


def _submit(queue: Any, function: Callable[[], T]) -> "asyncio.Future[T]":
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()
    queue.put_nowait((None, telling(loop, outcome, function)))
    return outcome

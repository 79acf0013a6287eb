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

from memstore.threads import Outcome, finished, telling

T = TypeVar("T")
FutureT = TypeVar("FutureT", bound="asyncio.Future[Any]")
Step = Callable[[Connection], T]


class Driver:
    """One connection and its thread. Functions run one after the other, in the order they were submitted."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._sync: Connection | None = None
        self._asked = 0  # counted by the event loop alone
        self._done = 0  # counted by the thread alone

    @classmethod
    async def open(cls, engine: AsyncEngine, local: "LocalEngine", setup: Callable[[Connection], None]) -> "Driver":
        """Connect, and run *setup* on the new connection's thread."""
        connection = await engine.connect()
        pooled = await connection.get_raw_connection()
        driver = cls(pooled.driver_connection)
        pooled.detach()  # from here on it is ours, and closing it needs no awaiting of SQLAlchemy's
        try:
            adopted: Outcome[Connection] = Outcome()
            driver._queue(telling(adopted, lambda: local.adopt(driver._connection._conn)))  # noqa: SLF001
            driver._sync = await adopted
            await driver.submit(setup)
        except BaseException:
            await finished(driver.close())
            raise
        return driver

    @property
    def pending(self) -> int:
        """How many functions were submitted that have not ended."""
        return self._asked - self._done

    def submit(self, function: Step[T]) -> "Outcome[T]":
        """Have *function* run on the thread; awaited, it is waited for through any number of cancellations."""
        return self._submitted(Outcome(), function)

    def ask(self, function: Step[T]) -> "asyncio.Future[T]":
        """Have *function* run on the thread; whoever is cancelled meanwhile does not wait for its end."""
        return self._submitted(asyncio.get_running_loop().create_future(), function)

    def post(self, function: Step[None]) -> None:
        """Have *function* run on the thread; it tells of its end itself, and raises nothing."""
        connection = self._opened()
        self._queue(lambda: function(connection))

    def _submitted(self, outcome: FutureT, function: Step[Any]) -> FutureT:
        connection = self._opened()
        self._asked += 1

        def call() -> Any:
            try:
                return function(connection)
            finally:
                self._done += 1

        self._queue(telling(outcome, call))
        return outcome

    def _opened(self) -> Connection:
        if self._sync is None:
            raise RuntimeError("the connection is not open yet")
        return self._sync

    def _queue(self, call: Callable[[], None]) -> None:
        self._connection._tx.put_nowait((None, call))  # noqa: SLF001 - see the first lines

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

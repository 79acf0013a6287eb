"""One SQLite connection on a thread of its own, where whole functions run.

SQLAlchemy's async engine opens the connection; aiosqlite owns its thread. aiosqlite has no public call that runs
one function of ours there, so this adapter puts it on that thread's queue (`Connection._tx`, as SQLAlchemy's own
dialect does). The function receives a synchronous SQLAlchemy `Connection` over the same SQLite connection: an
operation of any number of statements is one hop, and binding parameters and building rows stay off the event loop.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlalchemy import Connection, Engine

from memstore.concurrency import UncancellableFuture, finished, run_and_resolve
from memstore.database import fork_safety
from memstore.database.sqlite import sqlite3

if TYPE_CHECKING:  # `database.async_engine` says why it loads late
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")
FutureT = TypeVar("FutureT", bound="asyncio.Future[Any]")
Step = Callable[[Connection], T]


class ConnectionThread:
    """One connection and its thread. Functions run one after the other, in the order they were submitted."""

    def __init__(self, connection: Any, path: str) -> None:
        self.path = path
        self.gate = threading.RLock()  # held while the thread is at work: see `forks`
        self._pid = os.getpid()
        self._connection = connection
        self._sync: Connection | None = None
        self._asked = 0  # counted by the event loop alone
        self._done = 0  # counted by the thread alone

    @classmethod
    async def open(
        cls, path: str, engine: "AsyncEngine", local: "LocalEngine", setup: Callable[[Connection], None]
    ) -> "ConnectionThread":
        """Connect to the file at *path* by *engine*, and run *setup* on the new connection's thread."""
        connection = await engine.connect()
        pooled = await connection.get_raw_connection()
        driver = cls(pooled.driver_connection, path)
        fork_safety.know(driver)
        pooled.detach()  # from here on it is ours, and closing it needs no awaiting of SQLAlchemy's
        try:
            adopted: UncancellableFuture[Connection] = UncancellableFuture()
            driver._queue(run_and_resolve(adopted, lambda: local.adopt(driver._connection._conn)))  # noqa: SLF001
            driver._sync = await adopted
            await driver.submit(setup)
        except BaseException:
            await finished(driver.close())
            raise
        return driver

    @property
    def base(self) -> sqlite3.Connection | None:
        """SQLite's own connection; None before it is made, and once it is closed."""
        return cast("sqlite3.Connection | None", self._connection._connection)  # noqa: SLF001

    @property
    def forked(self) -> bool:
        """Whether this process is a child of the one that has the thread."""
        return os.getpid() != self._pid

    @property
    def pending(self) -> int:
        """How many functions were submitted that have not ended."""
        return self._asked - self._done

    def submit(self, function: Step[T]) -> "UncancellableFuture[T]":
        """Have *function* run on the thread; awaited, it is waited for through any number of cancellations."""
        return self._submitted(UncancellableFuture(), function)

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

        self._queue(run_and_resolve(outcome, call))
        return outcome

    def _opened(self) -> Connection:
        if self._sync is None:
            raise RuntimeError("the connection is not open yet")
        return self._sync

    def _queue(self, call: Callable[[], None]) -> None:
        if self.forked:
            raise fork_safety.of_the_parent()

        def gated() -> None:
            with self.gate:
                call()

        self._connection._tx.put_nowait((None, gated))  # noqa: SLF001 - see the first lines

    def close(self) -> "asyncio.Future[Any]":
        """Close the connection and end the thread after what is queued; a bare future that is settled by the end."""
        if self._sync is not None:
            self.submit(self._finish)
        ended: asyncio.Future[Any] = self._connection.stop()
        return ended

    def _finish(self, connection: Connection) -> None:
        connection.close()
        if self.base is not None:
            self.base.close()  # here, behind the gate, and not by aiosqlite, which then has nothing left to do


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

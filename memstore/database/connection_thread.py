"""One SQLite connection and its thread, where whole functions run.

SQLAlchemy's async engine opens the connection; aiosqlite owns the thread. aiosqlite has no public call that runs a
function there, so this adapter puts it on the thread's queue (`Connection._tx`, as SQLAlchemy's dialect does). The
function receives a synchronous SQLAlchemy `Connection` over the same SQLite connection: an operation of any number of
statements is one hop, and parameters are bound and rows are built off the event loop.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlalchemy import Connection, Engine

from memstore.concurrency import UncancellableFuture, run_and_resolve, wait_to_end
from memstore.database import fork_safety
from memstore.database.file_identity import OpenedFile
from memstore.database.sqlite import sqlite3
from memstore.database.statement_limits import STATEMENT

if TYPE_CHECKING:  # `database.async_engine` says why it loads late
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")
Step = Callable[[Connection], T]


class ConnectionThread:
    """A connection and its thread. Functions run one after the other, in the order in which they were submitted.

    Attributes:
        path: the file.
        gate: held while the thread runs a function; see `fork_safety`.
    """

    def __init__(self, connection: Any, path: str) -> None:
        self.path = path
        self.gate = threading.RLock()
        self._pid = os.getpid()
        self._connection = connection
        self._sync: Connection | None = None

    @classmethod
    async def open(
        cls, path: str, engine: "AsyncEngine", local: "LocalEngine", setup: Callable[[Connection], None]
    ) -> "ConnectionThread":
        """Connect to the file at *path* by *engine*, and run *setup* on the new connection's thread."""
        connection = await engine.connect()
        pooled = await connection.get_raw_connection()
        thread = cls(pooled.driver_connection, path)
        fork_safety.register(thread)
        pooled.detach()  # the pool no longer closes it
        try:
            adopted: UncancellableFuture[Connection] = UncancellableFuture()
            thread._enqueue(run_and_resolve(adopted, lambda: local.adopt(thread._connection._conn)))  # noqa: SLF001
            thread._sync = await adopted
            await thread.submit(setup)
        except BaseException:
            await wait_to_end(thread.close())
            raise
        return thread

    @property
    def base(self) -> sqlite3.Connection | None:
        """The SQLite connection; None before it is open, and after it is closed."""
        return cast("sqlite3.Connection | None", self._connection._connection)  # noqa: SLF001

    @property
    def forked(self) -> bool:
        """Whether this process is a forked child, which does not have the thread."""
        return os.getpid() != self._pid

    def submit(self, function: Step[T]) -> "UncancellableFuture[T]":
        """Run *function* on the thread. Awaiting the future lasts to the end, through any number of cancellations."""
        connection = self._open_connection()
        future: UncancellableFuture[T] = UncancellableFuture()
        self._enqueue(run_and_resolve(future, lambda: function(connection)))
        return future

    def post(self, function: Step[None]) -> None:
        """Run *function* on the thread. It reports its end itself, and raises nothing."""
        self._enqueue(partial(function, self._open_connection()))

    def _open_connection(self) -> Connection:
        if self._sync is None:
            raise RuntimeError("The connection is not open yet")
        return self._sync

    def _enqueue(self, call: Callable[[], None]) -> None:
        if os.getpid() != self._pid:
            raise fork_safety.forked_store_error()

        def gated() -> None:
            with self.gate:
                STATEMENT.is_new = True
                call()

        self._connection._tx.put_nowait((None, gated))  # noqa: SLF001 - see the docstring of the module

    def close(self, file: OpenedFile | None = None) -> "asyncio.Future[Any]":
        """Close the connection and end the thread after its queued functions. Resolves at the end.

        Args:
            file: the file, if this is its last connection.
        """
        if self._sync is not None:
            self.submit(partial(self._finish, file))
        ended: asyncio.Future[Any] = self._connection.stop()
        return ended

    def _finish(self, file: OpenedFile | None, connection: Connection) -> None:
        with nullcontext() if file is None else file.closing():
            connection.close()
            if self.base is not None:
                self.base.close()  # here, where the gate is held, and not in aiosqlite, which then has nothing to close


class LocalEngine:
    """A synchronous engine over connections that threads already have, with one cache of compiled SQL."""

    def __init__(self, make: Callable[[Callable[[], Any]], Engine]) -> None:
        self._here = threading.local()
        self._engine = make(lambda: self._here.connection)
        self._engine.dialect.do_close = _leave_open  # type: ignore[assignment,method-assign]  # aiosqlite closes them

    def adopt(self, connection: Any) -> Connection:
        """A SQLAlchemy connection over this thread's SQLite *connection*."""
        self._here.connection = connection
        return self._engine.connect()


def _leave_open(connection: object) -> None: ...

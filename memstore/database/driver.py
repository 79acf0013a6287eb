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
            raw = (await connection.get_raw_connection()).driver_connection
            if raw is None:
                raise RuntimeError("the engine gave no connection")
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

    def _ended(self, outcome: "asyncio.Future[Any]") -> None:
        self.pending -= 1
        outcome.exception()  # an abandoned read's error is nobody's news

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
        self._engine.dialect.do_close = _nothing  # type: ignore[method-assign]  # they are the async engine's to close

    def adopt(self, connection: Any) -> Connection:
        """A SQLAlchemy connection over this thread's own SQLite *connection*."""
        self._here.connection = connection
        return self._engine.connect()


def _nothing(connection: object) -> None: ...


async def finished(outcome: "asyncio.Future[T]") -> T:
    """The result of *outcome*, waited for to its end; the first cancellation that came meanwhile is let out then.

    A thread cannot be cancelled. A shielded task can (`asyncio.run` cancels it at Ctrl-C), so this waits on a
    bare future, which no loop cancels.
    """
    cancelled: asyncio.CancelledError | None = None
    while not outcome.done():
        try:
            await asyncio.shield(outcome)
        except asyncio.CancelledError as error:
            cancelled = cancelled or error
        except BaseException:  # noqa: BLE001, S110 - raised again below, by result()
            pass
    if cancelled is not None:
        raise cancelled
    return outcome.result()


async def in_thread(function: Callable[[], T]) -> T:
    """Run *function* on a thread made for it: the loop's default executor is the application's."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()
    outcome.add_done_callback(lambda o: o.exception())
    call = _call(loop, outcome, function)
    threading.Thread(target=call, name="memstore-once", daemon=True).start()
    return await finished(outcome)


def _submit(queue: Any, function: Callable[[], T]) -> "asyncio.Future[T]":
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()
    queue.put_nowait((None, _call(loop, outcome, function)))
    return outcome


def _call(
    loop: asyncio.AbstractEventLoop, outcome: "asyncio.Future[T]", function: Callable[[], T]
) -> Callable[[], None]:
    def call() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            _tell(loop, outcome.set_exception, error)
        else:
            _tell(loop, outcome.set_result, result)

    return call


def _tell(loop: asyncio.AbstractEventLoop, settle: Callable[[Any], None], value: Any) -> None:
    try:
        loop.call_soon_threadsafe(settle, value)
    except RuntimeError:
        if not loop.is_closed():  # a loop that was closed under us has nobody who waits
            raise

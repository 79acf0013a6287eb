"""`Database`: one writer, two readers and one connection for upkeep, each on its own thread.

True whenever nobody is inside a call: the writer has no open transaction, unless a user's transaction has the turn.
"""

import asyncio
import atexit
import logging
import os
import time
import warnings
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection

from memstore.concurrency import UncancellableFuture, finished, in_thread
from memstore.config import Settings
from memstore.database import checkpoint as checkpoint_module
from memstore.database import driver_errors, fork_safety, transactions
from memstore.database.connection_thread import ConnectionThread, LocalEngine, Step
from memstore.database.engine import configure, sync_engine
from memstore.database.file_identity import OpenedFile
from memstore.database.inspect import HEAD, MINIMUM_SQLITE, inspect, no_dimension
from memstore.database.migrate import migrate
from memstore.database.sqlite import sqlite3, warn_of_bug
from memstore.database.writer import Writer, WriteSession
from memstore.errors import ClosedError, EventLoopError, MissingFileError, OpenError, ReadOnlyError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")

READERS = 2
CHECKPOINT_BYTES = 16 * 1024 * 1024
_CHECKPOINT_PAUSE = 30.0  # seconds between tries while a reader holds an old state
_WAIT_AT_CLOSE = (
    0.5  # seconds that closing waits for others to let the log be written back; whoever closes last does it
)
_log = logging.getLogger("memstore")


class Database:
    """The open file. Made by `Database.open`; `close` must be awaited."""

    def __init__(
        self,
        settings: Settings,
        file: OpenedFile,
        writer: ConnectionThread | None,
        readers: list[ConnectionThread],
        upkeep: ConnectionThread | None,
    ) -> None:
        self.settings = settings
        self.file = file
        self._writer = None if writer is None else Writer(writer, settings.timeout, file)
        self._readers = readers
        self._upkeep = upkeep
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._closed = False
        self._warned = False
        self._ended: UncancellableFuture[None] | None = None
        self._checkpointing: asyncio.Future[bool] | None = None
        self._checkpoint_not_before = 0.0
        self._turns = 0  # of the writer's, when the log's size was last looked at
        self._wal = settings.path + "-wal"
        _unclosed.add(self)

    @classmethod
    async def open(cls, settings: Settings) -> "Database":
        """Create or migrate the file if need be, and connect to it. Raises as `memstore.open` does."""
        with fork_safety.briefly(settings.path):
            return await cls._open(settings)

    @classmethod
    async def _open(cls, settings: Settings) -> "Database":
        file, engine = await in_thread(lambda: (_prepare(settings), _async_engine(settings)))
        connecting = asyncio.ensure_future(_connect(settings, engine))
        try:
            drivers = await finished(connecting)
        except BaseException:
            if connecting.done() and not connecting.cancelled() and connecting.exception() is None:
                await _closed(connecting.result())
            raise
        if settings.read_only:
            return cls(settings, file, None, drivers, None)
        return cls(settings, file, drivers[0], drivers[2:], drivers[1])

    def when_committed(self, apply: Callable[[Connection], None]) -> None:
        """Have *apply* run on the writer's thread right after every COMMIT, before the caller is answered."""
        if self._writer is not None:
            self._writer.committed = apply

    def check_usable(self) -> None:
        """Raise `ForkedStoreError`, `EventLoopError` or `ClosedError` where the store cannot be used."""
        self.check_here()
        if self._closed:
            raise ClosedError("the store is closed: open it again")

    def check_here(self) -> None:
        """Raise `ForkedStoreError` or `EventLoopError` where this is not the process, or the loop, of the store."""
        if os.getpid() != self._pid:
            raise fork_safety.of_the_parent()
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is not self._loop:
            raise EventLoopError("this store belongs to another event loop: open one in the loop that uses it")

    async def call(self, function: Step[T]) -> T:
        """Run *function* on a reader's thread, in no transaction; a cancelled caller does not wait for its end.

        Raises `StoreReplacedError`, as every way to the file does.
        """
        self.check_usable()
        reader = min(self._readers, key=lambda r: r.pending)
        return await reader.ask(partial(self._in_place, function))

    def _in_place(self, function: Step[T], connection: Connection) -> T:
        self.file.check()
        return function(connection)

    async def read(self, function: Step[T]) -> T:
        """Run *function* on a reader's thread, in one read transaction."""

        def step(connection: Connection) -> T:
            with transactions.snapshot(connection):
                return function(connection)

        return await self.call(step)

    async def write(
        self,
        function: Step[T],
        *,
        before: Callable[[], None] | None = None,
        wait: float | None = None,
        batch: bool = False,
    ) -> T:
        """Run *function* in a write transaction: BEGIN to after-commit is one function on one thread.

        All of it or nothing is done. It may share the transaction with other writes that wait at the same time.

        Args:
            function: what to do in it.
            before: what to do on that thread before it begins, where it holds up no other process.
            wait: seconds to wait for other writers; None for the store's timeout.
            batch: it takes long, and is to hold up no other's answer: it shares its transaction with nobody.

        Raises:
            BusyError: the writer, or the file's write lock, was not to be had in time.
        """
        writer = self._writing()
        try:
            return await writer.write(function, before, wait=wait, batch=batch)
        finally:
            self._checkpoint_if_due()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[WriteSession]:
        """Hold the writer for a user's transaction; what it leaves open is rolled back."""
        writer = self._writing()
        try:
            async with writer.session() as session:
                yield session
        finally:
            self._checkpoint_if_due()

    def _writing(self) -> Writer:
        self.check_usable()
        if self._writer is None:
            raise ReadOnlyError("this store was opened with read_only=True: open it for writing")
        return self._writer

    def wal_bytes(self) -> int:
        """The size of the write-ahead log; 0 when there is none to be seen."""
        try:
            return os.stat(self._wal).st_size
        except OSError:  # what is wrong with the folder is for the next transaction to say
            return 0

    def _checkpoint_if_due(self) -> None:
        if self._upkeep is None or self._closed or self._checkpointing is not None or self._upkeep.forked:
            return
        if self._writer is None or self._turns == self._writer.turns:
            return  # of those who shared a transaction one looks
        self._turns = self._writer.turns
        if self.wal_bytes() > CHECKPOINT_BYTES and time.monotonic() >= self._checkpoint_not_before:
            self._checkpointing = self._upkeep.submit(self._checkpoint)
            self._checkpointing.add_done_callback(self._checkpointed)

    def _checkpointed(self, outcome: "asyncio.Future[bool]") -> None:
        self._checkpointing = None
        error = outcome.exception()
        if error is not None or not outcome.result():
            # A reader somewhere holds an old state. Each try holds writers up for its wait: not so often.
            self._checkpoint_not_before = time.monotonic() + _CHECKPOINT_PAUSE
            _log.info("the write-ahead log could not be written back yet: %s", error or "a reader holds an old state")

    def _checkpoint(self, connection: Connection, wait: float = 1.0) -> bool:
        """Write the log back into the file, as `commit.write_back` does.

        A file that does not lie at its path is left alone: whoever opens it where it lies has another log for it.
        """
        return self.file.in_place and checkpoint_module.write_back(transactions.raw(connection), wait)

    async def upkeep(self, function: Step[T]) -> T:
        """Run *function* on the upkeep thread, in no transaction; it must bound its own waits."""
        self.check_usable()
        if self._upkeep is None:
            raise ReadOnlyError("this store was opened with read_only=True: open it for writing")
        return await self._upkeep.submit(partial(self._in_place, function))

    async def checkpoint(self) -> None:
        """Write the log back into the file now."""
        await self.upkeep(self._checkpoint)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    async def close(self) -> None:
        """Wait for what is running, write the log back, close every connection. Closing twice is one close."""
        if not self._closed:
            self.check_here()
            async with nullcontext() if self._writer is None else self._writer.turn():
                self._shut()
        if self._ended is not None:
            await self._ended

    def _shut(self) -> None:
        """Have every thread end after what it has to do. Nothing is awaited, so no cancellation stops it halfway."""
        if self._closed:
            return
        self._closed = True
        drivers = list(self._readers)
        if self._upkeep is not None:
            self._upkeep.submit(partial(self._checkpoint, wait=_WAIT_AT_CLOSE))
            drivers.insert(0, self._upkeep)
        if self._writer is not None:
            self._writer.closed = True
            drivers.append(self._writer.driver)
        self._ended = _one_after_the_other(drivers)

    def __del__(self) -> None:
        self.forgotten()

    def forgotten(self) -> None:
        """Warn, once, if nobody has closed it."""
        if not self._closed and not self._warned and os.getpid() == self._pid:
            self._warned = True
            warnings.warn(
                f"the store {self.settings.path!r} was not closed: use `async with`", ResourceWarning, stacklevel=2
            )


_unclosed: "weakref.WeakSet[Database]" = weakref.WeakSet()


@atexit.register
def _warn_at_exit() -> None:
    """Warn of stores that are open still: when globals are deleted, there may be nothing left to warn with."""
    for database in list(_unclosed):
        database.forgotten()


def _prepare(settings: Settings) -> OpenedFile:
    """Make the file, or bring it up to date, and take down which one it is."""
    if sqlite3.sqlite_version_info < MINIMUM_SQLITE:
        raise OpenError(
            f"this Python carries SQLite {sqlite3.sqlite_version}; memstore needs "
            f"{'.'.join(map(str, MINIMUM_SQLITE))} or newer: pip install 'memstore[sqlite]', or use a newer Python"
        )
    if not settings.read_only:
        if (settings.dimension is None or settings.curvature is not None) and inspect(settings.path) is None:
            if settings.dimension is None:
                raise no_dimension(settings.path)
            settings.new_space(settings.dimension)  # what it refuses is refused before there is a file
        migrate(settings.path, timeout=settings.timeout)
        warn_of_bug()
        return OpenedFile(settings.path)
    revision = inspect(settings.path)
    if revision is None:
        raise MissingFileError(f"there is no store at {settings.path!r} to read: open it without read_only to make one")
    if revision != HEAD:
        raise OpenError(
            f"{settings.path!r} has schema {revision}; open it once without read_only to bring it to {HEAD}"
        )
    return OpenedFile(settings.path)


def _async_engine(settings: Settings) -> "AsyncEngine":
    from memstore.database.async_engine import async_engine  # not at the top: that module says why

    return async_engine(settings)


async def _connect(settings: Settings, engine: "AsyncEngine") -> list[ConnectionThread]:
    """The writer, the connection for upkeep, and the readers; of a store that is read only, the readers alone."""
    local = LocalEngine(sync_engine)
    drivers: list[ConnectionThread] = []
    try:
        for writes in [True, True] * (not settings.read_only) + [False] * READERS:
            with driver_errors.translated():
                setup = configure(settings, writes=writes)
                drivers.append(await ConnectionThread.open(settings.path, engine, local, setup))
    except BaseException:
        await _closed(drivers)
        raise
    return drivers


async def _closed(drivers: list[ConnectionThread]) -> None:
    await _one_after_the_other(drivers)


def _one_after_the_other(drivers: list[ConnectionThread]) -> "UncancellableFuture[None]":
    """Close *drivers* in turn; settled when all are.

    In turn, because SQLite removes the write-ahead log with the last connection, and takes none for the last while
    two close at once.
    """
    together: UncancellableFuture[None] = UncancellableFuture()
    left = list(drivers)

    def close_next(ended: "asyncio.Future[Any] | None" = None) -> None:  # noqa: ARG001 - a callback's form
        if left:
            left.pop(0).close().add_done_callback(close_next)
        elif not together.done():
            together.set_result(None)

    close_next()
    return together

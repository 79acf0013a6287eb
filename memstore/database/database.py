"""`Database`: one connection that writes, two that read and one for upkeep, each on its own thread.

Between calls the writer has no open transaction, except while a user's transaction is open.
"""

import asyncio
import atexit
import os
import warnings
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection

from memstore.concurrency import UncancellableFuture, in_thread, monotonic, wait_to_end
from memstore.config import Settings
from memstore.database import driver_errors, fork_safety, transactions
from memstore.database.checkpoint import write_back
from memstore.database.connection_thread import ConnectionThread, LocalEngine, Step
from memstore.database.engine import configure, sync_engine
from memstore.database.file_identity import OpenedFile, check_single_name
from memstore.database.inspect import HEAD, MINIMUM_SQLITE, inspect
from memstore.database.migrate import migrate
from memstore.database.read_only import has_log, is_immutable, uses_log, without_log
from memstore.database.readers import ReaderPool
from memstore.database.snapshots import SnapshotPool
from memstore.database.sqlite import sqlite3
from memstore.database.sqlite_libraries import check_connections
from memstore.database.writer import AfterCommit, Writer, WriteSession
from memstore.errors import ClosedError, EventLoopError, MissingFileError, OpenError, ReadOnlyError
from memstore.escaping import library_logger

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")

READERS = 2
"""Connections that read when a store is opened; `readers` opens more."""

_EXTRA_CACHE = 4_000  # kilobytes of SQLite's page cache for a reader that is opened later
CHECKPOINT_BYTES = 16 * 1024 * 1024
_CHECKPOINT_PAUSE = 30.0  # seconds between attempts while a reader uses an old snapshot
_WAIT_AT_CLOSE = 0.5  # seconds that `close` waits to write the log back; SQLite does it when the last process closes
_log = library_logger()


class Database:
    """The open file. Made by `Database.open`; `close` must be awaited."""

    def __init__(
        self,
        settings: Settings,
        file: OpenedFile,
        writer: ConnectionThread | None,
        readers: ReaderPool,
        upkeep: ConnectionThread | None,
    ) -> None:
        self.settings = settings
        self.file = file
        self._writer = None if writer is None else Writer(writer, settings.timeout, file)
        self._readers = readers
        self._snapshots = SnapshotPool(readers.open_reader, settings.timeout)
        self._upkeep = upkeep
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._closed = False
        self._warned = False
        self._closing: UncancellableFuture[None] | None = None
        self._checkpointing: asyncio.Future[bool] | None = None
        self._checkpoint_not_before = 0.0
        self._checked_count = 0  # the writer's transaction count when the size of the log was last checked
        self._wal = settings.path + "-wal"
        _unclosed.add(self)

    @classmethod
    async def open(cls, settings: Settings) -> "Database":
        """Create or migrate the file if need be, and connect to it. Raises as `memstore.open` does."""
        with fork_safety.temporary_connections(settings.path):
            return await cls._open(settings)

    @classmethod
    async def _open(cls, settings: Settings) -> "Database":
        file = await in_thread(partial(_prepare, settings))
        engine = await in_thread(partial(_async_engine, settings, immutable=file.immutable))
        local = LocalEngine(sync_engine)
        connecting = asyncio.ensure_future(_connect(settings, engine, local, file))
        try:
            threads = await wait_to_end(connecting)
        except BaseException:
            if connecting.done() and not connecting.cancelled() and connecting.exception() is None:
                await _close_in_turn(connecting.result(), file)
            raise
        setup = configure(settings, writes=False, cache_kilobytes=_EXTRA_CACHE)
        readers = ReaderPool(
            threads if settings.read_only else threads[2:],
            lambda: _open_thread(settings, engine, local, setup),
        )
        if settings.read_only:
            return cls(settings, file, None, readers, None)
        return cls(settings, file, threads[0], readers, threads[1])

    def check_usable(self) -> None:
        """Raise `ForkedStoreError`, `EventLoopError` or `ClosedError` where the store cannot be used."""
        if os.getpid() != self._pid:
            raise fork_safety.forked_store_error()
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is not self._loop:
            raise EventLoopError(
                "This store belongs to another event loop: open a store in the event loop that uses it"
            )
        if self._closed:
            raise ClosedError("The store is closed: open it again")

    async def call(self, function: Step[T], *, long: bool = False) -> T:
        """Run *function* on a reader's thread, without a transaction; a cancelled caller does not wait for its end.

        Raises `StoreReplacedError`, as every access to the file does.

        Args:
            function: it is interrupted if the caller is cancelled.
            long: it is known to take long, so it never runs on all readers.
        """
        self.check_usable()
        return await self._readers.submit(partial(self._in_place, function), long=long)

    def _in_place(self, function: Step[T], connection: Connection) -> T:
        self.file.check()
        result = function(connection)
        if self.file.immutable:  # read without a lock: what was written meanwhile may be in the result
            self.file.check()
        return result

    async def read(self, function: Step[T], *, long: bool = False) -> T:
        """Run *function* on a reader's thread, in one read transaction; see `call`."""

        def step(connection: Connection) -> T:
            with transactions.snapshot(connection):
                return function(connection)

        return await self.call(step, long=long)

    async def write(
        self,
        function: Step[T],
        *,
        before: Callable[[], None] | None = None,
        after_commit: AfterCommit | None = None,
        wait: float | None = None,
        batch: bool = False,
    ) -> T:
        """Run *function* in a write transaction: BEGIN to *after_commit* is one function on one thread.

        All of *function* is stored, or nothing. It may share the transaction with other pending writes.

        Args:
            function: runs in the transaction.
            before: runs on the same thread before the transaction, while other processes may write.
            after_commit: runs on the same thread after COMMIT, before the caller is answered. Writes that share a
                transaction and have equal callbacks run it once.
            wait: seconds to wait for other writers; None for the store's timeout.
            batch: it takes long, so it shares its transaction with no other write.

        Raises:
            BusyError: another writer used the store, or another process the file's write lock, for longer than *wait*.
        """
        writer = self._writing()
        try:
            return await writer.write(function, before=before, after_commit=after_commit, wait=wait, batch=batch)
        finally:
            self._checkpoint_if_due()

    @asynccontextmanager
    async def session(self, after_commit: AfterCommit | None = None) -> AsyncIterator[WriteSession]:
        """Reserve the writer for a user's transaction. A transaction that the block does not commit is rolled back."""
        writer = self._writing()
        try:
            async with writer.session(after_commit) as session:
                yield session
        finally:
            self._checkpoint_if_due()

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator["ReadSnapshot"]:
        """Reserve a connection for reads of one state of the file, which is that of now.

        Raises:
            BusyError: `MAX_SNAPSHOTS` were open for longer than the store's timeout.
        """
        self.check_usable()
        async with self._snapshots.open() as pool:
            opened = ReadSnapshot(self, pool)
            try:
                await opened.read(transactions.begin_snapshot)
                yield opened
            finally:
                opened.ended = True
                if not self._closed and not pool.threads[0].forked:
                    await pool.threads[0].submit(transactions.rollback)

    async def read_snapshot(self, pool: ReaderPool, function: Step[T]) -> T:
        """Run *function* on the connection of a snapshot."""
        self.check_usable()

        def step(connection: Connection) -> T:
            with driver_errors.translated():
                return self._in_place(function, connection)

        return await pool.submit(step)

    def _writing(self) -> Writer:
        self.check_usable()
        if self._writer is None:
            raise ReadOnlyError("This store was opened with read_only=True: open it without read_only to write")
        return self._writer

    def wal_bytes(self) -> int:
        """The size of the write-ahead log in bytes; 0 when there is none."""
        try:
            return os.stat(self._wal).st_size
        except OSError:  # the next transaction reports what is wrong with the folder
            return 0

    def _checkpoint_if_due(self) -> None:
        if self._upkeep is None or self._closed or self._checkpointing is not None or self._upkeep.forked:
            return
        if self._writer is None or self._checked_count == self._writer.transaction_count:
            return  # of the writes that shared a transaction, one checks
        self._checked_count = self._writer.transaction_count
        if self.wal_bytes() > CHECKPOINT_BYTES and monotonic() >= self._checkpoint_not_before:
            self._checkpointing = self._upkeep.submit(self._checkpoint)
            self._checkpointing.add_done_callback(self._checkpointed)

    def _checkpointed(self, future: "asyncio.Future[bool]") -> None:
        self._checkpointing = None
        error = future.exception()
        if error is not None or not future.result():
            # A reader uses an old snapshot. Each attempt blocks writers while it waits, so the next comes later.
            self._checkpoint_not_before = monotonic() + _CHECKPOINT_PAUSE
            _log.info("the write-ahead log was not written back yet: %s", error or "a reader uses an old snapshot")

    def _checkpoint(self, connection: Connection, wait: float = 1.0) -> bool:
        """Write the log back into the file, as `write_back` does; False if that was not possible.

        A file that is no longer at its path is left alone: a process that opens it elsewhere uses another log for it.
        """
        return self.file.in_place and write_back(transactions.raw(connection), wait, self.file)

    async def upkeep(self, function: Step[T]) -> T:
        """Run *function* on the upkeep thread, without a transaction; it must limit its own waits."""
        self.check_usable()
        if self._upkeep is None:
            raise ReadOnlyError("This store was opened with read_only=True: open it without read_only to write")
        return await self._upkeep.submit(partial(self._in_place, function))

    async def checkpoint(self) -> None:
        """Write the log back into the file now."""
        await self.upkeep(self._checkpoint)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    async def close(self) -> None:
        """Wait for running calls, write the log back, close every connection. A second call waits for the first."""
        if not self._closed:
            self.check_usable()
            await self._readers.stop_growing()
            await self._snapshots.stop_opening()
            try:
                async with nullcontext() if self._writer is None else self._writer.exclusive():
                    self._shut()
            finally:
                if not self._closed:
                    self._readers.resume_growing()
                    self._snapshots.resume_opening()
        if self._closing is not None:
            await self._closing

    def _shut(self) -> None:
        """End every thread after its queued work. Nothing is awaited here, so no cancellation stops it halfway."""
        if self._closed:
            return
        self._closed = True
        threads = [*self._snapshots.threads, *self._readers.threads]
        if self._upkeep is not None:
            self._upkeep.submit(partial(self._checkpoint, wait=_WAIT_AT_CLOSE))
            threads.insert(0, self._upkeep)
        if self._writer is not None:
            self._writer.close()
            threads.append(self._writer.thread)
        self._closing = _close_in_turn(threads, self.file)

    def __del__(self) -> None:
        self.warn_if_open()

    def warn_if_open(self) -> None:
        """Emit `ResourceWarning`, once, if the store was not closed."""
        if not self._closed and not self._warned and os.getpid() == self._pid:
            self._warned = True
            warnings.warn(
                f"The store {self.settings.path!r} was not closed: use `async with`", ResourceWarning, stacklevel=2
            )


class ReadSnapshot:
    """A read transaction of several calls; `Database.snapshot` opens and ends it."""

    def __init__(self, database: Database, pool: ReaderPool) -> None:
        self._database = database
        self._pool = pool
        self.ended = False

    async def read(self, function: Step[T]) -> T:
        """Run *function* in it, on its thread; a cancelled caller does not wait for its end."""
        return await self._database.read_snapshot(self._pool, function)


_unclosed: "weakref.WeakSet[Database]" = weakref.WeakSet()


@atexit.register
def _warn_at_exit() -> None:
    """Warn about open stores now: once module globals are deleted, `__del__` may be unable to."""
    for database in list(_unclosed):
        database.warn_if_open()


def _prepare(settings: Settings) -> OpenedFile:
    """Create or migrate the file, and record its identity."""
    if sqlite3.sqlite_version_info < MINIMUM_SQLITE:
        raise OpenError(
            f"SQLite is too old: expected {'.'.join(map(str, MINIMUM_SQLITE))} or newer, found "
            f"{sqlite3.sqlite_version}. pip install 'memstore[sqlite]', or use a newer Python"
        )
    check_connections(settings.path)
    transactions.check_adapters()
    if settings.read_only:
        return _prepare_read_only(settings)
    if settings.curvature is not None and inspect(settings.path, settings.timeout) is None:
        settings.new_space()  # raises before there is a file
    migrate(settings.path, timeout=settings.timeout)
    return _locked(OpenedFile(settings.path, settings.link), settings)


def _prepare_read_only(settings: Settings) -> OpenedFile:
    path, existed = settings.path, has_log(settings.path)
    with without_log(path):
        revision = inspect(path, settings.timeout)
        is_wal = revision is not None and uses_log(path)
    if revision is None:
        raise MissingFileError(f"There is no store at {path!r}: open it without read_only to create one")
    if revision != HEAD:
        raise OpenError(
            f"{path!r} has an older schema: expected {HEAD}, found {revision}. "
            "Open it once without read_only to migrate it"
        )
    if is_immutable(path):
        return _registered(OpenedFile(path, settings.link, immutable=True))
    file = OpenedFile(path, settings.link, delete_log=not existed)
    if not is_wal:  # the locks would prevent others from switching it to a log
        return _registered(file)
    check_single_name(path)
    return _locked(file, settings)


def _registered(file: OpenedFile) -> OpenedFile:
    file.register()
    return file


def _locked(file: OpenedFile, settings: Settings) -> OpenedFile:
    file.lock(settings.timeout)
    return file


def _async_engine(settings: Settings, *, immutable: bool) -> "AsyncEngine":
    from memstore.database.async_engine import async_engine  # not at the top: that module says why

    return async_engine(settings, immutable=immutable)


async def _connect(
    settings: Settings, engine: "AsyncEngine", local: LocalEngine, file: OpenedFile
) -> list[ConnectionThread]:
    """The writer, the upkeep connection and the readers; only the readers for a read-only store."""
    threads: list[ConnectionThread] = []
    try:
        for writes in [True, True] * (not settings.read_only) + [False] * READERS:
            threads.append(await _open_thread(settings, engine, local, configure(settings, writes=writes)))
            if len(threads) == 1:
                await threads[0].submit(lambda _: file.log_opened())
    except BaseException:
        await _close_in_turn(threads, file)
        raise
    return threads


async def _open_thread(
    settings: Settings, engine: "AsyncEngine", local: LocalEngine, setup: Callable[[Connection], None]
) -> ConnectionThread:
    with driver_errors.translated():
        return await ConnectionThread.open(settings.path, engine, local, setup)


def _close_in_turn(threads: list[ConnectionThread], file: OpenedFile) -> "UncancellableFuture[None]":
    """Close *threads*, all connections to *file*, one after the other; the future resolves when all are closed.

    SQLite removes the write-ahead log with the last connection. If two close at once, it takes neither for the last.
    """
    closed: UncancellableFuture[None] = UncancellableFuture()
    remaining = list(threads)

    def close_next(previous: "asyncio.Future[Any] | None" = None) -> None:  # noqa: ARG001 - the form of a callback
        if remaining:
            thread = remaining.pop(0)
            thread.close(None if remaining else file).add_done_callback(close_next)
        elif not closed.done():
            file.release()  # if no connection was opened
            closed.set_result(None)

    close_next()
    return closed

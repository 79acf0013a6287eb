"""`Database`: one writer, two readers and one connection for upkeep, each on its own thread.

True whenever nobody is inside a call: the writer has no open transaction, unless a user's transaction holds the
turn. Whoever writes holds the turn (an asyncio lock, held by coroutines only) and every wait for it is bounded.
"""

import asyncio
import logging
import os
import sqlite3
import time
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection

from memstore.database import commit
from memstore.database.driver import Driver, LocalEngine, Step
from memstore.database.file import HEAD, MINIMUM_SQLITE, async_engine, configure, inspect, no_dimension, sync_engine
from memstore.database.migration import migrate
from memstore.errors import (
    BusyError,
    ClosedError,
    CommitUnknownError,
    EventLoopError,
    ForkedStoreError,
    MissingFileError,
    OpenError,
    ReadOnlyError,
)
from memstore.settings import Settings
from memstore.threads import finished, in_thread

T = TypeVar("T")

READERS = 2
CHECKPOINT_BYTES = 16 * 1024 * 1024
_WAIT_AT_CLOSE = (
    0.5  # seconds that closing waits for others to let the log be written back; whoever closes last does it
)
_log = logging.getLogger("memstore")


class Database:
    """The open file. Made by `Database.open`; `close` must be awaited."""

    def __init__(self, settings: Settings, writer: Driver | None, readers: list[Driver], upkeep: Driver | None) -> None:
        self.settings = settings
        self._writer = writer
        self._readers = readers
        self._upkeep = upkeep
        self._turn = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._closed = False
        self._unknown: CommitUnknownError | None = None
        self._checkpointing: asyncio.Future[None] | None = None
        self._committed: Callable[[Connection], None] = lambda connection: None  # noqa: ARG005
        self._wal = settings.path + "-wal"

    @classmethod
    async def open(cls, settings: Settings) -> "Database":
        """Create or migrate the file if need be, and connect to it. Raises as `memstore.open` does."""
        await in_thread(lambda: _prepare(settings))
        engine, local = async_engine(settings), LocalEngine(sync_engine)
        drivers: list[Driver] = []
        try:
            for writes in [True, True] * (not settings.read_only) + [False] * READERS:
                driver = await Driver.open(engine, local, configure(settings, writes=writes))
                drivers.append(driver)
        except BaseException:
            for driver in drivers:
                await driver.close()
            raise
        if settings.read_only:
            return cls(settings, None, drivers, None)
        return cls(settings, drivers[0], drivers[2:], drivers[1])

    def when_committed(self, apply: Callable[[Connection], None]) -> None:
        """Have *apply* run on the writer's thread right after every COMMIT, before the caller is answered."""
        self._committed = apply

    def check_usable(self) -> None:
        """Raise `ForkedStoreError`, `EventLoopError` or `ClosedError` where the store cannot be used."""
        if os.getpid() != self._pid:
            raise ForkedStoreError("this store was opened by the parent process: open one in the child")
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is not self._loop:
            raise EventLoopError("this store belongs to another event loop: open one in the loop that uses it")
        if self._closed:
            raise ClosedError("the store is closed: open it again")

    async def call(self, function: Step[T]) -> T:
        """Run *function* on a reader's thread, in no transaction; a cancelled caller does not wait for its end."""
        self.check_usable()
        reader = min(self._readers, key=lambda r: r.pending)
        return await asyncio.shield(reader.submit(function))

    async def read(self, function: Step[T]) -> T:
        """Run *function* on a reader's thread, in one read transaction."""

        def step(connection: Connection) -> T:
            with commit.snapshot(connection):
                return function(connection)

        return await self.call(step)

    async def write(self, function: Step[T]) -> T:
        """Run *function* in a write transaction of its own: BEGIN to after-commit is one function on one thread.

        Raises:
            BusyError: the write lock was not to be had within the timeout.
        """
        deadline = time.monotonic() + self.settings.timeout

        def step(connection: Connection) -> T:
            commit.begin_write(connection, deadline - time.monotonic())
            try:
                with commit.translated():
                    result = function(connection)
            except BaseException:
                commit.rollback(connection)
                raise
            self._commit(connection)
            return result

        async with self._writing() as writer:
            return await writer.run(step)

    @asynccontextmanager
    async def session(self) -> AsyncIterator["WriteSession"]:
        """Hold the writer for a user's transaction; what it leaves open is rolled back."""
        deadline = time.monotonic() + self.settings.timeout
        async with self._writing() as writer:
            session = WriteSession(writer, self._commit)
            try:
                await writer.run(lambda c: commit.begin_write(c, deadline - time.monotonic()))
                yield session
            finally:
                if not session.committed:
                    await writer.run(commit.rollback)

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[Driver]:
        self.check_usable()
        if self._writer is None:
            raise ReadOnlyError("this store was opened with read_only=True: open it for writing")
        try:
            async with asyncio.timeout(self.settings.timeout):
                await self._turn.acquire()
        except TimeoutError:
            raise BusyError(
                f"another task kept the writer for {self.settings.timeout} s: keep transactions short, or raise timeout"
            ) from None
        try:
            self.check_usable()  # it may have been closed meanwhile
            if self._unknown is not None:
                raise self._unknown
            yield self._writer
        finally:
            self._turn.release()
            self._checkpoint_if_due()

    def _commit(self, connection: Connection) -> None:
        try:
            commit.commit(connection)
        except CommitUnknownError as error:
            self._unknown = error
            raise
        except BaseException:
            commit.rollback(connection)
            raise
        self._committed(connection)

    def wal_bytes(self) -> int:
        """The size of the write-ahead log; 0 when there is none."""
        try:
            return os.stat(self._wal).st_size
        except FileNotFoundError:
            return 0

    def _checkpoint_if_due(self) -> None:
        if self._upkeep is None or self._closed or self._checkpointing is not None:
            return
        if self.wal_bytes() > CHECKPOINT_BYTES:
            self._checkpointing = self._upkeep.submit(partial(_checkpoint, wait=self.settings.timeout / 2))
            self._checkpointing.add_done_callback(self._checkpointed)

    def _checkpointed(self, outcome: "asyncio.Future[None]") -> None:
        self._checkpointing = None
        error = outcome.exception()
        if error is not None:
            _log.warning("the write-ahead log could not be written back yet: %s", error)

    async def upkeep(self, function: Step[T]) -> T:
        """Run *function* on the upkeep thread, in no transaction; it must bound its own waits."""
        self.check_usable()
        if self._upkeep is None:
            raise ReadOnlyError("this store was opened with read_only=True: open it for writing")
        return await self._upkeep.run(function)

    async def checkpoint(self) -> None:
        """Write the log back into the file now."""
        await self.upkeep(partial(_checkpoint, wait=self.settings.timeout / 2))

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    async def close(self) -> None:
        """Wait for what is running, write the log back, close every connection. Closing twice is one close."""
        if self._closed:
            return
        try:
            async with asyncio.timeout(self.settings.timeout):
                await self._turn.acquire()
        except TimeoutError:
            raise BusyError("a transaction is still open: end it before closing the store") from None
        self._closed = True
        try:
            await finished(asyncio.ensure_future(self._close()))
        finally:
            self._turn.release()

    async def _close(self) -> None:
        if self._upkeep is not None:
            await self._upkeep.run(partial(_checkpoint, wait=_WAIT_AT_CLOSE))
        for driver in (self._writer, self._upkeep, *self._readers):
            if driver is not None:
                await driver.close()

    def __del__(self) -> None:
        if not self._closed and os.getpid() == self._pid:
            warnings.warn(
                f"the store {self.settings.path!r} was not closed: use `async with`", ResourceWarning, stacklevel=1
            )


class WriteSession:
    """A write transaction that takes several hops; `Database.session` opens and ends it."""

    def __init__(self, writer: Driver, commit_step: Callable[[Connection], None]) -> None:
        self._writer = writer
        self._commit_step = commit_step
        self.committed = False

    async def run(self, function: Step[T]) -> T:
        """Run *function* inside the transaction, on the writer's thread."""
        return await self._writer.run(function)

    async def commit(self) -> None:
        """COMMIT to after-commit, as one function; once it has begun, only its outcome counts."""
        try:
            await self._writer.run(self._commit_step)
        finally:
            self.committed = True  # it ended, one way or the other: there is nothing left to roll back


def _prepare(settings: Settings) -> None:
    if sqlite3.sqlite_version_info < MINIMUM_SQLITE:
        raise OpenError(
            f"this Python carries SQLite {sqlite3.sqlite_version}; memstore needs "
            f"{'.'.join(map(str, MINIMUM_SQLITE))} or newer: use a newer Python"
        )
    if not settings.read_only:
        if settings.dimension is None and inspect(settings.path) is None:
            raise no_dimension(settings.path)  # before there is a file
        migrate(settings.path, timeout=settings.timeout)
        return
    revision = inspect(settings.path)
    if revision is None:
        raise MissingFileError(f"there is no store at {settings.path!r} to read: open it without read_only to make one")
    if revision != HEAD:
        raise OpenError(
            f"{settings.path!r} has schema {revision}; open it once without read_only to bring it to {HEAD}"
        )


def _checkpoint(connection: Connection, wait: float) -> None:
    """Write the log back into the file and start it anew.

    SQLite 3.7.0 to 3.51.2 can lose commits when a passive checkpoint overlaps a restart of the log; TRUNCATE takes
    the writer lock first, so none can. It runs PASSIVE when the lock is not to be had in time: hence the long wait.
    """
    base = commit.raw(connection)
    with commit.translated():
        base.execute(f"PRAGMA busy_timeout={int(wait * 1000)}")
        base.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()  # busy=1 means later, and later comes

"""BEGIN, SAVEPOINT, COMMIT and ROLLBACK.

The functions run on the connection's thread. Writers use BEGIN IMMEDIATE: a read transaction that becomes a write
fails at once with SQLITE_BUSY_SNAPSHOT, whatever the timeout.

The outcome of a COMMIT that raises is unknown: after a failed sync of the log, every open connection may read the old
state while the file shows the new one after a crash. Reading does not settle it; another commit does (`_settle`). If
that fails too, the next write that succeeds settles it: its frames replace those of the failed one in the log. On a
full disk the outcome is known: the last frame of the transaction was not written.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection

from memstore.concurrency import monotonic
from memstore.database.driver_errors import DRIVER_ERRORS, translate, translated
from memstore.database.sqlite import sqlite3
from memstore.errors import BusyError, CommitUnknownError, TransactionError, UsageError

ROLLED_BACK = "SQLite rolled this transaction back after a failure: nothing of it was stored. Start it again"
_POLL_INTERVAL = 0.05  # seconds of waiting for the write lock between two checks for a cancellation
_SETTLE_WAIT = 5.0  # seconds of waiting for other writers, to learn whether a commit took effect
_CACHE_BYTES = 1 << 28  # limit of the transaction cache: memory that an open transaction uses
_CACHE = "memstore_transaction_cache"  # key of `Connection.info`
_BUSY_TIMEOUT = "memstore_busy_timeout"  # key of `Connection.info`: the milliseconds that `begin_write` set last

raw: Callable[[Connection], sqlite3.Connection] = attrgetter("connection.dbapi_connection")
"""The SQLite connection under a connection, for statements that need no compiling by SQLAlchemy."""

in_write: Callable[[Connection], bool] = attrgetter("connection.dbapi_connection.in_transaction")
"""Whether a transaction is open."""


def cache_item(connection: Connection, item: object, size: int) -> None:
    """Keep *item*, of *size* bytes, for the after-commit callback of the transaction, which need not read it again.

    Any item may be missing: the cache is emptied where it would exceed its limit, by BEGIN, and by every rollback of
    the transaction or of a savepoint, because an item does not say in which savepoint it was added.
    """
    items, total = connection.info.get(_CACHE, ([], 0))
    if total + size > _CACHE_BYTES:
        items, total = [], 0
    items.append(item)
    connection.info[_CACHE] = items, total + size


def take_cached(connection: Connection) -> list[Any]:
    """The items of the transaction cache, in the order in which they were added. The cache is then empty."""
    items: list[Any] = connection.info.pop(_CACHE, ([], 0))[0]
    return items


_PLAIN_ADAPTERS = {(kind, sqlite3.PrepareProtocol) for kind in (str, int, float, bytes, bytearray)}


def check_adapters() -> None:
    """Raise `UsageError` if the program has `sqlite3` convert values of plain types, on every connection.

    It would store other texts and numbers than those that are returned.
    """
    if not _PLAIN_ADAPTERS.isdisjoint(sqlite3.adapters):
        names = sorted(kind.__name__ for kind, _ in _PLAIN_ADAPTERS & sqlite3.adapters.keys())
        raise UsageError(
            f"This program registered an adapter of sqlite3 for {', '.join(names)}, which changes every such value "
            "that memstore stores: register it for a type of the program's own instead"
        )


@contextmanager
def snapshot(connection: Connection) -> Iterator[None]:
    """One read transaction: every statement in it reads the same snapshot of the file."""
    base = raw(connection)
    try:
        base.execute("BEGIN")
        yield
    except DRIVER_ERRORS as error:
        raise translate(error) from error
    finally:
        if base.in_transaction:
            base.execute("ROLLBACK")


def begin_snapshot(connection: Connection) -> None:
    """Begin a read transaction for several calls, and fix the snapshot that it reads; `rollback` ends it."""
    base = raw(connection)
    with translated():
        base.execute("BEGIN")
        base.execute("SELECT 1 FROM sqlite_master").fetchone()


@contextmanager
def busy_timeout(base: sqlite3.Connection, seconds: float) -> Iterator[None]:
    """Statements of the block wait so long for locks; afterwards as long as before it."""
    before = base.execute("PRAGMA busy_timeout").fetchone()[0]
    base.execute(f"PRAGMA busy_timeout={int(seconds * 1000)}")
    try:
        yield
    finally:
        base.execute(f"PRAGMA busy_timeout={before}")


def begin_write(connection: Connection, wait: float, is_pending: Callable[[], bool] = lambda: True) -> None:
    """Take the file's write lock. Wait at most *wait* seconds, and while *is_pending*. Raises `BusyError`."""
    base = raw(connection)
    if not _PLAIN_ADAPTERS.isdisjoint(sqlite3.adapters):
        check_adapters()
    deadline = monotonic() + wait
    if base.in_transaction:
        rollback(connection)  # an earlier one that failed with the disk
    info = connection.info
    while True:
        remaining = deadline - monotonic()
        milliseconds = int(max(0.0, min(remaining, _POLL_INTERVAL)) * 1000)
        try:
            if info.get(_BUSY_TIMEOUT) != milliseconds:  # SQLite compiles the pragma each time: 13 µs
                base.execute(f"PRAGMA busy_timeout={milliseconds}")
                info[_BUSY_TIMEOUT] = milliseconds
            base.execute("BEGIN IMMEDIATE")
            info.pop(_CACHE, None)
            return
        except DRIVER_ERRORS as error:
            failure = translate(error)
            if not isinstance(failure, BusyError) or remaining <= _POLL_INTERVAL or not is_pending():
                raise failure from error


@contextmanager
def savepoint(connection: Connection, name: str) -> Iterator[None]:
    """A savepoint in the open write transaction, rolled back if the block raises. The transaction goes on.

    A full disk or an I/O error can end the whole transaction; then there is no savepoint left (`in_write` is False).
    """
    begin_savepoint(connection, name)
    try:
        with translated():
            yield
    except BaseException:
        undo_savepoint(connection, name)
        raise
    end_savepoint(connection, name)


def begin_savepoint(connection: Connection, name: str) -> None:
    """Begin a savepoint in the open transaction; savepoints of one name nest."""
    with translated():
        raw(connection).execute(f"SAVEPOINT {name}")


def end_savepoint(connection: Connection, name: str) -> None:
    """Release the savepoint and keep its changes."""
    with translated():
        raw(connection).execute(f"RELEASE {name}")


def undo_savepoint(connection: Connection, name: str) -> None:
    """Roll the savepoint back, if the transaction is still open. If that fails, roll the transaction back."""
    base = raw(connection)
    connection.info.pop(_CACHE, None)
    try:
        if base.in_transaction:
            base.execute(f"ROLLBACK TO {name}")
            base.execute(f"RELEASE {name}")
    except sqlite3.Error:
        rollback(connection)


def rollback(connection: Connection) -> None:
    """Roll the transaction back, if it is still open."""
    base = raw(connection)
    connection.info.pop(_CACHE, None)
    if base.in_transaction:
        with translated():
            base.execute("ROLLBACK")


def commit(connection: Connection) -> None:
    """Commit the transaction. When this returns, the transaction is durable.

    Raises:
        CommitUnknownError: whether it was committed is unknown, until another transaction is committed.
        StorageError: it was not committed.
    """
    base = raw(connection)
    if not base.in_transaction:
        raise TransactionError(ROLLED_BACK)
    token = os.urandom(16)
    try:
        base.execute("UPDATE store_meta SET write_token = ?", (token,))
    except sqlite3.Error as error:
        raise translate(error) from error
    try:
        base.execute("COMMIT")
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
            # The frame that makes the transaction valid was not written. Settling would take the room that is left.
            raise translate(error) from error
        if not _settle(base, token, error):
            raise translate(error) from error


def _settle(base: sqlite3.Connection, token: bytes, cause: sqlite3.Error) -> bool:
    """Whether the transaction that wrote *token* was committed; a second commit settles it."""
    try:
        if base.in_transaction:
            base.execute("ROLLBACK")
        with busy_timeout(base, _SETTLE_WAIT):
            base.execute("BEGIN IMMEDIATE")
            row = base.execute("SELECT write_token = ? FROM store_meta", (token,)).fetchone()
            base.execute("UPDATE store_meta SET write_token = ?", (os.urandom(16),))
            base.execute("COMMIT")
    except sqlite3.Error as error:
        with suppress(sqlite3.Error):  # the next transaction rolls it back
            if base.in_transaction:
                base.execute("ROLLBACK")
        raise CommitUnknownError(
            f"COMMIT failed ({cause}), and whether the write was stored is unknown ({error}). "
            "Check the disk. The next write that succeeds settles it: then read the records"
        ) from cause
    return bool(row and row[0])

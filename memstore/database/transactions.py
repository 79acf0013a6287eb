"""BEGIN, SAVEPOINT, COMMIT and ROLLBACK.

The functions run on the connection's thread. Writers use BEGIN IMMEDIATE: a read transaction that becomes a write
fails at once with SQLITE_BUSY_SNAPSHOT, whatever the timeout.

The outcome of a COMMIT that raises is unknown: after a failed sync of the log, every open connection may read the old
state while the file shows the new one after a crash. Reading does not settle it; another commit does (`_settle`).
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

from sqlalchemy import Connection

from memstore.database.driver_errors import translate, translated
from memstore.database.sqlite import sqlite3
from memstore.errors import BusyError, CommitUnknownError, TransactionError

ROLLED_BACK = "SQLite rolled this transaction back after a failure: nothing of it was stored. Start it again"
_POLL_INTERVAL = 0.05  # seconds of waiting for the write lock between two checks for a cancellation
_CACHE_BYTES = 1 << 28  # limit of `TransactionCache`: memory that an open transaction uses

T = TypeVar("T")


def raw(connection: Connection) -> sqlite3.Connection:
    """The SQLite connection under *connection*, for statements that need no compiling by SQLAlchemy."""
    return cast("sqlite3.Connection", connection.connection.dbapi_connection)


class TransactionCache:
    """Items that the writes of a transaction keep for its after-commit callback, which need not read them again.

    Any item may be missing. BEGIN empties the cache, and so does every rollback of the transaction or of a savepoint,
    because an item does not say in which savepoint it was added.
    """

    def __init__(self) -> None:
        self._items: list[object] = []
        self._bytes = 0

    def add(self, item: object, size: int) -> None:
        """Add *item* of *size* bytes; first empty the cache if it would exceed its limit."""
        if self._bytes + size > _CACHE_BYTES:
            self.clear()
        self._items.append(item)
        self._bytes += size

    def take(self, kind: type[T]) -> list[T]:
        """The items of one *kind*, in the order in which they were added. The cache is then empty."""
        items = [item for item in self._items if isinstance(item, kind)]
        self.clear()
        return items

    def clear(self) -> None:
        """Remove every item."""
        self._items, self._bytes = [], 0


def transaction_cache(connection: Connection) -> TransactionCache:
    """The cache of the transaction of *connection*."""
    info = connection.info
    if TransactionCache not in info:
        info[TransactionCache] = TransactionCache()
    return cast("TransactionCache", info[TransactionCache])


@contextmanager
def snapshot(connection: Connection) -> Iterator[None]:
    """One read transaction: every statement in it reads the same snapshot of the file."""
    base = raw(connection)
    with translated():
        base.execute("BEGIN")
    try:
        with translated():
            yield
    finally:
        if base.in_transaction:
            base.execute("ROLLBACK")


def begin_write(connection: Connection, wait: float, is_pending: Callable[[], bool] = lambda: True) -> None:
    """Take the file's write lock. Wait at most *wait* seconds, and while *is_pending*. Raises `BusyError`."""
    base = raw(connection)
    deadline = time.monotonic() + wait
    while True:
        remaining = deadline - time.monotonic()
        try:
            with translated():
                base.execute(f"PRAGMA busy_timeout={int(max(0.0, min(remaining, _POLL_INTERVAL)) * 1000)}")
                base.execute("BEGIN IMMEDIATE")
            transaction_cache(connection).clear()
            return
        except BusyError:
            if remaining <= _POLL_INTERVAL or not is_pending():
                raise


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
    transaction_cache(connection).clear()
    try:
        if base.in_transaction:
            base.execute(f"ROLLBACK TO {name}")
            base.execute(f"RELEASE {name}")
    except sqlite3.Error:
        rollback(connection)


def in_write(connection: Connection) -> bool:
    """Whether a transaction is open."""
    return raw(connection).in_transaction


def rollback(connection: Connection) -> None:
    """Roll the transaction back, if it is still open."""
    base = raw(connection)
    transaction_cache(connection).clear()
    if base.in_transaction:
        with translated():
            base.execute("ROLLBACK")


def commit(connection: Connection) -> None:
    """Commit the transaction. When this returns, the transaction is durable.

    Raises:
        CommitUnknownError: whether it was committed is unknown. The caller must accept no more writes.
        StorageError: it was not committed.
    """
    base = raw(connection)
    if not base.in_transaction:
        raise TransactionError(ROLLED_BACK)
    token = os.urandom(16)
    with translated():
        base.execute("UPDATE store_meta SET write_token = ?", (token,))
    try:
        base.execute("COMMIT")
    except sqlite3.Error as error:
        if not _settle(base, token, error):
            raise translate(error) from error


def _settle(base: sqlite3.Connection, token: bytes, cause: sqlite3.Error) -> bool:
    """Whether the transaction that wrote *token* was committed; a second commit settles it."""
    try:
        if base.in_transaction:
            base.execute("ROLLBACK")
        base.execute("PRAGMA busy_timeout=5000")
        base.execute("BEGIN IMMEDIATE")
        row = base.execute("SELECT write_token = ? FROM store_meta", (token,)).fetchone()
        base.execute("UPDATE store_meta SET write_token = ?", (os.urandom(16),))
        base.execute("COMMIT")
    except sqlite3.Error as error:
        if base.in_transaction:
            base.execute("ROLLBACK")
        raise CommitUnknownError(
            f"COMMIT failed ({cause}), and whether the write was stored is unknown ({error}). "
            "This store accepts no more writes: close it, check the disk, open it again and read the records"
        ) from cause
    return bool(row and row[0])

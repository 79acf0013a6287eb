"""BEGIN, SAVEPOINT, COMMIT and ROLLBACK, and the translation of driver errors.

These run on a connection's own thread. Writers begin with BEGIN IMMEDIATE: a read transaction that turns into a
write fails at once with SQLITE_BUSY_SNAPSHOT, whatever the timeout.

A COMMIT that raises has no outcome yet: after a failed sync of the log every live connection may read the old
state while the file shows the new one after a crash. Reading does not settle it, a commit does (`_settle`).
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

GIVEN_UP = "SQLite gave this transaction up after a failure: nothing of it was stored, start again"
_LOOK_UP = 0.05  # seconds of waiting for the write lock after which a cancellation is noticed
_CARRIED_BYTES = 1 << 28  # of what is carried to COMMIT; it is memory that an open transaction keeps

T = TypeVar("T")


def raw(connection: Connection) -> sqlite3.Connection:
    """The SQLite connection under *connection*, for the few statements that are compiled once."""
    return cast("sqlite3.Connection", connection.connection.dbapi_connection)


class Carried:
    """What the writes of a transaction hand to whoever follows its COMMIT. It only spares reading: any of it may go.

    It is emptied by BEGIN, and by whatever undoes the transaction or a part of it, because nothing in it says of
    which part it was.
    """

    def __init__(self) -> None:
        self._held: list[object] = []
        self._bytes = 0

    def add(self, thing: object, size: int) -> None:
        """Carry *thing*, which keeps *size* bytes; what was there before goes where that is too much together."""
        if self._bytes + size > _CARRIED_BYTES:
            self.clear()
        self._held.append(thing)
        self._bytes += size

    def take(self, kind: type[T]) -> list[T]:
        """All that is carried of one *kind*, in the order in which it came, and carry nothing any more."""
        taken = [thing for thing in self._held if isinstance(thing, kind)]
        self.clear()
        return taken

    def clear(self) -> None:
        """Carry nothing any more."""
        self._held, self._bytes = [], 0


def carried(connection: Connection) -> Carried:
    """What *connection*'s transaction carries."""
    info = connection.info
    if Carried not in info:
        info[Carried] = Carried()
    return cast("Carried", info[Carried])


@contextmanager
def snapshot(connection: Connection) -> Iterator[None]:
    """One read transaction: every statement in it sees the same state of the file."""
    base = raw(connection)
    with translated():
        base.execute("BEGIN")
    try:
        with translated():
            yield
    finally:
        if base.in_transaction:
            base.execute("ROLLBACK")


def begin_write(connection: Connection, wait: float, wanted: Callable[[], bool] = lambda: True) -> None:
    """Take the file's write lock, waiting at most *wait* seconds, and while it is *wanted*. Raises `BusyError`."""
    base = raw(connection)
    deadline = time.monotonic() + wait
    while True:
        left = deadline - time.monotonic()
        try:
            with translated():
                base.execute(f"PRAGMA busy_timeout={int(max(0.0, min(left, _LOOK_UP)) * 1000)}")
                base.execute("BEGIN IMMEDIATE")
            carried(connection).clear()
            return
        except BusyError:
            if left <= _LOOK_UP or not wanted():
                raise


@contextmanager
def savepoint(connection: Connection, name: str) -> Iterator[None]:
    """All of the block or none of it, inside an open write transaction; the transaction goes on either way.

    A full disk or an I/O error can end the whole transaction: then there is nothing to go back to, and the next
    statement of the transaction finds that out (`in_write`).
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
    """Mark a place in the open transaction; marks of one name nest."""
    with translated():
        raw(connection).execute(f"SAVEPOINT {name}")


def end_savepoint(connection: Connection, name: str) -> None:
    """Keep what was done since the mark, and forget the mark."""
    with translated():
        raw(connection).execute(f"RELEASE {name}")


def undo_savepoint(connection: Connection, name: str) -> None:
    """Undo what was done since the mark, if there still is a transaction, and forget the mark.

    Where that fails, the whole transaction is undone.
    """
    base = raw(connection)
    carried(connection).clear()
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
    """End the transaction without its changes, if it is still open."""
    base = raw(connection)
    carried(connection).clear()
    if base.in_transaction:
        with translated():
            base.execute("ROLLBACK")


def commit(connection: Connection) -> None:
    """Make the transaction durable; when this returns it is, when it raises it is not.

    Raises:
        CommitUnknownError: neither could be found out. The caller must take no more writes.
        StorageError: it was not committed.
    """
    base = raw(connection)
    if not base.in_transaction:
        raise TransactionError(GIVEN_UP)
    token = os.urandom(16)
    with translated():
        base.execute("UPDATE store_meta SET write_token = ?", (token,))
    try:
        base.execute("COMMIT")
    except sqlite3.Error as error:
        if not _settle(base, token, error):
            raise translate(error) from error


def _settle(base: sqlite3.Connection, token: bytes, cause: sqlite3.Error) -> bool:
    """Whether the transaction that wrote *token* was committed, found out by committing another."""
    try:
        if base.in_transaction:
            base.execute("ROLLBACK")
        base.execute("PRAGMA busy_timeout=5000")
        base.execute("BEGIN IMMEDIATE")
        found = base.execute("SELECT write_token = ? FROM store_meta", (token,)).fetchone()
        base.execute("UPDATE store_meta SET write_token = ?", (os.urandom(16),))
        base.execute("COMMIT")
    except sqlite3.Error as error:
        if base.in_transaction:
            base.execute("ROLLBACK")
        raise CommitUnknownError(
            f"COMMIT failed ({cause}) and so did finding out what became of it ({error}): "
            "this store takes no more writes; close it, see to the disk, open it again and look"
        ) from cause
    return bool(found and found[0])

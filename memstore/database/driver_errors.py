"""Translation of SQLite driver errors into memstore errors."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from memstore.database.sqlite import sqlite3
from memstore.errors import BusyError, DamagedError, MemstoreError, StorageError

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
_DAMAGED_CELLS = ("Could not decode to UTF-8", "malformed JSON")
"""What is said, under no code of its own, of a text that no verb stored."""

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_ADVICE = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space and try again",
    sqlite3.SQLITE_READONLY: (
        "the file cannot be written: look at its permissions and at how many files the process may open, "
        "or open it with read_only=True"
    ),
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened: look at the folder and its permissions",
    sqlite3.SQLITE_IOERR: "reading or writing the disk failed: see to the disk and try again",
}


def translate(error: sqlite3.Error) -> MemstoreError:
    """The error of ours that stands for SQLite's *error*."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code; the rest only refines it
    if code in _BUSY:
        return BusyError("another process or connection held the file's write lock past the timeout: try again")
    if code in _DAMAGED or str(error).startswith(_DAMAGED_CELLS):
        return DamagedError(f"the database file is damaged ({error}): run `memstore check`, or restore a backup")
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return StorageError(f"{_ADVICE.get(code, 'SQLite refused the statement')} ({name}: {error})")


def unreadable(error: UnicodeDecodeError) -> DamagedError:
    """The error of ours where Python could not read what SQLite says: of a damaged schema, in its own words."""
    return DamagedError(f"the database file is damaged (its schema is no UTF-8: {error}): restore a backup")


@contextmanager
def translated() -> Iterator[None]:
    """Turn errors of SQLite, bare or wrapped by SQLAlchemy, into ours; leave every other alone."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error) from error
    except UnicodeDecodeError as error:
        raise unreadable(error) from error
    except DBAPIError as error:
        if isinstance(error.orig, sqlite3.Error):
            raise translate(error.orig) from error
        raise

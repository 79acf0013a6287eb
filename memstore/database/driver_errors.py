"""Translates errors of the SQLite driver into memstore errors. The only module that does.

A path that every write or search takes catches `DRIVER_ERRORS` itself; elsewhere `translated` is shorter to write.

The translated error is raised from the driver's, so both are in a traceback. Neither contains a value of a row: engines
hide parameters (`hide_parameters`), and `translate` removes the text that Python could not decode.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from memstore.database.sqlite import sqlite3
from memstore.errors import BusyError, DamagedError, MemstoreError, StorageError

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
_DAMAGED_CELLS = ("Could not decode to UTF-8", "malformed JSON")
"""Messages about damaged text, which have no error code of their own."""

_UNDECODABLE = re.compile(r"(Could not decode to UTF-8 column '.*?') with text .*", re.DOTALL)

DRIVER_ERRORS = (sqlite3.Error, UnicodeDecodeError, DBAPIError)
"""What `translate` takes: errors of SQLite, also those that SQLAlchemy wrapped, and text that Python cannot decode."""

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_ADVICE = {
    sqlite3.SQLITE_FULL: "The disk is full: free some space and try again",
    sqlite3.SQLITE_READONLY: (
        "The file cannot be written: check its permissions and the process's limit of open files, "
        "or open it with read_only=True"
    ),
    sqlite3.SQLITE_CANTOPEN: "The file cannot be opened: check the folder and its permissions",
    sqlite3.SQLITE_INTERRUPT: (
        "A statement was ended, because it used more processor time than a file of this size can need: remove the "
        "triggers, indexes and constraints of other applications from the file"
    ),
    sqlite3.SQLITE_TOOBIG: (
        "A value is longer than SQLite's limit for this file: remove triggers, indexes and constraints of other "
        "applications from the file"
    ),
    sqlite3.SQLITE_IOERR: "Reading or writing the disk failed: check the disk and try again",
}


def translate(error: Exception) -> MemstoreError:
    """The memstore error for *error*, one of `DRIVER_ERRORS`."""
    if isinstance(error, UnicodeDecodeError):
        return DamagedError(f"The database file is damaged (its schema is not valid UTF-8: {error}): restore a backup")
    if isinstance(error, DBAPIError) and isinstance(error.orig, sqlite3.Error):
        error.params = None
        _remove_content(error)
        error = error.orig
    _remove_content(error)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code; the rest only refines it
    if code in _BUSY:
        return BusyError(
            "Another process or connection held the file's write lock for longer than the timeout: try again"
        )
    if code in _DAMAGED or str(error).startswith(_DAMAGED_CELLS):
        return DamagedError(f"The database file is damaged ({error}): run `memstore check`, or restore a backup")
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return StorageError(f"{_ADVICE.get(code, 'SQLite refused the statement')} ({name}: {error})")


def _remove_content(error: Exception) -> None:
    """Remove the text of a row from the messages of *error*, which stays in the traceback."""
    error.args = tuple(_UNDECODABLE.sub(r"\1", part) if isinstance(part, str) else part for part in error.args)


@contextmanager
def translated() -> Iterator[None]:
    """Translate `DRIVER_ERRORS`; let every other error pass."""
    try:
        yield
    except DRIVER_ERRORS as error:
        raise translate(error) from error

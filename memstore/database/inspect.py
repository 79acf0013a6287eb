"""What a file is before anything is done to it, and how connections to it are made.

A file that is newer or not ours is refused over a read-only connection before any pragma is set, so that it keeps
its bytes. Files are never opened but by SQLite: closing any other handle would drop SQLite's locks.
"""

import os
import re
import stat
from contextlib import closing
from pathlib import Path

from memstore.database.driver_errors import translate, unreadable
from memstore.database.engine import uri
from memstore.database.sqlite import sqlite3
from memstore.errors import (
    DamagedError,
    ForeignFileError,
    InvalidError,
    MissingFileError,
    NewerFileError,
    OpenError,
    short_repr,
)
from memstore.schema.tables import APPLICATION_ID, OWN_TABLES, VERSION_TABLE, metadata
from memstore.schema.triggers import TRIGGERS

REVISIONS = ("0001", "0002", "0003", "0004")
"""Every revision this release knows, oldest first; `tests/test_migrations.py` holds it against `migrations/`."""

HEAD = REVISIONS[-1]
MINIMUM_SQLITE = (3, 38, 0)
_JOURNAL = bytes.fromhex("d9d505f920a163d7")


def inspect(path: str) -> str | None:
    """The schema revision of the file at *path*; None when there is none yet: it is absent, empty or half made.

    Raises:
        ForeignFileError: it is not a file of ours.
        NewerFileError: a newer release wrote it.
        DamagedError: its schema is not the one that was made, or it cannot be read, or was emptied.
        MissingFileError: its folder does not exist.
        OpenError: it cannot be looked at.
    """
    size = _size(Path(path))
    if size is None:
        return None
    if size == 0:
        _must_have_no_log(path)
        return None
    if size == 1:  # SQLite takes it for an empty one
        raise ForeignFileError(f"{path!r} is not a memstore file; it was not touched: give another path")
    try:
        with closing(sqlite3.connect(uri(path, "ro"), uri=True, timeout=10.0)) as connection:
            return revision_of(connection, path)
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        unended = code == sqlite3.SQLITE_READONLY and Path(f"{path}-journal").exists()
        if unended and _half_made(path):
            return None  # the next connection that writes rolls its maker's transaction back
        if unended or code == sqlite3.SQLITE_NOTADB:
            raise ForeignFileError(
                f"{path!r} is not a memstore file, or not a SQLite file at all; it was not touched: give another path"
            ) from error
        raise translate(error) from error
    except UnicodeDecodeError as error:
        raise unreadable(error) from error


def _size(file: Path) -> int | None:
    """How many bytes are in *file*; None where it is not there and can be made. Raises as `inspect` does."""
    try:
        found = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        if os.path.isdir(file.absolute().parent):  # Path.is_dir raises where one may not look
            return None
        raise no_folder(file) from None
    except OSError as error:
        raise OpenError(
            f"Cannot read {short_repr(str(file))} ({error.strerror}): give another path, or check its permissions"
        ) from error
    if stat.S_ISDIR(found.st_mode):
        raise ForeignFileError(f"{str(file)!r} is a folder: give the path of the database file in it")
    if not stat.S_ISREG(found.st_mode):
        raise ForeignFileError(f"{str(file)!r} is no file but a device, a pipe or a socket: give the path of a file")
    return found.st_size


def _must_have_no_log(path: str) -> None:
    """Raise `DamagedError` where an empty file was none: its log holds what SQLite would throw away with it."""
    log = Path(f"{path}-wal")
    if log.exists() and log.stat().st_size:
        raise DamagedError(
            f"{path!r} is empty, but the log beside it is not: it was cut off. Restore a backup, or delete both files"
        )


def _half_made(path: str) -> bool:
    """Whether a file with a transaction in it that nobody will end was to be one of ours.

    Only a new file has a rollback journal. To look without rolling back, SQLite is told that nothing can change; and
    to make do with a file that is shorter than its first page says, as one is whose pages were being written.
    """
    try:
        with closing(sqlite3.connect(uri(path, "ro") + "&immutable=1", uri=True)) as connection:
            connection.execute("PRAGMA writable_schema=ON")
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            if application != 0:
                return bool(application == APPLICATION_ID)
            return connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None
    except sqlite3.DatabaseError as error:
        unreadable = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_NOTADB
        return unreadable and _made_from_nothing(f"{path}-journal")


def _made_from_nothing(journal: str) -> bool:
    """Whether taking back the transaction of *journal* leaves an empty file: then it is nobody's yet.

    The first page may be what a power cut took. A journal begins with 8 bytes of its own, the number of its records,
    a number drawn by lot, and how many pages the file had. No lock is ever on it, so it may be opened and closed.
    """
    with Path(journal).open("rb") as file:
        head = file.read(20)
    return len(head) == 20 and head[:8] == _JOURNAL and not any(head[16:])


def no_folder(file: Path) -> MissingFileError:
    """What is wrong with making a *file* where there is no folder for it."""
    return MissingFileError(
        f"there is no folder {str(file.absolute().parent)!r}: memstore creates files, never folders"
    )


def no_dimension(path: str) -> InvalidError:
    """What is wrong with making a file whose vectors have no dimension."""
    return InvalidError(f"{path!r} is new: say dimension=, the numbers per embedding, or give an embedder")


def revision_of(connection: sqlite3.Connection, path: str) -> str | None:
    """The schema revision in an open file; None when it has no tables yet. Raises as `inspect` does."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if not tables and application in (0, APPLICATION_ID):
        return None
    if application != APPLICATION_ID:
        raise ForeignFileError(
            f"{path!r} is a SQLite file of another application (application_id {application:#x}); it was not touched: "
            "give the path of a memstore file, or of one that does not exist yet"
        )
    row = None
    if VERSION_TABLE in tables:
        row = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()  # noqa: S608
    if row is None:
        return None  # every revision was taken back, or none was ever applied
    if row[0] not in REVISIONS:
        raise NewerFileError(
            f"{path!r} was written by a newer release of memstore (schema {row[0]}, this one knows {HEAD}); "
            "it was not touched: upgrade memstore",
            revision=row[0],
        )
    strange = _strange(connection, whole=row[0] == HEAD)
    if strange is not None:
        raise DamagedError(
            f"{path!r} has {strange}: its schema is not the one memstore made, and what a write to it would do is "
            "unknown; restore a backup, or undo that change with the tool that made it"
        )
    return str(row[0])


def _strange(connection: sqlite3.Connection, *, whole: bool) -> str | None:
    """What of memstore's own names in a file is not what memstore made, in words; with *whole*, what is missing too.

    A view or a trigger runs whatever it was written to, also something without end, as soon as its table is used.
    Tables, views and triggers of a host are the host's, also triggers on our tables; but with a common table
    expression, in it or in a view, such a trigger could go on for ever.
    """
    missing = dict(TRIGGERS) if whole else {}
    found = connection.execute("SELECT type, name, lower(tbl_name), sql FROM sqlite_master").fetchall()
    endless = any(kind == "view" and _EXPRESSION.search(str(sql)) for kind, _, _, sql in found)
    for kind, name, table, sql in found:
        if table not in OWN_TABLES:
            continue
        if kind == "trigger":
            ours = missing.pop(name, None) or TRIGGERS.get(name)
            if ours != sql and (ours or endless or _EXPRESSION.search(str(sql))):
                return f"a trigger {name!r} on {table} that is none of memstore's"
        elif kind == "view" or (kind == "table" and not str(sql).upper().startswith("CREATE TABLE")):
            return f"something else in place of the table {table}"
    for name in missing:
        return f"no trigger {name}"
    for table, columns in _COLUMNS.items():
        there = connection.execute("SELECT name, hidden FROM pragma_table_xinfo(?)", (table,)).fetchall()
        if any(hidden for _, hidden in there):
            return f"columns of {table} that are computed"
        if whole and not columns <= {name for name, _ in there}:
            return f"no {', '.join(sorted(columns - {name for name, _ in there}))} in {table}"
    return None


_EXPRESSION = re.compile(r"\bwith\b", re.IGNORECASE)
_COLUMNS = {name: {column.name for column in table.c} for name, table in metadata.tables.items()}

"""What a file is, before anything changes it.

A file of a newer release or of another application is refused over a read-only connection before any pragma is set,
so that its bytes stay unchanged. Only SQLite opens a database file: closing any other handle would drop SQLite's
locks.
"""

import os
import re
import stat
from contextlib import closing
from pathlib import Path

from memstore.database.driver_errors import translate
from memstore.database.engine import uri
from memstore.database.read_only import read_uri
from memstore.database.sqlite import sqlite3
from memstore.errors import (
    DamagedError,
    ForeignFileError,
    MissingFileError,
    NewerFileError,
    OpenError,
    short_repr,
)
from memstore.schema.ddl import declared_sql, plain_sql
from memstore.schema.tables import APPLICATION_ID, OWN_TABLES, VERSION_TABLE, metadata
from memstore.schema.triggers import TRIGGERS

REVISIONS = ("0001", "0002", "0003", "0004")
"""The revisions of this release, oldest first; a test compares them with `migrations/`."""

HEAD = REVISIONS[-1]
MINIMUM_SQLITE = (3, 38, 0)
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")


def inspect(path: str, timeout: float = 10.0) -> str | None:
    """The schema revision of the file at *path*; None for a missing, an empty or a half-created file.

    Raises:
        ForeignFileError: it is not a memstore file.
        NewerFileError: a newer release wrote it.
        DamagedError: it cannot be read, its schema was changed, or it was truncated to nothing.
        MissingFileError: its folder does not exist.
        OpenError: its status cannot be read.
    """
    size = _size(Path(path))
    if size is None:
        return None
    if size == 0:
        _check_no_log(path)
        return None
    if size == 1:  # SQLite takes it for an empty file
        raise ForeignFileError(f"{path!r} is not a memstore file. It was not changed: give another path")
    try:
        with closing(sqlite3.connect(read_uri(path), uri=True, timeout=timeout)) as connection:
            return revision_of(connection, path)
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        unfinished = code == sqlite3.SQLITE_READONLY and Path(f"{path}-journal").exists()
        if unfinished and _is_half_created(path):
            return None  # the next connection that writes rolls back the transaction of the process that was killed
        if unfinished or code == sqlite3.SQLITE_NOTADB:
            raise ForeignFileError(
                f"{path!r} is not a memstore file, or not a SQLite file. It was not changed: give another path"
            ) from error
        raise translate(error) from error
    except UnicodeDecodeError as error:
        raise translate(error) from error


def _size(file: Path) -> int | None:
    """The size of *file* in bytes; None if it is missing and its folder exists. Raises as `inspect` does."""
    try:
        status = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        if os.path.isdir(file.absolute().parent):  # Path.is_dir raises without permission for the folder
            return None
        raise missing_folder_error(file) from None
    except OSError as error:
        raise OpenError(
            f"Cannot read {short_repr(str(file))} ({error.strerror}): give another path, or check its permissions"
        ) from error
    if stat.S_ISDIR(status.st_mode):
        raise ForeignFileError(f"{str(file)!r} is a folder: give the path of a database file")
    if not stat.S_ISREG(status.st_mode):
        raise ForeignFileError(f"{str(file)!r} is a device, a pipe or a socket: give the path of a database file")
    return status.st_size


def _check_no_log(path: str) -> None:
    """Raise `DamagedError` if an empty file has a log: the log holds data, which SQLite would delete."""
    log = Path(f"{path}-wal")
    if log.exists() and log.stat().st_size:
        raise DamagedError(
            f"{path!r} is empty, but the log beside it is not: the file was truncated. "
            "Restore a backup, or delete both files"
        )


def _is_half_created(path: str) -> bool:
    """Whether a file with an unfinished transaction was about to become a memstore file.

    Only the creation of a file uses a rollback journal. `immutable` reads the file without rolling back, and
    `writable_schema` accepts a file that is shorter than its first page says, because its pages were being written.
    """
    try:
        with closing(sqlite3.connect(uri(path, "ro") + "&immutable=1", uri=True)) as connection:
            connection.execute("PRAGMA writable_schema=ON")
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            if application != 0:
                return bool(application == APPLICATION_ID)
            return connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None
    except sqlite3.DatabaseError as error:
        no_database = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_NOTADB
        return no_database and _began_empty(f"{path}-journal")


def _began_empty(journal: str) -> bool:
    """Whether a rollback of *journal* leaves an empty file, which belongs to no application yet.

    A power cut may have lost the first page of the file. A journal begins with 8 magic bytes, the number of its
    records, a random number, and the number of pages that the file had. SQLite locks no journal, so opening and
    closing it drops no lock.
    """
    with Path(journal).open("rb") as file:
        header = file.read(20)
    return len(header) == 20 and header[:8] == _JOURNAL_MAGIC and not any(header[16:])


def missing_folder_error(file: Path) -> MissingFileError:
    """The error for a new *file* whose folder does not exist."""
    return MissingFileError(
        f"There is no folder {str(file.absolute().parent)!r}: create it first, memstore creates only files"
    )


def revision_of(connection: sqlite3.Connection, path: str) -> str | None:
    """The schema revision of an open file; None if it has no schema yet. Raises as `inspect` does."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if not tables and application in (0, APPLICATION_ID):
        return None
    if application != APPLICATION_ID:
        raise ForeignFileError(
            f"{path!r} is a SQLite file of another application: expected application_id {APPLICATION_ID:#x}, found "
            f"{application:#x}. It was not changed: give the path of a memstore file or of a new file"
        )
    row = None
    if VERSION_TABLE in tables:
        row = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()  # noqa: S608
    if row is None:
        return None  # every revision was downgraded, or none was ever applied
    if row[0] not in REVISIONS:
        raise NewerFileError(
            f"{path!r} was written by a newer release of memstore: expected schema {HEAD} or older, found {row[0]}. "
            "It was not changed: upgrade memstore",
            revision=row[0],
        )
    difference = _schema_difference(connection, complete=row[0] == HEAD)
    if difference is not None:
        raise DamagedError(
            f"The schema of {path!r} was changed: it has {difference}. The effect of a write is unknown: restore a "
            "backup, or revert that change with the tool that made it"
        )
    return str(row[0])


def _schema_difference(connection: sqlite3.Connection, *, complete: bool) -> str | None:
    """How memstore's tables in a file differ from the declared schema, in words; with *complete*, what is missing too.

    A trigger, a view, a constraint and an index run their SQL as soon as their table is used, and that SQL may never
    end. A host application may have tables and views, and triggers and indexes also on memstore's tables. Such a
    trigger is refused if it, or a view, has a common table expression: a recursive one could run for ever. What else
    may take long has a limit (`statement_limits`).
    """
    missing = dict(TRIGGERS) if complete else {}
    declared_tables = declared_sql() if complete else {}
    rows = connection.execute("SELECT type, name, lower(tbl_name), sql FROM sqlite_master").fetchall()
    recursive_view = any(kind == "view" and _EXPRESSION.search(str(sql)) for kind, _, _, sql in rows)
    for kind, name, table, sql in rows:
        if table not in OWN_TABLES:
            continue
        if kind == "trigger":
            declared = missing.pop(name, None) or TRIGGERS.get(name)
            if declared != sql and (declared or recursive_view or _EXPRESSION.search(str(sql))):
                return f"a foreign trigger {name!r} on {table}"
        elif kind == "view" or (kind == "table" and not str(sql).upper().startswith("CREATE TABLE")):
            return f"a view or a virtual table in place of the table {table}"
        elif name in declared_tables and _without_plain_columns(connection, name, sql) != declared_tables[name]:
            return f"another definition of the {kind} {name}"
    for name in missing:
        return f"no trigger {name}"
    for table, columns in _COLUMNS.items():
        stored = connection.execute("SELECT name, hidden FROM pragma_table_xinfo(?)", (table,)).fetchall()
        if any(hidden for _, hidden in stored):
            return f"computed columns in {table}"
        if complete and not columns <= {name for name, _ in stored}:
            return f"no {', '.join(sorted(columns - {name for name, _ in stored}))} in {table}"
    return None


def _without_plain_columns(connection: sqlite3.Connection, name: str, sql: object) -> str:
    """The SQL of a table or an index without columns that a host application added and that have a type only."""
    text = plain_sql(sql)
    for column, kind in connection.execute("SELECT name, type FROM pragma_table_xinfo(?)", (name,)).fetchall():
        if column not in _COLUMNS.get(name, ()):
            text = text.replace(f", {column} {kind}".rstrip() + ",", ",", 1).replace(f", {column} {kind})", ")", 1)
    return text


_EXPRESSION = re.compile(r"\bwith\b", re.IGNORECASE)  # begins a common table expression
_COLUMNS = {name: {column.name for column in table.c} for name, table in metadata.tables.items()}

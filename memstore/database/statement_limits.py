"""Limits for the statements that run on a file which somebody else may have made.

A file can contain SQL that its author chose: triggers, views, and indexes and constraints with expressions. It runs
inside memstore's own statements. `harden` sets what SQLite offers against it, where the build has it: run-time limits,
the defensive mode, and `trusted_schema=OFF`. `StatementLimit` ends a statement that uses too much processor time.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

from sqlalchemy import Connection

from memstore.database.sqlite import sqlite3
from memstore.schema.ddl import METADATA_INDEX, declared_sql, plain_sql
from memstore.schema.tables import OWN_TABLES
from memstore.schema.triggers import TRIGGERS

STATEMENT = threading.local()
"""`is_new` is set to True, on the thread, where a statement or a piece of work begins: its processor time counts anew.

An attribute, because a call would cost a hundredth of a statement.
"""

LIMIT = "memstore_statement_limit"
"""The key in `Connection.info` of the `StatementLimit` of a connection that is watched seldom."""

_SECONDS = 1.0
_BYTES_PER_SECOND = 1_000_000  # SQLite reads and writes fifty times as many
_MAX_BYTES = 1_000_000_000  # SQLite's own limit of a value
_LEAST_BYTES = 16_000_000
FOREIGN_BYTES = 256_000_000
"""The longest value on a connection that writes, where triggers or indexes of others compute with it."""

_NEXT_SHARE = 0.2  # of the time, once a statement was ended: in a file of others the next one fares alike
_LONGEST_STEP = 0.25  # seconds between two calls of the handler that count: more is Python's time between statements
_SELDOM = 500_000  # instructions of SQLite's virtual machine between two calls of the handler, some 20 ms
_OFTEN = 250
_LIKE_BYTES = 1_000  # the time of LIKE and GLOB grows with the pattern times the text, within one instruction
_TRIGGER_DEPTH = 100
_DEFENSIVE: Any = getattr(sqlite3, "SQLITE_DBCONFIG_DEFENSIVE", None)  # Python 3.12


class StatementLimit:
    """Ends the statements of one connection that use more processor time than a file of its size can need.

    Processor time does not pass while the disk, a lock or another process is waited for. A statement has one second,
    and one more for each megabyte of the file and its log.

    Args:
        path: the file; None for no file, whose size then is *size*.
        stop: also ends the statement when it returns True.
        size: bytes of the content, where there is no file.
    """

    def __init__(self, path: str | None, stop: Callable[[], bool] | None = None, size: int = 0) -> None:
        self._path = path
        self._stop = stop
        self._size = size
        self._used = 0.0
        self._last = 0.0
        self._share = 1.0

    def watch(self, base: sqlite3.Connection, *, often: bool) -> None:
        """Watch the statements of *base*. *often*, where each instruction may take long, as in SQL of others."""
        base.set_progress_handler(self.is_over, _OFTEN if often else _SELDOM)

    def is_over(self) -> bool:
        """Whether SQLite must end the statement that runs."""
        if self._stop is not None and self._stop():
            return True
        now = time.thread_time()
        if getattr(STATEMENT, "is_new", True):
            STATEMENT.is_new = False
            self._used = 0.0
        else:
            self._used += min(now - self._last, _LONGEST_STEP)
        self._last = now
        if self._used <= _SECONDS * self._share or self._used <= self._allowed() * self._share:
            return False
        self._share = _NEXT_SHARE
        return True

    def _allowed(self) -> float:
        size = self._size
        for name in () if self._path is None else (self._path, f"{self._path}-wal"):
            try:
                size += os.stat(name).st_size
            except OSError:  # there is no log, or the folder cannot be read
                continue
        return _SECONDS + size / _BYTES_PER_SECOND


@contextmanager
def watched_often(connection: Connection) -> Iterator[None]:
    """Watch the statements of the block more often: they run SQL of tables that are not memstore's."""
    limit = connection.info.get(LIMIT)
    STATEMENT.is_new = True
    if limit is None:  # a private copy, or a file that need not be open: it is always watched often
        yield
        return
    base = connection.connection.dbapi_connection
    limit.watch(base, often=True)
    try:
        yield
    finally:
        limit.watch(base, often=False)


def harden(base: sqlite3.Connection, *, size: int | None = None) -> None:
    """Set SQLite's limits and its defensive mode on *base*, as far as this build of SQLite and of Python has them.

    Args:
        base: an open connection, without a transaction.
        size: bytes that no value exceeds, such as the size of a file that is only read; None for SQLite's own limit.
    """
    if hasattr(base, "setlimit"):
        most = _MAX_BYTES if size is None else min(_MAX_BYTES, max(_LEAST_BYTES, size))
        base.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, most)
        base.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, _LIKE_BYTES)
        base.setlimit(sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, _TRIGGER_DEPTH)
    if _DEFENSIVE is not None:
        cast("Any", base).setconfig(_DEFENSIVE, True)
    if distrusts_schema():
        base.execute("PRAGMA trusted_schema=OFF")
    base.execute("PRAGMA cell_size_check=ON")


def has_foreign_sql(base: sqlite3.Connection) -> bool:
    """Whether the file has triggers or indexes on memstore's tables that memstore did not make."""
    rows = base.execute("SELECT type, name, lower(tbl_name), sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return any(
        table in OWN_TABLES and kind in ("trigger", "index") and name not in TRIGGERS and not _is_index(name, sql)
        for kind, name, table, sql in rows
    )


def _is_index(name: str, sql: str) -> bool:
    """Whether an index is one that memstore makes: of the schema, or on a value in metadata."""
    return declared_sql().get(name) == plain_sql(sql) or METADATA_INDEX.fullmatch(sql) is not None


@cache
def distrusts_schema() -> bool:
    """Whether `trusted_schema=OFF` is possible. Some builds then refuse their own JSON functions in a CHECK."""
    base: Any = sqlite3.connect(":memory:")
    try:
        base.execute("PRAGMA trusted_schema=OFF")
        base.execute("CREATE TABLE t (a CHECK (json_type(a) = 'object'))")
        base.execute("CREATE INDEX i ON t (json_extract(a, '$.b'), json_type(a, '$.b'))")
        base.execute("INSERT INTO t VALUES ('{}')")
    except sqlite3.Error:
        return False
    finally:
        base.close()
    return True

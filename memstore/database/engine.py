"""Synchronous SQLAlchemy engines over a SQLite file, and the pragmas of a connection."""

import os
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import quote

from sqlalchemy import Connection, Engine, NullPool, create_engine

from memstore.concurrency import monotonic
from memstore.config import Durability, Settings
from memstore.database.driver_errors import translate, translated
from memstore.database.file_modes import private_template
from memstore.database.sqlite import sqlite3
from memstore.database.statement_limits import FOREIGN_BYTES, LIMIT, StatementLimit, harden, has_foreign_sql
from memstore.database.transactions import raw
from memstore.errors import BusyError
from memstore.schema.tables import PAGE_SIZE

_SYNCHRONOUS: dict[Durability, Literal["FULL", "NORMAL"]] = {"full": "FULL", "relaxed": "NORMAL"}


def uri(path: str, mode: Literal["ro", "rw", "rwc"]) -> str:
    """*path* as a SQLite URI."""
    return f"file:{quote(os.fsencode(Path(path).absolute()))}?mode={mode}"


def connect_or_create(path: str, **options: Any) -> sqlite3.Connection:
    """A connection to the file at *path*; a file that is missing is created, with mode 0600 whatever the umask."""
    if os.path.lexists(path):  # `modeof` would also narrow an empty file that the caller made
        return cast("sqlite3.Connection", sqlite3.connect(uri(path, "rwc"), uri=True, **options))
    with private_template(path) as template:
        target = f"{uri(path, 'rwc')}&modeof={quote(template)}"
        return cast("sqlite3.Connection", sqlite3.connect(target, uri=True, **options))


class IsolatedPool(NullPool):
    """A pool without connections to which no listener on the class `Pool` or `Engine` applies."""

    _sa_propagate_class_events = False  # as SQLAlchemy's own engines with options have it


class _IsolatedEngine(Engine):
    _sa_propagate_class_events = False
    _has_events = False


def isolated(engine: Engine) -> Engine:
    """The new *engine*, to which no listener on the classes of SQLAlchemy applies.

    A program that registers one on `Engine` means its own engines. It may set pragmas, begin transactions, replace the
    connection, or raise.
    """
    engine.__class__ = _IsolatedEngine
    dialect: type = type(engine.dialect)
    attributes = {"_sa_propagate_class_events": False, "supports_statement_cache": True}
    engine.dialect.__class__ = type(f"Isolated{dialect.__name__}", (dialect,), attributes)
    for target in (engine, engine.dialect):
        vars(target).pop("dispatch", None)  # the listeners of the class that it had
    return engine


def sync_engine(creator: Callable[[], Any]) -> Engine:
    """A synchronous engine over the connections that *creator* returns."""
    engine = create_engine("sqlite://", module=sqlite3, creator=creator, poolclass=IsolatedPool, hide_parameters=True)
    return isolated(engine)


def configure(settings: Settings, *, writes: bool, cache_kilobytes: int = 16_000) -> Callable[[Connection], None]:
    """A function that sets the pragmas of one connection, for its thread."""

    def setup(connection: Connection) -> None:
        base = raw(connection)
        with translated():
            if writes:
                _check_writable(base)
            base.execute(f"PRAGMA busy_timeout={int(settings.timeout * 1000)}")
            is_foreign = has_foreign_sql(base)
            harden(base, size=FOREIGN_BYTES if is_foreign else None)
            limit = StatementLimit(settings.path)
            limit.watch(base, often=is_foreign)
            if not is_foreign:
                connection.info[LIMIT] = limit
            base.execute("PRAGMA foreign_keys=ON")
            base.execute(
                "PRAGMA temp_store=MEMORY"
            )  # else each trigger on a table with a unique key opens a temporary file
            base.execute(f"PRAGMA cache_size=-{cache_kilobytes}")
            if not writes:
                base.execute("PRAGMA query_only=ON")
                base.execute("SELECT 1 FROM sqlite_master").fetchone()  # opens the log
                return
            base.execute(
                "PRAGMA secure_delete=FAST"
            )  # ON, Debian's default, also overwrites deleted vectors in the log
            base.execute(f"PRAGMA synchronous={_SYNCHRONOUS[settings.durability]}")
            # Acts on macOS only: there fsync leaves data in the cache of the drive, in any order.
            base.execute(f"PRAGMA fullfsync={settings.durability == 'full'}")
            base.execute("PRAGMA checkpoint_fullfsync=ON")
            base.execute("PRAGMA wal_autocheckpoint=0")  # see checkpoint.write_back

    return setup


def _check_writable(base: sqlite3.Connection) -> None:
    """Raise if this connection can only read.

    SQLite opens a file for reading when it cannot open it for writing, for instance when the process has no free file
    descriptor. Every later write would fail. BEGIN IMMEDIATE does not show it: it succeeds as a read.
    """
    base.execute("PRAGMA busy_timeout=0")
    try:
        base.execute("DELETE FROM store_meta WHERE 0")
    except sqlite3.OperationalError as error:
        if not isinstance(translate(error), BusyError):  # busy with another writer means writable
            raise


def switch_to_wal(path: str, timeout: float) -> None:
    """Switch the file to a write-ahead log, if it has none.

    The switch needs an exclusive lock for an instant, for which SQLite does not wait. When several processes open a
    new file at once, it is retried until *timeout* has passed.
    """
    deadline = monotonic() + timeout
    while True:
        try:
            with closing(sqlite3.connect(uri(path, "rw"), uri=True, timeout=1.0)) as connection:
                if connection.execute("PRAGMA journal_mode=WAL").fetchone()[0] == "wal":
                    return
        except sqlite3.Error as error:
            if not isinstance(translate(error), BusyError):
                raise translate(error) from error
        if monotonic() > deadline:
            raise BusyError(
                f"Other processes used {path!r} for {timeout:g} s while it was switched to a write-ahead log: try again"
            )
        time.sleep(0.02)


def set_layout(connection: sqlite3.Connection) -> None:
    """Set the properties of a new file that its first page fixes."""
    connection.execute(f"PRAGMA page_size={PAGE_SIZE}")
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")

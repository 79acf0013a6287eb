"""SQLAlchemy engines over one SQLite file, and the pragmas of a connection."""

import os
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from sqlalchemy import Connection, Engine, NullPool, create_engine

from memstore.config import Durability, Settings
from memstore.database.driver_errors import translate, translated
from memstore.database.sqlite import sqlite3
from memstore.database.transactions import raw
from memstore.errors import BusyError
from memstore.schema.tables import PAGE_SIZE

_SYNCHRONOUS: dict[Durability, Literal["FULL", "NORMAL"]] = {"full": "FULL", "relaxed": "NORMAL"}


def uri(path: str, mode: Literal["ro", "rw", "rwc"]) -> str:
    """*path* as a SQLite URI."""
    return f"file:{quote(os.fsencode(Path(path).absolute()))}?mode={mode}"


def sync_engine(creator: Callable[[], Any]) -> Engine:
    """A synchronous engine over connections that *creator* makes."""
    return create_engine("sqlite://", module=sqlite3, creator=creator, poolclass=NullPool)


def configure(settings: Settings, *, writes: bool) -> Callable[[Connection], None]:
    """The pragmas of one connection, as a function to run on its thread."""

    def setup(connection: Connection) -> None:
        base = raw(connection)
        with translated():
            if writes:
                _must_take_writes(base)
            base.execute(f"PRAGMA busy_timeout={int(settings.timeout * 1000)}")
            base.execute("PRAGMA foreign_keys=ON")
            base.execute("PRAGMA temp_store=MEMORY")  # else every trigger beside a unique key opens a temporary file
            base.execute("PRAGMA cache_size=-16000")
            if not writes:
                base.execute("PRAGMA query_only=ON")
                return
            base.execute("PRAGMA secure_delete=FAST")  # ON, Debian's default, writes deleted vectors to the log again
            base.execute(f"PRAGMA synchronous={_SYNCHRONOUS[settings.durability]}")
            # On macOS alone: there fsync leaves what it was asked for in the drive's cache, and in no order.
            base.execute(f"PRAGMA fullfsync={settings.durability == 'full'}")
            base.execute("PRAGMA checkpoint_fullfsync=ON")
            base.execute("PRAGMA wal_autocheckpoint=0")  # see commit.write_back

    return setup


def _must_take_writes(base: sqlite3.Connection) -> None:
    """Raise where this connection can only read.

    SQLite opens a file for reading when it cannot for writing, be it for want of descriptors at that moment; every
    write of the store would fail from then on. BEGIN IMMEDIATE does not tell: it begins to read.
    """
    base.execute("PRAGMA busy_timeout=0")
    try:
        base.execute("DELETE FROM store_meta WHERE 0")
    except sqlite3.OperationalError as error:
        if not isinstance(translate(error), BusyError):  # another writer is at work: then it takes writes
            raise


def switch_to_wal(path: str, timeout: float) -> None:
    """Make the file keep a write-ahead log; a no-op when it does.

    The switch needs the file alone for an instant and does not wait for it: with several processes opening a new
    file at once it is tried again until *timeout* has passed.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            with closing(sqlite3.connect(uri(path, "rw"), uri=True, timeout=1.0)) as connection:
                if connection.execute("PRAGMA journal_mode=WAL").fetchone()[0] == "wal":
                    return
        except sqlite3.Error as error:
            if not isinstance(translate(error), BusyError):
                raise translate(error) from error
        if time.monotonic() > deadline:
            raise BusyError(f"other processes kept {path!r} busy while it was being set up: try again")
        time.sleep(0.02)


def set_layout(connection: sqlite3.Connection) -> None:
    """The properties of a file that are fixed with its first page."""
    connection.execute(f"PRAGMA page_size={PAGE_SIZE}")
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")

"""A file of ours looked at without changing it, and put in the place of what another holds while that is in use.

What is restored is a private copy, so that it can be brought up to date before anybody sees it. It goes into the file
through SQLite's backup interface, as one transaction of the file's write-ahead log: whoever has the file open reads the
old state, then the new one. A process that is killed halfway leaves the old.

Files are not moved into place. Whoever has the old one open would go on in it, and SQLite would replay its write-ahead
log over the new one.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection

from memstore.concurrency import Stopping
from memstore.database.checkpoint import write_back
from memstore.database.connection_thread import LocalEngine
from memstore.database.driver_errors import translated
from memstore.database.engine import set_layout, switch_to_wal, sync_engine, uri
from memstore.database.inspect import inspect
from memstore.database.sqlite import sqlite3
from memstore.database.transactions import raw
from memstore.errors import BusyError, DamagedError, ForeignFileError, MemstoreError, StorageError
from memstore.schema.tables import APPLICATION_ID

_PAGES = 500  # copied between two looks at whether it is still wanted, 4 MB
_LOOK_UP = 0.05  # seconds of waiting for the write lock between two such looks
_STEPS = 20_000  # of SQLite's machine between two such looks, some milliseconds
_WAIT = 1.0  # seconds to wait for others before the log is left for whoever writes it back next
_TOLERANT = "PRAGMA writable_schema=ON"  # SQLite refuses a file that was cut off, though nothing of it is to be read


class Watch(NamedTuple):
    """How work that takes long tells of itself, and is told to end.

    Attributes:
        stopping: asked between pieces whether to go on; where not, the work ends, and nothing was changed.
        told: called with pages copied and pages in all.
    """

    stopping: Stopping
    told: Callable[[int, int], None]


@contextmanager
def looking(path: str, stopping: Stopping) -> Iterator[Connection]:
    """A connection to the file at *path* that only reads; a statement that takes long ends when it is to stop."""
    with translated(), closing(_reading(path)) as base, _adopted(base, stopping) as connection:
        yield connection


@contextmanager
def private(path: str, page_size: int | None, watch: Watch) -> Iterator[Connection]:
    """A copy of the file at *path* as it is at this moment, gone with the block, that nobody else can see.

    It is in SQLite's folder for temporary files, under no name: a process that is killed leaves nothing there.

    Args:
        path: a file of ours, which others may have open.
        page_size: the bytes of a page the copy is to have; None for those the file has.
        watch: see there.
    """
    with translated(), closing(sqlite3.connect("", isolation_level=None)) as base:
        base.execute("PRAGMA cache_size=-16000")
        with closing(_reading(path)) as source:
            if page_size in (None, _number(source, "page_size")):
                source.execute("BEGIN")
                source.execute("SELECT 1 FROM sqlite_master").fetchone()  # one state: else writes of others restart it
                _copy(source, base, watch)
            else:
                _repaged(source, base, page_size, watch)
        with _adopted(base, watch.stopping) as connection:
            yield connection


def occupied(path: str) -> bool:
    """Whether there is a store at *path* that can be replaced; False where there is no file yet, or an empty one.

    Raises:
        ForeignFileError, NewerFileError, MissingFileError: it is not one that can be replaced.
    """
    try:
        return inspect(path) is not None
    except DamagedError:
        with translated(), closing(_reading(path)) as base:
            base.execute(_TOLERANT)
            if _number(base, "application_id") == APPLICATION_ID:  # damaged, and ours: what a backup is for
                return True
        raise
    except ForeignFileError as error:
        error.add_note(
            "if it was a memstore file, move it away together with what lies beside it (-wal, -shm), "
            "and restore to the path that is free then"
        )
        raise


def page_size(path: str) -> int | None:
    """Bytes of a page of the store at *path*; None where there is none. Raises as `occupied` does."""
    if not occupied(path):
        return None
    with translated(), closing(_reading(path)) as base:
        base.execute(_TOLERANT)
        return _number(base, "page_size")


def replace(path: str, copy: Connection, timeout: float, watch: Watch) -> None:
    """Have the file at *path* hold what *copy* holds, or be as it was. A file that is not there is made.

    Args:
        path: a file that `page_size` was asked about; others may have it open.
        copy: what it is to hold, in pages of that size.
        timeout: seconds to wait for writers.
        watch: see there.

    Raises:
        BusyError: others were writing for longer than *timeout*.
        StorageError: the disk is full, or failed.
    """
    new = not Path(path).exists()
    try:
        if not occupied(path):
            _make(path, _number(raw(copy), "page_size"))
        with suppress(DamagedError):  # then it has the log already, or is written by way of a rollback journal
            switch_to_wal(path, timeout)
        _overwrite(path, raw(copy), timeout, watch)
    except BaseException:
        if new:
            _unmake(path)
        raise


def _make(path: str, size: int) -> None:
    """A file with nothing in it: SQLite's first page, which makes it one with a write-ahead log."""
    with translated(), closing(sqlite3.connect(uri(path, "rwc"), uri=True, isolation_level=None)) as base:
        set_layout(base)
        base.execute(f"PRAGMA page_size={size}")
        base.execute("PRAGMA journal_mode=WAL")


def _unmake(path: str) -> None:
    with suppress(MemstoreError, OSError):  # what kept it from being filled is told
        if not occupied(path):
            for end in ("", "-wal", "-shm"):
                Path(path + end).unlink(missing_ok=True)


def _overwrite(path: str, copy: sqlite3.Connection, timeout: float, watch: Watch) -> None:
    deadline = time.monotonic() + timeout

    def waited() -> None:
        if time.monotonic() >= deadline:
            raise BusyError(f"others were writing to {path!r} for {timeout:g} s: it is as it was, try again")

    with translated(), closing(sqlite3.connect(uri(path, "rw"), uri=True, isolation_level=None)) as live:
        live.execute(f"PRAGMA busy_timeout={int(_LOOK_UP * 1000)}")
        with suppress(DamagedError), translated():
            live.execute("PRAGMA synchronous=FULL")  # it reads the schema; FULL is what SQLite is mostly built with
        live.execute("PRAGMA wal_autocheckpoint=0")  # see commit.write_back
        live.execute(_TOLERANT)
        _copy(copy, live, watch, waited)
        with suppress(StorageError):  # it is in the file's log, and can stay there for now
            write_back(live, _WAIT)


def _copy(
    source: sqlite3.Connection,
    target: sqlite3.Connection,
    watch: Watch,
    waited: Callable[[], None] = lambda: None,
) -> None:
    """All pages of *source* into *target*, as one transaction of that; *waited* is called while it waits to begin."""

    def step(status: int, remaining: int, total: int) -> None:
        watch.stopping.check()
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            waited()
        else:
            watch.told(total - remaining, total)

    source.backup(target, pages=_PAGES, progress=step, sleep=0.001)


def _repaged(source: sqlite3.Connection, target: sqlite3.Connection, size: int | None, watch: Watch) -> None:
    """As `_copy`, with pages of another *size*: into a file with a write-ahead log SQLite copies pages one to one."""
    with tempfile.TemporaryDirectory(prefix="memstore-") as folder:
        between = str(Path(folder) / "pages")
        source.execute(f"PRAGMA page_size={size}")
        source.execute("VACUUM INTO ?", (between,))
        with closing(sqlite3.connect(between)) as base:
            _copy(base, target, watch)


def _reading(path: str) -> sqlite3.Connection:
    return sqlite3.connect(uri(path, "ro"), uri=True, isolation_level=None)


def _adopted(base: sqlite3.Connection, stopping: Stopping) -> Connection:
    base.set_progress_handler(lambda: stopping.asked, _STEPS)
    return LocalEngine(sync_engine).adopt(base)


def _number(base: sqlite3.Connection, pragma: str) -> int:
    return int(base.execute(f"PRAGMA {pragma}").fetchone()[0])

"""Reads a file without changing it, and replaces the content of a file that is in use.

A restore works on a private copy of the backup, which is migrated before anybody sees it. Its pages go into the file
through SQLite's backup interface, as one transaction of the file's write-ahead log: connections to the file read the
old state, then the new one. A process that is killed halfway leaves the old state.

A file is never moved into place. Connections to the old file would go on in it, and SQLite would replay its
write-ahead log over the new one.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection

from memstore.concurrency import StopSignal, monotonic
from memstore.database.checkpoint import write_back
from memstore.database.connection_thread import LocalEngine
from memstore.database.driver_errors import translated
from memstore.database.engine import connect_or_create, set_layout, switch_to_wal, sync_engine, uri
from memstore.database.file_locks import identity_of, open_handles
from memstore.database.inspect import inspect
from memstore.database.read_only import read_uri
from memstore.database.sqlite import sqlite3
from memstore.database.statement_limits import StatementLimit, harden
from memstore.database.transactions import raw
from memstore.errors import BusyError, DamagedError, ForeignFileError, MemstoreError, StorageError
from memstore.schema.tables import APPLICATION_ID

_PAGES = 500  # copied between two checks of the stop signal, 4 MB
_POLL_INTERVAL = 0.05  # seconds of waiting for the write lock between two checks
_FIRST_STEPS = 100  # instructions of SQLite's virtual machine, where the name of a file must be deleted soon
_CHECKPOINT_WAIT = 1.0  # seconds; after them the log stays for the next checkpoint
_TOLERANT = "PRAGMA writable_schema=ON"  # else SQLite refuses a truncated file even for replacing its pages


class CopyControl(NamedTuple):
    """The stop signal and the progress callback of a long copy.

    Attributes:
        stop: checked between groups of pages; a copy that it ends has changed nothing.
        progress: called with the pages copied and the total.
    """

    stop: StopSignal
    progress: Callable[[int, int], None]


@contextmanager
def reading(path: str, stop: StopSignal) -> Iterator[Connection]:
    """A read-only connection to the file at *path*; the stop signal ends a long statement."""
    with translated(), closing(_connect(path)) as base, _adopted(base, path, stop) as connection:
        yield connection


@contextmanager
def private_copy(path: str, page_size: int | None, control: CopyControl) -> Iterator[Connection]:
    """A connection to a copy of one snapshot of the file at *path*. The copy ends with the block.

    It is an unnamed file in SQLite's folder for temporary files: a process that is killed leaves nothing there.

    Args:
        path: a memstore file; other connections may have it open.
        page_size: bytes of a page of the copy; None for the file's.
        control: the stop signal and the progress callback.
    """
    with translated(), closing(sqlite3.connect("", isolation_level=None)) as base:
        base.execute("PRAGMA cache_size=-16000")
        with closing(_connect(path)) as source:
            if page_size in (None, _number(source, "page_size")):
                source.execute("BEGIN")
                source.execute(
                    "SELECT 1 FROM sqlite_master"
                ).fetchone()  # begins the snapshot: else every write restarts the copy
                _copy(source, base, control)
            else:
                _copy_repaged(source, base, page_size, control)
        with _adopted(base, path, control.stop) as connection:
            yield connection


def has_store(path: str) -> bool:
    """Whether there is a store at *path* whose content can be replaced; False for no file or an empty one.

    Raises:
        ForeignFileError, NewerFileError, MissingFileError: the content cannot be replaced.
    """
    try:
        return inspect(path) is not None
    except DamagedError:
        with translated(), closing(_connect(path)) as base:
            base.execute(_TOLERANT)
            if _number(base, "application_id") == APPLICATION_ID:  # a damaged memstore file can be restored
                return True
        raise
    except ForeignFileError as error:
        error.add_note(
            "If it was a memstore file, move it and the files beside it (-wal, -shm) to another folder, "
            "then restore again"
        )
        raise


def page_size(path: str) -> int | None:
    """Bytes of a page of the store at *path*; None if there is none. Raises as `has_store` does."""
    if not has_store(path):
        return None
    with translated(), closing(_connect(path)) as base:
        base.execute(_TOLERANT)
        return _number(base, "page_size")


def replace_content(path: str, copy: Connection, timeout: float, control: CopyControl) -> None:
    """Replace the content of the file at *path* with *copy*, all or nothing. A missing file is created.

    Args:
        path: a file that `page_size` accepts; other connections may have it open.
        copy: the new content, in pages of the file's size.
        timeout: seconds to wait for writers.
        control: the stop signal and the progress callback.

    Raises:
        BusyError: other connections were writing for longer than *timeout*.
        StorageError: the disk is full, or it failed.
    """
    is_new = not Path(path).exists()
    try:
        if not has_store(path):
            _create(path, _number(raw(copy), "page_size"))
        with suppress(DamagedError):  # then it has a log already, or it is written with a rollback journal
            switch_to_wal(path, timeout)
        _overwrite(path, raw(copy), timeout, control)
    except BaseException:
        if is_new:
            _delete_new(path)
        raise


def _create(path: str, size: int) -> None:
    """Create a file with SQLite's first page only, in write-ahead log mode."""
    with translated(), closing(connect_or_create(path, isolation_level=None)) as base:
        set_layout(base)
        base.execute(f"PRAGMA page_size={size}")
        base.execute("PRAGMA journal_mode=WAL")


def _delete_new(path: str) -> None:
    with suppress(MemstoreError, OSError):  # the first error is the one to report
        if not has_store(path):
            for suffix in ("", "-wal", "-shm"):
                Path(path + suffix).unlink(missing_ok=True)


def _overwrite(path: str, copy: sqlite3.Connection, timeout: float, control: CopyControl) -> None:
    deadline = monotonic() + timeout

    def check_deadline() -> None:
        if monotonic() >= deadline:
            raise BusyError(
                f"Other connections were writing to {path!r} for {timeout:g} s. Nothing was changed: try again"
            )

    with translated(), closing(sqlite3.connect(uri(path, "rw"), uri=True, isolation_level=None)) as live:
        live.execute(f"PRAGMA busy_timeout={int(_POLL_INTERVAL * 1000)}")
        with suppress(DamagedError), translated():
            live.execute("PRAGMA synchronous=FULL")  # reads the schema; most builds of SQLite have FULL anyway
        live.execute("PRAGMA wal_autocheckpoint=0")  # see checkpoint.write_back
        live.execute(_TOLERANT)
        _copy(copy, live, control, check_deadline)
        with suppress(StorageError):  # the new content is in the log; a later checkpoint writes it back
            write_back(live, _CHECKPOINT_WAIT)


def _copy(
    source: sqlite3.Connection,
    target: sqlite3.Connection,
    control: CopyControl,
    on_wait: Callable[[], None] = lambda: None,
) -> None:
    """Copy all pages of *source* into *target*, as one transaction; *on_wait* is called while it waits to begin."""

    def step(status: int, remaining: int, total: int) -> None:
        control.stop.check()
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            on_wait()
        else:
            control.progress(total - remaining, total)

    source.backup(target, pages=_PAGES, progress=step, sleep=0.001)


def _copy_repaged(
    source: sqlite3.Connection, target: sqlite3.Connection, size: int | None, control: CopyControl
) -> None:
    """As `_copy`, with pages of another *size*: SQLite cannot change the page size of a file with a write-ahead log.

    Only VACUUM INTO can, and it needs a name. The name is deleted as soon as VACUUM has opened the file, so that a
    process that is killed leaves no content; another connection keeps the file.
    """
    with tempfile.TemporaryDirectory(prefix="memstore-") as folder:
        rebuilt = Path(folder) / "pages"
        with closing(sqlite3.connect(rebuilt)) as base:
            source.execute(f"PRAGMA page_size={size}")
            limit = StatementLimit(None, partial(_delete_name, rebuilt, control.stop), size=_bytes(source))
            source.set_progress_handler(limit.is_over, _FIRST_STEPS)
            source.execute("VACUUM INTO ?", (str(rebuilt),))
            _copy(base, target, control)


def _delete_name(path: Path, stop: StopSignal) -> bool:
    """Delete the name of a file that two connections have open; whether the work must stop."""
    with suppress(OSError):  # it is deleted already, or the system deletes no open files
        status = path.stat()
        if status.st_size or open_handles()[identity_of(status)] > 1:
            path.unlink()
    return stop.requested


def _connect(path: str) -> sqlite3.Connection:
    return sqlite3.connect(read_uri(path), uri=True, isolation_level=None)


def _adopted(base: sqlite3.Connection, path: str, stop: StopSignal) -> Connection:
    """*base* as a connection for statements on the content of the file at *path*, which anybody may have made."""
    harden(base, size=4 * os.stat(path).st_size)
    StatementLimit(path, lambda: stop.requested).watch(base, often=True)
    return LocalEngine(sync_engine).adopt(base)


def _bytes(base: sqlite3.Connection) -> int:
    return _number(base, "page_count") * _number(base, "page_size")


def _number(base: sqlite3.Connection, pragma: str) -> int:
    return int(base.execute(f"PRAGMA {pragma}").fetchone()[0])

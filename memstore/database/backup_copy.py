"""Copies a store's file while other connections read and write it.

A copy is one file without a write-ahead log: reading it creates no file beside it, so it can be read from a read-only
folder. The store that opens it switches it to a write-ahead log.
"""

import os
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from memstore.database.driver_errors import translated
from memstore.database.file_identity import OpenedFile
from memstore.database.file_modes import create_file, mode_like
from memstore.database.fork_safety import temporary_connections
from memstore.database.inspect import missing_folder_error
from memstore.database.read_only import read_uri, without_log
from memstore.database.sqlite import sqlite3
from memstore.database.statement_limits import StatementLimit, harden
from memstore.errors import InvalidError, StorageError

_PAGES = 1_000  # copied before other connections may write


def copy_file(source: str, opened: OpenedFile | None, target: str, progress: Callable[[int, int], None]) -> None:
    """Copy one snapshot of the file *source* into a new file *target*. A copy that fails leaves no file.

    Args:
        source: a memstore file of any revision; other connections may have it open.
        opened: the file that must be at *source*; None for any.
        target: a path without a file.
        progress: called with the pages copied and the total; an exception that it raises ends the copy.

    Raises:
        InvalidError: there is a file at *target*.
        StoreReplacedError: the file at *source* is not *opened*.
        MissingFileError: the folder of *target* does not exist.
    """
    opened = OpenedFile(source) if opened is None else opened
    opened.check()
    _create(target, like=source)

    def step(status: int, remaining: int, total: int) -> None:  # noqa: ARG001 - SQLite passes three arguments
        progress(total - remaining, total)

    try:
        with (
            temporary_connections(source),
            without_log(source),
            translated(),
            closing(sqlite3.connect(read_uri(source), uri=True)) as base,
        ):
            opened.check()
            base.execute("BEGIN")
            base.execute(
                "SELECT 1 FROM store_meta"
            ).fetchone()  # begins the snapshot: else every write restarts the copy
            with closing(sqlite3.connect(target)) as copy:
                copy.execute("PRAGMA fullfsync=ON")  # see engine.configure
                base.backup(copy, pages=_PAGES, progress=step, sleep=0.001)
                copy.execute("PRAGMA journal_mode=DELETE")
                harden(copy)
                StatementLimit(target).watch(copy, often=True)
                set_new_epoch(copy)
                copy.commit()
    except BaseException as error:
        for path in (target, f"{target}-journal"):
            try:
                Path(path).unlink(missing_ok=True)
            except OSError as unlink_error:  # the disk that failed the copy may fail this too: report both
                error.add_note(f"The incomplete copy could not be deleted: {unlink_error}")
        raise


def _create(target: str, *, like: str) -> None:
    """Create the file, empty. Of two copies to one path, one is refused here and writes nothing.

    It gets the permissions of the file *like*, and 0600 at least.
    """
    try:
        os.close(create_file(target, mode_like(like)))
    except FileExistsError as error:
        raise InvalidError(f"{target!r} exists, and a backup overwrites no file: give another path") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise missing_folder_error(Path(target)) from error
    except OSError as error:
        raise StorageError(f"Cannot create {target!r} ({error}): check its folder") from error


def set_new_epoch(base: sqlite3.Connection) -> None:
    """Give a copy a new epoch, so that no index of the one file is used for the other.

    Its index snapshots stay valid: they are from before the copy. Does not commit.
    """
    epoch = uuid.uuid4().hex
    if base.execute("SELECT 1 FROM sqlite_master WHERE name = 'index_snapshot'").fetchone():  # from revision 0002 on
        base.execute("UPDATE index_snapshot SET epoch = ? WHERE epoch = (SELECT epoch FROM store_meta)", (epoch,))
    base.execute("UPDATE store_meta SET epoch = ?, write_token = ?", (epoch, os.urandom(16)))

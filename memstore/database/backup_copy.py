"""A copy of a store's file, taken while others read and write it.

A copy is one file: it is left without a write-ahead log, so that reading it puts nothing beside it, and it can be
read where nothing can be written. The store that opens it gives it one.
"""

import os
import stat
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from memstore.database.driver_errors import translated
from memstore.database.engine import uri
from memstore.database.file_identity import OpenedFile
from memstore.database.fork_safety import briefly
from memstore.database.inspect import no_folder
from memstore.database.sqlite import sqlite3
from memstore.errors import InvalidError, StorageError

_PAGES = 1_000  # copied before others may run


def copy(source: str, opened: OpenedFile | None, target: str, progress: Callable[[int, int], None]) -> None:
    """Copy the file *source*, as it is at this moment, into a new file *target*; nothing is left of a copy that fails.

    Args:
        source: a file of ours, of any revision, which others may have open.
        opened: which one it is; None for whichever lies at the path.
        target: a path at which there is no file.
        progress: called with pages copied and pages in all; what it raises ends the copy.

    Raises:
        InvalidError: there is a file at *target*.
        StoreReplacedError: the file at *source* is another.
        MissingFileError: its folder does not exist.
    """
    opened = OpenedFile(source) if opened is None else opened
    opened.check()
    _claim(target, like=source)

    def step(status: int, remaining: int, total: int) -> None:  # noqa: ARG001 - the form SQLite calls
        progress(total - remaining, total)

    try:
        with briefly(source), translated(), closing(sqlite3.connect(uri(source, "ro"), uri=True)) as base:
            opened.check()
            base.execute("BEGIN")
            base.execute("SELECT 1 FROM store_meta").fetchone()  # one state: without it every write of others restarts
            with closing(sqlite3.connect(target)) as made:
                made.execute("PRAGMA fullfsync=ON")  # see file.configure
                base.backup(made, pages=_PAGES, progress=step, sleep=0.001)
                made.execute("PRAGMA journal_mode=DELETE")
                renew(made)
                made.commit()
    except BaseException as error:
        for left in (target, f"{target}-journal"):
            try:
                Path(left).unlink(missing_ok=True)
            except OSError as refused:  # the disk that failed the copy may refuse this too: say both
                error.add_note(f"and what there is of the copy could not be deleted: {refused}")
        raise


def _claim(target: str, *, like: str) -> None:
    """Make the file, empty, if there is none: of two copies to one path one is refused, and writes nothing there.

    Nobody may read it who may not read the file it is *like*.
    """
    try:
        mode = stat.S_IMODE(Path(like).stat().st_mode) & 0o666 | 0o600
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
    except FileExistsError as error:
        raise InvalidError(f"{target!r} exists, and a backup overwrites nothing: give another path") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise no_folder(Path(target)) from error
    except OSError as error:
        raise StorageError(f"{target!r} cannot be made ({error}): see to its folder") from error


def renew(base: sqlite3.Connection) -> None:
    """Let the history of a copy go on apart: an index of the one must not be taken for the other's.

    The snapshots in it are of the history they have in common. Nothing is committed.
    """
    epoch = uuid.uuid4().hex
    if base.execute("SELECT 1 FROM sqlite_master WHERE name = 'index_snapshot'").fetchone():  # from revision 0002 on
        base.execute("UPDATE index_snapshot SET epoch = ? WHERE epoch = (SELECT epoch FROM store_meta)", (epoch,))
    base.execute("UPDATE store_meta SET epoch = ?, write_token = ?", (epoch, os.urandom(16)))

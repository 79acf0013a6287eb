"""A copy of a store's file, taken while others read and write it."""

import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from memstore.database.commit import translated
from memstore.database.file import uri
from memstore.database.forks import briefly
from memstore.database.identity import OpenedFile
from memstore.database.sqlite import sqlite3
from memstore.errors import InvalidError

_PAGES = 1_000  # copied before others may run


def copy(source: str, opened: OpenedFile, target: str, progress: Callable[[int, int], None]) -> None:
    """Copy the file *source*, as it is at this moment, into a new file *target*; nothing is left of a copy that fails.

    Args:
        source: a file of ours, which others may have open.
        opened: which one it is.
        target: a path at which there is no file.
        progress: called with pages copied and pages in all.

    Raises:
        InvalidError: there is a file at *target*.
        StoreReplacedError: the file at *source* is another.
    """
    file = Path(target)
    if file.exists():
        raise InvalidError(f"{target!r} exists, and a backup overwrites nothing: give another path")

    def step(status: int, remaining: int, total: int) -> None:  # noqa: ARG001 - the form SQLite calls
        progress(total - remaining, total)

    opened.check()
    try:
        with briefly(source), translated(), closing(sqlite3.connect(uri(source, "ro"), uri=True)) as base:
            opened.check()
            base.execute("BEGIN")
            base.execute("SELECT 1 FROM store_meta").fetchone()  # one state: without it every write of others restarts
            with closing(sqlite3.connect(file)) as made:
                made.execute("PRAGMA fullfsync=ON")  # see file.configure
                base.backup(made, pages=_PAGES, progress=step, sleep=0.001)
                # Its history goes on apart: an index of the one must not be taken for the other's. The snapshots in
                # it are of the history they have in common.
                epoch = uuid.uuid4().hex
                made.execute(
                    "UPDATE index_snapshot SET epoch = ? WHERE epoch = (SELECT epoch FROM store_meta)", (epoch,)
                )
                made.execute("UPDATE store_meta SET epoch = ?", (epoch,))
                made.commit()
    except BaseException as error:
        for left in (target, f"{target}-journal"):
            try:
                Path(left).unlink(missing_ok=True)
            except OSError as refused:  # the disk that failed the copy may refuse this too: say both
                error.add_note(f"and what there is of the copy could not be deleted: {refused}")
        raise

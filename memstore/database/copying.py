"""A copy of a store's file, taken while others read and write it."""

import os
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from memstore.database.commit import translated
from memstore.database.file import uri
from memstore.errors import InvalidError

_PAGES = 1_000  # copied before others may run


def copy(source: str, target: str, progress: Callable[[int, int], None]) -> None:
    """Copy the file *source*, as it is at this moment, into a new file *target*; nothing is left of a copy that fails.

    Args:
        source: a file of ours, which others may have open.
        target: a path at which there is no file.
        progress: called with pages copied and pages in all.

    Raises:
        InvalidError: there is a file at *target*.
    """
    file = Path(target)
    if os.path.lexists(file):  # Path.exists raises at a name that is too long
        raise InvalidError(f"{target!r} exists, and a backup overwrites nothing: give another path")

    def step(status: int, remaining: int, total: int) -> None:  # noqa: ARG001 - the form SQLite calls
        progress(total - remaining, total)

    try:
        with translated(), closing(sqlite3.connect(uri(source, "ro"), uri=True)) as base:
            base.execute("BEGIN")
            base.execute("SELECT 1 FROM store_meta").fetchone()  # one state: without it every write of others restarts
            with closing(sqlite3.connect(file)) as made:
                base.backup(made, pages=_PAGES, progress=step, sleep=0.001)
                # Its history goes on apart: an index of the one must not be taken for the other's. The snapshots in
                # it are of the history they have in common.
                epoch = uuid.uuid4().hex
                made.execute(
                    "UPDATE index_snapshot SET epoch = ? WHERE epoch = (SELECT epoch FROM store_meta)", (epoch,)
                )
                made.execute("UPDATE store_meta SET epoch = ?", (epoch,))
                made.commit()
    except BaseException:
        with suppress(OSError):
            file.unlink()
        raise

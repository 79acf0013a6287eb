"""Checkpoints: the write-ahead log copied back into the database file."""

from contextlib import nullcontext

from memstore.database.driver_errors import translated
from memstore.database.file_identity import OpenedFile
from memstore.database.sqlite import BUG, sqlite3
from memstore.database.transactions import busy_timeout
from memstore.errors import BusyError


def write_back(base: sqlite3.Connection, wait: float, file: OpenedFile | None = None) -> bool:
    """Copy the log back into the file and empty it; False if other connections prevented that for *wait* seconds.

    SQLite 3.7.0 to 3.51.2 can lose commits when a passive checkpoint overlaps a restart of the log. TRUNCATE takes the
    write lock first, which prevents that; but it falls back to PASSIVE if it does not get the lock in time. So this
    function first takes the lock once, to see that it is free, and otherwise leaves the checkpoint for later. For the
    same reason no connection that writes checkpoints automatically (`wal_autocheckpoint=0`).

    *file* is the file that *base* has open, with its locks.

    A fixed SQLite first copies most of the log passively, so that writers wait only for the rest.
    """
    try:
        with translated():
            if not BUG:
                base.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            with busy_timeout(base, wait), nullcontext() if file is None else file.excluding_writers(wait):
                base.execute("BEGIN IMMEDIATE")
                base.execute("ROLLBACK")
                return not base.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except BusyError:
        return False

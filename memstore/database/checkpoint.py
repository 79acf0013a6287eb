"""Checkpoints: the write-ahead log copied back into the database file."""

from memstore.database.driver_errors import translated
from memstore.database.sqlite import BUG, sqlite3
from memstore.errors import BusyError


def write_back(base: sqlite3.Connection, wait: float) -> bool:
    """Copy the log back into the file and empty it; False if other connections prevented that for *wait* seconds.

    SQLite 3.7.0 to 3.51.2 can lose commits when a passive checkpoint overlaps a restart of the log. TRUNCATE takes the
    write lock first, which prevents that; but it falls back to PASSIVE if it does not get the lock in time. So this
    function first takes the lock once, to see that it is free, and otherwise leaves the checkpoint for later. For the
    same reason no connection that writes checkpoints automatically (`wal_autocheckpoint=0`).

    A fixed SQLite first copies most of the log passively, so that writers wait only for the rest.
    """
    try:
        with translated():
            if not BUG:
                base.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            base.execute(f"PRAGMA busy_timeout={int(wait * 1000)}")
            base.execute("BEGIN IMMEDIATE")
            base.execute("ROLLBACK")
            return not base.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except BusyError:
        return False

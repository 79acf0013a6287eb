"""Checkpoints: the write-ahead log copied back into the database file."""

from memstore.database.driver_errors import translated
from memstore.database.sqlite import BUG, sqlite3
from memstore.errors import BusyError


def write_back(base: sqlite3.Connection, wait: float) -> bool:
    """Write the log back into the file and start it anew; False where others kept it from that for *wait* seconds.

    SQLite 3.7.0 to 3.51.2 can lose commits when a passive checkpoint overlaps a restart of the log; TRUNCATE takes the
    writer lock first, so none can. It runs PASSIVE when the lock is not to be had in time: so it is taken before, to
    see that it is to be had, and the checkpoint left for later when it is not. For the same reason no connection that
    writes checkpoints by itself (`wal_autocheckpoint=0`).

    A SQLite that is mended does most of it passively before, so that writers wait for the rest alone.
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

"""Compacting a file: the space of deleted records goes back to the disk."""

import asyncio
import time
from functools import partial

from sqlalchemy import Connection

from memstore.database import Database, raw
from memstore.database.driver_errors import translated
from memstore.database.file_identity import OpenedFile
from memstore.database.transactions import busy_timeout
from memstore.errors import BusyError
from memstore.repository import history_retention, tags
from memstore.repository.context import WriteContext
from memstore.repository.sqlite_only import change_log, index_snapshots, statistics
from memstore.session import Autocommit

INCREMENTAL = 2  # the number of SQLite's incremental mode of auto_vacuum
VACUUM_PAGES = 1_000
"""Pages that are freed in one transaction: other writers can write in between."""

_LOG_POLL = 0.05  # seconds between two attempts to empty the log


async def compact(session: Autocommit, *, secure: bool = False) -> int:
    """Delete what is not needed and shrink the file; by how many bytes. See `Store.compact`."""
    await session.delete_expired()
    await session.write(partial(_delete_unneeded, secure=secure), batch=True)
    database, timeout = session.database, session.database.settings.timeout
    freed = await database.upkeep(partial(_shrink, file=database.file, timeout=timeout, secure=secure))
    await _empty_log(database, timeout if secure else 0.0)
    return freed


async def _empty_log(database: Database, timeout: float) -> None:
    """Write the log back into the file; with a *timeout*, in seconds, raise `BusyError` if it is not empty by then."""
    deadline = time.monotonic() + timeout
    await database.checkpoint()
    while timeout and database.wal_bytes():
        if time.monotonic() > deadline:
            raise BusyError(
                f"The write-ahead log could not be emptied within {timeout:g} s, so it can still contain deleted data: "
                "another connection reads an old state or writes. Wait for it to end, and call compact(secure=True) "
                "again"
            )
        await asyncio.sleep(_LOG_POLL)
        await database.checkpoint()


def _delete_unneeded(context: WriteContext, *, secure: bool) -> None:
    connection = context.connection
    history_retention.trim_all(connection)
    tags.drop_unused(connection)
    change_log.trim(connection, change_log.top(connection))
    if secure:
        statistics.drop_samples(connection)
        index_snapshots.drop_older(connection, change_log.top(connection) + 1)


def _shrink(connection: Connection, file: OpenedFile, timeout: float, *, secure: bool) -> int:
    """Give free pages back to the disk; by how many bytes the file is smaller.

    Deleted data stays in pages that SQLite reorganized, whatever `secure_delete` says: a row that moved to another
    page is not overwritten in the first one. So *secure* writes the whole file anew.
    """
    base = raw(connection)
    with translated(), busy_timeout(base, timeout):
        before = base.execute("PRAGMA page_count").fetchone()[0]
        if secure or base.execute("PRAGMA auto_vacuum").fetchone()[0] != INCREMENTAL:  # another tool changed the mode
            base.execute(f"PRAGMA auto_vacuum={INCREMENTAL}")
            base.execute("PRAGMA temp_store=FILE")  # in memory, the copy would take as much as the file
            with file.excluding_writers(timeout):
                base.execute("VACUUM")
            base.execute("PRAGMA temp_store=MEMORY")
        free = base.execute("PRAGMA freelist_count").fetchone()[0]
        while free:
            # executescript() runs the statement to its end; execute() would stop after the first page.
            with file.excluding_writers(timeout):
                base.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")
            remaining = base.execute("PRAGMA freelist_count").fetchone()[0]
            free = remaining if remaining < free else 0
        with file.excluding_writers(timeout):
            base.execute("PRAGMA optimize").fetchall()
        after = base.execute("PRAGMA page_count").fetchone()[0]
        # A file can grow: `optimize` stores statistics, and incremental vacuum needs pages of its own.
        return max(0, int(before - after)) * int(base.execute("PRAGMA page_size").fetchone()[0])

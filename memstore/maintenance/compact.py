"""Compacting a file: the space of deleted records goes back to the disk."""

from functools import partial

from sqlalchemy import Connection

from memstore.database import raw
from memstore.database.driver_errors import translated
from memstore.repository import history_retention, tags
from memstore.repository.context import WriteContext
from memstore.repository.sqlite_only import change_log
from memstore.session import Autocommit

INCREMENTAL = 2  # the number of SQLite's incremental mode of auto_vacuum
VACUUM_PAGES = 1_000
"""Pages that are freed in one transaction: other writers can write in between."""


async def compact(session: Autocommit) -> int:
    """Delete what is not needed and shrink the file; by how many bytes. See `Store.compact`."""
    await session.write(_delete_unneeded, batch=True)
    freed = await session.database.upkeep(partial(_shrink, timeout=session.database.settings.timeout))
    await session.database.checkpoint()
    return freed


def _delete_unneeded(context: WriteContext) -> None:
    connection = context.connection
    history_retention.trim_all(connection)
    tags.drop_unused(connection)
    change_log.trim(connection, change_log.top(connection))


def _shrink(connection: Connection, timeout: float) -> int:
    """Give free pages back to the disk; by how many bytes the file is smaller."""
    base = raw(connection)
    with translated():
        base.execute(f"PRAGMA busy_timeout={int(timeout * 1000)}")
        before = base.execute("PRAGMA page_count").fetchone()[0]
        if base.execute("PRAGMA auto_vacuum").fetchone()[0] != INCREMENTAL:  # another tool changed the mode
            base.execute(f"PRAGMA auto_vacuum={INCREMENTAL}")
            base.execute("VACUUM")
        free = base.execute("PRAGMA freelist_count").fetchone()[0]
        while free:
            # executescript() runs the statement to its end; execute() would stop after the first page.
            base.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")
            remaining = base.execute("PRAGMA freelist_count").fetchone()[0]
            free = remaining if remaining < free else 0
        base.execute("PRAGMA optimize").fetchall()
        after = base.execute("PRAGMA page_count").fetchone()[0]
        # A file can grow: `optimize` stores statistics, and incremental vacuum needs pages of its own.
        return max(0, int(before - after)) * int(base.execute("PRAGMA page_size").fetchone()[0])

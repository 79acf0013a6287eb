"""SQLite's own statistics, which ANALYZE writes: with STAT4 they hold samples of indexed values."""

from sqlalchemy import Connection

from memstore.database import raw


def drop_samples(connection: Connection) -> None:
    """Delete the samples: ids, tags, paths of namespaces and indexed metadata values. No plan depends on them."""
    base = raw(connection)
    tables = base.execute("SELECT name FROM sqlite_master WHERE name IN ('sqlite_stat3', 'sqlite_stat4')").fetchall()
    for (name,) in tables:
        base.execute(f"DELETE FROM {name}")  # noqa: S608 - one of the two names above

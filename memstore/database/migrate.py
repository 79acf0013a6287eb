"""Creates a file with this release's schema, or upgrades an older file, in one transaction on a separate connection.

A new file is created from the declared schema and stamped with the newest revision. An older file goes through every
revision: they are in `migrations/` at the top of the checkout, where Alembic's command finds them, and are installed
as `memstore/migrations`. Alembic is imported for an upgrade only: the import takes 0.3 s.
Foreign keys are off during an upgrade, because DROP TABLE with foreign keys on deletes the rows of child tables.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, event

from memstore.concurrency import ProcessLock
from memstore.config import path_text
from memstore.database.connection_thread import LocalEngine
from memstore.database.driver_errors import translated
from memstore.database.engine import set_layout, switch_to_wal, sync_engine, uri
from memstore.database.fork_safety import briefly
from memstore.database.inspect import HEAD, inspect, revision_of
from memstore.database.sqlite import sqlite3
from memstore.database.transactions import begin_write, raw
from memstore.errors import OpenError
from memstore.schema.ddl import create_statements
from memstore.schema.tables import APPLICATION_ID

_one_at_a_time = ProcessLock()  # Alembic's `op` is one object per process


def migrate(path: str, *, timeout: float = 30.0) -> str:
    """Create the file at *path*, or bring it to this release's schema; a no-op when it has it.

    A host application that keeps memstore's tables up to date with its own calls this from its migrations. It
    blocks: call it from a thread in asyncio code. Takes the writer lock when there is something to do.

    Returns:
        The schema revision the file has now.

    Raises:
        ForeignFileError, NewerFileError, MissingFileError: the file is not one that can be migrated.
        BusyError: another process held it past *timeout*, in seconds.
    """
    path = path_text(path)
    with briefly(path):
        if inspect(path) != HEAD:
            with locked(path, timeout) as connection:
                _bring_to_head(connection, path)
        switch_to_wal(path, timeout)
    return HEAD


@contextmanager
def locked(path: str, timeout: float = 30.0) -> Iterator[Connection]:
    """A connection in one write transaction, committed if the block ends well, else rolled back."""
    made = inspect(path) is not None  # and refuse what is not ours before anything is set: Alembic's command comes here
    engine = sync_engine(lambda: sqlite3.connect(uri(path, "rwc"), uri=True, isolation_level=None, timeout=timeout))
    try:
        with translated(), engine.connect() as connection:
            if not made:
                set_layout(raw(connection))  # auto_vacuum, set again, would be a write of its own
            raw(connection).execute("PRAGMA wal_autocheckpoint=0")  # see Database._checkpoint
            with _transaction(connection, timeout):
                if revision_of(raw(connection), path) is None:
                    raw(connection).execute(f"PRAGMA application_id={APPLICATION_ID}")
                yield connection
    finally:
        engine.dispose()


def migrate_copy(base: sqlite3.Connection) -> None:
    """Bring a copy that nobody else has open to this release's schema, whichever revision it has."""
    with translated(), LocalEngine(sync_engine).adopt(base) as connection, _transaction(connection, 0.0):
        _upgrade(connection)


@contextmanager
def _transaction(connection: Connection, timeout: float) -> Iterator[None]:
    raw(connection).execute("PRAGMA foreign_keys=OFF")
    # Alembic leaves a transaction alone that SQLAlchemy knows of; the driver's default would end it at DDL.
    event.listen(connection, "begin", lambda c: begin_write(c, timeout))
    with connection.begin():
        yield


def _bring_to_head(connection: Connection, path: str) -> None:
    """Create or upgrade the schema, unless another process did so while this one waited for the write lock."""
    revision = revision_of(raw(connection), path)
    if revision is None and _has_no_tables(connection):
        for statement in create_statements(connection.dialect, HEAD):
            raw(connection).execute(statement)
    elif revision != HEAD:
        _upgrade(connection)


def _has_no_tables(connection: Connection) -> bool:
    """False in a file whose revisions were all downgraded: Alembic's version table remains, without a row."""
    return raw(connection).execute("SELECT 1 FROM sqlite_master").fetchone() is None


def _upgrade(connection: Connection) -> None:
    import alembic.context
    import alembic.op
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(folder()).replace("%", "%%"))
    config.attributes["connection"] = connection
    with _one_at_a_time:
        # Called from a host's own migration, these stand for the host's context: put it back.
        hosts = [proxy for module in (alembic.context, alembic.op) if (proxy := getattr(module, "_proxy", None))]
        try:
            command.upgrade(config, HEAD)
        finally:
            for proxy in hosts:
                proxy._install_proxy()  # noqa: SLF001 - Alembic offers no other way to nest


def folder() -> Path:
    """Where the revisions are: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    for place in (package / "migrations", package.parent / "migrations"):
        if (place / "env.py").is_file():
            return place
    raise OpenError(f"the migrations that belong to memstore are missing beside {package}: install memstore again")

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

from memstore.config import path_text
from memstore.database.connection_thread import LocalEngine
from memstore.database.driver_errors import translated
from memstore.database.engine import connect_or_create, set_layout, switch_to_wal, sync_engine
from memstore.database.file_identity import check_single_name
from memstore.database.fork_safety import temporary_connections
from memstore.database.inspect import HEAD, inspect, revision_of
from memstore.database.read_only import check_writable
from memstore.database.sqlite import sqlite3
from memstore.database.statement_limits import STATEMENT, StatementLimit, harden
from memstore.database.transactions import begin_write, raw
from memstore.errors import OpenError
from memstore.schema.ddl import create_statements
from memstore.schema.tables import APPLICATION_ID, VERSION_TABLE


def migrate(path: str, *, timeout: float = 30.0) -> str:
    """Create the file at *path*, or upgrade it to this release's schema if it is older.

    A host application can call this from its migrations. It blocks: call it from a thread in asyncio code. Takes the
    write lock if the file is new or older.

    Returns:
        The schema revision of the file now.

    Raises:
        ForeignFileError, NewerFileError, MissingFileError: the file cannot be migrated.
        OpenError: the file has several names (hard links), or is a mount of a single file.
        BusyError: another process held its write lock for longer than *timeout*, in seconds.
    """
    path = path_text(path)
    check_single_name(path)
    with temporary_connections(path):
        revision = inspect(path, timeout)
        check_writable(path)
        if revision != HEAD:
            with locked(path, timeout) as connection:
                _bring_to_head(connection, path)
        switch_to_wal(path, timeout)
    return HEAD


@contextmanager
def locked(path: str, timeout: float = 30.0) -> Iterator[Connection]:
    """A connection in one write transaction, which is committed if the block ends and rolled back if it raises."""
    check_single_name(path)
    exists = inspect(path, timeout) is not None  # refuses a foreign file before a pragma is set (Alembic's command)
    engine = sync_engine(lambda: connect_or_create(path, isolation_level=None, timeout=timeout))
    try:
        with translated(), engine.connect() as connection:
            if not exists:
                set_layout(raw(connection))  # in an existing file auto_vacuum would write a page
            raw(connection).execute("PRAGMA wal_autocheckpoint=0")  # see checkpoint.write_back
            harden(raw(connection))
            StatementLimit(path).watch(raw(connection), often=True)
            with _transaction(connection, timeout):
                if revision_of(raw(connection), path) is None:
                    raw(connection).execute(f"PRAGMA application_id={APPLICATION_ID}")
                yield connection
    finally:
        engine.dispose()


def migrate_copy(base: sqlite3.Connection, path: str) -> None:
    """Upgrade a private copy of the file at *path*, of any revision. Raises `DamagedError` as `_upgrade`."""
    with translated(), LocalEngine(sync_engine).adopt(base) as connection, _transaction(connection, 0.0):
        _upgrade(connection, path)


@contextmanager
def _transaction(connection: Connection, timeout: float) -> Iterator[None]:
    raw(connection).execute("PRAGMA foreign_keys=OFF")
    event.listen(connection, "before_cursor_execute", _begin_statement)
    # Alembic keeps a transaction that SQLAlchemy began; the driver's default would commit it at the first DDL.
    event.listen(connection, "begin", lambda c: begin_write(c, timeout))
    with connection.begin():
        yield


def _begin_statement(*_: object) -> None:
    STATEMENT.is_new = True


def _bring_to_head(connection: Connection, path: str) -> None:
    """Create or upgrade the schema, unless another process did so while this one waited for the write lock."""
    revision = revision_of(raw(connection), path)
    if revision is None and _has_no_tables(connection):
        for statement in create_statements(connection.dialect, HEAD):
            raw(connection).execute(statement)
    elif revision != HEAD:
        _upgrade(connection, path)


def _has_no_tables(connection: Connection) -> bool:
    """False in a file whose revisions were all downgraded: Alembic's version table remains, without a row."""
    return raw(connection).execute("SELECT 1 FROM sqlite_master").fetchone() is None


def _upgrade(connection: Connection, path: str) -> None:
    """Apply the revisions that the file lacks. Raises `DamagedError` if that does not give the declared schema.

    Not by Alembic's command: it sets `alembic.op` and `alembic.context` for the whole process, where another thread may
    run the migrations of the host. Each revision gets operations of its own instead.
    """
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(folder()).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    revisions = list(scripts.iterate_revisions(HEAD, context.get_current_revision() or "base"))
    for revision in reversed(revisions):
        revision.module.op = Operations(context)  # type: ignore[attr-defined]
        revision.module.upgrade()
        context.stamp(scripts, revision.revision)
    STATEMENT.is_new = True
    revision_of(raw(connection), path)


def folder() -> Path:
    """The folder of the revisions: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    for path in (package / "migrations", package.parent / "migrations"):
        if (path / "env.py").is_file():
            return path
    raise OpenError(f"The migrations of memstore are missing in and beside {package}: reinstall memstore")

"""Alembic's environment: one transaction, memstore's version table, memstore's tables only.

A store that upgrades its file passes its connection; Alembic's command opens the file of `-x file=`.
"""

import warnings
from logging.config import fileConfig

from alembic import context
from sqlalchemy import Connection

from memstore.database.migrate import locked
from memstore.errors import InvalidError
from memstore.schema.tables import OWN_TABLES, VERSION_TABLE, metadata


def is_own(object, name, type_, reflected, compare_to):
    """Only memstore's tables: a host application may have tables in the same file."""
    return type_ != "table" or name in OWN_TABLES


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        include_object=is_own,
        compare_type=True,
        compare_server_default=True,
    )
    with context.begin_transaction(), warnings.catch_warnings():
        # A comparison ignores the indexes on metadata: the caller added them, not the schema.
        warnings.filterwarnings("ignore", "Skipped unsupported reflection of expression-based index")
        context.run_migrations()


connection = context.config.attributes.get("connection")
if connection is not None:
    run(connection)
else:
    if context.config.config_file_name is not None:
        fileConfig(context.config.config_file_name, disable_existing_loggers=False)
    path = context.get_x_argument(as_dictionary=True).get("file")
    if context.is_offline_mode() or not path:
        raise InvalidError("No file is given: use alembic -x file=agent.db upgrade head")
    with locked(path) as connection:
        run(connection)

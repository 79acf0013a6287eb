"""Alembic's environment: one transaction, our own version table, our own tables only.

A store that upgrades its file hands over its connection; Alembic's command opens the file named by `-x file=`.
"""

import warnings
from logging.config import fileConfig

from alembic import context
from sqlalchemy import Connection

from memstore.database.migrate import locked
from memstore.errors import InvalidError
from memstore.schema.tables import OWN_TABLES, VERSION_TABLE, metadata


def own(object, name, type_, reflected, compare_to):
    """Only memstore's tables: a host application may keep its own in the same file."""
    return type_ != "table" or name in OWN_TABLES


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        include_object=own,
        compare_type=True,
        compare_server_default=True,
    )
    with context.begin_transaction(), warnings.catch_warnings():
        # A comparison leaves out the indexes a file has on metadata: they are the caller's, not the schema's.
        warnings.filterwarnings("ignore", "Skipped unsupported reflection of expression-based index")
        context.run_migrations()


handed = context.config.attributes.get("connection")
if handed is not None:
    run(handed)
else:
    if context.config.config_file_name is not None:
        fileConfig(context.config.config_file_name, disable_existing_loggers=False)
    path = context.get_x_argument(as_dictionary=True).get("file")
    if context.is_offline_mode() or not path:
        raise InvalidError("name the file to work on: alembic -x file=agent.db upgrade head")
    with locked(path) as connection:
        run(connection)

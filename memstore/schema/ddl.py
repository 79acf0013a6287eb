"""The statements that create a new file from the declared schema.

`sqlite_master` of a new file is byte for byte that of a file which went through every migration.
"""

import re
import uuid
from functools import cache

from sqlalchemy import Dialect, Table
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.schema import CreateIndex, CreateTable

from memstore.schema.tables import FORMAT, VERSION_TABLE, metadata
from memstore.schema.triggers import TRIGGERS

METADATA_INDEX = re.compile(
    r"CREATE INDEX \w+ ON memory \(namespace_pk, json_type\(metadata, ('(?:[^']|'')*')\), "
    r"json_extract\(metadata, \1\)\)"
)
"""The SQL of an index on a value in metadata, which `open` makes."""


@cache
def declared_sql() -> dict[str, str]:
    """The SQL of every table and index, by its name, with single spaces."""
    statements = create_statements(sqlite_dialect(), "")
    created = [statement for statement in statements if statement.split()[0] == "CREATE"]
    names = ((re.sub(r"CREATE (UNIQUE )?(TABLE|INDEX) ", "", plain_sql(sql)).split(" ")[0], sql) for sql in created)
    return {name: plain_sql(sql) for name, sql in names if name not in ("CREATE", VERSION_TABLE)}


def plain_sql(sql: object) -> str:
    """*sql* with single spaces."""
    return " ".join(str(sql).split())


def create_statements(dialect: Dialect, revision: str) -> list[str]:
    """The SQL that creates every table, index and trigger in an empty file and stamps it with *revision*."""
    statements = [_create_version_table(), f"INSERT INTO {VERSION_TABLE} VALUES ('{revision}')"]  # noqa: S608
    for table in metadata.sorted_tables:
        statements.append(_create_table(table, dialect))
        indexes = sorted(table.indexes, key=lambda index: str(index.name))
        statements += [str(CreateIndex(index).compile(dialect=dialect)) for index in indexes]
    statements += TRIGGERS.values()
    statements.append(
        "INSERT INTO store_meta (pk, store_uuid, epoch, format) "  # noqa: S608
        f"VALUES (1, '{uuid.uuid4()}', '{uuid.uuid4().hex}', {FORMAT})"
    )
    return statements


def _create_table(table: Table, dialect: Dialect) -> str:
    sql = str(CreateTable(table).compile(dialect=dialect))
    for column in table.c:
        if "added" in column.info:  # ALTER TABLE appends the column to the line of the one before it
            sql = sql.replace(f", \n\t{column.name} ", f", {column.name} ", 1)
    return sql


def _create_version_table() -> str:
    """Alembic's version table, as Alembic creates it."""
    constraint = f"CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num)"
    return f"CREATE TABLE {VERSION_TABLE} (\n\tversion_num VARCHAR(32) NOT NULL, \n\t{constraint}\n)"

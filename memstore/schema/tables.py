"""The tables and named constraints of a memstore file.

Triggers keep these invariants of every file, also under raw SQL:

* A change of a vector, of its scope (namespace, expiry), or of an assembly's revision writes the key to `change_log`
  in the same transaction.
* A change of an assembly's members, or of a member's vector, raises `assembly.revision`.
* A vector that is changed without its checksum loses its checksum.

A key of `memory` or `assembly` is never assigned twice. Live tables contain live rows only.

Within a table, constraints are declared in the order in which the migrations create them, so that a new file and a
migrated file have the same `sqlite_master`.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    CheckConstraint,
    Column,
    ColumnElement,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    or_,
    text,
)

from memstore.schema.types import JsonText, UtcTime

APPLICATION_ID = 0x6D656D73
"""`mems` in ASCII, in the header of every memstore file: https://www.sqlite.org/pragma.html#pragma_application_id."""

PAGE_SIZE = 8_192
VERSION_TABLE = "memstore_version"
FORMAT = 1

Key = BigInteger().with_variant(Integer, "sqlite")

ADDED = {"added": True}
"""`Column.info` of a column that a migration added to an existing table; see `memstore.schema.ddl`."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _owner(column: str, target: str) -> Column[int]:
    return Column(column, Key, ForeignKey(target, ondelete="CASCADE"), nullable=False)


store_meta = Table(
    "store_meta",
    metadata,
    Column("pk", Integer, primary_key=True),
    Column("store_uuid", Text, nullable=False),
    Column("epoch", Text, nullable=False),
    Column("format", Integer, nullable=False),
    Column("log_floor", Key, nullable=False, server_default=text("0")),
    Column("write_token", LargeBinary),
    Column("index_options", JsonText, info=ADDED),
    Column("history_options", JsonText, info=ADDED),
    CheckConstraint("pk = 1", name="one_row"),
)

namespace = Table(
    "namespace",
    metadata,
    Column("pk", Key, primary_key=True),
    Column("path", Text, nullable=False),
    UniqueConstraint("path"),
)

vector_space = Table(
    "vector_space",
    metadata,
    Column("pk", Key, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False, server_default=text("''")),
    Column("dimension", Integer, nullable=False),
    Column("metric", Text, nullable=False),
    Column("embedder", Text),
    Column("curvature", Float, info=ADDED),
    CheckConstraint("kind IN ('memory', 'assembly')", name="kind"),
    CheckConstraint("dimension > 0", name="dimension"),
    UniqueConstraint("kind", "name"),
)

memory = Table(
    "memory",
    metadata,
    Column("pk", Key, primary_key=True),
    Column("namespace_pk", Key, nullable=False),
    Column("id", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("metadata", JsonText, nullable=False),
    Column("importance", Float, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime),
    Column("accessed_at", UtcTime),
    Column("access_count", Key, nullable=False),
    Column("pinned", Integer, nullable=False, server_default=text("0"), info=ADDED),
    CheckConstraint("json_type(metadata) = 'object'", name="metadata"),
    CheckConstraint("importance BETWEEN 0 AND 1", name="importance"),
    ForeignKeyConstraint(["namespace_pk"], ["namespace.pk"]),
    UniqueConstraint("namespace_pk", "id"),
    # For filters, and for lists in this order. They cost every insert about 1 µs for a time and up to 3 µs for an
    # importance, of 25 µs in a bulk load. `accessed_at` and `access_count` have none: every touch would move an entry.
    Index(None, "namespace_pk", "created_at"),
    Index(None, "namespace_pk", "updated_at"),
    Index(None, "namespace_pk", "importance"),
    Index("ix_memory_expires_at", "expires_at", sqlite_where=text("expires_at IS NOT NULL")),
    sqlite_autoincrement=True,
)

memory_vector = Table(
    "memory_vector",
    metadata,
    _owner("memory_pk", "memory.pk"),
    Column("space_pk", Key, ForeignKey("vector_space.pk"), nullable=False),
    Column("vector", LargeBinary, nullable=False),
    Column("checksum", Key),
    PrimaryKeyConstraint("memory_pk", "space_pk"),
    CheckConstraint("typeof(vector) = 'blob' AND length(vector) % 4 = 0", name="vector"),
)

assembly = Table(
    "assembly",
    metadata,
    Column("pk", Key, primary_key=True),
    Column("namespace_pk", Key, nullable=False),
    Column("id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("topics", JsonText, nullable=False),
    Column("metadata", JsonText, nullable=False),
    Column("revision", Key, nullable=False, server_default=text("0")),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Column("activation", Float, nullable=False, server_default=text("0"), info=ADDED),
    Column("activated_at", UtcTime, info=ADDED),
    Column("activation_count", Key, nullable=False, server_default=text("0"), info=ADDED),
    CheckConstraint("json_type(metadata) = 'object'", name="metadata"),
    CheckConstraint("json_type(topics) = 'array'", name="topics"),
    ForeignKeyConstraint(["namespace_pk"], ["namespace.pk"]),
    UniqueConstraint("namespace_pk", "id"),
    Index(None, "namespace_pk", "created_at"),
    Index(None, "namespace_pk", "updated_at"),
    sqlite_autoincrement=True,
)

assembly_vector = Table(
    "assembly_vector",
    metadata,
    _owner("assembly_pk", "assembly.pk"),
    Column("space_pk", Key, ForeignKey("vector_space.pk"), nullable=False),
    Column("sum", LargeBinary, nullable=False),
    Column("length", Float, nullable=False),
    Column("count", Key, nullable=False),
    Column("vector", LargeBinary),
    Column("checksum", Key),
    Column("revision", Key, nullable=False),
    Column("composed_at", UtcTime, info=ADDED),
    PrimaryKeyConstraint("assembly_pk", "space_pk"),
    CheckConstraint("vector IS NULL OR (typeof(vector) = 'blob' AND length(vector) % 4 = 0)", name="vector"),
)

tag = Table(
    "tag",
    metadata,
    Column("pk", Key, primary_key=True),
    Column("namespace_pk", Key, nullable=False),
    Column("name", Text, nullable=False),
    ForeignKeyConstraint(["namespace_pk"], ["namespace.pk"]),
    UniqueConstraint("namespace_pk", "name"),
)


def live(now: datetime | BindParameter[Any]) -> ColumnElement[bool]:
    """The condition that a row of `memory` has not expired at *now*."""
    return or_(memory.c.expires_at.is_(None), memory.c.expires_at > now)


def _join(name: str, owner: str, other: str) -> Table:
    return Table(
        name,
        metadata,
        _owner(f"{owner}_pk", f"{owner}.pk"),
        _owner(f"{other}_pk", f"{other}.pk"),
        PrimaryKeyConstraint(f"{owner}_pk", f"{other}_pk"),
        Index(None, f"{other}_pk", f"{owner}_pk"),
        sqlite_with_rowid=False,
    )


memory_tag = _join("memory_tag", "memory", "tag")
assembly_tag = _join("assembly_tag", "assembly", "tag")
assembly_member = _join("assembly_member", "assembly", "memory")

tombstone = Table(
    "tombstone",
    metadata,
    Column("pk", Key, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("namespace_pk", Key, ForeignKey("namespace.pk"), nullable=False),
    Column("id", Text, nullable=False),
    Column("record_pk", Key, nullable=False),
    Column("cause", Text, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("actor", Text),
    Column("reason", Text),
    Column("record", JsonText, nullable=False),
    Column("vector", LargeBinary),
    Column("checksum", Key),
    CheckConstraint("kind IN ('memory', 'assembly')", name="kind"),
    CheckConstraint("cause IN ('forgotten', 'merged')", name="cause"),
    CheckConstraint("json_type(record) = 'object'", name="record"),
    Index(None, "namespace_pk", "kind", "id"),
    Index(None, "kind", "at"),
    Index(None, "kind", "record_pk"),
    sqlite_autoincrement=True,
)

assembly_merge = Table(
    "assembly_merge",
    metadata,
    Column("pk", Key, primary_key=True),
    Column("namespace_pk", Key, ForeignKey("namespace.pk"), nullable=False),
    Column("target_pk", Key, nullable=False),
    Column("target_id", Text, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("similarity", Float),
    Column("threshold", Float),
    Column("actor", Text),
    Column("reason", Text),
    Column("brought", JsonText, nullable=False),
    Column("undone_at", UtcTime),
    Column("undone_by", Text),
    Column("undone_reason", Text),
    CheckConstraint("json_type(brought) = 'object'", name="brought"),
    Index(None, "target_pk"),
    Index(None, "namespace_pk", "target_id"),
    sqlite_autoincrement=True,
)

assembly_merge_source = Table(
    "assembly_merge_source",
    metadata,
    _owner("merge_pk", "assembly_merge.pk"),
    Column("source_pk", Key, nullable=False),
    Column("source_id", Text, nullable=False),
    Column("position", Integer, nullable=False),
    PrimaryKeyConstraint("merge_pk", "source_pk"),
    Index(None, "source_pk"),
)

journal = Table(
    "journal",
    metadata,
    Column("pk", Key, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("namespace_pk", Key, nullable=False),  # no foreign key: raw SQL may delete a record without a namespace
    Column("first_pk", Key, nullable=False),
    Column("last_pk", Key, nullable=False),
    Column("id", Text),
    Column("what", Text, nullable=False),
    Column("at", Key, nullable=False),
    Column("actor", Text),
    Column("reason", Text),
    Column("undoes", Key),
    Column("old", Text),
    Column("vector", LargeBinary),
    Column("checksum", Key),
    CheckConstraint("kind IN ('memory', 'assembly')", name="kind"),
    # The keys that one write added are one row, found by the last key; every other row is about one record.
    Index("ix_journal_added", "kind", "last_pk", sqlite_where=text("what = 'added'")),
    Index("ix_journal_changed", "kind", "last_pk", sqlite_where=text("what <> 'added'")),
    Index("ix_journal_id", "namespace_pk", "kind", "id", sqlite_where=text("id IS NOT NULL")),
    sqlite_autoincrement=True,
)

change_log = Table(
    "change_log",
    metadata,
    Column("seq", Key, primary_key=True),
    Column("space_pk", Key, nullable=False),
    Column("pk", Key, nullable=False),
    sqlite_autoincrement=True,
)

index_snapshot = Table(
    "index_snapshot",
    metadata,
    Column("pk", Key, primary_key=True),
    _owner("space_pk", "vector_space.pk"),
    Column("epoch", Text, nullable=False),
    Column("seq", Key, nullable=False),
    Column("parameters", JsonText, nullable=False),
    Column("chunks", Integer, nullable=False),
    Column("complete", Integer, nullable=False, server_default=text("0")),
    CheckConstraint("json_type(parameters) = 'object'", name="parameters"),
    CheckConstraint("complete IN (0, 1)", name="complete"),
    sqlite_autoincrement=True,
)

index_chunk = Table(
    "index_chunk",
    metadata,
    _owner("snapshot_pk", "index_snapshot.pk"),
    Column("number", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    PrimaryKeyConstraint("snapshot_pk", "number"),
)


OWN_TABLES = frozenset({*metadata.tables, VERSION_TABLE})


def include_object(object: Any, name: str | None, type_: str, reflected: bool, compare_to: Any) -> bool:  # noqa: ARG001
    """For a host application's Alembic: exclude memstore's tables from its comparison.

    Pass it as `include_object` to `context.configure`, or call it from your function.
    """
    table = name if type_ == "table" else getattr(getattr(object, "table", None), "name", None)
    return table not in OWN_TABLES

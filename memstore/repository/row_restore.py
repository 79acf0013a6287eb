"""Rows written as they were stored before: under the key they had, columns and vectors bit for bit."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, update
from sqlalchemy.types import NullType

from memstore.database.driver_errors import translated
from memstore.models.records import RecordKind
from memstore.repository.history_writer import RowVersion
from memstore.repository.record_types import BY_KIND, RecordType
from memstore.repository.statements import Prepared
from memstore.repository.vectors import VectorSpace, put_statement
from memstore.schema.tables import memory_vector

_PUT_VECTOR = Prepared(lambda: put_statement(memory_vector))
_DELETE_VECTOR = Prepared(lambda: delete(memory_vector).where(memory_vector.c.memory_pk == bindparam("memory")))


def insert_row(connection: Connection, record_type: RecordType, version: RowVersion) -> None:
    """Insert the row of a deleted record, under the key it had."""
    names = ("pk", "namespace_pk", *version.columns)
    with translated():
        values = (version.pk, version.namespace_pk, *version.columns.values())
        insert_statement(record_type.kind, names).many(connection, [values])


def update_columns(connection: Connection, record_type: RecordType, key: int, values: Mapping[str, Any]) -> None:
    """Set columns of a record to *values*, as stored."""
    if values:
        with translated():
            _update(record_type.kind, tuple(values)).many(connection, [(*values.values(), key)])


def set_vector(
    connection: Connection, space: VectorSpace, key: int, vector: bytes | None, checksum: int | None
) -> None:
    """Give a memory a vector, as stored; None removes the one it has."""
    if vector is None:
        _DELETE_VECTOR.run(connection, memory=key)
    else:
        _PUT_VECTOR.run(connection, memory_pk=key, space_pk=space.pk, vector=vector, checksum=checksum)


@lru_cache(16)
def insert_statement(kind: RecordKind, names: tuple[str, ...]) -> Prepared:
    """The INSERT of a record's row with the columns *names*, as stored; the others have their default."""
    values = {name: bindparam(name, type_=NullType()) for name in names}
    return Prepared(lambda: insert(BY_KIND[kind].table).values(values))


@lru_cache(256)
def _update(kind: RecordKind, names: tuple[str, ...]) -> Prepared:
    table = BY_KIND[kind].table
    values = [(table.c[name], bindparam(f"new_{name}", type_=NullType())) for name in names]
    return Prepared(lambda: update(table).where(table.c.pk == bindparam("row")).ordered_values(*values))

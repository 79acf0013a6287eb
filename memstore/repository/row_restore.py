"""Records put back: rows under the keys they had, columns and vectors bit for bit."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.types import NullType

from memstore.database.driver_errors import translated
from memstore.models.records import RecordKind
from memstore.repository.history_writer import RowVersion
from memstore.repository.key_lists import keys_in, keys_json
from memstore.repository.record_types import BY_KIND, RECORD_TYPES, RecordType
from memstore.repository.statements import Prepared
from memstore.repository.vectors import VectorSpace
from memstore.schema.tables import memory_vector

_put = sqlite_insert(memory_vector).values({c.name: bindparam(c.name, type_=NullType()) for c in memory_vector.c})
_PUT = Prepared(
    _put.on_conflict_do_update(
        index_elements=["memory_pk", "space_pk"],
        set_={"vector": _put.excluded.vector, "checksum": _put.excluded.checksum},
    )
)
_DROP = Prepared(delete(memory_vector).where(memory_vector.c.memory_pk == bindparam("memory")))
_THERE = {
    n.kind: Prepared(select(n.table.c.pk).where(n.table.c.pk.in_(select(keys_in().c.value)))) for n in RECORD_TYPES
}


def insert_again(connection: Connection, noun: RecordType, was: RowVersion) -> None:
    """Store the row of a record that went, under the key it had."""
    names = ("pk", "namespace_pk", *was.columns)
    with translated():
        _insert(noun.kind, names).many(connection, [(was.pk, was.namespace_pk, *was.columns.values())])


def change(connection: Connection, noun: RecordType, key: int, values: Mapping[str, Any]) -> None:
    """Give the columns of a record these *values*, as stored."""
    if values:
        with translated():
            _update(noun.kind, tuple(values)).many(connection, [(*values.values(), key)])


def put_vector(
    connection: Connection, space: VectorSpace, key: int, vector: bytes | None, checksum: int | None
) -> None:
    """Give a memory a vector, as stored, or none."""
    if vector is None:
        _DROP.run(connection, memory=key)
    else:
        _PUT.run(connection, memory_pk=key, space_pk=space.pk, vector=vector, checksum=checksum)


def there(connection: Connection, noun: RecordType, keys: Iterable[int]) -> list[int]:
    """Those of *keys* whose records are there, ascending."""
    return sorted(pk for (pk,) in _THERE[noun.kind].run(connection, keys=keys_json(list(keys))))


@lru_cache(16)
def _insert(kind: RecordKind, names: tuple[str, ...]) -> Prepared:
    return Prepared(insert(BY_KIND[kind].table).values({name: bindparam(name, type_=NullType()) for name in names}))


@lru_cache(256)
def _update(kind: RecordKind, names: tuple[str, ...]) -> Prepared:
    table = BY_KIND[kind].table
    values = [(table.c[name], bindparam(f"new_{name}", type_=NullType())) for name in names]
    return Prepared(update(table).where(table.c.pk == bindparam("row")).ordered_values(*values))

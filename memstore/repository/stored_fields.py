"""Fields and records decoded from the values that history rows and tombstones store for the columns of a record."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

from sqlalchemy import BigInteger, Column, Float, Integer, Text

from memstore.models.history import FieldValue
from memstore.models.records import Embedding, Namespace
from memstore.repository import assemblies, memories
from memstore.repository.corruption import corrupt_value
from memstore.repository.record_types import MEMORY, RecordType
from memstore.schema.types import JsonText, UtcTime
from memstore.timestamps import from_micros

_STORED_TYPES: dict[type, type[Any]] = {
    Text: str,
    JsonText: str,
    UtcTime: int,
    Integer: int,
    BigInteger: int,
    Float: float,
}
"""The Python type of a stored value, by the type of its column."""

_JSON_TYPES: dict[str, type] = {"metadata": dict, "topics": list}


def stored_type(column: Column[Any]) -> type[Any]:
    """The Python type of the values that *column* stores."""
    return _STORED_TYPES[type(column.type)]


def decode_field(record_type: RecordType, name: str, stored: Any) -> FieldValue:
    """The value of the field in the column *name*, where it is *stored* so. Raises `DamagedError`."""
    column = record_type.table.c[name]
    if stored is None and column.nullable:
        return None
    if not isinstance(stored, stored_type(column)):
        raise corrupt_value(f"an earlier {record_type.kind}.{name}", stored_type(column).__name__, stored)
    if isinstance(column.type, UtcTime):
        return from_micros(stored)
    if isinstance(column.type, JsonText):
        value: Any = json.loads(stored)
        if not isinstance(value, _JSON_TYPES[name]):
            raise corrupt_value(f"an earlier {record_type.kind}.{name}", f"JSON {_JSON_TYPES[name].__name__}", stored)
        return cast("FieldValue", tuple(value) if isinstance(value, list) else value)
    return bool(stored) if name == "pinned" else cast("FieldValue", stored)


def decode_fields(record_type: RecordType, columns: Mapping[str, Any], names: Iterable[str]) -> dict[str, FieldValue]:
    """The fields among *names* that *columns* has as stored values."""
    unique = frozenset(names)
    return {name: decode_field(record_type, name, value) for name, value in columns.items() if name in unique}


def to_record(
    record_type: RecordType,
    columns: Mapping[str, Any],
    *,
    namespace: Namespace,
    tags: frozenset[str],
    vector: Embedding | None,
    member_count: int = 0,
) -> Any:
    """The record, a `Memory` or an `Assembly`, whose columns were stored as *columns*. Raises `DamagedError`.

    A column that was added to the table later can be missing in *columns*. *vector* is the embedding of a memory, or
    the composite of an assembly.
    """
    values = {name: columns.get(name, _default(record_type, name)) for name in record_type.columns}
    if record_type is MEMORY:
        return memories.memory_of(list(values.values()), namespace, tags, vector)
    return assemblies.assembly_of(values, namespace, tags, member_count, vector)


def _default(record_type: RecordType, name: str) -> Any:
    """The value of a column in rows that were stored before it was added; None where it has no default."""
    column = record_type.table.c[name]
    if column.server_default is None:
        return None
    return stored_type(column)(str(cast("Any", column.server_default).arg))

"""The fields of memories and assemblies, each declared once.

Columns, checks, filters, orders and JSON forms derive from these two tables. `models.records` repeats the names: a
dataclass spells its fields out, and a test compares both.
"""

from dataclasses import dataclass
from typing import Literal

from memstore.models.records import RecordKind

FieldKind = Literal["text", "number", "boolean", "time", "json", "tags", "vector"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordField:
    """One field of a record.

    Attributes:
        name: its attribute and keyword.
        kind: what its values are, as filters compare them.
        column: its column in the record's own table; None where it is in another table or computed.
        integer: of a number, whether it is a whole one.
        optional: whether its value can be None.
        filterable: whether a filter can name it.
        orderable: whether a list can be in its order.
        computed: whether the store computes it, so that no caller passes it and no export contains it.
    """

    name: str
    kind: FieldKind
    column: str | None
    integer: bool = False
    optional: bool = False
    filterable: bool = True
    orderable: bool = False
    computed: bool = False


def _in_row(name: str, kind: FieldKind, *, column: str | None = None, **flags: bool) -> RecordField:
    return RecordField(name=name, kind=kind, column=column or name, **flags)


def _elsewhere(name: str, kind: FieldKind, **flags: bool) -> RecordField:
    return RecordField(name=name, kind=kind, column=None, **flags)


RECORD_FIELDS: dict[RecordKind, tuple[RecordField, ...]] = {
    "memory": (
        _in_row("id", "text", orderable=True),
        _in_row("content", "text", orderable=True),
        _elsewhere("embedding", "vector", optional=True),
        _elsewhere("tags", "tags"),
        _in_row("metadata", "json"),
        _in_row("importance", "number", orderable=True),
        _in_row("created_at", "time", orderable=True),
        _in_row("updated_at", "time", orderable=True),
        _in_row("expires_at", "time", optional=True, orderable=True),
        _in_row("accessed_at", "time", optional=True, orderable=True),
        _in_row("access_count", "number", integer=True, orderable=True),
        _in_row("pinned", "boolean"),
    ),
    "assembly": (
        _in_row("id", "text", orderable=True),
        _in_row("name", "text", orderable=True),
        _in_row("description", "text"),
        _elsewhere("tags", "tags"),
        _in_row("topics", "json"),
        _in_row("metadata", "json"),
        _elsewhere("member_count", "number", integer=True, computed=True),
        _elsewhere("composite", "vector", optional=True, computed=True),
        _in_row("revision", "number", integer=True, orderable=True, computed=True),
        _in_row("created_at", "time", orderable=True),
        _in_row("updated_at", "time", orderable=True),
        _elsewhere("activation", "number", filterable=False, computed=True),
        _in_row("activation_level", "number", column="activation", filterable=False),
        _in_row("activated_at", "time", optional=True, orderable=True),
        _in_row("activation_count", "number", integer=True, orderable=True),
    ),
}
"""The fields by kind of record, but the namespace, which is where a record is."""


def orders(kind: RecordKind) -> frozenset[str]:
    """The fields in whose order a list of records can be."""
    return frozenset(field.name for field in RECORD_FIELDS[kind] if field.orderable)


def computed(kind: RecordKind) -> frozenset[str]:
    """The fields that the store computes."""
    return frozenset(field.name for field in RECORD_FIELDS[kind] if field.computed)


TIMES = frozenset(field.name for fields in RECORD_FIELDS.values() for field in fields if field.kind == "time")
"""The fields that hold a time, which JSON has no type for."""

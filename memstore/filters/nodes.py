"""The nodes of a parsed filter, its fields, and the kinds of its values.

Always true of a node that `parse` returns: its field exists, the field allows its operator, and its operands are copies
of plain types. Times are in UTC. `$ne`, `$nin` and `$exists: False` are a `Not`; `$eq` is an `IsIn` of one value.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from memstore.models.fields import RECORD_FIELDS, FieldKind
from memstore.models.records import RecordKind

ValueKind = Literal["null", "boolean", "number", "text", "time", "list", "object", "other"]
Order = Literal["$gt", "$gte", "$lt", "$lte"]
Operand = None | bool | int | float | str | datetime | list["Operand"] | dict[str, "Operand"]
Scalar = bool | int | float | str | datetime

FIELDS: dict[RecordKind, dict[str, FieldKind]] = {
    kind: {field.name: field.kind for field in fields if field.filterable} for kind, fields in RECORD_FIELDS.items()
}
"""The fields that a filter can name, and their kinds."""

ORDERS: dict[Order, Callable[..., bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a record, or the value in its metadata at the path *keys*."""

    name: str
    kind: FieldKind
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class And:
    """Every part is true. True without parts."""

    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one part is true."""

    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part is false."""

    part: "Node"


@dataclass(frozen=True, slots=True)
class Exists:
    """The field exists."""

    field: Field


@dataclass(frozen=True, slots=True)
class IsIn:
    """The field equals one of *values*: frozensets of texts for tags, else plain operands."""

    field: Field
    values: tuple[Operand | frozenset[str], ...]


@dataclass(frozen=True, slots=True)
class Compare:
    """The field has the kind of the operand and is in this order to it."""

    field: Field
    order: Order
    operand: Scalar


@dataclass(frozen=True, slots=True)
class Contains:
    """The field is a text, a list or a set that contains the operand."""

    field: Field
    operand: Operand


@dataclass(frozen=True, slots=True)
class StartsWith:
    """The field is a text that starts with *prefix*."""

    field: Field
    prefix: str


Test = Exists | IsIn | Compare | Contains | StartsWith
Node = And | Or | Not | Test

EVERYTHING = And(())
"""The node of `{}`, also nested in `$and`."""


JSON_TYPES: dict[ValueKind, tuple[str, ...]] = {
    "null": ("null",),
    "boolean": ("true", "false"),
    "number": ("integer", "real"),
    "text": ("text",),
    "list": ("array",),
    "object": ("object",),
}
"""The names in SQLite's `json_type` of the kinds of values in metadata. JSON has no times."""

_LAST_CHARACTER = "\U0010ffff"


def prefix_end(prefix: str) -> str | None:
    """The first text after all texts that start with *prefix*; None where there is none.

    It is the prefix with its last character raised by one. A range, unlike LIKE, continues after U+0000 and can use an
    index.
    """
    head = prefix.rstrip(_LAST_CHARACTER)
    if not head:
        return None
    last = ord(head[-1]) + 1
    return head[:-1] + ("\ue000" if last == 0xD800 else chr(last))  # after the surrogates, which are no characters


def kind_of(value: object) -> ValueKind:
    """The kind of a value. Values of two kinds are never equal, and have no order."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "text"
        case datetime():
            return "time"
        case list():
            return "list"
        case dict():
            return "object"
        case _:
            return "other"

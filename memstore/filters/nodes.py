"""What a filter is made of: fields, kinds of values, and the nodes that `parse` returns.

True of every node that `parse` returns: its field exists, its operator suits the field, and its operands are plain
values of this package's own (a caller who changes the mapping afterwards changes nothing). Times are in UTC. `$ne`,
`$nin` and `$exists: False` are a `Not`; `$eq` is an `IsIn` of one value.
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
"""The kinds of the fields that a filter can name."""

ORDERS: dict[Order, Callable[..., bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a record, or a value inside its metadata: *keys* are the steps from the metadata to it."""

    name: str
    kind: FieldKind
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class And:
    """Every part holds; without parts, always true."""

    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one part holds."""

    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: "Node"


@dataclass(frozen=True, slots=True)
class Exists:
    """The field is there."""

    field: Field


@dataclass(frozen=True, slots=True)
class IsIn:
    """The field is the same as one of *values*; frozensets of texts on tags, else plain operands."""

    field: Field
    values: tuple[Operand | frozenset[str], ...]


@dataclass(frozen=True, slots=True)
class Compare:
    """The field is of the operand's kind and in this order to it."""

    field: Field
    order: Order
    operand: Scalar


@dataclass(frozen=True, slots=True)
class Contains:
    """The field is a text that holds the operand, or a list or a set of which it is a member."""

    field: Field
    operand: Operand


@dataclass(frozen=True, slots=True)
class StartsWith:
    """The field is a text that begins with *prefix*."""

    field: Field
    prefix: str


Test = Exists | IsIn | Compare | Contains | StartsWith
Node = And | Or | Not | Test

EVERYTHING = And(())
"""What `{}` parses to, and every nesting of it in `$and`."""


JSON_TYPES: dict[ValueKind, tuple[str, ...]] = {
    "null": ("null",),
    "boolean": ("true", "false"),
    "number": ("integer", "real"),
    "text": ("text",),
    "list": ("array",),
    "object": ("object",),
}
"""How SQLite's `json_type` names the kinds of values in metadata. It has no times."""

_LAST_CHARACTER = "\U0010ffff"


def prefix_end(prefix: str) -> str | None:
    """The least text after all texts that begin with *prefix*; None where there is none.

    It is the prefix with its last character raised by one. Unlike LIKE, a range does not end at U+0000, and an index
    can serve it.
    """
    head = prefix.rstrip(_LAST_CHARACTER)
    if not head:
        return None
    last = ord(head[-1]) + 1
    return head[:-1] + ("\ue000" if last == 0xD800 else chr(last))  # surrogates are no characters


def kind_of(value: object) -> ValueKind:
    """The kind of a value: only values of one kind are ever the same, or in an order."""
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

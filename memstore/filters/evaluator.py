"""The definition of a filter as a slow evaluator over records. Tests compare the SQL with it.

It is written for readers, not for speed: one line for each rule of the language.
"""

from typing import Final

from memstore.filters.nodes import (
    ORDERS,
    And,
    Compare,
    Contains,
    Exists,
    Field,
    IsIn,
    Node,
    Not,
    Or,
    StartsWith,
    Test,
    kind_of,
)
from memstore.models.records import Assembly, Memory

_MISSING: Final = object()


def matches(node: Node, record: Memory | Assembly) -> bool:
    """Whether the filter selects *record*. The filter was parsed for the record's kind."""
    match node:
        case And(parts):
            return all(matches(part, record) for part in parts)
        case Or(parts):
            return any(matches(part, record) for part in parts)
        case Not(part):
            return not matches(part, record)
        case _:
            value = _value(node.field, record)
            return value is not _MISSING and _passes(node, value)


def _value(field: Field, record: Memory | Assembly) -> object:
    value: object = getattr(record, field.name)
    for key in field.keys:
        if not isinstance(value, dict) or key not in value:
            return _MISSING
        value = value[key]
    return list(value) if isinstance(value, tuple) else value  # topics are a tuple


def _passes(test: Test, value: object) -> bool:
    match test:
        case Exists():
            return True
        case IsIn(values=values):
            return any(_equal(value, other) for other in values)
        case Compare(order=order, operand=operand):
            return kind_of(value) == kind_of(operand) and ORDERS[order](value, operand)
        case StartsWith(prefix=prefix):
            return isinstance(value, str) and value.startswith(prefix)
        case Contains(operand=operand):
            return _contains(value, operand)


def _contains(value: object, operand: object) -> bool:
    if isinstance(value, str):
        return isinstance(operand, str) and operand in value
    return isinstance(value, list | frozenset) and any(_equal(item, operand) for item in value)


def _equal(value: object, other: object) -> bool:
    if isinstance(value, frozenset):
        return value == other
    if kind_of(value) != kind_of(other):
        return False
    match value, other:
        case list(), list():
            return len(value) == len(other) and all(map(_equal, value, other))
        case dict(), dict():
            return value.keys() == other.keys() and all(_equal(value[key], other[key]) for key in value)
        case _:
            return value == other

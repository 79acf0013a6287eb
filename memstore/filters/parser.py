"""The one place that checks a filter: `parse` turns what callers write into nodes, or says what to write instead."""

import difflib
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import cast

from memstore.errors import FilterError, InvalidError, short_repr
from memstore.filters.json_paths import checked_key, keys, plain_text, short
from memstore.filters.nodes import (
    EVERYTHING,
    FIELDS,
    ORDERS,
    And,
    Compare,
    Contains,
    Exists,
    Field,
    IsIn,
    Node,
    Not,
    Operand,
    Or,
    Order,
    Scalar,
    StartsWith,
)
from memstore.models.fields import FieldKind
from memstore.models.records import RecordKind
from memstore.validation.values import check_time

MAX_LEVELS = 20
MAX_OPERANDS = 1_000

Where = Mapping[str, object]
"""A filter as callers write it."""

_OPERATORS = ("$eq", "$ne", "$in", "$nin", *ORDERS, "$exists", "$contains", "$startswith", "$not")
_JOINS = ("$and", "$or", "$not")
_ALLOWED: dict[FieldKind, frozenset[str]] = {
    "tags": frozenset({"$eq", "$ne", "$in", "$nin", "$contains", "$exists", "$not"}),
    "vector": frozenset({"$eq", "$ne", "$in", "$nin", "$exists", "$not"}),
}
_INT64 = range(-(2**63), 2**63)


def parse(where: Where, record_kind: RecordKind) -> Node:
    """Check a filter over records of one *record_kind*.

    Raises:
        FilterError: the language does not have it; the message says what to write instead.
    """
    return _Parser(record_kind).filter(where, 1)


def _all_of(parts: Iterable[Node]) -> Node:
    flat: list[Node] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, And) else (part,))
    return flat[0] if len(flat) == 1 else And(tuple(flat))


def _negated(node: Node) -> Node:
    return node.part if isinstance(node, Not) else Not(node)


class _Parser:
    """One run of `parse`: it knows the record_kind, and counts the operands."""

    def __init__(self, record_kind: RecordKind) -> None:
        self._kind = record_kind
        self._operands = 0

    def filter(self, where: object, level: int) -> Node:
        if not isinstance(where, Mapping):
            raise FilterError(f"a filter is a mapping such as {{'importance': 0.5}}; got {short_repr(where)}")
        self._go_to(level)
        if not where:
            self._count()
        return _all_of([self._entry(key, value, level) for key, value in where.items()])

    def _entry(self, key: object, value: object, level: int) -> Node:
        if not isinstance(key, str):
            raise FilterError(f"the keys of a filter are names of fields, as text; got {short_repr(key)}")
        key = str.__str__(key)  # one of a subclass may say anything of itself
        if not key.startswith("$"):
            return self._tests(self._field(key), value, level)
        if key == "$not":
            return _negated(self.filter(value, level + 1))
        if key not in _JOINS:
            hint = (
                f"{key} stands under a field: {{field: {{{key!r}: …}}}}" if key in _OPERATORS else _nearest(key, _JOINS)
            )
            raise FilterError(f"{short(key)} joins no filters; {hint}")
        if not isinstance(value, list | tuple) or not value:
            raise FilterError(f"{key} takes a list of one filter or more; got {short_repr(value)}")
        parts = [self.filter(part, level + 1) for part in value]
        if key == "$and":
            return _all_of(parts)
        return EVERYTHING if EVERYTHING in parts else Or(tuple(parts))

    def _tests(self, field: Field, value: object, level: int) -> Node:
        if isinstance(value, Mapping) and value:
            operators = [key for key in value if isinstance(key, str) and key.startswith("$")]
            if len(operators) == len(value):
                return self._tests_of(field, value, level)
            if operators:
                raise FilterError(
                    f"{short(operators[0])} stands beside keys that are no operators: to compare {field.name} with a "
                    'whole object write {"$eq": {…}}, to test a value inside it name the path: metadata.a.b'
                )
        return IsIn(field, (self._value(field, value, level),))

    def _tests_of(self, field: Field, tests: Mapping[str, object], level: int) -> Node:
        return _all_of([self._test(field, name, operand, level) for name, operand in tests.items()])

    def _test(self, field: Field, name: str, operand: object, level: int) -> Node:
        name = str.__str__(name)
        _check_operator(field, name)
        match name:
            case "$eq" | "$ne":
                test: Node = IsIn(field, (self._value(field, operand, level),))
            case "$in" | "$nin":
                test = self._is_in(field, name, operand, level)
            case "$exists":
                self._count()
                if not isinstance(operand, bool):
                    raise FilterError(f"$exists takes True or False; got {short_repr(operand)}")
                test = Exists(field) if operand else Not(Exists(field))
            case "$contains":
                test = Contains(field, self._content(field, operand, level))
            case "$startswith":
                test = StartsWith(field, self._text(f"$startswith on {field.name}", operand))
            case "$not":
                test = self._not(field, operand, level + 1)
            case _:
                test = Compare(field, cast("Order", name), self._scalar(name, operand, level))
        return _negated(test) if name in ("$ne", "$nin") else test

    def _not(self, field: Field, operand: object, level: int) -> Node:
        self._go_to(level)
        if not isinstance(operand, Mapping) or not operand:
            raise FilterError("$not on a field takes operators, such as {'$gt': 1}; for another value use $ne")
        for key in operand:
            if not isinstance(key, str) or not key.startswith("$"):
                raise FilterError(f"$not on a field takes operators only; got {short_repr(key)}: use $ne on an object")
        return _negated(self._tests_of(field, operand, level))

    def _is_in(self, field: Field, name: str, operand: object, level: int) -> IsIn:
        if not isinstance(operand, list | tuple | set | frozenset):
            raise FilterError(f"{name} takes a list of values; got {short_repr(operand)}")
        if not operand:
            self._count()
        return IsIn(field, tuple(self._value(field, value, level) for value in operand))

    def _value(self, field: Field, value: object, level: int) -> Operand | frozenset[str]:
        if field.kind == "tags":
            return self._tags(value)
        if field.kind == "vector" and value is not None:
            raise FilterError(f"{field.name} compares with None only: to find what is near a vector use search()")
        return self._operand(value, level)

    def _tags(self, value: object) -> frozenset[str]:
        if not isinstance(value, list | tuple | set | frozenset):
            raise FilterError(
                f"tags are compared with a whole set of texts; got {short_repr(value)}: for records that have a tag "
                'write {"tags": {"$contains": "a"}}, for one of several tags $or of these'
            )
        if not value:
            self._count()
        return frozenset(self._text("one of tags", tag) for tag in value)

    def _content(self, field: Field, value: object, level: int) -> Operand:
        if field.kind in ("tags", "text"):
            return self._text(f"$contains on {field.name}", value)
        return self._operand(value, level)

    def _text(self, what: str, value: object) -> str:
        if not isinstance(value, str):
            raise FilterError(f"{what} is a text (str); got {short_repr(value)}")
        self._count()
        return plain_text(value)

    def _scalar(self, name: str, value: object, level: int) -> Scalar:
        if not isinstance(value, bool | int | float | str | datetime):
            raise FilterError(f"{name} takes a number, a text, a boolean or a time; got {short_repr(value)}")
        return cast("Scalar", self._operand(value, level))

    def _operand(self, value: object, level: int) -> Operand:
        self._count()
        match value:
            case None | bool():
                return value
            case int():
                number = int.__int__(value)  # a range looks for one of a subclass, such as an enum's, item by item
                if number not in _INT64:
                    raise FilterError("an integer beyond 64 bits is never stored: compare with a float, or with text")
                return number
            case float():
                if not math.isfinite(value):
                    raise FilterError(
                        f"{short_repr(value)} is never stored: to find what is missing or null use $exists or None"
                    )
                return float.__float__(value)
            case str():
                return plain_text(value)
            case datetime():
                return _utc(value)
            case list() | tuple():
                self._go_to(level + 1)
                return [self._operand(item, level + 1) for item in value]
            case Mapping():
                self._go_to(level + 1)
                return {checked_key(key): self._operand(item, level + 1) for key, item in value.items()}
            case _:
                raise FilterError(
                    f"a {type(value).__name__} is never stored, so nothing is the same as it: compare with None, a "
                    "boolean, a number, a text, an aware datetime, a list or an object of these"
                )

    def _field(self, name: str) -> Field:
        known = FIELDS[self._kind]
        root = name.partition(".")[0].partition("[")[0]
        if root == "metadata":
            return Field("metadata", "json", keys(name))
        if name in known:
            return Field(name, known[name])
        if root == "namespace":
            raise FilterError(
                "a filter sees one namespace: call the verb on store.namespace(...), or give recursive=True to see all "
                "namespaces below it"
            )
        if root in known:
            raise FilterError(f"{short(name)}: {root} has no values inside it that can be named; only metadata has")
        raise FilterError(
            f"{'an' if self._kind == 'assembly' else 'a'} {self._kind} has no field {short(name)}; "
            f"{_nearest(name, known)}. A value in metadata is written metadata.{name[:40] or 'key'}"
        )

    def _count(self) -> None:
        self._operands += 1
        if self._operands > MAX_OPERANDS:
            raise FilterError(f"a filter has at most {MAX_OPERANDS:,} operands: split the call, or store a common mark")

    def _go_to(self, level: int) -> None:
        if level > MAX_LEVELS:
            raise FilterError(f"a filter has at most {MAX_LEVELS} levels: flatten its $and, $or and $not")


def _check_operator(field: Field, name: str) -> None:
    if name in ("$and", "$or"):
        raise FilterError(f"{name} joins whole filters: write {{{name!r}: [{{{field.name!r}: …}}, …]}}")
    if name not in _OPERATORS:
        raise FilterError(f"there is no operator {short(name)}; {_nearest(name, _OPERATORS)}")
    allowed = _ALLOWED.get(field.kind)
    if allowed is not None and name not in allowed:
        raise FilterError(f"{name} does not work on {field.name}; these do: {', '.join(sorted(allowed))}")


def _utc(value: datetime) -> datetime:
    try:
        return check_time("a time in a filter", value)
    except InvalidError as error:
        raise FilterError(str(error)) from error


def _nearest(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name[:100], names, n=1, cutoff=0.7)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"

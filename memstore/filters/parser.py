"""The parser of filters: `parse` checks a mapping and returns nodes. No other module checks a filter."""

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
    kind_of,
)
from memstore.models.fields import RECORD_FIELDS, FieldKind
from memstore.models.records import RecordKind
from memstore.validation.values import check_time
from memstore.vectors.scalars import plain_scalar

MAX_LEVELS = 20
MAX_OPERANDS = 1_000

Where = Mapping[str, object]
"""A filter as callers write it."""

_OPERATORS = ("$eq", "$ne", "$in", "$nin", *ORDERS, "$exists", "$contains", "$startswith", "$not")
_JOINS = ("$and", "$or", "$not")
_EQUALITY = frozenset({"$eq", "$ne", "$in", "$nin", "$exists", "$not"})
_ALLOWED: dict[str, frozenset[str]] = {
    "number": _EQUALITY | ORDERS.keys(),
    "boolean": _EQUALITY | ORDERS.keys(),
    "time": _EQUALITY | ORDERS.keys(),
    "tags": _EQUALITY | {"$contains"},
    "topics": _EQUALITY | {"$contains"},
    "metadata": _EQUALITY,
    "vector": _EQUALITY,
}
"""The operators that can match, by the kind of a field or the name of a JSON field; others allow every operator."""

_EXPECTED: dict[FieldKind, str] = {
    "text": "text (str)",
    "number": "a number",
    "boolean": "True or False",
    "time": "an aware datetime, or ISO 8601 text with an offset such as '2026-01-31T12:00:00+00:00'",
}
_OPTIONAL = {
    kind: frozenset(field.name for field in fields if field.optional) for kind, fields in RECORD_FIELDS.items()
}
_INT64 = range(-(2**63), 2**63)


def parse(where: Where, record_kind: RecordKind) -> Node:
    """The nodes of a filter over records of *record_kind*.

    Raises:
        FilterError: the filter is invalid; the message says what to write instead.
    """
    try:
        return _Parser(record_kind).filter(where, 1)
    except FilterError as error:
        raise error.with_traceback(None) from error.__cause__  # without the frames of the recursion


def _all_of(parts: Iterable[Node]) -> Node:
    flat: list[Node] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, And) else (part,))
    return flat[0] if len(flat) == 1 else And(tuple(flat))


def _negated(node: Node) -> Node:
    return node.part if isinstance(node, Not) else Not(node)


class _Parser:
    """One run of `parse`, with its count of operands."""

    def __init__(self, record_kind: RecordKind) -> None:
        self._kind = record_kind
        self._operands = 0

    def filter(self, where: object, level: int) -> Node:
        if not isinstance(where, Mapping):
            raise FilterError(
                f"Invalid filter: expected a mapping, such as {{'importance': 0.5}}, found {short_repr(where)}"
            )
        self._check_level(level)
        if not where:
            self._count()
        return _all_of([self._entry(key, value, level) for key, value in where.items()])

    def _entry(self, key: object, value: object, level: int) -> Node:
        if not isinstance(key, str):
            raise FilterError(f"Invalid key of a filter: expected the name of a field as text, found {short_repr(key)}")
        key = str.__str__(key)  # a subclass of str can override startswith
        if not key.startswith("$"):
            return self._tests(self._field(key), value, level)
        if key == "$not":
            return _negated(self.filter(value, level + 1))
        if key not in _JOINS:
            hint = f"Write it under a field: {{field: {{{key!r}: …}}}}" if key in _OPERATORS else _nearest(key, _JOINS)
            raise FilterError(f"Invalid key {short(key)} at the top of a filter: it joins no filters. {hint}")
        if not isinstance(value, list | tuple) or not value:
            raise FilterError(f"Invalid {key}: expected a list of at least one filter, found {short_repr(value)}")
        parts = [self.filter(part, level + 1) for part in value]
        if key == "$and":
            return _all_of(parts)
        return EVERYTHING if EVERYTHING in parts else Or(tuple(parts))

    def _tests(self, field: Field, value: object, level: int) -> Node:
        if isinstance(value, Mapping) and value:
            operators = [key for key in value if isinstance(key, str) and key.startswith("$")]
            if len(operators) == len(value):
                return self._operators(field, value, level)
            if operators:
                raise FilterError(
                    f"Invalid test of {field.name}: it mixes the operator {short(operators[0])} with other keys. To "
                    'compare with a whole object, write {"$eq": {…}}. To test a value inside it, write the path: '
                    "metadata.a.b"
                )
            _check_object(field, value)
        return IsIn(field, (self._value(field, value, level),))

    def _operators(self, field: Field, tests: Mapping[str, object], level: int) -> Node:
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
                    raise FilterError(f"Invalid $exists: expected True or False, found {short_repr(operand)}")
                test = Exists(field) if operand else Not(Exists(field))
            case "$contains":
                test = Contains(field, self._item(field, operand, level))
            case "$startswith":
                test = StartsWith(field, self._text(f"$startswith on {field.name}", operand))
            case "$not":
                test = self._not(field, operand, level + 1)
            case _:
                test = Compare(field, cast("Order", name), self._scalar(field, name, operand, level))
        return _negated(test) if name in ("$ne", "$nin") else test

    def _not(self, field: Field, operand: object, level: int) -> Node:
        self._check_level(level)
        if not isinstance(operand, Mapping) or not operand:
            raise FilterError(
                f"Invalid $not on a field: expected operators, such as {{'$gt': 1}}, found {short_repr(operand)}. "
                "To exclude a value, use $ne"
            )
        for key in operand:
            if not isinstance(key, str) or not key.startswith("$"):
                raise FilterError(
                    f"Invalid $not on a field: expected operators only, found the key {short_repr(key)}. To exclude an "
                    "object, use $ne"
                )
        return _negated(self._operators(field, operand, level))

    def _is_in(self, field: Field, name: str, operand: object, level: int) -> IsIn:
        if not isinstance(operand, list | tuple | set | frozenset):
            raise FilterError(f"Invalid {name}: expected a list of values, found {short_repr(operand)}")
        if not operand:
            self._count()
        return IsIn(field, tuple(self._value(field, value, level) for value in operand))

    def _value(self, field: Field, value: object, level: int) -> Operand | frozenset[str]:
        if field.kind == "tags":
            return self._tags(value)
        if field.kind == "vector" and value is not None:
            raise FilterError(
                f"Invalid operand of {field.name}: expected None, found {short_repr(value)}. To search by a "
                "vector, use search()"
            )
        if field.kind == "json" and not field.keys:
            _check_whole(field, value)
        if field.kind in _EXPECTED:
            return self._plain(field, value, level)
        return self._operand(value, level)

    def _plain(self, field: Field, value: object, level: int) -> Operand:
        """An operand of a field whose values are all of one kind, which can equal one of them."""
        value = plain_scalar(value)
        if value is None and field.name in _OPTIONAL[self._kind]:
            return self._operand(value, level)
        if field.kind == "time":
            self._count()
            return _utc(field.name, value)
        if kind_of(value) != field.kind:
            raise FilterError(
                f"Invalid operand of {field.name}: expected {_EXPECTED[field.kind]}, found {short_repr(value)}, which "
                "the field never has"
            )
        return self._operand(value, level)

    def _tags(self, value: object) -> frozenset[str]:
        if not isinstance(value, list | tuple | set | frozenset):
            raise FilterError(
                f"Invalid operand of tags: expected a collection of texts, to compare with all tags of a record, found "
                f"{short_repr(value)}. To test for one tag, write "
                '{"tags": {"$contains": "a"}}; for one of several tags, join such tests by $or'
            )
        if not value:
            self._count()
        return frozenset(self._text("item of tags", tag) for tag in value)

    def _item(self, field: Field, value: object, level: int) -> Operand:
        if field.kind in ("tags", "text") or field.name == "topics":
            return self._text(f"$contains on {field.name}", value)
        return self._operand(value, level)

    def _text(self, name: str, value: object) -> str:
        if not isinstance(value, str):
            raise FilterError(f"Invalid {name}: expected text (str), found {short_repr(value)}")
        self._count()
        return plain_text(value)

    def _scalar(self, field: Field, name: str, value: object, level: int) -> Scalar:
        value = plain_scalar(value)
        if field.kind in _EXPECTED and value is not None:
            return cast("Scalar", self._plain(field, value, level))
        if not isinstance(value, bool | int | float | str | datetime):
            raise FilterError(
                f"Invalid {name}: expected a number, a text, a boolean or a time, found {short_repr(value)}"
            )
        return cast("Scalar", self._operand(value, level))

    def _operand(self, value: object, level: int) -> Operand:
        """A value of JSON, as metadata can have it."""
        self._count()
        value = plain_scalar(value)
        match value:
            case None | bool():
                return value
            case int():
                number = int.__int__(value)  # `in` compares a subclass, such as IntEnum, with every item of the range
                if number not in _INT64:
                    raise FilterError(
                        "Invalid operand: expected an integer of at most 64 bits, found a larger one. No record "
                        "contains it: compare with a float or a text"
                    )
                return number
            case float():
                if not math.isfinite(value):
                    raise FilterError(
                        f"Invalid operand: expected a finite number, found {short_repr(value)}. No record contains it: "
                        "to find missing values or null, use $exists or None"
                    )
                return float.__float__(value)
            case str():
                return plain_text(value)
            case datetime():
                raise FilterError(
                    f"Invalid operand: found the time {short_repr(value)}, but metadata has no times, because JSON has "
                    "none. Compare with the text or the number that you stored, such as time.isoformat()"
                )
            case list() | tuple():
                self._check_level(level + 1)
                return [self._operand(item, level + 1) for item in value]
            case Mapping():
                self._check_level(level + 1)
                return {checked_key(key): self._operand(item, level + 1) for key, item in value.items()}
            case _:
                raise FilterError(
                    "Invalid operand: expected None, a boolean, a number, a text, or a list or an object of these, "
                    f"found {type(value).__name__}"
                )

    def _field(self, name: str) -> Field:
        fields = FIELDS[self._kind]
        root = name.partition(".")[0].partition("[")[0]
        if root == "metadata":
            return Field("metadata", "json", keys(name))
        if name in fields:
            return Field(name, fields[name])
        if root == "namespace":
            raise FilterError(
                "A filter cannot test the namespace: call the verb on store.namespace(...), or pass recursive=True to "
                "include the namespaces below it"
            )
        if root in fields:
            raise FilterError(f"Invalid field {short(name)}: only metadata has paths, not {root}")
        raise FilterError(
            f"Unknown {self._kind} field {short(name)} in a filter. {_nearest(name, fields)} Write a value in metadata "
            f"as metadata.{name[:40] or 'key'}"
        )

    def _count(self) -> None:
        self._operands += 1
        if self._operands > MAX_OPERANDS:
            raise FilterError(
                f"Invalid filter: expected at most {MAX_OPERANDS:,} operands, found more. Split the call, or give the "
                "records a common tag"
            )

    def _check_level(self, level: int) -> None:
        if level > MAX_LEVELS:
            raise FilterError(
                f"Invalid filter: expected at most {MAX_LEVELS} levels, found more. Flatten its $and, $or and $not"
            )


def _check_operator(field: Field, name: str) -> None:
    if name in ("$and", "$or"):
        raise FilterError(f"Invalid test: {name} joins whole filters. Write {{{name!r}: [{{{field.name!r}: …}}, …]}}")
    if name not in _OPERATORS:
        raise FilterError(f"Unknown operator {short(name)} in a filter. {_nearest(name, _OPERATORS)}")
    allowed = None if field.keys else _ALLOWED.get(field.name if field.kind == "json" else field.kind)
    if allowed is not None and name not in allowed:
        hint = " To test one value in it, write the path: metadata.a.b" if field.name == "metadata" else ""
        raise FilterError(
            f"Invalid operator {name} of {field.name}: expected one of {', '.join(sorted(allowed))}, found one that "
            f"never matches.{hint}"
        )


def _check_object(field: Field, value: Mapping[object, object]) -> None:
    """Raise where *value*, an object without operators as the test of a field, is not what its author means."""
    if all(isinstance(key, str) and f"${key}" in _OPERATORS for key in value):
        name = next(iter(value))
        raise FilterError(
            f"Invalid test of {field.name}: operators begin with $. Write {{'${name}': …}}; to compare with a whole "
            f"object, write {{'$eq': {{'{name}': …}}}}"
        )
    if field.name == "metadata" and not field.keys:
        key = short(str(next(iter(value))))
        raise FilterError(
            "Invalid test of metadata: it would compare the whole object, and match only records with exactly these "
            f"keys. To test one value, write its path: {{'metadata.key': …}} for the key {key}. To compare the whole "
            "object, write {'metadata': {'$eq': {…}}}"
        )


def _check_whole(field: Field, value: object) -> None:
    """Raise where *value* cannot equal a whole JSON field."""
    if field.name == "metadata" and not isinstance(value, Mapping):
        raise FilterError(
            f"Invalid operand of metadata: expected an object, found {short_repr(value)}, which metadata never is. To "
            "test one value in it, write the path: metadata.a.b"
        )
    if field.name == "topics" and not isinstance(value, list | tuple):
        raise FilterError(
            f"Invalid operand of topics: expected a list of texts, to compare with all topics, found "
            f"{short_repr(value)}. To test for one topic, write {{'topics': {{'$contains': 'a'}}}}"
        )


def _utc(name: str, value: object) -> datetime:
    """*value*, an operand of the time field *name*, as a datetime in UTC."""
    if isinstance(value, str):
        try:
            time = datetime.fromisoformat(value.strip())
        except ValueError:
            time = None
        if time is not None and time.utcoffset() is None:
            raise FilterError(
                f"Invalid operand of {name}: the text {short_repr(value)} has no offset from UTC. Append one, such as "
                "Z or +01:00"
            )
        value = value if time is None else time
    if not isinstance(value, datetime):
        raise FilterError(
            f"Invalid operand of {name}: expected {_EXPECTED['time']}, found {short_repr(value)}, which the field "
            "never has"
        )
    try:
        return check_time("time in a filter", value)
    except InvalidError as error:
        raise FilterError(str(error)) from error


def _nearest(name: str, names: Iterable[str]) -> str:
    options = list(names)
    matches = difflib.get_close_matches(name[:100], options, n=1, cutoff=0.7)
    return f"Did you mean {matches[0]}?" if matches else f"Expected one of {', '.join(options)}."

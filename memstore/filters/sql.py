"""A filter as one boolean SQL expression over `schema.memory` or `schema.assembly`.

Always true:

* every value of the caller is a bound parameter, except paths in metadata, which are text literals in the statement;
* the expression selects the records that `memstore.filters.evaluator` selects. NULL means false, as in every WHERE:
  negations are pushed down to the tests, and a negated test is `(…) IS NOT 1`, so no NULL is negated;
* a test of a scalar in metadata is `json_type(…) = ? AND json_extract(…) = ?`, so an index on both expressions applies;
* every filter that `parse` accepts is within the limits of SQLite (see `_chain`).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from operator import itemgetter
from typing import Final, cast

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Float,
    Integer,
    Select,
    Table,
    Text,
    and_,
    case,
    column,
    exists,
    false,
    func,
    literal,
    or_,
    select,
    true,
    type_coerce,
)
from sqlalchemy.sql.elements import Grouping

from memstore.filters.json_paths import json_path
from memstore.filters.nodes import (
    JSON_TYPES,
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
    Test,
    ValueKind,
    kind_of,
    prefix_end,
)
from memstore.models.records import RecordKind
from memstore.schema import tables, types

Clause = ColumnElement[bool]
Value = ColumnElement[object]

_WIDTH: Final = 16


Owned = Callable[[ColumnElement[int]], Clause]
"""From a column of namespace keys, the condition of being one of the namespaces of the statement."""


def condition(node: Node, record_kind: RecordKind, now: datetime | None = None, owned: Owned | None = None) -> Clause:
    """The filter as an expression for a WHERE over the table of *record_kind*.

    Args:
        node: the filter.
        record_kind: the kind of the records. The statement uses the plain table, not an alias.
        now: members that expired at this time do not count; None counts all.
        owned: selects the records of a tag once, from the tag. None looks the tag up for each record, which is quicker
            for few records. Tags are expected in the namespace of their record.
    """
    _, clause = _compile(node, _Rows(record_kind, now, owned), expected=True)
    return clause


def _compile(node: Node, rows: "_Rows", *, expected: bool) -> tuple[int, Clause]:
    """The depth of the joins, and the expression that is true where the truth of the node is *expected*."""
    match node:
        case Not(part):
            return _compile(part, rows, expected=not expected)
        case And(parts) | Or(parts):
            compiled = list(map(partial(_compile, rows=rows, expected=expected), parts))
            compiled.sort(key=itemgetter(0), reverse=True)
            clauses = list(map(itemgetter(1), compiled))
            nesting = 1 + compiled[0][0] if compiled else 0
            return nesting, (_all if isinstance(node, And) == expected else _any)(clauses)
        case _:
            clause = rows.test(node)
            return 0, clause if expected else clause.is_not(true())


def _chain(clauses: Sequence[Clause], *, conjunction: bool) -> Clause:
    """Join *clauses* in nested groups, the deepest first.

    A plain chain of n terms has depth n, and SQLite allows 1,000 (SQLITE_MAX_EXPR_DEPTH). Its parser has a stack of
    100: parentheses use one entry of it at the head of a chain and three in other positions, hence the deepest first.
    """
    join = and_ if conjunction else or_
    groups = list(clauses)
    while len(groups) > _WIDTH:
        chunks = [groups[start : start + _WIDTH] for start in range(0, len(groups), _WIDTH)]
        # and_() and or_() remove a Grouping of the same operator, but not a coerced one.
        groups = [type_coerce(Grouping(join(*chunk)), Boolean()) for chunk in chunks]
    return join(true() if conjunction else false(), *groups)


_all = partial(_chain, conjunction=True)
_any = partial(_chain, conjunction=False)


# SQLite uses an index on an expression only where the path is a literal. SQLAlchemy inserts it when the statement runs,
# so that filters that differ only in their paths share one compiled form.
_path = partial(literal, type_=Text(), literal_execute=True)


@dataclass(frozen=True, slots=True)
class _Json:
    """A value in a JSON document, by SQLite's path, such as `$."a"[0]`."""

    document: Value
    path: str

    @property
    def type(self) -> ColumnElement[str]:
        return func.json_type(self.document, _path(self.path), type_=Text())

    @property
    def value(self) -> Value:
        return func.json_extract(self.document, _path(self.path))

    @property
    def length(self) -> ColumnElement[int]:
        return func.json_array_length(self.document, _path(self.path), type_=Integer())

    @property
    def size(self) -> ColumnElement[int]:
        rows = func.json_each(self.document, _path(self.path)).table_valued(column("key"), name="entry")
        return select(func.count()).select_from(rows).scalar_subquery()

    def key(self, key: str) -> "_Json":
        return _Json(self.document, f'{self.path}."{key}"')

    def item(self, index: int) -> "_Json":
        return _Json(self.document, f"{self.path}[{index}]")

    def contains(self, operand: Operand) -> Clause:
        """The value is a list that contains the operand."""
        element = func.json_each(self.document, _path(self.path)).table_valued(
            column("type", Text()), column("value"), name="element"
        )
        # json_each returns a text as itself, not as JSON, and SQLite's functions raise on a text that is no JSON.
        document = case((_equals(element.c.type, ("array", "object")), element.c.value))
        same = _is_in_json(element.c.type, element.c.value, _Json(document, "$"), (operand,))
        return and_(_has_type(self.type, "list"), exists().select_from(element).where(same))


class _Rows:
    """The records of one kind as SQL: the columns and subqueries of each field."""

    def __init__(self, record_kind: RecordKind, now: datetime | None, owned: Owned | None) -> None:
        self._now = now
        self._owned = owned
        self._table: Table = getattr(tables, record_kind)
        self._tags: Table = getattr(tables, f"{record_kind}_tag")
        self._vectors: Table = getattr(tables, f"{record_kind}_vector")
        self._owner = f"{record_kind}_pk"

    def test(self, test: Test) -> Clause:
        match test.field.kind:
            case "json":
                return self._json(test)
            case "tags":
                return self._tagged(test)
            case "vector":
                return self._vector(test)
            case _:
                return self._plain(test)

    def _json(self, test: Test) -> Clause:
        value = _Json(self._table.c[test.field.name], json_path(test.field.keys))
        match test:
            case Exists():
                return value.type.is_not(None)
            case IsIn(values=values):
                return _is_in_json(value.type, value.value, value, cast("tuple[Operand, ...]", values))
            case Compare(order=order, operand=operand):
                return _of_kind(value.type, operand, _in_order(value.value, order, operand))
            case StartsWith(prefix=prefix):
                return _of_kind(value.type, prefix, _starts_with(value.value, prefix))
            case Contains(operand=str() as part):
                return or_(_of_kind(value.type, part, _has_part(value.value, part)), value.contains(part))
            case Contains(operand=operand):
                return value.contains(operand)

    def _plain(self, test: Test) -> Clause:
        stored = self._stored(test.field)
        match test:
            case Exists():
                return true()
            case IsIn(values=values):
                same = [value for value in values if kind_of(value) == test.field.kind]
                null = [stored.is_(None)] if None in values else []
                return _any([*([_equals(stored, cast("list[Scalar]", same))] if same else []), *null])
            case Compare(order=order, operand=operand) if kind_of(operand) == test.field.kind:
                return _in_order(stored, order, operand)
            case StartsWith(prefix=prefix) if test.field.kind == "text":
                return _starts_with(stored, prefix)
            case Contains(operand=str() as part) if test.field.kind == "text":
                return _has_part(stored, part)
            case _:
                return false()

    def _stored(self, field: Field) -> Value:
        if field.name != "member_count":
            return self._table.c[field.name]
        members = self._rows_of(tables.assembly_member)
        if self._now is not None:
            memory = tables.memory
            members = self._rows_of(tables.assembly_member, memory).where(
                memory.c.pk == tables.assembly_member.c.memory_pk, tables.live(self._now)
            )
        return members.with_only_columns(func.count()).scalar_subquery()

    def _tagged(self, test: Test) -> Clause:
        match test:
            case IsIn(values=values):
                return _any([self._has_exactly(cast("frozenset[str]", tags)) for tags in values])
            case Contains(operand=operand):
                return self._has_tag(cast("str", operand))
            case _:
                return true()

    def _has_tag(self, name: str) -> Clause:
        if self._owned is None:
            return self._named_tags([name]).exists()
        tag = tables.tag.c
        keys = select(tag.pk).where(self._owned(tag.namespace_pk), tag.name == _bound(name))
        return self._table.c.pk.in_(select(self._tags.c[self._owner]).where(self._tags.c.tag_pk.in_(keys)))

    def _has_exactly(self, tags: frozenset[str]) -> Clause:
        count = literal(len(tags), Integer())
        total = self._rows_of(self._tags).with_only_columns(func.count()).scalar_subquery() == count
        if not tags:
            return total
        return and_(total, self._named_tags(sorted(tags)).with_only_columns(func.count()).scalar_subquery() == count)

    def _named_tags(self, names: Sequence[str]) -> Select[int]:
        # With the namespace, SQLite uses the unique key of `tag`: two index seeks for each record.
        tag = tables.tag
        return self._rows_of(self._tags, tag).where(
            tag.c.pk == self._tags.c.tag_pk,
            tag.c.namespace_pk == self._table.c.namespace_pk,
            _equals(tag.c.name, names),
        )

    def _vector(self, test: Test) -> Clause:
        vector = self._vectors.c.vector
        stored = self._rows_of(self._vectors)
        if vector.nullable:
            stored = stored.where(vector.is_not(None))
        match test:
            case IsIn(values=()):
                return false()
            case IsIn():
                return stored.exists().is_not(true())
            case _:
                return true()

    def _rows_of(self, other: Table, *more: Table) -> Select[int]:
        """The rows of *other* that belong to the record."""
        rows = select(literal(1, Integer())).select_from(other, *more)
        return rows.where(other.c[self._owner] == self._table.c.pk).correlate(self._table)


def _is_in_json(type_: ColumnElement[str], value: Value, json: _Json, operands: Iterable[Operand]) -> Clause:
    """The JSON value, of this type, equals one of the operands."""
    kinds: dict[ValueKind, list[Operand]] = {}
    for operand in operands:
        kinds.setdefault(kind_of(operand), []).append(operand)
    clauses: list[Clause] = []
    for kind, same in kinds.items():
        match kind:
            case "null":
                clauses.append(_has_type(type_, kind))
            case "boolean" | "number" | "text":
                clauses.append(and_(_has_type(type_, kind), _equals(value, cast("list[Scalar]", same))))
            case "list" | "object":
                clauses.append(_any([_all(_deep(json, operand)) for operand in same]))
            case _:
                pass  # JSON has no times
    return _any(clauses)


def _deep(json: _Json, operand: Operand) -> list[Clause]:
    """The conditions of which all are true where the JSON value equals the operand. Paths reach every depth."""
    match operand:
        case list():
            clauses = [_has_type(json.type, "list"), json.length == literal(len(operand), Integer())]
            return clauses + [c for i, item in enumerate(operand) for c in _deep(json.item(i), item)]
        case dict():
            clauses = [_has_type(json.type, "object"), json.size == literal(len(operand), Integer())]
            return clauses + [c for key, item in operand.items() for c in _deep(json.key(key), item)]
        case _:
            return [_is_in_json(json.type, json.value, json, (operand,))]


def _of_kind(type_: ColumnElement[str], operand: Scalar, clause: Clause) -> Clause:
    kind = kind_of(operand)
    return and_(_has_type(type_, kind), clause) if kind in JSON_TYPES else false()


def _has_type(type_: ColumnElement[str], kind: ValueKind) -> Clause:
    return _equals(type_, JSON_TYPES[kind])


def _equals(value: ColumnElement[object] | ColumnElement[str], operands: Sequence[Scalar]) -> Clause:
    bound = list(map(_bound, operands))
    return value == bound[0] if len(bound) == 1 else value.in_(bound)


def _in_order(value: Value, order: Order, operand: Scalar) -> Clause:
    return cast("Clause", ORDERS[order](value, _bound(operand)))  # operators of an expression give an expression


def _has_part(value: Value, part: str) -> Clause:
    return func.instr(value, _bound(part)) > literal(0, Integer())


def _starts_with(value: Value, prefix: str) -> Clause:
    least, end = value >= _bound(prefix), prefix_end(prefix)
    return least if end is None else and_(least, value < _bound(end))


def _bound(value: Scalar) -> ColumnElement[object]:
    """A scalar as a bound parameter of its own type, so that the type of the column does not convert it."""
    match value:
        case bool():
            return literal(int(value), Integer())
        case int():
            return literal(value, BigInteger())
        case float():
            return literal(value, Float())
        case str():
            return literal(value, Text())
        case datetime():
            return literal(value, types.UtcTime())

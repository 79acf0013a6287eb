"""Tests that one index answers alone, reading no row, and their SQL as text.

The indexes are those of the schema on (namespace, field), those on (tag, record), and those that the file has on values
in metadata: (namespace, type, value). What is said here of a test is what `memstore.filters.sql` says of it; it is
written as text because SQLAlchemy takes 300 µs over what SQLite does in 15.
"""

from collections.abc import Container, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Final, NamedTuple, cast

from memstore.filters.json_paths import Path, quoted
from memstore.filters.nodes import (
    JSON_TYPES,
    Compare,
    Contains,
    Exists,
    Field,
    IsIn,
    Node,
    Operand,
    Or,
    Order,
    Scalar,
    StartsWith,
    kind_of,
    prefix_end,
)
from memstore.models.records import RecordKind
from memstore.schema import tables as tables_module
from memstore.timestamps import to_micros

Sortable = Exists | IsIn | Compare | StartsWith
Bound = int | float | str

_SCALARS: Final = ("null", "boolean", "number", "text")
_SIGNS: Final[dict[Order, str]] = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}


class Sql(NamedTuple):
    """A piece of a statement, and the values bound in it, in order."""

    text: str
    values: tuple[Bound, ...] = ()


Owners = int | Sql
"""The namespaces a statement is about: the key of one, or a condition on `namespace.path`."""


def _indexed_fields(record_kind: RecordKind) -> frozenset[str]:
    table = tables_module.metadata.tables[record_kind]
    keys = [*table.indexes, *table.constraints]
    columns = [[column.name for column in key.columns] for key in keys if hasattr(key, "columns")]
    return frozenset(names[1] for names in columns if len(names) == 2 and names[0] == "namespace_pk")


_FIELDS: Final[dict[RecordKind, frozenset[str]]] = {
    record_kind: _indexed_fields(record_kind) for record_kind in ("memory", "assembly")
}


def by_kind(test: Node) -> Node:
    """*test*, or where it asks for values of several kinds in metadata one for each: an index holds them apart."""
    if not isinstance(test, IsIn) or test.field.kind != "json":
        return test
    kinds: dict[str, list[Operand | frozenset[str]]] = {}
    for value in test.values:
        kinds.setdefault(kind_of(value), []).append(value)
    if len(kinds) < 2:
        return test
    return Or(tuple(replace(test, values=tuple(values)) for values in kinds.values()))


def is_served(test: Node, record_kind: RecordKind, paths: Container[Path]) -> bool:
    """Whether an index answers *test* by itself; *paths* are those in the metadata of *record_kind* that have one."""
    match test:
        case Contains(field=field):
            return field.kind == "tags"
        case Exists(field=field) | IsIn(field=field) | Compare(field=field) | StartsWith(field=field):
            json = field.kind == "json"
            there = field.name == "metadata" and field.keys in paths if json else field.name in _FIELDS[record_kind]
            return there and _kinds_suit(test, json=json)
        case _:
            return False


def _kinds_suit(test: Sortable, *, json: bool) -> bool:
    match test:
        case Exists():
            return json  # fields of a record are always there
        case IsIn(values=values):
            kinds = {kind_of(value) for value in values}
            return len(kinds) == 1 and kinds <= ({*_SCALARS} if json else {test.field.kind})
        case Compare(operand=operand):
            return kind_of(operand) in _SCALARS if json else kind_of(operand) == test.field.kind
        case StartsWith():
            return json or test.field.kind == "text"


def in_range(record_kind: RecordKind, owners: Owners, tests: Iterable[Sortable]) -> Sql:
    """The keys of the records that pass *tests*, all of one field."""
    if isinstance(owners, int):
        tables, owned = str(record_kind), Sql("namespace_pk = ?", (owners,))
    else:  # one namespace after the other: CROSS keeps SQLite to that
        tables = f"namespace CROSS JOIN {record_kind}"
        owned = Sql(f"{owners.text} AND namespace_pk = namespace.pk", owners.values)
    pieces = [owned, *(piece for test in tests for piece in _pieces(test))]
    holds = " AND ".join(text for text, _ in pieces)
    text = f"SELECT {record_kind}.pk AS pk FROM {tables} WHERE {holds}"  # noqa: S608 - values are bound, paths are quoted
    return Sql(text, tuple(value for _, values in pieces for value in values))


def tagged(record_kind: RecordKind, owners: Owners, name: str) -> Sql:
    """The keys of the records that carry a tag of one of the namespaces, where the records themselves are too."""
    owner, (owned, values) = f"{record_kind}_pk", _compared_with(owners)
    tag = f"SELECT pk FROM tag WHERE namespace_pk {owned} AND name = ?"  # noqa: S608 - as above
    return Sql(f"SELECT {owner} AS pk FROM {record_kind}_tag WHERE tag_pk IN ({tag})", (*values, name))  # noqa: S608


def _compared_with(owners: Owners) -> Sql:
    if isinstance(owners, int):
        return Sql("= ?", (owners,))
    return Sql(f"IN (SELECT namespace.pk FROM namespace WHERE {owners.text})", owners.values)  # noqa: S608


def _pieces(test: Sortable) -> list[Sql]:
    if isinstance(test, Exists):
        return [Sql(f"{_type(test.field)} >= ''")]  # IS NOT NULL would be served by no index
    if test.field.kind != "json":
        return [_compared(test.field.name, test)]
    kind = kind_of(_operand(test))
    names = ", ".join(f"'{name}'" for name in JSON_TYPES[kind])
    of_kind = Sql(f"{_type(test.field)} IN ({names})")
    if kind == "null":
        return [of_kind]
    return [of_kind, _compared(f"json_extract(metadata, {quoted(test.field.keys)})", test)]


def _type(field: Field) -> str:
    return f"json_type(metadata, {quoted(field.keys)})"


def _operand(test: IsIn | Compare | StartsWith) -> object:
    match test:
        case IsIn(values=values):
            return values[0]
        case Compare(operand=operand):
            return operand
        case StartsWith(prefix=prefix):
            return prefix


def _compared(stored: str, test: IsIn | Compare | StartsWith) -> Sql:
    match test:
        case IsIn(values=values):
            marks = ", ".join("?" * len(values))
            return Sql(f"{stored} IN ({marks})", tuple(_bound(cast("Scalar", value)) for value in values))
        case Compare(order=order, operand=operand):
            return Sql(f"{stored} {_SIGNS[order]} ?", (_bound(operand),))
        case StartsWith(prefix=prefix):
            end = prefix_end(prefix)
            if end is None:
                return Sql(f"{stored} >= ?", (prefix,))
            return Sql(f"{stored} >= ? AND {stored} < ?", (prefix, end))


def _bound(value: Scalar) -> Bound:
    return to_micros(value) if isinstance(value, datetime) else value

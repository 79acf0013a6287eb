"""Every row of every table, compared with the rules of its columns (`schema.column_rules`).

SQLite itself finds wrong types and numbers, in one scan a table. Texts are read as bytes and decoded here, because its
functions on text accept what Python cannot read: invalid UTF-8, and JSON of values that memstore does not store.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection

from memstore.concurrency import yield_gil
from memstore.database import raw
from memstore.database.statement_limits import STATEMENT
from memstore.errors import describe_content
from memstore.models.records import Namespace, RecordKind
from memstore.schema import column_rules
from memstore.schema.column_rules import ColumnRule
from memstore.schema.namespace_path import namespace_parts
from memstore.schema.tables import metadata

_ROWS = 500

_OWNERS: dict[str, tuple[RecordKind, str]] = {
    "memory": ("memory", "pk"),
    "memory_vector": ("memory", "memory_pk"),
    "memory_tag": ("memory", "memory_pk"),
    "assembly": ("assembly", "pk"),
    "assembly_vector": ("assembly", "assembly_pk"),
    "assembly_tag": ("assembly", "assembly_pk"),
    "assembly_member": ("assembly", "assembly_pk"),
}
"""The record that a row of a table belongs to, and the column with its key."""


class CorruptValue(NamedTuple):
    """A stored value that memstore never writes.

    Attributes:
        table: its table.
        column: its column.
        row: the primary key of its row, in words.
        kind: the kind of the record that it belongs to; None if it belongs to none.
        id: the id of that record, or its key if it has no readable id; empty if it belongs to none.
        namespace: the namespace of that record.
        expected: what the column contains.
        actual: the value.
    """

    table: str
    column: str
    row: str
    kind: RecordKind | None
    id: str
    namespace: Namespace
    expected: str
    actual: object

    def __str__(self) -> str:
        actual = describe_content(self.actual)
        place = f"{self.table}.{self.column} of the row with {self.row}"
        return f"Corrupt value in {place}: expected {self.expected}, found {actual}"


class _Scan(NamedTuple):
    """The statements of a table: rows with a wrong type or number, and the texts of all rows."""

    keys: tuple[str, ...]
    columns: tuple[str, ...]
    wrong: str
    texts: tuple[str, ...]
    all_texts: str


def corrupt_values(connection: Connection, table: str) -> Iterator[CorruptValue]:
    """The values in *table* that break the rule of their column, row by row. One for each column of a row at most."""
    scan, rules, base = _scan(table), column_rules.rules(table), raw(connection)
    first, count = len(scan.keys), len(scan.columns)
    STATEMENT.is_new = True
    for row in _fetch(base.execute(scan.wrong)):
        flags, values, types = (row[first + n * count : first + (n + 1) * count] for n in range(3))
        for column, is_valid, value, storage in zip(scan.columns, flags, values, types, strict=True):
            if not is_valid:
                actual = _decoded(value) if storage == "text" else value
                yield _value(connection, table, scan, row, column, actual)
    if not scan.texts:
        return
    cursor = base.execute(scan.all_texts)
    while rows := cursor.fetchmany(_ROWS):
        STATEMENT.is_new = True
        yield_gil()
        for number, column in enumerate(scan.texts, first):
            for row in _undecodable(rows, number, rules[column]):
                yield _value(connection, table, scan, row, column, _decoded(row[number]))


def _fetch(cursor: Any) -> Iterator[Sequence[Any]]:
    while rows := cursor.fetchmany(_ROWS):
        yield from rows


def _undecodable(rows: Sequence[Sequence[Any]], number: int, rule: ColumnRule) -> Iterator[Sequence[Any]]:
    """The *rows* whose text, the bytes of column *number*, is not UTF-8 or breaks the *rule*."""
    if rule.check is None:
        try:
            b"\n".join([row[number] for row in rows if row[number] is not None]).decode()
        except UnicodeDecodeError:
            pass
        else:
            return
    for row in rows:
        if row[number] is not None:
            text = _decoded(row[number])
            if isinstance(text, bytes) or not rule.accepts(text, nullable=True):
                yield row


def _decoded(value: object) -> object:
    """The text of bytes in UTF-8; every other value, and bytes that are no text, as they are."""
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


def _value(
    connection: Connection, table: str, scan: _Scan, row: Sequence[Any], column: str, actual: object
) -> CorruptValue:
    keys = dict(zip(scan.keys, row, strict=False))
    kind, id, namespace = _owner(connection, table, keys)
    place = ", ".join(f"{name} {describe_content(_decoded(key))}" for name, key in keys.items())
    rule = column_rules.rules(table)[column]
    is_text = rule.storage == "text" and isinstance(actual, bytes)
    expected = f"{rule.expected} in UTF-8" if is_text else rule.expected
    return CorruptValue(table, column, place, kind, id, namespace, expected, actual)


def _owner(connection: Connection, table: str, keys: dict[str, Any]) -> tuple[RecordKind | None, str, Namespace]:
    """The record that a row belongs to, as far as its row can be read."""
    if table not in _OWNERS:
        return None, "", ()
    kind, column = _OWNERS[table]
    key = keys[column]
    row = (
        raw(connection)
        .execute(
            f"SELECT CAST({kind}.id AS BLOB), CAST(namespace.path AS BLOB) FROM {kind} "  # noqa: S608 - names of ours
            f"LEFT JOIN namespace ON namespace.pk = {kind}.namespace_pk WHERE {kind}.pk = ?",
            (key,),
        )
        .fetchone()
    )
    if row is None or row[0] is None:
        return kind, f"key {key}", ()
    return kind, row[0].decode(errors="replace"), namespace_parts((row[1] or b"").decode(errors="replace"))


@cache
def _scan(table: str) -> _Scan:
    rules = column_rules.rules(table)
    keys = tuple(column.name for column in metadata.tables[table].primary_key)
    columns = tuple(rules)
    texts = tuple(name for name, rule in rules.items() if rule.storage == "text" and not rule.choices)
    valid = [column_rules.is_valid_sql(table, name) for name in columns]
    types = [f'typeof("{name}")' for name in columns]
    wrong = ", ".join([*map(_readable, keys), *valid, *map(_readable, columns), *types])
    all_texts = ", ".join([*map(_readable, keys), *map(_text, texts)])
    return _Scan(
        keys,
        columns,
        f'SELECT {wrong} FROM "{table}" WHERE NOT ({" AND ".join(valid)})',  # noqa: S608 - names of ours
        texts,
        f'SELECT {all_texts} FROM "{table}"',  # noqa: S608 - names of ours
    )


def _readable(name: str) -> str:
    """The column as the driver can fetch it: bytes for a text, which may not be UTF-8."""
    return f'CASE typeof("{name}") WHEN \'text\' THEN CAST("{name}" AS BLOB) ELSE "{name}" END'


def _text(name: str) -> str:
    """The bytes of a text; NULL for every other value."""
    return f'CASE typeof("{name}") WHEN \'text\' THEN CAST("{name}" AS BLOB) END'

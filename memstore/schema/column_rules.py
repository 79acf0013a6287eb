"""What each column of a file can contain: one rule a column, by its type and by what memstore writes into it.

SQLite stores a value of any type in any column, and a read-only connection enforces no CHECK. So `check` compares every
row with these rules, and the error about a row that cannot be read names the column by them.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, get_args

from sqlalchemy import BigInteger, Column, Float, Integer, LargeBinary, Text

from memstore.errors import InvalidError
from memstore.models.records import RecordKind
from memstore.schema.namespace_path import namespace_parts, namespace_path
from memstore.schema.tables import metadata
from memstore.schema.types import JsonText, UtcTime
from memstore.timestamps import to_micros
from memstore.validation.records import MAX_COUNT
from memstore.validation.text import check_metadata
from memstore.validation.values import check_id, check_namespace, check_tags, check_topics
from memstore.vectors.space import MAX_CURVATURE, MIN_CURVATURE, NO_DIMENSION, Metric

_EARLIEST = to_micros(datetime.min.replace(tzinfo=UTC))
_LATEST = to_micros(datetime.max.replace(tzinfo=UTC))
_LARGEST = 1.7976931348623157e308
_MAX_KEY = 2**62


@dataclass(frozen=True, slots=True)
class ColumnRule:
    """The values that a column can have, apart from NULL where the column is nullable.

    Attributes:
        storage: the name of their type in SQLite's `typeof`.
        expected: what they are, for messages.
        least: of a number, the least.
        most: of a number, the greatest.
        choices: of a text, all there are; empty for any text.
        check: of a text, raises `InvalidError`, `ValueError` or `RecursionError` where it cannot be; None for any text.
    """

    storage: str
    expected: str
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    check: Callable[[str], object] | None = None

    def accepts(self, value: object, *, nullable: bool) -> bool:
        """Whether the column can have *value*, as SQLite's driver returns it."""
        if value is None:
            return nullable
        if type(value) is not _PYTHON[self.storage]:
            return False
        if self.least is not None and self.most is not None:
            return self.least <= value <= self.most  # type: ignore[operator]  # a number, by its type
        if self.choices:
            return value in self.choices
        try:
            if self.check is not None:
                self.check(value)  # type: ignore[arg-type]  # a text, by its type
        except (InvalidError, ValueError, RecursionError):
            return False
        return True


_PYTHON: dict[str, type] = {"integer": int, "real": float, "text": str, "blob": bytes}


def _integer(least: int = 0, most: int = _MAX_KEY) -> ColumnRule:
    return ColumnRule("integer", f"int from {least} to {most}", least, most)


def _one_of(*choices: str) -> ColumnRule:
    return ColumnRule("text", "one of " + ", ".join(map(repr, choices)), choices=choices)


def _text(expected: str, check: Callable[[str], object]) -> ColumnRule:
    return ColumnRule("text", expected, check=check)


def _loads(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse)


def _refuse(name: str) -> None:
    raise ValueError(name)


def _check_object(text: str) -> None:
    if text != "{}" and not isinstance(_loads(text), dict):
        raise ValueError


def _check_metadata(text: str) -> None:
    if text != "{}":
        check_metadata(_loads(text))


def _check_topics(text: str) -> None:
    topics = _loads(text)
    if not isinstance(topics, list) or len(check_topics(topics)) < len(topics):
        raise ValueError


def _check_path(text: str) -> None:
    parts = namespace_parts(text)
    if namespace_path(check_namespace(parts)) != text:
        raise ValueError


_ANY_INTEGER = _integer(-(2**63), 2**63 - 1)
_TIME = ColumnRule("integer", "time in microseconds, in the years 1 to 9999", _EARLIEST, _LATEST)
_SHARE = ColumnRule("real", "float from 0 to 1", 0.0, 1.0)
_FINITE = ColumnRule("real", "finite float", -_LARGEST, _LARGEST)
_LENGTH = ColumnRule("real", "finite float of 0 or more", 0.0, _LARGEST)
_TEXT = ColumnRule("text", "text")
_OBJECT = _text("JSON object", _check_object)
_FLAG = _integer(0, 1)
_CHECKSUM = _integer(0, 2**32 - 1)
_KINDS = _one_of(*get_args(RecordKind))
_RECORD_KEY = _integer(-_MAX_KEY)  # memstore hands out positive keys, but raw SQL can add a record with any

_BY_TYPE: dict[type, ColumnRule] = {
    Text: _TEXT,
    JsonText: _OBJECT,
    UtcTime: _TIME,
    Integer: _ANY_INTEGER,
    BigInteger: _ANY_INTEGER,
    Float: _FINITE,
    LargeBinary: ColumnRule("blob", "bytes"),
}

_BY_NAME: dict[str, ColumnRule] = {
    "pk": _integer(),
    "memory.pk": _RECORD_KEY,
    "assembly.pk": _RECORD_KEY,
    "change_log.pk": _RECORD_KEY,
    "namespace_pk": _integer(),
    "space_pk": _integer(),
    "checksum": _CHECKSUM,
    "revision": _integer(),
    "store_meta.format": _integer(1),
    "store_meta.log_floor": _integer(),
    "namespace.path": _text("path of a namespace", _check_path),
    "vector_space.kind": _KINDS,
    "vector_space.name": ColumnRule("text", "empty text", choices=("",)),
    "vector_space.dimension": _integer(1, NO_DIMENSION),
    "vector_space.metric": _one_of(*get_args(Metric)),
    "vector_space.curvature": ColumnRule("real", "curvature", MIN_CURVATURE, MAX_CURVATURE),
    "memory.id": _text("id of 1 to 65,536 bytes", check_id),
    "memory.metadata": _text("JSON object that memstore can store", _check_metadata),
    "memory.importance": _SHARE,
    "memory.access_count": _integer(0, 2 * MAX_COUNT - 1),
    "memory.pinned": _FLAG,
    "assembly.id": _text("id of 1 to 65,536 bytes", check_id),
    "assembly.topics": _text("JSON array of different texts", _check_topics),
    "assembly.metadata": _text("JSON object that memstore can store", _check_metadata),
    "assembly.activation": _SHARE,
    "assembly.activation_count": _integer(0, 2 * MAX_COUNT - 1),
    "assembly_vector.length": _LENGTH,
    "assembly_vector.count": _integer(),
    "tag.name": _text("tag of 1 to 1,024 bytes", lambda text: check_tags([text])),
    "tombstone.kind": _KINDS,
    "tombstone.cause": _one_of("forgotten", "merged"),
    "assembly_merge_source.position": _integer(),
    "journal.kind": _KINDS,
    "journal.what": _one_of("added", "updated", "deleted", "expired", "forgotten", "merged", "restored"),
    "journal.at": _TIME,
    "journal.old": _OBJECT,
    "index_snapshot.chunks": _integer(),
    "index_snapshot.complete": _FLAG,
    "index_chunk.number": _integer(),
}
"""Rules that are narrower than those of the column's type, by `table.column`, or by the column in every table."""


@cache
def rules(table: str) -> dict[str, ColumnRule]:
    """The rule of each column of *table*, in the order of the table."""
    return {column.name: _rule(table, column) for column in metadata.tables[table].c}


def _rule(table: str, column: Column[Any]) -> ColumnRule:
    kind = next(kind for kind in type(column.type).__mro__ if kind in _BY_TYPE)
    return _BY_NAME.get(f"{table}.{column.name}") or _BY_NAME.get(column.name) or _BY_TYPE[kind]


def nullable(table: str, column: str) -> bool:
    """Whether *column* can be NULL."""
    return bool(metadata.tables[table].c[column].nullable)


def is_valid_sql(table: str, column: str) -> str:
    """A SQL condition, never NULL, that the stored value of *column* satisfies; texts are also checked in Python."""
    rule, name = rules(table)[column], f'"{column}"'
    condition = f"typeof({name}) = '{rule.storage}'"
    if rule.least is not None:
        condition += f" AND {name} BETWEEN {_number(rule.least)} AND {_number(rule.most)}"
    if rule.choices:
        condition += f" AND {name} IN ({', '.join(map(repr, rule.choices))})"
    return f"({name} IS NULL OR {condition})" if nullable(table, column) else f"({condition})"


def _number(value: float | None) -> str:
    if value == -(2**63):
        return "(-9223372036854775807 - 1)"  # SQLite reads the literal without its sign, as a float
    return repr(value) if value is not None and math.isfinite(value) else "NULL"

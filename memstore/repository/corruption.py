"""Errors for stored values that memstore did not write.

A SQLite column can contain a value of any type. Code that turns rows into records does it inside `expect_stored`, or
checks the types and raises `corrupt_value`. Both name the table and the column.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from memstore.errors import DamagedError, MemstoreError, describe_content, short_repr
from memstore.schema import column_rules

T = TypeVar("T")

_ADVICE = "Run `memstore check`, or restore a backup."


def corrupt_value(place: str, expected: str, actual: object) -> DamagedError:
    """The error for a stored value that memstore never writes, in *place*: table and column."""
    return DamagedError(f"Corrupt value in {place}: expected {expected}, found {describe_content(actual)}. {_ADVICE}")


def corrupt_row(table: str, values: Mapping[str, object]) -> DamagedError:
    """The error for a row of *table* that cannot be read: it names the first of *values* that breaks its rule."""
    record = f" of {short_repr(values['id'])}" if "id" in values else ""
    for column, rule in column_rules.rules(table).items():
        if column in values and not rule.accepts(values[column], nullable=column_rules.nullable(table, column)):
            return corrupt_value(f"{table}.{column}{record}", rule.expected, values[column])
    return DamagedError(f"Corrupt row of {table}{record}. {_ADVICE}")


UNREADABLE = (TypeError, ValueError, OverflowError, RecursionError, MemoryError)
"""What code raises that reads a value which memstore never writes."""


def unreadable(place: str, error: Exception) -> DamagedError:
    """The error for *error*, one of `UNREADABLE`, in *place*: table or column. Its message may contain the value."""
    position = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
    return DamagedError(f"Corrupt value in {place}: reading it raised {type(error).__name__}{position}. {_ADVICE}")


@contextmanager
def expect_stored(place: str) -> Iterator[None]:
    """Raise `DamagedError` where the block fails on a value that memstore never writes, in *place*: table or column."""
    try:
        yield
    except MemstoreError:
        raise
    except UNREADABLE as error:
        raise unreadable(place, error) from None  # its message may contain the value


def only(records: Sequence[T]) -> T:
    """The one record of a key that exists. Raises `DamagedError` where its row, or its namespace's, is missing."""
    if not records:
        raise DamagedError(f"An index refers to a record that has no complete row. {_ADVICE}")
    return records[0]


def wrong_vector(kind: str, id: object) -> DamagedError:
    """The error where the index of vectors leads from the record *id* to the vector of another record."""
    return DamagedError(
        f"Corrupt index of {kind}_vector: {kind} {short_repr(id)} refers to the vector of another record. "
        "Run `memstore repair` to rebuild the index."
    )

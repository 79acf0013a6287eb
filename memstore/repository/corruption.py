"""Rows as what they were written as: a file may hold anything, whoever wrote it.

SQLite keeps a value of any type in a column of any. Whoever turns rows into something else does it `expect_stored`, so
that what no verb of ours wrote is an error that says so.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from memstore.errors import DamagedError, MemstoreError, short_repr

T = TypeVar("T")


@contextmanager
def expect_stored(what: str) -> Iterator[None]:
    """Raise `DamagedError` where what the block reads is not of the types that were written; *what* it is of."""
    try:
        yield
    except MemstoreError:
        raise
    except (TypeError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        raise corrupt_value(what, error) from error


def only(records: Sequence[T]) -> T:
    """The one record of a key that was found. Raises `DamagedError` where its row, or what it belongs to, is not."""
    if not records:
        raise DamagedError(
            "the file has an entry for this record, but no whole row of it: run `memstore check`, or restore a backup"
        )
    return records[0]


def wrong_vector(noun: str, id: object) -> DamagedError:
    """The error where the record *id* is led to a vector that is another's."""
    return DamagedError(
        f"the file's index of vectors leads from {noun} {short_repr(id)} to another's: `memstore repair` builds it anew"
    )


def corrupt_value(what: str, found: object) -> DamagedError:
    """The error for *found*, which no verb wrote, where *what* was to be."""
    return DamagedError(
        f"the file does not hold {what} where one belongs ({short_repr(found)}): run `memstore check`, or "
        "restore a backup"
    )

"""Rows as what they were written as: a file may hold anything, whoever wrote it.

SQLite keeps a value of any type in a column of any. Whoever turns rows into something else does it `as_written`, so
that what no verb of ours wrote is an error that says so.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from memstore.errors import DamagedError, MemstoreError, shown


@contextmanager
def as_written(what: str) -> Iterator[None]:
    """Raise `DamagedError` where what the block reads is not of the types that were written; *what* it is of."""
    try:
        yield
    except MemstoreError:
        raise
    except (TypeError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        raise odd(what, error) from error


def odd(what: str, found: object) -> DamagedError:
    """The error for *found*, which no verb wrote, where *what* was to be."""
    return DamagedError(
        f"the file does not hold {what} where one belongs ({shown(found)}): run `memstore check`, or restore a backup"
    )

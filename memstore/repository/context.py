"""What a write receives: its connection, the vector spaces, its time, and its actor.

A session makes one `WriteContext` for each write and passes it to the write step. The history writer takes the time
and the actor of every history row from it.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, Text, literal_column, select, type_coerce

from memstore.actor import Actor
from memstore.repository import history_retention
from memstore.repository.history_retention import RetentionSettings
from memstore.repository.statements import Prepared
from memstore.repository.vectors import Spaces
from memstore.schema.tables import journal, store_meta
from memstore.timestamps import now, to_micros

_LEAP = 365 * 86_400_000_000  # microseconds
_JITTER = 1_000_000  # microseconds; a smaller step back is that of a clock being adjusted


def _start() -> Select[Any]:
    """The retention settings, time and number of the last history row, and the time of the first."""
    rows = [(journal.c.at, journal.c.pk.desc()), (journal.c.pk, journal.c.pk.desc()), (journal.c.at, journal.c.pk)]
    queries = (select(column).order_by(order).limit(literal_column("1")).scalar_subquery() for column, order in rows)
    return select(type_coerce(store_meta.c.history_options, Text), *queries)


_START = Prepared(_start)


@dataclass(slots=True)
class TransactionTime:
    """The time that all history rows of one transaction share, and how many rows it has written.

    It is the wall time of the first row. If the clock was set back since the last row of the file, that is stored, so
    that a time can still be found.

    Attributes:
        at: microseconds since the epoch; 0 before the first row.
        retention: the settings of the file; None before the first row.
        previous: the time of the last row before this transaction; None before the first row, and without one.
        trim_before: the time before which rows are deleted at the end of the transaction; None where none is so old.
        row_count: history rows that the transaction has written.
    """

    at: int = 0
    retention: RetentionSettings | None = None
    previous: int | None = None
    trim_before: int | None = None
    row_count: int = 0

    def start(self, connection: Connection) -> bool:
        """Whether the file keeps a history; the first call sets the time."""
        if self.retention is None:
            options, last, number, first = _START.run(connection).fetchone()
            self.retention = history_retention.parse(options)
            if self.retention.keep != "off":
                self.at = to_micros(now())
                self.previous = last if type(last) is int else None
                if type(last) is int and last > self.at:
                    self._go_back(connection, last, number)
                if isinstance(self.retention.keep, int):
                    self.trim_before = history_retention.due(self.retention, self.at, last, first)
        return self.retention.keep != "off"

    def _go_back(self, connection: Connection, last: int, number: int) -> None:
        """Note that the time is before that of the last row, which has a *number*."""
        if last - self.at < _JITTER:
            self.at = last
        elif self.retention is not None:
            self.retention = history_retention.add_break(connection, self.retention, number + 1)


@dataclass(frozen=True, slots=True)
class WriteContext:
    """What every function of one write receives.

    Attributes:
        connection: inside the write transaction.
        spaces: the vector space of each kind of record.
        now: the time of the write, UTC. Memories that have expired by then do not exist for the write.
        has_expired_rows: whether rows of such memories may be left: a write deletes a limited number before it begins.
        actor: who makes the change, and why.
        transaction: the time of the transaction's history rows; all writes of a transaction share it.
    """

    connection: Connection
    spaces: Spaces
    now: datetime
    actor: Actor = field(default_factory=Actor)
    transaction: TransactionTime = field(default_factory=TransactionTime)
    has_expired_rows: bool = False

    def keeps_history(self) -> bool:
        """Whether the file keeps a history."""
        return self.transaction.start(self.connection)

    def clock_leaps(self) -> bool:
        """Whether the clock is more than a year ahead of the last change of the history, which may be a mistake."""
        if not self.keeps_history() or self.transaction.previous is None:
            return False
        return to_micros(self.now) - self.transaction.previous > _LEAP

    def with_reason(self, reason: str) -> "WriteContext":
        """The same context with another reason."""
        return replace(self, actor=self.actor._replace(reason=reason))

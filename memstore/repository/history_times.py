"""The history by time: which change was the first after a time, under clocks that are set ahead and back.

Changes are in the order of their numbers, which is that of the commits. `RetentionSettings.breaks` has the numbers at
which the clock went back, so between two of them times do not, and a search by halves finds a time.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, func, literal_column, select, text

from memstore.repository.commit_times import Row, Span, Timeline
from memstore.repository.corruption import corrupt_value
from memstore.repository.statements import Prepared
from memstore.schema.tables import journal

_has_time = text("typeof(at) = 'integer'")  # `check` names the others
_BOUNDS = Prepared(lambda: select(func.min(journal.c.pk), func.max(journal.c.pk)))
_FOLLOWING = Prepared(
    lambda: (
        select(journal.c.pk, journal.c.at)
        .where(journal.c.pk >= bindparam("pk"), _has_time)
        .order_by(journal.c.pk)
        .limit(literal_column("1"))
    )
)
_PRECEDING = Prepared(
    lambda: (
        select(journal.c.pk, journal.c.at)
        .where(journal.c.pk <= bindparam("pk"), _has_time)
        .order_by(journal.c.pk.desc())
        .limit(literal_column("1"))
    )
)


def bounds(connection: Connection) -> Span | None:
    """The numbers of the first and the last change; None where there is none."""
    first, last = _BOUNDS.run(connection).fetchone()
    if first is None:
        return None
    if type(first) is not int or type(last) is not int:
        raise corrupt_value("journal.pk", "int", first)
    return Span(first, last)


def first_after(connection: Connection, at: int, present: int, breaks: Sequence[int]) -> int | None:
    """The number of the first change after the time *at*; one more than the last if none is, None without changes."""
    span = bounds(connection)
    return None if span is None else _timeline(connection, present).first_after(at, span, breaks)


def last_before(connection: Connection, at: int, present: int, breaks: Sequence[int]) -> int | None:
    """The number of the last change that was certainly made before the time *at*; None where there is none."""
    span = bounds(connection)
    return None if span is None else _timeline(connection, present).last_before(at, span, breaks)


def _timeline(connection: Connection, present: int) -> Timeline:
    def following(number: int) -> Row | None:
        row = _FOLLOWING.run(connection, pk=number).fetchone()
        return None if row is None else Row(*row)

    def preceding(number: int) -> Row | None:
        row = _PRECEDING.run(connection, pk=number).fetchone()
        return None if row is None else Row(*row)

    return Timeline(following, preceding, present)

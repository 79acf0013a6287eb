"""Times of commits under a clock that is set.

Rows that record what was done are in the order of their commits, which is that of their numbers. Their wall time is
data: a clock that is ahead or behind, and is corrected, leaves times that go back. The functions here find the times
that can be trusted. A row without such a time happened between its neighbours, whatever its own time says.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LATEST = 2**63 - 1
"""A time after every other: of a row whose time cannot be read."""

Times = npt.NDArray[np.int64]

_BEHIND = 30 * 86_400_000_000  # microseconds; a clock that was behind is behind by years, as a rule


def effective_times(times: Sequence[int], present: int) -> Times:
    """Times of rows in the order of their commits, by which the age of a row is not overestimated.

    A time after *present* was never right: the row gets the next time that can be, or *present*. A time more than 30
    days before that of an earlier row is of a clock that was behind: the row gets the time of the earlier one.
    """
    array = np.array(times, dtype=np.int64)
    possible = array <= present
    previous = np.maximum.accumulate(np.where(possible, array, np.iinfo(np.int64).min))
    corrected = np.where(possible, np.where(previous - array > _BEHIND, previous, array), present)
    return np.where(possible, corrected, np.minimum.accumulate(corrected[::-1])[::-1])


class Row(NamedTuple):
    """A row by its number, and its time in microseconds since the epoch."""

    number: int
    time: int


class Span(NamedTuple):
    """Rows from number *first* to *last*, of which the times do not go back."""

    first: int
    last: int


class Timeline:
    """The times of numbered rows, found by few reads.

    Args:
        following: reads the first row with a time from a number on; None where there is none.
        preceding: reads the last row with a time up to a number; None where there is none.
        present: the time now, by the reader's clock.
    """

    def __init__(
        self,
        following: Callable[[int], Row | None],
        preceding: Callable[[int], Row | None],
        present: int,
    ) -> None:
        self._following = following
        self._preceding = preceding
        self._present = present

    def first_after(self, at: int, bounds: Span, breaks: Sequence[int]) -> int:
        """The number of the first row after the time *at*; one more than the last where there is none.

        Rows of a wrong clock count as made in the middle between the trusted rows around them.

        Args:
            at: microseconds since the epoch.
            bounds: the first and the last row.
            breaks: numbers from which on the clock was behind that of the row before.
        """
        trusted = self._trusted(bounds, breaks)
        earlier = self._up_to(trusted, at)
        last = self._preceding(earlier[-1].last) if earlier else None
        number = next((n for span in trusted if (n := self._search(span, at)) <= span.last), bounds.last + 1)
        if last is not None:
            row = self._following(number) if number <= bounds.last else None
            if at - last.time < (self._present if row is None else row.time) - at:
                return last.number + 1
        return number

    def last_before(self, at: int, bounds: Span, breaks: Sequence[int]) -> int | None:
        """The number of the last row of which it is certain that it is of before the time *at*; None without one."""
        earlier = self._up_to(self._trusted(bounds, breaks), at - 1)
        row = self._preceding(earlier[-1].last) if earlier else None
        return None if row is None else row.number

    def _trusted(self, bounds: Span, breaks: Sequence[int]) -> list[Span]:
        """The spans of rows whose times can be trusted, in order; their times do not go back from one to the next."""
        starts = [bounds.first, *(number for number in breaks if bounds.first < number <= bounds.last)]
        spans: list[Span] = []
        for first, end in pairwise([*starts, bounds.last + 1]):
            spans = self._joined(spans, Span(first, end - 1))
        return self._up_to(spans, self._present)  # what is later was written by a clock that was ahead

    def _joined(self, spans: list[Span], span: Span) -> list[Span]:
        """*spans* and the next one, without the rows of either that a wrong clock wrote."""
        head = self._following(span.first)
        last = self._preceding(spans[-1].last) if spans else None
        if head is None or last is None or last.time <= head.time:
            return [*spans, span]
        # The clock was ahead before, or it is behind from here to the row that returns to the time of the last one.
        earlier = self._up_to(spans, head.time)
        if self._present < last.time:
            return [*earlier, span]
        returning = self._search(span, last.time - 1)
        row = self._following(returning) if returning <= span.last else None
        before = self._preceding(returning - 1)
        jump_back = (self._present if row is None else row.time) - (head.time if before is None else before.time)
        # The wrong clock is the one of the larger jump: into the rows that were ahead, or out of those behind.
        if self._jump_into(spans, earlier) >= jump_back:
            return [*earlier, span]
        return [*spans, Span(returning, span.last)] if row is not None else spans

    def _jump_into(self, spans: list[Span], earlier: list[Span]) -> int:
        """How far the first row of *spans* that is not in *earlier* is after the row before it."""
        if not earlier:
            return 0
        before, first = self._preceding(earlier[-1].last), self._following(earlier[-1].last + 1)
        return 0 if before is None or first is None or first.number > spans[-1].last else first.time - before.time

    def _up_to(self, spans: list[Span], time: int) -> list[Span]:
        """The rows of *spans* up to a time."""
        parts: list[Span] = []
        for span in spans:
            end = self._search(span, time)
            if end > span.first:
                parts.append(Span(span.first, end - 1))
            if end <= span.last:
                break
        return parts

    def _search(self, span: Span, at: int) -> int:
        """The number of the first row of *span* after a time; one more than its last where there is none."""
        low, high = span.first, span.last + 1
        while low < high:
            middle = (low + high) // 2
            row = self._following(middle)
            if row is None or row.number >= high or row.time > at:
                high = middle
            else:
                low = row.number + 1
        row = self._following(low)
        return span.last + 1 if row is None or row.number > span.last else row.number

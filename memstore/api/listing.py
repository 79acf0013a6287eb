"""Lists of records, of which `list` and `page` read one part after the other."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import Connection

from memstore.history.listing import AsOfListing
from memstore.models.records import Assembly, Memory
from memstore.repository import records
from memstore.repository.records import Position, SortOrder
from memstore.repository.selection import Selection
from memstore.repository.vectors import Spaces

RecordT = TypeVar("RecordT", bound=Memory | Assembly)
RecordT_co = TypeVar("RecordT_co", bound=Memory | Assembly, covariant=True)

ReadRecords = Callable[[Connection, Sequence[int], Selection], Sequence[RecordT]]
"""Reads the records of keys, in their order, as a list with a selection has them."""


class Listing(Protocol[RecordT_co]):
    """A list of records in an order."""

    def page(
        self, connection: Connection, after: Position | None, size: int, offset: int = 0
    ) -> tuple[Sequence[RecordT_co], Position | None]:
        """The next *size* records after a position, and the position of the last; None if there are no more.

        *offset* records are skipped first, without being read.
        """
        ...


class CurrentListing(Generic[RecordT]):
    """The records as they are when a page is read.

    Args:
        select: the selection at the time of a page.
        order: of the list.
        read: reads the records.
    """

    def __init__(self, select: Callable[[], Selection], order: SortOrder, read: ReadRecords[RecordT]) -> None:
        self._select = select
        self._order = order
        self._read = read

    def page(
        self, connection: Connection, after: Position | None, size: int, offset: int = 0
    ) -> tuple[Sequence[RecordT], Position | None]:
        """See `Listing.page`."""
        selection = self._select()
        positions, _ = records.page(connection, selection, self._order, after, size + 1, offset)
        more = len(positions) > size
        positions = positions[:size]
        return self._read(connection, [row.pk for row in positions], selection), positions[-1] if more else None


class PastListing(Generic[RecordT]):
    """The records as they were at the time of the selection, whatever changes meanwhile."""

    def __init__(self, spaces: Spaces, selection: Selection, order: SortOrder, *, embeddings: bool) -> None:
        self._make = partial(AsOfListing[Any], spaces, selection, order, embeddings=embeddings)
        self._listing: AsOfListing[Any] | None = None

    def page(
        self, connection: Connection, after: Position | None, size: int, offset: int = 0
    ) -> tuple[Sequence[RecordT], Position | None]:
        """See `Listing.page`. The first page sets the position; *after* must continue it from then on."""
        if self._listing is None:
            self._listing = self._make(after=after)
        return self._listing.page(connection, size, offset)

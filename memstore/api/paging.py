"""Listing page by page: each page is one read transaction, and no lock is held between pages."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

from sqlalchemy import Connection

from memstore.session import Session

T = TypeVar("T")
PositionT = TypeVar("PositionT")

PAGE_SIZE = 100
"""Records read in one transaction."""


async def pages(
    session: Session,
    read_page: Callable[[Connection, PositionT | None, int], tuple[Sequence[T], PositionT | None]],
    limit: int | None = None,
) -> AsyncIterator[T]:
    """The records of every page, one after the other, at most *limit*.

    *read_page* receives the position where the page before ended (None at first) and the size of the page. It returns
    the page and the position where it ends; None ends the list.
    """
    position: PositionT | None = None
    remaining = limit
    while remaining is None or remaining > 0:
        size = PAGE_SIZE if remaining is None else min(PAGE_SIZE, remaining)
        start = position

        def step(
            connection: Connection, start: PositionT | None = start, size: int = size
        ) -> tuple[Sequence[T], PositionT | None]:
            return read_page(connection, start, size)

        records, position = await session.read(step)
        for record in records:
            yield record
            session.check_usable()  # also between the records of a page that was read before
        if position is None:
            return
        remaining = None if remaining is None else remaining - len(records)

"""The verbs on tags."""

import builtins
from collections.abc import AsyncIterator
from functools import partial

from sqlalchemy import Connection

from memstore.api.collection import PAGE
from memstore.errors import NotFoundError
from memstore.models.records import Namespace, Tag
from memstore.repository import history_writer, tags
from memstore.repository.context import WriteContext
from memstore.repository.record_types import RECORD_TYPES
from memstore.session import Session
from memstore.timestamps import now
from memstore.validation.text import check_text
from memstore.validation.values import MAX_TAG_BYTES


class Tags:
    """The tags of one namespace: `store.tags`, or `tx.tags`. A tag exists while something carries it."""

    def __init__(self, session: Session, namespace: Namespace) -> None:
        self._session = session
        self._namespace = namespace

    async def list(self) -> AsyncIterator[Tag]:
        """Every tag in use, by name in code-point order, read page by page."""
        after: str | None = None
        while True:
            page = await self._session.read(partial(self._page, after=after))
            for tag in page:
                yield tag
                self._session.check_usable()
            if len(page) < PAGE:
                return
            after = page[-1].name

    def _page(self, connection: Connection, after: str | None) -> builtins.list[Tag]:
        return tags.page(connection, self._namespace, now(), after, PAGE)

    async def rename(self, old: str, new: str) -> int:
        """Give whatever carries the tag *old* the tag *new* instead; how many records were changed.

        Takes the writer lock. Where *new* is in use already the two become one.

        Raises:
            NotFoundError: nothing carries *old*.
        """
        _check_tag(old)
        _check_tag(new)

        def step(context: WriteContext) -> int:
            connection = context.connection
            key = tags.find(connection, self._namespace, old)
            carried = 0 if key is None else _carried(connection, key)
            if key is None or not carried:
                raise NotFoundError("tag", old, self._namespace)
            if old != new:
                _note(context, key, old, new)
                tags.rename(connection, self._namespace, key, new, context.now)
            return carried

        return await self._session.write(step)

    async def delete(self, tag: str) -> int:
        """Take a tag from whatever carries it; how many records were changed. Takes the writer lock."""
        _check_tag(tag)

        def step(context: WriteContext) -> int:
            connection = context.connection
            key = tags.find(connection, self._namespace, tag)
            if key is None:
                return 0
            carried = _carried(connection, key)
            _note(context, key, tag, None)
            tags.drop(connection, key, context.now)
            return carried

        return await self._session.write(step)


def _check_tag(value: object) -> str:
    return check_text("a tag", value, least=1, most=MAX_TAG_BYTES)


def _note(context: WriteContext, key: int, old: str, new: str | None) -> None:
    for noun in RECORD_TYPES:
        history_writer.record_tag_change(context, noun, tags.owners(context.connection, noun, key), old, new)


def _carried(connection: Connection, key: int) -> int:
    return sum(len(tags.owners(connection, noun, key)) for noun in RECORD_TYPES)

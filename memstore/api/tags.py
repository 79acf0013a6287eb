"""`Tags`: the verbs on tags."""

from collections.abc import AsyncIterator, Sequence

from sqlalchemy import Connection

from memstore.api.handle import Handle
from memstore.api.paging import pages
from memstore.errors import NotFoundError
from memstore.models.records import Tag
from memstore.repository import history_writer, tags
from memstore.repository.context import WriteContext
from memstore.repository.record_types import RECORD_TYPES
from memstore.validation.text import check_text
from memstore.validation.values import MAX_TAG_BYTES


class Tags(Handle):
    """The tags of one namespace: `store.tags`, or `tx.tags`. A tag exists while a memory or an assembly has it."""

    def list(self) -> AsyncIterator[Tag]:
        """Read every tag in use, by name in code-point order, page by page."""

        def read_page(connection: Connection, position: str | None, size: int) -> tuple[Sequence[Tag], str | None]:
            page = tags.page(connection, self._namespace, self._session.clock(), position, size)
            return page, page[-1].name if len(page) == size else None

        return pages(self._session, read_page)

    async def rename(self, old: str, new: str) -> int:
        """Rename the tag *old* to *new* in every record that has it. Takes the writer lock.

        If *new* is in use, the two tags become one. If it equals *old*, nothing changes.

        Returns:
            How many records were changed.

        Raises:
            NotFoundError: no record has *old*.
        """
        _check_tag(old)
        _check_tag(new)

        def step(context: WriteContext) -> int:
            connection = context.connection
            key = tags.find(connection, self._namespace, old)
            count = 0 if key is None else _count(context, key)
            if key is None or not count:
                raise NotFoundError("tag", old, self._namespace)
            if old == new:
                return 0
            _record(context, key, old, new)
            tags.rename(connection, self._namespace, key, new, context.now)
            return count

        return await self._session.write(step)

    async def delete(self, tag: str) -> int:
        """Remove a tag from every record that has it. Takes the writer lock.

        Returns:
            How many records had it; 0 if there is no such tag.
        """
        _check_tag(tag)

        def step(context: WriteContext) -> int:
            connection = context.connection
            key = tags.find(connection, self._namespace, tag)
            if key is None:
                return 0
            count = _count(context, key)
            _record(context, key, tag, None)
            tags.drop(connection, key, context.now)
            return count

        return await self._session.write(step)


def _check_tag(value: object) -> str:
    return check_text("tag", value, least=1, most=MAX_TAG_BYTES)


def _count(context: WriteContext, key: int) -> int:
    return sum(len(tags.owners(context.connection, record_type, key, context.now)) for record_type in RECORD_TYPES)


def _record(context: WriteContext, key: int, old: str, new: str | None) -> None:
    for record_type in RECORD_TYPES:
        owners = tags.owners(context.connection, record_type, key, context.now)
        history_writer.record_tag_change(context, record_type, owners, old, new)

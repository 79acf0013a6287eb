"""The verbs on memories."""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, ClassVar, cast

from memstore.api.collection import embed
from memstore.api.searches import MemorySearches
from memstore.concurrency import CHUNK_SIZE
from memstore.database.writer import BatchableOperation
from memstore.errors import DuplicateError, InvalidError
from memstore.models.fields import orders
from memstore.models.records import Json, Memory
from memstore.repository import history_writer, memories
from memstore.repository import records as record_rows
from memstore.repository.context import WriteContext
from memstore.repository.corruption import only
from memstore.repository.memories import Batch
from memstore.repository.record_types import MEMORY
from memstore.timestamps import now
from memstore.validation.arguments import ABSENT, Absent, as_item, given, list_of_ids, listed
from memstore.validation.records import Draft, memory_changes, new_memories
from memstore.validation.text import check_text
from memstore.validation.values import check_id, check_ids
from memstore.vectors.encoding import EmbeddingLike

_KEPT = frozenset({"created_at", "accessed_at", "access_count", "pinned"})
"""What upsert leaves as it was, unless it is named."""


class Memories(MemorySearches):
    """The memories of one namespace: `store.memories`, or `tx.memories`."""

    _orders: ClassVar[frozenset[str]] = orders("memory")

    async def add(
        self,
        content: str,
        *,
        id: str | None = None,
        embedding: EmbeddingLike | Absent | None = ABSENT,
        tags: Iterable[str] = (),
        metadata: Mapping[str, Json] | None = None,
        importance: float = 0.5,
        created_at: datetime | None = None,
        updated_at: datetime | None = None,
        expires_at: datetime | None = None,
        ttl: float | timedelta | None = None,
        accessed_at: datetime | None = None,
        access_count: int = 0,
        pinned: bool = False,
    ) -> Memory:
        """Store a memory: its row, tags and vector durably, and its place in the index, all there when this returns.

        Takes the writer lock.

        Args:
            content: its text.
            id: any text, 1 to 65,536 bytes of UTF-8; None makes a time-ordered one.
            embedding: real numbers, shape (dimension,), rounded to float32. Left out, the embedder makes it, if the
                store has one; None stores the memory without one.
            tags: words.
            metadata: a JSON object.
            importance: 0 to 1.
            created_at: aware; None is now.
            updated_at: aware; None is now.
            expires_at: aware; from then on no read sees it.
            ttl: seconds, or a timedelta, from now until it expires.
            accessed_at: aware; None is never.
            access_count: how often it was touched.
            pinned: whether no policy may ever forget it.

        Returns:
            The record as stored.

        Raises:
            DuplicateError: the id is taken.
            DimensionError, EmbeddingError: the embedding cannot be stored.
            InvalidError: another argument cannot be stored.
            BusyError: the writer was not to be had within the timeout.
        """
        return (await self.add_many([as_item(locals())]))[0]

    async def add_many(self, items: Iterable[Mapping[str, Any]]) -> list[Memory]:
        """Store memories, all or none: mappings with the keyword names of `add`. Errors and returns as of `add`.

        Takes the writer lock once. Equal ids in one call raise `DuplicateError`.
        """
        prepared = await self._embedded(items)
        records: dict[str, Memory] = {}
        encoded: list[Batch] = []
        many = len(prepared) > CHUNK_SIZE

        def given_once() -> Iterator[Memory]:
            for record in self._new(prepared):
                if record.id in records:
                    raise DuplicateError("memory", record.id, given_twice=True)
                records[record.id] = record
                yield record

        def before() -> None:
            if many:
                encoded.extend(memories.batches(given_once()))
            else:  # encoded together with what others bring at the same time
                deque(given_once(), maxlen=0)

        step = BatchableOperation(("add", self._namespace), self._inserted, (records, encoded), len(prepared))
        return await self._session.write(step, before=before, batch=many)

    def _inserted(
        self, context: WriteContext, calls: Sequence[tuple[dict[str, Memory], list[Batch]]]
    ) -> list[list[Memory]]:
        """Store what one or several calls of `add_many` bring; what each returns."""
        encoded = calls[0][1] or list(memories.batches(chain.from_iterable(new.values() for new, _ in calls)))
        if encoded:
            memories.insert_new(context, self._namespace, encoded)
        return [list(records.values()) for records, _ in calls]

    async def upsert(
        self,
        content: str,
        *,
        id: str,
        embedding: EmbeddingLike | Absent | None = ABSENT,
        tags: Iterable[str] = (),
        metadata: Mapping[str, Json] | None = None,
        importance: float = 0.5,
        created_at: datetime | None = None,
        updated_at: datetime | None = None,
        expires_at: datetime | None = None,
        ttl: float | timedelta | None = None,
        accessed_at: datetime | None = None,
        access_count: int | None = None,
        pinned: bool | None = None,
    ) -> Memory:
        """Store a memory in place of the one that has the id, if any; arguments and errors as of `add`.

        An existing one gets exactly what `add` would give it, but keeps its memberships, and those of `created_at`,
        `accessed_at`, `access_count` and `pinned` that are not given.
        """
        return (await self.upsert_many([as_item(locals())]))[0]

    async def upsert_many(self, items: Iterable[Mapping[str, Any]]) -> list[Memory]:
        """Upsert memories, all or none; of equal ids in one call the last wins. One record an item, in order."""
        prepared = await self._embedded(items)
        last: dict[str, Draft[Memory]] = {}
        ids: list[str] = []
        encoded: list[Batch] = []

        def before() -> None:
            for item, record in zip(prepared, self._new(prepared), strict=True):
                ids.append(record.id)
                named = () if _KEPT.isdisjoint(item) else [name for name in _KEPT if item.get(name) is not None]
                last[record.id] = Draft(record, frozenset(named))
            encoded.extend(memories.batches(draft.record for draft in last.values()))

        def step(context: WriteContext) -> list[Memory]:
            for batch in encoded:
                self._upserted(context, batch, last)
            return [last[id].record for id in ids]

        return await self._session.write(step, before=before, batch=len(prepared) > CHUNK_SIZE)

    def _upserted(self, context: WriteContext, batch: Batch, drafts: Mapping[str, Draft[Memory]]) -> None:
        """Store a batch, whose memories are those of *drafts*; those that were there keep their history."""
        there = memories.existing(context.connection, self._namespace, batch.ids)
        if len(there) < len(batch):
            fresh = batch.only(i for i, id in enumerate(batch.ids) if id not in there)
            memories.insert_new(context, self._namespace, [fresh])
            batch = batch.only(i for i, id in enumerate(batch.ids) if id in there)
        if there:
            memories.keep_history(batch, [drafts[id] for id in batch.ids], there)
            memories.replace(context, self._namespace, batch, there)

    async def update(
        self,
        id: str,
        *,
        content: str | Absent = ABSENT,
        embedding: EmbeddingLike | Absent | None = ABSENT,
        tags: Iterable[str] | Absent = ABSENT,
        metadata: Mapping[str, Json] | Absent = ABSENT,
        importance: float | Absent = ABSENT,
        created_at: datetime | Absent = ABSENT,
        updated_at: datetime | Absent = ABSENT,
        expires_at: datetime | Absent | None = ABSENT,
        ttl: float | timedelta | Absent = ABSENT,
        accessed_at: datetime | Absent | None = ABSENT,
        access_count: int | Absent = ABSENT,
        pinned: bool | Absent = ABSENT,
    ) -> Memory:
        """Change the fields named and nothing else; a value replaces the old one whole, metadata too.

        Takes the writer lock. New content needs a new embedding: the embedder makes it, if the store has one; else
        give it, or None to drop the old one.

        Returns:
            The new record.

        Raises:
            NotFoundError: there is no such memory.
            InvalidError: content without an embedding, where there is no embedder; or as `add`.
        """
        check_id(id)
        named = {k: v for k, v in locals().items() if k not in ("self", "id")}
        changes = given(**named)
        if "content" in changes and "embedding" not in changes:
            check_text("content", changes["content"])
            if self._session.embedder is None:
                raise InvalidError(
                    "new content needs a new embedding, or the old one would stand for a text it is not of: "
                    "give embedding=, None to drop it"
                )
            changes["embedding"] = (await embed(self._session, [cast("str", changes["content"])]))[0]

        def step(context: WriteContext) -> Memory:
            connection = context.connection
            fields = memory_changes(changes, self._space, context.now)
            fields.setdefault("updated_at", context.now)
            key = self._key(connection, id, context.now)
            with history_writer.record_update(context, MEMORY, [key]):
                memories.change(connection, self._space, self._namespace, key, fields)
            return only(memories.read(connection, self._space, [key]))

        return await self._session.write(step)

    async def touch(self, ids: Iterable[str]) -> int:
        """Note that memories were used: `accessed_at` is now, `access_count` one more; how many of *ids* exist.

        Reads never do this by themselves. Takes the writer lock.
        """
        asked = list_of_ids(ids)

        def step(context: WriteContext) -> int:
            keys = record_rows.keys_of(context.connection, MEMORY, self._namespace, check_ids(asked), context.now)
            memories.touch(context.connection, sorted(keys.values()), context.now)
            return len(keys)

        return await self._session.write(step)

    async def _embedded(self, items: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The items, those without an embedding given the embedder's, if the store has one."""
        prepared: list[Mapping[str, Any]] = listed(items, "give a list of mappings, one a memory")
        if self._session.embedder is None:
            return prepared
        without = [i for i, item in enumerate(prepared) if isinstance(item, Mapping) and "embedding" not in item]
        texts: list[str] = []
        for i in without:
            texts.append(check_text("content", prepared[i].get("content")))
            if len(texts) % CHUNK_SIZE == 0:
                await asyncio.sleep(0)  # the loop may have other things to do
        if texts:
            for i, vector in zip(without, await embed(self._session, texts), strict=True):
                prepared[i] = {**prepared[i], "embedding": vector}
        return prepared

    def _new(self, items: Sequence[Mapping[str, Any]]) -> Iterator[Memory]:
        return new_memories(items, self._namespace, self._space, now())

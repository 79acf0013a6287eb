"""`Memories`: the verbs on memories."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from typing import Any, ClassVar, cast

from sqlalchemy import Connection

from memstore.api.collection import Collection, Queries, Query, embed
from memstore.concurrency import CHUNK_SIZE
from memstore.database.writer import BatchableOperation
from memstore.errors import DuplicateError, InvalidError
from memstore.filters import Where
from memstore.forgetting.policies import AssemblyForgetPolicy, ForgetPolicy
from memstore.models.explanation import Explanation
from memstore.models.fields import orders
from memstore.models.records import Json, Memory, Namespace
from memstore.models.search import Hit, Hits
from memstore.repository import assembly_activation, history_writer, memories, records
from memstore.repository.context import WriteContext
from memstore.repository.corruption import only
from memstore.repository.memories import Batch
from memstore.repository.record_types import MEMORY, RecordType
from memstore.search.activation import AssemblyBoost, check_boost
from memstore.search.assembly_boost import search_boosted, strengths
from memstore.search.explain import explain
from memstore.timestamps import now
from memstore.validation.arguments import UNSET, Unset, as_item, as_list, id_list, without_unset
from memstore.validation.records import Draft, memory_changes, new_memories
from memstore.validation.text import check_text
from memstore.validation.values import check_id, check_ids, check_namespace
from memstore.vectors.encoding import EmbeddingLike

_KEPT_BY_UPSERT = frozenset({"created_at", "accessed_at", "access_count", "pinned"})


class Memories(Collection[Memory, Hit, ForgetPolicy]):
    """The memories of one namespace: `store.memories`, or `tx.memories`."""

    _record_type: ClassVar[RecordType] = MEMORY
    _policy_type: ClassVar[type[ForgetPolicy | AssemblyForgetPolicy]] = ForgetPolicy
    _sort_fields: ClassVar[frozenset[str]] = orders("memory")

    async def add(
        self,
        content: str,
        *,
        id: str | None = None,
        embedding: EmbeddingLike | Unset | None = UNSET,
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
        """Store a memory. When this returns, its row, tags and vector are durable, and searches find it.

        Takes the writer lock.

        Args:
            content: its text.
            id: any text, 1 to 65,536 bytes of UTF-8; None generates a time-ordered id.
            embedding: real numbers, shape (dimension,), rounded to float32. If omitted, the embedder of the store makes
                it; None, or a store without embedder, stores the memory without a vector, so that no search finds it.
            tags: its tags.
            metadata: a JSON object.
            importance: 0 to 1.
            created_at: a time-zone-aware time; None is now.
            updated_at: a time-zone-aware time; None is now.
            expires_at: a time-zone-aware time. Expired memories are invisible to every read.
            ttl: time until it expires: seconds, or a timedelta. Not together with `expires_at`.
            accessed_at: a time-zone-aware time; None is never.
            access_count: how often it was accessed.
            pinned: whether policies never forget it.

        Returns:
            The record as stored.

        Raises:
            DuplicateError: another memory of the namespace has the id.
            DimensionError, EmbeddingError: the embedding cannot be stored.
            InvalidError: another argument cannot be stored.
            BusyError: another writer held the lock for longer than the store's timeout.
        """
        return (await self.add_many([as_item(locals())]))[0]

    async def add_many(self, items: Iterable[Mapping[str, Any]]) -> list[Memory]:
        """Store several memories in one transaction, all or none. Takes the writer lock once.

        Args:
            items: mappings with the argument names of `add`.

        Returns:
            The records as stored, in order.

        Raises:
            DuplicateError: an id is taken, or occurs twice in *items*.
            Everything that `add` raises.
        """
        prepared = await self._with_embeddings(items)
        large = len(prepared) > CHUNK_SIZE
        new: dict[str, Memory] = {}
        batches: list[Batch] = []

        def prepare() -> None:
            for memory in new_memories(prepared, self._namespace, self._space, now()):
                if memory.id in new:
                    raise DuplicateError("memory", memory.id, given_twice=True)
                new[memory.id] = memory
            if large:  # small writes are encoded together with those that share their transaction
                batches.extend(memories.batches(new.values()))

        operation = BatchableOperation(("add", self._namespace), self._insert, (new, batches), len(prepared))
        return await self._session.write(operation, before=prepare, batch=large)

    def _insert(
        self, context: WriteContext, calls: Sequence[tuple[dict[str, Memory], list[Batch]]]
    ) -> list[list[Memory]]:
        """Store the memories of one or several calls of `add_many`; the result of each call."""
        results: list[list[Memory]] = []
        for new, _ in calls:
            results.append(list(new.values()))
        batches = calls[0][1] or memories.batches(chain.from_iterable(results))
        if batches:
            memories.insert_new(context, self._namespace, batches)
        return results

    async def upsert(
        self,
        content: str,
        *,
        id: str,
        embedding: EmbeddingLike | Unset | None = UNSET,
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
        """Store a memory, or replace the one that has the id; arguments and errors as of `add`.

        A replaced memory gets every field that `add` would give it. It keeps its memberships, and `created_at`,
        `accessed_at`, `access_count` and `pinned` unless they are given. Takes the writer lock.
        """
        return (await self.upsert_many([as_item(locals())]))[0]

    async def upsert_many(self, items: Iterable[Mapping[str, Any]]) -> list[Memory]:
        """Upsert several memories in one transaction, all or none. Takes the writer lock once.

        Args:
            items: mappings with the argument names of `upsert`. If an id occurs twice, the last item wins.

        Returns:
            The record of each item as stored, in order.
        """
        prepared = await self._with_embeddings(items)
        drafts: dict[str, Draft[Memory]] = {}
        ids: list[str] = []
        batches: list[Batch] = []

        def prepare() -> None:
            new = new_memories(prepared, self._namespace, self._space, now())
            for item, memory in zip(prepared, new, strict=True):
                ids.append(memory.id)
                named = (
                    () if _KEPT_BY_UPSERT.isdisjoint(item) else [n for n in _KEPT_BY_UPSERT if item.get(n) is not None]
                )
                drafts[memory.id] = Draft(memory, frozenset(named))
            batches.extend(memories.batches(draft.record for draft in drafts.values()))

        def step(context: WriteContext) -> list[Memory]:
            for batch in batches:
                memories.upsert(context, self._namespace, batch, drafts)
            return [drafts[id].record for id in ids]

        return await self._session.write(step, before=prepare, batch=len(prepared) > CHUNK_SIZE)

    async def update(
        self,
        id: str,
        *,
        content: str | Unset = UNSET,
        embedding: EmbeddingLike | Unset | None = UNSET,
        tags: Iterable[str] | Unset = UNSET,
        metadata: Mapping[str, Json] | Unset = UNSET,
        importance: float | Unset = UNSET,
        created_at: datetime | Unset = UNSET,
        updated_at: datetime | Unset = UNSET,
        expires_at: datetime | Unset | None = UNSET,
        ttl: float | timedelta | Unset = UNSET,
        accessed_at: datetime | Unset | None = UNSET,
        access_count: int | Unset = UNSET,
        pinned: bool | Unset = UNSET,
    ) -> Memory:
        """Change the given fields of a memory, and no others. Takes the writer lock.

        A given value replaces the stored one; metadata is replaced as a whole. New content needs a new embedding: the
        embedder of the store makes it, or the caller passes it, or None to remove the old one.

        Returns:
            The memory after the change.

        Raises:
            NotFoundError: there is no such memory.
            InvalidError: new content without an embedding in a store without embedder; or as of `add`.
        """
        check_id(id)
        changes = without_unset({name: value for name, value in locals().items() if name not in ("self", "id")})
        if "content" in changes and "embedding" not in changes:
            check_text("content", changes["content"])
            if self._session.embedder is None:
                raise InvalidError(
                    "New content needs a new embedding, because the old one belongs to the old content: pass "
                    "embedding=, or embedding=None to remove the old one"
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
        """Record an access: sets `accessed_at` to now and adds one to `access_count`. Takes the writer lock.

        Reads and searches do not record accesses.

        Returns:
            How many of *ids* exist.
        """
        unchecked = id_list(ids)

        def step(context: WriteContext) -> int:
            keys = records.keys_of(context.connection, MEMORY, self._namespace, check_ids(unchecked), context.now)
            memories.touch(context.connection, sorted(keys.values()), context.now)
            return len(keys)

        return await self._session.write(step)

    async def search(
        self,
        query: Query,
        limit: int = 10,
        *,
        tags: Iterable[str] = (),
        where: Where | None = None,
        min_score: float | None = None,
        recursive: bool = False,
        boost: AssemblyBoost | None = None,
    ) -> Hits[Hit]:
        """Find the memories nearest to *query*; with *boost*, members of assemblies near the query rank higher.

        Args:
            query: numbers, shape (dimension,), rounded to float32; need not be normalised. With an embedder also text.
            limit: at most so many hits, 1 to 10,000.
            tags: only memories that have all of these.
            where: only memories that match this filter.
            min_score: only memories with this base score or more, whatever an assembly adds.
            recursive: also memories of all namespaces below this one.
            boost: assemblies whose composite is near *query* boost the scores of their members, also of members that a
                search without boost would rank lower: `score = base_score + boost`. `memstore.search.activation` has
                the formulas. Each hit has its boost and the reason, `hits.activated` the assemblies.

        Returns:
            At most *limit* hits, best first, ties in order of creation. The metric sets the range of the scores (see
            `memstore.vectors.metrics`), and a boost adds at most `boost.weight`; higher is closer. Fewer than *limit*
            only if fewer memories match. `hits.plan` describes how the search was executed.

        Raises:
            DimensionError, EmbeddingError: *query* is not a vector of this store.
            EmbedderError: *query* is text, and the store has no embedder.
            FilterError: *where* is not a valid filter.
            BusyError: with `boost.record`, another writer held the lock for longer than the store's timeout.
        """
        options: dict[str, Any] = {"tags": tags, "where": where, "min_score": min_score, "recursive": recursive}
        return (await self.search_many([query], limit, boost=boost, **options))[0]

    async def search_many(
        self,
        queries: Queries,
        limit: int = 10,
        *,
        tags: Iterable[str] = (),
        where: Where | None = None,
        min_score: float | None = None,
        recursive: bool = False,
        boost: AssemblyBoost | None = None,
    ) -> list[Hits[Hit]]:
        """Search for several queries in one state of the store; arguments and errors as of `search`.

        Returns:
            One `Hits` for each query, in order.
        """
        checked_boost = check_boost(boost)
        if checked_boost is None:
            options: dict[str, Any] = {"tags": tags, "where": where, "min_score": min_score, "recursive": recursive}
            return await super().search_many(queries, limit, **options)
        request = self._request(limit, tags, where, min_score, recursive=recursive)
        vectors = await self._query_vectors(queries)
        if not vectors:
            return []
        run = partial(
            search_boosted, spaces=self._session.spaces, request=request, queries=vectors, boost=checked_boost
        )
        boosted = await self._session.search(run, "assembly")
        levels = strengths(boosted) if checked_boost.record else {}
        if levels:
            await self._session.write(
                lambda context: assembly_activation.activate(context.connection, levels, context.now)
            )
        return [hits for hits, _ in boosted]

    async def explain(
        self,
        query: Query,
        id: str,
        limit: int = 10,
        *,
        tags: Iterable[str] = (),
        where: Where | None = None,
        min_score: float | None = None,
        recursive: bool = False,
        boost: AssemblyBoost | None = None,
        namespace: Namespace | None = None,
    ) -> Explanation:
        """Explain why a memory has its rank in a search with the same arguments, or why it is not among the hits.

        Repeats the search, so every value is the one that ranked. Writes nothing, even with `boost.record`.

        *namespace* is that of the memory; None for this one. The other arguments are as of `search`.

        Raises:
            NotFoundError: there is no such memory.
            Everything that `search` raises.
        """
        check_id(id)
        path = self._namespace if namespace is None else check_namespace(namespace)
        request = self._request(limit, tags, where, min_score, recursive=recursive)
        check_boost(boost)
        (vector,) = await self._query_vectors([query])
        run = partial(
            explain,
            spaces=self._session.spaces,
            request=request,
            query=vector,
            boost=boost,
            where=where,
            memory=(path, id),
        )
        return await self._session.search(run, "memory" if boost is None else "assembly")

    def _read(self, connection: Connection, keys: Sequence[int], at: datetime) -> list[Memory]:  # noqa: ARG002
        return memories.read(connection, self._space, keys)

    async def _with_embeddings(self, items: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The items as a list. Those without an embedding get one, if the store has an embedder."""
        prepared: list[Mapping[str, Any]] = as_list(items, "items", "mappings, one for each memory")
        if self._session.embedder is None:
            return prepared
        places = [i for i, item in enumerate(prepared) if isinstance(item, Mapping) and "embedding" not in item]
        texts: list[str] = []
        for i in places:
            texts.append(check_text("content", prepared[i].get("content")))
            if len(texts) % CHUNK_SIZE == 0:
                await asyncio.sleep(0)  # other tasks of the event loop may run
        if texts:
            for i, vector in zip(places, await embed(self._session, texts), strict=True):
                prepared[i] = {**prepared[i], "embedding": vector}
        return prepared

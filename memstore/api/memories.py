"""`Memories`: the verbs on memories."""

from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from typing import Any, ClassVar, Literal, Unpack, cast, overload

from sqlalchemy import Connection

from memstore.api.arguments import (
    Changes,
    OnDuplicate,
    Queries,
    Query,
    SearchOptions,
    check_changes,
    check_on_duplicate,
)
from memstore.api.collection import SHORT_SEARCH, Collection
from memstore.api.embedding import ITEMS, check_unnamed, embed, embed_items, of_item
from memstore.concurrency import CHUNK_SIZE
from memstore.database.writer import BatchableOperation
from memstore.errors import DuplicateError, InvalidError
from memstore.filters import Where
from memstore.forgetting.policies import AssemblyForgetPolicy, ForgetPolicy
from memstore.models.explanation import Explanation
from memstore.models.fields import orders
from memstore.models.items import MemoryChanges, MemoryFields
from memstore.models.records import Address, EmbeddingLike, Memory, Namespace, address_of
from memstore.models.results import AddResult
from memstore.models.search import Hit, Hits
from memstore.repository import additions, assembly_activation, memories, records, selection, updates
from memstore.repository.context import WriteContext
from memstore.repository.corruption import only
from memstore.repository.memories import Batch
from memstore.repository.record_types import MEMORY, RecordType
from memstore.search.activation import AssemblyBoost, check_boost
from memstore.search.assembly_boost import search_boosted, strengths
from memstore.search.explain import explain
from memstore.timestamps import now
from memstore.validation.arguments import UNSET, Unset, as_item, as_list, id_list, without_unset
from memstore.validation.merge_patch import pop_patch, split_patches
from memstore.validation.records import Draft, memory_changes, new_memories
from memstore.validation.text import check_text
from memstore.validation.values import check_id, check_ids, check_namespace_within

_KEPT_BY_UPSERT = frozenset({"created_at", "updated_at", "accessed_at", "access_count", "pinned"})
"""The fields that an upsert keeps unless they are given; `updated_at` only where nothing else changes."""


class Memories(Collection[Memory, Hit, ForgetPolicy]):
    """The memories of one namespace: `store.memories`, or `tx.memories`."""

    _record_type: ClassVar[RecordType] = MEMORY
    _policy_type: ClassVar[type[ForgetPolicy | AssemblyForgetPolicy]] = ForgetPolicy
    _sort_fields: ClassVar[frozenset[str]] = orders("memory")

    @overload
    async def add(
        self, content: str, *, on_duplicate: Literal["raise"] = "raise", **fields: Unpack[MemoryFields]
    ) -> Memory: ...

    @overload
    async def add(
        self, content: str, *, on_duplicate: Literal["skip", "replace"], **fields: Unpack[MemoryFields]
    ) -> AddResult[Memory]: ...

    async def add(
        self,
        content: str,
        *,
        id: str | None = None,
        embedding: EmbeddingLike | Unset | None = UNSET,
        tags: Iterable[str] = (),
        metadata: Mapping[str, object] | None = None,
        importance: float = 0.5,
        created_at: datetime | None = None,
        updated_at: datetime | None = None,
        expires_at: datetime | None = None,
        ttl: float | timedelta | None = None,
        accessed_at: datetime | None = None,
        access_count: int | None = None,
        pinned: bool | None = None,
        on_duplicate: OnDuplicate = "raise",
    ) -> Memory | AddResult[Memory]:
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
            access_count: how often it was accessed; None is 0.
            pinned: whether policies never forget it; None is False.
            on_duplicate: if another memory of the namespace has the id, `"raise"` raises `DuplicateError`, `"skip"`
                changes nothing, and `"replace"` replaces that memory as `upsert` does.

        Returns:
            The record as stored; with another *on_duplicate* than `"raise"` an `AddResult` that says what was done.

        Raises:
            DuplicateError: another memory of the namespace has the id.
            DimensionError, EmbeddingError: the embedding cannot be stored.
            InvalidError: another argument cannot be stored.
            BusyError: another writer held the lock for longer than the store's timeout.
        """
        item = as_item(locals())
        del item["on_duplicate"]
        if on_duplicate == "raise":
            return (await self.add_many([item]))[0]
        return (await self.add_many([item], on_duplicate=on_duplicate))[0]

    @overload
    async def add_many(
        self, items: Iterable[Mapping[str, Any]], *, on_duplicate: Literal["raise"] = "raise"
    ) -> list[Memory]: ...

    @overload
    async def add_many(
        self, items: Iterable[Mapping[str, Any]], *, on_duplicate: Literal["skip", "replace"]
    ) -> list[AddResult[Memory]]: ...

    async def add_many(
        self, items: Iterable[Mapping[str, Any]], *, on_duplicate: OnDuplicate = "raise"
    ) -> list[Memory] | list[AddResult[Memory]]:
        """Store several memories in one transaction, all or none. Takes the writer lock once.

        Args:
            items: mappings with the argument names of `add`, and `namespace`: the namespace of the memory, which is
                this one or one below it; this one if it is left out.
            on_duplicate: as of `add`, for each item. If an id occurs twice in *items*, `"skip"` stores the first item
                and `"replace"` the last. With `"skip"` the embedder gets no text of an item whose id exists.

        Returns:
            The records as stored, in order; with another *on_duplicate* than `"raise"` an `AddResult` for each.

        Raises:
            DuplicateError: an id is taken, or occurs twice in *items*.
            Everything that `add` raises.
        """
        if on_duplicate != "raise":
            if check_on_duplicate(on_duplicate) == "skip":
                return await self._add_missing(as_list(items, "items", ITEMS))
            stored = await self._upsert(await self._with_embeddings(items))
            return [AddResult(memory, "replaced" if existed else "added") for memory, existed in stored]
        prepared = await self._with_embeddings(items)
        large = len(prepared) > CHUNK_SIZE
        new: dict[Address, Memory] = {}
        batches: list[Batch] = []
        without_embedding: list[Mapping[str, Any]] = []

        def prepare() -> None:
            for i, memory in enumerate(new_memories(prepared, self._namespace, self._space, now())):
                address = memory.namespace, memory.id
                if address in new:
                    raise of_item(DuplicateError("memory", memory.id, given_twice=True), prepared, i)
                new[address] = memory
                if memory.embedding is None and "embedding" not in prepared[i]:
                    without_embedding.append(prepared[i])
            if large:  # small writes are encoded together with those that share their transaction
                batches.extend(memories.batches(new.values()))

        operation = BatchableOperation("add", _insert, (new, batches, without_embedding), len(prepared))
        return await self._session.write(operation, before=prepare, batch=large)

    async def _existing(self, items: Sequence[object]) -> frozenset[int]:
        """The positions of the *items* whose ids exist."""
        addresses = {
            i: (check_namespace_within(item.get("namespace") or self._namespace, self._namespace), check_id(item["id"]))
            for i, item in enumerate(items)
            if isinstance(item, Mapping) and item.get("id") is not None
        }
        unique = list(dict.fromkeys(addresses.values()))
        keys = await self._session.read(
            lambda connection: records.keys_of_addresses(connection, MEMORY, unique, self._session.clock())
        )
        return frozenset(i for i, address in addresses.items() if address in keys)

    async def _add_missing(self, items: list[Mapping[str, Any]]) -> list[AddResult[Memory]]:
        """`add_many` with `on_duplicate="skip"`. Items whose id exists are not embedded."""
        unnamed = self._session.embedder is None and self._space.embedder is None
        existing = frozenset() if unnamed else await self._existing(items)
        while True:
            prepared = await self._with_embeddings(items, existing)
            new: list[Memory] = []
            batches: list[Batch] = []

            def prepare(
                items: Sequence[Any] = prepared, new: list[Memory] = new, batches: list[Batch] = batches
            ) -> None:
                new.extend(new_memories(items, self._namespace, self._space, now()))
                first = {address_of(memory): memory for memory in reversed(new)}
                batches.extend(memories.batches(reversed(first.values())))

            def step(
                context: WriteContext,
                new: list[Memory] = new,
                batches: list[Batch] = batches,
                existing: frozenset[int] = existing,
            ) -> list[AddResult[Memory]] | None:
                return additions.add_missing(context, new, batches, unembedded={address_of(new[i]) for i in existing})

            results = await self._session.write(step, before=prepare, batch=len(prepared) > CHUNK_SIZE)
            if results is not None:
                return results
            existing = frozenset()  # one of them was deleted in the meantime, so all are embedded

    async def upsert(
        self,
        content: str,
        *,
        id: str,
        embedding: EmbeddingLike | Unset | None = UNSET,
        tags: Iterable[str] = (),
        metadata: Mapping[str, object] | None = None,
        metadata_patch: Mapping[str, object] | None = None,
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
        `accessed_at`, `access_count` and `pinned` unless they are given. If nothing changes, it keeps `updated_at` too.
        With `metadata_patch`, a JSON merge patch as of `update`, it keeps the rest of its metadata. Takes the writer
        lock.
        """
        return (await self.upsert_many([as_item(locals())]))[0]

    async def upsert_many(self, items: Iterable[Mapping[str, Any]]) -> list[Memory]:
        """Upsert several memories in one transaction, all or none. Takes the writer lock once.

        Args:
            items: mappings with the argument names of `upsert`, and `namespace` as of `add_many`. If an id occurs
                twice, the last item wins; its `metadata_patch` is applied to what the one before it stores.

        Returns:
            The record of each item as stored, in order.
        """
        return [memory for memory, _ in await self._upsert(await self._with_embeddings(items))]

    async def _upsert(self, prepared: list[Mapping[str, Any]]) -> list[tuple[Memory, bool]]:
        """Upsert the items; the memory of each, and whether it replaced another."""
        drafts: dict[Address, Draft[Memory]] = {}
        addresses: list[Address] = []
        batches: list[Batch] = []

        def prepare() -> None:
            items, patches = split_patches(prepared)
            new = new_memories(items, self._namespace, self._space, now())
            for i, (item, memory) in enumerate(zip(items, new, strict=True)):
                address = memory.namespace, memory.id
                addresses.append(address)
                named = (
                    () if _KEPT_BY_UPSERT.isdisjoint(item) else [n for n in _KEPT_BY_UPSERT if item.get(n) is not None]
                )
                draft = Draft(memory, frozenset(named), (patches[i],) if i in patches else ())
                drafts[address] = additions.after(drafts.get(address), draft) if draft.patches else draft
            batches.extend(memories.batches(draft.record for draft in drafts.values()))

        def step(context: WriteContext) -> list[tuple[Memory, bool]]:
            if self._session.embedder is None:
                check_unnamed(context, prepared)
            return additions.upsert(context, addresses, drafts, batches)

        return await self._session.write(step, before=prepare, batch=len(prepared) > CHUNK_SIZE)

    async def update(
        self,
        id: str,
        *,
        content: str | Unset = UNSET,
        embedding: EmbeddingLike | Unset | None = UNSET,
        tags: Iterable[str] | Unset = UNSET,
        metadata: Mapping[str, object] | Unset = UNSET,
        metadata_patch: Mapping[str, object] | Unset = UNSET,
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

        A given value replaces the stored one; `metadata` is replaced as a whole, and `metadata_patch` changes a part
        of it. New content needs a new embedding: the embedder of the store makes it, or the caller passes it, or None
        to remove the old one. If no value differs from the stored one, nothing changes, `updated_at` neither.

        Args:
            id: id of the memory.
            content: its text.
            embedding: as of `add`; None removes it.
            tags: its tags.
            metadata: a JSON object.
            metadata_patch: a JSON merge patch (RFC 7396) of the metadata: its values replace those of the same keys,
                objects are merged key by key, None removes a key. Not together with `metadata`.
            importance: 0 to 1.
            created_at: a time-zone-aware time.
            updated_at: a time-zone-aware time; by default now.
            expires_at: a time-zone-aware time; None is never.
            ttl: as of `add`.
            accessed_at: a time-zone-aware time; None is never.
            access_count: how often it was accessed.
            pinned: whether policies never forget it.

        Returns:
            The memory after the change.

        Raises:
            NotFoundError: there is no such memory.
            InvalidError: new content without an embedding in a store without embedder; or as of `add`.
        """
        check_id(id)
        arguments = without_unset({name: value for name, value in locals().items() if name not in ("self", "id")})
        change = await self._checked_changes(arguments)

        def step(context: WriteContext) -> Memory:
            key = self._key(context.connection, id, context.now)
            updates.update(context, MEMORY, self._namespace, [key], *change(context))
            return only(memories.read(context.connection, self._space, [key]))

        return await self._session.write(step)

    async def update_many(
        self, *, ids: Iterable[str] | None = None, where: Where | None = None, **changes: Unpack[MemoryChanges]
    ) -> int:
        """Change the given fields of the memories *ids*, or of those that match *where*, as `update` does.

        Takes the writer lock; one transaction, all or nothing. All get the same values.

        Args:
            ids: ids of memories; those that do not exist are ignored.
            where: a filter; `{}` matches every memory of the namespace.
            **changes: the fields, one at least, with the names and values of `update`.

        Returns:
            How many memories were updated.

        Raises:
            InvalidError: none or both of *ids* and *where* are given, or no field; or as of `update`.
            FilterError: *where* is not a valid filter.
        """
        return await self._update_many(ids, where, await self._checked_changes(check_changes(changes)))

    async def _checked_changes(self, arguments: Mapping[str, Any]) -> Changes:
        """The *arguments* of an update, with an embedding of new content; `Changes` checks them."""
        changes, patch = pop_patch(arguments)
        if "content" in changes and "embedding" not in changes:
            check_text("content", changes["content"])
            if self._session.embedder is None and self._space.embedder is None:
                raise InvalidError(
                    "New content needs a new embedding, because the old one belongs to the old content: pass "
                    "embedding=, or embedding=None to remove the old one"
                )
            changes["embedding"] = (await embed(self._session, [changes["content"]]))[0]
        return lambda context: (memory_changes(changes, context.spaces["memory"], context.now), patch)

    async def touch(
        self,
        ids: Iterable[str],
        *,
        ttl: float | timedelta | Unset | None = UNSET,
        expires_at: datetime | Unset | None = UNSET,
    ) -> int:
        """Record an access: sets `accessed_at` to now and adds one to `access_count`. Takes the writer lock.

        Reads and searches do not record accesses. An access is not a change of the memory: `updated_at` stays, and the
        history gets no entry, also of a new expiry.

        Args:
            ids: ids of memories; those that do not exist are ignored.
            ttl: time from now until they expire: seconds, or a timedelta; None for never.
            expires_at: a time-zone-aware time at which they expire; None for never. Not together with `ttl`.

        Returns:
            How many of *ids* exist.

        Raises:
            InvalidError: an argument is invalid, or both of `ttl` and `expires_at` are given.
        """
        unchecked = id_list(ids)
        expiry = without_unset({"ttl": ttl, "expires_at": expires_at})
        if len(expiry) > 1:
            raise InvalidError("Conflicting arguments ttl and expires_at: both set the expiry. Pass one of them")

        def step(context: WriteContext) -> int:
            keys = records.keys_of(context.connection, MEMORY, self._namespace, check_ids(unchecked), context.now)
            new = memory_changes(expiry, self._space, context.now)
            memories.touch(context.connection, sorted(keys.values()), context.now)
            if new:
                memories.set_expiry(
                    context.connection, sorted(keys.values()), cast("datetime | None", new["expires_at"])
                )
            return len(keys)

        return await self._session.write(step)

    async def purge_expired(self, *, recursive: bool = False) -> int:
        """Delete expired memories now. Takes the writer lock, several times for short.

        Expired memories are invisible to every read. Writes and the background delete their rows, a limited number at a
        time; this deletes all of them before it returns. `Store.compact` then returns their space to the disk.

        Args:
            recursive: count also those of all namespaces below this one.

        Returns:
            How many expired memories of this namespace were still in the file.
        """
        select = partial(self._selection, recursive=recursive)
        count = await self._session.read(
            lambda connection: selection.count_expired(connection, select(self._session.clock()))
        )
        await self._session.delete_expired()
        return count

    async def search(
        self,
        query: Query,
        limit: int = 10,
        *,
        tags: Iterable[str] = (),
        where: Where | None = None,
        min_score: float | None = None,
        recursive: bool = False,
        offset: int = 0,
        embeddings: bool = True,
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
            offset: how many of the best hits to leave out; they are ranked, but their rows are not read. *offset* and
                *limit* together are at most 10,000.
            embeddings: False leaves the vectors out of the hits, as of `get`.
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
        options = SearchOptions(tags, where, min_score, recursive, offset, embeddings)
        if boost is None:
            return (await self._search_many([query], limit, options))[0]
        return (await self._search_boosted([query], limit, options, boost))[0]

    async def search_many(
        self,
        queries: Queries,
        limit: int = 10,
        *,
        tags: Iterable[str] = (),
        where: Where | None = None,
        min_score: float | None = None,
        recursive: bool = False,
        offset: int = 0,
        embeddings: bool = True,
        boost: AssemblyBoost | None = None,
    ) -> list[Hits[Hit]]:
        """Search for several queries in one state of the store; arguments and errors as of `search`.

        Returns:
            One `Hits` for each query, in order.
        """
        options = SearchOptions(tags, where, min_score, recursive, offset, embeddings)
        if boost is None:
            return await self._search_many(queries, limit, options)
        return await self._search_boosted(queries, limit, options, boost)

    async def _search_boosted(
        self, queries: Queries, limit: int, options: SearchOptions, boost: AssemblyBoost
    ) -> list[Hits[Hit]]:
        check_boost(boost)
        request = self._request(limit, options)
        vectors = await self._query_vectors(queries)
        if not vectors:
            return []
        run = partial(search_boosted, spaces=self._session.spaces, request=request, queries=vectors, boost=boost)
        boosted = await self._session.search(run, "assembly", long=len(vectors) > SHORT_SEARCH)
        levels = strengths(boosted) if boost.record else {}
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

        *namespace* is that of the memory: this one or one below it; None for this one. The other arguments are as of
        `search`.

        Raises:
            NotFoundError: there is no such memory.
            InvalidError: *namespace* is neither this one nor below it; or as of `search`.
            Everything that `search` raises.
        """
        check_id(id)
        path = self._namespace if namespace is None else check_namespace_within(namespace, self._namespace)
        request = self._request(limit, SearchOptions(tags, where, min_score, recursive))
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

    def _read(
        self,
        connection: Connection,
        keys: Sequence[int],
        at: datetime,  # noqa: ARG002 - a memory does not change with time
        *,
        embeddings: bool = True,
    ) -> list[Memory]:
        return memories.read(connection, self._space, keys, embeddings=embeddings)

    async def _with_embeddings(
        self, items: Iterable[Mapping[str, Any]], without: Container[int] = ()
    ) -> list[Mapping[str, Any]]:
        """The items as a list. Those without an embedding, but for those at *without*, get one from the embedder.

        Raises:
            EmbedderError: the store has no embedder, the file names one, and an item has no embedding.
        """
        prepared: list[Mapping[str, Any]] = as_list(items, "items", ITEMS)
        if self._session.embedder is None and self._session.spaces["memory"].embedder is None:
            return prepared
        ready, error = await embed_items(self._session, prepared, without)
        if error is None:
            return ready
        if self._session.embedder is not None:
            embedded = [item for item, original in zip(ready, prepared, strict=False) if item is not original]
            self._session.embedder.keep(*([item[name] for item in embedded] for name in ("content", "embedding")))
        raise error


def _insert(
    context: WriteContext, calls: Sequence[tuple[dict[Address, Memory], list[Batch], list[Mapping[str, Any]]]]
) -> list[list[Memory]]:
    """Store the memories of one or several calls of `add_many`; the result of each call."""
    results: list[list[Memory]] = []
    for new, _, without_embedding in calls:
        results.append(list(new.values()))
        if without_embedding:
            check_unnamed(context, without_embedding)
    batches = calls[0][1] or memories.batches(chain.from_iterable(results))
    if batches:
        memories.insert_new(context, batches)
    return results

"""`Assemblies`: the verbs on assemblies, on their members, and on how assemblies are created, merged and activated."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Unpack, overload

from sqlalchemy import Connection

from memstore.actor import verb_actor
from memstore.api.arguments import OnDuplicate, check_changes, check_on_duplicate
from memstore.api.collection import Collection
from memstore.api.paging import pages
from memstore.assemblies import candidates, cluster, membership
from memstore.assemblies import lineage as merge_lineage
from memstore.assemblies import merge as merging
from memstore.assemblies.membership import AssemblyDraft
from memstore.concurrency import Progress
from memstore.errors import DuplicateError, InvalidError, NotFoundError
from memstore.filters import Where
from memstore.forgetting.policies import AssemblyForgetPolicy, ForgetPolicy
from memstore.models.activation import SyncState
from memstore.models.clustering import AssemblySuggestion, AssemblySuggestions, ClusterResult
from memstore.models.fields import orders
from memstore.models.items import AssemblyChanges, AssemblyFields
from memstore.models.merging import Lineage, Merge, MergeCandidate, MergedAssembly
from memstore.models.records import Address, Assembly, address_of
from memstore.models.results import AddOutcome, AddResult
from memstore.models.search import AssemblyHit
from memstore.repository import assembly_activation, memberships, records, updates
from memstore.repository.context import WriteContext
from memstore.repository.corruption import only
from memstore.repository.record_types import ASSEMBLY, MEMORY, RecordType
from memstore.repository.selection import Selection
from memstore.search.assembly_boost import read_sync_state
from memstore.sync import composites
from memstore.sync.view import View
from memstore.timestamps import now
from memstore.validation.arguments import UNSET, Unset, as_item, as_list, id_list, without_unset
from memstore.validation.merge_patch import Patch, pop_patch, split_patches
from memstore.validation.records import Draft, assembly_changes, id_of, new_assembly
from memstore.validation.text import check_text
from memstore.validation.values import (
    MAX_LIMIT,
    check_count,
    check_flag,
    check_id,
    check_ids,
    check_number,
    check_share,
    check_tags,
)


class Assemblies(Collection[Assembly, AssemblyHit, AssemblyForgetPolicy]):
    """The assemblies of one namespace: `store.assemblies`, or `tx.assemblies`. Searches compare their composites."""

    _record_type: ClassVar[RecordType] = ASSEMBLY
    _policy_type: ClassVar[type[ForgetPolicy | AssemblyForgetPolicy]] = AssemblyForgetPolicy
    _sort_fields: ClassVar[frozenset[str]] = orders("assembly")

    @overload
    async def add(
        self, id: str, *, on_duplicate: Literal["raise"] = "raise", **fields: Unpack[AssemblyFields]
    ) -> Assembly: ...

    @overload
    async def add(
        self, id: str, *, on_duplicate: Literal["skip", "replace"], **fields: Unpack[AssemblyFields]
    ) -> AddResult[Assembly]: ...

    async def add(
        self,
        id: str,
        *,
        name: str = "",
        description: str = "",
        members: Iterable[str] | None = None,
        tags: Iterable[str] = (),
        topics: Iterable[str] = (),
        metadata: Mapping[str, object] | None = None,
        created_at: datetime | None = None,
        updated_at: datetime | None = None,
        activation_level: float | None = None,
        activated_at: datetime | None = None,
        activation_count: int | None = None,
        on_duplicate: OnDuplicate = "raise",
    ) -> Assembly | AddResult[Assembly]:
        """Store an assembly with its members and its composite. Takes the writer lock.

        Args:
            id: any text, 1 to 65,536 bytes of UTF-8.
            name: a title.
            description: a text.
            members: ids of memories of its namespace; None for none.
            tags: its tags.
            topics: words in order.
            metadata: a JSON object.
            created_at: a time-zone-aware time; None is now.
            updated_at: a time-zone-aware time; None is now.
            activation_level: its activation at `activated_at`, 0 to 1; None is 0.
            activated_at: a time-zone-aware time; None is now if a level is given, else never.
            activation_count: how often it was activated; None is 0.
            on_duplicate: if another assembly of the namespace has the id, `"raise"` raises `DuplicateError`, `"skip"`
                changes nothing, and `"replace"` replaces that assembly as `upsert` does.

        Returns:
            The record as stored; with another *on_duplicate* than `"raise"` an `AddResult` that says what was done.

        Raises:
            DuplicateError: another assembly of the namespace has the id.
            NotFoundError: a member does not exist.
            InvalidError: an argument cannot be stored.
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
    ) -> list[Assembly]: ...

    @overload
    async def add_many(
        self, items: Iterable[Mapping[str, Any]], *, on_duplicate: Literal["skip", "replace"]
    ) -> list[AddResult[Assembly]]: ...

    async def add_many(
        self, items: Iterable[Mapping[str, Any]], *, on_duplicate: OnDuplicate = "raise"
    ) -> list[Assembly] | list[AddResult[Assembly]]:
        """Store several assemblies in one transaction, all or none. Takes the writer lock once.

        Args:
            items: mappings with the argument names of `add`, and `namespace`: the namespace of the assembly and of its
                members, which is this one or one below it; this one if it is left out.
            on_duplicate: as of `add`, for each item. If an id occurs twice in *items*, `"skip"` stores the first item
                and `"replace"` the last.

        Returns:
            The records as stored, in order; with another *on_duplicate* than `"raise"` an `AddResult` for each.

        Raises:
            DuplicateError: an id is taken, or occurs twice in *items*.
            Everything that `add` raises.
        """
        prepared = _item_list(items)
        if check_on_duplicate(on_duplicate) != "raise":
            return await self._session.write(
                lambda context: self._add_or_keep(context, prepared, replace=on_duplicate == "replace")
            )

        def step(context: WriteContext) -> list[Assembly]:
            drafts = self._drafts(prepared)
            addresses: set[Address] = set()
            for i, (draft, _) in enumerate(drafts):
                if address_of(draft.record) in addresses:
                    raise DuplicateError("assembly", draft.record.id, given_twice=True).of_item(i, draft.record.id)
                addresses.add(address_of(draft.record))
            return self._read(context.connection, membership.add(context, drafts), context.now)

        return await self._session.write(step)

    def _add_or_keep(
        self, context: WriteContext, items: Sequence[Mapping[str, Any]], *, replace: bool
    ) -> list[AddResult[Assembly]]:
        """Store the assemblies of *items*; those whose ids exist are replaced, or else skipped."""
        drafts = self._drafts(items)
        existing = membership.existing(context, drafts)
        if replace:
            keys = membership.upsert(context, drafts)
        else:
            new = {address_of(draft.record): (draft, ids) for draft, ids in reversed(drafts)}  # of equal ids the first
            new = {address: new[address] for address in reversed(new) if address not in existing}
            keys = existing | dict(zip(new, membership.add(context, list(new.values())), strict=True))
        records = dict(zip(keys, self._read(context.connection, [*keys.values()], context.now), strict=True))
        results: list[AddResult[Assembly]] = []
        stored = set(existing)
        for draft, _ in drafts:
            address = address_of(draft.record)
            outcome: AddOutcome = "added" if address not in stored else "replaced" if replace else "skipped"
            results.append(AddResult(records[address], outcome))
            stored.add(address)
        return results

    async def upsert(
        self,
        id: str,
        *,
        name: str = "",
        description: str = "",
        members: Iterable[str] | None = None,
        tags: Iterable[str] = (),
        topics: Iterable[str] = (),
        metadata: Mapping[str, object] | None = None,
        metadata_patch: Mapping[str, object] | None = None,
        created_at: datetime | None = None,
        updated_at: datetime | None = None,
        activation_level: float | None = None,
        activated_at: datetime | None = None,
        activation_count: int | None = None,
    ) -> Assembly:
        """Store an assembly, or replace the one that has the id; arguments and errors as of `add`.

        A replaced assembly keeps `created_at`, its activation and its members unless they are given. With
        `metadata_patch`, as of `Memories.update`, it keeps the rest of its metadata. Takes the writer lock.
        """
        return (await self.upsert_many([as_item(locals())]))[0]

    async def upsert_many(self, items: Iterable[Mapping[str, Any]]) -> list[Assembly]:
        """Upsert several assemblies in one transaction, all or none. Takes the writer lock once.

        Args:
            items: mappings with the argument names of `upsert`, and `namespace` as of `add_many`. If an id occurs
                twice, the last item wins.

        Returns:
            The record of each item as stored, in order.
        """
        prepared = _item_list(items)

        def step(context: WriteContext) -> list[Assembly]:
            drafts = self._drafts(*split_patches(prepared))
            keys = membership.upsert(context, drafts)
            stored = {
                address_of(record): record for record in self._read(context.connection, [*keys.values()], context.now)
            }
            return [stored[address_of(draft.record)] for draft, _ in drafts]

        return await self._session.write(step)

    async def update(
        self,
        id: str,
        *,
        name: str | Unset = UNSET,
        description: str | Unset = UNSET,
        tags: Iterable[str] | Unset = UNSET,
        topics: Iterable[str] | Unset = UNSET,
        metadata: Mapping[str, object] | Unset = UNSET,
        metadata_patch: Mapping[str, object] | Unset = UNSET,
        created_at: datetime | Unset = UNSET,
        updated_at: datetime | Unset = UNSET,
    ) -> Assembly:
        """Change the given fields of an assembly, and no others. Takes the writer lock.

        A given value replaces the stored one; `metadata` is replaced as a whole, and `metadata_patch` changes a part
        of it, as of `Memories.update`. `add_members` and `remove_members` change the members.

        Returns:
            The assembly after the change.

        Raises:
            NotFoundError: there is no such assembly.
            InvalidError: a value cannot be stored.
        """
        check_id(id)
        arguments = without_unset({name: value for name, value in locals().items() if name not in ("self", "id")})
        changes, patch = pop_patch(arguments)

        def step(context: WriteContext) -> Assembly:
            key = self._key(context.connection, id, context.now)
            updates.update(context, ASSEMBLY, self._namespace, [key], assembly_changes(changes), patch)
            return only(self._read(context.connection, [key], context.now))

        return await self._session.write(step)

    async def update_many(
        self, *, ids: Iterable[str] | None = None, where: Where | None = None, **changes: Unpack[AssemblyChanges]
    ) -> int:
        """Change the given fields of the assemblies *ids*, or of those that match *where*, as `update` does.

        Takes the writer lock; one transaction, all or nothing. Arguments, result and errors are as of
        `Memories.update_many`.
        """
        fields, patch = pop_patch(check_changes(changes))
        return await self._update_many(ids, where, lambda context: (assembly_changes(fields), patch))  # noqa: ARG005

    async def add_members(self, id: str, ids: Iterable[str]) -> Assembly:
        """Make memories members of an assembly; existing members stay members. Takes the writer lock.

        Args:
            id: id of the assembly.
            ids: ids of memories of this namespace.

        Returns:
            The assembly with its new composite.

        Raises:
            NotFoundError: the assembly or one of the memories does not exist; nothing is changed.
        """
        return await self._change_members(membership.add_members, id, ids)

    async def remove_members(self, id: str, ids: Iterable[str]) -> Assembly:
        """End the membership of memories in an assembly. Takes the writer lock.

        Args:
            id: id of the assembly.
            ids: ids of memories; those that are not members are ignored.

        Returns:
            The assembly with its new composite.

        Raises:
            NotFoundError: there is no such assembly.
        """
        return await self._change_members(membership.remove_members, id, ids)

    async def _change_members(self, change: Callable[..., None], id: str, ids: Iterable[str]) -> Assembly:
        check_id(id)
        unchecked = id_list(ids)

        def step(context: WriteContext) -> Assembly:
            key = self._key(context.connection, id, context.now)
            change(context, self._namespace, key, check_ids(unchecked))
            return only(self._read(context.connection, [key], context.now))

        return await self._session.write(step)

    def members(self, id: str) -> AsyncIterator[str]:
        """Read the ids of the members, in order of creation, page by page.

        Raises:
            NotFoundError: there is no such assembly.
        """
        check_id(id)

        def read_page(connection: Connection, position: int | None, size: int) -> tuple[Sequence[str], int | None]:
            at = self._session.clock()
            key = self._key(connection, id, at)
            rows = memberships.page(connection, key, at, -1 if position is None else position, size)
            return [member for _, member in rows], rows[-1][0] if len(rows) == size else None

        return pages(self._session, read_page)

    async def containing(self, memory_id: str, *, embeddings: bool = True) -> list[Assembly]:
        """Read the assemblies that a memory is a member of, in order of creation.

        Args:
            memory_id: id of a memory of this namespace.
            embeddings: False leaves the composites out, as of `get`.

        Raises:
            NotFoundError: there is no such memory.
        """
        check_id(memory_id)
        check_flag("embeddings", embeddings)

        def step(connection: Connection) -> list[Assembly]:
            at = self._session.clock()
            key = records.key_of(connection, MEMORY, self._namespace, memory_id, at)
            if key is None:
                raise NotFoundError("memory", memory_id, self._namespace)
            keys = memberships.assemblies_of(connection, [key]).get(key, [])
            return self._read(connection, keys, at, embeddings=embeddings)

        return await self._session.read(step)

    async def activate(self, ids: Iterable[str] | Mapping[str, float], level: float = 1.0) -> int:
        """Activate assemblies: sets their activation level and adds one to their count. Takes the writer lock.

        `Assembly.activation` then decays from that level with the store's half-life. An activation is not a change of
        the assembly: `updated_at` and `revision` stay.

        Args:
            ids: ids of assemblies, which all get *level*; or a mapping of ids to levels.
            level: 0 to 1.

        Returns:
            How many of the ids exist.

        Raises:
            InvalidError: a level is not between 0 and 1.
        """
        unchecked_levels = dict(ids) if isinstance(ids, Mapping) else None
        unchecked = id_list(ids) if unchecked_levels is None else list(unchecked_levels)

        def step(context: WriteContext) -> int:
            levels = {
                id: check_share("level", level if unchecked_levels is None else unchecked_levels[id])
                for id in check_ids(unchecked)
            }
            keys = records.keys_of(context.connection, ASSEMBLY, self._namespace, list(levels), context.now)
            by_key = {key: levels[id] for id, key in keys.items()}
            assembly_activation.activate(context.connection, by_key, context.now)
            return len(keys)

        return await self._session.write(step)

    async def sync_state(self, id: str) -> SyncState:
        """Compare the revisions of an assembly, of its composite, and of its composite in the index.

        They agree whenever a verb has returned. They differ inside a transaction that changed the members, because the
        shared index has committed data only; until the commit the assembly gives no boost. They also differ after
        changes by raw SQL, until assemblies are next searched or the store is opened. This updates the index first,
        and changes nothing in the file.

        Raises:
            NotFoundError: there is no such assembly.
            EngineError: the index cannot be loaded.
        """
        check_id(id)

        def step(connection: Connection, view: View) -> SyncState:
            at = self._session.clock()
            return read_sync_state(connection, view, self._space, self._key(connection, id, at), at)

        return await self._session.search(step)

    async def merge(
        self,
        ids: Iterable[str],
        *,
        into: str | None = None,
        name: str | None = None,
        similarity: float | None = None,
        threshold: float | None = None,
        actor: str | None = None,
        reason: str | None = None,
    ) -> Merge:
        """Merge several assemblies into one. Takes the writer lock; one transaction, all or nothing.

        The target gets the members of all sources, and the union of their tags, topics and metadata keys. Name,
        description and the value of each metadata key are the first that is present: that of the target, then those of
        the sources in the order of *ids*. The sources are archived: no search, list or count returns them,
        `get_merged` reads them, `unmerge` restores them.

        Args:
            ids: ids of two to 1,000 assemblies, each once.
            into: id of the target. If it is the id of an assembly, in *ids* or not, that assembly stays and receives
                the others; otherwise a new assembly gets it. None creates an assembly with a generated id.
            name: name of the target; None for the first present.
            similarity: how similar they are, if the caller knows; None for the lowest score between two of their
                composites.
            threshold: merge only if the similarity is at least this; stored with the merge.
            actor: who merges them; stored with the merge.
            reason: why; stored with the merge.

        Returns:
            The merge. `target` is the id of the target.

        Raises:
            NotFoundError: one of *ids* does not exist.
            InvalidError: fewer than two assemblies, an id that occurs twice, a similarity below *threshold*, or more
                tags, topics or metadata in total than a record may have.
        """
        unchecked = id_list(ids)
        options = merging.MergeOptions(
            into=None if into is None else check_id(into),
            name=None if name is None else check_text("name", name),
            similarity=None if similarity is None else check_number("similarity", similarity),
            threshold=None if threshold is None else check_number("threshold", threshold),
        )
        with verb_actor(actor, reason):
            return await self._session.write(
                lambda context: merging.merge(context, self._namespace, merging.check_sources(unchecked), options),
                batch=True,
            )

    async def unmerge(self, merge: Merge | int | str, *, actor: str | None = None, reason: str | None = None) -> Merge:
        """Undo a merge. Takes the writer lock; one transaction, all or nothing.

        The sources are restored as they were, with those of their members that still exist. The target loses what only
        the merge brought; later changes of it stay. A target that the merge created is deleted.

        Args:
            merge: a merge, or its number; or the id of an assembly, for the last merge into it that was not undone.
            actor: who undoes it; stored with the merge.
            reason: why; stored with the merge.

        Returns:
            The merge, with the time at which it was undone.

        Raises:
            NotFoundError: there is no such merge in this namespace.
            ConflictError: it was undone before, or something later depends on it: another merge, or changes of an
                assembly that would be deleted; or a `Merge` was read from another file, or before a backup was
                restored. The message says what to do first.
            DuplicateError: another assembly has the id of a source.
        """
        if isinstance(merge, str):
            merge = check_id(merge)
        elif isinstance(merge, Merge):
            check_count("merge number", merge.id, 1, 2**62)
        else:
            merge = check_count("merge number", merge, 1, 2**62)
        with verb_actor(actor, reason):
            return await self._session.write(
                lambda context: merging.unmerge(context, self._namespace, merge), batch=True
            )

    async def get_merged(self, id: str, *, embeddings: bool = True) -> MergedAssembly:
        """Read the assembly that last had the *id* and was merged into another, as it was before the merge.

        Args:
            id: id of the assembly.
            embeddings: False leaves its composite out, as of `get`.

        Raises:
            NotFoundError: there is none, or its merge was undone, or it was purged.
        """
        check_id(id)
        space = self._space if check_flag("embeddings", embeddings) else None
        return await self._session.read(lambda connection: merging.get_merged(connection, space, self._namespace, id))

    async def lineage(self, id: str) -> Lineage:
        """Read the ancestors and descendants of an assembly through merges that were not undone.

        Each assembly occurs once, with the lowest number of merges in between. If several assemblies had the *id*, it
        is the existing one, else the last.

        Raises:
            NotFoundError: there is no such assembly, and no merge of one.
        """
        check_id(id)
        return await self._session.read(lambda connection: merge_lineage.lineage(connection, self._namespace, id))

    async def merge_candidates(
        self, threshold: float, *, limit: int = 100, on_progress: Progress | None = None
    ) -> list[MergeCandidate]:
        """Find pairs of assemblies of this namespace whose composites are near each other. Changes nothing.

        Searches the index for the neighbours of each assembly, 64 assemblies at a time, and searches again with a
        higher limit where all neighbours are near. An exact index finds all pairs, a graph finds them at its recall.

        Args:
            threshold: the lowest score between the two, by the store's metric (see `memstore.vectors.metrics`).
            limit: at most so many pairs, the best, 1 to 10,000.
            on_progress: called after each search with the number of assemblies done and their total; starts over for
                those that are searched again.

        Returns:
            The pairs, best first, ties in order of creation.
        """
        min_score = check_number("threshold", threshold)
        maximum = check_count("limit", limit, 1, MAX_LIMIT)
        self._session.check_usable()
        return await candidates.merge_candidates(
            self._session, self._namespace, threshold=min_score, limit=maximum, on_progress=on_progress
        )

    async def suggest(
        self,
        threshold: float,
        *,
        min_size: int = 3,
        max_size: int = 50,
        tags: Iterable[str] = (),
        where: Where | None = None,
        on_progress: Progress | None = None,
    ) -> AssemblySuggestions:
        """Suggest assemblies for the memories that are members of none. Changes nothing; `create_from` creates them.

        The memory in the densest neighbourhood leads the first group, which it forms with its neighbours; the densest
        of the remaining memories leads the next, and so on (see `memstore.assemblies.cluster`). Every memory that is a
        member of no assembly is in exactly one group, or unassigned with a reason. Files with equal content give equal
        groups if the index is exact, or if it has read the same graph.

        Args:
            threshold: the lowest score between the leader of a group and another member, by the store's metric (see
                `memstore.vectors.metrics`).
            min_size: the lowest number of members of a group, 2 or more.
            max_size: the highest number of members of a group, up to 1,000. Needs twelve bytes of memory for each, for
                each memory with that many neighbours.
            tags: only memories that have all of these.
            where: only memories that match this filter.
            on_progress: called after each search of 64 memories with the number of memories done and their total; a
                few memories are searched again and added to the total.

        Raises:
            InvalidError: an argument is out of range.
            FilterError: *where* is not a valid filter.
        """
        min_score = check_number("threshold", threshold)
        smallest = check_count("min_size", min_size, 2, cluster.MAX_GROUP)
        largest = check_count("max_size", max_size, 2, cluster.MAX_GROUP)
        memories = partial(
            Selection,
            record_type=MEMORY,
            namespace=self._namespace,
            tags=check_tags(tags),
            where=self._node(where, MEMORY),
        )
        self._session.check_usable()
        return await cluster.suggest(
            self._session,
            lambda: memories(now=self._session.clock()),
            cluster.ClusterOptions(min_score, smallest, largest),
            on_progress,
        )

    async def create_from(
        self,
        suggestions: AssemblySuggestions | Iterable[AssemblySuggestion],
        *,
        actor: str | None = None,
        reason: str | None = None,
    ) -> ClusterResult:
        """Create assemblies from suggestions. Takes the writer lock; one transaction, all or nothing.

        Args:
            suggestions: what `suggest` returned, or some of its groups, changed or not; 100,000 at most.
            actor: who creates them, for the history.
            reason: why, for the history.

        Returns:
            The ids of the new assemblies, and the suggestions that created nothing because a member was deleted or
            joined an assembly in the meantime.

        Raises:
            DuplicateError: the id of a suggestion is taken.
            InvalidError: a suggestion cannot be stored.
        """
        groups = (
            suggestions.groups
            if isinstance(suggestions, AssemblySuggestions)
            else as_list(suggestions, "suggestions", "suggestions")
        )
        if len(groups) > cluster.MAX_SUGGESTIONS:
            raise InvalidError(
                f"Too many suggestions: expected at most {cluster.MAX_SUGGESTIONS:,}, found {len(groups):,}"
            )
        for group in groups:
            if not isinstance(group, AssemblySuggestion):
                raise InvalidError(
                    f"Invalid suggestion: expected one that suggest returned, found {type(group).__name__}"
                )
        with verb_actor(actor, reason):
            return await self._session.write(
                lambda context: cluster.create_from(context, self._namespace, groups), batch=True
            )

    def _drafts(
        self, items: Sequence[Mapping[str, Any]], patches: Mapping[int, Patch] = MappingProxyType({})
    ) -> list[AssemblyDraft]:
        """The items, checked, with the *patches* of their metadata; `members` counts as named unless it is None."""
        at = now()
        drafts: list[AssemblyDraft] = []
        for i, item in enumerate(items):
            try:
                draft = new_assembly(item, self._namespace, at)
                members = item.get("members")
                ids = check_ids(() if members is None else members, "members")
            except InvalidError as error:
                raise error.of_item(i, id_of(item)) if len(items) > 1 else error from None
            named = draft.named if members is None else draft.named | {"members"}
            drafts.append((Draft(draft.record, named, (patches[i],) if i in patches else ()), ids))
        return drafts

    def _read(
        self, connection: Connection, keys: Sequence[int], at: datetime, *, embeddings: bool = True
    ) -> list[Assembly]:
        half_life = self._session.half_life
        return composites.read(connection, self._session.spaces, keys, at, half_life, embeddings=embeddings)


def _item_list(items: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return as_list(items, "items", "mappings, one for each assembly")

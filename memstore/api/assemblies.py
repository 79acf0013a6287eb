"""The verbs on assemblies."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, ClassVar

from sqlalchemy import Connection

from memstore.api.collection import PAGE
from memstore.api.grouping import Grouping
from memstore.errors import DuplicateError, NotFoundError
from memstore.forgetting.policies import AssemblyForgetPolicy, ForgetPolicy
from memstore.models.activation import SyncState
from memstore.models.fields import orders
from memstore.models.records import Assembly, Embedding, Json
from memstore.models.search import AssemblyHit
from memstore.repository import assemblies, assembly_activation, history_writer, memberships, records
from memstore.repository.context import WriteContext
from memstore.repository.corruption import only
from memstore.repository.record_types import ASSEMBLY, MEMORY, RecordType
from memstore.search.assembly_boost import sync_state
from memstore.sync import composites
from memstore.sync.view import View
from memstore.timestamps import now
from memstore.validation.arguments import ABSENT, Absent, as_item, given, list_of_ids, listed
from memstore.validation.records import Draft, assembly_changes, new_assembly
from memstore.validation.values import check_id, check_ids, check_share

_KEPT = frozenset({"created_at", "activation_level", "activated_at", "activation_count"})  # by upsert, unless named


class Assemblies(Grouping):
    """The assemblies of one namespace: `store.assemblies`, or `tx.assemblies`. Searches go over their composites."""

    _noun: ClassVar[RecordType] = ASSEMBLY
    _policy: ClassVar[type[ForgetPolicy | AssemblyForgetPolicy]] = AssemblyForgetPolicy
    _orders: ClassVar[frozenset[str]] = orders("assembly")

    async def add(
        self,
        id: str,
        *,
        name: str = "",
        description: str = "",
        members: Iterable[str] = (),
        tags: Iterable[str] = (),
        topics: Iterable[str] = (),
        metadata: Mapping[str, Json] | None = None,
        created_at: datetime | None = None,
        updated_at: datetime | None = None,
        activation_level: float | None = None,
        activated_at: datetime | None = None,
        activation_count: int | None = None,
    ) -> Assembly:
        """Store an assembly with its members and its composite. Takes the writer lock.

        Args:
            id: any text, 1 to 65,536 bytes of UTF-8.
            name: a title.
            description: a text.
            members: ids of memories of this namespace.
            tags: words.
            topics: words in order.
            metadata: a JSON object.
            created_at: aware; None is now.
            updated_at: aware; None is now.
            activation_level: 0 to 1, how active it was at `activated_at`; None is not at all.
            activated_at: aware; None is now where there is a level, else never.
            activation_count: how often it was activated; None is 0.

        Returns:
            The record as stored.

        Raises:
            DuplicateError: the id is taken.
            NotFoundError: a member does not exist.
            InvalidError: an argument cannot be stored.
            BusyError: the writer was not to be had within the timeout.
        """
        return (await self.add_many([as_item(locals())]))[0]

    async def add_many(self, items: Iterable[Mapping[str, Any]]) -> list[Assembly]:
        """Store assemblies, all or none: mappings with the argument names of `add`. Equal ids raise."""
        prepared = _mappings(items)

        def step(context: WriteContext) -> list[Assembly]:
            drafts = self._drafts(prepared)
            seen: set[str] = set()
            for draft, _ in drafts:
                if draft.record.id in seen:
                    raise DuplicateError("assembly", draft.record.id, given_twice=True)
                seen.add(draft.record.id)
            return self._inserted(context, drafts)

        return await self._session.write(step)

    def _inserted(self, context: WriteContext, drafts: Sequence[tuple[Draft[Assembly], list[str]]]) -> list[Assembly]:
        if not drafts:
            return []
        connection = context.connection
        keys = assemblies.insert_new(connection, self._namespace, [draft.record for draft, _ in drafts])
        for key, (_, members) in zip(keys, drafts, strict=True):
            self._extend(context, key, members)
        history_writer.record_addition(context, ASSEMBLY, assemblies.owner(connection, keys[0]), keys)
        return self._read(connection, keys, context.now)

    async def upsert(
        self,
        id: str,
        *,
        name: str = "",
        description: str = "",
        members: Iterable[str] | None = None,
        tags: Iterable[str] = (),
        topics: Iterable[str] = (),
        metadata: Mapping[str, Json] | None = None,
        created_at: datetime | None = None,
        updated_at: datetime | None = None,
        activation_level: float | None = None,
        activated_at: datetime | None = None,
        activation_count: int | None = None,
    ) -> Assembly:
        """Store an assembly in place of the one that has the id, if any; arguments and errors as of `add`.

        An existing one keeps `created_at`, its activation, and its members, unless they are given.
        """
        return (await self.upsert_many([as_item(locals())]))[0]

    async def upsert_many(self, items: Iterable[Mapping[str, Any]]) -> list[Assembly]:
        """Upsert assemblies, all or none; of equal ids in one call the last wins. One record an item, in order."""
        prepared = _mappings(items)

        def step(context: WriteContext) -> list[Assembly]:
            connection, at = context.connection, context.now
            drafts = self._drafts(prepared)
            last = {draft.record.id: (draft, members) for draft, members in drafts}
            keys = records.keys_of(connection, ASSEMBLY, self._namespace, list(last), at)
            self._inserted(context, [pair for id, pair in last.items() if id not in keys])
            for id, key in keys.items():
                draft, members = last[id]
                with history_writer.record_update(context, ASSEMBLY, [key]) as noted:
                    assemblies.change(connection, self._namespace, key, _replacement(draft))
                    if "members" in draft.named:
                        gone = memberships.remove_all_members(connection, key)
                        noted.note(key, added=self._extend(context, key, members), removed=gone)
            every = records.keys_of(connection, ASSEMBLY, self._namespace, list(last), at)
            stored = {a.id: a for a in self._read(connection, list(every.values()), at)}
            return [stored[draft.record.id] for draft, _ in drafts]

        return await self._session.write(step)

    async def update(
        self,
        id: str,
        *,
        name: str | Absent = ABSENT,
        description: str | Absent = ABSENT,
        tags: Iterable[str] | Absent = ABSENT,
        topics: Iterable[str] | Absent = ABSENT,
        metadata: Mapping[str, Json] | Absent = ABSENT,
        created_at: datetime | Absent = ABSENT,
        updated_at: datetime | Absent = ABSENT,
    ) -> Assembly:
        """Change the fields named and nothing else; members change by `add_members` and `remove_members`.

        Takes the writer lock.

        Raises:
            NotFoundError: there is no such assembly.
            InvalidError: a value cannot be stored.
        """
        check_id(id)
        named = {k: v for k, v in locals().items() if k not in ("self", "id")}
        changes = given(**named)

        def step(context: WriteContext) -> Assembly:
            connection, at = context.connection, context.now
            fields = assembly_changes(changes)
            fields.setdefault("updated_at", at)
            key = self._key(connection, id, at)
            with history_writer.record_update(context, ASSEMBLY, [key]):
                assemblies.change(connection, self._namespace, key, fields)
            return only(self._read(connection, [key], at))

        return await self._session.write(step)

    async def add_members(self, id: str, ids: Iterable[str]) -> Assembly:
        """Make memories members; those that are already stay so. Takes the writer lock.

        Returns:
            The assembly, its composite up to date.

        Raises:
            NotFoundError: there is no such assembly, or no such memory in its namespace; nothing was changed.
        """
        check_id(id)
        asked = list_of_ids(ids)

        def step(context: WriteContext) -> Assembly:
            connection, at = context.connection, context.now
            key = self._key(connection, id, at)
            with history_writer.record_update(context, ASSEMBLY, [key]) as noted:
                noted.note(key, added=self._extend(context, key, check_ids(asked)))
                assemblies.stamp(connection, key, at)
            return only(self._read(connection, [key], at))

        return await self._session.write(step)

    async def remove_members(self, id: str, ids: Iterable[str]) -> Assembly:
        """End memberships; ids that are no members are no error. Takes the writer lock.

        Returns:
            The assembly, its composite up to date.

        Raises:
            NotFoundError: there is no such assembly.
        """
        check_id(id)
        asked = list_of_ids(ids)

        def step(context: WriteContext) -> Assembly:
            connection, at = context.connection, context.now
            key = self._key(connection, id, at)
            members = records.keys_of(connection, MEMORY, self._namespace, check_ids(asked), at)
            with history_writer.record_update(context, ASSEMBLY, [key]) as noted:
                gone = memberships.remove_members(connection, key, sorted(members.values()))
                if gone:
                    noted.note(key, added=set(), removed=gone)
                    composites.recompute(context, [key])
                    assemblies.stamp(connection, key, at)
            return only(self._read(connection, [key], at))

        return await self._session.write(step)

    async def members(self, id: str) -> AsyncIterator[str]:
        """The ids of the members, in order of their creation, read page by page.

        Raises:
            NotFoundError: there is no such assembly.
        """
        check_id(id)
        after = -1
        while True:
            page = await self._session.read(partial(self._members, id=id, after=after))
            for _, member in page:
                yield member
                self._session.check_usable()
            if len(page) < PAGE:
                return
            after = page[-1][0]

    def _members(self, connection: Connection, id: str, after: int) -> list[tuple[int, str]]:
        at = now()
        return memberships.page(connection, self._key(connection, id, at), at, after, PAGE)

    async def containing(self, memory_id: str) -> list[Assembly]:
        """The assemblies a memory is a member of, in order of their creation.

        Raises:
            NotFoundError: there is no such memory.
        """
        check_id(memory_id)

        def step(connection: Connection) -> list[Assembly]:
            at = now()
            key = records.key_of(connection, MEMORY, self._namespace, memory_id, at)
            if key is None:
                raise NotFoundError("memory", memory_id, self._namespace)
            return self._read(connection, memberships.assemblies_of(connection, [key]).get(key, []), at)

        return await self._session.read(step)

    async def activate(self, ids: Iterable[str] | Mapping[str, float], level: float = 1.0) -> int:
        """Note that assemblies were used: how active they are is set, their count grows by one. Takes the writer lock.

        From then on `Assembly.activation` fades from that level by the store's half-life. It is use, not a change:
        `updated_at` and `revision` stay as they are.

        Args:
            ids: of assemblies, all to get *level*; or a mapping of ids to levels.
            level: 0 to 1.

        Returns:
            How many of the ids exist.

        Raises:
            InvalidError: a level is not from 0 to 1.
        """
        given = dict(ids) if isinstance(ids, Mapping) else None
        asked: list[object] = list(given) if given is not None else list_of_ids(ids)

        def step(context: WriteContext) -> int:
            connection = context.connection
            wanted = check_ids(asked)
            levels = {id: check_share("level", level if given is None else given[id]) for id in wanted}
            keys = records.keys_of(connection, ASSEMBLY, self._namespace, wanted, context.now)
            assembly_activation.activate(connection, {key: levels[id] for id, key in keys.items()}, context.now)
            return len(keys)

        return await self._session.write(step)

    async def sync_state(self, id: str) -> SyncState:
        """Whether the index has the composite of the assembly's present members: by their revisions.

        Whenever a verb returns they are one. They differ inside a transaction that changed the members (the shared
        index is that of the last commit: until this one, the assembly boosts nothing), and after raw SQL, until an
        assembly is next searched for or the store opened. The index is brought up to date first; nothing is mended.

        Raises:
            NotFoundError: there is no such assembly.
            EngineError: no index can be had.
        """
        check_id(id)

        def step(connection: Connection, view: View) -> SyncState:
            at = now()
            key = self._key(connection, id, at)
            return sync_state(
                only(list(assembly_activation.standing(connection, self._space, [key]).values())), view, at
            )

        return await self._session.search(step)

    def _extend(self, context: WriteContext, key: int, ids: Sequence[str]) -> set[int]:
        """Make memories members; the keys of those that were not."""
        found = records.keys_of(context.connection, MEMORY, self._namespace, ids, context.now)
        for id in ids:
            if id not in found:
                raise NotFoundError("memory", id, self._namespace)
        return composites.extend(context, key, sorted(found.values()))

    def _drafts(self, items: Sequence[Mapping[str, Any]]) -> list[tuple[Draft[Assembly], list[str]]]:
        at = now()
        drafts = []
        for item in items:
            draft = new_assembly(item, self._namespace, at)
            members = item.get("members")
            named = draft.named if members is None else draft.named | {"members"}
            drafts.append((Draft(draft.record, named), check_ids(() if members is None else members, "members")))
        return drafts

    def _read(self, connection: Connection, keys: Sequence[int], at: datetime) -> list[Assembly]:
        return assemblies.read(connection, self._space, keys, at, self._session.half_life)

    def _vector_of(self, record: Assembly) -> Embedding | None:
        return record.composite

    def _hit(self, record: Assembly, score: float) -> AssemblyHit:
        return AssemblyHit(record, score)


def _mappings(items: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return listed(items, "give a list of mappings, one an assembly")


def _replacement(draft: Draft[Assembly]) -> dict[str, Any]:
    names = ["name", "description", "tags", "topics", "metadata", "updated_at"]
    names += sorted(_KEPT & draft.named)
    return {name: getattr(draft.record, name) for name in names}

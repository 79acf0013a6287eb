"""The verbs on assemblies."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, ClassVar

from sqlalchemy import Connection

from memstore import composites
from memstore.collection import ABSENT, LIVE, PAGE, Absent, Collection, as_item, given, list_of_ids, listed
from memstore.errors import DuplicateError, NotFoundError
from memstore.fields import Draft, assembly_changes, check_id, check_ids, new_assembly, now
from memstore.records import Assembly, AssemblyHit, Embedding, Json
from memstore.repository import assemblies, journal, rows
from memstore.repository.nouns import ASSEMBLY, MEMORY, Noun
from memstore.repository.reading import only


class Assemblies(Collection[Assembly, AssemblyHit]):
    """The assemblies of one namespace: `store.assemblies`, or `tx.assemblies`. Searches go over their composites."""

    _noun: ClassVar[Noun] = ASSEMBLY
    _orders: ClassVar[frozenset[str]] = frozenset({"created_at", "updated_at", "id", "name", "revision"})

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

        def step(connection: Connection) -> list[Assembly]:
            drafts = self._drafts(prepared)
            seen: set[str] = set()
            for draft, _ in drafts:
                if draft.record.id in seen:
                    raise DuplicateError("assembly", draft.record.id, given_twice=True)
                seen.add(draft.record.id)
            return self._inserted(connection, drafts)

        return await self._session.write(step)

    def _inserted(self, connection: Connection, drafts: Sequence[tuple[Draft[Assembly], list[str]]]) -> list[Assembly]:
        if not drafts:
            return []
        at = now()
        keys = assemblies.insert_new(connection, self._namespace, [draft.record for draft, _ in drafts])
        for key, (_, members) in zip(keys, drafts, strict=True):
            self._extend(connection, key, members)
        journal.added(connection, ASSEMBLY, assemblies.owner(connection, keys[0]), keys)
        return assemblies.read(connection, self._space, keys, at)

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
    ) -> Assembly:
        """Store an assembly in place of the one that has the id, if any; arguments and errors as of `add`.

        An existing one keeps `created_at`, and its members, unless they are given.
        """
        return (await self.upsert_many([as_item(locals())]))[0]

    async def upsert_many(self, items: Iterable[Mapping[str, Any]]) -> list[Assembly]:
        """Upsert assemblies, all or none; of equal ids in one call the last wins. One record an item, in order."""
        prepared = _mappings(items)

        def step(connection: Connection) -> list[Assembly]:
            at = now()
            drafts = self._drafts(prepared)
            last = {draft.record.id: (draft, members) for draft, members in drafts}
            keys = rows.keys_of(connection, ASSEMBLY, self._namespace, list(last), LIVE)
            self._inserted(connection, [pair for id, pair in last.items() if id not in keys])
            for id, key in keys.items():
                draft, members = last[id]
                with journal.changing(connection, ASSEMBLY, [key]) as noted:
                    assemblies.change(connection, self._namespace, key, _replacement(draft))
                    if "members" in draft.named:
                        gone = assemblies.drop_members(connection, key)
                        noted.members(key, joined=self._extend(connection, key, members), left=gone)
            every = rows.keys_of(connection, ASSEMBLY, self._namespace, list(last), LIVE)
            stored = {a.id: a for a in assemblies.read(connection, self._space, list(every.values()), at)}
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

        def step(connection: Connection) -> Assembly:
            at = now()
            fields = assembly_changes(changes)
            fields.setdefault("updated_at", at)
            key = self._key(connection, id, at)
            with journal.changing(connection, ASSEMBLY, [key]):
                assemblies.change(connection, self._namespace, key, fields)
            return only(assemblies.read(connection, self._space, [key], at))

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

        def step(connection: Connection) -> Assembly:
            at = now()
            key = self._key(connection, id, at)
            with journal.changing(connection, ASSEMBLY, [key]) as noted:
                noted.members(key, joined=self._extend(connection, key, check_ids(asked)))
                assemblies.stamp(connection, key, at)
            return only(assemblies.read(connection, self._space, [key], at))

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

        def step(connection: Connection) -> Assembly:
            at = now()
            key = self._key(connection, id, at)
            members = rows.keys_of(connection, MEMORY, self._namespace, check_ids(asked), LIVE)
            with journal.changing(connection, ASSEMBLY, [key]) as noted:
                gone = assemblies.remove_members(connection, key, sorted(members.values()))
                if gone:
                    noted.members(key, joined=set(), left=gone)
                    composites.recompute(connection, self._session.spaces, [key])
                    assemblies.stamp(connection, key, at)
            return only(assemblies.read(connection, self._space, [key], at))

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
        return assemblies.members(connection, self._key(connection, id, at), at, after, PAGE)

    async def of(self, memory_id: str) -> list[Assembly]:
        """The assemblies a memory is a member of, in order of their creation.

        Raises:
            NotFoundError: there is no such memory.
        """
        check_id(memory_id)

        def step(connection: Connection) -> list[Assembly]:
            at = now()
            key = rows.key_of(connection, MEMORY, self._namespace, memory_id, at)
            if key is None:
                raise NotFoundError("memory", memory_id, self._namespace)
            return assemblies.read(connection, self._space, assemblies.owners(connection, key), at)

        return await self._session.read(step)

    def _extend(self, connection: Connection, key: int, ids: Sequence[str]) -> set[int]:
        """Make memories members; the keys of those that were not."""
        found = rows.keys_of(connection, MEMORY, self._namespace, ids, LIVE)
        for id in ids:
            if id not in found:
                raise NotFoundError("memory", id, self._namespace)
        return composites.extend(connection, self._session.spaces, key, sorted(found.values()))

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
        return assemblies.read(connection, self._space, keys, at)

    def _vector_of(self, record: Assembly) -> Embedding | None:
        return record.composite

    def _hit(self, record: Assembly, score: float) -> AssemblyHit:
        return AssemblyHit(record, score)


def _mappings(items: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return listed(items, "give a list of mappings, one an assembly")


def _replacement(draft: Draft[Assembly]) -> dict[str, Any]:
    names = ["name", "description", "tags", "topics", "metadata", "updated_at"]
    names += ["created_at"] * ("created_at" in draft.named)
    return {name: getattr(draft.record, name) for name in names}

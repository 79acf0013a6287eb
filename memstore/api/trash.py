"""The verbs of forgetting: plan, forget, look into the trash, restore, purge."""

from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from functools import partial
from typing import TypeVar, cast

from sqlalchemy import Connection

from memstore.actor import checked
from memstore.api.collection import PAGE, Collection
from memstore.concurrency import CHUNK_SIZE, chunks
from memstore.errors import InvalidError, NotFoundError
from memstore.forgetting import apply, planner
from memstore.forgetting.planner import Place
from memstore.forgetting.policies import AssemblyForgetPolicy, ForgetPlan, ForgetPolicy, TrashEntry, span
from memstore.models.records import Assembly, Memory, Namespace
from memstore.repository import history_writer, recalled, tombstones
from memstore.repository.record_types import ASSEMBLY, MEMORY, RecordType
from memstore.session import Session
from memstore.sync import composites
from memstore.timestamps import from_micros, now, to_micros
from memstore.validation.arguments import list_of_ids
from memstore.validation.values import check_ids

RecordT = TypeVar("RecordT", bound=Memory | Assembly)
HitT = TypeVar("HitT")


class Recoverable(Collection[RecordT, HitT]):
    """A noun whose records can be forgotten: what lies in the trash of its namespace, and the way back."""

    async def trash(self) -> AsyncIterator[TrashEntry[RecordT]]:
        """What lies in the trash of this namespace, the latest first, read page by page."""
        before: int | None = None
        while True:
            page, before = await self._session.read(partial(self._lying, before=before))
            for each in page:
                yield each
                self._session.check_usable()
            if before is None:
                return

    def _lying(self, connection: Connection, before: int | None) -> tuple[list[TrashEntry[RecordT]], int | None]:
        found = tombstones.page(connection, self._noun, self._namespace, "forgotten", before, PAGE)
        page = [
            TrashEntry(
                record=cast("RecordT", recalled.record_of(each, self._space)),
                at=each.at,
                actor=each.actor,
                reason=each.reason,
            )
            for each in found
        ]
        return page, found[-1].pk if len(found) == PAGE else None

    async def restore(
        self, ids: Iterable[str], *, actor: str | None = None, reason: str | None = None
    ) -> list[RecordT]:
        """Bring back what was forgotten, all of *ids* or none: every field, the vector's bits, its place in the index.

        Memberships come back where the other end is there; where that lies in the trash too, they come back with it. Of
        several that were forgotten under one id the latest comes back. (`memstore.restore_backup` is another
        thing: it puts a
        whole file in the place of another.) Takes the writer lock.

        Args:
            ids: of what was forgotten.
            actor: who asks for it, for the history.
            reason: why, for the history.

        Returns:
            The records, in the order of *ids*.

        Raises:
            NotFoundError: one is not in the trash of this namespace.
            DuplicateError: its id is taken again.
            InvalidError: it expired while it lay there.
        """
        asked = list_of_ids(ids)
        said = checked(actor, reason)

        def step(connection: Connection) -> list[RecordT]:
            wanted, at = check_ids(asked), now()
            found = tombstones.find(connection, self._noun, self._namespace, wanted, "forgotten")
            for id in wanted:
                if id not in found:
                    raise NotFoundError(self._noun.kind, id, self._namespace, trash=True)
            chosen = [found[id] for id in wanted]
            for some in chunks(chosen):
                for each in tombstones.read(connection, self._noun, some):
                    expires = each.record.get("expires_at")
                    if expires is not None and expires <= to_micros(at):
                        raise _expired(each.id, expires)
            with history_writer.said_by(connection, *said):
                keys = tombstones.bring_back(connection, self._noun, self._session.spaces, chosen)
            if self._noun is ASSEMBLY:  # which is read here, before the write ends with that
                composites.recompute(connection, self._session.spaces, keys)
            return self._read(connection, keys, at)

        return await self._session.write(step, batch=len(asked) > CHUNK_SIZE)


def _expired(id: str, when: int) -> InvalidError:
    return InvalidError(
        f"memory {id!r} expired in the trash, at {from_micros(when)}, and would be gone at once: take it from trash(), "
        "and add it anew with another expires_at"
    )


class Forgetting:
    """The verbs of forgetting on a namespace."""

    _session: Session
    _namespace: Namespace

    async def plan_forget(self, policy: ForgetPolicy, *, recursive: bool = False) -> ForgetPlan:
        """Say which memories *policy* would have forgotten, and why. Changes nothing; `forget` does it.

        Args:
            policy: what is to go.
            recursive: also from all namespaces below this one.
        """
        if not isinstance(policy, ForgetPolicy):
            raise InvalidError(f"plan_forget takes a memstore.ForgetPolicy; got {type(policy).__name__}")
        place = Place(self._session.spaces, self._namespace, recursive)
        return await self._session.read(lambda connection: planner.plan_memories(connection, place, policy))

    async def forget(self, plan: ForgetPlan, *, actor: str | None = None, reason: str | None = None) -> int:
        """Move the memories of *plan* to the trash, all or none; how many.

        No search, list, count or get sees them from then on, and their assemblies' composites go on without them.
        `memories.trash()` lists them, `memories.restore(ids)` brings them back, `purge` ends them. One that has expired
        since the plan was made is gone anyway, and not counted. Takes the writer lock.

        Args:
            plan: what `plan_forget` made, in this namespace.
            actor: who asks for it, in your words; kept with each.
            reason: why; left out, the names of the criteria that each met.

        Raises:
            StalePlanError: a memory was changed, touched, pinned or deleted since the plan was made; nothing was moved.
            InvalidError: the plan is of another namespace, or of assemblies.
        """
        return await carry_out(self._session, self._namespace, plan, MEMORY, actor, reason)

    async def purge(self, *, older_than: timedelta | float, recursive: bool = False) -> int:
        """End for good what has lain in the trash for longer than *older_than*; how many records.

        Memories and assemblies. `compact` gives their room back to the disk. Takes the writer lock.

        Args:
            older_than: a timedelta, or seconds; 0 for all of it.
            recursive: also in all namespaces below this one.
        """
        length = span("older_than", older_than)

        def step(connection: Connection) -> int:
            until = planner.ago(now(), length) if length else None
            return tombstones.purge(connection, until, "forgotten", self._namespace, recursive=recursive)

        return await self._session.write(step, batch=True)


class Pruning(Recoverable[Assembly, HitT]):
    """Forgetting assemblies."""

    async def plan_prune(self, policy: AssemblyForgetPolicy, *, recursive: bool = False) -> ForgetPlan:
        """Say which assemblies *policy* would have forgotten, and why. Changes nothing; `prune` does it.

        Args:
            policy: what is to go.
            recursive: also from all namespaces below this one.
        """
        if not isinstance(policy, AssemblyForgetPolicy):
            raise InvalidError(f"plan_prune takes a memstore.PrunePolicy; got {type(policy).__name__}")
        place = Place(self._session.spaces, self._namespace, recursive)
        return await self._session.read(lambda connection: planner.plan_assemblies(connection, place, policy))

    async def prune(self, plan: ForgetPlan, *, actor: str | None = None, reason: str | None = None) -> int:
        """Move the assemblies of *plan* to the trash, all or none; how many. Their members stay where they are.

        `assemblies.trash()` lists them, `assemblies.restore(ids)` brings them back with their members. Takes the writer
        lock. Arguments and errors as of `store.forget`; a change of its members is a change of an assembly.
        """
        return await carry_out(self._session, self._namespace, plan, ASSEMBLY, actor, reason)


async def carry_out(
    session: Session, namespace: Namespace, plan: ForgetPlan, noun: RecordType, actor: str | None, reason: str | None
) -> int:
    """Have *plan*, which is to be for *noun* and of *namespace*, carried out; how many records were moved."""
    if not isinstance(plan, ForgetPlan) or plan.noun != noun.kind:
        raise InvalidError("forget takes what plan_forget made, and assemblies.prune what assemblies.plan_prune made")
    if plan.namespace != namespace:
        raise InvalidError(f"this plan is of namespace {plan.namespace!r}, and this is {namespace!r}: do it there")
    said = checked(actor, reason)
    spaces = session.spaces
    return await session.write(lambda c: apply.carry_out(c, spaces, plan, **said._asdict()), batch=True)

"""Applying a forget plan: its records move to the trash, all or none."""

from collections.abc import Sequence

from memstore.concurrency import chunks
from memstore.errors import StalePlanError
from memstore.forgetting.policies import ForgetPlan
from memstore.models.forgetting import ForgetCandidate
from memstore.models.records import Namespace
from memstore.repository import forget_candidates, store_meta, tombstones
from memstore.repository.context import WriteContext
from memstore.repository.forget_candidates import EXPIRES
from memstore.repository.record_types import ASSEMBLY, BY_KIND, MEMORY
from memstore.sync import composites
from memstore.timestamps import to_micros


def forget(context: WriteContext, plan: ForgetPlan) -> int:
    """Move the records of *plan* to the trash; how many.

    The stored reason is the actor's; without one, the criteria that each record met. A memory that has expired since
    the plan was made is deleted already, and not counted.

    Raises:
        StalePlanError: a record has changed since the plan was made, or the plan is of another file.
    """
    record_type = BY_KIND[plan.record_kind]
    space = context.spaces[record_type.kind]
    if plan.origin != store_meta.origin(context.connection):
        raise StalePlanError(record_type.kind, [candidate.id for candidate in plan.candidates], replaced=True)
    stale: list[ForgetCandidate] = []
    keys_by_reason: dict[str, list[int]] = {}
    for chunk in chunks(plan.candidates):
        keys = [candidate.key for candidate in chunk]
        states = forget_candidates.states(context.connection, record_type, space, keys, context.now)
        current = {state.pk: (state.namespace, state.id, state.values) for state in states}
        for candidate in chunk:
            planned = candidate.namespace, candidate.id, candidate.state
            _, _, values = current.get(candidate.key, planned)
            if record_type is MEMORY and _has_expired(context, values):
                continue
            if current.get(candidate.key) == planned and _is_within(candidate.namespace, plan):
                criteria = ", ".join(candidate.reasons)
                reason = criteria if context.actor.reason is None else context.actor.reason
                keys_by_reason.setdefault(reason, []).append(candidate.key)
            else:
                stale.append(candidate)
    if stale:
        raise StalePlanError(record_type.kind, [candidate.id for candidate in stale])
    if record_type is ASSEMBLY:
        composites.delete_expired_members(context, [key for keys in keys_by_reason.values() for key in keys])
    for reason, keys in keys_by_reason.items():
        tombstones.archive(context.with_reason(reason), record_type, keys, "forgotten")
    return sum(map(len, keys_by_reason.values()))


def _is_within(namespace: Namespace, plan: ForgetPlan) -> bool:
    """Whether *namespace* is one that the plan is for: a caller can make a plan too, with records of any namespace."""
    return namespace[: len(plan.namespace)] == plan.namespace if plan.recursive else namespace == plan.namespace


def _has_expired(context: WriteContext, state: Sequence[object]) -> bool:
    """Whether a memory with this *state* has expired."""
    expires_at = state[EXPIRES]
    return isinstance(expires_at, int) and expires_at <= to_micros(context.now)

"""Applying a forget plan: the records move to the trash."""

from datetime import datetime

from sqlalchemy import Connection

from memstore.concurrency import chunks
from memstore.errors import StalePlanError
from memstore.forgetting.planner import Spaces
from memstore.forgetting.policies import ForgetPlan
from memstore.models.forgetting import ForgetCandidate
from memstore.repository import forget_candidates, tombstones
from memstore.repository.forget_candidates import EXPIRES
from memstore.repository.record_types import BY_KIND, MEMORY, RecordType
from memstore.timestamps import now, to_micros


def carry_out(
    connection: Connection, spaces: Spaces, plan: ForgetPlan, *, actor: str | None, reason: str | None
) -> int:
    """Move what *plan* names to the trash; how many. Raises `StalePlanError`."""
    noun, at = BY_KIND[plan.noun], now()
    space = spaces[noun.kind]
    stale: list[ForgetCandidate] = []
    going: dict[str, list[int]] = {}
    for some in chunks(plan.planned):
        there = {
            state.pk: state.values for state in forget_candidates.states(connection, noun, space, [p.key for p in some])
        }
        for each in some:
            if there.get(each.key) == each.state:
                going.setdefault(", ".join(each.reasons) if reason is None else reason, []).append(each.key)
            elif each.key in there or not _has_expired(noun, each, at):
                stale.append(each)
    if stale:
        raise StalePlanError(noun.kind, [each.id for each in stale])
    for why, keys in going.items():
        tombstones.set_aside(connection, noun, space, keys, "forgotten", at=at, actor=actor, reason=why)
    return sum(map(len, going.values()))


def _has_expired(noun: RecordType, each: ForgetCandidate, at: datetime) -> bool:
    """Whether a memory is not there any more because its time has come: that is no reason to stop."""
    expires = each.state[EXPIRES] if noun is MEMORY else None
    return isinstance(expires, int) and expires <= to_micros(at)

"""Forget policies, and the plans that the planner makes from them.

A policy is checked when it is created, and is independent of any store.
"""

from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Literal, get_args

from memstore import filters
from memstore.errors import InvalidError, short_repr
from memstore.filters import Where
from memstore.models.forgetting import ForgetCandidate
from memstore.models.record import Record
from memstore.models.records import Namespace, RecordKind
from memstore.validation.values import check_count, check_share
from memstore.vectors.scalars import plain_scalar

Match = Literal["all", "any"]

_MAX_COUNT = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetPolicy:
    """Which memories to forget. Pinned memories are never forgotten.

    Every argument but `where` and `match` is a criterion. `where` limits the policy to the memories that match a
    filter. With `match="all"` a memory is selected if it meets all criteria, with `"any"` if it meets one. With
    `where` alone every memory that matches is selected.

    A budget (`max_count`, `max_bytes`) selects memories until the rest is within it: the least important first, then
    the one unused for longest (since its creation if it was never touched), then the oldest. With `"all"` it selects
    only memories that meet the other criteria, even if the rest then exceeds the budget; with `"any"` it applies to
    the memories that the other criteria leave. Pinned memories count towards the budget.

    Durations are timedeltas, or seconds.

    Attributes:
        older_than: created longer ago than this.
        unused_for: not touched for longer than this; never touched, and created longer ago than this.
        importance_below: less important than this, 0 to 1.
        expires_within: expires within this time.
        max_count: how many memories may remain.
        max_bytes: how many bytes may remain: of ids, contents and metadata in UTF-8, and of vectors.
        where: only memories that match this filter are selected, and counted.
        match: `"all"` or `"any"`.
    """

    older_than: timedelta | float | None = None
    unused_for: timedelta | float | None = None
    importance_below: float | None = None
    expires_within: timedelta | float | None = None
    max_count: int | None = None
    max_bytes: int | None = None
    where: Where | None = None
    match: Match = "all"

    def __post_init__(self) -> None:
        _convert_durations(self, "older_than", "unused_for", "expires_within")
        if self.importance_below is not None:
            object.__setattr__(self, "importance_below", check_share("importance_below", self.importance_below))
        _check_counts(self, 0, "max_count", "max_bytes")
        _check_selective(self, "memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class AssemblyForgetPolicy:
    """Which assemblies to forget. Their members remain.

    Every argument but `where` and `match` is a criterion; both work as in `ForgetPolicy`.

    Attributes:
        older_than: created longer ago than this: a timedelta, or seconds.
        inactive_for: not activated for longer than this; never activated, and created longer ago than this.
        activated_fewer_than: activated fewer times than this.
        members_below: with fewer members than this; 1 selects empty assemblies.
        where: only assemblies that match this filter are selected.
        match: `"all"` or `"any"`.
    """

    older_than: timedelta | float | None = None
    inactive_for: timedelta | float | None = None
    activated_fewer_than: int | None = None
    members_below: int | None = None
    where: Where | None = None
    match: Match = "all"

    def __post_init__(self) -> None:
        _convert_durations(self, "older_than", "inactive_for")
        _check_counts(self, 1, "activated_fewer_than", "members_below")
        _check_selective(self, "assembly")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ForgetPlan(Record):
    """The records that a policy selects, as the store was at one time. Nothing has been changed.

    Attributes:
        record_kind: the kind of the records: `"memory"` or `"assembly"`.
        policy: the policy.
        namespace: the namespace that the plan is for.
        recursive: whether it is also for all namespaces below.
        created_at: when it was made, UTC.
        candidates: the selected records, in the order in which a budget selects memories; assemblies oldest first.
        bytes: the size of all candidates.
        remaining: how many records would remain, of those that match the policy's `where`.
        remaining_bytes: the size of those; None where the policy has no budget.
        origin: the store and the content of its file that the plan is of; `forget` takes no plan of another origin. Not
            compared.
    """

    record_kind: Literal["memory", "assembly"]
    policy: ForgetPolicy | AssemblyForgetPolicy
    namespace: Namespace
    recursive: bool
    created_at: datetime
    candidates: tuple[ForgetCandidate, ...] = field(repr=False)
    bytes: int
    remaining: int
    remaining_bytes: int | None
    origin: str = field(default="", repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.candidates)


def check_duration(name: str, value: object) -> timedelta:
    """*value*, seconds or a timedelta, as a timedelta of 0 or longer; else `InvalidError`."""
    plain = plain_scalar(value)
    try:
        if isinstance(plain, int | float | timedelta) and not isinstance(plain, bool):
            duration = plain if isinstance(plain, timedelta) else timedelta(seconds=plain)
            if duration >= timedelta(0):
                return duration
    except (OverflowError, ValueError):
        pass
    raise InvalidError(
        f"Invalid {name}: expected a duration of 0 or longer, in seconds or as a timedelta, found {short_repr(value)}"
    )


def _convert_durations(policy: ForgetPolicy | AssemblyForgetPolicy, *names: str) -> None:
    for name in names:
        if getattr(policy, name) is not None:
            object.__setattr__(policy, name, check_duration(name, getattr(policy, name)))


def _check_counts(policy: ForgetPolicy | AssemblyForgetPolicy, least: int, *names: str) -> None:
    for name in names:
        if getattr(policy, name) is not None:
            object.__setattr__(policy, name, check_count(name, getattr(policy, name), least, _MAX_COUNT))


def _check_selective(policy: ForgetPolicy | AssemblyForgetPolicy, kind: RecordKind) -> None:
    """Raise `InvalidError` where the policy would select every record, or its `match` or `where` is not valid."""
    if policy.match not in get_args(Match):
        raise InvalidError(f"match must be 'all' or 'any', found {short_repr(policy.match)}")
    where = None if policy.where is None else filters.parse(policy.where, kind)
    names = [f.name for f in fields(policy) if f.name not in ("where", "match")]
    criteria = [name for name in names if getattr(policy, name) is not None]
    if not criteria and where in (None, filters.EVERYTHING):
        raise InvalidError(
            f"The policy has no criterion, and would forget every {kind}. Give it a criterion, or a filter as where=."
        )

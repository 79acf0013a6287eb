"""What is to be forgotten, what would be, and what was: policies, plans, and records in the trash.

A policy is a wish, and knows no store. A plan says of a store at one moment what a policy would take from it and why;
making one changes nothing.
"""

from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Literal, get_args

from memstore import filters
from memstore.errors import InvalidError, short_repr
from memstore.filters import Where
from memstore.models.forgetting import ForgetCandidate
from memstore.models.records import Namespace, RecordKind
from memstore.validation.values import check_count, check_importance

Match = Literal["all", "any"]

_MOST = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetPolicy:
    """Which memories are to be forgotten. Pinned ones never are, whatever it says.

    Each argument that is given is a criterion; `where` is none, it says among which memories they are looked for. Under
    `match="all"` a memory goes that meets all criteria, under `"any"` one that meets any. With `where` alone all go
    that match it.

    A budget (`max_count`, `max_bytes`) is met by memories as long as more are there than it allows. First goes the one
    of least importance, of equals the one unused for longest (never touched: since it was created), then the older
    one. Under `"all"` only those are taken that meet the other criteria, even if that leaves more than the budget;
    under `"any"` the budget is for what the others leave. Pinned memories count, and stay.

    Spans are timedeltas, or seconds.

    Attributes:
        older_than: created longer ago than this.
        unused_for: not touched for longer than this; where it never was, created longer ago.
        importance_below: of less importance than this, 0 to 1.
        expires_within: to expire within this time.
        max_count: so many may stay.
        max_bytes: so many bytes may stay: of ids, contents and metadata in UTF-8, and of vectors.
        where: only memories that match this filter are taken, and counted.
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
        for name in ("older_than", "unused_for", "expires_within"):
            object.__setattr__(self, name, _span(name, getattr(self, name)))
        if self.importance_below is not None:
            object.__setattr__(self, "importance_below", check_importance(self.importance_below))
        for name in ("max_count", "max_bytes"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), 0, _MOST)
        _check(self, "memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class AssemblyForgetPolicy:
    """Which assemblies are to be forgotten; their members stay.

    Each argument that is given is a criterion; `where` and `match` are as of `ForgetPolicy`.

    Attributes:
        older_than: created longer ago than this: a timedelta, or seconds.
        inactive_for: not activated for longer than this; where it never was, created longer ago.
        activated_fewer_than: activated fewer times than this.
        members_below: of fewer members than this; 1 is for the empty ones.
        where: only assemblies that match this filter are taken.
        match: `"all"` or `"any"`.
    """

    older_than: timedelta | float | None = None
    inactive_for: timedelta | float | None = None
    activated_fewer_than: int | None = None
    members_below: int | None = None
    where: Where | None = None
    match: Match = "all"

    def __post_init__(self) -> None:
        for name in ("older_than", "inactive_for"):
            object.__setattr__(self, name, _span(name, getattr(self, name)))
        for name in ("activated_fewer_than", "members_below"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), 1, _MOST)
        _check(self, "assembly")


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetPlan:
    """What a policy would take from a store as it was at one moment. Nothing has been changed.

    Attributes:
        noun: of what it is: `"memory"` or `"assembly"`.
        policy: what was asked for.
        namespace: where.
        recursive: whether also in all namespaces below.
        created_at: when, UTC.
        candidates: what would go, in the order in which a budget takes memories; assemblies by age, the oldest first.
        bytes: what all of it holds.
        remaining: how many records there would be after it, of those that the policy's `where` speaks of.
        remaining_bytes: what they would hold; None where the policy has no budget, and nobody has looked.
    """

    noun: Literal["memory", "assembly"]
    policy: ForgetPolicy | AssemblyForgetPolicy
    namespace: Namespace
    recursive: bool
    created_at: datetime
    candidates: tuple[ForgetCandidate, ...] = field(repr=False)
    bytes: int
    remaining: int
    remaining_bytes: int | None

    def __len__(self) -> int:
        return len(self.candidates)


def span(name: str, value: object) -> timedelta:
    """*value*, seconds or a timedelta, as a timedelta from 0 on, else `InvalidError`."""
    try:
        if isinstance(value, int | float | timedelta) and not isinstance(value, bool):
            length = value if isinstance(value, timedelta) else timedelta(seconds=value)
            if length >= timedelta(0):
                return length
    except (OverflowError, ValueError):
        pass
    raise InvalidError(f"{name} is a time of 0 or longer, in seconds or as a timedelta; got {short_repr(value)}")


def _span(name: str, value: object) -> timedelta | None:
    return None if value is None else span(name, value)


def _check(policy: ForgetPolicy | AssemblyForgetPolicy, noun: RecordKind) -> None:
    if policy.match not in get_args(Match):
        raise InvalidError(f"match is 'all' or 'any'; got {short_repr(policy.match)}")
    where = None if policy.where is None else filters.parse(policy.where, noun)
    named = [f.name for f in fields(policy) if f.name not in ("where", "match") and getattr(policy, f.name) is not None]
    if not named and where in (None, filters.EVERYTHING):
        raise InvalidError(
            f"this policy says nothing, and would forget every {noun}: name a criterion, or a filter in where="
        )

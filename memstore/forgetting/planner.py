"""Forget plans: the records that a policy selects at one time. Making a plan changes nothing."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection

from memstore import filters
from memstore.concurrency import CHUNK_SIZE, yield_gil
from memstore.filters.nodes import FIELDS, And, Compare, Field, IsIn, Node, Or, Order, Scalar
from memstore.forgetting.policies import AssemblyForgetPolicy, ForgetPlan, ForgetPolicy
from memstore.models.forgetting import Criterion, ForgetCandidate
from memstore.models.records import Namespace
from memstore.repository import forget_candidates, selection, store_meta
from memstore.repository.forget_candidates import (
    ACCESSED,
    ACTIVATED,
    ACTIVATIONS,
    CREATED,
    EXPIRES,
    IMPORTANCE,
    PINNED,
    RecordState,
)
from memstore.repository.record_types import ASSEMBLY, MEMORY, RecordType
from memstore.repository.selection import Selection
from memstore.repository.vectors import Spaces
from memstore.timestamps import to_micros

Indices = npt.NDArray[np.intp]
ForgetRows = npt.NDArray[np.void]

_FORGET_ROW = np.dtype(
    [("key", "i8"), ("bytes", "i8"), ("pinned", "?"), ("created", "i8"), ("used", "i8"), ("importance", "f8")]
)

_FIRST_TIME = datetime.min.replace(tzinfo=UTC)
_LAST_TIME = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Scope:
    """The namespaces that a plan is for, and its time."""

    spaces: Spaces
    namespace: Namespace
    recursive: bool
    now: datetime

    def keys(self, connection: Connection, record_type: RecordType, conditions: Sequence[Node]) -> list[int]:
        """Keys of the records that match all of *conditions*, ascending."""
        return selection.selected(connection, self._selection(record_type, conditions))

    def count(self, connection: Connection, record_type: RecordType, conditions: Sequence[Node]) -> int:
        """How many records match all of *conditions*."""
        return selection.count(connection, self._selection(record_type, conditions))

    def _selection(self, record_type: RecordType, conditions: Sequence[Node]) -> Selection:
        flat = [part for node in conditions for part in (node.parts if isinstance(node, And) else (node,))]
        where = And(tuple(flat)) if flat else None
        return Selection(
            record_type=record_type, namespace=self.namespace, now=self.now, recursive=self.recursive, where=where
        )

    def states(self, connection: Connection, record_type: RecordType, keys: Sequence[int]) -> Iterable[RecordState]:
        """The states of the records *keys*, in no order."""
        return forget_candidates.states(connection, record_type, self.spaces[record_type.kind], keys, self.now)


class _CriterionTest(NamedTuple):
    """A criterion: as a filter for all records, and as a function of one record's state."""

    name: Criterion
    node: Node | None
    is_met: Callable[[RecordState], bool]


def plan(
    connection: Connection,
    spaces: Spaces,
    namespace: Namespace,
    policy: ForgetPolicy | AssemblyForgetPolicy,
    at: datetime,
    *,
    recursive: bool,
) -> ForgetPlan:
    """The records of a namespace that *policy* selects *at* a time; with *recursive*, also of those below it."""
    scope = _Scope(spaces, namespace, recursive, at)
    if isinstance(policy, ForgetPolicy):
        return _plan_memories(connection, scope, policy)
    return _plan_assemblies(connection, scope, policy)


def _plan_memories(connection: Connection, scope: _Scope, policy: ForgetPolicy) -> ForgetPlan:
    where = [] if policy.where is None else [filters.parse(policy.where, "memory")]
    tests = _memory_tests(policy, scope.now)
    nodes = [test.node for test in tests if test.node is not None]
    has_budget = policy.max_count is not None or policy.max_bytes is not None
    keys: list[int] | None = None  # of the memories that meet the criteria; None where a budget is the only one
    if nodes or not has_budget:
        criteria = [Or(tuple(nodes))] if nodes and policy.match == "any" else nodes
        keys = scope.keys(connection, MEMORY, [*where, *criteria, IsIn(_field("pinned"), (False,))])
    if not has_budget:
        remaining = scope.count(connection, MEMORY, where) - len(keys or ())
        return _to_plan(connection, scope, MEMORY, policy, keys or [], tests, (remaining, None))
    rows = _forget_rows(scope.states(connection, MEMORY, scope.keys(connection, MEMORY, where)))
    selected, over_budget, remaining_size = _apply_budget(rows[_forget_order(rows)], keys, policy)
    tests += [_over_budget_test(name, over_keys) for name, over_keys in over_budget.items()]
    return _to_plan(connection, scope, MEMORY, policy, selected, tests, remaining_size)


def _plan_assemblies(connection: Connection, scope: _Scope, policy: AssemblyForgetPolicy) -> ForgetPlan:
    # Assemblies are few, so each is read and tested here.
    where = [] if policy.where is None else [filters.parse(policy.where, "assembly")]
    keys = scope.keys(connection, ASSEMBLY, where)
    tests = _assembly_tests(policy, scope.now)
    combine = any if tests and policy.match == "any" else all
    states = scope.states(connection, ASSEMBLY, keys)
    selected = [state.pk for state in states if combine(test.is_met(state) for test in tests)]
    return _to_plan(connection, scope, ASSEMBLY, policy, selected, tests, (len(keys) - len(selected), None))


def _memory_tests(policy: ForgetPolicy, at: datetime) -> list[_CriterionTest]:
    tests: list[_CriterionTest] = []
    if policy.older_than is not None:
        tests.append(_created_before(ago(at, policy.older_than)))
    if policy.unused_for is not None:
        last_use = ago(at, policy.unused_for)
        use_micros = to_micros(last_use)
        never_used = And((IsIn(_field("accessed_at"), (None,)), _compare("created_at", "$lt", last_use)))
        node = Or((_compare("accessed_at", "$lt", last_use), never_used))
        tests.append(_CriterionTest("unused_for", node, lambda state: _last_use(state) < use_micros))
    if policy.importance_below is not None:
        least = policy.importance_below
        unimportant = _compare("importance", "$lt", least)
        tests.append(_CriterionTest("importance_below", unimportant, lambda state: state.values[IMPORTANCE] < least))
    if policy.expires_within is not None:
        expiry = _after(at, policy.expires_within)
        expiry_micros = to_micros(expiry)
        tests.append(
            _CriterionTest(
                "expires_within",
                _compare("expires_at", "$lte", expiry),
                lambda state: state.values[EXPIRES] is not None and state.values[EXPIRES] <= expiry_micros,
            )
        )
    return tests


def _created_before(time: datetime) -> _CriterionTest:
    micros = to_micros(time)
    node = _compare("created_at", "$lt", time)
    return _CriterionTest("older_than", node, lambda state: state.values[CREATED] < micros)


def _over_budget_test(name: Criterion, keys: set[int]) -> _CriterionTest:
    return _CriterionTest(name, None, lambda state: state.pk in keys)


def _assembly_tests(policy: AssemblyForgetPolicy, at: datetime) -> list[_CriterionTest]:
    tests: list[_CriterionTest] = []
    if policy.older_than is not None:
        tests.append(_created_before(ago(at, policy.older_than)))
    if policy.inactive_for is not None:
        micros = to_micros(ago(at, policy.inactive_for))
        tests.append(_CriterionTest("inactive_for", None, lambda state: _last_activation(state) < micros))
    if policy.activated_fewer_than is not None:
        times = policy.activated_fewer_than
        tests.append(_CriterionTest("activated_fewer_than", None, lambda state: state.values[ACTIVATIONS] < times))
    if policy.members_below is not None:
        count = policy.members_below
        tests.append(_CriterionTest("members_below", None, lambda state: state.members < count))
    return tests


def _field(name: str) -> Field:
    return Field(name, FIELDS["memory"][name])


def _compare(name: str, order: Order, operand: Scalar) -> Node:
    return Compare(_field(name), order, operand)


def ago(at: datetime, duration: object) -> datetime:
    """The time *duration*, a timedelta, before *at*; at least the first time that a datetime can hold."""
    try:
        return at - cast("timedelta", duration)
    except OverflowError:
        return _FIRST_TIME


def _after(at: datetime, duration: object) -> datetime:
    try:
        return at + cast("timedelta", duration)
    except OverflowError:
        return _LAST_TIME


def _last_use(state: RecordState) -> int:
    return cast("int", state.values[CREATED] if state.values[ACCESSED] is None else state.values[ACCESSED])


def _last_activation(state: RecordState) -> int:
    return cast("int", state.values[CREATED] if state.values[ACTIVATED] is None else state.values[ACTIVATED])


def _forget_rows(states: Iterable[RecordState]) -> ForgetRows:
    """What orders and budgets memories, as an array: the states of a whole namespace need not be in memory at once."""
    rows = (
        (
            state.pk,
            state.bytes,
            state.values[PINNED] != 0,
            state.values[CREATED],
            _last_use(state),
            state.values[IMPORTANCE],
        )
        for state in states
    )
    return np.fromiter(rows, _FORGET_ROW)


def _forget_order(rows: ForgetRows) -> Indices:
    """The order in which memories are forgotten: the least important first, then the longest unused, then the oldest.

    NumPy sorts: to sort a hundred thousand tuples Python holds the GIL for a tenth of a second.
    """
    return np.lexsort([rows[name] for name in ("key", "created", "used", "importance")])


def _apply_budget(
    queue: ForgetRows, keys: list[int] | None, policy: ForgetPolicy
) -> tuple[list[int], dict[Criterion, set[int]], tuple[int, int]]:
    """Select memories of *queue*, in its order, until the rest is within the budget.

    *keys* are of the memories that meet the other criteria, None where there are none. Returns the selected keys, those
    among them that each budget selected, and count and bytes of the remaining memories.
    """
    meets_criteria = np.isin(queue["key"], np.array(keys or (), dtype=np.int64))
    if keys is not None and policy.match == "any":
        selected, candidates = meets_criteria, ~queue["pinned"] & ~meets_criteria
    else:
        selected = np.zeros(len(queue["key"]), dtype=np.bool_)
        candidates = ~queue["pinned"] if keys is None else meets_criteria
    indices = np.flatnonzero(candidates)
    count, size = int((~selected).sum()), int(queue["bytes"][~selected].sum())
    freed = np.cumsum(queue["bytes"][indices])
    over_count = 0 if policy.max_count is None else min(max(0, count - policy.max_count), len(indices))
    over_bytes = 0
    if policy.max_bytes is not None and size > policy.max_bytes:
        over_bytes = min(int(np.searchsorted(freed, size - policy.max_bytes)) + 1, len(indices))
    selected[indices[: max(over_count, over_bytes)]] = True
    over_budget: dict[Criterion, set[int]] = {}
    if policy.max_count is not None:
        over_budget["max_count"] = set(queue["key"][indices[:over_count]].tolist())
    if policy.max_bytes is not None:
        over_budget["max_bytes"] = set(queue["key"][indices[:over_bytes]].tolist())
    remaining = int((~selected).sum()), int(queue["bytes"][~selected].sum())
    return queue["key"][selected].tolist(), over_budget, remaining


def _to_plan(
    connection: Connection,
    scope: _Scope,
    record_type: RecordType,
    policy: ForgetPolicy | AssemblyForgetPolicy,
    keys: Sequence[int],
    tests: Sequence[_CriterionTest],
    remaining: tuple[int, int | None],
) -> ForgetPlan:
    states = list(scope.states(connection, record_type, keys))
    candidates = []
    for i, index in enumerate(_plan_order(states, record_type).tolist()):
        if i and i % CHUNK_SIZE == 0:
            yield_gil()
        state = states[index]
        reasons: list[Criterion] = [test.name for test in tests if test.is_met(state)] or ["where"]
        candidates.append(
            ForgetCandidate(
                id=state.id,
                namespace=state.namespace,
                reasons=tuple(reasons),
                bytes=state.bytes,
                key=state.pk,
                state=state.values,
            )
        )
    return ForgetPlan(
        record_kind=record_type.kind,
        policy=policy,
        namespace=scope.namespace,
        recursive=scope.recursive,
        created_at=scope.now,
        candidates=tuple(candidates),
        bytes=sum(candidate.bytes for candidate in candidates),
        remaining=remaining[0],
        remaining_bytes=remaining[1],
        origin=store_meta.origin(connection),
    )


def _plan_order(states: Sequence[RecordState], record_type: RecordType) -> Indices:
    """The indices of *states* in the order of a plan: memories as they are forgotten, assemblies by age."""
    if record_type is ASSEMBLY:
        return np.argsort(np.array([state.pk for state in states], dtype=np.int64))
    return _forget_order(_forget_rows(states))

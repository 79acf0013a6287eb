"""What a policy would have forgotten, and doing it: plans are made and carried out here.

A plan is of one moment of the store, and making one changes nothing. Carried out, it moves just what it names, all of
it or nothing: where a record is no longer what the plan took it to be, nothing is moved.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
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
from memstore.models.records import Namespace, RecordKind
from memstore.repository import forget_candidates, selection
from memstore.repository.forget_candidates import (
    ACCESSED,
    ACTIVATED,
    ACTIVATIONS,
    CREATED,
    EXPIRES,
    IMPORTANCE,
    PINNED,
    State,
)
from memstore.repository.record_types import ASSEMBLY, MEMORY, RecordType
from memstore.repository.selection import Selection
from memstore.repository.vectors import VectorSpace
from memstore.timestamps import now, to_micros

Spaces = Mapping[RecordKind, VectorSpace]

_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Place:
    """Of which namespaces a plan is made."""

    spaces: Spaces
    namespace: Namespace
    recursive: bool

    def selected(self, connection: Connection, noun: RecordType, at: datetime, terms: Sequence[Node]) -> list[int]:
        """Keys of the records that match all of *terms*, ascending."""
        return selection.selected(connection, self._selection(noun, at, terms))

    def count(self, connection: Connection, noun: RecordType, at: datetime, terms: Sequence[Node]) -> int:
        """How many records match all of *terms*."""
        return selection.count(connection, self._selection(noun, at, terms))

    def _selection(self, noun: RecordType, at: datetime, terms: Sequence[Node]) -> Selection:
        flat = [part for term in terms for part in (term.parts if isinstance(term, And) else (term,))]
        where = And(tuple(flat)) if flat else None
        return Selection(record_type=noun, namespace=self.namespace, now=at, recursive=self.recursive, where=where)

    def states(self, connection: Connection, noun: RecordType, keys: Sequence[int]) -> Iterable[State]:
        """What a plan has to know of the records *keys*."""
        return forget_candidates.states(connection, noun, self.spaces[noun.kind], keys)


class _Test(NamedTuple):
    """A criterion, as it is asked of all records at once, and of one."""

    name: Criterion
    node: Node | None
    holds: Callable[[State], bool]


def plan(connection: Connection, place: Place, policy: ForgetPolicy | AssemblyForgetPolicy) -> ForgetPlan:
    """The records of *place* that *policy* selects now."""
    if isinstance(policy, ForgetPolicy):
        return plan_memories(connection, place, policy)
    return plan_assemblies(connection, place, policy)


def plan_memories(connection: Connection, place: Place, policy: ForgetPolicy) -> ForgetPlan:
    """What *policy* would take from *place* now."""
    at = now()
    scope = [] if policy.where is None else [filters.parse(policy.where, "memory")]
    tests = _tests_of_memories(policy, at)
    nodes = [test.node for test in tests if test.node is not None]
    budget = policy.max_count is not None or policy.max_bytes is not None
    met: list[int] | None = None  # where a budget is all that is asked for
    if nodes or not budget:
        joined = [Or(tuple(nodes))] if nodes and policy.match == "any" else nodes
        met = place.selected(connection, MEMORY, at, [*scope, *joined, IsIn(_field("pinned"), (False,))])
    if not budget:
        remaining = place.count(connection, MEMORY, at, scope) - len(met or ())
        return _plan(connection, place, MEMORY, policy, at, met or [], tests, (remaining, None))
    held = _Held.read(place.states(connection, MEMORY, place.selected(connection, MEMORY, at, scope)))
    gone, over, rest = _over_budget(held, met, policy)
    tests += [_Test(name, None, lambda state, some=some: state.pk in some) for name, some in over.items()]  # type: ignore[misc]
    return _plan(connection, place, MEMORY, policy, at, gone, tests, rest)


def plan_assemblies(connection: Connection, place: Place, policy: AssemblyForgetPolicy) -> ForgetPlan:
    """What *policy* would take from *place* now. Assemblies are few: each is looked at."""
    at = now()
    scope = [] if policy.where is None else [filters.parse(policy.where, "assembly")]
    keys = place.selected(connection, ASSEMBLY, at, scope)
    tests = _tests_of_assemblies(policy, at)
    enough = any if tests and policy.match == "any" else all
    states = place.states(connection, ASSEMBLY, keys)
    gone = [state.pk for state in states if enough(test.holds(state) for test in tests)]
    return _plan(connection, place, ASSEMBLY, policy, at, gone, tests, (len(keys) - len(gone), None))


def _tests_of_memories(policy: ForgetPolicy, at: datetime) -> list[_Test]:
    tests: list[_Test] = []
    if policy.older_than is not None:
        tests.append(_created_before("older_than", ago(at, policy.older_than)))
    if policy.unused_for is not None:
        since = ago(at, policy.unused_for)
        never = And((IsIn(_field("accessed_at"), (None,)), _compare("created_at", "$lt", since)))
        node, least = Or((_compare("accessed_at", "$lt", since), never)), to_micros(since)
        tests.append(_Test("unused_for", node, lambda state: _last_use(state) < least))
    if policy.importance_below is not None:
        most = policy.importance_below
        node_ = _compare("importance", "$lt", most)
        tests.append(_Test("importance_below", node_, lambda state: state.values[IMPORTANCE] < most))
    if policy.expires_within is not None:
        until = _ahead(at, policy.expires_within)
        end = to_micros(until)
        node_ = _compare("expires_at", "$lte", until)
        tests.append(_Test("expires_within", node_, lambda state: _first(state.values[EXPIRES], end + 1) <= end))
    return tests


def _tests_of_assemblies(policy: AssemblyForgetPolicy, at: datetime) -> list[_Test]:
    tests: list[_Test] = []
    if policy.older_than is not None:
        tests.append(_created_before("older_than", ago(at, policy.older_than)))
    if policy.inactive_for is not None:
        since = to_micros(ago(at, policy.inactive_for))
        tests.append(_Test("inactive_for", None, lambda s: _first(s.values[ACTIVATED], s.values[CREATED]) < since))
    if policy.activated_fewer_than is not None:
        times = policy.activated_fewer_than
        tests.append(_Test("activated_fewer_than", None, lambda state: state.values[ACTIVATIONS] < times))
    if policy.members_below is not None:
        members = policy.members_below
        tests.append(_Test("members_below", None, lambda state: state.members < members))
    return tests


def _created_before(name: Criterion, when: datetime) -> _Test:
    micros = to_micros(when)
    return _Test(name, _compare("created_at", "$lt", when), lambda state: state.values[CREATED] < micros)


def _field(name: str) -> Field:
    return Field(name, FIELDS["memory"][name])


def _compare(name: str, order: Order, operand: Scalar) -> Node:
    return Compare(_field(name), order, operand)


def ago(at: datetime, length: object) -> datetime:
    """The time *length*, a timedelta, before *at*, or the first that there is."""
    try:
        return at - cast("timedelta", length)
    except OverflowError:
        return _FIRST


def _ahead(at: datetime, length: object) -> datetime:
    try:
        return at + cast("timedelta", length)
    except OverflowError:
        return _LAST


def _first(one: int | None, other: int) -> int:
    return other if one is None else one


def _last_use(state: State) -> int:
    return _first(state.values[ACCESSED], state.values[CREATED])


class _Turns:
    """Whose turn it is to go: the memory of least importance, then the one unused for longest, then the oldest."""

    def __init__(self) -> None:
        self._columns: tuple[list[float], ...] = ([], [], [], [])

    def add(self, state: State) -> None:
        """Take one memory in."""
        turn = (state.pk, state.values[CREATED], _last_use(state), state.values[IMPORTANCE])
        for column, value in zip(self._columns, turn, strict=True):
            column.append(value)

    def order(self) -> npt.NDArray[np.intp]:
        """Places of the memories that were taken in, in the order in which they would go."""
        # As arrays: to sort a hundred thousand tuples Python holds the interpreter lock for a tenth of a second.
        *times, importance = self._columns
        return np.lexsort([*(np.array(column, dtype=np.int64) for column in times), np.array(importance, dtype=float)])


class _Held(NamedTuple):
    """What a budget has to know of all memories it is for, in the order in which they would go."""

    keys: npt.NDArray[np.int64]
    bytes: npt.NDArray[np.int64]
    pinned: npt.NDArray[np.bool_]

    @classmethod
    def read(cls, states: Iterable[State]) -> "_Held":
        turns = _Turns()
        keys: list[int] = []
        sizes: list[int] = []
        pinned: list[bool] = []
        for state in states:
            turns.add(state)
            keys.append(state.pk)
            sizes.append(state.bytes)
            pinned.append(state.values[PINNED] != 0)
        order = turns.order()
        whole = np.array(keys, dtype=np.int64), np.array(sizes, dtype=np.int64), np.array(pinned, dtype=np.bool_)
        return cls(whole[0][order], whole[1][order], whole[2][order])


def _over_budget(
    held: _Held, met: list[int] | None, policy: ForgetPolicy
) -> tuple[list[int], dict[Criterion, set[int]], tuple[int, int]]:
    """Keys of what goes; of which of them a budget is a reason; count and bytes of what stays."""
    meets = np.isin(held.keys, np.array(met or (), dtype=np.int64))
    if met is not None and policy.match == "any":
        gone, able = meets, ~held.pinned & ~meets
    else:
        gone = np.zeros(len(held.keys), dtype=np.bool_)
        able = ~held.pinned if met is None else meets
    turn = np.flatnonzero(able)
    count, size = int((~gone).sum()), int(held.bytes[~gone].sum())
    freed = np.cumsum(held.bytes[turn])
    many = 0 if policy.max_count is None else min(max(0, count - policy.max_count), len(turn))
    large = 0
    if policy.max_bytes is not None and size > policy.max_bytes:
        large = min(int(np.searchsorted(freed, size - policy.max_bytes)) + 1, len(turn))
    taken = max(many, large)
    gone[turn[:taken]] = True
    over: dict[Criterion, set[int]] = {}
    if policy.max_count is not None:
        over["max_count"] = set(held.keys[turn[:many]].tolist())
    if policy.max_bytes is not None:
        over["max_bytes"] = set(held.keys[turn[:large]].tolist())
    rest = int((~gone).sum()), int(held.bytes[~gone].sum())
    return held.keys[gone].tolist(), over, rest


def _plan(
    connection: Connection,
    place: Place,
    noun: RecordType,
    policy: ForgetPolicy | AssemblyForgetPolicy,
    at: datetime,
    keys: Sequence[int],
    tests: Sequence[_Test],
    rest: tuple[int, int | None],
) -> ForgetPlan:
    states = list(place.states(connection, noun, keys))
    planned = []
    for i, where in enumerate(_going(states, noun)):
        if i and i % CHUNK_SIZE == 0:
            yield_gil()
        state = states[where]
        reasons: list[Criterion] = [test.name for test in tests if test.holds(state)] or ["where"]
        planned.append(
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
        noun=noun.kind,
        policy=policy,
        namespace=place.namespace,
        recursive=place.recursive,
        created_at=at,
        candidates=tuple(planned),
        bytes=sum(each.bytes for each in planned),
        remaining=rest[0],
        remaining_bytes=rest[1],
    )


def _going(states: Sequence[State], noun: RecordType) -> list[int]:
    """Places of records in the order in which they would go: memories by their turn, assemblies by age."""
    if noun is ASSEMBLY:
        return [int(i) for i in np.argsort(np.array([state.pk for state in states], dtype=np.int64))]
    turns = _Turns()
    for state in states:
        turns.add(state)
    return [int(i) for i in turns.order()]

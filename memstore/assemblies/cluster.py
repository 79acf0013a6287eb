"""Clusters: suggested assemblies of memories that are in none, and the assemblies created from suggestions.

Suggestions follow one rule. Each memory that is in no assembly is searched for its neighbours: the memories among the
others that score *threshold* or more with it, the nearest `max_size - 1`. Memories become leaders in order of density:
more neighbours first, then a nearer last neighbour, then the older memory. A memory that is in no group when its turn
comes leads a group of itself and its neighbours that are in none, if there are *min_size* of them.

A search returns at most `max_size - 1` neighbours. So a memory whose list was full, but has too few neighbours left in
it, is searched again among the memories that are in no group, until there is no such memory. The first leader of a
round has its whole list, so every round but the last creates a group.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection

from memstore.concurrency import CHUNK_SIZE, Progress, StopSignal, in_cancellable_thread, yield_gil
from memstore.errors import DuplicateError, InvalidError
from memstore.index.protocol import Mask
from memstore.models.clustering import AssemblySuggestion, AssemblySuggestions, ClusterResult, UnassignedReason
from memstore.models.ids import new_id
from memstore.models.records import Assembly, Namespace
from memstore.repository import (
    assemblies,
    history_writer,
    memberships,
    namespaces,
    record_keys,
    records,
    selection,
    store_meta,
)
from memstore.repository.context import WriteContext
from memstore.repository.record_types import ASSEMBLY, MEMORY
from memstore.repository.selection import Selection
from memstore.search.neighbors import BATCH, find_neighbors
from memstore.session import Session
from memstore.validation.records import assembly_changes
from memstore.validation.values import check_id, check_ids
from memstore.vectors.arrays import Doubles, Keys

MAX_GROUP = 1_000
"""The most members of a suggested group: every memory is searched for as many neighbours."""

MAX_SUGGESTIONS = 100_000
"""The most suggestions that one call creates assemblies from."""

_NAME_LENGTH = 80  # characters of the leader's content

Indices = npt.NDArray[np.int32]


class ClusterOptions(NamedTuple):
    """The options of `Assemblies.suggest`, checked."""

    threshold: float
    min_size: int
    max_size: int


class _Neighbours(NamedTuple):
    """The neighbours of a memory, by their indices, nearest first; with *cut*, there may be more."""

    indices: Indices
    scores: Doubles
    cut: bool


class _Group(NamedTuple):
    """A group, by the indices of its leader and of its other members; *similarity* is their lowest score."""

    leader: int
    members: Indices
    similarity: float


class _Pool:
    """The memories that are clustered, by index: their keys, their neighbours, and which of them are in no group.

    Attributes:
        keys: of the memories, ascending.
        free: whether each is in no group.
        neighbours: of each; None where it has no vector, or they are not needed any more.
        counts: how many neighbours each had at first; -1 for a memory without a vector.
    """

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.free: Mask = np.ones(len(keys), dtype=np.bool_)
        self.neighbours: list[_Neighbours | None] = [None] * len(keys)
        self.counts = np.full(len(keys), -1, dtype=np.int32)

    def set_neighbours(self, key: int, others: Keys, scores: Doubles, *, cut: bool) -> None:
        """Store the neighbours of a memory that a search found."""
        index = int(np.searchsorted(self.keys, key))
        self.neighbours[index] = _Neighbours(np.searchsorted(self.keys, others).astype(np.int32), scores, cut)
        if self.counts[index] < 0:
            self.counts[index] = len(others)

    def form_groups(self, indices: Keys, min_size: int, stop: StopSignal) -> tuple[list[_Group], Keys]:
        """The groups that the memories *indices* lead, in order of density, and those to search again."""
        groups: list[_Group] = []
        incomplete: list[int] = []
        for turn, index in enumerate(self._by_density(indices)):
            if turn % CHUNK_SIZE == 0:
                stop.check()
                yield_gil()
            neighbours, self.neighbours[index] = self.neighbours[index], None
            if neighbours is None or not self.free[index]:
                continue
            is_free = self.free[neighbours.indices]
            members = neighbours.indices[is_free]
            if len(members) + 1 >= min_size:
                self.free[index] = self.free[members] = False
                lowest = float(neighbours.scores[is_free][-1]) if len(members) else 1.0
                groups.append(_Group(index, members, lowest))
            elif neighbours.cut and not is_free.all():
                incomplete.append(index)
        again = [index for index in sorted(incomplete) if self.free[index]]
        return groups, np.array(again, dtype=np.int64)

    def _by_density(self, indices: Keys) -> list[int]:
        ordered = indices.tolist()
        lists = [self.neighbours[index] for index in ordered]
        counts = np.array([0 if n is None else len(n.indices) for n in lists])
        last_scores = np.array([-np.inf if n is None or not len(n.scores) else n.scores[-1] for n in lists])
        return [ordered[i] for i in np.lexsort((indices, -last_scores, -counts)).tolist()]


async def suggest(
    session: Session, select: Callable[[], Selection], options: ClusterOptions, on_progress: Progress | None
) -> AssemblySuggestions:
    """Suggest assemblies of the selected memories that are in none: see `Assemblies.suggest`."""
    if options.max_size < options.min_size:
        raise InvalidError(
            f"max_size must be min_size or more; got max_size {options.max_size:,} and min_size {options.min_size:,}"
        )
    pool = _Pool(await session.read(lambda connection: _unassigned(connection, select()), long=True))
    path = select().namespace
    groups: list[_Group] = []
    indices: Keys = np.arange(len(pool.keys))
    done, total = 0, len(pool.keys)
    while len(indices):
        end = done + len(indices)
        keys, free_keys = pool.keys[indices], pool.keys[pool.free]
        batches = find_neighbors(
            session, "memory", path, keys, limit=options.max_size - 1, min_score=options.threshold, allowed=free_keys
        )
        async for batch in batches:
            for result in batch:
                pool.set_neighbours(result.key, result.others, result.scores, cut=result.truncated)
            done = min(done + BATCH, end)
            if on_progress is not None:
                on_progress(done, total)
        round_groups, indices = await in_cancellable_thread(partial(pool.form_groups, indices, options.min_size))
        groups += round_groups
        total += len(indices)
    return await session.read(lambda connection: _to_suggestions(connection, pool, groups, options), long=True)


def _unassigned(connection: Connection, selected: Selection) -> Keys:
    """Keys of the selected memories that are in no assembly, ascending."""
    keys = np.array(selection.selected(connection, selected), dtype=np.int64)
    return np.setdiff1d(keys, memberships.assigned(connection, keys), assume_unique=True)


def _to_suggestions(
    connection: Connection, pool: _Pool, groups: Sequence[_Group], options: ClusterOptions
) -> AssemblySuggestions:
    """The groups and the unassigned memories by their ids; memories that were deleted meanwhile are in neither."""
    ids = record_keys.ids(connection, MEMORY, pool.keys.tolist())
    leader_keys = pool.keys[[group.leader for group in groups]].tolist()
    contents = record_keys.content_prefixes(connection, leader_keys, _NAME_LENGTH)
    origin = store_meta.origin(connection)
    suggestions = []
    for i, group in enumerate(groups):
        if i % CHUNK_SIZE == 0:
            yield_gil()
        leader = int(pool.keys[group.leader])
        members = [ids[key] for key in (leader, *pool.keys[group.members].tolist()) if key in ids]
        if leader in ids and len(members) == len(group.members) + 1:
            suggestion = AssemblySuggestion(
                leader=ids[leader],
                members=tuple(members),
                similarity=group.similarity,
                name=" ".join(contents.get(leader, "").split()),
                origin=origin,
            )
            suggestions.append(suggestion)
    unassigned: dict[str, UnassignedReason] = {}
    for index in np.flatnonzero(pool.free).tolist():
        key = int(pool.keys[index])
        if key in ids:
            unassigned[ids[key]] = _unassigned_reason(int(pool.counts[index]))
    return AssemblySuggestions(groups=tuple(suggestions), unassigned=unassigned, **options._asdict())


def _unassigned_reason(count: int) -> UnassignedReason:
    return "no_vector" if count < 0 else "too_few" if count else "no_neighbour"


def create_from(context: WriteContext, path: Namespace, suggestions: Sequence[AssemblySuggestion]) -> ClusterResult:
    """Create the assemblies of *suggestions*: see `Assemblies.create_from`."""
    connection, at = context.connection, context.now
    _check_ids_unique(suggestions)
    checked = [(suggestion, check_ids(suggestion.members, "members")) for suggestion in suggestions]
    member_ids = list(dict.fromkeys(id for _, ids in checked for id in ids))
    keys = records.keys_of(connection, MEMORY, path, member_ids, at)
    assigned = set(memberships.assigned(connection, np.array(sorted(keys.values()), dtype=np.int64)).tolist())
    origins = {"", store_meta.origin(connection)}
    new: list[Assembly] = []
    new_members: list[list[int]] = []
    stale: list[AssemblySuggestion] = []
    for suggestion, ids in checked:
        members = [keys[id] for id in ids if id in keys]
        if suggestion.origin not in origins or len(members) < len(ids) or not assigned.isdisjoint(members):
            stale.append(suggestion)
            continue
        assigned.update(members)
        values = {"name": suggestion.name, "tags": suggestion.tags, "topics": suggestion.topics}
        fields = assembly_changes({"id": suggestion.id or new_id(), **values})
        new.append(Assembly(namespace=path, created_at=at, updated_at=at, **fields))  # type: ignore[arg-type]
        new_members.append(members)
    new_keys = assemblies.insert_new(connection, new) if new else []
    for i, (key, members) in enumerate(zip(new_keys, new_members, strict=True)):
        if i % CHUNK_SIZE == 0:
            yield_gil()
        memberships.add_members(connection, key, members)  # composites are updated at the end of the write
    if new_keys:
        history_writer.record_addition(context, ASSEMBLY, namespaces.ensure_key(connection, path), new_keys)
    return ClusterResult(assemblies=tuple(assembly.id for assembly in new), stale=tuple(stale))


def _check_ids_unique(suggestions: Sequence[AssemblySuggestion]) -> None:
    ids: set[str] = set()
    for suggestion in suggestions:
        if suggestion.id is not None:
            id = check_id(suggestion.id)
            if id in ids:
                raise DuplicateError("assembly", id, given_twice=True)
            ids.add(id)

"""What could be one: pairs of assemblies that could be merged, and groups of memories that could be assemblies.

Both ask the index for neighbours, batch by batch (`proximity`), never about all pairs.

Groups are formed by one rule. Each memory that is in no assembly is asked for its neighbours: the others of them that
score *threshold* or more with it, the nearest `max_size - 1`. Memories lead in order of density: more neighbours first,
then those whose last neighbour is nearer, then older ones. Whoever is in no group by its turn leads one of itself and
of its neighbours that are in none; one that would have fewer than *min_size* members is not formed. Whose list was
full, so that there may be neighbours beyond it, and for others were too few left in it, is asked again about those that
are in no group, until there is nobody of that kind. Who leads first in a round has its whole list, so every round but
the last forms a group.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection

from memstore.concurrency import CHUNK_SIZE, StopSignal, in_cancellable_thread, yield_gil
from memstore.errors import DuplicateError, InvalidError
from memstore.index.protocol import Keys, Mask
from memstore.models.clustering import AssemblySuggestion, AssemblySuggestions, ClusterResult, UnassignedReason
from memstore.models.ids import new_id
from memstore.models.merging import MergeCandidate
from memstore.models.records import Assembly, Namespace
from memstore.repository import assemblies, history_writer, memberships, merges, records, selection
from memstore.repository.context import WriteContext
from memstore.repository.record_types import ASSEMBLY, MEMORY
from memstore.repository.selection import Selection
from memstore.search.neighbors import BATCH, find_neighbors
from memstore.session import Session
from memstore.timestamps import now
from memstore.validation.records import assembly_changes
from memstore.validation.values import check_id, check_ids
from memstore.vectors.arrays import Doubles

MAX_GROUP = 1_000
"""Members of a group that is proposed: every memory is asked for as many neighbours."""

MAX_PROPOSED = 100_000
"""Proposals that one call forms."""

_WIDTH = 16
"""Neighbours that an assembly is first asked for; as many times more as needed, where all of them are candidates."""

_WIDER = 4
_NAME = 80  # characters of what a leader says

Progress = Callable[[int, int], None]
Places = npt.NDArray[np.int32]


class _Best:
    """The best pairs that were met, at most *limit* of them, best first; equal ones in order of their keys."""

    def __init__(self, limit: int, least: float) -> None:
        self._limit = limit
        self.least = least  # what is under it is not among the best
        self._pairs: dict[tuple[int, int], float] = {}

    def add(self, key: int, others: Keys, scores: Doubles) -> None:
        """Take in the pairs of *key* with *others*; a pair that is met from both ends has the first one's score."""
        for other, score in zip(others.tolist(), scores.tolist(), strict=True):
            if score >= self.least and (key < other or (other, key) not in self._pairs):
                self._pairs[min(key, other), max(key, other)] = score
        if len(self._pairs) > 2 * self._limit:
            self._pairs = dict(self.pairs())
            self.least = min(self._pairs.values())

    def pairs(self) -> list[tuple[tuple[int, int], float]]:
        """Them."""
        return sorted(self._pairs.items(), key=lambda item: (-item[1], item[0]))[: self._limit]


async def candidates(
    session: Session, path: Namespace, *, threshold: float, limit: int, on_progress: Progress | None
) -> list[MergeCandidate]:
    """Pairs of assemblies near each other: see `Assemblies.merge_candidates`."""
    every = await session.read(
        lambda connection: selection.selected(connection, Selection(record_type=ASSEMBLY, namespace=path, now=now()))
    )
    asked: Keys = np.array(every, dtype=np.int64)
    best, width, done, total = _Best(limit, threshold), min(_WIDTH, limit), 0, len(asked)
    while len(asked):
        again: list[int] = []
        batches = find_neighbors(session, "assembly", path, asked, limit=width, min_score=threshold)
        async for batch in batches:
            for each in batch:
                best.add(each.key, each.others, each.scores)
                if each.truncated and width < limit and each.scores[-1] >= best.least:
                    again.append(each.key)
            done = _told(on_progress, done, len(asked), total)
        asked, width, done = np.array(again, dtype=np.int64), min(width * _WIDER, limit), 0
        total = len(asked)
    pairs = best.pairs()
    ids = await session.read(partial(merges.ids, keys=sorted({key for pair, _ in pairs for key in pair})))
    return [MergeCandidate(a=ids[a], b=ids[b], similarity=score) for (a, b), score in pairs if a in ids and b in ids]


def _told(on_progress: Progress | None, done: int, asked: int, total: int) -> int:
    """Tell of one more batch; how many are *done* then."""
    done = min(done + BATCH, asked)
    if on_progress is not None:
        on_progress(done, total)
    return done


class _Neighbours(NamedTuple):
    """Who is near a memory, by place, nearest first; with *cut*, there may be more."""

    places: Places
    scores: Doubles
    cut: bool


class _Group(NamedTuple):
    leader: int
    members: Places
    similarity: float


async def suggest(
    session: Session,
    chosen: Callable[[], Selection],
    *,
    threshold: float,
    min_size: int,
    max_size: int,
    on_progress: Progress | None,
) -> AssemblySuggestions:
    """Groups of the memories *chosen* that are in no assembly: see `Assemblies.propose`."""
    if max_size < min_size:
        raise InvalidError(f"max_size is {max_size:,} and min_size {min_size:,}: a group would be too large to be one")
    keys = await session.read(lambda connection: _unassigned(connection, chosen()))
    path = chosen().namespace
    free: Mask = np.ones(len(keys), dtype=np.bool_)
    lists: list[_Neighbours | None] = [None] * len(keys)
    counts = np.full(len(keys), -1, dtype=np.int32)  # neighbours at first; -1 for what cannot be asked for any
    groups: list[_Group] = []
    asked: Keys = np.arange(len(keys))
    done, total = 0, len(keys)
    while len(asked):
        begun = done
        among = keys[free]
        batches = find_neighbors(
            session, "memory", path, keys[asked], limit=max_size - 1, min_score=threshold, allowed=among
        )
        async for batch in batches:
            for each in batch:
                place = int(np.searchsorted(keys, each.key))
                lists[place] = _placed(keys, each.others, each.scores, each.truncated)
                if counts[place] < 0:
                    counts[place] = len(each.others)
            done = begun + _told_of_many(on_progress, done - begun, len(asked), begun, total)
        led = partial(_led, lists, free, asked, min_size)
        found, again = await in_cancellable_thread(led)
        groups += found
        asked = again
        total += len(again)
    return await _described(session, keys, groups, free, counts, threshold, min_size, max_size)


def _told_of_many(on_progress: Progress | None, done: int, asked: int, begun: int, total: int) -> int:
    done = min(done + BATCH, asked)
    if on_progress is not None:
        on_progress(begun + done, total)
    return done


def _unassigned(connection: Connection, chosen: Selection) -> Keys:
    """Keys of the memories *chosen* that are in no assembly, ascending."""
    keys = np.array(selection.selected(connection, chosen), dtype=np.int64)
    return np.setdiff1d(keys, merges.assigned(connection, keys), assume_unique=True)


def _placed(keys: Keys, others: Keys, scores: Doubles, cut: bool) -> _Neighbours:
    places = np.searchsorted(keys, others)
    return _Neighbours(places.astype(np.int32), scores, cut)


def _led(
    lists: list[_Neighbours | None], free: Mask, asked: Keys, min_size: int, stop: StopSignal
) -> tuple[list[_Group], Keys]:
    """The groups that *asked* lead, in their turn, and who of them is to be asked again; *free* is brought up to date.

    Lists that nobody needs any more are dropped.
    """
    groups: list[_Group] = []
    again: list[int] = []
    for turn, place in enumerate(_by_density(lists, asked)):
        if turn % CHUNK_SIZE == 0:
            stop.check()
            yield_gil()
        held, lists[place] = lists[place], None
        if held is None or not free[place]:
            continue
        there = free[held.places]
        members = held.places[there]
        if len(members) + 1 >= min_size:
            free[place] = free[members] = False
            least = float(held.scores[there][-1]) if len(members) else 1.0
            groups.append(_Group(place, members, least))
        elif held.cut and not there.all():
            again.append(place)
    return groups, np.array([place for place in sorted(again) if free[place]], dtype=np.int64)


def _by_density(lists: Sequence[_Neighbours | None], asked: Keys) -> list[int]:
    places = asked.tolist()
    held = [lists[place] for place in places]
    counts = np.array([0 if each is None else len(each.places) for each in held])
    last = np.array([-np.inf if each is None or not len(each.scores) else each.scores[-1] for each in held])
    return [places[i] for i in np.lexsort((asked, -last, -counts)).tolist()]


async def _described(
    session: Session,
    keys: Keys,
    groups: list[_Group],
    free: Mask,
    counts: npt.NDArray[np.int32],
    threshold: float,
    min_size: int,
    max_size: int,
) -> AssemblySuggestions:
    """*groups* and those that are *free* by their ids; what was deleted meanwhile is in neither."""

    def step(connection: Connection) -> AssemblySuggestions:
        ids = merges.memory_ids(connection, keys)
        names = merges.beginnings(connection, keys[[group.leader for group in groups]], _NAME)
        proposals = []
        for i, group in enumerate(groups):
            if i % CHUNK_SIZE == 0:
                yield_gil()
            leader = int(keys[group.leader])
            members = [ids[key] for key in (leader, *keys[group.members].tolist()) if key in ids]
            if leader in ids and len(members) == len(group.members) + 1:
                made = AssemblySuggestion(
                    leader=ids[leader],
                    members=tuple(members),
                    similarity=group.similarity,
                    name=" ".join(names.get(leader, "").split()),
                )
                proposals.append(made)
        places = np.flatnonzero(free).tolist()
        left = {ids[key]: _why(counts[p]) for p, key in zip(places, keys[places].tolist(), strict=True) if key in ids}
        return AssemblySuggestions(
            groups=tuple(proposals),
            unassigned=left,
            threshold=threshold,
            min_size=min_size,
            max_size=max_size,
        )

    return await session.read(step)


def _why(count: int) -> UnassignedReason:
    return "no_vector" if count < 0 else "too_few" if count else "no_neighbour"


def create_from(context: WriteContext, path: Namespace, proposals: Sequence[AssemblySuggestion]) -> ClusterResult:
    """Make the assemblies of *proposals*: see `Assemblies.create_from`."""
    connection, at = context.connection, context.now
    given: set[str] = set()
    for id in (check_id(proposal.id) for proposal in proposals if proposal.id is not None):
        if id in given:
            raise DuplicateError("assembly", id, given_twice=True)
        given.add(id)
    asked = [(proposal, check_ids(proposal.members, "members")) for proposal in proposals]
    wanted = list(dict.fromkeys(id for _, ids in asked for id in ids))
    keys = records.keys_of(connection, MEMORY, path, wanted, at)
    taken = set(merges.assigned(connection, np.array(sorted(keys.values()), dtype=np.int64)).tolist())
    made: list[Assembly] = []
    members: list[list[int]] = []
    stale: list[AssemblySuggestion] = []
    for proposal, ids in asked:
        found = [keys[id] for id in ids if id in keys]
        if len(found) < len(ids) or not taken.isdisjoint(found):
            stale.append(proposal)
            continue
        taken.update(found)
        named = {"id": proposal.id or new_id(), "name": proposal.name}
        fields = assembly_changes({**named, "tags": proposal.tags, "topics": proposal.topics})
        made.append(Assembly(namespace=path, created_at=at, updated_at=at, **fields))  # type: ignore[arg-type]
        members.append(found)
    new = assemblies.insert_new(connection, path, made) if made else []
    for i, (key, found) in enumerate(zip(new, members, strict=True)):
        if i % CHUNK_SIZE == 0:
            yield_gil()
        memberships.add_members(connection, key, found)  # every write ends with the composites that it left behind
    if new:
        history_writer.record_addition(context, ASSEMBLY, assemblies.owner(connection, new[0]), new)
    return ClusterResult(assemblies=tuple(assembly.id for assembly in made), stale=tuple(stale))

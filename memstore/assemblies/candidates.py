"""Merge candidates: pairs of assemblies whose composites are near each other."""

from functools import partial

import numpy as np

from memstore.concurrency import Progress
from memstore.models.merging import MergeCandidate
from memstore.models.records import Namespace
from memstore.repository import record_keys, selection
from memstore.repository.record_types import ASSEMBLY
from memstore.repository.selection import Selection
from memstore.search.neighbors import BATCH, find_neighbors
from memstore.session import Session
from memstore.vectors.arrays import Doubles, Keys

_NEIGHBOURS = 16
"""Neighbours that each assembly is searched for at first."""

_GROWTH = 4
"""The factor by which that number grows for assemblies whose neighbours were all candidates."""

Pair = tuple[int, int]


class _BestPairs:
    """The pairs with the highest scores, at most *limit*.

    Attributes:
        lowest: the score below which a pair is not among them.
    """

    def __init__(self, limit: int, threshold: float) -> None:
        self._limit = limit
        self.lowest = threshold
        self._scores: dict[Pair, float] = {}

    def add(self, key: int, others: Keys, scores: Doubles) -> None:
        """Add the pairs of *key* with *others*; a pair that is found from both ends keeps its first score."""
        for other, score in zip(others.tolist(), scores.tolist(), strict=True):
            if score >= self.lowest and (key < other or (other, key) not in self._scores):
                self._scores[min(key, other), max(key, other)] = score
        if len(self._scores) > 2 * self._limit:
            self._scores = dict(self.sorted())
            self.lowest = min(self._scores.values())

    def sorted(self) -> list[tuple[Pair, float]]:
        """The pairs with their scores, best first, equal ones in order of their keys."""
        return sorted(self._scores.items(), key=lambda item: (-item[1], item[0]))[: self._limit]


async def merge_candidates(
    session: Session, path: Namespace, *, threshold: float, limit: int, on_progress: Progress | None
) -> list[MergeCandidate]:
    """Pairs of assemblies near each other: see `Assemblies.merge_candidates`."""
    every = await session.read(
        lambda connection: selection.selected(
            connection, Selection(record_type=ASSEMBLY, namespace=path, now=session.clock())
        ),
        long=True,
    )
    keys: Keys = np.array(every, dtype=np.int64)
    best, width, done, total = _BestPairs(limit, threshold), min(_NEIGHBOURS, limit), 0, len(keys)
    while len(keys):
        incomplete: list[int] = []
        async for batch in find_neighbors(session, "assembly", path, keys, limit=width, min_score=threshold):
            for neighbours in batch:
                best.add(neighbours.key, neighbours.others, neighbours.scores)
                if neighbours.truncated and width < limit and neighbours.scores[-1] >= best.lowest:
                    incomplete.append(neighbours.key)
            done = min(done + BATCH, len(keys))
            if on_progress is not None:
                on_progress(done, total)
        keys, width, done = np.array(incomplete, dtype=np.int64), min(width * _GROWTH, limit), 0
        total = len(keys)
    pairs = best.sorted()
    pair_keys = sorted({key for pair, _ in pairs for key in pair})
    ids = await session.read(partial(record_keys.ids, record_type=ASSEMBLY, keys=pair_keys))
    return [MergeCandidate(a=ids[a], b=ids[b], similarity=score) for (a, b), score in pairs if a in ids and b in ids]

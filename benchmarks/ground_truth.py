"""The exact answers, computed once with NumPy and cached beside the workset, and the recall of an answer."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.workset import FILTERS, LIMIT, Vectors, Workset

_BLOCK = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The exact answers under one filter.

    Attributes:
        queries: numbers of the queries.
        rows: int64, shape (queries, at most LIMIT), best first; narrower where fewer rows match.
        least: float32, shape (queries,): the similarity of the last row.
        matches: how many rows match the filter.
    """

    queries: list[int]
    rows: npt.NDArray[np.int64]
    least: npt.NDArray[np.float32]
    matches: int


class GroundTruth:
    """The exact answers for one state of the stores.

    Args:
        workset: the data.
        stop: how many rows the stores hold; more than `workset.rows` after adds.
    """

    def __init__(self, workset: Workset, stop: int | None = None) -> None:
        self.stop = stop or workset.rows
        self._workset = workset
        shape = (workset.rows + workset.extra_rows, workset.dimension)
        self._vectors = np.memmap(workset.folder / "vectors.f32", np.float32, "r", shape=shape)
        self._answers: dict[str, Answers] = {}
        self._masks: dict[str, npt.NDArray[np.bool_]] = {}

    def queries(self, filter: str) -> list[int]:
        """Numbers of the queries to ask under the named filter, or under none ("")."""
        if filter and FILTERS[filter].adverse:
            return self._workset.adverse_queries
        return list(range(len(self._workset.queries)))

    def answers(self, filter: str = "") -> Answers:
        """The exact answers under the named filter, or under none."""
        if filter not in self._answers:
            digest = hashlib.sha256(f"{filter}|{self.stop}".encode()).hexdigest()[:16]
            cache = self._workset.folder / f"answers-{digest}.npz"
            queries = self.queries(filter)
            if not cache.is_file():
                rows, least = self._nearest(filter, self._workset.queries[queries])
                np.savez(cache, rows=rows, least=least)
            matches = int(self.mask(filter).sum())
            with np.load(cache) as file:
                self._answers[filter] = Answers(
                    queries=queries, rows=file["rows"], least=file["least"], matches=matches
                )
        return self._answers[filter]

    def mask(self, filter: str) -> npt.NDArray[np.bool_]:
        """Bool, shape (stop,): which rows match the filter."""
        if not filter:
            return np.ones(self.stop, bool)
        if not self._masks:  # one pass over the items fills all masks
            self._masks = {name: np.zeros(self.stop, bool) for name in FILTERS}
            for item in self._workset.items(0, self.stop):
                for name, rule in FILTERS.items():
                    self._masks[name][item.row] = rule.matches(item.tags, item.metadata)
        return self._masks[filter]

    def _nearest(self, filter: str, queries: Vectors) -> tuple[Any, Any]:
        matching = np.flatnonzero(self.mask(filter))
        scores = np.full((len(queries), LIMIT), -np.inf, np.float32)
        rows = np.full((len(queries), LIMIT), -1, np.int64)
        for start in range(0, len(matching), _BLOCK):
            block = matching[start : start + _BLOCK]
            block_scores = queries @ np.asarray(self._vectors[block]).T
            scores = np.concatenate([scores, block_scores], axis=1)
            rows = np.concatenate([rows, np.broadcast_to(block, block_scores.shape)], axis=1)
            best = np.argpartition(-scores, LIMIT - 1, axis=1)[:, :LIMIT]
            scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
        order = np.argsort(-scores, axis=1, kind="stable")
        scores, rows = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
        width = min(LIMIT, len(matching))
        return rows[:, :width], scores[:, max(0, width - 1)]

    def recall(self, filter: str, query: int, rows: list[int]) -> float:
        """The share of the exact answer in *rows*. A row as similar as the last exact one counts as exact.

        Raises:
            RuntimeError: *rows* holds a duplicate, an unknown row, or a row that does not match the filter.
        """
        answers = self.answers(filter)
        position = answers.queries.index(query) if filter else query
        mask = self.mask(filter)
        if len(set(rows)) < len(rows) or any(not (0 <= row < self.stop and mask[row]) for row in rows):
            raise RuntimeError(f"Invalid answer to query {query} under filter {filter!r}: rows {rows}.")
        width = answers.rows.shape[1]
        if not width:
            return 1.0
        scores = self._vectors[rows] @ self._workset.queries[query]
        return min(int((scores >= answers.least[position] - 1e-5).sum()), width) / width

    def mean_recall(self, filter: str, queries: list[int], answers: list[list[int]]) -> float:
        """The mean recall of several answers."""
        return float(np.mean([self.recall(filter, query, rows) for query, rows in zip(queries, answers, strict=True)]))

    def expected_hits(self, filter: str) -> int:
        """How many hits a search under the filter must return."""
        return min(LIMIT, self.answers(filter).matches)

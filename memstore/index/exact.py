"""Exact search: every allowed entry is compared."""

from functools import partial

import numpy as np

from memstore.index.numpy_engine import NumpyEngine
from memstore.index.protocol import (
    Engine,
    IndexEntries,
    SearchMethod,
    SearchResult,
    SearchScope,
    VectorStorage,
)
from memstore.index.vector_table import Allocator, VectorTable, allocate_numpy
from memstore.vectors.arrays import Keys, Rows
from memstore.vectors.metrics import scores
from memstore.vectors.space import ANGULAR_METRICS, Ball, Measure

_FLOAT64_ENGINE = NumpyEngine(double_precision=True)
_FLOAT32_RANGE = (1e-30, 1e37)
"""Between these bounds sums of float32 products neither underflow nor overflow, so every engine ranks correctly."""


def nearest_positions(
    engine: Engine,
    metric: Measure,
    queries: Rows,
    limit: int,
    storage: VectorStorage,
    span: range,
    positions: Keys | None,
) -> Keys:
    """Positions of the *limit* rows nearest to each query: int64, shape (q, limit), unordered.

    Compared are the *positions* given, all in *span*; None for every position of *span*.
    """
    if storage.scan is not None:
        return storage.scan(queries, limit, span, positions)
    rows = storage.rows[span.start : span.stop]
    if not span.start:
        return engine.find_nearest(metric, queries, rows, limit, positions)
    offsets = None if positions is None else positions - span.start
    return engine.find_nearest(metric, queries, rows, limit, offsets) + span.start


class ExactIndex:
    """An index that compares every allowed entry."""

    def __init__(
        self, dimension: int, metric: Measure, *, capacity: int = 0, allocate: Allocator | None = None
    ) -> None:
        self.dimension = dimension
        self.metric: Measure = metric
        self.table = VectorTable(allocate or partial(allocate_numpy, "float32", dimension), capacity)
        self._max_component = 0.0  # an upper bound of all components
        self._min_peak = np.inf  # a lower bound of the largest component of every row that is not zero

    def __len__(self) -> int:
        return self.table.size - self.table.deleted

    @property
    def bytes(self) -> int:
        """Memory of its arrays."""
        return self.table.bytes

    def put(self, entries: IndexEntries) -> None:
        """Add entries with distinct keys; they replace the entries of existing keys. Needs exclusive access."""
        self.table.put(entries)
        self.track_magnitudes(entries.rows)

    def track_magnitudes(self, rows: Rows) -> None:
        """Extend the range of known components by that of *rows*, which were put into the table."""
        if self.metric in ANGULAR_METRICS or isinstance(self.metric, Ball) or not len(rows):
            return
        peaks = np.maximum(rows.max(axis=1), -rows.min(axis=1))
        self._max_component = max(self._max_component, float(peaks.max()))
        self._min_peak = min(self._min_peak, float(peaks[peaks > 0].min(initial=np.inf)))

    def remove(self, keys: Keys) -> None:
        """Remove the entries of *keys*, which are distinct. Needs exclusive access."""
        self.table.remove(keys)

    def search(self, engine: Engine, queries: Rows, limit: int, scope: SearchScope) -> list[SearchResult]:
        """The entries nearest to each of *queries*: float32, shape (q, dimension), in index form."""
        return self.search_exact(engine, queries, limit, self.table.allowed(scope), SearchMethod())

    def search_exact(
        self, engine: Engine, queries: Rows, limit: int, positions: Keys | None, method: SearchMethod
    ) -> list[SearchResult]:
        """The nearest of the entries at *positions*, or of all, for each query; *method* is put into the results."""
        allowed_count = self.table.size if positions is None else len(positions)
        if allowed_count == 0:
            return [SearchResult(np.empty(0, dtype=np.int64), np.empty(0), 0, method)] * len(queries)
        nearest = self.find_nearest(engine, queries, min(limit, allowed_count), positions)
        return [
            self.rank(query, candidates, limit, allowed_count, method)
            for query, candidates in zip(queries, nearest, strict=True)
        ]

    def find_nearest(
        self, engine: Engine, queries: Rows, limit: int, positions: Keys | None, *, start: int = 0
    ) -> Keys:
        """Positions of the *limit* nearest among *positions*, or among all from *start* on: shape (q, limit)."""
        storage, span = self.table.storage, range(start, self.table.size)
        if self.fits_float32(queries):
            nearest = nearest_positions(engine, self.metric, queries, limit, storage, span, positions)
            if int(nearest.min()) >= 0:  # an engine that returns too few has met products beyond float32
                return nearest
            storage = storage._replace(scan=None)
        return nearest_positions(_FLOAT64_ENGINE, self.metric, queries, limit, storage, span, positions)

    def rank(self, query: Rows, positions: Keys, limit: int, allowed_count: int, method: SearchMethod) -> SearchResult:
        """The best *limit* of the entries at *positions*, scored in float64; equal scores in ascending key order."""
        keys = self.table.keys[positions]
        values = scores(self.metric, query, self.table.storage.rows[positions])
        order = np.lexsort((keys, -values))[:limit]
        return SearchResult(keys[order], values[order], allowed_count, method)

    def fits_float32(self, queries: Rows) -> bool:
        """Whether float32 products of *queries* and the entries rank correctly, because none leaves float32."""
        if self.metric in ANGULAR_METRICS or isinstance(self.metric, Ball):
            return True
        peak = float(np.abs(queries).max())
        low, high = _FLOAT32_RANGE
        largest = max(peak, self._max_component)
        if largest * largest * 4 * self.dimension > high:
            return False
        if self.metric == "inner_product":
            return peak == 0 or peak * self._min_peak > low
        return max(peak, self._min_peak) ** 2 > low

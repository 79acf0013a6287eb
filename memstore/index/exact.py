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
from memstore.vectors.metrics import closeness, scores_of
from memstore.vectors.space import ANGULAR_METRICS, Ball, Measure

_FLOAT64_ENGINE = NumpyEngine(double_precision=True)
_FLOAT32_RANGE = (1e-30, 1e37)
"""Between these bounds sums of float32 products neither underflow nor overflow, so every engine ranks correctly."""

_NORM_ROUNDING = 1.0 + 1e-2  # float32 computes a norm of up to 65,536 components with a smaller relative error
_BLOCK = 4_096  # entries scored at a time: bounds the copy in float64


def nearest_positions(
    engine: Engine,
    metric: Measure,
    queries: Rows,
    limit: int,
    storage: VectorStorage,
    span: range,
    positions: Keys | None,
    norm: float = np.inf,
) -> list[Keys]:
    """Positions of the rows that can be among the *limit* nearest to each query; see `Engine.find_nearest`.

    Compared are the *positions* given, all in *span*; None for every position of *span*.
    """
    if storage.scan is not None:
        return storage.scan(queries, limit, span, positions)
    rows = storage.rows[span.start : span.stop]
    if not span.start:
        return engine.find_nearest(metric, queries, rows, limit, positions, norm)
    offsets = None if positions is None else positions - span.start
    nearest = engine.find_nearest(metric, queries, rows, limit, offsets, norm)
    return [offsets + span.start for offsets in nearest]


class ExactIndex:
    """An index that compares every allowed entry."""

    def __init__(
        self, dimension: int, metric: Measure, *, capacity: int = 0, allocate: Allocator | None = None
    ) -> None:
        self.dimension = dimension
        self.metric: Measure = metric
        self.table = VectorTable(allocate or partial(allocate_numpy, "float32", dimension), capacity, dimension)
        self._max_component = 0.0  # an upper bound of all components
        self._max_norm = 0.0  # an upper bound of the norms, under inner product
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
        """Extend the range of known components and norms by that of *rows*, which were put into the table."""
        if self.metric in ANGULAR_METRICS or isinstance(self.metric, Ball) or not len(rows):
            return
        peaks = np.maximum(rows.max(axis=1), -rows.min(axis=1))
        self._max_component = max(self._max_component, float(peaks.max()))
        self._min_peak = min(self._min_peak, float(peaks[peaks > 0].min(initial=np.inf)))
        if self.metric == "inner_product":
            with np.errstate(over="ignore"):
                norm = float(np.sqrt(np.einsum("ij,ij->i", rows, rows).max())) * _NORM_ROUNDING
            self._max_norm = max(self._max_norm, min(norm, float(peaks.max()) * self.dimension**0.5))

    def remove(self, keys: Keys) -> None:
        """Remove the entries of *keys*, which are distinct. Needs exclusive access."""
        self.table.remove(keys)

    def search(self, engine: Engine, queries: Rows, limit: int, scope: SearchScope) -> list[SearchResult]:
        """The entries nearest to each of *queries*: float32, shape (q, dimension), in index form.

        An index of float16 vectors returns more than *limit* entries: all that can be among the nearest by the vectors
        before they were rounded. Their order and scores are those of the rounded vectors.
        """
        positions = self.table.allowed(scope)
        return self.search_exact(engine, queries, limit, positions, SearchMethod())

    def widened(self, queries: Rows) -> Rows:
        """*queries* as wide as the storage: a last component of 0 does not change an inner product."""
        if not self.table.lifted:
            return queries
        return np.concatenate([queries, np.zeros((len(queries), 1), dtype=np.float32)], axis=1)

    def search_exact(
        self, engine: Engine, queries: Rows, limit: int, positions: Keys | None, method: SearchMethod
    ) -> list[SearchResult]:
        """The nearest of the entries at *positions*, or of all, for each query; *method* is put into the results."""
        allowed_count = self.table.size if positions is None else len(positions)
        if allowed_count == 0:
            return [SearchResult(np.empty(0, dtype=np.int64), np.empty(0), np.empty(0), 0, method)] * len(queries)
        nearest = self.find_nearest(engine, queries, min(limit, allowed_count), positions)
        return [
            self.rank(query, candidates, limit, allowed_count, method)
            for query, candidates in zip(queries, nearest, strict=True)
        ]

    def find_nearest(
        self, engine: Engine, queries: Rows, limit: int, positions: Keys | None, *, start: int = 0
    ) -> list[Keys]:
        """Positions of the entries that can be among the *limit* nearest, of *positions* or of all from *start* on."""
        storage, span = self.table.storage, range(start, self.table.size)
        if limit >= (len(span) if positions is None else len(positions)):  # the caller ranks all of them
            every = np.arange(start, self.table.size) if positions is None else positions
            return [every] * len(queries)
        if self.fits_float32(queries):
            nearest = nearest_positions(engine, self.metric, queries, limit, storage, span, positions, self._max_norm)
            if min(map(len, nearest)) >= limit:  # an engine that returns too few has met products beyond float32
                return nearest
            storage = storage._replace(scan=None)
        return nearest_positions(_FLOAT64_ENGINE, self.metric, queries, limit, storage, span, positions, self._max_norm)

    def rank(self, query: Rows, positions: Keys, limit: int, allowed_count: int, method: SearchMethod) -> SearchResult:
        """The best *limit* of the entries at *positions*, scored in float64; equally near ones by ascending key."""
        rows, keys = self.table.storage.rows, self.table.keys[positions]
        if len(positions) <= _BLOCK:
            values = closeness(self.metric, query, rows[positions])
        else:  # many equal ones, or vectors near each other
            blocks = [positions[start : start + _BLOCK] for start in range(0, len(positions), _BLOCK)]
            values = np.concatenate([closeness(self.metric, query, rows[block]) for block in blocks])
        order = np.lexsort((keys, -values))
        if rows.dtype == np.float32:
            order = order[:limit]
        values = values[order]
        return SearchResult(keys[order], values, scores_of(self.metric, values), allowed_count, method)

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

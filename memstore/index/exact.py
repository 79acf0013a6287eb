"""Exact search: every allowed entry is compared."""

from functools import partial

import numpy as np

from memstore.index.numpy_engine import NumpyEngine
from memstore.index.protocol import Engine, Entries, Found, How, Keys, Scope, Storage
from memstore.index.vector_table import Allocate, Table, plain
from memstore.vectors.arrays import Rows
from memstore.vectors.metrics import scores
from memstore.vectors.space import DIRECTIONS, Ball, Measure

_WIDE = NumpyEngine(wide=True)
_SAFE = (1e-30, 1e37)
"""Between these, sums of float32 products neither vanish nor overflow, so that any engine's ranking can be trusted."""


def nearest_of(
    engine: Engine, metric: Measure, queries: Rows, limit: int, storage: Storage, among: range, places: Keys | None
) -> Keys:
    """The *limit* of the places *among*, or of these of *places*, that are nearest to each query: shape (q, limit)."""
    if storage.scan is not None:
        return storage.scan(queries, limit, among, places)
    rows = storage.rows[among.start : among.stop]
    if not among.start:
        return engine.nearest(metric, queries, rows, limit, places)
    return engine.nearest(metric, queries, rows, limit, None if places is None else places - among.start) + among.start


class ExactIndex:
    """An index that compares every allowed entry."""

    def __init__(self, dimension: int, metric: Measure, *, room: int = 0, allocate: Allocate | None = None) -> None:
        self.dimension = dimension
        self.metric: Measure = metric
        self.table = Table(allocate or partial(plain, "float32", dimension), room)
        self._largest = 0.0  # never less than the largest component held
        self._smallest = np.inf  # never more than the smallest row's largest component held, zeros aside

    def __len__(self) -> int:
        return len(self.table)

    @property
    def bytes(self) -> int:
        """Memory held by its arrays."""
        return self.table.bytes

    def entries(self) -> Entries:
        """All that it holds, as views where nothing is dead; they hold while the index is held."""
        return self.table.entries()

    def places(self, keys: Keys) -> Keys:
        """Where each of *keys* lies; -1 where it does not."""
        return self.table.places(keys)

    def put(self, entries: Entries) -> None:
        """See `VectorIndex.put`."""
        self.table.put(entries)
        self.note(entries.rows)

    def note(self, rows: Rows) -> None:
        """Know in what range the components of *rows* lie, which were put into the table."""
        if self.metric in DIRECTIONS or isinstance(self.metric, Ball) or not len(rows):
            return
        peaks = np.maximum(rows.max(axis=1), -rows.min(axis=1))
        self._largest = max(self._largest, float(peaks.max()))
        self._smallest = min(self._smallest, float(peaks[peaks > 0].min(initial=np.inf)))

    def remove(self, keys: Keys) -> None:
        """See `VectorIndex.remove`."""
        self.table.remove(keys)

    def search(self, engine: Engine, queries: Rows, limit: int, scope: Scope) -> list[Found]:
        """See `VectorIndex.search`."""
        return self.exactly(engine, queries, limit, self.table.allowed(scope), How())

    def exactly(self, engine: Engine, queries: Rows, limit: int, positions: Keys | None, how: How) -> list[Found]:
        """The entries at *positions*, or all, that are nearest to each query, and *how* that came about."""
        allowed = self.table.size if positions is None else len(positions)
        if allowed == 0:
            empty = Found(np.empty(0, dtype=np.int64), np.empty(0), 0, how)
            return [empty] * len(queries)
        nearest = self.nearest(engine, queries, min(limit, allowed), positions)
        return [self.found(query, places, limit, allowed, how) for query, places in zip(queries, nearest, strict=True)]

    def nearest(self, engine: Engine, queries: Rows, limit: int, positions: Keys | None, since: int = 0) -> Keys:
        """Places of the *limit* nearest among *positions*, or among all from *since* on: shape (q, limit)."""
        storage, among = self.table.storage, range(since, self.table.size)
        chosen = engine if self.safe(queries) else _WIDE
        nearest = nearest_of(chosen, self.metric, queries, limit, storage, among, positions)
        if chosen is not _WIDE and int(nearest.min()) < 0:  # short where it cannot be: not to be trusted
            nearest = nearest_of(_WIDE, self.metric, queries, limit, storage._replace(scan=None), among, positions)
        return nearest

    def found(self, query: Rows, places: Keys, limit: int, allowed: int, how: How) -> Found:
        """The best *limit* of the entries at *places*, scored in float64; equal ones in order of their keys."""
        keys = self.table.keys[places]
        values = scores(self.metric, query, self.table.rows[places])
        order = np.lexsort((keys, -values))[:limit]
        return Found(keys[order], values[order], allowed, how)

    def safe(self, queries: Rows) -> bool:
        """Whether float32 products of *queries* with what is held can be trusted to rank it."""
        if self.metric in DIRECTIONS or isinstance(self.metric, Ball):
            return True
        peak = float(np.abs(queries).max())
        low, high = _SAFE
        reach = max(peak, self._largest)
        if reach * reach * 4 * self.dimension > high:
            return False
        if self.metric == "inner_product":
            return peak == 0 or peak * self._smallest > low
        return max(peak, self._smallest) ** 2 > low

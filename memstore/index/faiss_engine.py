"""Exact search by FAISS over memory that this package owns. The only module that imports faiss, on demand.

`faiss.knn` works on NumPy memory without a copy and without a FAISS index. An `IDMap` index is not used: it accepts
duplicate ids, lacks the fast path of `IDSelectorArray`, and takes 13 ms to remove one of 100,000 vectors.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from memstore.errors import EngineError
from memstore.index import hyperbolic
from memstore.index.hnsw import GraphBuilder, bitmap_selector
from memstore.index.openmp import faiss_conflict
from memstore.index.protocol import StoredRows
from memstore.index.rounding import Tolerance, tolerance
from memstore.vectors.arrays import Keys, Rows
from memstore.vectors.space import Ball, Measure

_EXACT_L2_QUERIES, _EXACT_L2_NUMBERS = 16, 127_999
"""Queries per call, and numbers in them, up to which FAISS sums squared differences for l2. Beyond, it expands the
squares, which cancels. The real limits are 20 queries and, since FAISS 1.15, 128,000 numbers."""

_SPARE_RESULTS = 16
"""Results beyond the limit, which show whether more rows than the limit can be among the nearest."""

_BLOCK = 4_096  # rows compared at a time: bounds the copy of selected rows

_LIST_SHARE = 2
"""Positions of more than one in this many rows are scanned faster as a bitmap over all rows."""


class FaissEngine:
    """FAISS's brute-force search. `load` creates it, on a thread: the import takes a third of a second."""

    name: Literal["faiss"] = "faiss"

    def __init__(self, faiss: Any) -> None:
        self._faiss = faiss
        self.graphs = GraphBuilder(faiss)

    @classmethod
    def load(cls) -> "FaissEngine":
        """Import faiss. Raises `EngineError` where the import is unsafe or fails."""
        reason = faiss_conflict()
        if reason is not None:
            raise EngineError(reason)
        try:
            import faiss
        except ImportError as error:
            raise EngineError(f"Cannot import faiss ({error}). Install faiss-cpu, or use engine='numpy'.") from error
        return cls(faiss)

    def find_nearest(
        self,
        metric: Measure,
        queries: Rows,
        rows: StoredRows,
        limit: int,
        positions: Keys | None,
        norm: float = np.inf,
    ) -> list[Keys]:
        """See `Engine.find_nearest`. One thread: with two, a query over 100,000 rows takes 2 to 9 times longer."""
        self._faiss.omp_set_num_threads(1)  # a setting of the calling thread, which belongs to the store
        if isinstance(metric, Ball):
            return hyperbolic.find_nearest(metric, queries, rows, limit, positions, self._squared_distances)
        tolerances = [tolerance(metric, query, norm, stored=rows.dtype) for query in queries]
        if rows.dtype == np.float16:  # memory allocated before FAISS was loaded, so few rows
            float32_rows = (rows if positions is None else rows[positions]).astype(np.float32)
            nearest = self._nearest(metric, queries, float32_rows, limit, None, tolerances)
            return nearest if positions is None else [positions[offsets] for offsets in nearest]
        return self._nearest(metric, queries, rows, limit, positions, tolerances)

    def _nearest(
        self,
        metric: Measure,
        queries: Rows,
        rows: Rows,
        limit: int,
        positions: Keys | None,
        tolerances: Sequence[Tolerance],
    ) -> list[Keys]:
        total = len(rows) if positions is None else len(positions)
        labels, similarities = self._knn(metric, queries, rows, min(limit + _SPARE_RESULTS, total), positions)
        nearest: list[Keys] = []
        for query, found_labels, values, error in zip(queries, labels, similarities, tolerances, strict=True):
            lowest = error.lowest(values[limit - 1])
            if len(values) < total and values[-1] >= lowest:  # more rows than these can be among the nearest
                possible = error.possible(self.similarities(metric, query, rows, positions), limit)
                nearest.append(possible if positions is None else positions[possible])
            else:
                nearest.append(found_labels[(values >= lowest) & (found_labels >= 0)])
        return nearest

    def _knn(
        self, metric: Measure, queries: Rows, rows: Rows, limit: int, positions: Keys | None
    ) -> tuple[npt.NDArray[np.int64], Rows]:
        """The *limit* nearest rows of each query, best first, and their similarities: both of shape (q, limit)."""
        faiss = self._faiss
        labels = np.empty((len(queries), limit), dtype=np.int64)
        distances = np.empty((len(queries), limit), dtype=np.float32)
        selector, _memory = self._selector(len(rows), positions)
        exact_batch = max(1, min(_EXACT_L2_QUERIES, _EXACT_L2_NUMBERS // queries.shape[1]))
        step = exact_batch if metric == "l2" else len(queries)
        for start in range(0, len(queries), step):
            batch = queries[start : start + step]
            inputs = faiss.swig_ptr(batch), faiss.swig_ptr(rows), rows.shape[1], len(batch), rows.shape[0], limit
            outputs = faiss.swig_ptr(distances[start : start + step]), faiss.swig_ptr(labels[start : start + step])
            if metric == "l2":
                faiss.knn_L2sqr(*inputs, *outputs, None, selector)
            else:
                faiss.knn_inner_product(*inputs, *outputs, selector)
        return labels, np.negative(distances, out=distances) if metric == "l2" else distances

    def similarities(self, metric: Measure, query: Rows, rows: Rows, positions: Keys | None = None) -> Rows:
        """The product with *query*, or the negative squared distance under l2, of each row: float32, shape (n,)."""
        pointer, dimension = self._faiss.swig_ptr, rows.shape[1]
        compare = self._faiss.fvec_L2sqr_ny if metric == "l2" else self._faiss.fvec_inner_products_ny
        total = len(rows) if positions is None else len(positions)
        values = np.empty(total, dtype=np.float32)
        for start in range(0, total, _BLOCK):
            out = values[start : start + _BLOCK]
            stop = start + len(out)
            block = rows[start:stop] if positions is None else rows[positions[start:stop]]
            compare(pointer(out), pointer(query), pointer(block), dimension, len(block))
        return np.negative(values, out=values) if metric == "l2" else values

    def _squared_distances(self, query: Rows, block: Rows, out: Rows) -> None:
        pointer = self._faiss.swig_ptr
        self._faiss.fvec_L2sqr_ny(pointer(out), pointer(query), pointer(block), block.shape[1], len(block))

    def _selector(self, count: int, positions: Keys | None) -> tuple[Any, object]:
        """FAISS's selector of *positions* among *count*, and the memory that must outlive it."""
        if positions is None:
            return None, None
        faiss = self._faiss
        if len(positions) * _LIST_SHARE < count:
            return faiss.IDSelectorArray(len(positions), faiss.swig_ptr(positions)), positions
        return bitmap_selector(faiss, positions, count)

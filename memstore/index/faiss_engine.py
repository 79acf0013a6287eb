"""Exact search by FAISS over memory that this package owns. The only module that imports faiss, on demand.

`faiss.knn` works on NumPy memory without a copy and without a FAISS index. An `IDMap` index is not used: it accepts
duplicate ids, lacks the fast path of `IDSelectorArray`, and takes 13 ms to remove one of 100,000 vectors.
"""

from typing import Any, Literal

import numpy as np

from memstore.errors import EngineError
from memstore.index import hyperbolic
from memstore.index.hnsw import GraphBuilder, bitmap_selector
from memstore.index.openmp import faiss_conflict
from memstore.index.protocol import StoredRows
from memstore.vectors.arrays import Keys, Rows
from memstore.vectors.space import Ball, Measure

_EXACT_L2_QUERIES, _EXACT_L2_NUMBERS = 16, 127_999
"""Queries per call, and numbers in them, up to which FAISS sums squared differences for l2. Beyond, it expands the
squares, which cancels. The real limits are 20 queries and, since FAISS 1.15, 128,000 numbers."""

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
        self, metric: Measure, queries: Rows, rows: StoredRows, limit: int, positions: Keys | None
    ) -> Keys:
        """See `Engine.find_nearest`. One thread: with two, a query over 100,000 rows takes 2 to 9 times longer."""
        self._faiss.omp_set_num_threads(1)  # a setting of the calling thread, which belongs to the store
        if isinstance(metric, Ball):
            return hyperbolic.find_nearest(metric, queries, rows, limit, positions, self._squared_distances)
        if rows.dtype == np.float16:  # memory allocated before FAISS was loaded, so few rows
            float32_rows = (rows if positions is None else rows[positions]).astype(np.float32)
            nearest = self._knn(metric, queries, float32_rows, limit, None)
            return nearest if positions is None else positions[nearest]
        return self._knn(metric, queries, rows, limit, positions)

    def _knn(self, metric: Measure, queries: Rows, rows: StoredRows, limit: int, positions: Keys | None) -> Keys:
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
        return labels

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

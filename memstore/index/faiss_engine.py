"""Exact search by FAISS over arrays we own. The only module that imports faiss, and it does so late.

`faiss.knn` over NumPy memory needs no copy and no index of FAISS's own: `IDMap` would accept an id twice, lose the
fast path of `IDSelectorArray`, and take 13 ms to remove one of 100,000 vectors.
"""

from typing import Any, Literal

import numpy as np

from memstore.errors import EngineError
from memstore.index import hyperbolic
from memstore.index.hnsw import GraphMaker
from memstore.index.openmp import obstacle
from memstore.index.protocol import Held, Keys
from memstore.vectors.arrays import Rows
from memstore.vectors.space import Ball, Measure

_EXACT_BATCH, _EXACT_NUMBERS = 16, 127_999
"""So many l2 queries a call, with so many numbers in them, and FAISS sums squared differences; with more it expands
the squares, which cancels. It went over at 20 queries, and since 1.15 at 128,000 numbers."""

_LISTED = 2
"""A list of one row in so many and more is cheaper to scan as a bitmap over all rows."""


class FaissEngine:
    """FAISS's brute force. Made by `load`, off the event loop: the import takes a third of a second."""

    name: Literal["faiss"] = "faiss"

    def __init__(self, faiss: Any) -> None:
        self._faiss = faiss
        self.graphs = GraphMaker(faiss)

    @classmethod
    def load(cls) -> "FaissEngine":
        """Import faiss. Raises `EngineError` where that is not safe, or where it is missing."""
        reason = obstacle()
        if reason is not None:
            raise EngineError(reason)
        try:
            import faiss
        except ImportError as error:
            raise EngineError(
                f"faiss cannot be imported ({error}): install faiss-cpu, or use engine='numpy'"
            ) from error
        return cls(faiss)

    def nearest(self, metric: Measure, queries: Rows, rows: Held, limit: int, positions: Keys | None) -> Keys:
        """See `Engine.nearest`. One thread: on two, one query over 100,000 rows takes 2 to 9 times longer."""
        self._faiss.omp_set_num_threads(1)  # a setting of the calling thread, which is the store's own
        if isinstance(metric, Ball):
            return hyperbolic.nearest(metric, queries, rows, limit, positions, self._away)
        if rows.dtype == np.float16:  # memory that was made before FAISS was loaded, and so not much
            wide = (rows if positions is None else rows[positions]).astype(np.float32)
            found = self._knn(metric, queries, wide, limit, None)
            return found if positions is None else positions[found]
        return self._knn(metric, queries, rows, limit, positions)

    def _knn(self, metric: Measure, queries: Rows, rows: Held, limit: int, positions: Keys | None) -> Keys:
        faiss = self._faiss
        exact = max(1, min(_EXACT_BATCH, _EXACT_NUMBERS // queries.shape[1]))
        step = exact if metric == "l2" else len(queries)
        labels = np.empty((len(queries), limit), dtype=np.int64)
        distances = np.empty((len(queries), limit), dtype=np.float32)
        selector, _kept = self._selector(len(rows), positions)
        for start in range(0, len(queries), step):
            some = slice(start, start + step)
            arguments = (
                faiss.swig_ptr(queries[some]),
                faiss.swig_ptr(rows),
                rows.shape[1],
                rows.shape[0],
                limit,
                faiss.swig_ptr(distances[some]),
                faiss.swig_ptr(labels[some]),
            )
            self._call(metric, len(queries[some]), arguments, selector)
        return labels

    def _away(self, query: Rows, block: Rows, out: Rows) -> None:
        pointer = self._faiss.swig_ptr
        self._faiss.fvec_L2sqr_ny(pointer(out), pointer(query), pointer(block), block.shape[1], len(block))

    def _selector(self, held: int, positions: Keys | None) -> tuple[Any, object]:
        """FAISS's selector of *positions*, and what must live as long as it."""
        if positions is None:
            return None, None
        faiss = self._faiss
        if len(positions) * _LISTED < held:
            return faiss.IDSelectorArray(len(positions), faiss.swig_ptr(positions)), positions
        chosen = np.zeros(held, dtype=np.bool_)
        chosen[positions] = True
        bits = np.packbits(chosen, bitorder="little")
        return faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits)), bits

    def _call(self, metric: Measure, count: int, arguments: tuple[Any, ...], selector: Any) -> None:
        queries, rows, dimension, held, limit, distances, labels = arguments
        if metric == "l2":
            self._faiss.knn_L2sqr(queries, rows, dimension, count, held, limit, distances, labels, None, selector)
        else:
            self._faiss.knn_inner_product(queries, rows, dimension, count, held, limit, distances, labels, selector)

"""Exact search in NumPy: the reference for other engines, and the fallback where FAISS is unavailable.

In float64 it also compares vectors whose products leave float32.
"""

from typing import Literal

import numpy as np

from memstore.index import hyperbolic
from memstore.index.protocol import StoredRows
from memstore.index.rounding import tolerance
from memstore.vectors.arrays import Floats, Keys, Rows
from memstore.vectors.space import Ball, Measure

_MAX_CELLS = 8_000_000  # query-row pairs in memory at a time
_BLOCK = 4_096  # rows compared at a time: bounds the copy for a wider type or an l2 difference


class NumpyEngine:
    """Compares every allowed row, block by block, in float32 or in float64 (*double_precision*)."""

    name: Literal["numpy"] = "numpy"

    def __init__(self, *, double_precision: bool = False) -> None:
        self._dtype: type[np.floating] = np.float64 if double_precision else np.float32

    def find_nearest(
        self,
        metric: Measure,
        queries: Rows,
        rows: StoredRows,
        limit: int,
        positions: Keys | None,
        norm: float = np.inf,
    ) -> list[Keys]:
        """See `Engine.find_nearest`."""
        if isinstance(metric, Ball):
            return hyperbolic.find_nearest(metric, queries, rows, limit, positions, _squared_distances)
        total = len(rows) if positions is None else len(positions)
        group = max(1, _MAX_CELLS // total)
        nearest: list[Keys] = []
        for start in range(0, len(queries), group):
            chunk = queries[start : start + group]
            similarities = self._all_similarities(metric, chunk.astype(self._dtype), rows, positions)
            for query, values in zip(chunk, similarities, strict=True):
                error = tolerance(metric, query, norm, dtype=self._dtype, stored=rows.dtype)
                possible = error.possible(values, limit)
                nearest.append(possible if positions is None else positions[possible])
        return nearest

    def _all_similarities(self, metric: Measure, queries: Floats, rows: StoredRows, positions: Keys | None) -> Floats:
        """The similarity of each row, or of those at *positions*, for each query: shape (q, number of rows)."""
        total = len(rows) if positions is None else len(positions)
        similarities = np.empty((len(queries), total), dtype=self._dtype)
        for start in range(0, total, _BLOCK):
            stop = min(start + _BLOCK, total)
            block = rows[start:stop] if positions is None else rows[positions[start:stop]]
            similarities[:, start:stop] = self._similarities(metric, queries, block.astype(self._dtype, copy=False))
        return similarities

    def _similarities(self, metric: Measure, queries: Floats, block: Floats) -> Floats:
        """Products, or negative squared distances: shape (q, len(block)); higher is closer."""
        if metric != "l2":
            return queries @ block.T
        out = np.empty((len(queries), len(block)), dtype=self._dtype)
        for row, query in zip(out, queries, strict=True):
            difference = block - query
            np.einsum("ij,ij->i", difference, difference, out=row)
        return np.negative(out, out=out)


def _squared_distances(query: Rows, block: Rows, out: Rows) -> None:
    difference = block - query
    np.einsum("ij,ij->i", difference, difference, out=out)

"""Exact search in NumPy: the reference every other engine is tested against, and the fallback for all of them.

Working in float64 it is also the answer to vectors whose products leave float32.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

from memstore.index import hyperbolic
from memstore.index.protocol import Held, Keys
from memstore.vectors.arrays import Rows
from memstore.vectors.space import Ball, Measure

Real = npt.NDArray[np.floating]

_CELLS = 8_000_000  # distances held at a time, however many queries there are
_BLOCK = 4_096  # rows compared at a time: bounds the copy that a wider type or an l2 difference needs


class NumpyEngine:
    """Compares every allowed row, in blocks, in float32 or (with *wide*) in float64."""

    name: Literal["numpy"] = "numpy"

    def __init__(self, *, wide: bool = False) -> None:
        self._dtype: type[np.floating] = np.float64 if wide else np.float32

    def nearest(self, metric: Measure, queries: Rows, rows: Held, limit: int, positions: Keys | None) -> Keys:
        """See `Engine.nearest`."""
        if isinstance(metric, Ball):
            return hyperbolic.nearest(metric, queries, rows, limit, positions, _away)
        total = len(rows) if positions is None else len(positions)
        group = max(1, _CELLS // total)
        nearest = [
            self._nearest(metric, queries[start : start + group], rows, min(limit, total), positions)
            for start in range(0, len(queries), group)
        ]
        return np.concatenate(nearest)

    def _nearest(self, metric: Measure, queries: Rows, rows: Held, limit: int, positions: Keys | None) -> Keys:
        total = len(rows) if positions is None else len(positions)
        closeness = np.empty((len(queries), total), dtype=self._dtype)
        wanted = queries.astype(self._dtype)
        for start in range(0, total, _BLOCK):
            stop = min(start + _BLOCK, total)
            block = rows[start:stop] if positions is None else rows[positions[start:stop]]
            closeness[:, start:stop] = self._closeness(metric, wanted, block.astype(self._dtype, copy=False))
        best = np.argpartition(closeness, total - limit, axis=1)[:, total - limit :] if limit < total else None
        if best is None:
            best = np.broadcast_to(np.arange(total), (len(queries), total))
        return best if positions is None else positions[best]

    def _closeness(self, metric: Measure, queries: Real, block: Real) -> Real:
        if metric != "l2":
            return queries @ block.T
        out = np.empty((len(queries), len(block)), dtype=self._dtype)
        for row, query in zip(out, queries, strict=True):
            difference = block - query
            np.einsum("ij,ij->i", difference, difference, out=row)
        return np.negative(out, out=out)


def _away(query: Rows, block: Rows, out: Rows) -> None:
    difference = block - query
    np.einsum("ij,ij->i", difference, difference, out=out)

"""Exact search in the Poincaré ball: float32 selects candidates, which the caller ranks in float64.

For one query the order of hyperbolic distances is the order of |q-x|² / (1 - c|x|²). Both terms are computed in float32
with known error bounds. So a row can be excluded if no rounding could put it among the nearest, and the few remaining
rows are compared in float64. The result is exact up to the edge of the ball, where float32 alone would err by half.

An inner product of vectors lifted to the hyperboloid has the same order. It is not used: near the edge components of
lifted vectors grow to 100,000, and float32 cannot separate neighbours among such products.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from memstore.index.protocol import StoredRows
from memstore.vectors.arrays import Doubles, Keys, Rows
from memstore.vectors.space import EDGE, Ball

SquaredDistances = Callable[[Rows, Rows, Rows], None]
"""Query of shape (dimension,), block of rows, output array: writes |q-x|² in float32 without cancellation."""

_MAX_CELLS = 8_000_000  # query-row pairs in memory at a time
_BLOCK = 4_096  # rows compared at a time: bounds the copy of selected rows
_TINY = 1e-35  # bound of what float32 loses of a sum of squares below its range


def find_nearest(
    ball: Ball,
    queries: Rows,
    rows: StoredRows,
    limit: int,
    positions: Keys | None,
    squared_distances: SquaredDistances,
) -> list[Keys]:
    """See `Engine.find_nearest`; *squared_distances* is the engine's."""
    total = len(rows) if positions is None else len(positions)
    limit = min(limit, total)
    group = max(1, _MAX_CELLS // total)
    nearest: list[Keys] = []
    squared_norms = np.empty(total, dtype=np.float32)
    for first in range(0, len(queries), group):
        batch = queries[first : first + group]
        squares = np.empty((len(batch), total), dtype=np.float32)
        for start in range(0, total, _BLOCK):
            span = slice(start, min(start + _BLOCK, total))
            block = rows[span] if positions is None else rows[positions[span]]
            if not first:
                np.einsum("ij,ij->i", block, block, out=squared_norms[span])
            for query, out in zip(batch, squares, strict=True):
                squared_distances(query, block, out[span])
        for out in squares:
            candidates = _candidates(ball, rows.shape[1], out, squared_norms, limit)
            nearest.append(candidates if positions is None else positions[candidates])
    return nearest


def _candidates(ball: Ball, dimension: int, squares: Rows, squared_norms: Rows, limit: int) -> npt.NDArray[np.intp]:
    """Positions that can be among the *limit* nearest, given the rounding errors of float32."""
    relative_error = (dimension + 8) * float(np.finfo(np.float32).eps)
    scaled_norms = ball.curvature * squared_norms.astype(np.float64)
    gaps, gap_errors = 1.0 - scaled_norms, relative_error * scaled_norms
    upper: Doubles = (squares * (1.0 + relative_error) + _TINY) / np.maximum(gaps - gap_errors, EDGE)
    lower: Doubles = (squares * (1.0 - relative_error) - _TINY) / np.maximum(gaps + gap_errors, EDGE)
    if limit == len(upper):
        return np.arange(limit)
    return np.flatnonzero(lower <= np.partition(upper, limit - 1)[limit - 1])

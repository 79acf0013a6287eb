"""Exact search in the Poincaré ball: float32 narrows down, float64 decides.

For one query the order of the distances is that of |q-x|² / (1 - c|x|²). Both are computed in float32, and how far
either may be off is known; so it is known, too, of which rows no rounding can put one among the nearest. The few
others are compared in float64. So the answer is right as near to the edge as a vector may lie, where float32 alone
would be off by half.

The order is also that of an inner product, of vectors lifted to the hyperboloid: but there their components grow as
they come near to the edge, to 100,000, and among such products float32 cannot tell neighbours apart.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from memstore.index.protocol import Held, Keys
from memstore.vectors.arrays import Rows, Wide
from memstore.vectors.metrics import distances
from memstore.vectors.space import EDGE, Ball

Away = Callable[[Rows, Rows, Rows], None]
"""Writes |q-x|² for a query, shape (dimension,), and each of some rows into an array: float32, without cancelling."""

_CELLS = 8_000_000  # distances held at a time, however many queries there are
_BLOCK = 4_096  # rows compared at a time: they are copied where only some are looked at
_TINY = 1e-35  # what float32 may have lost of a sum of squares below its range


def nearest(ball: Ball, queries: Rows, rows: Held, limit: int, positions: Keys | None, away: Away) -> Keys:
    """See `Engine.nearest`; *away* is the engine's."""
    total = len(rows) if positions is None else len(positions)
    limit = min(limit, total)
    group = max(1, _CELLS // total)
    found = np.empty((len(queries), limit), dtype=np.int64)
    squares = np.empty(total, dtype=np.float32)
    for first in range(0, len(queries), group):
        some = queries[first : first + group]
        apart = np.empty((len(some), total), dtype=np.float32)
        for start in range(0, total, _BLOCK):
            span = slice(start, min(start + _BLOCK, total))
            block = rows[span] if positions is None else rows[positions[span]]
            if not first:
                np.einsum("ij,ij->i", block, block, out=squares[span])
            for query, out in zip(some, apart, strict=True):
                away(query, block, out[span])
        for i, query in enumerate(some):
            kept = _possible(ball, rows.shape[1], apart[i], squares, limit)
            if positions is not None:
                kept = positions[kept]
            if len(kept) > limit:
                kept = kept[np.argpartition(distances(ball, query, rows[kept]), limit - 1)[:limit]]
            found[first + i] = kept
    return found


def _possible(ball: Ball, dimension: int, apart: Rows, squares: Rows, limit: int) -> npt.NDArray[np.intp]:
    """The places of which one may be among the *limit* nearest, whatever was rounded."""
    rounding = (dimension + 8) * float(np.finfo(np.float32).eps)
    out = ball.curvature * squares.astype(np.float64)
    heights, slack = 1.0 - out, rounding * out
    most: Wide = (apart * (1.0 + rounding) + _TINY) / np.maximum(heights - slack, EDGE)
    least: Wide = (apart * (1.0 - rounding) - _TINY) / np.maximum(heights + slack, EDGE)
    if limit == len(most):
        return np.arange(limit)
    return np.flatnonzero(least <= np.partition(most, limit - 1)[limit - 1])

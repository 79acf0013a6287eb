"""How far a computed similarity can be from the exact one, and which rows can be among the nearest in spite of it.

A search compares rows in float32 (or float16), and ranks the best ones again in float64. A row can only be left out if
no rounding could put it among the nearest. So engines return every row whose similarity is within twice the largest
error of the limit-th best one.

For a sum of n products, computed in any order, the error is at most n u Σ|qᵢ xᵢ| ≤ n u |q| |x|, where u is half of the
machine epsilon (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1). A sum of squared
differences has the relative error (n + 3) u.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from memstore.vectors.arrays import Floats, Rows
from memstore.vectors.space import ANGULAR_METRICS, Measure

_FLOAT32_MIN = float(np.finfo(np.float32).min)
_UNIT_NORM = 1.0 + 1e-6  # norm of a float32 vector that was scaled to norm 1
_FLOAT32_UNIT, _FLOAT64_UNIT = 2.0**-24, 2.0**-53  # half of the machine epsilon
_TINY = 1e-35  # bound of what float32 loses of a sum below its range
_FLOAT16_ERROR = 2.0**-11  # relative rounding error of a component
_FLOAT16_TINY = 2.0**-25  # absolute rounding error of a component below the normal range of float16

Positions = npt.NDArray[np.int64]


class Tolerance(NamedTuple):
    """By how much two similarities can differ, and still belong to rows in the other order.

    Attributes:
        absolute: in units of the similarity.
        relative: as a share of the similarity's magnitude.
    """

    absolute: float
    relative: float = 0.0

    def lowest(self, similarity: np.floating[Any]) -> float:
        """The similarity from which on a row can be as near as one of *similarity*.

        Below the range of float32 it is minus infinity for float32 similarities: NumPy could not compare them with it.
        """
        value = float(similarity)
        lowest = value - self.absolute - self.relative * abs(value)
        return -np.inf if lowest < _FLOAT32_MIN and similarity.dtype == np.float32 else lowest

    def possible(self, similarities: Floats, limit: int) -> Positions:
        """Positions of the *similarities*, shape (n,), that can be among the *limit* highest, ascending."""
        count = len(similarities)
        if limit >= count:
            return np.arange(count)
        ordered = similarities.copy()
        ordered.partition(count - limit)
        positions: Positions = (similarities >= self.lowest(ordered[-limit])).nonzero()[0]
        return positions


def tolerance(
    metric: Measure, query: Rows, norm: float, *, dtype: npt.DTypeLike = np.float32, stored: npt.DTypeLike = np.float32
) -> Tolerance:
    """The tolerance of products, or of negative squared distances under l2, of *query* with rows.

    Args:
        metric: not a ball, whose engine has bounds of its own.
        query: shape (dimension,).
        norm: at least the norm of every row; ignored under cosine and spherical, where all are 1.
        dtype: in what the similarities are computed.
        stored: in what the rows are stored; for float16 the tolerance includes the rounding of the rows.
    """
    dimension, unit = len(query), _FLOAT32_UNIT if dtype == np.float32 else _FLOAT64_UNIT
    if metric == "l2":
        return Tolerance(_TINY if dtype == np.float32 else 0.0, 2.2 * (dimension + 3) * unit)
    angular = metric in ANGULAR_METRICS
    query_norm = _UNIT_NORM if angular else float(np.linalg.norm(query.astype(np.float64)))
    row_norm = _UNIT_NORM if angular or not query_norm else norm
    error = (dimension + 4) * unit * query_norm * row_norm
    if stored == np.float16:
        error += query_norm * (_FLOAT16_ERROR * row_norm + _FLOAT16_TINY * dimension**0.5)
    return Tolerance(2.0 * error + _TINY)

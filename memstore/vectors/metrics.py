"""Scores and distances: the formula of each metric.

=============== ======================================================= =============================
metric          score of query q and vector x (higher is closer)        range
=============== ======================================================= =============================
cosine          q·x / (|q| |x|)                                         -1 to 1
inner_product   q·x                                                     any real number
l2              1 / (1 + d),  d = sqrt(Σ (qᵢ - xᵢ)²)                    0 (excluded) to 1
spherical       1 - d / π,  d = the angle between q and x               0 (opposite) to 1
hyperbolic      1 / (1 + d),  d = the distance in the Poincaré ball     0 (excluded) to 1
=============== ======================================================= =============================

The ball of curvature -c has radius 1/sqrt(c), and in it (Nickel and Kiela, arXiv:1705.08039; with c, Ganea, Bécigneul
and Hofmann, arXiv:1805.09112)

    d = arcosh(1 + 2c |q-x|² / ((1 - c|q|²) (1 - c|x|²))) / sqrt(c)
      = 2 arsinh(sqrt(c) |q-x| / sqrt((1 - c|q|²) (1 - c|x|²))) / sqrt(c)

The second form is computed, because it does not cancel for close vectors. As c goes to 0, d goes to 2 |q-x|.

Vectors are compared as float32 in *index form*: scaled to norm 1 under cosine and spherical, unchanged otherwise.
Float32 arithmetic selects the candidates; their scores are computed in float64 from the index form.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

from memstore.errors import DimensionError, InvalidError, short_repr
from memstore.models.records import Embedding
from memstore.vectors.arrays import Doubles, Floats, Rows, row_norms
from memstore.vectors.hyperbolic import boundary_gaps, checked_points, into_ball
from memstore.vectors.scalars import plain_scalar
from memstore.vectors.space import ANGULAR_METRICS, Ball, Measure

DistanceMetric = Literal["l2", "spherical"] | Ball
"""Measures that are metrics in the mathematical sense; cosine and inner product are similarities."""

_NAMES = ("cosine", "inner_product", "l2", "spherical")
_COSINE_ROUNDING = 2.0**-47
"""Two float32 roundings of one direction enclose an angle of at most 2**-23, whose cosine is nearer to 1 than this."""
_ROUNDING = 1e-9  # relative excess over the largest norm at which a stored vector still counts as inside the ball


def index_form(metric: Measure, rows: Rows) -> Rows:
    """*rows* as the index compares them: float32, shape (n, dimension), of norm 1 under cosine and spherical."""
    if metric in ANGULAR_METRICS:
        return _normalized(rows)[1]
    _check_measure(metric)
    return rows


def _check_measure(metric: Measure) -> None:
    if not isinstance(metric, Ball) and metric not in _NAMES:
        raise TypeError(f"{metric!r} is not a measure: pass the `measure` of a Space")


def valid_index_form(metric: Measure, rows: Rows) -> tuple[npt.NDArray[np.bool_], Rows]:
    """`valid_rows` of *rows*, shape (n,), and the index form of the valid ones, in one pass."""
    if metric not in ANGULAR_METRICS:
        valid = valid_rows(metric, rows)
        return valid, rows if valid.all() else rows[valid]
    with np.errstate(all="ignore"):
        norms, form = _normalized(rows)
    valid = np.isfinite(norms) & (norms > 0)
    return valid, form if valid.all() else form[valid]


def _normalized(rows: Rows) -> tuple[Doubles, Rows]:
    doubles = rows.astype(np.float64)
    norms = row_norms(doubles)
    doubles /= norms[:, None]
    return norms, doubles.astype(np.float32)


def valid_rows(metric: Measure, rows: Rows) -> npt.NDArray[np.bool_]:
    """Which of *rows* the metric accepts: bool, shape (n,). Verbs store no other vectors; raw SQL may.

    A valid row is finite. Under cosine and spherical it is not zero; under hyperbolic it is inside the ball.
    """
    valid = np.asarray(np.isfinite(rows).all(axis=1))
    if metric in ANGULAR_METRICS:
        return valid & np.asarray(rows.any(axis=1))
    if isinstance(metric, Ball):
        with np.errstate(all="ignore"):
            return valid & np.asarray(row_norms(rows.astype(np.float64)) <= metric.max_norm * (1.0 + _ROUNDING))
    return valid


def scores(metric: Measure, query: Embedding, rows: Rows) -> Doubles:
    """The score of each row for *query*, both in index form: float64, shape (n,); higher is closer."""
    return scores_of(metric, closeness(metric, query, rows))


def scores_of(metric: Measure, values: Doubles) -> Doubles:
    """The scores of rows of which *values* are the closeness."""
    if metric == "spherical":
        return 1.0 + values / np.pi
    return 1.0 / (1.0 - values) if metric == "l2" or isinstance(metric, Ball) else values


def closeness(metric: Measure, query: Embedding, rows: Rows) -> Doubles:
    """What orders *rows* by nearness to *query*, both in index form: float64, shape (n,); higher is closer.

    The score under cosine and inner product, the negative distance under other metrics: it tells tiny distances apart,
    whose scores are all 1.
    """
    if metric in ("l2", "spherical") or isinstance(metric, Ball):
        return -distances(metric, query, rows)
    doubles = rows.astype(np.float64)
    # NumPy sums each row in the same order at any position; a BLAS product does not, so equal rows could differ.
    double_query = query.astype(np.float64)
    products: Doubles = np.einsum("ij,j->i", doubles, double_query)
    if metric == "cosine":
        return _cosines(products, doubles, double_query)
    _check_measure(metric)
    return products


def _cosines(products: Doubles, rows: Doubles, query: Doubles) -> Doubles:
    """*products* as cosines: exactly 1 for vectors of equal direction, as far as float32 can tell."""
    squared_norms = np.einsum("ij,ij->i", rows, rows)
    query_square = np.einsum("ij,ij->i", query[None], query[None])  # summed as a row is: the cosine is symmetric
    cosines: Doubles = products / np.sqrt(squared_norms * query_square)
    cosines[cosines >= 1.0 - _COSINE_ROUNDING] = 1.0
    cosines[cosines <= _COSINE_ROUNDING - 1.0] = -1.0
    return cosines


def distances(metric: DistanceMetric, query: Floats, rows: Floats) -> Doubles:
    """The distance of each of *rows* from *query*: float64, shape (n,), 0 for equal vectors.

    Args:
        metric: `"l2"`, `"spherical"` (the angle, 0 to π) or a `Ball`.
        query: shape (dimension,).
        rows: shape (n, dimension). For a ball all vectors are inside it; for an angle none is zero.

    Raises:
        DimensionError: the shapes do not match.
    """
    if query.ndim != 1 or rows.ndim != 2 or rows.shape[1] != len(query):
        raise DimensionError(expected=rows.shape[-1], got=len(query) if query.ndim == 1 else f"shape {query.shape}")
    origin, points = query.astype(np.float64), rows.astype(np.float64)
    if metric == "spherical":
        return _angles(origin, points)
    euclidean = row_norms(points - origin)
    if not isinstance(metric, Ball):
        return euclidean
    root = np.sqrt(metric.curvature)
    gaps = boundary_gaps(metric, points) * boundary_gaps(metric, origin[None])
    hyperbolic: Doubles = np.arcsinh(root * euclidean / np.sqrt(gaps)) * (2.0 / root)
    return hyperbolic


def _angles(query: Doubles, points: Doubles) -> Doubles:
    """Kahan's formula (How Futile are Mindless Assessments of Roundoff, 2006): the arc cosine loses small angles."""
    u = query / row_norms(query[None])[0]
    v = points / row_norms(points)[:, None]
    angles: Doubles = 2.0 * np.arctan2(row_norms(v - u), row_norms(v + u))
    return angles


def weighted_distances(
    weights: Mapping[str, float], query: Floats, rows: Floats, *, curvature: float | None = None
) -> Doubles:
    """A weighted sum of distances, for ranking: float64, shape (n,), 0 for equal vectors; lower is closer.

    The parts have no common unit, so the sum is no metric of a space: no index supports it, and it has no mean.

    Args:
        weights: numbers of 0 or more for `"l2"`, `"spherical"` and `"hyperbolic"`, at least one over 0.
        query: shape (dimension,).
        rows: shape (n, dimension).
        curvature: curvature magnitude c > 0 of the ball that the vectors are in, as in a hyperbolic store. None for
            Euclidean vectors: their hyperbolic part is that of their images under `into_ball`, at c = 1.

    Raises:
        DimensionError: the shapes of *query* and *rows* do not match.
        InvalidError: *weights* or *curvature* are invalid.
    """
    check_weights(weights)
    total = np.zeros(len(rows))
    for name, weight in weights.items():
        if name == "hyperbolic" and weight:
            points = (query, rows) if curvature is not None else (into_ball(query), into_ball(rows))
            ball, _, _ = checked_points(query, curvature or 1.0)
            total += weight * distances(ball, *points)
        elif weight:
            total += weight * distances("l2" if name == "l2" else "spherical", query, rows)
    return total


def check_weights(weights: Mapping[str, float]) -> None:
    """Raise `InvalidError` unless *weights* are valid for `weighted_distances`."""
    valid = (
        isinstance(weights, Mapping)
        and set(weights) <= {"l2", "spherical", "hyperbolic"}
        and all(
            isinstance(weight, int | float) and 0 <= weight < np.inf for weight in map(plain_scalar, weights.values())
        )
    )
    if not valid or not any(weights.values()):
        raise InvalidError(
            "Invalid weights: expected numbers of 0 or more for 'l2', 'spherical' and 'hyperbolic', "
            f"at least one over 0; found {short_repr(weights)}"
        )

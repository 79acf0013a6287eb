"""Distances, similarities and means: the formula of each metric, in one place.

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

of which the second form is computed: it loses nothing where vectors are close. As c goes to 0, d goes to 2 |q-x|.

Vectors are compared as float32 in *index form*: under cosine and spherical, scaled to length 1; else as they are.
Ranking is by float32 arithmetic, the scores of the hits are computed again in float64 from the index form.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

from memstore.errors import DimensionError, InvalidError, short_repr
from memstore.models.records import Embedding
from memstore.vectors.arrays import Real, Rows, Wide, lengths
from memstore.vectors.hyperbolic import _given, _heights, into_ball
from memstore.vectors.space import DIRECTIONS, Ball, Measure

Metrical = Literal["l2", "spherical"] | Ball
"""Those that are metrics in the sense of mathematics; cosine and inner product are similarities."""

_WORDS = ("cosine", "inner_product", "l2", "spherical")
_ROUNDED = 1e-9  # so much farther out than allowed, as a share, a stored vector is still taken for inside


def index_form(metric: Measure, rows: Rows) -> Rows:
    """*rows* as the index compares them: float32, shape (n, dimension); under cosine and spherical of length 1."""
    _check_measure(metric)
    return _of_length_1(rows)[1] if metric in DIRECTIONS else rows


def _check_measure(metric: Measure) -> None:
    if not isinstance(metric, Ball) and metric not in _WORDS:
        raise TypeError(f"{metric!r} alone does not say how to compare vectors: give the measure of a Space")


def usable_form(metric: Measure, rows: Rows) -> tuple[npt.NDArray[np.bool_], Rows]:
    """Which of *rows* are usable, shape (n,), and the index form of those that are: both in one pass."""
    if metric not in DIRECTIONS:
        good = usable(metric, rows)
        return good, rows if good.all() else rows[good]
    with np.errstate(all="ignore"):
        size, form = _of_length_1(rows)
    good = np.isfinite(size) & (size > 0)
    return good, form if good.all() else form[good]


def _of_length_1(rows: Rows) -> tuple[Wide, Rows]:
    wide = rows.astype(np.float64)
    size = lengths(wide)
    wide /= size[:, None]
    return size, wide.astype(np.float32)


def usable(metric: Measure, rows: Rows) -> npt.NDArray[np.bool_]:
    """Which of *rows* have a place in the metric: no verb stores any other.

    They are finite; under cosine and spherical not zero; under hyperbolic inside the ball.
    """
    good = np.asarray(np.isfinite(rows).all(axis=1))
    if metric in DIRECTIONS:
        return good & np.asarray(rows.any(axis=1))
    if isinstance(metric, Ball):
        with np.errstate(all="ignore"):
            return good & np.asarray(lengths(rows.astype(np.float64)) <= metric.within * (1.0 + _ROUNDED))
    return good


def scores(metric: Measure, query: Embedding, rows: Rows) -> Wide:
    """The documented score of each row against *query*, both in index form: float64, shape (n,)."""
    if metric == "spherical":
        return 1.0 - distances(metric, query, rows) / np.pi
    if metric == "l2" or isinstance(metric, Ball):
        return 1.0 / (1.0 + distances(metric, query, rows))
    _check_measure(metric)
    products: Wide = rows.astype(np.float64) @ query.astype(np.float64)
    if metric == "cosine":
        np.minimum(products, 1.0, out=products)  # in a third of np.clip's time, which is that of the product
        np.maximum(products, -1.0, out=products)
    return products


def distances(metric: Metrical, query: Real, rows: Real) -> Wide:
    """How far each of *rows* lies from *query*: float64, shape (n,), 0 for a vector from itself.

    Args:
        metric: `"l2"`, `"spherical"` (the angle, 0 to π) or a `Ball`.
        query: shape (dimension,).
        rows: shape (n, dimension). For a ball both lie inside it; for an angle neither is zero.

    Raises:
        DimensionError: they are not of one dimension.
    """
    if query.ndim != 1 or rows.ndim != 2 or rows.shape[1] != len(query):
        raise DimensionError(expected=rows.shape[-1], got=len(query) if query.ndim == 1 else f"shape {query.shape}")
    asked, wide = query.astype(np.float64), rows.astype(np.float64)
    if metric == "spherical":
        return _angles(asked, wide)
    away = lengths(wide - asked)
    if not isinstance(metric, Ball):
        return away
    root = np.sqrt(metric.curvature)
    heights = _heights(metric, wide) * _heights(metric, asked[None])
    distant: Wide = np.arcsinh(root * away / np.sqrt(heights)) * (2.0 / root)
    return distant


def _angles(query: Wide, wide: Wide) -> Wide:
    """Kahan's formula (How Futile are Mindless Assessments of Roundoff, 2006): the arc cosine loses small angles."""
    asked = query / lengths(query[None])[0]
    unit = wide / lengths(wide)[:, None]
    angles: Wide = 2.0 * np.arctan2(lengths(unit - asked), lengths(unit + asked))
    return angles


def mixed(weights: Mapping[str, float], query: Real, rows: Real, *, curvature: float | None = None) -> Wide:
    """A weighted sum of distances: float64, shape (n,), 0 for a vector from itself. A term to rank by, and no metric.

    Its parts have no common unit, and it is of no space: no index follows it, and it has no mean.

    Args:
        weights: a number of 0 or more for some of `"l2"`, `"spherical"` and `"hyperbolic"`; not all 0.
        query: shape (dimension,).
        rows: shape (n, dimension).
        curvature: of the ball the vectors lie in, as those of a hyperbolic store do. None for vectors that lie in none:
            their hyperbolic part is that of `into_ball` of them, at curvature 1.

    Raises:
        DimensionError: *query* and *rows* are not of one dimension.
        InvalidError: *weights* or *curvature* are not as said.
    """
    check_weights(weights)
    total = np.zeros(len(rows))
    for name, weight in weights.items():
        if name == "hyperbolic" and weight:
            inside = (query, rows) if curvature is not None else (into_ball(query), into_ball(rows))
            total += weight * distances(_given(query, curvature or 1.0)[0], *inside)
        elif weight:
            total += weight * distances("l2" if name == "l2" else "spherical", query, rows)
    return total


def check_weights(weights: Mapping[str, float]) -> None:
    """Raise `InvalidError` where *weights* are not what `mixed` takes."""
    known = isinstance(weights, Mapping) and set(weights) <= {"l2", "spherical", "hyperbolic"}
    sound = known and all(isinstance(w, int | float) and 0 <= w < np.inf for w in weights.values())
    if not sound or not any(weights.values()):
        raise InvalidError(
            "weights are numbers of 0 or more, not all 0, for 'l2', 'spherical' and 'hyperbolic'; "
            f"got {short_repr(weights)}"
        )

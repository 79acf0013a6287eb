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
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from memstore.errors import DimensionError, InvalidError, shown
from memstore.records import Embedding
from memstore.settings import DIRECTIONS, EDGE, Ball, Measure

Rows = npt.NDArray[np.float32]
Wide = npt.NDArray[np.float64]
Real = npt.NDArray[np.floating]

Metrical = Literal["l2", "spherical"] | Ball
"""Those that are metrics in the sense of mathematics; cosine and inner product are similarities."""

CANCELLED = 1e-6
"""A mean shorter than this share of its members' mean length has no meaning left, only rounding."""

_WORDS = ("cosine", "inner_product", "l2", "spherical")
_INSIDE = 1.0 - 1.1 * EDGE  # where what would lie beyond the edge is put: rounding to float32 does not lead out again
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


def lengths(wide: Wide) -> Wide:
    """The Euclidean length of each row: float64, shape (n,). In float64 no float32 vector over- or underflows."""
    squares: Wide = np.einsum("ij,ij->i", wide, wide)
    return np.sqrt(squares)


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


def _heights(ball: Ball, wide: Wide) -> Wide:
    """1 - c|x|² of each row: how far it is from the edge; what lies beyond, as damage may, is at the edge."""
    heights: Wide = np.maximum(1.0 - ball.curvature * np.einsum("ij,ij->i", wide, wide), EDGE)
    return heights


def _angles(query: Wide, wide: Wide) -> Wide:
    """Kahan's formula (How Futile are Mindless Assessments of Roundoff, 2006): the arc cosine loses small angles."""
    asked = query / lengths(query[None])[0]
    unit = wide / lengths(wide)[:, None]
    angles: Wide = 2.0 * np.arctan2(lengths(unit - asked), lengths(unit + asked))
    return angles


def into_ball(vectors: npt.ArrayLike, curvature: float = 1.0) -> Rows:
    """Euclidean vectors in the Poincaré ball: the exponential map at its origin.

    tanh(sqrt(c) |v|) v / (sqrt(c) |v|): directions stay, and v comes to lie at the distance 2 |v| from the origin. What
    would be nearer to the edge than float32 tells apart (sqrt(c) |v| over 6.1) is put just inside of it, where vectors
    of one direction become one: scale vectors that are much longer.

    Args:
        vectors: real numbers, shape (dimension,) or (n, dimension).
        curvature: the store's.

    Returns:
        float32, of the shape of *vectors*. Source: Ganea, Bécigneul and Hofmann, arXiv:1805.09112, Lemma 2.
    """
    ball, wide, size = _given(vectors, curvature)
    reach = np.minimum(np.tanh(size / ball.radius), _INSIDE) * ball.radius
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.where(size > 0, wide * (reach / size), 0.0)
    return scaled.astype(np.float32)


def out_of_ball(vectors: npt.ArrayLike, curvature: float = 1.0) -> Rows:
    """What `into_ball` made *vectors* of, but for what it put inside the edge: the logarithmic map at the origin.

    Raises:
        InvalidError: one lies outside the ball.
    """
    ball, wide, size = _given(vectors, curvature)
    if (size >= ball.radius).any():
        raise InvalidError(
            f"a vector of length {float(size.max()):.6g} lies outside the ball of radius {ball.radius:g}"
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.where(size > 0, wide * (np.arctanh(size / ball.radius) * ball.radius / size), 0.0)
    return scaled.astype(np.float32)


def moved(ball: Ball, rows: Real, directions: Wide, far: Wide) -> Rows:
    """Each of *rows*, shape (n, dimension), moved *far*, shape (n,), in one of *directions*, of any length.

    By Möbius addition (Ganea, Bécigneul and Hofmann, equation 4); what would come to lie beyond the edge is put inside.
    """
    root = np.sqrt(ball.curvature)
    x = rows.astype(np.float64) * root
    y = directions * (np.tanh(root * far / 2.0) / lengths(directions))[:, None]
    products, inner = np.einsum("ij,ij->i", x, y)[:, None], np.einsum("ij,ij->i", x, x)[:, None]
    outer = np.einsum("ij,ij->i", y, y)[:, None]
    ended = ((1 + 2 * products + outer) * x + (1 - inner) * y) / (1 + 2 * products + inner * outer)
    ended *= np.minimum(1.0, _INSIDE / np.maximum(lengths(ended), 1e-30))[:, None] / root
    inside: Rows = ended.astype(np.float32)
    return inside


def _given(vectors: npt.ArrayLike, curvature: float) -> tuple[Ball, Wide, Wide]:
    """The ball, and *vectors* with their lengths, shape (…, 1)."""
    if not 0 < curvature < np.inf:
        raise InvalidError(f"curvature is a number over 0, by minus which the ball is curved; got {shown(curvature)}")
    wide = np.asarray(vectors, dtype=np.float64)
    if wide.ndim not in (1, 2) or not np.isfinite(wide).all():
        raise InvalidError("vectors are finite numbers, in an array of shape (dimension,) or (n, dimension)")
    return Ball(curvature), wide, np.linalg.norm(wide, axis=-1, keepdims=True)


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
            f"weights are numbers of 0 or more, not all 0, for 'l2', 'spherical' and 'hyperbolic'; got {shown(weights)}"
        )


def resolution(metric: Measure, vector: Embedding) -> float:
    """The length against which to measure how far a computed mean is off.

    That of *vector* itself; in the ball, where members on all sides have a mean at the origin, not less than what their
    rounding leaves of it.
    """
    length = float(np.linalg.norm(vector.astype(np.float64)))
    return max(length, CANCELLED * metric.radius) if isinstance(metric, Ball) else length


@dataclass(slots=True)
class Mean:
    """A mean that grows: what a composite is computed from.

    In the ball it is the Einstein midpoint: with γ = (1 + c|x|²) / (1 - c|x|²), the factors of the members in the Klein
    model, and there their mean weighted by them (Ungar, Analytic Hyperbolic Geometry, 2005). It is the point from
    which the sum of cosh(sqrt(c) d) - 1 is least, and lies half way between two.

    Attributes:
        total: the sum of the members' vectors in index form, float64, shape (dimension,); in the ball, of γ times
            their vectors in the Klein model, of radius 1.
        length: the sum of their lengths; in the ball, of γ.
        count: how many.
    """

    total: Wide
    length: float = 0.0
    count: int = 0

    def add(self, metric: Measure, rows: Rows) -> None:
        """Take in more members: float32, shape (n, dimension), as stored.

        They are summed one after the other, in the order given, so that the same members in the same order
        give the same bits however they are cut into calls.
        """
        wide = index_form(metric, rows).astype(np.float64)
        if isinstance(metric, Ball):
            heights = _heights(metric, wide)
            sizes = (2.0 - heights) / heights
            wide *= (2.0 * np.sqrt(metric.curvature) / heights)[:, None]
        else:
            sizes = lengths(wide)
        self.length = float(np.add.accumulate(np.concatenate([[self.length], sizes]))[-1])
        for row in wide:
            self.total += row
        self.count += len(rows)

    def vector(self, metric: Measure) -> Embedding | None:
        """The composite: the mean, under cosine and spherical at length 1.

        None when there is none or the members cancel out, as antipodes on the sphere do; in the ball they never do.
        """
        if self.count == 0:
            return None
        mean = self._in_ball(metric) if isinstance(metric, Ball) else self._flat(metric)
        if mean is None:
            return None
        vector: Embedding = mean.astype(np.float32)
        if isinstance(metric, Ball) and not usable(metric, vector[None])[0]:
            vector = (mean * (_INSIDE * metric.radius / np.linalg.norm(mean))).astype(np.float32)
        vector.flags.writeable = False
        return vector

    def _flat(self, metric: Measure) -> Wide | None:
        mean = self.total / self.count
        length = float(np.sqrt((mean * mean).sum()))
        if length < CANCELLED * (self.length / self.count):
            return None
        return mean / length if metric in DIRECTIONS else mean

    def _in_ball(self, ball: Ball) -> Wide:
        far = float(np.sqrt((self.total * self.total).sum()))
        rest = np.sqrt(max((self.length - far) * (self.length + far), 0.0))
        mean: Wide = self.total * (ball.radius / (self.length + rest))  # from the Klein model, of radius 1
        return mean

"""The Poincaré ball: maps into and out of it, and movement in it."""

import numpy as np
import numpy.typing as npt

from memstore.errors import InvalidError, short_repr
from memstore.vectors.arrays import Real, Rows, Wide, lengths
from memstore.vectors.space import EDGE, Ball

_INSIDE = 1.0 - 1.1 * EDGE  # where what would lie beyond the edge is put: rounding to float32 does not lead out again


def _heights(ball: Ball, wide: Wide) -> Wide:
    """1 - c|x|² of each row: how far it is from the edge; what lies beyond, as damage may, is at the edge."""
    heights: Wide = np.maximum(1.0 - ball.curvature * np.einsum("ij,ij->i", wide, wide), EDGE)
    return heights


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
        raise InvalidError(
            f"curvature is a number over 0, by minus which the ball is curved; got {short_repr(curvature)}"
        )
    wide = np.asarray(vectors, dtype=np.float64)
    if wide.ndim not in (1, 2) or not np.isfinite(wide).all():
        raise InvalidError("vectors are finite numbers, in an array of shape (dimension,) or (n, dimension)")
    return Ball(curvature), wide, np.linalg.norm(wide, axis=-1, keepdims=True)

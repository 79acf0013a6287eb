"""The Poincaré ball: the exponential and logarithmic map at the origin, and geodesic steps."""

import numpy as np
import numpy.typing as npt

from memstore.errors import InvalidError, short_repr
from memstore.vectors.arrays import Doubles, Floats, Rows, row_norms
from memstore.vectors.scalars import plain_scalar
from memstore.vectors.space import EDGE, Ball

CLAMPED_RADIUS = 1.0 - 1.1 * EDGE
"""Relative radius to which points beyond the edge are clamped; rounding to float32 does not move them out again."""


def boundary_gaps(ball: Ball, points: Doubles) -> Doubles:
    """1 - c|x|² of each row, shape (n,), at least `EDGE`: a damaged point beyond the edge counts as on the edge."""
    gaps: Doubles = np.maximum(1.0 - ball.curvature * np.einsum("ij,ij->i", points, points), EDGE)
    return gaps


def into_ball(vectors: npt.ArrayLike, curvature: float = 1.0) -> Rows:
    """Map Euclidean vectors into the Poincaré ball, by the exponential map at its origin.

    tanh(sqrt(c) |v|) v / (sqrt(c) |v|). Directions are preserved, and the image of v has the hyperbolic distance 2 |v|
    from the origin. Vectors with sqrt(c) |v| over 6.1 would come closer to the edge than float32 resolves: they are
    clamped just inside the edge, where vectors of one direction become equal. Scale much longer vectors down first.

    Args:
        vectors: real numbers, shape (dimension,) or (n, dimension).
        curvature: curvature magnitude c > 0 of the ball (the curvature is -c); use that of the store.

    Returns:
        float32, in the shape of *vectors*. Source: Ganea, Bécigneul and Hofmann, arXiv:1805.09112, Lemma 2.

    Raises:
        InvalidError: *vectors* are not finite numbers in one of these shapes, or *curvature* is not positive.
    """
    ball, points, norms = checked_points(vectors, curvature)
    target_norms = np.minimum(np.tanh(norms / ball.radius), CLAMPED_RADIUS) * ball.radius
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.where(norms > 0, points * (target_norms / norms), 0.0)
    return scaled.astype(np.float32)


def out_of_ball(vectors: npt.ArrayLike, curvature: float = 1.0) -> Rows:
    """Map points of the ball to Euclidean vectors, by the logarithmic map at the origin.

    The inverse of `into_ball`, except for vectors that `into_ball` clamped.

    Args:
        vectors: real numbers, shape (dimension,) or (n, dimension), inside the ball.
        curvature: curvature magnitude c > 0 of the ball (the curvature is -c).

    Returns:
        float32, in the shape of *vectors*.

    Raises:
        InvalidError: a vector lies outside the ball, or an argument is invalid as in `into_ball`.
    """
    ball, points, norms = checked_points(vectors, curvature)
    if (norms >= ball.radius).any():
        raise InvalidError(
            f"vector outside the Poincaré ball: expected norm below {ball.radius:g}, found {float(norms.max()):.6g}"
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.where(norms > 0, points * (np.arctanh(norms / ball.radius) * ball.radius / norms), 0.0)
    return scaled.astype(np.float32)


def geodesic_step(ball: Ball, points: Floats, directions: Doubles, distances: Doubles) -> Rows:
    """Move each of *points* along a geodesic, by Möbius addition; results beyond the edge are clamped.

    Args:
        ball: the ball.
        points: shape (n, dimension), inside the ball.
        directions: shape (n, dimension), of any norm but zero.
        distances: hyperbolic distances, shape (n,).

    Returns:
        float32, shape (n, dimension). Source: Ganea, Bécigneul and Hofmann, arXiv:1805.09112, equation 4.
    """
    root = np.sqrt(ball.curvature)
    x = points.astype(np.float64) * root
    y = directions * (np.tanh(root * distances / 2.0) / row_norms(directions))[:, None]
    xy, xx = np.einsum("ij,ij->i", x, y)[:, None], np.einsum("ij,ij->i", x, x)[:, None]
    yy = np.einsum("ij,ij->i", y, y)[:, None]
    targets = ((1 + 2 * xy + yy) * x + (1 - xx) * y) / (1 + 2 * xy + xx * yy)
    targets *= np.minimum(1.0, CLAMPED_RADIUS / np.maximum(row_norms(targets), 1e-30))[:, None] / root
    moved_points: Rows = targets.astype(np.float32)
    return moved_points


def checked_points(vectors: npt.ArrayLike, curvature: float) -> tuple[Ball, Doubles, Doubles]:
    """The ball of *curvature*, *vectors* in float64, and their norms in shape (…, 1).

    Raises:
        InvalidError: *vectors* are not finite numbers in one or two dimensions, or *curvature* is not positive.
    """
    curvature = plain_scalar(curvature)  # type: ignore[assignment]
    if not isinstance(curvature, int | float) or not 0 < curvature < np.inf:
        raise InvalidError(
            "Invalid curvature: expected the magnitude c > 0 of the ball (its curvature is -c), "
            f"found {short_repr(curvature)}"
        )
    points = np.asarray(vectors, dtype=np.float64)
    if points.ndim not in (1, 2) or not np.isfinite(points).all():
        raise InvalidError(
            "Invalid vectors: expected finite numbers in an array of shape (dimension,) or (n, dimension)"
        )
    return Ball(curvature), points, np.linalg.norm(points, axis=-1, keepdims=True)

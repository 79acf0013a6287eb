"""The metrics by their textbook formulas in float64, other formulas than the library's: the oracle of the tests.

The distance in the ball is computed by Möbius addition (Ungar); the exponential map and the midpoint are computed
through the Klein model, vector by vector.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Wide = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float32]

REACH = 0.4
"""The argument of tanh for a vector of length 1 in `placed`."""


def placed(metric: str, rows: npt.ArrayLike, curvature: float = 1.0) -> Rows:
    """Make vectors valid for *metric*: under hyperbolic, the exponential map puts them into the ball."""
    vectors = np.asarray(rows, dtype=np.float64)
    if metric != "hyperbolic":
        return vectors.astype(np.float32)
    size = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors * np.tanh(REACH * size) / np.maximum(size, 1e-300) / np.sqrt(curvature)).astype(np.float32)


def added(x: Wide, y: Wide, curvature: float) -> Wide:
    """Möbius addition of x and y in the ball (Ganea, Bécigneul and Hofmann, arXiv:1805.09112, equation 4)."""
    c, xy, xx, yy = curvature, x @ y, x @ x, y @ y
    return ((1 + 2 * c * xy + c * yy) * x + (1 - c * xx) * y) / (1 + 2 * c * xy + c * c * xx * yy)


def ball_distance(x: Wide, y: Wide, curvature: float = 1.0) -> float:
    root = np.sqrt(curvature)
    return float(2 / root * np.arctanh(min(root * np.linalg.norm(added(-x, y, curvature)), 1 - 1e-16)))


def ball_distances(query: Wide, rows: Wide, curvature: float = 1.0) -> Wide:
    """Distances to many vectors, by the arcosh formula, which loses digits of short distances."""
    c = curvature
    ratio = ((rows - query) ** 2).sum(axis=1) / ((1 - c * query @ query) * (1 - c * (rows**2).sum(axis=1)))
    distances: Wide = np.arccosh(1 + 2 * c * ratio) / np.sqrt(c)
    return distances


def angles(query: Wide, rows: Wide) -> Wide:
    """Angles to many vectors."""
    cosines = rows @ query / (np.linalg.norm(rows, axis=1) * np.linalg.norm(query))
    radians: Wide = np.arccos(np.clip(cosines, -1, 1))
    return radians


def distance(metric: str, x: Wide, y: Wide, curvature: float = 1.0) -> float:
    if metric == "hyperbolic":
        return ball_distance(x, y, curvature)
    return float(angles(x, y[None])[0]) if metric == "spherical" else float(np.linalg.norm(x - y))


def score(metric: str, query: Rows | Wide, vector: Rows | Wide, curvature: float = 1.0) -> float:
    """The documented score, in double precision."""
    query, vector = query.astype(np.float64), vector.astype(np.float64)
    if metric == "inner_product":
        return float(query @ vector)
    if metric == "cosine":
        return float((query / np.linalg.norm(query)) @ (vector / np.linalg.norm(vector)))
    length = distance(metric, query, vector, curvature)
    return 1 - length / np.pi if metric == "spherical" else 1 / (1 + length)


def mean(metric: str, rows: Iterable[Rows], curvature: float = 1.0) -> Wide | None:
    """The documented composite of *rows*; None if it has no direction."""
    vectors = [row.astype(np.float64) for row in rows]
    if metric in ("cosine", "spherical"):
        vectors = [(row / np.linalg.norm(row)).astype(np.float32).astype(np.float64) for row in vectors]
    if not vectors:
        return None
    if metric == "hyperbolic":
        return midpoint(vectors, curvature)
    total = np.mean(vectors, axis=0)
    if np.linalg.norm(total) < 1e-6 * np.mean([np.linalg.norm(row) for row in vectors]):
        return None
    return total / np.linalg.norm(total) if metric in ("cosine", "spherical") else total


def midpoint(rows: list[Wide], curvature: float = 1.0) -> Wide:
    """The Einstein midpoint: in the Klein model the mean weighted by the factors of Lorentz."""
    klein = [2 * row / (1 + curvature * row @ row) for row in rows]
    factors = [1 / np.sqrt(1 - curvature * k @ k) for k in klein]
    middle: Wide = np.sum([f * k for f, k in zip(factors, klein, strict=True)], axis=0) / np.sum(factors)
    half: Wide = middle / (1 + np.sqrt(1 - curvature * middle @ middle))
    return half


def ball_vectors(
    rng: np.random.Generator, count: int, dimension: int, radius: float, reach: tuple[float, float] = (0, 11)
) -> Rows:
    """Clustered vectors from the origin to the edge of the ball.

    Hyperbolic distances from the origin are uniform in *reach*. Uniform norms would crowd near the edge, where float32
    cannot separate vectors.
    """
    far = rng.uniform(*reach, count)
    bunches = rng.standard_normal((max(1, count // 20), dimension))
    directions = bunches[rng.integers(0, len(bunches), count)]
    directions += np.exp(-far)[:, None] * rng.standard_normal((count, dimension))
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    return (directions / lengths * np.minimum(np.tanh(far / 2), 1 - 1.1e-5)[:, None] * radius).astype(np.float32)

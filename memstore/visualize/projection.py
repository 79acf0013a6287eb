"""Vectors as points of a plane: the two directions in which they differ most.

Principal components by randomized SVD (Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM Review
53(2), 2011, algorithms 4.4 and 5.1), with a fixed seed and fixed signs: the same vectors give the same picture.
"""

import numpy as np
import numpy.typing as npt

_COMPONENTS = 2
_EXTRA = 10
"""Directions tried beyond those wanted, so that the wanted ones are found well."""

_ROUNDS = 12
"""Of power iteration: text embeddings differ little from one component to the next."""


def plane(vectors: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], float]:
    """*vectors* as points of the plane of their first two principal components.

    Args:
        vectors: float32, shape (n, dimension), finite; overwritten.

    Returns:
        float32, shape (n, 2), the first component first; and the share of the variance that the plane shows, 0 to 1.
        Of each component the number largest in magnitude is positive. Vectors that are all the same, or only one, lie
        at 0.
    """
    points = np.zeros((len(vectors), _COMPONENTS), dtype=np.float32)
    if len(vectors) < 2:
        return points, 1.0
    largest = float(np.abs(vectors).max())
    if largest > 0:
        vectors /= largest  # so that no square leaves float32
    vectors -= vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    variance = float(np.einsum("ij,ij->", vectors, vectors, dtype=np.float64))
    if variance == 0:
        return points, 1.0
    directions = _directions(vectors)
    points[:, : len(directions)] = vectors @ directions.T
    shown = float(np.einsum("ij,ij->", points, points, dtype=np.float64))
    return points, min(1.0, shown / variance)


def _directions(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The first principal directions, at most two: float32, shape (., dimension)."""
    size = min(_COMPONENTS + _EXTRA, *vectors.shape)
    sketch = np.random.default_rng(0).standard_normal((vectors.shape[1], size), dtype=np.float32)
    range_ = np.linalg.qr(vectors @ sketch)[0]
    for _ in range(_ROUNDS):
        range_ = np.linalg.qr(vectors @ np.linalg.qr(vectors.T @ range_)[0])[0]
    found = np.linalg.svd(range_.T @ vectors, full_matrices=False)[2][:_COMPONENTS]
    peaks = found[np.arange(len(found)), np.abs(found).argmax(axis=1)]
    signed: npt.NDArray[np.float32] = found * np.where(peaks < 0, -1, 1).astype(np.float32)[:, None]
    return signed

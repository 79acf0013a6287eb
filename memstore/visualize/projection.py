"""The projection of vectors to the plane of their first two principal components.

Randomized SVD (Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM Review 53(2), 2011, algorithms
4.4 and 5.1) with a fixed seed and a fixed rule for signs: equal vectors give equal positions.
"""

import numpy as np
import numpy.typing as npt

_COMPONENTS = 2
_OVERSAMPLING = 10
"""Random directions in addition to the two components; they make the two accurate."""

_POWER_ITERATIONS = 12
"""So many because the principal components of text embeddings have similar variances."""


def project_to_plane(vectors: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], float]:
    """Project *vectors* to the plane of their first two principal components.

    Args:
        vectors: float32, shape (n, dimension), finite; overwritten.

    Returns:
        The positions: float32, shape (n, 2), the first component first. Then the share of the variance that they keep,
        0 to 1. The number with the largest magnitude in each component is positive. Without variance (equal vectors,
        one vector or none) every position is 0, and the share is 1.
    """
    positions = np.zeros((len(vectors), _COMPONENTS), dtype=np.float32)
    if len(vectors) < 2:
        return positions, 1.0
    largest = float(np.abs(vectors).max())
    if largest > 0:
        vectors /= largest  # so that no square overflows or underflows float32
    vectors -= vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    variance = float(np.einsum("ij,ij->", vectors, vectors, dtype=np.float64))
    if variance == 0:
        return positions, 1.0
    directions = _principal_directions(vectors)
    positions[:, : len(directions)] = vectors @ directions.T
    plane_variance = float(np.einsum("ij,ij->", positions, positions, dtype=np.float64))
    return positions, min(1.0, plane_variance / variance)


def _principal_directions(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The first principal directions, at most two: float32, shape (directions, dimension)."""
    size = min(_COMPONENTS + _OVERSAMPLING, *vectors.shape)
    sketch = np.random.default_rng(0).standard_normal((vectors.shape[1], size), dtype=np.float32)
    basis = np.linalg.qr(vectors @ sketch)[0]
    for _ in range(_POWER_ITERATIONS):
        basis = np.linalg.qr(vectors @ np.linalg.qr(vectors.T @ basis)[0])[0]
    directions = np.linalg.svd(basis.T @ vectors, full_matrices=False)[2][:_COMPONENTS]
    peaks = directions[np.arange(len(directions)), np.abs(directions).argmax(axis=1)]
    signs = np.where(peaks < 0, -1, 1).astype(np.float32)[:, None]
    oriented: npt.NDArray[np.float32] = directions * signs
    return oriented

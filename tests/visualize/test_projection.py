"""The projection of vectors to the plane of their first two principal components."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from memstore.visualize.projection import project_to_plane


@pytest.mark.parametrize("shape", [(400, 30), (30, 400), (2, 5), (5, 2), (40, 1), (3, 3)])
def test_the_axes_are_the_first_two_principal_components(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    data = (rng.standard_normal(shape) * np.geomspace(10, 0.1, shape[1]) + 3).astype(np.float32)
    centred = data.astype(np.float64) - data.mean(axis=0, dtype=np.float64)
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    points, share = project_to_plane(data.copy())
    scale = np.abs(data).max()
    for k in range(min(2, *shape) - (min(shape) == 2)):  # two vectors have no second component
        np.testing.assert_allclose(np.abs(points[:, k] * scale), np.abs(centred @ directions[k]), rtol=1e-3, atol=2e-3)
    assert share == pytest.approx((values[:2] ** 2).sum() / (values**2).sum(), abs=1e-4)


def test_the_signs_depend_on_the_vectors_only() -> None:
    data = np.random.default_rng(1).standard_normal((50, 6)).astype(np.float32)
    points, _ = project_to_plane(data.copy())
    reversed_points, _ = project_to_plane(data[::-1].copy())
    np.testing.assert_allclose(points, reversed_points[::-1], atol=1e-3)
    negated_points, _ = project_to_plane(-data)
    assert not np.allclose(points, negated_points, atol=1e-3) or np.allclose(points, 0)


@pytest.mark.parametrize(
    "data",
    [np.zeros((0, 4)), np.ones((1, 4)), np.full((9, 4), 7.0), np.zeros((9, 4))],
    ids=["no vector", "one vector", "equal vectors", "zero vectors"],
)
def test_vectors_without_variance_are_at_the_origin(data: npt.NDArray[Any]) -> None:
    points, share = project_to_plane(data.astype(np.float32))
    assert points.shape == (len(data), 2)
    assert not points.any()
    assert share == 1.0


@pytest.mark.parametrize("magnitude", [1e-30, 1e37])
def test_the_magnitude_of_the_vectors_does_not_change_the_points(magnitude: float) -> None:
    data = np.random.default_rng(2).standard_normal((60, 5)).astype(np.float32)
    scaled_points, scaled_share = project_to_plane(data * np.float32(magnitude))
    points, share = project_to_plane(data)
    np.testing.assert_allclose(scaled_points, points, atol=1e-4)
    assert scaled_share == pytest.approx(share, abs=1e-4)

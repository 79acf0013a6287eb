"""Which similarities can belong to rows in the other order."""

import warnings

import numpy as np
import pytest

from memstore.index.rounding import Tolerance, tolerance


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_similarities_at_the_end_of_float32_are_compared_without_an_overflow(dtype: type[np.floating]) -> None:
    lowest_float32 = np.finfo(np.float32).min
    similarities = np.array([lowest_float32, 1.0, lowest_float32, 2.0], dtype=dtype)
    error = tolerance("l2", np.ones(3, dtype=np.float32), 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert error.possible(similarities, 3).tolist() == [0, 1, 2, 3]
        assert error.possible(similarities, 2).tolist() == [1, 3]


def test_float64_similarities_beyond_float32_are_told_apart() -> None:
    similarities = np.array([-1e60, -1e50, -1e55, -2e50])
    assert Tolerance(0.0, 1e-12).possible(similarities, 2).tolist() == [1, 3]

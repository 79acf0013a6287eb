"""Vectors: distances that are metrics, means of least sum, and exact search up to the edge of the ball."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from memstore import DimensionError, InvalidError
from memstore.index.faiss_engine import FaissEngine
from memstore.index.numpy_engine import NumpyEngine
from memstore.index.protocol import Engine
from memstore.vectors import into_ball, out_of_ball
from memstore.vectors.hyperbolic import geodesic_step
from memstore.vectors.mean import Mean
from memstore.vectors.metrics import distances, scores, valid_rows, weighted_distances
from memstore.vectors.space import Ball
from tests.conftest import vectors
from tests.support.spaces import ball_distance, ball_vectors, midpoint

Rows = npt.NDArray[np.float32]
Wide = npt.NDArray[np.float64]

METRICAL: list[Any] = ["l2", "spherical", Ball(), Ball(1e-4), Ball(0.3), Ball(400.0)]
EASY = settings(max_examples=150, deadline=None, derandomize=True)

numbers = st.floats(-1, 1, width=32)
raw = st.lists(numbers, min_size=3, max_size=3).map(lambda v: np.array(v, dtype=np.float32))
scaled = st.tuples(raw, st.sampled_from([1e-6, 0.1, 1.0, 3.0, 6.0])).map(lambda v: v[0] * np.float32(v[1]))


def put(metric: Any, vector: Rows) -> Rows:
    """*vector* where the metric can have it."""
    if isinstance(metric, Ball):
        return into_ball(vector * np.float32(metric.radius), metric.curvature)
    if metric == "spherical":
        assume(bool(np.abs(vector).max() > 1e-6))
    return vector


def between(metric: Any, x: Rows, y: Rows) -> float:
    return float(distances(metric, x, y[None])[0])


# -- distances


@pytest.mark.parametrize("metric", METRICAL, ids=str)
@EASY
@given(x=scaled, y=scaled, z=scaled)
def test_a_distance_is_a_metric(metric: Any, x: Rows, y: Rows, z: Rows) -> None:
    x, y, z = put(metric, x), put(metric, y), put(metric, z)
    assert between(metric, x, x) == 0
    there = between(metric, x, y)
    assert there >= 0
    assert there == pytest.approx(between(metric, y, x), rel=1e-12, abs=1e-300)
    direct, around = between(metric, x, z), there + between(metric, y, z)
    assert direct <= around * (1 + 1e-9) + 1e-12
    if metric != "spherical" and not np.array_equal(x, y):
        assert there > 0


@EASY
@given(x=scaled, y=scaled, curvature=st.sampled_from([1e-4, 0.3, 1.0, 400.0]))
def test_the_distance_in_the_ball_is_that_of_moebius_addition(x: Rows, y: Rows, curvature: float) -> None:
    ball = Ball(curvature)
    x, y = put(ball, x), put(ball, y)
    expected = ball_distance(x.astype(np.float64), y.astype(np.float64), curvature)
    assert between(ball, x, y) == pytest.approx(expected, rel=1e-5, abs=1e-12 * ball.radius)


@EASY
@given(x=scaled, y=scaled)
def test_the_distance_in_a_flatter_ball_is_nearer_to_twice_the_euclidean_one(x: Rows, y: Rows) -> None:
    flat = 2 * between("l2", x, y)
    away = [abs(between(Ball(c), x, y) - flat) for c in (1e-4, 1e-6, 1e-12)]
    assert away[2] <= 1e-9 * (1 + flat)
    for c, off in zip((1e-4, 1e-6), away, strict=False):  # in proportion to the curvature
        assert off <= 200 * c * (1 + flat)


def test_known_distances() -> None:
    half = np.array([0.5, 0.0], dtype=np.float32)
    assert between(Ball(), half, np.zeros(2, np.float32)) == pytest.approx(np.log(3), rel=1e-14)
    assert between(Ball(), half, -half) == pytest.approx(2 * np.log(3), rel=1e-14)
    assert between(Ball(4.0), half / 2, -half / 2) == pytest.approx(np.log(3), rel=1e-14)
    assert between("spherical", half, np.array([0, 7], np.float32)) == pytest.approx(np.pi / 2, rel=1e-14)
    assert between("spherical", half, -half) == pytest.approx(np.pi, rel=1e-14)
    tiny = np.array([0.5, 1e-9], dtype=np.float32)
    assert between("spherical", half, tiny) == pytest.approx(2e-9, rel=1e-6), "the arc cosine says 0"


@EASY
@given(x=scaled, y=scaled, factor=st.sampled_from([0.5, 3.0]))
def test_cosine_and_inner_product_are_similarities(x: Rows, y: Rows, factor: float) -> None:
    assume(min(np.abs(x).max(), np.abs(y).max()) > 1e-6)
    one, two, more = (v[None] / np.linalg.norm(v.astype(np.float64)) for v in (x, y, x * np.float32(factor)))
    alike = scores("cosine", one[0], two)[0]
    assert alike == scores("cosine", two[0], one)[0]
    assert -1 <= alike <= 1
    assert scores("cosine", one[0], one)[0] == pytest.approx(1)
    assert scores("cosine", more[0], two)[0] == pytest.approx(alike, abs=1e-6)
    product = scores("inner_product", x, y[None])[0]
    assert product == scores("inner_product", y, x[None])[0]
    assert product**2 <= (x.astype(float) @ x) * (y.astype(float) @ y) * (1 + 1e-6)
    assert scores("inner_product", x * np.float32(factor), y[None])[0] == pytest.approx(factor * product, rel=1e-6)


# -- into the ball and out of it


@EASY
@given(v=raw, curvature=st.sampled_from([1e-4, 0.3, 1.0, 400.0]))
def test_into_the_ball_keeps_directions_and_doubles_lengths(v: Rows, curvature: float) -> None:
    v = v * np.float32(2 * Ball(curvature).radius)
    inside = into_ball(v, curvature)
    assert inside.dtype == np.float32
    origin = np.zeros(3, dtype=np.float32)
    length = float(np.linalg.norm(v.astype(np.float64)))
    assert between(Ball(curvature), origin, inside) == pytest.approx(2 * length, rel=3e-5, abs=1e-30)
    np.testing.assert_allclose(out_of_ball(inside, curvature), v, rtol=1e-4, atol=1e-6 * length)


def test_points_beyond_the_edge_are_clamped_inside() -> None:
    far = into_ball(np.array([[1e3, 0, 0], [0, -1e30, 0], [0, 0, 0]]), 0.25)
    assert np.linalg.norm(far, axis=1) == pytest.approx([2 * (1 - 1.1e-5)] * 2 + [0], rel=1e-6)
    with pytest.raises(InvalidError, match="outside the Poincaré ball"):
        out_of_ball(np.array([2.0, 0.0]), 0.25)
    for wrong in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(InvalidError, match="curvature"):
            into_ball([0.5, 0.5], wrong)
    with pytest.raises(InvalidError, match="finite"):
        into_ball([np.nan, 0.5])


@EASY
@given(x=scaled, towards=raw, far=st.floats(0.01, 3), curvature=st.sampled_from([0.3, 1.0]))
def test_a_geodesic_step_has_the_given_length(x: Rows, towards: Rows, far: float, curvature: float) -> None:
    assume(bool(np.abs(towards).max() > 1e-3))
    ball = Ball(curvature)
    start = put(ball, x * np.float32(0.3))
    end = geodesic_step(ball, start[None], towards[None].astype(np.float64), np.array([far]))[0]
    if np.linalg.norm(end.astype(np.float64)) < 0.99 * ball.radius:
        rounding = 6e-6  # of float32 coordinates at 0.99 of the radius
        assert between(ball, start, end) == pytest.approx(far, rel=1e-4, abs=rounding)


# -- means


def least(wrong: Callable[[Wide], float], start: Wide, step: float, allowed: Callable[[Wide], Wide]) -> Wide:
    """Where *wrong* is least, by trying every way from where it is so far."""
    here = allowed(start)
    while step > 1e-9:
        tried = [allowed(here + sign * step * axis) for axis in np.eye(len(here)) for sign in (1, -1)]
        best = min(tried, key=wrong)
        if wrong(best) < wrong(here):
            here = best
        else:
            step /= 2
    return here


def mean_of(metric: Any, rows: Rows) -> Any:
    mean = Mean(np.zeros(rows.shape[1]))
    mean.add(metric, rows)
    return mean.vector(metric)


@pytest.mark.parametrize("curvature", [1e-3, 0.3, 1.0, 50.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_mean_in_the_ball_has_the_least_sum(curvature: float, seed: int) -> None:
    """Of cosh(sqrt(c) d) - 1, which for short distances is half of c d²."""
    ball, rng = Ball(curvature), np.random.default_rng(seed)
    rows = put(ball, (np.array([0.5, 0, 0]) + rng.standard_normal((5, 3))).astype(np.float32))

    def wrong(at: Wide) -> float:
        return float((np.cosh(np.sqrt(curvature) * distances(ball, at, rows)) - 1).sum())

    def inside(at: Wide) -> Wide:
        return at * min(1, ball.max_norm / max(np.linalg.norm(at), 1e-300))

    mean = mean_of(ball, rows)
    expected = least(wrong, rows.mean(axis=0, dtype=np.float64), 0.3 * ball.radius, inside)
    np.testing.assert_allclose(mean, expected, atol=2e-6 * ball.radius)
    np.testing.assert_allclose(mean, midpoint(list(rows.astype(np.float64)), curvature), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_the_means_of_l2_and_of_the_sphere_have_the_least_sum(seed: int) -> None:
    rows = (np.array([1, 0, 0]) + np.random.default_rng(seed).standard_normal((5, 3))).astype(np.float32)
    flat = least(lambda at: float((distances("l2", at, rows) ** 2).sum()), np.zeros(3), 1.0, lambda at: at)
    np.testing.assert_allclose(mean_of("l2", rows), flat, atol=1e-6)

    def chords(at: Wide) -> float:
        return float((1 - np.cos(distances("spherical", at, rows))).sum())

    round_ = least(chords, np.ones(3), 1.0, lambda at: at / np.linalg.norm(at))
    np.testing.assert_allclose(mean_of("spherical", rows), round_, atol=2e-6)
    assert np.linalg.norm(mean_of("spherical", rows).astype(float)) == pytest.approx(1, abs=1e-6)


@EASY
@given(x=scaled, y=scaled, curvature=st.sampled_from([0.3, 1.0, 400.0]))
def test_the_mean_of_two_in_the_ball_is_half_way(x: Rows, y: Rows, curvature: float) -> None:
    ball = Ball(curvature)
    pair = np.stack([put(ball, x), put(ball, y)])
    assume(float(np.linalg.norm(pair.astype(np.float64), axis=1).max()) < 0.999 * ball.radius)
    middle = mean_of(ball, pair)
    half = between(ball, *pair) / 2
    assert distances(ball, middle, pair) == pytest.approx([half, half], rel=1e-3, abs=1e-3 * ball.radius)


def test_the_mean_in_the_ball_does_not_depend_on_the_order() -> None:
    rng = np.random.default_rng(5)
    rows = np.concatenate([put(Ball(), vectors(rng, 40)), put(Ball(), 6 * vectors(rng, 10))])
    means = [mean_of(Ball(), rng.permutation(rows)) for _ in range(5)]
    for other in means[1:]:
        np.testing.assert_allclose(other, means[0], rtol=1e-6, atol=1e-9)


def test_opposite_vectors_have_no_mean_on_the_sphere_and_the_origin_in_the_ball() -> None:
    rows = vectors(np.random.default_rng(2), 3)
    both = np.concatenate([rows, -2 * rows])
    assert mean_of("spherical", both) is None
    np.testing.assert_allclose(mean_of(Ball(), into_ball(np.concatenate([rows, -rows]))), 0, atol=1e-12)


def test_a_mean_next_to_the_edge_is_still_inside(rng: np.random.Generator) -> None:
    """Three vectors that each lack another rounding step of a corner outside: their mean is rounded to the corner."""
    ball, tried = Ball(), 0
    while tried < 20:
        x = np.abs(rng.standard_normal(3)) + 0.3
        x = (x * (ball.max_norm - 5e-8) / np.linalg.norm(x)).astype(np.float32)
        corner = np.nextafter(x, np.float32(1))
        rows = np.where(np.eye(3, dtype=bool), x, corner)
        if valid_rows(ball, rows).all() and not valid_rows(ball, corner[None])[0]:
            tried += 1
            mean = mean_of(ball, rows)
            assert valid_rows(ball, mean[None])[0]
            np.testing.assert_allclose(mean, corner, rtol=2e-6)
    far = np.stack([into_ball(np.ones(3) * 1e6, 0.01)] * 3)
    assert mean_of(Ball(0.01), far).tobytes() == far[0].tobytes()


# -- exact search


@pytest.fixture(params=["numpy", "faiss"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return NumpyEngine() if request.param == "numpy" else FaissEngine.load()


@pytest.mark.parametrize("curvature", [1e-4, 1.0, 400.0])
@pytest.mark.parametrize("dimension", [2, 16, 300])
@pytest.mark.parametrize("limit", [1, 10, 499])
def test_exact_search_in_the_ball_is_exact_up_to_its_edge(
    engine: Engine, curvature: float, dimension: int, limit: int, rng: np.random.Generator
) -> None:
    ball = Ball(curvature)
    everywhere = ball_vectors(rng, 6_000, dimension, ball.radius)  # more than are compared at a time
    shell = ball_vectors(rng, 2_000, dimension, ball.radius, (8, 8.01))
    subset = np.sort(rng.choice(2_000, 500, replace=False))
    for rows, places in ((everywhere, None), (everywhere, subset), (shell, None), (shell, subset)):
        queries = ball_vectors(rng, 6, dimension, ball.radius, (0, 0.5))
        queries = np.concatenate([queries, rows[rng.choice(len(rows), 6)]])
        nearest = engine.find_nearest(ball, queries, rows, limit, places)
        assert len(nearest) == 12
        for query, here in zip(queries, nearest, strict=True):
            allowed = rows if places is None else rows[places]
            assert places is None or np.isin(here, places).all()
            assert len(set(here.tolist())) == len(here) >= limit
            best = np.sort(distances(ball, query, allowed))[:limit]
            np.testing.assert_array_equal(np.sort(distances(ball, query, rows[here]))[:limit], best)


# -- invalid arguments


def test_formulas_refuse_another_dimension() -> None:
    rows = np.full((2, 3), 0.1, dtype=np.float32)
    for wrong in (np.float32([0.1]), np.float32([0.1, 0.2]), rows):
        for metric in ("l2", "spherical", Ball()):
            with pytest.raises(DimensionError):
                distances(metric, wrong, rows)
        with pytest.raises(DimensionError):
            weighted_distances({"l2": 1}, wrong, rows)


def test_the_name_hyperbolic_is_no_measure() -> None:
    rows: Any = np.full((2, 3), 0.1, dtype=np.float32)
    word: Any = "hyperbolic"
    with pytest.raises(TypeError, match="measure"):
        scores(word, rows[0], rows)
    with pytest.raises(TypeError, match="measure"):
        Mean(np.zeros(3)).add(word, rows)

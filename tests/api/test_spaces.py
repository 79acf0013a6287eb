"""The spaces: distances that are metrics, means that are nearest to all, exact search up to the edge of the ball."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import memstore
from benchmarks.spaces import tree
from memstore import DamagedError, DimensionError, EmbeddingError, InvalidError, Metric, SettingsMismatchError
from memstore.cli.app import app
from memstore.index.faiss_engine import FaissEngine
from memstore.index.numpy_engine import NumpyEngine
from memstore.index.protocol import Engine
from memstore.testing import HashEmbedder
from memstore.vectors import into_ball, out_of_ball
from memstore.vectors.hyperbolic import geodesic_step
from memstore.vectors.mean import Mean
from memstore.vectors.metrics import distances, scores, valid_rows, weighted_distances
from memstore.vectors.space import Ball
from tests.conftest import DIMENSION, vectors
from tests.database.test_migrations import alembic
from tests.support.clusters import small_graphs
from tests.support.spaces import added, ball_distance, ball_distances, distance, midpoint, placed, score

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
def test_the_flatter_the_ball_the_nearer_is_its_distance_to_twice_euclid_s(x: Rows, y: Rows) -> None:
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


def test_what_would_lie_beyond_the_edge_is_put_inside_and_can_be_stored() -> None:
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
def test_a_vector_is_moved_as_far_as_is_said(x: Rows, towards: Rows, far: float, curvature: float) -> None:
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


@pytest.mark.parametrize("curvature", [0.3, 1.0])
def test_the_mean_moves_with_its_members_in_the_ball(curvature: float) -> None:
    """Möbius addition moves the whole ball: no point of it is the middle of anything."""
    rng = np.random.default_rng(3)
    rows = put(Ball(curvature), 0.5 * vectors(rng, 6)).astype(np.float64)
    by = 0.7 * rows[0]
    elsewhere = np.stack([added(by, row, curvature) for row in rows]).astype(np.float32)
    expected = added(by, mean_of(Ball(curvature), rows.astype(np.float32)).astype(np.float64), curvature)
    np.testing.assert_allclose(mean_of(Ball(curvature), elsewhere), expected, atol=3e-6)


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


def outwards(
    rng: np.random.Generator, count: int, dimension: int, radius: float, reach: tuple[float, float] = (0, 11)
) -> Rows:
    """Vectors from the origin to the edge of the ball, in bunches: near to one another also where it ends.

    How far out, is drawn from *reach*: in a thin shell next to the edge, float32 would tell few of them apart.
    """
    far = rng.uniform(*reach, count)
    bunches = rng.standard_normal((max(1, count // 20), dimension))
    directions = bunches[rng.integers(0, len(bunches), count)]
    directions += np.exp(-far)[:, None] * rng.standard_normal((count, dimension))
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    return (directions / lengths * np.minimum(np.tanh(far / 2), 1 - 1.1e-5)[:, None] * radius).astype(np.float32)


@pytest.mark.parametrize("curvature", [1e-4, 1.0, 400.0])
@pytest.mark.parametrize("dimension", [2, 16, 300])
@pytest.mark.parametrize("limit", [1, 10, 499])
def test_exact_search_in_the_ball_is_exact_up_to_its_edge(
    engine: Engine, curvature: float, dimension: int, limit: int, rng: np.random.Generator
) -> None:
    ball = Ball(curvature)
    everywhere = outwards(rng, 6_000, dimension, ball.radius)  # more than are compared at a time
    shell = outwards(rng, 2_000, dimension, ball.radius, (8, 8.01))
    subset = np.sort(rng.choice(2_000, 500, replace=False))
    for rows, places in ((everywhere, None), (everywhere, subset), (shell, None), (shell, subset)):
        queries = outwards(rng, 6, dimension, ball.radius, (0, 0.5))
        queries = np.concatenate([queries, rows[rng.choice(len(rows), 6)]])
        nearest = engine.find_nearest(ball, queries, rows, limit, places)
        assert nearest.shape == (12, limit)
        for query, here in zip(queries, nearest, strict=True):
            allowed = rows if places is None else rows[places]
            assert places is None or np.isin(here, places).all()
            assert len(set(here.tolist())) == limit
            best = np.sort(distances(ball, query, allowed))[:limit]
            np.testing.assert_array_equal(np.sort(distances(ball, query, rows[here])), best)


async def test_a_hyperbolic_store_finds_the_nearest_and_says_how_far(path: Path, rng: np.random.Generator) -> None:
    rows = outwards(rng, 600, DIMENSION, 2.0)
    async with memstore.open(path, dimension=DIMENSION, metric="hyperbolic", curvature=0.25) as store:
        await store.memories.add_many([{"id": str(i), "content": "", "embedding": row} for i, row in enumerate(rows)])
        for query in outwards(rng, 20, DIMENSION, 2.0):
            expected = 1 / (1 + ball_distances(query.astype(np.float64), rows.astype(np.float64), 0.25))
            hits = await store.memories.search(query, 7)
            assert [hit.score for hit in hits] == pytest.approx(np.sort(expected)[::-1][:7].tolist(), rel=1e-9)
            assert [hit.score for hit in hits] == pytest.approx(expected[[int(hit.memory.id) for hit in hits]].tolist())
        async with store.transaction() as tx:
            await tx.memories.add("", id="new", embedding=rows[3])
            assert [hit.score for hit in await tx.memories.search(rows[3], 2)] == [1.0, 1.0]
        assert await store.check() == []


async def test_a_graph_over_a_tree_finds_what_it_says_without_looking_at_everything(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queries that are made up must lie among the vectors: in the ball, most ways lead away from all of them."""
    small_graphs(monkeypatch)
    both = tree(1_640, 16, rng)
    query_positions = rng.choice(len(both), 40, replace=False)
    queries, rows = both[query_positions], np.delete(both, query_positions, axis=0)
    async with memstore.open(path, dimension=16, metric="hyperbolic", durability="relaxed") as store:
        await store.memories.add_many([{"content": "", "embedding": row} for row in rows])
        await store.optimize()
        stats = await store.stats()
        assert (stats.index, stats.graph_nodes) == ("graph", 1_600)
        assert stats.recall is not None
        assert stats.recall >= 0.99
        assert stats.ef_search is not None
        assert stats.ef_search <= 512
        hit_count = 0
        for query, hits in zip(queries, await store.memories.search_many(queries), strict=True):
            assert hits.plan.method == "graph"
            worst = np.sort(ball_distances(query.astype(np.float64), rows.astype(np.float64)))[9]
            hit_count += sum(1 / hit.score - 1 <= worst * (1 + 1e-6) for hit in hits)
        assert hit_count >= 0.97 * 400


async def test_spherical_ranks_as_cosine_does_and_scores_by_the_angle(tmp_path: Path, rng: np.random.Generator) -> None:
    rows, queries = vectors(rng, 300), vectors(rng, 20)
    answers = []
    for metric in ("cosine", "spherical"):
        async with memstore.open(tmp_path / metric, dimension=DIMENSION, metric=metric) as store:
            items = [{"id": str(i), "content": "", "embedding": row} for i, row in enumerate(rows)]
            await store.memories.add_many(items)
            answers.append(await store.memories.search_many(queries, 50))
    for one, other in zip(*answers, strict=True):
        assert [hit.memory.id for hit in one] == [hit.memory.id for hit in other]
        angles = np.arccos([hit.score for hit in one])
        assert [hit.score for hit in other] == pytest.approx((1 - angles / np.pi).tolist(), abs=1e-6)


# -- what a store takes


@pytest.mark.parametrize("metric", get_args(Metric))
async def test_another_dimension_is_refused_in_every_space(path: Path, metric: Metric) -> None:
    async with memstore.open(path, dimension=3, metric=metric) as store:
        await store.memories.add("kept", id="kept", embedding=[0.1, 0.2, 0.3])
        for wrong in ([0.1], [0.1, 0.2], [0.1] * 4, [[0.1, 0.2, 0.3]]):
            for call in (
                store.memories.add("x", embedding=wrong),
                store.memories.update("kept", embedding=wrong),
                store.memories.search(wrong),
                store.assemblies.search(wrong),
            ):
                with pytest.raises(DimensionError):
                    await call
        assert await store.memories.count() == 1


def test_formulas_refuse_another_dimension() -> None:
    rows = np.full((2, 3), 0.1, dtype=np.float32)
    for wrong in (np.float32([0.1]), np.float32([0.1, 0.2]), rows):
        for metric in ("l2", "spherical", Ball()):
            with pytest.raises(DimensionError):
                distances(metric, wrong, rows)
        with pytest.raises(DimensionError):
            weighted_distances({"l2": 1}, wrong, rows)


def test_the_word_hyperbolic_alone_says_too_little() -> None:
    rows: Any = np.full((2, 3), 0.1, dtype=np.float32)
    word: Any = "hyperbolic"
    with pytest.raises(TypeError, match="measure"):
        scores(word, rows[0], rows)
    with pytest.raises(TypeError, match="measure"):
        Mean(np.zeros(3)).add(word, rows)


OUTSIDE = [0.6, 0.8, 0.0]


async def test_what_lies_outside_the_ball_is_refused_and_nothing_is_stored(path: Path) -> None:
    async with memstore.open(path, dimension=3, metric="hyperbolic") as store:
        await store.memories.add("kept", id="kept", embedding=[0.1, 0.2, 0.3])
        item = {"id": "n", "content": "x", "embedding": OUTSIDE}
        for call in (
            store.memories.add(**item),
            store.memories.add_many([item]),
            store.memories.upsert(**item),
            store.memories.update("kept", embedding=OUTSIDE),
            store.memories.search(OUTSIDE),
            store.assemblies.search(OUTSIDE),
        ):
            with pytest.raises(EmbeddingError, match=r"at most 0.99999, found .*memstore\.vectors\.into_ball"):
                await call
        assert await store.memories.count() == 1
        await store.memories.add("edge", embedding=[0.99998, 0, 0])
        await store.memories.add("origin", id="origin", embedding=[0, 0, 0])
        await store.memories.add("projected", embedding=into_ball(OUTSIDE))
        assert (await store.memories.search([0, 0, 0]))[0].memory.id == "origin"
        assert await store.check() == []


async def test_an_embedder_that_leaves_the_ball_is_named(path: Path) -> None:
    class Projected(HashEmbedder):
        def embed(self, texts: Any) -> Any:
            return into_ball(super().embed(texts))

    async with memstore.open(path, embedder=HashEmbedder(8), metric="hyperbolic") as store:
        with pytest.raises(memstore.EmbedderError, match=r"hash-8-0.*into_ball"):
            await store.memories.add("tea")
    async with memstore.open(path, embedder=Projected(8)) as store:
        await store.memories.add("green tea")
        assert (await store.memories.search("green tea"))[0].score == 1.0


async def test_zero_has_no_place_on_the_sphere(path: Path) -> None:
    async with memstore.open(
        path, dimension=2, metric="spherical", index=memstore.IndexOptions(vector_type="float16")
    ) as store:
        with pytest.raises(EmbeddingError, match="direction"):
            await store.memories.add("x", embedding=[0, 0])
        await store.memories.add("x", embedding=[3, 4])
        assert (await store.memories.search([-3, -4]))[0].score == 0.0
        assert (await store.memories.search([0.03, 0.04]))[0].score == pytest.approx(1.0, abs=1e-7)
        assert (await store.memories.search([-4, 3]))[0].score == pytest.approx(0.5, abs=1e-7)


async def test_members_that_cancel_out_leave_no_composite_on_the_sphere_and_one_in_the_ball(tmp_path: Path) -> None:
    for metric, expected in (("spherical", None), ("hyperbolic", [0, 0])):
        async with memstore.open(tmp_path / metric, dimension=2, metric=metric) as store:
            for id, sign in (("a", 1), ("b", -1)):
                await store.memories.add(id, id=id, embedding=[0.3 * sign, 0.9 * sign])
            group = await store.assemblies.add("g", members=["a", "b"])
            assert (None if group.composite is None else group.composite.tolist()) == expected
            assert len(await store.assemblies.search([0.1, 0.1])) == (expected is not None)
            assert await store.check() == []


async def test_what_rounding_leaves_of_members_on_all_sides_is_no_finding(path: Path, rng: np.random.Generator) -> None:
    rows = outwards(rng, 40, DIMENSION, 1.0)
    async with memstore.open(path, dimension=DIMENSION, metric="hyperbolic") as store:
        both = [(f"{i}{sign}", sign * row) for sign in (1, -1) for i, row in enumerate(rows)]
        await store.memories.add_many([{"id": id, "content": "", "embedding": row} for id, row in both])
        await store.assemblies.add("g")
        for i in rng.permutation(len(both)):
            await store.assemblies.add_members("g", [both[i][0]])
        group = await store.assemblies.get("g")
        assert 0 < np.linalg.norm(group.composite) < 1e-12, "another order leaves another"
        assert await store.check() == []


async def test_composites_in_the_ball_follow_their_members_and_check_sees_one_that_does_not(
    path: Path, rng: np.random.Generator
) -> None:
    rows = outwards(rng, 60, DIMENSION, 1.0)
    async with memstore.open(path, dimension=DIMENSION, metric="hyperbolic") as store:
        await store.memories.add_many([{"id": str(i), "content": "", "embedding": row} for i, row in enumerate(rows)])
        await store.assemblies.add("g", members=map(str, range(30)))
        await store.assemblies.add_members("g", map(str, range(30, 60)))
        await store.assemblies.remove_members("g", map(str, range(0, 60, 3)))
        remaining = [rows[i].astype(np.float64) for i in range(60) if i % 3]
        group = await store.assemblies.get("g")
        np.testing.assert_allclose(group.composite, midpoint(remaining), rtol=1e-5, atol=1e-7)
        assert await store.check() == []
        with closing(sqlite3.connect(path)) as other:
            wrong = np.full(DIMENSION, 0.1, dtype=np.float32).tobytes()
            other.execute("UPDATE assembly_vector SET vector = ?", (wrong,))
            other.commit()
        assert [(finding.kind, finding.id) for finding in await store.check()] == [("composite", "g")]
        await store.repair()
        assert await store.check() == []


# -- curvature


async def test_the_curvature_is_stored_and_another_is_refused(path: Path) -> None:
    async with memstore.open(path, dimension=2, metric="hyperbolic", curvature=0.25) as store:
        await store.memories.add("beyond the unit ball", id="far", embedding=[1.5, 0])
        assert (store.metric, store.curvature, (await store.stats()).curvature) == ("hyperbolic", 0.25, 0.25)
    for options in ({}, {"curvature": 0.25}, {"metric": "hyperbolic"}):
        async with memstore.open(path, **options) as store:
            assert store.curvature == 0.25
            origin = (await store.memories.search([0, 0]))[0]
            assert origin.score == pytest.approx(score("hyperbolic", np.zeros(2), np.array([1.5, 0]), 0.25))
    with pytest.raises(SettingsMismatchError) as caught:
        await memstore.open(path, curvature=1.0)
    assert (caught.value.setting, caught.value.expected, caught.value.got) == ("curvature", 0.25, 1.0)
    assert (await memstore.verify(path)).curvature == 0.25


async def test_a_hyperbolic_store_is_of_curvature_1_unless_it_is_said(path: Path) -> None:
    async with memstore.open(path, dimension=2, metric="hyperbolic") as store:
        assert store.curvature == 1.0
    async with memstore.open(path, curvature=1) as store:
        assert store.curvature == 1.0


@pytest.mark.parametrize("metric", [None, "cosine", "l2", "inner_product", "spherical"])
async def test_only_a_hyperbolic_store_has_a_curvature(path: Path, metric: Any) -> None:
    with pytest.raises(InvalidError, match="curvature"):
        await memstore.open(path, dimension=2, metric=metric, curvature=1.0)
    assert not path.exists()
    async with memstore.open(path, dimension=2, metric=metric) as store:
        assert (store.curvature, (await store.stats()).curvature) == (None, None)
    with pytest.raises((SettingsMismatchError, InvalidError), match="curvature"):
        await memstore.open(path, metric=metric, curvature=1.0)


@pytest.mark.parametrize("curvature", [0, -1, 1e-7, 1e7, float("nan"), float("inf"), "1", True, [1.0]])
async def test_what_is_no_curvature_is_refused(path: Path, curvature: Any) -> None:
    with pytest.raises(InvalidError, match="Invalid curvature: expected a number"):
        await memstore.open(path, dimension=2, metric="hyperbolic", curvature=curvature)
    assert not path.exists()


@pytest.mark.parametrize("stored", ["NULL", "0.0", "-1.0", "'x'", "x'00'", "9e999"])
async def test_a_file_whose_curvature_cannot_be_is_damaged(path: Path, stored: str) -> None:
    async with memstore.open(path, dimension=2, metric="hyperbolic"):
        pass
    with closing(sqlite3.connect(path)) as other:
        other.execute(f"UPDATE vector_space SET curvature = {stored}")
        other.commit()
    with pytest.raises(DamagedError):
        await memstore.open(path)


async def test_a_curvature_where_there_is_none_is_damage(path: Path) -> None:
    async with memstore.open(path, dimension=2):
        pass
    with closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE vector_space SET curvature = 1.0")
        other.commit()
    with pytest.raises(DamagedError):
        await memstore.open(path)


async def test_a_store_restored_with_another_curvature_is_noticed(tmp_path: Path) -> None:
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    async with memstore.open(new, dimension=2, metric="hyperbolic", curvature=2.0) as store:
        await store.memories.add("new", embedding=[0.1, 0.1])
        await store.backup(tmp_path / "new.bak")
    async with memstore.open(old, dimension=2, metric="hyperbolic") as store:
        await store.memories.add("old", embedding=[0.9, 0.1])
        assert (await memstore.restore_backup(tmp_path / "new.bak", old)).curvature == 2.0
        with pytest.raises(SettingsMismatchError, match="curvature") as caught:
            await store.memories.search([0.1, 0.1])
        assert (caught.value.setting, caught.value.expected, caught.value.got) == ("curvature", 2.0, 1.0)
    async with memstore.open(old) as store:
        assert store.curvature == 2.0


@pytest.mark.parametrize("metric", ["spherical", "hyperbolic"])
async def test_a_file_is_not_taken_back_to_where_its_space_is_unknown(path: Path, metric: Metric) -> None:
    async with memstore.open(path, dimension=2, metric=metric) as store:
        await store.memories.add("x", embedding=[0.1, 0.2])
    refused = alembic(path, "downgrade", "0002")
    assert (refused.returncode != 0, "holds vectors of a space" in refused.stderr) == (True, True)
    async with memstore.open(path) as store:
        assert store.metric == metric
        assert await store.check() == []


# -- in another order


async def test_reranking_is_by_the_weighted_sum_and_nothing_else(path: Path, rng: np.random.Generator) -> None:
    rows, query = vectors(rng, 60), vectors(rng, 1)[0]
    weights = {"l2": 0.5, "spherical": 2.0, "hyperbolic": 0.25}
    async with memstore.open(path, dimension=DIMENSION) as store:
        await store.memories.add_many([{"id": str(i), "content": "", "embedding": row} for i, row in enumerate(rows)])
        for i in range(8):
            await store.assemblies.add(f"g{i}", members=map(str, range(i, 60, 8)))
        hits = await store.memories.search(query, 40)
        groups = await store.assemblies.search(query, 5)
    again = memstore.rerank(hits, query, weights=weights)

    def expected(vector: Any) -> float:
        x, y = query.astype(np.float64), vector.astype(np.float64)
        inside = [into_ball(v).astype(np.float64) for v in (x, y)]
        ball = ball_distance(*inside)
        return 0.5 * distance("l2", x, y) + 2 * distance("spherical", x, y) + 0.25 * ball

    sums = sorted(expected(hit.memory.embedding) for hit in hits)
    assert [hit.score for hit in again] == pytest.approx([1 / (1 + value) for value in sums], rel=1e-6)
    assert {hit.memory.id for hit in again} == {hit.memory.id for hit in hits}
    assert [hit.memory.id for hit in again] != [hit.memory.id for hit in hits], "the weights have a say"
    alone = memstore.rerank(hits, query, weights={"spherical": 1})
    assert [hit.memory.id for hit in alone] == [hit.memory.id for hit in hits]
    ordered = memstore.rerank(groups, query, weights={"l2": 1.0})
    assert [1 / hit.score - 1 for hit in ordered] == pytest.approx(
        sorted(float(np.linalg.norm(hit.assembly.composite.astype(np.float64) - query)) for hit in groups)
    )
    assert memstore.rerank([], query, weights={"l2": 1}) == []


async def test_reranking_the_hits_of_a_hyperbolic_store_goes_by_its_own_ball(
    path: Path, rng: np.random.Generator
) -> None:
    rows = outwards(rng, 40, DIMENSION, 2.0)
    async with memstore.open(path, dimension=DIMENSION, metric="hyperbolic", curvature=0.25) as store:
        await store.memories.add_many([{"id": str(i), "content": "", "embedding": row} for i, row in enumerate(rows)])
        hits = await store.memories.search(rows[0], 20)
        again = memstore.rerank(hits, rows[0], weights={"hyperbolic": 1.0}, curvature=store.curvature)
    assert [(hit.memory.id, hit.score) for hit in again] == [(hit.memory.id, pytest.approx(hit.score)) for hit in hits]


async def test_reranking_refuses_what_it_cannot_weigh(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("x", embedding=[1, 2])
        hits = await store.memories.search([1, 1])
    wrong: list[Any] = [
        {},
        {"l2": 0},
        {"l2": -1},
        {"l2": np.nan},
        {"l2": "1"},
        {"cosine": 1},
        {"l2": 1, "ball": 1},
        None,
    ]
    for weights in wrong:
        with pytest.raises(InvalidError, match="weights"):
            memstore.rerank(hits, [1, 1], weights=weights)
        with pytest.raises(InvalidError, match="weights"):
            memstore.rerank([], [1, 1], weights=weights)
    with pytest.raises(DimensionError):
        memstore.rerank(hits, [1, 1, 1], weights={"l2": 1})
    with pytest.raises(InvalidError, match="curvature"):
        memstore.rerank(hits, [1, 1], weights={"hyperbolic": 1}, curvature=-1)


def test_a_mixed_sum_is_no_metric_of_any_of_its_spaces() -> None:
    """A term to rank by: what it says of two vectors depends on units that have nothing to do with each other."""
    x, y = np.float32([1, 0]), np.float32([[2, 0]])
    assert weighted_distances({"spherical": 1}, x, y)[0] == 0, "two vectors, and no distance between them"
    assert (
        weighted_distances({"l2": 1, "spherical": 1}, 2 * x, 2 * y)[0]
        == 2 * weighted_distances({"l2": 1, "spherical": 1}, x, y)[0]
    )


@pytest.mark.parametrize("metric", get_args(Metric))
async def test_vectors_come_back_bit_for_bit(path: Path, metric: Metric, rng: np.random.Generator) -> None:
    rows = placed(metric, vectors(rng, 5))
    async with memstore.open(path, dimension=DIMENSION, metric=metric) as store:
        for i, row in enumerate(rows):
            assert (await store.memories.add("", id=str(i), embedding=row)).embedding.tobytes() == row.tobytes()
    async with memstore.open(path) as store:
        assert [m.embedding.tobytes() async for m in store.memories.list()] == [row.tobytes() for row in rows]


# -- the command line


def test_the_commands_make_show_export_and_import_a_curved_store(tmp_path: Path) -> None:
    first, second, lines = tmp_path / "a.db", tmp_path / "b.db", tmp_path / "a.jsonl"

    def ok(*arguments: object) -> str:
        done = CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "120"})
        assert done.exit_code == 0, (done.output, done.exception)
        return done.stdout

    curved = ("--metric", "hyperbolic", "--curvature", "0.25")
    ok("add", "far out", "--id", "far", "-e", "[1.5, 0]", *curved, "-f", first)
    ok("add", "the origin", "--id", "near", "-e", "[0, 0]", "-f", first)
    for output in (ok("stats", "-f", first), ok("verify", first)):
        assert "dimension 2, compared by hyperbolic, of curvature -0.25" in output
    assert json.loads(ok("stats", "--json", "-f", first))["curvature"] == 0.25
    ok("export", lines, "-f", first)
    assert json.loads(lines.read_text().splitlines()[0])["curvature"] == 0.25
    ok("import", lines, "-f", second)
    for file in (first, second):
        (hit, _) = (json.loads(line) for line in ok("search", "-e", "[1.4, 0]", "--json", "-f", file).splitlines())
        assert hit["score"] == pytest.approx(score("hyperbolic", np.array([1.4, 0]), np.array([1.5, 0]), 0.25))
    refused = CliRunner().invoke(app, ["import", str(lines), "--curvature", "1", "-f", str(second)])
    assert refused.exit_code == 1
    assert "curvature" in refused.stderr

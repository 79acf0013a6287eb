"""Stores in every vector space: searches, composites, curvature, and what each metric refuses."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest

import memstore
from benchmarks.spaces import tree
from memstore import DamagedError, DimensionError, EmbeddingError, InvalidError, Metric, SettingsMismatchError
from memstore.testing import HashEmbedder
from memstore.vectors import into_ball
from tests.conftest import DIMENSION, vectors
from tests.database.test_migrations import alembic
from tests.support.clusters import small_graphs
from tests.support.spaces import ball_distance, ball_distances, ball_vectors, distance, midpoint, placed, score

Rows = npt.NDArray[np.float32]
Wide = npt.NDArray[np.float64]


async def test_hyperbolic_search_is_exact(path: Path, rng: np.random.Generator) -> None:
    rows = ball_vectors(rng, 600, DIMENSION, 2.0)
    async with memstore.open(path, dimension=DIMENSION, metric="hyperbolic", curvature=0.25) as store:
        await store.memories.add_many([{"id": str(i), "content": "", "embedding": row} for i, row in enumerate(rows)])
        for query in ball_vectors(rng, 20, DIMENSION, 2.0):
            expected = 1 / (1 + ball_distances(query.astype(np.float64), rows.astype(np.float64), 0.25))
            hits = await store.memories.search(query, 7)
            assert [hit.score for hit in hits] == pytest.approx(np.sort(expected)[::-1][:7].tolist(), rel=1e-9)
            assert [hit.score for hit in hits] == pytest.approx(expected[[int(hit.memory.id) for hit in hits]].tolist())
        async with store.transaction() as tx:
            await tx.memories.add("", id="new", embedding=rows[3])
            assert [hit.score for hit in await tx.memories.search(rows[3], 2)] == [1.0, 1.0]
        assert await store.check() == []


async def test_graph_of_a_hyperbolic_tree_has_its_measured_recall(
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


OUTSIDE = [0.6, 0.8, 0.0]


async def test_vectors_outside_the_ball_are_refused(path: Path) -> None:
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


async def test_embedder_with_vectors_outside_the_ball_is_named(path: Path) -> None:
    class Projected(HashEmbedder):
        def embed(self, texts: Any) -> Any:
            return into_ball(super().embed(texts))

    async with memstore.open(path, embedder=HashEmbedder(8), metric="hyperbolic") as store:
        with pytest.raises(memstore.EmbedderError, match=r"hash-8-0.*into_ball"):
            await store.memories.add("tea")
    async with memstore.open(path, embedder=Projected(8)) as store:
        await store.memories.add("green tea")
        assert (await store.memories.search("green tea"))[0].score == 1.0


async def test_zero_vector_is_refused_on_the_sphere(path: Path) -> None:
    async with memstore.open(
        path, dimension=2, metric="spherical", index=memstore.IndexOptions(vector_type="float16")
    ) as store:
        with pytest.raises(EmbeddingError, match="direction"):
            await store.memories.add("x", embedding=[0, 0])
        await store.memories.add("x", embedding=[3, 4])
        assert (await store.memories.search([-3, -4]))[0].score == 0.0
        assert (await store.memories.search([0.03, 0.04]))[0].score == pytest.approx(1.0, abs=1e-7)
        assert (await store.memories.search([-4, 3]))[0].score == pytest.approx(0.5, abs=1e-7)


async def test_members_that_cancel_out_have_a_composite_only_in_the_ball(tmp_path: Path) -> None:
    for metric, expected in (("spherical", None), ("hyperbolic", [0, 0])):
        async with memstore.open(tmp_path / metric, dimension=2, metric=metric) as store:
            for id, sign in (("a", 1), ("b", -1)):
                await store.memories.add(id, id=id, embedding=[0.3 * sign, 0.9 * sign])
            group = await store.assemblies.add("g", members=["a", "b"])
            assert (None if group.composite is None else group.composite.tolist()) == expected
            assert len(await store.assemblies.search([0.1, 0.1])) == (expected is not None)
            assert await store.check() == []


async def test_rounding_errors_of_a_composite_are_not_a_finding(path: Path, rng: np.random.Generator) -> None:
    rows = ball_vectors(rng, 40, DIMENSION, 1.0)
    async with memstore.open(path, dimension=DIMENSION, metric="hyperbolic") as store:
        both = [(f"{i}{sign}", sign * row) for sign in (1, -1) for i, row in enumerate(rows)]
        await store.memories.add_many([{"id": id, "content": "", "embedding": row} for id, row in both])
        await store.assemblies.add("g")
        for i in rng.permutation(len(both)):
            await store.assemblies.add_members("g", [both[i][0]])
        group = await store.assemblies.get("g")
        assert 0 < np.linalg.norm(group.composite) < 1e-12, "another order leaves another"
        assert await store.check() == []


async def test_composites_in_the_ball_follow_their_members_and_are_checked(
    path: Path, rng: np.random.Generator
) -> None:
    rows = ball_vectors(rng, 60, DIMENSION, 1.0)
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


async def test_the_default_curvature_is_1(path: Path) -> None:
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
async def test_invalid_curvature_is_refused(path: Path, curvature: Any) -> None:
    with pytest.raises(InvalidError, match="Invalid curvature: expected a number"):
        await memstore.open(path, dimension=2, metric="hyperbolic", curvature=curvature)
    assert not path.exists()


@pytest.mark.parametrize(
    ("metric", "stored"),
    [("cosine", "1.0"), *(("hyperbolic", stored) for stored in ("NULL", "0.0", "-1.0", "'x'", "x'00'", "9e999"))],
)
async def test_an_invalid_stored_curvature_is_damage(path: Path, metric: Metric, stored: str) -> None:
    async with memstore.open(path, dimension=2, metric=metric):
        pass
    with closing(sqlite3.connect(path)) as other:
        other.execute(f"UPDATE vector_space SET curvature = {stored}")
        other.commit()
    with pytest.raises(DamagedError):
        await memstore.open(path)


async def test_restore_with_another_curvature_is_detected(tmp_path: Path) -> None:
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
async def test_downgrade_to_a_revision_without_the_space_is_refused(path: Path, metric: Metric) -> None:
    async with memstore.open(path, dimension=2, metric=metric) as store:
        await store.memories.add("x", embedding=[0.1, 0.2])
    refused = alembic(path, "downgrade", "0002")
    assert (refused.returncode != 0, "holds vectors of a space" in refused.stderr) == (True, True)
    async with memstore.open(path) as store:
        assert store.metric == metric
        assert await store.check() == []


# -- in another order


async def test_rerank_orders_by_the_weighted_sum(path: Path, rng: np.random.Generator) -> None:
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


async def test_rerank_uses_the_curvature_of_the_store(path: Path, rng: np.random.Generator) -> None:
    rows = ball_vectors(rng, 40, DIMENSION, 2.0)
    async with memstore.open(path, dimension=DIMENSION, metric="hyperbolic", curvature=0.25) as store:
        await store.memories.add_many([{"id": str(i), "content": "", "embedding": row} for i, row in enumerate(rows)])
        hits = await store.memories.search(rows[0], 20)
        again = memstore.rerank(hits, rows[0], weights={"hyperbolic": 1.0}, curvature=store.curvature)
    assert [(hit.memory.id, hit.score) for hit in again] == [(hit.memory.id, pytest.approx(hit.score)) for hit in hits]


async def test_rerank_refuses_invalid_weights(path: Path) -> None:
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


@pytest.mark.parametrize("metric", get_args(Metric))
async def test_vectors_are_returned_bit_for_bit(path: Path, metric: Metric, rng: np.random.Generator) -> None:
    rows = placed(metric, vectors(rng, 5))
    async with memstore.open(path, dimension=DIMENSION, metric=metric) as store:
        for i, row in enumerate(rows):
            assert (await store.memories.add("", id=str(i), embedding=row)).embedding.tobytes() == row.tobytes()
    async with memstore.open(path) as store:
        assert [m.embedding.tobytes() async for m in store.memories.list()] == [row.tobytes() for row in rows]

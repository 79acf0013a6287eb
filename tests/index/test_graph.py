"""Searches of a store with a graph, unindexed and deleted entries, compared with NumPy under every argument."""

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pytest

from memstore import GraphOptions, Hit, Hits, Store
from memstore.index import planner
from memstore.repository.sqlite_only import change_log
from tests.support.children import Child, Link
from tests.support.clusters import (
    DIMENSION,
    Rows,
    attached,
    by_hand,
    check_hits,
    closeness,
    clustered,
    opened,
    put,
    small_graphs,
)
from tests.support.model import at
from tests.support.spaces import placed

COUNT, UNINDEXED, CLUSTERS = 3_000, 90, 60
Mask = npt.NDArray[np.bool_]
SHARES = {"half": 0.5, "fifth": 0.2, "tenth": 0.1, "twentieth": 0.05, "hundredth": 0.01, "thousandth": 0.001}
FORMS = [
    ("cosine", "float32"),
    ("cosine", "float16"),
    ("inner_product", "float32"),
    ("l2", "float32"),
    ("spherical", "float16"),
    ("hyperbolic", "float32"),
]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_graphs(monkeypatch, MIN_ALLOWED_SHARE=0.02)


@dataclass
class World:
    """What is in a store, and queries near to some of that; *towards* is where the important ones are."""

    metric: str
    rows: Rows
    tags: list[set[str]]
    spaces: list[tuple[str, ...]]
    importance: npt.NDArray[np.float64]
    deleted: Mask
    queries: Rows
    towards: Rows
    store: Store = None  # type: ignore[assignment]

    def live(self) -> Mask:
        return ~self.deleted

    def tagged(self, *tags: str) -> Mask:
        return np.array([set(tags) <= record_tags for record_tags in self.tags]) & ~self.deleted

    def within(self, namespace: tuple[str, ...], *, recursive: bool) -> Mask:
        inside = [n == namespace or (recursive and n[: len(namespace)] == namespace) for n in self.spaces]
        return np.array(inside) & ~self.deleted

    def check(
        self,
        answers: list[Hits[Hit]],
        allowed: Mask,
        limit: int = 10,
        queries: Rows | None = None,
        recall: float = 0.99,
    ) -> None:
        """Compare the hits for each of *queries*, or of the queries of the world, with the *allowed* vectors."""
        check_hits(
            answers,
            self.queries if queries is None else queries,
            np.flatnonzero(allowed).astype(str).tolist(),
            self.rows[allowed],
            metric=self.metric,
            limit=limit,
            recall=recall,
        )


def perturbed(metric: str, rng: np.random.Generator, rows: Rows, count: int, spread: float) -> Rows:
    """Vectors near to some of *rows*; in the ball, where there is less room, a tenth as far from them."""
    spread *= 0.1 if metric == "hyperbolic" else 1
    away = spread * rng.standard_normal((count, DIMENSION))
    return (rows[rng.choice(len(rows), count)] + away).astype(np.float32)


def imagined(metric: str) -> World:
    rng = np.random.default_rng(5)
    rows, _ = clustered(rng, COUNT + UNINDEXED, clusters=CLUSTERS)
    lots = rng.random(len(rows))
    rows = placed(metric, rows / 3 if metric == "hyperbolic" else rows)
    towards = perturbed(metric, rng, rows[:1], 10, 0.1)
    rank = np.argsort(np.argsort(closeness(metric, rows[:1], rows)[0]))
    return World(
        metric=metric,
        rows=rows,
        tags=[{tag for tag, share in SHARES.items() if lot < share} for lot in lots],
        spaces=[((), ("u",), ("u", "v"))[i % 3] for i in rng.integers(0, 3, len(rows))],
        importance=rank / len(rows),
        deleted=np.zeros(len(rows), dtype=bool),
        queries=perturbed(metric, rng, rows, 40, 0.2),
        towards=towards,
    )


async def make_world(path: Path, metric: Any, vector_type: Any) -> World:
    """A graph of most records, then unindexed ones, and deleted entries in both: removed, or with another vector."""
    w, rng = imagined(metric), np.random.default_rng(11)
    async with opened(path, metric=metric, vector_type=vector_type, engine="faiss") as store:
        by_hand(store)
        await w_put(store, w, range(COUNT))
        await store.optimize()
        stats = await store.stats()
        assert (stats.index, stats.graph_nodes, stats.unindexed, stats.graph_deleted) == ("graph", COUNT, 0, 0)
        assert stats.recall is not None
        assert stats.recall > 0.99
        await w_put(store, w, range(COUNT, COUNT + UNINDEXED))
        w.deleted[rng.choice(len(w.rows), 200, replace=False)] = True
        await drop(store, w, np.flatnonzero(w.deleted))
        moved = rng.choice(np.flatnonzero(~w.deleted), 150, replace=False)
        w.rows[moved] = perturbed(metric, rng, w.rows, 150, 0.1)
        await w_put(store, w, moved)
    return w


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[Path, World]]:
    """Each made once: the tests open copies, as they are after the log was replayed over the snapshot."""
    made_so_far = {}
    folder = tmp_path_factory.mktemp("worlds")
    with pytest.MonkeyPatch.context() as patch:
        small_graphs(patch)
        for metric, vector_type in FORMS:
            path = folder / f"{metric}-{vector_type}.db"
            made_so_far[metric, vector_type] = path, asyncio.run(make_world(path, metric, vector_type))
    return made_so_far


class Worlds(Protocol):
    def __call__(
        self, metric: str, vector_type: str = "float32", **options: Any
    ) -> AbstractAsyncContextManager[World]: ...


@pytest.fixture
def world(worlds: dict[tuple[str, str], tuple[Path, World]], path: Path, monkeypatch: pytest.MonkeyPatch) -> Worlds:
    @asynccontextmanager
    async def open_copy(metric: str, vector_type: str = "float32", **options: Any) -> AsyncIterator[World]:
        source, w = worlds[metric, vector_type]
        shutil.copyfile(source, path)
        for name in ("MERGE_MIN", "MERGE_MAX", "REBUILD_MIN_DELETED"):
            monkeypatch.setattr(planner, name, 10**6)  # the graph is as it was left, and stays so
        async with opened(path, **{"engine": "faiss", **options}) as store:
            await attached(store)
            stats = await store.stats()
            assert (stats.index, stats.graph_nodes) == ("graph", COUNT)
            assert stats.graph_deleted > 250
            assert stats.unindexed > 200
            yield replace(w, store=store, rows=w.rows.copy(), deleted=w.deleted.copy())
            assert await store.check() == []

    return open_copy


async def drop(face: Any, w: World, numbers: Iterable[int]) -> None:
    numbers = list(numbers)
    for space in set(w.spaces):
        await at(face, space).memories.delete_many(ids=[str(i) for i in numbers if w.spaces[i] == space])


async def w_put(face: Any, w: World, numbers: Iterable[int]) -> None:
    by_space: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for i in numbers:
        item = {"id": str(i), "content": "", "embedding": w.rows[i], "tags": w.tags[i]}
        by_space.setdefault(w.spaces[i], []).append(item | {"importance": float(w.importance[i])})
    for space, items in by_space.items():
        await at(face, space).memories.upsert_many(items)


def methods(answers: Collection[Hits[Any]]) -> list[str]:
    return [hits.plan.method for hits in answers]


every_form = pytest.mark.parametrize(("metric", "vector_type"), FORMS)


@every_form
async def test_the_nearest_are_found_whatever_a_filter_leaves_of_them(
    world: Worlds, metric: str, vector_type: str
) -> None:
    async with world(metric, vector_type) as w:
        memories = w.store.memories
        answers = await memories.search_many(w.queries, recursive=True)
        assert set(methods(answers)) == {"graph"}, [hits.plan for hits in answers]
        assert all(hits.plan.unindexed > 200 and hits.plan.ef_search > 0 for hits in answers)
        w.check(answers, w.live())
        for tag, share in SHARES.items():
            answers = await memories.search_many(w.queries, tags=[tag], recursive=True)
            w.check(answers, w.tagged(tag))
            by_graph = methods(answers).count("graph")
            if share >= (0.1 if vector_type == "float32" else 0.5):
                assert by_graph >= 0.9 * len(answers), f"{tag}: the graph gave {by_graph} of {len(answers)}"
            if share <= 0.01:
                assert by_graph == 0


@every_form
async def test_a_filter_against_the_query_costs_nothing(world: Worlds, metric: str, vector_type: str) -> None:
    """All that lies near to the query is forbidden: the graph's list holds nothing that is allowed."""
    async with world(metric, vector_type) as w:
        search = w.store.memories.search_many
        for share in SHARES.values():
            answers = await search(w.towards, where={"importance": {"$lt": share}}, recursive=True)
            w.check(answers, (w.importance < share) & ~w.deleted, queries=w.towards)
            if share == 0.5:
                assert {hits.plan.reason for hits in answers} == {"the graph found too few"}
            answers = await search(w.towards, where={"importance": {"$gte": 1 - share}}, recursive=True)
            w.check(answers, (w.importance >= 1 - share) & ~w.deleted, queries=w.towards)


@every_form
async def test_a_search_gives_as_many_as_are_wanted(world: Worlds, metric: str, vector_type: str) -> None:
    async with world(metric, vector_type, index="graph") as w:
        for limit in (1, 3, 60, 400):
            queries = w.queries if limit < 60 else w.queries[:10]
            for arguments, allowed in (({}, w.live()), ({"tags": ["half"]}, w.tagged("half"))):
                answers = await w.store.memories.search_many(queries, limit, recursive=True, **arguments)
                w.check(answers, allowed, limit, queries, recall=0.97)
                if limit <= 60:
                    assert methods(answers).count("graph") >= 0.9 * len(answers), answers[0].plan


@every_form
async def test_every_other_argument_means_beside_a_graph_what_it_means_without(
    world: Worlds, metric: str, vector_type: str
) -> None:
    async with world(metric, vector_type) as w:
        for namespace in ((), ("u",), ("u", "v"), ("w",)):
            for recursive in (False, True):
                answers = await at(w.store, namespace).memories.search_many(w.queries, recursive=recursive)
                w.check(answers, w.within(namespace, recursive=recursive))
                if namespace == ("u",):
                    assert "graph" in methods(answers)
        answers = await at(w.store, ("u",)).memories.search_many(w.queries, recursive=True, tags=["half"])
        w.check(answers, w.within(("u",), recursive=True) & w.tagged("half"))
        for query in w.queries[:5]:
            every = await w.store.memories.search(query, 30, recursive=True)
            hits = await w.store.memories.search(query, 30, recursive=True, min_score=every[12].score)
            assert [hit.memory.id for hit in hits] == [hit.memory.id for hit in every[:13]]
            assert hits.plan.method == "graph"
        assert await w.store.memories.search_many(np.empty((0, DIMENSION), dtype=np.float32)) == []


@every_form
async def test_what_is_not_committed_is_found_in_its_transaction_alone(
    world: Worlds, metric: str, vector_type: str
) -> None:
    async with world(metric, vector_type) as w:
        inside = replace(w, rows=w.rows.copy(), deleted=w.deleted.copy())
        similarities = closeness(metric, w.queries, w.rows)
        similarities[:, w.deleted] = -np.inf
        nearest = np.argsort(-similarities, axis=1)[:, :2]
        killed = np.unique(nearest[:20])
        moved = np.setdiff1d(nearest[20:], killed)
        async with w.store.transaction() as tx:
            await drop(tx, inside, killed)
            inside.deleted[killed] = True
            inside.rows[moved] = -inside.rows[moved]
            await w_put(tx, inside, moved)
            answers = await tx.memories.search_many(w.queries, recursive=True)
            inside.check(answers, inside.live())
            assert "graph" in methods(answers)
            assert {hits.plan.uncommitted for hits in answers} == {len(moved)}
            w.check(await w.store.memories.search_many(w.queries, recursive=True), w.live())
        inside.check(await w.store.memories.search_many(w.queries, recursive=True), inside.live())


async def test_what_expires_leaves_a_graph_at_once_and_the_graph_goes_on_answering(world: Worlds) -> None:
    async with world("cosine") as w:
        similarities = closeness("cosine", w.queries[:10], w.rows)
        similarities[:, w.deleted] = -1
        first = np.unique(np.argsort(-similarities, axis=1)[:, :2])
        for ttl in (3_600, 0.5):
            async with w.store.transaction() as tx:
                for i in first:
                    await at(tx, w.spaces[i]).memories.update(str(i), ttl=ttl)
            if ttl == 3_600:
                w.check(await w.store.memories.search_many(w.queries, recursive=True), w.live())
        await asyncio.sleep(0.6)  # the last expires half a second after the transaction
        w.deleted[first] = True
        answers = await w.store.memories.search_many(w.queries, recursive=True)
        w.check(answers, w.live())
        assert methods(answers).count("graph") >= 36


async def test_deleted_entries_are_found_by_nobody_however_many_and_near_they_are(world: Worlds) -> None:
    """All neighbours of the query are deleted: searches pass through deleted nodes to live ones."""
    async with world("l2") as w:
        await drop(w.store, w, np.flatnonzero((w.importance > 0.85) & ~w.deleted))
        w.deleted |= w.importance > 0.85
        w.check(await w.store.memories.search_many(w.towards, recursive=True), w.live(), queries=w.towards)
        answers = await w.store.memories.search_many(w.queries, recursive=True)
        w.check(answers, w.live())
        assert "graph" in methods(answers)


async def test_a_graph_of_assemblies_is_searched_as_one_of_memories(path: Path) -> None:
    rng = np.random.default_rng(6)
    rows, _ = clustered(rng, 600)
    async with opened(path, engine="faiss") as store:
        by_hand(store)
        await put(store, rows)
        async with store.transaction() as tx:
            for i in range(300):
                await tx.assemblies.add(str(i), members=[str(i), str(i + 300)], tags={"even"} if i % 2 == 0 else ())
        await store.optimize()
        nodes = store._follower.indexes.by_kind["assembly"].nodes
        assert nodes == 300
        await store.memories.update("7", embedding=rows[200])
        await store.assemblies.delete("11")
        composites = {a.id: a.composite async for a in store.assemblies.list()}
        even = {id for id in composites if int(id) % 2 == 0}
        queries = rows[rng.choice(600, 30)]
        for expected_ids, arguments in ((set(composites), {}), (even, {"tags": ["even"]})):
            answers = await store.assemblies.search_many(queries, 5, **arguments)
            assert "graph" in methods(answers)
            ids = sorted(expected_ids)
            check_hits(answers, queries, ids, np.stack([composites[id] for id in ids]), limit=5, recall=0.98)
        assert await store.check() == []


async def test_vectors_beyond_float32_products_are_left_to_the_exact_search(path: Path) -> None:
    rng = np.random.default_rng(9)
    rows, _ = clustered(rng, 500)
    async with opened(path, metric="l2", engine="faiss") as store:
        by_hand(store)
        await put(store, rows)
        await store.memories.add("huge", id="huge", embedding=np.full(DIMENSION, 3e38))
        await store.optimize()
        hits = await store.memories.search(rows[3], 3)
        assert hits.plan.method == "exact"
        assert hits[0].memory.id == "3"
        (hit,) = await store.memories.search(np.full(DIMENSION, 3e38), 1)
        assert hit.memory.id == "huge"
        assert await store.check() == []


@pytest.mark.parametrize("m", [4, 16, 64])
async def test_equal_vectors_are_all_found(path: Path, m: int) -> None:
    """Many of the same vector: whichever come, as many as wanted, and none twice."""
    rows = np.repeat(np.eye(DIMENSION, dtype=np.float32)[:20], 30, axis=0)
    async with opened(path, engine="faiss", index="graph", graph=GraphOptions(m=m)) as store:
        by_hand(store)
        await put(store, rows)
        await store.optimize()
        for i in range(20):
            hits = await store.memories.search(np.eye(DIMENSION)[i], 30)
            assert {int(hit.memory.id) // 30 for hit in hits} == {i}
            assert len({hit.memory.id for hit in hits}) == 30


async def test_the_ef_search_that_was_asked_for_is_the_one_that_is_used(path: Path) -> None:
    rng = np.random.default_rng(3)
    rows, _ = clustered(rng, 800)
    options = GraphOptions(m=8, ef_construction=40, ef_search=33)
    async with opened(path, index="graph", graph=options) as store:
        by_hand(store)
        await put(store, rows)
        await store.optimize()
        stats = await store.stats()
        assert stats.ef_search == 33
        assert (await store.memories.search(rows[0], 5)).plan.ef_search == planner.ef_search_for(33, 5)


@pytest.mark.parametrize("together", [600, 1_200])
async def test_a_table_that_grows_takes_its_graph_along(path: Path, together: int) -> None:
    """Room is made when it is needed, or for many at once before they come."""
    rows, _ = clustered(np.random.default_rng(3), 300 + together)
    async with opened(path, index="graph") as store:
        by_hand(store)
        await put(store, rows[:300])
        await store.optimize()
        index = store._follower.indexes.by_kind["memory"]
        before = index.table.storage.owner
        await store.memories.add_many([{"content": "", "embedding": row} for row in rows[300:]])
        assert index.table.storage.owner is not before
        assert index.graph is not None
        assert index.graph.nodes == 300
        assert index.graph._owner is index.table.storage.owner, "what it grew out of is kept in memory"
        hits = await store.memories.search(rows[7], 1)
        assert (hits.plan.method, hits[0].memory.id) == ("graph", "7")


async def test_what_float16_cannot_tell_apart_is_told_apart_by_the_stored_vectors(path: Path) -> None:
    """Vectors so near to each other that float16 puts them in another order: more are taken, and scored again."""
    rng = np.random.default_rng(13)
    centres = rng.standard_normal((15, DIMENSION))
    rows = (np.repeat(centres, 40, axis=0) + 0.02 * rng.standard_normal((600, DIMENSION))).astype(np.float32)
    async with opened(path, vector_type="float16", index="graph", graph=GraphOptions(ef_search=100)) as store:
        by_hand(store)
        await put(store, rows)
        await store.optimize()
        queries = rows[::12]
        answers = await store.memories.search_many(queries, 10)
        assert set(methods(answers)) == {"graph"}
        right = 0
        for hits, scores in zip(answers, closeness("cosine", queries, rows), strict=True):
            numbers = [int(hit.memory.id) for hit in hits]
            right += len(set(numbers) & set(np.argsort(-scores)[:10].tolist()))
            np.testing.assert_allclose([hit.score for hit in hits], scores[numbers], atol=2e-7)
        assert right >= 0.97 * 10 * len(queries), right


@pytest.mark.parametrize("times", [2, 30])
async def test_equal_vectors_are_no_want_of_recall(path: Path, times: int) -> None:
    rows, _ = clustered(np.random.default_rng(1), 900 // times)
    async with opened(path) as store:
        by_hand(store)
        await put(store, np.repeat(rows, times, axis=0))
        await store.optimize()
        stats = await store.stats()
        assert stats.index == "graph", stats.index_reason
        assert stats.ef_search is not None
        assert stats.ef_search < 256


# -- concurrent searches, writes and merges


def near_centres(rng: np.random.Generator, count: int) -> Rows:
    """Vectors around 30 centres, which are always the same."""
    centres = np.random.default_rng(1).standard_normal((30, DIMENSION))
    return (centres[rng.integers(0, 30, count)] + 0.3 * rng.standard_normal((count, DIMENSION))).astype(np.float32)


async def use_a_file_by_two_stores(_: Link, path: Path, metric: Any, seconds: float) -> None:
    """In a process of its own, because FAISS could crash: two stores write, delete, search and merge at once."""
    small_graphs(
        pytest.MonkeyPatch(), MERGE_MIN=60, MERGE_SHARE=0.02, REBUILD_MIN_DELETED=60, REBUILD_DELETED_SHARE=0.2
    )
    change_log.KEEP = 400
    vectors: dict[str, Rows] = {}
    graphs, capacities = set(), set()
    counts = {"search": 0, "write": 0}
    stop = asyncio.Event()

    def sample(rng: np.random.Generator, ids: Iterable[str], count: int) -> list[str]:
        population = list(ids)
        return [str(id) for id in rng.choice(population, min(len(population), count), replace=False)]

    async def write(store: Store, number: int) -> None:
        rng, new_numbers = np.random.default_rng(number), itertools.count()
        stored: dict[str, Rows] = {}
        while not stop.is_set():
            ids = [f"{number}:{next(new_numbers)}" for _ in range(rng.integers(1, 80))]
            ids += sample(rng, stored, int(rng.integers(0, 40)) if stored else 0)
            batch = dict(zip(ids, near_centres(rng, len(ids)), strict=True))
            await store.memories.upsert_many([{"id": id, "content": "", "embedding": row} for id, row in batch.items()])
            stored |= batch
            if rng.random() < 0.7:
                deleted = sample(rng, stored, 30)
                await store.memories.delete_many(ids=deleted)
                for id in deleted:
                    del stored[id]
            counts["write"] += 1
            await asyncio.sleep(0)
        vectors.update(stored)

    async def search(store: Store, number: int) -> None:
        rng = np.random.default_rng(100 + number)
        while not stop.is_set():
            for hits in await store.memories.search_many(near_centres(rng, 5)):
                scores = [hit.score for hit in hits]
                assert scores == sorted(scores, reverse=True)
                assert len({hit.memory.id for hit in hits}) == len(hits) == min(10, hits.plan.allowed)
            counts["search"] += 1
            index = store._follower.indexes.by_kind.get("memory")
            if index is not None:
                graphs.add((store, id(index.graph)))
                capacities.add((store, len(index.table.storage.rows)))

    async def end() -> None:
        await asyncio.sleep(seconds)
        while min(counts.values()) < 10 or len(graphs) < 6 or len(capacities) < 4:
            await asyncio.sleep(0.1)  # a slow machine: the limit of `Child.receive` ends the test
        stop.set()

    async with opened(path, metric=metric, engine="faiss") as one, opened(path, engine="faiss") as two:
        await asyncio.gather(write(one, 1), write(two, 2), search(one, 1), search(one, 2), search(two, 3), end())
        queries = near_centres(np.random.default_rng(7), 40)
        for store in (one, two):
            assert await store.check() == []
            answers = await store.memories.search_many(queries)
            check_hits(answers, queries, list(vectors), np.stack(list(vectors.values())), metric=metric, recall=0.975)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_searches_writes_and_merges_of_two_stores_do_not_disturb_each_other(path: Path, metric: str) -> None:
    with Child(use_a_file_by_two_stores, path, metric, 1.5) as child:
        child.receive()

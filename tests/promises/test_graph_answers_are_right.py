"""No answer of the search graph is wrong without an error: what it finds, and what it says of itself."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memstore
from memstore import IndexOptions
from tests.support.rare_vectors import Rows, long_and_short, of_two_towers, rare, recall, texts_of_few_words, unit

DIMENSION = 96
GRAPH = IndexOptions(kind="graph")


def opened(path: Path, **options: Any) -> Any:
    return memstore.open(path, **{"dimension": DIMENSION, "durability": "relaxed", "index": GRAPH, **options})


async def fill(store: memstore.Store, rows: Rows, first: int = 0) -> None:
    """Add *rows*, whose ids are numbers from *first* on, and fold them into the graph."""
    items = [{"content": "", "id": str(first + i), "embedding": row} for i, row in enumerate(rows)]
    await store.memories.add_many(items)
    await store.optimize()


async def nearest_ids(store: memstore.Store, queries: Rows, limit: int) -> list[list[str]]:
    answers = await store.memories.search_many(queries, limit)
    assert {hits.plan.method for hits in answers} == {"graph"}, answers[0].plan
    return [[hit.memory.id for hit in hits] for hits in answers]


# Rare memories.


async def test_a_memory_far_from_all_others_is_found_after_every_fold(path: Path) -> None:
    rng = np.random.default_rng(1)
    async with opened(path) as store:
        await fill(store, texts_of_few_words(rng, 2_500, DIMENSION))
        queries_so_far: list[Rows] = []
        for turn in range(3):
            rows, queries = rare(rng, 40, DIMENSION)
            queries_so_far.append(queries)
            await fill(store, rows, 10_000 + 40 * turn)
            ids = await nearest_ids(store, np.concatenate(queries_so_far), 1)
            assert [first for (first,) in ids] == [str(10_000 + i) for i in range(len(ids))]
        await fill(store, texts_of_few_words(rng, 1_000, DIMENSION), 2_500)
        assert [first for (first,) in await nearest_ids(store, np.concatenate(queries_so_far), 1)] == [
            str(10_000 + i) for i in range(120)
        ]


async def test_a_rare_memory_is_found_from_the_stored_graph_too(path: Path) -> None:
    rng = np.random.default_rng(2)
    rows, queries = rare(rng, 40, DIMENSION)
    async with opened(path) as store:
        await fill(store, np.concatenate([texts_of_few_words(rng, 2_500, DIMENSION), rows]))
    async with opened(path) as store:
        await store.optimize()
        assert [first for (first,) in await nearest_ids(store, queries, 1)] == [str(2_500 + i) for i in range(40)]
        assert await store.check() == []


async def test_a_small_group_far_from_all_others_is_found(path: Path) -> None:
    rng = np.random.default_rng(3)
    centres, _ = rare(rng, 8, DIMENSION)
    groups = unit(np.repeat(centres, 12, axis=0) + 0.4 * unit(rng.standard_normal((96, DIMENSION))))
    async with opened(path) as store:
        await fill(store, texts_of_few_words(rng, 2_500, DIMENSION))
        await fill(store, groups, 2_500)
        ids = await nearest_ids(store, centres, 10)
        assert (
            recall([[str(int(id) - 2_500) for id in row] for row in ids], (centres @ groups.T).astype(float), 10) == 1
        )


# Copies.


async def test_copies_of_one_vector_hide_no_other_memory(path: Path) -> None:
    rng = np.random.default_rng(4)
    rows = texts_of_few_words(rng, 2_500, DIMENSION)
    copied = texts_of_few_words(rng, 1, DIMENSION)
    async with opened(path) as store:
        await fill(store, rows)
        await fill(store, np.repeat(copied, 500, axis=0), 2_500)
        queries = np.concatenate([rows[::25], texts_of_few_words(rng, 100, DIMENSION, length=4)])
        every = np.concatenate([rows, np.repeat(copied, 500, axis=0)])
        assert recall(await nearest_ids(store, queries, 10), queries.astype(float) @ every.T.astype(float), 10) > 0.99
        assert all(ids[0] == str(25 * i) for i, ids in enumerate(await nearest_ids(store, rows[::25], 1)))


async def test_copies_are_found_all_in_order_of_creation_even_if_the_first_is_deleted(path: Path) -> None:
    rng = np.random.default_rng(5)
    copied = texts_of_few_words(rng, 1, DIMENSION)
    async with opened(path) as store:
        await fill(store, np.concatenate([np.repeat(copied, 60, axis=0), texts_of_few_words(rng, 3_000, DIMENSION)]))
        for limit in (5, 20, 60):
            assert await nearest_ids(store, copied, limit) == [[str(i) for i in range(limit)]]
        await store.memories.delete("0")
        assert await nearest_ids(store, copied, 20) == [[str(i) for i in range(1, 21)]]
    async with opened(path) as store:
        await store.optimize()
        assert await nearest_ids(store, copied, 20) == [[str(i) for i in range(1, 21)]]
        hits = await store.memories.search(copied[0], 3, where={"id": {"$nin": [str(i) for i in range(30)]}})
        assert [hit.memory.id for hit in hits] == ["30", "31", "32"]


# Large limits, and inner product.


@pytest.mark.parametrize("metric", ["cosine", "l2", "inner_product"])
async def test_a_search_for_a_hundred_finds_as_much_as_one_for_ten(path: Path, metric: Any) -> None:
    rows, queries = long_and_short(np.random.default_rng(6), 4_000, DIMENSION)
    async with opened(path, metric=metric) as store:
        await fill(store, rows)
        products = queries.astype(float) @ rows.T.astype(float)
        scores = {
            "inner_product": products,
            "cosine": products / np.linalg.norm(rows.astype(float), axis=1),
            "l2": -np.linalg.norm(queries[:, None].astype(float) - rows, axis=2),
        }[metric]
        for limit in (10, 30, 100):
            answers = await store.memories.search_many(queries, limit)
            assert recall([[hit.memory.id for hit in hits] for hits in answers], scores, limit) >= 0.95
        stats = await store.stats()
        assert stats.recall is not None


# What the store says of its recall.


async def test_deleted_memories_do_not_raise_the_effort(path: Path) -> None:
    rng = np.random.default_rng(8)
    rows = texts_of_few_words(rng, 3_000, DIMENSION)
    async with opened(path) as store:
        await fill(store, rows)
        before = (await store.stats()).ef_search
        await store.memories.delete_many(ids=[str(i) for i in range(0, 3_000, 6)])
    async with opened(path) as store:
        await fill(store, texts_of_few_words(rng, 900, DIMENSION), 3_000)
        stats = await store.stats()
        assert stats.graph_deleted == 500
        assert before is not None
        assert stats.ef_search is not None
        assert stats.ef_search <= 1.5 * before


async def test_a_share_of_real_searches_is_answered_exactly_and_the_effort_follows(path: Path) -> None:
    """The queries are of another distribution than the vectors, which no sample of the vectors shows."""
    rows, queries = of_two_towers(np.random.default_rng(9), 4_000, DIMENSION)
    scores = queries.astype(float) @ rows.T.astype(float)

    async def real_recall() -> float:
        answers = await store.memories.search_many(queries, 10)
        return recall([[hit.memory.id for hit in hits] for hits in answers], scores, 10)

    async with opened(path) as store:
        await fill(store, rows)
        stats = await store.stats()
        assert stats.recall_observed is None
        assert stats.recall is not None
        assert stats.recall > 0.99
        assert await real_recall() < 0.6
        for _ in range(1_000):
            await store.memories.search_many(queries[:50], 10)
            stats = await store.stats()
            if stats.recall_observed is not None and stats.recall_observed > 0.97:
                break
            await asyncio.sleep(0.02)
        assert stats.recall_observed == pytest.approx(await real_recall(), abs=0.05)
        assert stats.recall_observed > 0.95

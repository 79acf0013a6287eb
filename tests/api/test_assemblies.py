"""Assemblies: members, composites, and what becomes of them when members change."""

import itertools
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest

import memstore
from memstore import DuplicateError, InvalidError, Metric, NotFoundError, Store
from tests.conftest import DIMENSION, vectors
from tests.support.spaces import mean, placed


async def expect_composite(store: Store, id: str, rows: npt.NDArray[np.float32]) -> None:
    group = await store.assemblies.get(id)
    expected = mean(store.metric, rows)
    if expected is None:
        assert group.composite is None
        return
    assert group.composite is not None
    away = np.linalg.norm(group.composite.astype(np.float64) - expected)
    assert away <= 1e-6 * np.linalg.norm(expected)
    hits = await store.assemblies.search(placed(store.metric, np.ones(DIMENSION)), 100)
    assert id in [hit.assembly.id for hit in hits]


async def add(store: Store, rows: npt.NDArray[np.float32]) -> list[str]:
    await store.memories.add_many([{"id": f"m{i}", "content": str(i), "embedding": row} for i, row in enumerate(rows)])
    return [f"m{i}" for i in range(len(rows))]


async def test_assembly_is_returned_with_every_field(store: Store, rng: np.random.Generator) -> None:
    rows = vectors(rng, 3)
    ids = await add(store, rows)
    added = await store.assemblies.add(
        "asm:drinks",
        name="Drinks",
        description="what people drink",
        members=ids,
        tags={"taste", "x"},
        topics=["tea", "morning", "tea"],
        metadata={"k": [1]},
    )
    assert added == await store.assemblies.get("asm:drinks")
    assert (added.name, added.description, added.topics) == ("Drinks", "what people drink", ("tea", "morning"))
    assert (added.tags, added.metadata, added.member_count) == ({"taste", "x"}, {"k": [1]}, 3)
    assert [id async for id in store.assemblies.members("asm:drinks")] == ids
    assert [a.id for a in await store.assemblies.containing("m1")] == ["asm:drinks"]
    await expect_composite(store, "asm:drinks", rows)
    hit = (await store.assemblies.search(added.composite))[0]
    assert hit.assembly == added
    assert hit.score == pytest.approx(1)


async def test_memory_and_assembly_may_have_the_same_id(store: Store) -> None:
    await store.memories.add("m", id="same")
    await store.assemblies.add("same", members=["same"])
    assert await store.memories.delete("same") == 1
    assert (await store.assemblies.get("same")).member_count == 0


async def test_invalid_members_change_nothing(store: Store, rng: np.random.Generator) -> None:
    await add(store, vectors(rng, 2))
    with pytest.raises(NotFoundError) as caught:
        await store.assemblies.add("g", members=["m0", "none"], tags={"lost"})
    assert caught.value.id == "none"
    assert await store.assemblies.count() == 0
    await store.assemblies.add("g", members=["m0"])
    with pytest.raises(NotFoundError):
        await store.assemblies.add_members("g", ["m1", "none"])
    assert [id async for id in store.assemblies.members("g")] == ["m0"]
    with pytest.raises(NotFoundError):
        await store.assemblies.add_members("none", ["m0"])
    with pytest.raises(NotFoundError):
        [id async for id in store.assemblies.members("none")]
    with pytest.raises(NotFoundError):
        await store.assemblies.containing("none")
    with pytest.raises(DuplicateError):
        await store.assemblies.add("g")
    with pytest.raises(DuplicateError) as duplicate:
        await store.assemblies.add_many([{"id": "new"}, {"id": "g"}])
    assert duplicate.value.id == "g"
    with pytest.raises(InvalidError):
        await store.assemblies.add("h", members="m0")
    with pytest.raises(InvalidError, match="order"):
        await store.assemblies.add("h", topics={"a", "b"})
    with pytest.raises(InvalidError, match="U\\+0000"):
        await store.assemblies.add("h", topics=["a\0b"])
    with pytest.raises(DuplicateError, match="twice"):
        await store.assemblies.add_many([{"id": "h"}, {"id": "h"}])
    assert [tag async for tag in store.tags.list()] == []


async def test_members_must_be_in_the_namespace_of_the_assembly(store: Store, rng: np.random.Generator) -> None:
    await add(store, vectors(rng, 1))
    with pytest.raises(NotFoundError):
        await store.namespace("other").assemblies.add("g", members=["m0"])


@pytest.mark.parametrize("metric", get_args(Metric))
async def test_composite_does_not_depend_on_the_order_of_changes(path: Path, metric: str) -> None:
    rng = np.random.default_rng(7)
    lengths = np.array([1e-20, 1.0, 1e20, 1e-20])
    rows = placed(metric, vectors(rng, 4) * lengths[:, None] if metric != "hyperbolic" else vectors(rng, 4))
    async with memstore.open(path, dimension=DIMENSION, metric=metric) as store:
        ids = await add(store, rows)
        for i, order in enumerate(itertools.permutations(range(4))):
            group = f"g{i}"
            await store.assemblies.add(group)
            for member in order:
                await store.assemblies.add_members(group, [ids[member]])
            await expect_composite(store, group, rows)
            remaining = set(range(4))
            for member in order[1:]:
                await store.assemblies.remove_members(group, [ids[member]])
                remaining.remove(member)
                await expect_composite(store, group, rows[sorted(remaining)])
        assert await store.check() == []


@pytest.mark.parametrize("metric", get_args(Metric))
async def test_composite_is_exact_for_vectors_of_very_different_lengths(path: Path, metric: str) -> None:
    rng = np.random.default_rng(11)
    longest = 1 if metric == "hyperbolic" else 21
    rows = placed(metric, vectors(rng, 30) * 10.0 ** rng.integers(-20, longest, 30)[:, None])
    async with memstore.open(path, dimension=DIMENSION, metric=metric) as store:
        ids = await add(store, rows)
        await store.assemblies.add("g")
        members: set[int] = set()
        for _ in range(60):
            indices = rng.choice(30, size=rng.integers(1, 5), replace=False).tolist()
            if rng.random() < 0.6:
                await store.assemblies.add_members("g", [ids[i] for i in indices])
                members.update(indices)
            else:
                await store.assemblies.remove_members("g", [ids[i] for i in indices])
                members.difference_update(indices)
            await expect_composite(store, "g", rows[sorted(members)])
        assert await store.check() == []


async def test_members_that_cancel_out_have_no_composite(store: Store, rng: np.random.Generator) -> None:
    row = vectors(rng, 1)[0]
    ids = await add(store, np.stack([row, -row, row * 1e10]))
    await store.assemblies.add("g", members=ids[:2])
    assert (await store.assemblies.get("g")).composite is None
    assert await store.assemblies.search(row) == []
    await store.assemblies.add_members("g", [ids[2]])
    await expect_composite(store, "g", np.stack([row, -row, row]))


async def test_members_without_vectors_do_not_change_the_composite(store: Store, rng: np.random.Generator) -> None:
    rows = vectors(rng, 2)
    ids = await add(store, rows)
    silent = await store.memories.add("no vector")
    group = await store.assemblies.add("g", members=[*ids, silent.id])
    assert group.member_count == 3
    await expect_composite(store, "g", rows)


async def test_composites_follow_changes_and_deletions_of_members(store: Store, rng: np.random.Generator) -> None:
    rows = vectors(rng, 5)
    ids = await add(store, rows[:4])
    await store.assemblies.add("g", members=ids)
    await store.assemblies.add("h", members=ids[:2])
    await store.memories.update("m0", embedding=rows[4])
    await expect_composite(store, "g", rows[[4, 1, 2, 3]])
    await expect_composite(store, "h", rows[[4, 1]])
    await store.memories.delete("m1")
    await expect_composite(store, "g", rows[[4, 2, 3]])
    await expect_composite(store, "h", rows[[4]])
    await store.memories.update("m0", embedding=None)
    await expect_composite(store, "g", rows[[2, 3]])
    assert (await store.assemblies.get("h")).composite is None
    await store.memories.upsert_many([{"id": "m2", "content": "x", "embedding": rows[0]}])
    await expect_composite(store, "g", rows[[0, 3]])
    assert await store.memories.delete_many(where={"id": {"$startswith": "m"}}) == 3
    assert (await store.assemblies.get("g")).composite is None


async def test_adding_a_member_twice_counts_once(store: Store, rng: np.random.Generator) -> None:
    rows = vectors(rng, 2)
    ids = await add(store, rows)
    await store.assemblies.add("g", members=[ids[0], ids[0]])
    before = await store.assemblies.add_members("g", ids)
    after = await store.assemblies.add_members("g", ids)
    assert after.revision == before.revision
    await expect_composite(store, "g", rows)


async def test_assembly_search_is_not_limited_by_the_number_of_memories(store: Store, rng: np.random.Generator) -> None:
    rows = vectors(rng, 200)
    ids = await add(store, rows)
    await store.assemblies.add("far", members=[ids[int(np.argmin(rows @ rows[0]))]])
    assert [hit.assembly.id for hit in await store.assemblies.search(rows[0], 1)] == ["far"]


async def test_update_upsert_list_count_and_delete(store: Store, rng: np.random.Generator) -> None:
    ids = await add(store, vectors(rng, 3))
    await store.assemblies.add_many([{"id": f"g{i}", "name": f"n{i % 2}", "members": ids[: i + 1]} for i in range(3)])
    before = await store.assemblies.get("g1")
    after = await store.assemblies.update("g1", topics=["b", "a"], name="new")
    assert (after.topics, after.name, after.revision) == (("b", "a"), "new", before.revision)
    assert (after.composite == before.composite).all()
    upserted = await store.assemblies.upsert("g1", name="again")
    assert (upserted.member_count, upserted.topics, upserted.created_at) == (2, (), before.created_at)
    emptied = await store.assemblies.upsert("g1", members=[])
    assert (emptied.member_count, emptied.composite) == (0, None)
    assert await store.assemblies.count(where={"name": "n0"}) == 2
    assert await store.assemblies.count(where={"member_count": {"$gte": 3}}) == 1
    assert [a.id async for a in store.assemblies.list(order="-id")] == ["g2", "g1", "g0"]
    assert [
        hit.assembly.id for hit in await store.assemblies.search(np.ones(8), where={"topics": {"$contains": "b"}})
    ] == []
    with pytest.raises(NotFoundError):
        await store.assemblies.update("none", name="x")
    assert await store.assemblies.delete_many(ids=["g0", "none"]) == 1
    assert await store.assemblies.delete("g2") == 1
    assert await store.memories.count() == 3


async def test_a_thousand_members_are_read_page_by_page(store: Store, rng: np.random.Generator) -> None:
    rows = vectors(rng, 1_050)
    ids = await add(store, rows)
    await store.assemblies.add("g", members=reversed(ids))
    assert [id async for id in store.assemblies.members("g")] == ids
    await expect_composite(store, "g", rows)
    await store.assemblies.remove_members("g", ids[10:])
    await expect_composite(store, "g", rows[:10])

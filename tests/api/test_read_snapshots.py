"""`store.snapshot()`: several reads of one state, beside writers."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memstore
from memstore import (
    AssemblyBoost,
    AssemblyForgetPolicy,
    BusyError,
    ClosedError,
    ForgetPolicy,
    ReadOnlyError,
    Store,
    TransactionError,
)
from tests.conftest import vectors

QUERY = [1.0, 1, 0, 0, 0, 0, 0, 0]


async def fill(store: Store, rng: np.random.Generator, count: int = 120) -> None:
    await store.memories.add_many(
        [
            {
                "id": f"m{i}",
                "content": f"text {i}",
                "namespace": ("a",) * (i % 2),
                "embedding": row,
                "tags": {f"t{i % 3}"},
                "importance": i % 10 / 10,
            }
            for i, row in enumerate(vectors(rng, count))
        ]
    )
    await store.assemblies.add_many(
        [{"id": f"g{i}", "members": [f"m{2 * i}", f"m{2 * i + 2}", f"m{2 * i + 4}"]} for i in range(20)]
    )
    await store.memories.forget(await store.memories.plan_forget(ForgetPolicy(where={"id": "m100"})))
    await store.memories.update("m4", importance=0.77)


async def everything(face: Any) -> dict[str, Any]:
    """What every verb that reads returns."""
    memories, assemblies = face.memories, face.assemblies
    boost = AssemblyBoost(threshold=-1.0, weight=0.5)
    plan = await memories.plan_forget(ForgetPolicy(max_count=10))
    group_plan = await assemblies.plan_forget(AssemblyForgetPolicy(members_below=9, older_than=0))
    vectors = await memories.vectors(recursive=True)
    explanation = await memories.explain(QUERY, "m0", boost=boost)
    return {
        "get": await memories.get("m0"),
        "get_many": await memories.get_many(["m0", "m2", "none"]),
        "get_pairs": await memories.get_many([(("a",), "m1"), ((), "m1")]),
        "list": [m async for m in memories.list(recursive=True, order="-importance")],
        "page": (await memories.page(limit=7, recursive=True, where={"importance": {"$gte": 0.5}})).items,
        "count": await memories.count(recursive=True, tags=["t1"]),
        "search": list(await memories.search(QUERY, 1_000, recursive=True)),
        "search near": list(await memories.search(QUERY, 5, tags=["t1"])),
        "search filter": list(await memories.search(QUERY, 9, where={"importance": {"$lt": 0.3}}, recursive=True)),
        "boosted": list(await memories.search(QUERY, 1_000, boost=boost)),
        "explain": [getattr(explanation, name) for name in ("rank", "base_score", "boost", "score", "assembly")],
        "vectors": (vectors.ids, vectors.matrix.tobytes()),
        "history": await memories.history("m4"),
        "plan": plan.candidates,
        "trash": [entry async for entry in memories.trash()],
        "assembly": await assemblies.get("g0"),
        "assemblies": [a async for a in assemblies.list()],
        "groups": list(await assemblies.search(QUERY, 50)),
        "members": [id async for id in assemblies.members("g1")],
        "containing": await assemblies.containing("m4"),
        "group plan": group_plan.candidates,
        "sync": [(await assemblies.sync_state(f"g{i}")).synced for i in range(3)],
        "candidates": await assemblies.merge_candidates(0.2),
        "suggest": (await assemblies.suggest(0.3)).groups,
        "tags": [tag async for tag in face.tags.list()],
        "namespaces": await face.namespaces(),
        "below": [m async for m in face.namespace("a").memories.list()],
    }


async def change(store: Store, rng: np.random.Generator, turn: int) -> None:
    """Changes of every kind."""
    rows = vectors(rng, 20)
    await store.memories.add_many(
        [{"content": "new", "id": f"n{turn}.{i}", "embedding": row} for i, row in enumerate(rows)]
    )
    await store.memories.update_many(where={"tags": {"$contains": "t2"}}, embedding=rows[0], importance=0.9)
    await store.memories.delete_many(ids=[f"m{2 * turn + 20}", f"m{2 * turn + 30}"])
    await store.namespace("a").memories.delete_many(where={"importance": {"$gte": 0.5}})
    await store.assemblies.add_members(f"g{turn + 6}", [f"m{2 * turn + 40}"])
    await store.assemblies.upsert(f"new{turn}", members=[f"n{turn}.0"])
    await store.assemblies.delete(f"g{turn + 10}")
    await store.memories.recover(["m100"]) if turn == 0 else None
    await store.tags.rename("t0", "t00") if turn == 0 else None
    await store.namespace("late", str(turn)).memories.add("x", embedding=rows[1])


@pytest.mark.parametrize("loaded", [True, False], ids=["index loaded", "index not loaded"])
async def test_every_read_sees_the_state_at_which_the_snapshot_began(
    store: Store, loaded: bool, rng: np.random.Generator
) -> None:
    await fill(store, rng)
    if loaded:
        await store.memories.search(QUERY)
    async with store.snapshot() as view:
        expected = None
        for turn in range(3):
            if loaded or turn:  # else the first search of the snapshot comes after the changes
                actual = await everything(view)
                expected = expected or actual
                for verb, value in actual.items():
                    assert value == expected[verb], (turn, verb)
            await change(store, rng, turn)
        actual = await everything(view)
        assert {verb for verb, value in actual.items() if value != (expected or {})[verb]} == set()
        async with store.snapshot() as later:
            current = await everything(store)
            assert await everything(later) == current
            assert current["list"] != actual["list"]
            assert current["search"] != actual["search"]


async def test_the_reads_of_a_snapshot_are_those_of_the_store_before(store: Store, rng: np.random.Generator) -> None:
    await fill(store, rng)
    before = await everything(store)
    async with store.snapshot() as view:
        for turn in range(2):
            await change(store, rng, turn)
        assert await everything(view) == before


@pytest.mark.parametrize("metric", ["cosine", "l2", "inner_product"])
async def test_searches_of_a_snapshot_are_exact_while_others_write(
    path: Path, metric: Any, rng: np.random.Generator
) -> None:
    async with memstore.open(path, dimension=8, metric=metric) as store:
        rows = vectors(rng, 500)
        await store.memories.add_many([{"content": "x", "id": str(i), "embedding": r} for i, r in enumerate(rows)])
        stop = asyncio.Event()

        async def write() -> None:
            turn = 0
            while not stop.is_set():
                turn += 1
                await store.memories.update(str(turn % 500), embedding=vectors(rng, 1)[0])
                await store.memories.add("y", embedding=vectors(rng, 1)[0])

        expected = [list(await store.memories.search(row, 20)) for row in rows[:10]]
        async with store.snapshot() as view:
            writer = asyncio.create_task(write())
            try:
                for _ in range(5):
                    assert [list(await view.memories.search(row, 20)) for row in rows[:10]] == expected
            finally:
                stop.set()
                await writer


async def test_a_snapshot_outlives_a_rebuild_and_a_restore_of_the_index(path: Path, rng: np.random.Generator) -> None:
    async with memstore.open(path, dimension=8) as store:
        await fill(store, rng)
        await store.backup(f"{path}.bak")
        await store.memories.delete_many(where={"tags": {"$contains": "t2"}})
        expected = list(await store.memories.search(QUERY, 1_000))
        groups = list(await store.assemblies.search(QUERY, 1_000))
        async with store.snapshot() as view:
            assert list(await view.memories.search(QUERY, 1_000)) == expected
            await store.repair()
            assert list(await view.memories.search(QUERY, 1_000)) == expected
            await memstore.restore_backup(f"{path}.bak", path)
            assert len(await store.memories.search(QUERY, 1_000)) != len(expected)
            assert list(await view.memories.search(QUERY, 1_000)) == expected
            assert list(await view.assemblies.search(QUERY, 1_000)) == groups


async def test_another_process_writes_beside_a_snapshot(path: Path, rng: np.random.Generator) -> None:
    async with memstore.open(path, dimension=8) as store, memstore.open(path) as other:
        await fill(store, rng)
        async with store.snapshot() as view:
            expected = list(await view.memories.search(QUERY, 50))
            await other.memories.delete_many(where={"importance": {"$gte": 0.2}})
            assert list(await view.memories.search(QUERY, 50)) == expected
            await other.compact()
            assert list(await view.memories.search(QUERY, 50)) == expected


async def test_a_memory_that_expires_meanwhile_stays_in_the_snapshot(store: Store) -> None:
    await store.memories.add("x", id="a", embedding=QUERY, ttl=0.2)
    async with store.snapshot() as view:
        await asyncio.sleep(0.25)
        await store.memories.add("y")
        assert await store.memories.count() == 1
        assert await view.memories.count() == 1
        assert [m.id async for m in view.memories.list()] == ["a"]
        assert [hit.memory.id for hit in await view.memories.search(QUERY)] == ["a"]


async def test_writes_in_a_snapshot_are_refused(store: Store) -> None:
    await store.memories.add("x", id="a", embedding=QUERY)
    await store.assemblies.add("g", members=["a"])
    async with store.snapshot() as view:
        change = (await view.memories.history("a"))[0]
        for call in (
            view.memories.add("y"),
            view.memories.add_many([{"content": "y"}], on_duplicate="skip"),
            view.memories.upsert("y", id="a"),
            view.memories.update("a", importance=1),
            view.memories.update_many(where={}, importance=1),
            view.memories.touch(["a"]),
            view.memories.delete("a"),
            view.memories.purge(older_than=0),
            view.assemblies.merge(["g", "h"]),
            view.assemblies.activate(["g"]),
            view.namespace("n").memories.add("y"),
            view.memories.search(QUERY, boost=AssemblyBoost(threshold=-1.0, record=True)),
            view.tags.delete("t"),
            view.clear(),
            view.undo(change),
        ):
            with pytest.raises(ReadOnlyError, match="snapshot"):
                await call
        assert await view.memories.count() == 1


async def test_a_writer_does_not_wait_for_a_snapshot(store: Store) -> None:
    async with store.snapshot() as view:
        assert await view.memories.count() == 0
        async with store.transaction() as tx:
            await tx.memories.add("x")
            assert await view.memories.count() == 0
        assert await store.memories.count() == 1
        assert await view.memories.count() == 0


async def test_a_snapshot_inside_a_transaction_sees_committed_data(store: Store) -> None:
    await store.memories.add("x", id="a")
    async with store.transaction() as tx:
        await tx.memories.delete("a")
        async with store.snapshot() as view:
            assert await view.memories.count() == 1


async def test_an_ended_snapshot_and_one_of_a_closed_store_raise(path: Path) -> None:
    async with memstore.open(path, dimension=8) as store:
        await store.memories.add_many([{"content": "x"}] * 250)
        async with store.snapshot() as view:
            records = view.memories.list()
            await anext(records)
        for call in (view.memories.count(), view.memories.search(QUERY), view.memories.add("x")):
            with pytest.raises(TransactionError, match="ended"):
                await call
        with pytest.raises(TransactionError, match="ended"):
            async for _ in records:
                pass
        context = store.snapshot()
        view = await context.__aenter__()
    with pytest.raises(ClosedError):
        await view.memories.count()
    await context.__aexit__(None, None, None)


async def test_the_number_of_open_snapshots_is_bounded(path: Path) -> None:
    async with memstore.open(path, dimension=8, timeout=0.3) as store:
        contexts = [store.snapshot() for _ in range(8)]
        views = [await context.__aenter__() for context in contexts]
        assert [await view.memories.count() for view in views] == [0] * 8
        with pytest.raises(BusyError, match="8 snapshots"):
            async with store.snapshot():
                pass
        await store.memories.add("x")
        await contexts[3].__aexit__(None, None, None)
        async with store.snapshot() as view:
            assert await view.memories.count() == 1
        for context in [*contexts[:3], *contexts[4:]]:
            await context.__aexit__(None, None, None)
        for _ in range(20):
            async with store.snapshot() as view:
                assert await view.memories.count() == 1


async def test_a_cancelled_read_leaves_the_snapshot_usable(store: Store, rng: np.random.Generator) -> None:
    await fill(store, rng)
    async with store.snapshot() as view:
        expected = await view.memories.count(recursive=True)
        await store.memories.add("new")
        for delay in (0, 0, 0.001, 0.002, 0.005):
            task = asyncio.create_task(everything(view))
            await asyncio.sleep(delay)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await view.memories.count(recursive=True) == expected


async def test_tasks_share_a_snapshot(store: Store, rng: np.random.Generator) -> None:
    await fill(store, rng)
    async with store.snapshot() as view:
        counts = await asyncio.gather(*(view.memories.count(recursive=True) for _ in range(20)))
        hits = await asyncio.gather(*(view.memories.search(QUERY, 3) for _ in range(20)))
    assert len(set(counts)) == 1
    assert all(list(one) == list(hits[0]) for one in hits)


async def test_a_read_only_store_has_snapshots(path: Path) -> None:
    async with memstore.open(path, dimension=8) as store:
        await store.memories.add("x", id="a", embedding=QUERY)
    async with memstore.open(path, read_only=True) as reader, reader.snapshot() as view:
        assert [hit.memory.id for hit in await view.memories.search(QUERY)] == ["a"]


async def test_a_snapshot_before_the_first_vector_has_none(path: Path) -> None:
    async with memstore.open(path) as store, store.snapshot() as view:
        await store.memories.add("x", embedding=[1.0, 2, 3])
        assert list(await view.memories.search([1.0, 2, 3])) == []
        assert (await view.memories.vectors()).matrix.shape[0] == 0
        assert await view.memories.count() == 0

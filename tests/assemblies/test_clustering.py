"""What could be one: pairs of assemblies near each other, and groups of memories that are in none."""

import asyncio
import itertools
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import memstore
from memstore import DuplicateError, FilterError, GraphOptions, InvalidError, Store, UsageError
from memstore.assemblies.cluster import MAX_GROUP
from memstore.models import AssemblySuggestions, MergeCandidate
from memstore.testing import temporary_store
from memstore.vectors import metrics
from tests.conftest import DIMENSION

Rows = npt.NDArray[np.float32]


def clustered(rng: np.random.Generator, clusters: int, each: int, spread: float = 0.3) -> Rows:
    centres = rng.standard_normal((clusters, DIMENSION))
    rows = centres[:, None] + spread * rng.standard_normal((clusters, each, DIMENSION))
    return rows.reshape(-1, DIMENSION).astype(np.float32)


async def fill(store: Store, rows: Rows) -> None:
    await store.memories.add_many(
        [{"id": f"m{i:04}", "content": f"memory  {i}\nof many", "embedding": row} for i, row in enumerate(rows)]
    )


def score(metric: Any, a: Rows, b: Rows) -> float:
    form = metrics.index_form(metric, np.stack([a, b]))
    return float(metrics.scores(metric, form[0], form[1:])[0])


# --- pairs of assemblies ----------------------------------------------------------------------------------------------


async def every_pair(store: Store) -> list[MergeCandidate]:
    """All of them, compared one by one, best first."""
    records = [record async for record in store.assemblies.list()]
    pairs = []
    for (i, a), (j, b) in itertools.combinations(enumerate(records), 2):
        if a.composite is not None and b.composite is not None:
            pairs.append((-score(store.metric, a.composite, b.composite), i, j, a.id, b.id))
    return [MergeCandidate(a=a, b=b, similarity=-s) for s, _, _, a, b in sorted(pairs)]


@pytest.mark.parametrize("metric", ["cosine", "l2", "inner_product"])
@pytest.mark.parametrize("limit", [1, 7, 60, 10_000])
async def test_candidates_are_the_best_of_all_pairs(
    path: Path, rng: np.random.Generator, metric: Any, limit: int
) -> None:
    async with memstore.open(path, dimension=DIMENSION, metric=metric) as store:
        rows = clustered(rng, 4, 40)  # far more near each than are asked for at first
        await fill(store, rows)
        await store.assemblies.add_many({"id": f"a{i:03}", "members": [f"m{i:04}"]} for i in range(len(rows)))
        await store.assemblies.add("without")
        await store.namespace("other").memories.add("x", id="x", embedding=rows[0])
        await store.namespace("other").assemblies.add("elsewhere", members=["x"])
        expected = await every_pair(store)
        thresholds = [expected[3].similarity, expected[3000].similarity, -np.inf]
        for threshold in thresholds:
            found = await store.assemblies.merge_candidates(threshold, limit=limit)
            right = [pair for pair in expected if pair.similarity >= threshold][:limit]
            assert [(c.a, c.b) for c in found] == [(c.a, c.b) for c in right]
            assert [c.similarity for c in found] == pytest.approx([c.similarity for c in right], abs=1e-9)


async def test_candidates_of_equal_vectors_come_in_order_of_creation(store: Store) -> None:
    await fill(store, np.ones((12, DIMENSION), np.float32))
    await store.assemblies.add_many({"id": f"a{i:02}", "members": [f"m{i:04}"]} for i in range(12))
    found = await store.assemblies.merge_candidates(0.9, limit=15)
    assert [(c.a, c.b) for c in found] == list(itertools.combinations([f"a{i:02}" for i in range(12)], 2))[:15]


async def test_a_candidate_can_be_merged_at_its_threshold(store: Store, rng: np.random.Generator) -> None:
    await fill(store, clustered(rng, 5, 6))
    await store.assemblies.add_many(
        {"id": f"a{i}", "members": [f"m{3 * i + j:04}" for j in range(3)]} for i in range(10)
    )
    (best,) = await store.assemblies.merge_candidates(0.5, limit=1)
    merge = await store.assemblies.merge([best.a, best.b], threshold=best.similarity - 1e-9)
    assert merge.similarity == pytest.approx(best.similarity, abs=1e-9)
    assert best not in await store.assemblies.merge_candidates(0.5)


async def test_candidates_tell_how_far_they_are(store: Store, rng: np.random.Generator) -> None:
    await fill(store, clustered(rng, 2, 80))
    await store.assemblies.add_many({"id": f"a{i}", "members": [f"m{i:04}"]} for i in range(160))
    told: list[tuple[int, int]] = []
    await store.assemblies.merge_candidates(0.999, limit=5, on_progress=lambda *at: told.append(at))
    assert told == [(64, 160), (128, 160), (160, 160)]
    told.clear()
    await store.assemblies.merge_candidates(0.2, limit=10_000, on_progress=lambda *at: told.append(at))
    assert told[:3] == [(64, 160), (128, 160), (160, 160)]
    assert told[3] == (64, told[-1][1])  # those whose neighbours are all near are asked for more


@pytest.mark.parametrize(
    "wrong", [{"threshold": "near"}, {"threshold": 0.5, "limit": 0}, {"threshold": 0.5, "limit": 10_001}]
)
async def test_candidates_refuse_what_makes_no_sense(store: Store, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        await store.assemblies.merge_candidates(**wrong)


# --- groups of memories -----------------------------------------------------------------------------------------------


def by_the_rule(
    rows: Sequence[Rows | None], metric: Any, threshold: float, min_size: int, max_size: int
) -> tuple[list[list[int]], dict[int, str]]:
    """The rule of `memstore.assemblies.cluster`, slowly: groups, the leader first, and why the others are left."""
    free = set(range(len(rows)))

    def near(i: int) -> tuple[list[int], list[float], bool]:
        scored = [(-score(metric, rows[i], rows[j]), j) for j in free if j != i and rows[j] is not None]
        best = [(s, j) for s, j in sorted(scored) if -s >= threshold][: max_size - 1]
        return [j for _, j in best], [-s for s, _ in best], len(best) == max_size - 1

    groups: list[list[int]] = []
    lists = {}
    first: dict[int, int] = {}
    asked = [i for i in range(len(rows)) if rows[i] is not None]
    while asked:
        fresh = {i: near(i) for i in asked}
        lists.update(fresh)
        for i in asked:
            first.setdefault(i, len(fresh[i][0]))
        again = []
        for i in sorted(asked, key=lambda i: (-len(lists[i][0]), -(lists[i][1] or [-np.inf])[-1], i)):
            if i not in free:
                continue
            others = [j for j in lists[i][0] if j in free]
            if len(others) + 1 >= min_size:
                groups.append([i, *others])
                free -= {i, *others}
            elif lists[i][2] and len(others) < len(lists[i][0]):
                again.append(i)
        asked = sorted(set(again) & free)
    why = {i: "no_vector" if i not in first else "too_few" if first[i] else "no_neighbour" for i in free}
    return groups, why


def expect_no_gap(found: AssemblySuggestions, everybody: set[str]) -> None:
    grouped = [id for proposal in found.groups for id in proposal.members]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) | set(found.unassigned) == everybody
    assert not set(grouped) & set(found.unassigned)


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 70),
    st.sampled_from(["cosine", "l2"]),
    st.sampled_from([0.5, 0.8, 0.95]),
    st.integers(2, 5),
    st.integers(0, 8),
)
def test_groups_are_those_of_the_rule(
    seed: int, count: int, metric: Any, threshold: float, min_size: int, more: int
) -> None:
    async def run() -> None:
        rng = np.random.default_rng(seed)
        rows: list[Rows | None] = list(clustered(rng, 1 + count // 12, 12, spread=0.4)[:count])
        rows[seed % count] = None
        async with temporary_store(dimension=DIMENSION, metric=metric) as store:
            await store.memories.add_many({"id": str(i), "content": "", "embedding": row} for i, row in enumerate(rows))
            found = await store.assemblies.suggest(threshold, min_size=min_size, max_size=min_size + more)
            groups, left = by_the_rule(rows, metric, threshold, min_size, min_size + more)
            assert [[int(id) for id in proposal.members] for proposal in found.groups] == groups
            assert {int(id): why for id, why in found.unassigned.items()} == left
            for proposal in found.groups:
                leader, *others = [rows[int(id)] for id in proposal.members]
                assert proposal.similarity == pytest.approx(min(score(metric, leader, row) for row in others))
            assert found == await store.assemblies.suggest(threshold, min_size=min_size, max_size=min_size + more)
            assert await store.assemblies.count() == 0

    asyncio.run(run())


async def test_one_dense_place_larger_than_a_group_leaves_nobody_out(store: Store, rng: np.random.Generator) -> None:
    rows = (np.ones(DIMENSION) + 0.01 * rng.standard_normal((300, DIMENSION))).astype(np.float32)
    await fill(store, rows)
    found = await store.assemblies.suggest(0.9, min_size=4, max_size=10)
    expect_no_gap(found, {f"m{i:04}" for i in range(300)})
    assert all(4 <= len(proposal.members) <= 10 for proposal in found.groups)
    assert len(found.unassigned) < 4  # else they would be a group
    assert set(found.unassigned.values()) <= {"too_few"}


async def test_only_who_is_in_no_assembly_is_looked_at(store: Store, rng: np.random.Generator) -> None:
    await fill(store, clustered(rng, 3, 10))
    await store.assemblies.add("taken", members=[f"m{i:04}" for i in range(8)])
    await store.memories.add("no vector", id="mute")
    await store.memories.add("over", id="over", embedding=np.ones(DIMENSION), ttl=-1)
    await store.namespace("other").memories.add("elsewhere", id="far", embedding=np.ones(DIMENSION))
    found = await store.assemblies.suggest(0.7)
    expect_no_gap(found, {f"m{i:04}" for i in range(8, 30)} | {"mute"})
    assert found.unassigned["mute"] == "no_vector"
    assert (found.threshold, found.min_size, found.max_size) == (0.7, 3, 50)


async def test_tags_and_a_filter_narrow_who_is_looked_at(store: Store, rng: np.random.Generator) -> None:
    rows = clustered(rng, 1, 12)
    await store.memories.add_many(
        {"id": str(i), "content": "", "embedding": row, "tags": {"odd"} if i % 2 else (), "importance": i / 12}
        for i, row in enumerate(rows)
    )
    found = await store.assemblies.suggest(0.0, tags={"odd"}, where={"importance": {"$gte": 0.25}})
    expect_no_gap(found, {"3", "5", "7", "9", "11"})
    everyone = await store.assemblies.suggest(0.0, where={})
    expect_no_gap(everyone, {str(i) for i in range(12)})


async def test_a_damaged_vector_is_left_with_its_reason(path: Path, rng: np.random.Generator) -> None:
    async with memstore.open(path, dimension=DIMENSION) as store:
        await fill(store, clustered(rng, 1, 6, spread=0.05))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE memory_vector SET checksum = 1 WHERE memory_pk = 3")
    async with memstore.open(path) as store:
        found = await store.assemblies.suggest(0.5)
        expect_no_gap(found, {f"m{i:04}" for i in range(6)})
        assert found.unassigned == {"m0002": "no_vector"}


async def test_what_is_proposed_can_be_formed_and_names_what_it_is_about(
    store: Store, rng: np.random.Generator
) -> None:
    await fill(store, clustered(rng, 3, 10, spread=0.05))
    found = await store.assemblies.suggest(0.9)
    assert [len(proposal.members) for proposal in found.groups] == [10, 10, 10]
    assert found.groups[0].name == f"memory {int(found.groups[0].leader[1:])} of many"
    formed = await store.assemblies.create_from(found)
    assert len(formed.assemblies) == 3
    assert formed.stale == ()
    for id, proposal in zip(formed.assemblies, found.groups, strict=True):
        made = await store.assemblies.get(id)
        assert {member async for member in store.assemblies.members(id)} == set(proposal.members)
        assert made.name == proposal.name
        assert made.composite is not None
    assert (await store.assemblies.suggest(0.9)).groups == ()
    assert (await store.assemblies.suggest(0.9)).unassigned == {}


async def test_a_proposal_is_changed_before_it_is_formed(store: Store, rng: np.random.Generator) -> None:
    await fill(store, clustered(rng, 2, 6, spread=0.05))
    found = await store.assemblies.suggest(0.9)
    mine = replace(found.groups[1], id="mine", name="Mine", tags=frozenset({"t"}), topics=("b", "a"))
    assert await store.assemblies.create_from([mine]) == memstore.models.ClusterResult(assemblies=("mine",), stale=())
    made = await store.assemblies.get("mine")
    assert (made.name, made.tags, made.topics, made.member_count) == ("Mine", {"t"}, ("b", "a"), 6)


async def test_a_stale_proposal_is_not_formed(store: Store, rng: np.random.Generator) -> None:
    await fill(store, clustered(rng, 3, 6, spread=0.05))
    one, two, three = (await store.assemblies.suggest(0.9)).groups
    await store.memories.delete(one.members[2])
    await store.assemblies.add("taken", members=[two.members[3]])
    twice = replace(three, id="twice")
    formed = await store.assemblies.create_from([one, two, three, twice])
    assert len(formed.assemblies) == 1
    assert formed.stale == (one, two, twice)
    assert await store.assemblies.count() == 2


async def test_what_cannot_be_formed_leaves_nothing(store: Store, rng: np.random.Generator) -> None:
    await fill(store, clustered(rng, 2, 6, spread=0.05))
    one, two = (await store.assemblies.suggest(0.9)).groups
    await store.assemblies.add("taken")
    wrong: list[tuple[Any, type[Exception]]] = [
        ([one, replace(two, id="taken")], DuplicateError),
        ([replace(one, id="same"), replace(two, id="same")], DuplicateError),
        ([one, replace(two, name=3)], InvalidError),
        ([one, replace(two, members="m0001")], InvalidError),
        ([one, "two"], InvalidError),
        (one.leader, InvalidError),
    ]
    for proposals, error in wrong:
        with pytest.raises(error):
            await store.assemblies.create_from(proposals)
    assert [a.id async for a in store.assemblies.list()] == ["taken"]
    assert (await store.assemblies.create_from([])).assemblies == ()


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"threshold": None}, InvalidError),
        ({"min_size": 1}, InvalidError),
        ({"min_size": 9, "max_size": 8}, InvalidError),
        ({"max_size": MAX_GROUP + 1}, InvalidError),
        ({"tags": "odd"}, InvalidError),
        ({"where": {"nothing": 1}}, FilterError),
    ],
    ids=str,
)
async def test_a_proposal_refuses_what_makes_no_sense(store: Store, wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        await store.assemblies.suggest(**{"threshold": 0.5, **wrong})


async def test_a_proposal_tells_how_far_it_is_and_lets_others_run(store: Store, rng: np.random.Generator) -> None:
    await fill(store, clustered(rng, 10, 30))
    told: list[tuple[int, int]] = []
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    await store.assemblies.suggest(0.8, on_progress=lambda *at: told.append(at))
    task.cancel()
    assert told[:5] == [(64, 300), (128, 300), (192, 300), (256, 300), (300, 300)]
    assert all(total == 300 for _, total in told[:5])
    assert turns > len(told)


async def test_a_proposal_that_is_cancelled_stops(store: Store, rng: np.random.Generator) -> None:
    await fill(store, clustered(rng, 10, 30))
    told: list[int] = []
    task = asyncio.create_task(
        store.assemblies.suggest(0.8, on_progress=lambda done, _: (told.append(done), task.cancel()))  # type: ignore[arg-type, func-returns-value]
    )
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told == [64]


async def test_writes_go_on_between_the_searches_of_a_proposal(store: Store, rng: np.random.Generator) -> None:
    """What is deleted or added meanwhile is in nobody's way."""
    await fill(store, clustered(rng, 5, 40, spread=0.05))
    tasks: list[asyncio.Task[Any]] = []

    def meddle(done: int, _: int) -> None:
        if done == 64:
            tasks.append(asyncio.create_task(store.memories.delete_many(ids=[f"m{i:04}" for i in range(40, 80)])))
            tasks.append(asyncio.create_task(store.memories.add("new", id="new", embedding=np.ones(DIMENSION))))

    found = await store.assemblies.suggest(0.8, on_progress=meddle)
    await asyncio.gather(*tasks)
    names = {id for proposal in found.groups for id in proposal.members} | set(found.unassigned)
    assert {f"m{i:04}" for i in (*range(40), *range(80, 200))} <= names
    formed = await store.assemblies.create_from(found)
    left = {id for proposal in formed.stale for id in proposal.members}
    assert left <= {f"m{i:04}" for i in range(40, 80)} | {id for p in formed.stale for id in p.members}


async def test_a_transaction_proposes_of_what_it_holds(store: Store, rng: np.random.Generator) -> None:
    rows = clustered(rng, 1, 6, spread=0.05)
    await fill(store, rows[:3])
    async with store.transaction() as tx:
        await tx.memories.add_many([{"id": f"t{i}", "content": "", "embedding": row} for i, row in enumerate(rows[3:])])
        found = await tx.assemblies.suggest(0.5)
        expect_no_gap(found, {"m0000", "m0001", "m0002", "t0", "t1", "t2"})
        await tx.assemblies.create_from(found)
    assert (await store.assemblies.suggest(0.5)).unassigned == {}


async def test_a_store_that_is_only_read_proposes_and_forms_nothing(path: Path, rng: np.random.Generator) -> None:
    async with memstore.open(path, dimension=DIMENSION) as store:
        await fill(store, clustered(rng, 2, 6, spread=0.05))
        await store.assemblies.add_many([{"id": "a", "members": ["m0000"]}, {"id": "b", "members": ["m0001"]}])
    async with memstore.open(path, read_only=True) as store:
        assert len(await store.assemblies.merge_candidates(0.5)) == 1
        found = await store.assemblies.suggest(0.9)
        assert len(found.groups) == 2
        with pytest.raises(UsageError):
            await store.assemblies.create_from(found)


async def test_through_a_graph_nothing_is_missed_or_doubled(path: Path, rng: np.random.Generator) -> None:
    async with memstore.open(
        path,
        dimension=DIMENSION,
        index=memstore.IndexOptions(kind="graph", graph=GraphOptions(m=8, ef_construction=40)),
    ) as store:
        await fill(store, clustered(rng, 40, 50))
        await store.optimize()
        found = await store.assemblies.suggest(0.9)
        assert (await store.stats()).index == "graph"
        expect_no_gap(found, {f"m{i:04}" for i in range(2_000)})
        assert len(found.groups) >= 40

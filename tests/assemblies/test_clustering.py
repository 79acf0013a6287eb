"""Merge candidates, and suggested assemblies of memories that are in none."""

import asyncio
import itertools
from collections.abc import Sequence
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
from tests.support.sql import execute

Rows = npt.NDArray[np.float32]


def clustered(rng: np.random.Generator, clusters: int, size: int, spread: float = 0.3) -> Rows:
    centres = rng.standard_normal((clusters, DIMENSION))
    rows = centres[:, None] + spread * rng.standard_normal((clusters, size, DIMENSION))
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
    """All pairs, compared one by one, best first."""
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
        rows = clustered(rng, 4, 40)  # more neighbours than the first search asks for
        await fill(store, rows)
        await store.assemblies.add_many({"id": f"a{i:03}", "members": [f"m{i:04}"]} for i in range(len(rows)))
        await store.assemblies.add("without")
        await store.namespace("other").memories.add("x", id="x", embedding=rows[0])
        await store.namespace("other").assemblies.add("elsewhere", members=["x"])
        expected = await every_pair(store)
        thresholds = [expected[3].similarity, expected[3000].similarity, -np.inf]
        for threshold in thresholds:
            candidates = await store.assemblies.merge_candidates(threshold, limit=limit)
            right = [pair for pair in expected if pair.similarity >= threshold][:limit]
            assert [(c.a, c.b) for c in candidates] == [(c.a, c.b) for c in right]
            assert [c.similarity for c in candidates] == pytest.approx([c.similarity for c in right], abs=1e-9)


async def test_candidates_of_equal_vectors_come_in_order_of_creation(store: Store) -> None:
    await fill(store, np.ones((12, DIMENSION), np.float32))
    await store.assemblies.add_many({"id": f"a{i:02}", "members": [f"m{i:04}"]} for i in range(12))
    candidates = await store.assemblies.merge_candidates(0.9, limit=15)
    assert [(c.a, c.b) for c in candidates] == list(itertools.combinations([f"a{i:02}" for i in range(12)], 2))[:15]


async def test_a_candidate_can_be_merged_at_its_threshold(store: Store, rng: np.random.Generator) -> None:
    await fill(store, clustered(rng, 5, 6))
    await store.assemblies.add_many(
        {"id": f"a{i}", "members": [f"m{3 * i + j:04}" for j in range(3)]} for i in range(10)
    )
    (best,) = await store.assemblies.merge_candidates(0.5, limit=1)
    merge = await store.assemblies.merge([best.a, best.b], threshold=best.similarity - 1e-9)
    assert merge.similarity == pytest.approx(best.similarity, abs=1e-9)
    assert best not in await store.assemblies.merge_candidates(0.5)


async def test_merge_candidates_report_progress(store: Store, rng: np.random.Generator) -> None:
    await fill(store, clustered(rng, 2, 80))
    await store.assemblies.add_many({"id": f"a{i}", "members": [f"m{i:04}"]} for i in range(160))
    progress: list[tuple[int, int]] = []
    await store.assemblies.merge_candidates(0.999, limit=5, on_progress=lambda *at: progress.append(at))
    assert progress == [(64, 160), (128, 160), (160, 160)]
    progress.clear()
    await store.assemblies.merge_candidates(0.2, limit=10_000, on_progress=lambda *at: progress.append(at))
    assert progress[:3] == [(64, 160), (128, 160), (160, 160)]
    assert progress[3] == (64, progress[-1][1])  # assemblies whose neighbours are all candidates are searched again


@pytest.mark.parametrize(
    "wrong", [{"threshold": "near"}, {"threshold": 0.5, "limit": 0}, {"threshold": 0.5, "limit": 10_001}]
)
async def test_merge_candidates_refuse_invalid_arguments(store: Store, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        await store.assemblies.merge_candidates(**wrong)


# --- groups of memories -----------------------------------------------------------------------------------------------


def suggested_by_rule(
    rows: Sequence[Rows | None], metric: Any, threshold: float, min_size: int, max_size: int
) -> tuple[list[list[int]], dict[int, str]]:
    """The rule of `memstore.assemblies.cluster`, slowly: groups, leader first, and the unassigned with reasons."""
    free = set(range(len(rows)))

    def neighbours(i: int) -> tuple[list[int], list[float], bool]:
        scored = [(-score(metric, rows[i], rows[j]), j) for j in free if j != i and rows[j] is not None]
        best = [(s, j) for s, j in sorted(scored) if -s >= threshold][: max_size - 1]
        return [j for _, j in best], [-s for s, _ in best], len(best) == max_size - 1

    groups: list[list[int]] = []
    lists = {}
    first: dict[int, int] = {}
    indices = [i for i in range(len(rows)) if rows[i] is not None]
    while indices:
        searched = {i: neighbours(i) for i in indices}
        lists.update(searched)
        for i in indices:
            first.setdefault(i, len(searched[i][0]))
        again = []
        for i in sorted(indices, key=lambda i: (-len(lists[i][0]), -(lists[i][1] or [-np.inf])[-1], i)):
            if i not in free:
                continue
            others = [j for j in lists[i][0] if j in free]
            if len(others) + 1 >= min_size:
                groups.append([i, *others])
                free -= {i, *others}
            elif lists[i][2] and len(others) < len(lists[i][0]):
                again.append(i)
        indices = sorted(set(again) & free)
    why = {i: "no_vector" if i not in first else "too_few" if first[i] else "no_neighbour" for i in free}
    return groups, why


def expect_complete(suggestions: AssemblySuggestions, all_ids: set[str]) -> None:
    grouped = [id for proposal in suggestions.groups for id in proposal.members]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) | set(suggestions.unassigned) == all_ids
    assert not set(grouped) & set(suggestions.unassigned)


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 70),
    st.sampled_from(["cosine", "l2"]),
    st.sampled_from([0.5, 0.8, 0.95]),
    st.integers(2, 5),
    st.integers(0, 8),
)
def test_suggestions_equal_those_of_the_documented_rule(
    seed: int, count: int, metric: Any, threshold: float, min_size: int, more: int
) -> None:
    async def run() -> None:
        rng = np.random.default_rng(seed)
        rows: list[Rows | None] = list(clustered(rng, 1 + count // 12, 12, spread=0.4)[:count])
        rows[seed % count] = None
        async with temporary_store(dimension=DIMENSION, metric=metric) as store:
            await store.memories.add_many({"id": str(i), "content": "", "embedding": row} for i, row in enumerate(rows))
            suggestions = await store.assemblies.suggest(threshold, min_size=min_size, max_size=min_size + more)
            groups, unassigned = suggested_by_rule(rows, metric, threshold, min_size, min_size + more)
            assert [[int(id) for id in proposal.members] for proposal in suggestions.groups] == groups
            assert {int(id): why for id, why in suggestions.unassigned.items()} == unassigned
            for proposal in suggestions.groups:
                leader, *others = [rows[int(id)] for id in proposal.members]
                assert proposal.similarity == pytest.approx(min(score(metric, leader, row) for row in others))
            assert suggestions == await store.assemblies.suggest(threshold, min_size=min_size, max_size=min_size + more)
            assert await store.assemblies.count() == 0

    asyncio.run(run())


async def test_a_cluster_larger_than_a_group_leaves_no_memory_out(store: Store, rng: np.random.Generator) -> None:
    rows = (np.ones(DIMENSION) + 0.01 * rng.standard_normal((300, DIMENSION))).astype(np.float32)
    await fill(store, rows)
    suggestions = await store.assemblies.suggest(0.9, min_size=4, max_size=10)
    expect_complete(suggestions, {f"m{i:04}" for i in range(300)})
    assert all(4 <= len(proposal.members) <= 10 for proposal in suggestions.groups)
    assert len(suggestions.unassigned) < 4  # else they would be a group
    assert set(suggestions.unassigned.values()) <= {"too_few"}


async def test_only_memories_in_no_assembly_are_suggested(store: Store, rng: np.random.Generator) -> None:
    await fill(store, clustered(rng, 3, 10))
    await store.assemblies.add("taken", members=[f"m{i:04}" for i in range(8)])
    await store.memories.add("no vector", id="mute")
    await store.memories.add("over", id="over", embedding=np.ones(DIMENSION), ttl=-1)
    await store.namespace("other").memories.add("elsewhere", id="far", embedding=np.ones(DIMENSION))
    suggestions = await store.assemblies.suggest(0.7)
    expect_complete(suggestions, {f"m{i:04}" for i in range(8, 30)} | {"mute"})
    assert suggestions.unassigned["mute"] == "no_vector"
    assert (suggestions.threshold, suggestions.min_size, suggestions.max_size) == (0.7, 3, 50)


async def test_tags_and_a_filter_limit_the_suggested_memories(store: Store, rng: np.random.Generator) -> None:
    rows = clustered(rng, 1, 12)
    await store.memories.add_many(
        {"id": str(i), "content": "", "embedding": row, "tags": {"odd"} if i % 2 else (), "importance": i / 12}
        for i, row in enumerate(rows)
    )
    suggestions = await store.assemblies.suggest(0.0, tags={"odd"}, where={"importance": {"$gte": 0.25}})
    expect_complete(suggestions, {"3", "5", "7", "9", "11"})
    everyone = await store.assemblies.suggest(0.0, where={})
    expect_complete(everyone, {str(i) for i in range(12)})


async def test_a_memory_with_a_damaged_vector_is_unassigned_with_its_reason(
    path: Path, rng: np.random.Generator
) -> None:
    async with memstore.open(path, dimension=DIMENSION) as store:
        await fill(store, clustered(rng, 1, 6, spread=0.05))
    execute(path, "UPDATE memory_vector SET checksum = 1 WHERE memory_pk = 3")
    async with memstore.open(path) as store:
        suggestions = await store.assemblies.suggest(0.5)
        expect_complete(suggestions, {f"m{i:04}" for i in range(6)})
        assert suggestions.unassigned == {"m0002": "no_vector"}


async def test_assemblies_are_created_from_suggestions_and_named_by_their_leaders(
    store: Store, rng: np.random.Generator
) -> None:
    await fill(store, clustered(rng, 3, 10, spread=0.05))
    suggestions = await store.assemblies.suggest(0.9)
    assert [len(proposal.members) for proposal in suggestions.groups] == [10, 10, 10]
    assert suggestions.groups[0].name == f"memory {int(suggestions.groups[0].leader[1:])} of many"
    formed = await store.assemblies.create_from(suggestions)
    assert len(formed.assemblies) == 3
    assert formed.stale == ()
    for id, proposal in zip(formed.assemblies, suggestions.groups, strict=True):
        assembly = await store.assemblies.get(id)
        assert {member async for member in store.assemblies.members(id)} == set(proposal.members)
        assert assembly.name == proposal.name
        assert assembly.composite is not None
    assert (await store.assemblies.suggest(0.9)).groups == ()
    assert (await store.assemblies.suggest(0.9)).unassigned == {}


async def test_a_suggestion_can_be_changed_before_it_is_created(store: Store, rng: np.random.Generator) -> None:
    await fill(store, clustered(rng, 2, 6, spread=0.05))
    suggestions = await store.assemblies.suggest(0.9)
    mine = replace(suggestions.groups[1], id="mine", name="Mine", tags=frozenset({"t"}), topics=("b", "a"))
    assert await store.assemblies.create_from([mine]) == memstore.models.ClusterResult(assemblies=("mine",), stale=())
    assembly = await store.assemblies.get("mine")
    assert (assembly.name, assembly.tags, assembly.topics, assembly.member_count) == ("Mine", {"t"}, ("b", "a"), 6)


async def test_a_stale_suggestion_creates_no_assembly(store: Store, rng: np.random.Generator) -> None:
    await fill(store, clustered(rng, 3, 6, spread=0.05))
    one, two, three = (await store.assemblies.suggest(0.9)).groups
    await store.memories.delete(one.members[2])
    await store.assemblies.add("taken", members=[two.members[3]])
    twice = replace(three, id="twice")
    formed = await store.assemblies.create_from([one, two, three, twice])
    assert len(formed.assemblies) == 1
    assert formed.stale == (one, two, twice)
    assert await store.assemblies.count() == 2


async def test_an_invalid_suggestion_creates_nothing(store: Store, rng: np.random.Generator) -> None:
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
async def test_suggest_refuses_invalid_arguments(store: Store, wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        await store.assemblies.suggest(**{"threshold": 0.5, **wrong})


async def test_suggest_reports_progress_and_lets_other_tasks_run(store: Store, rng: np.random.Generator) -> None:
    await fill(store, clustered(rng, 10, 30))
    progress: list[tuple[int, int]] = []
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    await store.assemblies.suggest(0.8, on_progress=lambda *at: progress.append(at))
    task.cancel()
    assert progress[:5] == [(64, 300), (128, 300), (192, 300), (256, 300), (300, 300)]
    assert all(total == 300 for _, total in progress[:5])
    assert turns > len(progress)


async def test_a_cancelled_suggest_stops(store: Store, rng: np.random.Generator) -> None:
    await fill(store, clustered(rng, 10, 30))
    progress: list[int] = []
    task = asyncio.create_task(
        store.assemblies.suggest(0.8, on_progress=lambda done, _: (progress.append(done), task.cancel()))  # type: ignore[arg-type, func-returns-value]
    )
    with pytest.raises(asyncio.CancelledError):
        await task
    assert progress == [64]


async def test_writes_run_between_the_searches_of_suggest(store: Store, rng: np.random.Generator) -> None:
    """Delete and add memories between the searches."""
    await fill(store, clustered(rng, 5, 40, spread=0.05))
    tasks: list[asyncio.Task[Any]] = []

    def meddle(done: int, _: int) -> None:
        if done == 64:
            tasks.append(asyncio.create_task(store.memories.delete_many(ids=[f"m{i:04}" for i in range(40, 80)])))
            tasks.append(asyncio.create_task(store.memories.add("new", id="new", embedding=np.ones(DIMENSION))))

    suggestions = await store.assemblies.suggest(0.8, on_progress=meddle)
    await asyncio.gather(*tasks)
    names = {id for proposal in suggestions.groups for id in proposal.members} | set(suggestions.unassigned)
    assert {f"m{i:04}" for i in (*range(40), *range(80, 200))} <= names
    formed = await store.assemblies.create_from(suggestions)
    stale_members = {id for proposal in formed.stale for id in proposal.members}
    assert stale_members <= {f"m{i:04}" for i in range(40, 80)} | {id for p in formed.stale for id in p.members}


async def test_suggest_in_a_transaction_includes_its_changes(store: Store, rng: np.random.Generator) -> None:
    rows = clustered(rng, 1, 6, spread=0.05)
    await fill(store, rows[:3])
    async with store.transaction() as tx:
        await tx.memories.add_many([{"id": f"t{i}", "content": "", "embedding": row} for i, row in enumerate(rows[3:])])
        suggestions = await tx.assemblies.suggest(0.5)
        expect_complete(suggestions, {"m0000", "m0001", "m0002", "t0", "t1", "t2"})
        await tx.assemblies.create_from(suggestions)
    assert (await store.assemblies.suggest(0.5)).unassigned == {}


async def test_a_read_only_store_suggests_but_creates_nothing(path: Path, rng: np.random.Generator) -> None:
    async with memstore.open(path, dimension=DIMENSION) as store:
        await fill(store, clustered(rng, 2, 6, spread=0.05))
        await store.assemblies.add_many([{"id": "a", "members": ["m0000"]}, {"id": "b", "members": ["m0001"]}])
    async with memstore.open(path, read_only=True) as store:
        assert len(await store.assemblies.merge_candidates(0.5)) == 1
        suggestions = await store.assemblies.suggest(0.9)
        assert len(suggestions.groups) == 2
        with pytest.raises(UsageError):
            await store.assemblies.create_from(suggestions)


async def test_suggest_by_a_graph_assigns_every_memory_once(path: Path, rng: np.random.Generator) -> None:
    async with memstore.open(
        path,
        dimension=DIMENSION,
        index=memstore.IndexOptions(kind="graph", graph=GraphOptions(m=8, ef_construction=40)),
    ) as store:
        await fill(store, clustered(rng, 40, 50))
        await store.optimize()
        suggestions = await store.assemblies.suggest(0.9)
        assert (await store.stats()).index == "graph"
        expect_complete(suggestions, {f"m{i:04}" for i in range(2_000)})
        assert len(suggestions.groups) >= 40

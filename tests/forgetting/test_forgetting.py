"""Forgetting: what policies select and why, stale plans, the trash, and recovery."""

import asyncio
import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import memstore
from memstore import (
    AssemblyForgetPolicy,
    DuplicateError,
    FilterError,
    ForgetPolicy,
    InvalidError,
    Memory,
    NotFoundError,
    StalePlanError,
    Store,
)
from tests.conftest import DIMENSION, vectors
from tests.support.spaces import mean
from tests.support.sql import execute
from tests.support.waiting import eventually

DAY = timedelta(days=1)


def ago(days: float) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


async def fill(store: Store) -> None:
    """Memories `a` (old, unused, of little importance) to `f` (the opposite), and `p`, like `a` but pinned."""
    await store.memories.add_many(
        [
            {"id": "a", "content": "a" * 10, "created_at": ago(90), "importance": 0.1, "embedding": np.ones(DIMENSION)},
            {"id": "b", "content": "b" * 20, "created_at": ago(90), "importance": 0.1, "accessed_at": ago(1)},
            {"id": "c", "content": "c" * 30, "created_at": ago(40), "importance": 0.9, "tags": {"keep"}},
            {"id": "d", "content": "d" * 40, "created_at": ago(10), "importance": 0.1, "accessed_at": ago(50)},
            {"id": "e", "content": "e" * 50, "created_at": ago(2), "importance": 0.5, "ttl": DAY},
            {"id": "f", "content": "f" * 60, "created_at": ago(1), "importance": 1.0, "metadata": {"k": "é"}},
            {"id": "p", "content": "p" * 70, "created_at": ago(90), "importance": 0.0, "pinned": True, "ttl": DAY},
        ]
    )


async def purged(store: Store, **arguments: Any) -> int:
    """Purge memories, then assemblies; how many records were deleted."""
    return await store.memories.purge(**arguments) + await store.assemblies.purge(**arguments)


async def planned(store: Store, **policy: Any) -> dict[str, tuple[str, ...]]:
    plan = await store.memories.plan_forget(ForgetPolicy(**policy))
    return {candidate.id: candidate.reasons for candidate in plan.candidates}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"older_than": 30 * DAY}, {"a", "b", "c"}),
        ({"older_than": 30 * 86_400}, {"a", "b", "c"}),
        ({"unused_for": 30 * DAY}, {"a", "c", "d"}),
        ({"importance_below": 0.5}, {"a", "b", "d"}),
        ({"expires_within": 2 * DAY}, {"e"}),
        ({"expires_within": timedelta(hours=1)}, set()),
        ({"expires_within": timedelta.max}, {"e"}),
        ({"older_than": timedelta.max}, set()),
        ({"older_than": 0}, {"a", "b", "c", "d", "e", "f"}),
        ({"where": {"tags": {"$contains": "keep"}}}, {"c"}),
        ({"where": {"metadata.k": "é"}, "older_than": DAY / 2}, {"f"}),
        ({"where": {"pinned": True}}, set()),
        ({"older_than": 30 * DAY, "importance_below": 0.5}, {"a", "b"}),
        ({"older_than": 30 * DAY, "unused_for": 30 * DAY, "importance_below": 0.5}, {"a"}),
        ({"older_than": 30 * DAY, "importance_below": 0.5, "match": "any"}, {"a", "b", "c", "d"}),
        ({"unused_for": 30 * DAY, "expires_within": 2 * DAY, "match": "any"}, {"a", "c", "d", "e"}),
        ({"where": {"tags": {"$contains": "keep"}}, "match": "any", "older_than": 80 * DAY}, set()),
    ],
    ids=lambda value: str(sorted(value)) if isinstance(value, set) else str(value),
)
async def test_a_policy_selects_the_memories_that_meet_it_but_no_pinned_one(
    store: Store, policy: dict[str, Any], expected: set[str]
) -> None:
    await fill(store)
    before = await store.memories.get_many(list("abcdefp"))
    reasons_by_id = await planned(store, **policy)
    assert reasons_by_id.keys() == expected
    for reasons in reasons_by_id.values():
        assert set(reasons) <= (policy.keys() - {"match", "where"} or {"where"})
    assert await store.memories.get_many(list("abcdefp")) == before
    assert [t async for t in store.memories.trash()] == []


async def test_each_candidate_has_all_criteria_it_meets_and_its_size(store: Store) -> None:
    await fill(store)
    plan = await store.memories.plan_forget(
        ForgetPolicy(older_than=30 * DAY, unused_for=30 * DAY, importance_below=0.5, match="any")
    )
    assert {candidate.id: candidate.reasons for candidate in plan.candidates} == {
        "a": ("older_than", "unused_for", "importance_below"),
        "b": ("older_than", "importance_below"),
        "c": ("older_than", "unused_for"),
        "d": ("unused_for", "importance_below"),
    }
    size = {candidate.id: candidate.bytes for candidate in plan.candidates}
    assert size == {"a": 1 + 10 + 2 + 4 * DIMENSION, "b": 23, "c": 33, "d": 43}
    assert (plan.bytes, plan.remaining, plan.remaining_bytes, len(plan)) == (sum(size.values()), 3, None, 4)
    assert (plan.record_kind, plan.namespace, plan.recursive) == ("memory", (), False)


BUDGETS = [
    # order: p(pinned) 0.0; a 0.1 used 90 days ago; d 0.1, 50; b 0.1, 1; e 0.5; c 0.9; f 1.0
    ({"max_count": 7}, "", 7),
    ({"max_count": 5}, "ad", 5),
    ({"max_count": 1}, "adbecf", 1),
    ({"max_count": 0}, "adbecf", 1),
    ({"max_count": 2, "where": {"id": {"$in": ["b", "c", "p"]}}}, "b", 2),
    ({"max_count": 5, "older_than": 30 * DAY}, "ab", 5),
    ({"max_count": 5, "expires_within": 2 * DAY, "match": "any"}, "ae", 5),
    ({"max_count": 5, "expires_within": 2 * DAY}, "e", 6),
    ({"max_count": 6, "importance_below": 0.5, "match": "any"}, "adb", 4),
]


@pytest.mark.parametrize(("policy", "expected", "remaining"), BUDGETS, ids=str)
async def test_a_budget_selects_the_least_important_then_the_longest_unused(
    store: Store, policy: dict[str, Any], expected: str, remaining: int
) -> None:
    await fill(store)
    plan = await store.memories.plan_forget(ForgetPolicy(**policy))
    assert "".join(candidate.id for candidate in plan.candidates) == expected
    assert plan.remaining == remaining


@pytest.mark.parametrize(
    ("most", "expected"), [(10_000, ""), (341, ""), (340, "a"), (296, "a"), (295, "ad"), (0, "adbecf"), (73, "adbecf")]
)
async def test_a_budget_of_bytes_selects_no_more_than_necessary(store: Store, most: int, expected: str) -> None:
    await fill(store)
    plan = await store.memories.plan_forget(ForgetPolicy(max_bytes=most))
    assert "".join(candidate.id for candidate in plan.candidates) == expected
    assert plan.remaining_bytes == 341 - plan.bytes
    assert all(candidate.reasons == ("max_bytes",) for candidate in plan.candidates)
    both = await planned(store, max_bytes=most, max_count=5)
    assert both == {
        id: ("max_count",) * (id in "ad") + ("max_bytes",) * (id in expected)
        for id in "adbecf"
        if id in "ad" + expected
    }


def test_an_invalid_policy_is_refused() -> None:
    for wrong in (
        {},
        {"where": {}},
        {"where": {"$and": [{}]}},
        {"match": "any"},
        {"older_than": -1},
        {"older_than": "1"},
        {"unused_for": float("nan")},
        {"expires_within": True},
        {"older_than": 1e300},
        {"importance_below": 2},
        {"max_count": -1},
        {"max_bytes": 1.5},
        {"older_than": 1, "match": "some"},
    ):
        with pytest.raises(InvalidError):
            ForgetPolicy(**wrong)  # type: ignore[arg-type]
    for wrong in ({}, {"members_below": 0}, {"inactive_for": -1}, {"activated_fewer_than": 0}, {"where": {}}):
        with pytest.raises(InvalidError):
            AssemblyForgetPolicy(**wrong)  # type: ignore[arg-type]
    with pytest.raises(FilterError):
        ForgetPolicy(where={"nope": 1})
    with pytest.raises(FilterError):
        AssemblyForgetPolicy(where={"pinned": True})


async def test_a_forgotten_memory_is_in_the_trash_and_is_recovered_as_it_was(
    store: Store, rng: np.random.Generator
) -> None:
    await fill(store)
    await store.assemblies.add("g", members=["a", "c"])
    before = await store.memories.get_many(list("abc"))
    plan = await store.memories.plan_forget(ForgetPolicy(older_than=30 * DAY))
    start = datetime.now(UTC)
    assert await store.memories.forget(plan, actor="ada", reason="spring") == 3
    assert await store.memories.get_many(list("abc")) == {}
    assert await store.memories.count() == 4
    assert await store.memories.search(np.ones(DIMENSION)) == []
    assert (await store.assemblies.get("g")).member_count == 0
    assert (await store.assemblies.get("g")).composite is None

    entries = {t.record.id: t async for t in store.memories.trash()}
    assert {id: t.record for id, t in entries.items()} == before
    assert {(t.actor, t.reason) for t in entries.values()} == {("ada", "spring")}
    assert all(start <= t.at <= datetime.now(UTC) for t in entries.values())

    assert await store.memories.recover(["c", "a"]) == [before["c"], before["a"]]
    assert await store.memories.get_many(list("abc")) == {"a": before["a"], "c": before["c"]}
    assert (await store.memories.search(np.ones(DIMENSION), 1))[0].memory == before["a"]
    assert [t.record.id async for t in store.memories.trash()] == ["b"]
    group = await store.assemblies.get("g")
    assert group.member_count == 2
    np.testing.assert_allclose(group.composite, np.ones(DIMENSION) / np.sqrt(DIMENSION), atol=1e-6)


async def test_without_a_reason_the_criteria_are_stored_as_the_reason(store: Store) -> None:
    await fill(store)
    policy = ForgetPolicy(older_than=30 * DAY, importance_below=0.5, match="any")
    assert await store.memories.forget(await store.memories.plan_forget(policy)) == 4
    reasons = {t.record.id: t.reason async for t in store.memories.trash()}
    both = "older_than, importance_below"
    assert reasons == {"a": both, "b": both, "c": "older_than", "d": "importance_below"}


CHANGES: dict[str, Callable[[Store], Any]] = {
    "changed": lambda s: s.memories.update("b", importance=0.2),
    "retagged": lambda s: s.memories.update("b", tags={"x"}),
    "replaced": lambda s: s.memories.upsert("b" * 20, id="b", embedding=None),
    "touched": lambda s: s.memories.touch(["b"]),
    "pinned": lambda s: s.memories.update("b", pinned=True),
    "deleted": lambda s: s.memories.delete("b"),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_plan_whose_record_changed_is_stale_and_moves_nothing(store: Store, change: str) -> None:
    await fill(store)
    plan = await store.memories.plan_forget(ForgetPolicy(older_than=30 * DAY))
    await CHANGES[change](store)
    before = await store.memories.get_many(list("abcdefp"))
    with pytest.raises(StalePlanError, match="Plan again") as caught:
        await store.memories.forget(plan)
    assert caught.value.ids == ["b"]
    assert await store.memories.get_many(list("abcdefp")) == before
    assert [t async for t in store.memories.trash()] == []
    assert await store.memories.forget(await store.memories.plan_forget(ForgetPolicy(older_than=30 * DAY))) >= 2


async def test_a_plan_applied_twice_or_after_its_record_was_added_again_is_stale(store: Store) -> None:
    await fill(store)
    plan = await store.memories.plan_forget(ForgetPolicy(older_than=30 * DAY))
    await store.memories.add("of no concern")
    assert await store.memories.forget(plan) == 3
    with pytest.raises(StalePlanError, match="memory 'a', 'b', 'c' were") as caught:
        await store.memories.forget(plan)
    assert sorted(caught.value.ids) == ["a", "b", "c"]
    await store.memories.recover(["a", "b", "c"])
    assert await store.memories.forget(plan) == 3  # the records have not changed


async def test_a_memory_that_expired_since_does_not_make_a_plan_stale(store: Store) -> None:
    await store.memories.add("x", id="soon", ttl=1.5)
    await store.memories.add("x", id="later", ttl=DAY)
    plan = await store.memories.plan_forget(ForgetPolicy(expires_within=2 * DAY))
    assert len(plan) == 2
    while await store.memories.count() == 2:
        await asyncio.sleep(0.01)
    assert await store.memories.forget(plan) == 1
    assert [t.record.id async for t in store.memories.trash()] == ["later"]


async def test_a_plan_is_refused_in_another_namespace_and_by_the_other_noun(store: Store) -> None:
    await fill(store)
    ada = store.namespace("ada")
    await ada.memories.add("hers", id="a", created_at=ago(90))
    await ada.assemblies.add("g")
    plan = await ada.memories.plan_forget(ForgetPolicy(older_than=DAY))
    with pytest.raises(InvalidError, match="namespace"):
        await store.memories.forget(plan)
    prune = await ada.assemblies.plan_forget(AssemblyForgetPolicy(members_below=1))
    for wrong in (prune, None, [plan]):
        with pytest.raises(InvalidError):
            await ada.memories.forget(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidError):
        await ada.assemblies.forget(plan)
    for wrong in (None, AssemblyForgetPolicy(members_below=1)):
        with pytest.raises(InvalidError):
            await ada.memories.plan_forget(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidError):
        await ada.assemblies.plan_forget(ForgetPolicy(older_than=1))  # type: ignore[arg-type]
    with pytest.raises(InvalidError):
        await ada.memories.forget(plan, actor=b"x")  # type: ignore[arg-type]

    plan = await store.memories.plan_forget(ForgetPolicy(older_than=30 * DAY), recursive=True)
    assert sorted((p.namespace, p.id) for p in plan.candidates) == [((), "a"), ((), "b"), ((), "c"), (("ada",), "a")]
    assert plan.remaining == 4
    assert await store.memories.forget(plan) == 4
    assert [t.record.namespace async for t in ada.memories.trash()] == [("ada",)]
    assert len([t async for t in store.memories.trash()]) == 3
    assert (await ada.memories.recover(["a"]))[0].content == "hers"


async def test_assemblies_are_forgotten_by_their_own_criteria_and_their_members_remain(
    store: Store, path: Path
) -> None:
    await store.memories.add_many(
        [{"id": f"m{i}", "content": "x", "embedding": np.eye(DIMENSION)[i]} for i in range(3)]
    )
    await store.assemblies.add("old", members=["m0", "m1", "m2"], created_at=ago(50), topics=["t"])
    await store.assemblies.add("empty", created_at=ago(5))
    await store.assemblies.add("small", members=["m0"], tags={"x"})
    before = await store.assemblies.get("old")

    async def planned_reasons(**policy: Any) -> dict[str, tuple[str, ...]]:
        plan = await store.assemblies.plan_forget(AssemblyForgetPolicy(**policy))
        assert plan.remaining == 3 - len(plan) or policy.get("where")
        return {candidate.id: candidate.reasons for candidate in plan.candidates}

    assert await planned_reasons(older_than=30 * DAY) == {"old": ("older_than",)}
    assert (await planned_reasons(members_below=1)).keys() == {"empty"}
    assert (await planned_reasons(members_below=2)).keys() == {"empty", "small"}
    assert (await planned_reasons(members_below=2, older_than=DAY)).keys() == {"empty"}
    assert (await planned_reasons(members_below=1, older_than=30 * DAY, match="any")).keys() == {"old", "empty"}
    assert (await planned_reasons(where={"tags": {"$contains": "x"}})) == {"small": ("where",)}
    assert (await planned_reasons(where={"member_count": {"$gt": 0}}, members_below=2)).keys() == {"small"}
    assert (await planned_reasons(inactive_for=DAY)).keys() == {"old", "empty"}
    activated = "UPDATE assembly SET activation_count = 2, activated_at = ? WHERE id = 'old'"
    execute(path, activated, (int(datetime.now(UTC).timestamp() * 1e6),))
    assert (await planned_reasons(inactive_for=DAY)).keys() == {"empty"}
    assert (await planned_reasons(activated_fewer_than=1)).keys() == {"empty", "small"}
    assert (await planned_reasons(activated_fewer_than=3)).keys() == {"old", "empty", "small"}

    plan = await store.assemblies.plan_forget(AssemblyForgetPolicy(older_than=30 * DAY))
    await store.assemblies.remove_members("old", ["m1"])
    with pytest.raises(StalePlanError):
        await store.assemblies.forget(plan)
    before = await store.assemblies.get("old")
    plan = await store.assemblies.plan_forget(AssemblyForgetPolicy(older_than=30 * DAY))
    assert plan.candidates[0].bytes == 3 + 2 + 5 + 4 * DIMENSION
    assert await store.assemblies.forget(plan, actor="ada") == 1
    assert await store.memories.count() == 3
    assert "old" not in await store.assemblies.get_many(["old"])
    (entries,) = [t async for t in store.assemblies.trash()]
    assert (entries.record, entries.actor, entries.reason) == (before, "ada", "older_than")
    (after,) = await store.assemblies.recover(["old"])
    assert replace(after, revision=before.revision) == before
    assert await store.assemblies.get("old") == after


async def test_recover_is_all_or_nothing(store: Store) -> None:
    await fill(store)
    await store.memories.forget(await store.memories.plan_forget(ForgetPolicy(older_than=30 * DAY)))
    for ids, error in ((["a", "nope"], NotFoundError), (["a", "f"], NotFoundError)):
        with pytest.raises(error, match="trash"):
            await store.memories.recover(ids)
    await store.memories.add("again", id="b")
    with pytest.raises(DuplicateError, match="exists again"):
        await store.memories.recover(["a", "b"])
    with pytest.raises(InvalidError):
        await store.memories.recover("a")
    with pytest.raises(NotFoundError):
        await store.namespace("other").memories.recover(["a"])
    with pytest.raises(NotFoundError):
        await store.assemblies.recover(["a"])
    assert await store.memories.count() == 5
    assert len([t async for t in store.memories.trash()]) == 3
    assert await store.memories.recover([]) == []
    assert [m.id for m in await store.memories.recover(["a", "a"])] == ["a"]


async def test_a_memory_that_expired_in_the_trash_is_not_recovered(store: Store) -> None:
    await store.memories.add("x", id="a", ttl=1.5)
    await store.memories.forget(await store.memories.plan_forget(ForgetPolicy(expires_within=DAY)))
    (entries,) = [t async for t in store.memories.trash()]
    await eventually(lambda: datetime.now(UTC) > entries.record.expires_at)  # type: ignore[operator]
    with pytest.raises(InvalidError, match="expired in the trash"):
        await store.memories.recover(["a"])
    assert [t.record async for t in store.memories.trash()] == [entries.record]


async def test_purge_deletes_for_good_and_clear_empties_the_trash(store: Store, path: Path) -> None:
    await fill(store)
    ada = store.namespace("ada")
    await ada.memories.add("x", id="y", created_at=ago(90))
    await store.assemblies.add("g", created_at=ago(90))
    await store.memories.forget(await store.memories.plan_forget(ForgetPolicy(older_than=30 * DAY)))
    await ada.memories.forget(await ada.memories.plan_forget(ForgetPolicy(older_than=30 * DAY)))
    await store.assemblies.forget(await store.assemblies.plan_forget(AssemblyForgetPolicy(members_below=1)))
    assert await purged(store, older_than=DAY, recursive=True) == 0
    assert await purged(store, older_than=timedelta.max) == 0
    execute(path, "UPDATE tombstone SET at = at - 86400000000 * 2 WHERE id = 'b'")
    assert await purged(store, older_than=DAY) == 1
    with pytest.raises(NotFoundError):
        await store.memories.recover(["b"])
    for wrong in (-1, "1", None):
        with pytest.raises(InvalidError):
            await store.memories.purge(older_than=wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidError):
            await store.assemblies.purge(older_than=wrong)  # type: ignore[arg-type]
    assert await purged(store, older_than=0) == 3
    assert [t async for t in store.assemblies.trash()] == []
    assert [t.record.id async for t in ada.memories.trash()] == ["y"]
    assert await purged(store, older_than=0, recursive=True) == 1

    await store.memories.forget(await store.memories.plan_forget(ForgetPolicy(older_than=0)))
    await store.memories.add("x")
    assert await store.clear() == 2  # the pinned one, and the new one
    assert [t async for t in store.memories.trash()] == []


async def test_merged_assemblies_are_not_in_the_trash(store: Store, path: Path) -> None:
    await store.assemblies.add_many([{"id": "g"}, {"id": "h"}])
    await store.assemblies.merge(["g", "h"], into="h")
    assert [t async for t in store.assemblies.trash()] == []
    assert (await store.stats()).trashed == 0
    with pytest.raises(NotFoundError, match="trash"):
        await store.assemblies.recover(["g"])
    assert await purged(store, older_than=0, recursive=True) == 0
    assert (await store.assemblies.get_merged("g")).assembly.id == "g"
    assert await store.clear() == 1
    assert execute(path, "SELECT count(*) FROM tombstone") == [(0,)]  # neither merged nor forgotten


async def test_a_rolled_back_transaction_forgets_nothing_and_a_committed_one_recovers(store: Store) -> None:
    await fill(store)
    with pytest.raises(ZeroDivisionError):
        async with store.transaction() as tx:
            assert await tx.memories.forget(await tx.memories.plan_forget(ForgetPolicy(older_than=30 * DAY))) == 3
            assert [t.record.id async for t in tx.memories.trash()] != []
            assert await tx.memories.search(np.ones(DIMENSION)) == []
            raise ZeroDivisionError
    assert await store.memories.count() == 7
    assert [t async for t in store.memories.trash()] == []
    async with store.transaction() as tx:
        await tx.memories.forget(await tx.memories.plan_forget(ForgetPolicy(older_than=30 * DAY)))
        (back,) = await tx.memories.recover(["a"])
        assert (await tx.memories.search(np.ones(DIMENSION)))[0].memory == back
    assert (await store.memories.search(np.ones(DIMENSION)))[0].memory == back
    assert sorted([t.record.id async for t in store.memories.trash()]) == ["b", "c"]


async def test_the_trash_is_read_page_by_page(store: Store) -> None:
    await store.memories.add_many([{"id": f"{i:03}", "content": "x"} for i in range(250)])
    await store.memories.forget(await store.memories.plan_forget(ForgetPolicy(older_than=0)))
    ids = [t.record.id async for t in store.memories.trash()]
    assert ids == [f"{i:03}" for i in reversed(range(250))]


async def test_a_graph_with_deleted_entries_finds_a_recovered_memory(path: Path, rng: np.random.Generator) -> None:
    rows = vectors(rng, 6_000)
    options = memstore.GraphOptions()
    async with memstore.open(
        path, dimension=DIMENSION, index=memstore.IndexOptions(kind="graph", graph=options)
    ) as store:
        await store.load({"id": str(i), "content": "x", "embedding": row} for i, row in enumerate(rows))
        await store.optimize()
        ids = [str(i) for i in range(0, 6_000, 5)]
        await store.memories.forget(await store.memories.plan_forget(ForgetPolicy(where={"id": {"$in": ids[:1_000]}})))
        await store.memories.recover(ids[:500])
        for i in (0, 5, 995, 2_495):
            assert (await store.memories.search(rows[i], 1))[0].memory.id == str(i)
        assert (await store.memories.search(rows[4_000], 1))[0].memory.id != "4000"
        assert await store.check() == []
    async with memstore.open(path) as store:
        assert (await store.memories.search(rows[995], 1))[0].memory.id == "995"
        assert await store.check() == []


# What a random policy takes, against a second implementation over the records.


def takes(record: Memory, policy: ForgetPolicy, at: datetime) -> list[bool]:
    met = []
    if policy.older_than is not None:
        met.append(record.created_at < at - policy.older_than)
    if policy.unused_for is not None:
        met.append((record.accessed_at or record.created_at) < at - policy.unused_for)
    if policy.importance_below is not None:
        met.append(record.importance < policy.importance_below)
    if policy.expires_within is not None:
        met.append(record.expires_at is not None and record.expires_at <= at + policy.expires_within)
    return met


def expected(records: list[Memory], policy: ForgetPolicy, at: datetime) -> list[str]:
    """Ids of the memories that the documented rule selects."""
    if policy.where is not None:
        records = [r for r in records if "x" in r.tags]
    able = [r for r in records if not r.pinned]
    tests = {r.id: takes(r, policy, at) for r in able}
    budget = policy.max_count is not None or policy.max_bytes is not None
    has_criteria = any(tests.values())
    if policy.match == "any" and has_criteria:
        forgotten = {id for id, met in tests.items() if any(met)}
        able = [r for r in able if r.id not in forgotten]
    elif budget:
        forgotten, able = set(), [r for r in able if all(tests[r.id])]
    else:
        forgotten, able = {id for id, met in tests.items() if all(met)}, []

    def size(r: Memory) -> int:
        vector = 0 if r.embedding is None else 4 * DIMENSION
        return len(r.id.encode()) + len(r.content.encode()) + 2 + vector

    def over() -> bool:
        remaining = [r for r in records if r.id not in forgotten]
        many = policy.max_count is not None and len(remaining) > policy.max_count
        return many or (policy.max_bytes is not None and sum(map(size, remaining)) > policy.max_bytes)

    turn = sorted(able, key=lambda r: (r.importance, r.accessed_at or r.created_at, r.created_at, int(r.id)))
    for record in turn if budget else ():
        if over():
            forgotten.add(record.id)
    return sorted(forgotten)


HOUR = timedelta(hours=1)
TIMES = st.integers(1, 6)
MEMORIES = st.lists(
    st.fixed_dictionaries(
        {"content": st.sampled_from(["", "é", "long" * 9]), "importance": st.sampled_from([0.0, 0.5, 1.0])},
        optional={
            "created": TIMES,
            "accessed": TIMES,
            "expires": TIMES,
            "pinned": st.booleans(),
            "vector": st.booleans(),
            "tags": st.sampled_from([{"x"}, set()]),
        },
    ),
    max_size=9,
)
SPANS = st.sampled_from([HOUR * n + HOUR / 2 for n in range(7)])
POLICIES = st.fixed_dictionaries(
    {"match": st.sampled_from(["all", "any"])},
    optional={
        "older_than": SPANS,
        "unused_for": SPANS,
        "importance_below": st.sampled_from([0.0, 0.5, 0.6, 1.0]),
        "expires_within": SPANS,
        "max_count": st.integers(0, 6),
        "max_bytes": st.integers(0, 250),
        "where": st.just({"tags": {"$contains": "x"}}),
    },
).filter(lambda policy: len(policy) > 1)


@settings(max_examples=100, deadline=None)
@given(items=MEMORIES, policies=st.lists(POLICIES, min_size=1, max_size=6))
def test_a_plan_equals_that_of_the_documented_rule(
    tmp_path_factory: pytest.TempPathFactory, items: list[dict[str, Any]], policies: list[dict[str, Any]]
) -> None:
    async def run() -> None:
        path = tmp_path_factory.mktemp("plan") / "store.db"
        async with memstore.open(path, dimension=DIMENSION) as store:
            start = datetime.now(UTC)
            memories = await store.memories.add_many([row(i, item, start) for i, item in enumerate(items)])
            for policy in (ForgetPolicy(**named) for named in policies):
                plan = await store.memories.plan_forget(policy)
                assert sorted(candidate.id for candidate in plan.candidates) == expected(
                    memories, policy, plan.created_at
                )

    asyncio.run(run())


def row(i: int, item: Mapping[str, Any], start: datetime) -> dict[str, Any]:
    values = {name: item[name] for name in ("content", "importance", "pinned", "tags") if name in item}
    values |= {"id": str(i), "created_at": start - HOUR * item.get("created", 0)}
    if "accessed" in item:
        values["accessed_at"] = start - HOUR * item["accessed"]
    if "expires" in item:
        values["expires_at"] = start + HOUR * item["expires"]
    return values | ({"embedding": np.eye(DIMENSION)[i % DIMENSION]} if item.get("vector") else {})


# What was, comes back.

IDS = [f"m{i}" for i in range(6)]
GROUPS = ["g0", "g1", "g2"]
id_lists = st.lists(st.sampled_from(IDS), min_size=1, max_size=3, unique=True)
group = st.sampled_from(GROUPS)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), id_lists),
        st.tuples(st.just("forget"), id_lists),
        st.tuples(st.just("restore"), id_lists),
        st.tuples(st.just("delete"), id_lists),
        st.tuples(st.just("join"), group, id_lists),
        st.tuples(st.just("leave"), group, id_lists),
        st.tuples(st.just("prune"), group),
        st.tuples(st.just("regroup"), group),
        st.tuples(st.just("purge")),
        st.tuples(st.just("vector"), st.sampled_from(IDS)),
        st.tuples(st.just("reopen")),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, metric=st.sampled_from(["cosine", "l2", "inner_product"]), seed=st.integers(0, 9))
def test_recovered_records_equal_the_forgotten_ones_after_any_steps(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, ...]], metric: Any, seed: int
) -> None:
    asyncio.run(_lived(tmp_path_factory.mktemp("life") / "store.db", steps, metric, np.random.default_rng(seed)))


async def _lived(path: Path, steps: list[tuple[Any, ...]], metric: Any, rng: np.random.Generator) -> None:
    life = Life(rng)
    store = await memstore.open(path, dimension=DIMENSION, metric=metric)
    try:
        for step in steps:
            if step[0] == "reopen":
                await store.close()
                store = await memstore.open(path)
            else:
                await getattr(life, step[0])(store, *step[1:])
            await life.look(store)
    finally:
        await store.close()


class Life:
    """The records that should exist, and those that should be in the trash, by id, the latest last."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.live: dict[str, Memory] = {}
        self.trash: list[Memory] = []
        self.groups: dict[str, Any] = {}
        self.pruned: list[Any] = []
        self.numbers = itertools.count()

    async def add(self, store: Store, ids: list[str]) -> None:
        for id in ids:
            if id not in self.live:
                vector = None if self.rng.random() < 0.2 else vectors(self.rng, 1)[0]
                number = next(self.numbers)
                self.live[id] = await store.memories.add(
                    f"{id} {number}", id=id, embedding=vector, tags={f"t{number % 3}"}, metadata={"n": [number]}
                )

    async def vector(self, store: Store, id: str) -> None:
        if id in self.live:
            self.live[id] = await store.memories.update(id, embedding=vectors(self.rng, 1)[0])

    async def forget(self, store: Store, ids: list[str]) -> None:
        plan = await store.memories.plan_forget(ForgetPolicy(where={"id": {"$in": ids}}))
        assert await store.memories.forget(plan) == len(self.live.keys() & set(ids))
        for id in [candidate.id for candidate in plan.candidates]:
            self.trash.append(self.live.pop(id))

    async def delete(self, store: Store, ids: list[str]) -> None:
        await store.memories.delete_many(ids=ids)
        for id in ids:
            self.live.pop(id, None)

    async def restore(self, store: Store, ids: list[str]) -> None:
        entries = {record.id: record for record in self.trash}
        if not set(ids) <= entries.keys():
            with pytest.raises(NotFoundError):
                await store.memories.recover(ids)
        elif set(ids) & self.live.keys():
            with pytest.raises(DuplicateError):
                await store.memories.recover(ids)
        else:
            assert await store.memories.recover(ids) == [entries[id] for id in ids]
            for id in ids:
                self.live[id] = entries[id]
                self.trash.remove(entries[id])

    async def join(self, store: Store, id: str, ids: list[str]) -> None:
        await store.assemblies.upsert(id, topics=["t", "s"])
        await store.assemblies.add_members(id, [m for m in ids if m in self.live])

    async def leave(self, store: Store, id: str, ids: list[str]) -> None:
        if await store.assemblies.count(where={"id": id}):
            await store.assemblies.remove_members(id, ids)

    async def prune(self, store: Store, id: str) -> None:
        plan = await store.assemblies.plan_forget(AssemblyForgetPolicy(where={"id": id}))
        if await store.assemblies.forget(plan):
            self.pruned.append(id)

    async def regroup(self, store: Store, id: str) -> None:
        if id in self.pruned and not await store.assemblies.count(where={"id": id}):
            entries = next(t.record for t in [t async for t in store.assemblies.trash()] if t.record.id == id)
            (back,) = await store.assemblies.recover([id])
            self.pruned.remove(id)
            for name in ("topics", "created_at", "updated_at"):
                assert getattr(back, name) == getattr(entries, name)
            assert back.revision > entries.revision

    async def purge(self, store: Store) -> None:
        assert await purged(store, older_than=0) == len(self.trash) + len(self.pruned)
        self.trash, self.pruned = [], []

    async def look(self, store: Store) -> None:
        assert {m.id: m async for m in store.memories.list()} == self.live
        entries = [t.record async for t in store.memories.trash()]
        assert sorted(entries, key=lambda r: r.content) == sorted(self.trash, key=lambda r: r.content)
        assert sorted([t.record.id async for t in store.assemblies.trash()]) == sorted(self.pruned)
        for query in vectors(self.rng, 1):
            ids = {hit.memory.id for hit in await store.memories.search(query, 100)}
            assert ids == {m.id for m in self.live.values() if m.embedding is not None}
        async for assembly in store.assemblies.list():
            members = [self.live[id].embedding async for id in store.assemblies.members(assembly.id)]
            rows = np.array([v for v in members if v is not None]).reshape(-1, DIMENSION)
            composite = mean(store.metric, rows)
            assert (composite is None) == (assembly.composite is None)
            if composite is not None and assembly.composite is not None:
                assert np.linalg.norm(assembly.composite.astype(np.float64) - composite) <= 1e-6 * max(
                    1, np.linalg.norm(composite)
                )
        assert await store.check() == []

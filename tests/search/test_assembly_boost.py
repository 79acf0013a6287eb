"""Searches that use assemblies: what activates, what its members gain, how an activation fades."""

import math
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import memstore
from memstore import AssemblyBoost, BusyError, Hits, InvalidError, ReadOnlyError, Store
from memstore.database.sqlite import sqlite3
from memstore.models.activation import decayed
from tests.conftest import DIMENSION, vectors
from tests.support.spaces import score

Rows = npt.NDArray[np.float32]
EVERY = AssemblyBoost(threshold=-1e9, limit=1_000)
"""Every assembly in step activates."""


def unit(*numbers: float) -> Rows:
    """A vector of these first components."""
    row = np.zeros(DIMENSION, dtype=np.float32)
    row[: len(numbers)] = numbers
    return row


def out_of_step(path: Path, *ids: str) -> None:
    """Raw SQL that leaves the composites of assemblies behind."""
    with closing(sqlite3.connect(path)) as base, base:
        for id in ids:
            base.execute("UPDATE assembly SET revision = revision + 1 WHERE id = ?", (id,))
    base.close()


def by_id(hits: Hits[memstore.Hit]) -> dict[str, memstore.Hit]:
    return {hit.memory.id: hit for hit in hits}


# --- the formulas ---


scores = st.floats(-1e12, 1e12)
levels = st.floats(0, 1)


@given(scores, st.floats(0, 1e12), st.floats(0, 1e12), levels, levels, st.floats(0, 100), st.floats(1e-6, 1e6))
def test_a_boost_is_bounded_and_grows_with_score_and_level(
    threshold: float, lower: float, higher: float, level: float, more: float, priming: float, weight: float
) -> None:
    assembly_boost = AssemblyBoost(threshold=threshold, weight=weight, priming=priming)
    (lower, higher), (level, more) = sorted([lower, higher]), sorted([level, more])
    assert 0.5 <= assembly_boost.strength(threshold + lower, level) <= 1
    assert weight / 2 <= assembly_boost.boost(threshold + lower, level) <= weight
    assert assembly_boost.boost(threshold + lower, level) <= assembly_boost.boost(threshold + higher, level)
    assert assembly_boost.boost(threshold + lower, level) <= assembly_boost.boost(threshold + lower, more)


def test_strength_has_the_documented_values() -> None:
    assembly_boost = AssemblyBoost(threshold=0.5, weight=0.2, priming=2)
    assert assembly_boost.strength(0.5, 0) == 0.5
    assert assembly_boost.strength(1.5, 0) == pytest.approx(2 / 3)
    assert assembly_boost.strength(0.5, 0.5) == pytest.approx(2 / 3)
    assert assembly_boost.boost(1.5, 0.5) == pytest.approx(0.2 * 3 / 4)


WHEN = datetime(2024, 2, 29, tzinfo=UTC)


@given(levels, st.floats(1e-3, 1e9), st.integers(0, 10**9), st.integers(0, 10**9))
def test_activation_halves_every_half_life(level: float, half_life: float, soon: int, late: int) -> None:
    soon, late = sorted([soon, late])

    def at(seconds: float) -> float:
        return decayed(level, WHEN, WHEN + timedelta(seconds=seconds), half_life)

    assert at(0) == at(-5) == level
    assert 0 <= at(late) <= at(soon) <= level
    assert at(soon) == pytest.approx(level * 0.5 ** (soon / half_life), rel=1e-9, abs=1e-300)
    assert decayed(level, None, WHEN, half_life) == 0.0


# --- the search, against one that looks at everything ---


async def expected(
    store: Store,
    query: Rows,
    limit: int,
    assembly_boost: AssemblyBoost,
    *,
    tags: Iterable[str] = (),
    min_score: float = -math.inf,
    recursive: bool = False,
) -> list[tuple[str, float, float]]:
    """Every memory and every assembly looked at: id, base score and boost of the best."""
    groups = [group async for group in store.assemblies.list(recursive=recursive) if group.composite is not None]
    scored = [(score(store.metric, query, group.composite), group) for group in groups]
    scored = sorted((pair for pair in scored if pair[0] >= assembly_boost.threshold), key=lambda pair: -pair[0])[
        : assembly_boost.limit
    ]
    boosts: dict[tuple[Any, str], float] = {}
    for closeness, group in scored:
        strength = 1 - 1 / (2 + closeness - assembly_boost.threshold + assembly_boost.priming * group.activation)
        async for member in store.namespace(*group.namespace).assemblies.members(group.id):
            key = group.namespace, member
            boosts[key] = max(boosts.get(key, 0.0), assembly_boost.weight * strength)
    ranking = []
    async for memory in store.memories.list(tags=tags, recursive=recursive):
        if memory.embedding is not None:
            base = score(store.metric, query, memory.embedding)
            if base >= min_score:
                ranking.append((memory.id, base, boosts.get((memory.namespace, memory.id), 0.0)))
    return sorted(ranking, key=lambda row: -(row[1] + row[2]))[:limit]


async def fill(store: Store, rng: np.random.Generator) -> None:
    for part, place in enumerate((store, store.namespace("a"), store.namespace("a", "b"))):
        rows = vectors(rng, 60)
        items: list[dict[str, Any]] = [
            {
                "id": f"{part}:{i}",
                "content": "",
                "embedding": row,
                "tags": {"even"} if i % 2 == 0 else {"odd"},
                "expires_at": datetime(9999, 1, 1, tzinfo=UTC) if i % 3 else None,
            }
            for i, row in enumerate(rows)
        ]
        await place.memories.add_many([*items, {"id": f"{part}:silent", "content": "", "tags": {"even"}}])
        for group in range(12):
            indices = rng.choice(60, size=int(rng.integers(1, 9)), replace=False)
            members = [f"{part}:{i}" for i in indices] + [f"{part}:silent"] * (group % 2)
            await place.assemblies.add(f"g{group}", members=members)
        await place.assemblies.add("empty")
        await place.assemblies.activate({f"g{i}": i / 12 for i in range(12)})


THRESHOLDS = {"cosine": 0.3, "l2": 0.25, "inner_product": 1.0}


@pytest.mark.parametrize("metric", THRESHOLDS)
async def test_boosted_search_equals_a_complete_comparison(path: Path, metric: Any) -> None:
    rng = np.random.default_rng(5)
    async with memstore.open(path, dimension=DIMENSION, metric=metric, activation_half_life=1e15) as store:
        await fill(store, rng)
        changed = 0
        for query in vectors(rng, 8):
            for options in (
                {},
                {"tags": {"even"}},
                {"recursive": True},
                {"recursive": True, "tags": {"odd"}},
                {"min_score": 0.2},
            ):
                for assembly_boost in (
                    AssemblyBoost(threshold=THRESHOLDS[metric], limit=3, weight=0.5),
                    AssemblyBoost(threshold=THRESHOLDS[metric], limit=50, weight=2.0, priming=3.0),
                ):
                    hits = await store.memories.search(query, 7, boost=assembly_boost, **options)
                    expected_ranking = await expected(store, query, 7, assembly_boost, **options)
                    assert [hit.memory.id for hit in hits] == [id for id, _, _ in expected_ranking]
                    for hit, (_, base, boost) in zip(hits, expected_ranking, strict=True):
                        assert hit.base_score == pytest.approx(base, rel=1e-5, abs=1e-6)
                        assert hit.boost == pytest.approx(boost, rel=1e-5)
                        assert hit.score == hit.base_score + hit.boost
                    plain = await store.memories.search(query, 7, **options)
                    changed += [hit.memory.id for hit in plain] != [hit.memory.id for hit in hits]
                    assert {hit.reason for hit in plain} <= {"none"}
        assert changed > 40
        several = await store.memories.search_many([unit(1), unit(0, 1)], boost=EVERY, recursive=True)
        alone = [await store.memories.search(q, boost=EVERY, recursive=True) for q in (unit(1), unit(0, 1))]
        assert several == alone
        for one, other in zip(several, alone, strict=True):
            assert [(a.id, a.score) for a in one.activated] == [(a.id, a.score) for a in other.activated] != []
        assert await store.check() == []


@pytest.mark.parametrize("vector_type", ["float32", "float16"])
async def test_boost_finds_members_that_rank_lower_without_it(path: Path, vector_type: Any) -> None:
    rng = np.random.default_rng(3)
    rows = unit(1) + 0.3 * vectors(rng, 500) / 3
    async with memstore.open(path, dimension=DIMENSION, index=memstore.IndexOptions(vector_type=vector_type)) as store:
        await store.memories.add_many([{"id": f"n{i}", "content": "", "embedding": row} for i, row in enumerate(rows)])
        for id, more in {"far": {}, "tagged": {"tags": {"t"}}, "gone": {"ttl": 1e-6}}.items():
            await store.memories.add(id, id=id, embedding=unit(1, 1), **more)
        await store.namespace("other").memories.add("o", id="other", embedding=unit(1, 1))
        await store.assemblies.add("g", members=["far", "tagged"])
        await store.namespace("other").assemblies.add("g", members=["other"])
        assembly_boost = AssemblyBoost(threshold=0.6, weight=1)
        assert not {"far", "tagged"} & by_id(await store.memories.search(unit(1), 5)).keys()
        assert [hit.memory.id for hit in await store.memories.search(unit(1), 5, boost=assembly_boost)][:2] == [
            "far",
            "tagged",
        ]
        tagged = await store.memories.search(unit(1), 5, boost=assembly_boost, tags={"t"})
        assert [hit.memory.id for hit in tagged] == ["tagged"]
        recursive = await store.memories.search(unit(1), 5, boost=assembly_boost, recursive=True)
        assert [hit.memory.id for hit in recursive][:3] == ["far", "tagged", "other"]
        assert {(activated.namespace, activated.id) for activated in recursive.activated} == {
            ((), "g"),
            (("other",), "g"),
        }
        close = await store.memories.search(unit(1), 5, boost=assembly_boost, min_score=0.9)
        assert {hit.reason for hit in close} == {"no_assembly"}, "what an assembly adds makes nothing closer"


async def test_only_synced_assemblies_boost(path: Path) -> None:
    async with memstore.open(path, dimension=DIMENSION) as store:
        for id in ("out", "in"):  # the one that is to come first is the younger
            await store.memories.add(id, id=id, embedding=unit(1, 0.5))
        await store.assemblies.add("unsynced", members=["out"])
        await store.assemblies.add("synced", members=["in"])
    out_of_step(path, "unsynced")
    async with memstore.open(path, read_only=True) as store:
        hits = await store.memories.search(unit(1, 0.5), boost=AssemblyBoost())
        assert [hit.memory.id for hit in hits] == ["in", "out"]
        first, second = hits
        assert (first.reason, first.assembly, second.reason, second.assembly) == ("boosted", "synced", "stale", None)
        assert first.boost > 0
        assert second.boost == 0.0
        assert first.base_score == pytest.approx(second.base_score)
        assert first.score == first.base_score + first.boost > second.score == second.base_score
        assert [activated.id for activated in hits.activated] == ["synced"]
    async with memstore.open(path) as store:  # which mends it
        hits = await store.memories.search(unit(1, 0.5), boost=AssemblyBoost())
        assert [hit.memory.id for hit in hits] == ["out", "in"]
        assert {hit.reason for hit in hits} == {"boosted"}


async def test_every_hit_has_a_reason(store: Store) -> None:
    rows = {"near": unit(1), "far": unit(-1), "alone": unit(0, 1), "second": unit(0.9, 0.1), "shared": unit(1, 0.2)}
    for id, row in rows.items():
        await store.memories.add(id, id=id, embedding=row)
    await store.assemblies.add("a", members=["near", "shared"])
    await store.assemblies.add("b", members=["second"])
    await store.assemblies.add("c", members=["far"])
    await store.assemblies.add("d", members=["shared", "second"])
    hits = by_id(await store.memories.search(unit(1), boost=AssemblyBoost(threshold=0.5, limit=2)))
    assert {id: (hit.reason, hit.assembly) for id, hit in hits.items()} == {
        "near": ("boosted", "a"),
        "shared": ("boosted", "a"),
        "second": ("boosted", "b"),
        "far": ("not_activated", None),
        "alone": ("no_assembly", None),
    }
    assert all((hit.boost == 0.0) == (hit.reason != "boosted") for hit in hits.values())
    nearest = await store.memories.search(unit(1), boost=AssemblyBoost(threshold=0.5, limit=1))
    assert [activated.id for activated in nearest.activated] == ["a"]
    nothing = await store.memories.search(unit(1), boost=AssemblyBoost(threshold=0.9999))
    assert nothing.activated == ()
    plain = await store.memories.search(unit(1))
    assert [(hit.score, hit.reason) for hit in plain] == [(hit.score, "none") for hit in plain]
    assert plain.activated == ()
    assert all(
        (hit.base_score, hit.boost, hit.assembly, hit.score_boost) == (hit.score, 0.0, None, None) for hit in plain
    )
    assert [hit.memory.id for hit in nothing] == [hit.memory.id for hit in plain]


async def test_stale_assemblies_do_not_count_towards_the_limit(path: Path) -> None:
    async with memstore.open(path, dimension=DIMENSION) as store:
        for i in range(40):
            await store.memories.add("", id=f"m{i}", embedding=unit(1, 0.01 * i))
            await store.assemblies.add(f"g{i}", members=[f"m{i}"])
    out_of_step(path, *(f"g{i}" for i in range(35)))
    async with memstore.open(path, read_only=True) as store:
        hits = await store.memories.search(unit(1), 40, boost=AssemblyBoost(threshold=0.5, limit=2))
        assert [activated.id for activated in hits.activated] == ["g35", "g36"]
        reasons = {hit.memory.id: hit.reason for hit in hits}
        assert (reasons["m34"], reasons["m35"], reasons["m37"]) == ("stale", "boosted", "not_activated")


async def test_max_age_excludes_older_composites(store: Store, path: Path) -> None:
    for id in ("old", "young", "far"):
        await store.memories.add(id, id=id, embedding=unit(-1) if id == "far" else unit(1))
        await store.assemblies.add(id, members=[id])
    with closing(sqlite3.connect(path)) as base, base:
        base.execute(
            "UPDATE assembly_vector SET composed_at = composed_at - 3600000000 "
            "WHERE assembly_pk IN (SELECT pk FROM assembly WHERE id <> 'young')"
        )
        base.execute("UPDATE assembly_vector SET composed_at = NULL WHERE assembly_pk = 3")
    base.close()
    state = await store.assemblies.sync_state("old")
    assert state.synced
    assert timedelta(minutes=60) <= state.age < timedelta(minutes=70)
    assert (await store.assemblies.sync_state("far")).age is None
    for limit in (timedelta(minutes=30), 1800, 1800.0):
        hits = by_id(await store.memories.search(unit(1), boost=AssemblyBoost(max_age=limit)))
        assert {id: hit.reason for id, hit in hits.items()} == {
            "old": "stale",
            "young": "boosted",
            "far": "not_activated",
        }
        assert hits["old"].boost == 0.0
    for limit in (None, timedelta(hours=2)):
        hits = by_id(await store.memories.search(unit(1), boost=AssemblyBoost(max_age=limit)))
        assert {id: hit.reason for id, hit in hits.items()} == {
            "old": "boosted",
            "young": "boosted",
            "far": "not_activated",
        }
    older = AssemblyBoost(max_age=timedelta(hours=2), threshold=-1)
    assert (await store.memories.search(unit(-1), 1, boost=older))[0].reason == "stale", "of no known age"


# --- what is stored of it ---


async def test_search_records_activations_only_with_record(store: Store) -> None:
    for id, row in {"a": unit(1), "b": unit(1, 1), "c": unit(-1)}.items():
        await store.memories.add(id, id=id, embedding=row)
        await store.assemblies.add(id, members=[id])
    before = [group async for group in store.assemblies.list()]
    await store.memories.search(unit(1), boost=AssemblyBoost())
    assert [group async for group in store.assemblies.list()] == before
    await store.memories.search_many([unit(1), unit(1, 1)], boost=AssemblyBoost(threshold=0.6, record=True))
    after = {group.id: group async for group in store.assemblies.list()}
    assert {id: group.activation_count for id, group in after.items()} == {"a": 1, "b": 1, "c": 0}
    strongest = AssemblyBoost(threshold=0.6).strength(1.0, 0)
    assert after["a"].activation_level == pytest.approx(strongest)
    assert after["b"].activation_level == pytest.approx(strongest)
    assert [(g.updated_at, g.revision) for g in after.values()] == [(g.updated_at, g.revision) for g in before]
    async with store.transaction() as tx:
        await tx.memories.search(unit(-1), boost=AssemblyBoost(record=True))
        assert (await tx.assemblies.get("c")).activation_count == 1
    assert (await store.assemblies.get("c")).activation_count == 1


async def test_read_only_store_boosts_but_records_nothing(path: Path) -> None:
    async with memstore.open(path, dimension=DIMENSION) as store:
        await store.memories.add("a", id="a", embedding=unit(1))
        await store.assemblies.add("g", members=["a"])
    async with memstore.open(path, read_only=True) as store:
        assert (await store.memories.search(unit(1), boost=AssemblyBoost()))[0].reason == "boosted"
        with pytest.raises(ReadOnlyError):
            await store.memories.search(unit(1), boost=AssemblyBoost(record=True))
        with pytest.raises(ReadOnlyError):
            await store.assemblies.activate(["g"])


async def test_activate_is_not_a_change_of_the_assembly(store: Store) -> None:
    await store.assemblies.add_many([{"id": id} for id in "abc"])
    before = await store.assemblies.get("a")
    assert (before.activation, before.activation_level, before.activated_at, before.activation_count) == (0, 0, None, 0)
    started = datetime.now(UTC)
    assert await store.assemblies.activate(["a", "b", "none", "a"]) == 2
    assert await store.assemblies.activate({"b": 0.25, "none": 1}) == 1
    assert await store.assemblies.activate([]) == 0
    after, other, untouched = [await store.assemblies.get(id) for id in "abc"]
    assert (after.activation_level, after.activation_count, other.activation_level, other.activation_count) == (
        1,
        1,
        0.25,
        2,
    )
    assert started <= after.activated_at <= datetime.now(UTC)
    assert (after.updated_at, after.revision) == (before.updated_at, before.revision)
    assert untouched.activation_count == 0
    for wrong in ({"a": 2}, {"a": -0.1}, {"a": math.nan}, {"a": "1"}, {"c": True}):
        with pytest.raises(InvalidError, match="level"):
            await store.assemblies.activate(wrong)
    with pytest.raises(InvalidError, match="level"):
        await store.assemblies.activate(["c"], level=1.5)
    assert (await store.assemblies.get("c")).activation_count == 0


async def test_activation_fades_by_the_half_life_the_store_was_opened_with(path: Path) -> None:
    hours = [0, 1, 2, 48]
    now = datetime.now(UTC)
    async with memstore.open(path, dimension=DIMENSION, activation_half_life=3_600.0) as store:
        await store.assemblies.add_many(
            [
                {"id": str(n), "activation_level": 0.8, "activated_at": now - timedelta(hours=n), "activation_count": n}
                for n in hours
            ]
        )
        faded = [(await store.assemblies.get(str(n))).activation for n in hours]
        assert faded == pytest.approx([0.8 * 0.5**n for n in hours], rel=0.05)
        listed = [group.activation async for group in store.assemblies.list(order="-activated_at")]
        assert listed == pytest.approx(faded, rel=0.05)
        assert await store.assemblies.count(where={"activation_count": {"$gte": 2}}) == 2
        assert await store.assemblies.count(where={"activated_at": {"$lt": now - timedelta(hours=1)}}) == 2
    async with memstore.open(path) as store:  # half a day and half of it again: a day is the half-life
        again = await store.assemblies.get("48")
        assert again.activation == pytest.approx(0.2, rel=0.01)
        assert (again.activation_level, again.activated_at, again.activation_count) == (
            0.8,
            now - timedelta(hours=48),
            48,
        )
        assert again == await store.assemblies.get("48"), "what has faded meanwhile makes no other record"
    for wrong in (0, -1, math.inf, math.nan, "day", True):
        with pytest.raises(InvalidError, match="activation_half_life"):
            memstore.open(path, activation_half_life=wrong)


async def test_upsert_keeps_the_activation_unless_one_is_given(store: Store) -> None:
    added = await store.assemblies.add("g", activation_level=0.5, activation_count=3)
    assert added.activated_at is not None
    upserted = await store.assemblies.upsert("g", name="new")
    assert (upserted.activation_level, upserted.activated_at, upserted.activation_count) == (0.5, added.activated_at, 3)
    replaced = await store.assemblies.upsert("g", activation_level=0.75, activated_at=WHEN, activation_count=9)
    assert (replaced.activation_level, replaced.activated_at, replaced.activation_count) == (0.75, WHEN, 9)
    inserted = await store.assemblies.upsert("h", activation_level=0.0)
    assert (inserted.activation, inserted.activated_at) == (0.0, None)
    for wrong in ({"activation_level": 1.1}, {"activated_at": 5}, {"activation_count": -1}):
        with pytest.raises(InvalidError, match=next(iter(wrong))):
            await store.assemblies.add("i", **wrong)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"threshold": math.nan}, "threshold: expected a number"),
        ({"threshold": math.inf}, "threshold: expected a finite number"),
        ({"limit": 0}, "limit of AssemblyBoost: expected a whole number"),
        ({"weight": 0}, "expected a number above 0"),
        ({"weight": -1}, "weight: expected a finite number of 0 or more"),
        ({"priming": -0.1}, "priming: expected a finite number of 0 or more"),
        ({"max_age": -1}, "max_age: expected a finite number of 0 or more"),
        ({"max_age": "1"}, "max_age: expected a number"),
        ({"record": 1}, "record: expected True or False"),
    ],
)
def test_invalid_boosts_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidError, match=said):
        AssemblyBoost(**wrong)


async def test_boost_must_be_an_assembly_boost(store: Store) -> None:
    for wrong in (True, 0.5, {"threshold": 0.5}):
        with pytest.raises(InvalidError, match="AssemblyBoost"):
            await store.memories.search(unit(1), boost=wrong)
        with pytest.raises(InvalidError, match="AssemblyBoost"):
            await store.memories.explain(unit(1), "a", boost=wrong)
    assert await store.memories.search_many([], boost=AssemblyBoost()) == []


async def test_recording_waits_for_the_writer_at_most_the_timeout(path: Path) -> None:
    async with memstore.open(path, dimension=DIMENSION, timeout=0.2) as store:
        await store.memories.add("a", id="a", embedding=unit(1))
        await store.assemblies.add("g", members=["a"])
        writer = sqlite3.connect(path, isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        assert (await store.memories.search(unit(1), boost=AssemblyBoost()))[0].reason == "boosted"
        with pytest.raises(BusyError):
            await store.memories.search(unit(1), boost=AssemblyBoost(record=True))
        writer.execute("ROLLBACK")
        writer.close()
        assert await store.check() == []

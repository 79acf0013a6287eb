"""Why a memory ranks where it does: every figure is the one that ranked, everything that kept it out is named."""

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memstore
from memstore import AssemblyBoost, DimensionError, FilterError, NotFoundError, Store
from memstore.database.sqlite import sqlite3
from tests.conftest import DIMENSION, vectors
from tests.search.test_assembly_boost import THRESHOLDS, fill, out_of_step, unit
from tests.support.spaces import score


def causes(why: memstore.Explanation) -> list[str]:
    return [item.cause for item in why.exclusions]


@pytest.mark.parametrize("metric", THRESHOLDS)
@pytest.mark.parametrize("vector_type", ["float32", "float16"])
async def test_explained_values_equal_those_of_the_search(path: Path, metric: Any, vector_type: Any) -> None:
    if vector_type == "float16" and metric != "cosine":
        return
    rng = np.random.default_rng(9)
    assembly_boost = AssemblyBoost(threshold=THRESHOLDS[metric], limit=4, weight=0.5)
    async with memstore.open(
        path, dimension=DIMENSION, metric=metric, index=memstore.IndexOptions(vector_type=vector_type)
    ) as store:
        await fill(store, rng)
        boosted = 0
        for query in vectors(rng, 4):
            for boost in (None, assembly_boost):
                options: dict[str, Any] = {"recursive": True, "tags": {"even"}, "boost": boost}
                hits = await store.memories.search(query, 12, **options)
                for rank, hit in enumerate(hits, 1):
                    memory = hit.memory
                    why = await store.memories.explain(query, memory.id, 12, namespace=memory.namespace, **options)
                    assert (why.id, why.namespace, why.rank, why.exclusions) == (memory.id, memory.namespace, rank, ())
                    assert (why.score, why.base_score, why.boost) == (hit.score, hit.base_score, hit.boost)
                    assert (why.reason, why.assembly) == (hit.reason, hit.assembly)
                    assert (why.plan, [a.id for a in why.activated]) == (hits.plan, [a.id for a in hits.activated])
                    # and by hand
                    assert why.base_score == pytest.approx(score(metric, query, memory.embedding), rel=1e-5, abs=1e-6)
                    assert why.score == why.base_score + why.boost
                    if boost is None:
                        assert (why.assemblies, why.boost, why.reason) == ((), 0.0, "none")
                        continue
                    owners = await store.namespace(*memory.namespace).assemblies.containing(memory.id)
                    assert [explained.id for explained in why.assemblies] == [owner.id for owner in owners]
                    for explained, owner in zip(why.assemblies, owners, strict=True):
                        expected = score(metric, query, owner.composite)
                        assert explained.score == pytest.approx(expected, rel=1e-5, abs=1e-6)
                        assert explained.threshold == assembly_boost.threshold
                        assert (explained.outcome == "activated") == (explained.boost > 0) == (explained.strength > 0)
                        if explained.outcome == "activated":
                            assert explained.strength == assembly_boost.strength(explained.score, explained.level)
                            assert explained.boost == assembly_boost.weight * explained.strength
                            assert explained.score >= assembly_boost.threshold
                        else:
                            assert explained.outcome == (
                                "below_threshold" if expected < assembly_boost.threshold else "beyond_limit"
                            )
                    assert why.boost == max([explained.boost for explained in why.assemblies], default=0.0)
                    boosted += why.reason == "boosted"
        assert boosted > 5
        assert await store.check() == []


async def test_memory_outside_the_hits_has_a_score(store: Store, rng: np.random.Generator) -> None:
    await fill(store, rng)
    query, assembly_boost = vectors(rng, 1)[0], AssemblyBoost(threshold=0.0, limit=100)
    every = await store.memories.search(query, 100, boost=assembly_boost)
    assert sum(hit.boost > 0 for hit in every[1:25]) > 3
    for hit in every[1:25]:
        why = await store.memories.explain(query, hit.memory.id, 1, boost=assembly_boost)
        assert (why.rank, causes(why)) == (None, ["limit"])
        assert why.base_score == pytest.approx(hit.base_score, rel=1e-12)
        assert (why.boost, why.reason, why.assembly) == (hit.boost, hit.reason, hit.assembly)
        assert why.score == why.base_score + why.boost
        assert f"hits that rank higher: 1, the last with score {every[0].score:.6g}" in why.exclusions[0].detail


async def test_every_exclusion_is_named(store: Store, path: Path) -> None:
    place = store.namespace("p")
    await store.memories.add("one", id="one", embedding=unit(1), tags={"a"}, importance=0.5, metadata={"k": 1})
    await store.memories.add("silent", id="silent", tags={"a", "b"})
    await store.memories.add("late", id="late", embedding=unit(1, -0.1), expires_at=datetime(9999, 1, 1, tzinfo=UTC))
    await place.memories.add("there", id="there", embedding=unit(1))
    query = unit(1, 1)

    async def why(id: str, **options: Any) -> list[str]:
        explanation = await store.memories.explain(query, id, **options)
        assert (explanation.rank is None) == bool(explanation.exclusions)
        hits = await store.memories.search(query, **{k: v for k, v in options.items() if k != "namespace"})
        ids = [(hit.memory.namespace, hit.memory.id) for hit in hits]
        assert ((explanation.namespace, id) in ids) == (explanation.rank is not None)
        return causes(explanation)

    assert await why("one") == []
    assert await why("one", limit=1) == []
    assert await why("one", min_score=0.7) == []
    assert await why("one", min_score=0.71) == ["min_score"]
    assert await why("one", tags={"a", "b", "c"}) == ["tags", "tags"]
    assert await why("one", where={"importance": {"$gt": 0.4}}) == []
    where = {"importance": {"$gt": 0.4}, "metadata.k": 2, "$or": [{"content": "two"}, {"id": "two"}]}
    assert await why("one", where=where, tags={"b"}, min_score=0.9) == ["tags", "where", "where", "min_score"]
    full = await store.memories.explain(query, "one", where=where, tags={"b"})
    assert [item.detail for item in full.exclusions] == [
        "it lacks the tag 'b'",
        "{'metadata.k': 2} does not match",
        "{'$or': [{'content': 'two'}, {'id': 'two'}]} does not match",
    ]
    assert full.base_score == pytest.approx(2**-0.5), "whatever keeps it out"
    silent = await store.memories.explain(query, "silent", tags={"c"})
    assert (causes(silent), silent.base_score, silent.score, silent.boost) == (
        ["tags", "no_embedding"],
        None,
        None,
        0.0,
    )
    assert await why("there", namespace=("p",)) == ["namespace"]
    assert await why("there", namespace=("p",), recursive=True) == []
    assert await why("late") == []
    with closing(sqlite3.connect(path)) as base, base:
        base.execute("UPDATE memory SET expires_at = -1 WHERE id = 'late'")
    base.close()
    expired = await store.memories.explain(query, "late", tags={"a"})
    assert causes(expired) == ["expired", "tags"]
    assert expired.base_score == pytest.approx(score("cosine", query, unit(1, -0.1)))
    assert expired.exclusions[0].detail == "it expired at 1969-12-31T23:59:59.999999+00:00"


async def test_every_outcome_of_an_assembly_is_explained(path: Path) -> None:
    async with memstore.open(path, dimension=DIMENSION) as store:
        await store.memories.add("m", id="m", embedding=unit(1))
        await store.memories.add("far", id="far", embedding=unit(-3, 0.1))
        await store.memories.add("other", id="other", embedding=unit(-1))
        await store.memories.add("side", id="side", embedding=unit(1, 1))
        groups = {
            "near": ["m"],
            "cancelled": ["m", "other"],
            "far": ["m", "far", "side", "other"],
            "second": ["m", "side"],
            "old": ["m"],
            "behind": ["m"],
        }
        await store.assemblies.add_many([{"id": id, "members": members} for id, members in groups.items()])
        await store.assemblies.activate({"near": 0.5})
    out_of_step(path, "behind")
    with closing(sqlite3.connect(path)) as base, base:
        old = "(SELECT pk FROM assembly WHERE id = 'old')"
        base.execute(f"UPDATE assembly_vector SET composed_at = 1 WHERE assembly_pk = {old}")
    base.close()
    async with memstore.open(path, read_only=True, activation_half_life=1e15) as store:
        assembly_boost = AssemblyBoost(threshold=0.5, limit=1, max_age=86_400, weight=0.5, priming=1)
        why = await store.memories.explain(unit(1), "m", boost=assembly_boost)
        assert {item.id: item.outcome for item in why.assemblies} == {
            "near": "activated",
            "cancelled": "no_composite",
            "far": "below_threshold",
            "second": "beyond_limit",
            "old": "too_old",
            "behind": "stale",
        }
        by_id = {item.id: item for item in why.assemblies}
        assert by_id["near"].strength == pytest.approx(1 - 1 / 3)
        assert (by_id["near"].level, why.boost) == (pytest.approx(0.5), by_id["near"].boost)
        assert (by_id["behind"].sync.revision, by_id["behind"].sync.indexed_revision) == (2, 1)
        assert by_id["behind"].score == pytest.approx(1)
        assert by_id["cancelled"].score is None
        assert all(item.boost == 0.0 == item.strength for item in why.assemblies if item.id != "near")
        lines = str(why).splitlines()
        assert lines[0].startswith("m: hit 1, score 1.33333 = 1 + 0.333333")
        assert lines[1] == "boost: boosted by near"
        assert (
            "assembly behind: stale, score 1, threshold 0.5, boost 0; revision 2, composite of 1, index of 1" in lines
        )
        lone = await store.memories.explain(unit(1), "other", 1, boost=assembly_boost)
        assert "excluded by limit" in str(lone)
        assert "assembly cancelled: no_composite, no score, threshold 0.5, boost 0" in str(lone)


async def test_explain_changes_nothing_and_refuses_what_search_refuses(store: Store) -> None:
    await store.memories.add("m", id="m", embedding=unit(1))
    await store.assemblies.add("g", members=["m"])
    before = await store.assemblies.get("g")
    why = await store.memories.explain(unit(1), "m", boost=AssemblyBoost(record=True))
    assert why.reason == "boosted"
    assert await store.assemblies.get("g") == before
    async with store.transaction() as tx:
        await tx.memories.add("new", id="new", embedding=unit(1, 0.1))
        assert (await tx.memories.explain(unit(1), "new", boost=AssemblyBoost())).reason == "no_assembly"
        assert (await tx.memories.explain(unit(1), "m", boost=AssemblyBoost())).reason == "boosted"
        await tx.assemblies.add_members("g", ["new"])
        inside = await tx.memories.explain(unit(1), "m", boost=AssemblyBoost())
        assert (inside.reason, inside.assemblies[0].outcome, inside.boost) == ("stale", "stale", 0.0)
    with pytest.raises(NotFoundError):
        await store.memories.explain(unit(1), "none")
    with pytest.raises(NotFoundError):
        await store.memories.explain(unit(1), "m", namespace=("elsewhere",))
    with pytest.raises(DimensionError):
        await store.memories.explain([1, 2], "m")
    with pytest.raises(FilterError):
        await store.memories.explain(unit(1), "m", where={"nothing": 1})

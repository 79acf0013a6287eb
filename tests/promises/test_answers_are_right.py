"""No answer is wrong without an error."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

import memstore

# The graph finds rare, duplicated and long vectors.

# Filters that cannot match.


@pytest.mark.parametrize(
    "where",
    [
        {"importance": {"gt": 0.1}},
        {"importance": {"a": 1}},
        {"importance": "0.5"},
        {"created_at": {"$gt": "2020-01-01"}},
        {"created_at": {"$gt": 1_600_000_000}},
        {"pinned": 1},
        {"content": None},
        {"metadata": {"kind": "note"}},
        {"metadata.at": datetime(2020, 1, 1, tzinfo=UTC)},
    ],
    ids=str,
)
async def test_a_filter_that_can_never_match_raises_in_every_verb(where: dict[str, object], path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("x", embedding=[1, 0], metadata={"kind": "note", "by": "x"})
        for call in (
            lambda: store.memories.count(where=where),
            lambda: store.memories.search([1, 0], where=where),
            lambda: store.memories.delete_many(where=where),
            lambda: store.assemblies.suggest(0.5, where=where),
        ):
            with pytest.raises(memstore.FilterError):
                await call()
        with pytest.raises(memstore.FilterError):
            memstore.ForgetPolicy(where=where)


async def test_an_iso_text_with_an_offset_is_a_time(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("x", id="old", created_at=datetime(2020, 1, 1, tzinfo=UTC))
        await store.memories.add("y", id="new", created_at=datetime(2024, 1, 1, tzinfo=UTC))
        late = [memory.id async for memory in store.memories.list(where={"created_at": {"$gt": "2022-01-01T00:00Z"}})]
    assert late == ["new"]


async def test_a_scalar_of_numpy_is_taken_wherever_a_number_or_a_text_is(path: Path) -> None:
    async with memstore.open(np.str_(path), dimension=np.int64(2), timeout=np.float32(5)) as store:
        stored = await store.memories.add(
            np.str_("x"),
            id=np.str_("a"),
            importance=np.float32(0.5),
            access_count=np.int16(3),
            pinned=np.bool_(True),
            ttl=np.int64(3_600),
            tags=[np.str_("t")],
            metadata={np.str_("n"): np.int32(1), "f": [np.float64(0.5)], "b": np.bool_(False)},
        )
        assert (stored.id, stored.content, stored.tags) == ("a", "x", {"t"})
        assert {type(value) for value in (stored.id, stored.content, *stored.tags)} == {str}
        assert (stored.importance, stored.access_count, stored.pinned) == (0.5, 3, True)
        assert stored.metadata == {"n": 1, "f": [0.5], "b": False}
        assert await store.memories.get(np.str_("a")) == stored
        assert await store.memories.count(where={"importance": {"$gte": np.float32(0.5)}, "id": np.str_("a")}) == 1
        boost = memstore.AssemblyBoost(threshold=np.float32(0.5), limit=np.int64(1))
        assert await store.memories.search([1, 0], np.int64(5), min_score=np.float64(0), boost=boost) == []
        policy = memstore.ForgetPolicy(older_than=np.int64(60), importance_below=np.float64(0.9))
        assert len(await store.memories.plan_forget(policy)) == 0
        assert await store.memories.purge(older_than=np.float64(1)) == 0


# The embedder that the file names.

# Exact means exact.

# A clock that moves.

# Damage is named.

# Assembly boost.

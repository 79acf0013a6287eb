"""No answer is wrong without an error."""

import dataclasses
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

import memstore
from memstore import AssemblyBoost, EmbedderError
from memstore.importers import reembed
from memstore.testing import HashEmbedder
from tests.support.clock import clock

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
        for id in ("g", "h"):
            await store.assemblies.add(np.str_(id), activation_level=np.float32(0.5))
        merge = await store.assemblies.merge([np.str_("g"), np.str_("h")], into=np.str_("z"))
        assert (await store.assemblies.unmerge(np.int64(merge.id))).id == merge.id


# The embedder that the file names.


@pytest_asyncio.fixture
async def named_path(path: Path) -> Path:
    """A file whose vectors are from `HashEmbedder()`."""
    async with memstore.open(path, embedder=HashEmbedder()) as store:
        await store.memories.add("green tea", id="tea")
    return path


@pytest.mark.parametrize(
    "write",
    [
        lambda memories: memories.add("peanuts"),
        lambda memories: memories.upsert("peanuts", id="tea"),
        lambda memories: memories.update("tea", content="peanuts"),
        lambda memories: memories.add_many([{"content": "a", "embedding": None}, {"content": "b", "id": "b"}]),
        lambda memories: memories.upsert_many([{"content": "a", "id": "a"}]),
    ],
    ids=["add", "upsert", "update", "add_many", "upsert_many"],
)
async def test_without_the_embedder_of_the_file_no_text_is_stored_that_no_search_can_find(
    named_path: Path, write: Callable[[memstore.Memories], Awaitable[object]]
) -> None:
    async with memstore.open(named_path) as store:
        with pytest.raises(EmbedderError, match=r"without embedder 'hash-64-0'.*embedding=None"):
            await write(store.memories)
        assert [memory.content async for memory in store.memories.list()] == ["green tea"]
        assert (await store.memories.add("no vector", embedding=None)).embedding is None
        await store.memories.update("tea", tags={"drink"})


async def test_a_load_without_the_embedder_of_the_file_stores_the_items_before_the_text(named_path: Path) -> None:
    async with memstore.open(named_path) as store:
        with pytest.raises(memstore.LoadError, match=r"Item 1 \(id 'b'\).*without embedder") as caught:
            await store.load([{"content": "a", "embedding": None}, {"content": "b", "id": "b"}])
        assert (caught.value.stored, await store.memories.count()) == (1, 2)


async def test_a_text_is_refused_after_another_store_has_named_the_embedder(path: Path) -> None:
    async with memstore.open(path, dimension=64) as first, memstore.open(path, embedder=HashEmbedder()) as second:
        await first.memories.add("before, without a vector")
        await second.memories.add("tea")
        with pytest.raises(EmbedderError, match="without embedder 'hash-64-0'"):
            await first.memories.add("after")


async def test_reading_with_a_wrong_embedder_does_not_name_it(path: Path) -> None:
    async with memstore.open(path, dimension=64) as store:
        await store.memories.add("made elsewhere", id="x", embedding=np.ones(64))
    async with memstore.open(path, embedder=HashEmbedder(seed=1)) as store:
        assert await store.memories.count() == 1
        assert len(await store.memories.search("text")) == 1
        await store.memories.update("x", tags={"t"})
        await store.assemblies.add("group", members=["x"])
    async with memstore.open(path, embedder=HashEmbedder(seed=2)) as store:
        assert (await store.stats()).embedder is None
        await store.memories.add("text")
        assert (await store.stats()).embedder == "hash-64-2"


async def test_a_wrong_embedder_cannot_write_beside_the_one_that_was_named_meanwhile(path: Path) -> None:
    async with (
        memstore.open(path, embedder=HashEmbedder(seed=1)) as first,
        memstore.open(path, embedder=HashEmbedder(seed=2)) as second,
    ):
        await first.memories.add("text")
        with pytest.raises(memstore.SettingsMismatchError, match="cannot be compared"):
            await second.memories.add("text")
        with pytest.raises(memstore.SettingsMismatchError, match="cannot be compared"):
            await second.memories.search("text")


async def test_the_error_on_another_embedder_gives_the_way_out(named_path: Path, tmp_path: Path) -> None:
    other = HashEmbedder(32)
    with pytest.raises(
        memstore.SettingsMismatchError, match=r"give the embedder the name 'hash-64-0'.*importers.reembed"
    ):
        await memstore.open(named_path, embedder=other)
    async with memstore.open(named_path) as store:
        await store.namespace("a", "b").memories.add("black coffee", embedding=None, id="c", tags={"t"})
        await store.assemblies.add("drinks", members=["tea"], topics=["x"])
        assert await reembed(store, tmp_path / "new.db", other) == 2
        old = await store.memories.get("tea")
    async with memstore.open(tmp_path / "new.db", embedder=other) as new:
        tea = await new.memories.get("tea")
        assert tea == dataclasses.replace(old, embedding=other.embed(["green tea"])[0])
        assert (await new.memories.search("green tea"))[0].memory.id == "tea"
        assert (await new.namespace("a", "b").memories.get("c")).embedding is None
        assert [member async for member in new.assemblies.members("drinks")] == ["tea"]
        assert (await new.assemblies.get("drinks")).topics == ("x",)


# Exact means exact.


@pytest.mark.parametrize("metric", ["cosine", "spherical", "l2", "hyperbolic"])
async def test_a_vector_has_the_score_one_against_itself(metric: str, path: Path) -> None:
    rows = (0.1 * np.random.default_rng(0).standard_normal((100, 48))).astype(np.float32)
    async with memstore.open(path, dimension=48, metric=metric) as store:
        await store.memories.add_many([{"content": "", "id": str(i), "embedding": row} for i, row in enumerate(rows)])
        answers = await store.memories.search_many(rows, 1, min_score=1.0)
        assert [[hit.memory.id for hit in hits] for hits in answers] == [[str(i)] for i in range(100)]
        assert {hits[0].score for hits in answers} == {1.0}


async def test_identical_assemblies_are_candidates_at_a_threshold_of_one_and_merge(path: Path) -> None:
    rows = np.random.default_rng(1).standard_normal((40, 48)).astype(np.float32)
    async with memstore.open(path, dimension=48) as store:
        await store.memories.add_many([{"content": "", "id": str(i), "embedding": row} for i, row in enumerate(rows)])
        for i in range(40):
            await store.assemblies.add(f"a{i}", members=[str(i)])
            await store.assemblies.add(f"b{i}", members=[str(i)])
        candidates = await store.assemblies.merge_candidates(1.0, limit=100)
        assert sorted((pair.a, pair.b) for pair in candidates) == sorted((f"a{i}", f"b{i}") for i in range(40))
        await store.assemblies.merge(["a0", "b0"], threshold=1.0)
        copies = [{"content": "", "id": f"copy{i}", "embedding": 3 * rows[0]} for i in range(4)]
        await store.memories.add_many(copies)
        (group,) = (await store.assemblies.suggest(1.0, min_size=2)).groups
        assert set(group.members) == {f"copy{i}" for i in range(4)}


@pytest.mark.parametrize("engine", ["numpy", "faiss"])
@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2", "spherical", "hyperbolic"])
async def test_equal_scores_come_in_order_of_creation_at_every_limit(metric: str, engine: str, path: Path) -> None:
    index = memstore.IndexOptions(engine=engine)
    async with memstore.open(path, dimension=4, metric=metric, index=index) as store:
        vectors = [[0.1, 0.2, 0.3, 0.4]] * 100 + [[0.4, 0.3, 0.2, 0.1]] * 3
        await store.memories.add_many([{"content": "", "id": str(i), "embedding": v} for i, v in enumerate(vectors)])
        for limit in (1, 10, 20, 60, 99):
            hits = await store.memories.search([0.1, 0.2, 0.3, 0.4], limit)
            assert [hit.memory.id for hit in hits] == [str(i) for i in range(limit)]


@pytest.mark.parametrize("metric", ["l2", "hyperbolic"])
async def test_the_nearer_of_two_equal_scores_comes_first_also_in_a_transaction(metric: str, path: Path) -> None:
    async with memstore.open(path, dimension=2, metric=metric) as store:
        await store.memories.add("farther", embedding=[2e-25, 0])
        async with store.transaction() as tx:
            await tx.memories.add("nearer", embedding=[1e-25, 0])
            for limit in (1, 2):
                hits = await tx.memories.search([0, 0], limit)
                assert [(hit.memory.content, hit.score) for hit in hits] == [("nearer", 1), ("farther", 1)][:limit]
        assert [hit.memory.content for hit in await store.memories.search([0, 0])] == ["nearer", "farther"]


@pytest.mark.parametrize("spread", [0.03, 0.01])
async def test_an_exact_search_of_float16_vectors_finds_what_float32_finds(spread: float, path: Path) -> None:
    """Vectors so near each other that float16 cannot order them: a cosine of 0.999 and of 0.9999 between any two."""
    rng = np.random.default_rng(2)
    centre = rng.standard_normal(64) / 8
    rows, queries = (
        (centre + spread * rng.standard_normal((count, 64)) / 8).astype(np.float32) for count in (1_500, 20)
    )
    index = memstore.IndexOptions(kind="exact", engine="faiss", vector_type="float16")
    async with memstore.open(path, dimension=64, index=index) as store:
        await store.memories.add_many([{"content": "", "id": str(i), "embedding": row} for i, row in enumerate(rows)])
        scores = queries.astype(float) @ (rows / np.linalg.norm(rows.astype(float), axis=1, keepdims=True)).T
        for hits, values in zip(await store.memories.search_many(queries, 10), scores, strict=True):
            assert [int(hit.memory.id) for hit in hits] == np.argsort(-values)[:10].tolist()
            assert hits.plan.method == "exact"


# A clock that moves.

YEAR = timedelta(days=365)


@pytest.mark.parametrize("wrong", [10 * YEAR, -10 * YEAR], ids=["ahead", "behind"])
async def test_one_write_under_a_wrong_clock_makes_no_later_read_as_of_a_time_wrong(
    path: Path, wrong: timedelta
) -> None:
    with clock() as moved:
        async with memstore.open(path, dimension=2) as store:
            await store.memories.add("first", id="m")
            with moved.moved(wrong):
                await store.memories.add("other", id="other")
            await store.memories.update("m", content="second", embedding=None)
            second = moved.now()
            await store.memories.update("m", content="third", embedding=None)
            assert (await store.memories.get("m", as_of=moved.now())).content == "third"
            assert (await store.memories.get("m", as_of=second)).content == "second"
            assert len(await store.memories.history("m")) == 3


@pytest.mark.parametrize("wrong", [10 * YEAR, -10 * YEAR], ids=["ahead", "behind"])
async def test_one_write_under_a_wrong_clock_neither_empties_the_history_nor_stops_its_retention(
    path: Path, wrong: timedelta
) -> None:
    with clock() as moved:
        async with memstore.open(path, dimension=2, history=timedelta(days=1)) as store:
            await store.memories.add("x", id="m")
            with moved.moved(wrong):
                await store.memories.update("m", importance=0.1)
            await store.memories.update("m", importance=0.2)
            assert len(await store.memories.history("m")) == 3
            moved.offset = timedelta(days=3)
            for importance in (0.3, 0.4):
                await store.memories.update("m", importance=importance)
            assert [change.new["importance"] for change in await store.memories.history("m")] == [0.4, 0.3]


# Damage is named. `tests/database/test_damaged_columns.py` tries every column of every table.


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("created_at", "1 << 62", "time in microseconds, in the years 1 to 9999, found 4611686018427387904"),
        ("importance", "7.0", "float from 0 to 1, found 7.0"),
        ("access_count", "'x'", "int from 0 to 9223372036854775807, found str of 1 characters"),
        ("content", "x'ff'", "text in UTF-8, found bytes of 1 bytes"),
    ],
)
async def test_an_impossible_value_is_named_by_verify_check_restore_and_the_error(
    column: str, value: str, expected: str, path: Path
) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("x", id="m7", embedding=[1, 0])
    with sqlite3.connect(path) as base:
        base.execute("PRAGMA ignore_check_constraints=ON")
        base.execute(f"UPDATE memory SET {column} = {value}")
    base.close()
    detail = f"Corrupt value in memory.{column} of the row with pk 1: expected {expected}"
    finding = memstore.models.Finding(kind="value", record_kind="memory", id="m7", detail=detail)
    assert finding in (await memstore.verify(path)).findings
    for read_only in (True, False):
        async with memstore.open(path, read_only=read_only) as store:
            assert finding in await store.check()
            with pytest.raises(memstore.DamagedError, match=f"memory.{column} of 'm7'"):
                await store.memories.get("m7")
    with pytest.raises(memstore.DamagedError, match=f"memory.{column}"):
        await memstore.restore_backup(path, path.with_name("restored.db"))


# Assembly boost.


@pytest.mark.parametrize("common", [0.0, 2.0], ids=["low scores", "high scores"])
async def test_the_right_assemblies_are_activated_whatever_scores_the_embedder_gives(
    tmp_path: Path, common: float
) -> None:
    rng = np.random.default_rng(7)
    topics = rng.standard_normal((30, 64)) / 8
    shared = rng.standard_normal(64) / 8 * common  # unrelated texts score near 0 without it, near 0.8 with it
    async with memstore.open(tmp_path / "store.db", dimension=64) as store:
        for i, topic in enumerate(topics):
            rows = topic + shared + 1.5 * rng.standard_normal((6, 64)) / 8
            items = [{"id": f"{i}.{j}", "content": "x", "embedding": row} for j, row in enumerate(rows)]
            await store.memories.add_many(items)
            await store.assemblies.add(f"topic {i}", members=[item["id"] for item in items])
        activated = []
        for topic in topics:
            hits = await store.memories.search(topic + shared + rng.standard_normal(64) / 8, boost=AssemblyBoost())
            activated.append([assembly.id for assembly in hits.activated])
            nearest = hits.plan.nearest_assembly
            assert nearest is not None
            assert (nearest.outcome == "activated") == (nearest.id in activated[-1]) == (nearest.missing == 0)
            assert nearest.missing == max(0.0, nearest.threshold - nearest.score)
    right = [f"topic {i}" in ids for i, ids in enumerate(activated)]
    assert sum(right) >= 25
    assert sum(map(len, activated)) <= 45  # few wrong ones beside them


async def test_a_search_says_which_assembly_came_nearest_and_what_it_lacked(tmp_path: Path) -> None:
    async with memstore.open(tmp_path / "store.db", dimension=2) as store:
        for id, vector in {"a": [1, 0], "b": [0.8, 0.6], "c": [0, 1]}.items():
            await store.memories.add(id, id=id, embedding=vector)
        assert (await store.memories.search([0, 1], boost=AssemblyBoost())).plan.nearest_assembly is None
        await store.assemblies.add("first", members=["a", "b"])
        nearest = (await store.memories.search([0, 1], boost=AssemblyBoost(threshold=0.5))).plan.nearest_assembly
        assert nearest is not None
        assert (nearest.id, nearest.outcome, nearest.threshold) == ("first", "below_threshold", 0.5)
        assert nearest.score == pytest.approx(0.316, abs=1e-3)
        assert nearest.missing == pytest.approx(0.184, abs=1e-3)
        assert (await store.memories.search([0, 1])).plan.nearest_assembly is None

"""Memories: every field, every verb."""

from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

import memstore
from memstore import (
    DamagedError,
    DimensionError,
    DuplicateError,
    EmbedderError,
    EmbeddingError,
    FilterError,
    InvalidError,
    LoadError,
    NotFoundError,
    Store,
)
from memstore.database.sqlite import sqlite3
from memstore.validation import records as records_module
from tests.conftest import DIMENSION, vectors


def everything(rng: np.random.Generator) -> dict[str, object]:
    return {
        "id": "m:1",
        "content": "Ada prefers green tea\nand says so",
        "embedding": vectors(rng, 1)[0],
        "tags": {"preference", "ünï ✓"},
        "metadata": {"source": "chat", "n": 3, "x": 0.1 + 0.2, "deep": [1, {"ok": True, "none": None}], "": -0.0},
        "importance": 0.75,
        "created_at": datetime(2020, 1, 2, 3, 4, 5, 678_901, UTC),
        "updated_at": datetime(2021, 1, 2, 3, 4, 5, 1, UTC),
        "expires_at": datetime(2999, 1, 1, tzinfo=UTC),
        "accessed_at": datetime(2022, 1, 1, tzinfo=timezone(timedelta(hours=2))),
        "access_count": 7,
        "pinned": True,
    }


async def test_every_field_is_equal_after_close_and_reopen(path: Path, rng: np.random.Generator) -> None:
    fields = everything(rng)
    async with memstore.open(path, dimension=DIMENSION) as store:
        added = await store.memories.add(**fields)
    async with memstore.open(path) as store:
        read = await store.memories.get("m:1")
    assert read == added
    assert hash(read) == hash(added)
    assert read.embedding.dtype == np.float32
    assert read.embedding.tobytes() == fields["embedding"].tobytes()
    assert not read.embedding.flags.writeable
    assert read.tags == frozenset(fields["tags"])
    assert read.metadata == fields["metadata"]
    assert list(read.metadata) == list(fields["metadata"])
    assert read.created_at == fields["created_at"]
    assert read.accessed_at.utcoffset() == timedelta(0)
    assert (read.importance, read.access_count, read.pinned) == (0.75, 7, True)


@pytest.mark.parametrize("id", ["", "x" * 65_537, "half \ud800", 5, None.__class__])
async def test_invalid_ids_are_refused(store: Store, id: object) -> None:
    with pytest.raises(InvalidError):
        await store.memories.add("text", id=id)
    with pytest.raises(InvalidError):
        await store.memories.get(id)


async def test_generated_ids_sort_by_time(store: Store) -> None:
    ids = [memory.id for memory in await store.memories.add_many([{"content": str(i)} for i in range(300)])]
    assert ids == sorted(ids)
    assert len(set(ids)) == 300
    assert all(id[14] == "7" and id[19] in "89ab" for id in ids)


async def test_duplicate_id_raises_and_changes_nothing(store: Store, rng: np.random.Generator) -> None:
    first = await store.memories.add("first", id="a", embedding=vectors(rng, 1)[0], tags={"kept"})
    with pytest.raises(DuplicateError) as caught:
        await store.memories.add("second", id="a", tags={"lost"})
    assert caught.value.id == "a"
    with pytest.raises(DuplicateError):
        await store.memories.add_many([{"content": "new", "id": "b"}, {"content": "second", "id": "a"}])
    with pytest.raises(DuplicateError, match="twice"):
        await store.memories.add_many([{"content": "new", "id": "b"}, {"content": "again", "id": "b"}])
    assert [m async for m in store.memories.list()] == [first]
    assert [tag.name async for tag in store.tags.list()] == ["kept"]


async def test_duplicate_error_names_the_id_that_exists(store: Store) -> None:
    await store.memories.add("taken", id="taken")
    for before in (2, 150):
        items = [{"content": "x", "id": f"new{i}"} for i in range(before)]
        with pytest.raises(DuplicateError) as caught:
            await store.memories.add_many([*items, {"content": "y", "id": "taken"}, {"content": "z", "id": "last"}])
        assert caught.value.id == "taken"
    assert await store.memories.count() == 1


async def test_ordinary_memories_need_no_slow_check(
    store: Store, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looked(*_: object) -> None:
        raise AssertionError("an ordinary memory was looked at by the slow check")

    monkeypatch.setattr(records_module, "new_memory", looked)
    added = await store.memories.add("x", id="a", embedding=vectors(rng, 1)[0], tags=["t"], metadata={"k": 1})
    assert await store.memories.upsert("x", id="a", embedding=added.embedding, tags=["t"], metadata={"k": 1})
    assert (await store.memories.get("a")).tags == {"t"}


async def test_invalid_item_is_named_and_nothing_is_stored(store: Store) -> None:
    with pytest.raises(InvalidError) as caught:
        await store.memories.add_many([{"content": "good"}, {"content": "bad", "importance": 2, "id": "b"}])
    assert str(caught.value).startswith("Item 1 (id 'b'), counted from 0: Invalid importance")
    assert caught.value.item == 1
    assert await store.memories.count() == 0
    with pytest.raises(InvalidError, match="Unknown memory field 'tag'"):
        await store.memories.add_many([{"content": "x", "tag": "y"}])
    with pytest.raises(InvalidError):
        await store.memories.add_many({"content": "x"})


@pytest.mark.parametrize(
    "metadata",
    [
        {1: "x"},
        {"a": (1, 2)},
        {"a": float("nan")},
        {"a": [float("inf")]},
        {"a": 2**63},
        {"a": {"b": datetime.now(UTC)}},
        {"a": "nul\0"},
        {"a\0": 1},
        {"a": "\udfff"},
        {"a": np.float64("nan")},
        {"a": np.uint64(2**63)},
        {"a": np.complex128(1.0)},
        {"a": np.array([1.0])},
        {"a": np.datetime64("2026-01-01")},
        [1],
    ],
)
async def test_metadata_that_cannot_be_stored_exactly_is_refused(store: Store, metadata: object) -> None:
    with pytest.raises(InvalidError):
        await store.memories.add("x", metadata=metadata)
    assert await store.memories.count() == 0


async def test_metadata_has_at_most_a_hundred_levels(store: Store) -> None:
    def nested(levels: int) -> dict[str, object]:
        value: dict[str, object] = {}
        for _ in range(levels - 1):
            value = {"d": value}
        return value

    stored = await store.memories.add("x", metadata=nested(100))
    assert (await store.memories.get(stored.id)).metadata == nested(100)
    with pytest.raises(InvalidError, match="100 levels"):
        await store.memories.add("x", metadata=nested(101))


async def test_records_share_no_data_with_the_arguments(store: Store, rng: np.random.Generator) -> None:
    vector, metadata = vectors(rng, 1)[0], {"list": [1]}
    original = vector.copy()
    memory = await store.memories.add("x", embedding=vector, metadata=metadata)
    vector[:] = 0
    metadata["list"].append(2)
    assert memory.embedding.tobytes() == original.tobytes()
    assert memory.metadata == {"list": [1]}
    with pytest.raises(ValueError, match="read-only"):
        memory.embedding[0] = 1


@pytest.mark.parametrize(
    ("embedding", "error"),
    [
        ([1.0] * 7, DimensionError),
        ([[1.0] * 8], DimensionError),
        ([], DimensionError),
        ([1.0] * 7 + [float("nan")], EmbeddingError),
        ([1.0] * 7 + [float("inf")], EmbeddingError),
        ([1e39] * 8, EmbeddingError),
        ([10**400] * 8, EmbeddingError),
        ([0.0] * 8, EmbeddingError),
        ([1e-60] * 8, EmbeddingError),
        (["a"] * 8, EmbeddingError),
        ("12345678", EmbeddingError),
        ([1j] * 8, EmbeddingError),
        ([True] * 8, EmbeddingError),
        ([[1], [2, 3]], EmbeddingError),
        (np.zeros(8, dtype="datetime64[s]"), EmbeddingError),
        (np.ma.masked_array(np.ones(8, np.float32), mask=[0, 0, 1, 0, 0, 0, 0, 0]), EmbeddingError),
    ],
)
async def test_invalid_embeddings_are_refused_in_add_and_search(store: Store, embedding: object, error: type) -> None:
    with pytest.raises(error):
        await store.memories.add("x", embedding=embedding)
    with pytest.raises(EmbedderError if isinstance(embedding, str) else error):
        await store.memories.search(embedding)
    assert await store.memories.count() == 0


@pytest.mark.parametrize(
    "embedding",
    [
        list(range(1, 9)),
        tuple(0.5 for _ in range(8)),
        np.arange(1, 9, dtype=np.int16),
        np.arange(1, 9, dtype=np.float16),
        np.arange(1, 9, dtype=">f4"),
        np.arange(1, 17, dtype=np.float64)[::2],
        np.arange(1, 17, dtype=np.float32)[::-2],
        [10**30] * 8,
        [1e-38] * 8,
        [3e38] * 8,
    ],
)
async def test_any_sequence_of_real_numbers_is_rounded_to_float32(store: Store, embedding: object) -> None:
    memory = await store.memories.add("x", embedding=embedding)
    expected = np.array([float(x) for x in embedding]).astype(np.float32)
    assert memory.embedding.tobytes() == expected.tobytes()
    hits = await store.memories.search(embedding)
    assert hits[0].memory == memory
    assert hits[0].score == pytest.approx(1.0, abs=1e-6)


async def test_memory_without_an_embedding_is_in_no_search(store: Store, rng: np.random.Generator) -> None:
    memory = await store.memories.add("silent")
    assert memory.embedding is None
    assert await store.memories.search(vectors(rng, 1)[0]) == []
    assert await store.memories.get(memory.id) == memory


async def test_update_changes_only_the_given_fields(store: Store, rng: np.random.Generator) -> None:
    before = await store.memories.add(**everything(rng))
    after = await store.memories.update("m:1", metadata={"only": 1}, tags=[])
    assert after.metadata == {"only": 1}
    assert after.tags == frozenset()
    assert after.updated_at > before.created_at
    changed = {"metadata", "tags", "updated_at"}
    for name in memstore.Memory.__dataclass_fields__:
        if name not in changed and name != "embedding":
            assert getattr(after, name) == getattr(before, name)
    assert after.embedding.tobytes() == before.embedding.tobytes()
    assert await store.memories.get("m:1") == after


async def test_update_takes_none_as_a_value(store: Store, rng: np.random.Generator) -> None:
    await store.memories.add(**everything(rng))
    after = await store.memories.update("m:1", embedding=None, expires_at=None, accessed_at=None)
    assert (after.embedding, after.expires_at, after.accessed_at) == (None, None, None)
    assert await store.memories.search(vectors(rng, 1)[0]) == []
    for field in ("content", "importance", "metadata", "tags", "created_at", "access_count", "pinned"):
        with pytest.raises(InvalidError):
            await store.memories.update("m:1", **{field: None, "embedding": None})


async def test_new_content_needs_a_new_embedding_or_none(store: Store, rng: np.random.Generator) -> None:
    old, new = vectors(rng, 2)
    await store.memories.add("old", id="a", embedding=old)
    with pytest.raises(InvalidError, match="new embedding"):
        await store.memories.update("a", content="new")
    after = await store.memories.update("a", content="new", embedding=new)
    assert (await store.memories.search(new))[0].score == pytest.approx(1)
    assert (after.content, after.embedding.tobytes()) == ("new", new.tobytes())
    assert (await store.memories.update("a", content="newer", embedding=None)).embedding is None


async def test_update_of_a_missing_memory_raises(store: Store) -> None:
    with pytest.raises(NotFoundError) as caught:
        await store.memories.update("none", importance=1)
    assert caught.value.id == "none"
    with pytest.raises(LookupError):
        await store.memories.get("none")


async def test_upsert_keeps_accesses_and_memberships(store: Store, rng: np.random.Generator) -> None:
    old, new = vectors(rng, 2)
    await store.memories.add("old", id="a", embedding=old, tags={"t"}, metadata={"k": 1}, importance=1, pinned=True)
    await store.assemblies.add("g", members=["a"])
    await store.memories.touch(["a"])
    before = await store.memories.get("a")
    after = await store.memories.upsert("new", id="a", embedding=new)
    assert (after.content, after.tags, after.metadata, after.importance) == ("new", frozenset(), {}, 0.5)
    assert (after.created_at, after.accessed_at, after.access_count) == (before.created_at, before.accessed_at, 1)
    assert [id async for id in store.assemblies.members("g")] == ["a"]
    composite = (await store.assemblies.get("g")).composite
    assert composite == pytest.approx(new / np.linalg.norm(new), abs=1e-6)
    assert after.pinned
    without = await store.memories.upsert("newer", id="a", pinned=False)
    assert without.embedding is None
    assert not without.pinned
    assert await store.memories.get("a") == without
    assert (await store.assemblies.get("g")).composite is None


async def test_upsert_many_stores_the_last_item_of_an_id(store: Store, rng: np.random.Generator) -> None:
    a, b, c = vectors(rng, 3)
    await store.memories.add("old", id="x", embedding=a)
    records = await store.memories.upsert_many(
        [
            {"id": "x", "content": "1", "embedding": b},
            {"id": "y", "content": "2"},
            {"id": "x", "content": "3", "embedding": c},
        ]
    )
    assert [r.content for r in records] == ["3", "2", "3"]
    assert (await store.memories.get("x")).embedding.tobytes() == c.tobytes()
    assert await store.memories.count() == 2


async def test_upsert_of_the_same_vector_does_not_change_composites(store: Store, rng: np.random.Generator) -> None:
    vector = vectors(rng, 1)[0]
    await store.memories.add("x", id="a", embedding=vector)
    await store.assemblies.add("g", members=["a"])
    before = await store.assemblies.get("g")
    await store.memories.upsert("y", id="a", embedding=vector)
    assert (await store.assemblies.get("g")).revision == before.revision


async def test_delete_ignores_missing_ids_and_refuses_an_empty_filter(store: Store) -> None:
    await store.memories.add_many([{"content": str(i), "id": str(i), "importance": i / 10} for i in range(10)])
    assert await store.memories.delete("none") == 0
    assert await store.memories.delete_many(ids=["0", "1", "1", "none"]) == 2
    assert await store.memories.delete_many(where={"importance": {"$gte": 0.8}}) == 2
    for everything in ({}, {"$and": [{}, {}]}, {"$or": [{"id": "1"}, {}]}, {"$not": {"$not": {}}}):
        with pytest.raises(FilterError, match="empty"):
            await store.memories.delete_many(where=everything)
    with pytest.raises(InvalidError):
        await store.memories.delete_many()
    with pytest.raises(InvalidError):
        await store.memories.delete_many(ids=["2"], where={"id": "2"})
    with pytest.raises(InvalidError, match="list of ids"):
        await store.memories.delete_many(ids="23")
    assert await store.memories.count() == 6
    assert await store.clear() == 6


async def test_expired_memories_are_in_no_read(store: Store, rng: np.random.Generator) -> None:
    vector = vectors(rng, 1)[0]
    past = datetime.now(UTC) - timedelta(seconds=1)
    await store.memories.add("gone", id="gone", embedding=vector, tags={"t"}, expires_at=past)
    await store.memories.add("brief", id="brief", embedding=vector, ttl=timedelta(days=1))
    assert [h.memory.id for h in await store.memories.search(vector)] == ["brief"]
    assert [h.memory.id for h in await store.memories.search(vector, where={"importance": 0.5})] == ["brief"]
    assert await store.memories.count() == 1
    assert [m.id async for m in store.memories.list()] == ["brief"]
    assert set(await store.memories.get_many(["gone", "brief"])) == {"brief"}
    assert await store.memories.touch(["gone"]) == 0
    assert await store.memories.delete("gone") == 0
    assert [tag async for tag in store.tags.list()] == []
    for call in (store.memories.get, store.assemblies.containing):
        with pytest.raises(NotFoundError):
            await call("gone")
    with pytest.raises(NotFoundError):
        await store.memories.update("gone", importance=1)
    again = await store.memories.add("again", id="gone")
    assert again.expires_at is None
    with pytest.raises(InvalidError, match="both set the expiry"):
        await store.memories.add("x", ttl=1, expires_at=past)


async def test_memory_that_expires_while_the_store_is_open_is_in_no_read(
    store: Store, rng: np.random.Generator
) -> None:
    import asyncio

    vector = vectors(rng, 1)[0]
    await store.memories.add("brief", id="brief", embedding=vector, ttl=3_600)
    await store.assemblies.add("g", members=["brief"])
    assert len(await store.memories.search(vector)) == 1
    await store.memories.update("brief", ttl=0.05)
    await asyncio.sleep(0.1)
    assert await store.memories.search(vector) == []
    assert [id async for id in store.assemblies.members("g")] == []
    assert (await store.assemblies.get("g")).member_count == 0
    await store.memories.add("any write sweeps it out")
    assert (await store.assemblies.get("g")).composite is None


async def test_a_memory_that_expires_during_an_upsert_is_replaced(store: Store) -> None:
    await store.memories.add("brief", id="b", ttl=0.2)
    items = [{"content": "x" * 1_000, "metadata": {"n": list(range(20))}} for _ in range(8_000)]
    await store.memories.upsert_many([*items, {"id": "b", "content": "new"}])
    assert (await store.memories.get("b")).content == "new"


async def test_ttl_of_none_removes_the_expiry(store: Store) -> None:
    await store.memories.add("x", id="x", ttl=1_000)
    assert (await store.memories.update("x", ttl=None)).expires_at is None


async def test_a_record_may_have_a_thousand_tags_and_be_searched_by_all(store: Store) -> None:
    tags = {f"tag {i}" for i in range(1_000)}
    await store.memories.add("x", id="x", embedding=[1.0] * 8, tags=tags)
    await store.memories.add("y", embedding=[1.0] * 8, tags=set(list(tags)[:999]))
    assert await store.memories.count(tags=tags) == 1
    assert [hit.memory.id for hit in await store.memories.search([1.0] * 8, tags=tags)] == ["x"]


async def test_touch_counts_accesses_and_reads_do_not(store: Store, rng: np.random.Generator) -> None:
    vector = vectors(rng, 1)[0]
    before = await store.memories.add("x", id="a", embedding=vector)
    await store.memories.search(vector)
    await store.memories.get("a")
    assert await store.memories.get("a") == before
    assert await store.memories.touch(["a", "a", "none"]) == 1
    after = await store.memories.get("a")
    assert after.access_count == 1
    assert after.accessed_at >= before.created_at
    assert after.updated_at == before.updated_at


@pytest.mark.parametrize(
    "order", ["created_at", "-created_at", "importance", "-importance", "id", "-expires_at", "expires_at"]
)
async def test_list_returns_every_record_in_order(store: Store, order: str) -> None:
    base = datetime(2020, 1, 1, tzinfo=UTC)
    rng = np.random.default_rng(5)
    items = [
        {
            "content": str(i),
            "id": f"{rng.integers(1e9)}-{i}",
            "importance": float(rng.integers(4)) / 4,
            "created_at": base + timedelta(seconds=int(rng.integers(5))),
            "expires_at": None if i % 3 else datetime(2900 + int(rng.integers(9)), 1, 1, tzinfo=UTC),
        }
        for i in range(257)
    ]
    stored = await store.memories.add_many(items)
    listed = [m async for m in store.memories.list(order=order)]
    field, down = order.removeprefix("-"), order.startswith("-")
    place = {m.id: i for i, m in enumerate(stored)}

    def key(m: memstore.Memory) -> tuple[object, int]:
        value = getattr(m, field)
        return (datetime.min.replace(tzinfo=UTC) if value is None else value), place[m.id]

    assert listed == sorted(stored, key=key, reverse=down)
    assert [m async for m in store.memories.list(order=order, limit=101)] == listed[:101]


async def test_list_and_count_take_filters_tags_and_namespaces(store: Store) -> None:
    ada, bob = store.namespace("users", "ada"), store.namespace("users", "bob")
    await ada.memories.add_many([{"content": str(i), "tags": {"even"} if i % 2 == 0 else {"odd"}} for i in range(6)])
    await bob.memories.add("b", id="same", tags={"even"})
    await store.memories.add("root", id="same")
    assert await ada.memories.count(tags={"even"}) == 3
    assert await store.memories.count(recursive=True) == 8
    assert await store.memories.count(recursive=True, tags={"even"}) == 4
    assert await store.namespace("users").memories.count(recursive=True, where={"content": {"$gte": "3"}}) == 4
    assert [m.namespace async for m in store.memories.list(where={"id": "same"}, recursive=True, order="id")] == [
        ("users", "bob"),
        (),
    ]
    assert await store.namespaces() == [(), ("users", "ada"), ("users", "bob")]
    assert await store.namespaces(("users",)) == [("users", "ada"), ("users", "bob")]
    with pytest.raises(InvalidError, match="order: expected one of"):
        [m async for m in store.memories.list(order="metadata")]
    with pytest.raises(FilterError):
        await store.memories.count(where={"nonsense": 1})
    with pytest.raises(InvalidError):
        await store.memories.count(tags="even")


async def test_namespaces_with_similar_names_are_separate(store: Store, rng: np.random.Generator) -> None:
    names = [("a",), ("a", "b"), ("a/b",), ("a~1b",), ("a~", "1b"), ("",), ("", ""), ("a0",), ("A",)]
    vector = vectors(rng, 1)[0]
    for i, name in enumerate(names):
        await store.namespace(*name).memories.add(str(i), id="same", embedding=vector)
    for i, name in enumerate(names):
        view = store.namespace(*name)
        assert [h.memory.content for h in await view.memories.search(vector)] == [str(i)]
        assert (await view.memories.get("same")).namespace == name
        recursive = {j for j, other in enumerate(names) if other[: len(name)] == name}
        assert {int(h.memory.content) for h in await view.memories.search(vector, recursive=True)} == recursive
    assert await store.memories.search(vector) == []
    with pytest.raises(InvalidError):
        store.namespace(*["x"] * 33)
    with pytest.raises(InvalidError):
        store.namespace(5)


async def test_search_is_exact_when_the_filter_allows_only_distant_vectors(
    store: Store, rng: np.random.Generator
) -> None:
    stored = vectors(rng, 300)
    query = stored[0]
    cosine = (stored @ query) / np.linalg.norm(stored, axis=1) / np.linalg.norm(query)
    far = np.argsort(cosine)[:7]  # what the filter allows is what the query likes least
    await store.memories.add_many(
        [
            {"id": str(i), "content": "x", "embedding": v, "tags": {"far"} if i in far else {"near"}}
            for i, v in enumerate(stored)
        ]
    )
    hits = await store.memories.search(query, 5, tags={"far"})
    expected = far[np.argsort(-cosine[far])][:5]
    assert [int(h.memory.id) for h in hits] == expected.tolist()
    assert [h.score for h in hits] == pytest.approx(cosine[expected].tolist(), abs=1e-6)
    assert (hits.plan.allowed, hits.plan.rows) == (7, 300)
    everything = await store.memories.search(query, 300)
    assert [int(h.memory.id) for h in everything] == np.argsort(-cosine, kind="stable").tolist()
    half = await store.memories.search(query, 300, min_score=0.25)
    assert len(half) == int((cosine >= 0.25).sum())
    many = await store.memories.search_many(stored[:3], 4, where={"id": {"$ne": "1"}})
    assert many[0][0].memory.id == "0"
    assert all("1" not in [h.memory.id for h in hits] for hits in many)
    for bad in (0, -1, 10_001, 1.5, True):
        with pytest.raises(InvalidError):
            await store.memories.search(query, bad)
    with pytest.raises(InvalidError):
        await store.memories.search(query, min_score=float("nan"))


async def test_load_commits_by_chunk_and_reports_where_it_stopped(store: Store) -> None:
    async def items(stop: int):
        for i in range(stop):
            yield {"id": str(i), "content": str(i)}

    progress: list[int] = []
    assert await store.load(items(25), chunk=10, on_progress=progress.append) == 25
    assert progress == [10, 20, 25]
    with pytest.raises(LoadError) as caught:
        await store.load(({"id": str(i), "content": "x"} for i in range(100, 0, -1)), chunk=10)
    assert caught.value.stored == 70
    assert isinstance(caught.value.__cause__, DuplicateError)
    assert await store.memories.count() == 95
    assert await store.load([{"id": "1", "content": "replaced"}], upsert=True) == 1
    assert (await store.memories.get("1")).content == "replaced"


async def test_tags_are_counted_renamed_merged_and_deleted(store: Store) -> None:
    await store.memories.add_many(
        [{"id": str(i), "content": "x", "tags": {"a", "b"} if i < 2 else {"b"}} for i in range(5)]
    )
    await store.assemblies.add("g", tags={"a"})
    listed = [(t.name, t.memory_count, t.assembly_count) async for t in store.tags.list()]
    assert listed == [("a", 2, 1), ("b", 5, 0)]
    assert await store.tags.rename("a", "b") == 3
    assert [(t.name, t.memory_count, t.assembly_count) async for t in store.tags.list()] == [("b", 5, 1)]
    assert (await store.memories.get("0")).tags == {"b"}
    assert await store.tags.rename("b", "c") == 6
    assert await store.tags.delete("c") == 6
    assert await store.tags.delete("c") == 0
    with pytest.raises(NotFoundError):
        await store.tags.rename("c", "d")
    assert (await store.assemblies.get("g")).tags == frozenset()


async def test_invalid_pin_is_damage(path: Path) -> None:
    async with memstore.open(path, dimension=DIMENSION) as store:
        await store.memories.add("x", id="a", pinned=True)
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("UPDATE memory SET pinned = 5")
        other.close()
        with pytest.raises(DamagedError, match="pin"):
            await store.memories.get("a")
        assert not (await store.memories.update("a", pinned=False)).pinned

"""Batch verbs: `update_many`, merge patches, `on_duplicate`, items of several namespaces, `touch` with an expiry."""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memstore
from memstore import DuplicateError, InvalidError, NotFoundError
from memstore.models import AddResult
from memstore.testing import HashEmbedder

VECTOR = [1.0, 0, 0, 0, 0, 0, 0, 0]
SOON = timedelta(hours=1)


def item(id: str, namespace: tuple[str, ...] | None = None, **fields: Any) -> dict[str, Any]:
    place = {} if namespace is None else {"namespace": namespace}
    return {"id": id, "content": f"content of {id}", "embedding": VECTOR, **place, **fields}


async def contents(store: memstore.StoreNamespace, **options: Any) -> dict[tuple[tuple[str, ...], str], str]:
    return {(m.namespace, m.id): m.content async for m in store.memories.list(recursive=True, **options)}


# -- update_many


@pytest.mark.parametrize("by", ["ids", "where"])
async def test_update_many_changes_what_one_update_after_the_other_changes(
    store: memstore.Store, by: str, rng: np.random.Generator
) -> None:
    changes: dict[str, Any] = {
        "tags": {"new", "old"},
        "importance": 0.25,
        "metadata": {"a": [1, None]},
        "embedding": rng.standard_normal(8).astype(np.float32),
        "pinned": True,
        "expires_at": datetime(2100, 1, 1, tzinfo=UTC),
    }
    names = [f"m{i}" for i in range(700)]
    for face in (store.namespace("many"), store.namespace("single")):
        await face.memories.add_many([item(n, tags={"old"} if i % 2 else set()) for i, n in enumerate(names)])
    many, single = store.namespace("many").memories, store.namespace("single").memories
    selection = {"ids": [*names[::2], "missing"]} if by == "ids" else {"where": {"tags": {"$contains": "old"}}}
    selected = names[::2] if by == "ids" else names[1::2]
    assert await many.update_many(**selection, **changes) == 350
    async with store.transaction() as tx:
        for name in selected:
            await tx.namespace("single").memories.update(name, **changes)
    for name in names:
        one, other = await many.get(name), await single.get(name)
        for field in ("content", "tags", "importance", "metadata", "pinned", "expires_at"):
            assert getattr(one, field) == getattr(other, field), (name, field)
        assert one.embedding.tobytes() == other.embedding.tobytes()
        assert (one.updated_at > one.created_at) == (name in selected)
    assert len(await many.history(selected[-1])) == len(await single.history(selected[-1])) == 2
    hits = await many.search(changes["embedding"], 500, min_score=0.999_999)
    assert {hit.memory.id for hit in hits} == set(selected)


async def test_update_many_of_content_embeds_it_once(path: Path) -> None:
    async with memstore.open(path, embedder=HashEmbedder()) as store:
        await store.memories.add_many([{"id": str(i), "content": f"text {i}"} for i in range(3)])
        assert await store.memories.update_many(ids=["0", "2"], content="green tea") == 2
        hits = await store.memories.search("green tea", 2, min_score=0.999_999)
        assert {hit.memory.id for hit in hits} == {"0", "2"}


async def test_update_many_of_assemblies_changes_names_tags_and_topics(store: memstore.Store) -> None:
    await store.assemblies.add_many([{"id": str(i), "name": f"n{i}", "metadata": {"i": i}} for i in range(5)])
    changes: dict[str, Any] = {"tags": {"t"}, "topics": ["b", "a"], "metadata_patch": {"x": True}}
    assert await store.assemblies.update_many(where={"metadata.i": {"$gte": 3}}, **changes) == 2
    changed = [assembly async for assembly in store.assemblies.list() if assembly.tags]
    assert [(a.id, a.name, a.topics, a.metadata) for a in changed] == [
        ("3", "n3", ("b", "a"), {"i": 3, "x": True}),
        ("4", "n4", ("b", "a"), {"i": 4, "x": True}),
    ]


async def test_update_many_that_fails_changes_nothing(store: memstore.Store) -> None:
    await store.memories.add_many([item(str(i), metadata={"big": "x" * 10}) for i in range(5)])
    before = await store.memories.get_many(list("01234"))
    calls: list[dict[str, Any]] = [
        {"ids": ["0"], "where": {"id": "0"}, "importance": 1},
        {"importance": 1},
        {"ids": ["0"]},
        {"ids": "0", "importance": 1},
        {"where": {"id": "0"}, "importance": 2},
        {"where": {"unknown": "0"}, "importance": 1},
        {"where": {"id": "0"}, "wrong": 2},
        {"where": {"id": "0"}, "content": "new"},
        {"where": {"id": "0"}, "metadata": {}, "metadata_patch": {"a": 1}},
        {"where": {"id": "0"}, "metadata_patch": [1]},
        {"where": {"id": "0"}, "metadata_patch": None},
    ]
    for call in calls:
        with pytest.raises(InvalidError):
            await store.memories.update_many(**call)
    assert await store.memories.get_many(list("01234")) == before
    assert await store.memories.update_many(ids=[], importance=1) == 0
    assert await store.memories.update_many(where={}, importance=1) == 5


# -- merge patches

RFC_7396: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ({"a": "foo"}, {"b": {"c": None}}, {"a": "foo", "b": {}}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]
"""The examples of RFC 7396, appendix A, whose documents are objects."""


@pytest.mark.parametrize(("document", "patch", "expected"), RFC_7396, ids=lambda value: json.dumps(value))
async def test_a_merge_patch_does_what_the_rfc_says(
    store: memstore.Store, document: dict[str, Any], patch: dict[str, Any], expected: dict[str, Any]
) -> None:
    memories, assemblies = store.memories, store.assemblies
    await memories.add_many([item(id, metadata=document) for id in ("update", "many", "upsert")])
    await assemblies.add_many([{"id": id, "metadata": document} for id in ("update", "many", "upsert")])
    for noun in (memories, assemblies):
        assert (await noun.update("update", metadata_patch=patch)).metadata == expected
        assert await noun.update_many(ids=["many"], metadata_patch=patch) == 1
    assert (await memories.upsert("new", id="upsert", metadata_patch=patch)).metadata == expected
    assert (await assemblies.upsert("upsert", metadata_patch=patch)).metadata == expected
    for noun in (memories, assemblies):
        assert {id: record.metadata for id, record in (await noun.get_many(["update", "many", "upsert"])).items()} == {
            "update": expected,
            "many": expected,
            "upsert": expected,
        }


async def test_an_upsert_with_a_patch_of_a_new_record_patches_no_metadata(store: memstore.Store) -> None:
    assert (await store.memories.upsert("x", id="a", metadata_patch={"a": 1, "b": None})).metadata == {"a": 1}
    assert (await store.assemblies.upsert("a", metadata_patch={"a": {"b": None}})).metadata == {"a": {}}
    assert (await store.memories.upsert("x", id="a", metadata_patch=None)).metadata == {}


async def test_patches_of_one_id_in_one_call_are_applied_one_after_the_other(store: memstore.Store) -> None:
    await store.memories.add("x", id="a", metadata={"a": {"kept": 1}})
    patches: list[dict[str, Any]] = [{"a": None}, {"a": {"b": 2}}, {"c": 3}]
    await store.memories.upsert_many([{"id": "a", "content": "x", "metadata_patch": patch} for patch in patches])
    assert (await store.memories.get("a")).metadata == {"a": {"b": 2}, "c": 3}
    await store.memories.upsert_many(
        [
            {"id": "a", "content": "x", "metadata": {"fresh": {"x": 1}}},
            {"id": "a", "content": "x", "metadata_patch": {"fresh": {"y": 2}}},
        ]
    )
    assert (await store.memories.get("a")).metadata == {"fresh": {"x": 1, "y": 2}}


async def test_a_patched_update_is_undone_to_the_bit(store: memstore.Store) -> None:
    memory = await store.memories.add("x", id="a", metadata={"a": 1, "b": [1.5]})
    await store.memories.update("a", metadata_patch={"a": None, "c": {"d": "é"}})
    await store.undo((await store.memories.history("a"))[0])
    assert (await store.memories.get("a")).metadata == memory.metadata


async def test_a_patch_beside_metadata_and_in_an_add_is_refused(store: memstore.Store) -> None:
    await store.memories.add("x", id="a", metadata={"a": 1})
    with pytest.raises(InvalidError, match="metadata_patch"):
        await store.memories.update("a", metadata={}, metadata_patch={})
    with pytest.raises(InvalidError, match="metadata_patch"):
        await store.memories.upsert("x", id="a", metadata={}, metadata_patch={})
    with pytest.raises(InvalidError, match="metadata_patch"):
        await store.memories.add_many([{"content": "x", "metadata_patch": {}}])
    with pytest.raises(InvalidError, match="levels"):
        deep: dict[str, Any] = {}
        for _ in range(200):
            deep = {"a": deep}
        await store.memories.update("a", metadata_patch=deep)
    with pytest.raises(InvalidError, match="values"):
        await store.memories.update_many(ids=["a"], metadata_patch={str(i): i for i in range(99_999)})
        await store.memories.update_many(ids=["a"], metadata_patch={f"x{i}": i for i in range(99_999)})
    assert len((await store.memories.get("a")).metadata) in (1, 100_000)


# -- on_duplicate


def outcomes(results: Sequence[AddResult[Any]]) -> list[tuple[str, str]]:
    return [(result.record.id, result.outcome) for result in results]


async def test_on_duplicate_raises_skips_or_replaces(store: memstore.Store) -> None:
    first = await store.memories.add("first", id="a", embedding=VECTOR, pinned=True)
    with pytest.raises(DuplicateError):
        await store.memories.add("second", id="a")
    skipped = await store.memories.add("second", id="a", on_duplicate="skip")
    assert (skipped.record, skipped.outcome) == (first, "skipped")
    replaced = await store.memories.add("second", id="a", embedding=None, on_duplicate="replace")
    assert (replaced.record.content, replaced.outcome) == ("second", "replaced")
    assert replaced.record.created_at == first.created_at
    assert replaced.record.pinned  # kept, as by upsert
    assert await store.memories.get("a") == replaced.record
    added = await store.memories.add("third", on_duplicate="skip")
    assert (added.outcome, await store.memories.get(added.record.id)) == ("added", added.record)


async def test_on_duplicate_of_many_items_says_what_became_of_each(store: memstore.Store) -> None:
    await store.memories.add_many([item("a"), item("b")])
    items = [item("a", importance=1.0), item("c"), item("c", importance=1.0), item("b"), item("d")]
    with pytest.raises(DuplicateError):
        await store.memories.add_many(items)
    results = await store.memories.add_many(items, on_duplicate="skip")
    assert [o for _, o in outcomes(results)] == ["skipped", "added", "skipped", "skipped", "added"]
    assert [m.importance async for m in store.memories.list()] == [0.5] * 4
    results = await store.memories.add_many([*items, item("e")], on_duplicate="replace")
    assert [o for _, o in outcomes(results)] == ["replaced"] * 5 + ["added"]
    assert [m.importance async for m in store.memories.list(order="id")] == [1.0, 0.5, 1.0, 0.5, 0.5]
    assert results[1].record == results[2].record == await store.memories.get("c")
    new = await store.memories.add_many([item("f"), item("f", importance=1.0)], on_duplicate="replace")
    assert [o for _, o in outcomes(new)] == ["added", "replaced"]
    assert await store.memories.add_many([], on_duplicate="skip") == []


async def test_on_duplicate_of_a_large_batch_skips_only_what_exists(store: memstore.Store) -> None:
    await store.memories.add_many([item(f"m{i}") for i in range(0, 2_500, 2)])
    results = await store.memories.add_many([item(f"m{i}") for i in range(2_500)], on_duplicate="skip")
    assert [result.outcome for result in results] == ["skipped", "added"] * 1_250
    assert len(await store.memories.search(VECTOR, 10_000)) == 2_500


async def test_on_duplicate_of_assemblies(store: memstore.Store) -> None:
    await store.memories.add_many([item("m")])
    first = await store.assemblies.add("a", name="one", members=["m"])
    assert await store.assemblies.add("a", name="two", on_duplicate="skip") == AddResult(first, "skipped")
    replaced = await store.assemblies.add("a", name="two", on_duplicate="replace")
    assert (replaced.record.name, replaced.record.member_count, replaced.outcome) == ("two", 1, "replaced")
    results = await store.assemblies.add_many(
        [{"id": "b", "name": "1"}, {"id": "b", "name": "2"}, {"id": "a"}], on_duplicate="skip"
    )
    assert outcomes(results) == [("b", "added"), ("b", "skipped"), ("a", "skipped")]
    assert (await store.assemblies.get("b")).name == "1"
    results = await store.assemblies.add_many([{"id": "c"}, {"id": "b", "name": "2"}], on_duplicate="replace")
    assert outcomes(results) == [("c", "added"), ("b", "replaced")]
    with pytest.raises(NotFoundError):
        await store.assemblies.add("d", members=["none"], on_duplicate="skip")


class CountingEmbedder(HashEmbedder):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.before: Any = None

    def embed(self, texts: Sequence[str]) -> Any:
        self.texts += texts
        return super().embed(texts)


async def test_a_skipped_item_is_not_embedded(path: Path) -> None:
    embedder = CountingEmbedder()
    async with memstore.open(path, embedder=embedder) as store:
        items = [{"id": str(i), "content": f"text {i}"} for i in range(6)]
        await store.memories.add_many(items[:4])
        embedder.texts.clear()
        results = await store.memories.add_many([*items, {"content": "no id"}], on_duplicate="skip")
        assert [r.outcome for r in results] == ["skipped"] * 4 + ["added"] * 3
        assert embedder.texts == ["text 4", "text 5", "no id"]
        assert (await store.memories.search("text 5"))[0].memory.id == "5"


async def test_an_item_whose_record_is_deleted_meanwhile_is_stored_with_its_embedding(path: Path) -> None:
    embedder = CountingEmbedder()
    async with memstore.open(path, embedder=embedder) as store:
        await store.memories.add("old", id="a")
        original, other = embedder.embed, await memstore.open(path, embedder=HashEmbedder())
        deleted = asyncio.Event()
        loop = asyncio.get_running_loop()

        def embed(texts: Sequence[str]) -> Any:
            if not deleted.is_set():
                asyncio.run_coroutine_threadsafe(other.memories.delete("a"), loop).result(60)
                loop.call_soon_threadsafe(deleted.set)
            return original(texts)

        embedder.embed = embed  # type: ignore[method-assign]
        items = [{"id": "a", "content": "new"}, {"id": "b", "content": "other"}]
        results = await store.memories.add_many(items, on_duplicate="skip")
        assert outcomes(results) == [("a", "added"), ("b", "added")]
        assert (await store.memories.search("new"))[0].memory.id == "a"
        await other.close()


async def test_another_word_for_on_duplicate_is_refused(store: memstore.Store) -> None:
    for noun in (store.memories, store.assemblies):
        with pytest.raises(InvalidError, match="on_duplicate"):
            await noun.add_many([], on_duplicate="ignore")  # type: ignore[call-overload]


# -- items of several namespaces

SPACES = [("u", f"{i % 40}") for i in range(300)]


async def test_items_of_many_namespaces_are_stored_in_one_transaction_as_one_after_the_other(path: Path) -> None:
    items = [item(f"i{i % 7 + i}", space, tags={"t", str(i % 3)}, ttl=3600) for i, space in enumerate(SPACES)]
    async with memstore.open(path, dimension=8) as one, memstore.open(f"{path}2", dimension=8) as other:
        records = await one.memories.add_many(items)
        assert [(m.namespace, m.id) for m in records] == [(i["namespace"], i["id"]) for i in items]
        for entry in items:
            values = {name: value for name, value in entry.items() if name not in ("namespace", "content")}
            await other.namespace(*entry["namespace"]).memories.add(entry["content"], **values)
        assert await contents(one) == await contents(other)
        assert await one.namespaces() == await other.namespaces()
        for space in {*SPACES}:
            assert await one.namespace(*space).memories.count(tags=["t", "1"]) == await other.namespace(
                *space
            ).memories.count(tags=["t", "1"])
            assert len(await one.namespace(*space).memories.search(VECTOR, 100)) == len(
                await other.namespace(*space).memories.search(VECTOR, 100)
            )
        memory = records[17]
        (change,) = await one.namespace(*memory.namespace).memories.history(memory.id)
        assert change.kind == "added"
        at = datetime.now(UTC)
        await one.memories.upsert_many([{**entry, "content": "new"} for entry in items])
        assert {*(await contents(one)).values()} == {"new"}
        assert (await one.namespace(*memory.namespace).memories.get(memory.id, as_of=at)) == memory
        assert await one.check() == []


async def test_upserts_and_adds_of_several_namespaces_meet_only_their_own_ids(store: memstore.Store) -> None:
    await store.memories.add_many([item("a"), item("a", ("x",)), item("a", ("y",))])
    stored = await store.memories.upsert_many(
        [item("a", ("x",), importance=1.0), item("a", ("z",), importance=1.0), item("b", ("x",))]
    )
    assert [(m.namespace, m.id) for m in stored] == [(("x",), "a"), (("z",), "a"), (("x",), "b")]
    values = {m.namespace: m.importance async for m in store.memories.list(recursive=True, where={"id": "a"})}
    assert values == {(): 0.5, ("x",): 1.0, ("y",): 0.5, ("z",): 1.0}
    with pytest.raises(DuplicateError) as caught:
        await store.memories.add_many([item("new", ("q",)), item("a", ("y",))])
    assert caught.value.id == "a"
    assert ("q",) not in await store.namespaces()
    with pytest.raises(DuplicateError):
        await store.memories.add_many([item("n", ("q",)), item("n", ("q",))])
    results = await store.memories.add_many([item("a", ("y",)), item("a", ("w",))], on_duplicate="skip")
    assert [r.outcome for r in results] == ["skipped", "added"]


async def test_a_namespace_above_or_beside_the_handle_is_refused(store: memstore.Store) -> None:
    await store.namespace("b").memories.add("secret", id="s", embedding=VECTOR)
    handle = store.namespace("a")
    for other in [(), ("b",), ("aa",), "a", ("a", 1), [["a"]], ("a",) * 40]:
        for call in (
            handle.memories.add_many([item("x", other)]),  # type: ignore[arg-type]
            handle.memories.upsert_many([item("x", other)]),  # type: ignore[arg-type]
            handle.memories.add_many([item("x", other)], on_duplicate="skip"),  # type: ignore[arg-type]
            handle.assemblies.add_many([{"id": "x", "namespace": other}]),
            handle.memories.get_many([(other, "s")]),  # type: ignore[list-item]
            handle.assemblies.get_many([(other, "s")]),  # type: ignore[list-item]
        ):
            with pytest.raises(InvalidError, match="namespace"):
                await call
    assert await store.namespaces() == [("b",)]
    assert await handle.memories.add_many([item("x", ("a", "c")), item("y", ("a",))])
    assert await store.namespaces() == [("a",), ("a", "c"), ("b",)]


async def test_get_many_reads_pairs_of_several_namespaces(store: memstore.Store) -> None:
    await store.memories.add_many([item(str(i), ("n", str(i % 25))) for i in range(250)])
    pairs = [(("n", str(i % 25)), str(i)) for i in reversed(range(250))]
    missing = [(("n", "0"), "1"), (("none",), "1"), ((), "1")]
    records = await store.memories.get_many([*pairs, *missing, pairs[0]])
    assert list(records) == pairs
    assert all((m.namespace, m.id) == pair for pair, m in records.items())
    assert await store.namespace("n").memories.get_many(pairs[:3]) == dict(list(records.items())[:3])
    await store.assemblies.add_many([{"id": "a", "namespace": ("n", "3"), "members": ["3"]}])
    ((pair, assembly),) = (await store.assemblies.get_many([(("n", "3"), "a"), ((), "a")])).items()
    assert (pair, assembly.member_count) == ((("n", "3"), "a"), 1)
    assert await store.memories.get_many([]) == {}
    with pytest.raises(InvalidError, match="address"):
        await store.memories.get_many([(("n",), "1", 2)])  # type: ignore[list-item]
    with pytest.raises(InvalidError):
        await store.memories.get_many([(("n",), "1"), "1"])  # type: ignore[list-item]


async def test_load_and_transactions_take_items_of_several_namespaces(store: memstore.Store) -> None:
    assert await store.load([item(str(i), ("l", str(i % 3))) for i in range(30)], chunk=7) == 30
    assert await store.namespace("l").memories.count(recursive=True) == 30
    with pytest.raises(RuntimeError):
        async with store.transaction() as tx:
            await tx.memories.add_many([item(str(i), ("t", str(i))) for i in range(30)])
            assert len(await tx.namespace("t").memories.search(VECTOR, 50, recursive=True)) == 30
            raise RuntimeError
    assert await store.namespace("t").memories.count(recursive=True) == 0


async def test_tags_of_several_namespaces_are_tags_of_their_own(store: memstore.Store) -> None:
    await store.memories.add_many([item(str(i), (str(i % 5),), tags={"t", f"t{i % 2}"}) for i in range(20)])
    await store.memories.upsert_many([item(str(i), (str(i % 5),), tags={"u"}) for i in range(0, 20, 2)])
    names = [[tag.name async for tag in store.namespace(str(i)).tags.list()] for i in range(5)]
    assert names == [["t", "t1", "u"]] * 5


# -- touch


async def test_touch_moves_the_expiry_and_nothing_else(store: memstore.Store) -> None:
    memory = await store.memories.add("x", id="a", embedding=VECTOR, ttl=SOON)
    later = datetime(2100, 1, 1, tzinfo=UTC)
    assert await store.memories.touch(["a", "none"], expires_at=later) == 1
    touched = await store.memories.get("a")
    assert (touched.expires_at, touched.updated_at, touched.access_count) == (later, memory.updated_at, 1)
    assert [change.kind for change in await store.memories.history("a")] == ["added"]
    await store.memories.touch(["a"], ttl=60)
    expires = (await store.memories.get("a")).expires_at
    assert expires is not None
    assert timedelta(0) < expires - datetime.now(UTC) <= timedelta(seconds=60)
    await store.memories.touch(["a"])
    assert (await store.memories.get("a")).expires_at == expires
    for never in ({"ttl": None}, {"expires_at": None}):
        await store.memories.touch(["a"], ttl=60)
        await store.memories.touch(["a"], **never)  # type: ignore[arg-type]
        assert (await store.memories.get("a")).expires_at is None
    assert len(await store.memories.search(VECTOR)) == 1
    await store.memories.touch(["a"], ttl=0)
    assert len(await store.memories.search(VECTOR)) == 0
    assert await store.memories.touch(["a"]) == 0


async def test_touch_refuses_two_expiries_and_invalid_ones(store: memstore.Store) -> None:
    await store.memories.add("x", id="a")
    for wrong in ({"ttl": 1, "expires_at": None}, {"ttl": "1"}, {"expires_at": datetime(2100, 1, 1)}):  # noqa: DTZ001
        with pytest.raises(InvalidError):
            await store.memories.touch(["a"], **wrong)  # type: ignore[arg-type]
    assert (await store.memories.get("a")).access_count == 0

"""Many memories at once: what is quick must be what is right, whatever the size, the shape and the types."""

import json
import random
import re
import sqlite3
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Connection, Integer, MetaData, StaticPool, Table, Text, bindparam, create_engine, insert

import memstore
from memstore import DimensionError, DuplicateError, EmbeddingError, InvalidError, LoadError, Memory, Store, timestamps
from memstore.database import raw
from memstore.models.ids import new_id, new_ids
from memstore.models.records import memory as memory_record
from memstore.repository.memories import Batch, _json_texts, batches
from memstore.repository.statements import MultiRowInsert
from memstore.schema.types import json_text
from memstore.validation import records as validation_records
from memstore.validation import text
from memstore.validation.records import new_memories, new_memory
from memstore.validation.text import check_metadata
from memstore.vectors.encoding import as_embedding, encode
from memstore.vectors.space import Space
from tests.conftest import DIMENSION, vectors

SIZES = [0, 1, 9, 10, 11, 49, 50, 51, 99, 100, 101, 999, 1_000, 1_001, 2_350]
AT = datetime(2024, 5, 6, 7, 8, 9, 123_456, UTC)


class Word(str):
    """A text that is not just a text: JSON would make one of it."""

    __slots__ = ()


class Pairs(Mapping[str, Any]):
    """A mapping that is no dict."""

    def __init__(self, pairs: dict[str, Any]) -> None:
        self._pairs = pairs

    def __getitem__(self, key: str) -> Any:
        return self._pairs[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)


# What is quick against what is right: any item, by `new_memories` and by `new_memory`.

TEXTS = st.sampled_from(
    ["", "a", "tea", "grün", "🧠", "nul\0", "half \ud800", "\udfff", "x" * 1_025, Word("w"), 5, b"b"]
)
WORDS = st.one_of(
    st.lists(TEXTS, max_size=4),
    st.lists(st.sampled_from(["a", "b", "ü"]), max_size=4).map(tuple),
    st.sampled_from(
        [{"a", "b"}, frozenset({"c"}), set(), "text", {"a": 1}, 7, [["a"]], ["a", Word("a")], [Word("a"), "a"]]
    ),
    st.just([f"t{i}" for i in range(1_000)]),
    st.just([f"t{i}" for i in range(1_001)]),
)
SCALARS = st.one_of(
    TEXTS,
    st.sampled_from(
        [0, 1, True, None, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 0.5, -0.0, float("nan"), float("inf")]
    ),
    st.sampled_from([np.float64(1), (1, 2), {1}, datetime(2020, 1, 1, tzinfo=UTC), 10**400]),
)
KEYS = st.sampled_from(["", "a", "b.c", "ä", "nul\0", "\ud800", Word("k"), 1, None, True])
METADATA = st.one_of(
    st.recursive(
        st.dictionaries(KEYS, SCALARS, max_size=3),
        lambda inner: st.dictionaries(KEYS, st.one_of(SCALARS, inner, st.lists(st.one_of(SCALARS, inner), max_size=2))),
        max_leaves=6,
    ),
    st.sampled_from([[1], "text", 3, Pairs({"a": 1}), Pairs({"a": (1,)})]),
)
VECTORS = st.sampled_from(
    [
        [1, 2, 3],
        (0.5, 0, -1e-3),
        np.ones(3, np.float32),
        np.ones(3, ">f4"),
        np.ones(3, np.float64),
        np.ones(3, np.int16),
        np.arange(1, 7, dtype=np.float32)[::2],
        np.ones((3, 1), np.float32),
        np.ones(4, np.float32),
        np.zeros(3, np.float32),
        np.full(3, np.nan, np.float32),
        np.full(3, 3e38, np.float32),
        np.full(3, -np.inf, np.float32),
        np.full(3, 1e-40, np.float32),
        np.ma.masked_array(np.ones(3, np.float32), mask=[0, 1, 0]),
        [1, 2],
        ["a", "b", "c"],
        "abc",
        3,
    ]
)
TIMES = st.sampled_from(
    [AT, AT - timedelta(days=1), AT.astimezone(timezone(timedelta(hours=5))), datetime(2020, 1, 1), 5, datetime.max]  # noqa: DTZ001, DTZ901
)
FIELDS = {
    "id": st.one_of(TEXTS, st.sampled_from(["x" * 65_536, "x" * 65_537, "ä" * 32_769])),
    "content": TEXTS,
    "tags": WORDS,
    "metadata": METADATA,
    "importance": st.sampled_from([0, 1, 0.25, -0.0, True, 1.5, float("nan"), "1"]),
    "created_at": TIMES,
    "updated_at": TIMES,
    "expires_at": TIMES,
    "accessed_at": TIMES,
    "access_count": st.sampled_from([0, 3, True, -1, 2**62, 2**62 + 1, np.int64(4), 1.0]),
    "pinned": st.sampled_from([True, False, 1, 0, "yes", np.bool_(1)]),
    "ttl": st.sampled_from([5, 0.5, timedelta(days=1), True, 1e30, "1"]),
    "embedding": VECTORS,
    "tag": st.just("x"),
}
ITEMS = st.one_of(
    st.fixed_dictionaries({}, optional={name: st.one_of(st.none(), values) for name, values in FIELDS.items()}),
    st.fixed_dictionaries(
        {"content": st.just("tea")}, optional={n: FIELDS[n] for n in ("tags", "metadata", "embedding")}
    ),
    st.sampled_from([{}, None, "text", Pairs({"content": "tea"}), Pairs({"content": "tea", "tags": ["a"]}), {1: 2}]),
)
SPACES = st.sampled_from([Space(dimension=3, metric=metric) for metric in ("cosine", "l2")])


def outcome(make: Any) -> tuple[object, ...]:
    """What came of it: the record with every type in it, or the error with its message."""
    try:
        record = make()
    except (InvalidError, TypeError) as error:
        return type(error), str(error)
    types = [type(getattr(record, name)) for name in Memory.__dataclass_fields__]
    words = sorted(type(word).__name__ for word in record.tags)
    return record._values(), types, words, repr(record.metadata)


@settings(max_examples=600, deadline=None)
@given(item=ITEMS, space=SPACES)
def test_a_memory_made_quickly_is_the_one_made_carefully(item: Any, space: Space) -> None:
    def named() -> str:
        return "made"

    careful = outcome(lambda: new_memory(item, ("n",), space, AT, named))

    def quick() -> Memory:
        (memory,) = new_memories([item], ("n",), space, AT)
        given_id = isinstance(item, Mapping) and item.get("id") is not None
        values = {name: getattr(memory, name) for name in Memory.__dataclass_fields__}
        return Memory(**values if given_id else {**values, "id": "made"})

    assert outcome(quick) == careful


@settings(max_examples=200, deadline=None)
@given(items=st.lists(ITEMS, min_size=2, max_size=5), space=SPACES)
def test_of_many_items_the_first_that_is_wrong_is_named(items: list[Any], space: Space) -> None:
    wrong = None
    for i, item in enumerate(items):
        try:
            new_memory(item, (), space, AT)
        except InvalidError as error:
            wrong = str(error.of_item(i, item.get("id") if isinstance(item, Mapping) else None))
            break
    message = None
    try:
        list(new_memories(items, (), space, AT))
    except InvalidError as error:
        message = str(error)
    assert message == wrong


@settings(max_examples=400, deadline=None)
@given(METADATA)
def test_metadata_copied_quickly_is_metadata_copied_carefully(value: Any) -> None:
    def careful() -> Any:
        if not isinstance(value, Mapping):
            raise InvalidError(f"Invalid metadata: expected a dict, found {type(value).__name__}")
        return text.copy_checked(dict(value))

    def told(make: Any) -> str:
        try:
            return repr(make())
        except InvalidError as error:
            return str(error)

    assert told(lambda: check_metadata(value)) == told(careful)


def test_most_items_are_ordinary() -> None:
    space = Space(dimension=3, metric="cosine")
    ordinary = validation_records._PlainItemBuilder((), space, AT, new_id)
    item = {
        "content": "grüner Tee",
        "embedding": np.ones(3, np.float32),
        "tags": ["ä"],
        "metadata": {"a": {"b": ["ü"]}},
    }
    assert ordinary.memory(item) is not None
    every = {
        "id": "x",
        "importance": 1,
        "access_count": 2,
        "pinned": True,
        "created_at": AT,
        "updated_at": AT,
        "expires_at": None,
    }
    assert ordinary.memory(item | every) is not None
    assert ordinary.memory(item | {"tags": (word for word in ["a"])}) is None  # nobody can look at these twice


def test_equal_tags_are_one_set_as_long_as_those_known_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    space = Space(dimension=3, metric="cosine")
    items = [{"content": "x", "tags": tags} for tags in (["a", "b"], ("a", "b"), ["a", "c"], ["a", "b"], ["a", "c"])]
    monkeypatch.setattr(validation_records, "_TAG_SETS", 1)
    tag_sets = [memory.tags for memory in new_memories(items, (), space, AT)]
    assert tag_sets == [{"a", "b"}, {"a", "b"}, {"a", "c"}, {"a", "b"}, {"a", "c"}]
    assert tag_sets[0] is tag_sets[1] is tag_sets[3]
    assert tag_sets[2] is not tag_sets[4]
    with pytest.raises(InvalidError, match="text"):
        list(new_memories([*items, {"content": "x", "tags": ["a", Word("b")]}], (), space, AT))


def test_a_generator_of_tags_is_walked_once() -> None:
    item = {"content": "tea", "tags": (word for word in ["a", "b"])}
    (memory,) = new_memories([item], (), Space(dimension=3, metric="cosine"), AT)
    assert memory.tags == {"a", "b"}


def test_tags_known_from_other_items_still_count() -> None:
    space = Space(dimension=3, metric="cosine")
    names = [f"t{i}" for i in range(1_001)]
    with pytest.raises(InvalidError, match="tags: expected at most 1,000"):
        list(
            new_memories([{"content": "x", "tags": tags} for tags in (names[:600], names[500:], names)], (), space, AT)
        )


def test_generated_ids_are_in_the_order_of_items_of_every_kind() -> None:
    items: list[Any] = [Pairs({"content": "x"}) if i % 7 == 3 else {"content": "x"} for i in range(250)]
    ids = [m.id for m in new_memories(items, (), Space(dimension=3, metric="cosine"), AT)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 250


def test_a_record_made_quickly_has_every_field() -> None:
    values = {
        "id": "a",
        "namespace": ("n",),
        "content": "c",
        "embedding": np.ones(3, np.float32),
        "tags": frozenset({"t"}),
        "metadata": {"k": 1},
        "importance": 0.25,
        "created_at": AT,
        "updated_at": AT + timedelta(1),
        "expires_at": AT + timedelta(2),
        "accessed_at": AT + timedelta(3),
        "access_count": 4,
        "pinned": True,
    }
    assert list(values) == list(Memory.__dataclass_fields__)
    record = memory_record(*values.values())
    assert record == Memory(**values)
    assert repr(record) == repr(Memory(**values))
    with pytest.raises(AttributeError):
        record.content = "other"  # type: ignore[misc]


def test_ids_made_together_ascend_before_and_after_others() -> None:
    ids = [new_id(), *new_ids(5_000), new_id(), *new_ids(1), *new_ids(0), new_id()]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    assert {(uuid.UUID(id).version, uuid.UUID(id).variant, str(uuid.UUID(id)) == id) for id in ids} == {
        (7, uuid.RFC_4122, True)
    }
    assert len({id[24:] for id in ids}) == len(ids)  # the random part is each id's own


# Encoding.


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
            st.one_of(
                st.integers(-9, 9),
                st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
                st.sampled_from(["\\u0000", '"', ',"\\u0000",', '","', "\\", "],[", '\\",\\"']),
            ),
            max_size=3,
        ),
        max_size=30,
    )
)
def test_metadata_encoded_together_is_metadata_encoded_one_by_one(values: list[Any]) -> None:
    assert _json_texts(values) == [json_text(value) for value in values]


def test_large_metadata_is_encoded_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(value: Any) -> str:
        calls.append(len(value))
        return json_text(value)

    monkeypatch.setattr("memstore.repository.memories.json_text", counted)
    assert len(_json_texts([{"k": "x" * 100_000}] * 20)) == 20
    assert calls == [1] * 20
    calls.clear()
    assert len(_json_texts([{"k": 1}] * 100)) == 100
    assert len(calls) < 8


@pytest.mark.parametrize("count", SIZES)
def test_batches_hold_every_memory_in_order(count: int) -> None:
    records = [
        Memory(id=str(i), content=f"c{i}", created_at=AT, updated_at=AT + timedelta(i % 3)) for i in range(count)
    ]
    encoded = list(batches(iter(records)))
    assert [id for batch in encoded for id in batch.ids] == [m.id for m in records]
    assert all(len(batch) == Batch.SIZE for batch in encoded[:-1])
    stored = [value for batch in encoded for value in batch.columns["updated_at"]]
    assert stored == [timestamps.to_micros(m.updated_at) for m in records]


_METADATA = MetaData()
_WIDE = Table("wide", _METADATA, Column("pk", Integer, primary_key=True), Column("a", Text), Column("b", Integer))
_STATEMENT = MultiRowInsert(lambda: insert(_WIDE).values({name: bindparam(name) for name in ("pk", "a", "b")}), 100)


@pytest.fixture
def scratch() -> Iterator[Connection]:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with engine.connect() as connection:
        _METADATA.create_all(connection)
        yield connection
    engine.dispose()


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("width", [None, 1, 7, 1_000])
def test_rows_inserted_widely_are_the_rows_given(scratch: Connection, count: int, width: int | None) -> None:
    generator = random.Random(count)
    columns = [
        range(5, 5 + count),
        [generator.choice(["same", "same", "same", None, "other\0"]) for _ in range(count)]
        if count % 2
        else ["x"] * count,
        [generator.randrange(3) for _ in range(count)] if count % 3 else [None] * count,
    ]
    _STATEMENT.insert(scratch, columns, width)
    base = scratch.connection.dbapi_connection
    assert base is not None
    stored = base.cursor().execute("SELECT pk, a, b FROM wide ORDER BY pk").fetchall()
    assert stored == list(zip(*columns, strict=True))


# Embeddings.


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8", "<f2", "<i4", ">u2", "u1", "<i8", "g"])
@pytest.mark.parametrize("cut", [slice(None, None, 1), slice(None, None, -1), slice(None, None, 2)])
def test_an_embedding_is_the_numbers_given_whatever_their_layout(dtype: str, cut: slice) -> None:
    numbers = np.arange(1, 17).astype(dtype)[cut]
    embedding = as_embedding(numbers, len(numbers), allow_zero=False)
    assert embedding.tolist() == [float(x) for x in numbers]
    assert embedding.dtype == np.float32
    assert embedding.flags.c_contiguous
    assert not embedding.flags.writeable
    assert encode(embedding) == np.array(numbers.tolist(), "<f4").tobytes()
    numbers[0] = 99
    assert embedding[0] != 99
    with pytest.raises(ValueError, match="WRITEABLE"):
        embedding.flags.writeable = True


def test_the_bytes_of_an_embedding_are_stored_without_a_copy() -> None:
    embedding = as_embedding(np.arange(1, 5, dtype=np.float32), 4, allow_zero=False)
    assert encode(embedding) is embedding.base
    assert encode(embedding[1:]) == np.arange(2, 5, dtype="<f4").tobytes()
    assert encode(embedding[::-1]) == np.arange(4, 0, -1, dtype="<f4").tobytes()


@pytest.mark.parametrize("dimension", [1, 4096])
async def test_small_and_large_dimensions_come_back(path: Path, rng: np.random.Generator, dimension: int) -> None:
    matrix = vectors(rng, 310, dimension)
    async with memstore.open(path, dimension=dimension, metric="l2") as store:
        added = await store.memories.add_many([{"content": str(i), "embedding": v} for i, v in enumerate(matrix)])
        assert [m async for m in store.memories.list()] == added
        assert all(m.embedding.tobytes() == v.tobytes() for m, v in zip(added, matrix, strict=True))
        assert await store.check() == []


# Stores.


def mixed(rng: np.random.Generator, count: int) -> list[dict[str, Any]]:
    """Items of which a third have no embedding, some share tags, some have tags and fields of their own."""
    items: list[dict[str, Any]] = []
    for i, vector in enumerate(vectors(rng, count)):
        item: dict[str, Any] = {"content": f"text {i} ü", "id": f"id {i}"}
        if i % 3:
            item["embedding"] = vector if i % 2 else vector.tolist()
        if i % 5:
            item["tags"] = {"shared", f"own {i}", "nul\0tag"} if i % 4 else ["shared", "shared"]
        if i % 7 == 0:
            item |= {"importance": 0.25, "metadata": {"i": i, "deep": {"x": [1, None, "\\u0000"]}}, "access_count": i}
        if i % 11 == 0:
            item |= {"created_at": AT + timedelta(seconds=i), "expires_at": datetime(2999, 1, 1, tzinfo=UTC)}
        items.append(item)
    return items


@pytest.mark.parametrize("count", SIZES)
async def test_any_number_of_memories_is_stored_as_given(store: Store, rng: np.random.Generator, count: int) -> None:
    items = mixed(rng, count)
    added = await store.memories.add_many(items)
    assert [m.id for m in added] == [item["id"] for item in items]
    assert await store.memories.get_many([m.id for m in added]) == {m.id: m for m in added}
    for item, record in zip(items, added, strict=True):
        assert record.tags == frozenset(item.get("tags", ()))
        assert record.metadata == item.get("metadata", {})
        assert (record.embedding is None) == ("embedding" not in item)
    # upserting the same again changes nothing but the time, whatever was left out
    again = await store.memories.upsert_many(items)
    assert await store.memories.get_many([m.id for m in again]) == {m.id: m for m in again}
    same = [name for name in Memory.__dataclass_fields__ if name not in ("updated_at", "embedding")]
    assert [[getattr(m, n) for n in same] for m in again] == [[getattr(m, n) for n in same] for m in added]
    assert await store.memories.delete_many(ids=[m.id for m in added]) == count


@pytest.mark.parametrize("count", SIZES)
async def test_load_stores_what_add_many_stores(path: Path, rng: np.random.Generator, count: int) -> None:
    items = mixed(rng, count)
    async with memstore.open(path, dimension=DIMENSION) as store:
        progress: list[int] = []
        assert await store.load(iter(items), chunk=700, on_progress=progress.append) == count
        assert progress == [*range(700, count, 700), *([count] if count else [])]
        loaded = await store.memories.get_many([item["id"] for item in items])
        assert len(loaded) == count
        assert await store.check() == []
        await store.clear()
        at = datetime.now(UTC)
        added = await store.memories.add_many([{"created_at": at, "updated_at": at} | item for item in items])
        ours = [(m.id, m.content, m.tags, repr(m.metadata), repr(m.embedding)) for m in loaded.values()]
        assert ours == [(m.id, m.content, m.tags, repr(m.metadata), repr(m.embedding)) for m in added]


@pytest.mark.parametrize("place", [0, 1, 99, 100, 999, 1_000, 1_199])
async def test_the_error_names_the_id_that_was_stored_before(store: Store, place: int) -> None:
    await store.memories.add("there", id="taken")
    items = [{"content": "x", "id": f"new {i}"} for i in range(1_200)]
    items[place]["id"] = "taken"
    with pytest.raises(DuplicateError) as caught:
        await store.memories.add_many(items)
    assert (caught.value.id, "twice" in str(caught.value)) == ("taken", False)
    items[1_150]["id"] = items[20]["id"] = "given twice"
    with pytest.raises(DuplicateError, match="twice") as caught:
        await store.memories.add_many(items)
    assert caught.value.id == "given twice"
    assert await store.memories.count() == 1


async def test_a_load_stops_at_a_duplicate_and_says_how_many_are_stored(store: Store) -> None:
    items = [{"content": "x", "id": f"new {i}"} for i in range(350)]
    items[260]["id"] = "new 5"
    with pytest.raises(LoadError) as caught:
        await store.load(items, chunk=100)
    assert caught.value.stored == 200
    assert isinstance(caught.value.__cause__, DuplicateError)
    assert await store.memories.count() == 200


async def test_a_thousand_tags_on_one_record_and_on_many(store: Store) -> None:
    names = [f"tag {i}" for i in range(1_000)]
    one = await store.memories.add("one", id="one", tags=names)
    many = await store.memories.add_many([{"content": str(i), "tags": names[i:]} for i in range(0, 1_000, 50)])
    assert (await store.memories.get("one")).tags == one.tags == frozenset(names)
    assert [m.tags for m in (await store.memories.get_many([m.id for m in many])).values()] == [m.tags for m in many]
    assert await store.memories.count(tags=["tag 999"]) == 21
    fewer = await store.memories.update("one", tags=["tag 5", "new"])
    assert (await store.memories.get("one")).tags == fewer.tags == {"tag 5", "new"}


async def test_a_tag_of_another_namespace_is_another_tag(store: Store) -> None:
    other = store.namespace("other")
    await store.memories.add_many([{"content": "a", "tags": {"x", "y"}}])
    await other.memories.add_many([{"content": "b", "tags": {"y", "z"}}])
    assert [tag.name async for tag in store.tags.list()] == ["x", "y"]
    assert [tag.name async for tag in other.tags.list()] == ["y", "z"]


async def test_records_of_many_share_nothing_with_what_was_given(store: Store, rng: np.random.Generator) -> None:
    matrix = vectors(rng, 3)
    copies = matrix.copy()
    items = [{"content": "x", "embedding": v, "metadata": {"deep": {"list": [1]}}, "tags": ["a"]} for v in matrix]
    records = await store.memories.add_many(items)
    for item in items:
        item["metadata"]["deep"]["list"].append(2)
        item["metadata"]["deep"]["new"] = 1
        item["tags"].append("b")
    matrix[:] = 0
    assert [m.metadata for m in records] == [{"deep": {"list": [1]}}] * 3
    assert [m.embedding.tobytes() for m in records] == [v.tobytes() for v in copies]
    assert [m.tags for m in records] == [{"a"}] * 3


# Upserts and updates write what changed.


def log_top(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection, connection:
        return int(connection.execute("SELECT coalesce(max(seq), 0) FROM change_log").fetchone()[0])


async def test_an_upsert_of_the_same_vector_and_expiry_changes_nothing_in_the_index(
    store: Store, path: Path, rng: np.random.Generator
) -> None:
    items = [
        {
            "id": str(i),
            "content": "old",
            "embedding": v,
            "expires_at": datetime(2999, 1, 1, tzinfo=UTC) if i % 2 else None,
        }
        for i, v in enumerate(vectors(rng, 120))
    ]
    await store.memories.add_many(items)
    before = log_top(path)
    changed = await store.memories.upsert_many([{**item, "content": "new"} for item in items])
    assert log_top(path) == before
    assert {m.content for m in changed} == {"new"}
    await store.memories.upsert_many([{**items[7], "expires_at": None}])
    assert log_top(path) > before
    assert (await store.memories.get("7")).expires_at is None


async def test_of_many_upserts_just_those_with_other_tags_change_them(store: Store) -> None:
    items: list[dict[str, Any]] = [{"id": str(i), "content": "x", "tags": {"a", f"own {i}"}} for i in range(230)]
    await store.memories.add_many(items)
    for i, tags in [(0, {"a"}), (99, set()), (100, {"a", "own 100", "b"}), (200, {"c"}), (229, {"own 229", "own 0"})]:
        items[i]["tags"] = tags
    await store.memories.upsert_many(items)
    stored = await store.memories.get_many([item["id"] for item in items])
    assert [m.tags for m in stored.values()] == [item["tags"] for item in items]


async def on_writer(store: Store, *statements: str) -> list[Any]:
    """What the last of *statements* gives, on the connection that writes."""
    return await store._database._writer.thread.submit(
        lambda connection: [raw(connection).execute(statement).fetchall() for statement in statements][-1]
    )


@pytest.mark.parametrize("verb", ["upsert_many", "update"])
async def test_of_a_records_tags_just_those_that_differ_are_written(store: Store, verb: str) -> None:
    old = {"swaps": {"x", "y"}, "same": {"x", "y"}, "gains": set(), "loses": {"x", "y"}, "grows": {"x"}}
    new = {"swaps": {"y", "z"}, "same": {"x", "y"}, "gains": {"x"}, "loses": set(), "grows": {"x", "z"}}
    await store.memories.add_many([{"id": id, "content": "c", "tags": tags} for id, tags in old.items()])
    await on_writer(
        store,
        "CREATE TEMP TABLE moved (what, memory_pk, tag_pk)",
        *(
            f"CREATE TEMP TRIGGER moved_{what} AFTER {what} ON memory_tag BEGIN "
            f"INSERT INTO moved VALUES ('{what}', {row}.memory_pk, {row}.tag_pk); END"
            for what, row in (("INSERT", "NEW"), ("DELETE", "OLD"), ("UPDATE", "NEW"))
        ),
    )
    if verb == "update":
        for id, tags in new.items():
            await store.memories.update(id, tags=tags)
    else:
        await store.memories.upsert_many([{"id": id, "content": "c", "tags": tags} for id, tags in new.items()])
    moved = await on_writer(
        store,
        "SELECT what, memory.id, tag.name FROM moved JOIN memory ON memory.pk = memory_pk JOIN tag ON tag.pk = tag_pk",
    )
    await on_writer(
        store, *(f"DROP TRIGGER moved_{what}" for what in ("INSERT", "DELETE", "UPDATE")), "DROP TABLE moved"
    )
    assert sorted(moved) == [
        ("DELETE", "loses", "x"),
        ("DELETE", "loses", "y"),
        ("DELETE", "swaps", "x"),
        ("INSERT", "gains", "x"),
        ("INSERT", "grows", "z"),
        ("INSERT", "swaps", "z"),
    ]
    assert {m.id: m.tags for m in (await store.memories.get_many(list(new))).values()} == new


async def test_an_upsert_names_only_the_columns_that_change(store: Store) -> None:
    named = {
        "none": {},
        "created": {"created_at": AT},
        "expires": {"expires_at": datetime(2999, 1, 1, tzinfo=UTC)},
        "accessed": {"accessed_at": AT},
        "counted": {"access_count": 3},
        "weighed": {"importance": 0.75},
        "pinned": {"pinned": True},
        "both": {"importance": 0.25, "access_count": 4},
    }
    await store.memories.add_many([{"id": id, "content": "old"} for id in named])
    heard: list[str] = []
    writer = store._database._writer.thread
    await writer.submit(lambda c: raw(c).set_trace_callback(heard.append))
    stored = await store.memories.upsert_many([{"id": id, "content": "new", **more} for id, more in named.items()])
    await writer.submit(lambda c: raw(c).set_trace_callback(None))
    updates = [said.split("WHERE")[0] for said in dict.fromkeys(heard) if said.startswith("UPDATE memory SET")]
    columns = [set(re.findall(r"(\w+)=", update)) - {"content", "metadata", "updated_at"} for update in updates]
    expected = [set(more) for more in named.values()]
    assert sorted(map(sorted, columns)) == sorted(map(sorted, expected))
    assert await store.memories.get_many(list(named)) == {m.id: m for m in stored}
    for id, more in named.items():
        record = stored[list(named).index(id)]
        assert {name: getattr(record, name) for name in more} == more
    assert await store.memories.count(where={"importance": {"$gt": 0.7}}) == 1


async def test_an_upsert_of_new_and_old_keeps_what_is_not_given(store: Store, rng: np.random.Generator) -> None:
    old = await store.memories.add_many(
        [
            {
                "id": str(i),
                "content": "old",
                "access_count": i,
                "accessed_at": AT,
                "created_at": AT,
                "pinned": i % 4 == 0,
            }
            for i in range(0, 240, 2)
        ]
    )
    items: list[dict[str, Any]] = [
        {"id": str(i), "content": f"new {i}", "embedding": v} for i, v in enumerate(vectors(rng, 240))
    ]
    items[4] |= {"created_at": AT + timedelta(1), "access_count": 99, "accessed_at": AT + timedelta(2)}
    items.append({"id": "6", "content": "last", "tags": ["a"]})
    stored = await store.memories.upsert_many(items)
    assert len(stored) == 241
    assert stored[6] == stored[-1]
    assert stored[-1].content == "last"
    assert stored[-1].embedding is None
    assert await store.memories.get_many([m.id for m in stored]) == {m.id: m for m in stored}
    assert (stored[4].created_at, stored[4].access_count) == (AT + timedelta(1), 99)
    assert stored[4].accessed_at == AT + timedelta(2)
    for record in old[3:]:
        now = stored[int(record.id)]
        assert (now.created_at, now.accessed_at, now.access_count, now.pinned) == (
            *(AT, AT, record.access_count),
            record.pinned,
        )
    assert stored[1].created_at > AT


@pytest.mark.parametrize(
    "changes",
    [
        {"content": "n", "embedding": None},
        {"metadata": {"a": [1]}, "tags": {"x"}},
        {"tags": []},
        {"importance": 1, "access_count": 3, "accessed_at": AT, "pinned": True},
        {"expires_at": datetime(2999, 1, 1, tzinfo=UTC), "updated_at": AT, "created_at": AT},
        {"expires_at": None},
        {"embedding": [1.0] * DIMENSION},
        {},
    ],
)
async def test_an_update_of_any_fields_is_what_is_read(store: Store, rng: np.random.Generator, changes: Any) -> None:
    before = await store.memories.add(
        "c", id="a", embedding=vectors(rng, 1)[0], tags={"x", "y"}, metadata={"k": 1}, ttl=900
    )
    after = await store.memories.update("a", **changes)
    assert await store.memories.get("a") == after
    for name in Memory.__dataclass_fields__:
        if name not in {*changes, "updated_at"}:
            one, other = getattr(before, name), getattr(after, name)
            assert np.array_equal(one, other) if name == "embedding" else one == other
    assert json.dumps(after.metadata) == json.dumps(changes.get("metadata", {"k": 1}))


async def test_embeddings_that_cannot_be_stored_are_named_among_many(store: Store, rng: np.random.Generator) -> None:
    items = [{"content": "x", "embedding": v} for v in vectors(rng, 205)]
    for place, vector, error in [
        (204, np.full(DIMENSION, np.inf, np.float32), EmbeddingError),
        (100, np.zeros(DIMENSION, np.float32), EmbeddingError),
        (99, np.ones(DIMENSION + 1, np.float32), DimensionError),
    ]:
        items[place]["embedding"] = vector
        with pytest.raises(error) as caught:
            await store.memories.add_many(items)
        assert str(caught.value).startswith(f"Item {place}, counted from 0: ")
    assert await store.memories.count() == 0


@pytest.mark.parametrize(("dimension", "chunk"), [(8, 5_000), (1_024, 2_048), (4_096, 1_000)])
async def test_a_load_commits_what_is_worth_a_commit_and_holds_no_writer_up_for_long(
    path: Path, dimension: int, chunk: int
) -> None:
    progress: list[int] = []
    async with memstore.open(path, dimension=dimension) as store:
        await store.load(({"content": "x"} for _ in range(chunk + 1)), on_progress=progress.append)
        assert progress == [chunk, chunk + 1]
        assert await store.check() == []

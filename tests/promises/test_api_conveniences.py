"""The API does what a caller expects."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest

import memstore
from memstore import DuplicateError, InvalidError, Store
from tests.support.host_programs import records

VECTOR = [1.0, 0, 0, 0, 0, 0, 0, 0]

# Representation and errors.


async def test_the_repr_of_every_record_is_one_line_with_the_size_of_its_vector(store: Store) -> None:
    for record in await records(store):
        assert "\n" not in repr(record)
        assert "array(" not in repr(record)
    assert "embedding=<8 float32>" in repr((await records(store))[0])


async def test_the_repr_of_a_handle_names_the_file_and_the_namespace(store: Store, path: Path) -> None:
    space = store.namespace("user", "ada")
    assert repr(store) == f"<memstore.Store {str(path)!r}>"
    assert repr(space.memories) == f"<memstore.Memories {str(path)!r} namespace=('user', 'ada')>"
    async with space.transaction() as tx:
        assert repr(tx) == f"<memstore.Transaction {str(path)!r} namespace=('user', 'ada')>"


async def test_a_store_that_was_not_awaited_says_so(path: Path) -> None:
    opening = memstore.open(path, dimension=2)
    with pytest.raises(AttributeError, match=r"open was not awaited: use `async with memstore\.open"):
        opening.memories  # noqa: B018
    with pytest.raises(TypeError, match=r"opened by `async with`, not by `with`"), opening:
        pass
    assert "not awaited" in repr(opening)
    with pytest.warns(RuntimeWarning, match=r"memstore\.open was not awaited"):
        del opening
    assert not path.exists()


async def test_an_error_of_a_batch_names_the_item_by_index_and_id(store: Store) -> None:
    items = [{"content": "x", "id": "a"}, {"content": "x", "id": "b", "importance": 2}]
    message = r"Item 1 \(id 'b'\), counted from 0: Invalid importance"
    for write in (store.memories.add_many, store.memories.upsert_many):
        with pytest.raises(memstore.InvalidError, match=message) as caught:
            await write(items)
        assert caught.value.item == 1


# Paging and projection.

# Batch verbs.


async def test_update_many_gives_many_records_the_same_values(store: memstore.Store) -> None:
    await store.memories.add_many([{"id": str(i), "content": "x", "importance": i / 10} for i in range(10)])
    assert await store.memories.update_many(where={"importance": {"$gte": 0.7}}, tags={"important"}) == 3
    assert await store.memories.update_many(ids=["0", "none"], pinned=True) == 1
    assert [m.id async for m in store.memories.list(tags=["important"])] == ["7", "8", "9"]
    assert [m.id async for m in store.memories.list(where={"pinned": True})] == ["0"]


async def test_a_metadata_patch_changes_a_part_of_the_metadata(store: memstore.Store) -> None:
    await store.memories.add("x", id="a", metadata={"user": {"name": "Ada", "age": 35}, "source": "chat"})
    updated = await store.memories.update("a", metadata_patch={"user": {"age": 36}, "source": None})
    assert updated.metadata == {"user": {"name": "Ada", "age": 36}}


@pytest.mark.parametrize(
    ("on_duplicate", "content", "outcome"), [("skip", "old", "skipped"), ("replace", "new", "replaced")]
)
async def test_an_existing_id_is_skipped_or_replaced_and_the_result_says_which(
    store: memstore.Store, on_duplicate: Literal["skip", "replace"], content: str, outcome: str
) -> None:
    await store.memories.add("old", id="a")
    with pytest.raises(DuplicateError):
        await store.memories.add("new", id="a")
    items = [{"content": "new", "id": "a"}, {"content": "other", "id": "b"}]
    results = await store.memories.add_many(items, on_duplicate=on_duplicate)
    assert [(r.record.content, r.outcome) for r in results] == [(content, outcome), ("other", "added")]


async def test_touch_with_an_expiry_is_no_change(store: memstore.Store) -> None:
    memory = await store.memories.add("x", id="a", ttl=60)
    await store.memories.touch(["a"], expires_at=datetime(2100, 1, 1, tzinfo=UTC))
    touched = await store.memories.get("a")
    assert (touched.updated_at, touched.expires_at) == (memory.updated_at, datetime(2100, 1, 1, tzinfo=UTC))
    assert [change.kind for change in await store.memories.history("a")] == ["added"]


async def test_items_of_many_namespaces_are_one_transaction(store: memstore.Store) -> None:
    items = [{"content": f"{i}", "id": "own", "namespace": ("user", f"{i}"), "embedding": VECTOR} for i in range(50)]
    with pytest.raises(InvalidError):
        await store.memories.add_many([*items, {"content": "x", "importance": 2}])
    assert await store.namespaces() == []
    await store.memories.add_many(items)
    records = await store.memories.get_many([(("user", f"{i}"), "own") for i in range(50)])
    assert [memory.content for memory in records.values()] == [f"{i}" for i in range(50)]
    with pytest.raises(InvalidError):
        await store.namespace("user", "1").memories.get_many([(("user", "2"), "own")])


# A store without a dimension.

# Command line.

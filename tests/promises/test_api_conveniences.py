"""The API does what a caller expects."""

from pathlib import Path

import pytest

import memstore
from memstore import Store
from tests.support.host_programs import records

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

# A store without a dimension.

# Command line.

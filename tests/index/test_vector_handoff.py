"""Vectors that a write hands to the index, which does not read them back: only those that are stored.

The fixture `store` runs `check` after each test: it compares the index with the rows.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection

import memstore
from memstore import Store
from memstore.database import transactions
from memstore.database.transactions import raw, snapshot
from memstore.repository import memories
from memstore.repository import vectors as vector_rows
from memstore.repository.context import WriteContext
from memstore.repository.memories import batches
from memstore.vectors.encoding import checksum
from tests.conftest import DIMENSION, vectors
from tests.database.test_group_commit import busy_thread

ONES = f"x'{'0000803f' * DIMENSION}'"
"""A vector, as SQL."""

LATER = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture
def read_back(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The keys of vectors that were read from the rows, in order."""
    keys: list[int] = []
    vectors_of = vector_rows.vectors

    def noted(connection: Connection, space: vector_rows.VectorSpace, requested: list[int] | None = None) -> Any:
        keys.extend(requested or ())
        return vectors_of(connection, space, requested)

    monkeypatch.setattr(vector_rows, "vectors", noted)
    return keys


@pytest.fixture
async def loaded(store: Store, rng: np.random.Generator) -> Store:
    """A store of memories 1 to 5 whose index is loaded."""
    await store.memories.add_many(items(rng, 5))
    await store.memories.search(np.ones(DIMENSION, np.float32))
    return store


def items(rng: np.random.Generator, count: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"content": f"text {i}", "embedding": v, **fields} for i, v in enumerate(vectors(rng, count))]


def named_items(rng: np.random.Generator, count: int, **fields: Any) -> list[dict[str, Any]]:
    """The same, with numbers as ids."""
    return [{**item, "id": str(i)} for i, item in enumerate(items(rng, count, **fields))]


def aside(store: Store, *statements: tuple[str, Any]) -> None:
    """What another process does, and commits."""
    with closing(sqlite3.connect(store._database.settings.path, timeout=10)) as base:
        base.execute("PRAGMA foreign_keys=ON")
        for statement, values in statements:
            base.execute(statement, values)
        base.commit()


def beside_commit(store: Store, happens: Callable[[Connection], None]) -> None:
    """Have something happen once, between a COMMIT and the index's following it."""
    follow = store._follower.after_commit

    def after_commit(connection: Connection) -> None:
        store._follower.after_commit = follow  # type: ignore[method-assign]
        happens(connection)
        follow(connection)

    store._follower.after_commit = after_commit  # type: ignore[method-assign]


def blob(rng: np.random.Generator) -> bytes:
    return vectors(rng, 1)[0].tobytes()


def changed(rng: np.random.Generator, key: int) -> tuple[str, Any]:
    data = blob(rng)
    return "UPDATE memory_vector SET vector = ?, checksum = ? WHERE memory_pk = ?", (data, checksum(data), key)


async def test_inserted_vectors_are_not_read_back(
    loaded: Store, rng: np.random.Generator, read_back: list[int]
) -> None:
    batch = items(rng, 2_350)
    for item in batch[::3]:
        item["embedding"] = None
    for item in batch[::5]:
        item["expires_at"] = LATER
    added = await loaded.namespace("n").memories.add_many(batch)
    await loaded.memories.add("one", embedding=vectors(rng, 1)[0])
    await loaded.load(items(rng, 250), chunk=100)
    assert read_back == []
    index = loaded._follower.indexes.by_kind["memory"]
    assert len(index) == 5 + sum(m.embedding is not None for m in added) + 1 + 250
    hits = await loaded.namespace("n").memories.search(added[-2].embedding, limit=1)
    assert hits[0].memory == added[-2]


@pytest.mark.parametrize("by_verb", [True, False])
async def test_keys_that_are_reused_after_a_savepoint_have_their_new_vectors(
    loaded: Store, rng: np.random.Generator, by_verb: bool
) -> None:
    async with loaded.transaction() as tx:
        with pytest.raises(ZeroDivisionError):
            async with tx.transaction():
                await tx.memories.add_many(items(rng, 4))
                raise ZeroDivisionError
        if by_verb:
            await tx.memories.add_many(items(rng, 3))
        else:
            await tx._opened.write(lambda context: inserted_by_hand(context.connection, 6, blob(rng)))


def inserted_by_hand(connection: Connection, key: int, data: bytes) -> None:
    base = raw(connection)
    base.execute(
        "INSERT INTO memory SELECT ?, namespace_pk, 'by hand', content, metadata, importance, created_at, updated_at, "
        "NULL, NULL, 0, 0 FROM memory WHERE pk = 1",
        (key,),
    )
    base.execute(
        "INSERT INTO memory_vector SELECT ?, pk, ?, ? FROM vector_space WHERE kind = 'memory'",
        (key, data, checksum(data)),
    )


async def test_vectors_of_a_verb_that_raises_do_not_reach_the_index(loaded: Store, rng: np.random.Generator) -> None:
    other_memories = await loaded.namespace("other").memories.add_many(items(rng, 3))

    def inserts_and_fails(context: WriteContext) -> None:
        memories.insert_new(context, batches(replace(memory, namespace=("failed",)) for memory in other_memories))
        raise ZeroDivisionError

    with busy_thread(loaded):
        writes = [
            asyncio.ensure_future(loaded.memories.add("first", embedding=vectors(rng, 1)[0])),
            asyncio.ensure_future(loaded._session.write(inserts_and_fails)),
            asyncio.ensure_future(loaded.memories.add("third", embedding=vectors(rng, 1)[0])),
        ]
        await asyncio.sleep(0)
    first, failed, third = await asyncio.gather(*writes, return_exceptions=True)
    assert isinstance(failed, ZeroDivisionError)
    hits = await loaded.memories.search(third.embedding, limit=1)
    assert hits[0].memory == third
    assert (await loaded.memories.search(first.embedding, limit=1))[0].memory == first


async def test_vectors_of_a_rolled_back_transaction_do_not_reach_the_index(
    loaded: Store, rng: np.random.Generator
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with loaded.transaction() as tx:
            await tx.memories.add_many(items(rng, 4))
            raise ZeroDivisionError
    await loaded._session.write(lambda context: inserted_by_hand(context.connection, 6, blob(rng)))


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE memory_vector SET vector = {ONES}, checksum = NULL WHERE memory_pk = 7",
        "UPDATE memory SET expires_at = 4102444800000000 WHERE pk = 7",
        "UPDATE memory SET namespace_pk = (SELECT pk FROM namespace WHERE path = 'n/') WHERE pk = 7",
        "DELETE FROM memory WHERE pk = 7",
        "DELETE FROM memory_vector WHERE memory_pk = 7",
        "UPDATE memory_vector SET memory_pk = 8 WHERE memory_pk = 7",
    ],
)
async def test_a_vector_inserted_and_changed_in_one_transaction_is_read_back(
    loaded: Store, rng: np.random.Generator, read_back: list[int], statement: str
) -> None:
    await loaded.namespace("n").memories.add("there")
    read_back.clear()
    async with loaded.transaction() as tx:
        await tx.memories.add("another", embedding=vectors(rng, 1)[0])  # 7
        await tx.memories.add("without a vector", embedding=None)  # 8
        await tx.memories.add_many(items(rng, 2))
        await tx._opened.write(lambda context: raw(context.connection).execute(statement))
    assert set(read_back) == ({7, 8} if "= 8" in statement else {7})


@pytest.mark.parametrize(
    "trigger",
    [
        "AFTER INSERT ON memory BEGIN UPDATE memory SET expires_at = 4102444800000000 WHERE pk = NEW.pk; END",
        "AFTER INSERT ON memory BEGIN UPDATE memory SET namespace_pk = (SELECT pk FROM namespace WHERE path = 'n/') "
        "WHERE pk = NEW.pk; END",
        f"AFTER INSERT ON memory_vector BEGIN UPDATE memory_vector SET vector = {ONES} "
        "WHERE memory_pk = NEW.memory_pk; END",
        "BEFORE INSERT ON memory_vector WHEN NEW.memory_pk % 2 BEGIN SELECT RAISE(IGNORE); END",
        "AFTER INSERT ON memory_vector WHEN NEW.memory_pk % 2 BEGIN DELETE FROM memory WHERE pk = NEW.memory_pk; END",
    ],
)
async def test_changes_by_a_trigger_of_the_application_reach_the_index(
    loaded: Store, rng: np.random.Generator, trigger: str
) -> None:
    await loaded.namespace("n").memories.add("there")
    aside(loaded, (f"CREATE TRIGGER tr_own {trigger}", ()))
    await loaded.memories.add_many(items(rng, 3))
    await loaded.memories.add("one more", embedding=vectors(rng, 1)[0])


@pytest.mark.parametrize("when", ["before", "after"])
async def test_changes_of_another_process_around_a_write_are_read_back(
    loaded: Store, rng: np.random.Generator, read_back: list[int], when: str
) -> None:
    key = 2 if when == "before" else 7
    changes = changed(rng, key), ("DELETE FROM memory WHERE pk = ?", (key + 1,))
    if when == "before":
        aside(loaded, *changes)
    else:
        beside_commit(loaded, lambda _: aside(loaded, *changes))
    await loaded.memories.add_many(items(rng, 3))
    assert sorted(read_back) == [key, key + 1]


async def test_vectors_that_a_reader_applied_and_removed_are_not_put_again(
    loaded: Store, rng: np.random.Generator
) -> None:
    def happens(connection: Connection) -> None:
        aside(loaded, ("DELETE FROM memory WHERE pk = 7", ()))
        with loaded._follower.indexes.lock.exclusive(), snapshot(connection):
            loaded._follower.catch_up(connection)
        trimmed = ("UPDATE store_meta SET log_floor = (SELECT max(seq) FROM change_log)", ())
        aside(loaded, trimmed, ("DELETE FROM change_log", ()))
        aside(loaded, changed(rng, 2))

    beside_commit(loaded, happens)
    await loaded.memories.add_many(items(rng, 3))
    assert len(loaded._follower.indexes.by_kind["memory"]) == 7


async def test_a_memory_added_and_upserted_in_one_transaction_has_its_last_vector(
    loaded: Store, rng: np.random.Generator, read_back: list[int]
) -> None:
    one, other = vectors(rng, 2)
    async with loaded.transaction() as tx:
        await tx.memories.add("a", id="a", embedding=one)
        await tx.memories.upsert_many(
            [{"content": "b", "id": "b", "embedding": one}, {"content": "a", "id": "a", "embedding": other}]
        )
        await tx.memories.upsert("b", id="b", embedding=None)
    assert read_back == [7]
    assert [hit.memory.id for hit in await loaded.memories.search(other, limit=1)] == ["a"]


async def test_upserted_vectors_are_not_read_back_unless_their_expiry_changes(
    loaded: Store, rng: np.random.Generator, read_back: list[int]
) -> None:
    view = loaded.namespace("n")
    first = named_items(rng, 1_250)
    for item in first[::7]:
        item["expires_at"] = LATER
    for item in first[::11]:
        item["embedding"] = None
    await view.memories.upsert_many(first)
    second = named_items(rng, 1_400, expires_at=LATER + timedelta(days=1))
    for i in range(1, 1_400, 2):
        second[i]["expires_at"] = first[i].get("expires_at") if i < len(first) else None
    assert read_back == []
    stored = await view.memories.upsert_many(second)
    moved = {6 + i for i in range(1_250) if i % 2 == 0 and i % 11}
    assert set(read_back) == moved, "but for those whose expiry is another"
    read_back.clear()
    third = [{**item, "embedding": v} for item, v in zip(second, vectors(rng, 1_400), strict=True)]
    for item in third[::13]:
        item["embedding"] = None
    stored = await view.memories.upsert_many(third)
    assert set(read_back) == {6 + i for i in range(0, 1_400, 13)}, "but for those that lost theirs"
    index = loaded._follower.indexes.by_kind["memory"]
    assert len(index) == 5 + sum(m.embedding is not None for m in stored)
    (hit,) = await view.memories.search(stored[1_101].embedding, limit=1)
    assert hit.memory == stored[1_101]


async def test_only_changed_vectors_of_an_upsert_reach_the_index(
    loaded: Store, rng: np.random.Generator, read_back: list[int]
) -> None:
    batch = named_items(rng, 30)
    await loaded.memories.upsert_many(batch)
    batch = [{**item, "content": "other"} for item in batch]
    batch[3]["embedding"] = vectors(rng, 1)[0]
    await loaded.memories.upsert_many(batch)
    assert read_back == [6 + 3], "the log speaks of one, not of all"
    batch = [{**item, "embedding": v} for item, v in zip(batch, vectors(rng, 30), strict=True)]
    await loaded.memories.upsert_many(batch)
    assert read_back == [6 + 3]


async def test_a_vector_that_a_trigger_changes_during_an_upsert_is_read_back(
    loaded: Store, rng: np.random.Generator, read_back: list[int]
) -> None:
    batch = named_items(rng, 3)
    await loaded.memories.upsert_many(batch)
    other = vectors(rng, 1)[0]
    trigger = (
        "CREATE TRIGGER host AFTER UPDATE OF vector ON memory_vector WHEN NEW.memory_pk = 7 BEGIN "
        f"UPDATE memory_vector SET vector = x'{other.tobytes().hex()}', checksum = {checksum(other.tobytes())} "
        "WHERE memory_pk = 6; END"
    )
    aside(loaded, (trigger, ()))
    same, *rest = batch  # the log says as much of the first, by way of the trigger, as if its own vector were new
    await loaded.memories.upsert_many(
        [same, *({**i, "embedding": v} for i, v in zip(rest, vectors(rng, 2), strict=True))]
    )
    assert sorted(set(read_back)) == [6, 7, 8]
    (hit,) = await loaded.memories.search(other, limit=1)
    assert hit.memory.id == "0"


async def test_an_upserted_vector_that_a_savepoint_undoes_does_not_reach_the_index(
    loaded: Store, rng: np.random.Generator
) -> None:
    before, after, later = vectors(rng, 3)
    await loaded.memories.add("a", id="a", embedding=before)
    async with loaded.transaction() as tx:
        with pytest.raises(ZeroDivisionError):
            async with tx.transaction():
                await tx.memories.upsert("a", id="a", embedding=after)
                raise ZeroDivisionError
        await tx.memories.upsert("b", id="b", embedding=later)
    (hit,) = await loaded.memories.search(before, limit=1)
    assert (hit.memory.id, round(hit.score, 5)) == ("a", 1.0)


async def test_new_members_change_the_composite_of_their_assembly(loaded: Store, rng: np.random.Generator) -> None:
    async with loaded.transaction() as tx:
        batch = await tx.memories.add_many(items(rng, 3))
        await tx.assemblies.add("asm", members=[m.id for m in batch])
        more = await tx.memories.add_many(items(rng, 2))
        await tx.assemblies.add_members("asm", [m.id for m in more])
    (hit,) = await loaded.assemblies.search(more[0].embedding, limit=1)
    assert hit.assembly.member_count == 5


async def test_a_float16_index_does_not_read_inserted_vectors_back(
    path: Path, rng: np.random.Generator, read_back: list[int]
) -> None:
    async with memstore.open(path, dimension=DIMENSION, index=memstore.IndexOptions(vector_type="float16")) as store:
        await store.memories.search(np.ones(DIMENSION, np.float32))
        added = await store.memories.add_many(items(rng, 300))
        assert read_back == []
        assert len(store._follower.indexes.by_kind["memory"]) == 300
        hits = await store.memories.search(added[7].embedding, limit=1)
        assert hits[0].memory == added[7]
        assert await store.check() == []


async def test_a_transaction_keeps_a_limited_number_of_bytes_of_vectors(
    loaded: Store, rng: np.random.Generator, read_back: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "_CACHE_BYTES", 10 * 4 * DIMENSION)
    async with loaded.transaction() as tx:
        for _ in range(3):
            await tx.memories.add_many(items(rng, 4))
    assert read_back == list(range(6, 14))


async def test_no_vector_is_kept_after_a_write(store: Store, rng: np.random.Generator) -> None:
    async def handoffs() -> list[object]:
        return await store._database._writer.thread.submit(transactions.take_cached)

    await store.memories.add_many(items(rng, 3))  # there is no index to take it in
    assert await handoffs() == []
    async with store.transaction() as tx:
        await tx.memories.add_many(items(rng, 3))
    assert await handoffs() == []
    with pytest.raises(ZeroDivisionError):
        async with store.transaction() as tx:
            await tx.memories.add_many(items(rng, 3))
            raise ZeroDivisionError
    assert await handoffs() == []

"""Pages of a list, offsets, and reads without vectors."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

import memstore
from memstore import AssemblyBoost, AssemblyForgetPolicy, ForgetPolicy, InvalidError, Store
from memstore.models import Page
from tests.conftest import vectors

ORDERS = ["created_at", "-created_at", "importance", "-importance", "id", "-content", "expires_at", "-accessed_at"]
START = datetime(2024, 1, 1, tzinfo=UTC)


@pytest_asyncio.fixture
async def filled(store: Store, rng: np.random.Generator) -> AsyncIterator[Store]:
    """270 memories in three namespaces, with equal and missing sort values, and a few assemblies."""
    items: list[dict[str, Any]] = [
        {
            "id": f"m{i:03}",
            "content": f"text {i % 50}",
            "namespace": [(), ("a",), ("a", "b")][i % 3],
            "embedding": row,
            "tags": {"even"} if i % 2 == 0 else set(),
            "importance": i % 4 / 4,
            "created_at": START + timedelta(seconds=i // 5),
            "expires_at": START + timedelta(days=36_500 + i % 7) if i % 3 else None,
            "accessed_at": START + timedelta(days=i % 9) if i % 5 else None,
        }
        for i, row in enumerate(vectors(rng, 270))
    ]
    await store.memories.add_many(items)
    await store.assemblies.add_many([{"id": f"g{i}", "members": ["m000", f"m{3 * i:03}"]} for i in range(9)])
    yield store


async def pages_of(noun: Any, limit: int, **arguments: Any) -> list[Any]:
    records: list[Any] = []
    after: str | None = None
    while True:
        page: Page[Any] = await noun.page(limit=limit, after=after, **arguments)
        assert len(page.items) <= limit
        records += page.items
        if page.next is None:
            return records
        assert len(page.items) == limit
        after = page.next


@pytest.mark.parametrize("order", ORDERS)
async def test_the_pages_are_the_list(filled: Store, order: str) -> None:
    for arguments in (
        {},
        {"recursive": True},
        {"recursive": True, "where": {"importance": {"$gte": 0.5}}},
        {"recursive": True, "tags": ["even"], "where": {"expires_at": None}},
    ):
        expected = [memory async for memory in filled.memories.list(order=order, **arguments)]  # type: ignore[arg-type]
        assert len(expected) > 20
        for limit in (1, 7, len(expected) - 1, len(expected), len(expected) + 1):
            if limit == 1 and len(expected) > 100:
                continue
            assert await pages_of(filled.memories, limit, order=order, **arguments) == expected


async def test_pages_of_assemblies_are_the_list(filled: Store) -> None:
    expected = [assembly async for assembly in filled.assemblies.list(order="-id")]
    assert await pages_of(filled.assemblies, 2, order="-id") == expected
    assert len(expected) == 9


async def test_an_empty_list_is_one_empty_page(store: Store) -> None:
    assert await store.memories.page() == Page([], None)
    await store.memories.add("x", id="a")
    page = await store.memories.page(limit=1)
    assert ([m.id for m in page.items], page.next) == (["a"], None)


@pytest.mark.parametrize("order", ORDERS)
async def test_what_is_written_between_two_pages_moves_no_record_that_stays(
    filled: Store, order: str, rng: np.random.Generator
) -> None:
    before = {(m.namespace, m.id): m async for m in filled.memories.list(order=order, recursive=True)}
    deleted: set[Any] = set()
    after, addresses = None, []
    for turn in range(100):
        page = await filled.memories.page(limit=11, order=order, recursive=True, after=after)
        addresses += [(m.namespace, m.id) for m in page.items]
        after = page.next
        if after is None:
            break
        last = page.items[-1]  # the record that the cursor names
        victims = [(last.namespace, last.id), *rng.permutation(np.array(list(before), dtype=object))[:2]]
        for namespace, id in victims:
            await filled.namespace(*namespace).memories.delete(id)
            deleted.add((tuple(namespace), id))
        new = {"id": f"new{turn}", "importance": float(rng.random()), "created_at": START + timedelta(hours=turn)}
        await filled.memories.add(f"text {turn}", **new)  # type: ignore[arg-type]
    assert len(addresses) == len(set(addresses))
    remaining = [address for address in before if address not in deleted]
    assert [address for address in addresses if address in set(remaining)] == remaining


async def test_pages_as_of_a_time_are_the_list_of_that_time(filled: Store) -> None:
    at = datetime.now(UTC)
    expected = [m async for m in filled.memories.list(order="-importance", recursive=True)]
    groups = [a async for a in filled.assemblies.list()]
    await filled.memories.delete_many(where={"importance": {"$gte": 0.5}})
    await filled.namespace("a").memories.update_many(where={}, importance=1.0)
    await filled.memories.add("new", importance=1.0)
    assert await pages_of(filled.memories, 13, order="-importance", recursive=True, as_of=at) == expected
    assert [m.id async for m in filled.memories.list(order="-importance", recursive=True, as_of=at, offset=100)] == [
        m.id for m in expected[100:]
    ]
    assert [a.id for a in await pages_of(filled.assemblies, 2, as_of=at)] == [a.id for a in groups]


async def test_a_cursor_survives_a_reopening_and_a_backup(path: Path) -> None:
    async with memstore.open(path, dimension=8) as store:
        await store.memories.add_many([{"id": str(i), "content": "x"} for i in range(5)])
        cursor = (await store.memories.page(limit=2)).next
    async with memstore.open(path) as store:
        assert [m.id for m in (await store.memories.page(limit=2, after=cursor)).items] == ["2", "3"]
        assert [m.id for m in (await store.memories.page(limit=9, after=cursor)).items] == ["2", "3", "4"]


async def test_a_cursor_of_another_list_is_refused(filled: Store, path: Path) -> None:
    memories = filled.memories
    cursor = (await memories.page(limit=2, recursive=True, tags=["even"], where={"importance": {"$gte": 0}})).next
    assert cursor is not None
    same: dict[str, Any] = {"after": cursor, "recursive": True, "tags": ["even"], "where": {"importance": {"$gte": 0}}}
    assert len((await memories.page(**same)).items) == 100
    assert len((await memories.page(**{**same, "limit": 5, "embeddings": False})).items) == 5
    now = datetime.now(UTC)
    for noun, different, message in (
        (memories, {"order": "-created_at"}, "order '-created_at'"),
        (memories, {"order": "importance"}, "order 'importance'"),
        (memories, {"recursive": False}, "recursive"),
        (memories, {"tags": []}, "tags"),
        (memories, {"where": None}, "where"),
        (memories, {"where": {"importance": {"$gte": 0.5}}}, "where"),
        (memories, {"as_of": now}, "as_of"),
        (filled.namespace("a").memories, {}, "namespace"),
        (filled.assemblies, {"where": None}, "kind of records"),
    ):
        with pytest.raises(InvalidError, match=r"Invalid cursor.*" + message):
            await noun.page(**{**same, **different})
    async with memstore.open(f"{path}.other", dimension=8) as other:
        with pytest.raises(InvalidError, match="of another store"):
            await other.memories.page(**same)


async def test_what_is_no_cursor_is_refused(filled: Store) -> None:
    cursor = (await filled.memories.page(limit=2)).next
    assert cursor is not None
    middle = len(cursor) // 2
    altered = [
        cursor[:-1],
        cursor + "A",
        cursor[:middle] + ("A" if cursor[middle] != "A" else "B") + cursor[middle + 1 :],
    ]
    for wrong in ["", "x", "é", "====", "A" * 1000, cursor[:10], cursor[5:], f" {cursor}", *altered, 7, b"x", ["x"]]:
        with pytest.raises(InvalidError, match="Invalid cursor"):
            await filled.memories.page(after=wrong)  # type: ignore[arg-type]
    for limit in (0, -1, 10_001, "1", None):
        with pytest.raises(InvalidError, match="limit"):
            await filled.memories.page(limit=limit)  # type: ignore[arg-type]


async def test_a_cursor_of_equal_filters_fits_whatever_the_order_of_a_set(filled: Store) -> None:
    words = [f"w{i}" for i in range(20)]
    cursor = (await filled.memories.page(limit=1, where={"tags": {"$nin": [words, ["even"]]}})).next
    page = await filled.memories.page(limit=1, where={"tags": {"$nin": [set(words), {"even"}]}}, after=cursor)
    assert len(page.items) == 1


async def test_a_page_in_a_transaction_sees_its_changes(store: Store) -> None:
    await store.memories.add_many([{"id": str(i), "content": "x"} for i in range(3)])
    async with store.transaction() as tx:
        await tx.memories.delete("1")
        page = await tx.memories.page(limit=1)
        assert [m.id for m in page.items] == ["0"]
        assert [m.id for m in (await tx.memories.page(limit=2, after=page.next)).items] == ["2"]
    assert [m.id for m in (await store.memories.page(after=page.next)).items] == ["2"]


# -- offsets


@pytest.mark.parametrize("order", ["created_at", "-importance"])
async def test_an_offset_of_a_list_is_a_slice(filled: Store, order: str) -> None:
    expected = [memory async for memory in filled.memories.list(order=order, recursive=True)]
    for offset, limit in ((0, 5), (3, 150), (100, None), (265, 10), (270, 3), (10_000, None)):
        actual = [m async for m in filled.memories.list(order=order, recursive=True, offset=offset, limit=limit)]
        assert actual == expected[offset:][:limit]
    for wrong in (-1, 1.5, "1", True):
        with pytest.raises(InvalidError, match="offset"):
            filled.memories.list(offset=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("boost", [None, AssemblyBoost(threshold=-1.0)])
async def test_an_offset_of_a_search_is_a_slice(filled: Store, boost: AssemblyBoost | None) -> None:
    query = [1.0, 1, 0, 0, 0, 0, 0, 0]
    every = await filled.memories.search(query, 270, recursive=True, boost=boost)
    assert len(every) == 270
    for offset, limit in ((0, 5), (3, 20), (260, 20), (270, 1), (9_000, 1_000)):
        hits = await filled.memories.search(query, limit, offset=offset, recursive=True, boost=boost)
        assert list(hits) == every[offset:][:limit]
    limit_score = every[9].base_score
    hits = await filled.memories.search(query, 5, offset=2, recursive=True, min_score=limit_score)
    assert all(hit.base_score >= limit_score for hit in hits)
    one, other = await filled.memories.search_many([query, query], 4, offset=3, recursive=True, boost=boost)
    assert list(one) == list(other) == every[3:7]
    groups = await filled.assemblies.search(query, 9)
    assert list(await filled.assemblies.search(query, 4, offset=2)) == groups[2:6]
    for offset, limit in ((-1, 1), (1, 10_000), (10_001, 1), ("1", 1)):
        with pytest.raises(InvalidError, match="offset"):
            await filled.memories.search(query, limit, offset=offset)  # type: ignore[arg-type]


# -- reads without vectors


async def test_every_read_can_leave_the_vectors_out(filled: Store) -> None:
    query = [1.0, 1, 0, 0, 0, 0, 0, 0]
    memories, assemblies = filled.memories, filled.assemblies
    plan = await memories.plan_forget(ForgetPolicy(where={"id": "m009"}))
    await memories.forget(plan)
    await assemblies.forget(await assemblies.plan_forget(AssemblyForgetPolicy(where={"id": "g8"})))
    await memories.update("m003", importance=0.9)
    at = datetime.now(UTC)
    await memories.update("m003", importance=0.8)

    async def read(noun: Any, id: str, **options: Any) -> list[Any]:
        records = [await noun.get(id, **options), await noun.get(id, as_of=at, **options)]
        records += (await noun.get_many([id], **options)).values()
        records += (await noun.get_many([((), id)], **options)).values()
        records += [record async for record in noun.list(limit=3, **options)]
        records += [record async for record in noun.list(limit=3, as_of=at, **options)]
        records += (await noun.page(limit=3, **options)).items
        records += [entry.record async for entry in noun.trash(**options)]
        hits = [*await noun.search(query, 3, **options), *(await noun.search_many([query], 3, **options))[0]]
        if noun is memories:
            hits += await noun.search(query, 3, boost=AssemblyBoost(threshold=-1.0), **options)
        return [*records, *(hit.memory if noun is memories else hit.assembly for hit in hits)]

    for noun, id, field in ((memories, "m003", "embedding"), (assemblies, "g1", "composite")):
        full, projected = await read(noun, id), await read(noun, id, embeddings=False)
        assert all(getattr(record, field) is not None for record in full)
        assert all(getattr(record, field) is None for record in projected)
        assert [record.to_dict() | {field: None} for record in full] == [record.to_dict() for record in projected]
    full_groups = await assemblies.containing("m000")
    assert [a.composite is None for a in await assemblies.containing("m000", embeddings=False)] == [True] * len(
        full_groups
    )
    with pytest.raises(InvalidError, match="embeddings"):
        await memories.get("m003", embeddings=0)  # type: ignore[arg-type]


async def test_a_history_without_vectors_has_every_other_field(store: Store) -> None:
    await store.memories.add("x", id="a", embedding=[1.0] * 8)
    await store.memories.update("a", embedding=[2.0] * 8, importance=0.9)
    full, projected = await store.memories.history("a"), await store.memories.history("a", embeddings=False)
    assert [change.old.keys() | {"embedding"} for change in projected] == [
        change.old.keys() | {"embedding"} for change in full
    ]
    assert all("embedding" not in {**change.old, **change.new} for change in projected)
    assert full[0].old["embedding"] is not None

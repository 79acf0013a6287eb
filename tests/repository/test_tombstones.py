"""Archived records: no read returns them, and they are restored as they were."""

import itertools
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memstore
from memstore import DamagedError, DuplicateError, NotFoundError, Store
from memstore.models.records import Namespace, RecordKind
from memstore.repository import records, tombstones
from memstore.repository.commit_times import effective_times
from memstore.repository.context import WriteContext
from memstore.repository.record_types import BY_KIND, MEMORY
from memstore.repository.tombstones import Cause, Tombstone
from tests.conftest import DIMENSION, vectors
from tests.support.sql import execute

AT = datetime(2024, 5, 6, 7, 8, 9, 123_456, tzinfo=UTC)


async def archive(
    store: Store,
    kind: RecordKind,
    ids: Iterable[str],
    cause: Cause = "forgotten",
    *,
    at: datetime = AT,
    namespace: Namespace = (),
) -> None:
    def step(context: WriteContext) -> None:
        keys = records.keys_of(context.connection, BY_KIND[kind], namespace, list(ids), AT)
        tombstones.archive(replace(context, now=at), BY_KIND[kind], keys.values(), cause)

    with memstore.as_actor("ada", reason="old"):
        await store._session.write(step)


async def restore(store: Store, kind: RecordKind, ids: Iterable[str], namespace: Namespace = ()) -> list[int]:
    def step(context: WriteContext) -> list[int]:
        keys = tombstones.find(context.connection, BY_KIND[kind], namespace, list(ids))
        return tombstones.restore(context, BY_KIND[kind], list(keys.values()))

    return await store._session.write(step)


async def tombstones_of(store: Store, kind: RecordKind, cause: Cause | None = None) -> list[Tombstone]:
    return await store._session.read(lambda c: tombstones.page(c, BY_KIND[kind], (), cause, None, 100))


async def fill(store: Store, rng: np.random.Generator) -> None:
    rows = vectors(rng, 6)
    await store.memories.add_many(
        {
            "id": f"m{i}",
            "content": f"text {i}\0\N{SNOWMAN}",
            "embedding": rows[i] if i != 4 else None,
            "tags": {"even", f"t{i}\0"} if i % 2 == 0 else set(),
            "metadata": {"deep": [1, {"x": 0.1}], "n": i},
            "importance": 0.1 * i,
            "created_at": AT + timedelta(microseconds=i),
            "accessed_at": AT,
            "access_count": 3,
            "ttl": 10_000 if i == 2 else None,
        }
        for i in range(6)
    )
    members = ["m0", "m1", "m4"]
    await store.assemblies.add("a", name="A", members=members, tags={"x"}, topics=["q", "b"], metadata={"k": None})
    await store.assemblies.add("b", members=["m1", "m2", "m3"], created_at=AT)


@pytest.mark.parametrize("id", [f"m{i}" for i in range(6)])
async def test_an_archived_memory_is_in_no_read_and_is_restored_as_it_was(
    store: Store, rng: np.random.Generator, id: str
) -> None:
    await fill(store, rng)
    before = await store.memories.get(id)
    groups = [await store.assemblies.get(g) for g in ("a", "b")]
    await archive(store, "memory", [id])

    with pytest.raises(NotFoundError):
        await store.memories.get(id)
    assert await store.memories.count() == 5
    assert id not in [m.id async for m in store.memories.list()]
    assert id not in [hit.memory.id for hit in await store.memories.search(np.ones(DIMENSION), 100)]
    for group in ("a", "b"):
        assert id not in [member async for member in store.assemblies.members(group)]
    (tombstone,) = await tombstones_of(store, "memory")
    assert (tombstone.id, tombstone.cause, tombstone.at) == (id, "forgotten", AT)
    assert (tombstone.actor, tombstone.reason) == ("ada", "old")
    assert tombstones.to_record(tombstone, store._session.spaces["memory"]) == before
    assert await store.check() == []

    await restore(store, "memory", [id])
    assert await store.memories.get(id) == before
    assert await tombstones_of(store, "memory") == []
    if before.embedding is not None:
        assert (await store.memories.search(before.embedding, 1))[0].memory == before
    for group in groups:
        now = await store.assemblies.get(group.id)
        unchanged = {"revision": 0, "composite": None, "updated_at": AT}
        assert replace(now, **unchanged) == replace(group, **unchanged)
        members = [member async for member in store.assemblies.members(group.id)]
        assert (now.updated_at > group.updated_at) == (id in members)
        assert now.composite is not None
        assert group.composite is not None
        np.testing.assert_allclose(now.composite, group.composite, atol=1e-6)


async def test_an_assembly_is_restored_with_its_members_and_a_new_revision(
    store: Store, rng: np.random.Generator
) -> None:
    await fill(store, rng)
    before = await store.assemblies.get("a")
    await archive(store, "assembly", ["a"], "merged")
    with pytest.raises(NotFoundError):
        await store.assemblies.get("a")
    assert [g.id for g in await store.assemblies.containing("m1")] == ["b"]
    assert [hit.assembly.id for hit in await store.assemblies.search(np.ones(DIMENSION))] == ["b"]
    (tombstone,) = await tombstones_of(store, "assembly")
    assert tombstone.cause == "merged"
    assert [id for _, id in tombstone.partners] == ["m0", "m1", "m4"]
    assert tombstones.to_record(tombstone, store._session.spaces["assembly"]) == before

    await restore(store, "assembly", ["a"])
    after = await store.assemblies.get("a")
    assert after.revision > before.revision
    assert replace(after, revision=before.revision) == before
    assert (await store.assemblies.search(after.composite, 1))[0].assembly == after  # type: ignore[arg-type]


async def test_memberships_are_restored_in_any_order_of_archiving_and_restoring(
    store: Store, rng: np.random.Generator
) -> None:
    await fill(store, rng)
    for going in itertools.permutations(["m1", "m2", "a", "b"]):
        for coming in (["m1", "a", "m2", "b"], ["b", "m2", "a", "m1"]):
            for id in going:
                await archive(store, "memory" if id[0] == "m" else "assembly", [id])
            for id in coming:
                await restore(store, "memory" if id[0] == "m" else "assembly", [id])
            assert {m async for m in store.assemblies.members("a")} == {"m0", "m1", "m4"}
            assert {m async for m in store.assemblies.members("b")} == {"m1", "m2", "m3"}


async def test_a_membership_in_a_deleted_assembly_is_not_restored(store: Store, rng: np.random.Generator) -> None:
    await fill(store, rng)
    await archive(store, "memory", ["m1"])
    await store.assemblies.delete("a")
    await store.assemblies.add("a", members=["m0"])  # another one of the same id
    await restore(store, "memory", ["m1"])
    assert [g.id for g in await store.assemblies.containing("m1")] == ["b"]


async def test_a_record_whose_id_is_taken_is_not_restored(store: Store, rng: np.random.Generator) -> None:
    await fill(store, rng)
    await archive(store, "memory", ["m1", "m3"])
    again = await store.memories.add("another", id="m3")
    with pytest.raises(DuplicateError, match="exists again"):
        await restore(store, "memory", ["m1", "m3"])
    assert await store.memories.get("m3") == again
    assert "m1" not in await store.memories.get_many(["m1"])
    assert len(await tombstones_of(store, "memory")) == 2


async def test_find_returns_the_newest_tombstone_of_an_id_and_two_are_not_restored_at_once(store: Store) -> None:
    for text in ("first", "second"):
        await store.memories.add(text, id="m")
        await archive(store, "memory", ["m"])
    tombstone_keys = [row.pk for row in await tombstones_of(store, "memory")]
    assert tombstone_keys == sorted(tombstone_keys, reverse=True)
    with pytest.raises(DuplicateError, match="twice"):
        await store._session.write(lambda context: tombstones.restore(context, MEMORY, tombstone_keys))
    await restore(store, "memory", ["m"])
    assert (await store.memories.get("m")).content == "second"


async def test_tombstones_are_read_page_by_page_of_one_cause_and_one_namespace(store: Store) -> None:
    for i in range(7):
        await store.memories.add("x", id=f"m{i}")
    await archive(store, "memory", [f"m{i}" for i in (3, 1, 5)])
    await archive(store, "memory", ["m2"], "merged")
    await archive(store, "memory", ["m0"])

    def step(connection: Any) -> list[list[str]]:
        pages, place = [], None
        while page := tombstones.page(connection, MEMORY, (), "forgotten", place, 2):
            pages.append([row.id for row in page])
            place = page[-1].pk
        return pages

    assert await store._session.read(step) == [["m0", "m5"], ["m3", "m1"]]
    assert [t.id for t in await tombstones_of(store, "memory", "merged")] == ["m2"]
    other = await store._session.read(lambda c: tombstones.page(c, MEMORY, ("x",), None, None, 9, recursive=True))
    assert other == []


async def test_the_trash_of_before_a_time_is_of_one_cause_and_in_order(store: Store) -> None:
    for i in range(4):
        await store.memories.add("x", id=f"m{i}")
        at = AT + timedelta(days=i)
        await archive(store, "memory", [f"m{i}"], "merged" if i == 0 else "forgotten", at=at)

    async def forgotten(before: datetime | None, now: datetime = AT + timedelta(days=9)) -> list[int]:
        return await store._session.read(
            lambda connection: tombstones.forgotten_before(connection, MEMORY, (), before, now, recursive=False)
        )

    rows = {t.id: t.record_pk for t in await tombstones_of(store, "memory")}
    assert await forgotten(AT + timedelta(days=2)) == [rows["m1"]]
    assert await forgotten(None) == [rows["m1"], rows["m2"], rows["m3"]]
    # m2 and m3 have times that have not come yet, so they can be as young as the present
    assert await forgotten(AT + timedelta(days=9), AT + timedelta(days=1)) == [rows["m1"], rows["m2"], rows["m3"]]
    assert await forgotten(AT + timedelta(days=1), AT + timedelta(days=1)) == []


def test_a_row_written_under_a_wrong_clock_is_no_older_than_its_neighbours_say() -> None:
    day, year = 86_400_000_000, 365 * 86_400_000_000
    now = 60 * year
    assert effective_times([now - 9 * day, now + 9 * year, now - 5 * day], now).tolist() == [
        now - 9 * day,
        now - 5 * day,
        now - 5 * day,
    ]
    assert effective_times([now + year], now).tolist() == [now]
    assert effective_times([now - 9 * day, 0, now - 5 * day], now).tolist() == [
        now - 9 * day,
        now - 9 * day,
        now - 5 * day,
    ]
    assert effective_times([now, now - day], now).tolist() == [now, now - day]


async def test_a_namespace_with_nothing_but_tombstones_survives_compact(path: Path) -> None:
    async with memstore.open(path, dimension=DIMENSION) as store:
        view = store.namespace("users", "ada")
        await view.memories.add("x", id="m", embedding=np.ones(DIMENSION))
        await archive(store, "memory", ["m"], namespace=("users", "ada"))
        await store.compact()
        assert await store.namespaces() == []
        assert await store.check() == []
        await restore(store, "memory", ["m"], ("users", "ada"))
        assert (await view.memories.get("m")).content == "x"
        assert await store.check() == []


@pytest.mark.parametrize(
    "damage",
    [
        "vector = zeroblob(length(vector))",
        "vector = x'00'",
        "record = '{}'",
        "record = json_set(record, '$.importance', 'high')",
        "record = json_set(record, '$.assemblies', json('[[1]]'))",
        "record = json_remove(record, '$.content')",
        "id = x'00'",
    ],
)
async def test_a_damaged_tombstone_is_not_restored(path: Path, rng: np.random.Generator, damage: str) -> None:
    async with memstore.open(path, dimension=DIMENSION) as store:
        await fill(store, rng)
        await archive(store, "memory", ["m1"])
        pk = (await tombstones_of(store, "memory"))[0].pk
        execute(path, f"UPDATE tombstone SET {damage}")
        with pytest.raises(DamagedError, match="archived"):
            await store._session.write(lambda context: tombstones.restore(context, MEMORY, [pk]))
        with pytest.raises(DamagedError, match="archived"):
            assert [t async for t in store.memories.trash()]
        assert await store.memories.count() == 5
        *values, finding = await store.check()
        assert [value.detail for value in values] == (
            ["Corrupt value in tombstone.id of the row with pk 1: expected text in UTF-8, found bytes of 1 bytes"]
            if damage.startswith("id")
            else []
        )
        assert (finding.kind, finding.record_kind, finding.namespace) == ("tombstone", "memory", ())
        assert finding.id == "m1" or damage.startswith("id")
        assert await store.repair() is not None
        await store.backup(path.with_suffix(".bak"))
        assert (await memstore.verify(path.with_suffix(".bak"))).findings == [*values, finding]
        with pytest.raises(DamagedError, match="cannot be recovered, only purged"):
            await memstore.restore_backup(path.with_suffix(".bak"), path.with_suffix(".new"))
        assert await store.memories.purge(older_than=0) == 1
        assert await store.check() == []


async def test_check_names_a_damaged_tombstone_among_many(path: Path) -> None:
    async with memstore.open(path, dimension=DIMENSION) as store:
        await store.memories.add_many({"id": f"m{i:03}", "content": "x"} for i in range(230))
        await archive(store, "memory", [f"m{i:03}" for i in range(230)])
        execute(path, "UPDATE tombstone SET record = '{}' WHERE id IN ('m007', 'm229')")
        assert sorted(finding.id for finding in await store.check()) == ["m007", "m229"]
        assert (await store.stats()).trashed == 230
        await store.clear()
        assert (await store.stats()).trashed == 0

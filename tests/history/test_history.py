"""History: the changes that verbs record, records as of an earlier time, and undo."""

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import memstore
from memstore import Assembly, Memory, Store
from memstore.repository import history_reader, history_retention, history_writer
from tests.conftest import DIMENSION, vectors
from tests.support.sql import execute
from tests.support.waiting import eventually

MICROSECOND = timedelta(microseconds=1)


def current_time() -> datetime:
    return datetime.now(UTC)


async def everything(records: AsyncIterator[Any]) -> list[Any]:
    return [record async for record in records]


def unused(record: Any) -> Any:
    """A record without the fields that the history does not keep: use, and derived values."""
    if isinstance(record, Memory):
        return replace(record, accessed_at=None, access_count=0)
    return replace(record, revision=0, composite=None)


# --- any sequence of changes ------------------------------------------------------------------------------------------

IDS = ["a", "b", "c", "é:1"]
GROUPS = ["g", "h"]
TAGS = ["red", "blue", "x y"]
PLACES = [(), ("u",)]
ORDERS = ["created_at", "-created_at", "updated_at", "-updated_at", "id", "-importance", "-content", "expires_at"]
FILTERS: list[tuple[Any, Callable[[Memory], bool]]] = [
    (None, lambda _: True),
    ({"importance": {"$gt": 0.4}}, lambda memory: memory.importance > 0.4),
    ({"tags": {"$contains": "red"}}, lambda memory: "red" in memory.tags),
    ({"metadata.n": {"$in": [1, 2]}}, lambda memory: memory.metadata.get("n") in (1, 2)),
    ({"embedding": None}, lambda memory: memory.embedding is None),
    ({"$not": {"content": {"$startswith": "1"}}}, lambda memory: not memory.content.startswith("1")),
]
"""Filters, and what they mean."""

ids, groups, places = st.sampled_from(IDS), st.sampled_from(GROUPS), st.sampled_from(PLACES)
some_ids = st.lists(ids, max_size=3)
tags = st.frozensets(st.sampled_from(TAGS), max_size=2)
items = st.fixed_dictionaries(
    {
        "content": st.sampled_from(["1 tea", "2 \0 \N{TEACUP WITHOUT HANDLE}", "10"]),
        "tags": tags,
        "importance": st.sampled_from([0.0, 0.25, 0.5, 1.0]),
        "metadata": st.sampled_from([{}, {"n": 1}, {"n": 2, "b": {'é"': [1.5, None]}}]),
        "embedding": st.none() | st.integers(0, 5).map(lambda n: [1.0, float(n), 0.0]),
    }
)
steps = st.one_of(
    st.tuples(st.just("add"), ids, items),
    st.tuples(st.just("add_many"), st.lists(items, max_size=4)),
    st.tuples(st.just("upsert_many"), st.lists(st.tuples(ids, items), max_size=3)),
    st.tuples(st.just("update"), ids, items),
    st.tuples(st.just("retag"), ids, tags),
    st.tuples(st.just("touch"), some_ids),
    st.tuples(st.just("delete_many"), some_ids),
    st.tuples(st.just("delete_where"), st.sampled_from([where for where, _ in FILTERS[1:]])),
    st.tuples(st.just("rename"), st.sampled_from(TAGS), st.sampled_from(TAGS)),
    st.tuples(st.just("drop_tag"), st.sampled_from(TAGS)),
    st.tuples(st.just("group"), groups, some_ids, tags),
    st.tuples(st.just("regroup"), groups, st.none() | some_ids, tags),
    st.tuples(st.just("name"), groups, st.sampled_from(["", "G"])),
    st.tuples(st.just("join"), groups, some_ids),
    st.tuples(st.just("part"), groups, some_ids),
    st.tuples(st.just("ungroup"), groups),
    st.tuples(st.just("clear")),
    st.tuples(st.just("undo"), st.booleans(), ids | groups, st.integers(0, 4)),
)


STEPS: dict[str, Callable[..., Any]] = {
    "add": lambda place, key, item: place.memories.add(id=key, **item),
    "add_many": lambda place, items: place.memories.add_many(items),
    "upsert_many": lambda place, items: place.memories.upsert_many([{**item, "id": id} for id, item in items]),
    "update": lambda place, key, item: place.memories.update(key, **item),
    "retag": lambda place, key, tags: place.memories.update(key, tags=tags),
    "touch": lambda place, ids: place.memories.touch(ids),
    "delete_many": lambda place, ids: place.memories.delete_many(ids=ids),
    "delete_where": lambda place, where: place.memories.delete_many(where=where),
    "rename": lambda place, old, new: place.tags.rename(old, new),
    "drop_tag": lambda place, tag: place.tags.delete(tag),
    "group": lambda place, key, ids, tags: place.assemblies.add(key, members=ids, tags=tags, topics=sorted(tags)),
    "regroup": lambda place, key, ids, tags: place.assemblies.upsert(key, members=ids, tags=tags),
    "name": lambda place, key, name: place.assemblies.update(key, name=name),
    "join": lambda place, key, ids: place.assemblies.add_members(key, ids),
    "part": lambda place, key, ids: place.assemblies.remove_members(key, ids),
    "ungroup": lambda place, key: place.assemblies.delete(key),
    "clear": lambda place: place.clear(),
    "undo": lambda place, of_memory, *change: undone(place, place.memories if of_memory else place.assemblies, *change),
}
"""The steps, in one namespace of a store or a transaction."""


async def undone(place: Any, noun: Any, id: str, number: int) -> None:
    """Undo one of the last changes of a record: its fields have their earlier values, or the undo is refused."""
    change = (await noun.history(id))[number:][:1]
    if not change:
        return
    undo_change = await place.undo(change[0])
    assert undo_change.undoes == change[0].number
    if change[0].kind == "added":
        with pytest.raises(memstore.NotFoundError):
            await noun.get(id)
        return
    record = await noun.get(id)
    for name, old in change[0].old.items():
        if name in ("tags", "updated_at"):
            continue
        new = getattr(record, name)
        assert new.tobytes() == old.tobytes() if isinstance(new, np.ndarray) else new == old, name
    if change[0].kind == "updated":
        assert change[0].old.get("tags", frozenset()) - change[0].new.get("tags", frozenset()) <= record.tags
    assert not {*change[0].members_added} & {*await members(noun, id)} or change[0].kind != "updated"


async def members(noun: Any, id: str) -> list[str]:
    return await everything(noun.members(id)) if isinstance(noun, memstore.Assemblies) else []


async def state(place: Any, as_of: datetime | None = None, **how: Any) -> dict[str, list[Any]]:
    then = {} if as_of is None else {"as_of": as_of}
    return {
        "memories": await everything(place.memories.list(recursive=True, **how, **then)),
        "assemblies": await everything(place.assemblies.list(recursive=True, **then)),
    }


def without(then: dict[str, list[Any]], place: tuple[str, ...]) -> dict[str, list[Any]]:
    """A state without the records of a namespace that was cleared since: nothing of them is left."""
    return {noun: [record for record in records if record.namespace != place] for noun, records in then.items()}


async def holds(store: Store, at: datetime, expected: dict[str, list[Any]]) -> None:
    """Reads as of the time *at* return the *expected* records, by get and by list."""
    then = await state(store, at)
    for noun, records in expected.items():
        assert list(map(unused, then[noun])) == list(map(unused, records))
        for was, record in zip(then[noun], records, strict=True):
            place = store.namespace(*record.namespace)
            one = await getattr(place, noun).get(record.id, as_of=at)
            assert one == was
            if isinstance(record, Assembly):
                assert (was.composite is None) == (record.composite is None)
                if record.composite is not None:
                    np.testing.assert_allclose(was.composite, record.composite, atol=1e-6)


async def whatever_is_asked(store: Store, at: datetime, expected: list[Memory], salt: int) -> None:
    """A list as of a time, in an order and with a filter, equals that list of the expected records."""
    order, (where, matches) = ORDERS[salt % len(ORDERS)], FILTERS[salt % len(FILTERS)]
    name, down = order.removeprefix("-"), order.startswith("-")
    least = datetime.min.replace(tzinfo=UTC)
    # The expected records are in the order of creation; a list orders equal ones by key, in its direction.
    here = [memory for memory in expected if matches(memory)]
    listed = await everything(store.memories.list(recursive=True, as_of=at, where=where, order=order))
    value = [least if getattr(m, name) is None else getattr(m, name) for m in listed]
    assert value == sorted(value, reverse=down)
    by = [(m.namespace, m.id) for m in here]
    assert sorted((m.namespace, m.id) for m in listed) == sorted(by)
    assert [
        m.id for m in await everything(store.memories.list(recursive=True, as_of=at, where=where, order=order, limit=2))
    ] == [m.id for m in listed[:2]]
    tagged = await everything(store.memories.list(recursive=True, as_of=at, tags=["red"]))
    assert [m.id for m in tagged] == [m.id for m in expected if "red" in m.tags]


def examples(number: int) -> int:
    return int(os.environ.get("MEMSTORE_EXAMPLES", number))


@given(st.lists(st.tuples(places, st.lists(steps, min_size=1, max_size=3)), min_size=1, max_size=14))
@settings(max_examples=examples(40), deadline=None, suppress_health_check=list(HealthCheck))
def test_reads_as_of_any_time_equal_the_state_at_that_time(script: list[Any]) -> None:
    async def run(path: Path) -> None:
        states: list[tuple[datetime, dict[str, list[Any]]]] = []
        async with memstore.open(path, dimension=3, durability="relaxed", index="exact") as store:
            states.append((current_time(), await state(store)))
            for place in PLACES:  # so that steps have something to change
                here = store.namespace(*place)
                for number, id in enumerate(IDS[:3]):
                    await here.memories.add(id, id=id, embedding=[1.0, 0.0, number], tags=TAGS[:number])
                await here.assemblies.add("g", members=["a", "b"], tags=TAGS[:1])
            states.append((current_time(), await state(store)))
            for place, operations in script:
                refused = (memstore.DuplicateError, memstore.NotFoundError, memstore.ConflictError)
                with suppress(*refused):
                    if len(operations) == 1:
                        step, *arguments = operations[0]
                        await STEPS[step](store.namespace(*place), *arguments)
                    else:
                        async with store.transaction() as tx:
                            for step, *arguments in operations:
                                await STEPS[step](tx.namespace(*place), *arguments)
                    if ("clear",) in operations:
                        states = [(at, without(then, place)) for at, then in states]
                states.append((current_time(), await state(store)))
            assert await store.check() == []
        async with memstore.open(path) as store:
            for salt, (at, then) in enumerate(states):
                await holds(store, at, then)
                await whatever_is_asked(store, at, then["memories"], salt)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder) / "store.db"))


# --- what is written down ---------------------------------------------------------------------------------------------


async def recorded_changes(noun: Any, id: str) -> list[tuple[str, str | None, str | None]]:
    return [(change.kind, change.actor, change.reason) for change in await noun.history(id)]


async def test_records_that_one_write_added_share_one_history_row(store: Store, path: Path, rng: Any) -> None:
    await store.memories.add_many(
        [{"id": f"m{i}", "content": "x", "embedding": row} for i, row in enumerate(vectors(rng, 2_500))]
    )
    await store.memories.add("y", id="alone")
    assert execute(path, "SELECT first_pk, last_pk, id, old, vector FROM journal") == [
        (1, 2_500, None, None, None),
        (2_501, 2_501, None, None, None),
    ]
    (change,) = await store.memories.history("m1234")
    assert (change.number, change.kind, change.new["content"]) == (1, "added", "x")


async def test_only_changed_fields_are_stored_and_the_old_vector_once(store: Store, path: Path, rng: Any) -> None:
    first, second = vectors(rng, 2)
    await store.memories.add("x", id="a", embedding=first, tags={"t", "u"}, metadata={"a": 1})
    await store.memories.update("a", importance=1.0)
    await store.memories.upsert("x", id="a", embedding=second, tags={"u", "v"}, metadata={"a": 1}, importance=1.0)
    await store.memories.upsert("x", id="a", embedding=second, tags={"u", "v"}, metadata={"a": 2}, importance=1.0)
    journal_rows = execute(path, "SELECT old, vector FROM journal WHERE what = 'updated' ORDER BY pk")
    assert [sorted(set(json.loads(old)) - {"updated_at"}) for old, _ in journal_rows] == [
        ["importance"],
        ["embedding", "tags"],
        ["metadata"],
    ]
    assert json.loads(journal_rows[1][0])["tags"] == [["v"], ["t"]]
    assert [vector for _, vector in journal_rows] == [None, first.tobytes(), None]
    changes = await store.memories.history("a")
    assert changes[1].old["tags"] == {"t", "u"}
    assert changes[1].new["tags"] == {"u", "v"}
    assert changes[1].old["embedding"].tobytes() == first.tobytes()  # type: ignore[union-attr]
    assert changes[0].new["metadata"] == {"a": 2}


async def test_renaming_or_deleting_a_tag_changes_every_record_that_has_it(store: Store) -> None:
    await store.memories.add("x", id="a", tags={"t", "u"})
    await store.memories.add("x", id="b", tags={"t"})
    await store.assemblies.add("g", tags={"t"})
    expected = [*await everything(store.memories.list()), *await everything(store.assemblies.list())]
    at = current_time()
    await store.tags.rename("t", "u")  # one of them has both, and they become one
    await store.tags.delete("u")
    for noun, id, before in (
        (store.memories, "a", {"t", "u"}),
        (store.memories, "b", {"t"}),
        (store.assemblies, "g", {"t"}),
    ):
        deleted, renamed, _ = await noun.history(id)
        assert (deleted.old["tags"], deleted.new["tags"]) == ({"u"}, set())
        assert (renamed.old["tags"], renamed.new["tags"]) == (before, {"u"})
    then = [*await everything(store.memories.list(as_of=at)), *await everything(store.assemblies.list(as_of=at))]
    assert list(map(unused, then)) == list(map(unused, expected))


async def test_touch_and_search_record_no_change(store: Store, path: Path) -> None:
    await store.memories.add("x", id="a")
    await store.memories.touch(["a"])
    await store.memories.search(np.ones(DIMENSION))
    assert await recorded_changes(store.memories, "a") == [("added", None, None)]


async def test_as_actor_applies_to_every_change_inside_its_block_and_to_no_other(store: Store) -> None:
    async def one(name: str) -> None:
        with memstore.as_actor(name, reason=f"for {name}"):
            await asyncio.gather(*(store.memories.add("x", id=f"{name}{i}") for i in range(20)))
            async with store.transaction() as tx:
                await tx.memories.update(f"{name}0", tags={"t"})
                with memstore.as_actor("inner"):
                    await tx.memories.update(f"{name}0", tags={"u"})

    await asyncio.gather(one("ada"), one("bob"), *(store.memories.add("x", id=f"n{i}") for i in range(20)))
    for i in range(20):
        for name, who in (("ada", "ada"), ("bob", "bob"), ("n", None)):
            added = (await store.memories.history(f"{name}{i}"))[-1]
            assert (added.kind, added.actor) == ("added", who)
    expected = [("updated", "inner", None), ("updated", "ada", "for ada"), ("added", "ada", "for ada")]
    assert await recorded_changes(store.memories, "ada0") == expected
    with pytest.raises(memstore.InvalidError), memstore.as_actor(""):
        pass
    with memstore.as_actor("ada"):
        pass
    await store.memories.update("ada0", tags={"v"})
    assert (await recorded_changes(store.memories, "ada0"))[0] == ("updated", None, None)


async def test_the_history_of_an_id_contains_deleted_records_that_had_it(store: Store) -> None:
    await store.memories.add("first", id="a")
    await store.memories.delete("a")
    assert [what for what, *_ in await recorded_changes(store.memories, "a")] == ["deleted", "added"]
    await store.memories.add("second", id="a")
    changes = await store.memories.history("a")
    assert [change.kind for change in changes] == ["added", "deleted", "added"]
    assert [change.new.get("content") for change in changes] == ["second", None, "first"]
    assert [change.number for change in await store.memories.history("a", limit=2)] == [3, 2]
    assert changes[0] == (await store.memories.history("a"))[0] != changes[1]
    assert len({*changes, *await store.memories.history("a")}) == 3
    with pytest.raises(memstore.NotFoundError):
        await store.memories.history("b")
    with pytest.raises(memstore.NotFoundError):
        await store.namespace("u").memories.history("a")


async def test_the_history_of_an_expired_memory_has_its_id_and_times_and_no_values(store: Store, path: Path) -> None:
    soon = current_time() + timedelta(seconds=1.5)
    await store.memories.add("code 4932", id="a", expires_at=soon, embedding=np.ones(DIMENSION))
    await store.memories.update("a", content="code 5500", embedding=None)
    await store.assemblies.add("g", members=["a"])
    before = current_time()
    assert before < soon
    await eventually(lambda: current_time() > soon)
    between = current_time()
    await store.memories.add("y", id="b")
    expired, added = await store.memories.history("a")
    assert [(change.kind, change.old, change.new, change.damage) for change in (expired, added)] == [
        ("expired", {}, {}, None),
        ("added", {}, {}, None),
    ]
    assert execute(path, "SELECT count(*) FROM journal WHERE old LIKE '%code%' OR vector IS NOT NULL") == [(0,)]
    for at in (before, between):
        with pytest.raises(memstore.NotFoundError):
            await store.memories.get("a", as_of=at)
        assert (await store.assemblies.get("g", as_of=at)).member_count == 0
        assert await everything(store.memories.list(as_of=at)) == []
    with pytest.raises(memstore.ConflictError, match="has expired"):
        await store.undo(expired)


async def test_expiry_found_by_a_transaction_has_the_time_of_the_transaction(store: Store, path: Path) -> None:
    soon = current_time() + timedelta(seconds=1.5)
    await store.memories.add("x", id="a", expires_at=soon)
    await store.assemblies.add("g", members=["a"])
    await eventually(lambda: current_time() > soon)
    with memstore.as_actor("ada"):
        async with store.transaction() as tx:
            await tx.memories.add("y", id="b")
    (change,) = await store.memories.history("b")
    journal_rows = execute(path, "SELECT what, at, actor FROM journal WHERE pk > 2 ORDER BY pk")
    at = int((change.at - datetime(1970, 1, 1, tzinfo=UTC)) / MICROSECOND)
    assert journal_rows == [("updated", at, None), ("expired", at, None), ("added", at, "ada")]  # expiry has no actor


async def test_a_list_as_of_a_time_raises_when_its_history_is_deleted_between_pages(path: Path) -> None:
    async with memstore.open(path, dimension=2, history=timedelta(days=1)) as store:
        await store.memories.add_many([{"id": f"m{i:03}", "content": "x"} for i in range(150)])
        listed = store.memories.list(as_of=current_time())
        await anext(listed)
        ahead = int((current_time() + timedelta(hours=1)).timestamp() * 1e6)
        execute(path, "UPDATE store_meta SET history_options = json_set(history_options, '$.since', ?)", (ahead,))
        with pytest.raises(memstore.HistoryError):
            await everything(listed)


async def test_changes_of_a_transaction_share_one_time_and_a_rollback_leaves_none(store: Store, path: Path) -> None:
    await store.memories.add("0", id="a")
    async with store.transaction() as tx:
        await tx.memories.update("a", importance=0.1)
        between = current_time()
        await tx.memories.update("a", importance=0.2)
        assert [change.kind for change in await tx.memories.history("a")] == ["updated", "updated", "added"]
        assert (await tx.memories.get("a", as_of=between)).importance == 0.2
    assert len(set(execute(path, "SELECT at FROM journal WHERE what = 'updated'"))) == 1
    then = (await store.memories.history("a"))[0].at
    assert (await store.memories.get("a", as_of=then)).importance == 0.2  # the first time at which it has the value
    assert (await store.memories.get("a", as_of=then - MICROSECOND)).importance == 0.5
    with pytest.raises(RuntimeError):
        async with store.transaction() as tx:
            await tx.memories.delete("a")
            raise RuntimeError
    assert [what for what, *_ in await recorded_changes(store.memories, "a")] == ["updated", "updated", "added"]


# --- as of a moment ---------------------------------------------------------------------------------------------------


async def test_all_pages_of_a_list_as_of_a_time_are_of_that_time(store: Store) -> None:
    await store.memories.add_many([{"id": f"m{i:03}", "content": f"{i:03}"} for i in range(450)])
    expected = {order: await everything(store.memories.list(order=order)) for order in ("created_at", "-content")}
    at = current_time()
    for order, records in expected.items():
        listed = []
        number = 0
        async for memory in store.memories.list(as_of=at, order=order):
            listed.append(memory)
            number += 1
            if number % 60 == 0:  # before and after the position in the list
                await store.memories.delete_many(ids=[f"m{number % 450:03}", f"m{(number + 200) % 450:03}"])
                await store.memories.upsert("zzz", id=f"m{(number * 7) % 450:03}")
                await store.memories.add(f"{number:03}")
                await store.tags.delete("t")
        assert listed == records


async def test_a_list_as_of_a_time_reads_one_page_and_the_changed_records(store: Store, monkeypatch: Any) -> None:
    await store.memories.add_many([{"id": f"m{i}", "content": "x"} for i in range(1_000)])
    at = current_time()
    await store.memories.delete_many(ids=["m5", "m600"])
    read: list[int] = []
    plain = history_reader.versions_before

    def counted(connection: Any, noun: Any, keys: Any, number: int) -> Any:
        read.append(len(keys))
        return plain(connection, noun, keys, number)

    monkeypatch.setattr(history_reader, "versions_before", counted)
    listed = store.memories.list(as_of=at)
    assert (await anext(listed)).id == "m0"
    assert sum(read) == 102  # a page, and the two changed records
    assert len(await everything(listed)) == 999


async def test_a_time_before_the_history_begins_raises_with_the_time_it_begins(path: Path) -> None:
    before = current_time()
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("x", id="a")
        for call in (store.memories.get("a", as_of=before), everything(store.memories.list(as_of=before))):
            with pytest.raises(memstore.HistoryError) as caught:
                await call
            assert before <= caught.value.since <= current_time()
            assert await everything(store.memories.list(as_of=caught.value.since)) == []
        with pytest.raises(memstore.InvalidError, match="as_of"):
            await store.memories.get("a", as_of=datetime(2024, 1, 1))  # noqa: DTZ001
        tomorrow = current_time() + timedelta(days=1)
        assert await store.memories.get("a", as_of=tomorrow) == await store.memories.get("a")


# --- undo -------------------------------------------------------------------------------------------------------------


async def test_undo_of_a_deletion_restores_the_record_bit_for_bit_and_searches_find_it(store: Store, rng: Any) -> None:
    row = vectors(rng, 1)[0]
    arguments = {"tags": {"t", "x y"}, "metadata": {"a": [1, 2.5, None]}, "importance": 0.25, "access_count": 7}
    await store.memories.add("a \0 text", id="a", embedding=row, ttl=3_600, **arguments)
    await store.memories.add("b", id="b", embedding=vectors(rng, 1)[0])
    await store.assemblies.add("g", members=["a", "b"], topics=["2", "1"], tags={"t"})
    await store.assemblies.add("h", members=["a"])
    record, group = await store.memories.get("a"), await store.assemblies.get("g")
    await store.memories.delete("a")
    await store.assemblies.delete("h")
    change = (await store.memories.history("a"))[0]
    undone = await store.undo(change)
    assert (undone.kind, undone.undoes) == ("restored", change.number)
    assert await store.memories.get("a") == record
    assert (await store.memories.search(row, 1))[0].memory == record
    after = await store.assemblies.get("g")
    assert after.composite.tobytes() == group.composite.tobytes()
    assert [g.id for g in await store.assemblies.containing("a")] == ["g"]  # the other assembly was deleted
    assert [m async for m in store.assemblies.members("g")] == ["a", "b"]  # in the order of creation still
    await store.assemblies.add("k", members=["a"])
    await store.assemblies.delete("k")
    deletion = (await store.assemblies.history("k"))[0]
    assert deletion.members_removed == ("a",)
    assert (await store.undo(deletion)).members_added == ("a",)
    with pytest.raises(memstore.ConflictError, match="restored later") as caught:
        await store.undo(change)
    assert caught.value.later == (undone.number,)


async def test_an_undo_that_a_later_change_depends_on_is_refused_and_changes_nothing(store: Store) -> None:
    await store.memories.add("x", id="a", importance=0.1)
    await store.memories.update("a", importance=0.2)
    await store.memories.update("a", tags={"t"})
    await store.memories.update("a", importance=0.3, metadata={"n": 1})
    last, tagged, first, added = await store.memories.history("a")
    with pytest.raises(memstore.ConflictError, match="Undo change") as caught:
        await store.undo(first)
    assert caught.value.later == (last.number,)
    await store.undo(tagged)  # nothing depends on it
    stamped = (await store.memories.get("a")).updated_at
    assert stamped > last.at
    await store.undo(last)
    await store.undo(first)  # the changes in between were undone
    assert unused(await store.memories.get("a")) == replace(
        unused(await store.memories.get("a")), importance=0.1, metadata={}, tags=frozenset()
    )
    await store.assemblies.add("g", members=["a"])
    with pytest.raises(memstore.ConflictError, match="member of an assembly"):
        await store.undo(added)
    await store.assemblies.delete("g")
    undo_change = await store.undo(added)
    assert undo_change.kind == "deleted"
    with pytest.raises(memstore.ConflictError, match="deleted later"):
        await store.undo(first)
    await store.memories.add("other", id="a")
    with pytest.raises(memstore.ConflictError, match="given to another") as caught:
        await store.undo(undo_change)
    assert caught.value.later == ((await store.memories.history("a"))[0].number,)


async def test_undo_of_member_changes_needs_the_memories_to_exist(store: Store) -> None:
    await store.memories.add_many(
        [{"id": id, "content": "x", "embedding": np.eye(DIMENSION)[i]} for i, id in enumerate("abc")]
    )
    await store.assemblies.add("g", members=["a"])
    await store.assemblies.add_members("g", ["a", "b", "c"])
    joined = (await store.assemblies.history("g"))[0]
    assert joined.members_added == ("b", "c")
    await store.assemblies.upsert("g", members=["c"])
    assert (await store.assemblies.history("g"))[0].members_removed == ("a", "b")
    with pytest.raises(memstore.ConflictError):
        await store.undo(joined)
    removal = (await store.assemblies.history("g"))[0]
    await store.undo(removal)
    assert [m async for m in store.assemblies.members("g")] == ["a", "b", "c"]
    await store.undo(joined)
    assert [m async for m in store.assemblies.members("g")] == ["a"]
    await store.assemblies.remove_members("g", ["a"])
    parted = (await store.assemblies.history("g"))[0]
    await store.memories.delete("a")
    with pytest.raises(memstore.ConflictError, match="'a'"):
        await store.undo(parted)


async def test_undo_refuses_changes_of_other_namespaces_and_unknown_changes(store: Store, path: Path) -> None:
    inner = store.namespace("u", "v")
    await inner.memories.add("x", id="a")
    (change,) = await inner.memories.history("a")
    with pytest.raises(memstore.NotFoundError):
        await store.namespace("w").undo(change)
    with pytest.raises(memstore.HistoryError, match="not in this file's history"):
        await store.undo(replace(change, number=99))
    with pytest.raises(memstore.HistoryError):
        await store.undo(replace(change, record_kind="assembly"))
    with pytest.raises(memstore.InvalidError, match="expected a Change"):
        await store.undo(1)  # type: ignore[arg-type]
    async with store.transaction() as tx:
        await tx.namespace("u").undo(change)
    assert await store.memories.count(recursive=True) == 0


# --- how much is kept -------------------------------------------------------------------------------------------------


async def test_the_file_stores_its_retention_and_off_writes_no_history(path: Path) -> None:
    async with memstore.open(path, dimension=2, history="off") as store:
        await store.memories.add("x", id="a")
        await store.memories.update("a", importance=1.0)
        assert await store.memories.history("a") == []
        with pytest.raises(memstore.HistoryError) as caught:
            await store.memories.get("a", as_of=current_time())
        assert caught.value.since is None
    async with memstore.open(path) as store:
        await store.memories.delete("a")
        assert execute(path, "SELECT count(*) FROM journal") == [(0,)]
    async with memstore.open(path, history="full") as store, memstore.open(path) as other:
        await other.memories.add("x", id="b")
        assert [what for what, *_ in await recorded_changes(store.memories, "b")] == ["added"]
        async with memstore.open(path, history="off"):
            assert execute(path, "SELECT count(*) FROM journal") == [(0,)]
        await other.memories.add("x", id="c")  # opened before, it follows the setting in the file
        assert execute(path, "SELECT count(*) FROM journal") == [(0,)]
    for wrong in ("all", 5, timedelta(0), timedelta(microseconds=5), True):
        with pytest.raises(memstore.InvalidError, match="Invalid history"):
            memstore.open(path, history=wrong)  # type: ignore[arg-type]


async def test_history_older_than_the_retention_is_deleted_in_pieces(path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(history_writer, "TRIM_AT_ONCE", 10)
    async with memstore.open(path, dimension=2, history=timedelta(days=1)) as store:
        await store.memories.add("x", id="a")
        for i in range(30):
            await store.memories.update("a", importance=i / 100)
        old = int((current_time() - timedelta(days=2)).timestamp() * 1e6)
        execute(path, "UPDATE journal SET at = ? WHERE pk <= 25", (old,))
        execute(path, "UPDATE store_meta SET history_options = json_set(history_options, '$.since', ?)", (old - 1,))
        since = old - 1
        for remaining in (22, 13, 9):  # 31 rows and one for each update, minus ten at a time
            await store.memories.update("a", importance=0.9, metadata={"left": remaining})
            assert execute(path, "SELECT count(*) FROM journal") == [(remaining,)]
            since = execute(path, "SELECT history_options ->> '$.since' FROM store_meta")[0][0]
        assert since == old
        moment = datetime.fromtimestamp(old / 1e6, UTC)
        assert (await store.memories.get("a", as_of=moment + MICROSECOND)).importance == 23 / 100
        with pytest.raises(memstore.HistoryError):
            await store.memories.get("a", as_of=moment - timedelta(seconds=1))
        execute(path, "UPDATE journal SET at = ?", (old,))
        await store.compact()
        assert execute(path, "SELECT count(*) FROM journal") == [(0,)]
        assert await store.memories.history("a") == []


async def test_records_older_than_the_history_exist_as_of_its_beginning(store: Store, path: Path) -> None:
    await store.memories.add("x", id="a")
    execute(path, "DELETE FROM journal")
    at = current_time()
    await store.memories.add("y", id="b")
    assert (await store.memories.get("a", as_of=at)).content == "x"
    assert [m.id for m in await everything(store.memories.list(as_of=at))] == ["a"]
    assert await store.memories.history("a") == []


async def test_a_namespace_that_the_history_names_is_not_deleted(store: Store) -> None:
    await store.namespace("u").memories.add("x", id="a")
    at = current_time()
    await store.namespace("u").memories.delete("a")
    await store.compact()
    assert (await store.namespace("u").memories.get("a", as_of=at)).content == "x"
    await store.undo((await store.namespace("u").memories.history("a"))[0])
    assert (await store.namespace("u").memories.get("a")).namespace == ("u",)


# --- damage -----------------------------------------------------------------------------------------------------------

DAMAGE_STATEMENTS = [
    "UPDATE journal SET old = '[1]' WHERE what <> 'added'",
    "UPDATE journal SET old = 'no JSON' WHERE what <> 'added'",
    "UPDATE journal SET old = '{}' WHERE what = 'deleted'",
    """UPDATE journal SET old = '{"tags":[]}' WHERE what = 'deleted'""",
    "UPDATE journal SET old = NULL WHERE what <> 'added'",
    "UPDATE journal SET old = json_set(old, '$.tags', 5) WHERE what <> 'added'",
    "UPDATE journal SET old = json_set(old, '$.updated_at', 'then') WHERE what <> 'added'",
    "UPDATE journal SET old = json_set(old, '$.metadata', '{') WHERE what = 'deleted'",
    "UPDATE journal SET old = json_set(old, '$.content', 5) WHERE what = 'deleted'",
    "UPDATE journal SET what = 'vanished' WHERE what <> 'added'",
    "UPDATE journal SET at = 'soon'",
    "UPDATE journal SET at = 9223372036854775807",
    "UPDATE journal SET vector = x'00' WHERE what = 'deleted'",
    "UPDATE journal SET vector = zeroblob(32) WHERE what = 'deleted'",
    "UPDATE journal SET namespace_pk = 77 WHERE what <> 'added'",
    "UPDATE journal SET actor = x'ff' WHERE what <> 'added'",
    "UPDATE journal SET first_pk = 'x' WHERE what = 'added'",
    "DELETE FROM journal WHERE what = 'deleted'",
]

UNSEEN_DAMAGE = {
    "UPDATE journal SET old = NULL WHERE what <> 'added'",
    "DELETE FROM journal WHERE what = 'deleted'",
}
"""Statements that leave a history which memstore could have written."""


@pytest.mark.parametrize("statement", DAMAGE_STATEMENTS)
async def test_a_damaged_history_raises_a_memstore_error_or_returns_the_right_result(
    path: Path, rng: Any, statement: str
) -> None:
    async with memstore.open(path, dimension=DIMENSION) as store:
        await store.memories.add("x", id="a", embedding=vectors(rng, 1)[0], tags={"t"})
        await store.assemblies.add("g", members=["a"])
        record, at = await store.memories.get("a"), current_time()
        await store.memories.update("a", content="y", embedding=None, tags={"u"})
        await store.memories.update("a", embedding=vectors(rng, 1)[0])
        await store.memories.delete("a")
        changes = await store.memories.history("a")
        execute(path, statement)
        refused = 0
        for call in (
            store.memories.get("a", as_of=at),
            everything(store.memories.list(as_of=at)),
            everything(store.assemblies.list(as_of=at)),
            store.memories.history("a"),
            store.undo(changes[0]),
        ):
            try:
                result = await call
                assert result in (record, [record], changes) or not isinstance(result, Memory)
            except memstore.MemstoreError:
                refused += 1
        assert refused, statement
        await store.memories.upsert("z", id="a")  # it can still be changed and deleted
        await store.memories.delete("a")
        findings = await store.check()
        assert {finding.kind for finding in findings} == ({"history"} if statement not in UNSEEN_DAMAGE else set())
    assert (await memstore.verify(path)).findings == findings


async def test_a_damaged_vector_in_the_history_hides_nothing_else(path: Path, rng: Any) -> None:
    first, second, third = vectors(rng, 3)
    async with memstore.open(path, dimension=DIMENSION) as store:
        await store.memories.add("one", id="a", embedding=first)
        await store.memories.add("other", id="b", embedding=first)
        at = current_time()
        await store.memories.update("a", content="two", embedding=second)
        await store.memories.update("b", content="new", embedding=second)
        await store.memories.update("a", content="three", embedding=third)
        await store.memories.update("a", importance=0.9)
        execute(path, "UPDATE journal SET vector = zeroblob(32) WHERE pk = 3")
        last, damaged_after, damaged_before, added = await store.memories.history("a")
        assert (last.damage, last.new["importance"]) == (None, 0.9)
        assert damaged_after.damage is None
        assert (damaged_after.old["content"], damaged_after.new["content"]) == ("two", "three")
        assert damaged_before.old["content"] == "one"
        assert "embedding" not in damaged_before.old
        assert damaged_before.new["embedding"].tobytes() == second.tobytes()  # type: ignore[union-attr]
        assert "damaged in the history" in str(damaged_before.damage)
        assert added.new["content"] == "one"
        assert (await store.memories.get("b", as_of=at)).content == "other"
        with pytest.raises(memstore.DamagedError, match="Read the record as of a later time"):
            await store.memories.get("a", as_of=at)
        (finding,) = await store.check()
        assert (finding.kind, finding.record_kind, finding.id) == ("history", "memory", "a")
        assert finding.detail.startswith("change 3 of its history is damaged")
        assert (await store.repair()).remaining == [finding]
        await store.backup(path.with_suffix(".bak"))
    report = await memstore.restore_backup(path.with_suffix(".bak"), path)
    assert report.findings == [finding]
    async with memstore.open(path) as store:
        assert (await store.memories.get("a")).content == "three"
        await store.memories.erase(ids=["a"])
        assert await store.check() == []


async def test_a_change_that_cannot_be_read_is_named_between_the_others(store: Store, path: Path) -> None:
    await store.memories.add("x", id="a")
    for importance in (0.1, 0.2, 0.3):
        await store.memories.update("a", importance=importance, metadata={"n": importance})
    execute(path, "UPDATE journal SET actor = x'ff' WHERE pk = 3")
    last, damaged, first, added = await store.memories.history("a")
    assert (last.damage, last.old["importance"], last.new["importance"]) == (None, 0.2, 0.3)
    assert (damaged.kind, damaged.number, damaged.old, damaged.new) == ("damaged", 3, {}, {})
    assert "cannot be read" in str(damaged.damage)
    assert (first.old["importance"], first.new) == (0.5, {})
    assert "importance, metadata" in str(first.damage)
    assert added.new["importance"] == 0.5
    execute(path, "DELETE FROM journal WHERE pk = 3")


async def test_a_record_that_cannot_be_read_can_be_changed_and_deleted(path: Path, rng: Any) -> None:
    async with memstore.open(path, dimension=DIMENSION) as store:
        await store.memories.add_many([{"id": id, "content": "x", "embedding": vectors(rng, 1)[0]} for id in "abc"])
        at = current_time()
        execute(path, "UPDATE memory SET content = CAST(x'ff' AS TEXT) WHERE id IN ('a', 'b')")
        await store.memories.upsert("new", id="a")
        await store.memories.delete_many(ids=["b", "c"])
        assert await store.memories.count() == 1
        for id in "ab":
            with pytest.raises((memstore.DamagedError, memstore.NotFoundError)):
                await store.memories.get(id, as_of=at)
        assert (await store.memories.get("c", as_of=at)).content == "x"
        with pytest.raises(memstore.DamagedError, match="could not be read"):
            await everything(store.memories.list(as_of=at))
        assert await store.check() == []


def test_unreadable_retention_settings_mean_off() -> None:
    for text in (
        None,
        5,
        "{",
        "[]",
        "{}",
        '{"keep": "full"}',
        '{"keep": 0, "since": 5}',
        '{"keep": "all", "since": 5}',
    ):
        assert history_retention.parse(text) == history_retention.RetentionSettings("off", None), text
    assert history_retention.parse('{"keep": 60, "since": 5}') == history_retention.RetentionSettings(60, 5)


async def test_a_store_that_writes_nothing_deletes_old_history_in_the_background(path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("memstore.sync.retention._FIRST_DELAY", 0.01)
    monkeypatch.setattr("memstore.sync.retention._INTERVAL", 0.01)
    monkeypatch.setattr(history_retention, "_DELETED_AT_ONCE", 3)
    async with memstore.open(path, dimension=2, history=timedelta(days=1)) as store:
        await store.memories.add("x", id="a")
        for importance in range(10):
            await store.memories.update("a", importance=importance / 10)
        old = int((current_time() - timedelta(days=2)).timestamp() * 1e6)
        execute(path, "UPDATE journal SET at = ? WHERE pk <= 8", (old,))
        await eventually(lambda: execute(path, "SELECT min(pk) FROM journal") == [(9,)])
        assert len(await store.memories.history("a")) == 3

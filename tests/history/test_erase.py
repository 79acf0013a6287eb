"""Erasing: nothing of an erased record is left in any table, in the file and in its log."""

import asyncio
import os
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memstore
from memstore import ForgetPolicy, Store
from memstore.models import EraseReport
from tests.conftest import DIMENSION, vectors
from tests.support.residue import traces
from tests.support.sql import execute

WORD = "hidden"


def rows_with(path: Path, word: str = WORD) -> dict[str, int]:
    """In how many rows of each table a text contains *word*."""
    tables = [name for (name,) in execute(path, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    counts = {}
    for table in tables:
        columns = [row[1] for row in execute(path, f"PRAGMA table_info({table})")]
        condition = " OR ".join(f"instr(CAST({column} AS BLOB), CAST(? AS BLOB))" for column in columns)
        (count,) = execute(path, f"SELECT count(*) FROM {table} WHERE {condition}", (word,) * len(columns))[0]
        if count:
            counts[table] = count
    return counts


async def ids(records: Any) -> list[str]:
    return [record.id async for record in records]


async def forget(noun: Any, id: str) -> None:
    policy = ForgetPolicy if isinstance(noun, memstore.Memories) else memstore.AssemblyForgetPolicy
    await noun.forget(await noun.plan_forget(policy(where={"id": id})))


async def fill(space: Any, rng: np.random.Generator) -> None:
    """A memory that is a member, was changed, retagged, deleted, added again, forgotten and added again; and others."""
    name, rows = f"{WORD}:1", iter(vectors(rng, 9))
    with memstore.as_actor("importer", reason=f"{WORD} reason"):
        await space.memories.add(f"{WORD} 1", id=name, embedding=next(rows), tags={f"{WORD} tag"}, metadata={"k": WORD})
    await space.memories.add("stays", id="other", embedding=next(rows), tags={"common"})
    await space.assemblies.add("group", members=[name, "other"], name="Group")
    await space.assemblies.remove_members("group", [name])
    await space.assemblies.add_members("group", [name])
    with memstore.as_actor("editor", reason=f"{WORD} correction"):
        await space.memories.update(name, content=f"{WORD} 2", embedding=next(rows), tags={f"{WORD} tag", "common"})
        await space.memories.delete(name)
    await space.memories.add(f"{WORD} 3", id=name, embedding=next(rows), tags={f"{WORD} tag"})
    await space.assemblies.add_members("group", [name])
    await forget(space.memories, name)
    await space.memories.add(f"{WORD} 4", id=name, embedding=next(rows), metadata={"k": WORD})
    await space.assemblies.add_members("group", [name])


async def test_erasing_an_id_leaves_nothing_in_any_table_and_the_others_as_they_were(
    store: Store, path: Path, rng: Any
) -> None:
    await fill(store, rng)
    assert set(rows_with(path)) >= {"memory", "journal", "tombstone", "tag"}
    other, at = await store.memories.get("other"), datetime.now(UTC)
    report = await store.memories.erase(ids=[f"{WORD}:1"])
    assert (report.ids, report.memories, report.archived, report.tags) == ((f"{WORD}:1",), 1, 1, 1)
    assert report.changes > 5
    assert report.missing == report.unreadable == report.namespaces == ()
    assert rows_with(path) == {}
    assert await store.memories.get("other") == other == await store.memories.get("other", as_of=at)
    group = await store.assemblies.get("group")
    assert group.member_count == 1
    np.testing.assert_allclose(group.composite, other.embedding / np.linalg.norm(other.embedding), rtol=1e-6)
    assert (await store.assemblies.get("group", as_of=at)).member_count == 1
    assert group.updated_at > at >= (await store.assemblies.get("group", as_of=at)).updated_at
    for change in await store.assemblies.history("group"):
        assert not [id for id in (*change.members_added, *change.members_removed) if WORD in id]
    with pytest.raises(memstore.NotFoundError):
        await store.memories.history(f"{WORD}:1")
    assert await store.memories.erase(ids=[f"{WORD}:1"]) == EraseReport(missing=(f"{WORD}:1",))


@pytest.mark.parametrize("state", ["live", "trash", "history"])
async def test_a_record_is_erased_wherever_it_is(store: Store, path: Path, rng: Any, state: str) -> None:
    for noun, other in ((store.memories, {"embedding": vectors(rng, 1)[0]}), (store.assemblies, {"name": WORD})):
        arguments = (WORD,) if noun is store.memories else ()
        await noun.add(*arguments, id=WORD, metadata={"k": WORD}, **other)
        if state == "trash":
            await forget(noun, WORD)
        if state == "history":
            await noun.delete(WORD)
    for noun, call in ((store.memories, {"ids": [WORD]}), (store.assemblies, {"where": {"metadata.k": WORD}})):
        report = await noun.erase(**call)
        assert report.ids == (WORD,)
        assert (report.memories + report.assemblies, report.archived) == (int(state == "live"), int(state == "trash"))
    assert rows_with(path) == {}


async def test_a_filter_finds_archived_and_deleted_records_as_they_were_at_the_end(store: Store, rng: Any) -> None:
    for id in ("live", "trash", "deleted", "changed", "foreign"):
        user = "eve" if id == "foreign" else "ada"
        await store.memories.add("x", id=id, metadata={"user": user}, embedding=vectors(rng, 1)[0])
    await forget(store.memories, "trash")
    await store.memories.delete_many(ids=["deleted", "foreign"])
    await store.memories.update("changed", metadata={"user": "eve"})
    below = store.namespace("below")
    await below.memories.add("x", id="live", metadata={"user": "ada"})
    report = await store.memories.erase(where={"metadata.user": "ada"})
    assert report.ids == ("deleted", "live", "trash")
    assert await ids(store.memories.list(recursive=True)) == ["changed", "live"]
    assert [change.kind for change in await store.memories.history("foreign")] == ["deleted", "added"]
    report = await store.memories.erase(where={"metadata.user": "ada"}, recursive=True)
    assert (report.ids, report.memories) == (("live",), 1)


async def test_damage_to_one_archived_or_deleted_record_does_not_keep_others_from_being_erased(
    path: Path, rng: Any
) -> None:
    async with memstore.open(path, dimension=DIMENSION) as store:
        for id in "abcd":
            await store.memories.add(WORD, id=id, embedding=vectors(rng, 1)[0])
        await forget(store.memories, "a")
        await forget(store.memories, "b")
        await store.memories.delete_many(ids=["c", "d"])
        execute(path, "UPDATE tombstone SET record = json_set(record, '$.tags', 5) WHERE id = 'a'")
        execute(path, "UPDATE journal SET old = 'no JSON' WHERE id = 'c' AND what = 'deleted'")
        report = await store.memories.erase(where={"content": WORD})
        assert (report.ids, report.unreadable) == (("a", "b", "d"), ("c",))  # the history has a sound copy of a
        assert (await store.memories.erase(ids=["a", "c"])).ids == ("c",)
        assert (
            execute(path, "SELECT count(*) FROM journal") == execute(path, "SELECT count(*) FROM tombstone") == [(0,)]
        )


async def test_an_erased_assembly_takes_its_merges_and_the_archived_sources_with_it(
    store: Store, path: Path, rng: Any
) -> None:
    await store.memories.add("x", id="m", embedding=vectors(rng, 1)[0])
    words = {"name": WORD, "description": WORD, "tags": [WORD], "topics": [WORD], "metadata": {"k": WORD}}
    for id in ("a", f"{WORD}1", f"{WORD}2"):
        await store.assemblies.add(id, members=["m"], **({} if id == "a" else words))
    with memstore.as_actor("ada", reason=WORD):
        await store.assemblies.merge([f"{WORD}1", f"{WORD}2"], into=f"{WORD}1")
        await store.assemblies.merge(["a", f"{WORD}1"], into="a")
    report = await store.assemblies.erase(ids=["a"])
    assert (report.assemblies, report.archived, report.merges) == (1, 2, 2)
    assert rows_with(path) == {}
    assert execute(path, "SELECT count(*) FROM assembly_merge_source") == [(0,)]


async def test_a_merge_with_one_erased_source_stays_without_it_and_cannot_be_undone(store: Store, path: Path) -> None:
    for id in ("a", "b", WORD):
        await store.assemblies.add(id, name=WORD if id == WORD else "")
    with memstore.as_actor("ada", reason=f"{WORD} is the same"):
        merge = await store.assemblies.merge(["a", "b", WORD], into="a")
    await store.assemblies.update("a", name="")
    report = await store.assemblies.erase(ids=[WORD])
    assert (report.assemblies, report.archived, report.merges) == (0, 1, 1)
    assert [entry.id for entry in (await store.assemblies.lineage("a")).ancestors] == ["b"]
    with pytest.raises(memstore.ConflictError, match="one of its sources was erased"):
        await store.assemblies.unmerge(merge.id)
    assert "assembly_merge" not in rows_with(path)


async def test_the_archived_composite_of_an_assembly_does_not_contain_an_erased_member(
    store: Store, path: Path, rng: Any
) -> None:
    first, second = vectors(rng, 2)
    await store.memories.add("x", id="a", embedding=first)
    await store.memories.add("x", id="b", embedding=second)
    await store.assemblies.add("alone", members=["a"])
    await store.assemblies.add("both", members=["a", "b"])
    await forget(store.assemblies, "alone")
    await forget(store.assemblies, "both")
    await store.memories.erase(ids=["a"])
    assert execute(path, "SELECT count(vector), min(instr(record, 'a\"]')) FROM tombstone") == [(0, 0)]
    alone, both = await store.assemblies.recover(["alone", "both"])
    assert (alone.composite, alone.member_count, both.member_count) == (None, 0, 1)
    np.testing.assert_allclose(both.composite, second / np.linalg.norm(second), rtol=1e-6)


async def test_an_addition_shared_with_others_stays_until_the_last_of_them_is_erased(store: Store, path: Path) -> None:
    with memstore.as_actor("ada", reason="three at once"):
        await store.memories.add_many([{"id": id, "content": "x"} for id in "abc"])
    await store.memories.erase(ids=["a", "c"])
    assert [change.reason for change in await store.memories.history("b")] == ["three at once"]
    await store.memories.delete("b")
    await store.memories.erase(ids=["b"])
    assert execute(path, "SELECT count(*) FROM journal") == [(0,)]


async def test_erase_takes_ids_or_a_filter_that_selects_something(store: Store) -> None:
    for arguments in ({}, {"ids": ["a"], "where": {"id": "a"}}, {"ids": ["a"], "recursive": True}):
        with pytest.raises(memstore.InvalidError):
            await store.memories.erase(**arguments)  # type: ignore[arg-type]
    with pytest.raises(memstore.FilterError, match="would erase every record"):
        await store.assemblies.erase(where={})


async def test_a_transaction_that_is_rolled_back_erases_nothing(store: Store, rng: Any) -> None:
    await fill(store, rng)
    expected = [await store.memories.history(f"{WORD}:1"), await store.assemblies.history("group")]
    with pytest.raises(ZeroDivisionError):
        async with store.transaction() as tx:
            await tx.memories.erase(ids=[f"{WORD}:1"])
            raise ZeroDivisionError
    assert [await store.memories.history(f"{WORD}:1"), await store.assemblies.history("group")] == expected


@pytest.mark.parametrize("verb", ["erase", "clear"])
async def test_a_namespace_is_erased_with_its_path_and_its_neighbours_stay(
    store: Store, path: Path, rng: Any, verb: str
) -> None:
    ada, eve = store.namespace("users", WORD), store.namespace("users", "eve")
    for space in (ada, ada.namespace("deep"), eve):
        await fill(space, rng)
        await space.assemblies.add("second")
        await space.assemblies.merge(["group", "second"], into="group")
    result = await getattr(ada, verb)(recursive=True)
    if verb == "erase":
        assert result.namespaces == (("users", WORD), ("users", WORD, "deep"))
        assert (result.memories, result.assemblies, result.archived, result.merges) == (4, 2, 4, 2)
    else:
        assert result == 6
    assert await store.namespaces() == [("users", "eve")]
    assert execute(path, "SELECT count(*) FROM namespace WHERE instr(path, 'hidden')") == [(0,)]
    key = execute(path, "SELECT pk FROM namespace WHERE path = 'users/eve/'")[0]
    for table in ("memory", "assembly", "tombstone", "journal", "assembly_merge", "tag"):
        assert execute(path, f"SELECT DISTINCT namespace_pk FROM {table}") == [key], table
    await ada.memories.add("new", id="new")  # the namespace is made again
    assert await ids(ada.memories.list()) == ["new"]


# --- bytes ------------------------------------------------------------------------------------------------------------

EVERY_WAY = ("erase", "purge", "clear", "delete")


async def bytes_of_many(path: Path, seed: int, count: int) -> dict[str, list[str | bytes]]:
    """Store records with marks in texts and vectors, get rid of most, and compact; the marks still in the file."""
    draw, rng = random.Random(seed), np.random.default_rng(seed)
    marks = [f"Q{draw.getrandbits(44):011x}Z" for _ in range(count)]
    doomed = set(draw.sample(marks, count * 2 // 3))
    embeddings = dict(zip(marks, rng.standard_normal((count, 8)).astype(np.float32), strict=True))
    async with memstore.open(path, dimension=8, indexed_metadata=("phone",), durability="relaxed") as store:
        spaces = {way: store.namespace("way", way) for way in EVERY_WAY}
        ways = {mark: draw.choice(EVERY_WAY) for mark in marks}
        for start in range(0, count, 100):
            for mark in marks[start : start + 100]:
                space = spaces[ways[mark]] if mark in doomed else store
                await space.memories.add(
                    f"text {mark} " + "w" * draw.randint(0, 400),
                    id=f"id {mark}",
                    embedding=embeddings[mark],
                    tags=[f"tag {mark}"],
                    metadata={"phone": f"phone {mark}"},
                )
        for mark in draw.sample(marks, count // 4):
            space = spaces[ways[mark]] if mark in doomed else store
            await space.memories.update(f"id {mark}", metadata={"phone": f"phone {mark}", "more": "m" * 300})
            await space.assemblies.upsert(f"group {ways[mark]}", members=[f"id {mark}"])
        execute(path, "ANALYZE")
        await store.memories.search(np.ones(8))
        by_way = {way: [f"id {mark}" for mark in marks if mark in doomed and ways[mark] == way] for way in EVERY_WAY}
        await spaces["erase"].memories.erase(ids=by_way["erase"])
        policy = ForgetPolicy(where={"content": {"$startswith": "text"}})
        await spaces["purge"].memories.forget(await spaces["purge"].memories.plan_forget(policy))
        await spaces["purge"].memories.purge(older_than=0)
        await spaces["clear"].clear()
        await spaces["delete"].memories.delete_many(ids=by_way["delete"])
        assert await spaces["delete"].memories.erase(ids=by_way["delete"])
        await store.compact(secure=True)
        assert await store.check() == []
        assert await store.memories.count() == count - len(doomed)
    searched: list[str | bytes] = [*doomed, *(embeddings[mark].tobytes() for mark in doomed)]
    return traces(path, *searched)


async def test_compact_secure_leaves_no_byte_of_what_was_erased(path: Path) -> None:
    assert await bytes_of_many(path, seed=1, count=400) == {}


@pytest.mark.slow
@pytest.mark.parametrize("library", ["stdlib", "pysqlite3"])
@pytest.mark.parametrize("seed", range(5))
def test_no_byte_of_two_thousand_erased_records_is_left(path: Path, seed: int, library: str) -> None:
    program = f"""
import asyncio
from pathlib import Path
from tests.history.test_erase import bytes_of_many
print(asyncio.run(bytes_of_many(Path({str(path)!r}), {seed}, 3_000)))
"""
    environment = {**os.environ, "MEMSTORE_SQLITE": library}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "{}\n"


async def test_a_reader_of_an_old_state_makes_a_secure_compact_fail_with_advice(path: Path) -> None:
    async with memstore.open(path, dimension=2, timeout=0.3) as store:
        await store.memories.add(WORD, id="a", embedding=[1, 0])
        listing = store.memories.list()
        reader = memstore.open(path, read_only=True)
        async with reader as other:
            started, release = asyncio.Event(), asyncio.Event()
            loop = asyncio.get_running_loop()

            def hold(connection: Any) -> None:
                connection.connection.dbapi_connection.execute("SELECT count(*) FROM memory").fetchone()
                loop.call_soon_threadsafe(started.set)
                asyncio.run_coroutine_threadsafe(release.wait(), loop).result()

            holding = asyncio.create_task(other._session.read(hold))
            await started.wait()
            await store.memories.erase(ids=["a"])
            with pytest.raises(memstore.BusyError, match="can still contain deleted data"):
                await store.compact(secure=True)
            release.set()
            await holding
        await store.compact(secure=True)
        assert await ids(listing) == []
    assert traces(path, WORD) == {}


async def test_history_that_is_kept_is_kept_by_a_secure_compact(path: Path) -> None:
    async with memstore.open(path, dimension=2, history=timedelta(days=1)) as store:
        await store.memories.add(WORD, id="a")
        at = datetime.now(UTC)
        await store.memories.delete("a")
        await store.compact(secure=True)
        assert (await store.memories.get("a", as_of=at)).content == WORD

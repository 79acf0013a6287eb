"""Whether assemblies and the index are in sync, by their revisions: in transactions, after them, and after failures."""

import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memstore
from memstore import AssemblyBoost, DamagedError, EngineError, NotFoundError, Store
from memstore.database.sqlite import sqlite3
from memstore.index.faiss_engine import FaissEngine
from memstore.models import SyncState
from memstore.sync.follower import Follower
from memstore.testing import damage
from tests.conftest import DIMENSION, vectors
from tests.search.test_assembly_boost import out_of_step, unit
from tests.support.children import Child, Link
from tests.support.clusters import sql

BOOST = AssemblyBoost(threshold=0.5)


def check_synced(state: SyncState, revision: int) -> None:
    assert state.synced
    assert (state.revision, state.composite_revision, state.indexed_revision) == (revision, revision, revision)
    assert timedelta(0) <= state.age < timedelta(minutes=5)


async def boost(face: Any, id: str = "a", **options: Any) -> tuple[float, str]:
    """What a memory gains in a search for its own vector."""
    (memory,) = (await face.memories.get_many([id])).values()
    hits = await face.memories.search(memory.embedding, 50, boost=BOOST, **options)
    return next((hit.boost, hit.reason) for hit in hits if hit.memory.id == id)


async def add(face: Any, *ids: str) -> None:
    for i, id in enumerate(ids):
        await face.memories.add(id, id=id, embedding=unit(1, 0.1 * i))


async def add_group(face: Any, *ids: str) -> None:
    """Add memories, and the assembly "g" of the first one."""
    await add(face, *ids)
    await face.assemblies.add("g", members=ids[:1])


# --- sync enforcement ---


async def test_a_new_assembly_gives_no_boost_before_it_is_indexed_and_one_after(store: Store) -> None:
    await add(store, "a")
    async with store.transaction() as tx:
        await tx.assemblies.add("g", members=["a"])
        state = await tx.assemblies.sync_state("g")
        assert (state.synced, state.revision, state.composite_revision, state.indexed_revision) == (False, 1, 1, None)
        assert await boost(tx) == (0.0, "stale")
        assert [hit.assembly.id for hit in await tx.assemblies.search(unit(1))] == ["g"], "found in it all the same"
    check_synced(await store.assemblies.sync_state("g"), 1)
    gain, reason = await boost(store)
    assert (gain > 0, reason) == (True, "boosted")


async def test_a_change_of_members_unsyncs_and_syncs_again_in_one_commit(store: Store) -> None:
    await add_group(store, "a", "b")
    await store.assemblies.add("still", members=["b"])
    assert (await boost(store))[1] == "boosted"
    changes = {
        "adding": lambda face: face.assemblies.add_members("g", ["b"]),
        "a member's vector": lambda face: face.memories.update("b", embedding=unit(1, 0.3)),
        "removing": lambda face: face.assemblies.remove_members("g", ["b"]),
    }
    for name, change in changes.items():
        before = (await store.assemblies.sync_state("g")).revision
        async with store.transaction() as tx:
            await change(tx)
            state = await tx.assemblies.sync_state("g")
            assert (state.synced, state.indexed_revision) == (False, before), name
            assert state.revision == state.composite_revision > before, name
            assert await boost(tx) == (0.0, "stale"), name
            other = await tx.assemblies.sync_state("still")
            assert other.synced == (name != "a member's vector"), "it has the same member"
        check_synced(await store.assemblies.sync_state("g"), state.revision)
        assert (await boost(store))[1] == "boosted", name
        await change(store)  # the verb by itself: it returns in step
        check_synced(await store.assemblies.sync_state("g"), (await store.assemblies.get("g")).revision)


async def test_an_assembly_is_synced_after_a_rolled_back_change(store: Store) -> None:
    await add_group(store, "a", "b")
    with pytest.raises(ZeroDivisionError):
        async with store.transaction() as tx:
            await tx.assemblies.add_members("g", ["b"])
            assert not (await tx.assemblies.sync_state("g")).synced
            raise ZeroDivisionError
    check_synced(await store.assemblies.sync_state("g"), 1)
    assert (await boost(store))[1] == "boosted"


async def test_other_changes_of_an_assembly_do_not_change_its_revision(store: Store) -> None:
    await add_group(store, "a")
    await store.assemblies.update("g", name="new", tags={"t"})
    await store.memories.update("a", tags={"t"})
    await store.assemblies.activate(["g"])
    check_synced(await store.assemblies.sync_state("g"), 1)


async def test_an_assembly_without_a_composite_is_synced(store: Store) -> None:
    await store.memories.add("silent", id="s")
    await store.assemblies.add("empty")
    await store.assemblies.add("g", members=["s"])
    for id, revision in {"empty": 0, "g": 1}.items():
        state = await store.assemblies.sync_state(id)
        assert (state.synced, state.revision, state.indexed_revision) == (True, revision, None), id
    await store.memories.update("s", embedding=unit(1))
    check_synced(await store.assemblies.sync_state("g"), (await store.assemblies.get("g")).revision)
    with pytest.raises(NotFoundError):
        await store.assemblies.sync_state("none")


async def test_an_outdated_composite_is_reported_and_computed_by_the_next_search(path: Path) -> None:
    async with memstore.open(path, dimension=DIMENSION, timeout=5) as store:
        await add_group(store, "a")
        check_synced(await store.assemblies.sync_state("g"), 1)
        out_of_step(path, "g")
        for _ in range(3):  # looking at it mends nothing
            state = await store.assemblies.sync_state("g")
            assert (state.synced, state.revision, state.composite_revision, state.indexed_revision) == (False, 2, 1, 1)
        writer = sqlite3.connect(path, isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")  # so that no search can mend it
        assert await boost(store) == (0.0, "stale")
        writer.execute("ROLLBACK")
        writer.close()
        assert (await boost(store))[1] == "boosted"
        check_synced(await store.assemblies.sync_state("g"), 2)
        assert await store.check() == []


@pytest.mark.parametrize("damaged", ["file", "index"])
async def test_an_assembly_with_a_damaged_composite_is_not_synced_until_a_repair(path: Path, damaged: str) -> None:
    async with memstore.open(path, dimension=DIMENSION) as store:
        await add_group(store, "a")
    if damaged == "file":
        sql(path, "UPDATE assembly_vector SET checksum = checksum + 1")
    async with memstore.open(path) as store:
        if damaged == "index":
            await damage(store, "missing", ["g"], record_kind="assembly")
        state = await store.assemblies.sync_state("g")
        assert (state.synced, state.composite_revision, state.indexed_revision) == (False, 1, None)
        assert await boost(store) == (0.0, "stale")
        assert (await store.repair()).remaining == []
        check_synced(await store.assemblies.sync_state("g"), 1)
        assert (await boost(store))[1] == "boosted"


@pytest.mark.parametrize(
    "wrong",
    [
        "UPDATE assembly SET activation = 'high'",
        "UPDATE assembly SET activation = 9e999",
        "UPDATE assembly SET activation_count = x'00'",
        "UPDATE assembly SET activated_at = 'yesterday', activation = 0.5",
        "UPDATE assembly SET activated_at = 9223372036854775807, activation = 0.5",
    ],
)
async def test_an_invalid_activation_is_damage(path: Path, wrong: str) -> None:
    async with memstore.open(path, dimension=DIMENSION) as store:
        await add_group(store, "a")
    sql(path, wrong)
    async with memstore.open(path) as store:
        with pytest.raises(DamagedError, match="assembly"):
            await store.assemblies.get("g")
        if "count" not in wrong:
            with pytest.raises(DamagedError, match="assembly"):
                await store.memories.search(unit(1), boost=BOOST)
        assert len(await store.memories.search(unit(1))) == 1
        await store.assemblies.activate(["g"])  # which writes all of it anew
        assert (await store.assemblies.get("g")).activation_level == 1
        assert await store.check() == []


@pytest.mark.parametrize("wrong", ["'soon'", "9223372036854775807"])
async def test_an_invalid_time_of_a_composite_is_damage(path: Path, wrong: str) -> None:
    async with memstore.open(path, dimension=DIMENSION) as store:
        await add_group(store, "a")
        sql(path, f"UPDATE assembly_vector SET composed_at = {wrong}")
        with pytest.raises(DamagedError):
            await store.assemblies.sync_state("g")
        with pytest.raises(DamagedError):
            await store.memories.search(unit(1), boost=BOOST)
        await store.memories.update("a", embedding=unit(1, 1))  # which computes it again
        check_synced(await store.assemblies.sync_state("g"), (await store.assemblies.get("g")).revision)
        assert await store.check() == []


# --- recovery: what could not reach the index is found in the database ---


async def add_a_member_and_be_killed(link: Link, path: Path) -> None:
    """In a process of its own: a change of members that is committed, and never applied to an index."""
    Follower.after_commit = lambda self, connection: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
    async with memstore.open(path) as store:
        await store.assemblies.sync_state("g")  # it has an index
        link.send("ready")
        await store.assemblies.add_members("g", ["b"])


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
async def test_a_commit_whose_process_was_killed_before_it_was_applied_is_found(path: Path) -> None:
    async with memstore.open(path, dimension=DIMENSION) as store:
        await add_group(store, "a", "b")
        check_synced(await store.assemblies.sync_state("g"), 1)
        with Child(add_a_member_and_be_killed, path) as child:
            assert child.receive() == "ready"
            child.process.join(60)
            assert child.process.exitcode == -signal.SIGKILL
        hits = await store.memories.search(unit(0, 1), boost=AssemblyBoost(threshold=-1))  # by the next search here
        assert {hit.memory.id: hit.reason for hit in hits} == {"a": "boosted", "b": "boosted"}
        check_synced(await store.assemblies.sync_state("g"), 2)
        assert await store.check() == []
    async with memstore.open(path) as store:  # and by the next open
        check_synced(await store.assemblies.sync_state("g"), 2)
        assert (await boost(store, "b"))[1] == "boosted"
        assert await store.check() == []


async def test_writes_without_an_engine_are_applied_once_an_engine_loads(
    path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    rows = vectors(rng, 30)

    def unavailable() -> FaissEngine:
        raise EngineError("no engine")

    async with memstore.open(path, dimension=DIMENSION, index=memstore.IndexOptions(engine="faiss")) as store:
        monkeypatch.setattr(FaissEngine, "load", unavailable)
        await store.assemblies.add("g")
        for i, row in enumerate(rows):  # far more often than anybody would try again
            await store.memories.add("", id=f"m{i}", embedding=row)
            await store.assemblies.add_members("g", [f"m{i}"])
            for search in (store.memories.search, store.assemblies.search):
                with pytest.raises(EngineError, match="no engine"):
                    await search(row)
            with pytest.raises(EngineError):
                await store.assemblies.sync_state("g")
        await store.memories.delete("m0")
        assert (await store.assemblies.get("g")).member_count == len(rows) - 1, "reading needs no index"
        monkeypatch.undo()
        expected = await store.assemblies.get("g")
        for _ in range(2):
            check_synced(
                await store.assemblies.sync_state("g"), expected.revision
            )  # the newest, of all that there were
            hits = await store.memories.search(rows[5], 50, boost=AssemblyBoost(threshold=-1))
            assert {hit.memory.id for hit in hits} == {f"m{i}" for i in range(1, len(rows))}
            assert {hit.reason for hit in hits} == {"boosted"}
            (hit,) = await store.assemblies.search(expected.composite)
            assert hit.assembly == expected
            assert hit.score == pytest.approx(1)
        assert await store.check() == []


async def test_an_index_that_failed_to_follow_commits_catches_up_at_the_next_search(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_group(store, "a", "b")
    check_synced(await store.assemblies.sync_state("g"), 1)

    def fails(*_: object) -> None:
        raise MemoryError

    for turn in range(12):
        monkeypatch.setattr(Follower, "catch_up", fails)
        change = store.assemblies.remove_members if turn % 2 else store.assemblies.add_members
        await change("g", ["b"])  # stored, whatever the index does
        if turn % 3:
            continue
        monkeypatch.undo()
        check_synced(await store.assemblies.sync_state("g"), turn + 2)
        assert (await boost(store))[1] == "boosted"
    monkeypatch.undo()
    check_synced(await store.assemblies.sync_state("g"), 13)


async def test_applying_a_change_again_changes_nothing(store: Store) -> None:
    await add_group(store, "a", "b")
    await store.assemblies.sync_state("g")
    follower = store._follower
    start = follower.indexes.applied
    await store.assemblies.add_members("g", ["b"])
    await store.memories.delete("a")
    once = await store.memories.search(unit(1), boost=BOOST)
    for _ in range(3):
        with follower.indexes.lock.exclusive():
            follower.indexes.applied = start
        again = await store.memories.search(unit(1), boost=BOOST)
        assert (again, [(a.id, a.score) for a in again.activated]) == (once, [(a.id, a.score) for a in once.activated])
        check_synced(await store.assemblies.sync_state("g"), (await store.assemblies.get("g")).revision)


async def test_a_deleted_assembly_leaves_no_revision_behind(store: Store) -> None:
    await add(store, "a")
    for _ in range(3):
        await store.assemblies.add("g", members=["a"])
        assert len(store._follower.indexes.revisions) <= 1
        check_synced(await store.assemblies.sync_state("g"), 1)
        await store.assemblies.delete("g")
        assert await boost(store) == (0.0, "no_assembly")
    assert store._follower.indexes.revisions == {}

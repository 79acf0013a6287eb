"""Assemblies and the index in step: by revisions, inside a transaction and after it, and after whatever went wrong."""

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

ASKED = AssemblyBoost(threshold=0.5)


def same(state: SyncState, revision: int) -> None:
    assert state.synced
    assert (state.revision, state.composite_revision, state.indexed_revision) == (revision, revision, revision)
    assert timedelta(0) <= state.age < timedelta(minutes=5)


async def boost(face: Any, id: str = "a", **options: Any) -> tuple[float, str]:
    """What a memory gains in a search for its own vector."""
    (memory,) = (await face.memories.get_many([id])).values()
    hits = await face.memories.search(memory.embedding, 50, boost=ASKED, **options)
    return next((hit.boost, hit.reason) for hit in hits if hit.memory.id == id)


async def add(face: Any, *ids: str) -> None:
    for i, id in enumerate(ids):
        await face.memories.add(id, id=id, embedding=unit(1, 0.1 * i))


# --- sync enforcement ---


async def test_a_new_assembly_gives_no_boost_before_it_is_indexed_and_one_after(store: Store) -> None:
    await add(store, "a")
    async with store.transaction() as tx:
        await tx.assemblies.add("g", members=["a"])
        state = await tx.assemblies.sync_state("g")
        assert (state.synced, state.revision, state.composite_revision, state.indexed_revision) == (False, 1, 1, None)
        assert await boost(tx) == (0.0, "stale")
        assert [hit.assembly.id for hit in await tx.assemblies.search(unit(1))] == ["g"], "found in it all the same"
    same(await store.assemblies.sync_state("g"), 1)
    gained, reason = await boost(store)
    assert (gained > 0, reason) == (True, "boosted")


async def test_a_change_of_members_unsyncs_and_syncs_again_in_one_commit(store: Store) -> None:
    await add(store, "a", "b")
    await store.assemblies.add("g", members=["a"])
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
        same(await store.assemblies.sync_state("g"), state.revision)
        assert (await boost(store))[1] == "boosted", name
        await change(store)  # the verb by itself: it returns in step
        same(await store.assemblies.sync_state("g"), (await store.assemblies.get("g")).revision)


async def test_a_change_that_is_rolled_back_leaves_it_in_step(store: Store) -> None:
    await add(store, "a", "b")
    await store.assemblies.add("g", members=["a"])
    with pytest.raises(ZeroDivisionError):
        async with store.transaction() as tx:
            await tx.assemblies.add_members("g", ["b"])
            assert not (await tx.assemblies.sync_state("g")).synced
            raise ZeroDivisionError
    same(await store.assemblies.sync_state("g"), 1)
    assert (await boost(store))[1] == "boosted"


async def test_what_is_no_change_of_members_leaves_the_revision(store: Store) -> None:
    await add(store, "a")
    await store.assemblies.add("g", members=["a"])
    await store.assemblies.update("g", name="new", tags={"t"})
    await store.memories.update("a", tags={"t"})
    await store.assemblies.activate(["g"])
    same(await store.assemblies.sync_state("g"), 1)


async def test_an_assembly_without_a_composite_is_in_step_with_nothing(store: Store) -> None:
    await store.memories.add("silent", id="s")
    await store.assemblies.add("empty")
    await store.assemblies.add("g", members=["s"])
    for id, revision in {"empty": 0, "g": 1}.items():
        state = await store.assemblies.sync_state(id)
        assert (state.synced, state.revision, state.indexed_revision) == (True, revision, None), id
    await store.memories.update("s", embedding=unit(1))
    same(await store.assemblies.sync_state("g"), (await store.assemblies.get("g")).revision)
    with pytest.raises(NotFoundError):
        await store.assemblies.sync_state("none")


async def test_the_gap_is_reported_and_closed_by_the_next_search(path: Path) -> None:
    async with memstore.open(path, dimension=DIMENSION, timeout=5) as store:
        await add(store, "a")
        await store.assemblies.add("g", members=["a"])
        same(await store.assemblies.sync_state("g"), 1)
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
        same(await store.assemblies.sync_state("g"), 2)
        assert await store.check() == []


async def test_an_entry_that_is_damaged_in_the_file_is_out_of_step(path: Path) -> None:
    async with memstore.open(path, dimension=DIMENSION) as store:
        await add(store, "a")
        await store.assemblies.add("g", members=["a"])
    with sqlite3.connect(path) as base:
        base.execute("UPDATE assembly_vector SET checksum = checksum + 1")
    base.close()
    async with memstore.open(path) as store:
        state = await store.assemblies.sync_state("g")
        assert (state.synced, state.composite_revision, state.indexed_revision) == (False, 1, None)
        assert await boost(store) == (0.0, "stale")
        assert (await store.repair()).remaining == []
        assert (await boost(store))[1] == "boosted"


async def test_an_entry_that_the_index_lost_is_out_of_step_until_it_is_rebuilt(path: Path) -> None:
    async with memstore.open(path, dimension=DIMENSION) as store:
        await add(store, "a")
        await store.assemblies.add("g", members=["a"])
        await damage(store, "missing", ["g"], noun="assembly")
        state = await store.assemblies.sync_state("g")
        assert (state.synced, state.composite_revision, state.indexed_revision) == (False, 1, None)
        assert await boost(store) == (0.0, "stale")
        await store.repair()
        same(await store.assemblies.sync_state("g"), 1)
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
async def test_an_activation_that_no_verb_wrote_is_damage(path: Path, wrong: str) -> None:
    async with memstore.open(path, dimension=DIMENSION) as store:
        await add(store, "a")
        await store.assemblies.add("g", members=["a"])
    with sqlite3.connect(path) as base:
        base.execute(wrong)
    base.close()
    async with memstore.open(path) as store:
        with pytest.raises(DamagedError, match="assembly"):
            await store.assemblies.get("g")
        if "count" not in wrong:
            with pytest.raises(DamagedError, match="assembly"):
                await store.memories.search(unit(1), boost=ASKED)
        assert len(await store.memories.search(unit(1))) == 1
        await store.assemblies.activate(["g"])  # which writes all of it anew
        assert (await store.assemblies.get("g")).activation_level == 1
        assert await store.check() == []


@pytest.mark.parametrize("wrong", ["'soon'", "9223372036854775807"])
async def test_a_composite_s_time_that_no_verb_wrote_is_damage(path: Path, wrong: str) -> None:
    async with memstore.open(path, dimension=DIMENSION) as store:
        await add(store, "a")
        await store.assemblies.add("g", members=["a"])
        with sqlite3.connect(path) as base:
            base.execute(f"UPDATE assembly_vector SET composed_at = {wrong}")
        base.close()
        with pytest.raises(DamagedError):
            await store.assemblies.sync_state("g")
        with pytest.raises(DamagedError):
            await store.memories.search(unit(1), boost=ASKED)
        await store.memories.update("a", embedding=unit(1, 1))  # which computes it again
        same(await store.assemblies.sync_state("g"), (await store.assemblies.get("g")).revision)
        assert await store.check() == []


# --- recovery: what could not reach the index is found in the database ---


async def changed_and_killed(link: Link, path: Path) -> None:
    """In a process of its own: a change of members that is committed, and never applied to an index."""
    Follower.after_commit = lambda self, connection: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
    async with memstore.open(path) as store:
        await store.assemblies.sync_state("g")  # it has an index
        link.send("ready")
        await store.assemblies.add_members("g", ["b"])


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
async def test_a_commit_whose_process_was_killed_before_it_was_applied_is_found(path: Path) -> None:
    async with memstore.open(path, dimension=DIMENSION) as store:
        await add(store, "a", "b")
        await store.assemblies.add("g", members=["a"])
        same(await store.assemblies.sync_state("g"), 1)
        with Child(changed_and_killed, path) as child:
            assert child.receive() == "ready"
            child.process.join(60)
            assert child.process.exitcode == -signal.SIGKILL
        hits = await store.memories.search(unit(0, 1), boost=AssemblyBoost(threshold=-1))  # by the next search here
        assert {hit.memory.id: hit.reason for hit in hits} == {"a": "boosted", "b": "boosted"}
        same(await store.assemblies.sync_state("g"), 2)
        assert await store.check() == []
    async with memstore.open(path) as store:  # and by the next open
        same(await store.assemblies.sync_state("g"), 2)
        assert (await boost(store, "b"))[1] == "boosted"
        assert await store.check() == []


async def test_work_done_while_no_index_can_be_had_is_applied_as_soon_as_one_can(
    path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    rows = vectors(rng, 30)

    def unavailable() -> FaissEngine:
        raise EngineError("no engine today")

    async with memstore.open(path, dimension=DIMENSION, index=memstore.IndexOptions(engine="faiss")) as store:
        monkeypatch.setattr(FaissEngine, "load", unavailable)
        await store.assemblies.add("g")
        for i, row in enumerate(rows):  # far more often than anybody would try again
            await store.memories.add("", id=f"m{i}", embedding=row)
            await store.assemblies.add_members("g", [f"m{i}"])
            for search in (store.memories.search, store.assemblies.search):
                with pytest.raises(EngineError, match="today"):
                    await search(row)
            with pytest.raises(EngineError):
                await store.assemblies.sync_state("g")
        await store.memories.delete("m0")
        assert (await store.assemblies.get("g")).member_count == len(rows) - 1, "reading needs no index"
        monkeypatch.undo()
        expected = await store.assemblies.get("g")
        for _ in range(2):
            same(await store.assemblies.sync_state("g"), expected.revision)  # the newest, of all that there were
            hits = await store.memories.search(rows[5], 50, boost=AssemblyBoost(threshold=-1))
            assert {hit.memory.id for hit in hits} == {f"m{i}" for i in range(1, len(rows))}
            assert {hit.reason for hit in hits} == {"boosted"}
            (hit,) = await store.assemblies.search(expected.composite)
            assert hit.assembly == expected
            assert hit.score == pytest.approx(1)
        assert await store.check() == []


async def test_an_index_that_failed_to_follow_any_number_of_commits_has_the_newest_revision_in_the_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(store, "a", "b")
    await store.assemblies.add("g", members=["a"])
    same(await store.assemblies.sync_state("g"), 1)

    def fails(*_: object) -> None:
        raise MemoryError

    for turn in range(12):
        monkeypatch.setattr(Follower, "catch_up", fails)
        change = store.assemblies.remove_members if turn % 2 else store.assemblies.add_members
        await change("g", ["b"])  # stored, whatever the index does
        if turn % 3:
            continue
        monkeypatch.undo()
        same(await store.assemblies.sync_state("g"), turn + 2)
        assert (await boost(store))[1] == "boosted"
    monkeypatch.undo()
    same(await store.assemblies.sync_state("g"), 13)


async def test_applying_a_change_again_changes_nothing(store: Store) -> None:
    await add(store, "a", "b")
    await store.assemblies.add("g", members=["a"])
    await store.assemblies.sync_state("g")
    follower = store._follower
    start = follower.indexes.applied
    await store.assemblies.add_members("g", ["b"])
    await store.memories.delete("a")
    once = await store.memories.search(unit(1), boost=ASKED)
    for _ in range(3):
        with follower.indexes.lock.exclusive():
            follower.indexes.applied = start
        again = await store.memories.search(unit(1), boost=ASKED)
        assert (again, [(a.id, a.score) for a in again.activated]) == (once, [(a.id, a.score) for a in once.activated])
        same(await store.assemblies.sync_state("g"), (await store.assemblies.get("g")).revision)


async def test_a_deleted_assembly_leaves_no_revision_behind(store: Store) -> None:
    await add(store, "a")
    for _ in range(3):
        await store.assemblies.add("g", members=["a"])
        assert len(store._follower.indexes.revisions) <= 1
        same(await store.assemblies.sync_state("g"), 1)
        await store.assemblies.delete("g")
        assert await boost(store) == (0.0, "no_assembly")
    assert store._follower.indexes.revisions == {}

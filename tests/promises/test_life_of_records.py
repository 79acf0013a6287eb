"""Records, memberships and changes agree at every moment."""

import asyncio
import contextlib
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import memstore
from memstore import AssemblyBoost, AssemblyForgetPolicy, ConflictError, ForgetPolicy, HistoryError, Store
from tests.support.sql import execute


@pytest.fixture
async def store(tmp_path: Path) -> Any:
    async with memstore.open(tmp_path / "store.db", dimension=2) as opened:
        yield opened
        assert await opened.check() == []


async def add_pair(store: Store, lifetime: float = 0.2) -> None:
    """Assembly A of memory `a` and of `b`, which expires; assembly B of memory `c`."""
    for id, vector in {"a": [1, 0.1], "b": [0, 1], "c": [1, 1]}.items():
        await store.memories.add(id, id=id, embedding=vector)
    await store.assemblies.add("A", members=["a", "b"])
    await store.assemblies.add("B", members=["c"])
    await store.memories.update("b", ttl=lifetime)
    await expiry(store, "b")


async def expiry(store: Store, id: str) -> None:
    while await store.memories.get_many([id]):
        await asyncio.sleep(0.01)


async def forget(store: Store, id: str) -> None:
    await store.memories.forget(await store.memories.plan_forget(ForgetPolicy(where={"id": id})))


async def read_assemblies(store: Any) -> dict[str, Any]:
    """What every read says of the assembly A."""
    hits = await store.assemblies.search([0, 1])
    boosted = await store.memories.search([1, 0.1], boost=AssemblyBoost(threshold=0.9))
    plan = await store.assemblies.plan_forget(AssemblyForgetPolicy(members_below=2, where={"id": "A"}))
    explanation = await store.memories.explain([1, 0.1], "a", boost=AssemblyBoost(threshold=0.9))
    stats = await store.stats() if isinstance(store, Store) else None
    return {
        "get": await store.assemblies.get("A"),
        "get_many": (await store.assemblies.get_many(["A"]))["A"],
        "list": [record async for record in store.assemblies.list(where={"id": "A"})],
        "order": [record.id async for record in store.assemblies.list(order="updated_at")],
        "count": await store.assemblies.count(where={"id": "A", "member_count": 1}),
        "members": [id async for id in store.assemblies.members("A")],
        "vectors": (await store.assemblies.vectors()).matrix,
        "containing": await store.assemblies.containing("a"),
        "search": [(hit.assembly, hit.score) for hit in hits if hit.assembly.id == "A"],
        "boost": [(assembly.id, assembly.score) for assembly in boosted.activated],
        "explain": [(assembly.score, assembly.sync.revision) for assembly in explanation.assemblies],
        "sync": (await store.assemblies.sync_state("A")).revision,
        "policy": [(candidate.id, candidate.bytes) for candidate in plan.candidates],
        "candidates": await store.assemblies.merge_candidates(-1.0),
        "suggest": (await store.assemblies.suggest(0.5)).unassigned,
        "stats": stats and (stats.memories, stats.vectors),
    }


def comparable(value: Any) -> Any:
    """*value* with records as texts, which show every number of their vectors."""
    return {name: repr(part) for name, part in value.items()}


# One state at one moment.


async def test_the_deletion_of_an_expired_member_changes_nothing_that_a_read_returns(store: Store) -> None:
    await add_pair(store)
    before = await read_assemblies(store)
    assert before["members"] == ["a"]
    assert before["order"] == ["B", "A"]  # A has lost a member since
    assert before["get"].member_count == 1
    assert before["get"].composite.tolist() == pytest.approx([0.995, 0.0995], abs=1e-3)  # of `a` alone
    assert before["get"] == before["get_many"] == before["list"][0] == before["containing"][0]
    assert before["boost"] == [("A", pytest.approx(1.0))]
    assert [candidate for candidate, _ in before["policy"]] == ["A"]
    await store.memories.touch(["nobody"])  # any write deletes the rows of expired memories
    assert comparable(await read_assemblies(store)) == comparable(before)


async def test_a_read_only_store_answers_without_expired_members_and_check_names_the_stored_composite(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store.db"
    async with memstore.open(path, dimension=2) as store:
        await add_pair(store)
    async with memstore.open(path, read_only=True) as reader:
        before = await read_assemblies(reader)
        assert before["get"].composite.tolist() == pytest.approx([0.995, 0.0995], abs=1e-3)
        assert [(finding.kind, finding.id) for finding in await reader.check()] == [("composite", "A")]
    assert not (await memstore.verify(path)).findings
    async with memstore.open(path) as store:
        await store.memories.touch(["nobody"])
        assert comparable(await read_assemblies(store)) == comparable(before)
        assert await store.check() == []


async def test_a_snapshot_keeps_its_members_and_composites_while_members_expire(store: Store) -> None:
    for id, vector in {"a": [1, 0.1], "b": [0, 1], "c": [1, 1]}.items():
        await store.memories.add(id, id=id, embedding=vector)
    await store.assemblies.add("A", members=["a", "b"])
    await store.assemblies.add("B", members=["c"])
    await store.memories.update("b", ttl=0.5)
    async with store.snapshot() as view:
        before = await read_assemblies(view)
        assert before["members"] == ["a", "b"]
        await expiry(store, "b")
        await store.memories.touch(["nobody"])
        assert (await store.assemblies.get("A")).member_count == 1
        assert comparable(await read_assemblies(view)) == comparable(before)


@pytest.mark.parametrize(
    "write",
    [
        lambda store: store.assemblies.update("A", name="x"),
        lambda store: store.assemblies.remove_members("A", ["nobody"]),
        lambda store: store.assemblies.add_members("A", []),
        lambda store: store.assemblies.upsert("A"),
    ],
    ids=["update", "remove_members", "add_members", "upsert"],
)
async def test_a_write_after_an_expiry_returns_the_assembly_that_a_read_returns(store: Store, write: Any) -> None:
    await add_pair(store)
    returned = await write(store)
    assert returned == await store.assemblies.get("A")
    assert returned.member_count == 1


async def test_a_merge_after_an_expiry_compares_the_composites_that_a_read_returns(store: Store) -> None:
    await add_pair(store)
    with pytest.raises(memstore.InvalidError, match=r"0\.77"):
        await store.assemblies.merge(["A", "B"], into="A", threshold=0.95)
    merge = await store.assemblies.merge(["B", "A"], into="B")
    assert merge.similarity == pytest.approx(0.774, abs=1e-3)
    assert (await store.assemblies.get_merged("A")).members == ("a",)


async def test_a_plan_made_after_an_expiry_can_be_applied(store: Store) -> None:
    await add_pair(store)
    plan = await store.assemblies.plan_forget(AssemblyForgetPolicy(members_below=2, where={"id": "A"}))
    assert await store.assemblies.forget(plan) == 1


# Undo and unmerge compare what they undo.


async def test_what_was_read_before_a_restore_undoes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("x", id="x", embedding=[1, 0])
        for id in "ABCE":
            await store.assemblies.add(id, members=["x"])
        await store.backup(tmp_path / "backup.db")
        merge = await store.assemblies.merge(["A", "B"], into="A")
        await store.memories.update("x", importance=0.9)
        change = (await store.memories.history("x"))[0]
        await memstore.restore_backup(tmp_path / "backup.db", path)
        other = await store.assemblies.merge(["C", "E"], into="C")
        await store.memories.update("x", content="a text worth keeping", embedding=[1, 0])
        assert merge.id == other.id
        assert change.number == (await store.memories.history("x"))[0].number
        with pytest.raises(ConflictError, match="backup was restored"):
            await store.assemblies.unmerge(merge)
        with pytest.raises(ConflictError, match="backup was restored"):
            await store.undo(change)
        assert (await store.memories.get("x")).content == "a text worth keeping"
        assert (await store.assemblies.lineage("E")).descendants[0].merge == other
        await store.assemblies.unmerge(other)


async def test_a_change_a_merge_and_a_plan_of_another_file_do_nothing(tmp_path: Path) -> None:
    changes, merges, plans = [], [], []
    for name in "ab":
        async with memstore.open(tmp_path / f"{name}.db", dimension=2) as store:
            await store.memories.add("precious", id="user:1")
            await store.assemblies.add("A", members=["user:1"])
            await store.assemblies.add("B", members=["user:1"])
            merges.append(await store.assemblies.merge(["A", "B"], into="A"))
            changes += await store.memories.history("user:1")
            plans.append(await store.memories.plan_forget(ForgetPolicy(where={"id": "user:1"})))
            if name == "b":
                for call in (
                    store.undo(changes[0]),
                    store.assemblies.unmerge(merges[0]),
                    store.memories.forget(plans[0]),
                ):
                    with pytest.raises(ConflictError):
                        await call
                assert await store.memories.count() == 1
                assert await store.assemblies.count() == 1


async def test_a_change_with_the_number_of_another_change_in_a_copied_file_undoes_nothing(tmp_path: Path) -> None:
    async with memstore.open(tmp_path / "a.db", dimension=2) as store:
        await store.memories.add("x", id="x")
    shutil.copy(tmp_path / "a.db", tmp_path / "b.db")
    async with memstore.open(tmp_path / "a.db") as store, memstore.open(tmp_path / "b.db") as copy:
        await store.memories.update("x", importance=0.9)
        await copy.memories.update("x", importance=0.1)
        with pytest.raises(ConflictError, match="another one"):
            await copy.undo((await store.memories.history("x"))[0])
        assert (await copy.memories.get("x")).importance == 0.1


async def test_a_change_of_a_savepoint_that_was_rolled_back_undoes_nothing(store: Store) -> None:
    await store.memories.add("x", id="x", importance=0.1)
    async with store.transaction() as tx:
        with contextlib.suppress(RuntimeError):
            async with tx.transaction() as nested:
                await nested.memories.update("x", importance=0.9)
                change = (await nested.memories.history("x"))[0]
                raise RuntimeError
        await tx.memories.update("x", tags={"kept"})
        assert (await tx.memories.history("x"))[0].number == change.number
        with pytest.raises(ConflictError, match="another one"):
            await tx.undo(change)
    assert (await store.memories.get("x")).tags == {"kept"}


async def test_suggestions_and_lists_as_of_a_time_do_not_outlive_a_restore(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add_many([{"id": f"{i:03}", "content": "x", "embedding": [1, 0]} for i in range(150)])
        await store.backup(tmp_path / "backup.db")
        suggestions = await store.assemblies.suggest(0.9)
        listed = store.memories.list(as_of=(await store.memories.history("000"))[0].at)
        await anext(listed)
        await memstore.restore_backup(tmp_path / "backup.db", path)
        result = await store.assemblies.create_from(suggestions)
        assert (result.assemblies, result.stale) == ((), suggestions.groups)
        with pytest.raises(ConflictError, match="restored"):
            [record async for record in listed]


# Damage in the history.


async def test_a_damaged_change_hides_no_other_and_is_named(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("one", id="a", embedding=[1, 2])
        await store.memories.update("a", content="two", embedding=[3, 4])
        await store.memories.update("a", content="three", embedding=[5, 6])
        execute(path, "UPDATE journal SET vector = zeroblob(8) WHERE pk = 2")
        third, second, first = await store.memories.history("a")
        assert [change.new["content"] for change in (third, second, first)] == ["three", "two", "one"]
        assert (third.damage, "embedding" in second.old) == (None, False)
        assert "damaged" in str(second.damage)
        (finding,) = await store.check()
        assert (finding.kind, finding.id, "change 2 " in finding.detail) == ("history", "a", True)
    assert (await memstore.verify(path)).findings == [finding]


# Undo and the trash.


async def test_undo_of_a_recovery_puts_the_record_back_into_the_trash(store: Store) -> None:
    await store.memories.add("m", id="m", embedding=[0, 1], tags={"t"})
    await store.assemblies.add("A", members=["m"])
    await forget(store, "m")
    await store.memories.recover(["m"])
    record = await store.memories.get("m")
    undo = await store.undo((await store.memories.history("m"))[0])
    assert undo.kind == "forgotten"
    assert await store.memories.count() == 0
    assert [entry.record async for entry in store.memories.trash()] == [record]
    with pytest.raises(ConflictError, match=r"in the trash. Call recover\(\)"):
        await store.undo(undo)
    await store.memories.recover(["m"])
    assert [id async for id in store.assemblies.members("A")] == ["m"]


async def test_undo_after_a_purge_says_that_the_record_was_purged(store: Store) -> None:
    await store.memories.add("m", id="m")
    await forget(store, "m")
    change = (await store.memories.history("m"))[0]
    await store.memories.purge(older_than=0)
    with pytest.raises((ConflictError, HistoryError), match="purged") as caught:
        await store.undo(change)
    assert "recover" not in str(caught.value)


async def test_a_change_that_changes_nothing_is_not_recorded_and_keeps_the_time(store: Store) -> None:
    await store.memories.add("m", id="m", embedding=[0, 1], tags={"t"}, metadata={"a": 1, "b": 2})
    await store.assemblies.add("A", members=["m"], name="n")
    memory, assembly = await store.memories.get("m"), await store.assemblies.get("A")
    other_order = {"b": 2, "a": 1}
    assert await store.memories.upsert("m", id="m", embedding=[0, 1], tags={"t"}, metadata=other_order) == memory
    assert await store.memories.update("m", metadata=other_order) == memory
    assert await store.memories.update("m", metadata_patch={"a": 1}) == memory
    assert await store.memories.update("m", importance=0.5, tags={"t"}) == memory
    assert await store.memories.update("m") == memory
    assert await store.tags.rename("t", "t") == 0
    assert await store.assemblies.add_members("A", ["m"]) == assembly
    assert await store.assemblies.remove_members("A", ["nobody"]) == assembly
    assert await store.assemblies.update("A", name="n") == assembly
    assert await store.assemblies.upsert("A", name="n", members=["m"]) == assembly
    assert len(await store.memories.history("m")) == len(await store.assemblies.history("A")) == 1
    assert (await store.memories.get("m"), await store.assemblies.get("A")) == (memory, assembly)
    await store.undo((await store.assemblies.history("A"))[0])


async def test_a_new_updated_at_alone_is_a_change(store: Store) -> None:
    await store.memories.add("m", id="m")
    later = (await store.memories.get("m")).updated_at + timedelta(days=1)
    assert (await store.memories.update("m", updated_at=later)).updated_at == later
    assert (await store.memories.upsert("m", id="m", updated_at=later + timedelta(days=1))).updated_at > later
    assert [change.kind for change in await store.memories.history("m")] == ["updated", "updated", "added"]


async def test_later_names_later_changes_only(store: Store) -> None:
    await store.memories.add("m", id="m", embedding=[0, 1])
    await store.assemblies.add("A", members=["m"])
    await forget(store, "m")
    await store.memories.recover(["m"])
    await store.assemblies.add("B", members=["m"])
    change = (await store.memories.history("m"))[0]
    with pytest.raises(ConflictError) as caught:
        await store.undo(change)
    assert caught.value.later == ((await store.assemblies.history("B"))[0].number,)
    assert min(caught.value.later) > change.number


async def test_an_undo_never_advises_an_undo_that_is_always_refused(store: Store) -> None:
    await store.memories.add_many([{"id": id, "content": id, "embedding": [1, 0]} for id in "mn"])
    await store.assemblies.add("A")
    await store.assemblies.add_members("A", ["m", "n"])
    added = (await store.assemblies.history("A"))[0]
    await store.memories.delete("m")
    await store.undo(added)  # the loss of a deleted member is no later change
    assert [id async for id in store.assemblies.members("A")] == []
    change = (await store.memories.history("n"))[0]
    await forget(store, "n")
    with pytest.raises(ConflictError, match=r"in the trash. Call recover\(\)"):
        await store.undo(change)


async def test_a_record_that_was_archived_and_came_back_is_as_it_was(store: Store) -> None:
    await store.memories.add("m", id="m", embedding=[0, 1])
    added = (await store.memories.history("m"))[0]
    for id in ("A", "B"):
        await store.assemblies.add(id, members=["m"])
    await store.assemblies.unmerge(await store.assemblies.merge(["A", "B"], into="B"))
    with pytest.raises(ConflictError, match="Undo change 3, 2 first"):
        await store.undo(added)
    for id in ("B", "A"):
        await store.undo((await store.assemblies.history(id))[-1])
    await forget(store, "m")
    await store.memories.recover(["m"])
    await store.undo(added)
    assert await store.memories.count() == 0


# Small promises.


async def test_a_member_that_is_deleted_forgotten_recovered_or_expires_moves_the_time_of_its_assembly(
    store: Store,
) -> None:
    await store.memories.add_many([{"id": id, "content": id} for id in "abc"])
    times = [(await store.assemblies.add("A", members=["a", "b", "c"])).updated_at]
    await store.memories.delete("a")
    times.append((await store.assemblies.get("A")).updated_at)
    await forget(store, "b")
    times.append((await store.assemblies.get("A")).updated_at)
    await store.memories.recover(["b"])
    times.append((await store.assemblies.get("A")).updated_at)
    expires_at = (await store.memories.update("c", ttl=0.1)).expires_at
    await expiry(store, "c")
    times.append((await store.assemblies.get("A")).updated_at)
    assert times == sorted(set(times))
    assert times[-1] == expires_at


async def test_an_actor_alone_keeps_the_reason_around_the_call(store: Store) -> None:
    await store.memories.add("m", id="m")
    with memstore.as_actor("nightly", reason="cleaning"):
        plan = await store.memories.plan_forget(ForgetPolicy(where={"id": "m"}))
        await store.memories.forget(plan, actor="ada")
    change = (await store.memories.history("m"))[0]
    assert (change.actor, change.reason) == ("ada", "cleaning")


async def test_compact_never_returns_a_negative_number(store: Store) -> None:
    for _ in range(3):
        assert await store.compact() >= 0
        await store.memories.add("x" * 100_000)


async def test_records_with_equal_values_come_in_one_order_everywhere(store: Store) -> None:
    ids = ["c", "a", "b"]
    await store.memories.add_many([{"id": id, "content": "x", "embedding": [1, 0]} for id in ids])
    await store.assemblies.add("A", members=sorted(ids))
    await store.memories.update("a", content="y", embedding=[1, 0])
    await store.memories.upsert("x", id="b", embedding=[1, 0], importance=0.5)
    assert [memory.id async for memory in store.memories.list()] == ids
    assert [memory.id async for memory in store.memories.list(order="importance")] == ids
    assert [id async for id in store.assemblies.members("A")] == ids
    assert [hit.memory.id for hit in await store.memories.search([1, 0])] == ids

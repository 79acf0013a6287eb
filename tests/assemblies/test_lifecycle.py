"""What one part of a record's life says to another: the trash, merges and proposals are in the history."""

from datetime import UTC, datetime

import numpy as np
import pytest

import memstore
from memstore import AssemblyForgetPolicy, ConflictError, ForgetPolicy, NotFoundError, Store
from memstore.models import AssemblySuggestion
from tests.conftest import vectors


@pytest.fixture
async def lived(store: Store, rng: np.random.Generator) -> Store:
    """Three memories, two of them in an assembly; each test ends with `check` finding nothing."""
    rows = vectors(rng, 3)
    await store.memories.add_many(
        [{"id": id, "content": id, "embedding": v} for id, v in zip("abc", rows, strict=True)]
    )
    await store.assemblies.add("g", name="G", members=["a", "b"], tags={"t"})
    await store.assemblies.add("h", members=["c"])
    return store


async def told(noun: memstore.Memories | memstore.Assemblies, id: str) -> list[tuple[str, str | None, str | None]]:
    return [(change.kind, change.actor, change.reason) for change in (await noun.history(id))[::-1]]


async def members(store: Store, id: str) -> list[str]:
    return [member async for member in store.assemblies.members(id)]


async def test_what_goes_to_the_trash_and_comes_back_is_in_the_history_with_whoever_asked(lived: Store) -> None:
    a = await lived.memories.get("a")
    before = datetime.now(UTC)
    plan = await lived.memories.plan_forget(ForgetPolicy(where={"id": "a"}))
    await lived.memories.forget(plan, actor="ada", reason="old")
    gone = datetime.now(UTC)
    with memstore.as_actor("bob", reason="after all"):
        await lived.memories.recover(["a"])
    assert await told(lived.memories, "a") == [
        ("added", None, None),
        ("forgotten", "ada", "old"),
        ("restored", "bob", "after all"),
    ]
    assert [(c.members_added, c.members_removed) for c in await lived.assemblies.history("g")][:2] == [
        (("a",), ()),
        ((), ("a",)),
    ]
    assert await lived.memories.get("a", as_of=before) == a
    with pytest.raises(NotFoundError):
        await lived.memories.get("a", as_of=gone)
    assert [m.id async for m in lived.memories.list(as_of=gone)] == ["b", "c"]
    assert (await lived.assemblies.get("g", as_of=gone)).member_count == 1
    assert await members(lived, "g") == ["a", "b"]


async def test_who_acts_is_who_put_it_in_the_trash_unless_another_is_named(lived: Store) -> None:
    with memstore.as_actor("nightly", reason="cleaning"):
        await lived.memories.forget(await lived.memories.plan_forget(ForgetPolicy(where={"id": "a"})))
        await lived.assemblies.forget(
            await lived.assemblies.plan_forget(AssemblyForgetPolicy(where={"id": "h"})), actor="ada"
        )
    assert [lying.actor async for lying in lived.memories.trash()] == ["nightly"]
    assert [lying.actor async for lying in lived.assemblies.trash()] == ["ada"]
    assert (await told(lived.assemblies, "h"))[-1][:2] == ("forgotten", "ada")


async def test_a_merge_and_its_undoing_are_in_the_history_of_all_of_them(lived: Store) -> None:
    before = datetime.now(UTC)
    was = await lived.assemblies.get("g")
    merge = await lived.assemblies.merge(["g", "h"], into="g", actor="ada", reason="one thing")
    merged = datetime.now(UTC)
    assert (await lived.assemblies.get("g", as_of=merged)).member_count == 3
    with memstore.as_actor("bob"):
        undone = await lived.assemblies.unmerge(merge)
    assert (merge.actor, undone.undone_at is not None) == ("ada", True)
    assert await told(lived.assemblies, "h") == [
        ("added", None, None),
        ("merged", "ada", "one thing"),
        ("restored", "bob", None),
    ]
    (after, into, _) = await lived.assemblies.history("g")
    assert (into.kind, into.actor, into.members_added, into.members_removed) == ("updated", "ada", ("c",), ())
    assert (after.kind, after.actor, after.members_added, after.members_removed) == ("updated", "bob", (), ("c",))
    then = await lived.assemblies.get("g", as_of=before)
    assert (then.name, then.tags, then.member_count) == (was.name, was.tags, was.member_count)
    assert np.array_equal(then.composite, was.composite)


async def test_a_merge_into_a_new_one_and_what_is_formed_were_added_by_whoever_asked(lived: Store) -> None:
    await lived.assemblies.merge(["g", "h"], into="new", actor="ada")
    assert await told(lived.assemblies, "new") == [("added", "ada", None)]
    (added,) = await lived.assemblies.history("new")
    assert added.members_added == ("a", "b", "c")
    await lived.assemblies.unmerge("new", actor="bob")
    assert (await told(lived.assemblies, "new"))[-1][:2] == ("deleted", "bob")
    await lived.assemblies.delete("g")
    proposal = AssemblySuggestion(leader="a", members=("a", "b"), similarity=0.5, id="made")
    await lived.assemblies.create_from([proposal], actor="cleo", reason="alike")
    assert await told(lived.assemblies, "made") == [("added", "cleo", "alike")]


async def test_what_lies_in_the_trash_is_brought_back_from_there_and_not_by_undoing(lived: Store) -> None:
    await lived.memories.forget(await lived.memories.plan_forget(ForgetPolicy(where={"id": "a"})))
    change = (await lived.memories.history("a"))[0]
    with pytest.raises(ConflictError, match="trash"):
        await lived.undo(change)
    await lived.assemblies.merge(["g", "h"], into="g")
    with pytest.raises(ConflictError, match="merge"):
        await lived.undo((await lived.assemblies.history("h"))[0])


async def test_a_store_without_a_past_forgets_merges_and_brings_back(path, rng: np.random.Generator) -> None:
    async with memstore.open(path, dimension=8, history="off") as store:
        rows = vectors(rng, 2)
        await store.memories.add_many(
            [{"id": id, "content": id, "embedding": v} for id, v in zip("ab", rows, strict=True)]
        )
        await store.assemblies.add("g", members=["a"])
        await store.assemblies.add("h", members=["b"])
        await store.memories.forget(await store.memories.plan_forget(ForgetPolicy(where={"id": "a"})), actor="ada")
        assert [lying.actor async for lying in store.memories.trash()] == ["ada"]
        await store.memories.recover(["a"])
        merge = await store.assemblies.merge(["g", "h"])
        await store.assemblies.unmerge(merge)
        assert await members(store, "g") == ["a"]
        assert await store.check() == []

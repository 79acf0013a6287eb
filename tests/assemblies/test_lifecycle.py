"""The trash, merges and suggestions in the history of records."""

from datetime import UTC, datetime

import numpy as np
import pytest

import memstore
from memstore import AssemblyForgetPolicy, ConflictError, ForgetPolicy, NotFoundError, Store
from memstore.models import AssemblySuggestion
from tests.conftest import vectors


@pytest.fixture
async def store(store: Store, rng: np.random.Generator) -> Store:
    """Three memories, two of them in an assembly; each test ends with `check` finding nothing."""
    rows = vectors(rng, 3)
    await store.memories.add_many(
        [{"id": id, "content": id, "embedding": v} for id, v in zip("abc", rows, strict=True)]
    )
    await store.assemblies.add("g", name="G", members=["a", "b"], tags={"t"})
    await store.assemblies.add("h", members=["c"])
    return store


async def recorded_changes(
    noun: memstore.Memories | memstore.Assemblies, id: str
) -> list[tuple[str, str | None, str | None]]:
    return [(change.kind, change.actor, change.reason) for change in (await noun.history(id))[::-1]]


async def members(store: Store, id: str) -> list[str]:
    return [member async for member in store.assemblies.members(id)]


async def test_forgetting_and_recovering_are_in_the_history_with_their_actors(store: Store) -> None:
    a = await store.memories.get("a")
    before = datetime.now(UTC)
    plan = await store.memories.plan_forget(ForgetPolicy(where={"id": "a"}))
    await store.memories.forget(plan, actor="ada", reason="old")
    forgotten_at = datetime.now(UTC)
    with memstore.as_actor("bob", reason="after all"):
        await store.memories.recover(["a"])
    assert await recorded_changes(store.memories, "a") == [
        ("added", None, None),
        ("forgotten", "ada", "old"),
        ("restored", "bob", "after all"),
    ]
    assert [(c.members_added, c.members_removed) for c in await store.assemblies.history("g")][:2] == [
        (("a",), ()),
        ((), ("a",)),
    ]
    assert await store.memories.get("a", as_of=before) == a
    with pytest.raises(NotFoundError):
        await store.memories.get("a", as_of=forgotten_at)
    assert [m.id async for m in store.memories.list(as_of=forgotten_at)] == ["b", "c"]
    assert (await store.assemblies.get("g", as_of=forgotten_at)).member_count == 1
    assert await members(store, "g") == ["a", "b"]


async def test_the_surrounding_actor_is_stored_in_the_trash_unless_a_verb_names_another(
    store: Store,
) -> None:
    with memstore.as_actor("nightly", reason="cleaning"):
        await store.memories.forget(await store.memories.plan_forget(ForgetPolicy(where={"id": "a"})))
        await store.assemblies.forget(
            await store.assemblies.plan_forget(AssemblyForgetPolicy(where={"id": "h"})), actor="ada"
        )
    assert [lying.actor async for lying in store.memories.trash()] == ["nightly"]
    assert [lying.actor async for lying in store.assemblies.trash()] == ["ada"]
    assert (await recorded_changes(store.assemblies, "h"))[-1][:2] == ("forgotten", "ada")


async def test_a_merge_and_its_undo_are_in_the_history_of_every_assembly(store: Store) -> None:
    before = datetime.now(UTC)
    was = await store.assemblies.get("g")
    merge = await store.assemblies.merge(["g", "h"], into="g", actor="ada", reason="one thing")
    merged = datetime.now(UTC)
    assert (await store.assemblies.get("g", as_of=merged)).member_count == 3
    with memstore.as_actor("bob"):
        undone = await store.assemblies.unmerge(merge)
    assert (merge.actor, undone.undone_at is not None) == ("ada", True)
    assert await recorded_changes(store.assemblies, "h") == [
        ("added", None, None),
        ("merged", "ada", "one thing"),
        ("restored", "bob", None),
    ]
    (after, into, _) = await store.assemblies.history("g")
    assert (into.kind, into.actor, into.members_added, into.members_removed) == ("updated", "ada", ("c",), ())
    assert (after.kind, after.actor, after.members_added, after.members_removed) == ("updated", "bob", (), ("c",))
    then = await store.assemblies.get("g", as_of=before)
    assert (then.name, then.tags, then.member_count) == (was.name, was.tags, was.member_count)
    assert np.array_equal(then.composite, was.composite)


async def test_new_assemblies_of_a_merge_and_of_suggestions_have_the_actor_of_the_verb(
    store: Store,
) -> None:
    await store.assemblies.merge(["g", "h"], into="new", actor="ada")
    assert await recorded_changes(store.assemblies, "new") == [("added", "ada", None)]
    (added,) = await store.assemblies.history("new")
    assert added.members_added == ("a", "b", "c")
    await store.assemblies.unmerge("new", actor="bob")
    assert (await recorded_changes(store.assemblies, "new"))[-1][:2] == ("deleted", "bob")
    await store.assemblies.delete("g")
    proposal = AssemblySuggestion(leader="a", members=("a", "b"), similarity=0.5, id="made")
    await store.assemblies.create_from([proposal], actor="cleo", reason="alike")
    assert await recorded_changes(store.assemblies, "made") == [("added", "cleo", "alike")]


async def test_undo_refuses_forgotten_and_merged_records(store: Store) -> None:
    await store.memories.forget(await store.memories.plan_forget(ForgetPolicy(where={"id": "a"})))
    change = (await store.memories.history("a"))[0]
    with pytest.raises(ConflictError, match="trash"):
        await store.undo(change)
    await store.assemblies.merge(["g", "h"], into="g")
    with pytest.raises(ConflictError, match="merge"):
        await store.undo((await store.assemblies.history("h"))[0])


async def test_a_store_without_history_forgets_merges_and_recovers(path, rng: np.random.Generator) -> None:
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

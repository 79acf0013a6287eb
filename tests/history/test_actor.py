"""The actor and the reason of a change: `as_actor`, and the arguments of verbs."""

import pytest

import memstore
from memstore import ForgetPolicy, Store

Recorded = tuple[str, str | None, str | None]


async def last_change(store: Store, id: str) -> Recorded:
    change = (await store.memories.history(id, limit=1))[0]
    return change.kind, change.actor, change.reason


async def forget(store: Store, id: str, **arguments: str) -> None:
    plan = await store.memories.plan_forget(ForgetPolicy(where={"id": id}))
    assert await store.memories.forget(plan, **arguments) == 1


@pytest.fixture
async def store(store: Store) -> Store:
    await store.memories.add_many([{"id": id, "content": "text"} for id in "abcde"])
    return store


async def test_arguments_of_a_verb_replace_what_is_around_it_for_that_verb_alone_and_keep_the_rest(
    store: Store,
) -> None:
    with memstore.as_actor("nightly", reason="cleaning"):
        await forget(store, "a")
        await forget(store, "b", actor="ada")
        await forget(store, "c", reason="old")
        await store.memories.delete("d")
    await store.memories.delete("e")
    assert await last_change(store, "a") == ("forgotten", "nightly", "cleaning")
    assert await last_change(store, "b") == ("forgotten", "ada", "cleaning")
    assert await last_change(store, "c") == ("forgotten", "nightly", "old")
    assert await last_change(store, "d") == ("deleted", "nightly", "cleaning")
    assert await last_change(store, "e") == ("deleted", None, None)


async def test_arguments_of_a_verb_in_a_transaction_apply_to_that_verb_only(store: Store) -> None:
    async with store.transaction() as tx:
        plan = await tx.memories.plan_forget(ForgetPolicy(where={"id": "a"}))
        await tx.memories.forget(plan, actor="ada", reason="old")
        await tx.memories.delete("b")
        with memstore.as_actor("bob"):
            await tx.memories.recover(["a"])
    assert await last_change(store, "a") == ("restored", "bob", None)
    assert await last_change(store, "b") == ("deleted", None, None)
    assert (await store.memories.history("a"))[1].actor == "ada"


async def test_a_verb_that_fails_leaves_the_actor_around_it_in_place(store: Store) -> None:
    with memstore.as_actor("nightly"):
        with pytest.raises(memstore.NotFoundError):
            await store.memories.recover(["a"], actor="ada")
        await store.memories.delete("a")
    assert await last_change(store, "a") == ("deleted", "nightly", None)

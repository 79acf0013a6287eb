"""The actor and the reason of a change: `as_actor`, and the arguments of verbs."""

import asyncio

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
async def stored(store: Store) -> Store:
    await store.memories.add_many([{"id": id, "content": "text"} for id in "abcde"])
    return store


async def test_arguments_of_a_verb_replace_the_actor_and_the_reason_around_it_for_that_verb_alone(
    stored: Store,
) -> None:
    with memstore.as_actor("nightly", reason="cleaning"):
        await forget(stored, "a")
        await forget(stored, "b", actor="ada")
        await forget(stored, "c", reason="old")
        await stored.memories.delete("d")
    await stored.memories.delete("e")
    assert await last_change(stored, "a") == ("forgotten", "nightly", "cleaning")
    assert await last_change(stored, "b") == ("forgotten", "ada", "where")  # without a reason: the criteria
    assert await last_change(stored, "c") == ("forgotten", "nightly", "old")
    assert await last_change(stored, "d") == ("deleted", "nightly", "cleaning")
    assert await last_change(stored, "e") == ("deleted", None, None)


async def test_arguments_of_a_verb_in_a_transaction_apply_to_that_verb_only(stored: Store) -> None:
    async with stored.transaction() as tx:
        plan = await tx.memories.plan_forget(ForgetPolicy(where={"id": "a"}))
        await tx.memories.forget(plan, actor="ada", reason="old")
        await tx.memories.delete("b")
        with memstore.as_actor("bob"):
            await tx.memories.recover(["a"])
    assert await last_change(stored, "a") == ("restored", "bob", None)
    assert await last_change(stored, "b") == ("deleted", None, None)
    assert (await stored.memories.history("a"))[1].actor == "ada"


async def test_a_verb_that_fails_leaves_the_actor_around_it_in_place(stored: Store) -> None:
    with memstore.as_actor("nightly"):
        with pytest.raises(memstore.NotFoundError):
            await stored.memories.recover(["a"], actor="ada")
        await stored.memories.delete("a")
    assert await last_change(stored, "a") == ("deleted", "nightly", None)


async def test_writes_of_different_actors_at_the_same_time_share_a_transaction_and_keep_their_actors(
    stored: Store,
) -> None:
    async def add(number: int) -> None:
        with memstore.as_actor(f"actor {number % 3}"):
            await stored.memories.add("text", id=f"m{number}")

    await asyncio.gather(*(add(number) for number in range(12)))
    for number in range(12):
        assert await last_change(stored, f"m{number}") == ("added", f"actor {number % 3}", None)

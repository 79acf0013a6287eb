"""Lists of namespaces by pattern, and the deletion of expired memories."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memstore
from memstore import InvalidError, ReadOnlyError, Store

Namespace = tuple[str, ...]
PARTS = ["a", "b", "*", "a-b", "a/b", "", "é", "z"]


def oracle(
    spaces: set[Namespace], owner: Namespace, prefix: Namespace, suffix: Namespace, depth: int | None
) -> list[Namespace]:
    """What `namespaces` is documented to return, without limit and offset."""

    def fits(pattern: Namespace, parts: Namespace) -> bool:
        return len(parts) == len(pattern) and all(p in ("*", part) for p, part in zip(pattern, parts, strict=True))

    selected: set[Namespace] = set()
    for space in spaces:
        if space[: len(owner)] != owner:
            continue
        below = space[len(owner) :]
        if not fits(prefix, below[: len(prefix)]):
            continue
        if suffix and not fits(suffix, below[-len(suffix) :]):
            continue
        selected.add(space if depth is None else owner + below[:depth])
    return sorted(selected)


async def test_the_namespaces_of_a_pattern_are_those_of_a_slow_oracle(store: Store, rng: np.random.Generator) -> None:
    spaces = {tuple(rng.choice(PARTS, size=rng.integers(0, 5)).tolist()) for _ in range(150)}
    await store.memories.add_many([{"content": "x", "namespace": space} for space in spaces])
    await store.assemblies.add_many([{"id": "g", "namespace": ("only", "assembly")}])
    spaces.add(("only", "assembly"))
    for _ in range(300):
        owner, prefix, suffix = (tuple(rng.choice(PARTS, size=rng.integers(0, 3)).tolist()) for _ in range(3))
        depth = int(rng.integers(0, 4)) or None
        expected = oracle(spaces, owner, prefix, suffix, depth)
        handle = store.namespace(*owner)
        assert await handle.namespaces(prefix, suffix=suffix, depth=depth) == expected
        offset, limit = int(rng.integers(0, 4)), int(rng.integers(1, 9))
        actual = await handle.namespaces(prefix, suffix=suffix, depth=depth, offset=offset, limit=limit)
        assert actual == expected[offset : offset + limit]


async def test_a_pattern_selects_tenants_and_kinds(store: Store) -> None:
    spaces = [("users", user, kind) for user in ("ada", "bob") for kind in ("facts", "chats")]
    await store.memories.add_many([{"content": "x", "namespace": space} for space in [*spaces, ("users", "ada")]])
    assert await store.namespaces(("users", "*", "facts")) == [("users", "ada", "facts"), ("users", "bob", "facts")]
    assert await store.namespaces(suffix=("chats",)) == [("users", "ada", "chats"), ("users", "bob", "chats")]
    assert await store.namespaces(("users",), depth=2) == [("users", "ada"), ("users", "bob")]
    assert await store.namespace("users").namespaces(depth=1) == [("users", "ada"), ("users", "bob")]
    assert await store.namespaces(depth=2, limit=1, offset=1) == [("users", "bob")]
    async with store.snapshot() as view:
        await store.namespace("late").memories.add("x")
        assert await view.namespaces(depth=1) == [("users",)]
    async with store.transaction() as tx:
        await tx.namespace("tx").memories.add("x")
        assert ("tx",) in await tx.namespaces()


async def test_wrong_arguments_of_a_list_of_namespaces_are_refused(store: Store) -> None:
    wrong: list[dict[str, Any]] = [
        {"prefix": "a"},
        {"prefix": ["a"]},
        {"suffix": ("a", 1)},
        {"depth": 0},
        {"depth": "1"},
        {"limit": 0},
        {"offset": -1},
        {"prefix": ("x",) * 33},
    ]
    for arguments in wrong:
        with pytest.raises(InvalidError):
            await store.namespaces(**arguments)


# -- expired memories


async def expire(store: Store, count: int) -> None:
    items = [{"content": "x", "id": f"e{i}", "namespace": ("n",) * (i % 2), "ttl": 0.001} for i in range(count)]
    await store.memories.add_many(items)
    await asyncio.sleep(0.01)


async def test_purge_expired_deletes_all_of_them_and_counts_those_of_the_namespace(store: Store) -> None:
    await store.memories.add("stays", id="s")
    await expire(store, 3_000)
    assert await store.memories.count(recursive=True) == 1
    assert await store.memories.purge_expired(recursive=True) == 3_000
    assert await store.memories.purge_expired(recursive=True) == 0
    await expire(store, 5)
    assert await store.namespace("n").memories.purge_expired() == 2
    assert await store.memories.purge_expired() == 0  # the rows of all namespaces were deleted
    assert await store.memories.get("s")


async def test_purge_expired_in_a_transaction_and_where_nothing_can_be_written(store: Store, path: Path) -> None:
    await expire(store, 4)
    async with store.transaction() as tx:
        await tx.memories.add("x", id="e0")
        assert await tx.memories.purge_expired(recursive=True) == 0  # the begin of the transaction deleted them
    async with store.snapshot() as view:
        with pytest.raises(ReadOnlyError):
            await view.memories.purge_expired()
    async with memstore.open(path, read_only=True) as reader:
        with pytest.raises(ReadOnlyError):
            await reader.memories.purge_expired()

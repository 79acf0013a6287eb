"""How much the file is read: statements of a batch of many namespaces, and records that a list or search skips."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection

from memstore import Store
from memstore.database import raw
from memstore.repository import assemblies, memories
from memstore.repository.context import WriteContext
from tests.conftest import vectors


def items(count: int) -> list[dict[str, Any]]:
    return [
        {"id": "own", "content": "x", "namespace": ("user", f"{i}"), "tags": {"t", f"t{i}"}, "embedding": [1.0] * 8}
        for i in range(count)
    ]


@asynccontextmanager
async def statements(store: Store) -> AsyncIterator[list[str]]:
    """The statements that the writer runs meanwhile."""
    texts: list[str] = []

    def trace(text: str) -> None:
        if text not in texts[-1:]:  # each statement of a trigger is traced as the statement that fired it
            texts.append(text)

    def set_trace(context: WriteContext, function: Callable[[str], None] | None) -> None:
        raw(context.connection).set_trace_callback(function)

    await store._session.write(lambda context: set_trace(context, trace))
    texts.clear()
    yield texts
    await store._session.write(lambda context: set_trace(context, None))


@pytest.mark.parametrize("verb", ["add_many", "upsert_many", "on_duplicate"])
async def test_a_batch_of_many_namespaces_takes_statements_by_hundreds_of_items(store: Store, verb: str) -> None:
    calls: dict[str, Callable[[list[dict[str, Any]]], Awaitable[Any]]] = {
        "add_many": store.memories.add_many,
        "upsert_many": store.memories.upsert_many,
        "on_duplicate": lambda batch: store.memories.add_many(batch, on_duplicate="skip"),
    }
    counts: list[int] = []
    for count in (200, 1_000):
        async with statements(store) as texts:
            await calls[verb]([{**item, "id": f"{count}"} for item in items(count)])
            counts.append(len(texts))
    assert counts[1] < 250  # 20 steps of a hundred, and about ten statements for each
    assert counts[1] < 5.5 * counts[0]


async def test_get_many_of_many_namespaces_takes_statements_by_hundreds_of_pairs(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.memories.add_many(items(500))
    texts: list[str] = []

    def traced(connection: Connection) -> dict[Any, Any]:
        raw(connection).set_trace_callback(texts.append)
        try:
            return original(connection)
        finally:
            raw(connection).set_trace_callback(None)

    original: Any = None
    read = store._session.read

    async def read_traced(function: Callable[[Connection], Any]) -> Any:
        nonlocal original
        original = function
        return await read(traced)

    monkeypatch.setattr(store._session, "read", read_traced)
    records = await store.memories.get_many([(("user", f"{i}"), "own") for i in range(500)])
    assert len(records) == 500
    assert len(texts) < 40


async def test_skipped_records_are_not_read(
    store: Store, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = vectors(rng, 300)
    await store.memories.add_many([{"id": f"{i}", "content": "x", "embedding": row} for i, row in enumerate(rows)])
    await store.assemblies.add_many([{"id": f"{i}", "members": [f"{i}"]} for i in range(30)])
    keys: list[int] = []
    for module in (memories, assemblies):
        original = module.read

        def read(
            connection: Any, space: Any, requested: Any, *more: Any, original: Any = original, **options: Any
        ) -> Any:
            keys.extend(requested)
            return original(connection, space, requested, *more, **options)

        monkeypatch.setattr(module, "read", read)

    async def count(reads: Awaitable[Any]) -> int:
        keys.clear()
        await reads
        return len(keys)

    async def listed(noun: Any, **options: Any) -> list[Any]:
        return [record async for record in noun.list(**options)]

    assert await count(listed(store.memories, offset=250, limit=20)) == 20
    assert await count(listed(store.assemblies, offset=20, limit=5)) == 5
    assert await count(store.memories.search(rows[0], 5, offset=200)) == 5
    assert await count(store.assemblies.search(rows[0], 5, offset=20)) == 5
    assert await count(store.memories.page(limit=7)) == 7
    assert await count(store.memories.vectors()) == 0

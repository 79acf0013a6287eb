"""A program as users write it, which mypy --strict and pyright accept. It is checked, not run."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import assert_type

import numpy as np
import numpy.typing as npt

import memstore
from memstore.models import AddResult, AssemblyItem, Json, MemoryItem, Page


def names() -> list[str]:
    return ["a"]


class Lists:
    """An embedder typed with lists."""

    name = "lists"
    dimension = 3

    def embed(self, texts: list[str]) -> list[list[float]]:
        return [[1.0, 0.0, 0.0] for _ in texts]


class Arrays:
    """An asynchronous embedder without a dimension, typed with a sequence and an array."""

    name: str = "arrays"

    async def embed(self, inputs: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.ones((len(inputs), 3), dtype=np.float32)


async def metadata(store: memstore.Store) -> None:
    mixed = {"tags": names(), "n": 1}
    lists: dict[str, list[str]] = {"a": names()}
    nested: dict[str, dict[str, int]] = {"a": {"b": 1}}
    objects: dict[str, object] = {"a": 1}
    await store.memories.add("x", embedding=[1, 0, 0], metadata=mixed)
    await store.memories.add("x", embedding=[1, 0, 0], metadata=lists)
    await store.memories.upsert("x", id="x", metadata=nested)
    await store.memories.update("x", metadata=objects, metadata_patch=lists)
    await store.assemblies.add("a", metadata=lists)


async def vectors(store: memstore.Store) -> None:
    floats: list[float] = [1.0, 0.0, 0.0]
    scalars = [np.float32(1)] * 3
    integers = np.ones(3, dtype=np.int64)
    for vector in (floats, scalars, integers, np.ones(3)):
        await store.memories.search(vector)
    await store.memories.search_many([floats, floats])
    await store.memories.search_many(np.ones((2, 3)))
    await store.memories.add("x", embedding=integers)
    await store.memories.add("x", embedding=None)


async def items(store: memstore.Store) -> None:
    typed: list[MemoryItem] = [{"content": "x", "tags": {"a"}, "metadata": {"a": [1]}}, {"content": "y", "id": "y"}]
    plain: list[dict[str, object]] = [{"content": "x"}]
    groups: list[AssemblyItem] = [{"id": "g", "members": ["y"]}]

    async def stream() -> AsyncIterator[MemoryItem]:
        for item in typed:
            yield item

    assert_type(await store.memories.add_many(typed), list[memstore.Memory])
    await store.memories.add_many(plain)
    await store.memories.upsert_many([{"content": "x", "id": "y"}])
    await store.assemblies.add_many(groups)
    await store.load(typed)
    await store.load(stream())


async def reads(store: memstore.Store) -> None:
    where = {"metadata.n": {"$gt": 1}}
    hits = await store.memories.search("tea", where=where)
    assert_type(hits, memstore.Hits[memstore.Hit])
    assert_type(hits[0].memory.metadata, dict[str, Json])
    assert_type(hits[0].memory.embedding, npt.NDArray[np.float32] | None)
    assert_type(await store.memories.get("x"), memstore.Memory)
    assert_type(await store.assemblies.search([1, 0, 0]), memstore.Hits[memstore.AssemblyHit])
    assert_type([memory async for memory in store.memories.list()], list[memstore.Memory])
    async with store.transaction() as tx:
        assert_type(tx, memstore.Transaction)
        await tx.memories.add("x")
    with memstore.as_actor("ada"):
        await store.namespace("user", "ada").memories.add("x")


async def batches(store: memstore.Store) -> None:
    memories, assemblies = store.memories, store.assemblies
    assert_type(await memories.add("x", on_duplicate="skip"), AddResult[memstore.Memory])
    assert_type(await memories.add("x", id="a", tags={"t"}, importance=1), memstore.Memory)
    assert_type(await assemblies.add("g", name="n", on_duplicate="replace"), AddResult[memstore.Assembly])
    results = await memories.add_many([{"content": "x", "namespace": ("a", "b")}], on_duplicate="replace")
    assert_type(results, list[AddResult[memstore.Memory]])
    assert_type(await memories.update_many(ids=["a"], importance=0.5, metadata_patch={"a": None}), int)
    assert_type(await assemblies.update_many(where={"name": "n"}, topics=["a"]), int)
    assert_type(await memories.get_many(["a"]), dict[str, memstore.Memory])
    pairs: list[tuple[tuple[str, ...], str]] = [(("a", "b"), "x"), ((), "y")]
    assert_type(await assemblies.get_many(pairs), dict[tuple[tuple[str, ...], str], memstore.Assembly])
    assert_type(await memories.touch(["a"], ttl=60), int)
    assert_type(await memories.purge_expired(recursive=True), int)
    assert_type(await store.namespaces(("a", "*"), depth=1), list[tuple[str, ...]])


async def pages(store: memstore.Store) -> None:
    page = await store.assemblies.page(limit=10)
    assert_type(page, Page[memstore.Assembly])
    await store.assemblies.page(limit=10, after=page.next)
    assert_type((await store.memories.vectors(tags={"t"})).matrix, npt.NDArray[np.float32])
    async with store.snapshot() as view:
        assert_type(await view.namespace("a").memories.get("x", embeddings=False), memstore.Memory)
        assert_type(await view.memories.search("tea", offset=10), memstore.Hits[memstore.Hit])


async def main() -> None:
    async with memstore.open("a.db", embedder=Lists()) as store:
        await metadata(store)
        await vectors(store)
    async with memstore.open("b.db", embedder=Arrays()) as store:
        await items(store)
        await reads(store)
        await batches(store)
        await pages(store)
    embedder: memstore.Embedder = Lists()
    store = await memstore.open("c.db", embedder=embedder, dimension=3)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main())

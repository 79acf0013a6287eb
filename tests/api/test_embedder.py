"""Embedders: called off the loop, checked, and never the cause of half a write."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import memstore
from memstore import EmbedderError, InvalidError
from memstore.testing import HashEmbedder, temporary_store


class WaitingEmbedder(HashEmbedder):
    """An embedder that waits in `embed` until it may go on."""

    def __init__(self, dimension: int) -> None:
        super().__init__(dimension)
        self.entered, self.go = threading.Event(), threading.Event()

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.entered.set()
        assert self.go.wait(60)
        return super().embed(texts)


async def test_texts_are_stored_and_searched_without_vectors() -> None:
    async with temporary_store() as store:
        await store.memories.add_many([{"content": "green tea in the morning"}, {"content": "a train to the north"}])
        await store.memories.add("black coffee in the evening", id="c")
        hits = await store.memories.search("tea")
        assert hits[0].memory.content == "green tea in the morning"
        assert [
            h[0].memory.id for h in await store.memories.search_many(["coffee", HashEmbedder().embed(["coffee"])[0]])
        ] == ["c"] * 2
        changed = await store.memories.update("c", content="a cup of tea")
        assert changed.embedding.tobytes() == HashEmbedder().embed(["a cup of tea"])[0].tobytes()
        await store.memories.upsert("a slow train", id="c")
        assert (await store.memories.search("slow train"))[0].memory.id == "c"
        silent = await store.memories.add("no vector wanted", embedding=None)
        assert silent.embedding is None
        assert await store.check() == []


async def test_a_vector_given_is_not_made_again() -> None:
    class Refusing(HashEmbedder):
        def embed(self, texts: Sequence[str]) -> np.ndarray:
            raise AssertionError(texts)

    async with temporary_store(embedder=Refusing(2)) as store:
        await store.memories.add("x", id="x", embedding=[1, 2])
        await store.memories.update("x", content="y", embedding=[2, 1])
        await store.memories.update("x", tags={"t"})


async def test_an_async_embedder_will_do_and_a_plain_one_runs_off_the_loop_one_call_at_a_time() -> None:
    threads: set[int] = set()
    running = 0

    class Plain(HashEmbedder):
        def embed(self, texts: Sequence[str]) -> np.ndarray:
            nonlocal running
            running += 1
            assert running == 1
            threads.add(threading.get_ident())
            output = super().embed(texts)
            running -= 1
            return output

    class Asynchronous(HashEmbedder):
        async def embed(self, texts: Sequence[str]) -> np.ndarray:
            await asyncio.sleep(0)
            return super().embed(texts)

    async with temporary_store(embedder=Plain(4)) as store:
        await asyncio.gather(*(store.memories.add(f"text {i}") for i in range(20)))
    assert threading.get_ident() not in threads
    assert len(threads) == 1
    async with temporary_store(embedder=Asynchronous(4)) as store:
        await store.memories.add("x")
        assert len(await store.memories.search("x")) == 1


@pytest.mark.parametrize(
    "output",
    [
        np.full((1, 2), np.nan),
        np.zeros((1, 2)),
        np.ones((2, 2)),
        np.ones((1, 3)),
        [["a", "b"]],
        None,
        5,
        "text",
    ],
)
async def test_what_cannot_be_stored_is_refused_and_nothing_is(output: object) -> None:
    class Broken(HashEmbedder):
        def embed(self, texts: Sequence[str]) -> object:
            return output

    async with temporary_store(embedder=Broken(2)) as store:
        with pytest.raises(EmbedderError, match=r"hash-2-0"):
            await store.memories.add("a text")
        with pytest.raises(EmbedderError):
            await store.memories.search("a text")
        assert await store.memories.count() == 0


async def test_stop_iteration_in_it_hangs_nothing_and_closing_tells_those_who_wait() -> None:
    class Stopping(HashEmbedder):
        def embed(self, texts: Sequence[str]) -> np.ndarray:
            return next(iter(()))

    waits = WaitingEmbedder(2)
    async with asyncio.timeout(60):
        async with temporary_store(embedder=Stopping(2)) as store:
            with pytest.raises(RuntimeError, match="StopIteration"):
                await store.memories.add("a text")
        async with temporary_store(embedder=waits) as store:
            waiting = [asyncio.create_task(store.memories.add(f"{i}")) for i in range(3)]
            await asyncio.sleep(0.05)
            await store.close()
            waits.go.set()
            outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(outcome, memstore.ClosedError) for outcome in outcomes), outcomes


async def test_its_failure_is_raised_unchanged_and_holds_no_lock() -> None:
    class Failing(HashEmbedder):
        def embed(self, texts: Sequence[str]) -> np.ndarray:
            raise ConnectionError("no model today")

    async with temporary_store(embedder=Failing(2)) as store:
        with pytest.raises(ConnectionError, match="no model today"):
            await store.memories.add_many([{"content": "a"}, {"content": "b", "embedding": [1, 2]}])
        assert await store.memories.count() == 0
        await store.memories.add("given", embedding=[1, 2])


async def test_it_is_called_before_the_writer_lock_is_taken() -> None:
    waits = WaitingEmbedder(2)
    async with temporary_store(embedder=waits) as store:
        slow = asyncio.create_task(store.memories.add("slow"))
        while not waits.entered.is_set():
            await asyncio.sleep(0.001)
        async with asyncio.timeout(60):
            await store.memories.add("quick", embedding=[1, 2])
        waits.go.set()
        await slow
        assert await store.memories.count() == 2


async def test_text_without_an_embedder_says_what_to_do(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        with pytest.raises(EmbedderError, match="open it with embedder="):
            await store.memories.search("text")
        with pytest.raises(InvalidError):
            await store.memories.search_many("text")
    with pytest.raises(InvalidError, match="makes vectors of dimension 64"):
        memstore.open(path, embedder=HashEmbedder(), dimension=2)

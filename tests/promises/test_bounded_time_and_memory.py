"""Nothing hangs, blocks other calls, or grows without limit."""

import asyncio
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

import memstore
from memstore.testing import HashEmbedder
from tests.support.programs import run_python
from tests.support.sql import execute
from tests.support.waiting import eventually

# Reads.


async def test_a_get_does_not_wait_for_long_reads(path: Path) -> None:
    async with memstore.open(path, dimension=2, index="exact") as store:
        await store.memories.add_many([{"content": "x", "id": f"{i}", "embedding": [1, i]} for i in range(5_000)])
        tasks = [asyncio.create_task(store.check()) for _ in range(20)]
        await asyncio.sleep(0)
        assert (await store.memories.get("7")).id == "7"
        assert sum(task.done() for task in tasks) < 10
        assert await asyncio.gather(*tasks) == [[]] * 20


async def test_reads_whose_callers_gave_up_do_not_delay_the_next_one(path: Path) -> None:
    async with memstore.open(path, dimension=2, index="exact") as store:
        await store.memories.add_many([{"content": "x", "id": f"{i}", "embedding": [1, i]} for i in range(5_000)])
        reference = asyncio.create_task(store.check())
        for _ in range(300):
            with suppress(TimeoutError):
                async with asyncio.timeout(0.001):
                    await store.check()
        assert (await store.memories.get("7")).id == "7"
        async with asyncio.timeout(100):
            assert await store.check() == await reference == []


# Embedders.


class SlowEmbedder(HashEmbedder):
    """Waits in `embed`, for ever or for a time, for texts that contain "slow"."""

    def __init__(self, seconds: float | None = None) -> None:
        super().__init__(8)
        self.seconds = seconds
        self.calls: list[list[str]] = []
        self.running = self.most = 0

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.calls.append(list(texts))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if "boom" in texts:
                raise ConnectionError("429")
            if any("slow" in text for text in texts):
                threading.Event().wait(self.seconds)
            return super().embed(texts)
        finally:
            self.running -= 1


async def test_an_embedder_that_never_returns_blocks_only_its_own_call(path: Path) -> None:
    async with memstore.open(path, embedder=SlowEmbedder(), timeout=4.0) as store:
        slow = asyncio.create_task(store.memories.add("slow"))
        await asyncio.sleep(0)
        async with asyncio.timeout(60):
            await store.memories.add("quick")
            assert len(await store.memories.search("quick")) == 1
        assert not slow.done()
        with pytest.raises(TimeoutError, match=r"did not return in 4 s for 1 texts") as caught:
            await slow
        assert isinstance(caught.value, memstore.EmbedderError)


async def test_an_asynchronous_embedder_that_refuses_to_end_obeys_the_timeout(path: Path) -> None:
    class Refusing(HashEmbedder):
        async def embed(self, texts: Sequence[str]) -> np.ndarray:
            while "slow" in texts:
                with suppress(asyncio.CancelledError):
                    await released.wait()
                    break
            return super().embed(texts)

    released = asyncio.Event()
    async with memstore.open(path, embedder=Refusing(), timeout=1.0) as store:
        with pytest.raises(TimeoutError):
            await store.memories.add("slow")
        await store.memories.add("quick")
    released.set()


def test_an_embedder_that_never_returns_does_not_keep_the_process_alive(path: Path) -> None:
    program = """
import asyncio, sys, threading
import memstore

class Hanging:
    name = "hanging"
    def embed(self, texts):
        threading.Event().wait()

async def main():
    async with memstore.open(sys.argv[1], embedder=Hanging(), timeout=0.2) as store:
        try:
            await store.memories.add("x")
        except TimeoutError:
            print("ended")
asyncio.run(main())
"""
    assert run_python("-c", program, path, timeout=60).stdout == "ended\n"


async def test_calls_that_never_return_do_not_add_up(path: Path) -> None:
    embedder = SlowEmbedder()
    async with memstore.open(path, embedder=embedder) as store:
        for _ in range(30):
            with suppress(TimeoutError, memstore.EmbedderError):
                async with asyncio.timeout(0.01):
                    await store.memories.add("slow")
        assert embedder.running <= 16
        with pytest.raises(memstore.EmbedderError, match="16 calls of the embedder have not returned"):
            await store.memories.add("quick")


async def test_an_embedder_that_states_its_concurrency_is_never_called_more_often_at_once(path: Path) -> None:
    embedder = SlowEmbedder(1.2)
    embedder.concurrency = 1
    async with memstore.open(path, embedder=embedder, timeout=2.0) as store:
        await asyncio.gather(store.memories.add("slow"), store.memories.add("quick"))  # half of the timeout passes
        assert embedder.most == 1


@pytest.mark.parametrize(("concurrency", "most"), [(None, 1), (3, 3)])
async def test_batches_run_at_the_same_time_up_to_the_number_of_the_embedder(
    path: Path, concurrency: int | None, most: int
) -> None:
    embedder = SlowEmbedder(0.05)
    if concurrency is not None:
        embedder.concurrency = concurrency
    async with memstore.open(path, embedder=embedder) as store:
        await store.load({"content": f"slow {i}"} for i in range(2_000))
        assert embedder.most == most
        assert (await store.memories.search("slow 7"))[0].score == pytest.approx(1)


async def test_batches_of_an_asynchronous_embedder_run_four_at_a_time(path: Path) -> None:
    class Counting(HashEmbedder):
        running = most = 0

        async def embed(self, texts: Sequence[str]) -> np.ndarray:
            self.running += 1
            self.most = max(self.most, self.running)
            await asyncio.sleep(0.01)
            self.running -= 1
            return super().embed(texts)

    embedder = Counting(8)
    async with memstore.open(path, embedder=embedder) as store:
        await store.memories.add_many([{"content": f"text {i}", "id": f"{i}"} for i in range(2_000)])
        assert embedder.most == 4
        hits = await store.memories.search("text 1234")
        assert "1234" in {hit.memory.id for hit in hits}


async def test_a_failing_batch_of_a_load_keeps_the_vectors_of_the_others(path: Path) -> None:
    embedder = SlowEmbedder()
    items = [{"content": f"text {i}", "id": f"{i}"} for i in range(1_000)]
    items[700] = {"content": "boom", "id": "700"}
    embedder.concurrency = 4
    async with memstore.open(path, embedder=embedder) as store:
        with pytest.raises(memstore.LoadError, match="429") as caught:
            await store.load(items)
        assert caught.value.stored == await store.memories.count() == 512
        items[700] = {"content": "text", "id": "700"}
        before = len(embedder.calls)
        assert await store.load(items[caught.value.stored :]) == 488
        texts = [text for call in embedder.calls[before:] for text in call]
        assert len(texts) == 256  # those of the batch that failed; the vectors of the last batch were kept
        assert await store.memories.count() == 1_000


async def test_a_failing_batch_of_a_transaction_keeps_the_vectors_of_the_others_for_the_next_call(path: Path) -> None:
    embedder = SlowEmbedder()
    items = [{"content": f"text {i}", "id": f"{i}"} for i in range(1_000)]
    async with memstore.open(path, embedder=embedder) as store:
        with pytest.raises(ConnectionError):
            await store.memories.add_many([*items[:700], {"content": "boom"}, *items[701:]])
        assert await store.memories.count() == 0
        before = len(embedder.calls)
        await store.memories.add_many(items)
        assert sum(map(len, embedder.calls[before:])) == 1_000 - 512
        assert (await store.memories.search("text 7", 1))[0].score == pytest.approx(1)


# Compact, members, expiry.


@pytest.mark.parametrize("assemblies", [0, 4])
async def test_a_write_deletes_a_limited_number_of_expired_memories_and_the_store_the_others(
    path: Path, assemblies: int
) -> None:
    async with memstore.open(path, dimension=2) as store:
        expires_at = datetime.now(UTC) + timedelta(seconds=3)
        ids = [str(i) for i in range(2_000)]
        await store.memories.add_many(
            [{"id": id, "content": id, "embedding": [1, 0], "expires_at": expires_at} for id in ids]
        )
        await store.memories.add("lives", id="lives", embedding=[0, 1])
        for i in range(assemblies):
            await store.assemblies.add(f"assembly {i}", members=[*ids[i::assemblies], "lives"])
        await eventually(lambda: datetime.now(UTC) >= expires_at)
        read = [assembly async for assembly in store.assemblies.list()]
        assert {assembly.member_count for assembly in read} <= {1}
        await store.memories.add("new", id="7")  # the id of an expired memory is free
        ((rows,),) = execute(path, "SELECT count(*) FROM memory WHERE expires_at IS NOT NULL")
        assert 0 < 2_000 - rows < 1_100  # by the write, and by the first step of the store
        assert [assembly async for assembly in store.assemblies.list()] == read
        await eventually(lambda: execute(path, "SELECT count(*) FROM memory") == [(2,)])
        assert [assembly async for assembly in store.assemblies.list()] == read
        assert (await store.memories.get("7")).content == "new"
        assert await store.check() == []


async def test_compact_deletes_all_expired_memories_and_emptied_namespaces(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        for i in range(1_200):
            item = {"content": "x", "ttl": 0.5}
            await store.namespace(str(i % 300)).memories.add_many([item])
        await eventually(lambda: execute(path, "SELECT max(expires_at) FROM memory")[0][0] / 1e6 < time.time())
        await store.compact()
        assert execute(path, "SELECT count(*) FROM memory") == [(0,)]
        assert await store.namespaces() == []


async def test_every_page_of_members_is_read_where_the_page_before_ended(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        ids = [f"{i:04}" for i in range(450)]
        await store.memories.add_many([{"id": id, "content": "x", "embedding": [1, 0]} for id in ids])
        await store.assemblies.add("all", members=ids)
        assert [id async for id in store.assemblies.members("all")] == ids


# Memory of the index.


@pytest.mark.parametrize("kind", ["exact", "graph"])
async def test_deleting_does_not_make_the_index_larger_and_compact_gives_its_memory_back(kind: str, path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((4_000, 64)).astype(np.float32)
    async with memstore.open(path, dimension=64, index=memstore.IndexOptions(kind=kind)) as store:
        await store.memories.add_many([{"content": "", "id": str(i), "embedding": row} for i, row in enumerate(rows)])
        await store.optimize()
        before = (await store.stats()).index_bytes
        await store.memories.delete_many(ids=[str(i) for i in range(3_000)])
        await store.memories.search(rows[0])
        assert (await store.stats()).index_bytes <= before
        await store.compact()
        assert (await store.stats()).index_bytes < 0.5 * before
        assert (await store.memories.search(rows[3_500], 1))[0].memory.id == "3500"
        await store.clear()
        await store.compact()
        assert (await store.stats()).index_bytes < 0.1 * before
        assert await store.check() == []


# Event loops and frozen clocks.

WRITE_BEHIND_A_TRANSACTION = """
import asyncio, sys
import memstore
{before}

async def main():
    {inside}
    async with memstore.open(sys.argv[1], dimension=2, timeout={timeout}) as store:
        async def hold():
            async with store.transaction() as tx:
                await tx.memories.add("a")
                began.set()
                await ended.wait()
        began, ended = asyncio.Event(), asyncio.Event()
        holder = asyncio.create_task(hold())
        await began.wait()
        try:
            {write}
        except TimeoutError as error:
            print(type(error).__name__)
        ended.set()
        await holder
        print(await store.memories.count())
asyncio.run(main())
"""


def test_nest_asyncio_applied_after_the_import_lets_a_write_time_out(path: Path) -> None:
    pytest.importorskip("nest_asyncio")
    program = WRITE_BEHIND_A_TRANSACTION.format(
        before="import nest_asyncio; nest_asyncio.apply()",
        inside="pass",
        timeout=60,
        write="async with asyncio.timeout(0.1): await store.memories.add('b')",
    )
    result = run_python("-c", program, path, timeout=60)
    assert result.stdout.split() == ["TimeoutError", "1"], result.stderr


def test_a_frozen_clock_does_not_stop_the_timeout_of_a_write(path: Path) -> None:
    pytest.importorskip("freezegun")
    program = WRITE_BEHIND_A_TRANSACTION.format(
        before="import freezegun",
        inside="freezegun.freeze_time('2026-01-01').start()",
        timeout=0.2,
        write="await store.memories.add('b')",
    )
    result = run_python("-c", program, path, timeout=60)
    assert result.stdout.split() == ["BusyError", "1"], result.stderr


LOCK_OF_ANOTHER_PROCESS = """
import asyncio, subprocess, sys
import freezegun
import memstore

HOLD = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('BEGIN IMMEDIATE'); print(flush=True); input()"

async def main():
    async with memstore.open(sys.argv[1], dimension=2, timeout=0.2) as store:
        await store.memories.add("a")
        holder = subprocess.Popen([sys.executable, "-c", HOLD, sys.argv[1]], stdin=-1, stdout=-1)
        holder.stdout.readline()
        with freezegun.freeze_time("2026-01-01"):
            try:
                await store.memories.add("b")
            except memstore.BusyError as error:
                print(type(error).__name__)
        holder.communicate(b"\\n")
        print(await store.memories.count())
asyncio.run(main())
"""


def test_a_frozen_clock_does_not_stop_the_wait_for_another_process(path: Path) -> None:
    pytest.importorskip("freezegun")
    result = run_python("-c", LOCK_OF_ANOTHER_PROCESS, path, timeout=60)
    assert result.stdout.split() == ["BusyError", "1"], result.stderr


def test_another_event_loop_library_gets_one_clear_error(path: Path) -> None:
    trio = pytest.importorskip("trio")

    async def use() -> None:
        async with memstore.open(path, dimension=2):
            raise AssertionError

    with pytest.raises(memstore.EventLoopError, match="needs an event loop of asyncio"):
        trio.run(use)
    with pytest.raises(memstore.EventLoopError, match="needs an event loop of asyncio"):
        memstore.verify(path).send(None)
    assert not path.exists()

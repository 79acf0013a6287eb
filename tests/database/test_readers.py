"""Reads run on the first free connection, do not begin for callers that gave up, and are interrupted."""

import asyncio
import threading
from pathlib import Path

import pytest
from sqlalchemy import Connection

import memstore
from memstore import Store
from memstore.concurrency import yield_gil
from memstore.database import readers
from memstore.database.transactions import raw
from tests.support.waiting import eventually

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


class Block:
    """A read that runs until it is told to end."""

    def __init__(self) -> None:
        self.began, self.go = threading.Event(), threading.Event()

    def __call__(self, connection: Connection) -> None:
        self.began.set()
        assert self.go.wait(60)


async def blocked(store: Store, count: int, *, long: bool = False) -> tuple[list[Block], list[asyncio.Task[None]]]:
    """*count* reads, and their tasks."""
    blocks = [Block() for _ in range(count)]
    tasks = [asyncio.create_task(store._database.read(block, long=long)) for block in blocks]
    await asyncio.sleep(0)
    return blocks, tasks


async def end(blocks: list[Block], tasks: list[asyncio.Task[None]]) -> None:
    for block in blocks:
        block.go.set()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_read_of_a_caller_that_gave_up_does_not_begin(store: Store) -> None:
    await store.memories.add("a", id="a")
    blocks, tasks = await blocked(store, readers.MAX_READERS)
    await eventually(lambda: all(block.began.is_set() for block in blocks))
    waiting, abandoned = await blocked(store, 50)
    for task in abandoned:
        task.cancel()
    await asyncio.gather(*abandoned, return_exceptions=True)
    await end(blocks, tasks)
    assert (await store.memories.get("a")).content == "a"
    assert not any(block.began.is_set() for block in waiting)


async def test_statement_of_a_caller_that_gave_up_is_interrupted_and_the_connection_goes_on(store: Store) -> None:
    for _ in range(5):
        ended = threading.Event()

        def endless(connection: Connection, ended: threading.Event = ended) -> None:
            try:
                raw(connection).execute(ENDLESS).fetchone()
            finally:
                ended.set()

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await store._database.read(endless)
        assert await asyncio.to_thread(ended.wait, 60)
        assert await store.memories.count() == 0


async def test_python_code_of_a_caller_that_gave_up_ends_at_its_next_pause(store: Store) -> None:
    ended = threading.Event()

    def endless(connection: Connection) -> None:
        try:
            while True:
                yield_gil()
        finally:
            ended.set()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await store._database.read(endless)
    assert await asyncio.to_thread(ended.wait, 60)


async def test_interrupt_between_two_statements_is_repeated(store: Store) -> None:
    waits, go, ended = threading.Event(), threading.Event(), threading.Event()

    def two_statements(connection: Connection) -> None:
        waits.set()
        go.wait(60)
        try:
            raw(connection).execute(ENDLESS).fetchone()
        finally:
            ended.set()

    task = asyncio.create_task(store._database.read(two_statements))
    await eventually(waits.is_set)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    go.set()
    await eventually(ended.is_set)
    assert await store.memories.count() == 0


async def test_short_read_does_not_wait_for_reads_that_are_known_to_be_long(store: Store) -> None:
    await store.memories.add("a", id="a")
    blocks, tasks = await blocked(store, 20, long=True)
    await eventually(lambda: sum(block.began.is_set() for block in blocks) == readers.MAX_LONG)
    for _ in range(10):
        async with asyncio.timeout(30):
            assert (await store.memories.get("a")).content == "a"
    assert sum(block.began.is_set() for block in blocks) == readers.MAX_LONG
    await end(blocks, tasks)
    assert all(block.began.is_set() for block in blocks)


async def test_short_read_does_not_wait_for_others_that_take_long(store: Store) -> None:
    await store.memories.add("a", id="a")
    blocks, tasks = await blocked(store, readers.MAX_READERS - 1)
    async with asyncio.timeout(30):
        assert (await store.memories.get("a")).content == "a"
    await end(blocks, tasks)
    assert len(store._database._readers.threads) == readers.MAX_READERS


async def test_store_that_is_closed_while_a_connection_is_opened_closes_that_too(path: Path) -> None:
    for pause in (0.0, 0.02, 0.021, 0.025):
        store = await memstore.open(path, dimension=2)
        blocks, tasks = await blocked(store, 4)
        await asyncio.sleep(pause)
        closing = asyncio.create_task(store.close())
        await asyncio.sleep(0)
        await end(blocks, tasks)
        await closing
        assert [file.name for file in path.parent.iterdir()] == [path.name]


async def test_index_is_loaded_although_every_caller_gives_up(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add_many([{"content": "x", "embedding": [1, i]} for i in range(2_000)])
    async with memstore.open(path) as store:
        while store._follower.indexes.applied is None:
            task = asyncio.create_task(store.memories.search([1, 0]))
            await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert len(await store.memories.search([1, 0])) == 10
        assert await store.check() == []

"""Maintenance of graphs in the background: builds, merges, drops, snapshots, interruption and failures."""

import asyncio
import gc
import inspect
import os
import sqlite3
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from memstore import BusyError, GraphOptions, Metric, Store, TransactionError
from memstore.index import hnsw, hybrid, planner, recall
from memstore.index.hnsw import GraphConstruction
from memstore.repository.sqlite_only import change_log
from memstore.sync import graph_fold, snapshot, snapshot_writer
from memstore.sync.snapshot import SnapshotContent
from tests.support.children import Link, children
from tests.support.clusters import (
    DIMENSION,
    Rows,
    by_hand,
    check_hits,
    closeness,
    clustered,
    items,
    opened,
    put,
    small_graphs,
    sql,
    wait_until_idle,
)
from tests.support.spaces import placed
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_graphs(monkeypatch)
    monkeypatch.setattr(change_log, "KEEP", 10_000)


def data(count: int, seed: int = 1, dimension: int = DIMENSION) -> Rows:
    return clustered(np.random.default_rng(seed), count, dimension)[0]


async def search_methods(store: Store, rows: Rows, ids: Sequence[str] | None = None) -> set[str]:
    """Check the hits for some of *rows*, the vectors in the store; return the methods of these searches."""
    queries = rows[:: max(1, len(rows) // 20)]
    answers = await store.memories.search_many(queries)
    return check_hits(answers, queries, [str(i) for i in range(len(rows))] if ids is None else ids, rows)


def of_memories(store: Store) -> hybrid.HybridIndex:
    return store._follower.indexes.by_kind["memory"]


# -- by itself


async def test_a_graph_is_built_merged_and_written_by_itself(path: Path) -> None:
    rows = data(900)
    async with opened(path) as store:
        await put(store, rows[:150])
        await wait_until_idle(store)
        stats = await store.stats()
        assert (stats.index, stats.graph_nodes, stats.snapshot_bytes) == ("exact", 0, 0)
        assert "fewer than 200" in stats.index_reason
        await put(store, rows[150:400], 150)
        await wait_until_idle(store)
        assert (await store.stats()).graph_nodes == 400
        assert await search_methods(store, rows[:400]) == {"graph"}
        await put(store, rows[400:460], 400)
        await wait_until_idle(store)
        stats = await store.stats()
        assert (stats.graph_nodes, stats.unindexed) == (400, 60), "too few unindexed entries for a merge"
        await put(store, rows[460:], 460)
        await wait_until_idle(store)
        stats = await store.stats()
        assert (stats.graph_nodes, stats.unindexed) == (900, 0)
        assert stats.snapshot_bytes > 50_000
        assert await search_methods(store, rows) == {"graph"}
        assert await store.check() == []


async def test_a_graph_is_begun_by_the_search_that_loads_faiss(path: Path) -> None:
    async with opened(path) as store:
        await store.memories.search(np.ones(DIMENSION))
        await put(store, data(400))
        for _ in range(10):
            await store.memories.search(np.ones(DIMENSION))
        await asyncio.sleep(0.3)
        assert (await store.stats()).engine == "faiss"
        await eventually(lambda: store._maintainer._is_running() or of_memories(store).nodes == 400)


async def test_enough_deleted_entries_have_the_graph_rebuilt(path: Path) -> None:
    rows = data(900)
    async with opened(path) as store:
        await put(store, rows)
        await wait_until_idle(store)
        await store.memories.delete_many(ids=[str(i) for i in range(250)])
        await wait_until_idle(store)
        assert (await store.stats()).graph_deleted == 250
        await store.memories.delete_many(ids=[str(i) for i in range(250, 300)])
        await wait_until_idle(store)
        stats = await store.stats()
        assert (stats.graph_deleted, stats.graph_nodes, stats.unindexed) == (0, 600, 0)
        assert await search_methods(store, rows[300:], [str(i) for i in range(300, 900)]) == {"graph"}
        assert await store.check() == []


async def test_a_graph_is_kept_down_to_half_of_the_size_from_which_one_is_built(path: Path) -> None:
    rows = data(260)
    async with opened(path) as store:
        await put(store, rows)
        await wait_until_idle(store)
        await store.memories.delete_many(ids=[str(i) for i in range(180, 260)])
        await wait_until_idle(store)
        assert of_memories(store).nodes == 260, "fewer than it takes to get one"
        await store.memories.delete_many(ids=[str(i) for i in range(150, 180)])
        await wait_until_idle(store)
        assert of_memories(store).nodes > 0
        await store.memories.delete_many(ids=[str(i) for i in range(99, 150)])
        await wait_until_idle(store)
        stats = await store.stats()
        assert (stats.index, stats.graph_nodes, stats.graph_deleted, stats.unindexed) == ("exact", 0, 0, 99)
        assert await search_methods(store, rows[:99]) == {"exact"}
        assert await store.check() == []
        await store.clear()
        await wait_until_idle(store)
        assert (await store.stats()).indexed == 0


async def test_vectors_without_structure_stay_exact_and_it_is_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "EF_SEARCH_STEPS", (8,))
    rows = np.random.default_rng(1).standard_normal((1_500, 256)).astype(np.float32)
    async with opened(path, dimension=256, graph=GraphOptions(m=4, ef_construction=16)) as store:
        await put(store, rows)
        await wait_until_idle(store)
        stats = await store.stats()
        assert stats.index == "exact"
        assert "no structure" in stats.index_reason
        hits = await store.memories.search(rows[0])
        assert (hits.plan.method, hits.plan.reason) == ("exact", stats.index_reason)
        assert await search_methods(store, rows) == {"exact"}
        builds: list[int] = []
        monkeypatch.setattr(GraphConstruction, "link", lambda *_: builds.append(1))
        await store.memories.add("", embedding=rows[0])
        await wait_until_idle(store)
        await store.optimize()
        assert builds == [], "it was tried again at once"
        assert (await store.stats()).snapshot_bytes == 0
        assert await store.check() == []


async def test_a_graph_that_came_after_all_is_no_longer_called_unsuitable(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = data(900)
    async with opened(path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(planner, "MIN_USEFUL_RECALL", 1.1)
            await put(store, rows[:300])
            await wait_until_idle(store)
            assert (await store.stats()).index == "exact"
        await put(store, rows[300:], 300)
        await wait_until_idle(store)
        stats = await store.stats()
        assert stats.index == "graph"
        assert "no structure" not in stats.index_reason


async def test_index_graph_keeps_even_a_graph_of_unsuitable_vectors(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "MIN_USEFUL_RECALL", 1.1)
    async with opened(path, index="graph") as store:
        await put(store, data(300))
        await wait_until_idle(store)
        assert (await store.stats()).index == "graph"


# -- optimize


@pytest.mark.parametrize(("index", "count"), [("auto", 0), ("exact", 0), ("graph", 0), ("auto", 150), ("exact", 400)])
async def test_optimize_builds_nothing_where_no_graph_is_wanted(path: Path, index: Any, count: int) -> None:
    async with opened(path, index=index) as store:
        await put(store, data(count))
        await store.optimize()
        stats = await store.stats()
        assert (stats.index, stats.graph_nodes, stats.snapshot_bytes) == ("exact", 0, 0)
        assert stats.index_reason
        assert sql(path, "SELECT count(*) FROM index_snapshot") == [(0,)]


@pytest.mark.parametrize("count", [1, 2, 10, 1_000])
async def test_optimize_builds_the_graph_that_was_asked_for_however_small(path: Path, count: int) -> None:
    rows = data(count)
    for _ in range(2):
        async with opened(path, index="graph") as store:
            if await store.memories.count() == 0:
                await put(store, rows)
            await store.optimize()
            stats = await store.stats()
            assert (stats.index, stats.graph_nodes, stats.unindexed) == ("graph", count, 0)
            assert stats.recall == pytest.approx(1.0, abs=0.01)
            assert await search_methods(store, rows) == ({"graph"} if count > 100 else {"exact"})
            assert await store.check() == []
            assert len(sql(path, "SELECT pk FROM index_snapshot")) == 1


async def test_optimize_leaves_no_unindexed_no_deleted_and_a_snapshot_of_all(path: Path) -> None:
    rows = data(500)
    async with opened(path) as store:
        await put(store, rows[:450])
        await store.optimize()
        await put(store, rows[450:], 450)
        await store.memories.delete_many(ids=[str(i) for i in range(200)])
        await store.optimize()
        stats = await store.stats()
        assert (stats.graph_nodes, stats.unindexed, stats.graph_deleted) == (300, 0, 0)
        assert sql(path, "SELECT json_extract(parameters, '$.nodes') FROM index_snapshot") == [(300,)]
        assert await search_methods(store, rows[200:], [str(i) for i in range(200, 500)]) == {"graph"}


async def test_several_may_optimize_at_once(path: Path) -> None:
    async with opened(path) as store:
        await put(store, data(500))
        await asyncio.gather(*(store.optimize() for _ in range(4)))
        assert of_memories(store).nodes == 500
        assert len(sql(path, "SELECT pk FROM index_snapshot")) == 1


async def test_who_waits_for_optimize_may_be_cancelled_and_the_work_goes_on(path: Path) -> None:
    async with opened(path) as store:
        await put(store, data(600))
        by_hand(store)
        waiting = asyncio.create_task(store.optimize())
        await eventually(store._maintainer._is_running)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await store.optimize()
        assert of_memories(store).nodes == 600


async def test_optimize_inside_ones_own_transaction_is_refused_at_once(path: Path) -> None:
    async with opened(path, timeout=60) as store:
        await put(store, data(300))
        begun = time.monotonic()
        async with store.transaction():
            with pytest.raises(TransactionError):
                await store.optimize()
        assert time.monotonic() - begun < 30  # and not after the timeout


# -- the event loop, and memory


async def test_the_event_loop_does_none_of_the_work(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[Any, str]] = [
        (hnsw.Graph, "links"),
        (SnapshotContent, "chunks"),
        (hnsw.GraphLinks, "check"),
        (GraphConstruction, "link"),
        (hnsw.GraphBuilder, "start"),
        (hnsw.GraphBuilder, "from_links"),
        (hybrid.HybridIndex, "publish"),
        (hybrid.HybridIndex, "fill_deleted"),
        (hybrid.HybridIndex, "drop_graph"),
    ]
    threads: dict[str, set[int]] = {name: set() for _, name in steps}

    def noted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            threads[name].add(threading.get_ident())
            return function(*arguments, **options)

        def iterate(*arguments: Any) -> Iterator[Any]:
            for value in function(*arguments):
                threads[name].add(threading.get_ident())
                yield value

        return iterate if inspect.isgeneratorfunction(function) else call

    for owner, name in steps:
        monkeypatch.setattr(owner, name, noted(name, getattr(owner, name)))
    for deleted in (range(120), range(200, 400)):
        async with opened(path) as store:
            if await store.memories.count() == 0:
                await put(store, data(500))
            await store.optimize()
            await store.memories.delete_many(ids=[str(i) for i in deleted])
            await store.optimize()
            await wait_until_idle(store)
    assert all(threads.values()), threads
    assert threading.get_ident() not in set.union(*threads.values())


async def test_an_index_that_was_rebuilt_leaves_no_other_in_memory(path: Path) -> None:
    async with opened(path) as store:
        await put(store, data(500))
        await store.optimize()
        by_hand(store)
        old = weakref.ref(of_memories(store))
        await store.repair()
        await store.memories.search(np.ones(DIMENSION))
        gc.collect()
        assert old() is None


# -- the end


class Pause:
    """Counts the calls of a function, and pauses the second one until the store is being closed."""

    def __init__(self) -> None:
        self.calls = 0
        self._reached, self._proceed = threading.Event(), threading.Event()

    def call(self) -> None:
        self.calls += 1
        if self.calls == 2:
            self._reached.set()
            self._proceed.wait(60)

    async def close(self, store: Store) -> None:
        """Wait for the second call, and close *store* during it."""
        await eventually(self._reached.is_set)
        closing_store = asyncio.create_task(store.close())
        await eventually(store._maintainer._stopping.is_set)
        self._proceed.set()
        await closing_store


async def test_closing_during_a_merge_waits_for_one_piece_of_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pause, original = Pause(), GraphConstruction.link

    def link(self: GraphConstruction, storage: Any, count: int) -> None:
        pause.call()
        original(self, storage, min(count, 20))

    rows = data(800)
    store = await opened(path)
    with monkeypatch.context() as patch:
        patch.setattr(GraphConstruction, "link", link)
        await put(store, rows)
        await store.memories.search(rows[0])
        await pause.close(store)
    assert pause.calls <= 4, "close waited for all pieces"
    async with opened(path) as store:
        await search_methods(store, rows)
        await wait_until_idle(store)
        assert await search_methods(store, rows) == {"graph"}
        assert await store.check() == []


async def test_closing_during_a_snapshot_waits_for_one_chunk_of_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pause, original = Pause(), snapshot_writer._add_chunk

    def add_chunk(*arguments: Any, **options: Any) -> None:
        pause.call()
        original(*arguments, **options)

    monkeypatch.setattr(snapshot, "CHUNK", 1_024)
    monkeypatch.setattr(snapshot_writer, "_add_chunk", add_chunk)
    store = await opened(path)
    await put(store, data(500))
    await store.memories.search(np.ones(DIMENSION))
    await pause.close(store)
    assert pause.calls <= 4, "close waited for all chunks"
    assert sql(path, "SELECT complete FROM index_snapshot") == [(0,)]


async def test_closing_waits_for_no_writer_of_another_process(path: Path) -> None:
    store = await opened(path, timeout=60)
    by_hand(store)
    await put(store, data(500))
    await store.optimize()
    await put(store, data(300, seed=2), 500)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        at_work = asyncio.create_task(store.optimize())
        await asyncio.sleep(0.6)
        begun = time.monotonic()
        await store._maintainer.stop()
        waited = time.monotonic() - begun
        other.execute("ROLLBACK")
    await at_work
    await store.close()
    assert waited < 30  # and not until the timeout


async def test_a_close_that_is_refused_leaves_the_graph_maintained(path: Path) -> None:
    store = await opened(path, timeout=0.3)
    await put(store, data(300))
    await wait_until_idle(store)
    entered, leave = asyncio.Event(), asyncio.Event()

    async def writing() -> None:
        async with store.transaction() as tx:
            await tx.memories.add("", id="held")
            entered.set()
            await leave.wait()

    task = asyncio.create_task(writing())
    await entered.wait()
    with pytest.raises(BusyError):
        await store.close()
    leave.set()
    await task
    await put(store, data(300, seed=2), 300)
    await wait_until_idle(store)
    assert of_memories(store).nodes == 600
    await store.close()


async def test_a_cancelled_close_leaves_the_graph_maintained(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, begun = GraphConstruction.link, threading.Event()

    def slow(*arguments: Any) -> None:
        begun.set()
        time.sleep(0.3)
        original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(GraphConstruction, "link", slow)
        store = await opened(path)
        await put(store, data(300))
        await store.memories.search(np.ones(DIMENSION))
        await eventually(begun.is_set)
        task = asyncio.create_task(store.close())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    try:
        await store.memories.count()
        await store.optimize()
        assert of_memories(store).nodes == 300
    finally:
        await store.close()


async def test_no_task_and_no_thread_is_left_after_closing(path: Path) -> None:
    before = set(threading.enumerate())
    for _ in range(2):
        async with opened(path) as store:
            await store.memories.upsert_many(items(data(400)))
            await store.memories.search(np.ones(DIMENSION))
        assert [task.get_name() for task in asyncio.all_tasks()] == [asyncio.current_task().get_name()]  # type: ignore[union-attr]
    await eventually(lambda: set(threading.enumerate()) <= before)


LEFT = """
import asyncio, sys, warnings
import numpy as np
import memstore
from memstore.index import engine_selector, planner
warnings.simplefilter("error")
planner.MIN_GRAPH_NUMBERS, planner.MIN_GRAPH_VECTORS, planner.MERGE_MIN, engine_selector.FAISS_FROM = 1, 200, 100, 100

async def main():
    rows = np.random.default_rng(1).standard_normal((3_000, 24))
    async with memstore.open(sys.argv[1], dimension=24, durability="relaxed") as store:
        await store.memories.add_many([{"content": "", "embedding": row} for row in rows])
        await store.memories.search(rows[0])
        await asyncio.sleep(0.1)
        assert store._maintainer._is_running() or store._follower.indexes.by_kind["memory"].nodes

asyncio.run(main(), debug=True)
print("well ended")
"""


def test_a_process_that_ends_while_a_graph_is_built_ends_without_a_word(path: Path) -> None:
    command = [sys.executable, "-X", "dev", "-W", "ignore::DeprecationWarning", "-c", LEFT, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stdout) == (0, "well ended\n"), done.stderr
    assert "Warning" not in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_table_may_grow_and_lose_entries_while_it_is_merged(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is linked lies where it lay; the memory it lies in is another three times over."""
    original = GraphConstruction.link

    def slow(self: GraphConstruction, storage: Any, count: int) -> None:
        time.sleep(0.02)
        original(self, storage, min(count, 25))

    monkeypatch.setattr(GraphConstruction, "link", slow)
    rows = data(2_400)
    async with opened(path) as store:
        await put(store, rows[:300])
        await store.memories.search(rows[0])
        sizes = set()
        for first in range(300, 2_100, 300):
            assert store._maintainer._is_running()
            await put(store, rows[first : first + 300], first)
            sizes.add(len(of_memories(store).table.storage.rows))
            removed = [str(i) for i in range(first - 300, first - 290)]
            await store.memories.delete_many(ids=removed)
            rows[first - 290] = -rows[first - 290]
            await store.memories.update(str(first - 290), embedding=rows[first - 290])
            await store.memories.search_many(rows[:20])
        assert len(sizes) > 2
        remaining = [i for i in range(2_100) if not (i < 1_800 and i % 300 < 10)]
        monkeypatch.setattr(GraphConstruction, "link", original)
        await search_methods(store, rows[remaining], [str(i) for i in remaining])
        await wait_until_idle(store)
        assert await search_methods(store, rows[remaining], [str(i) for i in remaining]) == {"graph"}
        assert await store.check() == []


# -- failures


class OwnError(Exception):
    """Made on purpose."""


@pytest.mark.parametrize("step", ["link", "calibrate", "publish"])
async def test_a_failure_is_logged_once_not_tried_again_at_once_and_costs_no_search(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, step: str
) -> None:
    tries: list[int] = []

    def fail(*_: Any, **__: Any) -> None:
        tries.append(1)
        raise OwnError("on purpose")

    rows = data(700)
    with monkeypatch.context() as patch:
        owner: Any = {"link": GraphConstruction, "calibrate": graph_fold, "publish": hybrid.HybridIndex}[step]
        patch.setattr(owner, step, fail)
        async with opened(path) as store:
            await put(store, rows[:400])
            await wait_until_idle(store)
            for i in range(400, 600):
                await store.memories.add("", id=str(i), embedding=rows[i])
            assert await search_methods(store, rows[:600]) == {"exact"}
            assert len(tries) == 1
            assert caplog.text.count("maintenance failed") == 1
            assert "on purpose" in caplog.text
            assert {record.name for record in caplog.records} == {"memstore"}
            with pytest.raises(OwnError):
                await store.optimize()
            assert len(tries) == 2
            assert await store.check() == []
            patch.undo()
            small_graphs(patch)
            await store.optimize()
            assert of_memories(store).nodes == 600
            assert await search_methods(store, rows[:600]) == {"graph"}
            await put(store, rows[600:], 600)
            assert await store.check() == []


async def test_a_snapshot_that_cannot_be_written_is_logged_and_written_by_the_next_optimize(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = data(400)
    async with opened(path, timeout=0.2) as store:
        by_hand(store)
        await put(store, rows)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await store.optimize()
            other.execute("ROLLBACK")
        assert "could not be written" in caplog.text
        assert await search_methods(store, rows) == {"graph"}
        assert sql(path, "SELECT count(*) FROM index_snapshot") == [(0,)]
        await store.optimize()
        assert len(sql(path, "SELECT pk FROM index_snapshot")) == 1


# -- several at once


async def test_a_read_only_store_has_a_graph_and_writes_nothing(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = data(500)
    async with opened(path) as store:
        by_hand(store)
        await put(store, rows)
    before = path.read_bytes()
    async with opened(path, read_only=True, index="graph", graph=GraphOptions(m=8)) as store:
        await wait_until_idle(store)
        assert of_memories(store).nodes == 500
        await store.optimize()
        assert await search_methods(store, rows) == {"graph"}
        assert await store.check() == []
    assert path.read_bytes() == before
    assert caplog.text == ""
    assert sql(path, "SELECT count(*) FROM index_snapshot") == [(0,)]


async def maintain_a_file(_: Link, number: int, path: Path) -> None:
    """In a process of its own: add, delete, search and optimize."""
    small_graphs(pytest.MonkeyPatch())
    snapshot.CHUNK = 4_096
    rows = data(5 * 110, seed=number)
    async with opened(path) as store:
        for turn in range(5):
            batch = items(rows[110 * turn : 110 * (turn + 1)], 1_000 * number + 110 * turn)
            await store.memories.add_many(batch)
            await store.memories.delete_many(ids=[item["id"] for item in batch[:10]])
            await store.memories.search(batch[0]["embedding"])
            if turn in (2, 4):
                await store.optimize()
        assert await store.check() == []
        assert of_memories(store).nodes > 450


async def test_two_processes_may_maintain_one_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with children(2, maintain_a_file, path) as processes:
        for process in processes:
            await asyncio.to_thread(process.receive)
    monkeypatch.setattr(snapshot, "CHUNK", 4_096)
    async with opened(path) as store:
        assert await store.check() == []
        vectors = {memory.id: memory.embedding async for memory in store.memories.list()}
        assert len(vectors) == 1_000
        await wait_until_idle(store)
        assert await search_methods(store, np.stack(list(vectors.values())), list(vectors)) == {"graph"}
        await store.optimize()
        assert sql(path, "SELECT count(*) FROM index_snapshot WHERE complete = 1 AND space_pk = 1") == [(1,)]
        assert await store.check() == []
    assert set(os.listdir(path.parent)) <= {path.name, path.name + "-wal", path.name + "-shm"}


# -- measuring


@pytest.mark.parametrize("metric", get_args(Metric))
async def test_the_recall_that_is_stated_is_what_is_found(path: Path, metric: Any) -> None:
    rows = placed(metric, data(1_200))
    async with opened(path, metric=metric) as store:
        by_hand(store)
        await put(store, rows)
        await store.optimize()
        stats = await store.stats()
        assert stats.recall is not None
        answers = await store.memories.search_many(rows[::10], recall.LIMIT)
        hit_count = 0
        for hits, scores in zip(answers, closeness(metric, rows[::10], rows), strict=True):
            places = [int(hit.memory.id) for hit in hits]
            hit_count += int((scores[places] >= np.sort(scores)[-10] - 1e-6).sum())
        assert hit_count / 1_200 == pytest.approx(stats.recall, abs=0.02)


async def test_every_merge_is_measured_and_one_that_adds_little_by_a_smaller_sample(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples: list[int] = []
    original = recall.measure_truth

    def noted(corpus: recall.Corpus, queries: Rows, *arguments: Any) -> recall.Sample:
        samples.append(len(queries))
        return original(corpus, queries, *arguments)

    monkeypatch.setattr(recall, "measure_truth", noted)
    rows = data(2_000)
    async with opened(path) as store:
        by_hand(store)
        sizes = []
        for first, stop in ((0, 1_500), (1_500, 1_600), (1_600, 2_000)):
            samples.clear()
            await put(store, rows[first:stop], first)
            await store.optimize()
            assert of_memories(store).nodes == stop
            (size,) = samples
            sizes.append(size)
        assert sizes[1] < sizes[0] / 2
        assert sizes[2] > sizes[1]

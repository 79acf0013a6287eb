"""Maintenance of graphs in the background: builds, merges, drops, snapshots, interruption and failures."""

import asyncio
import gc
import logging
import os
import sqlite3
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

import memstore
from memstore import BusyError, GraphOptions, Metric, Store, TransactionError
from memstore.index import hnsw, hybrid, planner, recall
from memstore.index.hnsw import GraphConstruction
from memstore.repository.sqlite_only import change_log
from memstore.sync import maintainer, snapshot, snapshot_writer
from memstore.sync.snapshot import SnapshotContent
from tests.support.clusters import DIMENSION, Rows, by_hand, closeness, clustered, small_graphs, sql, wait_until_idle
from tests.support.index_options import with_index
from tests.support.spaces import placed
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_graphs(monkeypatch)
    monkeypatch.setattr(change_log, "KEEP", 10_000)


def opened(path: Path, **options: Any) -> Any:
    return memstore.open(
        path, **with_index({"dimension": DIMENSION, "durability": "relaxed", "timeout": 10, **options})
    )


def data(count: int, seed: int = 1, dimension: int = DIMENSION) -> Rows:
    return clustered(np.random.default_rng(seed), count, dimension)[0]


async def put(store: Store, rows: Rows, first: int = 0) -> None:
    await store.memories.add_many(
        [{"id": str(first + i), "content": "", "embedding": row} for i, row in enumerate(rows)]
    )


async def right(store: Store, rows: Rows, ids: Any = None) -> set[str]:
    """The searches of some of *rows* find what NumPy does; by which methods."""
    names = [str(i) for i in range(len(rows))] if ids is None else list(ids)
    queries = rows[:: max(1, len(rows) // 20)]
    answers = await store.memories.search_many(queries)
    hit_count = 0
    for hits, scores in zip(answers, closeness("cosine", queries, rows), strict=True):
        places = [names.index(hit.memory.id) for hit in hits]
        assert len(set(places)) == min(10, len(rows))
        np.testing.assert_allclose([hit.score for hit in hits], scores[places], rtol=2e-6, atol=2e-7)
        hit_count += int((scores[places] >= np.sort(scores)[-len(places)] - 1e-6).sum())
    assert hit_count >= 0.99 * min(10, len(rows)) * len(answers)
    return {hits.plan.method for hits in answers}


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
        assert await right(store, rows[:400]) == {"graph"}
        await put(store, rows[400:460], 400)
        await wait_until_idle(store)
        stats = await store.stats()
        assert (stats.graph_nodes, stats.unindexed) == (400, 60), "too few unindexed entries for a merge"
        await put(store, rows[460:], 460)
        await wait_until_idle(store)
        stats = await store.stats()
        assert (stats.graph_nodes, stats.unindexed) == (900, 0)
        assert stats.snapshot_bytes > 50_000
        assert await right(store, rows) == {"graph"}
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
        assert await right(store, rows[300:], [str(i) for i in range(300, 900)]) == {"graph"}
        assert await store.check() == []


async def test_a_store_that_shrinks_below_half_has_no_graph_any_more(path: Path) -> None:
    rows = data(260)
    async with opened(path) as store:
        await put(store, rows)
        await wait_until_idle(store)
        await store.memories.delete_many(ids=[str(i) for i in range(180, 260)])
        await wait_until_idle(store)
        assert of_memories(store).nodes == 260, "fewer than it takes to get one"
        await store.memories.delete_many(ids=[str(i) for i in range(99, 180)])
        await wait_until_idle(store)
        stats = await store.stats()
        assert (stats.index, stats.graph_nodes, stats.graph_deleted, stats.unindexed) == ("exact", 0, 0, 99)
        assert await right(store, rows[:99]) == {"exact"}
        assert await store.check() == []
        await store.clear()
        await wait_until_idle(store)
        assert (await store.stats()).indexed == 0


async def test_a_graph_is_kept_down_to_half_the_size_it_takes_to_get_one(path: Path) -> None:
    async with opened(path) as store:
        await put(store, data(260))
        await wait_until_idle(store)
        await store.memories.delete_many(ids=[str(i) for i in range(110)])
        await wait_until_idle(store)
        assert of_memories(store).nodes > 0


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
        assert await right(store, rows) == {"exact"}
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


async def test_with_graph_asked_for_even_unsuitable_vectors_have_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "MIN_USEFUL_RECALL", 1.1)
    async with opened(path, index="graph") as store:
        await put(store, data(300))
        await wait_until_idle(store)
        assert (await store.stats()).index == "graph"


# -- optimize


@pytest.mark.parametrize("index", ["auto", "exact", "graph"])
async def test_optimize_of_an_empty_store_does_nothing(path: Path, index: Any) -> None:
    async with opened(path, index=index) as store:
        await store.optimize()
        assert (await store.stats()).index == "exact"
        assert sql(path, "SELECT count(*) FROM index_snapshot") == [(0,)]


@pytest.mark.parametrize("index", ["auto", "exact"])
async def test_optimize_of_a_small_store_does_nothing_where_it_is_exact(path: Path, index: Any) -> None:
    async with opened(path, index=index) as store:
        await put(store, data(150 if index == "auto" else 400))
        await store.optimize()
        stats = await store.stats()
        assert (stats.index, stats.graph_nodes, stats.snapshot_bytes) == ("exact", 0, 0)
        assert stats.index_reason


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
            assert await right(store, rows) == ({"graph"} if count > 100 else {"exact"})
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
        assert await right(store, rows[200:], [str(i) for i in range(200, 500)]) == {"graph"}


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
        while not store._maintainer._is_running():
            await asyncio.sleep(0.001)
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


@pytest.mark.parametrize(
    "step",
    [
        (hnsw.Graph, "links"),
        (SnapshotContent, "chunks"),
        (hnsw.GraphLinks, "check"),
        (GraphConstruction, "link"),
        (hnsw.GraphBuilder, "start"),
        (hnsw.GraphBuilder, "from_links"),
        (hybrid.HybridIndex, "publish"),
        (hybrid.HybridIndex, "fill_deleted"),
        (hybrid.HybridIndex, "drop_graph"),
    ],
    ids=lambda step: f"{step[0].__name__}.{step[1]}",
)
async def test_the_event_loop_does_none_of_the_work(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: tuple[Any, str]
) -> None:
    owner, name = step
    threads: set[int] = set()
    original: Callable[..., Any] = getattr(owner, name)

    def noted(*arguments: Any, **named: Any) -> Any:
        threads.add(threading.get_ident())
        result = original(*arguments, **named)
        if name != "stream":
            return result

        def chunks_of_result() -> Any:
            for chunk in result:
                threads.add(threading.get_ident())
                yield chunk

        return chunks_of_result()

    monkeypatch.setattr(owner, name, noted)
    for turn in range(2):
        async with opened(path) as store:
            if turn == 0:
                await put(store, data(500))
            await store.optimize()
            await store.memories.delete_many(ids=[str(i) for i in range(turn * 200, turn * 200 + 120 + turn * 80)])
            await store.optimize()
            await wait_until_idle(store)
    assert threads, "it was not done at all"
    assert threading.get_ident() not in threads


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


async def test_closing_in_the_middle_of_a_merge_waits_for_a_piece_of_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces, original = [], GraphConstruction.link
    linking, proceed = threading.Event(), threading.Event()

    def slow(self: GraphConstruction, storage: Any, count: int) -> None:
        pieces.append(count)
        if len(pieces) == 2:
            linking.set()
            proceed.wait(60)
        original(self, storage, min(count, 20))

    monkeypatch.setattr(GraphConstruction, "link", slow)
    rows = data(800)
    store = await opened(path)
    await put(store, rows)
    await store.memories.search(rows[0])
    await eventually(linking.is_set)
    closing_store = asyncio.create_task(store.close())
    await eventually(store._maintainer._stopping.is_set)
    proceed.set()
    await closing_store
    assert len(pieces) <= 4, "close waited for all pieces"
    monkeypatch.undo()
    small_graphs(monkeypatch)
    async with opened(path) as again:
        await right(again, rows)
        await wait_until_idle(again)
        assert await right(again, rows) == {"graph"}
        assert await again.check() == []


async def test_closing_in_the_middle_of_a_snapshot_waits_for_a_chunk_of_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "CHUNK", 1_024)
    written, original = [], snapshot_writer._add_chunk
    writing, proceed = threading.Event(), threading.Event()

    def slow(*arguments: Any, **named: Any) -> None:
        written.append(1)
        if len(written) == 2:
            writing.set()
            proceed.wait(60)
        original(*arguments, **named)

    monkeypatch.setattr(snapshot_writer, "_add_chunk", slow)
    store = await opened(path)
    await put(store, data(500))
    await store.memories.search(np.ones(DIMENSION))
    await eventually(writing.is_set)
    closing_store = asyncio.create_task(store.close())
    await eventually(store._maintainer._stopping.is_set)
    proceed.set()
    await closing_store
    assert len(written) <= 4, "close waited for all chunks"
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
        closing_it = asyncio.create_task(store._maintainer.stop())
        await asyncio.wait([closing_it])
        waited = time.monotonic() - begun
        other.execute("ROLLBACK")
    await at_work
    await store.close()
    assert waited < 30  # and not until the timeout


async def test_nothing_is_lost_by_closing_without_optimizing(path: Path) -> None:
    rows = data(700)
    async with opened(path) as store:
        by_hand(store)
        await put(store, rows)
    async with opened(path) as store:
        by_hand(store)
        assert await right(store, rows) == {"exact"}


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
        while not begun.is_set():
            await asyncio.sleep(0.01)
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
            await store.memories.upsert_many(
                [{"id": str(i), "content": "", "embedding": row} for i, row in enumerate(data(400))]
            )
            await store.memories.search(np.ones(DIMENSION))
        assert [task.get_name() for task in asyncio.all_tasks()] == [asyncio.current_task().get_name()]  # type: ignore[union-attr]
    deadline = time.monotonic() + 60
    while set(threading.enumerate()) - before:
        assert time.monotonic() < deadline, set(threading.enumerate()) - before
        await asyncio.sleep(0.01)


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
        await right(store, rows[remaining], map(str, remaining))
        await wait_until_idle(store)
        assert await right(store, rows[remaining], map(str, remaining)) == {"graph"}
        assert await store.check() == []


# -- failures


class OwnError(Exception):
    """Made on purpose."""


@pytest.mark.parametrize("step", ["link", "calibrate", "publish"])
async def test_a_failure_is_logged_once_not_tried_again_at_once_and_costs_no_search(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, step: str
) -> None:
    tries: list[int] = []

    def fail(*_: Any) -> None:
        tries.append(1)
        raise OwnError("on purpose")

    rows = data(700)
    with monkeypatch.context() as patch:
        owner: Any = {"link": GraphConstruction, "calibrate": maintainer, "publish": hybrid.HybridIndex}[step]
        patch.setattr(owner, step, fail)
        async with opened(path) as store:
            await put(store, rows[:400])
            await wait_until_idle(store)
            for i in range(400, 600):
                await store.memories.add("", id=str(i), embedding=rows[i])
            assert await right(store, rows[:600]) == {"exact"}
            assert len(tries) == 1
            assert caplog.text.count("maintenance failed") == 1
            assert "on purpose" in caplog.text
            with pytest.raises(OwnError):
                await store.optimize()
            assert len(tries) == 2
            assert await store.check() == []
            patch.undo()
            small_graphs(patch)
            await store.optimize()
            assert of_memories(store).nodes == 600
            assert await right(store, rows[:600]) == {"graph"}
            await put(store, rows[600:], 600)
            assert await store.check() == []


async def test_a_snapshot_that_cannot_be_written_is_said_and_costs_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
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
        assert await right(store, rows) == {"graph"}
        assert sql(path, "SELECT count(*) FROM index_snapshot") == [(0,)]


async def test_optimize_writes_the_snapshot_that_could_not_be_written_before(path: Path) -> None:
    async with opened(path, timeout=0.2) as store:
        by_hand(store)
        await put(store, data(400))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await store.optimize()
            other.execute("ROLLBACK")
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
        assert await right(store, rows) == {"graph"}
        assert await store.check() == []
    assert path.read_bytes() == before
    assert caplog.text == ""
    assert sql(path, "SELECT count(*) FROM index_snapshot") == [(0,)]


PEER = """
import asyncio, sys
import numpy as np
import memstore
from memstore.index import engine_selector, planner
from memstore.sync import snapshot
planner.MIN_GRAPH_NUMBERS, planner.MIN_GRAPH_VECTORS, planner.CANDIDATE_COST, planner.MERGE_MIN = 1, 200, 0.1, 100
engine_selector.FAISS_FROM, snapshot.CHUNK = 100, 4096
path, name = sys.argv[1:]
centres = np.random.default_rng(1).standard_normal((30, 24))

async def main():
    rng = np.random.default_rng(ord(name))
    async with memstore.open(path, dimension=24, durability="relaxed") as store:
        for turn in range(5):
            rows = centres[rng.integers(0, 30, 110)] + 0.3 * rng.standard_normal((110, 24))
            await store.memories.add_many(
                [{"id": f"{name}{turn}:{i}", "content": "", "embedding": row} for i, row in enumerate(rows)]
            )
            await store.memories.delete_many(ids=[f"{name}{turn}:{i}" for i in range(10)])
            await store.memories.search(rows[0])
            if turn % 3 == 2:
                await store.optimize()
        await store.optimize()
        assert await store.check() == []
        assert store._follower.indexes.by_kind["memory"].nodes > 450

asyncio.run(main())
"""


async def test_two_processes_may_tend_one_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", PEER, str(path), name, cwd=ROOT, stderr=asyncio.subprocess.PIPE
        )
        for name in "ab"
    ]
    for peer in peers:
        _, said = await asyncio.wait_for(peer.communicate(), 60)
        assert peer.returncode == 0, said.decode()
    monkeypatch.setattr(snapshot, "CHUNK", 4_096)
    async with opened(path) as store:
        assert await store.check() == []
        vectors = {memory.id: memory.embedding async for memory in store.memories.list()}
        assert len(vectors) == 1_000
        await wait_until_idle(store)
        rows = np.stack([vector for vector in vectors.values() if vector is not None])
        assert await right(store, rows, vectors) == {"graph"}
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


async def test_a_graph_that_grew_little_keeps_its_ef_search_and_one_that_grew_much_is_measured_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches: list[int] = []
    original = hnsw.Graph.search

    def noted(self: hnsw.Graph, queries: Rows, limit: int, effort: int) -> Any:
        searches.append(effort)
        return original(self, queries, limit, effort)

    monkeypatch.setattr(hnsw.Graph, "search", noted)
    rows = data(600)
    async with opened(path) as store:
        by_hand(store)
        for upto, measured in ((400, True), (450, False), (600, True)):
            before = len(searches)
            await put(store, rows[of_memories(store).nodes if store._follower.indexes.by_kind else 0 : upto],
                      of_memories(store).nodes if store._follower.indexes.by_kind else 0)  # fmt: skip
            await store.optimize()
            assert (len(searches) > before) is measured
            assert of_memories(store).nodes == upto


def test_the_log_of_the_maintainer_is_the_librarys_own() -> None:
    assert maintainer._log is logging.getLogger("memstore")

"""Claims of the processes that write graph snapshots: one at a time, taken over when the writer has ended or hangs."""

import asyncio
import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest

from memstore import GraphOptions, Store
from memstore.repository.sqlite_only import index_snapshots
from memstore.repository.sqlite_only.activity import activity, has_ended
from memstore.sync import snapshot, snapshot_writer
from tests.support.children import Child, Link
from tests.support.clusters import by_hand, check_hits, clustered, opened, put, small_graphs, sql, wait_until_idle

M, COUNT = 8, 400


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_graphs(monkeypatch, MIN_GRAPH_VECTORS=100)
    monkeypatch.setattr(snapshot, "CHUNK", 4_096)


ROWS = clustered(np.random.default_rng(4), COUNT + 300)[0]


def snapshots(path: Path) -> list[tuple[int, int]]:
    return sql(path, "SELECT pk, complete FROM index_snapshot ORDER BY pk")


def copy_as_claim(path: Path, writer: str) -> None:
    """Add an incomplete copy of the stored snapshot, as *writer* would have begun it."""
    columns = "space_pk, epoch, seq, chunks"
    sql(
        path,
        f"INSERT INTO index_snapshot ({columns}, parameters, complete) "
        f"SELECT {columns}, json_set(parameters, '$.writer', :writer), 0 FROM index_snapshot WHERE complete = 1",
        writer=writer,
    )


async def store_a_graph(path: Path) -> None:
    async with opened(path, graph=GraphOptions(m=M)) as store:
        by_hand(store)
        await put(store, ROWS[:COUNT])
        await store.optimize()
    assert [complete for _, complete in snapshots(path)] == [1]


async def grown(store: Store) -> None:
    """Add vectors and store the graph again."""
    await put(store, ROWS[COUNT:], COUNT)
    await store.optimize()


async def names_its_activity(link: Link) -> str:
    with activity() as name:
        link.send(name)
        await link.receive()
    return name


def test_an_activity_ends_with_its_block_or_its_process() -> None:
    with activity() as name:
        assert not has_ended(name)
    with Child(names_its_activity) as child:
        other = child.receive()
        assert not has_ended(other)
        child.kill()
        if os.path.exists("/proc/self/stat"):
            assert has_ended(name)
            assert has_ended(other)
    for strange in (None, 1, "", "#", "a:b", "a:1:2#", f"{name.split(':')[0]}:x:1#"):
        assert not has_ended(strange)


@pytest.mark.skipif(
    not os.path.exists("/proc/self/stat"), reason="an ended process is told from a running one on Linux"
)
async def test_the_claim_of_an_ended_writer_is_taken_over_at_once(path: Path) -> None:
    await store_a_graph(path)
    with activity() as name:
        pass
    copy_as_claim(path, name)
    async with opened(path) as store:
        by_hand(store)
        await asyncio.wait_for(grown(store), index_snapshots.CLAIM_SECONDS)
    assert [complete for _, complete in snapshots(path)] == [1]


async def test_a_claim_without_a_new_chunk_is_taken_over_and_one_with_new_chunks_is_not(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_snapshots, "CLAIM_SECONDS", 0.5)
    await store_a_graph(path)
    with activity() as name:
        copy_as_claim(path, name)
        (pk,) = (pk for pk, complete in snapshots(path) if not complete)
        async with opened(path) as store:
            by_hand(store)
            growing = asyncio.ensure_future(grown(store))
            for number in range(12):
                sql(path, "INSERT INTO index_chunk VALUES (:pk, :number, x'00', x'00')", pk=pk, number=number)
                await asyncio.sleep(0.15)
                assert (pk, 0) in snapshots(path), "its writer was alive"
            await growing
        assert [complete for _, complete in snapshots(path)] == [1]
        assert pk not in dict(snapshots(path))


async def test_a_writer_whose_claim_was_taken_over_stops_and_harms_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await store_a_graph(path)
    original, numbers = snapshot_writer._add_chunk, []

    def add_chunk(connection: object, header: index_snapshots.Header, number: int, data: bytes) -> None:
        numbers.append(number)
        if number == 2:
            index_snapshots.retire(connection, header.pk)  # type: ignore[arg-type]
        original(connection, header, number, data)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(snapshot_writer, "_add_chunk", add_chunk)
        async with opened(path) as store:
            by_hand(store)
            await grown(store)
            assert numbers == [0, 1, 2]
            assert (await store.stats()).graph_nodes == COUNT + 300
            assert await store.check() == []
    async with opened(path) as store:
        await store.memories.search(np.ones(24))
        await store.optimize()
        assert [complete for _, complete in snapshots(path)] == [1]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING and "snapshot" in record.msg] == []


async def test_a_snapshot_that_is_replaced_while_it_is_read_is_not_called_damaged(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await store_a_graph(path)
    async with opened(path) as store:
        by_hand(store)
        await store.memories.search(np.ones(24))  # lays the entries out for the snapshot
        assert store._follower.indexes.pending_snapshots
        (pk,) = dict(snapshots(path))
        async with opened(path) as other:
            by_hand(other)
            await grown(other)
        assert pk not in dict(snapshots(path))
        store._maintainer._retry_at = 0.0
        await wait_until_idle(store)
        await store.memories.search(np.ones(24))
        await wait_until_idle(store)
        assert "damaged" not in caplog.text
        answers = await store.memories.search_many(ROWS[:20])
        assert check_hits(answers, ROWS[:20], [str(i) for i in range(len(ROWS))], ROWS) == {"graph"}
        assert await store.check() == []


async def test_half_deleted_chunks_of_a_replaced_snapshot_are_no_damage(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its writer ended while it deleted: the row is neither complete nor a claim, and the next one deletes the rest."""
    await store_a_graph(path)
    sql(path, "UPDATE index_snapshot SET complete = 0, epoch = ''", "DELETE FROM index_chunk WHERE number < 3")
    async with opened(path) as store:
        by_hand(store)
        await grown(store)
        assert await store.check() == []
    assert [complete for _, complete in snapshots(path)] == [1]
    assert "damaged" not in caplog.text


async def test_the_header_names_the_writer(path: Path) -> None:
    await store_a_graph(path)
    ((text,),) = sql(path, "SELECT parameters FROM index_snapshot")
    assert "#" in json.loads(text)["writer"]

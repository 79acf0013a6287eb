"""Transactions: all or nothing, own changes seen by oneself alone, no task waiting for itself."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import memstore
from memstore import BusyError, DuplicateError, NotFoundError, ReadOnlyError, Store, TransactionError
from memstore.database.transactions import raw
from tests.conftest import DIMENSION, vectors


async def test_committed_transaction_is_stored_and_searchable(store: Store, rng: np.random.Generator) -> None:
    a, b = vectors(rng, 2)
    async with store.transaction() as tx:
        await tx.memories.add("a", id="a", embedding=a)
        await tx.assemblies.add("g", members=["a"])
        await tx.memories.add("b", id="b", embedding=b)
        await tx.assemblies.add_members("g", ["b"])
    assert (await store.memories.search(b))[0].memory.id == "b"
    assert (await store.assemblies.get("g")).member_count == 2


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, asyncio.CancelledError])
async def test_any_exception_rolls_the_transaction_back(
    store: Store, rng: np.random.Generator, error: type[BaseException]
) -> None:
    vector = vectors(rng, 1)[0]
    await store.memories.add("before", id="x", embedding=vector)
    with pytest.raises(error):
        async with store.transaction() as tx:
            await tx.memories.delete("x")
            await tx.memories.add("a", id="a", embedding=-vector, tags={"t"})
            raise error
    assert [m.id async for m in store.memories.list()] == ["x"]
    assert [h.memory.id for h in await store.memories.search(-vector)] == ["x"]
    assert [t async for t in store.tags.list()] == []


async def test_only_the_transaction_sees_its_changes(store: Store, rng: np.random.Generator) -> None:
    old, new, other = vectors(rng, 3)
    await store.memories.add_many([{"id": f"{i}", "content": "x", "embedding": v} for i, v in enumerate((old, new))])
    async with store.transaction() as tx:
        await tx.memories.update("0", embedding=other)
        await tx.memories.delete("1")
        await tx.memories.add("n", id="n", embedding=new, tags={"fresh"})
        await tx.assemblies.add("g", members=["n"])
        hits = await tx.memories.search(new)
        assert [h.memory.id for h in hits] == ["n", "0"] or [h.memory.id for h in hits] == ["0", "n"]
        assert hits.plan.uncommitted == 2
        assert [h.memory.id for h in await tx.memories.search(old, tags={"fresh"})] == ["n"]
        assert [h.memory.id for h in await tx.memories.search(new, where={"id": "n"})] == ["n"]
        assert [h.assembly.id for h in await tx.assemblies.search(new)] == ["g"]
        assert {h.memory.id for h in await store.memories.search(new)} == {"0", "1"}
        assert (await store.memories.get("0")).embedding.tobytes() == old.tobytes()
        assert await store.assemblies.search(new) == []
    assert {h.memory.id for h in await store.memories.search(new)} == {"0", "n"}


async def test_failed_verb_changes_nothing_and_the_transaction_goes_on(store: Store, rng: np.random.Generator) -> None:
    vector = vectors(rng, 1)[0]
    async with store.transaction() as tx:
        await tx.memories.add("a", id="a", embedding=vector)
        with pytest.raises(DuplicateError):
            await tx.memories.add_many(
                [{"id": "b", "content": "b", "embedding": -vector}, {"id": "a", "content": "again"}]
            )
        with pytest.raises(NotFoundError):
            await tx.assemblies.add("g", members=["a", "none"])
        with pytest.raises(DuplicateError):
            await tx.assemblies.add("h")
            await tx.assemblies.add("h")
        assert [h.memory.id for h in await tx.memories.search(-vector)] == ["a"]
        await tx.memories.add("c", id="c")
    assert [m.id async for m in store.memories.list()] == ["a", "c"]
    assert [a.id async for a in store.assemblies.list()] == ["h"]


async def test_nested_transaction_is_rolled_back_alone(store: Store, rng: np.random.Generator) -> None:
    a, b = vectors(rng, 2)
    async with store.transaction() as tx:
        await tx.memories.add("a", id="a", embedding=a)
        with pytest.raises(ValueError, match="inner"):
            async with tx.transaction() as inner:
                await inner.memories.add("b", id="b", embedding=b)
                async with inner.transaction() as innermost:
                    await innermost.memories.add("c", id="c", embedding=b)
                assert len(await tx.memories.search(b)) == 3
                raise ValueError("inner")
        assert [h.memory.id for h in await tx.memories.search(b)] == ["a"]
        async with tx.transaction() as inner:
            await inner.memories.add("d", id="d")
    assert [m.id async for m in store.memories.list()] == ["a", "d"]


async def test_nested_transaction_is_rolled_back_while_another_task_uses_it(store: Store) -> None:
    async with store.transaction() as tx:
        with pytest.raises(TransactionError):
            async with tx.transaction():
                await asyncio.gather(tx.memories.add("A", id="A"), tx.memories.add("B", id="B"))
        await tx.memories.add("C", id="C")
    assert [m.id async for m in store.memories.list()] == ["C"]


async def test_nested_transaction_cancelled_at_its_start_leaves_no_savepoint(store: Store) -> None:
    async with store.transaction() as tx:
        with pytest.raises(ValueError, match="outer"):
            async with tx.transaction():
                await tx.memories.add("A", id="A")
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0):
                        async with tx.transaction():
                            await tx.memories.add("never")
                raise ValueError("outer")
    assert await store.memories.count() == 0


async def test_large_transaction_sees_its_first_changes(store: Store, rng: np.random.Generator) -> None:
    query, old = vectors(rng, 2)
    await store.memories.add("old", id="old", embedding=old)
    await store.memories.search(query)
    async with store.transaction() as tx:
        await tx.memories.add("first", id="first", embedding=query)
        await tx.memories.delete("old")
        for _ in range(12):
            await tx.memories.add_many([{"content": "x", "embedding": -query} for _ in range(1_000)])
        assert (await tx.memories.search(query, 1))[0].memory.id == "first"
        assert "old" not in [hit.memory.id for hit in await tx.memories.search(old, 100)]
    assert (await store.memories.search(query, 1))[0].memory.id == "first"


async def test_a_transaction_has_every_verb_of_its_namespace(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.namespace("a").memories.add("x")
        assert await tx.namespaces() == [("a",)]
        assert await tx.clear(recursive=True) == 1
    assert await store.memories.count(recursive=True) == 0


async def test_ended_transaction_is_freed(path: Path) -> None:
    import gc
    import weakref

    async with memstore.open(path, dimension=2) as store:
        async with store.transaction() as tx:
            await tx.memories.add("x")
        watched = weakref.ref(tx._opened)
        del tx
        for _ in range(50):
            gc.collect()
            if watched() is None:
                break
            await asyncio.sleep(0.01)
        assert watched() is None, gc.get_referrers(watched())


async def test_a_store_level_write_inside_one_s_own_transaction_raises_at_once(store: Store) -> None:
    async with asyncio.timeout(60):
        async with store.transaction() as tx:
            with pytest.raises(TransactionError, match="use tx"):
                await store.memories.add("x")
            with pytest.raises(TransactionError):
                await asyncio.gather(store.assemblies.add("g"))
            with pytest.raises(TransactionError):
                async with store.transaction():
                    pass
            with pytest.raises(TransactionError):
                await store.close()
            assert await store.memories.count() == 0
            await tx.memories.add("y")
        await store.memories.add("x")


async def test_a_transaction_on_another_store_may_be_open_meanwhile(store: Store, tmp_path: Path) -> None:
    async with memstore.open(tmp_path / "other.db", dimension=2) as other, store.transaction() as tx:
        await other.memories.add("there")
        await tx.memories.add("here")
        assert await other.memories.count() == 1


async def test_a_task_that_outlives_the_transaction_may_write(store: Store) -> None:
    begun = asyncio.Event()

    async def later() -> None:
        await begun.wait()
        await store.memories.add("later")

    async with store.transaction() as tx:
        task = asyncio.create_task(later())
        await tx.memories.add("now")
    begun.set()
    await task
    assert await store.memories.count() == 2


async def test_a_transaction_used_after_its_block_or_by_two_tasks_raises(store: Store) -> None:
    async with store.transaction() as tx:
        outcomes = await asyncio.gather(*(tx.memories.add(str(i)) for i in range(3)), return_exceptions=True)
        assert sum(isinstance(o, TransactionError) for o in outcomes) == 2
    with pytest.raises(TransactionError, match="ended"):
        await tx.memories.add("late")
    with pytest.raises(TransactionError, match="ended"):
        await tx.namespace("a").memories.count()
    assert await store.memories.count() == 1


async def test_cancelled_transaction_is_rolled_back_and_releases_the_writer(
    store: Store, rng: np.random.Generator
) -> None:
    vector = vectors(rng, 1)[0]
    entered = asyncio.Event()

    async def block() -> None:
        async with store.transaction() as tx:
            await tx.memories.add("x", embedding=vector)
            entered.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(block())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await store.memories.count() == 0
    assert await store.memories.search(vector) == []
    await store.memories.add("y", embedding=vector)


async def test_writes_cancelled_at_random_moments_are_complete_or_absent(store: Store) -> None:
    rng = np.random.default_rng(3)
    rows = vectors(rng, 200)
    for i in range(200):
        items = [{"id": f"{i}-{j}", "content": "x", "embedding": rows[i], "tags": {"t"}} for j in range(3)]
        task = asyncio.create_task(store.memories.add_many(items))
        await asyncio.sleep(float(rng.random()) * 0.004)
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        stored = await store.memories.get_many([f"{i}-{j}" for j in range(3)])
        assert len(stored) in (0, 3)
        if not isinstance(outcome, BaseException):
            assert len(stored) == 3
        ids = {h.memory.id for h in await store.memories.search(rows[i], 1_000)}
        assert {id in ids for id in (f"{i}-{j}" for j in range(3))} == {len(stored) == 3}
        raw_state = await store._database._writer.thread.submit(lambda c: raw(c).in_transaction)
        assert raw_state is False


async def test_writer_waits_for_another_at_most_the_timeout(path: Path) -> None:
    async with memstore.open(path, dimension=2, timeout=0.3) as one, memstore.open(path, timeout=0.3) as two:
        async with one.transaction() as tx:
            await tx.memories.add("held")
            async with asyncio.timeout(60):
                with pytest.raises(BusyError):  # another connection
                    await two.memories.add("x")
                with pytest.raises(BusyError):  # another task
                    await asyncio.create_task(_add(one), context=None)
        await two.memories.add("now")
        assert await one.memories.count() == 2


async def _add(store: Store) -> None:
    from memstore.session import _open_transactions

    _open_transactions.set(())  # a task that was not started by the block
    await store.memories.add("x")


async def test_transaction_that_sqlite_rolled_back_stores_nothing(store: Store) -> None:
    with pytest.raises(TransactionError, match="rolled this transaction back"):
        async with store.transaction() as tx:
            await tx.memories.add("x")
            await tx._opened._session.run(lambda c: raw(c).execute("ROLLBACK"))  # as a full disk makes SQLite do
            with pytest.raises(TransactionError, match="rolled this transaction back"):
                await tx.memories.add("y")
    assert await store.memories.count() == 0


async def test_cancellation_ends_the_wait_for_a_lock_of_another_connection(path: Path) -> None:
    async with memstore.open(path, dimension=2, timeout=20) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for wait in (store.memories.add("x"), _enter(store)):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await asyncio.wait_for(wait, 5)
        other.execute("ROLLBACK")
        other.close()
        await store.memories.add("y")
        assert await store.memories.count() == 1


async def _enter(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.memories.add("never")


async def test_error_of_the_block_is_not_replaced_by_an_error_of_close(path: Path) -> None:
    entered, go = asyncio.Event(), asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def hold(store: Store) -> None:
        async with store.transaction():
            entered.set()
            await go.wait()

    with pytest.raises(ValueError, match="of the block") as caught:
        async with memstore.open(path, dimension=2, timeout=0.1) as store:
            tasks.append(asyncio.create_task(hold(store)))
            await entered.wait()
            raise ValueError("of the block")
    assert "could not be closed" in caught.value.__notes__[0]
    go.set()
    await tasks[0]
    await store.close()


async def test_read_only_refuses_every_write_and_sees_others(path: Path, rng: np.random.Generator) -> None:
    vector = vectors(rng, 1)[0]
    async with memstore.open(path, dimension=DIMENSION) as store, memstore.open(path, read_only=True) as reader:
        with pytest.raises(ReadOnlyError):
            await reader.memories.add("x")
        with pytest.raises(ReadOnlyError):
            async with reader.transaction():
                pass
        with pytest.raises(ReadOnlyError):
            await reader.compact()
        await store.memories.add("seen", embedding=vector)
        assert (await reader.memories.search(vector))[0].memory.content == "seen"
        assert await reader.check() == []


async def test_another_store_on_the_file_finds_what_was_committed(path: Path, rng: np.random.Generator) -> None:
    rows = vectors(rng, 30)
    async with memstore.open(path, dimension=DIMENSION) as one, memstore.open(path) as two:
        for i, row in enumerate(rows):
            await (one if i % 2 else two).memories.add(str(i), embedding=row)
            for store in (one, two):
                assert (await store.memories.search(row))[0].memory.content == str(i)
        assert await one.check() == await two.check() == []


async def test_outdated_composite_delays_no_search_while_another_writes(
    store: Store, path: Path, rng: np.random.Generator
) -> None:
    rows = vectors(rng, 2)
    await store.memories.add_many([{"id": str(i), "content": "x", "embedding": v} for i, v in enumerate(rows)])
    await store.assemblies.add("g", members=["0"])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("INSERT INTO assembly_member SELECT 1, pk FROM memory WHERE id = '1'")
    other.execute("BEGIN IMMEDIATE")
    async with asyncio.timeout(8):  # less than the store's timeout
        assert len(await store.memories.search(rows[0])) == 2
        assert len(await store.assemblies.search(rows[0])) == 1
        async with memstore.open(path) as second:
            assert await second.assemblies.count() == 1
    other.execute("ROLLBACK")
    other.close()
    await store.assemblies.search(rows[0])
    assert await store.check() == []


async def test_rows_without_a_namespace_are_in_no_index(store: Store, path: Path, rng: np.random.Generator) -> None:
    rows = vectors(rng, 2)
    await store.memories.add("kept", id="kept", embedding=rows[0])
    await store.namespace("u").memories.add("lost", embedding=rows[1])
    await store.memories.search(rows[0], recursive=True)
    with closing(sqlite3.connect(path)) as base, base:
        base.execute("DELETE FROM namespace WHERE path = 'u/'")
        base.execute("REPLACE INTO memory SELECT * FROM memory WHERE id = 'kept'")
    base.close()
    async with store.transaction() as tx:
        assert [hit.memory.id for hit in await tx.memories.search(rows[1], recursive=True)] == ["kept"]
    assert [hit.memory.id for hit in await store.memories.search(rows[1], recursive=True)] == ["kept"]
    assert {finding.kind for finding in await store.check()} == {"foreign_key"}
    with closing(sqlite3.connect(path)) as base, base:
        base.execute("INSERT INTO namespace (pk, path) SELECT namespace_pk, 'u/' FROM memory WHERE content = 'lost'")
    base.close()
    assert (await store.repair()).remaining == []
    assert [hit.memory.content for hit in await store.memories.search(rows[1], 1, recursive=True)] == ["lost"]


async def test_very_large_and_negative_keys_are_indexed(store: Store, path: Path, rng: np.random.Generator) -> None:
    rows = vectors(rng, 3)
    await store.memories.add("near", id="near", embedding=rows[0])
    await store.memories.search(rows[0])
    with closing(sqlite3.connect(path)) as base, base:
        for key, row in ((10**15, rows[1]), (-7, rows[2])):
            base.execute(
                "INSERT INTO memory SELECT ?, namespace_pk, ?, content, metadata, importance, created_at, updated_at, "
                "expires_at, accessed_at, access_count, pinned FROM memory WHERE id = 'near'",
                (key, str(key)),
            )
            base.execute("INSERT INTO memory_vector VALUES (?, 1, ?, NULL)", (key, row.tobytes()))
    base.close()
    assert [(await store.memories.search(row))[0].memory.id for row in rows] == ["near", str(10**15), "-7"]
    await store.memories.delete_many(ids=[str(10**15), "-7"])
    assert len(await store.memories.search(rows[0])) == 1


async def test_changes_by_raw_sql_are_indexed_and_composites_recomputed(
    store: Store, path: Path, rng: np.random.Generator
) -> None:
    rows = vectors(rng, 4)
    await store.memories.add_many([{"id": str(i), "content": "x", "embedding": v} for i, v in enumerate(rows[:3])])
    await store.assemblies.add("g", members=["0", "1"])
    await store.memories.search(rows[0])
    with closing(sqlite3.connect(path)) as base, base:  # foreign keys are off here, as in most tools
        base.execute("UPDATE memory_vector SET vector = ? WHERE memory_pk = 1", (rows[3].tobytes(),))
        base.execute("DELETE FROM memory WHERE id = '2'")
        base.execute("UPDATE memory SET expires_at = 1 WHERE id = '1'")
    base.close()
    assert [f.kind for f in await store.check()] == ["foreign_key", "composite"]
    hits = await store.memories.search(rows[3])
    assert [h.memory.id for h in hits] == ["0"]
    assert hits[0].score == pytest.approx(1)
    await store.assemblies.search(rows[3])
    assert [f.kind for f in await store.check()] == ["foreign_key"]
    report = await store.repair()
    assert (report.orphans, report.remaining) == (1, [])
    assert report.checksums == 1
    assert await store.check() == []

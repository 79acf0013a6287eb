"""Several processes use one file: they open it at once, wait for each other, and find what the others committed.

`MEMSTORE_ROUNDS=100` runs the races so many times.
"""

import asyncio
import sqlite3
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import memstore
from memstore import BusyError, Hit, Store
from memstore.database.inspect import HEAD
from memstore.repository.sqlite_only import change_log
from tests.database.test_migrations import frozen
from tests.reliability import cases
from tests.support.children import Child, Link, children, context

ROUNDS = cases("ROUNDS", 0)
DIMENSION = 8

Vector = npt.NDArray[np.float32]


def vector(*words: int) -> Vector:
    return np.random.default_rng(words).standard_normal(DIMENSION).astype(np.float32)


def read(path: Path, question: str) -> Any:
    with closing(sqlite3.connect(path)) as base:
        return base.execute(question).fetchone()[0]


def scored_right(hit: Hit, query: Vector, embedding: Vector) -> None:
    """Check that row and index have *embedding*."""
    assert hit.memory.embedding.tobytes() == embedding.tobytes()
    right = float(query @ embedding) / float(np.linalg.norm(query) * np.linalg.norm(embedding))
    assert hit.score == pytest.approx(right, abs=3e-6), "the index has another vector than the row"


# -- opening at once


async def opens(link: Link, number: int, barrier: Any, folder: str, rounds: int, existing: bool) -> None:
    for round_ in range(rounds):
        path = Path(folder, f"{round_}.db")
        await asyncio.to_thread(barrier.wait, 60)
        async with memstore.open(path, dimension=None if existing else DIMENSION) as store:
            embedding = vector(number)[: store.dimension]
            await store.memories.add("x", id=f"own {number}", embedding=embedding)
            hits = await store.memories.search(embedding, limit=1, where={"id": f"own {number}"})
            assert [hit.memory.id for hit in hits] == [f"own {number}"]
            await asyncio.to_thread(barrier.wait, 60)
            hit_ids = {hit.memory.id for hit in await store.memories.search(embedding, limit=100)}
            assert {f"own {i}" for i in range(4)} <= hit_ids


@pytest.mark.timeout(900)
@pytest.mark.parametrize("revision", [None, "0001"])
def test_four_processes_open_one_file_at_once(tmp_path: Path, revision: str | None) -> None:
    rounds = ROUNDS or 15
    if revision is not None:
        for i in range(rounds):
            frozen(tmp_path / f"{i}.db", revision)
    with children(4, opens, context.Barrier(4), str(tmp_path), rounds, revision is not None) as four:
        for child in four:
            child.receive(900)
    for i in range(rounds):
        path = tmp_path / f"{i}.db"
        assert read(path, "PRAGMA integrity_check") == "ok"
        assert read(path, "SELECT count(*) FROM memory WHERE id LIKE 'own %'") == 4
        assert read(path, "SELECT version_num FROM memstore_version") == HEAD
        assert read(path, "SELECT count(*) FROM store_meta") == 1
        assert read(path, "PRAGMA journal_mode") == "wal"
    assert {file.suffix for file in tmp_path.iterdir()} == {".db"}


# -- writing and searching at once, compared with a history


class Ledger:
    """The numbers of the last operation that each process began and ended, in shared memory."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(2 * 4 * 8))
        self.begun, self.done = np.memmap(path, np.int64, "r+", shape=(2, 4))


Contents = Mapping[str, int]
"""The memories of a process in the file, with the number of the operation that wrote each."""


class Script:
    """The operations of one process, which all processes can compute."""

    RECORDS = 12

    def __init__(self, seed: int, number: int) -> None:
        self.number = number
        self._rng = np.random.default_rng([seed, number])
        self._operations: list[tuple[list[str], bool]] = [([], True)]
        self._states: list[Contents] = [{}]

    def operation(self, n: int) -> tuple[list[str], bool]:
        """The ids that operation *n* writes, and whether it deletes them."""
        while len(self._operations) <= n:
            numbers = self._rng.choice(self.RECORDS, size=self._rng.integers(1, 5), replace=False)
            self._operations.append(([f"{self.number}:{i}" for i in numbers], bool(self._rng.random() < 0.25)))
        return self._operations[n]

    def state(self, n: int) -> Contents:
        """What is in the file after operation *n*."""
        while len(self._states) <= n:
            ids, deletes = self.operation(len(self._states))
            contents = {id: of for id, of in self._states[-1].items() if id not in ids}
            self._states.append(contents if deletes else contents | dict.fromkeys(ids, len(self._states)))
        return self._states[n]

    def embedding(self, id: str, n: int) -> Vector:
        return vector(self.number, int(id.split(":")[1]), n)

    async def act(self, store: Store, n: int) -> None:
        ids, deletes = self.operation(n)
        if deletes:
            await store.memories.delete_many(ids=ids)
            return
        items = [
            {
                "id": id,
                "content": str(n),
                "embedding": self.embedding(id, n),
                "metadata": {"by": self.number},
                "tags": {str(self.number)},
            }
            for id in ids
        ]
        await store.memories.upsert_many(items)


async def searched_contents(store: Store, script: Script, query: Vector, rng: np.random.Generator) -> Contents:
    """The memories of a process that a search returns; their scores are checked."""
    by = {"tags": {str(script.number)}} if rng.random() < 0.5 else {"where": {"metadata.by": script.number}}
    hits = await store.memories.search(query, limit=100, **by)
    contents = {hit.memory.id: int(hit.memory.content) for hit in hits}
    for hit in hits:
        scored_right(hit, query, script.embedding(hit.memory.id, contents[hit.memory.id]))
    return contents


async def takes_part(
    link: Link, number: int, barrier: Any, path: str, ledger: Path, seed: int, turns: int, index: str
) -> int:
    scripts, shared, rng = (
        [Script(seed, i) for i in range(4)],
        Ledger(ledger),
        np.random.default_rng([seed, number, 7]),
    )
    searches = 0
    async with memstore.open(path, dimension=DIMENSION, index=index) as store:
        await asyncio.to_thread(barrier.wait, 60)
        n = 0
        while n < turns:
            if rng.random() < 0.4:
                n += 1
                shared.begun[number] = n
                await scripts[number].act(store, n)
                shared.done[number] = n
                continue
            other = scripts[rng.integers(4)]
            low = int(shared.done[other.number])
            contents = await searched_contents(store, other, vector(int(rng.integers(99))), rng)
            high = int(shared.begun[other.number])
            allowed = [other.state(i) for i in range(low, high + 1)]
            assert contents in allowed, f"process {other.number} had done {low} and begun {high}; found {contents}"
            searches += 1
            if index == "graph" and rng.random() < 0.03:
                await store.optimize()
        await asyncio.to_thread(barrier.wait, 60)
        for script in scripts:
            assert await searched_contents(store, script, vector(1), rng) == script.state(turns)
        assert await store.check() == []
    return searches


@pytest.mark.timeout(900)
@pytest.mark.parametrize("index", ["exact", "graph"])
def test_every_process_finds_every_acknowledged_write(tmp_path: Path, index: str) -> None:
    path, ledger = tmp_path / "store.db", tmp_path / "ledger"
    turns, seed = 10 * ROUNDS or 60, 11
    Ledger(ledger)
    with children(4, takes_part, context.Barrier(4), str(path), ledger, seed, turns, index) as four:
        searches = [child.receive(900) for child in four]
    assert min(searches) > turns / 3
    assert read(path, "PRAGMA integrity_check") == "ok"


# -- waiting


async def hold_writer(link: Link, path: str) -> None:
    """Hold the writer until the parent sends anything."""
    async with memstore.open(path, dimension=DIMENSION) as store, store.transaction() as tx:
        await tx.memories.add("held", id="held", embedding=vector(0))
        link.send("holding")
        await link.receive()


async def adds(link: Link, path: str, id: str) -> None:
    async with memstore.open(path, dimension=DIMENSION) as store:
        link.send("open")
        await link.receive()
        embedding = vector(1, ord(id))
        adding = asyncio.ensure_future(store.memories.add("x", id=id, embedding=embedding))
        await asyncio.sleep(0)  # it is in the write queue
        link.send("asked")
        await adding
        assert (await store.memories.search(embedding, limit=1))[0].memory.id == id


async def is_refused(link: Link, path: str) -> None:
    async with memstore.open(path, dimension=DIMENSION, timeout=0.2) as store:
        link.send("open")
        await link.receive()
        with pytest.raises(BusyError):
            await store.memories.add("refused", id="late", embedding=vector(2))
        with pytest.raises(BusyError):
            await store.memories.upsert_many([{"content": "refused", "id": "late"}] * 200)
        with pytest.raises(BusyError):
            async with store.transaction():
                pass
        assert [hit.memory.id for hit in await store.memories.search(vector(2))] == []  # a read does not wait
        link.send("refused")
        await link.receive()
        await store.memories.add("taken", id="late", embedding=vector(2))
        assert await store.check() == []


def test_writers_wait_for_each_other_up_to_their_timeout(tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    names = ["a", "b", "c"]
    with Child(is_refused, path) as impatient, ExitStack() as others:
        assert impatient.receive() == "open"
        holder = others.enter_context(Child(hold_writer, path))
        assert holder.receive() == "holding"
        waiting = [others.enter_context(Child(adds, path, name)) for name in names]
        for child in waiting:
            assert child.receive() == "open"
            child.send("go")
            assert child.receive() == "asked"
        impatient.send("go")
        assert impatient.receive() == "refused"
        assert not any(child._link.poll() for child in waiting), "a process wrote while another held the lock"
        holder.send("let go")
        holder.receive()
        for child in waiting:
            child.receive()
        impatient.send("go")
        impatient.receive()
    assert read(tmp_path / "store.db", "SELECT group_concat(id) FROM (SELECT id FROM memory ORDER BY id)") == (
        "a,b,c,held,late"
    )


# -- a migration while others have the file open


async def brings_up_to_date(link: Link, path: str, timeout: float) -> str:
    try:
        async with memstore.open(path, timeout=timeout) as store:
            assert await store.check() == []
            return str(await store.memories.count(recursive=True))
    except BusyError:
        return "busy"


def test_migration_waits_for_writers_but_not_for_readers(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    frozen(path, "0001")
    count = read(path, "SELECT count(*) FROM memory")
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with Child(brings_up_to_date, str(path), 0.3) as hasty:
            assert hasty.receive() == "busy"
        assert read(path, "SELECT version_num FROM memstore_version") == "0001", "it was changed all the same"
        with (
            closing(sqlite3.connect(path, isolation_level=None)) as reader,
            Child(brings_up_to_date, str(path), 50.0) as patient,
        ):
            reader.execute("BEGIN")
            assert reader.execute("SELECT version_num FROM memstore_version").fetchone() == ("0001",)
            writer.execute("INSERT INTO namespace (pk, path) VALUES (99, 'late/')")
            writer.execute("COMMIT")
            # One connection writes by the old schema, one reads by it, and one migrates the file.
            assert patient.receive() == str(count)
            assert reader.execute("SELECT version_num FROM memstore_version").fetchone() == ("0001",)
            reader.execute("ROLLBACK")
            assert reader.execute("SELECT version_num FROM memstore_version").fetchone() == (HEAD,)
            assert reader.execute("SELECT path FROM namespace WHERE pk = 99").fetchone() == ("late/",)


def test_open_transaction_does_not_delay_an_open_without_migration(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    frozen(path, "0001")

    async def run() -> None:
        async with memstore.open(path) as store:
            count = await store.memories.count(recursive=True)
            async with store.transaction() as tx:
                await tx.memories.add("own", id="own", embedding=[1.0] * store.dimension)
                with Child(brings_up_to_date, str(path), 0.3) as other:
                    assert await asyncio.to_thread(other.receive) == str(count), "opening the file waited"
            assert await store.check() == []

    asyncio.run(run())


# -- a follower behind the log


async def writes_much(link: Link, path: str) -> None:
    change_log.KEEP = 50
    async with memstore.open(path) as store:
        for i in range(20):
            await store.memories.upsert_many(
                [{"id": str(k), "content": str(i), "embedding": vector(i, k)} for k in range(30)]
            )
        await store.memories.delete("29")


async def test_index_behind_the_trimmed_log_is_rebuilt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "store.db"
    async with memstore.open(path, dimension=DIMENSION) as store:
        await store.memories.add("first", id="first", embedding=vector(0))
        await store.memories.search(vector(0))
        with Child(writes_much, str(path)) as other:
            await asyncio.to_thread(other.receive)
        assert read(path, "SELECT log_floor FROM store_meta") > store._follower.indexes.applied
        caplog.set_level("INFO", "memstore")
        for k in range(29):
            hit = (await store.memories.search(vector(19, k), limit=1))[0]
            assert (hit.memory.id, hit.memory.content) == (str(k), "19")
        assert caplog.text.count("rebuilding") == 1
        assert len(await store.memories.search(vector(0), limit=100)) == 30
        assert await store.check() == []

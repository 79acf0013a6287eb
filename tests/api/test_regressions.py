"""What users of stores like this one were bitten by, each held by a test.

Drift found by content at any size, everything kept through a new process, the index mended from the rows, files that
are something else refused, no call that hangs, no update lost.
"""

import asyncio
import inspect
import json
import random
import sqlite3
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np
import numpy.typing as npt
import pytest

import memstore
from memstore import (
    Assemblies,
    AssemblyBoost,
    AssemblyForgetPolicy,
    ForgetPolicy,
    Memories,
    MemstoreError,
    Merge,
    Metric,
    SettingsMismatchError,
    Store,
    Tags,
    Transaction,
)
from memstore.models import AssemblySuggestion, MergedAssembly
from memstore.testing import Damage, HashEmbedder, damage
from tests.conftest import DIMENSION, vectors
from tests.support.spaces import placed, score

T = TypeVar("T")
Rows = npt.NDArray[np.float32]

ROOT = Path(__file__).parents[2]
BOUND = 60.0  # seconds any one call may take, on a busy machine


async def bounded(call: Awaitable[T], seconds: float = BOUND) -> T:
    async with asyncio.timeout(seconds):
        return await call


# -- (a) drift is detected


async def filled(store: Store, rows: Rows) -> list[str]:
    ids = [f"m:{i}" for i in range(len(rows))]
    await store.memories.add_many(
        [{"content": id, "id": id, "embedding": row} for id, row in zip(ids, rows, strict=True)]
    )
    for i, id in enumerate(ids):
        await store.assemblies.add(f"g:{i}", members=[id])
    return ids


def content(path: Path) -> list[str]:
    """Every row of the file, through SQLite: opening it otherwise would drop the store's locks."""
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def arrays(store: Store) -> dict[str, tuple[bytes, ...]]:
    return {
        kind: tuple(np.ascontiguousarray(a).tobytes() for a in index.table.entries())
        for kind, index in store._follower.indexes.by_kind.items()
    }


KINDS: list[Damage] = ["missing", "ghost", "stale", "swapped", "wrong_dimension"]


@pytest.mark.parametrize("record_kind", ["memory", "assembly"])
@pytest.mark.parametrize("count", [1, 15])
@pytest.mark.parametrize("kind", KINDS)
async def test_check_names_every_drift_and_changes_nothing(
    store: Store, path: Path, rng: np.random.Generator, kind: Damage, count: int, record_kind: Any
) -> None:
    if kind == "swapped":
        count = max(count, 2)  # one alone cannot be
    ids = await filled(store, vectors(rng, count))
    named = ids if record_kind == "memory" else [id.replace("m:", "g:") for id in ids]
    await store.memories.search(np.ones(DIMENSION))
    assert await store.check() == []
    damaged = {"missing": named[-1:], "stale": named[-1:], "swapped": named[-2:]}.get(kind, [])
    expected = await damage(store, kind, damaged, record_kind=record_kind)
    assert expected == damaged or kind == "ghost" or sorted(expected) == sorted(named)

    before, entries, modified = content(path), arrays(store), path.stat().st_mtime_ns
    findings = await bounded(store.check())
    assert {(f.kind, f.record_kind, f.id) for f in findings} == {(kind, record_kind, id) for id in expected}
    assert await bounded(store.check()) == findings
    assert content(path) == before
    assert path.stat().st_mtime_ns == modified
    assert arrays(store) == entries

    repaired = await bounded(store.repair())
    assert repaired.findings == findings
    assert repaired.remaining == []
    assert await store.check() == []


async def test_check_distinguishes_several_kinds_of_drift(store: Store, rng: np.random.Generator) -> None:
    ids = await filled(store, vectors(rng, 15))
    await damage(store, "missing", ids[:1])
    await damage(store, "stale", ids[3:4])
    await damage(store, "swapped", ids[6:8])
    (ghost,) = await damage(store, "ghost")  # as many entries as rows: counts say nothing
    findings = {(f.kind, f.id) for f in await store.check()}
    swapped = {("swapped", ids[6]), ("swapped", ids[7])}
    assert findings == {("missing", ids[0]), ("stale", ids[3]), ("ghost", ghost), *swapped}
    assert (await store.repair()).remaining == []


async def test_check_compares_namespace_and_expiry_in_the_index(store: Store, rng: np.random.Generator) -> None:
    ids = await filled(store, vectors(rng, 4))
    await store.memories.search(np.ones(DIMENSION))
    with store._follower.indexes.lock.exclusive():
        index = store._follower.indexes.by_kind["memory"]
        before = index.table.entries()
        index.put(
            before._replace(
                namespaces=before.namespaces + (before.keys == 2), expiries=before.expiries - (before.keys == 3)
            )
        )
    assert {(f.kind, f.id) for f in await store.check()} == {("stale", ids[1]), ("stale", ids[2])}
    await store.repair()


# -- (b) what was stored is there in a new process

READER = """
import asyncio, json, sys
import memstore

def short_repr(record):
    vector = getattr(record, "embedding", None) if hasattr(record, "embedding") else record.composite
    times = [getattr(record, n, None) for n in ("created_at", "updated_at", "expires_at", "accessed_at")]
    assert all(t is None or t.utcoffset() is not None for t in times), "naive"
    plain = {n: getattr(record, n, None) for n in ("id", "namespace", "content", "name", "metadata", "importance",
        "access_count", "topics", "member_count", "revision")}
    return plain | {
        "vector": None if vector is None else vector.tobytes().hex(), "tags": sorted(record.tags),
        "tag_type": type(record.tags).__name__, "topic_type": type(getattr(record, "topics", ())).__name__,
        "times": [None if t is None else t.isoformat() for t in times]}

async def everything(store):
    memories = [short_repr(m) async for m in store.memories.list(recursive=True)]
    assemblies = []
    async for assembly in store.assemblies.list(recursive=True):
        face = store.namespace(*assembly.namespace) if assembly.namespace else store
        assemblies.append(short_repr(assembly) | {"members": [m async for m in face.assemblies.members(assembly.id)]})
    return {"memories": memories, "assemblies": assemblies}

async def main(path, query):
    async with asyncio.timeout(30), memstore.open(path) as store:
        state = await everything(store)
        hits = await store.memories.search(query, limit=1000, recursive=True)
        state["found"] = [[h.memory.id, h.score] for h in hits]
        state["check"] = [str(f) for f in await store.check()]
        return state

if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))))
"""
_reader: dict[str, Any] = {"__name__": "reader"}
exec(compile(READER, "reader", "exec"), _reader)


async def as_shown(store: Store) -> Any:
    return json.loads(json.dumps(await bounded(_reader["everything"](store))))


async def in_a_new_process(path: Path, query: Rows) -> Any:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", READER, str(path), json.dumps(query.tolist()), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await bounded(process.communicate(), 60)
    assert process.returncode == 0
    return json.loads(out)


@contextmanager
def watched(folder: Path) -> Iterator[tuple[set[str], threading.Event]]:
    """Every name that appears in *folder* or beside it meanwhile, with an event to set once the file is made."""
    new_names: set[str] = set()
    store_open, stop = threading.Event(), threading.Event()

    def look() -> None:
        while not stop.is_set():
            ready = store_open.is_set()
            names = {str(p.relative_to(folder.parent)) for p in folder.parent.rglob("*")}
            new_names.update(name for name in names if ready or not name.endswith("-journal"))
            time.sleep(0.0005)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield new_names, store_open
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "around" / "inside"
    inside.mkdir(parents=True)
    return inside


ALLOWED = {"inside", "inside/store.db", "inside/store.db-wal", "inside/store.db-shm"}


async def test_memories_and_an_assembly_are_equal_in_a_new_process(folder: Path, rng: np.random.Generator) -> None:
    path, rows = folder / "store.db", vectors(rng, 5)
    ids = [f"mem:test-integrity-{i}" for i in range(5)]
    far = datetime(2150, 1, 1, 12, 0, 0, 123_457, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    with watched(folder) as (new_names, store_open):
        store = await bounded(memstore.open(path, dimension=DIMENSION))
        store_open.set()
        for i, id in enumerate(ids):
            await bounded(
                store.memories.add(
                    f"Inhalt {i} 🧠",
                    id=id,
                    embedding=rows[i],
                    tags={"test", f"t{i}"},
                    metadata={"i": i, "deep": [{"x": 0.1}, None, True, "é"]},
                    importance=i / 7,
                    expires_at=far,
                )
            )
        await bounded(store.memories.touch(ids[:2]))
        added = await bounded(
            store.assemblies.add(
                "asm:test-integrity-1",
                name="Integrity",
                members=ids,
                tags={"test", "integrity"},
                topics=["persistence", "asyncio"],
            )
        )
        before = await as_shown(store)
        await bounded(store.close())
        after = await in_a_new_process(path, rows[3])
    assert new_names == ALLOWED
    assert after["memories"] == before["memories"]
    assert after["assemblies"] == before["assemblies"]
    assert after["check"] == []
    assert [m["id"] for m in after["memories"]] == ids
    assert [bytes.fromhex(m["vector"]) for m in after["memories"]] == [row.tobytes() for row in rows]
    assert after["found"][0] == [ids[3], pytest.approx(1.0, abs=1e-6)]
    (assembly,) = after["assemblies"]
    assert assembly["id"] == "asm:test-integrity-1"
    assert assembly["members"] == ids
    assert (set(assembly["tags"]), assembly["tag_type"]) == ({"test", "integrity"}, "frozenset")
    assert (assembly["topics"], assembly["topic_type"]) == (["persistence", "asyncio"], "tuple")
    assert bytes.fromhex(assembly["vector"]) == added.composite.tobytes()
    times = [datetime.fromisoformat(t) for m in after["memories"] for t in m["times"] if t]
    assert all(t.utcoffset() == timedelta(0) for t in times)
    assert datetime.fromisoformat(after["memories"][0]["times"][2]) == far


HARD_IDS = [
    "LPT1.txt", "CON", "nul",
    "asm:test-1", "a:b", "a-b", "a/b", "/", "//etc/passwd", "../../x", "..", ".", "a\\b", "C:\\x",
    "ada@example.org", "🧠", "👩‍👩‍👧", "nul\0inside", "\0", " ",
    "trailing ", "tab\tnew\nline", "%2e%2e%2f", "~", "~1~0",
    "store.db", "store.db-wal", "x" * 65_536, "é" * 5_000, "é", "e\u0301", "%_'; DROP TABLE memory; --", '"', "$where",
    "\ufeff", "\uffff", "\U0010ffff",
]  # fmt: skip


async def test_any_id_is_data_and_creates_no_file(folder: Path, rng: np.random.Generator) -> None:
    path, rows = folder / "store.db", vectors(rng, len(HARD_IDS))
    with watched(folder) as (new_names, store_open):
        store = await bounded(memstore.open(path, dimension=DIMENSION))
        store_open.set()
        part = next(id for id in HARD_IDS if id == "../../x")
        for place in (store, store.namespace(part, "a/b", "🧠", "~1")):
            for id, row in zip(HARD_IDS, rows, strict=True):
                await bounded(place.memories.add(id, id=id, embedding=row, metadata={"id": "same"}))
                await bounded(place.assemblies.add(id, name=id, members=[id]))
            assert list(await bounded(place.memories.get_many(HARD_IDS))) == HARD_IDS
            for id, row in zip(HARD_IDS, rows, strict=True):
                assert (await bounded(place.memories.get(id))).content == id
                assert (await bounded(place.memories.search(row, 1)))[0].memory.id == id
                assert [m async for m in place.assemblies.members(id)] == [id]
                assert await bounded(place.memories.count(where={"id": id})) == 1
        before = await as_shown(store)
        await bounded(store.close())
        after = await in_a_new_process(path, rows[0])
        async with memstore.open(path) as again:
            for id in HARD_IDS:
                assert await bounded(again.memories.delete(id)) == 1
            assert await bounded(again.memories.count()) == 0
            assert await bounded(again.memories.count(recursive=True)) == len(HARD_IDS)
            await bounded(again.compact())
            assert await again.check() == []
    assert {k: after[k] for k in before} == before
    assert after["check"] == []
    assert new_names == ALLOWED


# -- (c) the index is mended from the rows


@pytest.mark.parametrize("metric", get_args(Metric))
@pytest.mark.parametrize("kind", [*KINDS, "all missing", "everything at once"])
async def test_repair_restores_every_vector_of_the_index(
    path: Path, rng: np.random.Generator, kind: Any, metric: Any
) -> None:
    rows = placed(metric, vectors(rng, 20))
    async with memstore.open(path, dimension=DIMENSION, metric=metric) as store:
        ids = await filled(store, rows)
        before = content(path)
        if kind == "all missing":
            await damage(store, "missing", ids)
        elif kind == "everything at once":
            for damaged, way in ((ids[:3], "missing"), (ids[3:6], "stale"), (ids[6:10], "swapped"), ((), "ghost")):
                await damage(store, way, damaged)
            await damage(store, "swapped", ["g:0", "g:1", "g:2"], record_kind="assembly")
        else:
            await damage(store, kind, ids[5:12])
        repaired = await bounded(store.repair())
        assert repaired.findings != []
        assert repaired.remaining == []
        assert repaired.reindexed == 40
        assert repaired.orphans == 0
        assert lasting(content(path)) == lasting(before), "repair of the index changes no row"
        for query in placed(metric, vectors(rng, 10)):
            hits = await bounded(store.memories.search(query, limit=100))
            assert [hit.memory.id for hit in hits] == [f"m:{i}" for i in ranked(metric, query, rows)]
            assert all(hit.memory.embedding.tobytes() == rows[ids.index(hit.memory.id)].tobytes() for hit in hits)
            groups = await bounded(store.assemblies.search(query, limit=100))
            assert [hit.assembly.id for hit in groups] == [f"g:{i}" for i in ranked(metric, query, rows)]


def lasting(lines: list[str]) -> list[str]:
    """Rows but for what every write leaves behind: its token, and lines of the log."""
    return [
        line for line in lines if not any(f'"{t}"' in line for t in ("store_meta", "change_log", "sqlite_sequence"))
    ]


def ranked(metric: str, query: Rows, rows: Rows) -> list[int]:
    return np.argsort([-score(metric, query, row) for row in rows]).tolist()


# -- (d) a file that is something else is refused


@pytest.mark.parametrize(
    ("setting", "arguments", "expected", "got"),
    [
        ("dimension", {"dimension": 16}, 32, 16),
        ("metric", {"metric": "l2"}, "cosine", "l2"),
        ("embedder", {"embedder": HashEmbedder(32, seed=2)}, "hash-32-1", "hash-32-2"),
        ("embedder", {"embedder": HashEmbedder(64, seed=1)}, "hash-32-1", "hash-64-1"),
    ],
)
async def test_file_of_another_space_is_refused_and_both_values_are_named(
    path: Path, setting: str, arguments: dict[str, Any], expected: object, got: object
) -> None:
    async with memstore.open(path, embedder=HashEmbedder(32, seed=1)) as store:
        await store.memories.add("tea", id="a")
    before = content(path)
    for read_only in (False, True):
        with pytest.raises(SettingsMismatchError) as caught:
            await bounded(memstore.open(path, read_only=read_only, **arguments))
        assert (caught.value.setting, caught.value.expected, caught.value.got) == (setting, expected, got)
        assert repr(expected) in str(caught.value)
        assert repr(got) in str(caught.value)
    assert content(path) == before
    async with memstore.open(path, embedder=HashEmbedder(32, seed=1)) as store:
        assert (await store.memories.search("tea"))[0].memory.id == "a"


# -- (e) nothing hangs


class Ground:
    """A store with something in it, and arguments for calls that are not the same twice."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self.rng = np.random.default_rng(3)
        self._number = 0

    def vector(self) -> Rows:
        return vectors(self.rng, 1)[0]

    def new(self) -> str:
        self._number += 1
        return f"new:{self._number}"

    def item(self) -> dict[str, Any]:
        return {"id": self.new(), "content": "x", "embedding": self.vector(), "tags": {"t"}}


async def _slowly(ground: Ground) -> AsyncIterator[dict[str, Any]]:
    for _ in range(4):
        await asyncio.sleep(0)
        yield ground.item()


async def _forgotten(face: Any, policy: ForgetPolicy | AssemblyForgetPolicy) -> None:
    await face.forget(await face.plan_forget(policy))


async def _merged(face: Assemblies, ground: Ground) -> Merge:
    ids = [(await face.add(ground.new(), members=[member])).id for member in ("m:0", "m:5")]
    return await face.merge(ids)


async def _parted(face: Assemblies, ground: Ground) -> Merge:
    return await face.unmerge(await _merged(face, ground))


async def _read_merged(face: Assemblies, ground: Ground) -> MergedAssembly:
    return await face.get_merged((await _merged(face, ground)).sources[0])


async def _undone(face: Any, ground: Ground) -> None:
    memory = await face.memories.add("x", id=ground.new(), embedding=ground.vector())
    await face.undo((await face.memories.history(memory.id))[0])


VerbCall = Callable[[Any, Ground], Any]
TRASH_CASES: dict[str, VerbCall] = {
    "trash": lambda face, g: face.trash(),
    "recover": lambda face, g: face.recover([]),
    "purge": lambda face, g: face.purge(older_than=0, recursive=True),
    "erase": lambda face, g: face.erase(ids=["none"]),
}
NAMESPACE_CASES: dict[str, VerbCall] = {
    "namespace": lambda face, g: face.namespace("a", "b"),
    "transaction": lambda face, g: face.transaction(),
    "clear": lambda face, g: face.namespace("cleared").clear(recursive=True),
    "erase": lambda face, g: face.namespace("erased").erase(recursive=True),
    "undo": _undone,
    "namespaces": lambda face, g: face.namespaces(),
}
CASES: dict[type, dict[str, VerbCall]] = {
    Memories: {
        **TRASH_CASES,
        "add": lambda face, g: face.add("x", embedding=g.vector(), tags={"t"}),
        "add_many": lambda face, g: face.add_many([g.item(), g.item()]),
        "upsert": lambda face, g: face.upsert("x", id="m:1", embedding=g.vector()),
        "upsert_many": lambda face, g: face.upsert_many([{**g.item(), "id": "m:2"}, g.item()]),
        "get": lambda face, g: face.get("m:0"),
        "get_many": lambda face, g: face.get_many(["m:0", "m:1", "none"]),
        "update": lambda face, g: face.update("m:3", embedding=g.vector(), tags={"u"}),
        "update_many": lambda face, g: face.update_many(ids=["m:3", "m:4"], metadata_patch={"a": 1}),
        "delete": lambda face, g: face.delete("m:4"),
        "delete_many": lambda face, g: face.delete_many(where={"content": "nothing"}),
        "touch": lambda face, g: face.touch(["m:0", "m:1"], ttl=3_600),
        "purge_expired": lambda face, g: face.purge_expired(),
        "list": lambda face, g: face.list(order="-updated_at"),
        "page": lambda face, g: face.page(limit=2),
        "history": lambda face, g: face.history("m:0"),
        "vectors": lambda face, g: face.vectors(recursive=True),
        "count": lambda face, g: face.count(where={"content": {"$startswith": "m"}}),
        "search": lambda face, g: face.search(g.vector()),
        "search_many": lambda face, g: face.search_many([g.vector(), g.vector()]),
        "explain": lambda face, g: face.explain(g.vector(), "m:0", boost=AssemblyBoost(threshold=-1.0)),
        "plan_forget": lambda face, g: face.plan_forget(ForgetPolicy(older_than=0, max_count=3)),
        "forget": lambda face, g: _forgotten(face, ForgetPolicy(where={"id": "m:4"})),
    },
    Assemblies: {
        **TRASH_CASES,
        "add": lambda face, g: face.add(g.new(), members=["m:0", "m:5"]),
        "add_many": lambda face, g: face.add_many([{"id": g.new()}, {"id": g.new(), "members": ["m:0"]}]),
        "upsert": lambda face, g: face.upsert("g:1", members=["m:0", "m:5"]),
        "upsert_many": lambda face, g: face.upsert_many([{"id": "g:2", "members": ["m:5"]}]),
        "get": lambda face, g: face.get("g:0"),
        "get_many": lambda face, g: face.get_many(["g:0", "none"]),
        "update": lambda face, g: face.update("g:0", name="n"),
        "update_many": lambda face, g: face.update_many(ids=["g:0"], name="n"),
        "delete": lambda face, g: face.delete("g:3"),
        "delete_many": lambda face, g: face.delete_many(ids=["g:4"]),
        "add_members": lambda face, g: face.add_members("g:0", ["m:5", "m:6"]),
        "remove_members": lambda face, g: face.remove_members("g:0", ["m:6"]),
        "members": lambda face, g: face.members("g:0"),
        "containing": lambda face, g: face.containing("m:0"),
        "history": lambda face, g: face.history("g:0"),
        "vectors": lambda face, g: face.vectors(),
        "list": lambda face, g: face.list(),
        "page": lambda face, g: face.page(limit=2),
        "count": lambda face, g: face.count(),
        "search": lambda face, g: face.search(g.vector()),
        "search_many": lambda face, g: face.search_many([g.vector()]),
        "activate": lambda face, g: face.activate(["g:0"], 0.5),
        "sync_state": lambda face, g: face.sync_state("g:0"),
        "merge": _merged,
        "unmerge": _parted,
        "get_merged": _read_merged,
        "lineage": lambda face, g: face.lineage("g:0"),
        "merge_candidates": lambda face, g: face.merge_candidates(-1.0),
        "suggest": lambda face, g: face.suggest(0.1),
        "create_from": lambda face, g: face.create_from(
            [AssemblySuggestion(leader="m:0", members=("m:0", "m:1"), similarity=1.0, id=g.new())]
        ),
        "plan_forget": lambda face, g: face.plan_forget(AssemblyForgetPolicy(members_below=9, older_than=0)),
        "forget": lambda face, g: _forgotten(face, AssemblyForgetPolicy(where={"id": "g:4"})),
    },
    Tags: {
        "list": lambda face, g: face.list(),
        "rename": lambda face, g: face.rename("red", "red"),
        "delete": lambda face, g: face.delete("blue"),
    },
    Store: {
        **NAMESPACE_CASES,
        "load": lambda face, g: face.load(_slowly(g), chunk=2),
        "snapshot": lambda face, g: face.snapshot(),
        "check": lambda face, g: face.check(),
        "repair": lambda face, g: face.repair(),
        "stats": lambda face, g: face.stats(),
        "compact": lambda face, g: face.compact(),
        "optimize": lambda face, g: face.optimize(),
        "backup": lambda face, g: face.backup(g.folder / f"{g.new()[4:]}.bak"),
        "close": lambda face, g: face.close(),
    },
    Transaction: NAMESPACE_CASES,
}
EVERY = [(noun, verb) for noun, verbs in CASES.items() for verb in verbs]
NAMES = [f"{noun.__name__}.{verb}" for noun, verb in EVERY]


@pytest.mark.parametrize("noun", CASES, ids=lambda noun: noun.__name__)
def test_every_public_method_has_a_case_here(noun: type) -> None:
    public = {name for name, _ in inspect.getmembers(noun, inspect.isfunction) if not name.startswith("_")}
    assert public == set(CASES[noun])


@asynccontextmanager
async def ground(path: Path) -> AsyncIterator[Ground]:
    async with memstore.open(path, dimension=DIMENSION, timeout=BOUND, durability="relaxed") as store:
        new_ground = Ground(store, path.parent)
        rows = vectors(new_ground.rng, 8)
        await filled(store, rows)
        await store.memories.update("m:0", tags={"red", "blue"})
        yield new_ground


async def expect_intact(store: Store) -> None:
    """The store works, and check finds no defect."""
    distinct = np.arange(DIMENSION) - 2.5  # no other memory has it, so no tie hides the new one
    await bounded(store.memories.add("after", id="after", embedding=distinct))
    assert (await bounded(store.memories.search(distinct, 1)))[0].memory.id == "after"
    async with asyncio.timeout(BOUND), store.transaction() as tx:
        await tx.memories.delete("after")
    assert await bounded(store.check()) == []


async def finish(result: object) -> None:
    """Take what a method gives to its end, whatever it is."""
    if isinstance(result, AbstractAsyncContextManager):
        async with result as inner:
            await inner.memories.count()
    elif isinstance(result, AsyncIterator):
        async for _ in result:
            pass
    elif inspect.isawaitable(result):
        await result


def of(noun: type, face: Any) -> Any:
    attributes = {Memories: "memories", Assemblies: "assemblies", Tags: "tags"}
    return getattr(face, attributes[noun]) if noun in attributes else face


async def once(noun: type, verb: str, g: Ground, *, inside: bool) -> None:
    """One call, on the store or inside a transaction of its own."""
    if noun is Transaction or (inside and noun is not Store):
        async with g.store.transaction() as tx:
            await finish(CASES[noun][verb](of(noun, tx), g))
    else:
        await finish(CASES[noun][verb](of(noun, g.store), g))


@pytest.mark.parametrize(("noun", "verb"), EVERY, ids=NAMES)
async def test_every_method_ends_alone_and_fifty_at_once(path: Path, noun: type, verb: str) -> None:
    async with ground(path) as g:
        for inside in (False, True):
            await bounded(once(noun, verb, g, inside=inside))
        if verb == "close":
            g.store = await memstore.open(path)
        fifty = [once(noun, verb, g, inside=i % 5 == 0) for i in range(50)]
        ended = await bounded(asyncio.gather(*fifty, return_exceptions=True), 60)
        failures = [e for e in ended if isinstance(e, BaseException)]
        assert all(isinstance(e, MemstoreError) for e in failures), failures
        if verb == "close":
            g.store = await memstore.open(path)
        await expect_intact(g.store)
        if verb == "close":
            await g.store.close()


@pytest.mark.parametrize(
    ("noun", "verb"), [e for e in EVERY if e[0] is not Store], ids=lambda x: getattr(x, "__name__", x)
)
async def test_fifty_tasks_in_one_transaction_end_or_are_refused(path: Path, noun: type, verb: str) -> None:
    async with ground(path) as g:
        async with g.store.transaction() as tx:
            fifty = [finish(CASES[noun][verb](of(noun, tx), g)) for _ in range(50)]
            ended = await bounded(asyncio.gather(*fifty, return_exceptions=True))
            assert all(e is None or isinstance(e, MemstoreError) for e in ended), ended
        await expect_intact(g.store)


async def cancelled_at_random(calls: list[Awaitable[None]], rng: random.Random) -> int:
    """Start them all, cancel each at a moment of its own; how many ended as cancelled."""

    async def cancel(call: Awaitable[None]) -> bool:
        await asyncio.sleep(rng.random() * 1.5)
        task = asyncio.ensure_future(call)
        for _ in range(rng.randrange(12)):
            await asyncio.sleep(0)
        if rng.random() < 0.6:
            await asyncio.sleep(rng.random() * 0.03)
        for _ in range(rng.randrange(1, 4)):
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([task], timeout=BOUND)
        assert task.done(), "a cancelled call did not end"
        if not task.cancelled() and task.exception() is not None:
            assert isinstance(task.exception(), MemstoreError), task.exception()
        return task.cancelled()

    return sum(await bounded(asyncio.gather(*map(cancel, calls)), 200))


@pytest.mark.parametrize("seed", range(2))
async def test_store_works_after_three_hundred_random_cancellations(path: Path, seed: int) -> None:
    rng = random.Random(seed)
    async with ground(path) as g:
        cases = [(noun, verb) for noun, verb in EVERY if verb not in ("close", "backup", "repair", "compact")]
        picked = [rng.choice(cases) for _ in range(285)] + [(Store, v) for v in ("backup", "repair", "compact")] * 5
        rng.shuffle(picked)
        calls = [once(noun, verb, g, inside=rng.random() < 0.4) for noun, verb in picked]
        cancelled = await cancelled_at_random(calls, rng)
        assert cancelled > 50, f"only {cancelled} were still running"
        await expect_intact(g.store)
        remaining = await g.store.memories.get_many([f"m:{i}" for i in (0, 1, 2, 3, 5, 6, 7)])
        assert [memory.embedding is not None for memory in remaining.values()] == [True] * 7


async def test_cancelled_open_and_close_leave_no_thread(path: Path) -> None:
    async with ground(path):
        pass
    before = threads()
    for spins in range(0, 40, 3):
        store = await bounded(memstore.open(path))
        task = asyncio.create_task(store.close())
        for _ in range(spins):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=BOUND)
        assert task.done()
        await bounded(store.close())
    assert await only_threads(before)
    for spins in range(0, 60, 3):
        opening = asyncio.ensure_future(_open(path))
        for _ in range(spins):
            await asyncio.sleep(0)
        await asyncio.sleep(0.001 * (spins % 7))
        opening.cancel()
        await asyncio.wait([opening], timeout=BOUND)
        assert opening.done()
        if not opening.cancelled():
            await opening.result().close()
    assert await only_threads(before)
    async with memstore.open(path) as store:
        await expect_intact(store)


def threads() -> set[threading.Thread]:
    return set(threading.enumerate())


async def only_threads(before: set[threading.Thread]) -> bool:
    """Whether no thread but those is left; one that has just answered needs a moment to end."""
    deadline = time.monotonic() + BOUND
    while threads() - before and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    return not threads() - before


async def _open(path: Path) -> Store:
    return await memstore.open(path)


# -- (f) no update is lost


async def increment(store: Store) -> None:
    async with store.transaction() as tx:
        counter = await tx.memories.get("counter")
        await asyncio.sleep(0)
        await tx.memories.update("counter", metadata={"n": counter.metadata["n"] + 1})


async def test_increments_through_two_stores_lose_nothing(store: Store, path: Path) -> None:
    await store.memories.add("counter", id="counter", metadata={"n": 0})
    async with memstore.open(path, timeout=BOUND) as other:
        await bounded(asyncio.gather(*(increment(opened) for opened in (store, other) for _ in range(25))), 60)
        assert (await other.memories.get("counter")).metadata == {"n": 50}
    assert (await store.memories.get("counter")).metadata == {"n": 50}


async def test_cancelled_increments_are_complete_or_absent(store: Store) -> None:
    await store.memories.add("counter", id="counter", metadata={"n": 0})
    rng = random.Random(5)
    tasks = [asyncio.create_task(increment(store)) for _ in range(50)]
    for task in rng.sample(tasks, 20):
        await asyncio.sleep(rng.random() * 0.004)
        task.cancel()
    ended = await bounded(asyncio.gather(*tasks, return_exceptions=True))
    returned = sum(e is None for e in ended)
    counted = (await store.memories.get("counter")).metadata["n"]
    # A call whose COMMIT had begun when it was cancelled is stored.
    assert returned <= counted <= 50
    assert all(e is None or isinstance(e, asyncio.CancelledError) for e in ended)


async def test_composite_excludes_expired_members(store: Store) -> None:
    """`expires_at` is honoured by every read, with no write in between."""
    await store.memories.add("a", id="a", embedding=np.eye(DIMENSION)[0])
    await store.memories.add("b", id="b", embedding=np.eye(DIMENSION)[1])
    await store.assemblies.add("g", members=["a", "b"])
    await store.memories.update("a", ttl=0.05)
    await asyncio.sleep(0.1)
    hits = await store.assemblies.search(np.eye(DIMENSION)[1])
    assert hits[0].assembly.member_count == 1
    assert hits[0].score == pytest.approx(1.0)


# -- what was found broken on the way


async def test_duplicate_id_raises_for_any_given_times(store: Store) -> None:
    await store.memories.add("x", id="a", ttl=3_600)
    with pytest.raises(memstore.DuplicateError):
        await store.memories.add("y", id="a", updated_at=datetime(2190, 1, 1, tzinfo=UTC))


async def test_search_in_a_transaction_uses_current_composites(path: Path) -> None:
    one, two = np.eye(DIMENSION, dtype=np.float32)[:2]
    async with memstore.open(path, dimension=DIMENSION) as store:
        await filled(store, one[None])
        await store.memories.search(one)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("UPDATE memory_vector SET vector = ?", (two.tobytes(),))
        async with store.transaction() as tx:
            assert (await tx.assemblies.search(two))[0].score == pytest.approx(1.0)


async def test_stats_leave_expired_memories_out(store: Store) -> None:
    await store.memories.add("x", embedding=np.ones(DIMENSION), tags={"t"}, ttl=-1)
    stats = await store.stats()
    assert (stats.memories, stats.vectors, stats.tags) == (0, 0, 0)

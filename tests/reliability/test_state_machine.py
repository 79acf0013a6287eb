"""After any sequence of operations, the store has the records and finds the hits of the model.

Hypothesis draws sequences of verbs, transactions that commit, raise or are cancelled, writes cancelled at any moment,
a second store on the same file, raw SQL and reopening, and shortens those that fail. Graphs are built, merged, stored,
damaged and read again although there are few vectors. The default run is the same every time;
`MEMSTORE_EXAMPLES=5000` runs that many sequences, drawn anew, each twice as long.
"""

import asyncio
import logging
import random
import sqlite3
import tempfile
import traceback
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

import memstore
from memstore import GraphOptions, MemstoreError, Metric, NotFoundError, Store
from memstore.index import hnsw, planner
from memstore.repository.sqlite_only import change_log
from memstore.schema.namespace_path import namespace_path
from memstore.sync import maintainer, snapshot
from memstore.vectors.space import ANGULAR_METRICS
from tests.reliability import cases
from tests.support.clusters import small_graphs
from tests.support.index_options import with_index
from tests.support.model import (
    NOUNS,
    Command,
    Key,
    Model,
    Namespace,
    Search,
    TimeRange,
    Where,
    at,
    by,
    call,
    is_past,
    right_hits,
    same,
)
from tests.support.spaces import placed

T = TypeVar("T")

DIMENSION = 5
BOUND = 30.0  # seconds any one step may take

IDS = ["a", "b", "asm:1", "../x", "é🧠"]
GROUPS = ["g", "asm:1"]
NAMESPACES: list[Namespace] = [(), ("u",), ("u", "v")]
OFTEN: list[Namespace] = [(), (), (), ("u",), ("u",), ("u", "v")]  # few namespaces, so that ids collide
TAGS = ["red", "blue", "x y"]
ORDERS = {
    "memories": [
        "created_at", "-created_at", "-updated_at", "id", "-content", "importance", "-importance", "access_count",
        "expires_at", "-expires_at", "accessed_at", "-accessed_at",
    ],
    "assemblies": ["created_at", "-created_at", "updated_at", "-id", "name", "-name"],
}  # fmt: skip
LONG_AGO, FAR = datetime(2020, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)

MEMORY_FILTERS = [
    Where({"metadata.k": 1}, lambda _, row: row["metadata"].get("k") == 1),
    Where({"metadata.k": {"$ne": 1}}, lambda _, row: row["metadata"].get("k") != 1),
    Where({"metadata.k": {"$exists": False}}, lambda _, row: "k" not in row["metadata"]),
    Where({"importance": {"$gte": 0.5}}, lambda _, row: row["importance"] >= 0.5),
    Where({"content": {"$contains": "x"}}, lambda _, row: "x" in row["content"]),
    Where({"id": {"$in": ["a", "b"]}}, lambda key, _: key[1] in ("a", "b")),
    Where({"tags": {"$contains": "red"}}, lambda _, row: "red" in row["tags"]),
    Where(
        {"$or": [{"access_count": {"$gt": 0}}, {"$not": {"tags": {"$contains": "blue"}}}]},
        lambda _, row: row["access_count"] > 0 or "blue" not in row["tags"],
    ),
    Where({"embedding": None}, lambda _, row: row["embedding"] is None),
    Where({"expires_at": {"$not": {"$eq": None}}}, lambda _, row: row["expires_at"] is not None),
]
ASSEMBLY_FILTERS = [
    Where({"name": {"$startswith": "x"}}, lambda _, row: row["name"].startswith("x")),
    Where({"topics": {"$contains": "t1"}}, lambda _, row: "t1" in row["topics"]),
    Where({"metadata.k": {"$ne": 1}}, lambda _, row: row["metadata"].get("k") != 1),
    Where({"$not": {"tags": {"$contains": "red"}}}, lambda _, row: "red" not in row["tags"]),
]
FILTERS = {"memories": MEMORY_FILTERS, "assemblies": ASSEMBLY_FILTERS}


def vectors(metric: str) -> list[npt.NDArray[np.float32]]:
    """The vectors of a run: some cancel each other out, some are equal or nearly so, some are extreme."""
    rows = np.random.default_rng(7).standard_normal((8, DIMENSION)).astype(np.float32)
    if metric == "hyperbolic":
        rows = placed(metric, rows)
        special = [-rows[0], 0.5 * rows[1], rows[2] + np.float32(1e-4), rows[3] * 1e-25, np.zeros(DIMENSION)]
        special += [0.999 * row / np.linalg.norm(row) for row in (rows[4], -rows[4], np.ones(DIMENSION))]
        return [*rows, *(np.asarray(row, dtype=np.float32) for row in special)]
    special = [-rows[0], 2 * rows[1], rows[2] + np.float32(1e-4), np.ones(DIMENSION), rows[3] * 1e20, rows[4] * 1e-25]
    special += (
        [np.full(DIMENSION, 3e38)] if metric in ANGULAR_METRICS else [np.full(DIMENSION, 3e38), np.zeros(DIMENSION)]
    )
    return [*rows, *(np.asarray(row, dtype=np.float32) for row in special)]


@dataclass(frozen=True)
class V:
    """One of the vectors, by number: the metric is not known yet when commands are drawn."""

    number: int


def with_vectors(value: Any, pool: list[npt.NDArray[np.float32]]) -> Any:
    if isinstance(value, V):
        return pool[value.number % len(pool)]
    if isinstance(value, dict):
        return {name: with_vectors(inner, pool) for name, inner in value.items()}
    return [with_vectors(inner, pool) for inner in value] if isinstance(value, list) else value


def calls(noun: str, **verbs: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[Command]:
    return st.one_of(
        *(
            st.builds(Command, st.just(noun), st.just(verb), st.sampled_from(OFTEN), arguments)
            for verb, arguments in verbs.items()
        )
    )


ids, groups, words = st.sampled_from(IDS), st.sampled_from(GROUPS), st.frozensets(st.sampled_from(TAGS), max_size=2)
some_ids = st.lists(ids, max_size=4)
embeddings = st.builds(V, st.integers(0, 15))
perhaps = st.sampled_from([None, *(V(number) for number in range(16))])
contents = st.sampled_from(["", "x", "y", "xy\0z"])
metadata = st.fixed_dictionaries({}, optional={"k": st.sampled_from([0, 1, "1", None]), "l": st.just([1, {"m": 2.5}])})
shared = {
    "tags": words,
    "metadata": metadata,
    "importance": st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    "pinned": st.booleans(),
    "created_at": st.sampled_from([LONG_AGO, FAR]),
}
lives = st.sampled_from([{}, {}, {}, {"ttl": 3600.0}, {"ttl": -1.0}, {"expires_at": FAR}, {"expires_at": LONG_AGO}])
plain = st.fixed_dictionaries({"id": ids, "content": contents, "embedding": perhaps}, optional=shared)
items = st.builds(lambda item, life: item | life, plain, lives)
changes = st.builds(
    lambda named, life, of: named | life | {"id": of},
    st.fixed_dictionaries({}, optional={"content": contents, "embedding": perhaps, **shared}),
    lives | st.just({"expires_at": None}),
    ids,
)
topics = st.lists(st.sampled_from(["t1", "t2", "t3"]), unique=True, max_size=3)
described = {"name": st.sampled_from(["", "x", "xy", "z"]), "tags": words, "topics": topics, "metadata": metadata}
bundles = st.fixed_dictionaries({"id": groups}, optional={**described, "members": some_ids})
members = st.fixed_dictionaries({"id": groups, "ids": some_ids})
merges = st.fixed_dictionaries(
    {"ids": st.lists(groups, min_size=1, max_size=3, unique=True), "into": st.sampled_from([*GROUPS, "merged"])}
)
by_filter = st.fixed_dictionaries({"where": st.sampled_from(MEMORY_FILTERS)})

of_one_assembly = {
    "add": bundles,
    "upsert": bundles,
    "update": st.fixed_dictionaries({"id": groups}, optional=described),
    "add_members": members,
    "remove_members": members,
    "delete": st.fixed_dictionaries({"id": groups}),
}

putting = calls(
    "memories",
    add=items,
    add_many=st.fixed_dictionaries({"items": st.lists(items, min_size=1, max_size=3)}),
    upsert=items,
    upsert_many=st.fixed_dictionaries({"items": st.lists(items, min_size=2, max_size=6)}),
    update=changes,
)
commands = st.one_of(
    putting,
    putting,
    calls(
        "memories",
        delete=st.fixed_dictionaries({"id": ids}),
        delete_many=by_filter | st.fixed_dictionaries({"ids": some_ids}),
        touch=st.fixed_dictionaries({"ids": some_ids}),
    ),
    calls(
        "assemblies",
        **of_one_assembly,
        delete_many=st.fixed_dictionaries({"where": st.sampled_from(ASSEMBLY_FILTERS)}),
    ),
    calls(
        "memories",
        forget=by_filter,
        recover=st.fixed_dictionaries({"ids": st.tuples(ids).map(list)}),
        erase=st.fixed_dictionaries({"ids": st.lists(ids, min_size=1, max_size=2)}),
        purge=st.just({"older_than": 0}),
        update_and_undo=st.fixed_dictionaries({"id": ids, "metadata": st.just({"k": 7})}),
    ),
    calls(
        "assemblies",
        forget=st.fixed_dictionaries({"where": st.sampled_from(ASSEMBLY_FILTERS)}),
        recover=st.fixed_dictionaries({"ids": st.tuples(groups).map(list)}),
        erase=st.fixed_dictionaries({"ids": st.tuples(groups).map(list)}),
        merge=merges,
        purge=st.just({"older_than": 0}),
    ),
    calls(
        "tags",
        rename=st.fixed_dictionaries({"old": st.sampled_from(TAGS), "new": st.sampled_from(TAGS)}),
        delete=st.fixed_dictionaries({"tag": st.sampled_from(TAGS)}),
    ),
)
undoable = st.one_of(
    calls("memories", add=items, upsert=items, update=changes, delete=st.fixed_dictionaries({"id": ids})),
    calls("assemblies", **of_one_assembly),
)
steps = st.lists(
    st.one_of(commands, commands, st.tuples(st.lists(commands, min_size=1, max_size=3), st.booleans())),
    min_size=1,
    max_size=4,
)
searches = st.sampled_from(["memories", "memories", "assemblies"]).flatmap(
    lambda noun: st.builds(
        Search,
        noun=st.just(noun),
        namespace=st.sampled_from(OFTEN),
        limit=st.sampled_from([1, 2, 3, 50]),
        tags=st.just(frozenset()) | words,
        where=st.none() | st.sampled_from(FILTERS[noun]),
        min_score=st.none() | st.sampled_from([-0.5, 0.1, 0.4, 1e30]),
        recursive=st.booleans(),
    )
)


options = st.fixed_dictionaries(
    {},
    optional={
        "index": st.sampled_from(["auto", "auto", "graph", "graph", "exact"]),
        "graph": st.builds(GraphOptions, m=st.sampled_from([8, 16]), ef_search=st.sampled_from([None, 8, 8, 8])),
        "vector_type": st.sampled_from(["float32", "float16"]),
    },
)
seconds, numbers, seeds = st.booleans(), st.integers(0, 100), st.integers(0, 2**16)
actions: dict[str, tuple[int, dict[str, st.SearchStrategy[Any]]]] = {
    "write": (8, {"command": commands, "second": seconds}),
    "cancelled_write": (4, {"command": commands, "spins": st.integers(0, 12), "seed": seeds, "second": seconds}),
    "transaction": (
        5,
        {
            "steps": steps,
            "ending": st.sampled_from(["commit", "commit", "raise", "cancel"]),
            "search": searches,
            "query": embeddings,
            "second": seconds,
        },
    ),
    "cancelled_transaction": (
        3,
        {"steps": st.lists(commands, min_size=1, max_size=3), "spins": st.integers(0, 40), "seed": seeds},
    ),
    "undo": (3, {"command": undoable, "twice": st.booleans(), "second": seconds}),
    "merge_and_unmerge": (2, {"namespace": st.sampled_from(OFTEN), "merge": merges, "second": seconds}),
    "restore_a_backup": (1, {"commands": st.lists(commands, max_size=2), "second": seconds}),
    "search": (4, {"search": searches, "query": embeddings, "second": seconds}),
    "search_many": (
        1,
        {"search": searches, "queries": st.lists(embeddings, min_size=1, max_size=25), "second": seconds},
    ),
    "list_and_count": (3, {"search": searches, "number": numbers, "limit": st.none() | st.integers(1, 4)}),
    "get": (1, {"noun": st.sampled_from(NOUNS), "namespace": st.sampled_from(OFTEN), "ids": some_ids}),
    "fill": (1, {"namespace": st.sampled_from(NAMESPACES), "turn": st.integers(0, 15)}),
    "clear": (1, {"namespace": st.sampled_from(NAMESPACES[1:]), "recursive": st.booleans()}),
    "compact": (1, {}),
    "repair": (1, {}),
    "check": (1, {}),
    "reopen": (2, {"options": options}),
    "optimize": (4, {"second": seconds}),
    "damaged_snapshot": (1, {"number": numbers, "how": st.sampled_from(["flip", "cut", "drop", "drop all", "header"])}),
    "open_or_close_a_second_store": (2, {}),
    "raw_vector": (2, {"number": numbers, "vector": embeddings, "replace": st.booleans()}),
    "raw_delete": (1, {"number": numbers, "foreign_keys": st.booleans()}),
    "raw_expiry": (1, {"number": numbers}),
    "raw_member": (2, {"number": numbers, "which": numbers, "then": st.none() | some_ids}),
}
"""The operations with their weights and arguments. Separate Hypothesis rules would be absent from most runs."""


@dataclass(frozen=True)
class Action:
    """One operation on a store."""

    name: str
    arguments: dict[str, Any]


action_draws = st.sampled_from([name for name, (weight, _) in actions.items() for _ in range(weight)]).flatmap(
    lambda name: st.builds(Action, st.just(name), st.fixed_dictionaries(actions[name][1]))
)


class IntendedError(Exception):
    """Ends a block on purpose."""


class StoreMachine(RuleBasedStateMachine):
    """A store, a second one on the same file, and the model of both."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "store.db"
        self.store: Store | None = None
        self.other: Store | None = None
        self.looks = 0

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(BOUND):
                return await coroutine

        return self.runner.run(bounded())

    @initialize(
        metric=st.sampled_from(get_args(Metric)),
        engines=st.sampled_from([("numpy", "faiss"), ("faiss", "numpy"), ("faiss", "faiss"), ("faiss", "faiss")]),
        options=options,
    )
    def open(self, metric: str, engines: tuple[str, str], options: dict[str, Any]) -> None:
        self.model = Model(metric)
        planner.COMPLETE_SHARE = (
            1_000 if metric == "hyperbolic" else 0.75
        )  # there a graph that is exact gives all it has
        self.pool = vectors(metric)
        self.engines = engines
        self.options = options
        self.store = self.run(self.opened(0))
        for namespace in NAMESPACES:
            self.fill(namespace, 0)
        self.optimize(second=False)

    def fill(self, namespace: Namespace, turn: int) -> None:
        """Store records under every id: most other operations remove some."""
        rows: list[dict[str, Any]] = [
            {
                "id": id,
                "content": "xy"[i % 2],
                "embedding": V(turn + i) if i != turn else None,
                "tags": set(TAGS[i % 2 : i % 2 + 2]),
                "metadata": {"k": i % 3},
                "importance": i / 4,
            }
            for i, id in enumerate(IDS)
        ]
        self.write(Command("memories", "upsert_many", namespace, {"items": rows}), second=False)
        for i, id in enumerate(GROUPS):
            group = {"id": id, "name": "xz"[i], "members": IDS[i : i + 3], "tags": {TAGS[i]}, "topics": ["t2", "t1"]}
            self.write(Command("assemblies", "upsert", namespace, group), second=False)

    async def opened(self, which: int) -> Store:
        return await memstore.open(
            self.path,
            dimension=DIMENSION,
            metric=self.model.metric,
            durability="relaxed",
            timeout=BOUND / 2,
            **with_index({"engine": self.engines[which], **self.possible(which)}),
        )

    def possible(self, which: int) -> dict[str, Any]:
        """The options that the metric and the engine allow."""
        allowed = dict(self.options)
        if self.engines[which] == "numpy" and allowed.get("index") == "graph":
            del allowed["index"]
        if self.model.metric not in ANGULAR_METRICS:
            allowed.pop("vector_type", None)
        return allowed

    def face(self, second: bool) -> Store:
        return self.other if second and self.other is not None else self.store

    def with_vectors(self, command: Command) -> Command:
        return Command(command.noun, command.verb, command.namespace, with_vectors(dict(command.arguments), self.pool))

    async def both(self, face: Any, command: Command, model: Model) -> None:
        """Run *command* in the store and in the model: the result or the error is the same."""
        command, moment = self.with_vectors(command), TimeRange()
        actual, actual_error, expected, expected_error = None, None, None, None
        try:
            actual = await call(face, command)
        except MemstoreError as error:
            actual_error = type(error)
        moment.end()
        try:
            expected = model.run(command, moment)
        except MemstoreError as error:
            expected_error = type(error)
        assert actual_error == expected_error, command
        if expected_error is None:
            self.same_result(model, command, expected, actual)
        if command.verb == "erase":
            for id in command.arguments["ids"]:
                with pytest.raises(NotFoundError):
                    await getattr(at(face, command.namespace), command.noun).history(id)

    def same_result(self, model: Model, command: Command, expected: Any, actual: Any) -> None:
        if expected is None:
            return
        if isinstance(expected, int):
            assert actual == expected, f"{command} gave {actual}, not {expected}"
            return
        records = actual if isinstance(actual, list) else [actual]
        assert [(r.namespace, r.id) for r in records] == expected
        if command.verb == "add_many" or len(set(expected)) == len(expected):
            for record, key in zip(records, expected, strict=True):
                row = getattr(model, command.noun)[key]
                for name in ("tags", "metadata", "created_at", "updated_at"):
                    assert memory_field(row[name], getattr(record, name)), (command, name)

    @rule(action=action_draws)
    def do(self, action: Action) -> None:
        getattr(self, action.name)(**action.arguments)

    def write(self, command: Command, second: bool) -> None:
        self.run(self.both(self.face(second), command, self.model))

    def cancelled_write(self, command: Command, spins: int, seed: int, second: bool) -> None:
        command = self.with_vectors(command)
        after, moment = self.model.copy(), TimeRange()

        self.run(cancelled(call(self.face(second), command), spins, seed))
        moment.end()
        try:
            after.run(command, moment)
        except MemstoreError:
            return
        self.run(self.whole_or_absent(after))

    async def whole_or_absent(self, after: Model) -> None:
        """A cancelled write is stored completely or not at all; the model adopts the state of the store."""
        before = self.model.copy()
        try:
            await same(after.copy(), self.store, NAMESPACES)
        except AssertionError as complete:
            try:
                await same(before, self.store, NAMESPACES)
            except AssertionError as absent:
                raise AssertionError(f"a part is stored. Not complete: {complete}. Not absent: {absent}") from None
            return
        self.model.adopt(after)

    def transaction(self, steps: list[Any], ending: str, search: Search, query: V, second: bool) -> None:
        store, outside = self.face(second), self.face(not second)
        working = self.model.copy()
        working.purge()  # a transaction begins with it

        async def block() -> None:
            async with store.transaction() as tx:
                for step in steps:
                    await self.step(tx, step, working)
                    await self.right(tx, search, query, working)
                    await self.right(outside, search, query, self.model, sweeps=False)
                    await self.everything(tx, working)
                await self.everything(outside, self.model, sweeps=False)
                await same(working, tx, NAMESPACES)
                await same(self.model, outside, NAMESPACES)
                if ending == "raise":
                    raise IntendedError
                if ending == "cancel":
                    task = asyncio.current_task()
                    assert task is not None
                    task.cancel()
                    await tx.memories.upsert("never there", id="a")

        async def ended() -> None:
            task = asyncio.create_task(block())
            try:
                await task
            except (IntendedError, asyncio.CancelledError):
                assert ending != "commit"
            else:
                assert ending == "commit"

        self.run(ended())
        if ending == "commit":
            self.model.adopt(working)

    async def step(self, tx: Any, step: Any, working: Model) -> None:
        if isinstance(step, Command):
            await self.both(tx, step, working)
            return
        inner, undone = step
        backup = working.copy()
        try:
            async with tx.transaction() as nested:
                for command in inner:
                    await self.both(nested, command, working)
                if undone:
                    raise IntendedError  # noqa: TRY301 - what the block is undone by
        except IntendedError:
            working.adopt(backup)

    def cancelled_transaction(self, steps: list[Command], spins: int, seed: int) -> None:
        commands = [self.with_vectors(step) for step in steps]
        after, moment = self.model.copy(), TimeRange()

        async def block() -> None:
            async with self.store.transaction() as tx:
                for command in commands:
                    try:
                        await call(tx, command)
                    except MemstoreError:
                        continue

        self.run(cancelled(block(), spins, seed))
        moment.end()
        for command in commands:
            try:
                after.run(command, moment)
            except MemstoreError:
                continue
        self.run(self.whole_or_absent(after))

    def undo(self, command: Command, twice: bool, second: bool) -> None:
        """The undo of a change restores the state before it, and the undo of the undo the state after it."""
        face, before = self.face(second), self.model.copy()
        verbs = getattr(at(face, command.namespace), command.noun)
        before.purge()

        async def last_change() -> Any:
            try:
                return (await verbs.history(command.arguments["id"], limit=1))[0]
            except (NotFoundError, IndexError):  # the id was never used, or its history is empty
                return None

        async def undone() -> None:
            earlier = await last_change()
            await self.both(face, command, self.model)
            change = await last_change()
            after, key = self.model.copy(), (command.namespace, command.arguments["id"])
            row = getattr(after, command.noun).get(key, {})
            if change is None or (earlier is not None and change.number == earlier.number):
                return
            if is_past(row.get("expires_at")):
                return
            undo = await face.undo(change)
            self.model.adopt(before)
            self.model.loosen_times(command.namespace)
            if twice:
                await same(self.model, face, NAMESPACES)
                await face.undo(undo)
                self.model.adopt(after)
                self.model.loosen_times(command.namespace)

        self.run(undone())

    def merge_and_unmerge(self, namespace: Namespace, merge: dict[str, Any], second: bool) -> None:
        before, face = self.model.copy(), self.face(second)
        before.purge()

        async def unmerged() -> None:
            verbs = at(face, namespace).assemblies
            try:
                done = await verbs.merge(**merge)
            except MemstoreError:
                self.model.purge()
                return
            await verbs.unmerge(done)
            self.model.adopt(before)
            if merge["into"] not in done.sources:
                self.model.loosen_times(namespace)

        self.run(unmerged())

    def restore_a_backup(self, commands: list[Command], second: bool) -> None:
        """A restored backup has the state of its time, whatever was written later; open stores see it."""
        backup, state = self.path.with_name("backup.db"), self.model.copy()
        self.run(self.face(second).backup(backup))
        for command in commands:
            self.write(command, second)
        self.run(memstore.restore_backup(backup, self.path))
        backup.unlink()
        self.model.adopt(state)

    def search(self, search: Search, query: V, second: bool) -> None:
        self.run(self.right(self.face(second), search, query, self.model))

    def search_many(self, search: Search, queries: list[V], second: bool) -> None:
        async def ask() -> None:
            query_vectors = [self.query(q) for q in queries]
            if search.noun == "assemblies":
                self.model.purge()
            verbs = getattr(at(self.face(second), search.namespace), search.noun)
            async with self.no_maintenance():
                answers = await verbs.search_many(query_vectors, **search.arguments())
            for query, hits in zip(query_vectors, answers, strict=True):
                right_hits(self.model, search, query, hits)

        self.run(ask())

    def query(self, query: V) -> npt.NDArray[np.float32]:
        vector: npt.NDArray[np.float32] = with_vectors(query, self.pool)
        return vector

    async def right(self, face: Any, search: Search, query: V, model: Model, *, sweeps: bool = True) -> None:
        """*sweeps*: nobody is writing, so a search of assemblies first deletes what has expired."""
        vector = self.query(query)
        if sweeps and search.noun == "assemblies":
            model.purge()
        async with self.no_maintenance():
            hits = await getattr(at(face, search.namespace), search.noun).search(vector, **search.arguments())
        right_hits(model, search, vector, hits)

    def list_and_count(self, search: Search, number: int, limit: int | None) -> None:
        order = ORDERS[search.noun][number % len(ORDERS[search.noun])]
        expected_records = self.model.selected(
            search.noun, search.namespace, recursive=search.recursive, tags=search.tags, where=search.where
        )
        rows = {key: row for key, row in getattr(self.model, search.noun).items() if key in expected_records}
        expected = [key for key, _ in by(rows, order.removeprefix("-"), descending=order.startswith("-"))]
        arguments = {"tags": search.tags, "where": search.where and search.where.where, "recursive": search.recursive}

        async def ask() -> None:
            verbs = getattr(at(self.store, search.namespace), search.noun)
            listed = [record async for record in verbs.list(order=order, limit=limit, **arguments)]
            assert [(r.namespace, r.id) for r in listed] == expected[:limit]
            assert await verbs.count(**arguments) == len(expected)

        self.run(ask())

    def get(self, noun: str, namespace: Namespace, ids: list[str]) -> None:
        async def ask() -> None:
            verbs = getattr(at(self.store, namespace), noun)
            records = await verbs.get_many(ids)
            there = [id for id in dict.fromkeys(ids) if (namespace, id) in self.model.rows(noun)]
            assert list(records) == there
            if noun == "memories":
                for id in there:
                    owners = await at(self.store, namespace).assemblies.containing(id)
                    assert {(o.namespace, o.id) for o in owners} == set(self.model.of((namespace, id)))

        self.run(ask())

    def clear(self, namespace: Namespace, recursive: bool) -> None:
        assert self.run(at(self.store, namespace).clear(recursive=recursive)) == self.model.clear(
            namespace, recursive=recursive
        )

    def compact(self) -> None:
        self.run(self.store.compact())
        self.model.purge()

    def repair(self) -> None:
        repaired = self.run(self.store.repair())
        assert repaired.findings == repaired.remaining == []
        self.model.purge()

    def reopen(self, options: dict[str, Any]) -> None:
        self.options = options
        self.run(self.again())

    async def again(self) -> None:
        await self.store.close()
        self.store = await self.opened(0)

    # -- graphs

    @asynccontextmanager
    async def no_maintenance(self) -> AsyncIterator[None]:
        """A block without maintenance: a search of assemblies repairs composites only while nobody writes."""
        maintainers = [store._maintainer for store in (self.store, self.other) if store is not None]
        for maintainer_ in maintainers:
            await maintainer_.stop()
        try:
            yield
        finally:
            for maintainer_ in maintainers:
                maintainer_.resume()

    def optimize(self, second: bool) -> None:
        async def maintained() -> None:
            store = self.face(second)
            await store.optimize()
            for index in store._follower.indexes.by_kind.values():
                expected = (
                    index.kind != "exact"
                    and store._follower.indexes.engine.name == "faiss"
                    and index.graph_unsuitable is None
                )
                few = len(index) < planner.MIN_GRAPH_VECTORS / 2 if index.kind == "auto" else not len(index)
                assert (index.graph is not None) >= (expected and not few and len(index) >= planner.MIN_GRAPH_VECTORS)
                assert index.graph is None or (expected and not few)
                assert index.graph is None or index.unindexed == 0

        self.run(maintained())

    def damaged_snapshot(self, number: int, how: str) -> None:
        """Damage of the stored graph affects nothing but the graph."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            chunks = connection.execute("SELECT snapshot_pk, number FROM index_chunk").fetchall()
            if not chunks:
                return
            pk, at_number = chunks[number % len(chunks)]
            statement = {
                "flip": "UPDATE index_chunk SET data = zeroblob(length(data)) WHERE snapshot_pk = ? AND number = ?",
                "cut": "UPDATE index_chunk SET data = substr(data, 1, 20) WHERE snapshot_pk = ? AND number = ?",
                "drop": "DELETE FROM index_chunk WHERE snapshot_pk = ? AND number = ?",
                "drop all": "DELETE FROM index_chunk WHERE snapshot_pk = ? OR number = ?",
                "header": "UPDATE index_snapshot SET parameters = json_set(parameters, '$.entry', 1 - "
                "json_extract(parameters, '$.entry')) WHERE pk = ? OR pk = -?",
            }[how]
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute(statement, (pk, at_number))
        if number % 2:
            self.run(self.again())

        async def mended() -> None:
            await self.everything(self.store, self.model)
            assert {finding.kind for finding in await self.store.check()} <= {"snapshot"}
            assert (await self.store.repair()).remaining == []

        self.run(mended())
        self.model.purge()

    def open_or_close_a_second_store(self) -> None:
        if self.other is None:
            self.other = self.run(self.opened(1))
        else:
            self.run(self.other.close())
            self.other = None

    # -- raw SQL, as another tool would

    def sql(self, statement: str, values: Mapping[str, Any], *, foreign_keys: bool = False) -> None:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA foreign_keys = {foreign_keys:d}")
            connection.execute(statement, values)

    def find(self, namespace: Namespace, id: str) -> dict[str, str]:
        return {"path": namespace_path(namespace), "id": id}

    async def lag(self, expected: set[Key], *, also: frozenset[str] = frozenset()) -> None:
        """Until a search of assemblies, `check` finds the composites that raw SQL made stale, and nothing else."""
        findings = await self.store.check()
        assert {f.kind for f in findings} - also <= {"composite"}, findings
        named = {(f.namespace, f.id) for f in findings if f.kind == "composite"}
        assert named == expected, findings
        async with self.no_maintenance():
            await self.store.assemblies.search(self.pool[0])
        if not also:
            assert await self.store.check() == []

    def raw_vector(self, number: int, vector: V, replace: bool) -> None:
        if not self.model.memories:
            return
        key, row = pick(self.model.memories, number)
        if row["embedding"] is None:
            return
        row["embedding"] = with_vectors(vector, self.pool)
        one = "(SELECT memory.pk FROM memory JOIN namespace n ON n.pk = namespace_pk WHERE path = :path AND id = :id)"
        statement = f"UPDATE memory_vector SET vector = :vector WHERE memory_pk = {one}"
        if replace:
            statement = (
                "REPLACE INTO memory_vector (memory_pk, space_pk, vector) "
                f"SELECT {one}, pk, :vector FROM vector_space WHERE kind = 'memory'"
            )
        self.sql(statement, self.find(*key) | {"vector": row["embedding"].tobytes()})
        self.run(self.lag(set(self.model.of(key))))

    def raw_delete(self, number: int, foreign_keys: bool) -> None:
        if not self.model.memories:
            return
        key, row = pick(self.model.memories, number)
        owners = set(self.model.of(key))
        belongings = row["embedding"] is not None or row["tags"] or owners
        self.sql(
            "DELETE FROM memory WHERE id = :id AND namespace_pk = (SELECT pk FROM namespace WHERE path = :path)",
            self.find(*key),
            foreign_keys=foreign_keys,
        )
        if foreign_keys:
            self.model.drop_memory(key)
            self.run(self.lag(owners))
            return

        async def mended() -> None:
            hits = await self.store.memories.search(self.pool[0], limit=100, recursive=True)
            assert key not in {(hit.memory.namespace, hit.memory.id) for hit in hits}
            findings = await self.store.check()
            assert {f.kind for f in findings} == ({"foreign_key"} if belongings else set())
            assert (await self.store.repair()).remaining == []

        self.run(mended())
        self.model.purge()
        self.model.memories.pop(key, None)
        for owner in owners:
            self.model.assemblies[owner]["members"] = self.model.assemblies[owner]["members"] - {key[1]}

    def raw_expiry(self, number: int) -> None:
        if not self.model.memories:
            return
        key, row = pick(self.model.memories, number)
        row["expires_at"] = LONG_AGO
        self.sql(
            "UPDATE memory SET expires_at = 0 "
            "WHERE id = :id AND namespace_pk = (SELECT pk FROM namespace WHERE path = :path)",
            self.find(*key),
        )

    def raw_member(self, number: int, which: int, then: list[str] | None) -> None:
        if not self.model.assemblies:
            return
        key, row = pick(self.model.assemblies, number)
        candidates = [k for k in self.model.memories if k[0] == key[0] and k[1] not in row["members"]]
        if not candidates:
            return
        member = candidates[which % len(candidates)]
        row["members"] = row["members"] | {member[1]}
        self.sql(
            "INSERT INTO assembly_member (assembly_pk, memory_pk) SELECT a.pk, m.pk FROM assembly a JOIN memory m "
            "ON a.namespace_pk = m.namespace_pk JOIN namespace n ON n.pk = a.namespace_pk "
            "WHERE n.path = :path AND a.id = :assembly AND m.id = :id",
            self.find(*member) | {"assembly": key[1]},
        )
        if then is not None:  # a verb uses the composite before a search repairs it
            self.write(Command("assemblies", "add_members", key[0], {"id": key[1], "ids": then}), second=False)
            return
        self.run(self.lag({key}))

    # -- always

    async def everything(self, face: Any, model: Model, *, sweeps: bool = True) -> None:
        """A search without limits finds every record of the model, and nothing else."""
        for noun in NOUNS:
            await self.right(face, Search(noun=noun, limit=100, recursive=True), V(5), model, sweeps=sweeps)

    @invariant()
    def the_store_is_the_model(self) -> None:
        if self.store is None:
            return

        async def look() -> None:
            self.looks += 1
            assert FAILURES == [], "the graph maintenance failed"
            await self.everything(self.store, self.model)
            for number, tags in ((self.looks, ()), (self.looks + 5, TAGS[:1]), (self.looks + 9, ())):
                few = Search(noun="memories", limit=1 + number % 3, recursive=True, tags=frozenset(tags))
                await self.right(self.store, few, V(number), self.model)
            await same(self.model, self.store, [NAMESPACES[self.looks % len(NAMESPACES)]])

        self.run(look())

    def check(self) -> None:
        self.run(self.expect_equal())

    async def expect_equal(self) -> None:
        for store in (self.store, self.other):
            if store is not None:
                assert await store.check() == []
                await same(self.model, store, NAMESPACES)

    def teardown(self) -> None:
        try:
            if self.store is not None:
                self.run(self.expect_equal())
        finally:
            for store in (self.other, self.store):
                if store is not None:
                    self.run(store.close())
            self.runner.close()
            self.folder.cleanup()


def memory_field(expected: object, actual: object) -> bool:
    return isinstance(expected, TimeRange) or expected == actual


def pick(rows: dict[Key, Any], number: int) -> tuple[Key, Any]:
    return list(rows.items())[number % len(rows)]


async def cancelled(work: Coroutine[Any, Any, object], spins: int, seed: int) -> None:
    """Cancel *work* after *spins* turns of the loop, and perhaps a few milliseconds more; it must end."""
    task = asyncio.create_task(work)
    for _ in range(spins):
        await asyncio.sleep(0)
    if seed % 3:
        await asyncio.sleep(random.Random(seed).random() * 0.004)
    task.cancel()
    await asyncio.wait([task], timeout=BOUND / 2)
    assert task.done(), "a cancelled call does not end"
    if not task.cancelled() and task.exception() is not None:
        assert isinstance(task.exception(), MemstoreError), task.exception()


FAILURES: list[str] = []


class Witness(logging.LoggerAdapter[logging.Logger]):
    """A logger that records every exception."""

    def exception(self, msg: object, *args: object, **_: object) -> None:
        FAILURES.append(f"{msg}: {traceback.format_exc()}")


@pytest.fixture
def tiny_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs from four vectors on, searched completely, so that their hits are exact too."""
    small_graphs(
        monkeypatch,
        MIN_GRAPH_VECTORS=4,
        CANDIDATE_COST=0.01,
        MIN_ALLOWED_SHARE=0,
        MERGE_MIN=6,
        REBUILD_MIN_DELETED=4,
        MIN_USEFUL_RECALL=0,
        EF_SEARCH_STEPS=(8,),
    )
    monkeypatch.setattr(change_log, "KEEP", 40)
    monkeypatch.setattr(snapshot, "CHUNK", 400)
    monkeypatch.setattr(maintainer, "_log", Witness(logging.getLogger("memstore"), {}))
    monkeypatch.setattr(planner, "COMPLETE_SHARE", planner.COMPLETE_SHARE)  # see `StoreMachine.open`
    walk = hnsw.Graph.search
    monkeypatch.setattr(hnsw.Graph, "search", lambda self, queries, limit, effort: walk(self, queries, limit, 10_000))
    FAILURES.clear()


EXAMPLES = cases("EXAMPLES", 0)
PARTS = 4  # so that all workers share the examples


@pytest.mark.usefixtures("tiny_graphs")
@pytest.mark.timeout(0 if EXAMPLES else 300)
@pytest.mark.parametrize("part", range(PARTS))
def test_store_equals_the_model_after_any_sequence_of_operations(part: int) -> None:
    machine = type(f"StoreMachine{part}", (StoreMachine,), {})
    run_state_machine_as_test(
        machine if EXAMPLES else seed(part)(machine),
        settings=settings(
            max_examples=(EXAMPLES or 40) // PARTS,
            stateful_step_count=80 if EXAMPLES else 40,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

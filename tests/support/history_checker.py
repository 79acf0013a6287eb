"""Histories: the operations of a workload, their acknowledgements, and the states that a file may be in after them.

`Workload` generates the operations, the same ones for the same seed in every process. The process that runs them
writes a line before and after each to a file beside the store (`Acknowledgements`), and may be killed or lose its disk
at any time. `History` reads the lines and computes, with the oracle of `model.py`, the states that the file may be in:
everything acknowledged is there, and each step of an operation that did not end is there completely or not at all.
`verify` opens the file and compares it with these states, row by row and vector by vector.

An operation is a sequence of steps; a step is one transaction. An acknowledgement has a letter for each step:

| letter | the step |
|---|---|
| `d` | was committed |
| `r` | was refused because of a duplicate or missing id; nothing of it is in the file |
| `f` | failed with an error; nothing of it is in the file |
| `u` | ended in `CommitUnknownError`: it is in the file completely or not at all |
| `-` | did not begin |
"""

import asyncio
import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

import memstore
from memstore import CommitUnknownError, DuplicateError, LoadError, MemstoreError, NotFoundError, Store
from tests.support.model import NOUNS, Command, Model, Namespace, Search, TimeRange, Where, at, call, right_hits, same

DIMENSION = 8
NAMESPACES: tuple[Namespace, ...] = ((), ("a",), ("a", "b"))
TAGS = ("red", "blue", "x y", "π")
START = datetime(2024, 1, 1, tzinfo=UTC)
ANY = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)

Kind = Literal["write", "transaction", "load", "together", "optimize", "compact", "backup"]
Step = tuple[Command, ...]


@dataclass(frozen=True)
class Operation:
    """The work between two acknowledgements.

    Attributes:
        n: its number in the history.
        kind: `write` is one verb; `transaction` several in one; `load` several steps in order, `together` several at
            once, which share a COMMIT; the others change nothing that a caller can see.
        steps: the commands of one transaction each.
    """

    n: int
    kind: Kind
    steps: tuple[Step, ...] = ()


class Workload:
    """An endless sequence of operations, determined by *seed* and their number.

    Args:
        seed: any whole number from 0.
        quiet: leave out the operations that change no record.
    """

    def __init__(self, seed: int, *, quiet: bool = False) -> None:
        self.seed = seed
        self.quiet = quiet

    def operation(self, n: int) -> Operation:
        rng = np.random.default_rng([self.seed, n])
        if not n:
            return Operation(n, "write", (self._batch(rng, n, ()),))  # records for the operations after it
        kinds: dict[Kind, float] = {"write": 0.6, "transaction": 0.12, "load": 0.05, "together": 0.08}
        if not self.quiet:
            kinds |= {"optimize": 0.06, "compact": 0.05, "backup": 0.04}
        shares = np.array(list(kinds.values()))
        kind = list(kinds)[rng.choice(len(kinds), p=shares / shares.sum())]
        return Operation(n, kind, tuple(self._steps(kind, rng, n)))

    def _steps(self, kind: Kind, rng: np.random.Generator, n: int) -> Iterator[Step]:
        if kind == "write":
            yield self._write(rng, n)
        elif kind == "transaction":
            space = self._space(rng)
            yield (*self._batch(rng, n, space, most=4), *(self._one(rng, n, i, space) for i in range(3)))
        elif kind == "load":
            space = self._space(rng)
            for i in range(3):
                yield self._batch(rng, n, space, first=10 * i, count=10)
        elif kind == "together":
            space = self._space(rng)
            for i in range(3):
                yield self._batch(rng, n, space, first=i, count=1)
            # One that may be refused; the others must succeed all the same.
            items = [self._item(rng, n, id) for id in (f"{n}-3", f"m{rng.integers(12)}")]
            yield (Command("memories", "add_many", space, {"items": items}),)

    def _space(self, rng: np.random.Generator) -> Namespace:
        return NAMESPACES[rng.choice(3, p=(0.7, 0.15, 0.15))]

    def _write(self, rng: np.random.Generator, n: int) -> Step:
        space, draw = self._space(rng), rng.random()
        if draw < 0.2:
            return self._batch(rng, n, space)
        if draw < 0.3:
            old = int(rng.integers(n))
            where = Where({"metadata.op": old}, lambda _, row: row["metadata"].get("op") == old)
            return (Command("memories", "delete_many", space, {"where": where}),)
        return (self._one(rng, n, 0, space),)

    def _batch(
        self,
        rng: np.random.Generator,
        n: int,
        space: Namespace,
        *,
        first: int = 0,
        count: int | None = None,
        most: int = 25,
    ) -> Step:
        count = int(rng.integers(2, most)) if count is None else count
        items = [self._item(rng, n, f"{n}-{first + i}") for i in range(count)]
        return (Command("memories", "add_many", space, {"items": items}),)

    def _one(self, rng: np.random.Generator, n: int, i: int, space: Namespace) -> Command:
        """One verb on a few ids that occur often."""
        id, group = f"m{rng.integers(12)}", f"g{rng.integers(3)}"
        ids = [f"m{k}" for k in rng.integers(12, size=2)]
        tag = str(rng.choice(TAGS))
        this = {"where": Where({"id": id}, lambda key, _: key[1] == id)}
        this_group = {"where": Where({"id": group}, lambda key, _: key[1] == group)}
        groups = [f"g{k}" for k in rng.permutation(3)]
        choices: list[tuple[float, str, str, dict[str, Any]]] = [
            (6, "memories", "upsert", self._item(rng, n, id)),
            (2, "memories", "upsert_many", {"items": [self._item(rng, n, some_id) for some_id in dict.fromkeys(ids)]}),
            (2, "memories", "add", self._item(rng, n, f"{n}-one-{i}")),
            (2, "memories", "update", {"id": id, "tags": [tag], "importance": float(rng.integers(5)) / 4}),
            (2, "memories", "update", {"id": id, "content": f"{n} anew", "embedding": self._vector(rng)}),
            (2, "memories", "delete", {"id": id}),
            (1, "memories", "touch", {"ids": list(dict.fromkeys([id, *ids]))}),
            (5, "assemblies", "upsert", self._group(rng, n, group)),
            (5, "assemblies", "add_members", {"id": group, "ids": [id]}),
            (2, "assemblies", "remove_members", {"id": group, "ids": [id]}),
            (1, "assemblies", "delete", {"id": group}),
            (2, "memories", "forget", this),
            (2, "memories", "recover", {"ids": [id]}),
            (0.5, "memories", "purge", {"older_than": 0}),
            (1, "memories", "erase", {"ids": [id]}),
            (0.5, "assemblies", "erase", {"ids": [group]}),
            (1, "memories", "update_and_undo", {"id": id, "metadata": {"op": -n}}),
            (0.5, "assemblies", "forget", this_group),
            (2, "assemblies", "recover", {"ids": [group]}),
            (1, "assemblies", "merge", {"ids": groups[:2], "into": groups[0]}),
            (1, "tags", "rename", {"old": tag, "new": str(rng.choice(TAGS))}),
            (1, "tags", "delete", {"tag": tag}),
        ]
        weights = np.array([weight for weight, *_ in choices])
        _, noun, verb, arguments = choices[rng.choice(len(choices), p=weights / weights.sum())]
        return Command(noun, verb, space, arguments)

    def _vector(self, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        return rng.standard_normal(DIMENSION).astype(np.float32)

    def _item(self, rng: np.random.Generator, n: int, id: str) -> dict[str, Any]:
        content = f"{id} of {n}"
        if rng.random() < 0.05:
            content += " and so on" * int(rng.integers(2_000))  # overflow pages
        return {
            "id": id,
            "content": content,
            "embedding": None if rng.random() < 0.1 else self._vector(rng),
            "tags": sorted({str(tag) for tag in rng.choice(TAGS, size=rng.integers(3))}),
            "metadata": {"op": n, "x": [float(rng.random()), None, "y"]},
            "importance": float(rng.integers(5)) / 4,
            "pinned": bool(rng.integers(2)),
            "created_at": START + timedelta(seconds=n),
        }

    def _group(self, rng: np.random.Generator, n: int, id: str) -> dict[str, Any]:
        return {
            "id": id,
            "name": f"group of {n}",
            "tags": sorted({str(tag) for tag in rng.choice(TAGS, size=rng.integers(3))}),
            "topics": [str(n), "topic"],
            "metadata": {"op": n},
            "created_at": START + timedelta(seconds=n),
        }


# -- running it


class Acknowledgements:
    """The file of acknowledgements; each line is complete when `write` returns.

    It must be on a disk without injected faults. `on_line` is called with each line.
    """

    def __init__(self, path: Path, on_line: Callable[[str], None] = lambda line: None) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._on_line = on_line

    def write(self, *words: object) -> None:
        line = " ".join(map(str, words)) + "\n"
        os.write(self._file, line.encode())
        self._on_line(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


async def acknowledged(
    store: Store, operation: Operation, acknowledgements: Acknowledgements, folder: Path
) -> list[MemstoreError]:
    """Run *operation* with acknowledgements; return the errors that the workload does not expect.

    Backups are written to *folder*. Errors that are not memstore's are raised.
    """
    acknowledgements.write("begin", operation.n)
    letters, errors = await _performed(store, operation, folder)
    acknowledgements.write("done", operation.n, letters or "none")
    return errors


async def _performed(store: Store, operation: Operation, folder: Path) -> tuple[str, list[MemstoreError]]:
    match operation.kind:
        case "load":
            return await _loaded(store, operation)
        case "optimize":
            return "", await _errors(store.optimize())
        case "compact":
            return "", await _errors(store.compact())
        case "backup":
            return "", await _errors(store.backup(folder / f"backup-{operation.n}.db"))
    outcomes = await asyncio.gather(*(_step(store, step) for step in operation.steps))
    return "".join(letter for letter, _ in outcomes), [error for _, error in outcomes if error is not None]


async def _errors(verb: Awaitable[object]) -> list[MemstoreError]:
    try:
        await verb
    except MemstoreError as error:
        return [error]
    return []


async def _step(store: Store, step: Step) -> tuple[str, MemstoreError | None]:
    try:
        if len(step) == 1:
            await call(store, step[0])
        else:
            async with store.transaction() as tx:
                for command in step:
                    await call(tx, command)
    except (NotFoundError, DuplicateError):
        return "r", None
    except CommitUnknownError as error:
        return "u", error
    except MemstoreError as error:
        return "f", error
    return "d", None


async def _loaded(store: Store, operation: Operation) -> tuple[str, list[MemstoreError]]:
    steps = [step[0] for step in operation.steps]
    size = len(steps[0].arguments["items"])
    items = [item for command in steps for item in command.arguments["items"]]
    try:
        await at(store, steps[0].namespace).load(items, chunk=size)
    except LoadError as error:
        stored = error.stored // size
        last = "u" if isinstance(error.__cause__, CommitUnknownError) else "f"
        return "d" * stored + last + "-" * (len(steps) - stored - 1), [error]
    return "d" * len(steps), []


# -- comparing the file with the history


class History:
    """The acknowledged operations of one run.

    Args:
        seed: of the workload.
        events: (operation, letters) in order; letters are None where it began and did not end.
        identified: the state, of the possible ones, that the file was in after so many events. It limits the number
            of possible states in a long run.
    """

    def __init__(
        self, seed: int, events: list[tuple[int, str | None]], identified: dict[int, int] | None = None
    ) -> None:
        self.workload = Workload(seed)
        self.events = events
        self.identified = {} if identified is None else identified
        self._after: list[list[Model]] = [self._narrowed(0, [Model("cosine")])]

    @classmethod
    def read(cls, path: Path, seed: int) -> Self:
        """Parse the file at *path*: see `parse`."""
        return cls.parse(path.read_text(), seed)

    @classmethod
    def parse(cls, text: str, seed: int) -> Self:
        """Parse acknowledgements; an incomplete last line is ignored.

        Beside the lines of `acknowledged`, *text* may contain `found <number>`: the state that `verify` returned.
        """
        events: dict[int, str | None] = {}
        identified: dict[int, int] = {}
        for line in text.split("\n")[:-1]:
            match line.split():
                case ["begin", n]:
                    assert int(n) not in events, f"operation {n} began twice"
                    events[int(n)] = None
                case ["done", n, letters]:
                    assert events[int(n)] is None, f"operation {n} ended twice"
                    events[int(n)] = letters
                case ["found", which]:
                    identified[len(events)] = int(which)
        return cls(seed, list(events.items()), identified)

    def possible(self, count: int | None = None) -> list[Model]:
        """Every state that the file may be in after the first *count* operations, all if None."""
        count = len(self.events) if count is None else count
        while len(self._after) <= count:
            n, letters = self.events[len(self._after) - 1]
            after = self._advanced(self._after[-1], self.workload.operation(n), letters)
            self._after.append(self._narrowed(len(self._after), after))
        return self._after[count]

    def _narrowed(self, count: int, states: list[Model]) -> list[Model]:
        return [states[self.identified[count]]] if count in self.identified else states

    def began(self, count: int) -> list[Model]:
        """Every state that the file may be in while the operation after the first *count* runs."""
        n, _ = self.events[count]
        return self._advanced(self.possible(count), self.workload.operation(n), None)

    def _advanced(self, models: list[Model], operation: Operation, letters: str | None) -> list[Model]:
        states = models
        ordered: list[Model] = []
        for i, step in enumerate(operation.steps):
            if letters is None:
                # A load does its steps in order and may stop after any; of what is done at once any may be missing.
                ordered += states
                after = [model for before in states if (model := stepped(before, step)) is not None]
                states = [*states, *after] if operation.kind == "together" else after
            else:
                states = self._ended(states, step, letters[i])
                assert states, f"operation {operation.n} answered {letters!r}, which the model never does"
        return _different([*states, *ordered])

    def _ended(self, states: list[Model], step: Step, letter: str) -> list[Model]:
        after = [(before, stepped(before, step)) for before in states]
        if letter == "d":
            return [model for _, model in after if model is not None]
        if letter == "r":
            return [before for before, model in after if model is None]
        if letter == "u":
            return [model for pair in after for model in pair if model is not None]
        return states


def stepped(model: Model, step: Step) -> Model | None:
    """*model* after *step*; None if the model refuses it."""
    after = model.copy()
    try:
        for command in step:
            after.run(command, TimeRange(*ANY))
    except (NotFoundError, DuplicateError):
        return None
    return after


def replayed(seed: int, n: int) -> Model:
    """The contents of a store after the operations 0 to *n* of a workload without failures."""
    model = Model("cosine")
    workload = Workload(seed)
    for operation in map(workload.operation, range(n + 1)):
        for step in operation.steps:
            model = stepped(model, step) or model
    return model


MEMORY_FIELDS = ("content", "embedding", "tags", "metadata", "importance", "access_count", "pinned")

State = dict[tuple[str, Namespace, str], tuple[Any, ...]]


def _different(models: list[Model]) -> list[Model]:
    distinct: list[tuple[State, Model]] = []
    for model in models:
        state = _model_state(model)
        if all(state != other for other, _ in distinct):
            distinct.append((state, model))
    return [model for _, model in distinct]


def _model_state(model: Model) -> State:
    """Everything that distinguishes two states, without the times that the store set."""
    state: State = {
        (noun, *key): _record_state(row)
        for noun, rows in (("memory", model.memories), ("assembly", model.assemblies))
        for key, row in rows.items()
    }
    for place, entry in enumerate(entry for entry in model.archived if entry.cause == "forgotten"):
        state[f"{entry.noun} in the trash {place}", *entry.key] = _record_state(entry.row | {"members": ()})
    return state


def _record_state(row: dict[str, Any]) -> tuple[Any, ...]:
    embedding = row.get("embedding")
    return (
        None if embedding is None else embedding.tobytes(),
        frozenset(row["tags"]),
        repr(row["metadata"]),
        frozenset(row.get("members", ())),
        *map(row.get, ("content", "name", "importance", "access_count", "pinned", "topics")),
    )


async def store_state(store: Store) -> State:
    """The same of the records that *store* returns."""
    state: State = {}
    async for memory in store.memories.list(recursive=True):
        fields = {name: getattr(memory, name) for name in MEMORY_FIELDS}
        state["memory", memory.namespace, memory.id] = _record_state(fields)
    async for assembly in store.assemblies.list(recursive=True):
        fields = {name: getattr(assembly, name) for name in ("name", "tags", "metadata", "topics")}
        fields["members"] = {id async for id in at(store, assembly.namespace).assemblies.members(assembly.id)}
        state["assembly", assembly.namespace, assembly.id] = _record_state(fields)
    entries = [
        (entry.at, noun, entry.record)
        for namespace in NAMESPACES
        for noun in NOUNS
        async for entry in getattr(at(store, namespace), noun).trash()
    ]
    for place, (_, noun, record) in enumerate(sorted(entries, key=lambda entry: entry[0])):
        fields = {name: getattr(record, name, None) for name in (*MEMORY_FIELDS, "name", "topics")}
        state[f"{noun} in the trash {place}", record.namespace, record.id] = _record_state(fields)
    return state


async def matched(store: Store, models: list[Model]) -> int:
    """The index of the model that equals the store, the last of several. Fails with the smallest difference."""
    actual = await store_state(store)
    differences = []
    for i in reversed(range(len(models))):
        expected = _model_state(models[i])
        if expected == actual:
            return i
        differences.append(_difference(expected, actual))
    raise AssertionError(
        f"the file is in none of {len(models)} states allowed; the nearest differs by: {min(differences, key=len)}"
    )


def _difference(expected: State, actual: State) -> str:
    lost = [key for key in expected if key not in actual]
    more = [key for key in actual if key not in expected]
    other = [key for key in expected if key in actual and expected[key] != actual[key]]
    return f"{len(lost)} missing {lost[:5]}, {len(more)} too many {more[:5]}, {len(other)} different {other[:5]}"


async def hold(store: Store, models: list[Model]) -> int:
    """Compare *store* with *models*: rows, members, tags, composites, index and searches.

    Returns:
        The index of the model that equals the store.
    """
    which = await matched(store, models)
    model = models[which].copy()
    await same(model, store, NAMESPACES)
    assert await store.check() == []
    vectors = [(key, row["embedding"]) for key, row in model.rows("memories").items() if row["embedding"] is not None]
    if vectors:
        answers = await store.memories.search_many([vector for _, vector in vectors], limit=3, recursive=True)
        for (key, vector), hits in zip(vectors, answers, strict=True):
            right_hits(model, Search(noun="memories", limit=3, recursive=True), vector, hits)
            assert key in {(hit.memory.namespace, hit.memory.id) for hit in hits}
    composites = [assembly.composite async for assembly in store.assemblies.list(recursive=True)]
    for composite in composites:
        if composite is not None:
            hits = await store.assemblies.search(composite, limit=3, recursive=True)
            right_hits(model, Search(noun="assemblies", limit=3, recursive=True), composite, hits)
    return which


async def verify(path: Path, models: list[Model], **options: Any) -> int:
    """Open the file at *path*, compare it with *models*, write to it; return the index of the model that equals it.

    Args:
        path: the file; if it does not exist or is incomplete, the empty state must be among *models*.
        models: states of `History.possible` or `began`.
        **options: of `memstore.open`.
    """
    async with memstore.open(path, dimension=DIMENSION, **options) as store:
        which = await hold(store, models)
        probe = np.ones(DIMENSION, dtype=np.float32)
        await store.memories.add("it takes writes", id="probe", embedding=probe)
        assert (await store.memories.search(probe))[0].memory.id == "probe"
        assert await store.memories.delete("probe") == 1
    with closing(sqlite3.connect(path)) as base:
        assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return which

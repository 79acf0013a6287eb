"""A history that can be held to account: what was to be done to a store, what it said it had done, what that leaves.

`Workload` makes up the operations, the same ones for the same seed in every process. Whoever runs them writes a line
before and after each to a file beside the store (`Acknowledgements`), and may be killed or lose its disk at any
moment. `History` reads the lines and says, with the slow model of `model.py`, which states the file may be in:
everything acknowledged, and of what had begun and not ended each step whole or absent. `verify` opens the file and
finds it in one of them, row by row and vector by vector.

An operation is a row of steps; a step is what is done in one transaction. An acknowledgement has a letter for each:

| letter | the step |
|---|---|
| `d` | was done: it is in the file for good |
| `r` | was refused, because an id was taken or missing; nothing of it is in the file |
| `f` | failed with an error; nothing of it is in the file |
| `u` | ended in `CommitUnknownError`: whole or absent |
| `-` | was never begun |
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
from tests.support.model import Command, Model, Moment, Namespace, Search, Where, at, right_hits, same

DIMENSION = 8
NAMESPACES: tuple[Namespace, ...] = ((), ("a",), ("a", "b"))
TAGS = ("red", "blue", "x y", "π")
START = datetime(2024, 1, 1, tzinfo=UTC)
ANY = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)

Kind = Literal["write", "transaction", "load", "together", "optimize", "compact", "backup"]
Step = tuple[Command, ...]


@dataclass(frozen=True)
class Operation:
    """What is done between two acknowledgements.

    Attributes:
        n: its place in the history.
        kind: `write` is one verb; `transaction` several in one; `load` several steps in order, `together` several at
            once, which share a COMMIT; the others change nothing that a caller can see.
        steps: what is done in one transaction each.
    """

    n: int
    kind: Kind
    steps: tuple[Step, ...] = ()


class Workload:
    """Operations without end, made up from *seed* and their number alone.

    Args:
        seed: any whole number from 0.
        quiet: leave out the operations that change nothing.
    """

    def __init__(self, seed: int, *, quiet: bool = False) -> None:
        self.seed = seed
        self.quiet = quiet

    def operation(self, n: int) -> Operation:
        rng = np.random.default_rng([self.seed, n])
        if not n:
            return Operation(n, "write", (self._batch(rng, n, ()),))  # so that there is something to work on
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
            # One that may be refused, which is to leave the others alone.
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
        """One verb on a few ids that come back again and again."""
        id, group = f"m{rng.integers(12)}", f"g{rng.integers(3)}"
        some = [f"m{k}" for k in rng.integers(12, size=2)]
        tag = str(rng.choice(TAGS))
        made: list[tuple[float, str, str, dict[str, Any]]] = [
            (6, "memories", "upsert", self._item(rng, n, id)),
            (2, "memories", "upsert_many", {"items": [self._item(rng, n, some_id) for some_id in dict.fromkeys(some)]}),
            (2, "memories", "add", self._item(rng, n, f"{n}-one-{i}")),
            (2, "memories", "update", {"id": id, "tags": [tag], "importance": float(rng.integers(5)) / 4}),
            (2, "memories", "update", {"id": id, "content": f"{n} anew", "embedding": self._vector(rng)}),
            (2, "memories", "delete", {"id": id}),
            (1, "memories", "touch", {"ids": list(dict.fromkeys([id, *some]))}),
            (5, "assemblies", "upsert", self._group(rng, n, group)),
            (5, "assemblies", "add_members", {"id": group, "ids": [id]}),
            (2, "assemblies", "remove_members", {"id": group, "ids": [id]}),
            (1, "assemblies", "delete", {"id": group}),
            (1, "tags", "rename", {"old": tag, "new": str(rng.choice(TAGS))}),
            (1, "tags", "delete", {"tag": tag}),
        ]
        weights = np.array([weight for weight, *_ in made])
        _, noun, verb, arguments = made[rng.choice(len(made), p=weights / weights.sum())]
        return Command(noun, verb, space, arguments)

    def _vector(self, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        return rng.standard_normal(DIMENSION).astype(np.float32)

    def _item(self, rng: np.random.Generator, n: int, id: str) -> dict[str, Any]:
        content = f"{id} of {n}"
        if rng.random() < 0.05:
            content += " and so on" * int(rng.integers(2_000))  # pages of overflow
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
    """The file to which is written what begins and what has ended; each line is there, whole, when `write` returns.

    It must be where no fault is injected. `moved` is called with each line that was written.
    """

    def __init__(self, path: Path, moved: Callable[[str], None] = lambda line: None) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._moved = moved

    def write(self, *words: object) -> None:
        line = " ".join(map(str, words)) + "\n"
        os.write(self._file, line.encode())
        self._moved(line)

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def acknowledged(
    store: Store, operation: Operation, acknowledgements: Acknowledgements, folder: Path
) -> list[MemstoreError]:
    """Do *operation*, acknowledged; the errors it ended in, none of which is one of the caller's making.

    Backups are put into *folder*. An error that is not memstore's is nobody's to acknowledge: it is let out.
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
            await _called(store, step[0])
        else:
            async with store.transaction() as tx:
                for command in step:
                    await _called(tx, command)
    except (NotFoundError, DuplicateError):
        return "r", None
    except CommitUnknownError as error:
        return "u", error
    except MemstoreError as error:
        return "f", error
    return "d", None


async def _called(face: Any, command: Command) -> None:
    arguments = dict(command.arguments)
    if "where" in arguments:
        arguments["where"] = arguments["where"].where
    verb = getattr(getattr(at(face, command.namespace), command.noun), command.verb)
    await verb(**arguments)


async def _loaded(store: Store, operation: Operation) -> tuple[str, list[MemstoreError]]:
    steps = [step[0] for step in operation.steps]
    size = len(steps[0].arguments["items"])
    items = [item for command in steps for item in command.arguments["items"]]
    try:
        await at(store, steps[0].namespace).load(items, chunk=size)
    except LoadError as error:
        whole = error.stored // size
        last = "u" if isinstance(error.__cause__, CommitUnknownError) else "f"
        return "d" * whole + last + "-" * (len(steps) - whole - 1), [error]
    return "d" * len(steps), []


# -- holding the file to it


class History:
    """What acknowledgements say of one run.

    Args:
        seed: of the workload.
        events: (operation, letters) in order; letters are None where it began and did not end.
        found: which of the possible states the file was found in after so many events. What is known is not asked
            again, and a long run with many ends stays short to judge.
    """

    def __init__(self, seed: int, events: list[tuple[int, str | None]], found: dict[int, int] | None = None) -> None:
        self.workload = Workload(seed)
        self.events = events
        self.found = {} if found is None else found
        self._after: list[list[Model]] = [self._known(0, [Model("cosine")])]

    @classmethod
    def read(cls, path: Path, seed: int) -> Self:
        """What the file *path* says: see `told`."""
        return cls.told(path.read_text(), seed)

    @classmethod
    def told(cls, text: str, seed: int) -> Self:
        """What *text* says; a last line that was cut short counts for nothing.

        Beside the lines of `acknowledged` it may hold `found <number>`: what `verify` told of all before it.
        """
        events: dict[int, str | None] = {}
        found: dict[int, int] = {}
        for line in text.split("\n")[:-1]:
            match line.split():
                case ["begin", n]:
                    assert int(n) not in events, f"operation {n} began twice"
                    events[int(n)] = None
                case ["done", n, letters]:
                    assert events[int(n)] is None, f"operation {n} ended twice"
                    events[int(n)] = letters
                case ["found", which]:
                    found[len(events)] = int(which)
        return cls(seed, list(events.items()), found)

    def possible(self, count: int | None = None) -> list[Model]:
        """Every state the first *count* operations, all if None, may have left; a store is in one of them."""
        count = len(self.events) if count is None else count
        while len(self._after) <= count:
            n, letters = self.events[len(self._after) - 1]
            after = self._advanced(self._after[-1], self.workload.operation(n), letters)
            self._after.append(self._known(len(self._after), after))
        return self._after[count]

    def _known(self, count: int, states: list[Model]) -> list[Model]:
        return [states[self.found[count]]] if count in self.found else states

    def began(self, count: int) -> list[Model]:
        """Every state the file may be in while the operation after the first *count* is under way."""
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
    """*model* after *step*, all of it; None where the model refuses it."""
    after = model.copy()
    try:
        for command in step:
            after.run(command, Moment(*ANY))
    except (NotFoundError, DuplicateError):
        return None
    return after


def replayed(seed: int, n: int) -> Model:
    """What a store holds after the operations 0 to *n* of a workload of which none failed."""
    model = Model("cosine")
    workload = Workload(seed)
    for operation in map(workload.operation, range(n + 1)):
        for step in operation.steps:
            model = stepped(model, step) or model
    return model


MEMORY_FIELDS = ("content", "embedding", "tags", "metadata", "importance", "access_count", "pinned")

Print = dict[tuple[str, Namespace, str], tuple[Any, ...]]


def _different(models: list[Model]) -> list[Model]:
    found: list[tuple[Print, Model]] = []
    for model in models:
        shape = _print(model)
        if all(shape != other for other, _ in found):
            found.append((shape, model))
    return [model for _, model in found]


def _print(model: Model) -> Print:
    """Everything of *model* that tells one state from another, without the times that the store chose."""
    return {
        (noun, *key): _shape(row | ({"members": row["members"]} if "members" in row else {}))
        for noun, rows in (("memory", model.memories), ("assembly", model.assemblies))
        for key, row in rows.items()
    }


def _shape(row: dict[str, Any]) -> tuple[Any, ...]:
    embedding = row.get("embedding")
    return (
        row.get("content", row.get("name")),
        None if embedding is None else embedding.tobytes(),
        frozenset(row["tags"]),
        repr(row["metadata"]),
        row.get("importance"),
        row.get("access_count"),
        row.get("pinned"),
        row.get("topics"),
        frozenset(row.get("members", ())),
    )


async def short_repr(store: Store) -> Print:
    """The same of what *store* shows."""
    found: Print = {}
    async for memory in store.memories.list(recursive=True):
        fields = {name: getattr(memory, name) for name in MEMORY_FIELDS}
        found["memory", memory.namespace, memory.id] = _shape(fields)
    async for assembly in store.assemblies.list(recursive=True):
        fields = {name: getattr(assembly, name) for name in ("name", "tags", "metadata", "topics")}
        members = {id async for id in at(store, assembly.namespace).assemblies.members(assembly.id)}
        found["assembly", assembly.namespace, assembly.id] = _shape(fields | {"members": members})
    return found


async def matched(store: Store, models: list[Model]) -> int:
    """Which of *models* the store holds; the last of several. Fails with the difference from the nearest."""
    found = await short_repr(store)
    differences = []
    for i in reversed(range(len(models))):
        expected = _print(models[i])
        if expected == found:
            return i
        differences.append(_difference(expected, found))
    raise AssertionError(
        f"the file is in none of {len(models)} states allowed; the nearest differs by: {min(differences, key=len)}"
    )


def _difference(expected: Print, found: Print) -> str:
    lost = [key for key in expected if key not in found]
    more = [key for key in found if key not in expected]
    other = [key for key in expected if key in found and expected[key] != found[key]]
    return f"{len(lost)} missing {lost[:5]}, {len(more)} too many {more[:5]}, {len(other)} different {other[:5]}"


async def hold(store: Store, models: list[Model]) -> int:
    """*store* is in one of *models*, which is told: rows, members, tags, composites, index, and every vector found."""
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
    """Open the file at *path*: it is in one of *models*, which is told, whole, and takes writes.

    Args:
        path: the file; where there is none, or half of one, the empty state must be among *models*.
        models: what `History.possible` or `began` say.
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

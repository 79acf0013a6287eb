"""The history checker accepts what was done, and finds what is lost, incomplete or invented."""

from pathlib import Path

import numpy as np
import pytest

import memstore
from tests.support.history_checker import (
    DIMENSION,
    Acknowledgements,
    History,
    Operation,
    Workload,
    acknowledged,
    hold,
    replayed,
    stepped,
    verify,
)
from tests.support.model import at
from tests.support.programs import run_python

SEED, COUNT = 6, 25


async def run(path: Path, count: int = COUNT) -> History:
    """Run *count* operations in a store at *path*; return their history."""
    lines = path.with_suffix(".ack")
    async with memstore.open(path, dimension=DIMENSION, index="graph") as store:
        with Acknowledgements(lines) as acknowledgements:
            for n in range(count):
                assert await acknowledged(store, Workload(SEED).operation(n), acknowledgements, path.parent) == []
    return History.read(lines, SEED)


def first(kind: str, *, steps: int = 0) -> Operation:
    return next(o for o in map(Workload(SEED).operation, range(1, 1_000)) if o.kind == kind and len(o.steps) >= steps)


async def test_store_is_in_the_state_of_its_history(path: Path) -> None:
    history = await run(path)
    assert len(history.possible()) == 1
    assert await verify(path, history.possible()) == 0
    async with memstore.open(path) as store:
        assert await hold(store, [replayed(SEED, COUNT - 1)]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [("delete", "1 missing"), ("add", "1 too many"), ("update", "1 different"), ("members", "1 different")],
)
async def test_change_outside_the_history_is_found(path: Path, change: str, message: str) -> None:
    history = await run(path)
    async with memstore.open(path) as store:
        one = next(iter(history.possible()[0].memories))[1]
        if change == "delete":
            await store.memories.delete(one)
        elif change == "add":
            await store.memories.add("invented", id="invented")
        elif change == "update":
            await store.memories.update(one, embedding=np.ones(DIMENSION))
        else:
            (namespace, group), row = next(iter(history.possible()[0].assemblies.items()))
            outsiders = {id for place, id in history.possible()[0].memories if place == namespace} - row["members"]
            await at(store, namespace).assemblies.add_members(group, [min(outsiders)])
    with pytest.raises(AssertionError, match=message):
        await verify(path, history.possible())


async def test_operation_that_did_not_end_is_complete_or_absent(path: Path) -> None:
    history = await run(path)
    batch = next(o for o in map(Workload(SEED).operation, range(COUNT, 1_000)) if _is_batch(o))
    history.events.append((batch.n, None))
    allowed = history.possible()
    assert len(allowed) == 2
    assert await verify(path, allowed) == 1, "absent"
    items = batch.steps[0][0].arguments["items"]
    async with memstore.open(path) as store:
        space = store.namespace(*batch.steps[0][0].namespace)
        await space.memories.add_many(items[:-1])
        with pytest.raises(AssertionError, match="1 missing"):
            await hold(store, allowed)
        await space.memories.add_many(items[-1:])
        assert await hold(store, allowed) == 0, "complete"


def _is_batch(operation: Operation) -> bool:
    return operation.kind == "write" and operation.steps[0][0].verb == "add_many"


def test_a_load_may_end_after_any_chunk_and_writes_at_once_in_any_part() -> None:
    load, together = first("load", steps=3), first("together", steps=4)
    assert len(History(SEED, [(load.n, None)]).possible()) == 4
    assert len(History(SEED, [(together.n, None)]).possible()) == 16
    assert len(History(SEED, [(load.n, "dd-")]).possible()) == 1
    assert len(History(SEED, [(together.n, "dufu")]).possible()) == 4


def test_identified_state_limits_the_possible_states(tmp_path: Path) -> None:
    load = first("load", steps=3)
    lines = tmp_path / "ack"
    lines.write_text(f"begin 0\ndone 0 d\nbegin {load.n}\nfound 2\nbegin {load.n + 1}")
    history = History.read(lines, SEED)
    assert history.events == [(0, "d"), (load.n, None)], "the last line was cut short"
    states = history.possible()
    assert len(states) == 1
    all_of_them = History(SEED, history.events).possible()
    assert states[0].memories.keys() == all_of_them[2].memories.keys()


def test_impossible_acknowledgement_is_found() -> None:
    adds = Workload(SEED).operation(0)
    with pytest.raises(AssertionError, match="never does"):
        History(SEED, [(0, "r")]).possible()
    model = History(SEED, [(0, "d")]).possible()[0]
    assert stepped(model, adds.steps[0]) is None, "the ids are taken"


def test_workload_is_the_same_in_every_process_and_has_every_kind_of_operation() -> None:
    program = (
        f"from tests.support.history_checker import Workload; print(list(map(Workload({SEED}).operation, range(60))))"
    )
    outputs = {run_python("-c", program, PYTHONHASHSEED=seed).stdout for seed in ("1", "2")}
    assert len(outputs) == 1
    assert "" not in outputs
    kinds = {operation.kind for operation in map(Workload(SEED).operation, range(200))}
    assert kinds == {"write", "transaction", "load", "together", "optimize", "compact", "backup"}

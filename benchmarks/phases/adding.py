"""One memory, durable before the call returns; and fifty callers at once."""

import shutil
import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.adapters.ours import FILE
from benchmarks.bench import Bench, milliseconds
from benchmarks.worker import Skipped, Worker

PHASE = "add"
TOGETHER = "concurrent"
PLAIN, INDEXED = "", "two paths indexed"
_SYSTEMS = ("memstore", "raw", "faiss", "usearch", "chroma", "lancedb", "sqlite-vec", "qdrant", "langgraph")
_ADDS = 50
_TURNS = 2
_TURNS_TOGETHER = 4
_BUDGET = 1.5
_TRACED = 20


def run(bench: Bench) -> None:
    """Adds to the filled store, in turns; then, in other processes, how often the disk is asked to keep one."""
    systems = bench.among(*_SYSTEMS)
    if "raw" in systems:
        bench.template()
    bench.round()
    with bench.opened(PHASE, systems) as workers:
        told = _added(bench, workers)
        facts = {name: workers[name].ask("facts") for name in told}
    synced = {name: _synced(bench, name) for name in told} if shutil.which("strace") else {}
    for name, rounds in told.items():
        every = [seconds for turn in rounds for seconds in turn["seconds"]]
        bench.record(
            PHASE,
            name,
            **milliseconds(every),
            fsyncs=synced.get(name),
            facts=facts[name],
            rounds=[milliseconds(turn["seconds"]) for turn in rounds],
            seconds=every,
        )


def _added(bench: Bench, workers: dict[str, Worker]) -> dict[str, list[dict[str, Any]]]:
    share = min(_ADDS, bench.made.extra // (bench.rounds * _TURNS + 1))
    next_row = dict.fromkeys(workers, bench.made.rows)

    def do(name: str, worker: Worker, number: int) -> dict[str, Any]:  # noqa: ARG001
        start = next_row[name]
        answer = worker.ask("add", start=start, stop=start + share, budget=_BUDGET)
        next_row[name] = start + len(answer["seconds"])
        if start == bench.made.rows:  # the first of all opens what opens late
            answer["seconds"] = answer["seconds"][1:] or answer["seconds"]
        return answer

    return bench.turns(
        workers, do, lambda name, why: bench.record(PHASE, name, skipped=why), rounds=bench.rounds * _TURNS
    )


def _synced(bench: Bench, name: str) -> float | None:
    """Calls of fsync and its kind for each of some adds; None if the process cannot be watched."""
    try:
        with bench.copied(name) as folder, bench.worker(name, traced=True) as worker:
            rows = bench.made.rows
            worker.ask("open", folder=str(folder))
            worker.ask("add", start=rows, stop=rows + 1)
            before = worker.synced()
            worker.ask("add", start=rows + 1, stop=rows + 1 + _TRACED)
            return (worker.synced() - before) / _TRACED
    except Skipped:
        return None


def together(bench: Bench) -> None:
    """Fifty concurrent adds, then fifty in a row, again and again in one process.

    Once into a store of which no metadata is indexed, as one is by default, and once with the filters' two paths
    indexed: their values have no order, so that each add writes two more pages that no other add shares.
    """
    if not bench.among("memstore"):
        return
    with ExitStack() as stack:
        workers = {}
        for case in (PLAIN, INDEXED):
            folder = stack.enter_context(bench.copied("memstore"))
            if case == PLAIN:
                _forget_indexed(folder / FILE)
            workers[case] = stack.enter_context(bench.worker("memstore", indexed=case == INDEXED))
            workers[case].ask("open", folder=str(folder))
        turns = bench.rounds * _TURNS_TOGETHER
        count = min(2 * _ADDS, bench.made.extra // (turns + 1))

        def do(name: str, worker: Worker, number: int) -> dict[str, Any]:  # noqa: ARG001
            start = bench.made.rows + (number + 1) * count
            return worker.ask("together", start=start, stop=start + count)

        for worker in workers.values():
            worker.ask("together", start=bench.made.rows, stop=bench.made.rows + count)  # not counted: caches are cold
        told = bench.turns(workers, do, lambda case, why: _skipped(bench, case, why), rounds=turns)
    for case, rounds in told.items():
        bench.record(
            TOGETHER,
            "memstore",
            case,
            adds=count // 2,
            concurrent_ms=median(turn["concurrent"] for turn in rounds) * 1e3,
            alone_ms=median(turn["alone"] for turn in rounds) * 1e3,
            share=median(turn["concurrent"] / turn["alone"] for turn in rounds),
            rounds=rounds,
        )


def _skipped(bench: Bench, case: str, why: str) -> None:
    bench.record(TOGETHER, "memstore", case, skipped=why)


def _forget_indexed(file: Path) -> None:
    """Drop the indexes on metadata of a store that nobody has open: then there are none."""
    with closing(sqlite3.connect(file)) as base:
        names = base.execute("SELECT name FROM sqlite_master WHERE name LIKE 'ix_memory_metadata_%'").fetchall()
        for (name,) in names:
            base.execute(f"DROP INDEX {name}")
        base.commit()

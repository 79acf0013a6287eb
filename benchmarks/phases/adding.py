"""One memory, durable before the call returns; and fifty callers at once."""

import shutil
from statistics import median
from typing import Any

from benchmarks.bench import Bench, milliseconds
from benchmarks.worker import Skipped, Worker

PHASE = "add"
TOGETHER = "concurrent"
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
    """Fifty concurrent adds, then fifty in a row, again and again in one process."""
    with bench.opened(TOGETHER, bench.among("memstore")) as workers:
        turns = bench.rounds * _TURNS_TOGETHER
        count = min(2 * _ADDS, bench.made.extra // (turns + 1))

        def do(name: str, worker: Worker, number: int) -> dict[str, Any]:  # noqa: ARG001
            start = bench.made.rows + (number + 1) * count
            return worker.ask("together", start=start, stop=start + count)

        for worker in workers.values():
            worker.ask("together", start=bench.made.rows, stop=bench.made.rows + count)  # not counted: caches are cold
        told = bench.turns(workers, do, lambda name, why: bench.record(TOGETHER, name, skipped=why), rounds=turns)
    for name, rounds in told.items():
        bench.record(
            TOGETHER,
            name,
            adds=count // 2,
            concurrent_ms=median(turn["concurrent"] for turn in rounds) * 1e3,
            alone_ms=median(turn["alone"] for turn in rounds) * 1e3,
            share=median(turn["concurrent"] / turn["alone"] for turn in rounds),
            rounds=rounds,
        )

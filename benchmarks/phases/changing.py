"""Deletes and upserts, a thousand a transaction, on copies of the filled stores."""

from contextlib import suppress
from statistics import median
from typing import Any

from benchmarks.bench import Bench
from benchmarks.worker import Skipped, Worker

PHASE = "change"
_SYSTEMS = ("memstore", "raw", "chroma", "lancedb", "sqlite-vec", "qdrant", "langgraph")
_BATCH = 1_000
_BUDGET = 10.0


def run(bench: Bench) -> None:
    """In turns: one batch of upserts a turn, then one of deletes a turn; rows of the store's first half.

    The first batch of each verb is not counted: it opens what opens late, and finds every cache cold.
    """
    systems = bench.among(*_SYSTEMS)
    if "raw" in systems:
        bench.template()
    batch = min(_BATCH, bench.made.rows // (4 * bench.rounds + 6))
    if not batch:
        return
    with bench.opened(PHASE, systems) as workers:
        for name, worker in list(workers.items()):
            try:
                worker.ask("search", queries=[0]) if name != "raw" else None  # the index is loaded, and must follow
                worker.ask("look_up")
            except Skipped as why:
                bench.record(PHASE, name, skipped=str(why))
                del workers[name]
        for offset, verb in ((0, "upsert"), (bench.rounds + 1, "delete")):
            _measure(bench, workers, verb, offset, batch)


def _measure(bench: Bench, workers: dict[str, Worker], verb: str, offset: int, batch: int) -> None:
    def do(name: str, worker: Worker, number: int) -> dict[str, Any]:  # noqa: ARG001
        start = (offset + 1 + number) * batch
        return worker.ask("change", verb=verb, start=start, stop=start + batch, batch=batch, budget=_BUDGET)

    for name, worker in list(workers.items()):
        with suppress(Skipped):  # whoever cannot is told so by its first turn
            do(name, worker, -1)
    told = bench.turns(workers, do, lambda name, why: bench.record(PHASE, name, verb, skipped=why))
    for name, rounds in told.items():
        rates = [turn["rows"] / turn["seconds"] for turn in rounds]
        bench.record(PHASE, name, verb, rows_per_second=median(rates), batch=batch, rounds=rounds)

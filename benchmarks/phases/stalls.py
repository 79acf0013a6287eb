"""Event-loop gaps under each load, each in a process of its own on a copy of the filled store."""

from statistics import median
from typing import Any

from benchmarks.bench import Bench
from benchmarks.worker import Skipped

PHASE = "gaps"
LOADS = ("add_many", "load", "searches", "open", "fold", "rebuild", "together")
_ROUNDS = 3
_ENOUGH = 20_000
"""Beats after which a load is not repeated: some last long by themselves."""

UNFROZEN = ", not frozen"


def run(bench: Bench) -> None:
    """Rounds of every load with the benchmark's own objects out of the garbage collector's sight, and one with."""
    for name in bench.among("memstore"):
        for frozen in (True, False):
            for load in LOADS:
                _measure(bench, name, load, frozen=frozen)


def _measure(bench: Bench, name: str, load: str, *, frozen: bool) -> None:
    case = load if frozen else load + UNFROZEN
    rounds: list[dict[str, Any]] = []
    try:
        for _ in range(min(bench.rounds, _ROUNDS) if frozen else 1):
            if sum(told["beats"] for told in rounds) > _ENOUGH:
                break
            bench.round()
            with bench.copied(name) as folder, bench.worker(name) as worker:
                asked = {"load": load, "folder": str(folder), "seconds": bench.seconds, "frozen": frozen}
                rounds.append(worker.ask("gaps", **asked))
    except Skipped as why:
        bench.record(PHASE, name, case, skipped=str(why))
        return
    figures = {key: median(told[key] for told in rounds) for key in ("p50_ms", "p99_ms")}
    bench.record(
        PHASE,
        name,
        case,
        **figures,
        max_ms=max(told["max_ms"] for told in rounds),
        median_max_ms=median(told["max_ms"] for told in rounds),
        idle_p99_ms=median(told["idle"]["p99_ms"] for told in rounds),
        idle_max_ms=max(told["idle"]["max_ms"] for told in rounds),
        beats=sum(told["beats"] for told in rounds),
        rounds=rounds,
    )

"""Bulk add: every memory stored, durable and to be found, in a fresh file and a fresh process each time."""

from statistics import median
from typing import Any

from benchmarks.bench import Bench, Slow
from benchmarks.worker import Skipped

PHASE = "bulk"
SLOW = 8.0
"""Seconds after which a peer's bulk is not repeated: its ratio is far from any bound."""


def run(bench: Bench) -> None:
    """Rounds of memstore (both ways in), the raw baseline and the rest, each beginning with another.

    What the last round of a system left is kept: later phases work on copies of it.
    """
    if "raw" in bench.systems:
        bench.template()
    ways = [(name, "") for name in bench.among("raw", "memstore", "memstore-float16", "faiss")]
    if "memstore" in bench.systems and bench.made.rows <= 200_000:
        ways.append(("memstore", "load"))
    peers = bench.among("usearch", "chroma", "lancedb", "sqlite-vec", "qdrant", "langgraph")
    ways += [(name, "") for name in peers]
    told: dict[tuple[str, str], list[dict[str, Any]]] = {way: [] for way in ways}
    over: set[tuple[str, str]] = set()
    for number in range(bench.rounds):
        bench.round()
        shift = number % len(ways)
        for way in ways[shift:] + ways[:shift]:
            if way in over:
                continue
            try:
                told[way].append(_once(bench, *way))
            except Slow as slow:
                bench.record(
                    PHASE,
                    *way,
                    rows_per_second=slow.rows_per_second,
                    partial=str(slow),
                    facts=_facts(bench, way[0]),
                    rounds=[],
                )
                over.add(way)
            except Skipped as why:
                bench.record(PHASE, way[0], way[1], skipped=str(why))
                over.add(way)
                told[way] = []
            if way[0] in peers and told[way] and told[way][-1]["seconds"] > SLOW:
                over.add(way)
    for (name, case), rounds in told.items():
        if rounds:
            _record(bench, name, case, rounds)


def _once(bench: Bench, name: str, case: str) -> dict[str, Any]:
    with bench.fresh() as folder, bench.worker(name, **({"by": case} if case else {})) as worker:
        facts = worker.ask("facts")
        worker.ask("open", folder=str(folder))
        stored = bench.filled(worker)
        recall = None
        if name != "raw":
            asked = worker.ask("search", queries=list(range(20)), budget=5)
            recall = _recall(bench, asked)
        settled = worker.ask("settle")["seconds"]
        state = worker.ask("state")
        worker.ask("close")
        if not case:
            bench.keep(name, folder)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return {
        "seconds": stored,
        "settle_seconds": settled,
        "recall": recall,
        "bytes": size,
        "facts": facts,
        "state": state,
    }


def _facts(bench: Bench, name: str) -> dict[str, Any]:
    with bench.worker(name) as worker:
        return worker.ask("facts")


def _recall(bench: Bench, asked: dict[str, Any]) -> float:
    shares = [
        bench.judge.recall("", query, found) for query, found in zip(asked["queries"], asked["found"], strict=True)
    ]
    return sum(shares) / len(shares)


def _record(bench: Bench, name: str, case: str, rounds: list[dict[str, Any]]) -> None:
    taken = median(told["seconds"] for told in rounds)
    last = rounds[-1]
    bench.record(
        PHASE,
        name,
        case,
        rows_per_second=bench.made.rows / taken,
        settle_seconds=median(told["settle_seconds"] for told in rounds),
        recall=last["recall"],
        bytes=last["bytes"],
        facts=last["facts"],
        state=last["state"],
        rounds=[{"seconds": told["seconds"], "settle_seconds": told["settle_seconds"]} for told in rounds],
    )

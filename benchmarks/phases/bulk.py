"""Bulk add: every memory stored, durable and to be found, in a fresh file and a fresh process each time."""

from statistics import median
from typing import Any

from benchmarks.bench import Bench, Slow
from benchmarks.worker import Skipped

PHASE = "bulk"
SLOW = 2.0
"""Seconds after which a bulk is not repeated, but for the two that are compared round by round."""

_PAIRED = ("raw", "memstore")
_OTHERS = (
    "memstore-float16", "faiss", "usearch", "chroma", "lancedb", "sqlite-vec", "qdrant", "langgraph",
)  # fmt: skip


def run(bench: Bench) -> None:
    """Rounds of memstore (both ways in), the raw baseline and the rest, each beginning with another.

    What the last bulk of a system left is settled, and kept: later phases work on copies of it.
    """
    if "raw" in bench.systems:
        bench.template()
    ways = [(name, "") for name in bench.among(*_PAIRED)]
    if "memstore" in bench.systems and bench.made.rows <= 200_000:
        ways.append(("memstore", "load"))
    ways += [(name, "") for name in bench.among(*_OTHERS)]
    told: dict[tuple[str, str], list[dict[str, Any]]] = {way: [] for way in ways}
    over: set[tuple[str, str]] = set()
    for number in range(bench.rounds):
        bench.round()
        shift = number % len(ways)
        for way in ways[shift:] + ways[:shift]:
            if way in over:
                continue
            try:
                told[way].append(_once(bench, *way, last=number == bench.rounds - 1))
            except Slow as slow:
                rate, facts = slow.rows_per_second, _facts(bench, way[0])
                bench.record(PHASE, *way, rows_per_second=rate, partial=str(slow), facts=facts, rounds=[])
                over.add(way)
            except Skipped as why:
                bench.record(PHASE, way[0], way[1], skipped=str(why))
                over.add(way)
                told[way] = []
            else:
                if told[way][-1]["last"]:
                    over.add(way)
    for (name, case), rounds in told.items():
        if rounds:
            _record(bench, name, case, rounds)


def _once(bench: Bench, name: str, case: str, *, last: bool) -> dict[str, Any]:
    with bench.fresh() as folder, bench.worker(name, **({"by": case} if case else {})) as worker:
        told: dict[str, Any] = {"facts": worker.ask("facts"), "recall": None}
        worker.ask("open", folder=str(folder))
        told["seconds"] = bench.filled(worker)
        if name != "raw":
            told["recall"] = _recall(bench, worker.ask("search", queries=list(range(20)), budget=5))
        told["last"] = last or (name not in _PAIRED and told["seconds"] > SLOW)
        if told["last"] and not case:
            told["settle_seconds"] = worker.ask("settle")["seconds"]
            told["state"] = worker.ask("state")
        worker.ask("close")
        told["bytes"] = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        if told["last"] and not case:
            bench.keep(name, folder)
    return told


def _facts(bench: Bench, name: str) -> dict[str, Any]:
    with bench.worker(name) as worker:
        return worker.ask("facts")


def _recall(bench: Bench, asked: dict[str, Any]) -> float:
    shares = [
        bench.judge.recall("", query, found) for query, found in zip(asked["queries"], asked["found"], strict=True)
    ]
    return sum(shares) / len(shares)


def _record(bench: Bench, name: str, case: str, rounds: list[dict[str, Any]]) -> None:
    last = rounds[-1]
    bench.record(
        PHASE,
        name,
        case,
        rows_per_second=bench.made.rows / median(told["seconds"] for told in rounds),
        **{key: last[key] for key in ("settle_seconds", "recall", "bytes", "facts", "state") if key in last},
        rounds=[{"seconds": told["seconds"]} for told in rounds],
    )

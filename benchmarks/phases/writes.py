"""Writes: bulk add, one durable add, concurrent adds, upserts and deletes."""

import shutil
from contextlib import suppress
from statistics import median
from typing import Any

from benchmarks.bench import STREAMED_ROWS, Bench, milliseconds
from benchmarks.worker import Skipped, Worker

_PEERS = ("chroma", "lancedb", "sqlite-vec", "qdrant", "langgraph")
_PAIRED = ("memstore", "memstore-no-history", "raw")
_REPEATED_BELOW = 2.0
"""Seconds; a slower bulk of an unpaired system is not repeated."""

_ADDS = 50
_ADD_TURNS = 2
_ADD_BUDGET = 1.5
_TRACED_ADDS = 20
_CONCURRENT_TURNS = 4
_BATCH = 1_000


def bulk(bench: Bench) -> None:
    """Store every row in a new file, by a new process each time: durable and searchable at the end.

    memstore is also measured with `load`. The last store of each system is settled and kept for later phases.
    """
    ways = [(name, "") for name in bench.select(*_PAIRED)]
    if "memstore" in bench.systems and bench.workset.rows <= STREAMED_ROWS:  # above, every bulk of memstore is `load`
        ways.insert(1, ("memstore", "load"))
    ways += [(name, "") for name in bench.select("faiss", "usearch", *_PEERS)]
    results: dict[tuple[str, str], list[dict[str, Any]]] = {way: [] for way in ways}
    active = set(ways)
    for number in range(bench.rounds):
        bench.start_round()
        shift = number % len(ways)
        for way in [way for way in ways[shift:] + ways[:shift] if way in active]:
            try:
                result = _bulk_once(bench, *way, last_round=number == bench.rounds - 1)
            except Skipped as reason:
                bench.record("bulk", *way, skipped=str(reason))
                active.discard(way)
                results[way] = []
                continue
            results[way].append(result)
            if result["last"]:
                active.discard(way)
    for way, rounds in results.items():
        if rounds:
            last = {key: rounds[-1].get(key) for key in ("settle_seconds", "recall", "megabytes", "facts")}
            seconds = [{"seconds": result["seconds"]} for result in rounds]
            rate = bench.workset.rows / median(result["seconds"] for result in rounds)
            bench.record("bulk", *way, rows_per_second=rate, **last, rounds=seconds)


def _bulk_once(bench: Bench, name: str, case: str, *, last_round: bool) -> dict[str, Any]:
    with bench.empty_folder() as folder, bench.worker(name, **({"bulk": case} if case else {})) as worker:
        result: dict[str, Any] = {"facts": worker.call("facts")}
        worker.call("open", folder=str(folder))
        result["seconds"] = bench.fill(worker)
        if name != "raw":
            answer = worker.call("search", queries=list(range(20)), budget=5)
            result["recall"] = bench.truth.mean_recall("", answer["queries"], answer["answers"])
        result["last"] = last_round or (name not in _PAIRED and result["seconds"] > _REPEATED_BELOW)
        keep = result["last"] and not case and name != "memstore-no-history" and not bench.has_store(name)
        if keep:
            result["settle_seconds"] = worker.call("settle")["seconds"]
        elif name == "memstore":  # the memory phase has settled a store of the same rows
            result["settle_seconds"] = next((r["build_seconds"] for r in bench.records if r["phase"] == "memory"), None)
        worker.call("close")
        result["megabytes"] = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
        if keep:
            bench.keep_store(name, folder)
    return result


def add(bench: Bench) -> None:
    """Add single memories to the filled store in turns; then count, in other processes, the flushes to disk."""
    share = min(_ADDS, bench.workset.extra_rows // (bench.rounds * _ADD_TURNS + 1))
    with bench.opened("add", bench.select(*_PAIRED, "faiss", "usearch", *_PEERS)) as workers:
        next_row = dict.fromkeys(workers, bench.workset.rows)

        def turn(name: str, worker: Worker, number: int) -> dict[str, Any]:
            start = next_row[name]
            seconds = worker.call("add", start=start, stop=start + share, budget=_ADD_BUDGET)["seconds"]
            next_row[name] = start + len(seconds)
            return {"seconds": seconds if number else seconds[1:] or seconds}  # the first add of all initialises

        results = bench.take_turns("add", workers, turn, rounds=bench.rounds * _ADD_TURNS)
        facts = {name: workers[name].call("facts") for name in results}
    for name, turns in results.items():
        rounds = [milliseconds(result["seconds"]) for result in turns]
        figures = milliseconds([seconds for result in turns for seconds in result["seconds"]])
        bench.record("add", name, **figures, fsyncs=_sync_calls(bench, name), facts=facts[name], rounds=rounds)


def _sync_calls(bench: Bench, name: str) -> float | None:
    """Flushes to disk per add; None if the process cannot be traced."""
    if not shutil.which("strace"):
        return None
    first = bench.workset.rows
    try:
        with bench.store_copy(name) as folder, bench.worker(name, traced=True) as worker:
            worker.call("open", folder=str(folder))
            worker.call("add", start=first, stop=first + 1)
            before = worker.sync_calls()
            worker.call("add", start=first + 1, stop=first + 1 + _TRACED_ADDS)
            return (worker.sync_calls() - before) / _TRACED_ADDS
    except Skipped:
        return None


def concurrent(bench: Bench) -> None:
    """Fifty concurrent adds, then fifty in a row, repeated in one process.

    The values of the indexed metadata are in random order, so with them each add writes two more pages of its own.
    """
    turns = bench.rounds * _CONCURRENT_TURNS
    count = min(2 * _ADDS, bench.workset.extra_rows // (turns + 1))
    with bench.opened("concurrent", bench.select("memstore", "memstore-no-history", "memstore-indexed")) as workers:

        def turn(name: str, worker: Worker, number: int) -> dict[str, Any]:  # noqa: ARG001
            start = bench.workset.rows + (number + 1) * count
            return worker.call("add_concurrently", start=start, stop=start + count)

        for name, worker in workers.items():
            turn(name, worker, -1)  # fills the caches
        results = bench.take_turns("concurrent", workers, turn, rounds=turns)
    for name, rounds in results.items():
        bench.record(
            "concurrent",
            name,
            adds=count // 2,
            concurrent_ms=median(result["concurrent"] for result in rounds) * 1e3,
            sequential_ms=median(result["sequential"] for result in rounds) * 1e3,
            share=median(result["concurrent"] / result["sequential"] for result in rounds),
        )


def change(bench: Bench) -> None:
    """Upserts, then deletes, one batch a turn, in the first half of the filled store.

    The first batch of each verb is not counted: it initialises, and its caches are cold.
    """
    batch = min(_BATCH, bench.workset.rows // (4 * bench.rounds + 6))
    if not batch:
        return
    with bench.opened("change", bench.select(*_PAIRED, *_PEERS)) as workers:
        for name, worker in list(workers.items()):
            try:
                if name != "raw":
                    worker.call("search", queries=[0])  # loads the index, so that every change updates it
                worker.call("load_ids")
            except Skipped as reason:
                bench.record("change", name, skipped=str(reason))
                del workers[name]
        for verb, first in (("upsert", 0), ("delete", bench.rounds + 1)):
            _change(bench, workers, verb, first, batch)


def _change(bench: Bench, workers: dict[str, Worker], verb: str, first: int, batch: int) -> None:
    def turn(name: str, worker: Worker, number: int) -> dict[str, Any]:  # noqa: ARG001
        start = (first + 1 + number) * batch
        return worker.call("change", verb=verb, start=start, stop=start + batch)

    for name, worker in workers.items():
        with suppress(Skipped):  # its first turn records the reason
            turn(name, worker, -1)
    for name, rounds in bench.take_turns("change", workers, turn, case=verb).items():
        rate = batch / median(result["seconds"] for result in rounds)
        bench.record("change", name, verb, rows_per_second=rate, batch=batch, rounds=rounds)

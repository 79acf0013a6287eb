"""How much memory a process takes, over what it took before it opened the store: loading, building, searching."""

from typing import Any

from benchmarks.bench import Bench, milliseconds
from benchmarks.worker import Skipped, Worker

PHASE = "memory"


def run(bench: Bench) -> None:
    """Fill a new store from a stream, fold, close; open it in another process, search."""
    for name in bench.among("memstore", "memstore-float16"):
        bench.round()
        try:
            with bench.fresh() as folder:
                with bench.worker(name) as worker:
                    built = _built(bench, worker, str(folder))
                with bench.worker(name) as worker:
                    searched = _searched(bench, worker, str(folder))
        except Skipped as why:
            bench.record(PHASE, name, skipped=str(why))
            continue
        bench.record(PHASE, name, **built, **searched)


def _built(bench: Bench, worker: Worker, folder: str) -> dict[str, Any]:
    start = worker.ask("memory", reset=True)["now"]
    worker.ask("open", folder=folder)
    seconds = worker.ask("load", rows=bench.made.rows)["seconds"]
    loading = worker.ask("memory", reset=True)["peak"]
    told: dict[str, Any] = {"start": start, "load_peak": loading, "load_seconds": seconds}
    try:
        told["fold_seconds"] = worker.ask("fold")["seconds"]
        told["fold_peak"] = worker.ask("memory", reset=True)["peak"]
    except Skipped as why:
        told["fold_skipped"] = str(why)
    worker.ask("settle")
    told["settled_peak"] = worker.ask("memory")["peak"]
    state = worker.ask("state")
    worker.ask("close")
    return told | {"index_bytes": state["index_bytes"], "file_bytes": state["file_bytes"], "state": state}


def _searched(bench: Bench, worker: Worker, folder: str) -> dict[str, Any]:
    start = worker.ask("memory", reset=True)["now"]
    first = worker.ask("first", folder=folder, query=0)["seconds"]
    answer = worker.ask("search", queries=list(range(len(bench.made.queries))), budget=30, warm=2)
    peak = worker.ask("memory")["peak"]
    worker.ask("close")
    shares = [bench.judge.recall("", q, found) for q, found in zip(answer["queries"], answer["found"], strict=True)]
    return {
        "reopen_start": start,
        "reopen_peak": peak,
        "reopen_seconds": first,
        "recall": sum(shares) / len(shares),
        **milliseconds(answer["seconds"]),
    }

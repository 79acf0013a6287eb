"""Memory, cold open, and the delays of the event loop."""

from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import event_loop
from benchmarks.bench import Bench, milliseconds
from benchmarks.page_cache import evict
from benchmarks.worker import Skipped, Worker

_GAP_ROUNDS = 2
_ENOUGH_TICKS = 20_000
"""A load with more ticks than this is not repeated."""

NOT_FROZEN = ", not frozen"


def memory(bench: Bench) -> None:
    """Fill a new store from a stream, build the graph and close it; open it in another process and search.

    The store is kept for later phases.
    """
    for name in bench.select("memstore", "memstore-float16"):
        bench.start_round()
        try:
            with bench.empty_folder() as folder:
                with bench.worker(name) as worker:
                    figures = _build(bench, worker, folder)
                bench.keep_store(name, folder)
                with bench.worker(name) as worker:
                    figures |= _search(bench, worker, folder)
                figures["peak_mib"] = max(figures["peak_mib"], figures["reopen_peak_mib"])
        except Skipped as reason:
            bench.record("memory", name, skipped=str(reason))
        else:
            bench.record("memory", name, **figures)


def _mib(worker: Worker, key: str) -> float:
    """Resident memory, `now` or its `peak` since the last call, in MiB."""
    return worker.call("memory", reset=True)[key] / 2**20


def _build(bench: Bench, worker: Worker, folder: Path) -> dict[str, Any]:
    start = _mib(worker, "now")
    worker.call("open", folder=str(folder))
    load_seconds, load_peak = worker.call("load", rows=bench.workset.rows)["seconds"], _mib(worker, "peak")
    build_seconds, build_peak = worker.call("settle")["seconds"], _mib(worker, "peak")
    index_mib = worker.call("state")["result"]["index_bytes"] / 2**20
    worker.call("close")
    return {
        "start_mib": start,
        "load_mib": load_peak - start,
        "build_mib": build_peak - start,
        "index_mib": index_mib,
        "peak_mib": max(load_peak, build_peak),
        "load_seconds": load_seconds,
        "build_seconds": build_seconds,
    }


def _search(bench: Bench, worker: Worker, folder: Path) -> dict[str, Any]:
    start = _mib(worker, "now")
    worker.call("first_hit", folder=str(folder), query=0)
    answer = worker.call("search", queries=bench.truth.queries(""), budget=30, warm=2)
    recall = bench.truth.mean_recall("", answer["queries"], answer["answers"])
    peak = _mib(worker, "peak")
    worker.call("close")
    return {"reopen_mib": peak - start, "reopen_peak_mib": peak, "recall": recall, **milliseconds(answer["seconds"])}


def open_store(bench: Bench) -> None:
    """From a closed file to the first hit, in a new process each time, after its imports.

    All systems with their files in the page cache; memstore and a bare read of its vectors also without.
    """
    peers = ("chroma", "lancedb", "sqlite-vec", "qdrant", "langgraph")
    for name in bench.select("memstore", "memstore-exact", "memstore-float16", "faiss", "usearch", *peers):
        rounds: list[dict[str, Any]] = []
        try:
            with bench.store_copy(name) as folder:
                _first_hit(bench, name, folder)
                for _ in range(bench.rounds):
                    bench.start_round()
                    rounds.append(_first_hit(bench, name, folder))
        except Skipped as reason:
            bench.record("open", name, "cached", skipped=str(reason))
        else:
            _record_open(bench, name, "cached", rounds)
    for name in bench.select("memstore"):
        _open_uncached(bench, name)


def _record_open(bench: Bench, name: str, case: str, rounds: list[dict[str, Any]]) -> None:
    seconds = [result["seconds"] for result in rounds]
    imports = [result["import_seconds"] for result in rounds if "import_seconds" in result]
    figures = {"seconds": median(seconds), "least": min(seconds), "most": max(seconds)}
    bench.record("open", name, case, **figures, import_seconds=median(imports) if imports else None, rounds=rounds)


def _first_hit(bench: Bench, name: str, folder: Path) -> dict[str, Any]:
    with bench.worker(name) as worker:
        answer = worker.call("first_hit", folder=str(folder), query=0)
        worker.call("close")
    recall = bench.truth.recall("", 0, answer["rows"])
    return {"seconds": answer["seconds"], "import_seconds": answer["import_seconds"], "recall": recall}


def _open_uncached(bench: Bench, name: str) -> None:
    """Open and first hit, and a bare read of the same table, in turns, each from a copy outside the page cache."""
    rounds: dict[str, list[dict[str, Any]]] = {"read": [], "read uncached": [], "uncached": []}
    try:
        with bench.store_copy(name) as folder:
            for _ in range(bench.rounds):
                bench.start_round()
                if bench.select("raw"):
                    _read_vectors(bench, folder)
                    rounds["read"].append(_read_vectors(bench, folder))
                    evict(folder)
                    rounds["read uncached"].append(_read_vectors(bench, folder))
                evict(folder)
                rounds["uncached"].append(_first_hit(bench, name, folder))
    except Skipped as reason:
        bench.record("open", name, "uncached", skipped=str(reason))
        return
    for case, results in rounds.items():
        if results:
            _record_open(bench, name, case, results)


def _read_vectors(bench: Bench, folder: Path) -> dict[str, Any]:
    with bench.worker("raw") as worker:
        worker.call("open", folder=str(folder))
        answer = worker.call("read_vectors")
        worker.call("close")
    return answer


def gaps(bench: Bench) -> None:
    """Delays of the event loop under each load, in a new process on a copy of the filled store.

    Some rounds with the benchmark's own objects hidden from the garbage collector, and one round without.
    """
    for name in bench.select("memstore"):
        for frozen in (True, False):
            for load in event_loop.LOADS:
                _measure_gaps(bench, name, load, frozen=frozen)


def _measure_gaps(bench: Bench, name: str, load: str, *, frozen: bool) -> None:
    case = load if frozen else load + NOT_FROZEN
    rounds: list[dict[str, Any]] = []
    try:
        for _ in range(min(bench.rounds, _GAP_ROUNDS) if frozen else 1):
            if sum(result["ticks"] for result in rounds) > _ENOUGH_TICKS:
                break
            bench.start_round()
            arguments = {"load": load, "seconds": bench.seconds, "frozen": frozen}
            with bench.store_copy(name) as folder, bench.worker(name) as worker:
                rounds.append(worker.call("event_loop", folder=str(folder), **arguments))
    except Skipped as reason:
        bench.record("gaps", name, case, skipped=str(reason))
        return
    bench.record(
        "gaps",
        name,
        case,
        **{key: median(result[key] for result in rounds) for key in ("p50_ms", "p99_ms", "idle_p99_ms")},
        **{key: max(result[key] for result in rounds) for key in ("max_ms", "idle_max_ms")},
        ticks=sum(result["ticks"] for result in rounds),
    )

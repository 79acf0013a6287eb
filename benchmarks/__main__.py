"""Run the benchmarks: `python -m benchmarks`."""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import memstore
from benchmarks import peers
from benchmarks.adapters import SYSTEMS
from benchmarks.bench import Bench
from benchmarks.corpus import WorksetSpec, make_workset
from benchmarks.phases import PHASES
from benchmarks.results import FORMAT


def main() -> None:
    """Measure phase by phase. The JSON file is written after each, so an interrupted run keeps its results."""
    options = _options()
    spec = WorksetSpec(
        rows=options.rows,
        queries=options.queries,
        dimension=options.dimension,
        corpus=options.data,
    )
    missing = [name for name in options.systems if SYSTEMS[name].peer and peers.python(SYSTEMS[name].peer) is None]
    for name in missing:
        print(f"{SYSTEMS[name].label} is not installed: python -m benchmarks.peers install {SYSTEMS[name].peer}")
    with _work_folder(options.work) as work:
        folder = work / f"workset-{options.rows}-{'real' if spec.corpus_stem else 'synthetic'}"
        bench = Bench(
            workset=make_workset(spec, folder),
            work=work,
            systems=[name for name in options.systems if name not in missing],
            rounds=options.rounds,
            time_limit=options.time_limit,
            seconds=options.seconds,
        )
        facts = _facts(options, bench.workset.facts)
        print(", ".join(f"{name} {value}" for name, value in facts.items()))
        run: dict[str, Any] = {"facts": facts, "missing": missing, "phases": {}, "records": bench.records}
        for phase in options.phases:
            run["phases"][phase] = _run_phase(bench, phase)
            if options.json:
                text = json.dumps({"format": FORMAT, "runs": [run]}, indent=1, default=str)
                options.json.write_text(text, encoding="utf-8")
    if options.json:
        print(f"written: {options.json}. Report: python -m benchmarks.report {options.json}")


def _run_phase(bench: Bench, phase: str) -> dict[str, Any]:
    print(f"{phase} ({time.strftime('%H:%M:%S')})", flush=True)
    start, first_round = time.perf_counter(), len(bench.calibration)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    PHASES[phase](bench)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "load_before": load, "calibration": bench.calibration[first_round:]}


@contextmanager
def _work_folder(folder: Path | None) -> Iterator[Path]:
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="memstore-benchmarks-") as temporary:
            yield Path(temporary)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    option = parser.add_argument
    option("--rows", type=int, default=20_000, help="memories in every store; the page uses 100000")
    option("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), metavar="SYSTEM", help="what to measure")
    option("--phases", nargs="+", choices=PHASES, default=list(PHASES), metavar="PHASE", help="what to measure of it")
    option("--rounds", type=int, default=5, help="turns of each system; fewer than 3 give no spread")
    option("--queries", type=int, default=500, help="number of different queries")
    option("--seconds", type=float, default=2.0, help="least duration of an event-loop load")
    option("--data", type=Path, help="folder of the real corpus; without it the data is synthetic")
    option("--dimension", type=int, default=384, help="dimension of synthetic vectors")
    option("--work", type=Path, help="folder on a real disk for data and stores, reused by the next run")
    option("--time-limit", type=float, default=300.0, help="seconds for one step of one system")
    option("--json", type=Path, metavar="FILE", help="write all results to FILE, the input of the report")
    return parser.parse_args()


def _facts(options: argparse.Namespace, workset: dict[str, Any]) -> dict[str, Any]:
    memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1) if os.name == "posix" else None
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "rows": workset["rows"],
        "data": workset["data"],
        "dimension": workset["dimension"],
        "rounds": options.rounds,
        "memstore": memstore.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": memory,
        "command": "python -m benchmarks " + " ".join("PATH" if "/" in arg else arg for arg in sys.argv[1:]),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()

"""The one command: `python -m benchmarks`."""

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
from benchmarks.data import Wanted, workset
from benchmarks.phases import PHASES
from benchmarks.worker import ROOT, Skipped

FORMAT = 1


def main() -> None:
    """Measure phase by phase; the JSON file is written after each, so that a run that is cut short is not lost."""
    options = _options()
    wanted = Wanted(
        rows=options.rows,
        queries=options.queries,
        dimension=options.dimension,
        corpus=None if options.synthetic else options.data,
    )
    with _folder(options.work) as work:
        made = workset(wanted, work / f"workset-{options.rows}-{'real' if wanted.real else 'synthetic'}")
        bench = Bench(
            made=made,
            work=work,
            systems=_usable(options.systems),
            rounds=options.rounds,
            patience=options.patience,
            seconds=options.seconds,
        )
        run: dict[str, Any] = {"facts": _facts(options, made.facts), "phases": {}}
        print(", ".join(f"{name} {value}" for name, value in run["facts"].items()))
        for phase in options.phases:
            _measure(bench, phase, run)
            _write(options.json, run, bench)
    if options.json:
        print(f"written: {options.json}; the page: python -m benchmarks.report {options.json}")


def _measure(bench: Bench, phase: str, run: dict[str, Any]) -> None:
    print(f"{phase} ({time.strftime('%H:%M:%S')})", flush=True)
    start = time.perf_counter()
    before = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    first = len(bench.calibration)
    try:
        PHASES[phase](bench)
    except Skipped as why:
        print(f"  {phase}: not measured: {why}")
        run["phases"].setdefault(phase, {})["skipped"] = str(why)
    run["phases"].setdefault(phase, {}).update(
        seconds=time.perf_counter() - start, load_before=before, calibration=bench.calibration[first:]
    )


def _write(path: Path | None, run: dict[str, Any], bench: Bench) -> None:
    if path is None:
        return
    run["skipped"] = {name: "not installed" for name in SYSTEMS if _missing(name)}
    told = {"format": FORMAT, "runs": [run | {"records": bench.records}]}
    path.write_text(json.dumps(told, indent=1, default=_shortened), encoding="utf-8")


def _shortened(value: object) -> object:
    return str(value)


def _missing(name: str) -> bool:
    peer = SYSTEMS[name].peer
    return bool(peer) and peers.python(peer) is None


def _usable(asked: list[str]) -> list[str]:
    for name in asked:
        if _missing(name):
            system = SYSTEMS[name]
            print(f"skipped: {system.label}: not installed; python -m benchmarks.peers install {system.peer}")
    return [name for name in asked if not _missing(name)]


@contextmanager
def _folder(asked: Path | None) -> Iterator[Path]:
    if asked is not None:
        asked.mkdir(parents=True, exist_ok=True)
        yield asked
        return
    with tempfile.TemporaryDirectory(prefix="memstore-benchmarks-") as made:
        yield Path(made)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    say = parser.add_argument
    say("--rows", type=int, default=20_000, help="memories of every store (default 20000; the page has 100000)")
    say("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), help="what to measure (default all installed)")
    say("--phases", nargs="+", choices=PHASES, default=list(PHASES), help="what to measure of it (default all)")
    say("--rounds", type=int, default=5, help="how often each takes its turn; 5 and more to be quoted (default 5)")
    say("--queries", type=int, default=500, help="queries there are (default 500)")
    say("--seconds", type=float, default=3.0, help="least time under each event-loop load (default 3)")
    say("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the real corpus, if there is one")
    say("--synthetic", action="store_true", help="synthetic data even where the real corpus is there")
    say("--dimension", type=int, default=384, help="numbers per vector of synthetic data (default 384)")
    say("--work", type=Path, help="a folder on a real disk for data and stores, kept and used again by the next run")
    say("--patience", type=float, default=300.0, help="seconds one step of one system may take (default 300)")
    say("--json", type=Path, metavar="FILE", help="write everything measured to FILE, from which the page is made")
    return parser.parse_args()


def _facts(options: argparse.Namespace, made: dict[str, Any]) -> dict[str, Any]:
    return {
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "rows": made["rows"],
        "data": made["data"],
        "dimension": made["dimension"],
        "rounds": options.rounds,
        "memstore": memstore.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
        if hasattr(os, "sysconf")
        else None,
        "command": "python -m benchmarks " + " ".join("PATH" if "/" in arg else arg for arg in sys.argv[1:]),
    }


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    if told.is_file():
        names = [
            line.partition(":")[2].strip() for line in told.read_text().splitlines() if line.startswith("model name")
        ]
        if names:
            return names[0]
    return platform.processor()


if __name__ == "__main__":
    main()

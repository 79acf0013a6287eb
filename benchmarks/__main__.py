"""The one command: `python -m benchmarks`."""

import argparse
import asyncio
import gc
import json
import os
import platform
import sqlite3
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import memstore
from benchmarks import bulk, data, gaps, search
from benchmarks.measures import Line

_PARTS = ("bulk", "search", "gaps")


def main() -> None:
    """Measure, print, and write what was measured."""
    options = _options()
    made = data.make(options.rows, options.dimension)
    gc.collect()
    gc.freeze()
    facts = _facts(options)
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(
        "The benchmark's own objects are hidden from the garbage collector (gc.freeze) where it is not said otherwise."
    )
    print()
    lines = asyncio.run(_measured(made, options))
    if options.json is not None:
        options.json.write_text(json.dumps({"facts": facts, "lines": [asdict(line) for line in lines]}, indent=1))


async def _measured(made: data.Data, options: argparse.Namespace) -> list[Line]:
    lines: list[Line] = []
    parts = {
        "bulk": lambda: bulk.run(made, options.pairs, options.folder),
        "search": lambda: search.run(made, options.searches, options.pairs, options.folder),
        "gaps": lambda: gaps.run(made, options.seconds, options.folder),
    }
    for name in options.parts:
        for line in await parts[name]():
            met = {None: "", True: "met", False: "missed"}[line.met]
            print(
                f"{line.measure:16} {line.name:34} {line.reached:16} {line.target:15} {met:7} {line.detail}", flush=True
            )
            lines.append(line)
    return lines


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000, help="memories (default 20000)")
    parser.add_argument("--dimension", type=int, default=384, help="numbers per embedding (default 384)")
    parser.add_argument("--pairs", type=int, default=5, help="rounds, at least 5 to be worth quoting (default 5)")
    parser.add_argument("--searches", type=int, default=500, help="searches of each system (default 500)")
    parser.add_argument("--seconds", type=float, default=3.0, help="least time under each load (default 3)")
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=_PARTS, help="what to measure (default all)")
    parser.add_argument("--folder", type=Path, help="where files are made; a real disk, or durability costs nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to FILE")
    return parser.parse_args()


def _facts(options: argparse.Namespace) -> dict[str, object]:
    libraries = {name: version(name) for name in ("numpy", "faiss-cpu", "sqlalchemy", "aiosqlite")}
    return {
        "rows": options.rows,
        "dimension": options.dimension,
        "pairs": options.pairs,
        "memstore": memstore.__version__,
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        **libraries,
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
    }


if __name__ == "__main__":
    main()

"""Compare the speed of the working tree with another git revision: `python -m benchmarks.compare --before GITREF`.

Measures bulk `add_many`, single `add` and `search` in separate processes that take turns; every second round starts
with the other revision.
Prints the ratio of the speeds, after / before, for each: the median of the rounds, with the least and the greatest.
Exit status 1 if a median is below the limit.
"""

import argparse
import asyncio
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

ROOT = Path(__file__).parents[1]
_BATCH = 5_000
_FIGURES = ("bulk add, rows/s", "single add, 1/p50", "search, 1/p50")


async def _measure(vectors: np.ndarray, adds: int, searches: int) -> list[float]:
    """The three speeds of the memstore on the path. Uses only public names that stay the same between revisions."""
    import memstore  # lazy: only the measuring process imports memstore, from the revision on its PYTHONPATH

    records = [
        {
            "content": f"memory {number} " + "some text of ordinary length " * 4,
            "embedding": vector,
            "tags": {"note", f"tag-{number % 50}"},
            "metadata": {"row": number, "source": "chat"},
        }
        for number, vector in enumerate(vectors)
    ]
    bulk, queries = records[: len(records) - adds], vectors[np.arange(searches) * 7919 % len(vectors)]
    noise = np.random.default_rng(1).standard_normal(queries.shape) / np.sqrt(queries.shape[1])
    queries = (queries + 0.5 * noise).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        async with memstore.open(Path(folder) / "store.db", dimension=vectors.shape[1]) as store:
            await store.memories.add("warm-up", embedding=vectors[0])
            await store.memories.search(queries[0])  # loads the index, so that writes update it
            start = time.perf_counter()
            for first in range(0, len(bulk), _BATCH):
                await store.memories.add_many(bulk[first : first + _BATCH])
            rate = len(bulk) / (time.perf_counter() - start)
            await store.optimize()
            times = [await _seconds(store.memories.add(**record)) for record in records[len(bulk) :]]
            await store.optimize()
            await store.memories.search(queries[0])
            latencies = [await _seconds(store.memories.search(query, limit=10)) for query in queries]
    return [rate, 1 / median(times), 1 / median(latencies)]


async def _seconds(call) -> float:
    start = time.perf_counter()
    await call
    return time.perf_counter() - start


def _vectors(data: Path | None, count: int, dimension: int) -> np.ndarray:
    if data is not None:
        with np.load(data / "real100k.npz" if data.is_dir() else data) as file:
            vectors = file["emb"][:count].astype(np.float32)
        if len(vectors) < count:
            raise SystemExit(f"{data} has {len(vectors):,} vectors, {count:,} are needed. Pass a smaller --rows.")
        return vectors
    random = np.random.default_rng(0)
    centres = random.standard_normal((max(10, count // 200), dimension), dtype=np.float32)
    return centres[random.integers(0, len(centres), count)] + random.standard_normal(
        (count, dimension), dtype=np.float32
    )


def _run(tree: Path, vectors: Path, options: argparse.Namespace) -> list[float]:
    """Measure the memstore of a source tree in a new process."""
    command = [sys.executable, __file__, "--worker", str(vectors)]
    command += ["--adds", str(options.adds), "--searches", str(options.searches)]
    result = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(tree)}, cwd=vectors.parent, check=True, stdout=subprocess.PIPE
    )
    output = json.loads(result.stdout)
    if not Path(output["module"]).is_relative_to(tree):
        raise SystemExit(f"Expected memstore from {tree}, imported {output['module']}. Check the installed packages.")
    return output["speeds"]


def _worker(options: argparse.Namespace) -> None:
    import memstore  # lazy: see `_measure`

    speeds = asyncio.run(_measure(np.load(options.worker), options.adds, options.searches))
    print(json.dumps({"speeds": speeds, "module": memstore.__file__}))


def _compare(options: argparse.Namespace) -> bool:
    """Print the ratios; whether all medians reach the limit."""
    with tempfile.TemporaryDirectory(prefix="memstore-compare-") as folder:
        before = Path(folder).resolve() / "before"
        archive = subprocess.run(
            ["git", "archive", options.before], cwd=ROOT, check=True, stdout=subprocess.PIPE
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(before, filter="data")
        vectors = Path(folder) / "vectors.npy"
        np.save(vectors, _vectors(options.data, options.rows + options.adds, options.dimension))
        rounds = []
        for number in range(options.rounds):
            order = (before, ROOT) if number % 2 == 0 else (ROOT, before)
            speeds = {tree: _run(tree, vectors, options) for tree in order}
            pairs = list(zip(speeds[before], speeds[ROOT], strict=True))
            rounds.append([after / old for old, after in pairs])
            text = "; ".join(
                f"{name} {old:,.0f} -> {after:,.0f}" for name, (old, after) in zip(_FIGURES, pairs, strict=True)
            )
            print(f"round {number + 1}: {text}", flush=True)
    print(f"after / before, median of {options.rounds} rounds; higher is faster; limit {options.limit}")
    passed = True
    for name, ratios in zip(_FIGURES, zip(*rounds, strict=True), strict=True):
        reached = median(ratios) >= options.limit
        passed = passed and reached
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        print(f"{name:20} {median(ratios):.3f} ({spread}){'' if reached else '  below the limit'}")
    return passed


def main() -> None:
    """Compare, or measure in a worker process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--before", metavar="GITREF", help="the revision to compare with")
    parser.add_argument("--rows", type=int, default=20_000, help="memories of the bulk (default 20000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of before and after (default 5)")
    parser.add_argument("--adds", type=int, default=300, help="single adds (default 300)")
    parser.add_argument("--searches", type=int, default=500, help="searches (default 500)")
    parser.add_argument(
        "--data",
        type=Path,
        help="real100k.npz or its folder; without it, random clusters",
    )
    parser.add_argument("--dimension", type=int, default=384, help="dimension of random vectors (default 384)")
    parser.add_argument("--limit", type=float, default=0.97, help="least ratio (default 0.97)")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        _worker(options)
    elif not options.before:
        parser.error("--before is required")
    elif not _compare(options):
        sys.exit(1)


if __name__ == "__main__":
    main()

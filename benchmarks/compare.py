"""Compare the speed of the working tree with another git revision: `python -m benchmarks.compare --before GITREF`.

Measures bulk `add_many`, single `add` and `search` in separate processes that take turns; every second round starts
with the other revision. Prints after / before for each: the median of the rounds, with the least and the greatest.
The exit status is 1 if a median is below the limit.
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


async def _seconds(call) -> float:
    start = time.perf_counter()
    await call
    return time.perf_counter() - start


async def _measure(vectors: np.ndarray, adds: int, searches: int) -> dict:
    """The three speeds of the memstore on PYTHONPATH. Uses only public names that both revisions have."""
    import memstore  # lazy: only the measuring process imports memstore

    records = [
        {"content": f"memory {i} " + "some text of ordinary length " * 4, "embedding": vector,
         "tags": {"note", f"tag-{i % 50}"}, "metadata": {"row": i, "source": "chat"}}
        for i, vector in enumerate(vectors)
    ]  # fmt: skip
    bulk, single = records[:-adds], records[-adds:]
    noise = np.random.default_rng(1).standard_normal((searches, vectors.shape[1])) / np.sqrt(vectors.shape[1])
    queries = (vectors[np.arange(searches) * 7919 % len(vectors)] + 0.5 * noise).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        async with memstore.open(Path(folder) / "store.db", dimension=vectors.shape[1]) as store:
            await store.memories.add("warm-up", embedding=vectors[0])
            await store.memories.search(queries[0])  # loads the index, so that writes update it
            seconds = 0.0
            for first in range(0, len(bulk), _BATCH):
                seconds += await _seconds(store.memories.add_many(bulk[first : first + _BATCH]))
            await store.optimize()
            add_times = [await _seconds(store.memories.add(**record)) for record in single]
            await store.optimize()
            await store.memories.search(queries[0])
            search_times = [await _seconds(store.memories.search(query, limit=10)) for query in queries]
    speeds = [len(bulk) / seconds, 1 / median(add_times), 1 / median(search_times)]
    return {"speeds": speeds, "module": memstore.__file__}


def _vectors(options: argparse.Namespace) -> np.ndarray:
    count = options.rows + options.adds
    if options.data is None:
        random = np.random.default_rng(0)
        centres = random.standard_normal((max(10, count // 200), 384), dtype=np.float32)
        return centres[random.integers(0, len(centres), count)] + random.standard_normal((count, 384), dtype=np.float32)
    with np.load(options.data / "real100k.npz" if options.data.is_dir() else options.data) as file:
        return np.resize(file["emb"].astype(np.float32), (count, file["emb"].shape[1]))  # repeats rows at the end


def _run(tree: Path, vectors: Path, options: argparse.Namespace) -> list[float]:
    """Measure the memstore of a source tree in a new process."""
    command = [sys.executable, __file__, "--worker", vectors, "--adds", options.adds, "--searches", options.searches]
    environment = os.environ | {"PYTHONPATH": str(tree)}
    output = subprocess.check_output([str(word) for word in command], env=environment, cwd=vectors.parent)
    result = json.loads(output)
    if not Path(result["module"]).is_relative_to(tree):
        raise SystemExit(f"Expected memstore from {tree}, imported {result['module']}. Check the installed packages.")
    return result["speeds"]


def _compare(options: argparse.Namespace) -> bool:
    """Print the ratios; whether all medians reach the limit."""
    with tempfile.TemporaryDirectory(prefix="memstore-compare-") as folder:
        before, vectors = Path(folder).resolve() / "before", Path(folder) / "vectors.npy"
        archive = subprocess.check_output(["git", "archive", options.before], cwd=ROOT)
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(before, filter="data")
        np.save(vectors, _vectors(options))
        rounds = []
        for number in range(options.rounds):
            order = (before, ROOT) if number % 2 == 0 else (ROOT, before)
            speeds = {tree: _run(tree, vectors, options) for tree in order}
            pairs = list(zip(_FIGURES, speeds[before], speeds[ROOT], strict=True))
            rounds.append([after / old for _, old, after in pairs])
            print(
                f"round {number + 1}: " + "; ".join(f"{name} {old:,.0f} -> {after:,.0f}" for name, old, after in pairs)
            )
    print(f"after / before, median of {options.rounds} rounds; higher is faster; limit {options.limit}")
    passed = True
    for name, ratios in zip(_FIGURES, zip(*rounds, strict=True), strict=True):
        reached = median(ratios) >= options.limit
        passed = passed and reached
        spread = f"({min(ratios):.3f} to {max(ratios):.3f})"
        print(f"{name:18} {median(ratios):.3f} {spread}{'' if reached else '  below the limit'}")
    return passed


def main() -> None:
    """Compare, or measure in a worker process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--before", metavar="GITREF", default="HEAD", help="the revision to compare with (HEAD)")
    parser.add_argument("--rows", type=int, default=20_000, help="memories of the bulk (20000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of before and after (5)")
    parser.add_argument("--adds", type=int, default=300, help="single adds (300)")
    parser.add_argument("--searches", type=int, default=500, help="searches (500)")
    parser.add_argument("--data", type=Path, help="real100k.npz or its folder; without it, random clusters")
    parser.add_argument("--limit", type=float, default=0.97, help="least ratio (0.97)")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(asyncio.run(_measure(np.load(options.worker), options.adds, options.searches))))
    elif not _compare(options):
        sys.exit(1)


if __name__ == "__main__":
    main()

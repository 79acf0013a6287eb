"""The cost of clustering: `python -m benchmarks.clustering [--rows N] [--data real100k.npz] [--index graph]`.

Loads memories, suggests assemblies, creates them, and finds merge candidates among 10,000 assemblies. Prints for each
step the duration, the processor time, the longest delay of the event loop, and the growth of the peak memory.
"""

import argparse
import asyncio
import resource
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np

import memstore
from benchmarks.event_loop import record_delays
from benchmarks.workset import Vectors

ASSEMBLIES = 10_000


def random_clusters(rows: int, dimension: int) -> Vectors:
    """Clusters of 20 around random centres, with noise of 0.8 times their length."""
    random = np.random.default_rng(5)
    centres = random.standard_normal((-(-rows // 20), dimension)).repeat(20, axis=0)[:rows]
    return (centres + 0.8 * random.standard_normal((rows, dimension))).astype(np.float32)


async def measure(step: str, work: Callable[[], Awaitable[Any]]) -> Any:
    """Run one step, print its figures, and return its result."""
    results: list[Any] = []
    delays: list[float] = []

    async def run() -> None:
        results.append(await work())

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, processor_start = time.perf_counter(), time.process_time()
    await record_delays(run, delays)
    seconds, processor_seconds = time.perf_counter() - start, time.process_time() - processor_start
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1_000
    delay = max(delays) * 1e3
    print(f"{step}: {seconds:.1f} s (processor {processor_seconds:.1f} s), delay {delay:.0f} ms, {growth:.0f} MB")
    return results[0]


async def run(vectors: Vectors, options: argparse.Namespace) -> None:
    """All steps, in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        async with memstore.open(path, dimension=vectors.shape[1], index=options.index) as store:
            assemblies, threshold = store.assemblies, options.threshold
            await store.load({"content": f"text {i}", "embedding": row} for i, row in enumerate(vectors))
            await measure("optimize", store.optimize)
            print(f"{len(vectors):,} x {vectors.shape[1]}, {(await store.stats()).index}")
            suggestions = await measure("suggest", lambda: assemblies.suggest(threshold))
            result = await measure("create_from", lambda: assemblies.create_from(suggestions))
            print(f"  {len(result.assemblies):,} assemblies")
            await assemblies.delete_many(ids=result.assemblies)
            ids = [memory.id async for memory in store.memories.list(limit=3 * ASSEMBLIES)]
            count = len(ids) // 3
            await assemblies.add_many({"id": str(i), "members": ids[3 * i : 3 * i + 3]} for i in range(count))
            await assemblies.search(vectors[0])  # loads the index of assemblies
            step = f"merge_candidates of {count:,}"
            pairs = await measure(step, lambda: assemblies.merge_candidates(threshold, limit=1_000))
            print(f"  {len(pairs):,} pairs")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clustering", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--data", type=Path, help="vectors as the first array of an .npz file")
    parser.add_argument("--index", choices=["auto", "exact", "graph"], default="auto")
    parser.add_argument("--threshold", type=float, default=0.55)
    options = parser.parse_args()
    if options.data is None:
        vectors = random_clusters(options.rows, options.dimension)
    else:
        with np.load(options.data) as file:
            vectors = file[file.files[0]][: options.rows].astype(np.float32)
    asyncio.run(run(vectors, options))


if __name__ == "__main__":
    main()

"""What forming assemblies costs: `python -m benchmarks.groups [--rows N] [--data real100k.npz] [--index graph]`.

Loads so many memories, proposes groups of them, forms them, and asks for pairs of 10,000 assemblies to merge. Says of
each how long it took, how late the event loop came back at the most, and how much memory it took.
"""

import argparse
import asyncio
import resource
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

import memstore

PAIRS_OF = 10_000


def drawn(rows: int, dimension: int) -> npt.NDArray[np.float32]:
    """Clusters of 20 around random centres, with noise of 0.8 times their length."""
    random = np.random.default_rng(5)
    centres = random.standard_normal((-(-rows // 20), dimension)).repeat(20, axis=0)[:rows]
    return (centres + 0.8 * random.standard_normal((rows, dimension))).astype(np.float32)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_000


@asynccontextmanager
async def measured(what: str) -> AsyncIterator[None]:
    """Say how long the block took, the longest gap of the event loop in it, and the growth of the peak of memory."""
    worst = 0.0

    async def tick() -> None:
        nonlocal worst
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(0.001)
            worst = max(worst, time.perf_counter() - begun - 0.001)

    ticking = asyncio.create_task(tick())
    begun, worked, before = time.perf_counter(), time.process_time(), _peak()
    try:
        yield
    finally:
        took, cpu, more = time.perf_counter() - begun, time.process_time() - worked, _peak() - before
        ticking.cancel()
        print(
            f"{what}: {took:.1f} s ({cpu:.1f} s of processors), gap of the loop {worst * 1000:.0f} ms, {more:.0f} MB",
            flush=True,
        )


async def run(vectors: npt.NDArray[np.float32], index: Literal["auto", "exact", "graph"], threshold: float) -> None:
    """All of it, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        async with memstore.open(path, dimension=vectors.shape[1], index=index) as store:
            await store.load({"content": f"text {i}", "embedding": row} for i, row in enumerate(vectors))
            async with measured("optimize"):
                await store.optimize()
            print(f"{len(vectors):,} x {vectors.shape[1]}, {(await store.stats()).index}")
            async with measured("propose"):
                found = await store.assemblies.suggest(threshold)
            sizes = sorted(len(proposal.members) for proposal in found.groups)
            counted = f"{sum(sizes):,} memories in them, {len(found.unassigned):,} left"
            print(f"  {len(sizes):,} groups of {sizes[:1]} to {sizes[-1:]}, {counted}")
            async with measured("form"):
                formed = await store.assemblies.create_from(found)
            print(f"  {len(formed.assemblies):,} formed")
            await store.assemblies.delete_many(ids=formed.assemblies)
            ids = [memory.id async for memory in store.memories.list(limit=3 * PAIRS_OF)]
            await store.assemblies.add_many(
                {"id": str(i), "members": ids[3 * i : 3 * i + 3]} for i in range(len(ids) // 3)
            )
            await store.assemblies.search(vectors[0])
            async with measured(f"merge_candidates of {len(ids) // 3:,}"):
                pairs = await store.assemblies.merge_candidates(threshold, limit=1_000)
            print(f"  {len(pairs):,} pairs")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--data", type=Path, help="vectors as the first array of an .npz")
    parser.add_argument("--index", choices=["auto", "exact", "graph"], default="auto")
    parser.add_argument("--threshold", type=float, default=0.55)
    options = parser.parse_args()
    if options.data is None:
        vectors = drawn(options.rows, options.dimension)
    else:
        with np.load(options.data) as held:
            vectors = held[held.files[0]][: options.rows].astype(np.float32)
    asyncio.run(run(vectors, options.index, options.threshold))


if __name__ == "__main__":
    main()

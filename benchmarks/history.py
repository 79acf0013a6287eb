"""What keeping the past costs: the same writes into stores that keep it and stores that do not, in turn.

python -m benchmarks.history --rounds 7
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

import memstore
from memstore import Store

DIMENSION = 384
Rows = np.ndarray[tuple[int, int], np.dtype[np.float32]]
Work = Callable[[Store, Rows], Awaitable[None]]


def _item(i: int, row: np.ndarray[tuple[int], np.dtype[np.float32]], text: str = "a note") -> dict[str, object]:
    return {
        "id": f"m{i:08}",
        "content": f"{text} of some eighty characters, as most memories of a conversation are, number {i}",
        "embedding": row,
        "tags": {"note", f"t{i % 50}"},
        "metadata": {"source": "bench", "n": i},
    }


async def bulk(store: Store, rows: Rows) -> None:
    """Add them in batches of 5,000."""
    for start in range(0, len(rows), 5_000):
        await store.memories.add_many([_item(i, rows[i]) for i in range(start, min(start + 5_000, len(rows)))])


async def together(store: Store, rows: Rows) -> None:
    """Add them one by one, 50 tasks at once."""

    async def some(first: int) -> None:
        for i in range(first, len(rows), 50):
            await store.memories.add(**_item(i, rows[i]))  # type: ignore[arg-type]

    await asyncio.gather(*map(some, range(50)))


async def alone(store: Store, rows: Rows) -> None:
    """Add them one after the other."""
    for i, row in enumerate(rows):
        await store.memories.add(**_item(i, row))  # type: ignore[arg-type]


async def upsert(store: Store, rows: Rows) -> None:
    """Replace text and vector of each, in batches of 1,000."""
    for start in range(0, len(rows), 1_000):
        await store.memories.upsert_many([_item(i, rows[-1 - i], "news") for i in range(start, start + 1_000)])


async def delete(store: Store, rows: Rows) -> None:
    """Delete all of them at once."""
    await store.memories.delete_many(ids=[f"m{i:08}" for i in range(len(rows))])


WORK: tuple[tuple[str, Work, int, bool], ...] = (
    ("bulk add, 5,000 a call", bulk, 20_000, False),
    ("adds by 50 tasks", together, 5_000, False),
    ("adds one by one", alone, 500, False),
    ("upsert of text and vector, 1,000 a call", upsert, 10_000, True),
    ("delete, all at once", delete, 10_000, True),
)
"""What is measured: a name, the work, of how many memories, and whether they are there before."""


async def seconds(work: Work, rows: Rows, history: Literal["full", "off"], *, filled: bool) -> float:
    """How long *work* takes in a new store."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        async with memstore.open(path, dimension=DIMENSION, history=history, index="exact") as store:
            if filled:
                await bulk(store, rows)
            began = time.perf_counter()
            await work(store, rows)
            return time.perf_counter() - began


async def measure(rounds: int) -> list[tuple[str, float, float, float]]:
    """For each work: microseconds a memory without a past and with one, and the median of the ratios of the rounds."""
    found = []
    for name, work, count, filled in WORK:
        rows = np.random.default_rng(7).standard_normal((count, DIMENSION)).astype(np.float32)
        took: dict[Literal["full", "off"], list[float]] = {"off": [], "full": []}
        for number in range(rounds + 1):
            order: Sequence[Literal["full", "off"]] = ("off", "full") if number % 2 else ("full", "off")
            for history in order:
                one = await seconds(work, rows, history, filled=filled)
                if number:  # the first warms up
                    took[history].append(one / count * 1e6)
        ratio = statistics.median(b / a for a, b in zip(took["off"], took["full"], strict=True))
        found.append((name, statistics.median(took["off"]), statistics.median(took["full"]), ratio))
    return found


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    for name, off, full, ratio in asyncio.run(measure(parser.parse_args().rounds)):
        print(f"| {name} | {off:,.0f} | {full:,.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()

"""How many of the nearest a hyperbolic store finds: `python -m benchmarks.spaces`, its table for `docs/metrics.md`.

Two kinds of data: clusters of unlike sizes taken into the ball by `into_ball`, as embeddings of texts would be, and a
tree whose nodes lie at the distance 2 from their parents, as embeddings that were trained in the ball do. Queries are
held out. The truth is brute force in float64 by the textbook formula.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import memstore
from memstore.vectors.hyperbolic import into_ball

Rows = npt.NDArray[np.float32]
LIMIT = 10
QUERIES = 200


def clusters(count: int, dimension: int, rng: np.random.Generator) -> Rows:
    """Vectors of lengths around 1 about many centres, in the ball."""
    centres = rng.standard_normal((200, dimension))
    weights = rng.dirichlet(np.full(200, 0.5))
    rows = centres[rng.choice(200, count, p=weights)] + 0.7 * rng.standard_normal((count, dimension))
    return into_ball(rows / np.sqrt(1.5 * dimension))


def tree(count: int, dimension: int, rng: np.random.Generator) -> Rows:
    """Nodes of a tree of eight children each, every one 2 away from its parent."""
    rows = np.zeros((count, dimension))
    for start, stop in _generations(count):
        parents = rows[(np.arange(start, stop) - 1) // 8]
        steps = rng.standard_normal(parents.shape)
        steps *= np.tanh(1.0) / np.linalg.norm(steps, axis=1, keepdims=True)
        rows[start:stop] = _moved(parents, steps)
    longest = 1 - 1.1e-5
    return (rows * np.minimum(1, longest / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9))).astype("f4")


def _generations(count: int) -> Iterator[tuple[int, int]]:
    start = 1
    while start < count:
        stop = min(8 * start + 1, count)
        yield start, stop
        start = stop


def _moved(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Möbius addition, row by row: y as seen from x."""
    xy, xx, yy = ((a * b).sum(axis=1, keepdims=True) for a, b in ((x, y), (x, x), (y, y)))
    moved: npt.NDArray[np.float64] = ((1 + 2 * xy + yy) * x + (1 - xx) * y) / (1 + 2 * xy + xx * yy)
    return moved


def nearest(query: Rows, rows: Rows) -> npt.NDArray[np.float64]:
    """The hyperbolic distances of the ten nearest, ascending."""
    wide, asked = rows.astype(np.float64), query.astype(np.float64)
    apart = ((wide - asked) ** 2).sum(axis=1) / ((1 - asked @ asked) * (1 - (wide**2).sum(axis=1)))
    distances: npt.NDArray[np.float64] = np.arccosh(1 + 2 * np.sort(apart)[:LIMIT])
    return distances


async def measured(folder: Path, rows: Rows, queries: Rows, truth: list[Any], index: Any) -> str:
    """One line of the table: recall, and milliseconds of processor time a search."""
    options = {"dimension": rows.shape[1], "metric": "hyperbolic", "durability": "relaxed"}
    async with memstore.open(
        folder / f"{index}.db", **options, index=memstore.IndexOptions(kind=index, engine="faiss")
    ) as store:
        await store.load({"content": "", "embedding": row} for row in rows)
        if index == "graph":
            await store.optimize()
        await store.memories.search(queries[0], LIMIT)
        found, methods, started = 0, set(), time.process_time()
        answers = [await store.memories.search(query, LIMIT) for query in queries]
        each = (time.process_time() - started) / len(queries)
        for hits, best in zip(answers, truth, strict=True):
            methods.add(hits.plan.method)
            found += sum(1 / hit.score - 1 <= best[-1] * (1 + 1e-9) + 1e-12 for hit in hits)
        stats = await store.stats()
        said = "" if stats.recall is None else f"{stats.recall:.4f} at ef {stats.ef_search}"
        recall = found / (LIMIT * len(queries))
        return f"{index} ({', '.join(sorted(methods))}) | {recall:.4f} | {said} | {1e3 * each:.2f}"


async def main(count: int, dimension: int) -> None:
    """Print the table."""
    print("| data | vectors | index | recall@10 | as `stats` says | processor ms a search |")
    print("|---|---|---|---|---|---|")
    for name, make, width in (("clusters", clusters, dimension), ("tree", tree, 16)):
        rng = np.random.default_rng(3)
        both = make(count + QUERIES, width, rng)
        chosen = rng.choice(len(both), QUERIES, replace=False)
        queries, rows = both[chosen], np.delete(both, chosen, axis=0)
        truth = [nearest(query, rows) for query in queries]
        for index in ("exact", "graph"):
            with tempfile.TemporaryDirectory(prefix="memstore-spaces-") as folder:
                line = await measured(Path(folder), rows, queries, truth, index)
            print(f"| {name}, dimension {width} | {len(rows):,} | {line} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000, help="vectors of each kind")
    parser.add_argument("--dimension", type=int, default=384, help="of the clusters")
    given = parser.parse_args()
    asyncio.run(main(given.count, given.dimension))

"""Recall of searches in hyperbolic space: `python -m benchmarks.spaces` prints the table of `docs/metrics.md`.

Two kinds of data: clusters of different sizes mapped into the ball by `into_ball`, like embeddings of texts, and a tree
whose nodes have the distance 2 to their parents, like embeddings trained in the ball. Queries are held out. The ground
truth is brute force in float64 with the textbook formula.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import memstore
from benchmarks.workset import Vectors
from memstore.vectors import into_ball

LIMIT = 10
QUERIES = 200


def clusters(count: int, dimension: int, random: np.random.Generator) -> Vectors:
    """Vectors of length about 1 around many centres, mapped into the ball."""
    centres = random.standard_normal((200, dimension))
    weights = random.dirichlet(np.full(200, 0.5))
    rows = centres[random.choice(200, count, p=weights)] + 0.7 * random.standard_normal((count, dimension))
    return into_ball(rows / np.sqrt(1.5 * dimension))


def tree(count: int, dimension: int, random: np.random.Generator) -> Vectors:
    """Nodes of a tree with eight children each, every node at distance 2 from its parent."""
    rows = np.zeros((count, dimension))
    start = 1
    while start < count:
        stop = min(8 * start + 1, count)  # one generation
        parents = rows[(np.arange(start, stop) - 1) // 8]
        steps = random.standard_normal(parents.shape)
        steps *= np.tanh(1.0) / np.linalg.norm(steps, axis=1, keepdims=True)
        rows[start:stop] = _mobius_addition(parents, steps)
        start = stop
    largest = 1 - 1.1e-5
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows * np.minimum(1, largest / np.maximum(norms, 1e-9))).astype(np.float32)


def _mobius_addition(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Möbius addition in the unit ball, row by row."""
    xy, xx, yy = ((a * b).sum(axis=1, keepdims=True) for a, b in ((x, y), (x, x), (y, y)))
    total: npt.NDArray[np.float64] = ((1 + 2 * xy + yy) * x + (1 - xx) * y) / (1 + 2 * xy + xx * yy)
    return total


def _nearest_distances(query: Vectors, rows: Vectors) -> npt.NDArray[np.float64]:
    """The hyperbolic distances of the ten nearest rows, ascending."""
    x, y = rows.astype(np.float64), query.astype(np.float64)
    ratios = ((x - y) ** 2).sum(axis=1) / ((1 - y @ y) * (1 - (x**2).sum(axis=1)))
    distances: npt.NDArray[np.float64] = np.arccosh(1 + 2 * np.sort(ratios)[:LIMIT])
    return distances


async def measure(folder: Path, rows: Vectors, queries: Vectors, truth: list[Any], index: str) -> str:
    """One line of the table: recall, and milliseconds of processor time per search."""
    options = {"dimension": rows.shape[1], "metric": "hyperbolic", "durability": "relaxed"}
    options["index"] = memstore.IndexOptions(kind=index, engine="faiss")
    async with memstore.open(folder / f"{index}.db", **options) as store:
        await store.load({"content": "", "embedding": row} for row in rows)
        if index == "graph":
            await store.optimize()
        await store.memories.search(queries[0], LIMIT)
        start = time.process_time()
        answers = [await store.memories.search(query, LIMIT) for query in queries]
        milliseconds = 1e3 * (time.process_time() - start) / len(queries)
        matches = 0
        for hits, distances in zip(answers, truth, strict=True):
            matches += sum(1 / hit.score - 1 <= distances[-1] * (1 + 1e-9) + 1e-12 for hit in hits)
        stats = await store.stats()
        estimate = "" if stats.recall is None else f"{stats.recall:.4f} at ef {stats.ef_search}"
        methods = ", ".join(sorted({hits.plan.method for hits in answers}))
        return f"{index} ({methods}) | {matches / (LIMIT * len(queries)):.4f} | {estimate} | {milliseconds:.2f}"


async def main(count: int, dimension: int) -> None:
    """Print the table."""
    print("| data | vectors | index | recall@10 | according to `stats` | processor ms per search |")
    print("|---|---|---|---|---|---|")
    for name, generate, width in (("clusters", clusters, dimension), ("tree", tree, 16)):
        random = np.random.default_rng(3)
        vectors = generate(count + QUERIES, width, random)
        query_rows = random.choice(len(vectors), QUERIES, replace=False)
        queries, rows = vectors[query_rows], np.delete(vectors, query_rows, axis=0)
        truth = [_nearest_distances(query, rows) for query in queries]
        for index in ("exact", "graph"):
            with tempfile.TemporaryDirectory(prefix="memstore-spaces-") as folder:
                line = await measure(Path(folder), rows, queries, truth, index)
            print(f"| {name}, dimension {width} | {len(rows):,} | {line} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000, help="vectors of each kind")
    parser.add_argument("--dimension", type=int, default=384, help="dimension of the clusters")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.count, arguments.dimension))

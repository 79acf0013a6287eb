"""Clustered vectors, settings that make small stores build graphs, and the oracle of a search: NumPy in float64."""

import asyncio
import sqlite3
from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import memstore
from memstore import AssemblyHit, Hit, Hits, Store
from memstore.index import engine_selector, planner
from memstore.repository.sqlite_only import change_log
from tests.support.index_options import with_index
from tests.support.spaces import angles, ball_distances, placed

DIMENSION = 24

Rows = npt.NDArray[np.float32]


def clustered(
    rng: np.random.Generator, count: int, dimension: int = DIMENSION, *, clusters: int = 60, spread: float = 0.35
) -> tuple[Rows, npt.NDArray[np.int64]]:
    """Vectors around a few centres, and the number of the centre of each."""
    centres = rng.standard_normal((clusters, dimension))
    labels = rng.integers(0, clusters, count)
    rows = centres[labels] + spread * rng.standard_normal((count, dimension))
    return rows.astype(np.float32), labels


def small_graphs(patch: pytest.MonkeyPatch, **others: float) -> None:
    """Lower constants of the planner: graphs are built from 200 vectors on. *others* replace more of them."""
    lowered = {
        "MIN_GRAPH_NUMBERS": 1,
        "MIN_GRAPH_VECTORS": 200,
        "CANDIDATE_COST": 0.1,
        "MERGE_MIN": 100,
        "REBUILD_MIN_DELETED": 100,
    } | others
    for name, value in lowered.items():
        patch.setattr(planner, name, value)
    patch.setattr(engine_selector, "FAISS_FROM", 100)
    patch.setattr(change_log, "KEEP", 50)


def opened(path: Path, **options: Any) -> Any:
    """Open a store of dimension `DIMENSION`; *options* are those of `memstore.open`, and the flat ones of the index."""
    return memstore.open(
        path, **with_index({"dimension": DIMENSION, "durability": "relaxed", "timeout": 10, **options})
    )


def items(rows: Rows, first: int = 0, **fields: Any) -> list[dict[str, Any]]:
    """Memories with the embeddings *rows*; their ids are numbers from *first* on."""
    return [{"id": str(first + i), "content": "", "embedding": row, **fields} for i, row in enumerate(rows)]


async def put(store: Store, rows: Rows, first: int = 0) -> None:
    await store.memories.add_many(items(rows, first))


def by_hand(store: Store) -> Store:
    """Let only `optimize` maintain the graph of *store*; return the store."""
    store._maintainer._retry_at = float("inf")
    return store


async def wait_until_idle(store: Store, *, seconds: float = 60) -> None:
    """Wait until the graph maintenance has nothing to do."""
    await store.memories.search(placed(store.metric, np.ones(store.dimension)))
    maintainer, deadline = store._maintainer, monotonic() + seconds
    while True:
        await asyncio.sleep(0.005)
        waiting = [kind for kind in store._follower.indexes.spaces if maintainer._next_task(kind, thorough=False)]
        if not maintainer._is_running() and (not waiting or maintainer._retry_at > monotonic()):
            return
        assert monotonic() < deadline, f"maintenance has not ended: {waiting}"


async def attached(store: Store) -> None:
    """Wait until the graph of the stored snapshot is loaded or rejected."""
    await wait_until_idle(store)
    assert not store._follower.indexes.pending_snapshots


def closeness(metric: str, queries: Rows, rows: Rows) -> npt.NDArray[np.float64]:
    """The documented score of each row for each query: shape (queries, rows), float64."""
    vectors, wide_queries = rows.astype(np.float64), queries.astype(np.float64)
    if metric == "spherical":
        return np.array([1 - angles(query, vectors) / np.pi for query in wide_queries])
    if metric == "hyperbolic":
        return np.array([1 / (1 + ball_distances(query, vectors)) for query in wide_queries])
    if metric == "l2":
        return 1 / (1 + np.sqrt(np.maximum(((vectors[None] - wide_queries[:, None]) ** 2).sum(axis=2), 0)))
    if metric == "cosine":
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        wide_queries /= np.linalg.norm(wide_queries, axis=1, keepdims=True)
    return wide_queries @ vectors.T


def check_hits(
    answers: Collection[Hits[Hit] | Hits[AssemblyHit]],
    queries: Rows,
    ids: Sequence[str],
    rows: Rows,
    *,
    metric: str = "cosine",
    limit: int = 10,
    recall: float = 0.99,
    atol: float = 2e-7,
) -> set[str]:
    """Compare the hits for each query with *rows*, the allowed vectors, which have these *ids*.

    All hits are allowed, distinct, in order, and scored as documented; as many as possible; and *recall* of the nearest
    are among them. Returns the methods that were used.
    """
    positions_by_id = {id: position for position, id in enumerate(ids)}
    count = min(limit, len(rows))
    right = 0
    for hits, scores in zip(answers, closeness(metric, queries, rows), strict=True):
        records = [hit.memory if isinstance(hit, Hit) else hit.assembly for hit in hits]
        positions = [positions_by_id[record.id] for record in records]
        assert len(set(positions)) == len(hits) == count
        hit_scores = np.array([hit.score for hit in hits])
        np.testing.assert_allclose(hit_scores, scores[positions], rtol=2e-6, atol=atol)
        assert (np.diff(hit_scores) <= 0).all()
        assert hits.plan.allowed == len(rows)
        right += int((scores[positions] >= np.partition(scores, -count)[-count] - 1e-6).sum()) if count else 0
    assert right >= recall * count * len(answers), f"{right} of {count * len(answers)}"
    return {hits.plan.method for hits in answers}


def sql(path: Path, *statements: str, checked: bool = True, foreign_keys: bool = True, **values: Any) -> list[Any]:
    """Execute *statements* as another tool would; return the rows of the last one."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA ignore_check_constraints = {not checked:d}")
        connection.execute(f"PRAGMA foreign_keys = {foreign_keys:d}")
        connection.execute("BEGIN IMMEDIATE")
        rows: list[Any] = []
        for statement in statements:
            rows = connection.execute(statement, {k: v for k, v in values.items() if f":{k}" in statement}).fetchall()
        connection.execute("COMMIT")
    return rows

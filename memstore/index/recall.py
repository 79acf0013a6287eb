"""Calibration: the recall of a graph, measured on synthetic queries.

Stored vectors would be too easy as queries: each is its own nearest neighbour, and linked to the next one. So a query
is a stored vector moved in a random direction, by three quarters of the distance to another stored vector. On a corpus
with 2,000 held-out queries, recall of synthetic and held-out queries was 0.993 and 0.989 at ef 64, 0.995 and 0.992 at
80, 0.996 and 0.995 at 96; of the stored vectors themselves 0.996, 0.997 and 0.998.

Searches use the smallest `ef_search` that reaches the target recall, and `Store.stats` reports the recall.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from memstore.index import planner
from memstore.index.exact import nearest_positions
from memstore.index.hnsw import Graph
from memstore.index.protocol import Engine, StoredRows, VectorStorage
from memstore.vectors.arrays import Doubles, Keys, Rows, row_norms
from memstore.vectors.hyperbolic import geodesic_step
from memstore.vectors.metrics import distances, index_form, scores, valid_rows
from memstore.vectors.space import Ball, Measure

SAMPLE_SIZE = 300
LIMIT = 10
_BATCH = 50  # queries compared exactly at a time
_STEP_SHARE = 0.75  # distance of a query from its stored vector, as a share of the distance to another one
_TIE = 1e-6  # relative difference up to which a score counts as equal to the worst true one
_GROWTH = 1.2  # a graph that has grown by this factor is calibrated again


class Calibration(NamedTuple):
    """How a graph is searched.

    Attributes:
        ef_search: candidates that a search for ten keeps.
        recall: share of the ten true neighbours that it finds; None if it was not measured.
        nodes: size of the graph on which it was measured; 0 if unknown, which lets the next graph be measured.
    """

    ef_search: int
    recall: float | None
    nodes: int


def calibrate(
    graph: Graph, metric: Measure, engine: Engine, storage: VectorStorage, previous: Calibration | None
) -> Calibration:
    """Choose `ef_search` for *graph* over *storage*. The *previous* one is kept if the graph has grown little."""
    if previous is not None and previous.recall is not None and graph.nodes < _GROWTH * previous.nodes:
        return previous
    rows = storage.rows[: graph.nodes]
    limit = min(LIMIT, graph.nodes)
    if isinstance(metric, Ball):
        queries = _ball_queries(metric, engine, storage, graph.nodes, limit)
    else:
        queries = _queries(metric, rows)
    worst_scores = [
        scores(metric, query, rows[positions]).min()
        for query, positions in _true_neighbors(metric, engine, storage, queries, graph.nodes, limit)
    ]
    ef_search, recall = 0, 0.0
    fixed = graph.options.ef_search
    for ef_search in planner.EF_SEARCH_STEPS if fixed is None else (fixed,):
        nearest = graph.search(queries, graph_limit(graph, metric, limit, ef_search), ef_search)
        hits = [
            min(limit, _count_hits(scores(metric, query, rows[positions[positions >= 0]]), worst))
            for query, positions, worst in zip(queries, nearest, worst_scores, strict=True)
        ]
        recall = float(sum(hits) / max(1, limit * len(queries)))
        if recall >= planner.TARGET_RECALL:
            break
    return Calibration(ef_search, recall, graph.nodes)


def graph_limit(graph: Graph, metric: Measure, limit: int, ef_search: int) -> int:
    """How many of the graph's candidates to score, so that the *limit* nearest are among them.

    A graph in the ball ranks by Euclidean distance. Around a vector that is the hyperbolic distance up to a factor
    that varies little, so the order of neighbours differs: all candidates assumed complete are scored.
    """
    if not isinstance(metric, Ball):
        return limit
    return max(limit, min(graph.nodes, planner.complete_prefix(ef_search)))


def _true_neighbors(
    metric: Measure, engine: Engine, storage: VectorStorage, queries: Rows, nodes: int, limit: int
) -> Iterator[tuple[Rows, Keys]]:
    """Each of *queries* with the positions of its true nearest among the first *nodes*."""
    for i in range(0, len(queries), _BATCH):
        batch = queries[i : i + _BATCH]
        nearest = nearest_positions(engine, metric, batch, limit, storage, range(nodes), None)
        yield from zip(batch, nearest, strict=True)


def _count_hits(values: Doubles, worst: float) -> int:
    return int(np.count_nonzero(values >= worst - _TIE * abs(worst)))


def _queries(metric: Measure, rows: StoredRows) -> Rows:
    rng = np.random.default_rng(len(rows))
    starts, others = (
        rows[np.sort(rng.choice(len(rows), min(SAMPLE_SIZE, len(rows)), replace=False))] for _ in range(2)
    )
    points = starts.astype(np.float64)
    steps = rng.standard_normal(points.shape)
    reach = row_norms(points - others[rng.permutation(len(others))])
    steps *= _STEP_SHARE * (reach / row_norms(steps))[:, None]
    with np.errstate(over="ignore"):
        queries = (points + steps).astype(np.float32)
    return np.ascontiguousarray(index_form(metric, queries[valid_rows(metric, queries)]))


def _ball_queries(ball: Ball, engine: Engine, storage: VectorStorage, nodes: int, limit: int) -> Rows:
    """Stored vectors moved by three quarters of the distance to their tenth neighbour.

    The distance to any other vector would be too far from all of them, because volume grows exponentially.
    """
    rng = np.random.default_rng(nodes)
    rows = storage.rows[:nodes]
    starts = np.ascontiguousarray(rows[np.sort(rng.choice(nodes, min(SAMPLE_SIZE, nodes), replace=False))])
    neighbors = _true_neighbors(ball, engine, storage, starts, nodes, limit)
    reach = [distances(ball, row, rows[positions]).max() for row, positions in neighbors]
    return geodesic_step(ball, starts, rng.standard_normal(starts.shape), _STEP_SHARE * np.array(reach))

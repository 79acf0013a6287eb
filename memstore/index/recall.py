"""How much a graph finds: measured, not assumed.

The vectors themselves would be too easy to ask for: each is its own nearest, and linked to the next. So queries are
made up: from a stored vector in a random direction, three quarters as far as to another stored vector. On a corpus
with 2,000 held-out queries these found as many of their ten nearest as the held-out ones (0.993 and 0.989 at ef 64,
0.995 and 0.992 at 80, 0.996 and 0.995 at 96; the stored vectors themselves 0.996, 0.997 and 0.998).

The least effort that finds enough is the one searches use, and its recall is what the store says of itself.
"""

from collections.abc import Iterator

import numpy as np

from memstore.index import planner
from memstore.index.exact import nearest_of
from memstore.index.hnsw import Graph
from memstore.index.hybrid import HybridIndex
from memstore.index.protocol import Engine, Held, Keys, Storage
from memstore.vectors.arrays import Rows, Wide, lengths
from memstore.vectors.hyperbolic import moved
from memstore.vectors.metrics import distances, index_form, scores, usable
from memstore.vectors.space import Ball, Measure

SAMPLE = 300
LIMIT = 10
_BATCH = 50  # queries at a time
_AWAY = 0.75  # how far from a stored vector a query lies, as a share of the way to another
_ROUNDING = 1e-6  # a score so close to the worst of the true ones, as a share of it, is as good
_AGAIN = 1.2  # a graph that has grown by this factor is measured again


def measured(graph: Graph, index: HybridIndex, engine: Engine, storage: Storage) -> None:
    """Settle the effort of *graph*, over *storage* of *index*; one that has grown little keeps what was measured."""
    before = index.graph
    if before is not None and before.recall is not None and graph.nodes < _AGAIN * index.measured_nodes:
        graph.effort, graph.recall = before.effort, before.recall
        return
    rows = storage.rows[: graph.nodes]
    limit = min(LIMIT, graph.nodes)
    if isinstance(index.metric, Ball):
        queries = _made_up_in_ball(index.metric, engine, storage, graph.nodes, limit)
    else:
        queries = _made_up(index.metric, rows)
    truth = [
        scores(index.metric, query, rows[places]).min()
        for query, places in _neighbours(index.metric, engine, storage, queries, graph.nodes, limit)
    ]
    asked = graph.options.ef_search
    for effort in planner.LADDER if asked is None else (asked,):
        graph.effort = effort
        found = graph.search(queries, index.asked(limit, effort), effort)
        near = [
            min(limit, _good(scores(index.metric, query, rows[places[places >= 0]]), worst))
            for query, places, worst in zip(queries, found, truth, strict=True)
        ]
        graph.recall = float(sum(near) / max(1, limit * len(queries)))
        if graph.recall >= planner.ENOUGH:
            break
    index.measured_nodes = graph.nodes


def _neighbours(
    metric: Measure, engine: Engine, storage: Storage, queries: Rows, nodes: int, limit: int
) -> Iterator[tuple[Rows, Keys]]:
    """Each of *queries* with the places of its true nearest among the first *nodes*."""
    for i in range(0, len(queries), _BATCH):
        some = queries[i : i + _BATCH]
        yield from zip(some, nearest_of(engine, metric, some, limit, storage, range(nodes), None), strict=True)


def _good(values: Wide, worst: float) -> int:
    return int(np.count_nonzero(values >= worst - _ROUNDING * abs(worst)))


def _made_up(metric: Measure, rows: Held) -> Rows:
    random = np.random.default_rng(len(rows))
    here, there = (rows[np.sort(random.choice(len(rows), min(SAMPLE, len(rows)), replace=False))] for _ in range(2))
    wide = here.astype(np.float64)
    away = random.standard_normal(wide.shape)
    away *= _AWAY * (lengths(wide - there[random.permutation(len(there))]) / lengths(away))[:, None]
    with np.errstate(over="ignore"):
        made = (wide + away).astype(np.float32)
    return np.ascontiguousarray(index_form(metric, made[usable(metric, made)]))


def _made_up_in_ball(ball: Ball, engine: Engine, storage: Storage, nodes: int, limit: int) -> Rows:
    """Stored vectors moved three quarters as far as their tenth nearest lies.

    As far as to any other vector would be far from all of them: there is so much more room towards the edge.
    """
    random = np.random.default_rng(nodes)
    rows = storage.rows[:nodes]
    here = np.ascontiguousarray(rows[np.sort(random.choice(nodes, min(SAMPLE, nodes), replace=False))])
    near = _neighbours(ball, engine, storage, here, nodes, limit)
    away = [distances(ball, row, rows[places]).max() for row, places in near]
    return moved(ball, here, random.standard_normal(here.shape), _AWAY * np.array(away))

"""How much a graph finds: measured, not assumed.

A sample of the vectors themselves is searched for, by the graph and exactly. The least effort that finds enough is
the one searches use, and the recall it reached is what the store says of itself.
"""

import numpy as np

from memstore.index import planner
from memstore.index.graph import Graph
from memstore.index.graphed import GraphedIndex
from memstore.index.protocol import Engine, Held, Keys

SAMPLE = 200
LIMIT = 10
_BATCH = 10  # queries at a time
_AGAIN = 1.2  # a graph that has grown by this factor is measured again


def measured(graph: Graph, index: GraphedIndex, engine: Engine, rows: Held) -> None:
    """Settle the effort of *graph*, over *rows* of *index*; one that has grown little keeps what was measured."""
    before = index.graph
    if before is not None and before.recall is not None and graph.nodes < _AGAIN * index.measured_nodes:
        graph.effort, graph.recall = before.effort, before.recall
        return
    count = min(SAMPLE, graph.nodes)
    places = np.random.default_rng(graph.nodes).choice(graph.nodes, count, replace=False)
    queries = np.ascontiguousarray(rows[np.sort(places)], dtype=np.float32)
    limit = min(LIMIT + 1, graph.nodes)
    truth = np.concatenate(
        [
            engine.nearest(index.metric, queries[i : i + _BATCH], rows[: graph.nodes], limit, None)
            for i in range(0, count, _BATCH)
        ]
    )
    asked = graph.options.ef_search
    for effort in planner.LADDER if asked is None else (asked,):
        graph.effort = effort
        graph.recall = _recall(graph.search(queries, limit, effort), truth)
        if graph.recall >= planner.ENOUGH:
            break
    index.measured_nodes = graph.nodes


def _recall(found: Keys, truth: Keys) -> float:
    shared = sum(len(np.intersect1d(a, b)) for a, b in zip(found, truth, strict=True))
    return shared / truth.size

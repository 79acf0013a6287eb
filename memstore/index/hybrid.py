"""An exact index that may have a graph over its older entries.

The pinned positions of the table keep their vectors; the graph covers the first `nodes` of them. All other entries are
unindexed: every search compares them exactly. So a new vector is found at once. A graph is built and extended outside
the index, which is locked only while the graph is replaced.
"""

import numpy as np

from memstore.config import IndexKind
from memstore.index import planner
from memstore.index.exact import ExactIndex
from memstore.index.hnsw import Graph
from memstore.index.protocol import (
    Engine,
    IndexEntries,
    Mask,
    SearchMethod,
    SearchResult,
    SearchScope,
    VectorStorage,
)
from memstore.index.recall import Calibration, graph_limit
from memstore.index.vector_table import Allocator
from memstore.vectors.arrays import Keys, Rows
from memstore.vectors.space import Measure

_TOO_FEW_CANDIDATES = SearchMethod("exact", "the graph found too few")


class HybridIndex(ExactIndex):
    """An index that searches its graph where that is faster and complete, and compares exactly elsewhere.

    Attributes:
        kind: whether it is to have a graph, see `memstore.IndexOptions`.
        graph: the graph; None for none.
        calibration: candidates that searches of the graph keep, and its recall; None without a graph.
        graph_unsuitable: why the vectors are unsuitable for a graph; None if they are not known to be.
        min_graph_size: number of entries under which no graph is tried, because a smaller one was unsuitable.
    """

    def __init__(
        self,
        dimension: int,
        metric: Measure,
        *,
        kind: IndexKind = "auto",
        capacity: int = 0,
        allocate: Allocator | None = None,
    ) -> None:
        super().__init__(dimension, metric, capacity=capacity, allocate=allocate)
        self.kind: IndexKind = kind
        self.graph: Graph | None = None
        self.calibration: Calibration | None = None
        self.graph_unsuitable: str | None = None
        self.min_graph_size = 0

    @property
    def bytes(self) -> int:
        """Memory of its arrays and its graph."""
        return super().bytes + (0 if self.graph is None else self.graph.bytes)

    @property
    def nodes(self) -> int:
        """Number of positions that the graph covers."""
        return 0 if self.graph is None else self.graph.nodes

    @property
    def unindexed(self) -> int:
        """Number of entries that the graph does not cover."""
        return self.table.size - self.nodes

    def load(self, entries: IndexEntries) -> None:
        """Put entries with new keys into an index that is being loaded, see `VectorTable.begin_load`."""
        self.table.load(entries)
        self.track_magnitudes(entries.rows)

    def put(self, entries: IndexEntries) -> None:
        """See `ExactIndex.put`."""
        super().put(entries)
        if self.graph is not None:
            self.graph.use_storage(self.table.storage)

    def reserve(self, count: int) -> None:
        """Grow the capacity for *count* more entries. Needs exclusive access."""
        self.table.reserve(self.table.size + count)
        if self.graph is not None:
            self.graph.use_storage(self.table.storage)

    def publish(self, graph: Graph, calibration: Calibration) -> None:
        """Search *graph* from now on. Needs exclusive access."""
        graph.use_storage(self.table.storage)
        self.graph, self.calibration = graph, calibration
        self.graph_unsuitable = None

    def drop_graph(self) -> None:
        """Remove the graph and the deleted entries. Needs exclusive access."""
        self.graph = self.calibration = None
        self.table.unpin()

    def reject_graph(self, reason: str, min_size: int) -> None:
        """Remove the graph, and want none below *min_size* entries for *reason*. Needs exclusive access."""
        self.graph_unsuitable, self.min_graph_size = reason, min_size
        self.drop_graph()

    def replace_storage(self, storage: VectorStorage) -> None:
        """Move the vectors into *storage*. Needs exclusive access."""
        self.table.replace_storage(storage)
        if self.graph is not None:
            self.graph.use_storage(storage)

    def wants_graph(self) -> tuple[bool, str]:
        """Whether it is to have a graph, and why; see `planner.wants_graph`."""
        return planner.wants_graph(self.kind, len(self), self.dimension, has_graph=self.graph is not None)

    def fill_deleted(self, graph: Graph) -> None:
        """Give deleted nodes, whose vectors are unknown, the vector of a neighbour, so that searches can pass them.

        Needs exclusive access.
        """
        live = self.table.live[: graph.nodes]
        deleted = np.flatnonzero(~live)
        if not len(deleted):
            return
        neighbors = graph.links().first_neighbors(deleted, live, graph.options.m)
        rows = self.table.storage.rows
        rows[deleted] = np.where((neighbors >= 0)[:, None], rows[neighbors], 0)

    def search(self, engine: Engine, queries: Rows, limit: int, scope: SearchScope) -> list[SearchResult]:
        """See `ExactIndex.search`."""
        positions = self.table.allowed(scope)
        graph, calibration = self.graph, self.calibration
        # FAISS computes graph distances in float32, so vectors beyond it are compared exactly.
        if graph is None or calibration is None or not self.fits_float32(queries):
            method = SearchMethod("exact", self.graph_unsuitable or "no graph")
            return self.search_exact(engine, queries, limit, positions, method)
        split = 0 if positions is None else int(np.searchsorted(positions, graph.nodes))
        allowed_nodes = graph.nodes if positions is None else split
        choice = planner.choose_method(
            kind=self.kind, nodes=graph.nodes, allowed=allowed_nodes, limit=limit, ef_search=calibration.ef_search
        )
        if choice.name == "exact":
            return self.search_exact(engine, queries, limit, positions, SearchMethod("exact", choice.reason))
        mask = None
        if positions is not None:
            mask = np.zeros(graph.nodes, dtype=np.bool_)
            mask[positions[:split]] = True
        indexed = self._search_graph(graph, queries, limit, choice.candidates, mask)
        unindexed = self._search_unindexed(engine, queries, limit, None if positions is None else positions[split:])
        allowed_count = self.table.size if positions is None else len(positions)
        method = SearchMethod("graph", choice.reason, choice.candidates, allowed_count - allowed_nodes)
        results = [
            None if nodes is None else self.rank(query, np.concatenate([nodes, rest]), limit, allowed_count, method)
            for query, nodes, rest in zip(queries, indexed, unindexed, strict=True)
        ]
        missing = [i for i, result in enumerate(results) if result is None]
        exact = self.search_exact(engine, queries[missing], limit, positions, _TOO_FEW_CANDIDATES) if missing else []
        replacements = iter(exact)
        return [next(replacements) if result is None else result for result in results]

    def _search_graph(
        self, graph: Graph, queries: Rows, limit: int, ef_search: int, mask: Mask | None
    ) -> list[Keys | None]:
        """The nearest nodes of each query that *mask* allows; None where the graph found fewer than *limit*."""
        if mask is None:
            nodes = graph.search(queries, graph_limit(graph, self.metric, limit, ef_search), ef_search)
            return [None if row[-1] < 0 else row for row in nodes]
        # No selector of FAISS: its search ends after ef_search near nodes, whether they are allowed or not.
        nodes = graph.search(queries, planner.complete_prefix(ef_search), ef_search)
        keep = graph_limit(graph, self.metric, limit, ef_search)
        results: list[Keys | None] = []
        for row in nodes:
            allowed = row[mask[row] & (row >= 0)]
            results.append(allowed[:keep] if len(allowed) >= limit else None)
        return results

    def _search_unindexed(self, engine: Engine, queries: Rows, limit: int, positions: Keys | None) -> Keys:
        """The nearest of the unindexed entries, or of these *positions*: shape (q, number of results)."""
        count = self.unindexed if positions is None else len(positions)
        if count == 0:
            return np.empty((len(queries), 0), dtype=np.int64)
        if count == self.unindexed:
            positions = None
        return self.find_nearest(engine, queries, min(limit, count), positions, start=self.nodes)

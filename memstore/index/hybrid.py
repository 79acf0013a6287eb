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
from memstore.index.planner import MethodChoice
from memstore.index.protocol import Engine, IndexEntries, SearchMethod, SearchResult, SearchScope, VectorStorage
from memstore.index.recall import Calibration
from memstore.index.samples import QuerySamples
from memstore.index.vector_table import Allocator
from memstore.index.walk import Coverage, Walk
from memstore.vectors.arrays import Keys, Rows
from memstore.vectors.space import Measure

OVERSAMPLING, EXTRA_RESULTS = 2, 10
"""A float16 graph gives OVERSAMPLING * limit + EXTRA_RESULTS candidates, which the stored vectors rank again."""

_EXCESS_FACTOR, _EXCESS_ROWS = 4, 10_000
"""A table without a graph that has room for this many times its entries, and for so many rows more, is shrunk."""

_TOO_FEW_CANDIDATES = SearchMethod("exact", "the graph found too few")


class HybridIndex(ExactIndex):
    """An index that searches its graph where that is faster and complete, and compares exactly elsewhere.

    Attributes:
        kind: whether it is to have a graph, see `memstore.IndexOptions`.
        graph: the graph; None for none.
        coverage: which nodes walks of the graph do not find; None without a graph.
        calibration: candidates that searches of the graph keep, and its recall; None without a graph.
        samples: some of the queries that the graph answered, and its recall for them.
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
        self.coverage: Coverage | None = None
        self.calibration: Calibration | None = None
        self.samples = QuerySamples()
        self.graph_unsuitable: str | None = None
        self.min_graph_size = 0

    @property
    def bytes(self) -> int:
        """Memory of its arrays and its graph."""
        graph = 0 if self.graph is None else self.graph.bytes
        return super().bytes + graph + (0 if self.coverage is None else self.coverage.bytes)

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

    def remove(self, keys: Keys) -> None:
        """See `ExactIndex.remove`. Gives memory back once most of it is not needed."""
        super().remove(keys)
        if self.graph is None and len(self.table.storage.rows) > _EXCESS_FACTOR * self.table.size + _EXCESS_ROWS:
            self.table.shrink()

    def reserve(self, count: int) -> None:
        """Grow the capacity for *count* more entries. Needs exclusive access."""
        self.table.reserve(self.table.size + count)
        if self.graph is not None:
            self.graph.use_storage(self.table.storage)

    def publish(self, graph: Graph, coverage: Coverage, calibration: Calibration) -> None:
        """Search *graph* from now on. Needs exclusive access."""
        graph.use_storage(self.table.storage)
        self.graph, self.coverage, self.calibration = graph, coverage, calibration
        self.graph_unsuitable = None

    def drop_graph(self) -> None:
        """Remove the graph and the deleted entries, and give their memory back. Needs exclusive access."""
        self.graph = self.coverage = self.calibration = None
        self.table.unpin()
        self.table.shrink()

    def shrink(self) -> None:
        """Give memory back that no entry needs. Needs exclusive access."""
        if self.table.shrink() and self.graph is not None:
            self.graph.use_storage(self.table.storage)

    def walk(self) -> Walk | None:
        """What walks of the graph need; None without a graph. Needs shared access."""
        return None if self.graph is None or self.coverage is None else self.walk_of(self.graph, self.coverage)

    def walk_of(self, graph: Graph, coverage: Coverage) -> Walk:
        """What walks of *graph*, a graph of these entries, need."""
        return Walk(graph, coverage, self.metric, self.table.radius, self.table.keys, self._max_norm)

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

    def fill_deleted(self, graph: Graph, duplicates: Keys, originals: Keys) -> None:
        """Give deleted nodes, whose vectors are unknown, the vector of a neighbour, so that searches can pass them.

        A deleted original gets that of one of its duplicates. Needs exclusive access.
        """
        live = self.table.live[: graph.nodes]
        deleted = np.flatnonzero(~live)
        if not len(deleted):
            return
        neighbors = graph.links().first_neighbors(deleted, live, graph.options.m)
        rows = self.table.storage.rows
        rows[deleted] = np.where((neighbors >= 0)[:, None], rows[neighbors], 0)
        copied = live[duplicates] & ~live[originals]
        rows[originals[copied]] = rows[duplicates[copied]]

    def search(self, engine: Engine, queries: Rows, limit: int, scope: SearchScope) -> list[SearchResult]:
        """See `ExactIndex.search`."""
        positions = self.table.allowed(scope)
        if self.table.lifted:
            queries = self.widened(queries)
        walk, calibration = self.walk(), self.calibration
        # FAISS computes graph distances in float32, so vectors beyond it are compared exactly.
        if walk is None or calibration is None or not self.fits_float32(queries):
            method = SearchMethod("exact", self.graph_unsuitable or "no graph")
            return self.search_exact(engine, queries, limit, positions, method)
        nodes = walk.graph.nodes
        split = 0 if positions is None else int(np.searchsorted(positions, nodes))
        allowed_nodes = nodes if positions is None else split
        choice = self.choose_method(calibration, allowed_nodes, limit)
        if choice.name == "exact":
            return self.search_exact(engine, queries, limit, positions, SearchMethod("exact", choice.reason))
        mask = None
        if positions is not None:
            mask = np.zeros(nodes, dtype=np.bool_)
            mask[positions[:split]] = True
        results_limit = self._graph_limit(limit)
        indexed = walk.candidates(engine, queries, results_limit, choice.candidates, mask)
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
        self.samples.offer(queries, limit, scope)
        return [next(replacements) if result is None else result for result in results]

    def choose_method(self, calibration: Calibration, allowed_nodes: int, limit: int) -> MethodChoice:
        """How to find *limit* among *allowed_nodes* of the graph's nodes."""
        limit = self._graph_limit(limit)
        if not calibration.is_useful(limit):
            return MethodChoice("exact", 0, f"the graph finds {calibration.recall_at(limit) or 0.0:.0%} at this limit")
        return planner.choose_method(
            kind=self.kind,
            nodes=self.nodes,
            allowed=allowed_nodes,
            limit=limit,
            ef_search=calibration.ef_search,
            efforts=calibration.steps(),
        )

    def _graph_limit(self, limit: int) -> int:
        """How many candidates the graph gives: more for float16 vectors, which the stored vectors rank again."""
        if self.table.storage.rows.dtype == np.float32:
            return limit
        return limit * OVERSAMPLING + EXTRA_RESULTS

    def _search_unindexed(self, engine: Engine, queries: Rows, limit: int, positions: Keys | None) -> list[Keys]:
        """The unindexed entries, or of these *positions*, that can be among the nearest to each query."""
        count = self.unindexed if positions is None else len(positions)
        if count == 0:
            return [np.empty(0, dtype=np.int64)] * len(queries)
        if count == self.unindexed:
            positions = None
        return self.find_nearest(engine, queries, min(limit, count), positions, start=self.nodes)

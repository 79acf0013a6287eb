"""One fold: the unindexed entries of an index linked into a copy of its graph, tested and measured.

The work runs on threads, in small pieces, and can stop after each. Entries that a piece reads are pinned, so it reads
them without the lock. Nothing but the order of the new entries changes before the result is published.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np

from memstore.concurrency import in_thread
from memstore.index import folding, planner
from memstore.index.faiss_engine import FaissEngine
from memstore.index.folding import Layout
from memstore.index.hnsw import Graph, GraphConstruction, Int32s, scratch_rows
from memstore.index.hybrid import HybridIndex
from memstore.index.recall import Calibration, Corpus, SampleSources, calibrate
from memstore.index.walk import Coverage
from memstore.models.records import RecordKind
from memstore.sync.index_set import IndexSet

T = TypeVar("T")

_LIFTED_ROWS = 50_000  # vectors that are lifted to a sphere at a time, under the lock
_FEW_LINKS = 200  # nodes with the fewest links to them, of which queries for the calibration are made


class FoldedGraph(NamedTuple):
    """A finished graph, what walks of it do not find, how to search it, and whether it was built from nothing."""

    graph: Graph
    coverage: Coverage
    calibration: Calibration
    is_new: bool

    def defect(self) -> str | None:
        """Why searches of the graph are no use; None if they are."""
        recall, outliers = self.calibration.recall, len(self.coverage.outliers)
        if recall is not None and recall < planner.MIN_USEFUL_RECALL:
            return f"a graph of these vectors finds {recall:.0%} of the neighbours: they have no structure"
        if outliers > max(planner.MAX_OUTLIERS, planner.MAX_OUTLIER_SHARE * self.graph.nodes):
            share = outliers / self.graph.nodes
            return f"a graph of these vectors does not reach {share:.0%} of them: they have no structure"
        return None


class _Measured(NamedTuple):
    """A graph before its held-out entries are linked: coverage, effort, and how many links lead to each node."""

    coverage: Coverage
    calibration: Calibration
    in_degrees: Int32s


class GraphFold:
    """Folds the unindexed entries of an index into its graph.

    Args:
        indexes: the indexes.
        kind: which of them.
        index: that index.
        engine: creates graphs.
        stopping: whether the fold is to end after its present piece of work.
    """

    def __init__(
        self, indexes: IndexSet, kind: RecordKind, index: HybridIndex, engine: FaissEngine, stopping: Callable[[], bool]
    ) -> None:
        self._indexes = indexes
        self._kind = kind
        self._index = index
        self._engine = engine
        self._stopping = stopping

    async def run(self) -> FoldedGraph | None:
        """The graph with the entries that there are now; None if the fold was stopped, or *index* is not in use."""
        index, start = self._index, self._index.nodes
        base, coverage, options = index.graph, index.coverage, self._indexes.options.graph
        target = await self._exclusively(self._pin)
        if target is None or not await self._lift(start, target, is_new=base is None):
            return None
        fold = await in_thread(partial(folding.plan_fold, index.table, start, coverage))
        layout = await self._exclusively(partial(folding.lay_out, index.table, fold))
        if layout is None:
            return None
        construction = await in_thread(partial(self._engine.graphs.start, options, index.table.storage, base))
        counts = None if base is None else await in_thread(partial(_in_degrees, base))
        if not await self._link(construction, layout.linked - layout.held_out):
            return None
        measured = await in_thread(partial(self._measure, construction, layout, start, coverage, counts))
        if not await self._link(construction, layout.linked):
            return None
        graph, final_coverage = await in_thread(partial(self._finish, construction, layout, target, measured))
        return FoldedGraph(graph, final_coverage, measured.calibration, is_new=base is None)

    async def _exclusively(self, change: Callable[[], T]) -> T | None:
        """Run *change* on a thread with exclusive access; None if the index is not in use any more."""

        def step() -> T | None:
            with self._indexes.lock.exclusive():
                return change() if self._indexes.by_kind.get(self._kind) is self._index else None

        return await in_thread(step)

    def _pin(self) -> int:
        """Pin all entries, in memory that FAISS owns; their number."""
        storage = self._index.table.storage
        if storage.owner is None:  # allocated before FAISS was loaded
            allocate = self._indexes.allocator(self._indexes.spaces[self._kind])
            self._index.replace_storage(allocate(len(storage.rows), None))
        return self._index.table.pin()

    async def _lift(self, start: int, target: int, *, is_new: bool) -> bool:
        """Lift the new vectors to the sphere, whose radius a new graph determines; False if the fold was stopped."""
        table = self._index.table
        if not table.lifted:
            return True
        if is_new:
            radius = await in_thread(partial(folding.sphere_radius, table))
            await self._exclusively(partial(setattr, table, "radius", radius))
        for first in range(start, target, _LIFTED_ROWS):
            if self._stopping():
                return False
            await self._exclusively(partial(table.lift, first, min(first + _LIFTED_ROWS, target)))
        return True

    async def _link(self, construction: GraphConstruction, target: int) -> bool:
        """Link the entries before *target*; False if the fold was stopped."""
        storage = self._index.table.storage
        batch = scratch_rows(storage.rows.shape[1])
        while construction.nodes < target:
            if self._stopping() or self._indexes.by_kind.get(self._kind) is not self._index:
                return False
            count = min(batch, target - construction.nodes)
            await in_thread(partial(construction.link, self._index.table.storage, count))
        return True

    def _measure(
        self,
        construction: GraphConstruction,
        layout: Layout,
        start: int,
        coverage: Coverage | None,
        counts: Int32s | None,
    ) -> _Measured:
        """Test and measure the graph before the held-out entries are linked."""
        table, storage = self._index.table, self._index.table.storage
        graph = construction.finish(storage)
        links = graph.links()
        nodes = graph.nodes
        previous = coverage or Coverage(nodes, storage.rows)
        new = np.arange(start, nodes)
        failed = folding.unreached(
            graph, links, self._index.metric, storage.rows, new, failed_before=previous.outliers, before=counts
        )
        present = Coverage(nodes, storage.rows, previous.duplicates, previous.originals, failed)
        in_degrees = links.in_degrees(graph.options.m)
        degrees = in_degrees.copy()
        degrees[present.duplicates] = degrees[present.outliers] = np.iinfo(np.int32).max
        few_links = np.argsort(degrees, kind="stable")[:_FEW_LINKS]
        walk = self._index.walk_of(graph, present)
        live = table.live[:nodes].copy()
        corpus = Corpus(walk, self._engine, storage, live, self._index.dimension)
        originals = layout.originals[layout.originals < nodes]
        sources = SampleSources(
            held_out=np.arange(layout.linked - layout.held_out, layout.linked),
            few_links=few_links,
            duplicated=np.unique(np.concatenate([present.originals, originals])),
            new_share=(nodes - start) / nodes,
        )
        calibration = calibrate(
            corpus, links, sources, self._index.calibration, fixed=self._indexes.options.graph.ef_search
        )
        return _Measured(present, calibration, in_degrees)

    def _finish(
        self, construction: GraphConstruction, layout: Layout, target: int, measured: _Measured
    ) -> tuple[Graph, Coverage]:
        """The finished graph of *target* nodes, those without links included, and its coverage."""
        table, storage, coverage = self._index.table, self._index.table.storage, measured.coverage
        if target > construction.nodes:
            construction.append(target - construction.nodes)
        graph = construction.finish(storage)
        held_out = np.arange(layout.linked - layout.held_out, layout.linked)
        links, rows = graph.links(), storage.rows
        failed = folding.unreached(graph, links, self._index.metric, rows, held_out, before=measured.in_degrees)
        outliers = np.unique(np.concatenate([coverage.outliers, failed, layout.long]))
        return graph, Coverage(
            graph.nodes,
            storage.rows,
            np.concatenate([coverage.duplicates, layout.duplicates]),
            np.concatenate([coverage.originals, layout.originals]),
            outliers[table.live[outliers]],
        )


def _in_degrees(graph: Graph) -> Int32s:
    return graph.links().in_degrees(graph.options.m)

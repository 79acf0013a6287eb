"""An exact index that may have a graph over its older entries.

The table's first `pinned` places keep their vectors; the graph covers the first `nodes` of them, and the rest of the
table is the tail, which is compared exactly in every search. So a new vector is found at once, and the graph is
built and extended aside (`tending`), with the index held only for the moments in which it changes hands.
"""

import numpy as np

from memstore.config import IndexKind
from memstore.index import planner
from memstore.index.exact import ExactIndex
from memstore.index.hnsw import Graph
from memstore.index.protocol import Engine, Entries, Found, How, Keys, Mask, Scope, Storage
from memstore.index.vector_table import Allocate
from memstore.repository.sqlite_only.index_snapshots import Header
from memstore.vectors.arrays import Rows
from memstore.vectors.space import Ball, Measure


class HybridIndex(ExactIndex):
    """An index that answers by its graph where that is quicker and sure, and exactly everywhere else."""

    def __init__(
        self,
        dimension: int,
        metric: Measure,
        *,
        kind: IndexKind = "auto",
        room: int = 0,
        allocate: Allocate | None = None,
    ) -> None:
        super().__init__(dimension, metric, room=room, allocate=allocate)
        self.kind: IndexKind = kind
        self.graph: Graph | None = None
        self.unfit: str | None = None
        self.unfit_until = 0
        self.measured_nodes = 0
        self.expected: Header | None = None
        self.written: tuple[int, int] | None = None

    @property
    def bytes(self) -> int:
        """Memory held by its arrays and its graph."""
        return super().bytes + (0 if self.graph is None else self.graph.bytes)

    @property
    def nodes(self) -> int:
        """How many places the graph covers."""
        return 0 if self.graph is None else self.graph.nodes

    @property
    def tail(self) -> int:
        """How many entries it does not cover."""
        return self.table.size - self.nodes

    def load(self, entries: Entries) -> None:
        """As `put` of keys that are new, while an index is being loaded."""
        self.table.load(entries)
        self.note(entries.rows)

    def put(self, entries: Entries) -> None:
        """See `VectorIndex.put`."""
        super().put(entries)
        self._lie()

    def reserve(self, more: int) -> None:
        """Have room for so many *more* entries. The index is held alone."""
        self.table.reserve(self.table.size + more)
        self._lie()

    def publish(self, graph: Graph) -> None:
        """Answer by *graph* from now on. The index is held alone."""
        graph.lie_in(self.table.storage)
        self.graph = graph
        self.expected = None
        self.unfit = None

    def drop_graph(self) -> None:
        """Have no graph any more, and no dead entries. The index is held alone."""
        self.graph = None
        self.expected = None
        self.table.unpin()

    def move_to(self, storage: Storage) -> None:
        """Keep the vectors in *storage* from now on. The index is held alone."""
        self.table.move_to(storage)
        self._lie()

    def _lie(self) -> None:
        """Have the graph find the vectors where the table has them now."""
        if self.graph is not None:
            self.graph.lie_in(self.table.storage)

    def wants_graph(self) -> tuple[bool, str]:
        """Whether it is to have a graph, and why; see `planner.wanted`."""
        return planner.wanted(self.kind, len(self), self.dimension, had=self.graph is not None)

    def fill_dead(self, graph: Graph) -> None:
        """Give dead nodes, whose vectors are not known, the place of a neighbour, so that ways still lead past them.

        The index is held alone.
        """
        live = self.table.live[: graph.nodes]
        dead = np.flatnonzero(~live)
        if not len(dead):
            return
        near = graph.links().nearest_of(dead, live, graph.options.m)
        rows = self.table.storage.rows
        rows[dead] = np.where((near >= 0)[:, None], rows[near], 0)

    def search(self, engine: Engine, queries: Rows, limit: int, scope: Scope) -> list[Found]:
        """See `VectorIndex.search`."""
        positions = self.table.allowed(scope)
        graph = self.graph
        if graph is None or graph.effort == 0 or not self.safe(queries):
            return self.exactly(engine, queries, limit, positions, How("exact", self.unfit or "no graph"))
        cut = 0 if positions is None else int(np.searchsorted(positions, graph.nodes))
        inside = graph.nodes if positions is None else cut
        choice = planner.choose(kind=self.kind, nodes=graph.nodes, allowed=inside, limit=limit, effort=graph.effort)
        if choice.method == "exact":
            return self.exactly(engine, queries, limit, positions, How("exact", choice.reason))
        tail = None if positions is None else positions[cut:]
        mask = None
        if positions is not None:
            mask = np.zeros(graph.nodes, dtype=np.bool_)
            mask[positions[:cut]] = True
        near = self._walked(graph, queries, limit, choice.effort, mask)
        late = self._late(engine, queries, limit, graph.nodes, tail)
        allowed = self.table.size if positions is None else len(positions)
        how = How("graph", choice.reason, choice.effort, allowed - inside)
        answers: list[Found | None] = [
            None if places is None else self.found(query, np.concatenate([places, after]), limit, allowed, how)
            for query, places, after in zip(queries, near, late, strict=True)
        ]
        return self._whole(engine, queries, limit, positions, answers)

    def asked(self, limit: int, effort: int) -> int:
        """How many to take of the graph's list to have the *limit* nearest among them.

        The graph goes by Euclidean distance. In the ball that is the hyperbolic one up to a factor that is much the
        same all around a vector, and so the order of neighbours is another: all that can be trusted are scored.
        """
        return max(limit, planner.trusted(effort)) if isinstance(self.metric, Ball) else limit

    def _walked(self, graph: Graph, queries: Rows, limit: int, effort: int, mask: Mask | None) -> list[Keys | None]:
        """The nearest nodes of each query that *mask* allows; None where they may not be."""
        if mask is None:
            found = graph.search(queries, self.asked(limit, effort), effort)
            return [None if row[-1] < 0 else row for row in found]
        found = graph.search(queries, planner.trusted(effort), effort)
        answers: list[Keys | None] = []
        for row in found:
            allowed = row[mask[row] & (row >= 0)]
            if not isinstance(self.metric, Ball):
                allowed = allowed[:limit]
            answers.append(allowed if len(allowed) >= limit else None)
        return answers

    def _late(self, engine: Engine, queries: Rows, limit: int, nodes: int, positions: Keys | None) -> Keys:
        """The nearest of the tail: places, shape (q, how many)."""
        count = self.table.size - nodes if positions is None else len(positions)
        if count == 0:
            return np.empty((len(queries), 0), dtype=np.int64)
        whole = positions is None or count == self.table.size - nodes
        return self.nearest(engine, queries, min(limit, count), None if whole else positions, since=nodes)

    def _whole(
        self, engine: Engine, queries: Rows, limit: int, positions: Keys | None, answers: list[Found | None]
    ) -> list[Found]:
        """*answers*, those that could not be trusted found exactly."""
        doubtful = [i for i, answer in enumerate(answers) if answer is None]
        if doubtful:
            how = How("exact", "the graph's answer was short")
            for i, answer in zip(doubtful, self.exactly(engine, queries[doubtful], limit, positions, how), strict=True):
                answers[i] = answer
        return [answer for answer in answers if answer is not None]

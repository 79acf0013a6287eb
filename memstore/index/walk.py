"""Walks of the graph: the candidates of a search, from the graph and from what the graph does not find.

A walk follows links to ever nearer nodes. It cannot be relied on for two kinds of vectors, which its `Coverage` names:

* Of equal vectors one is a node with links, and the others are its *duplicates*, without links. Linked copies would
  have links to each other only, and a walk that met them would end there. Duplicates are added where their original is
  among the candidates.
* *Outliers* are compared with every query. They are nodes that a test walk did not find (see `folding`). A vector far
  from all others has links to others, but they keep links to nearer ones. Under inner product, vectors much longer than
  the others are outliers too.

Inner product is no metric, and a graph of inner products loses short vectors. Storage has one more component under
inner product, sqrt(R² - |x|²), which puts all vectors on a sphere of radius R. A query has 0 there, and is scaled to
length R. Then |q-x|² = 2R² - 2R q·x / |q|, so the nearest vectors have the greatest products (Bachrach et al., Speeding
up the Xbox recommender system using a Euclidean transformation for inner-product spaces, RecSys 2014).
"""

from typing import NamedTuple

import numpy as np

from memstore.index import planner
from memstore.index.hnsw import Graph
from memstore.index.protocol import Engine, Mask, StoredRows
from memstore.index.rounding import tolerance
from memstore.vectors.arrays import Keys, Rows
from memstore.vectors.space import ANGULAR_METRICS, Ball, Measure

_SPARE_RESULTS = 6  # results beyond the limit, which show whether equal ones follow the last one
_ROUNDING = 2.0**-22  # of a similarity, for each component
_FEW_OUTLIERS = 1_000  # up to so many are compared with one product
_NONE = np.empty(0, dtype=np.int64)


class Coverage:
    """Which nodes of a graph a walk does not find by itself.

    Args:
        nodes: number of nodes.
        rows: the vectors by position: shape (n, width of the storage).
        duplicates: positions of nodes without links that are equal to a linked one.
        originals: the equal linked node of each of *duplicates*.
        outliers: positions that every search compares, ascending.
    """

    def __init__(
        self, nodes: int, rows: StoredRows, duplicates: Keys = _NONE, originals: Keys = _NONE, outliers: Keys = _NONE
    ) -> None:
        order = np.lexsort((duplicates, originals))
        self.duplicates, self.originals = duplicates[order], originals[order]
        self.outliers = outliers
        self.outlier_rows = np.ascontiguousarray(rows[outliers], dtype=np.float32)
        self._starts: Keys | None = None  # where the duplicates of each node start
        if len(duplicates):
            self._starts = np.searchsorted(self.originals, np.arange(nodes + 1))

    @property
    def bytes(self) -> int:
        """Memory of its arrays."""
        arrays = (self.duplicates, self.originals, self.outliers, self.outlier_rows)
        return sum(array.nbytes for array in arrays) + (0 if self._starts is None else self._starts.nbytes)

    def allowed_originals(self, mask: Mask) -> Keys:
        """The originals that have a duplicate that *mask* allows."""
        return self.originals[mask[self.duplicates]]

    def with_duplicates(self, nodes: Keys, limit: int, keys: Keys, mask: Mask | None) -> Keys:
        """Those of *nodes* that *mask* allows, and of the duplicates of each the *limit* oldest that it allows."""
        allowed = nodes if mask is None else nodes[mask[nodes]]
        if self._starts is None:
            return allowed
        starts, ends = self._starts[nodes], self._starts[nodes + 1]
        parts = [allowed]
        for i in np.flatnonzero(ends > starts).tolist():
            positions = self.duplicates[starts[i] : ends[i]]
            if mask is not None:
                positions = positions[mask[positions]]
            if len(positions) > limit:
                positions = positions[np.argpartition(keys[positions], limit)[:limit]]
            parts.append(positions)
        return np.concatenate(parts)


class Walk(NamedTuple):
    """What walks of a graph need.

    Attributes:
        graph: the graph.
        coverage: what a walk of it does not find.
        metric: what vectors are compared by.
        radius: of the sphere that vectors are lifted to under inner product; 0 under other metrics.
        keys: the key of each position, at least of all nodes.
        norm: at least the norm of every vector.
    """

    graph: Graph
    coverage: Coverage
    metric: Measure
    radius: float
    keys: Keys
    norm: float = np.inf

    def candidates(
        self, engine: Engine, queries: Rows, limit: int, ef_search: int, mask: Mask | None
    ) -> list[Keys | None]:
        """Positions that can be among the *limit* nearest nodes of each query; None if the walk found too few.

        Args:
            engine: compares the outliers.
            queries: float32, shape (q, width of the storage), in index form.
            limit: number of results.
            ef_search: candidates that a walk keeps.
            mask: the allowed nodes; None for all.
        """
        walks = self._nodes(queries, limit, ef_search, mask)
        if mask is None and len(self.coverage.outliers) <= _FEW_OUTLIERS and self.metric in ANGULAR_METRICS:
            outliers = [self._near_outliers(query, lowest) for query, (_, lowest) in zip(queries, walks, strict=True)]
        else:
            outliers = self._outliers(engine, queries, limit, mask)
        results: list[Keys | None] = []
        for (nodes, _), others in zip(walks, outliers, strict=True):
            positions = self.coverage.with_duplicates(nodes, limit, self.keys, mask)
            is_complete = len(positions) >= limit  # without the outliers, which can be farther than what is missing
            if is_complete and len(others):
                more = self.coverage.with_duplicates(others, limit, self.keys, mask)
                positions = np.union1d(positions, more)
            results.append(positions if is_complete else None)
        return results

    def _near_outliers(self, query: Rows, lowest: float) -> Keys:
        """The outliers whose product with *query* is at least *lowest*: as a rule none, which saves ranking them."""
        outliers = self.coverage.outliers
        if not len(outliers):
            return outliers
        is_candidate = self.coverage.outlier_rows @ query >= lowest
        return outliers[is_candidate] if is_candidate.any() else _NONE

    def _nodes(self, queries: Rows, limit: int, ef_search: int, mask: Mask | None) -> list[tuple[Keys, float]]:
        """The nodes that each walk finds, as far as they are complete, and the similarity under which none is one."""
        lifted = self.lifted(queries)
        if mask is None:
            keep = self._prefix(limit, ef_search)
            nearest, similarities = self.graph.search(lifted, keep + _SPARE_RESULTS, ef_search)
            return [
                self._with_equal(query, nodes, values, keep, ef_search)
                for query, nodes, values in zip(lifted, nearest, similarities, strict=True)
            ]
        # No selector of FAISS: its search ends after ef_search near nodes, whether they are allowed or not.
        nearest, _ = self.graph.search(lifted, planner.complete_prefix(ef_search), ef_search)
        return [(nodes[nodes >= 0], -np.inf) for nodes in nearest]

    def _with_equal(self, query: Rows, nodes: Keys, values: Rows, keep: int, ef_search: int) -> tuple[Keys, float]:
        """The first *keep* of *nodes*, and those that follow at the similarity of the last, for the order of creation.

        *values* are the similarities of *nodes*.
        """
        last, following = float(values[keep - 1]), float(values[keep])
        error = _ROUNDING * (len(query) + 4) * max(1.0, abs(last))  # more than the tolerance below
        if following < last - error and nodes[keep] >= 0:  # the usual case
            return nodes[:keep], following
        if nodes[keep - 1] < 0:
            return nodes[nodes >= 0], -np.inf
        by_angle = self.metric in ANGULAR_METRICS
        lowest = tolerance("cosine" if by_angle else "l2", query, 1.0).lowest(values[keep - 1])
        if values[-1] >= lowest and nodes[-1] >= 0 and len(nodes) < ef_search:
            more, more_values = self.graph.search(query[None], ef_search, ef_search)
            nodes, values = more[0], more_values[0]
        return nodes[(values >= lowest) & (nodes >= 0)], lowest

    def _prefix(self, limit: int, ef_search: int) -> int:
        """How many of the nearest nodes of a walk contain the *limit* nearest.

        A graph in the ball ranks by Euclidean distance. Around a vector that is the hyperbolic distance up to a factor
        that varies little, so the order of neighbours differs: all candidates assumed complete are scored.
        """
        if not isinstance(self.metric, Ball):
            return limit
        return max(limit, min(self.graph.nodes, planner.complete_prefix(ef_search)))

    def _outliers(self, engine: Engine, queries: Rows, limit: int, mask: Mask | None) -> list[Keys]:
        """The outliers that are allowed, or have duplicates, and can be among the *limit* nearest to each query."""
        outliers, rows = self.coverage.outliers, self.coverage.outlier_rows
        selected = None
        if mask is not None and len(outliers):
            selected = np.flatnonzero(mask[outliers] | np.isin(outliers, self.coverage.allowed_originals(mask)))
        count = len(outliers) if selected is None else len(selected)
        if not count:
            return [_NONE] * len(queries)
        if count <= limit:
            return [outliers if selected is None else outliers[selected]] * len(queries)
        nearest = engine.find_nearest(self.metric, queries, rows, limit, selected, self.norm)
        return [outliers[offsets] for offsets in nearest]

    def lifted(self, queries: Rows) -> Rows:
        """*queries* at the length of the radius under inner product, unchanged under other metrics."""
        if self.metric != "inner_product":
            return queries
        doubles = queries.astype(np.float64)
        norms = np.sqrt(np.einsum("ij,ij->i", doubles, doubles))
        doubles *= (self.radius / np.where(norms > 0, norms, 1.0))[:, None]
        return doubles.astype(np.float32)

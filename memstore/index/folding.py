"""Folding: which new vectors get links in a graph, and which nodes a walk of the result does not find.

Before a fold, the new entries are put in order: those to link, of these some held-out ones last (`recall` measures with
them before they are linked), then duplicates of others and vectors that are too long for the sphere.

After it, walks are tested. A node passes if walks find it from beside it: from its vector, moved in a random direction
by a part of the distance to its nearest links. Nodes that fail are outliers.

* A vector far from all others gets links, but the others keep links to nearer ones. Nodes with few links to them that
  are far from their neighbours are outliers without a test, and those with very few, unless there are many of them.
  Other nodes with few links to them must be found from several sides.
* Groups of vectors far from all others have links within the group. Of the other nodes a sample is tested, and around
  each that fails the neighbours are, from several sides.

Tested are new nodes, nodes that have lost links, and nodes that failed before.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from memstore.index.hnsw import Graph, GraphLinks, Int32s
from memstore.index.protocol import StoredRows
from memstore.index.vector_table import VectorTable
from memstore.index.walk import Coverage
from memstore.vectors.arrays import Doubles, Keys, Rows, row_norms
from memstore.vectors.metrics import index_form
from memstore.vectors.space import ANGULAR_METRICS, Measure

HELD_OUT = 300
"""Vectors of a fold that are held out to measure recall, at most a tenth of it."""

TEST_EF_SEARCH = 32
"""Candidates of a test walk: half of the fewest that a search keeps."""

LONG_SHARE = 0.005
"""Share of the vectors, the longest ones, that may lie outside of the sphere under inner product."""

_LONG_FACTOR = 1.0 + 1e-4  # relative length over the radius up to which a vector counts as on the sphere
_STEP_SHARE = 0.4  # distance of a test query from its vector, as a share of the distance to its nearest links
_SAMPLED_LINKS = 8  # links of a node from which the distance to the nearest ones is estimated
_FEW_LINKS = 8  # links to a node under which it is tested from several sides
_VERY_FEW_LINKS = 3  # links to a node up to which it is an outlier without a test
_VERY_FEW_SHARE, _VERY_FEW = 0.005, 100  # unless more nodes, and a greater share, have so few
_SIDES = 8
_FAR = 0.85  # distance to the nearest links, as a share of the median distance, from which on a node counts as far
_PAIRS = 2_000
_TESTED_ALL = 4_000  # up to so many nodes with more links to them are all tested
_TESTED_SHARE = 8  # one in this many otherwise
_FAILED_SHARE = 0.1  # share of failed nodes from which on no more are tested: the graph is of no use
_RESULTS = 10
_NONE = np.empty(0, dtype=np.int64)
_BATCH = 1_024  # nodes tested at a time
_BLOCK = 4_096  # rows hashed at a time


class Layout(NamedTuple):
    """The order of new entries, which were put in order, and the duplicates among them.

    Attributes:
        linked: entries before this position get links.
        held_out: how many of these, the last ones, are held out.
        duplicates: positions of entries that are equal to a linked one.
        originals: the equal linked entry of each duplicate.
        long: positions of entries that are too long for the sphere.
    """

    linked: int
    held_out: int
    duplicates: Keys
    originals: Keys
    long: Keys


class Fold(NamedTuple):
    """New entries before they are put in order: positions as in the table.

    Attributes:
        start: the first new position.
        held_out: positions to hold out, ascending.
        duplicates: positions of entries that are equal to others, ascending.
        originals: the equal entry of each duplicate.
        long: positions of entries that are too long for the sphere, ascending.
    """

    start: int
    held_out: Keys
    duplicates: Keys
    originals: Keys
    long: Keys


def plan_fold(table: VectorTable, start: int, coverage: Coverage | None) -> Fold:
    """How to fold the pinned entries from *start* on into a graph of those before. Reads vectors without a lock."""
    stop = table.pinned
    rows = table.storage.rows[:stop]
    new = np.arange(start, stop)
    long = _too_long(table, start, stop)
    new = new[~np.isin(new, long)]
    present = np.flatnonzero(table.live[:start])
    if coverage is not None:
        present = present[~np.isin(present, np.concatenate([coverage.duplicates, coverage.outliers]))]
    duplicates, originals = equal_rows(rows, present, new)
    linked = new[~np.isin(new, duplicates)]
    # Originals keep their place, and so are not held out: then no duplicate is covered before its original.
    candidates = linked[~np.isin(linked, originals)]
    count = min(HELD_OUT, len(linked) // 10, len(candidates))
    held_out = np.sort(np.random.default_rng(stop).choice(candidates, count, replace=False))
    return Fold(start, held_out, duplicates, originals, long)


def _too_long(table: VectorTable, start: int, stop: int) -> Keys:
    if not table.lifted:
        return np.empty(0, dtype=np.int64)
    return start + np.flatnonzero(_norms(table.rows[start:stop]) > table.radius * _LONG_FACTOR)


def _norms(rows: StoredRows) -> Doubles:
    squares: Doubles = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    return np.sqrt(squares)


def sphere_radius(table: VectorTable) -> float:
    """The radius of the sphere for the vectors of *table*: the norm that few of the vectors exceed."""
    norms = np.sort(_norms(table.rows))
    return float(norms[max(0, int(len(norms) * (1.0 - LONG_SHARE)) - 1)]) if len(norms) else 0.0


def equal_rows(rows: StoredRows, present: Keys, new: Keys) -> tuple[Keys, Keys]:
    """Which of *new* have a row equal to one of *present*, or to an earlier one of *new*, and to which: positions."""
    positions = np.concatenate([present, new])
    hashes = _hashes(rows, positions)
    order = np.argsort(hashes, kind="stable")
    ascending = hashes[order]
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = ascending[1:] != ascending[:-1]
    firsts = positions[order[np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))]]
    candidates = ~is_first & (order >= len(present))
    duplicates, originals = positions[order[candidates]], firsts[candidates]
    equal = np.array([np.array_equal(rows[a], rows[b]) for a, b in zip(duplicates, originals, strict=True)], dtype=bool)
    duplicates, originals = duplicates[equal], originals[equal]
    ascending_order = np.argsort(duplicates)
    return duplicates[ascending_order], originals[ascending_order]


def _hashes(rows: StoredRows, positions: Keys) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of each row at *positions*."""
    size = rows.shape[1] * rows.itemsize
    words = np.uint32 if size % 4 == 0 else np.uint16
    weights = np.random.default_rng(0).integers(1, 2**63, size // np.dtype(words).itemsize, dtype=np.uint64) * 2 + 1
    hashes = np.empty(len(positions), dtype=np.uint64)
    for start in range(0, len(positions), _BLOCK):
        block = np.ascontiguousarray(rows[positions[start : start + _BLOCK]]).view(words)
        hashes[start : start + _BLOCK] = block.astype(np.uint64) @ weights
    return hashes


def lay_out(table: VectorTable, fold: Fold) -> Layout:
    """Put the new entries of *table* in the order of a `Layout`. Needs exclusive access.

    Entries that were put after the fold was planned stay behind the others: they are not pinned.
    """
    stop = table.pinned
    unlinked = np.sort(np.concatenate([fold.duplicates, fold.long]))
    order = np.arange(stop)
    table.move_to_end(stop, unlinked, order)
    table.move_to_end(stop - len(unlinked), np.flatnonzero(np.isin(order, fold.held_out)), order)
    positions = np.empty(stop, dtype=np.int64)  # the new position of each old one
    positions[order] = np.arange(stop)
    return Layout(
        stop - len(unlinked),
        len(fold.held_out),
        positions[fold.duplicates],
        positions[fold.originals],
        positions[fold.long],
    )


def unreached(
    graph: Graph,
    links: GraphLinks,
    metric: Measure,
    rows: StoredRows,
    new: Keys,
    *,
    failed_before: Keys = _NONE,
    before: Int32s | None = None,
) -> Keys:
    """The nodes of *graph* that a walk does not find from beside them, ascending.

    Args:
        graph: its links are *links*, its vectors *rows*.
        links: the links.
        metric: what vectors are compared by.
        rows: shape (n, width of the storage).
        new: positions of new nodes.
        failed_before: positions of nodes that failed before.
        before: how many links led to each node before the fold; None for a new graph.
    """
    counts = links.in_degrees(graph.options.m)
    suspects = new
    if before is not None:
        shared = min(len(before), len(counts))
        lost = np.flatnonzero((counts[:shared] < before[:shared]) & (counts[:shared] < _FEW_LINKS))
        suspects = np.union1d(new, lost)
    few = np.union1d(suspects[counts[suspects] < _FEW_LINKS], failed_before)
    fewest = few[counts[few] <= min(_VERY_FEW_LINKS, graph.options.m // 4)]
    if len(fewest) > max(_VERY_FEW, _VERY_FEW_SHARE * graph.nodes):
        fewest = fewest[:0]
    far = few[_reach(rows, few, links.lowest_links(few, graph.options.m)) >= _FAR * _usual_distance(rows, graph.nodes)]
    sample = np.setdiff1d(suspects[counts[suspects] >= _FEW_LINKS], failed_before)
    if len(sample) > _TESTED_ALL:
        sample = np.sort(np.random.default_rng(graph.nodes).choice(sample, len(sample) // _TESTED_SHARE, replace=False))
    test = partial(_failed, graph, links, metric, rows)
    failed = np.union1d(fewest, far)
    failed = np.union1d(failed, np.union1d(test(np.setdiff1d(few, failed), sides=_SIDES), test(sample, sides=1)))
    frontier, done = failed, np.union1d(few, failed)
    while len(frontier) and len(failed) < _FAILED_SHARE * graph.nodes:
        neighbors = links.lowest_links(frontier, graph.options.m).astype(np.int64)
        neighbors = np.setdiff1d(neighbors[neighbors >= 0], done)
        frontier, done = test(neighbors, sides=_SIDES), np.union1d(done, neighbors)
        failed = np.union1d(failed, frontier)
    return failed


def _usual_distance(rows: StoredRows, nodes: int) -> float:
    """The median distance of two vectors."""
    first, second = np.random.default_rng(nodes).integers(0, nodes, (2, _PAIRS))
    return float(np.median(row_norms(rows[first].astype(np.float64) - rows[second])))


def _reach(rows: StoredRows, nodes: Keys, links: Int32s) -> Doubles:
    """The distance of each of *nodes* to the nearest of its *links*: float64, shape (n,), infinite without links."""
    reach = np.full(len(nodes), np.inf)
    for start in range(0, len(nodes), _BATCH):
        points = rows[nodes[start : start + _BATCH]].astype(np.float64)
        part = reach[start : start + _BATCH]
        for column in links[start : start + _BATCH].T:
            distances = row_norms(rows[np.maximum(column, 0)].astype(np.float64) - points)
            np.minimum(part, np.where(column >= 0, distances, np.inf), out=part)
    return reach


def _failed(graph: Graph, links: GraphLinks, metric: Measure, rows: StoredRows, nodes: Keys, sides: int) -> Keys:
    """Those of *nodes* that a walk does not find from one of so many *sides*."""
    rng = np.random.default_rng(len(nodes))
    failed = [np.empty(0, dtype=np.int64)]
    for start in range(0, len(nodes), _BATCH):
        batch = nodes[start : start + _BATCH]
        batch_links = links.lowest_links(batch, graph.options.m)
        passed = np.ones(len(batch), dtype=bool)
        for _ in range(sides):
            queries, linked = beside(metric, rows, batch, batch_links, rng)
            nearest, _ = graph.search(queries, min(_RESULTS, graph.nodes), TEST_EF_SEARCH)
            passed &= (nearest == batch[:, None]).any(axis=1) & linked
        failed.append(batch[~passed])
    return np.concatenate(failed)


def beside(
    metric: Measure, rows: StoredRows, nodes: Keys, links: Int32s, rng: "np.random.Generator"
) -> tuple[Rows, npt.NDArray[np.bool_]]:
    """A query beside each of *nodes*, whose links are *links*, and which of the nodes have links.

    Queries are float32, shape (n, width of *rows*), as the graph compares them.
    """
    columns = rng.integers(0, links.shape[1], (len(nodes), _SAMPLED_LINKS))
    targets = np.concatenate([np.take_along_axis(links, columns, axis=1), links[:, :1]], axis=1)
    points, reach = rows[nodes].astype(np.float64), _reach(rows, nodes, targets)
    linked = np.isfinite(reach)
    steps = rng.standard_normal(points.shape)
    steps *= (_STEP_SHARE * np.where(linked, reach, 0.0) / row_norms(steps))[:, None]
    with np.errstate(over="ignore"):
        queries = (points + steps).astype(np.float32)
    if metric in ANGULAR_METRICS:
        queries = index_form(metric, queries)
    return np.ascontiguousarray(queries), linked

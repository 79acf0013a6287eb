"""Decisions about searches and graphs, from numbers alone.

A graph search that keeps `ef_search` candidates returns the nearest of *all* its vectors, in order. Under a filter the
allowed ones among the candidates are the nearest allowed vectors, as far down as the list is complete. So the list is
extended in proportion to the selectivity of the filter, and a search that still finds too few allowed candidates is
repeated exactly: no filter costs results, however it correlates with the query.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from memstore.config import IndexKind
from memstore.index.protocol import MethodName

MIN_GRAPH_NUMBERS = 10_000_000
"""Numbers (vectors times dimension) from which on a graph pays: exact search then takes about a millisecond."""

MIN_GRAPH_VECTORS = 5_000
"""Vectors from which on a graph pays, whatever their dimension."""

CANDIDATE_COST = 40
"""Time of one more graph candidate, in rows of a sequential exact scan."""

GATHER_COST = 1.1
"""Time of a row that an exact scan gathers by position, in rows of a sequential scan."""

MIN_ALLOWED_SHARE = 0.05
"""Share of allowed vectors under which searches are exact: the candidate list would be too long to be complete."""

COMPLETE_SHARE = 0.75
"""Share of a candidate list, from its start, that is assumed to be complete."""

EF_SEARCH_STEPS = (64, 80, 96, 128, 160, 192, 256, 384, 512, 768, 1_024)
"""Values of ef_search that a calibration tries in turn, until it reaches `TARGET_RECALL`."""

EFFORT_FACTORS = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 12.0, 16.0)
"""Multiples of the lowest possible ef_search that a calibration tries in turn for a limit over ten."""

TARGET_RECALL = 0.994
"""Recall that the moved queries of a calibration must reach (see `recall`): above the promise, as they are easy."""

HELD_OUT_RECALL = 0.985
"""Recall that its held-out queries must reach: below the promise, because their sample is small."""

MIN_USEFUL_RECALL = 0.95
"""Recall under which searches are exact: the vectors have no neighbourhood structure that a graph can follow."""

MAX_OUTLIERS, MAX_OUTLIER_SHARE = 500, 0.05
"""A graph with more outliers than the number and than the share of its nodes is not used: each search compares them."""

MERGE_MIN, MERGE_MAX, MERGE_SHARE = 1_000, 10_000, 0.05
REBUILD_MIN_DELETED, REBUILD_DELETED_SHARE = 1_000, 0.3
COMPACT_DELETED_SHARE = 0.1
SNAPSHOT_GROWTH_SHARE = 0.1

GraphTask = Literal["build", "merge", "rebuild", "drop"]


class MethodChoice(NamedTuple):
    """The method for a search, the candidates that a graph search keeps, and the reason."""

    name: MethodName
    candidates: int
    reason: str


def choose_method(
    *,
    kind: IndexKind,
    nodes: int,
    allowed: int,
    limit: int,
    ef_search: int,
    efforts: Sequence[tuple[int, int]] = (),
) -> MethodChoice:
    """How to find *limit* among the *allowed* of a graph's *nodes*.

    Args:
        kind: `"graph"` uses the graph whenever all nodes are allowed, `"auto"` only where it is also faster.
        nodes: vectors in the graph; 0 for no graph.
        allowed: how many of them the scope allows.
        limit: number of results.
        ef_search: candidates that find ten of all vectors at the target recall.
        efforts: limits, ascending, with the candidates that find so many; empty if they were not measured.
    """
    if not nodes:
        return MethodChoice("exact", 0, "no graph")
    if allowed <= limit:
        return MethodChoice("exact", 0, "no more allowed than the limit")
    if allowed < MIN_ALLOWED_SHARE * nodes:
        return MethodChoice("exact", 0, "few allowed")
    candidates = ef_search_for(ef_search, limit, efforts)
    if allowed < nodes:  # only the first part of the list counts, and it must hold the limit
        candidates = max(candidates, 2 * limit) * nodes // allowed
    if candidates >= nodes:
        return MethodChoice("exact", 0, "most of them needed")
    scanned_rows = min(nodes, GATHER_COST * allowed)
    if CANDIDATE_COST * candidates >= scanned_rows and (kind == "auto" or allowed < nodes):
        return MethodChoice("exact", 0, "exact is faster")
    return MethodChoice("graph", candidates, "all allowed" if allowed == nodes else "many allowed")


def ef_search_for(ef_search: int, limit: int, efforts: Sequence[tuple[int, int]] = ()) -> int:
    """Candidates that find *limit* neighbours at the recall at which *ef_search* finds ten.

    They are interpolated between the measured *efforts*; beyond the greatest limit they grow in proportion.
    """
    if len(efforts) < 2:
        return max(ef_search, ef_search * 2 // 3 + 2 * limit)
    lower = efforts[0]
    if limit <= lower[0]:
        return lower[1]
    for upper in efforts[1:]:
        if limit <= upper[0]:
            return lower[1] + -(-(upper[1] - lower[1]) * (limit - lower[0]) // (upper[0] - lower[0]))
        lower = upper
    return -(-lower[1] * limit // lower[0])


def complete_prefix(candidates: int) -> int:
    """How many entries of a list of *candidates*, from its start, are assumed to be the nearest."""
    return max(1, int(candidates * COMPLETE_SHARE))


def wants_graph(kind: IndexKind, vectors: int, dimension: int, *, has_graph: bool) -> tuple[bool, str]:
    """Whether an index of this size is to have a graph, and why. An existing graph is kept down to half the size.

    Returns:
        The decision, and its reason for `Stats.index_reason`.
    """
    if kind == "exact":
        return False, "requested"
    if kind == "graph":
        return vectors > 0, "requested"
    factor = 2 if has_graph else 1
    threshold = graph_threshold(dimension)
    if vectors * factor < MIN_GRAPH_VECTORS or vectors * dimension * factor < MIN_GRAPH_NUMBERS:
        return False, f"fewer than {threshold:,} vectors: exact search takes about a millisecond"
    return True, f"{threshold:,} vectors of this dimension or more"


def graph_threshold(dimension: int) -> int:
    """Vectors of a dimension from which on a graph pays."""
    return max(MIN_GRAPH_VECTORS, -(-MIN_GRAPH_NUMBERS // max(1, dimension)))


def next_task(
    *, graph_wanted: bool, nodes: int, unindexed: int, deleted: int, thorough: bool = False
) -> GraphTask | None:
    """What to do about a graph of *nodes*, *deleted* ones included, with *unindexed* entries outside of it.

    With *thorough*, small amounts of work count too.
    """
    if not graph_wanted:
        return "drop" if nodes else None
    if deleted >= (1 if thorough else REBUILD_MIN_DELETED) and deleted >= REBUILD_DELETED_SHARE * nodes:
        return "rebuild" if nodes else "drop"
    if not nodes:
        return "build" if unindexed >= (1 if thorough else MERGE_MIN) else None
    return "merge" if unindexed >= (1 if thorough else merge_threshold(nodes)) else None


def merge_threshold(nodes: int) -> int:
    """Unindexed entries from which on they are merged into a graph of *nodes*."""
    return int(min(max(MERGE_MIN, MERGE_SHARE * nodes), MERGE_MAX))

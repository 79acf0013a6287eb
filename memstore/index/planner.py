"""How a search is answered, and what the graph needs: decisions from numbers alone.

A graph that keeps `effort` candidates finds the nearest of *all* its vectors, in order. Under a filter the allowed
ones among them are the nearest allowed ones, as far down as the list can be trusted. So the list is made as much
longer as the filter is narrower, and whoever runs it answers exactly after all where too few of it were allowed:
no filter, however it lies to the query, costs results.
"""

from typing import Literal, NamedTuple

from memstore.config import IndexKind
from memstore.index.protocol import Method

WORTH = 10_000_000
"""Numbers (vectors times dimension) from which on a graph is worth its memory: exact search takes a millisecond."""

LEAST_WORTH = 5_000
"""Vectors from which on it is, however long they are."""

STEP = 40
"""One candidate more costs a graph as much time as an exact scan needs for so many rows one after the other."""

PICKED = 1.1
"""A row picked from a list costs an exact scan as much as so many one after the other."""

NARROWEST = 0.05
"""The share of its vectors under which a graph is not asked: the list would be too long to be trusted."""

TRUSTED = 0.75
"""How far down the list of candidates it is trusted to be whole, as a share of it."""

LADDER = (64, 80, 96, 128, 160, 192, 256, 384, 512, 768, 1_024)
"""Efforts that are tried, in turn, until a sample finds `ENOUGH` of its true neighbours."""

ENOUGH = 0.994
"""Recall that made-up queries are to reach (`measuring`): a little more than is promised, for they are a sample."""

TOO_FEW = 0.95
"""Recall under which a graph is of no use: these vectors have no neighbourhoods that a graph could follow."""

FOLD_LEAST, FOLD_MOST, FOLD_SHARE = 1_000, 10_000, 0.05
DEAD_LEAST, DEAD_SHARE = 1_000, 0.3
SNAPSHOT_SHARE = 0.1

Need = Literal["build", "fold", "rebuild", "drop"]


class Choice(NamedTuple):
    """By what to answer, keeping how many candidates, and why so."""

    method: Method
    effort: int
    reason: str


def choose(*, kind: IndexKind, nodes: int, allowed: int, limit: int, effort: int) -> Choice:
    """How to find *limit* among the *allowed* of a graph's *nodes*, of which *effort* finds ten in all of them.

    Args:
        kind: `"graph"` asks the graph whenever all may be found, `"auto"` only where it is also quicker.
        nodes: vectors in the graph; 0 for no graph.
        allowed: how many of them may be found.
        limit: how many are wanted.
        effort: candidates that find ten of all vectors at the stated recall.
    """
    if not nodes:
        return Choice("exact", 0, "no graph")
    if allowed <= limit:
        return Choice("exact", 0, "no more allowed than wanted")
    if allowed < NARROWEST * nodes:
        return Choice("exact", 0, "few allowed")
    candidates = effort_for(effort, limit) * nodes // allowed
    if candidates >= nodes:
        return Choice("exact", 0, "most of them wanted")
    scanned = min(nodes, PICKED * allowed)
    if STEP * candidates >= scanned and (kind == "auto" or allowed < nodes):
        return Choice("exact", 0, "exact is quicker")
    return Choice("graph", candidates, "all allowed" if allowed == nodes else "many allowed")


def effort_for(effort: int, limit: int) -> int:
    """Candidates that find *limit* neighbours as surely as *effort* finds ten."""
    return max(effort, effort * 2 // 3 + 2 * limit)


def trusted(candidates: int) -> int:
    """How many of a list of *candidates* are trusted to be the nearest there are."""
    return max(1, int(candidates * TRUSTED))


def wanted(kind: IndexKind, vectors: int, dimension: int, *, had: bool) -> tuple[bool, str]:
    """Whether so many vectors are to have a graph, one they *had* being kept down to half the size; and why."""
    if kind == "exact":
        return False, "asked for"
    if kind == "graph":
        return vectors > 0, "asked for"
    share = 2 if had else 1
    if vectors * share < LEAST_WORTH or vectors * dimension * share < WORTH:
        return False, f"fewer than {worth(dimension):,} vectors: exact search takes about a millisecond"
    return True, f"{worth(dimension):,} vectors of this dimension or more"


def worth(dimension: int) -> int:
    """From how many vectors on a graph is worth it."""
    return max(LEAST_WORTH, -(-WORTH // dimension))


def need(*, wanted: bool, nodes: int, tail: int, dead: int, whole: bool = False) -> Need | None:
    """What is to be done about a graph of *nodes*, *dead* ones among them, beside a *tail* that is in none.

    With *whole* nothing is too little.
    """
    if not wanted:
        return "drop" if nodes else None
    if dead >= (1 if whole else DEAD_LEAST) and dead >= DEAD_SHARE * nodes:
        return "rebuild" if nodes else "drop"
    if not nodes:
        return "build" if tail >= (1 if whole else FOLD_LEAST) else None
    return "fold" if tail >= (1 if whole else fold_from(nodes)) else None


def fold_from(nodes: int) -> int:
    """The tail from which on it is folded into a graph of *nodes*."""
    return int(min(max(FOLD_LEAST, FOLD_SHARE * nodes), FOLD_MOST))

"""Calibration: how many candidates a search of a graph needs, measured on sample queries.

Sample queries are of four kinds, which are measured together and each for itself:

* *held out*: stored vectors that are not linked yet. They are what a user asks with.
* *moved*: linked vectors, moved in a random direction by three quarters of the distance to another one. A stored vector
  itself would be too easy: it is its own nearest neighbour, and linked to the next one. On a corpus with 2,000 held-out
  queries, recall of moved and held-out queries was 0.993 and 0.989 at ef 64, 0.996 and 0.995 at 96.
* *rare* and *duplicated*: outliers and vectors with few links to them, and vectors that have duplicates, moved little.
  The neighbours of a vector far from all others are about equally far. So only the nearest one is looked for, and these
  queries are no part of the recall that is stated.

For each of `LIMITS`, searches use the smallest `ef_search` that reaches the target recall; limits in between
interpolate. True neighbours are live vectors only. A limit for which no affordable `ef_search` reaches
`planner.MIN_USEFUL_RECALL` is searched exactly.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from memstore.index import planner
from memstore.index.exact import nearest_positions
from memstore.index.folding import beside
from memstore.index.hnsw import GraphLinks
from memstore.index.protocol import Engine, Mask, StoredRows, VectorStorage
from memstore.index.walk import Walk
from memstore.vectors.arrays import Doubles, Keys, Rows, row_norms
from memstore.vectors.hyperbolic import geodesic_step
from memstore.vectors.metrics import distances, index_form, scores, valid_rows
from memstore.vectors.space import Ball

SAMPLE_SIZE = 300
"""Moved vectors of a full calibration; a check takes a quarter."""

LIMIT = 10
"""The limit of the recall that `Stats` gives."""

LIMITS = (LIMIT, 100, 1_000)
"""Limits of searches for which recall is measured."""

_RARE, _DUPLICATED = 40, 40
_HELD_OUT, _MOVED = _PLAIN = (0, 1)  # kinds of queries whose neighbours are all looked for
_LARGE_LIMIT, _LARGE_SAMPLE = 1_000, 60  # for a limit from this one on, a smaller sample has as many neighbours
_BATCH = 50  # queries compared exactly at a time
_STEP_SHARE = 0.75  # distance of a query from its stored vector, as a share of the distance to another one
_TIE = 1e-6  # relative difference up to which a score counts as equal to the worst true one
_GROWTH = 1.2  # a graph that has grown by this factor is calibrated again
_CHECK_SLACK = 0.004  # recall may be lower than the target by this in a check, whose sample is smaller
_MOSTLY_NEW = 0.5  # share of new nodes from which on the held-out vectors stand for the graph
_FOUND_SHARE = 0.98  # share of the rare and duplicated vectors that must be found
_MAX_EFFORT = 16  # a limit is searched with at most this many times as many candidates


class Effort(NamedTuple):
    """What a search for *limit* needs: candidates, and the recall that they reached."""

    limit: int
    ef_search: int
    recall: float


class Calibration(NamedTuple):
    """How a graph is searched.

    Attributes:
        ef_search: candidates that a search for ten keeps.
        recall: share of the ten true neighbours that it finds; None if it was not measured.
        nodes: size of the graph on which it was measured; 0 if unknown, which lets the next graph be measured.
        efforts: by limit, ascending; empty if they were not measured.
    """

    ef_search: int
    recall: float | None
    nodes: int
    efforts: tuple[Effort, ...] = ()

    def candidates(self, limit: int) -> int:
        """Candidates that a search for *limit* keeps."""
        return planner.ef_search_for(self.ef_search, limit, self.steps())

    def steps(self) -> list[tuple[int, int]]:
        """Limits with the candidates that they need, for `planner.ef_search_for`."""
        return [effort[:2] for effort in self.efforts]

    def recall_at(self, limit: int) -> float | None:
        """The measured recall at the first limit that is not below *limit*, or at the greatest; None if unknown."""
        for effort in self.efforts:
            if effort.limit >= limit:
                return effort.recall
        return self.efforts[-1].recall if self.efforts else self.recall

    def is_useful(self, limit: int) -> bool:
        """Whether a search for *limit* reaches `planner.MIN_USEFUL_RECALL`; also if its effort was not measured."""
        return not self.efforts or (self.recall_at(limit) or 0.0) >= planner.MIN_USEFUL_RECALL


class Corpus(NamedTuple):
    """What recall is measured on.

    Attributes:
        walk: the graph with its coverage.
        engine: compares the vectors.
        storage: the vectors.
        live: which positions are not deleted, at least of all nodes.
        width: the dimension of the vectors, without the component that lifts them to a sphere.
    """

    walk: Walk
    engine: Engine
    storage: VectorStorage
    live: Mask
    width: int

    @property
    def rows(self) -> StoredRows:
        """The vectors of the nodes."""
        return self.storage.rows[: self.walk.graph.nodes]

    def distinct(self) -> Keys:
        """Positions of the live nodes, of equal ones one."""
        live = self.live[: self.walk.graph.nodes].copy()
        duplicates = self.walk.coverage.duplicates
        live[duplicates[duplicates < len(live)]] = False
        return np.flatnonzero(live)


class SampleSources(NamedTuple):
    """Positions of which sample queries are made.

    Attributes:
        held_out: vectors that are no nodes yet.
        few_links: nodes that few links lead to.
        duplicated: nodes that have duplicates.
        new_share: share of the graph's nodes that are as new as the held-out vectors.
    """

    held_out: Keys
    few_links: Keys
    duplicated: Keys
    new_share: float


class Sample(NamedTuple):
    """Queries with the scores of their true neighbours.

    Attributes:
        queries: float32, shape (q, width of the storage), in index form.
        kinds: the number of the kind of each query: int64, shape (q,).
        scores: of the nearest live vectors, best first: for each query float64, shape (n,).
        new_share: share of the graph's nodes that are like the held-out vectors.
    """

    queries: Rows
    kinds: Keys
    scores: list[Doubles]
    new_share: float = 1.0


def calibrate(
    corpus: Corpus,
    links: GraphLinks,
    sources: SampleSources,
    previous: Calibration | None,
    *,
    fixed: int | None,
) -> Calibration:
    """Choose the candidates of searches of a graph.

    The *previous* calibration is kept if the graph has grown little and a small sample confirms it.

    Args:
        corpus: what is searched.
        links: of the graph.
        sources: of which vectors sample queries are made.
        previous: of the graph before; None for a new one.
        fixed: the `ef_search` that the user wants; None to measure.
    """
    nodes = corpus.walk.graph.nodes
    is_check = previous is not None and previous.recall is not None and nodes < _GROWTH * previous.nodes
    sizes = SAMPLE_SIZE // 4 if is_check else SAMPLE_SIZE
    queries, kinds = _queries(corpus, links, sources, sizes)
    limits = LIMITS[:2] if is_check else LIMITS
    sample = measure_truth(corpus, queries, kinds, _affordable(limits, nodes), sources.new_share)
    if previous is not None and is_check:
        result = find_recall(corpus, sample, LIMIT, previous.candidates(LIMIT), _CHECK_SLACK)
        wide = LIMITS[1]
        is_enough = result.is_enough and (
            not _reaches(sample, wide)
            or find_recall(corpus, sample, wide, previous.candidates(wide), _CHECK_SLACK).is_enough
        )
        if fixed is not None or is_enough:
            return previous._replace(recall=result.recall)
        queries, kinds = _queries(corpus, links, sources, SAMPLE_SIZE)
        sample = measure_truth(corpus, queries, kinds, _affordable(LIMITS, nodes), sources.new_share)
    if fixed is not None:
        return Calibration(fixed, find_recall(corpus, sample, LIMIT, fixed).recall, nodes)
    return measure_efforts(corpus, sample)


def measure_efforts(corpus: Corpus, sample: Sample, at_least: Calibration | None = None) -> Calibration:
    """The least candidates that reach the target recall on *sample* for each limit, not below those of *at_least*."""
    efforts: list[Effort] = []
    nodes = corpus.walk.graph.nodes
    for limit in LIMITS:
        if limit > 10 and not _reaches(sample, limit):
            break
        lowest = max(limit if limit > 10 else 0, efforts[-1].ef_search if efforts else 0)
        if at_least is not None:
            lowest = max(lowest, at_least.candidates(limit))
        effort = _find_effort(corpus, sample, limit, lowest)
        efforts.append(effort)
        if effort.recall < planner.MIN_USEFUL_RECALL:
            break
    return Calibration(efforts[0].ef_search, efforts[0].recall, nodes, tuple(efforts))


def _find_effort(corpus: Corpus, sample: Sample, limit: int, lowest: int) -> Effort:
    nodes = corpus.walk.graph.nodes
    steps = [step for step in planner.EF_SEARCH_STEPS if step >= lowest]
    if limit > 10:
        steps = sorted({min(int(lowest * factor), _MAX_EFFORT * limit) for factor in planner.EFFORT_FACTORS})
    ef_search, recall = lowest, 0.0
    for ef_search in steps or [lowest]:
        recall, is_enough = find_recall(corpus, sample, limit, ef_search)
        if is_enough or ef_search >= nodes:
            break
    return Effort(limit, ef_search, recall)


def _reaches(sample: Sample, limit: int) -> bool:
    return bool(sample.scores) and max(map(len, sample.scores)) >= limit


class RecallResult(NamedTuple):
    """The recall of a sample, and whether it reaches the targets."""

    recall: float
    is_enough: bool


def find_recall(corpus: Corpus, sample: Sample, limit: int, ef_search: int, slack: float = 0.0) -> RecallResult:
    """Recall at *limit* with *ef_search* candidates; it may be lower than the targets by *slack*.

    Of the rare and duplicated vectors one may be missed, because the sample can be small.
    """
    selected = np.arange(len(sample.queries))
    if limit >= _LARGE_LIMIT:
        selected = selected[:: max(1, len(selected) // _LARGE_SAMPLE)]
    kinds = sample.kinds[selected]
    truth = [sample.scores[i][: limit if kind in _PLAIN else 1] for i, kind in zip(selected, kinds, strict=True)]
    shares = recalls(corpus, sample.queries[selected], truth, limit, ef_search)
    held_out, moved, others = shares[kinds == _HELD_OUT], shares[kinds == _MOVED], shares[kinds > _MOVED]
    held_out_recall = float(held_out.mean()) if len(held_out) else 1.0
    moved_recall = float(moved.mean()) if len(moved) else held_out_recall
    weight = sample.new_share / 2 if len(held_out) else 0.0
    recall = weight * held_out_recall + (1 - weight) * moved_recall
    reaches = recall >= planner.TARGET_RECALL - slack
    if sample.new_share > _MOSTLY_NEW:
        is_promised = held_out_recall >= planner.HELD_OUT_RECALL - slack
        reaches = moved_recall >= planner.TARGET_RECALL - slack and is_promised
    is_found = not len(others) or (float(others.sum()) + 1) / len(others) >= _FOUND_SHARE
    return RecallResult(recall, reaches and is_found)


def recalls(corpus: Corpus, queries: Rows, true_scores: Sequence[Doubles], limit: int, ef_search: int) -> Doubles:
    """The share of the true neighbours of each query, *limit* or fewer, that a walk finds.

    Args:
        corpus: what is searched.
        queries: float32, shape (q, width of the storage), in index form.
        true_scores: of the neighbours that a walk is to find, best first, for each query.
        limit: number of results of a walk.
        ef_search: its candidates, if no node is deleted.
    """
    walk, rows = corpus.walk, corpus.storage.rows
    nodes = walk.graph.nodes
    live = corpus.live[:nodes]
    mask = None if live.all() else live
    if mask is not None:
        ef_search = min(nodes, ef_search * nodes // max(1, int(np.count_nonzero(live))))
    shares = np.ones(len(queries))
    for i, positions in enumerate(walk.candidates(corpus.engine, queries, limit, ef_search, mask)):
        truth = true_scores[i]
        if positions is None or not len(truth):
            continue  # such a search is repeated exactly
        worst = truth[-1]
        values = scores(walk.metric, queries[i], rows[positions])
        shares[i] = min(len(truth), int(np.count_nonzero(values >= worst - _TIE * abs(worst)))) / len(truth)
    return shares


def _affordable(limits: Sequence[int], nodes: int) -> list[int]:
    """Those of *limits* that a graph of this size can be searched for."""
    return [limit for limit in limits if limit <= max(LIMIT, nodes // 10)]


def measure_truth(corpus: Corpus, queries: Rows, kinds: Keys, limits: Sequence[int], new_share: float = 1.0) -> Sample:
    """The scores of the true neighbours of *queries*, as many as the greatest of *limits*."""
    positions, walk = corpus.distinct(), corpus.walk
    limit = min(max(limits), len(positions))
    true_scores: list[Doubles] = []
    every = None if len(positions) == walk.graph.nodes else positions
    for i in range(0, len(queries) if limit else 0, _BATCH):
        batch = queries[i : i + _BATCH]
        nearest = nearest_positions(
            corpus.engine, walk.metric, batch, limit, corpus.storage, range(walk.graph.nodes), every, walk.norm
        )
        for query, candidates in zip(batch, nearest, strict=True):
            values = scores(walk.metric, query, corpus.storage.rows[candidates])
            true_scores.append(np.sort(values)[::-1][:limit])
    return Sample(queries[: len(true_scores)], kinds[: len(true_scores)], true_scores, new_share)


def _queries(corpus: Corpus, links: GraphLinks, sources: SampleSources, size: int) -> tuple[Rows, Keys]:
    """Sample queries of all kinds, and the number of the kind of each."""
    walk, coverage = corpus.walk, corpus.walk.coverage
    rng = np.random.default_rng(walk.graph.nodes)
    live = corpus.distinct()
    kinds = [_as_queries(corpus, corpus.storage.rows[sources.held_out[:size]]), _moved(corpus, rng, live, size)]
    is_live = np.zeros(walk.graph.nodes, dtype=np.bool_)
    is_live[live] = True
    outliers = coverage.outliers[coverage.outliers < walk.graph.nodes]
    for nodes, count in ((outliers, _RARE), (sources.few_links, _RARE), (sources.duplicated, _DUPLICATED)):
        nodes = nodes[is_live[nodes]]
        nodes = np.sort(rng.choice(nodes, min(count, len(nodes)), replace=False))
        if len(nodes):
            node_links = links.lowest_links(nodes, walk.graph.options.m)
            kinds.append(_as_queries(corpus, beside(walk.metric, corpus.rows, nodes, node_links, rng)[0]))
    numbers = [np.full(len(queries), kind, dtype=np.int64) for kind, queries in enumerate(kinds)]
    return np.concatenate(kinds), np.concatenate(numbers)


def _as_queries(corpus: Corpus, rows: StoredRows) -> Rows:
    """The valid ones of *rows*, which can be lifted to a sphere, as queries."""
    queries = np.array(rows, dtype=np.float32)
    queries[:, corpus.width :] = 0.0
    metric = corpus.walk.metric
    return np.ascontiguousarray(index_form(metric, queries[valid_rows(metric, queries)]))


def _moved(corpus: Corpus, rng: "np.random.Generator", live: Keys, size: int) -> Rows:
    """Live vectors moved by three quarters of the distance to another one."""
    metric = corpus.walk.metric
    starts, others = (live[np.sort(rng.choice(len(live), min(size, len(live)), replace=False))] for _ in range(2))
    if isinstance(metric, Ball):
        return _moved_in_ball(metric, corpus, rng, starts)
    points = corpus.rows[starts].astype(np.float64)[:, : corpus.width]
    steps = rng.standard_normal(points.shape)
    targets = corpus.rows[others[rng.permutation(len(others))]].astype(np.float64)[:, : corpus.width]
    steps *= _STEP_SHARE * (row_norms(points - targets) / row_norms(steps))[:, None]
    queries = np.zeros((len(points), corpus.rows.shape[1]), dtype=np.float32)
    with np.errstate(over="ignore"):
        queries[:, : corpus.width] = points + steps
    return _as_queries(corpus, queries)


def _moved_in_ball(ball: Ball, corpus: Corpus, rng: "np.random.Generator", starts: Keys) -> Rows:
    """Vectors in the ball moved by three quarters of the distance to their tenth neighbour.

    The distance to any other vector would be too far from all of them, because volume grows exponentially.
    """
    rows = np.ascontiguousarray(corpus.rows[starts])
    reach = []
    for i in range(0, len(rows), _BATCH):
        batch, span = rows[i : i + _BATCH], range(corpus.walk.graph.nodes)
        limit = min(10, len(span))
        for row, positions in zip(
            batch, nearest_positions(corpus.engine, ball, batch, limit, corpus.storage, span, None), strict=True
        ):
            reach.append(np.partition(distances(ball, row, corpus.rows[positions]), limit - 1)[limit - 1])
    return geodesic_step(ball, rows, rng.standard_normal(rows.shape), _STEP_SHARE * np.array(reach))

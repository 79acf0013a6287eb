"""Observation: queries that the graph answered, answered exactly as well.

The exact answer reads the pinned rows of the graph's nodes without the lock. If the graph was replaced meanwhile, the
comparison does not count.
"""

import time
from typing import NamedTuple

import numpy as np

from memstore.index.exact import nearest_positions
from memstore.index.hybrid import HybridIndex
from memstore.index.protocol import Mask, VectorStorage
from memstore.index.recall import Calibration, Corpus, Sample, measure_efforts, measure_truth, recalls
from memstore.index.samples import Observation, QuerySample
from memstore.index.walk import Walk
from memstore.models.records import RecordKind
from memstore.sync.index_set import IndexSet
from memstore.vectors.arrays import Doubles, Keys
from memstore.vectors.metrics import scores

_MOST_QUERIES = 60  # the last observed queries that a calibration measures
_TIE = 1e-6  # relative difference up to which a score counts as equal to the worst true one


class _Answered(NamedTuple):
    """A sampled query with the scores of what the graph found for it, and the state in which it did."""

    sample: QuerySample
    walk: Walk
    storage: VectorStorage
    live: Mask
    positions: Keys | None
    scores: Doubles


def observe(indexes: IndexSet, kind: RecordKind, index: HybridIndex) -> Calibration | None:
    """Compare the graph with an exact search for the next sampled query. Runs on a thread.

    Returns:
        The calibration that *index* has from now on, if what was observed changed it.
    """
    start = time.monotonic()
    sample = index.samples.take()
    if sample is None:
        return None
    answered = _answer(indexes, kind, index, sample)
    recall = None if answered is None else _recall(indexes, index, answered)
    with indexes.lock.shared():
        is_current = answered is not None and index.graph is answered.walk.graph
    index.samples.record(sample, recall if is_current else None, time.monotonic() - start)
    if answered is None or not is_current or not index.samples.too_low():
        return None
    return _raise_effort(indexes, kind, index, answered)


def _answer(indexes: IndexSet, kind: RecordKind, index: HybridIndex, sample: QuerySample) -> _Answered | None:
    """What the graph answers now; None if it does not answer such a query any more."""
    with indexes.lock.shared():
        walk, calibration = index.walk(), index.calibration
        if walk is None or calibration is None or indexes.by_kind.get(kind) is not index:
            return None
        nodes = walk.graph.nodes
        positions, live = index.table.allowed(sample.scope), index.table.live[:nodes].copy()
        if positions is not None:
            positions = positions[: np.searchsorted(positions, nodes)]
        allowed = nodes if positions is None else len(positions)
        choice = index.choose_method(calibration, allowed, sample.limit)
        if choice.name == "exact" or allowed == 0:
            return None
        mask = None
        if positions is not None:
            mask = np.zeros(nodes, dtype=np.bool_)
            mask[positions] = True
        query = sample.query[None]
        (candidates,) = walk.candidates(indexes.engine, query, sample.limit, choice.candidates, mask)
        if candidates is None:
            return None
        values = scores(index.metric, sample.query, index.table.storage.rows[candidates])
        return _Answered(sample, walk, index.table.storage, live, positions, values)


def _recall(indexes: IndexSet, index: HybridIndex, answered: _Answered) -> float:
    """The share of the true neighbours among what the graph found."""
    sample, walk, nodes = answered.sample, answered.walk, answered.walk.graph.nodes
    positions = answered.positions
    if positions is not None and len(positions) == nodes:
        positions = None
    limit = min(sample.limit, nodes if positions is None else len(positions))
    (nearest,) = nearest_positions(
        indexes.engine, index.metric, sample.query[None], limit, answered.storage, range(nodes), positions, walk.norm
    )
    truth = np.sort(scores(index.metric, sample.query, answered.storage.rows[nearest]))[::-1][:limit]
    worst = truth[-1]
    return min(limit, int(np.count_nonzero(answered.scores >= worst - _TIE * abs(worst)))) / limit


def _raise_effort(indexes: IndexSet, kind: RecordKind, index: HybridIndex, answered: _Answered) -> Calibration | None:
    """Raise the candidates of searches so that the observed queries reach the target; None if they cannot change."""
    calibration = index.calibration
    if calibration is None or indexes.options.graph.ef_search is not None:
        return None
    observed = index.samples.observations()[-_MOST_QUERIES:]
    queries = np.stack([observation.sample.query for observation in observed])
    limits = [10, 100, *(observation.sample.limit for observation in observed)]
    corpus = Corpus(answered.walk, indexes.engine, answered.storage, answered.live, index.dimension)
    kinds = np.zeros(len(queries), dtype=np.int64)
    sample = measure_truth(corpus, queries, kinds, [min(limit, answered.walk.graph.nodes) for limit in limits])
    measured = measure_efforts(corpus, sample, at_least=calibration)
    efforts = [*measured.efforts]
    for effort in calibration.efforts[len(efforts) :]:  # of greater limits, which nobody asked for
        if measured.is_useful(efforts[-1].limit):
            efforts.append(effort._replace(ef_search=max(effort.ef_search, efforts[-1].ef_search)))
    changed = calibration._replace(ef_search=measured.ef_search, recall=calibration.recall, efforts=tuple(efforts))
    with indexes.lock.exclusive():
        if indexes.by_kind.get(kind) is not index or index.graph is not answered.walk.graph:
            return None
        index.calibration = changed
    index.samples.replace(_measured_again(corpus, sample, observed, changed))
    return changed


def _measured_again(
    corpus: Corpus, sample: Sample, observed: list[Observation], calibration: Calibration
) -> list[Observation]:
    """*observed* with the recall that the queries have under *calibration*, of all live vectors."""
    again = []
    for i, observation in enumerate(observed):
        limit = observation.sample.limit
        (recall,) = recalls(
            corpus, sample.queries[i : i + 1], [sample.scores[i][:limit]], limit, calibration.candidates(limit)
        )
        again.append(Observation(observation.sample, float(recall)))
    return again

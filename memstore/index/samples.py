"""Samples of the queries that a graph answered, and its recall for them.

Calibration measures with queries like the stored vectors. Queries of another distribution, as two-tower and image-text
encoders give them, can need more candidates; only real queries show it. So a small share of them is answered exactly as
well, in the background, and the candidates of searches follow (see `sync.maintainer`).
"""

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from memstore.index import planner
from memstore.index.protocol import SearchScope
from memstore.vectors.arrays import Rows

SHARE = 50
"""One in this many queries that a graph answered is answered exactly as well."""

MAX_TIME_SHARE = 0.03
"""Exact answers take at most this share of the time of one processor."""

MAX_LIMIT = 1_000  # searches for more results are not sampled
_PENDING = 8  # queries that wait for their exact answer; others are skipped
_WINDOW = 200  # observations that the recall is the mean of
_FEW, _LOW_RECALL = 8, planner.MIN_USEFUL_RECALL  # with at least so many observations, a lower mean is acted upon
_MANY, _LOWER_SLACK = 32, 0.01  # with at least so many, a mean lower than the target by this


class QuerySample(NamedTuple):
    """A query that the graph answered: float32, shape (width of the storage), in index form; limit and scope."""

    query: Rows
    limit: int
    scope: SearchScope


class Observation(NamedTuple):
    """A sample with the share of its true neighbours that the graph found."""

    sample: QuerySample
    recall: float


class QuerySamples:
    """The queries of one index that wait for an exact answer, and the recall of those that had one.

    Attributes:
        pending: whether a query waits. An attribute, because every search reads it.
    """

    def __init__(self) -> None:
        self.pending = False
        self._lock = threading.Lock()
        self._countdown = 1
        self._not_before = 0.0
        self._new = 0  # observations since the effort was changed
        self._queue: deque[QuerySample] = deque()
        self._observations: deque[Observation] = deque(maxlen=_WINDOW)

    def offer(self, queries: Rows, limit: int, scope: SearchScope) -> None:
        """Count *queries*, which the graph answered, and keep the one whose turn it is."""
        self._countdown -= len(queries)  # without the lock: a lost count does not matter
        if self._countdown > 0 or limit > MAX_LIMIT:
            return
        with self._lock:
            while self._countdown <= 0:
                query = queries[-self._countdown % len(queries)]
                self._countdown += SHARE
                if len(self._queue) < _PENDING and time.monotonic() >= self._not_before:
                    self._queue.append(QuerySample(query.copy(), limit, scope))
            self.pending = bool(self._queue)

    def take(self) -> QuerySample | None:
        """A query that waits for its exact answer; None if none does."""
        with self._lock:
            sample = self._queue.popleft() if self._queue else None
            self.pending = bool(self._queue)
            return sample

    def record(self, sample: QuerySample, recall: float | None, seconds: float) -> None:
        """Record that the exact answer took *seconds*, and the *recall* of the graph; None for no comparison."""
        with self._lock:
            self._not_before = time.monotonic() + seconds / MAX_TIME_SHARE
            if recall is not None:
                self._observations.append(Observation(sample, recall))
                self._new += 1

    def observations(self) -> list[Observation]:
        """The last observations."""
        with self._lock:
            return list(self._observations)

    def replace(self, observations: Sequence[Observation]) -> None:
        """Replace the observations by those of another effort."""
        with self._lock:
            self._observations = deque(observations, maxlen=_WINDOW)
            self._new = 0

    @property
    def recall(self) -> float | None:
        """The mean recall of the last observations; None if there are none."""
        observed = self.observations()
        return float(np.mean([observation.recall for observation in observed])) if observed else None

    def too_low(self) -> bool:
        """Whether the observed recall is lower than the target by more than chance explains."""
        recall, count = self.recall, len(self._observations)
        if recall is None or self._new < _FEW:
            return False
        return recall < _LOW_RECALL or (count >= _MANY and recall < planner.TARGET_RECALL - _LOWER_SLACK)

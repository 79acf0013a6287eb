"""Composite vectors: a running mean of members."""

from dataclasses import dataclass

import numpy as np

from memstore.models.records import Embedding
from memstore.vectors.arrays import Rows, Wide, lengths
from memstore.vectors.hyperbolic import _INSIDE, _heights
from memstore.vectors.metrics import index_form, usable
from memstore.vectors.space import DIRECTIONS, Ball, Measure

CANCELLED = 1e-6
"""A mean shorter than this share of its members' mean length has no meaning left, only rounding."""


def resolution(metric: Measure, vector: Embedding) -> float:
    """The length against which to measure how far a computed mean is off.

    That of *vector* itself; in the ball, where members on all sides have a mean at the origin, not less than what their
    rounding leaves of it.
    """
    length = float(np.linalg.norm(vector.astype(np.float64)))
    return max(length, CANCELLED * metric.radius) if isinstance(metric, Ball) else length


@dataclass(slots=True)
class Mean:
    """A mean that grows: what a composite is computed from.

    In the ball it is the Einstein midpoint: with γ = (1 + c|x|²) / (1 - c|x|²), the factors of the members in the Klein
    model, and there their mean weighted by them (Ungar, Analytic Hyperbolic Geometry, 2005). It is the point from
    which the sum of cosh(sqrt(c) d) - 1 is least, and lies half way between two.

    Attributes:
        total: the sum of the members' vectors in index form, float64, shape (dimension,); in the ball, of γ times
            their vectors in the Klein model, of radius 1.
        length: the sum of their lengths; in the ball, of γ.
        count: how many.
    """

    total: Wide
    length: float = 0.0
    count: int = 0

    def add(self, metric: Measure, rows: Rows) -> None:
        """Take in more members: float32, shape (n, dimension), as stored.

        They are summed one after the other, in the order given, so that the same members in the same order
        give the same bits however they are cut into calls.
        """
        wide = index_form(metric, rows).astype(np.float64)
        if isinstance(metric, Ball):
            heights = _heights(metric, wide)
            sizes = (2.0 - heights) / heights
            wide *= (2.0 * np.sqrt(metric.curvature) / heights)[:, None]
        else:
            sizes = lengths(wide)
        self.length = float(np.add.accumulate(np.concatenate([[self.length], sizes]))[-1])
        for row in wide:
            self.total += row
        self.count += len(rows)

    def vector(self, metric: Measure) -> Embedding | None:
        """The composite: the mean, under cosine and spherical at length 1.

        None when there is none or the members cancel out, as antipodes on the sphere do; in the ball they never do.
        """
        if self.count == 0:
            return None
        mean = self._in_ball(metric) if isinstance(metric, Ball) else self._flat(metric)
        if mean is None:
            return None
        vector: Embedding = mean.astype(np.float32)
        if isinstance(metric, Ball) and not usable(metric, vector[None])[0]:
            vector = (mean * (_INSIDE * metric.radius / np.linalg.norm(mean))).astype(np.float32)
        vector.flags.writeable = False
        return vector

    def _flat(self, metric: Measure) -> Wide | None:
        mean = self.total / self.count
        length = float(np.sqrt((mean * mean).sum()))
        if length < CANCELLED * (self.length / self.count):
            return None
        return mean / length if metric in DIRECTIONS else mean

    def _in_ball(self, ball: Ball) -> Wide:
        far = float(np.sqrt((self.total * self.total).sum()))
        rest = np.sqrt(max((self.length - far) * (self.length + far), 0.0))
        mean: Wide = self.total * (ball.radius / (self.length + rest))  # from the Klein model, of radius 1
        return mean

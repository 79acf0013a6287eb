"""Composite vectors: a running mean of members."""

from dataclasses import dataclass

import numpy as np

from memstore.models.records import Embedding
from memstore.vectors.arrays import Doubles, Rows, row_norms
from memstore.vectors.hyperbolic import CLAMPED_RADIUS, boundary_gaps
from memstore.vectors.metrics import index_form, valid_rows
from memstore.vectors.space import ANGULAR_METRICS, Ball, Measure

CANCELLATION_LIMIT = 1e-6
"""A mean shorter than this share of the mean norm of its members is rounding noise, and counts as no mean."""


def tolerance_scale(metric: Measure, vector: Embedding) -> float:
    """The norm relative to which the error of a computed mean *vector* is measured.

    It is the norm of *vector*. In the ball the mean of members on all sides is near the origin, so the scale has a
    lower bound there: the norm that rounding of the members can cause.
    """
    norm = float(np.linalg.norm(vector.astype(np.float64)))
    return max(norm, CANCELLATION_LIMIT * metric.radius) if isinstance(metric, Ball) else norm


@dataclass(slots=True)
class Mean:
    """A running mean, from which a composite is computed.

    In the ball it is the Einstein midpoint: the members are weighted by γ = (1 + c|x|²) / (1 - c|x|²), their Lorentz
    factors in the Klein model, and averaged there (Ungar, Analytic Hyperbolic Geometry, 2005). The midpoint minimises
    the sum of cosh(sqrt(c) d) - 1, and of two members it is the geodesic midpoint.

    Attributes:
        total: sum of the members' vectors in index form, float64, shape (dimension,); in the ball the sum of γ times
            their vectors in the Klein model of radius 1.
        length: sum of their norms; in the ball the sum of γ.
        count: number of members.
    """

    total: Doubles
    length: float = 0.0
    count: int = 0

    def add(self, metric: Measure, rows: Rows) -> None:
        """Add members: float32, shape (n, dimension), as stored.

        Members are summed one by one in the order given. So the same members in the same order give the same bits,
        however they are split into calls.
        """
        points = index_form(metric, rows).astype(np.float64)
        if isinstance(metric, Ball):
            gaps = boundary_gaps(metric, points)
            weights = (2.0 - gaps) / gaps
            points *= (2.0 * np.sqrt(metric.curvature) / gaps)[:, None]
        else:
            weights = row_norms(points)
        self.length = float(np.add.accumulate(np.concatenate([[self.length], weights]))[-1])
        for point in points:
            self.total += point
        self.count += len(rows)

    def vector(self, metric: Measure) -> Embedding | None:
        """The composite: float32, shape (dimension,), read-only; of norm 1 under cosine and spherical.

        None for no members, and for members that cancel out, such as antipodes on the sphere. In the ball members
        never cancel out.
        """
        if self.count == 0:
            return None
        mean = self._ball_mean(metric) if isinstance(metric, Ball) else self._euclidean_mean(metric)
        if mean is None:
            return None
        vector: Embedding = mean.astype(np.float32)
        if isinstance(metric, Ball) and not valid_rows(metric, vector[None])[0]:
            vector = (mean * (CLAMPED_RADIUS * metric.radius / np.linalg.norm(mean))).astype(np.float32)
        vector.flags.writeable = False
        return vector

    def _euclidean_mean(self, metric: Measure) -> Doubles | None:
        mean = self.total / self.count
        norm = float(np.sqrt((mean * mean).sum()))
        if norm < CANCELLATION_LIMIT * (self.length / self.count):
            return None
        return mean / norm if metric in ANGULAR_METRICS else mean

    def _ball_mean(self, ball: Ball) -> Doubles:
        norm = float(np.sqrt((self.total * self.total).sum()))
        # sqrt(length² - norm²), factored because the difference of squares would cancel.
        root = np.sqrt(max((self.length - norm) * (self.length + norm), 0.0))
        mean: Doubles = self.total * (ball.radius / (self.length + root))  # from the Klein model of radius 1
        return mean

"""`Space`: the dimension and metric of a file's vectors, fixed when the file is created."""

import math
from dataclasses import dataclass
from typing import Literal

Metric = Literal["cosine", "inner_product", "l2", "spherical", "hyperbolic"]

MAX_DIMENSION = 65_536
MIN_CURVATURE, MAX_CURVATURE = 1e-6, 1e6

EDGE = 1e-5
"""Relative width of the shell at the boundary of the ball that holds no vector: float32 cannot resolve it."""


@dataclass(frozen=True, slots=True)
class Ball:
    """The Poincaré ball of curvature -*curvature*.

    Attributes:
        curvature: curvature magnitude c > 0 (the curvature is -c).
    """

    curvature: float = 1.0

    @property
    def radius(self) -> float:
        """Euclidean radius of the ball, 1/sqrt(c)."""
        return 1.0 / math.sqrt(self.curvature)

    @property
    def max_norm(self) -> float:
        """Largest Euclidean norm that a stored vector may have."""
        return (1.0 - EDGE) * self.radius


Measure = Literal["cosine", "inner_product", "l2", "spherical"] | Ball
"""What vectors are compared by: the name of the metric, or for `"hyperbolic"` the ball with its curvature."""

ANGULAR_METRICS: tuple[Measure, ...] = ("cosine", "spherical")
"""Metrics that depend on direction only. Vectors are compared at norm 1, and a zero vector is invalid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What the vectors of a file are.

    Attributes:
        dimension: numbers per vector.
        metric: how they are compared.
        embedder: name of the embedder that computed them; None while none is recorded.
        curvature: curvature magnitude c > 0 of the Poincaré ball (the curvature is -c); None for other metrics.
    """

    dimension: int
    metric: Metric
    embedder: str | None = None
    curvature: float | None = None

    @property
    def measure(self) -> Measure:
        """What the functions of `memstore.vectors.metrics` compare them by."""
        if self.metric == "hyperbolic":
            return Ball() if self.curvature is None else Ball(self.curvature)
        return self.metric

    @property
    def allow_zero(self) -> bool:
        """Whether a zero vector is valid."""
        return self.metric not in ANGULAR_METRICS

    @property
    def max_norm(self) -> float | None:
        """Largest Euclidean norm of a vector; None for no limit."""
        if self.metric != "hyperbolic":
            return None
        return (Ball() if self.curvature is None else Ball(self.curvature)).max_norm

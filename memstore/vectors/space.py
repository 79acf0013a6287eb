"""`Space`: the dimension and metric of a file's vectors, fixed when the file is created."""

import math
from dataclasses import dataclass, field
from typing import Literal

Metric = Literal["cosine", "inner_product", "l2", "spherical", "hyperbolic"]

MAX_DIMENSION = 65_536
NO_DIMENSION = MAX_DIMENSION + 1
"""Stored while no vector has fixed the dimension, because the column takes neither NULL nor 0."""

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
        dimension: numbers per vector; 0 while no vector has fixed it.
        metric: how they are compared.
        embedder: name of the embedder that computed them; None while none is recorded.
        curvature: curvature magnitude c > 0 of the Poincaré ball (the curvature is -c); None for other metrics.
        measure: what the functions of `memstore.vectors.metrics` compare the vectors by; follows from the others.
        allow_zero: whether a zero vector is valid; likewise.
        max_norm: largest Euclidean norm of a vector; None for no limit; likewise.
    """

    dimension: int
    metric: Metric
    embedder: str | None = None
    curvature: float | None = None

    measure: Measure = field(init=False, repr=False, compare=False)
    allow_zero: bool = field(init=False, repr=False, compare=False)
    max_norm: float | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ball = None
        if self.metric == "hyperbolic":
            ball = Ball() if self.curvature is None else Ball(self.curvature)
        object.__setattr__(self, "measure", ball or self.metric)
        object.__setattr__(self, "allow_zero", self.metric not in ANGULAR_METRICS)
        object.__setattr__(self, "max_norm", None if ball is None else ball.max_norm)

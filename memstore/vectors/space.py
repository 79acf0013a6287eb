"""`Space`: the dimension and metric of a file's vectors, fixed when the file is created."""

import math
from dataclasses import dataclass
from typing import Literal

Metric = Literal["cosine", "inner_product", "l2", "spherical", "hyperbolic"]

MAX_DIMENSION = 65_536
MIN_CURVATURE, MAX_CURVATURE = 1e-6, 1e6

EDGE = 1e-5
"""How much of the ball's radius, next to its edge, no vector lies in: there float32 cannot tell distances apart."""


@dataclass(frozen=True, slots=True)
class Ball:
    """The Poincaré ball of curvature -*curvature*: the points nearer to the origin than its radius."""

    curvature: float = 1.0

    @property
    def radius(self) -> float:
        """Where it ends."""
        return 1.0 / math.sqrt(self.curvature)

    @property
    def within(self) -> float:
        """How far from the origin a vector may lie."""
        return (1.0 - EDGE) * self.radius


Measure = Literal["cosine", "inner_product", "l2", "spherical"] | Ball
"""By what vectors are compared: the metric's word, or for `"hyperbolic"` the ball, whose word alone says too little."""

DIRECTIONS: tuple[Measure, ...] = ("cosine", "spherical")
"""Those that compare vectors by direction alone: at length 1, and never a zero vector."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What the vectors of a file are.

    Attributes:
        dimension: numbers per vector.
        metric: how they are compared.
        embedder: the name of the embedder that made them; None while nobody named one.
        curvature: of the ball they lie in, which is curved by minus so much; None but under `"hyperbolic"`.
    """

    dimension: int
    metric: Metric
    embedder: str | None = None
    curvature: float | None = None

    @property
    def measure(self) -> Measure:
        """What `memstore.geometry` compares them by."""
        if self.metric == "hyperbolic":
            return Ball() if self.curvature is None else Ball(self.curvature)
        return self.metric

    @property
    def zero_ok(self) -> bool:
        """Whether a zero vector has a place."""
        return self.measure not in DIRECTIONS

    @property
    def within(self) -> float | None:
        """How far from the origin a vector may lie; None for any distance."""
        measure = self.measure
        return measure.within if isinstance(measure, Ball) else None

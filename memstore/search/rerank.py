"""Hits in another order: by a weighted sum of distances, which no index could follow."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from memstore.errors import InvalidError
from memstore.models.records import Embedding
from memstore.models.search import AssemblyHit, Hit
from memstore.vectors.encoding import EmbeddingLike, as_embedding
from memstore.vectors.metrics import check_weights, weighted_distances

RankedT = TypeVar("RankedT", Hit, AssemblyHit)


def rerank(
    hits: Sequence[RankedT], query: EmbeddingLike, *, weights: Mapping[str, float], curvature: float | None = None
) -> list[RankedT]:
    """*hits* again, ordered by a weighted sum of distances from *query*.

    The sum is a term to rank by, not a metric: its parts have no common unit. Whatever it would rank first must be
    among *hits*: search for several times as many as are wanted, and take the first.

    Args:
        hits: of a search. Their own scores and order are not looked at; equal sums stay in their order.
        query: numbers, shape (dimension,): what was searched for.
        weights: a number of 0 or more for some of `"l2"` (the distance), `"spherical"` (the angle, 0 to π) and
            `"hyperbolic"` (the distance in the ball); not all 0.
        curvature: that of the store, if it is hyperbolic (`store.curvature`): its vectors lie in the ball. None for
            vectors that lie in none: they are taken into one of curvature 1, by `memstore.vectors.into_ball`.

    Returns:
        As many hits, best first. Score is 1 / (1 + sum), 0 (excluded) to 1; higher is closer.

    Raises:
        DimensionError, EmbeddingError: *query* is no vector of the dimension of *hits*.
        InvalidError: *weights* or *curvature* are not as said, or a hit has no vector.
    """
    check_weights(weights)
    rows = [_vector(hit) for hit in hits]
    if not rows:
        return []
    asked = as_embedding(query, len(rows[0]), allow_zero=not weights.get("spherical"))
    sums = weighted_distances(weights, asked, np.stack(rows), curvature=curvature)
    order = np.argsort(sums, kind="stable").tolist()
    return [replace(hits[place], score=float(1.0 / (1.0 + sums[place]))) for place in order]


def _vector(hit: Hit | AssemblyHit) -> Embedding:
    vector = hit.assembly.composite if isinstance(hit, AssemblyHit) else hit.memory.embedding
    if vector is None:
        raise InvalidError("a hit without a vector cannot be ranked: give the hits as a search returned them")
    return vector

"""Hits in another order: by a weighted sum of distances, which no index could search by."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from memstore.errors import InvalidError
from memstore.models.records import Embedding, EmbeddingLike
from memstore.models.search import AssemblyHit, Hit
from memstore.vectors.encoding import as_embedding
from memstore.vectors.metrics import check_weights, weighted_distances

RankedT = TypeVar("RankedT", Hit, AssemblyHit)


def rerank(
    hits: Sequence[RankedT], query: EmbeddingLike, *, weights: Mapping[str, float], curvature: float | None = None
) -> list[RankedT]:
    """Order *hits* by a weighted sum of their distances from *query*.

    The sum only serves to rank: it is not a metric, and its parts have no common unit. A record that would rank first
    must be among *hits*, so search for several times as many as you need.

    Args:
        hits: of a search. Their scores and their order are ignored, except that equal sums keep that order.
        query: numbers, shape (dimension,): the query of that search.
        weights: a weight of 0 or more for some of `"l2"` (the distance), `"spherical"` (the angle, 0 to π) and
            `"hyperbolic"` (the distance in the Poincaré ball); not all 0.
        curvature: `store.curvature` of a hyperbolic store. None for vectors of other metrics: they are mapped into a
            ball of curvature magnitude 1 by `memstore.vectors.into_ball`.

    Returns:
        As many hits, best first. Score is 1 / (1 + sum), 0 (excluded) to 1; higher is closer.

    Raises:
        DimensionError, EmbeddingError: *query* is not a vector of the dimension of *hits*.
        InvalidError: *weights* or *curvature* is out of range, or a hit has no vector.
    """
    check_weights(weights)
    rows = [_vector(hit) for hit in hits]
    if not rows:
        return []
    vector = as_embedding(query, len(rows[0]), allow_zero=not weights.get("spherical"))
    sums = weighted_distances(weights, vector, np.stack(rows), curvature=curvature)
    order = np.argsort(sums, kind="stable").tolist()
    return [replace(hits[i], score=float(1.0 / (1.0 + sums[i]))) for i in order]


def _vector(hit: Hit | AssemblyHit) -> Embedding:
    vector = hit.assembly.composite if isinstance(hit, AssemblyHit) else hit.memory.embedding
    if vector is None:
        raise InvalidError("a hit without a vector cannot be ranked: pass the hits that a search returned")
    return vector

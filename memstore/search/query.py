"""One search: from checked arguments to hits.

A search runs in one read transaction whose state the index equals. Namespaces, expiry, tags and filter are resolved to
a `SearchScope` before the index is asked, so a search returns fewer hits than its limit only if fewer records match.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, cast

import numpy as np
from sqlalchemy import Connection

from memstore import filters
from memstore.index.protocol import DriftError, SearchResult, SearchScope
from memstore.models.records import Assembly, Memory, Namespace
from memstore.models.search import AssemblyHit, Hit, Hits, SearchPlan
from memstore.repository import memories, namespaces, selection, vectors
from memstore.repository.record_types import RecordType
from memstore.repository.selection import Selection
from memstore.repository.vectors import Spaces, VectorSpace
from memstore.sync import composites
from memstore.sync.view import View
from memstore.timestamps import now, to_micros
from memstore.vectors.arrays import Rows
from memstore.vectors.encoding import as_embedding

Results = list[tuple[SearchResult, int]]
"""For each query its keys and scores, best first, and the number of uncommitted vectors among the allowed ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """The checked arguments of `Memories.search` without its query.

    Attributes:
        limit: how many hits are ranked: those that are left out at the beginning, and those that are returned.
        offset: how many are left out.
        half_life: of activation, in seconds.
        embeddings: whether the hits have their vectors.
        clock: the time of the search.
    """

    record_type: RecordType
    namespace: Namespace
    recursive: bool
    tags: frozenset[str]
    where: filters.Node | None
    limit: int
    min_score: float | None
    half_life: float
    offset: int = 0
    embeddings: bool = True
    clock: Callable[[], datetime] = now


class Search:
    """A search in its read transaction, with the indexes in the state of that transaction.

    Attributes:
        now: the time of the search, UTC.
        queries: float32, shape (q, dimension).
        scope: which vectors the index may return.
    """

    __slots__ = ("connection", "now", "queries", "request", "scope", "spaces", "view")

    def __init__(
        self,
        connection: Connection,
        view: View,
        spaces: Spaces,
        request: SearchRequest,
        queries: Sequence[object],
    ) -> None:
        self.connection = connection
        self.view = view
        self.spaces = spaces
        self.request = request
        self.now = request.clock()
        self.queries = _checked_queries(queries, spaces[request.record_type.kind])
        self.scope = _scope(connection, request, self.now)

    def nearest(self) -> Results:
        """The best records of the scope for each query."""
        return self.view.search(self.request.record_type.kind, self.queries, self.request.limit, self.scope)

    def plain_hits(self) -> list[Hits[Any]]:
        """The hits of each query, without boosts."""
        results, min_score = self.nearest(), self.request.min_score
        if min_score is not None:
            results = [(_at_least(result, min_score), uncommitted) for result, uncommitted in results]
        return self.hits(results)

    def hits(self, results: Results) -> list[Hits[Any]]:
        """*results*, but for those that the request leaves out, as hits. Records are read together, each once.

        Raises:
            DriftError: the index names a record that does not exist or has no vector.
        """
        kind, space = self.request.record_type.kind, self.spaces[self.request.record_type.kind]
        offset, embeddings = self.request.offset, self.request.embeddings
        if offset:
            results = [(result.part(slice(offset, None)), uncommitted) for result, uncommitted in results]
        keys: list[int] = []
        for result, _ in results:
            keys += result.keys.tolist()
        keys = list(dict.fromkeys(keys))
        hit: type[Hit | AssemblyHit]
        records: Sequence[Memory] | Sequence[Assembly]
        if kind == "memory":
            hit, records = Hit, memories.read(self.connection, space, keys, embeddings=embeddings)
            complete = not [memory for memory in records if memory.embedding is None]
        else:
            hit = AssemblyHit
            half_life = self.request.half_life
            records = composites.read(self.connection, self.spaces, keys, self.now, half_life, embeddings=embeddings)
            complete = not [assembly for assembly in records if assembly.composite is None]
        if not embeddings:
            complete = vectors.count_of(self.connection, space, keys) == len(keys)
        if len(records) < len(keys) or not complete:
            raise DriftError
        by_key = dict(zip(keys, cast("Sequence[Any]", records), strict=True))
        rows = self.view.count(kind)
        return [
            Hits(
                list(map(hit, map(by_key.__getitem__, result.keys.tolist()), result.scores.tolist())),
                SearchPlan(
                    method=result.method.name,
                    reason=result.method.reason,
                    engine=self.view.engine.name,
                    rows=rows,
                    allowed=result.allowed_count,
                    ef_search=result.method.candidates,
                    unindexed=result.method.unindexed,
                    uncommitted=uncommitted,
                ),
            )
            for result, uncommitted in results
        ]


def search(
    connection: Connection,
    view: View,
    spaces: Spaces,
    request: SearchRequest,
    queries: Sequence[object],
) -> list[Hits[Any]]:
    """One `Hits` for each of *queries*, which are not checked yet, in order.

    Raises:
        DimensionError, EmbeddingError: a query is not a vector of the space.
        DriftError: the index does not agree with the rows.
    """
    return Search(connection, view, spaces, request, queries).plain_hits()


def _checked_queries(queries: Sequence[object], space: VectorSpace) -> Rows:
    as_vector = partial(as_embedding, allow_zero=space.allow_zero, max_norm=space.max_norm)
    vectors = [as_vector(queries[0], space.dimension)]
    dimension = space.dimension or len(vectors[0])  # of a file without a vector, any dimension
    vectors += map(partial(as_vector, dimension=dimension), queries[1:])
    return np.stack(vectors)


def _scope(connection: Connection, request: SearchRequest, at: datetime) -> SearchScope:
    keys = namespaces.scope(connection, request.namespace, recursive=request.recursive)
    namespace_keys = None if keys is None else np.array(keys, dtype=np.int64)
    allowed = None
    if request.where is not None or request.tags:
        matching = Selection(
            record_type=request.record_type,
            namespace=request.namespace,
            now=at,
            recursive=request.recursive,
            tags=request.tags,
            where=request.where,
        )
        allowed = selection.allowed(connection, matching)
    return SearchScope(now=to_micros(at), namespaces=namespace_keys, allowed=allowed)


def _at_least(result: SearchResult, score: float) -> SearchResult:
    """The part of *result* that reaches *score*; scores descend."""
    count = int((result.scores >= score).sum())
    return result.part(slice(count))

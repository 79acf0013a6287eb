"""Searches of the indexes at one state of the database, including uncommitted changes of a transaction."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import repeat

import numpy as np
from sqlalchemy import Connection

from memstore.index.exact import ExactIndex
from memstore.index.protocol import DriftError, Engine, Mask, SearchResult, SearchScope
from memstore.models.records import RecordKind
from memstore.repository import vectors as stored_vectors
from memstore.sync.index_set import IndexSet
from memstore.sync.loader import as_entries
from memstore.vectors.arrays import Keys, Rows
from memstore.vectors.metrics import index_form, scores
from memstore.vectors.space import ANGULAR_METRICS

OVERSAMPLING, EXTRA_RESULTS = 2, 10
"""A float16 index returns OVERSAMPLING * limit + EXTRA_RESULTS entries, which the stored vectors rank again."""


@dataclass(slots=True)
class View:
    """The indexes at one state of the database, with an overlay of what a transaction has changed.

    Attributes:
        indexes: the shared indexes; the lock is held for the lifetime of the view.
        connection: in a transaction whose committed state the indexes equal.
        overlays: for each kind that the transaction changed, the keys it changed and an index of their vectors.
    """

    indexes: IndexSet
    connection: Connection
    overlays: Mapping[RecordKind, tuple[list[int], ExactIndex]] = field(default_factory=dict)

    @property
    def engine(self) -> Engine:
        """The engine that compares vectors."""
        return self.indexes.engines.engine

    def count(self, kind: RecordKind) -> int:
        """Number of committed vectors of *kind*."""
        return len(self.indexes.by_kind[kind])

    def revision(self, key: int) -> int | None:
        """The revision of the composite that the shared index holds for the assembly *key*; None if it holds none."""
        return self.indexes.revision(key)

    def stored_vectors(self, kind: RecordKind, keys: Keys) -> tuple[Mask, Rows] | None:
        """Which of *keys* the index has, and their vectors, copied; None if it does not have them as they are stored.

        Under cosine and spherical it has them at norm 1, as float16 rounded.
        """
        space = self.indexes.spaces[kind]
        if space.measure in ANGULAR_METRICS or self.indexes.options.vector_type != "float32" or self.overlays:
            return None
        table = self.indexes.by_kind[kind].table
        positions = table.find(keys)
        present = positions >= 0
        return present, table.entries_at(positions[present]).rows

    def search(self, kind: RecordKind, queries: Rows, limit: int, scope: SearchScope) -> list[tuple[SearchResult, int]]:
        """The result for each query, and the number of allowed entries that are uncommitted."""
        normalized = index_form(self.indexes.spaces[kind].measure, queries)
        changed, overlay = self.overlays.get(kind, ((), None))
        if overlay is None or not changed:
            return list(zip(self._search_committed(kind, normalized, limit, scope), repeat(0)))
        committed_scope = SearchScope(
            now=scope.now,
            namespaces=scope.namespaces,
            allowed=scope.allowed,
            excluded=np.array(changed, dtype=np.int64),
        )
        committed = self._search_committed(kind, normalized, limit, committed_scope)
        uncommitted = overlay.search(self.indexes.engines.engine, normalized, limit, scope)
        return [(_merged(a, b, limit), b.allowed_count) for a, b in zip(committed, uncommitted, strict=True)]

    def _search_committed(self, kind: RecordKind, queries: Rows, limit: int, scope: SearchScope) -> list[SearchResult]:
        """Search the shared index; results of a float16 index are ranked again by the stored vectors."""
        index, engine = self.indexes.by_kind[kind], self.indexes.engines.engine
        if self.indexes.options.vector_type == "float32":
            return index.search(engine, queries, limit, scope)
        results = index.search(engine, queries, limit * OVERSAMPLING + EXTRA_RESULTS, scope)
        return [self._rescored(kind, query, result, limit) for query, result in zip(queries, results, strict=True)]

    def _rescored(self, kind: RecordKind, query: Rows, result: SearchResult, limit: int) -> SearchResult:
        space = self.indexes.spaces[kind]
        chunks = stored_vectors.vectors(self.connection, space, result.keys.tolist())
        entries = [as_entries(chunk, space) for chunk in chunks]
        if sum(len(chunk.keys) for chunk in entries) < len(result.keys):
            raise DriftError
        if not entries:
            return result
        keys = np.concatenate([chunk.keys for chunk in entries])
        values = scores(space.measure, query, np.concatenate([chunk.rows for chunk in entries]))
        order = np.lexsort((keys, -values))[:limit]
        return result._replace(keys=keys[order], scores=values[order])


def _merged(a: SearchResult, b: SearchResult, limit: int) -> SearchResult:
    keys = np.concatenate([a.keys, b.keys])
    values = np.concatenate([a.scores, b.scores])
    order = np.lexsort((keys, -values))[:limit]
    return SearchResult(keys[order], values[order], a.allowed_count + b.allowed_count, a.method)

"""Searches of the indexes at one state of the database, including uncommitted changes of a transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat

import numpy as np
from sqlalchemy import Connection

from memstore.concurrency import check_stop
from memstore.index.exact import ExactIndex
from memstore.index.protocol import DriftError, Engine, Mask, SearchResult, SearchScope
from memstore.models.records import Embedding, RecordKind
from memstore.repository import assemblies, memberships
from memstore.repository import vectors as stored_vectors
from memstore.repository.memberships import ExpiredMembers
from memstore.repository.vectors import VectorRows
from memstore.sync import composites
from memstore.sync.index_set import IndexSet
from memstore.sync.loader import as_entries
from memstore.vectors.arrays import Doubles, Keys, Rows
from memstore.vectors.encoding import encode
from memstore.vectors.metrics import closeness, index_form, scores, scores_of
from memstore.vectors.space import ANGULAR_METRICS

QUERIES = 256
"""Queries that are answered between two checks whether the caller was cancelled."""

SAMPLE = 1_000
"""Entries that are scored for the distribution of a query's scores: 0.2 ms at dimension 384."""


@dataclass(slots=True)
class View:
    """The indexes at one state of the database, with an overlay of what a transaction has changed.

    Attributes:
        indexes: the shared indexes; the lock is held for the lifetime of the view.
        connection: in a transaction whose committed state the indexes equal.
        overlays: for each kind that the transaction changed, the keys it changed and an index of their vectors.
        is_past: the overlays are the committed entries of an earlier state than that of the shared indexes.

    Searches of assemblies compare composites of members that have not expired: composites in the index that include
    others, or that are outdated in the file, are replaced for the time of the search.
    """

    indexes: IndexSet
    connection: Connection
    overlays: Mapping[RecordKind, tuple[list[int], ExactIndex]] = field(default_factory=dict)
    is_past: bool = False
    _expired: dict[int, dict[int, ExpiredMembers]] = field(default_factory=dict)  # by time
    _outdated: dict[int, dict[int, Embedding | None]] = field(default_factory=dict)  # by time

    @property
    def engine(self) -> Engine:
        """The engine that compares vectors."""
        return self.indexes.engines.engine

    def count(self, kind: RecordKind) -> int:
        """Number of committed vectors of *kind*."""
        return len(self.indexes.by_kind[kind])

    def revision(self, key: int) -> int | None:
        """The revision of the composite that the index holds for the assembly *key*; None if it holds none."""
        if self.is_past and "assembly" in self.overlays:
            keys, overlay = self.overlays["assembly"]
            if key in keys:
                has_entry = overlay.table.find(np.array([key], dtype=np.int64))[0] >= 0
                composed = stored_vectors.composed(self.connection, self.indexes.spaces["assembly"], [key])
                return composed.get(key) if has_entry else None
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

    def expired_members(self, now: int) -> dict[int, ExpiredMembers]:
        """The assemblies that have expired members at *now*, in microseconds, by key. Read once for each time."""
        if now not in self._expired:
            self._expired[now] = memberships.expired_members(self.connection, now)
        return self._expired[now]

    def outdated_composites(self, now: int) -> dict[int, Embedding | None]:
        """The composites at *now* of the assemblies of which the index has another, by key: as a rule, none."""
        if now not in self._outdated:
            keys = self.expired_members(now).keys() | self.indexes.outdated
            space = self.indexes.spaces["memory"]
            self._outdated[now] = composites.outdated(self.connection, space, keys, now) if keys else {}
        return self._outdated[now]

    def search(self, kind: RecordKind, queries: Rows, limit: int, scope: SearchScope) -> list[tuple[SearchResult, int]]:
        """The result for each query, and the number of allowed entries that are uncommitted."""
        if len(queries) > QUERIES:
            blocks: list[tuple[SearchResult, int]] = []
            for start in range(0, len(queries), QUERIES):
                blocks += self.search(kind, queries[start : start + QUERIES], limit, scope)
                check_stop()
            return blocks
        normalized = index_form(self.indexes.spaces[kind].measure, queries)
        changed, overlay = self.overlays.get(kind, ((), None))
        outdated = self.outdated_composites(scope.now) if kind == "assembly" else {}
        if not changed and not outdated:
            return list(zip(self._search_committed(kind, normalized, limit, scope), repeat(0)))
        without_changed = replace(scope, excluded=np.array([*{*changed, *outdated}], dtype=np.int64))
        results = self._search_committed(kind, normalized, limit, without_changed)
        uncommitted = [0] * len(results)
        if overlay is not None and changed:
            without_outdated = replace(scope, excluded=np.array([*outdated], dtype=np.int64)) if outdated else scope
            changes = overlay.search(self.engine, normalized, limit, without_outdated)
            results = [_merged(a, b, limit) for a, b in zip(results, changes, strict=True)]
            if not self.is_past:
                uncommitted = [result.allowed_count for result in changes]
        if outdated:
            current = self._index_of(outdated).search(self.engine, normalized, limit, scope)
            results = [_merged(a, b, limit) for a, b in zip(results, current, strict=True)]
        return list(zip(results, uncommitted, strict=True))

    def sample_scores(self, kind: RecordKind, query: Rows, scope: SearchScope) -> tuple[Doubles, int]:
        """The scores of a sample of the entries that *scope* allows, against one query, and the number of all of them.

        The sample is every entry, or evenly spread over the entries in the order in which the index has them.
        """
        measure = self.indexes.spaces[kind].measure
        (normalized,) = index_form(measure, query[np.newaxis])
        changed, overlay = self.overlays.get(kind, ((), None))
        outdated = self.outdated_composites(scope.now) if kind == "assembly" else {}
        replaced = np.array([*{*changed, *outdated}], dtype=np.int64)
        tables = [(self.indexes.by_kind[kind].table, replace(scope, excluded=replaced) if len(replaced) else scope)]
        if overlay is not None and changed:
            tables.append((overlay.table, replace(scope, excluded=np.array([*outdated], dtype=np.int64))))
        if outdated:
            tables.append((self._index_of(outdated).table, scope))
        positions = [(table, table.allowed(part)) for table, part in tables]
        selected = [(table, np.arange(table.size) if allowed is None else allowed) for table, allowed in positions]
        count = sum(len(allowed) for _, allowed in selected)
        step = max(1, -(-count // SAMPLE))
        parts = [
            scores(measure, normalized, table.rows[allowed[::step]]) for table, allowed in selected if len(allowed)
        ]
        return (np.concatenate(parts) if parts else np.empty(0)), count

    def _index_of(self, vectors: Mapping[int, Embedding | None]) -> ExactIndex:
        """An index of composites by the keys of their assemblies."""
        space = self.indexes.spaces["assembly"]
        blobs = {key: encode(vector) for key, vector in vectors.items() if vector is not None}
        owners = assemblies.namespace_keys(self.connection, list(blobs))
        index = ExactIndex(space.dimension, space.measure, capacity=len(owners))
        if owners:
            keys, count = tuple(owners), len(owners)
            rows = tuple(blobs[key] for key in keys)
            index.put(
                as_entries(VectorRows(keys, tuple(owners.values()), (None,) * count, rows, (None,) * count), space)
            )
        return index

    def _search_committed(self, kind: RecordKind, queries: Rows, limit: int, scope: SearchScope) -> list[SearchResult]:
        """Search the shared index; results of a float16 index are ranked again by the stored vectors."""
        results = self.indexes.by_kind[kind].search(self.indexes.engines.engine, queries, limit, scope)
        if self.indexes.options.vector_type == "float32":
            return results
        return self._rescored(kind, queries, results, limit)

    def _rescored(
        self, kind: RecordKind, queries: Rows, results: Sequence[SearchResult], limit: int
    ) -> list[SearchResult]:
        """The best *limit* of each of *results*, by the stored vectors, which are read once for all of them."""
        space = self.indexes.spaces[kind]
        keys = np.unique(np.concatenate([result.keys for result in results]))
        values = [np.full(len(result.keys), np.nan) for result in results]
        for chunk in stored_vectors.vectors(self.connection, space, keys.tolist()):
            entries = as_entries(chunk, space)
            if not len(entries.keys):
                continue
            order = np.argsort(entries.keys)
            ascending, rows = entries.keys[order], entries.rows[order]
            for query, result, result_values in zip(queries, results, values, strict=True):
                positions = np.searchsorted(ascending, result.keys).clip(max=len(ascending) - 1)
                matches = np.flatnonzero(ascending[positions] == result.keys)
                result_values[matches] = closeness(space.measure, query, rows[positions[matches]])
        if any(np.isnan(result_values).any() for result_values in values):
            raise DriftError
        return [
            _ranked(result, result.keys, new, scores_of(space.measure, new), limit)
            for result, new in zip(results, values, strict=True)
        ]


def _ranked(result: SearchResult, keys: Keys, values: Doubles, key_scores: Doubles, limit: int) -> SearchResult:
    """*result* with the best *limit* of *keys* by their closeness *values*; of equals the lowest keys."""
    order = np.lexsort((keys, -values))[:limit]
    return result._replace(keys=keys[order], closeness=values[order], scores=key_scores[order])


def _merged(a: SearchResult, b: SearchResult, limit: int) -> SearchResult:
    result = a._replace(allowed_count=a.allowed_count + b.allowed_count)
    values, key_scores = np.concatenate([a.closeness, b.closeness]), np.concatenate([a.scores, b.scores])
    return _ranked(result, np.concatenate([a.keys, b.keys]), values, key_scores, limit)

"""The nearest neighbours of stored records, asked of the index in batches.

Each batch is one search. Between batches the event loop is free, writes may commit, and a cancellation takes effect; so
each batch is of the state that the store has by then.
"""

from collections.abc import AsyncIterator
from functools import partial
from typing import NamedTuple

import numpy as np
from sqlalchemy import Connection

from memstore.index.protocol import SearchScope
from memstore.models.records import Namespace, RecordKind
from memstore.repository import namespaces, vectors
from memstore.repository.vectors import VectorSpace
from memstore.session import Session
from memstore.sync.view import View
from memstore.timestamps import to_micros
from memstore.vectors.arrays import Doubles, Keys, Rows
from memstore.vectors.encoding import decode_rows, is_intact
from memstore.vectors.metrics import valid_rows

BATCH = 64
"""Records in one search: a few hundredths of a second among 100,000 vectors that are compared one by one."""


class Neighbors(NamedTuple):
    """The neighbours of one record, nearest first, ties in order of creation; the record itself is not among them.

    With *truncated*, there may be more of them.
    """

    key: int
    others: Keys
    scores: Doubles
    truncated: bool


async def find_neighbors(
    session: Session,
    kind: RecordKind,
    namespace: Namespace,
    keys: Keys,
    *,
    limit: int,
    min_score: float,
    allowed: Keys | None = None,
) -> AsyncIterator[list[Neighbors]]:
    """The neighbours of the records *keys* among *allowed* (None: all of the namespace), batch by batch.

    Records without a usable vector are left out.
    """
    for start in range(0, len(keys), BATCH):
        batch = keys[start : start + BATCH].tolist()

        def step(connection: Connection, view: View, batch: list[int] = batch) -> list[Neighbors]:
            at = to_micros(session.clock())
            outdated = view.outdated_composites(at) if kind == "assembly" else {}
            stored = [key for key in batch if key not in outdated]
            current = {key: vector for key in batch if (vector := outdated.get(key)) is not None}
            batch, queries = _stored_vectors(connection, session.spaces[kind], stored)
            if current:
                batch, queries = [*batch, *current], np.concatenate([queries, np.stack([*current.values()])])
            if not batch:
                return []
            namespace_keys = namespaces.scope(connection, namespace, recursive=False)
            searched = None if namespace_keys is None else np.array(namespace_keys, dtype=np.int64)
            scope = SearchScope(now=at, namespaces=searched, allowed=allowed)
            results = view.search(kind, queries, limit + 1, scope)
            of_result = partial(_neighbors, limit=limit, min_score=min_score)
            return [of_result(key, result.keys, result.scores) for key, (result, _) in zip(batch, results, strict=True)]

        yield await session.search(step, kind, long=True)


def _stored_vectors(connection: Connection, space: VectorSpace, keys: list[int]) -> tuple[list[int], Rows]:
    """The stored vectors of *keys* that a search can use, and whose they are."""
    size = 4 * space.dimension
    intact_keys: list[int] = []
    blobs: list[bytes] = []
    for chunk in vectors.vectors(connection, space, keys):
        for key, blob, checksum in zip(chunk.keys, chunk.blobs, chunk.checksums, strict=True):
            if is_intact(blob, checksum) and len(blob) == size:
                intact_keys.append(key)
                blobs.append(blob)
    rows = decode_rows(blobs, space.dimension)
    mask = valid_rows(space.measure, rows)
    return [key for key, is_usable in zip(intact_keys, mask.tolist(), strict=True) if is_usable], rows[mask]


def _neighbors(key: int, keys: Keys, scores: Doubles, *, limit: int, min_score: float) -> Neighbors:
    others = keys != key
    keys, scores = keys[others][:limit], scores[others][:limit]
    count = int((scores >= min_score).sum())
    return Neighbors(key, keys[:count], scores[:count], truncated=count == limit)

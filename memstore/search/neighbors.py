"""Who is near whom: the index asked in batches about records that it holds.

Each batch is one search: the event loop is free meanwhile, and a caller who is cancelled stops after the batch that
runs. Writes come between batches, so each is of the state that the store is in by then.
"""

from collections.abc import AsyncIterator
from typing import NamedTuple

import numpy as np
from sqlalchemy import Connection

from memstore.index.protocol import Keys, SearchScope
from memstore.models.records import Namespace, RecordKind
from memstore.repository import namespaces, vectors
from memstore.repository.vectors import VectorSpace
from memstore.session import Session
from memstore.sync.view import View
from memstore.timestamps import now, to_micros
from memstore.vectors.arrays import Doubles, Rows
from memstore.vectors.encoding import decode_rows, is_intact
from memstore.vectors.metrics import valid_rows

BATCH = 64
"""Records that are asked about in one search: a few hundredths of a second of 100,000 vectors compared one by one."""


class Neighbors(NamedTuple):
    """One record, and those near it: nearest first, itself left out, equally near ones in order of creation.

    With *cut*, there may be more of them.
    """

    key: int
    others: Keys
    scores: Doubles
    cut: bool


async def near(
    session: Session,
    kind: RecordKind,
    namespace: Namespace,
    keys: Keys,
    *,
    limit: int,
    least: float,
    among: Keys | None = None,
) -> AsyncIterator[list[Neighbors]]:
    """For batches of *keys*, one after the other, what lies near each; what has no usable vector is left out.

    Args:
        session: where to search.
        kind: of which records.
        namespace: theirs.
        keys: who is asked about.
        limit: how many others at most, of each.
        least: the least score at which one is near.
        among: keys of those that may be found; None for all of the namespace.
    """
    for start in range(0, len(keys), BATCH):
        some = keys[start : start + BATCH].tolist()

        def step(connection: Connection, view: View, some: list[int] = some) -> list[Neighbors]:
            asked, rows = _stored(connection, session.spaces[kind], some)
            if not len(asked):
                return []
            within = namespaces.scope(connection, namespace, recursive=False)
            held = None if within is None else np.array(within, dtype=np.int64)
            scope = SearchScope(now=to_micros(now()), namespaces=held, allowed=among)
            found = view.search(kind, rows, limit + 1, scope)
            return [
                _others(key, answer.keys, answer.scores, limit, least)
                for key, (answer, _) in zip(asked, found, strict=True)
            ]

        yield await session.search(step, kind)


def _stored(connection: Connection, space: VectorSpace, keys: list[int]) -> tuple[list[int], Rows]:
    """The vectors of *keys* as they are stored, those that a search could not be made of left out."""
    size, dimension = 4 * space.dimension, space.dimension
    asked: list[int] = []
    blobs: list[bytes] = []
    for chunk in vectors.vectors(connection, space, keys):
        for key, blob, written in zip(chunk.keys, chunk.blobs, chunk.checksums, strict=True):
            if is_intact(blob, written) and len(blob) == size:
                asked.append(key)
                blobs.append(blob)
    rows = decode_rows(blobs, dimension)
    good = valid_rows(space.measure, rows)
    return [key for key, fit in zip(asked, good.tolist(), strict=True) if fit], rows[good]


def _others(key: int, keys: Keys, scores: Doubles, limit: int, least: float) -> Neighbors:
    apart = keys != key
    keys, scores = keys[apart][:limit], scores[apart][:limit]
    count = int((scores >= least).sum())
    return Neighbors(key, keys[:count], scores[:count], count == limit)

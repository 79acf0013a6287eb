"""When and how an assembly's vector follows its members.

Triggers raise `assembly.revision` whenever the membership or a member's vector changes, and write the assembly's key
to the change log. The stored composite says of which revision it is. Every write ends with `follow`, which brings
up to date whatever the write left behind, so that no verb has to think of it, and both are equal again before COMMIT.

Added members are added to a stored float64 sum; anything else computes it again from the members in the order of
their keys. A sum is never subtracted from: with members of very different lengths the difference would be noise.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from sqlalchemy import Connection

from memstore.concurrency import yield_gil
from memstore.models.records import Embedding
from memstore.repository import assemblies
from memstore.repository import vectors as vector_rows
from memstore.repository.assemblies import Composite
from memstore.repository.context import WriteContext
from memstore.repository.sqlite_only import change_log
from memstore.repository.vectors import VectorSpace
from memstore.vectors.arrays import Rows
from memstore.vectors.encoding import checksum, decode_rows, encode, is_intact
from memstore.vectors.mean import Mean
from memstore.vectors.metrics import valid_rows

_CHUNK = 500  # members' vectors summed before others may run


def follow(context: WriteContext, since: int) -> int:
    """Update every composite that a change after *since* made stale; the top of the change log then."""
    connection = context.connection
    top, changed = change_log.changed_since(connection, since, context.spaces["assembly"])
    if not changed:
        return top
    recompute(context, vector_rows.lagging(connection, changed))
    return change_log.top(connection)


def recompute(context: WriteContext, keys: Iterable[int]) -> None:
    """Compute the composites of the assemblies *keys* from all their members."""
    for key in keys:
        mean, _ = computed(context.connection, context.spaces["memory"], key)
        _store(context, key, mean)


def computed(connection: Connection, space: VectorSpace, key: int) -> tuple[Mean, int]:
    """The mean of an assembly's members as they now are, and how many are not in it because they are damaged."""
    mean = Mean(np.zeros(space.dimension))
    return mean, _add(mean, space, assemblies.member_vectors(connection, space, key))


def extend(context: WriteContext, key: int, members: Sequence[int]) -> set[int]:
    """Add *members* to an assembly, in the database and to its sum; the keys of those that were not members."""
    connection, space = context.connection, context.spaces["memory"]
    before = assemblies.revision(connection, key)
    added = assemblies.add_members(connection, key, members)
    stored = assemblies.composite(connection, context.spaces["assembly"], key)
    mean = None if stored is None or stored.revision != before else _summed(stored, space)
    if mean is None:  # there is no sum, or it is of another membership
        recompute(context, [key])
        return set(added)
    _add(mean, space, assemblies.some_vectors(connection, space, added))
    _store(context, key, mean)
    return set(added)


def _summed(stored: Composite, space: VectorSpace) -> Mean | None:
    """The sum of a composite, to be added to; None where the composite is not of it: one of them is damaged."""
    if type(stored.sum) is not bytes or len(stored.sum) != 8 * space.dimension:
        return None
    if type(stored.length) is not float or type(stored.count) is not int:
        return None
    mean = Mean(np.frombuffer(stored.sum, "<f8").astype(np.float64), stored.length, stored.count)
    vector = mean.vector(space.measure)
    return mean if (None if vector is None else encode(vector)) == stored.vector else None


def _add(mean: Mean, space: VectorSpace, vectors: Iterable[tuple[bytes, int | None]]) -> int:
    """Take *vectors*, with their checksums, into *mean*; how many are not what was written, and left out."""
    size, metric = 4 * space.dimension, space.measure
    blobs: list[bytes] = []
    damaged = 0
    for blob, written in vectors:
        if not is_intact(blob, written):
            damaged += 1
        elif len(blob) == size:  # what no verb stored is for `check`, and no part of anything
            blobs.append(blob)
        if len(blobs) == _CHUNK:
            mean.add(metric, _usable(blobs, space))
            blobs.clear()
            yield_gil()
    if blobs:
        mean.add(metric, _usable(blobs, space))
    return damaged


def take_in(mean: Mean, space: VectorSpace, vectors: Sequence[Embedding]) -> None:
    """Take members' vectors into *mean*, but for those that no composite has in it."""
    if vectors:
        mean.add(space.measure, _usable([encode(vector) for vector in vectors], space))


def _usable(blobs: list[bytes], space: VectorSpace) -> Rows:
    rows = decode_rows(blobs, space.dimension)
    return rows[valid_rows(space.measure, rows)]


def _store(context: WriteContext, key: int, mean: Mean) -> None:
    connection, space = context.connection, context.spaces["assembly"]
    vector = mean.vector(space.measure)
    data = None if vector is None else encode(vector)
    made = Composite(
        sum=mean.total.astype("<f8").tobytes(),
        length=mean.length,
        count=mean.count,
        vector=data,
        checksum=None if data is None else checksum(data),
        revision=assemblies.revision(connection, key),
    )
    assemblies.put_composite(connection, space, key, made, context.now)

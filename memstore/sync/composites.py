"""Composites: the vectors of assemblies, kept equal to the mean of their members.

Triggers raise `assembly.revision` whenever the membership or a member's vector changes, and write the assembly's key
to the change log. A stored composite has the revision it was computed at. Every write ends with `follow`, which
recomputes the composites whose revision differs, so that both are equal before COMMIT and no verb does it itself.

New members are added to a stored float64 sum. Every other change computes the sum again from the members in the order
of their keys. Nothing is subtracted from a sum: with members of very different lengths the result would be noise.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from sqlalchemy import Connection

from memstore.concurrency import yield_gil
from memstore.models.records import Embedding
from memstore.repository import assemblies, memberships, vectors
from memstore.repository.assemblies import Composite
from memstore.repository.context import WriteContext
from memstore.repository.sqlite_only import change_log
from memstore.repository.vectors import VectorSpace
from memstore.vectors.arrays import Rows
from memstore.vectors.encoding import checksum, decode_rows, encode, is_intact
from memstore.vectors.mean import Mean
from memstore.vectors.metrics import valid_rows

_CHUNK = 500  # members' vectors that are summed before other threads may run


def follow(context: WriteContext, since: int) -> int:
    """Recompute every composite that a change after number *since* of the log made stale; the log's last number."""
    connection = context.connection
    top, changed = change_log.changed_since(connection, since, context.spaces["assembly"])
    if not changed:
        return top
    recompute(context, vectors.lagging(connection, changed))
    return change_log.top(connection)


def recompute(context: WriteContext, keys: Iterable[int]) -> None:
    """Compute the composites of the assemblies *keys* from their members."""
    for key in keys:
        mean, _ = computed(context.connection, context.spaces["memory"], key)
        _store(context, key, mean)


def computed(connection: Connection, space: VectorSpace, key: int) -> tuple[Mean, int]:
    """The mean of an assembly's members as they now are, and how many are left out because they are damaged."""
    mean = Mean(np.zeros(space.dimension))
    return mean, _add(mean, space, memberships.member_vectors(connection, space, key))


def extend(context: WriteContext, key: int, members: Sequence[int]) -> set[int]:
    """Add *members* to an assembly and to its stored sum; keys of those that were not members yet."""
    connection, space = context.connection, context.spaces["memory"]
    before = assemblies.revision(connection, key)
    new = memberships.add_members(connection, key, members)
    composite = assemblies.composite(connection, context.spaces["assembly"], key)
    mean = None if composite is None or composite.revision != before else _stored_mean(composite, space)
    if mean is None:  # there is no sum, or it is of another membership
        recompute(context, [key])
        return set(new)
    _add(mean, space, memberships.memory_vectors(connection, space, new))
    _store(context, key, mean)
    return set(new)


def _stored_mean(composite: Composite, space: VectorSpace) -> Mean | None:
    """The stored sum of a composite; None where the vector does not follow from it: one of them is damaged."""
    if type(composite.sum) is not bytes or len(composite.sum) != 8 * space.dimension:
        return None
    if type(composite.length) is not float or type(composite.count) is not int:
        return None
    mean = Mean(np.frombuffer(composite.sum, "<f8").astype(np.float64), composite.length, composite.count)
    vector = mean.vector(space.measure)
    return mean if (None if vector is None else encode(vector)) == composite.vector else None


def _add(mean: Mean, space: VectorSpace, rows: Iterable[tuple[bytes, int | None]]) -> int:
    """Add stored vectors, given with their checksums, to *mean*; how many are damaged and left out."""
    size = 4 * space.dimension
    blobs: list[bytes] = []
    damaged = 0
    for blob, stored_checksum in rows:
        if not is_intact(blob, stored_checksum):
            damaged += 1
        elif len(blob) == size:  # `check` reports vectors of another length; no composite includes them
            blobs.append(blob)
        if len(blobs) == _CHUNK:
            mean.add(space.measure, _usable(blobs, space))
            blobs.clear()
            yield_gil()
    if blobs:
        mean.add(space.measure, _usable(blobs, space))
    return damaged


def add_vectors(mean: Mean, space: VectorSpace, embeddings: Sequence[Embedding]) -> None:
    """Add the vectors of members to *mean*, but for those that no composite includes."""
    if embeddings:
        mean.add(space.measure, _usable([encode(vector) for vector in embeddings], space))


def _usable(blobs: list[bytes], space: VectorSpace) -> Rows:
    rows = decode_rows(blobs, space.dimension)
    return rows[valid_rows(space.measure, rows)]


def _store(context: WriteContext, key: int, mean: Mean) -> None:
    connection, space = context.connection, context.spaces["assembly"]
    vector = mean.vector(space.measure)
    data = None if vector is None else encode(vector)
    composite = Composite(
        sum=mean.total.astype("<f8").tobytes(),
        length=mean.length,
        count=mean.count,
        vector=data,
        checksum=None if data is None else checksum(data),
        revision=assemblies.revision(connection, key),
    )
    assemblies.put_composite(connection, space, key, composite, context.now)

"""Composites: the vectors of assemblies, kept equal to the mean of their members.

Triggers raise `assembly.revision` whenever the membership or a member's vector changes, and write the assembly's key
to the change log. A stored composite has the revision it was computed at. Every write ends with `follow`, which
recomputes the composites whose revision differs, so that both are equal before COMMIT and no verb does it itself.

New members are added to a stored float64 sum. Every other change computes the sum again from the members in the order
of their keys. Nothing is subtracted from a sum: with members of very different lengths the result would be noise.

A stored composite is a function of the rows, and the row of an expired member stays until a write deletes it. Readers
do not see that: `read` and `outdated` compute the composite of the members that have not expired, at the time they are
given. So a verb sees one membership and one composite at one moment, before and after the rows are deleted.
"""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime

import numpy as np
from sqlalchemy import Connection

from memstore.concurrency import yield_gil
from memstore.models.activation import HALF_LIFE
from memstore.models.records import Assembly, Embedding
from memstore.repository import assemblies, history_writer, memberships, vectors
from memstore.repository.assemblies import Composite
from memstore.repository.context import WriteContext
from memstore.repository.corruption import expect_stored
from memstore.repository.record_types import MEMORY
from memstore.repository.sqlite_only import change_log
from memstore.repository.vectors import Spaces, VectorSpace
from memstore.timestamps import from_micros
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


def computed(
    connection: Connection, space: VectorSpace, key: int, now: datetime | int | None = None
) -> tuple[Mean, int]:
    """The mean of an assembly's members as they now are, and how many are left out because they are damaged.

    With *now*, the mean of the members that have not expired by then.
    """
    mean = Mean(np.zeros(space.dimension))
    return mean, _add(mean, space, memberships.member_vectors(connection, space, key, now))


def read(
    connection: Connection,
    spaces: Spaces,
    keys: Sequence[int],
    now: datetime,
    half_life: float = HALF_LIFE,
    *,
    embeddings: bool = True,
) -> list[Assembly]:
    """The assemblies of *keys* as they are *now*, in order; keys that do not exist are left out.

    An expired member is none, and a composite is that of the members, whether or not a write has deleted rows and
    stored composites since. Without *embeddings*, no composite is read. Raises `DamagedError`.
    """
    by_key = assemblies.read(connection, spaces["assembly"], keys, now, half_life, embeddings=embeddings)
    expired = memberships.expired_members(connection, now)
    for key in expired.keys() & by_key.keys():
        record, (members, last_expiry) = by_key[key], expired[key]
        with expect_stored("memory.expires_at"):
            updated_at = max(record.updated_at, from_micros(last_expiry))
        by_key[key] = replace(record, revision=record.revision + members, updated_at=updated_at)
    if embeddings:
        for key, composite in changed(connection, spaces["memory"], list(by_key), now, expired.keys()).items():
            by_key[key] = replace(by_key[key], composite=composite)
    return list(by_key.values())


def changed(
    connection: Connection,
    space: VectorSpace,
    keys: list[int],
    now: datetime | int,
    expired: AbstractSet[int] | None = None,
) -> dict[int, Embedding | None]:
    """The composites *now* of those assemblies of *keys* that have another one stored: as a rule, none.

    *space* is that of memories; *expired* are the keys of the assemblies with expired members, where they are at hand.
    """
    if not keys:
        return {}
    if expired is None:
        expired = memberships.expired_members(connection, now).keys()
    return outdated(connection, space, {*vectors.lagging(connection, keys), *expired & set(keys)}, now)


def outdated(
    connection: Connection, space: VectorSpace, keys: Iterable[int], now: datetime | int
) -> dict[int, Embedding | None]:
    """The composites of the assemblies *keys*, whose stored ones are outdated, computed from the members *now*."""
    return {key: computed(connection, space, key, now)[0].vector(space.measure) for key in sorted(keys)}


def delete_expired_members(context: WriteContext, keys: Sequence[int]) -> None:
    """Delete the expired members of the assemblies *keys*: what is archived must be what was read."""
    connection = context.connection
    affected = sorted(memberships.expired_members(connection, context.now).keys() & set(keys))
    if affected:
        expired = memberships.expired_members_of(connection, affected, context.now)
        history_writer.delete_records(context, MEMORY, expired, "expired")
    recompute(context, vectors.lagging(connection, list(keys)))


def extend(context: WriteContext, key: int, members: Sequence[int]) -> set[int]:
    """Add *members* to an assembly and to its stored sum; keys of those that were not members yet."""
    connection, space = context.connection, context.spaces["memory"]
    before = assemblies.revision(connection, key)
    new = memberships.add_members(connection, key, members)
    composite = assemblies.composite(connection, context.spaces["assembly"], key)
    if not new and composite is not None and composite.revision == before:
        return set()
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

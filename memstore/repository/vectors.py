"""Stored vectors: rows of memory_vector and assembly_vector."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import (
    Connection,
    bindparam,
    func,
    null,
    select,
)

from memstore.concurrency import yield_gil
from memstore.models.records import RecordKind
from memstore.repository.corruption import expect_stored
from memstore.repository.key_lists import Keys, keys_in, keys_joined, keys_json
from memstore.repository.record_types import BY_KIND, RECORD_TYPES, RecordType
from memstore.repository.statements import Prepared
from memstore.schema.tables import assembly, assembly_vector, memory, namespace
from memstore.vectors.space import Space

_CHUNK = 500  # rows fetched before other threads may run
_SCAN = 256  # vectors of a scan that are read at a time: they fit a processor's cache

_composed = select(assembly_vector.c.assembly_pk, assembly_vector.c.revision).where(
    assembly_vector.c.space_pk == bindparam("space")
)
_COMPOSED = Prepared(_composed)


_COMPOSED_AMONG = Prepared(_composed.where(assembly_vector.c.assembly_pk.in_(select(keys_in().c.value))))


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorSpace(Space):
    """A row of `vector_space`: the vectors of one kind of record.

    Attributes:
        pk: the row's key.
        kind: the kind of record whose vectors they are.
    """

    pk: int
    kind: RecordKind


class VectorRows(NamedTuple):
    """Stored vectors, side by side; an expiry of None is never, a checksum of None is unknown."""

    keys: tuple[int, ...]
    namespaces: tuple[int, ...]
    expiries: tuple[int | None, ...]
    blobs: tuple[bytes, ...]
    checksums: tuple[int | None, ...]


def _vectors_of(noun: RecordType, *, some: bool) -> Prepared:
    expiry = noun.table.c.expires_at if noun.expires else null()
    statement = (
        select(noun.vector_owner, noun.table.c.namespace_pk, expiry, noun.vectors.c.vector, noun.vectors.c.checksum)
        .join(noun.table, noun.table.c.pk == noun.vector_owner)
        .join(namespace, namespace.c.pk == noun.table.c.namespace_pk)  # or there is no record to be found
        .where(noun.vectors.c.space_pk == bindparam("space"), noun.vectors.c.vector.is_not(None))
    )
    if some:
        statement = statement.where(noun.vector_owner.in_(select(keys_in().c.value)))
    return Prepared(statement)


def _scanned(noun: RecordType) -> Prepared:
    columns = noun.vector_owner, noun.vectors.c.vector, noun.vectors.c.checksum
    held = select(*columns).where(noun.vectors.c.space_pk == bindparam("space"))
    return Prepared(held.where(noun.vectors.c.vector.is_not(None)) if noun.vectors.c.vector.nullable else held)


def _owned(noun: RecordType) -> Prepared:
    owned = select(noun.table.c.namespace_pk, func.group_concat(noun.table.c.pk))
    known = noun.table.c.namespace_pk.in_(select(namespace.c.pk))  # or there is no record to be found
    return Prepared(owned.where(known).group_by(noun.table.c.namespace_pk))


_SCANNED = {noun.kind: _scanned(noun) for noun in RECORD_TYPES}
_OWNED = {noun.kind: _owned(noun) for noun in RECORD_TYPES}
_EXPIRING = Prepared(select(memory.c.pk, memory.c.expires_at).where(memory.c.expires_at.is_not(None)))
_VECTORS = {(noun.kind, some): _vectors_of(noun, some=some) for noun in RECORD_TYPES for some in (True, False)}


def vectors(connection: Connection, space: VectorSpace, keys: list[int] | None = None) -> Iterator[VectorRows]:
    """The stored vectors of *keys*, or all, in chunks; a key without one, or without an owner, is left out."""
    if keys is None:
        yield from _chunks(_VECTORS[space.kind, False].run(connection, space=space.pk))
        return
    for start in range(0, len(keys), 10_000):
        some = keys_json(keys[start : start + 10_000])
        yield from _chunks(_VECTORS[space.kind, True].run(connection, space=space.pk, keys=some))


def _chunks(cursor: Any) -> Iterator[VectorRows]:
    while rows := cursor.fetchmany(_CHUNK):
        yield VectorRows(*zip(*rows, strict=True))
        if len(rows) < _CHUNK:
            return
        yield_gil()


def scan(connection: Connection, space: VectorSpace) -> Iterator[tuple[Keys, list[bytes], list[int | None]]]:
    """Keys of the owners, stored vectors and checksums of a space, in chunks: one scan of their own table."""
    cursor = _SCANNED[space.kind].run(connection, space=space.pk)
    for turn in count(1):
        rows = cursor.fetchmany(_SCAN)
        if rows:
            keys, blobs, checksums = zip(*rows, strict=True)
            with expect_stored("the key of a vector's owner"):
                held = np.array(keys, dtype=np.int64)
            yield held, list(blobs), list(checksums)
        if len(rows) < _SCAN:
            return
        if turn % 2 == 0:
            yield_gil()


class Owners:
    """Which namespace each record of a kind is in, and when it expires: read from indexes, without a row a record."""

    def __init__(self, connection: Connection, space: VectorSpace) -> None:
        noun = BY_KIND[space.kind]
        keys, namespaces = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
        for namespace_pk, text in _OWNED[noun.kind].run(connection):
            held = keys_joined(text)
            keys.append(held)
            namespaces.append(np.full(len(held), namespace_pk, dtype=np.int64))
        self._keys, self._namespaces = _sorted(np.concatenate(keys), np.concatenate(namespaces))
        expiring = _EXPIRING.run(connection).fetchall() if noun.expires else []
        with expect_stored("the time at which a memory expires"):
            held = np.array(expiring, dtype=np.int64).reshape(len(expiring), 2)
        self._expiring, self._expiries = _sorted(held[:, 0], held[:, 1])

    def find(self, keys: Keys, never: int) -> tuple[npt.NDArray[np.bool_], Keys, Keys]:
        """Which of *keys* exist, and of those their namespaces and expiries, *never* for none."""
        there, at = _found(self._keys, keys)
        expiries = np.full(len(at), never, dtype=np.int64)
        if len(self._expiring):
            some, when = _found(self._expiring, keys[there])
            expiries[some] = self._expiries[when]
        return there, self._namespaces[at], expiries


def _sorted(keys: Keys, values: Keys) -> tuple[Keys, Keys]:
    if (keys[1:] > keys[:-1]).all():
        return keys, values
    order = np.argsort(keys)
    return keys[order], values[order]


def _found(known: Keys, keys: Keys) -> tuple[npt.NDArray[np.bool_], Keys]:
    """Which of *keys* are among the *known* ones, which ascend, and where those are."""
    at = np.searchsorted(known, keys)
    there = at < len(known)
    there[there] = known[at[there]] == keys[there]
    return there, at[there]


def count_vectors(connection: Connection, space: VectorSpace) -> int:
    """How many vectors of a space are stored, an index scan; room for an index that is to be built."""
    noun = BY_KIND[space.kind]
    held = select(func.count()).select_from(noun.vectors).where(noun.vectors.c.space_pk == space.pk)
    return int(connection.execute(held).scalar_one())


def lagging(connection: Connection, keys: list[int] | None = None) -> list[int]:
    """Keys of assemblies, among *keys* or all, whose stored composite is not of their present revision."""
    lag = (
        select(assembly.c.pk)
        .outerjoin(assembly_vector, assembly_vector.c.assembly_pk == assembly.c.pk)
        .where(assembly_vector.c.revision.is_distinct_from(assembly.c.revision))
        .order_by(assembly.c.pk)
    )
    if keys is None:
        return [int(pk) for pk in connection.execute(lag).scalars()]
    some = lag.where(assembly.c.pk.in_(select(keys_in().c.value)))
    return [int(pk) for pk in connection.execute(some, {"keys": keys_json(keys)}).scalars()]


def composed(connection: Connection, space: VectorSpace, keys: list[int] | None = None) -> dict[int, int]:
    """The revision that each stored composite is of, by the key of its assembly: of *keys*, or of all."""
    if keys is None:
        found = _COMPOSED.run(connection, space=space.pk)
    else:
        found = _COMPOSED_AMONG.run(connection, space=space.pk, keys=keys_json(keys))
    return {key: revision for key, revision in found if type(revision) is int}


def count_memories(connection: Connection) -> int:
    """Rows of `memory`, expired ones too: an index scan."""
    return int(connection.execute(select(func.count()).select_from(memory)).scalar_one())

"""Stored vectors: rows of memory_vector and assembly_vector."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Insert, Select, Table, bindparam, func, null, select
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from memstore.concurrency import yield_gil
from memstore.models.records import RecordKind
from memstore.repository.corruption import expect_stored
from memstore.repository.key_lists import key_lists, keys_joined, keys_json, listed_keys
from memstore.repository.record_types import BY_KIND, RecordType
from memstore.repository.statements import Prepared, prepared_by_kind
from memstore.schema.tables import assembly, assembly_vector, memory, namespace
from memstore.vectors.arrays import Keys
from memstore.vectors.space import Space

_SCAN = 256  # vectors of a scan that are read at a time: they fit a processor's cache


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorSpace(Space):
    """A row of `vector_space`: the vectors of one kind of record."""

    pk: int
    kind: RecordKind


Spaces = Mapping[RecordKind, VectorSpace]


class VectorRows(NamedTuple):
    """Stored vectors as columns; an expiry of None is never, a checksum of None is unknown."""

    keys: tuple[int, ...]
    namespaces: tuple[int, ...]
    expiries: tuple[int | None, ...]
    blobs: tuple[bytes, ...]
    checksums: tuple[int | None, ...]


def put_statement(table: Table) -> Insert:
    """The INSERT of a vector's row, in place of the one that its owner has in the space."""
    put = sqlite_insert(table).values({c.name: bindparam(c.name) for c in table.c})
    return put.on_conflict_do_update(
        index_elements=[*table.primary_key],
        set_={c.name: put.excluded[c.name] for c in table.c if not c.primary_key},
    )


def _vectors(t: RecordType) -> Select[tuple[int, int, int | None, bytes, int | None]]:
    expiry = t.table.c.expires_at if t.expires else null()
    return (
        select(t.vector_owner, t.table.c.namespace_pk, expiry, t.vectors.c.vector, t.vectors.c.checksum)
        .join(t.table, t.table.c.pk == t.vector_owner)
        .join(namespace, namespace.c.pk == t.table.c.namespace_pk)  # a record without a namespace cannot be read
        .where(t.vectors.c.space_pk == bindparam("space"), t.vectors.c.vector.is_not(None))
    )


def _scan(t: RecordType) -> Select[tuple[int, bytes, int | None]]:
    rows = select(t.vector_owner, t.vectors.c.vector, t.vectors.c.checksum)
    rows = rows.where(t.vectors.c.space_pk == bindparam("space"))
    return rows.where(t.vectors.c.vector.is_not(None)) if t.vectors.c.vector.nullable else rows


def _owners(t: RecordType) -> Select[tuple[int, str]]:
    owners = select(t.table.c.namespace_pk, func.group_concat(t.table.c.pk))
    owners = owners.where(t.table.c.namespace_pk.in_(select(namespace.c.pk)))
    return owners.group_by(t.table.c.namespace_pk)


def _lagging() -> Select[tuple[int]]:
    return (
        select(assembly.c.pk)
        .outerjoin(assembly_vector, assembly_vector.c.assembly_pk == assembly.c.pk)
        .where(assembly_vector.c.revision.is_distinct_from(assembly.c.revision))
        .order_by(assembly.c.pk)
    )


def _composed() -> Select[tuple[int, int]]:
    rows = select(assembly_vector.c.assembly_pk, assembly_vector.c.revision)
    return rows.where(assembly_vector.c.space_pk == bindparam("space"))


_VECTORS = prepared_by_kind(_vectors)
_VECTORS_OF = prepared_by_kind(lambda t: _vectors(t).where(t.vector_owner.in_(listed_keys())))
_SCAN_ALL = prepared_by_kind(_scan)
_OWNERS = prepared_by_kind(_owners)
_EXPIRING = Prepared(lambda: select(memory.c.pk, memory.c.expires_at).where(memory.c.expires_at.is_not(None)))
_COUNT = prepared_by_kind(
    lambda t: select(func.count()).select_from(t.vectors).where(t.vectors.c.space_pk == bindparam("space"))
)
_COUNT_OF = prepared_by_kind(
    lambda t: (
        select(func.count())
        .select_from(t.vectors)
        .where(
            t.vector_owner.in_(listed_keys()),
            t.vectors.c.space_pk == bindparam("space"),
            t.vectors.c.vector.is_not(None),
        )
    )
)
_COUNT_MEMORIES = Prepared(lambda: select(func.count()).select_from(memory))
_LAGGING = Prepared(_lagging)
_LAGGING_OF = Prepared(lambda: _lagging().where(assembly.c.pk.in_(listed_keys())))
_COMPOSED = Prepared(_composed)
_COMPOSED_OF = Prepared(lambda: _composed().where(assembly_vector.c.assembly_pk.in_(listed_keys())))


def vectors(connection: Connection, space: VectorSpace, keys: list[int] | None = None) -> Iterator[VectorRows]:
    """The stored vectors of *keys*, or all, in chunks; a key without a vector, or without an owner, is left out."""
    if keys is None:
        for rows in _VECTORS[space.kind].fetch(connection, space=space.pk):
            yield VectorRows(*zip(*rows, strict=True))
        return
    for part in key_lists(keys):
        for rows in _VECTORS_OF[space.kind].fetch(connection, space=space.pk, keys=keys_json(part)):
            yield VectorRows(*zip(*rows, strict=True))


def scan(connection: Connection, space: VectorSpace) -> Iterator[tuple[Keys, list[bytes], list[int | None]]]:
    """Keys of the owners, stored vectors and checksums of a space, in chunks: one scan of their table."""
    cursor = _SCAN_ALL[space.kind].run(connection, space=space.pk)
    for turn in count(1):
        rows = cursor.fetchmany(_SCAN)
        if rows:
            owners, blobs, checksums = zip(*rows, strict=True)
            with expect_stored(f"{space.kind}_vector.{space.kind}_pk"):
                keys = np.array(owners, dtype=np.int64)
            yield keys, list(blobs), list(checksums)
        if len(rows) < _SCAN:
            return
        if turn % 2 == 0:
            yield_gil()


class ScopeTable:
    """The namespace and the expiry of every record of a kind, read from indexes, without reading the records' rows."""

    def __init__(self, connection: Connection, space: VectorSpace) -> None:
        keys, namespaces = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
        for namespace_pk, text in _OWNERS[space.kind].run(connection):
            joined = keys_joined(text)
            keys.append(joined)
            namespaces.append(np.full(len(joined), namespace_pk, dtype=np.int64))
        self._keys, self._namespaces = _sorted(np.concatenate(keys), np.concatenate(namespaces))
        expiring = _EXPIRING.run(connection).fetchall() if BY_KIND[space.kind].expires else []
        with expect_stored("memory.expires_at"):
            pairs = np.array(expiring, dtype=np.int64).reshape(len(expiring), 2)
        self._expiring, self._expiries = _sorted(pairs[:, 0], pairs[:, 1])

    def find(self, keys: Keys, never: int) -> tuple[npt.NDArray[np.bool_], Keys, Keys]:
        """Which of *keys* exist, and of those the namespaces and expiries, *never* where they have no expiry."""
        exists, places = _positions(self._keys, keys)
        expiries = np.full(len(places), never, dtype=np.int64)
        if len(self._expiring):
            expires, indexes = _positions(self._expiring, keys[exists])
            expiries[expires] = self._expiries[indexes]
        return exists, self._namespaces[places], expiries


def _sorted(keys: Keys, values: Keys) -> tuple[Keys, Keys]:
    if (keys[1:] > keys[:-1]).all():
        return keys, values
    order = np.argsort(keys)
    return keys[order], values[order]


def _positions(ascending: Keys, keys: Keys) -> tuple[npt.NDArray[np.bool_], Keys]:
    """Which of *keys* are in *ascending*, and the positions of those."""
    places = np.searchsorted(ascending, keys)
    exists = places < len(ascending)
    exists[exists] = ascending[places[exists]] == keys[exists]
    return exists, places[exists]


def count_vectors(connection: Connection, space: VectorSpace) -> int:
    """How many vectors of a space are stored, an index scan: how much memory an index of them needs."""
    return int(_COUNT[space.kind].value(connection, space=space.pk))


def count_of(connection: Connection, space: VectorSpace, keys: Sequence[int]) -> int:
    """How many of the records *keys* have a vector."""
    return int(_COUNT_OF[space.kind].value(connection, space=space.pk, keys=keys_json(keys)))


def lagging(connection: Connection, keys: list[int] | None = None) -> list[int]:
    """Keys of assemblies, among *keys* or all, whose stored composite is not of their present revision."""
    if keys is None:
        return _LAGGING.column(connection)
    return _LAGGING_OF.column(connection, keys=keys_json(keys))


def composed(connection: Connection, space: VectorSpace, keys: list[int] | None = None) -> dict[int, int]:
    """The revision of each stored composite, by the key of its assembly: of *keys*, or of all."""
    if keys is None:
        rows = _COMPOSED.run(connection, space=space.pk)
    else:
        rows = _COMPOSED_OF.run(connection, space=space.pk, keys=keys_json(keys))
    return {key: revision for key, revision in rows if type(revision) is int}


def count_memories(connection: Connection) -> int:
    """Rows of `memory`, expired ones too: an index scan."""
    return int(_COUNT_MEMORIES.value(connection))

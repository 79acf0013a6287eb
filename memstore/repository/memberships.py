"""Memberships: rows of `assembly_member`, the only place that reads and writes them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    LargeBinary,
    Select,
    bindparam,
    delete,
    func,
    select,
    type_coerce,
)
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from memstore.repository.key_lists import Keys, keys_joined, keys_json, listed_keys
from memstore.repository.statements import Prepared
from memstore.repository.vectors import VectorSpace
from memstore.schema.tables import assembly_member, live, memory, memory_vector

_c = assembly_member.c


def _vectors() -> Select[tuple[bytes, int | None]]:
    columns = type_coerce(memory_vector.c.vector, LargeBinary), memory_vector.c.checksum
    rows = select(*columns).where(memory_vector.c.space_pk == bindparam("space"))
    return rows.order_by(memory_vector.c.memory_pk)


_OF_ASSEMBLY = Prepared(lambda: select(func.group_concat(_c.memory_pk)).where(_c.assembly_pk == bindparam("assembly")))
_OF_ASSEMBLIES = Prepared(
    lambda: (
        select(_c.assembly_pk, memory.c.pk, memory.c.id)
        .join(memory, memory.c.pk == _c.memory_pk)
        .where(_c.assembly_pk.in_(listed_keys()))
        .order_by(memory.c.pk)
    )
)
_PAGE = Prepared(
    lambda: (
        select(memory.c.pk, memory.c.id)
        .join(assembly_member, _c.memory_pk == memory.c.pk)
        .where(_c.assembly_pk == bindparam("assembly"), memory.c.pk > bindparam("after"), live(bindparam("now")))
        .order_by(memory.c.pk)
        .limit(bindparam("most", type_=Integer))
    )
)
_ASSEMBLIES_OF = Prepared(
    lambda: (
        select(_c.memory_pk, _c.assembly_pk)
        .where(_c.memory_pk.in_(listed_keys()))
        .order_by(_c.memory_pk, _c.assembly_pk)
    )
)
_VECTORS_OF_ASSEMBLY = Prepared(
    lambda: (
        _vectors()
        .join(assembly_member, _c.memory_pk == memory_vector.c.memory_pk)
        .where(_c.assembly_pk == bindparam("assembly"))
    )
)
_VECTORS_OF_MEMORIES = Prepared(lambda: _vectors().where(memory_vector.c.memory_pk.in_(listed_keys())))
_ADD = Prepared(
    lambda: (
        sqlite_insert(assembly_member)
        .values(assembly_pk=bindparam("assembly"), memory_pk=bindparam("memory"))
        .on_conflict_do_nothing()
    )
)


def _these() -> ColumnElement[bool]:
    return (_c.assembly_pk == bindparam("assembly")) & _c.memory_pk.in_(listed_keys())


_AMONG = Prepared(lambda: select(_c.memory_pk).where(_these()))
_REMOVE = Prepared(lambda: delete(assembly_member).where(_these()))
_REMOVE_ALL = Prepared(lambda: delete(assembly_member).where(_c.assembly_pk == bindparam("assembly")))


def members(connection: Connection, pk: int) -> Keys:
    """Keys of the members of an assembly, ascending, expired ones too."""
    return keys_joined(_OF_ASSEMBLY.value(connection, assembly=pk))


def members_of(connection: Connection, assemblies: Sequence[int]) -> dict[int, list[tuple[int, str]]]:
    """Keys and ids of the members of *assemblies*, ascending by key; an assembly without members is left out."""
    pairs: dict[int, list[tuple[int, str]]] = {}
    for assembly, key, id in _OF_ASSEMBLIES.of_keys(connection, assemblies):
        pairs.setdefault(assembly, []).append((key, id))
    return pairs


def page(connection: Connection, pk: int, now: datetime, after: int, limit: int) -> list[tuple[int, str]]:
    """Keys and ids of the next *limit* members after key *after* that have not expired, in order of creation."""
    return _PAGE.run(connection, assembly=pk, now=now, after=after, most=limit).fetchall()


def assemblies_of(connection: Connection, memories: Iterable[int]) -> dict[int, list[int]]:
    """Keys of the assemblies of which *memories* are members, ascending; a memory of none is left out."""
    owners: dict[int, list[int]] = {}
    for key, assembly in _ASSEMBLIES_OF.of_keys(connection, sorted(memories)):
        owners.setdefault(key, []).append(assembly)
    return owners


def member_vectors(connection: Connection, space: VectorSpace, pk: int) -> Iterator[tuple[bytes, int | None]]:
    """The stored vectors of an assembly's members and their checksums, in order of their keys."""
    return _VECTORS_OF_ASSEMBLY.run(connection, assembly=pk, space=space.pk)


def memory_vectors(
    connection: Connection, space: VectorSpace, keys: Sequence[int]
) -> Iterator[tuple[bytes, int | None]]:
    """The stored vectors of memories and their checksums, in order of their *keys*."""
    return _VECTORS_OF_MEMORIES.run(connection, keys=keys_json(keys), space=space.pk)


def add_members(connection: Connection, pk: int, memories: Iterable[int]) -> list[int]:
    """Make memories members of an assembly; keys of those that were not, ascending."""
    keys = sorted(set(memories))
    existing = set(_AMONG.column(connection, assembly=pk, keys=keys_json(keys)))
    new = [key for key in keys if key not in existing]
    _ADD.many(connection, [(pk, key) for key in new])
    return new


def remove_members(connection: Connection, pk: int, memories: Sequence[int]) -> set[int]:
    """End memberships; keys of the memories that were members."""
    values: Mapping[str, Any] = {"assembly": pk, "keys": keys_json(memories)}
    existing = set(_AMONG.column(connection, **values))
    _REMOVE.run(connection, **values)
    return existing


def remove_all_members(connection: Connection, pk: int) -> set[int]:
    """End every membership of an assembly; keys of the memories that were members."""
    existing = set(members(connection, pk).tolist())
    _REMOVE_ALL.run(connection, assembly=pk)
    return existing

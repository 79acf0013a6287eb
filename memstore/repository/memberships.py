"""Memberships: rows of `assembly_member`, the only place that reads and writes them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
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
    text,
    type_coerce,
    update,
)
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from memstore.repository.key_lists import key_lists, keys_joined, keys_json, listed_keys
from memstore.repository.record_types import ASSEMBLY, MEMORY, RecordType
from memstore.repository.statements import Prepared, prepared_by_kind
from memstore.repository.vectors import VectorSpace
from memstore.schema.tables import assembly, assembly_member, live, memory, memory_vector
from memstore.schema.types import UtcTime
from memstore.vectors.arrays import Keys

_c = assembly_member.c

Partner = tuple[int, str]
"""Key and id of the record at the other end of a membership."""


class MembershipRow(NamedTuple):
    """One membership, seen from one end."""

    key: int
    partner: int
    partner_id: str
    partner_namespace: int


def partner_type(record_type: RecordType) -> RecordType:
    """The kind of record at the other end of a membership."""
    return ASSEMBLY if record_type is MEMORY else MEMORY


def _rows(record_type: RecordType) -> Select[tuple[int, int, str, int]]:
    key, other = (_c.memory_pk, _c.assembly_pk) if record_type is MEMORY else (_c.assembly_pk, _c.memory_pk)
    partner = partner_type(record_type).table
    columns = select(key, other, partner.c.id, partner.c.namespace_pk).join(partner, partner.c.pk == other)
    return columns.where(key.in_(listed_keys())).order_by(other)


def _vectors() -> Select[tuple[bytes, int | None]]:
    columns = type_coerce(memory_vector.c.vector, LargeBinary), memory_vector.c.checksum
    rows = select(*columns).where(memory_vector.c.space_pk == bindparam("space"))
    return rows.order_by(memory_vector.c.memory_pk)


_OF_ASSEMBLY = Prepared(lambda: select(func.group_concat(_c.memory_pk)).where(_c.assembly_pk == bindparam("assembly")))
_LIVE_OF_ASSEMBLY = Prepared(
    lambda: (
        select(func.group_concat(_c.memory_pk))
        .select_from(assembly_member.join(memory, memory.c.pk == _c.memory_pk))
        .where(_c.assembly_pk == bindparam("assembly"), live(bindparam("now")))
    )
)
_EXPIRED = Prepared(
    # As text, because SQLAlchemy writes no CROSS JOIN, by which SQLite keeps this order: as a rule, few memories have
    # expired. Otherwise it reads all memberships in the order of the groups.
    lambda: text(
        "SELECT assembly_member.assembly_pk, count(*), max(memory.expires_at) FROM memory CROSS JOIN assembly_member "
        "ON assembly_member.memory_pk = memory.pk WHERE memory.expires_at <= :now GROUP BY assembly_member.assembly_pk"
    ).bindparams(bindparam("now", type_=UtcTime()))
)
_EXPIRED_OF = Prepared(
    lambda: (
        select(_c.memory_pk)
        .select_from(assembly_member.join(memory, memory.c.pk == _c.memory_pk))
        .where(_c.assembly_pk.in_(listed_keys()), memory.c.expires_at <= bindparam("now"))
        .distinct()
    )
)
_EXPIRIES = Prepared(
    lambda: (
        select(func.max(memory.c.expires_at), _c.assembly_pk)
        .select_from(assembly_member.join(memory, memory.c.pk == _c.memory_pk))
        .where(_c.memory_pk.in_(listed_keys()))
        .group_by(_c.assembly_pk)
    )
)
_STAMP = Prepared(
    lambda: (
        update(assembly)
        .where(assembly.c.pk.in_(select(_c.assembly_pk).where(_c.memory_pk.in_(listed_keys()))))
        .values(updated_at=bindparam("now"))
    )
)
_STAMP_EXPIRY = Prepared(
    lambda: (
        update(assembly)
        .where(assembly.c.pk == bindparam("assembly"), assembly.c.updated_at < bindparam("expiry"))
        .values(updated_at=bindparam("expiry"))
    )
)
_END = Prepared(lambda: delete(assembly_member).where(_c.memory_pk.in_(listed_keys())))
_ROWS = prepared_by_kind(_rows)
_ASSIGNED = Prepared(lambda: select(_c.memory_pk).where(_c.memory_pk.in_(listed_keys())).distinct())
_PAGE = Prepared(
    lambda: (
        select(_c.memory_pk, memory.c.id)
        .join(memory, memory.c.pk == _c.memory_pk)
        # A range of the membership's own key: by the memory's key, each page would be read from the first member on.
        .where(_c.assembly_pk == bindparam("assembly"), _c.memory_pk > bindparam("after"), live(bindparam("now")))
        .order_by(_c.memory_pk)
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
_LIVE_VECTORS_OF_ASSEMBLY = Prepared(
    lambda: (
        _vectors()
        .join(assembly_member, _c.memory_pk == memory_vector.c.memory_pk)
        .join(memory, memory.c.pk == memory_vector.c.memory_pk)
        .where(_c.assembly_pk == bindparam("assembly"), live(bindparam("now")))
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


def members(connection: Connection, pk: int) -> Keys:
    """Keys of the members of an assembly, ascending, expired ones too."""
    return keys_joined(_OF_ASSEMBLY.value(connection, assembly=pk))


def live_members(connection: Connection, pk: int, now: datetime) -> Keys:
    """Keys of the members of an assembly that have not expired at *now*, ascending."""
    return np.sort(keys_joined(_LIVE_OF_ASSEMBLY.value(connection, assembly=pk, now=now)))


class ExpiredMembers(NamedTuple):
    """The members of an assembly that have expired and are not deleted yet: how many, and when the last expired."""

    members: int
    last_expiry: int


def expired_members(connection: Connection, now: datetime | int) -> dict[int, ExpiredMembers]:
    """The expired members of each assembly that has any, by key: as a rule, of none."""
    expired: dict[int, ExpiredMembers] = {}
    for key, count, last in _EXPIRED.run(connection, now=now).fetchall():
        expired[key] = ExpiredMembers(count, last)
    return expired


def expired_members_of(connection: Connection, assemblies: Sequence[int], now: datetime) -> list[int]:
    """Keys of the expired members of *assemblies*, each once."""
    return [key for (key,) in _EXPIRED_OF.of_keys(connection, assemblies, now=now)]


def stamp_assemblies(connection: Connection, memories: Sequence[int], now: datetime) -> None:
    """Set `updated_at` of the assemblies that gain or lose the members *memories*."""
    for part in key_lists(memories):
        _STAMP.run(connection, keys=keys_json(part), now=now)


def end_expired(connection: Connection, memories: Sequence[int]) -> None:
    """End the memberships of expired memories that are about to be deleted, before SQLite does by a cascade.

    Each membership raises the assembly's revision once this way, and `updated_at` becomes the time of the expiry. So an
    assembly is afterwards as it was read since the expiry.
    """
    for part in key_lists(memories):
        keys = keys_json(part)
        expiries = _EXPIRIES.run(connection, keys=keys).fetchall()
        if expiries:
            names = _STAMP_EXPIRY.names
            values = [{"expiry": expiry, "assembly": assembly_pk} for expiry, assembly_pk in expiries]
            _STAMP_EXPIRY.many(connection, [[row[name] for name in names] for row in values])
            _END.run(connection, keys=keys)


def rows(connection: Connection, record_type: RecordType, keys: Sequence[int]) -> Iterator[MembershipRow]:
    """The memberships of the records *keys*, ascending by the key of the other end."""
    return map(MembershipRow._make, _ROWS[record_type.kind].of_keys(connection, keys))


def partners(connection: Connection, record_type: RecordType, keys: Sequence[int]) -> dict[int, list[Partner]]:
    """The members of assemblies, or the assemblies of memories, by key; a record without any is left out."""
    by_key: dict[int, list[Partner]] = {}
    for row in rows(connection, record_type, keys):
        by_key.setdefault(row.key, []).append((row.partner, row.partner_id))
    return by_key


def assigned(connection: Connection, memories: Keys) -> Keys:
    """Those of *memories* that are members of an assembly, ascending."""
    keys = {key for (key,) in _ASSIGNED.of_keys(connection, memories.tolist())}
    return np.array(sorted(keys), dtype=np.int64)


def page(connection: Connection, pk: int, now: datetime, after: int, limit: int) -> list[tuple[int, str]]:
    """Keys and ids of the next *limit* members after key *after* that have not expired, in order of creation."""
    return _PAGE.run(connection, assembly=pk, now=now, after=after, most=limit).fetchall()


def assemblies_of(connection: Connection, memories: Iterable[int]) -> dict[int, list[int]]:
    """Keys of the assemblies of which *memories* are members, ascending; a memory of none is left out."""
    owners: dict[int, list[int]] = {}
    for key, assembly_pk in _ASSEMBLIES_OF.of_keys(connection, sorted(memories)):
        owners.setdefault(key, []).append(assembly_pk)
    return owners


def member_vectors(
    connection: Connection, space: VectorSpace, pk: int, now: datetime | int | None = None
) -> Iterator[tuple[bytes, int | None]]:
    """The stored vectors of an assembly's members and their checksums, in order of their keys.

    With *now*, without those of members that have expired by then.
    """
    if now is None:
        return _VECTORS_OF_ASSEMBLY.run(connection, assembly=pk, space=space.pk)
    return _LIVE_VECTORS_OF_ASSEMBLY.run(connection, assembly=pk, space=space.pk, now=now)


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
    add_rows(connection, [(pk, key) for key in new])
    return new


def add_rows(connection: Connection, pairs: Sequence[tuple[int, int]]) -> None:
    """Store memberships, given as keys of an assembly and of a memory; those that exist stay."""
    _ADD.many(connection, pairs)


def remove_members(connection: Connection, pk: int, memories: Sequence[int]) -> set[int]:
    """End memberships; keys of the memories that were members."""
    values: Mapping[str, Any] = {"assembly": pk, "keys": keys_json(memories)}
    existing = set(_AMONG.column(connection, **values))
    _REMOVE.run(connection, **values)
    return existing

"""How active assemblies are and whether they are in step, their members by key, and whose members memories are."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Integer, LargeBinary, bindparam, func, literal_column, select, type_coerce, update

from memstore.concurrency import chunks
from memstore.models.records import Namespace
from memstore.repository.corruption import corrupt_value, expect_stored
from memstore.repository.key_lists import Keys, keys_in, keys_joined, keys_json
from memstore.repository.statements import Prepared
from memstore.repository.vectors import VectorSpace
from memstore.schema.namespace_path import namespace_parts
from memstore.schema.tables import assembly, assembly_member, assembly_vector, namespace
from memstore.timestamps import from_micros, to_micros

_STANDING = Prepared(
    select(
        assembly.c.pk,
        assembly.c.id,
        namespace.c.path,
        assembly.c.revision,
        assembly.c.activation,
        assembly.c.activated_at,
        assembly_vector.c.revision,
        assembly_vector.c.composed_at,
        type_coerce(assembly_vector.c.vector, LargeBinary).is_not(None),
    )
    .join(namespace, namespace.c.pk == assembly.c.namespace_pk)
    .outerjoin(
        assembly_vector,
        (assembly_vector.c.assembly_pk == assembly.c.pk) & (assembly_vector.c.space_pk == bindparam("space")),
    )
    .where(assembly.c.pk.in_(select(keys_in().c.value)))
)
_MEMBERS = Prepared(
    select(func.group_concat(assembly_member.c.memory_pk)).where(assembly_member.c.assembly_pk == bindparam("assembly"))
)
_OWNERS = Prepared(
    select(assembly_member.c.memory_pk, assembly_member.c.assembly_pk)
    .where(assembly_member.c.memory_pk.in_(select(keys_in().c.value)))
    .order_by(assembly_member.c.memory_pk, assembly_member.c.assembly_pk)
)
_ACTIVATE = Prepared(
    update(assembly)
    .values(
        activation=bindparam("level"),
        activated_at=bindparam("at", type_=Integer),
        activation_count=assembly.c.activation_count + literal_column("1"),
    )
    .where(assembly.c.pk == bindparam("key"))
)


class Standing(NamedTuple):
    """Where an assembly stands: the revisions of it and of its composite, and its activation as stored.

    `composed` says whether it has a composite, `composed_at` when that was computed.
    """

    key: int
    id: str
    namespace: Namespace
    revision: int
    level: float
    activated_at: datetime | None
    composite_revision: int | None
    composed_at: datetime | None
    composed: bool


def standing(connection: Connection, space: VectorSpace, keys: Iterable[int]) -> dict[int, Standing]:
    """Where the assemblies of *keys* stand, those that exist. Raises `DamagedError`."""
    found: dict[int, Standing] = {}
    for some in chunks(sorted(keys)):
        for row in _STANDING.run(connection, keys=keys_json(some), space=space.pk):
            found[row[0]] = _standing(row)
    return found


def _standing(row: tuple[Any, ...]) -> Standing:
    key, id, path, revision, level, activated, composite, composed, there = row
    whole = type(id) is str and type(path) is str and type(revision) is int
    times = type(activated) in (int, type(None)) and type(composed) in (int, type(None))
    active = type(level) is float and 0 <= level <= 1
    if not whole or not times or not active or type(composite) not in (int, type(None)):
        raise corrupt_value("assembly", "types of id, revision, activation and activated_at as written", row)
    with expect_stored("assembly.activated_at, assembly_vector.composed_at or namespace.path"):
        return Standing(
            key,
            id,
            namespace_parts(path),
            revision,
            level,
            None if activated is None else from_micros(activated),
            composite,
            None if composed is None else from_micros(composed),
            bool(there),
        )


def members(connection: Connection, key: int) -> Keys:
    """Keys of the members of an assembly, ascending; expired ones are among them."""
    row = _MEMBERS.run(connection, assembly=key).fetchone()
    return keys_joined(row[0])


def owners(connection: Connection, memories: Iterable[int]) -> dict[int, list[int]]:
    """Keys of the assemblies that each of *memories* is a member of, ascending; one of none is left out."""
    found: dict[int, list[int]] = {}
    for some in chunks(sorted(memories)):
        for memory, owner in _OWNERS.run(connection, keys=keys_json(some)):
            found.setdefault(memory, []).append(owner)
    return found


def activate(connection: Connection, levels: Mapping[int, float], at: datetime) -> None:
    """Note that assemblies, named by key, were activated at these levels."""
    when = to_micros(at)
    values = {"at": when}
    _ACTIVATE.many(
        connection,
        [[{**values, "level": level, "key": key}[name] for name in _ACTIVATE.names] for key, level in levels.items()],
    )

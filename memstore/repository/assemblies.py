"""Assemblies, their members and their composites as rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    LargeBinary,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal,
    select,
    type_coerce,
    update,
)
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.types import NullType

from memstore.concurrency import chunks
from memstore.database.sqlite import sqlite3
from memstore.errors import DamagedError, short_repr
from memstore.models.records import Assembly, Namespace
from memstore.repository import namespaces, record_tags, records
from memstore.repository.corruption import corrupt_value, expect_stored, wrong_vector
from memstore.repository.key_lists import keys_in, keys_json
from memstore.repository.record_types import ASSEMBLY
from memstore.repository.statements import Prepared
from memstore.repository.vectors import VectorSpace
from memstore.schema.namespace_path import namespace_parts
from memstore.schema.tables import assembly, assembly_member, assembly_vector, live, memory, memory_vector, namespace
from memstore.search.activation import HALF_LIFE, decayed
from memstore.timestamps import to_micros
from memstore.vectors.encoding import decode

_FIELDS = (
    "id",
    "name",
    "description",
    "topics",
    "metadata",
    "created_at",
    "updated_at",
    "activated_at",
    "activation_count",
)
_member_count = (
    select(func.count())
    .select_from(assembly_member.join(memory, memory.c.pk == assembly_member.c.memory_pk))
    .where(
        assembly_member.c.assembly_pk == assembly.c.pk,
        live(bindparam("now")),
    )
    .scalar_subquery()
)
_READ = (
    select(
        assembly,
        namespace.c.path,
        _member_count.label("member_count"),
        assembly_vector.c.vector,
        assembly_vector.c.checksum,
        assembly_vector.c.assembly_pk.label("owner"),
    )
    .join(namespace, namespace.c.pk == assembly.c.namespace_pk)
    .outerjoin(assembly_vector, records.holds_vector(ASSEMBLY))
    .where(assembly.c.pk.in_(select(keys_in().c.value)))
)
_JOIN = Prepared(
    sqlite_insert(assembly_member)
    .values(assembly_pk=bindparam("assembly"), memory_pk=bindparam("memory"))
    .on_conflict_do_nothing()
)
_REVISION = Prepared(select(assembly.c.revision).where(assembly.c.pk == bindparam("pk")))
_MEMBER_VECTORS = Prepared(
    select(type_coerce(memory_vector.c.vector, LargeBinary), memory_vector.c.checksum)
    .join(assembly_member, assembly_member.c.memory_pk == memory_vector.c.memory_pk)
    .where(assembly_member.c.assembly_pk == bindparam("assembly"), memory_vector.c.space_pk == bindparam("space"))
    .order_by(assembly_member.c.memory_pk)
)
_SOME_VECTORS = Prepared(
    select(type_coerce(memory_vector.c.vector, LargeBinary), memory_vector.c.checksum)
    .where(memory_vector.c.memory_pk.in_(select(keys_in().c.value)), memory_vector.c.space_pk == bindparam("space"))
    .order_by(memory_vector.c.memory_pk)
)
_put = sqlite_insert(assembly_vector).values({c.name: bindparam(c.name, type_=NullType()) for c in assembly_vector.c})
_PUT = Prepared(
    _put.on_conflict_do_update(
        index_elements=["assembly_pk", "space_pk"],
        set_={c.name: _put.excluded[c.name] for c in assembly_vector.c if not c.primary_key},
    )
)


@dataclass(frozen=True, slots=True)
class Composite:
    """A row of `assembly_vector`: the running sum (float64 bytes), and the vector that came of it."""

    sum: bytes
    length: float
    count: int
    vector: bytes | None
    checksum: int | None
    revision: int


def insert_new(connection: Connection, path: Namespace, assemblies: Sequence[Assembly]) -> list[int]:
    """Store assemblies, without members, whose ids are not taken; their keys. Raises `DuplicateError`."""
    owner = namespaces.key_made(connection, path)
    first = records.next_key(connection, ASSEMBLY)
    stored = [
        {
            "pk": pk,
            "namespace_pk": owner,
            "activation": record.activation_level,
            **{name: getattr(record, name) for name in _FIELDS},
        }
        for pk, record in enumerate(assemblies, first)
    ]
    try:
        for some in chunks(stored):
            connection.execute(insert(assembly), list(some))
    except IntegrityError as error:
        raise records.taken(connection, ASSEMBLY, path, [a.id for a in assemblies], first) or error from error
    record_tags.add_tags(connection, ASSEMBLY, owner, [(pk, a.tags) for pk, a in enumerate(assemblies, first)])
    return list(range(first, first + len(assemblies)))


def change(connection: Connection, path: Namespace, pk: int, changes: Mapping[str, Any]) -> None:
    """Give an assembly new values of the fields named; the others stay as they are."""
    plain = {name: value for name, value in changes.items() if name in assembly.c}
    if "activation_level" in changes:
        plain["activation"] = changes["activation_level"]
    if plain:
        connection.execute(update(assembly).where(assembly.c.pk == pk).values(plain))
    if "tags" in changes:
        owner = namespaces.key_made(connection, path)
        record_tags.replace_tags(connection, ASSEMBLY, owner, {pk: changes["tags"]})


def read(
    connection: Connection, space: VectorSpace, keys: Sequence[int], now: datetime, half_life: float = HALF_LIFE
) -> list[Assembly]:
    """The assemblies of *keys*, in their order; keys that do not exist are left out. Raises `DamagedError`.

    Their activation is what it has come down to *now*, with a *half_life* in seconds.
    """
    found: dict[int, Assembly] = {}
    for slice_ in chunks(keys):
        some = keys_json(slice_)
        tags = record_tags.tags_of(connection, ASSEMBLY, some)
        with expect_stored("an assembly"):
            for row in connection.execute(_READ, {"keys": some, "space": space.pk, "now": now}).mappings():
                active = decayed(row["activation"], row["activated_at"], now, half_life)
                found[row["pk"]] = _record(dict(row), frozenset(tags.get(row["pk"], ())), space, active)
    return [found[key] for key in keys if key in found]


def _record(row: Mapping[str, Any], tags: frozenset[str], space: VectorSpace, active: float) -> Assembly:
    vector, dimension = row["vector"], space.dimension
    texts = {type(row[name]) for name in ("id", "name", "description")}
    if texts != {str} or type(row["revision"]) is not int or type(row["topics"]) is not list:
        raise corrupt_value(f"the texts, topics and revision of assembly {short_repr(row['id'])}", dict(row))
    level, count = row["activation"], row["activation_count"]
    if type(level) is not float or not 0 <= level <= 1 or type(count) is not int:
        raise corrupt_value(f"the activation of assembly {short_repr(row['id'])}", (level, count))
    if row["owner"] not in (None, row["pk"]):
        raise wrong_vector("assembly", row["id"])
    return Assembly(
        id=row["id"],
        namespace=namespace_parts(row["path"]),
        name=row["name"],
        description=row["description"],
        tags=tags,
        topics=tuple(row["topics"]),
        metadata=row["metadata"],
        member_count=row["member_count"],
        composite=None if vector is None else decode(vector, dimension, f"assembly {row['id']!r}", row["checksum"]),
        revision=row["revision"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        activation=active,
        activation_level=row["activation"],
        activated_at=row["activated_at"],
        activation_count=row["activation_count"],
    )


def add_members(connection: Connection, pk: int, members: Iterable[int]) -> list[int]:
    """Make memories members; keys of those that were not, ascending."""
    wanted = sorted(set(members))
    known = select(assembly_member.c.memory_pk).where(
        assembly_member.c.assembly_pk == pk, assembly_member.c.memory_pk.in_(select(keys_in().c.value))
    )
    already = set(connection.execute(known, {"keys": keys_json(wanted)}).scalars())
    fresh = [key for key in wanted if key not in already]
    _JOIN.many(connection, [(pk, key) for key in fresh])
    return fresh


def remove_members(connection: Connection, pk: int, members: Sequence[int]) -> set[int]:
    """End memberships; of which memories there were any."""
    these = and_(assembly_member.c.assembly_pk == pk, assembly_member.c.memory_pk.in_(select(keys_in().c.value)))
    return _ended(connection, these, {"keys": keys_json(members)})


def drop_members(connection: Connection, pk: int) -> set[int]:
    """End every membership of an assembly; of which memories there were any."""
    return _ended(connection, assembly_member.c.assembly_pk == pk, {})


def _ended(connection: Connection, these: ColumnElement[bool], values: Mapping[str, Any]) -> set[int]:
    ended = set(connection.execute(select(assembly_member.c.memory_pk).where(these), values).scalars())
    connection.execute(delete(assembly_member).where(these), values)
    return ended


def owner(connection: Connection, pk: int) -> int:
    """The key of the namespace an assembly is in."""
    return int(connection.execute(select(assembly.c.namespace_pk).where(assembly.c.pk == pk)).scalar_one())


def members(connection: Connection, pk: int, now: datetime, after: int, limit: int) -> list[tuple[int, str]]:
    """Keys and ids of the next *limit* members after key *after*, in order of creation."""
    page = (
        select(memory.c.pk, memory.c.id)
        .join(assembly_member, assembly_member.c.memory_pk == memory.c.pk)
        .where(assembly_member.c.assembly_pk == pk, memory.c.pk > literal(after))
        .where(live(now))
        .order_by(memory.c.pk)
        .limit(limit)
    )
    return [(row[0], row[1]) for row in connection.execute(page)]


def owners(connection: Connection, memory_pk: int) -> list[int]:
    """Keys of the assemblies a memory is a member of, ascending."""
    found = select(assembly_member.c.assembly_pk).where(assembly_member.c.memory_pk == memory_pk)
    return [int(k) for k in connection.execute(found.order_by(assembly_member.c.assembly_pk)).scalars()]


def revision(connection: Connection, pk: int) -> int:
    """The present revision of an assembly. Raises `DamagedError`."""
    row = _REVISION.run(connection, pk=pk).fetchone()
    if row is None:
        raise DamagedError("the file's indexes lead to an assembly that is not there: see what `memstore check` names")
    if type(row[0]) is not int:
        raise corrupt_value("the revision of an assembly", row[0])
    return row[0]


def composite(connection: Connection, space: VectorSpace, pk: int) -> Composite | None:
    """The stored composite of an assembly; None when it has no row yet."""
    columns = [assembly_vector.c[field.name] for field in fields(Composite)]
    stored = select(*columns).where(assembly_vector.c.assembly_pk == pk, assembly_vector.c.space_pk == space.pk)
    row = connection.execute(stored).one_or_none()
    return None if row is None else Composite(*row)


def put_composite(connection: Connection, space: VectorSpace, pk: int, made: Composite, now: datetime) -> None:
    """Store the composite of an assembly, computed *now*."""
    _PUT.run(connection, assembly_pk=pk, space_pk=space.pk, composed_at=to_micros(now), **asdict(made))


def member_vectors(connection: Connection, space: VectorSpace, pk: int) -> sqlite3.Cursor:
    """The stored vectors of an assembly's members and their checksums, in order of their keys, one a row."""
    return _MEMBER_VECTORS.run(connection, assembly=pk, space=space.pk)


def some_vectors(connection: Connection, space: VectorSpace, keys: Sequence[int]) -> sqlite3.Cursor:
    """The stored vectors of the memories *keys* and their checksums, in order of their keys, one a row."""
    return _SOME_VECTORS.run(connection, keys=keys_json(keys), space=space.pk)


def stamp(connection: Connection, pk: int, now: datetime) -> None:
    """Note that an assembly, or its membership, was changed."""
    connection.execute(update(assembly).where(assembly.c.pk == pk).values(updated_at=now))

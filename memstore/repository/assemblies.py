"""Assemblies and their composites as rows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, LargeBinary, Select, bindparam, func, null, select, type_coerce

from memstore.concurrency import chunks
from memstore.database.sqlite import sqlite3
from memstore.errors import DamagedError
from memstore.models.activation import HALF_LIFE, decayed
from memstore.models.fields import RECORD_FIELDS
from memstore.models.records import Assembly, Embedding, Namespace
from memstore.repository import namespaces, record_tags, records, row_restore
from memstore.repository.corruption import UNREADABLE, corrupt_row, corrupt_value, expect_stored, wrong_vector
from memstore.repository.key_lists import keys_json, listed_keys
from memstore.repository.record_types import ASSEMBLY
from memstore.repository.statements import Prepared, stored
from memstore.repository.vectors import VectorSpace, put_statement
from memstore.schema.namespace_path import namespace_parts
from memstore.schema.tables import assembly, assembly_member, assembly_vector, live, memory, namespace
from memstore.timestamps import from_micros
from memstore.vectors.encoding import decode

_COLUMNS = {field.name: field.column for field in RECORD_FIELDS["assembly"] if field.column is not None}
"""The columns of the fields that are stored in the assembly's row, by field."""
_GIVEN = [(name, column) for name, column in _COLUMNS.items() if name != "revision"]
"""Of these, the ones that an insert names: a new row starts at revision 0."""
_ROW = ASSEMBLY.columns
_TYPES = {
    "id": str,
    "name": str,
    "description": str,
    "revision": int,
    "activation": float,
    "activation_count": int,
}


@dataclass(frozen=True, slots=True)
class Composite:
    """A row of `assembly_vector`: the running sum (float64 bytes), and the vector computed from it."""

    sum: bytes
    length: float
    count: int
    vector: bytes | None
    checksum: int | None
    revision: int


def _read(*vector: ColumnElement[Any]) -> Select[Any]:
    member_count = (
        select(func.count())
        .select_from(assembly_member.join(memory, memory.c.pk == assembly_member.c.memory_pk))
        .where(assembly_member.c.assembly_pk == assembly.c.pk, live(bindparam("now")))
        .scalar_subquery()
    )
    rows = select(assembly.c.pk, namespace.c.path, member_count, *vector, *(assembly.c[name] for name in _ROW))
    rows = rows.join(namespace, namespace.c.pk == assembly.c.namespace_pk)
    return rows.where(assembly.c.pk.in_(listed_keys()))


_READ = {
    True: Prepared(
        lambda: _read(
            type_coerce(assembly_vector.c.vector, LargeBinary),
            assembly_vector.c.checksum,
            assembly_vector.c.assembly_pk.label("owner"),
        ).outerjoin(assembly_vector, records.joins_vector(ASSEMBLY))
    ),
    False: Prepared(lambda: _read(null(), null(), null())),
}
_NAMESPACE_KEYS = Prepared(
    lambda: select(assembly.c.pk, assembly.c.namespace_pk).where(assembly.c.pk.in_(listed_keys()))
)
_REVISION = Prepared(lambda: select(assembly.c.revision).where(assembly.c.pk == bindparam("pk")))
_COMPOSITE = Prepared(
    lambda: select(*(assembly_vector.c[field.name] for field in fields(Composite))).where(
        assembly_vector.c.assembly_pk == bindparam("pk"), assembly_vector.c.space_pk == bindparam("space")
    )
)
_PUT_COMPOSITE = Prepared(lambda: put_statement(assembly_vector))


def insert_new(connection: Connection, assemblies: Sequence[Assembly]) -> list[int]:
    """Store assemblies, without members, whose ids do not exist; their keys. Raises `DuplicateError`."""
    owner_of = namespaces.ensure_keys(connection, [record.namespace for record in assemblies])
    owners = [owner_of[record.namespace] for record in assemblies]
    first = records.next_key(connection, ASSEMBLY)
    rows = [
        (pk, owner, *(stored(getattr(record, name)) for name, _ in _GIVEN))
        for pk, (owner, record) in enumerate(zip(owners, assemblies, strict=True), first)
    ]
    insert = row_restore.insert_statement("assembly", ("pk", "namespace_pk", *(column for _, column in _GIVEN)))
    try:
        for chunk in chunks(rows):
            insert.many(connection, chunk)
    except sqlite3.IntegrityError:
        addresses = [(record.namespace, record.id) for record in assemblies]
        duplicate = records.duplicate_error(connection, ASSEMBLY, addresses, first)
        if duplicate is None:
            raise
        raise duplicate from None
    keys = list(range(first, first + len(assemblies)))
    record_tags.add_tags(connection, ASSEMBLY, owners, keys, [record.tags for record in assemblies])
    return keys


def change_many(connection: Connection, path: Namespace, keys: Sequence[int], changes: Mapping[str, Any]) -> None:
    """Give assemblies of one namespace new values of the fields named; the others stay as they are."""
    for key in keys:
        change(connection, path, key, changes)


def change(connection: Connection, path: Namespace, pk: int, changes: Mapping[str, Any]) -> None:
    """Give an assembly new values of the fields named; the others stay as they are."""
    columns = {column: stored(changes[name]) for name, column in _COLUMNS.items() if name in changes}
    row_restore.update_columns(connection, ASSEMBLY, pk, columns)
    if "tags" in changes:
        owner = namespaces.ensure_key(connection, path)
        record_tags.replace_tags(connection, ASSEMBLY, owner, {pk: changes["tags"]})


def read(
    connection: Connection,
    space: VectorSpace,
    keys: Sequence[int],
    now: datetime,
    half_life: float = HALF_LIFE,
    *,
    embeddings: bool = True,
) -> dict[int, Assembly]:
    """The assemblies of *keys* with their stored composites, by key, in that order; missing ones are left out.

    Their activation is decayed to *now*, with a *half_life* in seconds. Members that have expired by then are not
    counted, but the composite, the revision and `updated_at` are as stored: see `sync.composites.read`. Without
    *embeddings*, no composite is read. Raises `DamagedError`.
    """
    statement = _READ[embeddings]
    by_key: dict[int, Assembly] = {}
    for chunk in chunks(keys):
        parameter = keys_json(chunk)
        tags = record_tags.tags_of(connection, ASSEMBLY, parameter)
        with expect_stored("assembly"):
            for row in statement.run(connection, keys=parameter, space=space.pk, now=now):
                pk, path, count, vector, checksum, owner, *values = row
                columns = dict(zip(_ROW, values, strict=True))
                if owner not in (None, pk):
                    raise wrong_vector("assembly", columns["id"])
                if vector is not None:
                    vector = decode(vector, space.dimension, f"assembly {columns['id']!r}", checksum)
                record = assembly_of(columns, namespace_parts(path), frozenset(tags.get(pk, ())), count, vector)
                level = decayed(record.activation_level, record.activated_at, now, half_life)
                by_key[pk] = replace(record, activation=level)
    return {key: by_key[key] for key in keys if key in by_key}


def namespace_keys(connection: Connection, keys: Sequence[int]) -> dict[int, int]:
    """The key of the namespace of each of the assemblies *keys* that exist."""
    return dict(_NAMESPACE_KEYS.of_keys(connection, keys))


def assembly_of(
    columns: Mapping[str, Any],
    namespace: Namespace,
    tags: frozenset[str],
    member_count: int,
    composite: Embedding | None,
) -> Assembly:
    """The assembly of a row, whose *columns* are as stored; its activation is not decayed. Raises `DamagedError`."""
    if any(type(columns[name]) is not expected for name, expected in _TYPES.items()):
        raise corrupt_row("assembly", columns)
    level, activated = columns["activation"], columns["activated_at"]
    try:
        topics, metadata = json.loads(columns["topics"]), json.loads(columns["metadata"])
        if type(topics) is not list or type(metadata) is not dict or not 0 <= level <= 1 or type(activated) is float:
            raise corrupt_row("assembly", columns)
        return Assembly(
            id=columns["id"],
            namespace=namespace,
            name=columns["name"],
            description=columns["description"],
            tags=tags,
            topics=tuple(topics),
            metadata=metadata,
            member_count=member_count,
            composite=composite,
            revision=columns["revision"],
            created_at=from_micros(columns["created_at"]),
            updated_at=from_micros(columns["updated_at"]),
            activation=level,
            activation_level=level,
            activated_at=None if activated is None else from_micros(activated),
            activation_count=columns["activation_count"],
        )
    except UNREADABLE:
        raise corrupt_row("assembly", columns) from None


def revision(connection: Connection, pk: int) -> int:
    """The present revision of an assembly. Raises `DamagedError`."""
    row = _REVISION.run(connection, pk=pk).fetchone()
    if row is None:
        raise DamagedError(
            f"An index refers to the assembly with key {pk}, which does not exist. Run `memstore check`, or restore a "
            "backup."
        )
    if type(row[0]) is not int:
        raise corrupt_value("assembly.revision", "int", row[0])
    return row[0]


def composite(connection: Connection, space: VectorSpace, pk: int) -> Composite | None:
    """The stored composite of an assembly; None when it has no row yet."""
    row = _COMPOSITE.run(connection, pk=pk, space=space.pk).fetchone()
    return None if row is None else Composite(*row)


def put_composite(connection: Connection, space: VectorSpace, pk: int, new: Composite, now: datetime) -> None:
    """Store the composite of an assembly, computed *now*."""
    values = {field.name: getattr(new, field.name) for field in fields(Composite)}
    _PUT_COMPOSITE.run(connection, assembly_pk=pk, space_pk=space.pk, composed_at=now, **values)

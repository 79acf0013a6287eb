"""Tombstones: archived records, which were forgotten or merged, and can be restored as they were.

A tombstone holds every column of the record's row as it was stored, its tags, the bytes of its vector, and keys and
ids of the other ends of its memberships. The row itself is deleted: live tables contain live rows only, so no read has
to leave archived records out.

A record is restored under the key it had, which no other record ever gets, so memberships are stored by key. If both
ends of a membership are archived, the tombstone of the end that was archived first holds it. If that end is restored
first, the membership moves to the tombstone of the other end. So the end that is restored last restores it.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple, get_args

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Integer,
    Select,
    Text,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    null,
    select,
    true,
    type_coerce,
    update,
)
from sqlalchemy.types import NullType

from memstore.concurrency import chunks
from memstore.errors import DuplicateError, short_repr
from memstore.models.records import Embedding, Namespace, RecordKind
from memstore.repository import (
    history_writer,
    memberships,
    namespaces,
    record_keys,
    record_tags,
    records,
    row_restore,
    stored_fields,
)
from memstore.repository.commit_times import LATEST, effective_times
from memstore.repository.context import WriteContext
from memstore.repository.corruption import corrupt_value, expect_stored, only, wrong_vector
from memstore.repository.history_writer import RowVersion
from memstore.repository.key_lists import key_lists, keys_json, listed_keys
from memstore.repository.memberships import Partner, partner_type
from memstore.repository.record_types import ASSEMBLY, MEMORY, RECORD_TYPES, RecordType
from memstore.repository.statements import InListQuery, MultiRowInsert, Prepared, prepared_by_kind, stored
from memstore.repository.vectors import VectorSpace
from memstore.schema.namespace_path import namespace_parts
from memstore.schema.tables import namespace, tombstone
from memstore.schema.types import json_text
from memstore.timestamps import EPOCH, from_micros, to_micros
from memstore.vectors.encoding import decode

Cause = Literal["forgotten", "merged"]
CAUSES: tuple[Cause, ...] = get_args(Cause)

PARTNERS: dict[RecordKind, str] = {"memory": "assemblies", "assembly": "members"}
"""The name, in a tombstone's record, of the keys and ids of the other ends of its memberships."""

_KEY_COLUMNS = ("pk", "namespace_pk", "id")  # columns of a record that a tombstone has as columns of its own
_COLUMNS = {t.kind: {c.name: c for c in t.table.c if c.name not in _KEY_COLUMNS} for t in RECORD_TYPES}
_WIDTH = 100  # rows an INSERT statement
_VECTOR_BYTES = 1 << 20  # of vectors an INSERT statement


class Tombstone(NamedTuple):
    """An archived record.

    Attributes:
        pk: the tombstone's key; later ones are higher.
        id: the record's id, which another record may have now.
        record: its columns as they were stored, `tags`, and keys and ids of the other ends of its memberships under
            the name in `PARTNERS`.
        vector: the stored bytes of a memory's embedding, or of an assembly's composite; None where it had none.
    """

    pk: int
    record_type: RecordType
    namespace_pk: int
    namespace: Namespace
    id: str
    record_pk: int
    cause: Cause
    at: datetime
    actor: str | None
    reason: str | None
    record: Mapping[str, Any]
    vector: bytes | None
    checksum: int | None

    @property
    def partners(self) -> list[Partner]:
        """Key and id of the other ends of its memberships, ascending by key."""
        return sorted((key, id) for key, id in self.record[PARTNERS[self.record_type.kind]])


def archive(
    context: WriteContext, record_type: RecordType, keys: Iterable[int], cause: Cause, undoes: int | None = None
) -> None:
    """Move the records *keys*, which exist, to tombstones; the history records their deletion.

    *undoes* is the number of the change that this undoes.

    Composites are not updated here: every write ends with that. Raises `DamagedError`.
    """
    connection, space = context.connection, context.spaces[record_type.kind]
    unique_keys = sorted(set(keys))
    width = max(1, min(_WIDTH, _VECTOR_BYTES // (4 * space.dimension or 4)))
    for chunk in chunks(unique_keys):
        rows = list(_encoded(connection, record_type, space, chunk))
        if len(rows) < len(chunk):
            only([])
        count = len(rows)
        namespace_pks, ids, record_pks, *contents = map(list, zip(*rows, strict=True))
        kinds, causes = [record_type.kind] * count, [cause] * count
        shared = [[value] * count for value in (to_micros(context.now), *context.actor)]
        _INSERT.insert(connection, [kinds, namespace_pks, ids, record_pks, causes, *shared, *contents], width)
    history_writer.delete_records(context, record_type, unique_keys, cause, undoes)


def _encoded(
    connection: Connection, record_type: RecordType, space: VectorSpace, keys: Sequence[int]
) -> Iterator[tuple[Any, ...]]:
    """For each record: namespace, id, key, the JSON of a tombstone's record, vector and checksum."""
    key_list = keys_json(keys)
    tags = record_tags.tags_of(connection, record_type, key_list)
    partners = memberships.partners(connection, record_type, keys)
    statement, names = _READ[record_type.kind], _COLUMNS[record_type.kind]
    with expect_stored(record_type.kind):
        for row in statement.run(connection, keys=key_list, space=space.pk):
            vector, checksum, vector_owner, pk, namespace_pk, id, *values = row
            if vector_owner not in (None, pk):
                raise wrong_vector(record_type.kind, id)
            record = dict(zip(names, values, strict=True))
            record["tags"] = sorted(tags.get(pk, ()))
            record[PARTNERS[record_type.kind]] = partners.get(pk, [])
            yield namespace_pk, id, pk, json_text(record), vector, checksum


def restore(context: WriteContext, record_type: RecordType, tombstones: Sequence[int]) -> list[int]:
    """Store the records of *tombstones* again, as they were, and delete the tombstones.

    An assembly's revision continues from where it was, so that no revision ever means two memberships. Composites are
    not updated here: every write ends with that.

    Returns:
        The keys of the records, in the order of *tombstones*, which are keys too.

    Raises:
        DuplicateError: another record has the id of one, or two have the same id.
    """
    connection = context.connection
    keys: list[int] = []
    moved: dict[int, list[Partner]] = {}
    for chunk in chunks(tombstones):
        rows = read(connection, record_type, chunk)
        if len(rows) < len(chunk):
            only([])
        _check_ids_free(context, record_type, rows)
        for row in rows:
            _insert_record(context, row)
        for namespace_pk in {row.namespace_pk for row in rows}:
            tags = {row.record_pk: frozenset(row.record["tags"]) for row in rows if row.namespace_pk == namespace_pk}
            record_tags.add_tags(connection, record_type, namespace_pk, [*tags], [*tags.values()])
        for partner, records_of_partner in _restore_memberships(connection, record_type, rows).items():
            moved.setdefault(partner, []).extend(records_of_partner)
        keys += [row.record_pk for row in rows]
    for partner, partners_of_partner in moved.items():
        _add_partners(connection, partner_type(record_type), partner, partners_of_partner)
    for part in key_lists(tombstones):
        _DELETE.run(connection, keys=keys_json(part))
    history_writer.record_restoration(context, record_type, keys)
    return keys


def _check_ids_free(context: WriteContext, record_type: RecordType, rows: Sequence[Tombstone]) -> None:
    for path in {row.namespace for row in rows}:
        ids = [row.id for row in rows if row.namespace == path]
        history_writer.delete_expired_ids(context, [(path, id) for id in ids])
        for i, id in enumerate(ids):
            if id in ids[:i]:
                raise DuplicateError(record_type.kind, id, given_twice=True)
        for id in records.keys_of(context.connection, record_type, path, ids, EPOCH):  # expired ones are deleted
            raise DuplicateError(record_type.kind, id, restored=True)


def _insert_record(context: WriteContext, row: Tombstone) -> None:
    kind = row.record_type.kind
    columns = {"id": row.id, **{name: row.record[name] for name in _COLUMNS[kind] if name in row.record}}
    if row.record_type is ASSEMBLY:
        columns["revision"] = columns.get("revision", 0) + 1
    version = RowVersion(row.record_pk, row.namespace_pk, columns, frozenset(), row.vector, row.checksum)
    row_restore.insert_row(context.connection, row.record_type, version)
    if row.record_type is MEMORY and _decode_vector(row, context.spaces["memory"]) is not None:
        row_restore.set_vector(context.connection, context.spaces["memory"], row.record_pk, row.vector, row.checksum)


def _restore_memberships(
    connection: Connection, record_type: RecordType, rows: Sequence[Tombstone]
) -> dict[int, list[Partner]]:
    """Store the memberships whose other end exists; the others, by the key of the other end."""
    partner_keys = {key for row in rows for key, _ in row.partners}
    existing = set(record_keys.existing(connection, partner_type(record_type), partner_keys))
    pairs: list[tuple[int, int]] = []  # of an assembly and a memory
    moved: dict[int, list[Partner]] = {}
    for row in rows:
        for key, _ in row.partners:
            if key in existing:
                pairs.append((key, row.record_pk) if record_type is MEMORY else (row.record_pk, key))
            else:
                moved.setdefault(key, []).append((row.record_pk, row.id))
    memberships.add_rows(connection, pairs)
    return moved


def remove_partner(connection: Connection, record_type: RecordType, keys: Iterable[int], partner: int) -> None:
    """Remove the membership with *partner* from the tombstones of the records *keys*, where there are any."""
    for key in keys:
        _change_partners(connection, record_type, key, lambda partners: [p for p in partners if p[0] != partner])


def _add_partners(connection: Connection, record_type: RecordType, pk: int, partners: Sequence[Partner]) -> None:
    """Add memberships to the tombstones of the record *pk*, where there are any."""
    _change_partners(connection, record_type, pk, lambda old: sorted({*old, *partners}))


def _change_partners(
    connection: Connection, record_type: RecordType, pk: int, change: Callable[[Sequence[Partner]], list[Partner]]
) -> None:
    for row in read(connection, record_type, _OF_RECORD.column(connection, kind=record_type.kind, record_pk=pk)):
        record = {**row.record, PARTNERS[record_type.kind]: change(row.partners)}
        _SET_RECORD.run(connection, row=row.pk, record=stored(record))


def find(
    connection: Connection, record_type: RecordType, path: Namespace, ids: Sequence[str], cause: Cause | None = None
) -> dict[str, int]:
    """The newest tombstone of each of *ids* that has one, by id; of one *cause*, or of any."""
    namespace_pk = namespaces.key(connection, path)
    if namespace_pk is None:
        return {}
    newest: dict[str, int] = {}
    for id, pk, row_cause in _BY_ID.rows(connection, ids, namespace=namespace_pk, kind=record_type.kind):
        if cause in (None, row_cause):
            newest[id] = max(pk, newest.get(id, 0))
    return {id: newest[id] for id in ids if id in newest}


def newest_merged(connection: Connection, assemblies: Sequence[int]) -> dict[int, int]:
    """The newest tombstone of each of the *assemblies*, named by key, that a merge archived; by those keys."""
    return dict(_NEWEST_MERGED.of_keys(connection, assemblies))


def exists(connection: Connection, record_type: RecordType, key: int) -> bool:
    """Whether there is a tombstone of the record *key*."""
    return bool(_OF_RECORD.column(connection, kind=record_type.kind, record_pk=key))


def erase(connection: Connection, record_type: RecordType, keys: Sequence[int]) -> int:
    """Delete the tombstones of the records *keys*, and their part in those of other records; how many were deleted.

    The archived composite of an assembly with an erased member is deleted: it could be the member's vector. Recovery
    computes it from the other members.
    """
    count = 0
    for part in key_lists(keys):
        count += _DELETE_OF_RECORDS.run(connection, kind=record_type.kind, keys=keys_json(part)).rowcount
    partner, erased = partner_type(record_type), frozenset(keys)
    name = PARTNERS[partner.kind]
    # Collected first: the statement that reads the rows must not meet those that change.
    changed = [
        (pk, {**record, name: remaining})
        for pk, record in _records_with_partners(connection, partner)
        if (remaining := [pair for pair in record[name] if pair[0] not in erased]) != record[name]
    ]
    statement = _SET_MEMBERS if partner is ASSEMBLY else _SET_RECORD
    for pk, record in changed:
        statement.run(connection, row=pk, record=stored(record))
    return count


def _records_with_partners(connection: Connection, record_type: RecordType) -> Iterator[tuple[int, dict[str, Any]]]:
    """Key and record of the tombstones that hold memberships; those that cannot be read are left out."""
    name = PARTNERS[record_type.kind]
    for rows in _WITH_PARTNERS.fetch(connection, kind=record_type.kind, name=f'"{name}":[['):
        for pk, text in rows:
            try:
                record = json.loads(text)
                if all(type(key) is int for key, _ in record[name]):
                    yield pk, record
            except (TypeError, ValueError, KeyError, RecursionError):
                continue  # `check` names it


def erase_namespaces(connection: Connection, namespace_pks: Sequence[int]) -> int:
    """Delete every tombstone of the namespaces *namespace_pks*; how many there were."""
    return _DELETE_NAMESPACES.run(connection, keys=keys_json(namespace_pks)).rowcount


def keys_of_id(connection: Connection, record_type: RecordType, namespace_pk: int, id: str) -> set[int]:
    """Keys of the archived records that had an id."""
    return set(_KEYS_OF_ID.column(connection, kind=record_type.kind, namespace=namespace_pk, id=id))


def within(
    connection: Connection, record_type: RecordType, path: Namespace, *, recursive: bool
) -> list[tuple[int, int, str]]:
    """Key, key of the record, and id of every tombstone of a namespace, in the order of archiving."""
    condition = _condition(record_type, path, None, recursive=recursive)
    columns = tombstone.c.pk, tombstone.c.record_pk, tombstone.c.id
    return [
        (pk, key, id) for pk, key, id in connection.execute(select(*columns).where(condition).order_by(*columns[:1]))
    ]


def archived_keys(connection: Connection, record_type: RecordType, keys: Sequence[int], cause: Cause) -> list[int]:
    """Those of the records *keys* that a tombstone of *cause* holds."""
    return [key for (key,) in _ARCHIVED.of_keys(connection, keys, kind=record_type.kind, cause=cause)]


def page(
    connection: Connection,
    record_type: RecordType,
    path: Namespace,
    cause: Cause | None,
    before: int | None,
    limit: int,
    *,
    recursive: bool = False,
) -> list[Tombstone]:
    """The next *limit* tombstones after the one with key *before*, newest first; None begins at the newest."""
    condition = _condition(record_type, path, cause, recursive=recursive)
    # `IS 1` keeps SQLite from using an index on part of the condition, which would sort all rows for every page.
    keys = select(tombstone.c.pk).where(condition.is_(true())).order_by(tombstone.c.pk.desc()).limit(limit)
    if before is not None:
        keys = keys.where(tombstone.c.pk < before)
    return read(connection, record_type, list(connection.execute(keys).scalars()))


def count(connection: Connection, record_type: RecordType, cause: Cause) -> int:
    """How many tombstones of one kind and cause the file has."""
    return int(_COUNT.value(connection, kind=record_type.kind, cause=cause))


def forgotten_before(
    connection: Connection,
    record_type: RecordType,
    path: Namespace,
    before: datetime | None,
    now: datetime,
    *,
    recursive: bool,
) -> list[int]:
    """Keys of the records in the trash that were forgotten before a time, or of all; in the order of forgetting.

    A clock that was ahead or behind when a record was forgotten makes it no older than it can be.
    """
    condition = _condition(record_type, path, "forgotten", recursive=recursive)
    statement = select(tombstone.c.record_pk, type_coerce(tombstone.c.at, Integer)).where(condition)
    rows = connection.execute(statement.order_by(tombstone.c.pk)).all()
    if before is None:
        return [key for key, _ in rows]
    present, limit = to_micros(now), to_micros(before)
    times = effective_times([at if type(at) is int else LATEST for _, at in rows], present)
    return [key for (key, _), time in zip(rows, times, strict=True) if time < limit]


def _condition(
    record_type: RecordType, path: Namespace, cause: Cause | None, *, recursive: bool
) -> ColumnElement[bool]:
    namespace_pks = namespaces.keys_within(path, recursive=recursive)
    in_namespace = (
        tombstone.c.namespace_pk.in_(namespace_pks) if recursive else tombstone.c.namespace_pk == namespace_pks
    )
    has_cause = true() if cause is None else tombstone.c.cause == cause
    return and_(tombstone.c.kind == record_type.kind, in_namespace, has_cause)


def read(connection: Connection, record_type: RecordType, keys: Sequence[int]) -> list[Tombstone]:
    """The tombstones *keys* of one kind of record, in their order; one that does not exist is left out."""
    rows: dict[int, Tombstone] = {}
    for row in _READ_TOMBSTONES.of_keys(connection, keys, kind=record_type.kind):
        rows[row[0]] = _tombstone(record_type, row)
    return [rows[key] for key in keys if key in rows]


def to_record(row: Tombstone, space: VectorSpace | None) -> Any:
    """The `Memory` or `Assembly` as it was when it was archived. Raises `DamagedError`.

    *space* is that of its kind; None leaves the vector out.
    """
    with expect_stored(_place(row.record_type, row.id)):
        return stored_fields.to_record(
            row.record_type,
            {"id": row.id, **{name: row.record[name] for name in _COLUMNS[row.record_type.kind] if name in row.record}},
            namespace=row.namespace,
            tags=frozenset(row.record["tags"]),
            vector=None if space is None else _decode_vector(row, space),
            member_count=len(row.partners),
        )


def _decode_vector(row: Tombstone, space: VectorSpace) -> Embedding | None:
    if row.vector is None:
        return None
    return decode(row.vector, space.dimension, f"the archived {row.record_type.kind} {row.id!r}", row.checksum)


def _tombstone(record_type: RecordType, row: Sequence[Any]) -> Tombstone:
    pk, _, namespace_pk, id, record_pk, cause, at, actor, reason, text, vector, checksum, path = row
    with expect_stored(_place(record_type, id)):
        record: Any = dict(json.loads(text))
        if {type(id), type(path), *map(type, record.get("tags"))} != {str} or {type(record_pk), type(at)} != {int}:
            raise corrupt_value(_place(record_type, id), "its columns and tags", text)
        if any(type(key) is not int or type(name) is not str for key, name in record.get(PARTNERS[record_type.kind])):
            place = f"{_place(record_type, id)}, {PARTNERS[record_type.kind]}"
            raise corrupt_value(place, "pairs of key and id", text)
        for name, column in _COLUMNS[record_type.kind].items():
            expected = stored_fields.stored_type(column)
            if not isinstance(record.get(name), expected) and not _can_lack(column, record):
                raise corrupt_value(f"{_place(record_type, id)}, {name}", expected.__name__, record.get(name))
        source = namespace_pk, namespace_parts(path), id, record_pk
        return Tombstone(pk, record_type, *source, cause, from_micros(at), actor, reason, record, vector, checksum)


def _can_lack(column: Column[Any], record: Mapping[str, Any]) -> bool:
    """Whether a tombstone can have no value of *column*: it is NULL, or a later version of memstore added it."""
    return bool(column.nullable) if column.name in record else column.server_default is not None


def _place(record_type: RecordType, id: object) -> str:
    return f"tombstone.record of archived {record_type.kind} {short_repr(id)}"


def _read(t: RecordType) -> Select[Any]:
    columns = [t.table.c[name] for name in (*_KEY_COLUMNS, *_COLUMNS[t.kind])]
    rows = select(t.vectors.c.vector, t.vectors.c.checksum, t.vector_owner.label("owner"), *columns)
    joined = rows.outerjoin_from(t.table, t.vectors, records.joins_vector(t))
    return joined.where(t.table.c.pk.in_(listed_keys()))


_READ = prepared_by_kind(_read)
_INSERT = MultiRowInsert(
    lambda: insert(tombstone).values(
        {c.name: bindparam(c.name, type_=NullType()) for c in tombstone.c if c.name != "pk"}
    ),
    _WIDTH,
)
_SET_RECORD = Prepared(
    lambda: (
        update(tombstone).where(tombstone.c.pk == bindparam("row")).values(record=bindparam("record", type_=NullType()))
    )
)
_DELETE = Prepared(lambda: delete(tombstone).where(tombstone.c.pk.in_(listed_keys())))
_DELETE_OF_RECORDS = Prepared(
    lambda: delete(tombstone).where(tombstone.c.kind == bindparam("kind"), tombstone.c.record_pk.in_(listed_keys()))
)
_DELETE_NAMESPACES = Prepared(lambda: delete(tombstone).where(tombstone.c.namespace_pk.in_(listed_keys())))
_SET_MEMBERS = Prepared(
    lambda: (
        update(tombstone)
        .where(tombstone.c.pk == bindparam("row"))
        .values(record=bindparam("record", type_=NullType()), vector=null(), checksum=null())
    )
)
_WITH_PARTNERS = Prepared(
    lambda: (
        select(tombstone.c.pk, type_coerce(tombstone.c.record, Text))
        .where(tombstone.c.kind == bindparam("kind"))
        .where(func.instr(tombstone.c.record, bindparam("name", type_=Text)) > literal_column("0"))
    )
)
_KEYS_OF_ID = Prepared(
    lambda: (
        select(tombstone.c.record_pk)
        .distinct()
        .where(
            tombstone.c.namespace_pk == bindparam("namespace"),
            tombstone.c.kind == bindparam("kind"),
            tombstone.c.id == bindparam("id"),
        )
    )
)
_ARCHIVED = Prepared(
    lambda: select(tombstone.c.record_pk).where(
        tombstone.c.kind == bindparam("kind"),
        tombstone.c.record_pk.in_(listed_keys()),
        tombstone.c.cause == bindparam("cause"),
    )
)
_OF_RECORD = Prepared(
    lambda: select(tombstone.c.pk).where(
        tombstone.c.kind == bindparam("kind"), tombstone.c.record_pk == bindparam("record_pk")
    )
)
_COUNT = Prepared(
    lambda: (
        select(func.count())
        .select_from(tombstone)
        .where(tombstone.c.kind == bindparam("kind"), tombstone.c.cause == bindparam("cause"))
    )
)
_NEWEST_MERGED = Prepared(
    lambda: (
        select(tombstone.c.record_pk, func.max(tombstone.c.pk))
        .where(
            tombstone.c.kind == "assembly",
            tombstone.c.cause == "merged",
            tombstone.c.record_pk.in_(listed_keys()),
        )
        .group_by(tombstone.c.record_pk)
    )
)
_READ_TOMBSTONES = Prepared(
    lambda: (
        select(tombstone, namespace.c.path)
        .join(namespace, namespace.c.pk == tombstone.c.namespace_pk)
        .where(tombstone.c.pk.in_(listed_keys()), tombstone.c.kind == bindparam("kind"))
    )
)
_BY_ID = InListQuery(
    lambda ids: select(tombstone.c.id, tombstone.c.pk, tombstone.c.cause).where(
        tombstone.c.namespace_pk == bindparam("namespace"),
        tombstone.c.kind == bindparam("kind"),
        tombstone.c.id.in_(ids),
    )
)

"""Records that were set aside: forgotten, or merged into another. They can be brought back as they were.

A tombstone holds every column of the record's row as it was stored, its tags, its vector's very bytes, and keys and ids
of what it was a member of, or of its members. The record's row is deleted: live tables hold live rows only, so that
nothing that reads them can meet what was set aside.

A record comes back under the key it had, which nobody else was ever given, so memberships can be told by key. One
whose two ends are both set aside stands in the tombstone of the end that went first. If that end comes back first, it
hands the membership over to the other's tombstone: in whichever order they go and come, the last to come brings it.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal, NamedTuple, cast, get_args

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Float,
    Integer,
    Text,
    and_,
    bindparam,
    delete,
    func,
    insert,
    select,
    true,
    update,
)
from sqlalchemy.types import NullType

from memstore.concurrency import chunks
from memstore.errors import DuplicateError, short_repr
from memstore.models.records import Namespace, RecordKind
from memstore.repository import history_writer, namespaces, record_tags, records
from memstore.repository.context import WriteContext
from memstore.repository.corruption import corrupt_value, expect_stored, only, wrong_vector
from memstore.repository.key_lists import keys_in, keys_json
from memstore.repository.record_types import ASSEMBLY, BY_KIND, MEMORY, RECORD_TYPES, RecordType
from memstore.repository.statements import InListQuery, MultiRowInsert, Prepared
from memstore.repository.vectors import VectorSpace
from memstore.schema.namespace_path import namespace_parts
from memstore.schema.tables import assembly_member, memory_vector, namespace, tombstone
from memstore.schema.types import JsonText, UtcTime, json_text
from memstore.timestamps import EPOCH, from_micros, to_micros
from memstore.vectors.encoding import decode

Cause = Literal["forgotten", "merged"]
CAUSES: tuple[Cause, ...] = get_args(Cause)

PARTNERS: dict[RecordKind, str] = {"memory": "assemblies", "assembly": "members"}
"""Where, in a tombstone's record, keys and ids of the other ends of its memberships stand."""

_APART = ("pk", "namespace_pk", "id")  # columns of a record that a tombstone has as columns of its own
_COLUMNS = {noun.kind: {c.name: c for c in noun.table.c if c.name not in _APART} for noun in RECORD_TYPES}
_STORED: dict[type, type] = {Text: str, JsonText: str, UtcTime: int, Integer: int, BigInteger: int, Float: float}
"""What a column of each type holds, as it is stored."""

_WIDTH = 100  # rows an INSERT statement
_WIDE_BYTES = 1 << 20  # of vectors an INSERT statement


class Tombstone(NamedTuple):
    """A record that was set aside.

    Attributes:
        pk: the tombstone's key; later ones are higher.
        noun: what kind of record it was.
        owner: the key of the namespace.
        namespace: where it lived.
        id: the id it had, which another may have by now.
        record_pk: the key it had.
        cause: why it went.
        at: when, UTC.
        actor: who asked for it, in the caller's words.
        reason: why, in the caller's words.
        record: its columns as they were stored, `tags`, and under the name that `PARTNERS` says the keys and ids of
            the other ends of its memberships.
        vector: the stored bytes of a memory's embedding, or of an assembly's composite; None where it had none.
        checksum: of the vector; None where it is unknown.
    """

    pk: int
    noun: RecordType
    owner: int
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
    def partners(self) -> list[tuple[int, str]]:
        """Key and id of each other end of its memberships, ascending by key."""
        return sorted((key, id) for key, id in self.record[PARTNERS[self.noun.kind]])


def archive(context: WriteContext, noun: RecordType, keys: Iterable[int], cause: Cause) -> None:
    """Move the records *keys*, which exist, to tombstones; the history records their deletion.

    Composites are not updated here: every write ends with that. Raises `DamagedError`.
    """
    connection, space = context.connection, context.spaces[noun.kind]
    gone = sorted(set(keys))
    most = max(1, min(_WIDTH, _WIDE_BYTES // (4 * space.dimension)))
    for some in chunks(gone):
        held = list(_encoded(connection, noun, space, some))
        if len(held) < len(some):
            only([])
        owners, ids, own, *rest = map(list, zip(*held, strict=True))
        about = [[value] * len(held) for value in (noun.kind, cause, to_micros(context.now), *context.actor)]
        _INSERT.insert(connection, [about[0], owners, ids, own, *about[1:], *rest], most)
    history_writer.delete_records(context, noun, gone, cause)


def _encoded(
    connection: Connection, noun: RecordType, space: VectorSpace, keys: Sequence[int]
) -> Iterator[tuple[Any, ...]]:
    """Of each record: namespace, id, key, what a tombstone says of it, vector and checksum."""
    asked = keys_json(keys)
    tags = record_tags.tags_of(connection, noun, asked)
    partners: dict[int, list[tuple[int, str]]] = {}
    for own, other, id in _PARTNERS_OF[noun.kind].run(connection, keys=asked):
        partners.setdefault(own, []).append((other, id))
    statement, names = _READ[noun.kind]
    with expect_stored(noun.kind):
        for row in statement.run(connection, keys=asked, space=space.pk):
            vector, written, owner, pk, namespace_pk, id, *values = row
            if owner not in (None, pk):
                raise wrong_vector(noun.kind, id)
            record = dict(zip(names, values, strict=True))
            record["tags"] = sorted(tags.get(pk, ()))
            record[PARTNERS[noun.kind]] = partners.get(pk, [])
            yield namespace_pk, id, pk, json_text(record), vector, written


def restore(context: WriteContext, noun: RecordType, tombstones: Sequence[int]) -> list[int]:
    """Make records of *tombstones*, as they were; their keys, in that order. The tombstones are deleted.

    An assembly's revision goes on from where it was, so that no revision ever stands for two memberships. Composites
    are not followed here: every write ends with that.

    Raises:
        DuplicateError: the id of one is taken again, or two are of one id.
        DamagedError: one is not what was written.
    """
    connection = context.connection
    keys: list[int] = []
    handed: dict[int, list[tuple[int, str]]] = {}
    for some in chunks(tombstones):
        found = read(connection, noun, some)
        if len(found) < len(some):
            only([])
        _refuse_taken(connection, noun, found)
        for each in found:
            _put_row(connection, each)
        if noun is MEMORY:
            _put_vectors(connection, context.spaces["memory"], found)
        for owner in {each.owner for each in found}:
            own = [each for each in found if each.owner == owner]
            record_tags.add_tags(
                connection, noun, owner, [(each.record_pk, frozenset(each.record["tags"])) for each in own]
            )
        _join_again(connection, noun, found, handed)
        keys += [each.record_pk for each in found]
    for partner, ends in handed.items():
        _hand_over(connection, _other(noun), partner, ends)
    _drop(connection, tombstones)
    history_writer.record_restoration(context, noun, keys)
    return keys


def _refuse_taken(connection: Connection, noun: RecordType, found: Sequence[Tombstone]) -> None:
    for path in {each.namespace for each in found}:
        ids = [each.id for each in found if each.namespace == path]
        for i, id in enumerate(ids):
            if id in ids[:i]:
                raise DuplicateError(noun.kind, id, given_twice=True)
        for id in records.keys_of(connection, noun, path, ids, EPOCH):  # what has expired is deleted before a write
            raise DuplicateError(noun.kind, id, restored=True)


def _put_row(connection: Connection, each: Tombstone) -> None:
    held = {name: each.record[name] for name in _COLUMNS[each.noun.kind] if name in each.record}
    if each.noun is ASSEMBLY:
        held["revision"] = held.get("revision", 0) + 1
    statement = _insert(each.noun.kind, tuple(held))
    values = {"pk": each.record_pk, "namespace_pk": each.owner, "id": each.id, **held}
    statement.many(connection, [[values[name] for name in statement.names]])


def _put_vectors(connection: Connection, space: VectorSpace, found: Sequence[Tombstone]) -> None:
    held = []
    for each in found:
        if each.vector is not None:
            decode(each.vector, space.dimension, f"memory {each.id!r}, which was set aside,", each.checksum)
            held.append((each.record_pk, space.pk, each.vector, each.checksum))
    _PUT_VECTOR.many(connection, held)


def _join_again(
    connection: Connection, noun: RecordType, found: Sequence[Tombstone], handed: dict[int, list[tuple[int, str]]]
) -> None:
    """Make memberships of those that were, where the other end is there; *handed* gets the others, by that end."""
    ends = {key for each in found for key, _ in each.partners}
    there = {int(key) for (key,) in _LIVE[_other(noun).kind].run(connection, keys=keys_json(sorted(ends)))}
    joined = []
    for each in found:
        for key, _ in each.partners:
            if key in there:
                joined.append((key, each.record_pk) if noun is MEMORY else (each.record_pk, key))
            else:
                handed.setdefault(key, []).append((each.record_pk, each.id))
    _JOIN.many(connection, joined)


def part(connection: Connection, noun: RecordType, keys: Iterable[int], partner: int) -> None:
    """Have tombstones of the records *keys*, where there are any, forget a membership with *partner*."""
    for key in keys:
        _rewritten(connection, noun, key, lambda ends: [end for end in ends if end[0] != partner])


def _hand_over(connection: Connection, noun: RecordType, pk: int, ends: Sequence[tuple[int, str]]) -> None:
    """Have the tombstone of the record *pk*, if there is one, say that it had memberships with *ends*."""
    _rewritten(connection, noun, pk, lambda known: sorted({*known, *ends}))


def _rewritten(
    connection: Connection,
    noun: RecordType,
    pk: int,
    partners: Callable[[Sequence[tuple[int, str]]], list[tuple[int, str]]],
) -> None:
    """Have the tombstones of the record *pk* say what *partners* makes of the memberships that they name."""
    of_record = select(tombstone.c.pk).where(tombstone.c.kind == noun.kind, tombstone.c.record_pk == pk)
    for each in read(connection, noun, list(connection.execute(of_record).scalars())):
        record = {**each.record, PARTNERS[noun.kind]: partners(each.partners)}
        connection.execute(update(tombstone).where(tombstone.c.pk == each.pk).values(record=record))


def find(
    connection: Connection, noun: RecordType, path: Namespace, ids: Sequence[str], cause: Cause | None = None
) -> dict[str, int]:
    """Keys by id of the newest tombstones of those *ids* that have one, of one *cause* or of any."""
    owner = namespaces.key(connection, path)
    if owner is None:
        return {}
    found: dict[str, int] = {}
    for id, pk, why in _NAMED.rows(connection, ids, namespace=owner, kind=noun.kind):
        if cause in (None, why):
            found[id] = max(pk, found.get(id, 0))
    return {id: found[id] for id in ids if id in found}


def page(
    connection: Connection,
    noun: RecordType,
    path: Namespace,
    cause: Cause | None,
    before: int | None,
    limit: int,
    *,
    recursive: bool = False,
) -> list[Tombstone]:
    """The next *limit* tombstones after the one with key *before*, newest first; None begins at the newest."""
    chosen = _chosen(noun, path, cause, recursive=recursive)
    # `IS 1` keeps SQLite from an index on a part of it, under which all would be sorted for every page.
    keys = select(tombstone.c.pk).where(chosen.is_(true())).order_by(tombstone.c.pk.desc()).limit(limit)
    if before is not None:
        keys = keys.where(tombstone.c.pk < before)
    return read(connection, noun, list(connection.execute(keys).scalars()))


def count(connection: Connection, noun: RecordType, cause: Cause) -> int:
    """How many tombstones of one kind and cause the file has."""
    held = select(func.count()).select_from(tombstone)
    return int(connection.execute(held.where(tombstone.c.kind == noun.kind, tombstone.c.cause == cause)).scalar_one())


def purge(
    connection: Connection,
    before: datetime | None,
    cause: Cause,
    path: Namespace = (),
    *,
    recursive: bool = True,
    nouns: Sequence[RecordType] = RECORD_TYPES,
) -> int:
    """Delete the tombstones of one *cause*, of records that went before a time, or all; how many there were.

    What a merge set aside belongs to the merge: whoever purges that ends its undoing.
    """
    gone = 0
    for noun in nouns:
        chosen = _chosen(noun, path, cause, recursive=recursive)
        if before is not None:
            chosen = and_(chosen, tombstone.c.at < before)
        gone += connection.execute(delete(tombstone).where(chosen)).rowcount
    return gone


def _chosen(noun: RecordType, path: Namespace, cause: Cause | None, *, recursive: bool) -> ColumnElement[bool]:
    owners = namespaces.keys_within(path, recursive=recursive)
    owned = tombstone.c.namespace_pk.in_(owners) if recursive else tombstone.c.namespace_pk == owners
    caused = true() if cause is None else tombstone.c.cause == cause
    return and_(tombstone.c.kind == noun.kind, owned, caused)


def read(connection: Connection, noun: RecordType, tombstones: Sequence[int]) -> list[Tombstone]:
    """The *tombstones* of records of one kind, by key, in their order; those that do not exist are left out."""
    found: dict[int, Tombstone] = {}
    for some in chunks(tombstones):
        for row in _TOMBSTONES.run(connection, keys=keys_json(some), kind=noun.kind):
            found[row[0]] = _tombstone(noun, row)
    return [found[key] for key in tombstones if key in found]


def _tombstone(noun: RecordType, row: Sequence[Any]) -> Tombstone:
    pk, _, owner, id, record_pk, cause, at, actor, reason, record, vector, written, path = row
    with expect_stored("tombstone.record"):
        said = json.loads(record)
        if {type(id), type(path), *map(type, said.get("tags"))} != {str} or {type(record_pk), type(at)} != {int}:
            raise corrupt_value("tombstone.record", f"columns and tags of {noun.kind} {short_repr(id)}", record)
        if any(type(key) is not int or type(name) is not str for key, name in said.get(PARTNERS[noun.kind])):
            raise corrupt_value(f"tombstone.record, {PARTNERS[noun.kind]}", "pairs of key and id", record)
        for name, column in _COLUMNS[noun.kind].items():
            if not isinstance(said.get(name), _STORED[type(column.type)]) and not _may_lack(column, said, name):
                raise corrupt_value(f"tombstone.record, {name}", _STORED[type(column.type)].__name__, said.get(name))
        place, when = namespace_parts(path), from_micros(at)
        return Tombstone(pk, noun, owner, place, id, record_pk, cause, when, actor, reason, said, vector, written)


def _may_lack(column: Column[Any], said: Mapping[str, Any], name: str) -> bool:
    return bool(column.nullable) if name in said else column.server_default is not None


def _other(noun: RecordType) -> RecordType:
    return ASSEMBLY if noun is MEMORY else MEMORY


def _drop(connection: Connection, tombstones: Sequence[int]) -> None:
    for start in range(0, len(tombstones), 10_000):
        _DROP.run(connection, keys=keys_json(tombstones[start : start + 10_000]))


def _reader(noun: RecordType) -> tuple[Prepared, tuple[str, ...]]:
    """The SELECT of whole rows, as they are stored, and the columns at its end."""
    names, vectors = tuple(_COLUMNS[noun.kind]), noun.vectors.c
    columns = [noun.table.c[name] for name in (*_APART, *names)]
    read = select(vectors.vector, vectors.checksum, noun.vector_owner.label("owner"), *columns)
    joined = read.outerjoin_from(noun.table, noun.vectors, records.joins_vector(noun))
    return Prepared(joined.where(noun.table.c.pk.in_(select(keys_in().c.value)))), names


def _ends(noun: RecordType) -> tuple[Column[int], Column[int]]:
    """The columns of a membership: that of a record of this kind, and that of the other end."""
    ends = assembly_member.c.memory_pk, assembly_member.c.assembly_pk
    return cast("tuple[Column[int], Column[int]]", ends if noun is MEMORY else ends[::-1])


def _partners_of(noun: RecordType) -> Prepared:
    own, other = _ends(noun)
    partner = _other(noun).table
    held = select(own, other, partner.c.id).join(partner, partner.c.pk == other)
    return Prepared(held.where(own.in_(select(keys_in().c.value))).order_by(own, other))


@lru_cache(16)
def _insert(kind: RecordKind, names: tuple[str, ...]) -> Prepared:
    """The INSERT of a record's row with the columns *names*; those it does not name have their default."""
    values = {name: bindparam(name, type_=NullType()) for name in (*_APART, *names)}
    return Prepared(insert(BY_KIND[kind].table).values(values))


_READ = {noun.kind: _reader(noun) for noun in RECORD_TYPES}
_PARTNERS_OF = {noun.kind: _partners_of(noun) for noun in RECORD_TYPES}
_JOIN = Prepared(insert(assembly_member).values({c.name: bindparam(c.name) for c in assembly_member.c}))
_LIVE = {
    n.kind: Prepared(select(n.table.c.pk).where(n.table.c.pk.in_(select(keys_in().c.value)))) for n in RECORD_TYPES
}
_INSERT = MultiRowInsert(
    insert(tombstone).values({c.name: bindparam(c.name, type_=NullType()) for c in tombstone.c if c.name != "pk"}),
    _WIDTH,
)
_PUT_VECTOR = Prepared(insert(memory_vector).values({c.name: bindparam(c.name) for c in memory_vector.c}))
_DROP = Prepared(delete(tombstone).where(tombstone.c.pk.in_(select(keys_in().c.value))))
_TOMBSTONES = Prepared(
    select(tombstone, namespace.c.path)
    .join(namespace, namespace.c.pk == tombstone.c.namespace_pk)
    .where(tombstone.c.pk.in_(select(keys_in().c.value)), tombstone.c.kind == bindparam("kind"))
)
_NAMED = InListQuery(
    lambda ids: select(tombstone.c.id, tombstone.c.pk, tombstone.c.cause).where(
        tombstone.c.namespace_pk == bindparam("namespace"),
        tombstone.c.kind == bindparam("kind"),
        tombstone.c.id.in_(ids),
    )
)

"""What is asked of memories and assemblies alike: which rows, in what order, how many; and their tags.

Which records a verb speaks of is a `Selection`. Rows are named by key from there on.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Integer,
    bindparam,
    delete,
    func,
    insert,
    literal,
    select,
    tuple_,
    type_coerce,
)
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.types import NullType

from memstore import schema
from memstore.database import raw
from memstore.errors import DuplicateError
from memstore.fields import EPOCH, to_micros
from memstore.records import Namespace
from memstore.repository.log import keys_in, keys_json, sqlite_sequence
from memstore.repository.nouns import NOUNS, Noun
from memstore.repository.prepared import Prepared
from memstore.repository.selection import Selection, condition
from memstore.schema import namespace_path, tag
from memstore.threads import slices

_IDS = 500  # ids looked up before others may run
_BEFORE_ALL = -(2**63)


def keys_of(
    connection: Connection, noun: Noun, namespace: Namespace, ids: Sequence[str], now: datetime
) -> dict[str, int]:
    """Keys by id of those *ids* that exist and have not expired."""
    path, at = namespace_path(namespace), to_micros(now)
    found: dict[str, int] = {}
    for some in slices(ids, _IDS):
        for id in some:
            row = _KEY_OF[noun.kind].run(connection, path=path, id=id, now=at).fetchone()
            if row is not None:
                found[id] = row[0]
    return found


@dataclass(frozen=True, slots=True)
class Order:
    """By which column a list goes, and from which end; rows that agree go by key."""

    column: str
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page of a list ended: the sort value and the key of its last row."""

    value: Any
    pk: int


def page(
    connection: Connection, selection: Selection, order: Order, after: Place | None, limit: int
) -> tuple[list[int], Place | None]:
    """The next *limit* keys of a list after a place in it, and where they end; None when there are no more."""
    table = selection.noun.table
    value = _sort_value(table.c[order.column])
    rows = select(table.c.pk, value).where(condition(connection, selection)).limit(limit)
    if after is not None:
        here, there = tuple_(value, table.c.pk), tuple_(literal(after.value), literal(after.pk))
        rows = rows.where(here < there if order.descending else here > there)
    ends = (value.desc(), table.c.pk.desc()) if order.descending else (value, table.c.pk)
    found = connection.execute(rows.order_by(*ends)).all()
    last = Place(found[-1][1], found[-1][0]) if len(found) == limit else None
    return [int(row[0]) for row in found], last


def _sort_value(column: Column[Any]) -> ColumnElement[Any]:
    """The column as SQLite compares it; what is missing comes first."""
    plain = type_coerce(column, NullType())
    return func.coalesce(plain, _BEFORE_ALL) if column.nullable else plain


def delete_keys(connection: Connection, noun: Noun, keys: Sequence[int]) -> None:
    """Delete records; what belongs to them goes with them."""
    for start in range(0, len(keys), 10_000):
        _DELETE[noun.kind].run(connection, keys=keys_json(keys[start : start + 10_000]))


def taken(
    connection: Connection, noun: Noun, namespace: Namespace, ids: Iterable[str], first: int
) -> DuplicateError | None:
    """Which of *ids* was there before key *first* was handed out, as the error it is; None when none was."""
    for id in ids:
        key = key_of(connection, noun, namespace, id, EPOCH)  # what has expired is deleted before a write
        if key is not None and key < first:
            return DuplicateError(noun.kind, id)
    return None


def purge_expired(connection: Connection, now: datetime) -> None:
    """Delete the memories that have expired, so that nothing a write does meets one."""
    _PURGE.run(connection, now=to_micros(now))


def expired_vectors(connection: Connection, now: datetime) -> int:
    """How many vectors belong to memories that have expired and are not deleted yet."""
    c = schema.memory.c
    held = select(func.count()).select_from(schema.memory_vector.join(schema.memory)).where(c.expires_at <= now)
    return int(connection.execute(held).scalar_one())


def any_expired(connection: Connection, now: datetime) -> bool:
    """Whether there are memories that have expired and are not deleted yet."""
    return _EXPIRED.run(connection, now=to_micros(now)).fetchone() is not None


def tag_keys(connection: Connection, namespace_pk: int, names: Iterable[str]) -> dict[str, int]:
    """Keys of the tags *names* of a namespace, made if need be."""
    wanted = sorted(set(names))
    base = raw(connection)
    base.executemany(_ADD_TAG.sql, [(namespace_pk, name) for name in wanted])
    return {name: base.execute(_FIND_TAG.sql, (namespace_pk, name)).fetchone()[0] for name in wanted}


def add_tags(connection: Connection, noun: Noun, namespace_pk: int, tags: Sequence[tuple[int, frozenset[str]]]) -> None:
    """Give records, named by key, tags they do not have yet."""
    carry(connection, noun, tag_keys(connection, namespace_pk, (name for _, names in tags for name in names)), tags)


def carry(connection: Connection, noun: Noun, keys: dict[str, int], tags: Sequence[tuple[int, frozenset[str]]]) -> None:
    """Give records, named by key, tags they do not have yet, whose *keys* are known."""
    _CARRY[noun.kind].insert(
        connection, [(pk, key) for pk, names in tags for key in sorted(keys[name] for name in names)]
    )


def replace_tags(
    connection: Connection, noun: Noun, namespace_pk: int, tags: Sequence[tuple[int, frozenset[str]]]
) -> None:
    """Give records these tags and no others."""
    _DROP_TAGS[noun.kind].run(connection, keys=keys_json([pk for pk, _ in tags]))
    add_tags(connection, noun, namespace_pk, tags)


def tags_of(connection: Connection, noun: Noun, keys: str) -> dict[int, set[str]]:
    """The tags of records, named by a JSON array of *keys*."""
    found: dict[int, set[str]] = {}
    for pk, name in _TAGS_OF[noun.kind].run(connection, keys=keys):
        found.setdefault(pk, set()).add(name)
    return found


def key_of(connection: Connection, noun: Noun, namespace: Namespace, id: str, now: datetime) -> int | None:
    """The key of one id; None where it does not exist or has expired."""
    row = _KEY_OF[noun.kind].run(connection, path=namespace_path(namespace), id=id, now=to_micros(now)).fetchone()
    return None if row is None else int(row[0])


def next_key(connection: Connection, noun: Noun) -> int:
    """The next key SQLite would hand out; it is ours as long as the write lock is."""
    row = _SEQUENCE.run(connection, name=noun.table.name).fetchone()
    return 1 if row is None else int(row[0]) + 1


def _key_of(noun: Noun) -> Prepared:
    c = noun.table.c
    owner = select(schema.namespace.c.pk).where(schema.namespace.c.path == bindparam("path")).scalar_subquery()
    found = select(c.pk).where(c.namespace_pk == owner, c.id == bindparam("id"))
    if noun.expires:
        found = found.where(schema.live(bindparam("now", type_=Integer)))
    return Prepared(found)


_PURGE = Prepared(delete(schema.memory).where(schema.memory.c.expires_at <= bindparam("now", type_=Integer)))
_DELETE = {n.kind: Prepared(delete(n.table).where(n.table.c.pk.in_(select(keys_in().c.value)))) for n in NOUNS}
_DROP_TAGS = {n.kind: Prepared(delete(n.tags).where(n.tag_owner.in_(select(keys_in().c.value)))) for n in NOUNS}
_EXPIRED = Prepared(
    select(schema.memory.c.pk).where(schema.memory.c.expires_at <= bindparam("now", type_=Integer)).limit(1)
)
_KEY_OF = {noun.kind: _key_of(noun) for noun in NOUNS}
_SEQUENCE = Prepared(select(sqlite_sequence.c.seq).where(sqlite_sequence.c.name == bindparam("name")))
_ADD_TAG = Prepared(
    sqlite_insert(tag).values(namespace_pk=bindparam("namespace"), name=bindparam("name")).on_conflict_do_nothing()
)
_FIND_TAG = Prepared(
    select(tag.c.pk).where(tag.c.namespace_pk == bindparam("namespace"), tag.c.name == bindparam("name"))
)
_CARRY = {
    noun.kind: Prepared(
        insert(noun.tags).values({noun.tag_owner: bindparam("owner"), noun.tags.c.tag_pk: bindparam("tag")})
    )
    for noun in NOUNS
}
_TAGS_OF = {
    noun.kind: Prepared(
        select(noun.tag_owner, tag.c.name)
        .join(tag, tag.c.pk == noun.tags.c.tag_pk)
        .where(noun.tag_owner.in_(select(keys_in().c.value)))
    )
    for noun in NOUNS
}

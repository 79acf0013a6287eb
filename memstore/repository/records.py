"""What is asked of memories and assemblies alike: which rows, in what order, how many; and their tags.

Which records a verb speaks of is a `Selection`. Rows are named by key from there on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    Connection,
    Integer,
    Select,
    bindparam,
    delete,
    func,
    literal,
    literal_column,
    select,
    tuple_,
    type_coerce,
)
from sqlalchemy.types import NullType

from memstore.errors import DuplicateError
from memstore.models.records import Namespace
from memstore.repository.corruption import corrupt_value
from memstore.repository.key_lists import keys_in, keys_json
from memstore.repository.record_types import RECORD_TYPES, RecordType
from memstore.repository.selection import Selection, condition
from memstore.repository.sqlite_only.change_log import sqlite_sequence
from memstore.repository.statements import Among, Prepared
from memstore.schema import tables
from memstore.schema.namespace_path import namespace_path
from memstore.timestamps import EPOCH, to_micros

BEFORE_ALL = -(2**63)
"""What a list takes a missing value for."""

_LAST_KEY = 2**62  # so far that none was ever handed out


def keys_of(
    connection: Connection, noun: RecordType, namespace: Namespace, ids: Sequence[str], now: datetime
) -> dict[str, int]:
    """Keys by id of those *ids* that exist and have not expired."""
    path, at = namespace_path(namespace), to_micros(now)
    found = dict(_KEYS_OF[noun.kind].rows(connection, ids, path=path, now=at))
    return {id: found[id] for id in ids if id in found}


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
    places, last = placed(connection, selection, order, after, limit)
    return [place.pk for place in places], last


def placed(
    connection: Connection, selection: Selection, order: Order, after: Place | None, limit: int
) -> tuple[list[Place], Place | None]:
    """The next *limit* places of a list after one of it, and the last of them; None when there are no more."""
    table = selection.noun.table
    value = _sort_value(table.c[order.column])
    rows = select(table.c.pk, value).where(condition(connection, selection)).limit(limit)
    if after is not None:
        here, there = tuple_(value, table.c.pk), tuple_(literal(after.value), literal(after.pk))
        rows = rows.where(here < there if order.descending else here > there)
    ends = (value.desc(), table.c.pk.desc()) if order.descending else (value, table.c.pk)
    found = [Place(value, int(pk)) for pk, value in connection.execute(rows.order_by(*ends))]
    return found, found[-1] if len(found) == limit else None


def _sort_value(column: Column[Any]) -> ColumnElement[Any]:
    """The column as SQLite compares it; what is missing comes first."""
    plain = type_coerce(column, NullType())
    return func.coalesce(plain, BEFORE_ALL) if column.nullable else plain


def delete_keys(connection: Connection, noun: RecordType, keys: Sequence[int]) -> None:
    """Delete records; what belongs to them goes with them."""
    for start in range(0, len(keys), 10_000):
        _DELETE[noun.kind].run(connection, keys=keys_json(keys[start : start + 10_000]))


def taken(
    connection: Connection, noun: RecordType, namespace: Namespace, ids: Sequence[str], first: int
) -> DuplicateError | None:
    """Which of *ids* was there before key *first* was handed out, as the error it is; None when none was."""
    keys = keys_of(connection, noun, namespace, ids, EPOCH)  # what has expired is deleted before a write
    return next((DuplicateError(noun.kind, id) for id, key in keys.items() if key < first), None)


def expired(connection: Connection, now: datetime) -> list[int]:
    """Keys of the memories that have expired and are not deleted yet."""
    return [pk for (pk,) in _ALL_EXPIRED.run(connection, now=to_micros(now))]


def expired_vectors(connection: Connection, now: datetime) -> int:
    """How many vectors belong to memories that have expired and are not deleted yet."""
    c = tables.memory.c
    held = select(func.count()).select_from(tables.memory_vector.join(tables.memory)).where(c.expires_at <= now)
    return int(connection.execute(held).scalar_one())


def any_expired(connection: Connection, now: datetime) -> bool:
    """Whether there are memories that have expired and are not deleted yet."""
    return _EXPIRED.run(connection, now=to_micros(now)).fetchone() is not None


def key_of(connection: Connection, noun: RecordType, namespace: Namespace, id: str, now: datetime) -> int | None:
    """The key of one id; None where it does not exist or has expired."""
    return keys_of(connection, noun, namespace, [id], now).get(id)


def holds_vector(noun: RecordType) -> ColumnElement[bool]:
    """The condition of a join of a noun's table with that of its vectors, in the space of key `space`.

    A vector is read by its row's number, so that its owner comes from the row too: from an index with a damaged entry
    it would come as asked for, beside another's vector.
    """
    held = noun.vectors.alias("held")
    owner = held.c[noun.vector_owner.name]
    row = (
        select(literal_column("held.rowid"))
        .select_from(held)
        .where(owner == noun.table.c.pk, held.c.space_pk == bindparam("space"))
        .scalar_subquery()
    )
    return literal_column(f"{noun.vectors.name}.rowid") == row


def next_key(connection: Connection, noun: RecordType) -> int:
    """The next key SQLite would hand out; it is ours as long as the write lock is."""
    row = _SEQUENCE.run(connection, name=str(noun.table.name)).fetchone()  # SQLAlchemy's own kind of text binds slowly
    if row is None:
        return 1
    if type(row[0]) is not int or not 0 <= row[0] < _LAST_KEY:
        raise corrupt_value(f"the last key of a {noun.kind}", row[0])
    return row[0] + 1


def _keys_of(noun: RecordType) -> Among:
    c = noun.table.c
    owner = select(tables.namespace.c.pk).where(tables.namespace.c.path == bindparam("path")).scalar_subquery()

    def statement(ids: list[BindParameter[str]]) -> Select[tuple[str, int]]:
        found = select(c.id, c.pk).where(c.namespace_pk == owner, c.id.in_(ids))
        return found.where(tables.live(bindparam("now", type_=Integer))) if noun.expires else found

    return Among(statement)


_DELETE = {n.kind: Prepared(delete(n.table).where(n.table.c.pk.in_(select(keys_in().c.value)))) for n in RECORD_TYPES}
_expired = select(tables.memory.c.pk).where(tables.memory.c.expires_at <= bindparam("now", type_=Integer))
_EXPIRED = Prepared(_expired.limit(1))
_ALL_EXPIRED = Prepared(_expired)
_KEYS_OF = {noun.kind: _keys_of(noun) for noun in RECORD_TYPES}
_SEQUENCE = Prepared(select(sqlite_sequence.c.seq).where(sqlite_sequence.c.name == bindparam("name")))

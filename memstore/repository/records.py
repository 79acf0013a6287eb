"""Statements that memories and assemblies share: keys of ids, pages in an order, expiry, deletion.

A `Selection` says which records a verb means. From there on rows are named by key.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    Connection,
    Integer,
    Select,
    and_,
    bindparam,
    case,
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
from memstore.models.records import Address, Namespace
from memstore.repository import memberships, namespaces
from memstore.repository.corruption import corrupt_value
from memstore.repository.key_lists import key_lists, keys_json, listed_keys
from memstore.repository.record_types import ASSEMBLY, RECORD_TYPES, RecordType
from memstore.repository.selection import Selection, condition
from memstore.repository.sqlite_only.change_log import sqlite_sequence
from memstore.repository.statements import PAIR, InListQuery, PairListQuery, Prepared, prepared_by_kind
from memstore.schema import tables
from memstore.schema.namespace_path import namespace_path
from memstore.timestamps import EPOCH, to_micros

BEFORE_ALL = -(2**63)
"""The sort value of a missing value."""

_MOST_EXPIRED = 2_000  # assemblies whose order a statement corrects; writes soon delete their expired members

_LAST_KEY = 2**62  # no key this large was ever handed out


@dataclass(frozen=True, slots=True)
class SortOrder:
    """The column that a list is sorted by, and the direction; rows with equal values are sorted by key."""

    column: str
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Position:
    """The end of a page of a list: the sort value and the key of its last row."""

    value: Any
    pk: int


def _matching_ids(record_type: RecordType, ids: list[BindParameter[str]]) -> Select[tuple[str, int]]:
    c = record_type.table.c
    owner = select(tables.namespace.c.pk).where(tables.namespace.c.path == bindparam("path")).scalar_subquery()
    matching = select(c.id, c.pk).where(c.namespace_pk == owner, c.id.in_(ids))
    return matching.where(tables.live(bindparam("now", type_=Integer))) if record_type.expires else matching


def _addressed(record_type: RecordType) -> Select[tuple[int, str, int]]:
    c = record_type.table.c
    rows = select(PAIR.c.key, PAIR.c.text, c.pk)
    rows = rows.join_from(PAIR, record_type.table, and_(c.namespace_pk == PAIR.c.key, c.id == PAIR.c.text))
    return rows.where(tables.live(bindparam("now", type_=Integer))) if record_type.expires else rows


_KEYS_OF = {record_type.kind: InListQuery(partial(_matching_ids, record_type)) for record_type in RECORD_TYPES}
_ADDRESSED = {record_type.kind: PairListQuery(partial(_addressed, record_type)) for record_type in RECORD_TYPES}
_DELETE = prepared_by_kind(lambda t: delete(t.table).where(t.table.c.pk.in_(listed_keys())))
_EXPIRED = Prepared(
    lambda: (
        select(tables.memory.c.pk)
        .where(tables.memory.c.expires_at <= bindparam("now"))
        .order_by(tables.memory.c.expires_at)
        # A sum: where a parameter is the limit itself, SQLite plans the statement anew each time it is bound (25 µs).
        .limit(bindparam("most", type_=Integer) + literal_column("0", Integer))
    )
)
_EXPIRED_VECTORS = Prepared(
    lambda: (
        select(func.count())
        .select_from(tables.memory_vector.join(tables.memory))
        .where(tables.memory.c.expires_at <= bindparam("now"))
    )
)
_SEQUENCE = Prepared(lambda: select(sqlite_sequence.c.seq).where(sqlite_sequence.c.name == bindparam("name")))


def keys_of(
    connection: Connection, record_type: RecordType, namespace: Namespace, ids: Sequence[str], now: datetime
) -> dict[str, int]:
    """Keys by id of those *ids* that exist and have not expired at *now*, in the order of *ids*."""
    path, at = namespace_path(namespace), to_micros(now)
    keys = dict(_KEYS_OF[record_type.kind].rows(connection, ids, path=path, now=at))
    return {id: keys[id] for id in ids if id in keys}


def key_of(connection: Connection, record_type: RecordType, namespace: Namespace, id: str, now: datetime) -> int | None:
    """The key of one id; None where it does not exist or has expired."""
    return keys_of(connection, record_type, namespace, [id], now).get(id)


def keys_of_addresses(
    connection: Connection, record_type: RecordType, addresses: Sequence[Address], now: datetime
) -> dict[Address, int]:
    """Keys of those *addresses* whose records exist and have not expired at *now*, in the order of *addresses*."""
    owners = namespaces.keys(connection, (namespace for namespace, _ in addresses))
    pairs = [(owners[namespace], id) for namespace, id in addresses if namespace in owners]
    rows = _ADDRESSED[record_type.kind].rows(connection, pairs, now=to_micros(now))
    keys = {(owner, id): key for owner, id, key in rows}
    present = ((address, keys.get((owners.get(address[0], 0), address[1]))) for address in addresses)
    return {address: key for address, key in present if key is not None}


def page(
    connection: Connection, selection: Selection, order: SortOrder, after: Position | None, limit: int, offset: int = 0
) -> tuple[list[Position], Position | None]:
    """The next *limit* rows of a list after a position, and the last of them; None when there are no more.

    *offset* rows are skipped first.
    """
    table = selection.record_type.table
    value = _sort_value(table.c[order.column])
    if selection.record_type is ASSEMBLY and order.column == "updated_at":
        value = _after_expiries(connection, value, selection.now)
    rows = select(table.c.pk, value).where(condition(connection, selection)).limit(limit)
    if offset:
        rows = rows.offset(offset)
    if after is not None:
        row, last = tuple_(value, table.c.pk), tuple_(literal(after.value), literal(after.pk))
        rows = rows.where(row < last if order.descending else row > last)
    ends = (value.desc(), table.c.pk.desc()) if order.descending else (value, table.c.pk)
    positions = [Position(value, int(pk)) for pk, value in connection.execute(rows.order_by(*ends))]
    return positions, positions[-1] if len(positions) == limit else None


def _sort_value(column: Column[Any]) -> ColumnElement[Any]:
    """The column as SQLite compares it; missing values come first."""
    plain = type_coerce(column, NullType())
    return func.coalesce(plain, BEFORE_ALL) if column.nullable else plain


def _after_expiries(connection: Connection, value: ColumnElement[Any], now: datetime) -> ColumnElement[Any]:
    """The time of assemblies as they are read: where members have expired, not before the last expiry."""
    expired = memberships.expired_members(connection, now)
    if not expired:
        return value
    last: dict[Any, ColumnElement[Any]] = {
        key: literal_column(str(members.last_expiry)) for key, members in islice(expired.items(), _MOST_EXPIRED)
    }
    return func.max(value, case(last, value=tables.assembly.c.pk, else_=value))


def delete_keys(connection: Connection, record_type: RecordType, keys: Sequence[int]) -> None:
    """Delete records, with their tags, vectors and memberships."""
    for part in key_lists(keys):
        _DELETE[record_type.kind].run(connection, keys=keys_json(part))


def duplicate_error(
    connection: Connection, record_type: RecordType, addresses: Sequence[Address], first: int
) -> DuplicateError | None:
    """The error for the first of *addresses* that existed before key *first* was handed out; None where none did."""
    keys = keys_of_addresses(connection, record_type, addresses, EPOCH)  # expired ones are deleted before
    for i, address in enumerate(addresses):
        if address in keys and keys[address] < first:
            error = DuplicateError(record_type.kind, address[1])
            return error.of_item(i, address[1]) if len(addresses) > 1 else error
    return None


def expired(connection: Connection, now: datetime, most: int) -> list[int]:
    """Keys of at most so many memories that have expired and are not deleted yet, the first that expired first."""
    return _EXPIRED.column(connection, now=now, most=most)


def expired_vectors(connection: Connection, now: datetime) -> int:
    """How many vectors belong to memories that have expired and are not deleted yet."""
    return int(_EXPIRED_VECTORS.value(connection, now=now))


def joins_vector(record_type: RecordType) -> ColumnElement[bool]:
    """The condition of a join of a record's table with its table of vectors, in the space of parameter `space`.

    A vector is read by its rowid, so that its owner comes from the vector's own row. Through a damaged index entry the
    owner would be the one asked for, beside the vector of another record.
    """
    vectors = record_type.vectors.alias("owned")
    owner = vectors.c[record_type.vector_owner.name]
    row = (
        select(literal_column("owned.rowid"))
        .select_from(vectors)
        .where(owner == record_type.table.c.pk, vectors.c.space_pk == bindparam("space"))
        .scalar_subquery()
    )
    return literal_column(f"{record_type.vectors.name}.rowid") == row


def next_key(connection: Connection, record_type: RecordType) -> int:
    """The next key SQLite would hand out; nobody else takes it while this transaction has the write lock."""
    name = str(record_type.table.name)  # SQLAlchemy's quoted_name binds slowly
    row = _SEQUENCE.run(connection, name=name).fetchone()
    if row is None:
        return 1
    if type(row[0]) is not int or not 0 <= row[0] < _LAST_KEY:
        raise corrupt_value("sqlite_sequence.seq", f"the last key of table {name}, an int below 2**62", row[0])
    return row[0] + 1

"""Erasure from the change history: the rows of records, and the memberships that rows of other records name.

A row about one record is deleted with it. The row of an addition names a range of keys, its actor and its reason: it is
deleted when no record of the range is left anywhere. A row of a record at the other end of a membership stays without
that membership; if it has nothing else to say, it is deleted, or loses its actor and its reason.
"""

import json
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, literal_column, null, select, text, update
from sqlalchemy.types import NullType

from memstore.models.records import RecordKind
from memstore.repository import history_reader, history_writer
from memstore.repository.key_lists import keys_json, listed_keys
from memstore.repository.memberships import partner_type
from memstore.repository.record_types import RecordType
from memstore.repository.statements import Prepared, prepared_by_kind, stored
from memstore.schema.tables import journal, tombstone

_MEMBERSHIPS: dict[RecordKind, str] = {"assembly": "members", "memory": "assemblies"}
"""The name, in the values of a history row of this kind, of the keys and ids of the other ends of its memberships."""

_of_kind = journal.c.kind == bindparam("kind")
_is_addition, _is_other = text("what = 'added'"), text("what <> 'added'")  # as in the partial indexes
_DELETE_ROW = Prepared(lambda: delete(journal).where(journal.c.pk == bindparam("row")))
_DELETE_NAMESPACES = Prepared(lambda: delete(journal).where(journal.c.namespace_pk.in_(listed_keys())))
_WITH_MEMBERSHIPS = Prepared(
    lambda: (
        select(journal.c.pk, journal.c.what, journal.c.old)
        .with_hint(journal, "INDEXED BY ix_journal_changed", "sqlite")
        .where(_of_kind, _is_other, func.instr(journal.c.old, bindparam("name")) > literal_column("0"))
        .order_by(journal.c.last_pk, journal.c.pk)
    )
)
_SET_OLD = Prepared(
    lambda: update(journal).where(journal.c.pk == bindparam("row")).values(old=bindparam("old", type_=NullType()))
)
_CLEAR_OLD = Prepared(
    lambda: (
        update(journal)
        .where(journal.c.pk == bindparam("row"))
        .values(old=bindparam("old", type_=NullType()), actor=null(), reason=null())
    )
)
_ANY_CHANGED = Prepared(
    lambda: (
        select(journal.c.pk)
        .with_hint(journal, "INDEXED BY ix_journal_changed", "sqlite")
        .where(_of_kind, _is_other, journal.c.last_pk.between(bindparam("first"), bindparam("last")))
        .limit(literal_column("1"))
    )
)
_ANY_ARCHIVED = Prepared(
    lambda: (
        select(tombstone.c.pk)
        .where(
            tombstone.c.kind == bindparam("kind"),
            tombstone.c.record_pk.between(bindparam("first"), bindparam("last")),
        )
        .limit(literal_column("1"))
    )
)
_ANY_EXISTING = prepared_by_kind(
    lambda t: (
        select(t.table.c.pk)
        .where(t.table.c.pk.between(bindparam("first"), bindparam("last")))
        .limit(literal_column("1"))
    )
)


def erase(connection: Connection, record_type: RecordType, keys: Sequence[int]) -> int:
    """Delete the history of the records *keys*, which exist no more; how many rows were deleted or changed."""
    count = history_writer.delete_changes(connection, record_type, keys)
    count += _erase_additions(connection, record_type, keys)
    return count + _erase_memberships(connection, partner_type(record_type), frozenset(keys))


def erase_namespaces(connection: Connection, namespace_pks: Sequence[int]) -> int:
    """Delete every history row of the namespaces *namespace_pks*; how many there were. Reads the whole history."""
    return _DELETE_NAMESPACES.run(connection, keys=keys_json(namespace_pks)).rowcount


def _erase_additions(connection: Connection, record_type: RecordType, keys: Sequence[int]) -> int:
    """Delete the additions of which no record is left: no row, no archived record, no change."""
    count, last_key = 0, 0
    for key in sorted(keys):
        if key <= last_key:
            continue
        addition = history_reader.addition_of(connection, record_type, key)
        if addition is None:
            continue
        last_key = addition.last_key
        span = {"first": addition.first_key, "last": addition.last_key}
        queries = (_ANY_EXISTING[record_type.kind].value(connection, **span),)
        queries += tuple(
            statement.value(connection, kind=record_type.kind, **span) for statement in (_ANY_ARCHIVED, _ANY_CHANGED)
        )
        if all(row is None for row in queries):
            count += _DELETE_ROW.run(connection, row=addition.number).rowcount
    return count


def _erase_memberships(connection: Connection, record_type: RecordType, partners: AbstractSet[int]) -> int:
    """Remove the memberships with *partners* from the history of the records of *record_type*; from how many rows."""
    name = _MEMBERSHIPS[record_type.kind]
    # Collected first: the statement that reads the rows must not meet those that change.
    changed = [
        (number, old, remaining)
        for number, change_kind, old in _rows_with_memberships(connection, record_type, name)
        if (remaining := _without(old[name], partners, paired=change_kind == "updated")) != old[name]
    ]
    for number, old, remaining in changed:
        if any(remaining) or len(remaining) == 0:
            _SET_OLD.run(connection, row=number, old=stored({**old, name: remaining}))
            continue
        others = {field: value for field, value in old.items() if field != name}
        if others.keys() <= {"updated_at"}:
            statement = _CLEAR_OLD if others else _DELETE_ROW
            statement.run(connection, row=number, **({"old": stored(others)} if others else {}))
        else:
            _SET_OLD.run(connection, row=number, old=stored(others))
    return len(changed)


def _rows_with_memberships(
    connection: Connection, record_type: RecordType, name: str
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Number, kind and old values of the history rows that name memberships; unreadable ones are left out."""
    for rows in _WITH_MEMBERSHIPS.fetch(connection, kind=record_type.kind, name=f'"{name}":['):
        for number, change_kind, values in rows:
            try:
                old = json.loads(values)
            except (TypeError, ValueError, RecursionError):
                continue  # `check` names it
            if isinstance(old, dict) and isinstance(old.get(name), list):
                yield number, change_kind, old


def _without(memberships: list[Any], partners: AbstractSet[int], *, paired: bool) -> list[Any]:
    """*memberships*, pairs of key and id, without *partners*; if *paired*, they are two lists: added and removed."""
    if paired:
        return [_without(part, partners, paired=False) if isinstance(part, list) else part for part in memberships]
    return [pair for pair in memberships if not (isinstance(pair, list) and pair and pair[0] in partners)]

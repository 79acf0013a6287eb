"""The changes of a record, latest first: `history()` of both kinds of record."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from memstore.errors import NotFoundError
from memstore.history import as_of
from memstore.history.as_of import FormerRecords
from memstore.models.history import Change
from memstore.models.records import Namespace
from memstore.repository import history_reader, history_writer, records
from memstore.repository.corruption import corrupt_value
from memstore.repository.history_reader import HistoryEntry
from memstore.repository.history_writer import RowVersion
from memstore.repository.record_types import ASSEMBLY, RECORD_TYPES
from memstore.timestamps import EPOCH

_FIELDS = {
    record_type.kind: frozenset({*record_type.columns, "tags", "embedding"} - history_writer.DERIVED)
    for record_type in RECORD_TYPES
}
"""The fields of a record that its changes show when it is added or deleted."""


def history(former: FormerRecords, namespace: Namespace, id: str, limit: int | None) -> list[Change]:
    """The changes of the record that has an id, and of the deleted records that had it, the latest first.

    Raises:
        NotFoundError: no record has the id, and the history has no change of one.
    """
    connection, record_type = former.connection, former.record_type
    keys = as_of.keys_of_id(connection, record_type, namespace, id)
    changes = [change for key in keys for change in _changes_of(former, namespace, id, key, limit)]
    if not changes and records.key_of(connection, record_type, namespace, id, EPOCH) is None:
        raise NotFoundError(record_type.kind, id, namespace)
    return sorted(changes, key=lambda change: change.number, reverse=True)[:limit]


def _changes_of(former: FormerRecords, namespace: Namespace, id: str, key: int, limit: int | None) -> Iterator[Change]:
    """The changes of the record with one key, the latest first."""
    connection, record_type = former.connection, former.record_type
    change = partial(_change, former, namespace, id)
    after = history_writer.current_versions(connection, record_type, [key]).get(key)
    count = 0
    for entry in history_reader.entries_of(connection, record_type, [key]):
        before = history_reader.version_before(entry, after)
        yield change(entry, before, after)
        after, count = before, count + 1
        if count == limit:
            return
    addition = history_reader.addition_of(connection, record_type, key)
    first = None if addition is None else history_reader.read_entry(connection, addition.number)
    if first is not None:
        yield change(replace(first, key=key), None, after)


def _change(
    former: FormerRecords,
    namespace: Namespace,
    id: str,
    entry: HistoryEntry,
    before: RowVersion | None,
    after: RowVersion | None,
) -> Change:
    kind = former.record_type.kind
    if after is None and before is None:
        raise corrupt_value(f"journal row {entry.number}", f"a change of {kind} {id!r}", None)
    names = entry.old_values().keys() if entry.change_kind == "updated" else _FIELDS[kind]
    added, removed = _member_changes(former, entry)
    return Change(
        number=entry.number,
        record_kind=kind,
        id=id,
        namespace=namespace,
        kind=entry.change_kind,
        at=history_reader.decode_time(entry.at),
        actor=entry.actor,
        reason=entry.reason,
        undoes=entry.undoes,
        old={} if before is None else former.fields(before, names),
        new={} if after is None else former.fields(after, names),
        members_added=tuple(added.values()),
        members_removed=tuple(removed.values()),
    )


def _member_changes(former: FormerRecords, entry: HistoryEntry) -> tuple[dict[int, str], dict[int, str]]:
    """The members that a change added to an assembly, and those it removed: ids by key."""
    if former.record_type is not ASSEMBLY:
        return {}, {}
    if entry.creates:
        members = history_reader.members_before(former.connection, entry.key, entry.number + 1)
        return history_reader.memory_ids(former.connection, members), {}
    return entry.member_changes()

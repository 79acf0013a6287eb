"""Undo of one change: the fields, tags and members that it changed get their earlier values; nothing else changes.

An undo is recorded as a change of its own, and can be undone in turn. It is refused with `ConflictError` if a later
change depends on the change: another value of the same field, the same tag or member, or a deletion of the record.
"""

from collections.abc import Iterable

from sqlalchemy import Connection

from memstore.errors import ConflictError, HistoryError, InvalidError, NotFoundError
from memstore.history import as_of, changes
from memstore.history.as_of import FormerRecords
from memstore.models.history import Change
from memstore.models.records import Namespace
from memstore.repository import (
    history_reader,
    history_retention,
    history_writer,
    memberships,
    record_keys,
    record_tags,
    records,
    row_restore,
)
from memstore.repository.context import WriteContext
from memstore.repository.history_reader import DELETIONS, HistoryEntry
from memstore.repository.record_types import ASSEMBLY, BY_KIND, MEMORY, RecordType
from memstore.sync import composites
from memstore.timestamps import to_micros


def undo(context: WriteContext, namespace: Namespace, change: object) -> Change:
    """Undo *change*, which is of *namespace* or of one below it; the change that this made.

    Raises:
        ConflictError: a later change depends on it.
        HistoryError: the history does not have the change.
    """
    if not isinstance(change, Change):
        raise InvalidError(f"Invalid change: expected a Change that history() returned, found {type(change).__name__}")
    if change.namespace[: len(namespace)] != namespace:
        raise NotFoundError(change.record_kind, change.id, namespace)
    connection, record_type = context.connection, BY_KIND[change.record_kind]
    entry, key = _find_entry(connection, record_type, change)
    if entry.change_kind in DELETIONS:
        _undo_deletion(context, record_type, entry, change)
    elif entry.creates:
        _undo_addition(context, record_type, entry, key, change)
    else:
        _undo_update(context, record_type, entry, change)
    former = FormerRecords(connection, context.spaces, record_type)
    last = changes.history(former, change.namespace, change.id, 1)[0]
    if last.undoes != entry.number:
        raise _conflict(change, "all values are those from before the change already")
    return last


def _find_entry(connection: Connection, record_type: RecordType, change: Change) -> tuple[HistoryEntry, int]:
    """The row of *change*, and the key of its record."""
    entry = history_reader.read_entry(connection, change.number)
    if entry is not None and entry.kind == record_type.kind:
        for key in as_of.keys_of_id(connection, record_type, change.namespace, change.id):
            if entry.first_key <= key <= entry.key:
                return entry, key
    since = history_retention.read(connection).since
    raise HistoryError(
        f"Change {change.number} of {change.record_kind} {change.id!r} is not in this file's history. "
        "It is of another file, or too old and deleted. Call history() for the changes that can be undone.",
        since=None if since is None else history_reader.decode_time(since),
    )


def _later_entries(
    connection: Connection, record_type: RecordType, key: int, entry: HistoryEntry
) -> list[HistoryEntry]:
    """The changes of a record after *entry* that were not undone, the latest first."""
    undone: set[int] = set()
    later = []
    for other in history_reader.entries_of(connection, record_type, [key], entry.number + 1):
        if other.number in undone:
            continue
        if other.undoes is not None and other.undoes > entry.number:
            undone.add(other.undoes)
        else:
            later.append(other)
    return later


def _conflict(change: Change, why: str, later: Iterable[int] = ()) -> ConflictError:
    numbers = tuple(sorted(set(later)))
    advice = ""
    if numbers:
        advice = f" Undo change {', '.join(map(str, reversed(numbers)))} first."
    return ConflictError(
        f"Change {change.number} of {change.record_kind} {change.id!r} cannot be undone: {why}.{advice}", later=numbers
    )


def _undo_addition(
    context: WriteContext, record_type: RecordType, entry: HistoryEntry, key: int, change: Change
) -> None:
    """Delete the record that the change added or restored."""
    connection = context.connection
    later = [other.number for other in _later_entries(connection, record_type, key, entry)]
    if later:
        raise _conflict(change, "the record was changed later", later)
    if record_type is MEMORY:
        containing = memberships.assemblies_of(connection, [key]).get(key, [])
        joined = {number for assembly in containing for number in _joining_changes(connection, assembly, key)}
        if any(number > entry.number for number in joined):
            raise _conflict(change, "the memory became a member of an assembly later", joined)
    history_writer.delete_records(context, record_type, [key], undoes=entry.number)


def _joining_changes(connection: Connection, assembly: int, memory: int) -> list[int]:
    """The number of the change by which a memory last became a member of an assembly, if the history has it."""
    for entry in history_reader.entries_of(connection, ASSEMBLY, [assembly]):
        if entry.creates or memory in entry.member_changes()[0]:
            return [entry.number]
    addition = history_reader.addition_of(connection, ASSEMBLY, assembly)
    return [] if addition is None else [addition.number]


def _undo_deletion(context: WriteContext, record_type: RecordType, entry: HistoryEntry, change: Change) -> None:
    """Store the deleted record again under its key, with the memberships whose other end exists."""
    connection = context.connection
    _check_restorable(context, record_type, entry, change)
    version = history_reader.version_before(entry, None)
    if version is None:
        raise _conflict(change, "the memory has expired, and the history has nothing of it. Add it again instead")
    expires_at = version.columns.get("expires_at")
    if expires_at is not None and expires_at <= to_micros(context.now):
        raise _conflict(change, "the memory has expired, and would be deleted at once. Add it again instead")
    FormerRecords(connection, context.spaces, record_type).check(version)
    row_restore.insert_row(connection, record_type, version)
    record_tags.add_tags(connection, record_type, version.namespace_pk, [version.pk], [version.tags])
    if version.vector is not None:
        row_restore.set_vector(connection, context.spaces["memory"], version.pk, version.vector, version.checksum)
    if record_type is ASSEMBLY:
        members = record_keys.existing(connection, MEMORY, entry.partners("members"))
        composites.extend(context, version.pk, members)
    else:
        for assembly in record_keys.existing(connection, ASSEMBLY, entry.partners("assemblies")):
            composites.extend(context, assembly, [version.pk])
    history_writer.record_restoration(context, record_type, [version.pk], undoes=entry.number)


def _check_restorable(context: WriteContext, record_type: RecordType, entry: HistoryEntry, change: Change) -> None:
    """Raise `ConflictError` where the deleted record cannot be stored again."""
    if entry.change_kind == "forgotten":
        raise _conflict(change, "the record is in the trash. Call recover() instead")
    if entry.change_kind == "merged":
        raise _conflict(change, "the assembly was merged. Call unmerge() instead")
    connection = context.connection
    later = [other.number for other in _later_entries(connection, record_type, entry.key, entry)]
    if later:
        raise _conflict(change, "the record was restored later", later)
    other_key = records.key_of(connection, record_type, change.namespace, change.id, context.now)
    if other_key is not None:
        addition = history_reader.addition_of(connection, record_type, other_key)
        numbers = [] if addition is None else [addition.number]
        raise _conflict(change, "the id was given to another record later", numbers)


def _undo_update(context: WriteContext, record_type: RecordType, entry: HistoryEntry, change: Change) -> None:
    """Give the record the values, tags and members that it had before the change."""
    connection = context.connection
    later = _later_entries(connection, record_type, entry.key, entry)
    if not record_keys.existing(connection, record_type, [entry.key]):
        deletions = [other.number for other in later if other.change_kind in DELETIONS]
        raise _conflict(change, "the record was deleted later", deletions[:1])
    later = [other for other in later if other.change_kind == "updated"]  # a deletion and its undo change no value
    old = dict(entry.old_values())
    overlapping = [other.number for other in later if _overlaps(entry, other)]
    if overlapping:
        raise _conflict(change, "the same values were changed later", overlapping)
    added, removed = entry.member_changes()
    missing = removed.keys() - set(record_keys.existing(connection, MEMORY, removed))
    if missing:
        ids = ", ".join(repr(removed[key]) for key in sorted(missing))
        raise _conflict(change, f"memories that would become members again do not exist any more: {ids}")
    with history_writer.record_update(context, record_type, [entry.key], undoes=entry.number) as members:
        values = {name: value for name, value in old.items() if name in history_writer.COLUMNS[record_type.kind]}
        if "updated_at" in values and any("updated_at" in other.old_values() for other in later):
            values["updated_at"] = to_micros(context.now)  # a later change of other fields stays, and was later
        row_restore.update_columns(connection, record_type, entry.key, values)
        if "embedding" in old:
            row_restore.set_vector(connection, context.spaces["memory"], entry.key, entry.vector, entry.checksum)
        _undo_tags(context, record_type, entry)
        if added or removed:
            ended = memberships.remove_members(connection, entry.key, sorted(added))
            members.note(entry.key, composites.extend(context, entry.key, sorted(removed)), ended)


def _undo_tags(context: WriteContext, record_type: RecordType, entry: HistoryEntry) -> None:
    added, removed = entry.tag_changes()
    if added or removed:
        version = history_writer.current_versions(context.connection, record_type, [entry.key])[entry.key]
        tags = (version.tags - added) | removed
        record_tags.replace_tags(context.connection, record_type, version.namespace_pk, {version.pk: tags})


def _overlaps(entry: HistoryEntry, later: HistoryEntry) -> bool:
    """Whether a later change is of a field, tag or member that *entry* changed; `updated_at` does not count."""
    fields = (entry.old_values().keys() & later.old_values().keys()) - {"updated_at", "tags", "members"}
    tags = frozenset().union(*entry.tag_changes()) & frozenset().union(*later.tag_changes())
    (added, removed), (later_added, later_removed) = entry.member_changes(), later.member_changes()
    members = (added.keys() | removed.keys()) & (later_added.keys() | later_removed.keys())
    return bool(fields or tags or members)

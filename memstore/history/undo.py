"""Undo of one change: the fields, tags and members that it changed get their earlier values; nothing else changes.

An undo is recorded as a change of its own, and can be undone in turn. It is refused with `ConflictError` if a later
change depends on the change: another value of the same field, the same tag or member, or a deletion of the record.

A `Change` is compared with the row of its number by everything it names, because a restored backup or another file can
have another change with that number.
"""

from collections.abc import Sequence
from typing import NamedTuple

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
    store_meta,
    tombstones,
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
        raise _conflict(change, _Obstacle("all values are those from before the change already"))
    return last


def _find_entry(connection: Connection, record_type: RecordType, change: Change) -> tuple[HistoryEntry, int]:
    """The row of *change*, and the key of its record."""
    if change.origin != store_meta.origin(connection):
        raise ConflictError(
            f"Change {change.number} of {change.record_kind} {change.id!r} cannot be undone: it was read from another "
            "file, or before a backup was restored into this one. Call history() for the changes of this file."
        )
    entry = history_reader.read_entry(connection, change.number)
    if entry is not None and entry.kind == record_type.kind:
        for key in as_of.keys_of_id(connection, record_type, change.namespace, change.id):
            if entry.first_key <= key <= entry.key:
                _check_same(entry, change)
                return entry, key
    since = history_retention.read(connection).since
    raise HistoryError(
        f"Change {change.number} of {change.record_kind} {change.id!r} is not in this file's history. It was purged or "
        "erased, or is older than the history that the file keeps. Call history() for the changes that can be undone.",
        since=None if since is None else history_reader.decode_time(since),
    )


def _check_same(entry: HistoryEntry, change: Change) -> None:
    """Raise `ConflictError` where *entry*, the row with the number of *change*, is of another change."""
    names = ("kind", "at", "actor", "reason", "undoes", "fields")
    # A savepoint that is rolled back gives its numbers back, so two changes of one transaction can have the same number
    # and time. Hence the names of the changed fields are compared too, but for what a caller can leave out.
    compares_fields = entry.change_kind == "updated" and change.damage is None
    fields = frozenset(change.old) - {"embedding"} if compares_fields else None
    expected = (change.kind, change.at, change.actor, change.reason, change.undoes, fields)
    at = history_reader.decode_time(entry.at)
    stored_fields = frozenset(entry.old_values()) - {"embedding", "members"} if compares_fields else None
    stored = (entry.change_kind, at, entry.actor, entry.reason, entry.undoes, stored_fields)
    for name, one, other in zip(names, expected, stored, strict=True):
        if one != other:
            raise ConflictError(
                f"Change {change.number} of {change.record_kind} {change.id!r} cannot be undone: the change with this "
                f"number in the file is another one, with another {name}. Call history() for the changes of this file."
            )


class _Obstacle(NamedTuple):
    """Why a change cannot be undone, what to do first, and the numbers of the later changes that depend on it."""

    why: str
    advice: str = ""
    later: tuple[int, ...] = ()


def _conflict(change: Change, obstacle: _Obstacle) -> ConflictError:
    advice = f" {obstacle.advice}" if obstacle.advice else ""
    return ConflictError(
        f"Change {change.number} of {change.record_kind} {change.id!r} cannot be undone: {obstacle.why}.{advice}",
        later=obstacle.later,
    )


def _undo_first(why: str, entries: Sequence[HistoryEntry]) -> _Obstacle:
    """The obstacle of later changes that can be undone first."""
    numbers = sorted({entry.number for entry in entries})
    advice = f"Undo change {', '.join(map(str, reversed(numbers)))} first." if numbers else ""
    return _Obstacle(why, advice, tuple(numbers))


def _later_entries(
    connection: Connection, record_type: RecordType, key: int, entry: HistoryEntry
) -> list[HistoryEntry]:
    """The changes of a record after *entry* that were not undone, the latest first.

    Two things are left out. The loss of members that do not exist any more is part of their deletion: nothing can undo
    it in the assembly, and no undo gives these members back. A record that was archived and came back is as it was.
    """
    undone: set[int] = set()
    later = []
    restorations: list[HistoryEntry] = []  # by recover() or unmerge(), of a deletion that is not met yet
    for other in history_reader.entries_of(connection, record_type, [key], entry.number + 1):
        if other.number in undone or _is_final_loss(connection, other):
            continue
        if other.undoes is not None and other.undoes > entry.number:
            undone.add(other.undoes)
        elif other.undoes is None and other.change_kind == "restored":
            restorations.append(other)
        elif restorations and other.change_kind in DELETIONS:
            restorations.pop()
        else:
            later.append(other)
    return sorted([*later, *restorations], key=lambda other: other.number, reverse=True)


def _is_final_loss(connection: Connection, entry: HistoryEntry) -> bool:
    """Whether *entry* is only of members that an assembly lost, and that neither exist nor are in the trash."""
    if entry.kind != ASSEMBLY.kind or entry.change_kind != "updated" or entry.old is None:
        return False
    added, removed = entry.member_changes()
    if added or not removed or not entry.old_values().keys() <= {"members", "updated_at"}:
        return False
    exists = record_keys.existing(connection, MEMORY, removed)
    return not exists and not any(tombstones.exists(connection, MEMORY, key) for key in removed)


def _absence(connection: Connection, record_type: RecordType, key: int, later: Sequence[HistoryEntry]) -> _Obstacle:
    """Why the record *key*, which a change of *later* deleted, is in the way, and how it can come back."""
    deletion = next((other for other in later if other.change_kind in DELETIONS), None)
    if deletion is None:
        return _Obstacle("the record was deleted later")
    numbers = (deletion.number,)
    if deletion.change_kind in ("forgotten", "merged"):
        return _archived(connection, record_type, key, deletion)._replace(later=numbers)
    if deletion.change_kind == "expired":
        return _Obstacle("the memory expired later", "Add it again instead.", numbers)
    return _undo_first("the record was deleted later", [deletion])


def _archived(connection: Connection, record_type: RecordType, key: int, deletion: HistoryEntry) -> _Obstacle:
    """Where a record is that *deletion* archived, and the verb that brings it back."""
    if not tombstones.exists(connection, record_type, key):
        place = "the trash" if deletion.change_kind == "forgotten" else "the archive of merged assemblies"
        return _Obstacle(f"the record was purged from {place}, and cannot come back")
    if deletion.change_kind == "forgotten":
        return _Obstacle("the record is in the trash", "Call recover() instead.")
    return _Obstacle("the assembly was merged", "Call unmerge() instead.")


def _undo_addition(
    context: WriteContext, record_type: RecordType, entry: HistoryEntry, key: int, change: Change
) -> None:
    """Take back the addition or the restoration of a record.

    It is deleted. After a recovery it goes back to the trash, because its contents were there before.
    """
    connection = context.connection
    later = _later_entries(connection, record_type, key, entry)
    if not record_keys.existing(connection, record_type, [key]):
        raise _conflict(change, _absence(connection, record_type, key, later))
    if later:
        raise _conflict(change, _undo_first("the record was changed later", later))
    if record_type is MEMORY:
        containing = memberships.assemblies_of(connection, [key]).get(key, [])
        joined = [_joining_change(connection, assembly, key) for assembly in containing]
        later = [other for other in joined if other is not None and other.number > entry.number]
        if later:
            raise _conflict(change, _undo_first("the memory became a member of an assembly later", later))
    archived_by = _archive_cause(connection, record_type, key, entry)
    if archived_by == "merged":
        raise _conflict(change, _Obstacle("unmerge() restored the assembly", "Call merge() instead."))
    if archived_by == "forgotten":
        if record_type is ASSEMBLY:
            composites.delete_expired_members(context, [key])
        tombstones.archive(context, record_type, [key], "forgotten", undoes=entry.number)
    else:
        history_writer.delete_records(context, record_type, [key], undoes=entry.number)


def _archive_cause(
    connection: Connection, record_type: RecordType, key: int, entry: HistoryEntry
) -> tombstones.Cause | None:
    """Why the record was archived that *entry* restored; None for an addition, and for the undo of a deletion.

    Where the history has lost the change that archived it, a record counts as forgotten: the trash loses nothing.
    """
    if entry.change_kind != "restored" or entry.undoes is not None:
        return None
    earlier = history_reader.entries_of(connection, record_type, [key])
    deletion = next((one for one in earlier if one.number < entry.number and one.change_kind in DELETIONS), None)
    return "merged" if deletion is not None and deletion.change_kind == "merged" else "forgotten"


def _joining_change(connection: Connection, assembly: int, memory: int) -> HistoryEntry | None:
    """The change by which a memory last became a member of an assembly; None where the history does not have it."""
    for entry in history_reader.entries_of(connection, ASSEMBLY, [assembly]):
        # A restored assembly has the members that it had before.
        if entry.change_kind == "updated" and memory in entry.member_changes()[0]:
            return entry
    return _addition(connection, ASSEMBLY, assembly)


def _addition(connection: Connection, record_type: RecordType, key: int) -> HistoryEntry | None:
    addition = history_reader.addition_of(connection, record_type, key)
    return None if addition is None else history_reader.read_entry(connection, addition.number)


def _undo_deletion(context: WriteContext, record_type: RecordType, entry: HistoryEntry, change: Change) -> None:
    """Store the deleted record again under its key, with the memberships whose other end exists."""
    connection = context.connection
    _check_restorable(context, record_type, entry, change)
    version = history_reader.version_before(entry, None)
    if version is None:
        why = "the memory has expired, and the history has nothing of it"
        raise _conflict(change, _Obstacle(why, "Add it again instead."))
    expires_at = version.columns.get("expires_at")
    if expires_at is not None and expires_at <= to_micros(context.now):
        why = "the memory has expired, and would be deleted at once"
        raise _conflict(change, _Obstacle(why, "Add it again instead."))
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
    connection = context.connection
    later = _later_entries(connection, record_type, entry.key, entry)
    if later:
        obstacle = _undo_first("the record was restored later", later)
        archived = entry.change_kind in ("forgotten", "merged")
        raise _conflict(change, obstacle._replace(advice="") if archived else obstacle)
    if entry.change_kind in ("forgotten", "merged"):
        raise _conflict(change, _archived(connection, record_type, entry.key, entry))
    history_writer.delete_expired_ids(context, [(change.namespace, change.id)])
    other_key = records.key_of(connection, record_type, change.namespace, change.id, context.now)
    if other_key is not None:
        creation = _creation(connection, record_type, other_key)
        others = [creation] if creation is not None and creation.number > entry.number else []
        obstacle = _undo_first("the id was given to another record later", others)
        if creation is not None and _archive_cause(connection, record_type, other_key, creation) == "merged":
            obstacle = obstacle._replace(advice="Delete or merge that assembly first.")
        raise _conflict(change, obstacle)


def _creation(connection: Connection, record_type: RecordType, key: int) -> HistoryEntry | None:
    """The last change that added or restored a record; None where the history does not have it."""
    entries = history_reader.entries_of(connection, record_type, [key])
    return next((entry for entry in entries if entry.creates), None) or _addition(connection, record_type, key)


def _undo_update(context: WriteContext, record_type: RecordType, entry: HistoryEntry, change: Change) -> None:
    """Give the record the values, tags and members that it had before the change."""
    connection = context.connection
    later = _later_entries(connection, record_type, entry.key, entry)
    if not record_keys.existing(connection, record_type, [entry.key]):
        raise _conflict(change, _absence(connection, record_type, entry.key, later))
    later = [other for other in later if other.change_kind == "updated"]  # a deletion and its undo change no value
    old = dict(entry.old_values())
    overlapping = [other for other in later if _overlaps(entry, other)]
    if overlapping:
        raise _conflict(change, _undo_first("the same values were changed later", overlapping))
    added, removed = entry.member_changes()
    missing = removed.keys() - set(record_keys.existing(connection, MEMORY, removed))
    if missing:
        ids = ", ".join(repr(removed[key]) for key in sorted(missing))
        trashed = all(tombstones.exists(connection, MEMORY, key) for key in missing)
        why = f"memories that would become members again do not exist any more: {ids}"
        raise _conflict(change, _Obstacle(why, "They are in the trash: call recover() for them first." * trashed))
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

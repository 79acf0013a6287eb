"""Undoing a change: the fields, tags and members it changed are what they were before, and nothing else moves.

It is a change of its own, written down as one, and can be undone in turn. Whatever came later and depends on a change
keeps it from being undone: another value of the same field, the same tag or member once more, or that the record went.
"""

from collections.abc import Iterable

from sqlalchemy import Connection

from memstore.errors import ConflictError, HistoryError, InvalidError, NotFoundError, short_repr
from memstore.history import as_of
from memstore.models.history import Change
from memstore.models.records import Namespace
from memstore.repository import (
    history_reader,
    history_retention,
    history_writer,
    memberships,
    record_tags,
    records,
)
from memstore.repository import row_restore as statements
from memstore.repository.context import WriteContext
from memstore.repository.history_reader import GONE, Entry
from memstore.repository.record_types import ASSEMBLY, BY_KIND, MEMORY, RecordType
from memstore.sync import composites
from memstore.timestamps import EPOCH, to_micros


def undo(context: WriteContext, namespace: Namespace, change: object) -> Change:
    """Undo *change*, which is of *namespace* or of one below it; what was changed by that."""
    if not isinstance(change, Change):
        raise InvalidError(f"undo takes a memstore.Change, such as history() gives; got {short_repr(change)}")
    if change.namespace[: len(namespace)] != namespace:
        raise NotFoundError(change.noun, change.id, namespace)
    connection, noun = context.connection, BY_KIND[change.noun]
    entry, key = _found(connection, noun, change)
    if entry.what in GONE:
        _bring_back(context, noun, entry, change)
    elif entry.born:
        _remove(context, noun, entry, key, change)
    else:
        _take_back(context, noun, entry, change)
    made = as_of.history(connection, context.spaces, noun, change.namespace, change.id, 1)[0]
    if made.undoes != entry.number:
        raise _refuse(change, "everything is as it was before it already")
    return made


def _found(connection: Connection, noun: RecordType, change: Change) -> tuple[Entry, int]:
    """The row of *change*, and the key of its record."""
    entry = history_reader.entry(connection, change.number)
    known = as_of.keys(connection, noun, change.namespace, change.id)
    keys = [] if entry is None or entry.kind != noun.kind else [k for k in known if entry.first <= k <= entry.key]
    if entry is None or not keys:
        since = history_retention.read(connection).since
        raise HistoryError(
            f"change {change.number} of {change.noun} {change.id!r} is not in this file's history, or not any more: "
            "ask history() what is",
            since=None if since is None else history_reader.moment(since),
        )
    return entry, keys[0]


def _later(connection: Connection, noun: RecordType, key: int, entry: Entry) -> list[Entry]:
    """What happened to a record after *entry* and was not undone, the latest first."""
    undone: set[int] = set()
    later = []
    for each in history_reader.entries(connection, noun, [key], entry.number + 1):
        if each.number in undone:
            continue
        if each.undoes is not None and each.undoes > entry.number:
            undone.add(each.undoes)
        else:
            later.append(each)
    return later


def _refuse(change: Change, why: str, later: Iterable[int] = ()) -> ConflictError:
    numbers = tuple(sorted(set(later)))
    named = f" (change {', '.join(map(str, numbers))}: undo that first)" if numbers else ""
    of = f"change {change.number} of {change.noun} {change.id!r}"
    return ConflictError(f"{of} cannot be undone: {why}{named}", later=numbers)


def _remove(context: WriteContext, noun: RecordType, entry: Entry, key: int, change: Change) -> None:
    """Undo that a record came: it goes."""
    connection = context.connection
    later = [each.number for each in _later(connection, noun, key, entry)]
    if later:
        raise _refuse(change, "the record was changed after that", later)
    if noun is MEMORY:
        joined = {
            n
            for owner in memberships.assemblies_of(connection, [key]).get(key, [])
            for n in _joins(connection, owner, key)
        }
        if any(number > entry.number for number in joined):
            raise _refuse(change, "the memory became a member of an assembly after that", joined)
    history_writer.delete_records(context, noun, [key], undoes=entry.number)


def _joins(connection: Connection, owner: int, key: int) -> list[int]:
    """The change by which a memory last became a member of an assembly."""
    for each in history_reader.entries(connection, ASSEMBLY, [owner]):
        if each.born or key in each.members()[0]:
            return [each.number]
    run = history_reader.run(connection, ASSEMBLY, owner)
    return [] if run is None else [run.number]


def _bring_back(context: WriteContext, noun: RecordType, entry: Entry, change: Change) -> None:
    """Undo that a record went: it is there again under its key, with all that it had and can have still."""
    connection = context.connection
    if entry.what == "forgotten":
        raise _refuse(change, "what was forgotten lies in the trash: bring it back by restore()")
    if entry.what == "merged":
        raise _refuse(change, "the assembly went into a merge: undo that by unmerge()")
    later = [each.number for each in _later(connection, noun, entry.key, entry)]
    if later:
        raise _refuse(change, "the record came back after that", later)
    taken = records.key_of(connection, noun, change.namespace, change.id, EPOCH)
    if taken is not None:
        run = history_reader.run(connection, noun, taken)
        raise _refuse(change, "the id was given to another record after that", [] if run is None else [run.number])
    was = history_reader.before(entry, None)
    if was is None:
        raise ConflictError(f"change {entry.number} says nothing of what was there")
    expires = was.columns.get("expires_at")
    if expires is not None and expires <= to_micros(context.now):
        raise _refuse(change, "the memory's time has come, so it would be deleted at once: add it anew")
    as_of.check(noun, was, context.spaces)
    statements.insert_again(connection, noun, was)
    record_tags.add_tags(connection, noun, was.namespace_pk, [(was.pk, was.tags)])
    if was.vector is not None:
        statements.put_vector(connection, context.spaces["memory"], was.pk, was.vector, was.checksum)
    if noun is ASSEMBLY:
        members = statements.there(connection, MEMORY, entry.pairs("members"))
        composites.extend(context, was.pk, members)
    else:
        for owner in statements.there(connection, ASSEMBLY, entry.pairs("assemblies")):
            composites.extend(context, owner, [was.pk])
    history_writer.record_restoration(context, noun, [was.pk], undoes=entry.number)


def _take_back(context: WriteContext, noun: RecordType, entry: Entry, change: Change) -> None:
    """Undo that a record was changed."""
    connection = context.connection
    later = _later(connection, noun, entry.key, entry)
    if not statements.there(connection, noun, [entry.key]):
        raise _refuse(change, "the record went after that", [each.number for each in later if each.what in GONE][:1])
    later = [each for each in later if each.what == "updated"]  # what went and came back is as it was
    old = dict(entry.known())
    meeting = [each.number for each in later if _meet(entry, each)]
    if meeting:
        raise _refuse(change, "the same was changed after that", meeting)
    came, went = entry.members()
    missing = went.keys() - set(statements.there(connection, MEMORY, went))
    if missing:
        named = ", ".join(repr(went[key]) for key in sorted(missing))
        raise _refuse(change, f"memories that it would make members again are not there any more: {named}")
    stamped = any("updated_at" in each.known() for each in later)
    with history_writer.record_update(context, noun, [entry.key], undoes=entry.number) as noted:
        values = {name: value for name, value in old.items() if name in history_writer.COLUMNS[noun.kind]}
        if stamped and "updated_at" in values:
            values["updated_at"] = to_micros(context.now)  # of another change after it, which stays
        statements.change(connection, noun, entry.key, values)
        if "embedding" in old:
            statements.put_vector(connection, context.spaces["memory"], entry.key, entry.vector, entry.checksum)
        _take_back_tags(context, noun, entry)
        if came or went:
            ended = memberships.remove_members(connection, entry.key, sorted(came))
            noted.note(entry.key, composites.extend(context, entry.key, sorted(went)), ended)


def _take_back_tags(context: WriteContext, noun: RecordType, entry: Entry) -> None:
    came, went = entry.tags()
    if came or went:
        was = history_writer.current_versions(context.connection, noun, [entry.key])[entry.key]
        record_tags.replace_tags(context.connection, noun, was.namespace_pk, {was.pk: (was.tags - came) | went})


def _meet(one: Entry, later: Entry) -> bool:
    """Whether a later change is of something that *one* changed, other than the time of it."""
    fields = (one.known().keys() & later.known().keys()) - {"updated_at", "tags", "members"}
    tags = frozenset().union(*one.tags()) & frozenset().union(*later.tags())
    mine, theirs = one.members(), later.members()
    members = (mine[0].keys() | mine[1].keys()) & (theirs[0].keys() | theirs[1].keys())
    return bool(fields or tags or members)

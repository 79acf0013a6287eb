"""The changes of a record, latest first: `history()` of both kinds of record.

The changes are read backwards, from the present record. Damage is contained: a change that cannot be read is returned
as one of kind `damaged`, and what follows from it, the values of earlier versions, is left out of the other changes
where no row names it.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from memstore.errors import DamagedError, NotFoundError
from memstore.history import as_of
from memstore.history.as_of import FormerRecords
from memstore.models.history import Change, FieldValue
from memstore.models.records import Namespace
from memstore.repository import history_reader, history_writer, records, store_meta
from memstore.repository.history_reader import DamagedEntry, HistoryEntry
from memstore.repository.history_writer import RowVersion
from memstore.repository.record_types import ASSEMBLY, RECORD_TYPES
from memstore.timestamps import EPOCH

_FIELDS = {
    record_type.kind: frozenset({*record_type.columns, "tags", "embedding"} - history_writer.DERIVED)
    for record_type in RECORD_TYPES
}
"""The fields of a record that its changes show when it is added or deleted."""

State = Mapping[str, Any]
"""The values of a version of a record that are known, as they are stored; `tags`, and `embedding` with its checksum."""


def history(
    former: FormerRecords, namespace: Namespace, id: str, limit: int | None, before: int | None = None
) -> list[Change]:
    """The changes of the record that has an id, and of the deleted records that had it, the latest first.

    At most *limit* of those with a number below *before*.

    Raises:
        NotFoundError: no record has the id, and the history has no change of one.
    """
    connection, record_type = former.connection, former.record_type
    keys = as_of.keys_of_id(connection, record_type, namespace, id)
    newest = history_reader.newest_changes(connection, record_type, keys, before)
    changes: list[Change] = []
    for key in sorted(newest, key=newest.__getitem__, reverse=True):
        if limit is not None and len(changes) >= limit and changes[limit - 1].number > newest[key]:
            break  # every change of this record and of the following ones is older
        changes += _Walk(former, store_meta.origin(connection), namespace, id, key).changes(limit, before)
        changes.sort(key=lambda change: change.number, reverse=True)
    if not newest and not (before and keys) and records.key_of(connection, record_type, namespace, id, EPOCH) is None:
        raise NotFoundError(record_type.kind, id, namespace)
    return changes[:limit]


@dataclass(frozen=True, slots=True)
class _Walk:
    """The way back through the changes of the record with one key."""

    former: FormerRecords
    origin: str
    namespace: Namespace
    id: str
    key: int

    def changes(self, limit: int | None, before: int | None) -> list[Change]:
        """At most *limit* of the changes with a number below *before*, the latest first."""
        connection, record_type = self.former.connection, self.former.record_type
        after: State | None = self._current()
        changes: list[Change] = []
        for entry in history_reader.rows_of(connection, record_type, [self.key]):
            earlier = _state_before(entry, after)
            if before is None or entry.number < before:
                changes.append(self._change(entry, earlier, after, changes))
                if len(changes) == limit:
                    return changes
            after = earlier
        addition = history_reader.addition_of(connection, record_type, self.key)
        if addition is not None and (before is None or addition.number < before):
            with suppress(DamagedError):  # `check` names it
                first = history_reader.read_entry(connection, addition.number)
                if first is not None:
                    changes.append(self._change(replace(first, key=self.key), None, after, changes))
        return changes

    def _current(self) -> State | None:
        """The state of the record now; None where it does not exist."""
        connection, record_type = self.former.connection, self.former.record_type
        version = history_writer.readable_versions(connection, record_type, [self.key]).get(self.key)
        return None if version is None else _state(version)

    def _change(
        self, entry: HistoryEntry | DamagedEntry, before: State | None, after: State | None, later: list[Change]
    ) -> Change:
        damage: list[str] = []
        at = history_reader.readable_time(entry.at)
        if at is None:
            damage.append("its time cannot be read; that of the change after it is given instead")
            at = later[-1].at if later else EPOCH
        kind = self.former.record_type.kind
        common = {"number": entry.number, "record_kind": kind, "id": self.id, "at": at, "origin": self.origin}
        if isinstance(entry, DamagedEntry):
            return self._damaged(entry, common)
        names = entry.old.keys() if entry.change_kind == "updated" and entry.old is not None else _FIELDS[entry.kind]
        if entry.change_kind == "updated" and entry.old is None:
            names = frozenset()
            damage.append("the record could not be read when it was made, so the values before it are unknown")
        added, removed = self._member_changes(entry, damage)
        old, new = (self._fields(state, names, damage) for state in (before, after))
        return Change(
            **common,  # type: ignore[arg-type]
            namespace=self.namespace,
            kind=entry.change_kind,
            actor=entry.actor,
            reason=entry.reason,
            undoes=entry.undoes,
            old=old,
            new=new,
            members_added=tuple(added.values()),
            members_removed=tuple(removed.values()),
            damage="; ".join(dict.fromkeys(damage)) or None,
        )

    def _damaged(self, entry: DamagedEntry, common: Mapping[str, Any]) -> Change:
        return Change(
            **common,
            namespace=self.namespace,
            kind="damaged",
            actor=None,
            reason=None,
            undoes=None,
            old={},
            new={},
            members_added=(),
            members_removed=(),
            damage=f"the row cannot be read: {entry.error}",
        )

    def _fields(self, state: State | None, names: Iterable[str], damage: list[str]) -> dict[str, FieldValue]:
        """The fields *names* of a state that can be read, as a record has them; *damage* gets the others."""
        fields: dict[str, FieldValue] = {}
        if state is None:
            return fields
        unknown = sorted(set(names).intersection(_FIELDS[self.former.record_type.kind]).difference(state))
        if self.former.record_type is ASSEMBLY:
            unknown = [name for name in unknown if name != "embedding"]
        if unknown:
            damage.append(f"a later change is damaged, so these values are unknown: {', '.join(unknown)}")
        for name in names:
            if name in state:
                try:
                    fields |= self.former.field(name, state[name], self.id)
                except DamagedError as error:
                    damage.append(str(error))
        return fields

    def _member_changes(self, entry: HistoryEntry, damage: list[str]) -> tuple[dict[int, str], dict[int, str]]:
        """The members that a change added to an assembly, and those it removed: ids by key."""
        if self.former.record_type is not ASSEMBLY or (entry.old is None and not entry.creates):
            return {}, {}
        connection = self.former.connection
        try:
            if entry.creates:
                members = history_reader.members_before(connection, entry.key, entry.number + 1)
                return history_reader.memory_ids(connection, members), {}
            return entry.member_changes()
        except DamagedError as error:
            damage.append(f"its members are unknown: {error}")
            return {}, {}


def _state(version: RowVersion) -> State:
    return {**version.columns, "tags": version.tags, "embedding": (version.vector, version.checksum)}


def _state_before(entry: HistoryEntry | DamagedEntry, after: State | None) -> State | None:
    """What is known of the record before a change, from what is known of it after; None where it did not exist."""
    if isinstance(entry, DamagedEntry) or (entry.old is None and not entry.creates):
        return {}
    if entry.creates:
        return None
    try:
        if entry.change_kind in history_reader.DELETIONS:
            version = history_reader.version_before(entry, None)
            return None if version is None else _state(version)
        state = {**(after or {}), **{name: value for name, value in entry.old_values().items() if name in _COLUMNS}}
        if "tags" in state:
            added, removed = entry.tag_changes()
            state["tags"] = (state["tags"] - added) | removed
        if "embedding" in entry.old_values():
            state["embedding"] = (entry.vector, entry.checksum)
        return state
    except (DamagedError, TypeError, ValueError):
        return {}


_COLUMNS = frozenset(name for record_type in RECORD_TYPES for name in record_type.columns)

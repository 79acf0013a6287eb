"""The change history read backwards: the versions that records had before a change.

The version of a record before change n is its present row with change n and every later one taken back, the latest
first. Every row is checked when it is read: anything but what the history writer stores raises `DamagedError`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple, cast

from sqlalchemy import Connection, bindparam, func, literal_column, select, text

from memstore.concurrency import chunks
from memstore.database.driver_errors import translated
from memstore.errors import DamagedError, HistoryError
from memstore.models.history import ChangeKind
from memstore.models.records import RecordKind
from memstore.repository import history_retention, history_times, history_writer, memberships, record_keys
from memstore.repository.corruption import corrupt_value, expect_stored
from memstore.repository.history_retention import RetentionSettings
from memstore.repository.history_writer import COLUMNS, RowVersion
from memstore.repository.key_lists import keys_json, listed_keys
from memstore.repository.record_types import ASSEMBLY, MEMORY, RecordType
from memstore.repository.statements import Prepared
from memstore.schema.tables import journal
from memstore.timestamps import from_micros, now, to_micros

DELETIONS = frozenset({"deleted", "expired", "forgotten", "merged"})
"""The changes after which a record does not exist; their rows hold all of it."""

_CHANGE_KINDS = DELETIONS | {"added", "updated", "restored"}
LAST_NUMBER = 2**63 - 1
_DAY = 86_400_000_000  # microseconds
_FETCH = 1_000  # rows that are read before other threads may run

_is_addition, _is_other = text("what = 'added'"), text("what <> 'added'")  # as in the partial indexes
_of_kind = journal.c.kind == bindparam("kind")
_ENTRY = Prepared(lambda: select(*journal.c).where(journal.c.pk == bindparam("pk")))
_ENTRIES = Prepared(
    lambda: (
        select(*journal.c)
        .with_hint(journal, "INDEXED BY ix_journal_changed", "sqlite")
        .where(_of_kind, _is_other, journal.c.last_pk.in_(listed_keys()))
        .where(journal.c.pk >= bindparam("number"))
        .order_by(journal.c.pk.desc())
    )
)
_NEWEST = Prepared(
    lambda: (
        select(journal.c.last_pk, func.max(journal.c.pk))
        .with_hint(journal, "INDEXED BY ix_journal_changed", "sqlite")
        .where(_of_kind, _is_other, journal.c.last_pk.in_(listed_keys()), journal.c.pk < bindparam("before"))
        .group_by(journal.c.last_pk)
    )
)
_ADDITION = Prepared(
    lambda: (
        select(journal.c.pk, journal.c.first_pk, journal.c.last_pk)
        .with_hint(journal, "INDEXED BY ix_journal_added", "sqlite")
        .where(_of_kind, _is_addition, journal.c.last_pk >= bindparam("key"))
        .order_by(journal.c.last_pk)
        .limit(literal_column("1"))
    )
)
_KEYS_OF_ID = Prepared(
    lambda: (
        select(journal.c.last_pk)
        .distinct()
        .with_hint(journal, "INDEXED BY ix_journal_id", "sqlite")
        .where(journal.c.namespace_pk == bindparam("namespace"), _of_kind, journal.c.id == bindparam("id"))
    )
)
_DELETIONS = Prepared(
    lambda: (
        select(func.max(journal.c.pk), journal.c.last_pk, journal.c.id)
        .with_hint(journal, "INDEXED BY ix_journal_id", "sqlite")
        .where(journal.c.namespace_pk.in_(listed_keys()), _of_kind, text("id IS NOT NULL"))
        .where(journal.c.what.in_(literal_column(f"'{what}'") for what in sorted(DELETIONS)))
        .group_by(journal.c.last_pk)
    )
)
_CHANGED = Prepared(
    lambda: select(journal.c.namespace_pk, journal.c.last_pk).where(
        journal.c.pk >= bindparam("number"), journal.c.pk <= bindparam("upto"), _of_kind, _is_other
    )
)


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """A row of the history. An addition is of the records with the keys *first_key* to *key*.

    Attributes:
        number: of the change.
        id: the record's id, where the row has it.
        at: microseconds since the epoch.
        undoes: the number of the change that this one undid.
        old: the values before the change; None where the record could not be read then, and for additions.
        vector: the vector before the change, if that was changed.
    """

    number: int
    kind: RecordKind
    namespace_pk: int
    first_key: int
    key: int
    id: str | None
    change_kind: ChangeKind
    at: int
    actor: str | None
    reason: str | None
    undoes: int | None
    old: Mapping[str, Any] | None
    vector: bytes | None
    checksum: int | None

    @property
    def creates(self) -> bool:
        """Whether the record did not exist before this change."""
        return self.change_kind in ("added", "restored")

    def old_values(self) -> Mapping[str, Any]:
        """`old`. Raises `DamagedError` where it is None."""
        if self.old is None:
            raise DamagedError(
                f"The {self.kind} {self.id or self.key!r} could not be read when change {self.number} was made, so its "
                "earlier versions are unknown. Ask for a later time."
            )
        return self.old

    def tag_changes(self) -> tuple[frozenset[str], frozenset[str]]:
        """The tags that this change added, and those it removed."""
        added, removed = self.old_values().get("tags", ((), ()))
        return frozenset(added), frozenset(removed)

    def member_changes(self) -> tuple[dict[int, str], dict[int, str]]:
        """The members that this change added to an assembly, and those it removed: ids by key."""
        if self.change_kind in DELETIONS:
            return {}, self.partners("members")
        added, removed = self.old_values().get("members", ((), ()))
        return _ids_by_key(added), _ids_by_key(removed)

    def partners(self, name: str) -> dict[int, str]:
        """Keys and ids that a deletion stored under *name*: `members` or `assemblies`."""
        return _ids_by_key(self.old_values().get(name, []))


class DamagedEntry(NamedTuple):
    """A row of the history that cannot be read: its number, what stands for its time, and why."""

    number: int
    at: object
    error: DamagedError


class Addition(NamedTuple):
    """A change that added records: its number, and the first and the last of their keys."""

    number: int
    first_key: int
    last_key: int


def first_after(connection: Connection, at: int) -> int:
    """The number of the first change after the time *at*; one more than the last where there is none.

    Where the clock was ahead or behind, changes are in the order of their commits, between those of a right clock.

    Raises:
        HistoryError: the history is not complete since then.
    """
    settings = check_complete(connection, at)
    number = history_times.first_after(connection, at, to_micros(now()), settings.breaks)
    return last_number(connection) + 1 if number is None else number


def check_complete(connection: Connection, at: int) -> RetentionSettings:
    """The settings of the file. Raises `HistoryError` where the history is not complete since the time *at*."""
    settings = history_retention.read(connection)
    since = settings.since
    if since is None or (at < since <= to_micros(now()) + _DAY):  # a later begin is that of a clock that was ahead
        raise HistoryError.before(None if since is None else decode_time(since))
    return settings


def last_number(connection: Connection) -> int:
    """The number of the last change; 0 where there is none."""
    span = history_times.bounds(connection)
    return 0 if span is None else span.last


def decode_time(micros: object) -> datetime:
    """A stored time as a datetime. Raises `DamagedError`."""
    with expect_stored("journal.at"):
        return from_micros(_integer(micros))


def readable_time(micros: object) -> datetime | None:
    """A stored time as a datetime; None where it is none."""
    try:
        return decode_time(micros)
    except DamagedError:
        return None


def read_entry(connection: Connection, number: int) -> HistoryEntry | None:
    """One change; None where the history does not have it."""
    with translated():
        row = _ENTRY.run(connection, pk=number).fetchone()
        return None if row is None else _entry_of(row)


def entries_of(
    connection: Connection, record_type: RecordType, keys: Sequence[int], number: int = 0
) -> Iterator[HistoryEntry]:
    """The changes of the records *keys* from *number* on, the latest first; without additions. Raises `DamagedError`.

    A change whose values are damaged raises when they are read.
    """
    for entry in rows_of(connection, record_type, keys, number):
        if isinstance(entry, DamagedEntry):
            raise entry.error
        yield entry


def rows_of(
    connection: Connection, record_type: RecordType, keys: Sequence[int], number: int = 0
) -> Iterator["HistoryEntry | DamagedEntry"]:
    """As `entries_of`, with rows that cannot be read as `DamagedEntry`."""
    with translated():
        for row in _ENTRIES.run(connection, kind=record_type.kind, keys=keys_json(keys), number=number):
            yield read_row(row)


def read_row(row: Sequence[Any]) -> "HistoryEntry | DamagedEntry":
    """The entry in a row of the table."""
    try:
        return _entry_of(row)
    except DamagedError as error:
        return DamagedEntry(row[0], row[7], error)


def newest_changes(
    connection: Connection, record_type: RecordType, keys: Iterable[int], before: int | None
) -> dict[int, int]:
    """The number of the last change of each of the records *keys*, of those below *before*; by key."""
    ordered = sorted(keys)
    limit = LAST_NUMBER if before is None else before
    newest = dict(_NEWEST.of_keys(connection, ordered, kind=record_type.kind, before=limit))
    for key in ordered:
        if key not in newest:
            addition = addition_of(connection, record_type, key)
            if addition is not None and addition.number < limit:
                newest[key] = addition.number
    return newest


def addition_of(connection: Connection, record_type: RecordType, key: int) -> Addition | None:
    """The change that added a record; None where the history does not have it."""
    row = _ADDITION.run(connection, kind=record_type.kind, key=key).fetchone()
    if row is None:
        return None
    addition = Addition(*map(_integer, row))
    return addition if addition.first_key <= key else None


def added_since(connection: Connection, record_type: RecordType, keys: Iterable[int], number: int) -> set[int]:
    """Those of *keys* whose records were added by change *number* or a later one."""
    added: set[int] = set()
    addition: Addition | None = None
    for key in sorted(keys):
        if addition is None or not addition.first_key <= key <= addition.last_key:
            addition = addition_of(connection, record_type, key)
        if addition is not None and addition.number >= number:
            added.add(key)
    return added


def keys_of_id(connection: Connection, record_type: RecordType, namespace_pk: int, id: str) -> set[int]:
    """Keys of the deleted records that had an id, as far as the history has them."""
    return set(map(_integer, _KEYS_OF_ID.column(connection, namespace=namespace_pk, kind=record_type.kind, id=id)))


def deletions(
    connection: Connection, record_type: RecordType, namespace_pks: Sequence[int]
) -> list[tuple[int, int, str]]:
    """Number, key and id of the last deletion of every record that was deleted from one of the namespaces."""
    return _DELETIONS.run(connection, kind=record_type.kind, keys=keys_json(namespace_pks)).fetchall()


def changed_keys(connection: Connection, record_type: RecordType, number: int, upto: int) -> Iterator[tuple[int, int]]:
    """Keys of namespace and record of every change from *number* to *upto*; without additions."""
    for rows in _CHANGED.fetch(connection, _FETCH, kind=record_type.kind, number=number, upto=upto):
        yield from ((_integer(namespace_pk), _integer(key)) for namespace_pk, key in rows)


def versions_before(
    connection: Connection, record_type: RecordType, keys: Sequence[int], number: int
) -> dict[int, RowVersion]:
    """The records of *keys* as they were before change *number*, by key; one that did not exist is left out."""
    versions: dict[int, RowVersion] = {}
    for chunk in chunks(keys):
        current: dict[int, RowVersion | None] = dict(history_writer.current_versions(connection, record_type, chunk))
        for entry in entries_of(connection, record_type, chunk, number):
            current[entry.key] = version_before(entry, current.get(entry.key))
        for key in added_since(connection, record_type, chunk, number):
            current[key] = None
        versions |= {key: version for key, version in current.items() if version is not None}
    return versions


def version_before(entry: HistoryEntry, after: RowVersion | None) -> RowVersion | None:
    """The version of a record before a change, from the version after it; None where it did not exist."""
    if entry.creates:
        return None
    old = entry.old_values()
    with expect_stored(f"journal.old of row {entry.number}"):
        if entry.change_kind in DELETIONS:
            if entry.change_kind == "expired" and not old:
                return None
            columns = {name: old[name] for name in COLUMNS[entry.kind] if name in old}
            tags = frozenset(cast("Any", old.get("tags")))
            return RowVersion(entry.key, entry.namespace_pk, columns, tags, entry.vector, entry.checksum)
        if after is None:
            raise DamagedError(
                f"Change {entry.number} is of a {entry.kind} that does not exist, and the history has no deletion of "
                "it. Raw SQL may have deleted it; its earlier versions are unknown."
            )
        added, removed = entry.tag_changes()
        columns = {**after.columns, **{name: old[name] for name in old if name in after.columns}}
        before = replace(after, columns=columns, tags=(after.tags - added) | removed)
        return replace(before, vector=entry.vector, checksum=entry.checksum) if "embedding" in old else before


def members_before(connection: Connection, key: int, number: int) -> set[int]:
    """Keys of the members that an assembly had before change *number*."""
    members = set(memberships.members(connection, key).tolist())
    for entry in entries_of(connection, ASSEMBLY, [key], number):
        if entry.creates:
            members = set()
            continue
        added, removed = entry.member_changes()
        members = (members - added.keys()) | removed.keys()
    return members


def memory_ids(connection: Connection, keys: Iterable[int]) -> dict[int, str]:
    """Ids by key of memories, in order of their keys; of deleted ones as far as the history has them."""
    ordered = sorted(keys)
    ids = record_keys.ids(connection, MEMORY, ordered)
    deleted = [key for key in ordered if key not in ids]
    for entry in entries_of(connection, MEMORY, deleted):
        if entry.id is not None:
            ids.setdefault(entry.key, entry.id)
    return {key: ids[key] for key in ordered if key in ids}


def _entry_of(row: Sequence[Any]) -> HistoryEntry:
    number, kind, namespace_pk, first, key, id, change_kind, at, actor, reason, undoes, text, vector, checksum = row
    with expect_stored("journal"):
        old = None if text is None else json.loads(text)
        texts_valid = all(value is None or isinstance(value, str) for value in (id, actor, reason))
        numbers_valid = all(type(value) is int for value in (number, namespace_pk, first, key, at))
        optional_valid = isinstance(undoes, int | None) and isinstance(checksum, int | None)
        old_valid = isinstance(old, dict | None) and isinstance(vector, bytes | None)
        if not (texts_valid and numbers_valid and optional_valid and old_valid) or change_kind not in _CHANGE_KINDS:
            raise corrupt_value("journal", "a row that memstore wrote", row[:10])
        return HistoryEntry(
            number, kind, namespace_pk, first, key, id, change_kind, at, actor, reason, undoes, old, vector, checksum
        )


def _ids_by_key(pairs: object) -> dict[int, str]:
    with expect_stored("journal.old, members"):
        ids = dict(cast("Any", pairs))
        if not all(type(key) is int and isinstance(id, str) for key, id in ids.items()):
            raise corrupt_value("journal.old, members", "pairs of key and id", pairs)
        return ids


def _integer(value: object) -> int:
    if type(value) is not int:
        raise corrupt_value("journal", "int", value)
    return value

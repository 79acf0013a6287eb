"""The change history: what was changed, when, by whom, and the values before, written in the same transaction.

* Records that one write added share one row, whatever their number. New values are not stored: they are in the
  record itself, or in the next change of it.
* A change stores the fields it changed, and the tags and members it added and removed; a deletion stores the whole
  record. A replaced vector is stored once, with the change that replaced it.
* Numbers are in the order of the commits. All rows of a transaction share one time, that of the clock; where the clock
  was set back, `history_times` knows.
* A record that cannot be read can still be changed and deleted; `old` is NULL then.
* Of a memory that expired nothing is kept but its id, the time, and when it was added: its earlier changes are deleted.
* A file with history `off` gets no rows, and nothing is read for them.
"""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from sqlalchemy import Connection, LargeBinary, Select, bindparam, delete, insert, select, text, type_coerce, update
from sqlalchemy.types import NullType

from memstore.concurrency import chunks
from memstore.database.driver_errors import translated
from memstore.errors import DamagedError
from memstore.models.history import ChangeKind
from memstore.models.records import Address, RecordKind
from memstore.repository import history_retention, memberships, record_keys, record_tags, records
from memstore.repository.context import WriteContext
from memstore.repository.corruption import expect_stored
from memstore.repository.key_lists import key_lists, keys_json, listed_keys
from memstore.repository.memberships import Partner
from memstore.repository.record_types import MEMORY, RECORD_TYPES, RecordType
from memstore.repository.statements import MultiRowInsert, Prepared, prepared_by_kind
from memstore.schema.tables import journal, memory_vector
from memstore.schema.types import is_same_document, json_text
from memstore.timestamps import EPOCH, to_micros

EXPIRED_AT_ONCE = 500
"""Expired memories that one write deletes at most: 15 ms. The store deletes the rest in the background."""

TRIM_AT_ONCE = 256
"""History rows that one write deletes at most of those older than is kept, or twice as many as it wrote."""

_WIDTH = 50  # rows an INSERT statement: their vectors are bound at once, with the GIL held
DERIVED = frozenset({"revision", "activation", "activated_at", "activation_count"})
"""Columns that no caller changes: they follow from other changes, or from use."""

_COLUMN_NAMES = tuple(column.name for column in journal.c if column.name != "pk")
COLUMNS = {record_type.kind: record_type.columns for record_type in RECORD_TYPES}
"""The columns of a record that a `RowVersion` has, as they are stored."""


def _read(t: RecordType) -> Select[Any]:
    columns = (type_coerce(t.table.c[name], NullType()) for name in t.columns)
    rows = select(t.table.c.pk, t.table.c.namespace_pk, *columns)
    return rows.where(t.table.c.pk.in_(listed_keys())).order_by(t.table.c.pk)


_INSERT = MultiRowInsert(
    lambda: insert(journal).values({name: bindparam(name, type_=NullType()) for name in _COLUMN_NAMES}), _WIDTH
)
_DELETE_CHANGES = Prepared(
    lambda: delete(journal).where(
        journal.c.pk.in_(
            select(journal.c.pk)
            .with_hint(journal, "INDEXED BY ix_journal_changed", "sqlite")
            .where(journal.c.kind == bindparam("kind"), text("what <> 'added'"), journal.c.last_pk.in_(listed_keys()))
        )
    )
)
_READ = prepared_by_kind(_read)
_NAMESPACES = prepared_by_kind(
    lambda t: select(t.table.c.pk, t.table.c.namespace_pk).where(t.table.c.pk.in_(listed_keys()))
)
_VECTORS = Prepared(
    lambda: select(
        memory_vector.c.memory_pk, type_coerce(memory_vector.c.vector, LargeBinary), memory_vector.c.checksum
    ).where(memory_vector.c.memory_pk.in_(listed_keys()))
)
_UPDATED_AT = prepared_by_kind(
    lambda t: select(t.table.c.pk, t.table.c.namespace_pk, type_coerce(t.table.c.updated_at, NullType())).where(
        t.table.c.pk.in_(listed_keys())
    )
)


_SET_UPDATED_AT = prepared_by_kind(
    lambda t: (
        update(t.table).where(t.table.c.pk == bindparam("row")).values(updated_at=bindparam("time", type_=NullType()))
    )
)


@dataclass(frozen=True, slots=True)
class RowVersion:
    """A record's row as stored, its tags and its vector."""

    pk: int
    namespace_pk: int
    columns: Mapping[str, Any]
    tags: frozenset[str]
    vector: bytes | None
    checksum: int | None


class ExpiryStep(NamedTuple):
    """How many expired memories a write deleted, and whether there may be more.

    Attributes:
        postponed: all of them, to the next write: by the time of this one, years have passed since the last.
    """

    deleted: int
    more: bool
    postponed: bool = False


class _HistoryRow(NamedTuple):
    kind: RecordKind
    namespace_pk: int
    key: int
    id: str | None
    change_kind: ChangeKind
    old: str | None
    vector: bytes | None = None
    checksum: int | None = None


def record_addition(
    context: WriteContext, record_type: RecordType, owners: int | Sequence[int], keys: Sequence[int]
) -> None:
    """Record that records were added, whose keys are *keys*: consecutive numbers.

    *owners* is the key of their namespace, or one for each.
    """
    if not keys or not context.keeps_history():
        return
    kind, at = record_type.kind, context.transaction.at
    values = (None, "added", at, *context.actor, None, None, None, None)
    if isinstance(owners, int):
        rows = [(kind, owners, keys[0], keys[-1], *values)]
    else:
        rows = [(kind, *run, *values) for run in _runs(owners, keys)]
    _INSERT.insert(context.connection, list(zip(*rows, strict=True)))
    context.transaction.row_count += len(rows)


def _runs(owners: Sequence[int], keys: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Each run of *keys* in one namespace: the key of the namespace, the first and the last key."""
    start = 0
    for end in range(1, len(keys) + 1):
        if end == len(keys) or owners[end] != owners[start]:
            yield owners[start], keys[start], keys[end - 1]
            start = end


def delete_records(
    context: WriteContext,
    record_type: RecordType,
    keys: Sequence[int],
    change_kind: ChangeKind = "deleted",
    undoes: int | None = None,
) -> None:
    """Delete records, and record them whole. The assemblies of memories get the time of the write, or of the expiry."""
    for part in key_lists(keys):  # the lost members of an assembly share a row for each part
        record_deletion(context, record_type, part, change_kind, undoes)
        if record_type is MEMORY and change_kind == "expired":
            memberships.end_expired(context.connection, part)
        elif record_type is MEMORY:
            memberships.stamp_assemblies(context.connection, part, context.now)
        records.delete_keys(context.connection, record_type, part)


def delete_expired(context: WriteContext, most: int = EXPIRED_AT_ONCE, *, by_request: bool = False) -> ExpiryStep:
    """Delete at most so many memories that have expired.

    Where that leaves some, every statement of the write must pass over them, as reads do: by the time of the write.
    A write that comes a year after the last one deletes none unless that is *by_request*: nothing brings them back, and
    one write under a clock that is ahead should not delete every memory with a time to live.
    """
    keys = records.expired(context.connection, context.now, most)
    if keys and not by_request and context.clock_leaps():
        return ExpiryStep(0, more=False, postponed=True)
    more = len(keys) == most
    if more:
        keys = _of_one_assembly(context, keys)
    if keys:
        delete_records(context, MEMORY, keys, "expired")
    return ExpiryStep(len(keys), more)


def _of_one_assembly(context: WriteContext, expired: Sequence[int]) -> list[int]:
    """As many *expired* memories: those that are in no assembly, and members of one.

    The composite of each assembly that loses members is computed again, so a step must not touch many of them.
    """
    owners = memberships.assemblies_of(context.connection, expired)
    keys = [key for key in expired if key not in owners]
    if owners:
        assembly = owners[next(key for key in expired if key in owners)][0]
        members = memberships.expired_members_of(context.connection, [assembly], context.now)
        keys += members[: len(expired) - len(keys)]
    return keys


def delete_expired_ids(context: WriteContext, addresses: Sequence[Address]) -> None:
    """Delete the expired memories at *addresses*, where `delete_expired` may have left some: frees the ids."""
    if context.has_expired_rows:
        every = records.keys_of_addresses(context.connection, MEMORY, addresses, EPOCH)
        live = records.keys_of_addresses(context.connection, MEMORY, addresses, context.now)
        delete_records(context, MEMORY, [key for address, key in every.items() if address not in live], "expired")


def record_deletion(
    context: WriteContext,
    record_type: RecordType,
    keys: Sequence[int],
    change_kind: ChangeKind = "deleted",
    undoes: int | None = None,
) -> None:
    """Record whole the records that are about to be deleted, and that their assemblies lose them."""
    if not context.keeps_history():
        return
    connection = context.connection
    if record_type is MEMORY:
        _record_membership_loss(context, keys)
    if change_kind == "expired":
        _record_expiry(context, record_type, keys)
        return
    partners_name = "assemblies" if record_type is MEMORY else "members"
    for chunk in chunks(keys):
        versions = readable_versions(connection, record_type, chunk)
        partners = memberships.partners(connection, record_type, chunk)
        rows = []
        for key, namespace_pk in _NAMESPACES[record_type.kind].run(connection, keys=keys_json(chunk)):
            version = versions.get(key)
            if version is None:
                rows.append(_HistoryRow(record_type.kind, namespace_pk, key, None, change_kind, None))
                continue
            old = _json({**version.columns, "tags": sorted(version.tags), partners_name: partners.get(key, [])})
            id = version.columns["id"] if isinstance(version.columns["id"], str) else None
            rows.append(
                _HistoryRow(record_type.kind, namespace_pk, key, id, change_kind, old, version.vector, version.checksum)
            )
        _insert(context, rows, undoes)


def _record_expiry(context: WriteContext, record_type: RecordType, keys: Sequence[int]) -> None:
    """Delete what the history has of the values of expired records; their ids and the time are kept."""
    connection, kind = context.connection, record_type.kind
    delete_changes(connection, record_type, keys)
    for chunk in chunks(keys):
        ids = record_keys.ids(connection, record_type, chunk)
        rows = [
            _HistoryRow(kind, namespace_pk, key, ids[key] if isinstance(ids.get(key), str) else None, "expired", "{}")
            for key, namespace_pk in _NAMESPACES[kind].run(connection, keys=keys_json(chunk))
        ]
        _insert(context, rows)


def delete_changes(connection: Connection, record_type: RecordType, keys: Sequence[int]) -> int:
    """Delete every change of the records *keys* but their additions, which hold no values; how many there were."""
    return sum(
        _DELETE_CHANGES.run(connection, kind=record_type.kind, keys=keys_json(part)).rowcount
        for part in key_lists(keys)
    )


def record_restoration(
    context: WriteContext, record_type: RecordType, keys: Sequence[int], undoes: int | None = None
) -> None:
    """Record that records exist again under the keys they had, with the memberships they have now.

    The assemblies of memories get the time of the write.
    """
    keeps_history = context.keeps_history()
    if record_type is MEMORY:
        if keeps_history:
            _record_membership_return(context, keys)
        memberships.stamp_assemblies(context.connection, keys, context.now)
    if not keeps_history:
        return
    for chunk in chunks(keys):
        versions = readable_versions(context.connection, record_type, chunk).values()
        rows = [
            _HistoryRow(record_type.kind, version.namespace_pk, version.pk, version.columns["id"], "restored", None)
            for version in versions
        ]
        _insert(context, rows, undoes)


class MembershipChanges:
    """The members that a recorded update adds to assemblies and removes from them, by the assembly's key."""

    def __init__(self) -> None:
        self.added: dict[int, set[int]] = {}
        self.removed: dict[int, set[int]] = {}

    def note(self, key: int, added: AbstractSet[int], removed: AbstractSet[int] = frozenset()) -> None:
        """Note the keys of memories that were added to the assembly *key*, and of those that were removed."""
        self.added.setdefault(key, set()).update(added - removed)
        self.removed.setdefault(key, set()).update(removed - added)


@contextmanager
def record_update(
    context: WriteContext, record_type: RecordType, keys: Sequence[int], undoes: int | None = None
) -> Iterator[MembershipChanges]:
    """Record what the block changes in a few records: compares their rows before and after it.

    Rows do not show memberships, so the block notes those in the `MembershipChanges` it receives. A record in which
    nothing changed but `updated_at`, to the time of the write, gets no row and its earlier `updated_at`, also without a
    history: a change that leaves everything as it was is none.
    """
    members = MembershipChanges()
    connection = context.connection
    before = readable_versions(connection, record_type, keys)
    yield members
    after = readable_versions(connection, record_type, keys)
    rows = []
    for key, namespace_pk in _NAMESPACES[record_type.kind].run(connection, keys=keys_json(keys)).fetchall():
        version, new = before.get(key), after.get(key)
        if version is None or new is None:
            rows.append(_HistoryRow(record_type.kind, namespace_pk, key, None, "updated", None))
            continue
        old = _difference(version, new.columns, new.tags, new.vector)
        changed_members = [members.added.get(key, set()), members.removed.get(key, set())]
        if any(changed_members):
            old["members"] = [_pairs(connection, member_keys) for member_keys in changed_members]
        if old.keys() == {"updated_at"} and new.columns["updated_at"] == to_micros(context.now):
            _SET_UPDATED_AT[record_type.kind].run(connection, row=key, time=old["updated_at"])
        elif old:
            rows.append(_updated(record_type, version, old))
    if context.keeps_history():
        _insert(context, rows, undoes)


def record_replacement(
    context: WriteContext,
    keys: Sequence[int],
    columns: Mapping[str, Sequence[Any]],
    tags: Sequence[AbstractSet[str]],
    vectors: Sequence[bytes | None],
) -> None:
    """Record memories before they get these columns, tags and vectors, all in the order of *keys*."""
    if not context.keeps_history():
        return
    connection = context.connection
    for indices in chunks(range(len(keys))):
        chunk = [keys[i] for i in indices]
        versions = readable_versions(connection, MEMORY, chunk)
        namespace_pks = dict(_NAMESPACES["memory"].run(connection, keys=keys_json(chunk)).fetchall())
        rows = []
        for i in indices:
            version = versions.get(keys[i])
            if version is None:
                rows.append(_HistoryRow("memory", namespace_pks.get(keys[i], 0), keys[i], None, "updated", None))
                continue
            new = {name: column[i] for name, column in columns.items()}
            old = _difference(version, new, tags[i], vectors[i])
            if old:
                rows.append(_updated(MEMORY, version, old))
        _insert(context, rows)


def record_tag_change(
    context: WriteContext, record_type: RecordType, keys: Sequence[int], old: str, new: str | None
) -> None:
    """Record that the tag *old*, which all of the records have, is about to be replaced by *new*, or removed."""
    if not context.keeps_history():
        return
    connection = context.connection
    for chunk in chunks(keys):
        key_list = keys_json(chunk)
        tags = record_tags.tags_of(connection, record_type, key_list)
        rows = []
        for key, namespace_pk, updated_at in _UPDATED_AT[record_type.kind].run(connection, keys=key_list):
            added = [] if new is None or new in tags.get(key, ()) else [new]
            before = _json({"updated_at": updated_at, "tags": [added, [old]]})
            rows.append(_HistoryRow(record_type.kind, namespace_pk, key, None, "updated", before))
        _insert(context, rows)


def record_stamp(context: WriteContext, record_type: RecordType, keys: Sequence[int]) -> None:
    """Record that `updated_at` of records is about to change, and nothing else that the history keeps."""
    if not context.keeps_history():
        return
    for chunk in chunks(keys):
        rows = [
            _HistoryRow(record_type.kind, namespace_pk, key, None, "updated", _json({"updated_at": updated_at}))
            for key, namespace_pk, updated_at in _UPDATED_AT[record_type.kind].run(
                context.connection, keys=keys_json(chunk)
            )
        ]
        _insert(context, rows)


def trim(context: WriteContext) -> None:
    """Delete a part of the rows that are older than is kept, if this transaction wrote any."""
    transaction = context.transaction
    if transaction.row_count and transaction.trim_before is not None and transaction.retention is not None:
        most = max(TRIM_AT_ONCE, 2 * transaction.row_count)
        history_retention.trim_before(context.connection, transaction.retention, transaction.trim_before, most)


def readable_versions(connection: Connection, record_type: RecordType, keys: Sequence[int]) -> dict[int, RowVersion]:
    """The records of *keys*, by key; one that does not exist or cannot be read is left out."""
    try:
        return current_versions(connection, record_type, keys)
    except DamagedError:
        if len(keys) == 1:
            return {}
        return {
            pk: version for key in keys for pk, version in readable_versions(connection, record_type, [key]).items()
        }


def current_versions(connection: Connection, record_type: RecordType, keys: Sequence[int]) -> dict[int, RowVersion]:
    """The records of *keys* as they are, by key; one that does not exist is left out. Raises `DamagedError`."""
    names, versions = COLUMNS[record_type.kind], {}
    for chunk in chunks(keys):
        key_list = keys_json(chunk)
        with translated(), expect_stored(record_type.kind):
            tags = record_tags.tags_of(connection, record_type, key_list)
            vectors = (
                {key: (vector, checksum) for key, vector, checksum in _VECTORS.run(connection, keys=key_list)}
                if record_type is MEMORY
                else {}
            )
            for pk, namespace_pk, *values in _READ[record_type.kind].run(connection, keys=key_list):
                columns = dict(zip(names, values, strict=True))
                vector, checksum = vectors.get(pk, (None, None))
                versions[pk] = RowVersion(pk, namespace_pk, columns, frozenset(tags.get(pk, ())), vector, checksum)
    return versions


def _difference(
    version: RowVersion, columns: Mapping[str, Any], tags: AbstractSet[str], vector: bytes | None
) -> dict[str, Any]:
    """The changed values of a record that is about to get these columns, tags and this vector, as `old` stores them."""
    before = version.columns
    old = {name: before[name] for name, value in columns.items() if name not in DERIVED and before[name] != value}
    if "metadata" in old and is_same_document(old["metadata"], columns["metadata"]):
        del old["metadata"]
    if version.tags != tags:
        old["tags"] = [sorted(tags - version.tags), sorted(version.tags - tags)]
    if version.vector != vector:
        old["embedding"] = True
    return old


def _updated(record_type: RecordType, version: RowVersion, old: Mapping[str, Any]) -> _HistoryRow:
    vector, checksum = (version.vector, version.checksum) if "embedding" in old else (None, None)
    return _HistoryRow(
        record_type.kind, version.namespace_pk, version.pk, None, "updated", _json(old), vector, checksum
    )


def _json(old: Mapping[str, Any]) -> str | None:
    """*old* as it is stored; None where a column holds a value that no verb stores."""
    try:
        return json_text(cast("Any", old))
    except (TypeError, ValueError, RecursionError):
        return None


def _pairs(connection: Connection, keys: AbstractSet[int]) -> list[Partner]:
    return sorted(record_keys.ids(connection, MEMORY, sorted(keys)).items())


def _record_membership_loss(context: WriteContext, keys: Sequence[int]) -> None:
    """Record that the assemblies of the memories *keys* lose them."""
    _record_members(context, {owner: [[], pairs] for owner, pairs in _memberships(context, keys).items()})


def _record_membership_return(context: WriteContext, keys: Sequence[int]) -> None:
    """Record that the assemblies of the memories *keys* have them again."""
    _record_members(context, {owner: [pairs, []] for owner, pairs in _memberships(context, keys).items()})


def _memberships(context: WriteContext, keys: Sequence[int]) -> dict[tuple[int, int], list[Partner]]:
    """The memories *keys* by assembly: by the keys of its namespace and of itself."""
    members: dict[tuple[int, int], list[Partner]] = {}
    for chunk in chunks(keys):
        ids = record_keys.ids(context.connection, MEMORY, chunk)
        for row in memberships.rows(context.connection, MEMORY, chunk):
            members.setdefault((row.partner_namespace, row.partner), []).append((row.key, ids[row.key]))
    return members


def _record_members(context: WriteContext, changes: Mapping[tuple[int, int], list[list[Partner]]]) -> None:
    """Record members that assemblies, named by the keys of namespace and assembly, gain and lose, with their time."""
    stamps = _UPDATED_AT["assembly"].of_keys(context.connection, [key for _, key in changes])
    times = {key: updated_at for key, _, updated_at in stamps}
    rows = [
        _HistoryRow(
            "assembly", namespace_pk, key, None, "updated", _json({"members": members, "updated_at": times.get(key)})
        )
        for (namespace_pk, key), members in changes.items()
    ]
    _insert(context, rows)


def _insert(context: WriteContext, rows: Sequence[_HistoryRow], undoes: int | None = None) -> None:
    if not rows:
        return
    count = len(rows)
    kinds, namespace_pks, keys, ids, change_kinds, old, vectors, checksums = zip(*rows, strict=True)
    shared = [[value] * count for value in (context.transaction.at, *context.actor, undoes)]
    _INSERT.insert(
        context.connection, [kinds, namespace_pks, keys, keys, ids, change_kinds, *shared, old, vectors, checksums]
    )
    context.transaction.row_count += count

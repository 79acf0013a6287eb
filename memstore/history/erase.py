"""Erasing records, live or not: which records a call means, and their removal with every trace.

Ids and filters also reach records that are in the trash, that a merge archived, or that only the history has. A
filter is compared with a live record as it is, with an archived or deleted one as it was at the end.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from memstore import filters
from memstore.concurrency import chunks, yield_gil
from memstore.errors import DamagedError
from memstore.history.as_of import FormerRecords
from memstore.models.records import Namespace
from memstore.models.reports import EraseReport
from memstore.repository import (
    erasure,
    history_reader,
    merges,
    namespaces,
    record_keys,
    records,
    selection,
    tombstones,
)
from memstore.repository.context import WriteContext
from memstore.repository.record_types import ASSEMBLY, RecordType
from memstore.repository.selection import Selection
from memstore.timestamps import EPOCH

Ids = dict[int, str]
"""Ids of records by key."""


def erase_ids(context: WriteContext, record_type: RecordType, namespace: Namespace, ids: Sequence[str]) -> EraseReport:
    """Erase every record of *namespace* that has or had one of *ids*."""
    connection = context.connection
    namespace_pk = namespaces.key(connection, namespace)
    if namespace_pk is None:
        return EraseReport(missing=tuple(ids))
    erased: Ids = {key: id for id, key in records.keys_of(connection, record_type, namespace, ids, EPOCH).items()}
    for id in ids:
        keys = tombstones.keys_of_id(connection, record_type, namespace_pk, id)
        keys |= history_reader.keys_of_id(connection, record_type, namespace_pk, id)
        if record_type is ASSEMBLY:
            keys |= merges.keys_of_id(connection, namespace_pk, id)
        erased |= dict.fromkeys(keys, id)
    missing = sorted(set(ids) - set(erased.values()))
    return _report(context, record_type, erased, [namespace_pk], missing=tuple(missing))


def erase_matching(context: WriteContext, matching: Selection) -> EraseReport:
    """Erase the records that *matching* selects, and the archived and deleted ones that match its filter."""
    connection, record_type = context.connection, matching.record_type
    namespace_pks = namespaces.keys_at(connection, matching.namespace, recursive=matching.recursive)
    keys = selection.selected(connection, matching)
    erased: Ids = record_keys.ids(connection, record_type, keys)
    unreadable: Ids = {}
    _match_archived(context, matching, erased, unreadable)
    _match_deleted(context, matching, namespace_pks, erased, unreadable)
    left_out = tuple(sorted({id for key, id in unreadable.items() if key not in erased}))
    return _report(context, record_type, erased, namespace_pks, unreadable=left_out)


def _match_archived(context: WriteContext, matching: Selection, erased: Ids, unreadable: Ids) -> None:
    """Add the archived records that match to *erased*, those that cannot be read to *unreadable*."""
    connection, record_type = context.connection, matching.record_type
    space = context.spaces[record_type.kind]

    def read(pks: Sequence[int]) -> Ids:
        rows = tombstones.read(connection, record_type, pks)
        return {row.record_pk: row.id for row in rows if _matches(matching, tombstones.to_record(row, space))}

    archived = tombstones.within(connection, record_type, matching.namespace, recursive=matching.recursive)
    _read_each([(pk, key, id) for pk, key, id in archived if key not in erased], read, erased, unreadable)


def _match_deleted(
    context: WriteContext, matching: Selection, namespace_pks: Sequence[int], erased: Ids, unreadable: Ids
) -> None:
    """Add the records that only the history has and that matched at their deletion to *erased*."""
    connection, record_type = context.connection, matching.record_type
    former = FormerRecords(connection, context.spaces, record_type)

    def read(numbers: Sequence[int]) -> Ids:
        ids: Ids = {}
        for number in numbers:
            entry = history_reader.read_entry(connection, number)
            version = None if entry is None else history_reader.version_before(entry, None)
            if version is not None:
                for key, record in former.decode({version.pk: version}, number, EPOCH).items():
                    if _matches(matching, record):
                        ids[key] = record.id
        return ids

    deletions = history_reader.deletions(connection, record_type, namespace_pks)
    existing = set(record_keys.existing(connection, record_type, [key for _, key, _ in deletions]))
    _read_each([row for row in deletions if row[1] not in existing | erased.keys()], read, erased, unreadable)


def _matches(matching: Selection, record: object) -> bool:
    """Whether a record that is no row any more matches the filter of *matching*."""
    return matching.where is None or filters.matches(matching.where, record)  # type: ignore[arg-type]


def _read_each(
    rows: Sequence[tuple[int, int, str]], read: Callable[[Sequence[int]], Ids], erased: Ids, unreadable: Ids
) -> None:
    """Call *read* for the numbers of *rows*, which are number, key and id; damage to one hides no other."""
    for chunk in chunks(rows):
        try:
            erased |= read([number for number, _, _ in chunk])
        except DamagedError:
            for number, key, id in chunk:
                try:
                    erased |= read([number])
                except DamagedError:
                    unreadable[key] = id
        yield_gil()


def _report(
    context: WriteContext,
    record_type: RecordType,
    erased: Ids,
    namespace_pks: Iterable[int],
    *,
    missing: tuple[str, ...] = (),
    unreadable: tuple[str, ...] = (),
) -> EraseReport:
    report = erasure.erase(context, record_type, erased, list(namespace_pks))
    ids = tuple(sorted(set(erased.values())))
    return replace(report, ids=ids, missing=missing, unreadable=unreadable)

"""Erasure: records are deleted with every trace of them in other tables, in the transaction of the caller.

An erased record is in no table: not as a row, an archived record, a change of the history or a part of a merge. A
record at the other end of one of its memberships stays, without that membership. Composites are computed from the
remaining members at the end of every write; history rows hold none.

An erased assembly takes the assemblies with it that were merged into it and are archived for that merge only.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from sqlalchemy import Connection, delete, exists, or_, select

from memstore.actor import Actor
from memstore.models.reports import EraseReport
from memstore.repository import (
    history_erasure,
    history_writer,
    memberships,
    merges,
    record_keys,
    records,
    tombstones,
)
from memstore.repository.context import WriteContext
from memstore.repository.key_lists import keys_json, listed_keys
from memstore.repository.record_types import ASSEMBLY, MEMORY, RECORD_TYPES, RecordType
from memstore.repository.sqlite_only import statistics
from memstore.repository.statements import Prepared, prepared_by_kind
from memstore.schema.tables import namespace, tag

_DELETE_UNUSED_TAGS = Prepared(
    lambda: delete(tag).where(
        tag.c.namespace_pk.in_(listed_keys()),
        ~or_(*(exists().where(t.tags.c.tag_pk == tag.c.pk) for t in RECORD_TYPES)),
    )
)
_DELETE_TAGS = Prepared(lambda: delete(tag).where(tag.c.namespace_pk.in_(listed_keys())))
_DELETE_NAMESPACES = Prepared(lambda: delete(namespace).where(namespace.c.pk.in_(listed_keys())))
_KEYS_OF_NAMESPACES = prepared_by_kind(
    lambda t: select(t.table.c.pk).where(t.table.c.namespace_pk.in_(listed_keys())).order_by(t.table.c.pk)
)


def erase(
    context: WriteContext, record_type: RecordType, keys: Iterable[int], namespace_pks: Sequence[int]
) -> EraseReport:
    """Erase the records *keys*, live, archived or deleted before, which are all of the namespaces *namespace_pks*.

    The report has the numbers of rows only.
    """
    connection, is_assembly = context.connection, record_type is ASSEMBLY
    erased = sorted(_with_sources(connection, keys) if is_assembly else set(keys))
    existing = record_keys.existing(connection, record_type, erased)
    if is_assembly:
        records.delete_keys(connection, record_type, existing)
    else:
        _delete_members(context, existing)
    archived = tombstones.erase(connection, record_type, erased)
    merge_count = merges.erase(connection, erased) if is_assembly else 0
    changes = history_erasure.erase(connection, record_type, erased)
    tags = _DELETE_UNUSED_TAGS.run(connection, keys=keys_json(namespace_pks)).rowcount
    statistics.drop_samples(connection)
    return EraseReport(
        memories=0 if is_assembly else len(existing),
        assemblies=len(existing) if is_assembly else 0,
        archived=archived,
        changes=changes,
        merges=merge_count,
        tags=tags,
    )


def _delete_members(context: WriteContext, memories: Sequence[int]) -> None:
    """Delete memories; the history of their assemblies gets the time of that, and neither ids nor an actor."""
    owners = {key for keys in memberships.assemblies_of(context.connection, memories).values() for key in keys}
    history_writer.record_stamp(replace(context, actor=Actor()), ASSEMBLY, sorted(owners))
    memberships.stamp_assemblies(context.connection, memories, context.now)
    records.delete_keys(context.connection, MEMORY, memories)


def _with_sources(connection: Connection, keys: Iterable[int]) -> set[int]:
    """The assemblies *keys*, and those that were merged into one of them and are archived for it."""
    erased: set[int] = set()
    frontier = set(keys)
    while frontier:
        erased |= frontier
        sources = {source for stored in merges.into(connection, sorted(frontier)) for source in stored.sources}
        frontier = set(tombstones.archived_keys(connection, ASSEMBLY, sorted(sources - erased), "merged"))
    return erased


def erase_namespaces(connection: Connection, namespace_pks: Sequence[int]) -> EraseReport:
    """Erase everything in the namespaces *namespace_pks*, and the namespaces themselves. Reads the whole history.

    The report has the numbers of rows only.
    """
    key_list = keys_json(namespace_pks)
    counts = []
    for record_type in RECORD_TYPES:
        keys = _KEYS_OF_NAMESPACES[record_type.kind].column(connection, keys=key_list)
        records.delete_keys(connection, record_type, keys)
        counts.append(len(keys))
    archived = tombstones.erase_namespaces(connection, namespace_pks)
    merge_count = merges.erase_namespaces(connection, namespace_pks)
    changes = history_erasure.erase_namespaces(connection, namespace_pks)
    tags = _DELETE_TAGS.run(connection, keys=key_list).rowcount
    _DELETE_NAMESPACES.run(connection, keys=key_list)
    statistics.drop_samples(connection)
    return EraseReport(
        memories=counts[0],
        assemblies=counts[1],
        archived=archived,
        changes=changes,
        merges=merge_count,
        tags=tags,
    )

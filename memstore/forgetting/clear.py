"""Deleting everything of a namespace, its trash included."""

from memstore.models.records import Namespace
from memstore.repository import history_writer, selection, tombstones
from memstore.repository.context import WriteContext
from memstore.repository.record_types import RECORD_TYPES
from memstore.repository.selection import Selection


def clear(context: WriteContext, namespace: Namespace, *, recursive: bool) -> int:
    """Delete every memory and assembly of *namespace*, and all archived records; how many, without the archived."""
    count = 0
    for record_type in RECORD_TYPES:
        every = Selection(record_type=record_type, namespace=namespace, now=context.now, recursive=recursive)
        keys = selection.selected(context.connection, every)
        history_writer.delete_records(context, record_type, keys)
        count += len(keys)
    for cause in tombstones.CAUSES:
        tombstones.purge(context.connection, None, cause, namespace, recursive=recursive)
    return count

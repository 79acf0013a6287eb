"""The trash: its pages, recovery of forgotten records, and their final deletion."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection

from memstore.concurrency import chunks
from memstore.errors import InvalidError, NotFoundError
from memstore.forgetting import planner
from memstore.models.forgetting import TrashEntry
from memstore.models.records import Namespace
from memstore.repository import erasure, namespaces, tombstones
from memstore.repository.context import WriteContext
from memstore.repository.record_types import ASSEMBLY, RecordType
from memstore.repository.vectors import VectorSpace
from memstore.sync import composites
from memstore.timestamps import from_micros, to_micros


def page(
    connection: Connection,
    record_type: RecordType,
    space: VectorSpace | None,
    namespace: Namespace,
    before: int | None,
    limit: int,
) -> tuple[list[TrashEntry[Any]], int | None]:
    """The next *limit* entries of the trash of *namespace*, latest first, and the end of the page.

    *space* is that of the records' vectors, None to leave them out. *before* is the end of the previous page, None for
    the first page. The end is None if there are no more entries.
    """
    rows = tombstones.page(connection, record_type, namespace, "forgotten", before, limit)
    entries = [
        TrashEntry(record=tombstones.to_record(row, space), at=row.at, actor=row.actor, reason=row.reason)
        for row in rows
    ]
    return entries, rows[-1].pk if len(rows) == limit else None


def recover(context: WriteContext, record_type: RecordType, namespace: Namespace, ids: Sequence[str]) -> list[int]:
    """Move the records *ids* from the trash back into their tables; their keys, in the order of *ids*.

    Raises:
        NotFoundError: the trash of *namespace* does not contain one of them.
        DuplicateError: another record has one of the ids.
        InvalidError: one of them has expired.
    """
    connection = context.connection
    tombstone_keys = tombstones.find(connection, record_type, namespace, ids, "forgotten")
    for id in ids:
        if id not in tombstone_keys:
            raise NotFoundError(record_type.kind, id, namespace, trash=True)
    ordered = [tombstone_keys[id] for id in ids]
    for chunk in chunks(ordered):
        for row in tombstones.read(connection, record_type, chunk):
            expires_at = row.record.get("expires_at")
            if expires_at is not None and expires_at <= to_micros(context.now):
                raise InvalidError(
                    f"Memory {row.id!r} expired in the trash at {from_micros(expires_at)}, so it cannot be recovered. "
                    "Read its record from trash(), and add it again with another expires_at."
                )
    keys = tombstones.restore(context, record_type, ordered)
    if record_type is ASSEMBLY:  # the caller reads the records before the end of the write recomputes composites
        composites.recompute(context, keys)
    return keys


def purge(
    context: WriteContext, record_type: RecordType, namespace: Namespace, older_than: timedelta, *, recursive: bool
) -> int:
    """Erase what has been in the trash for longer than *older_than*, or all of it where that is 0; how many."""
    connection = context.connection
    before = planner.ago(context.now, older_than) if older_than else None
    keys = tombstones.forgotten_before(connection, record_type, namespace, before, context.now, recursive=recursive)
    if keys:
        namespace_pks = namespaces.keys_at(connection, namespace, recursive=recursive)
        erasure.erase(context, record_type, keys, namespace_pks)
    return len(keys)

"""The trash: its pages, and the way back into the live tables."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from memstore.concurrency import chunks
from memstore.errors import InvalidError, NotFoundError
from memstore.models.forgetting import TrashEntry
from memstore.models.records import Namespace, RecordKind
from memstore.repository import history_writer, recalled, tombstones
from memstore.repository.record_types import ASSEMBLY, RecordType
from memstore.repository.vectors import VectorSpace
from memstore.sync import composites
from memstore.timestamps import from_micros, now, to_micros


def page(
    connection: Connection, noun: RecordType, space: VectorSpace, namespace: Namespace, before: int | None, limit: int
) -> tuple[list[TrashEntry[Any]], int | None]:
    """The next *limit* entries of the trash of *namespace*, latest first.

    Args:
        connection: in a transaction.
        noun: of which records.
        space: the vector space of *noun*.
        namespace: whose trash.
        before: where the page before ended; None for the first page.
        limit: the size of the page.

    Returns:
        The entries, and where they end; None if there are no more.
    """
    rows = tombstones.page(connection, noun, namespace, "forgotten", before, limit)
    entries = [
        TrashEntry(record=recalled.record_of(row, space), at=row.at, actor=row.actor, reason=row.reason) for row in rows
    ]
    return entries, rows[-1].pk if len(rows) == limit else None


def recover(
    connection: Connection,
    spaces: dict[RecordKind, VectorSpace],
    noun: RecordType,
    namespace: Namespace,
    ids: Sequence[str],
    *,
    actor: str | None,
    reason: str | None,
) -> list[int]:
    """Move the records *ids* from the trash back into their tables; see `Collection.recover`.

    Returns:
        The keys of the records, in the order of *ids*.

    Raises:
        NotFoundError: the trash of *namespace* does not contain one of them.
        DuplicateError: another record has one of the ids.
        InvalidError: one of them has expired.
    """
    at = now()
    keys = tombstones.find(connection, noun, namespace, ids, "forgotten")
    for id in ids:
        if id not in keys:
            raise NotFoundError(noun.kind, id, namespace, trash=True)
    ordered = [keys[id] for id in ids]
    for part in chunks(ordered):
        for row in tombstones.read(connection, noun, part):
            expires = row.record.get("expires_at")
            if expires is not None and expires <= to_micros(at):
                raise InvalidError(
                    f"memory {row.id!r} expired in the trash, at {from_micros(expires)}, so it cannot be recovered: "
                    "read its record from trash(), and add it again with another expires_at"
                )
    with history_writer.said_by(connection, actor, reason):
        recovered = tombstones.bring_back(connection, noun, spaces, ordered)
    if noun is ASSEMBLY:  # the caller reads the records before the end of the write recomputes composites
        composites.recompute(connection, spaces, recovered)
    return recovered

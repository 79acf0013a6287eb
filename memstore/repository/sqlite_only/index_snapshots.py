"""Snapshots of an index, stored as chunks. The index defines their content.

A snapshot stores the number of the last change of the log that it includes. It is written chunk by chunk, in small
transactions, and is valid once it is marked complete. Every chunk is checked when it is read: its digest is keyed by
the snapshot's header and by the chunk's number, so no chunk can stand in for another.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, Integer, bindparam, delete, func, insert, literal_column, select, update

from memstore.database.driver_errors import translated
from memstore.errors import DamagedError
from memstore.repository.statements import Prepared, stored
from memstore.schema.tables import index_chunk, index_snapshot

CHUNK = 1 << 20
"""Bytes of a chunk: one is written or read at a time."""

_DIGEST = 16  # bytes


class BrokenSnapshotError(Exception):
    """A chunk is missing or differs from what was written. Never leaves the package: the index is rebuilt."""


class Header(NamedTuple):
    """The row of a snapshot."""

    pk: int
    space_pk: int
    epoch: str
    seq: int
    parameters: Mapping[str, Any]
    chunks: int


_snapshot, _chunk = index_snapshot.c, index_chunk.c

_LATEST = Prepared(
    lambda: (
        select(*(_snapshot[name] for name in ("pk", "space_pk", "epoch", "seq", "parameters", "chunks")))
        .where(_snapshot.space_pk == bindparam("space"), _snapshot.complete == literal_column("1"))
        .where(func.typeof(_snapshot.seq) == "integer", _snapshot.seq <= bindparam("top"))
        .order_by(_snapshot.seq.desc(), _snapshot.pk.desc())
    )
)
_BEGIN = Prepared(
    lambda: insert(index_snapshot).values(
        {name: bindparam(name) for name in ("space_pk", "epoch", "seq", "parameters", "chunks")}
    )
)
_COMPLETE = Prepared(
    lambda: update(index_snapshot).where(_snapshot.pk == bindparam("snapshot")).values(complete=literal_column("1"))
)
_COUNT_CHUNKS = Prepared(
    lambda: select(func.count()).select_from(index_chunk).where(_chunk.snapshot_pk == bindparam("snapshot"))
)
_READ_CHUNK = Prepared(
    lambda: select(_chunk.data, _chunk.digest).where(
        _chunk.snapshot_pk == bindparam("snapshot"),
        _chunk.number == bindparam("number"),
        func.typeof(_chunk.data) == "blob",
    )
)
_ADD_CHUNK = Prepared(lambda: insert(index_chunk).values({c.name: bindparam(c.name) for c in index_chunk.c}))
_FLOOR = Prepared(lambda: select(func.min(_snapshot.seq)).where(func.typeof(_snapshot.seq) == "integer"))
_OTHERS = Prepared(
    lambda: (
        select(_snapshot.pk)
        .where(_snapshot.space_pk == bindparam("space"), _snapshot.pk != bindparam("snapshot"))
        .order_by(_snapshot.pk)
    )
)
_DROP_OLDER = Prepared(lambda: delete(index_snapshot).where(_snapshot.seq < bindparam("seq")))
_DROP_ALL = Prepared(lambda: delete(index_snapshot))
_DROP = Prepared(lambda: delete(index_snapshot).where(_snapshot.pk == bindparam("snapshot")))
_DROP_CHUNKS = Prepared(
    lambda: delete(index_chunk).where(
        _chunk.snapshot_pk == bindparam("snapshot"),
        _chunk.number.in_(
            select(_chunk.number)
            .where(_chunk.snapshot_pk == bindparam("snapshot"))
            .limit(bindparam("most", type_=Integer))
        ),
    )
)
_STORED_BYTES = Prepared(lambda: select(func.sum(func.length(_chunk.data))))


def latest(connection: Connection, space_pk: int, top: int) -> Header | None:
    """The complete snapshot of a space that includes most of the changes up to *top*; None where there is none.

    Rows that memstore did not write are left out.
    """
    for pk, space, epoch, seq, text, chunks in _LATEST.run(connection, space=space_pk, top=top):
        try:
            parameters = json.loads(text)
        except (TypeError, ValueError, RecursionError):
            continue
        if isinstance(parameters, dict) and type(epoch) is str and type(chunks) is int:
            return Header(pk, space, epoch, seq, parameters, chunks)
    return None


def begin(connection: Connection, header: Header) -> Header:
    """Store the row of a snapshot; *header* with its key."""
    values = header._asdict() | {"parameters": stored(dict(header.parameters))}
    return header._replace(pk=int(_BEGIN.run(connection, **values).lastrowid or 0))


def add(connection: Connection, header: Header, number: int, data: bytes) -> None:
    """Write one chunk."""
    _ADD_CHUNK.many(connection, [(header.pk, number, data, _digest(header, number, data))])


def complete(connection: Connection, header: Header) -> bool:
    """Mark a snapshot as complete, if it still exists with all its chunks; False where it does not."""
    if _COUNT_CHUNKS.value(connection, snapshot=header.pk) != header.chunks:
        return False
    return bool(_COMPLETE.run(connection, snapshot=header.pk).rowcount)


def chunk(connection: Connection, header: Header, number: int) -> bytes:
    """One chunk. Raises `BrokenSnapshotError`."""
    try:
        with translated():
            row = _READ_CHUNK.run(connection, snapshot=header.pk, number=number).fetchone()
    except DamagedError as error:
        raise BrokenSnapshotError(f"chunk {number} cannot be read: {error.__cause__}") from error
    if row is None:
        raise BrokenSnapshotError(f"chunk {number} is missing")
    data = row[0]
    if not isinstance(data, bytes) or _digest(header, number, data) != row[1]:
        raise BrokenSnapshotError(f"chunk {number} differs from what was written")
    return data


def floor(connection: Connection, default: int) -> int:
    """The change of the log that the oldest snapshot includes; *default* where there is none."""
    seq = _FLOOR.value(connection)
    return default if seq is None else int(seq)


def others(connection: Connection, space_pk: int, pk: int) -> list[int]:
    """Keys of the snapshots of a space other than *pk*."""
    return _OTHERS.column(connection, space=space_pk, snapshot=pk)


def drop_older(connection: Connection, seq: int) -> None:
    """Delete the snapshots that include less than *seq*."""
    if floor(connection, seq) < seq:
        _DROP_OLDER.run(connection, seq=seq)


def drop_all(connection: Connection) -> None:
    """Delete every snapshot, also one whose row is damaged."""
    _DROP_ALL.run(connection)


def drop_part(connection: Connection, pk: int, most: int = 16) -> bool:
    """Delete up to *most* chunks of a snapshot, and the snapshot with its last; whether chunks remain.

    Freed pages go to the list of free pages unchanged: their bytes are not written to the log again.
    """
    if _DROP_CHUNKS.run(connection, snapshot=pk, most=most).rowcount == most:
        return True
    _DROP.run(connection, snapshot=pk)
    return False


def stored_bytes(connection: Connection) -> int:
    """Bytes of all chunks."""
    return int(_STORED_BYTES.value(connection) or 0)


def _digest(header: Header, number: int, data: bytes) -> bytes:
    about = [header.space_pk, header.seq, header.chunks, dict(header.parameters), number]
    key = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=32).digest()
    return hashlib.blake2b(data, digest_size=_DIGEST, key=key).digest()

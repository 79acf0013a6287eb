"""Snapshots of an index, as chunks in the file. What they are made of is the index's matter.

A snapshot says which change of the log it includes. It is written chunk by chunk, in small transactions, and counts
from the moment it is marked complete; whoever reads it checks every chunk. Its digests are keyed by what the snapshot
says of itself and by the chunk's number, so that no chunk passes for another's.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, Text, bindparam, delete, func, insert, select, type_coerce, update

from memstore.database.driver_errors import translated
from memstore.errors import DamagedError
from memstore.repository.statements import Prepared
from memstore.schema.tables import index_chunk, index_snapshot

CHUNK = 1 << 20
"""Bytes of a chunk: one is written or read at a time."""

_DIGEST = 16  # bytes


class BrokenSnapshotError(Exception):
    """A chunk is missing, or is not what was written. Never seen outside: the index is built anew."""


class Header(NamedTuple):
    """What a snapshot says of itself."""

    pk: int
    space_pk: int
    epoch: str
    seq: int
    parameters: Mapping[str, Any]
    chunks: int


_READ = Prepared(
    select(index_chunk.c.data, index_chunk.c.digest).where(
        index_chunk.c.snapshot_pk == bindparam("snapshot"),
        index_chunk.c.number == bindparam("number"),
        func.typeof(index_chunk.c.data) == "blob",
    )
)
_ADD = Prepared(insert(index_chunk).values({c.name: bindparam(c.name) for c in index_chunk.c}))
_FLOOR = Prepared(select(func.min(index_snapshot.c.seq)).where(func.typeof(index_snapshot.c.seq) == "integer"))


def latest(connection: Connection, space_pk: int, top: int) -> Header | None:
    """The complete snapshot of a space that includes most, of the changes up to *top*; what is no snapshot is none."""
    c = index_snapshot.c
    found = select(c.pk, c.space_pk, c.epoch, c.seq, type_coerce(c.parameters, Text), c.chunks)
    found = found.where(c.space_pk == space_pk, c.complete == 1, func.typeof(c.seq) == "integer", c.seq <= top)
    for pk, space, epoch, seq, text, chunks in connection.execute(found.order_by(c.seq.desc(), c.pk.desc())):
        try:
            parameters = json.loads(text)
        except (TypeError, ValueError, RecursionError):
            continue
        if isinstance(parameters, dict) and type(epoch) is str and type(chunks) is int:
            return Header(pk, space, epoch, seq, parameters, chunks)
    return None


def begin(connection: Connection, header: Header) -> Header:
    """Announce a snapshot; *header* with the key it got."""
    row = {name: getattr(header, name) for name in ("space_pk", "epoch", "seq", "chunks")}
    made = connection.execute(insert(index_snapshot).values(parameters=dict(header.parameters), **row))
    return header._replace(pk=int(made.inserted_primary_key[0]))  # type: ignore[index]


def add(connection: Connection, header: Header, number: int, data: bytes) -> None:
    """Write one chunk."""
    _ADD.many(connection, [(header.pk, number, data, _digest(header, number, data))])


def complete(connection: Connection, header: Header) -> bool:
    """Let a snapshot count, if it is still there and whole; False where it is not."""
    held = select(func.count()).select_from(index_chunk).where(index_chunk.c.snapshot_pk == header.pk)
    if connection.execute(held).scalar_one() != header.chunks:
        return False
    marked = update(index_snapshot).where(index_snapshot.c.pk == header.pk).values(complete=1)
    return bool(connection.execute(marked).rowcount)


def chunk(connection: Connection, header: Header, number: int) -> bytes:
    """One chunk. Raises `BrokenSnapshotError`."""
    try:
        with translated():
            row = _READ.run(connection, snapshot=header.pk, number=number).fetchone()
    except DamagedError as error:
        raise BrokenSnapshotError(f"chunk {number} cannot be read: {error.__cause__}") from error
    if row is None:
        raise BrokenSnapshotError(f"chunk {number} is missing")
    data = row[0]
    if not isinstance(data, bytes) or _digest(header, number, data) != row[1]:
        raise BrokenSnapshotError(f"chunk {number} is not what was written")
    return data


def floor(connection: Connection, default: int) -> int:
    """The change of the log that the oldest snapshot includes; *default* while there is none."""
    row = _FLOOR.run(connection).fetchone()
    return default if row is None or row[0] is None else int(row[0])


def others(connection: Connection, space_pk: int, kept: int) -> list[int]:
    """Keys of the snapshots of a space but the one *kept*."""
    c = index_snapshot.c
    found = select(c.pk).where(c.space_pk == space_pk, c.pk != kept).order_by(c.pk)
    return [int(pk) for pk in connection.execute(found).scalars()]


def drop_older(connection: Connection, seq: int) -> None:
    """Delete the snapshots that include less than *seq*."""
    if floor(connection, seq) < seq:
        connection.execute(delete(index_snapshot).where(index_snapshot.c.seq < seq))


def drop_part(connection: Connection, pk: int, most: int = 16) -> bool:
    """Delete up to *most* chunks of a snapshot, the snapshot with its last; whether anything is left of it.

    Freed pages go to the list of free pages as they are: their bytes are not written to the log once more.
    """
    some = select(index_chunk.c.number).where(index_chunk.c.snapshot_pk == pk).limit(most)
    gone = connection.execute(
        delete(index_chunk).where(index_chunk.c.snapshot_pk == pk, index_chunk.c.number.in_(some))
    )
    if gone.rowcount == most:
        return True
    connection.execute(delete(index_snapshot).where(index_snapshot.c.pk == pk))
    return False


def stored_bytes(connection: Connection) -> int:
    """Bytes of all chunks."""
    total = select(func.sum(func.length(index_chunk.c.data)))
    return int(connection.execute(total).scalar() or 0)


def _digest(header: Header, number: int, data: bytes) -> bytes:
    about = [header.space_pk, header.seq, header.chunks, dict(header.parameters), number]
    key = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=32).digest()
    return hashlib.blake2b(data, digest_size=_DIGEST, key=key).digest()

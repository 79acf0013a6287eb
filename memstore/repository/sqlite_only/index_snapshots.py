"""Snapshots of an index, stored as chunks. The index defines their content.

A snapshot stores the number of the last change of the log that it includes. It is written chunk by chunk, in small
transactions, and is valid once it is marked complete. Its row is also the claim of its writer: a space has at most one
row that is not complete, and while there is one, no other process begins a snapshot of the space. The writer renews its
claim with every chunk. The claim of a process that has ended is taken over at once; where that cannot be known, after
`CLAIM_SECONDS` without a renewal. They are measured by the observer, so no clock of another machine matters. The former
writer, if it still runs, finds its claim gone at its next chunk.

A snapshot that is replaced is retired first: its row is neither complete nor a claim while its chunks are deleted. A
reader that misses a chunk looks at the row to tell a replaced snapshot from a damaged one.

Every chunk is checked when it is read: its digest is keyed by the snapshot's header and by the chunk's number, so no
chunk can stand in for another.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, Integer, and_, bindparam, delete, func, insert, literal_column, not_, select, update

from memstore.database.driver_errors import translated
from memstore.errors import DamagedError
from memstore.repository.sqlite_only.activity import has_ended
from memstore.repository.statements import Prepared, stored
from memstore.schema.tables import index_chunk, index_snapshot

CHUNK = 1 << 20
"""Bytes of a chunk: one is written or read at a time."""

CLAIM_SECONDS = 30.0
"""Time without a new chunk after which the writer of a snapshot counts as ended."""

_DIGEST = 16  # bytes
_RETIRED = ""  # the epoch of a snapshot whose chunks are being deleted


class BrokenSnapshotError(Exception):
    """A chunk is missing or differs from what was written. Never leaves the package: the index is rebuilt."""


class ReplacedSnapshotError(Exception):
    """Another process replaced a snapshot that is read or written. Never leaves the package: the other one is used."""


class Claim(NamedTuple):
    """The claim of a process that writes a snapshot: its row, its chunks so far, and the name of the activity."""

    pk: int
    chunks: int
    writer: str


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
_IS_CLAIM = and_(_snapshot.complete == literal_column("0"), _snapshot.epoch != literal_column(f"'{_RETIRED}'"))
_CLAIM = Prepared(
    lambda: (
        select(
            _snapshot.pk,
            select(func.count()).where(_chunk.snapshot_pk == _snapshot.pk).scalar_subquery(),
            _snapshot.parameters,
        )
        .where(_snapshot.space_pk == bindparam("space"), _IS_CLAIM)
        .order_by(_snapshot.pk)
    )
)
_STATUS = Prepared(lambda: select(_snapshot.complete, _snapshot.epoch).where(_snapshot.pk == bindparam("snapshot")))
_RETIRE = Prepared(
    lambda: (
        update(index_snapshot)
        .where(_snapshot.pk == bindparam("snapshot"))
        .values(complete=literal_column("0"), epoch=literal_column(f"'{_RETIRED}'"))
    )
)
_OTHERS = Prepared(
    lambda: (
        select(_snapshot.pk)
        .where(_snapshot.space_pk == bindparam("space"), _snapshot.pk != bindparam("snapshot"), not_(_IS_CLAIM))
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
        parameters = _parsed(text)
        if parameters is not None and type(epoch) is str and type(chunks) is int:
            return Header(pk, space, epoch, seq, parameters, chunks)
    return None


def _parsed(text: object) -> dict[str, Any] | None:
    """The parameters in a stored header; None if they are not an object of JSON."""
    try:
        parameters = json.loads(text)  # type: ignore[arg-type]
    except (TypeError, ValueError, RecursionError):
        return None
    return parameters if isinstance(parameters, dict) else None


def claim(connection: Connection, space_pk: int) -> Claim | None:
    """The claim of the process that writes a snapshot of a space; None if there is none."""
    row = _CLAIM.run(connection, space=space_pk).fetchone()
    if row is None:
        return None
    pk, chunks, text = row
    parameters = _parsed(text)
    return Claim(pk, chunks, "" if parameters is None else str(parameters.get("writer", "")))


def begin(connection: Connection, header: Header, writer: str, overdue: Claim | None = None) -> Header | None:
    """Claim the space of *header* for the activity *writer*, and store the row of its snapshot: *header* with its key.

    None, and nothing is stored, if another activity has a claim. One that equals *overdue* is taken over.
    """
    present = claim(connection, header.space_pk)
    while present is not None:
        if present != overdue and not has_ended(present.writer):
            return None
        retire(connection, present.pk)
        present = claim(connection, header.space_pk)
    header = header._replace(parameters={**header.parameters, "writer": writer})
    values = header._asdict() | {"parameters": stored(dict(header.parameters))}
    return header._replace(pk=int(_BEGIN.run(connection, **values).lastrowid or 0))


def add(connection: Connection, header: Header, number: int, data: bytes) -> None:
    """Write one chunk. Raises `ReplacedSnapshotError` if the claim of its writer was taken over."""
    if not _is_claim(connection, header.pk):
        raise ReplacedSnapshotError
    _ADD_CHUNK.many(connection, [(header.pk, number, data, _digest(header, number, data))])


def _is_claim(connection: Connection, pk: int) -> bool:
    row = _STATUS.run(connection, snapshot=pk).fetchone()
    return row is not None and row[0] == 0 and row[1] != _RETIRED


def retire(connection: Connection, pk: int) -> None:
    """Make a snapshot neither valid nor a claim, before its chunks are deleted."""
    _RETIRE.run(connection, snapshot=pk)


def is_replaced(connection: Connection, header: Header) -> bool:
    """Whether another process has deleted or retired the snapshot since *header* was read."""
    row = _STATUS.run(connection, snapshot=header.pk).fetchone()
    return row is None or tuple(row) != (1, header.epoch)


def complete(connection: Connection, header: Header) -> bool:
    """Mark a snapshot as complete, if it still is its writer's claim and has all its chunks; False where it is not."""
    if not _is_claim(connection, header.pk) or _COUNT_CHUNKS.value(connection, snapshot=header.pk) != header.chunks:
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
    """Keys of the snapshots of a space other than *pk*, and other than that which a process is writing."""
    present = claim(connection, space_pk)
    ended = [present.pk] if present is not None and present.pk != pk and has_ended(present.writer) else []
    return _OTHERS.column(connection, space=space_pk, snapshot=pk) + ended


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

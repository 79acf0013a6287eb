"""What the index follows: the change log, the vectors it points at, and the file's own facts."""

from typing import NamedTuple

import numpy as np
from sqlalchemy import (
    Connection,
    bindparam,
    column,
    delete,
    func,
    select,
    table,
    update,
)

from memstore.concurrency import yield_gil
from memstore.repository.corruption import corrupt_value
from memstore.repository.key_lists import keys_joined
from memstore.repository.sqlite_only import index_snapshots
from memstore.repository.statements import Prepared
from memstore.repository.vectors import VectorSpace, count_memories
from memstore.schema.tables import change_log, store_meta

KEEP = 10_000
"""The log keeps at least as many numbers, and a tenth as many as there are memories."""

_CHUNK = 500  # rows fetched before other threads may run

sqlite_sequence = table("sqlite_sequence", column("name"), column("seq"))

_TOP = Prepared(select(sqlite_sequence.c.seq).where(sqlite_sequence.c.name == "change_log"))
_STATE = Prepared(
    select(
        store_meta.c.epoch,
        store_meta.c.log_floor,
        select(sqlite_sequence.c.seq).where(sqlite_sequence.c.name == "change_log").scalar_subquery(),
    )
)
_CHANGED = Prepared(
    select(change_log.c.space_pk, change_log.c.pk).where(
        change_log.c.seq > bindparam("after"), change_log.c.seq <= bindparam("top")
    )
)
_CHANGED_SINCE = Prepared(
    select(
        func.max(change_log.c.seq),
        func.group_concat(change_log.c.pk).filter(change_log.c.space_pk == bindparam("space")),
    ).where(change_log.c.seq > bindparam("after"))
)


class State(NamedTuple):
    """Where the log stands: a follower at `applied` catches up by `(applied, top]` if it is not below `floor`."""

    epoch: str
    floor: int
    top: int


def top(connection: Connection) -> int:
    """The highest sequence number the log has reached."""
    row = _TOP.run(connection).fetchone()
    if row is None:
        return 0
    if type(row[0]) is not int:
        raise corrupt_value("the number its log has reached", row[0])
    return row[0]


def state(connection: Connection) -> State:
    """Where the log stands in this transaction's snapshot."""
    row = _STATE.run(connection).fetchone()
    if row is None:
        raise corrupt_value("its row of `store_meta`", None)
    epoch, floor, top = row
    if type(epoch) is not str or type(floor) is not int or not (top is None or type(top) is int):
        raise corrupt_value("where its log stands", tuple(row))
    return State(epoch, floor, top or 0)


def changed(connection: Connection, after: int, upto: int) -> dict[int, list[int]]:
    """Keys that changed in `(after, upto]`, by space; what became of them is read from the tables."""
    keys: dict[int, dict[int, None]] = {}
    cursor = _CHANGED.run(connection, after=after, top=upto)
    while rows := cursor.fetchmany(_CHUNK):
        for space_pk, pk in rows:
            keys.setdefault(space_pk, {})[pk] = None  # each once, in order
        if len(rows) < _CHUNK:
            break
        yield_gil()
    return {space_pk: [key for key in found if type(key) is int] for space_pk, found in keys.items()}


def changed_since(connection: Connection, after: int, space: VectorSpace) -> tuple[int, list[int]]:
    """Where the log stands, which stood at *after*, and the keys of *space* that changed meanwhile, ascending."""
    top, keys = _CHANGED_SINCE.run(connection, after=after, space=space.pk).fetchone()
    return (after, []) if top is None else (int(top), np.unique(keys_joined(keys)).tolist())


def trim(connection: Connection, most: int) -> None:
    """Forget the older part of the log, up to *most* at most; a follower behind that rebuilds.

    What a snapshot of the index needs is kept, until that is more than there are memories.
    """
    here, held = top(connection), max(KEEP, count_memories(connection))
    index_snapshots.drop_older(connection, here - held)
    floor = min(most, here - max(KEEP, held // 10), index_snapshots.floor(connection, here))
    if floor > state(connection).floor:
        connection.execute(delete(change_log).where(change_log.c.seq <= floor))
        connection.execute(update(store_meta).values(log_floor=floor))

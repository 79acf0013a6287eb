"""The change log, which triggers write and the index follows."""

from typing import NamedTuple

import numpy as np
from sqlalchemy import Connection, bindparam, column, delete, func, select, table, update

from memstore.repository.corruption import corrupt_value
from memstore.repository.key_lists import keys_joined
from memstore.repository.sqlite_only import index_snapshots
from memstore.repository.statements import Prepared
from memstore.repository.vectors import VectorSpace, count_memories
from memstore.schema.tables import change_log, store_meta

KEEP = 10_000
"""The log keeps at least this many numbers, and a tenth of the number of memories."""

sqlite_sequence = table("sqlite_sequence", column("name"), column("seq"))

_TOP = Prepared(lambda: select(sqlite_sequence.c.seq).where(sqlite_sequence.c.name == "change_log"))
_STATE = Prepared(
    lambda: select(
        store_meta.c.epoch,
        store_meta.c.log_floor,
        select(sqlite_sequence.c.seq).where(sqlite_sequence.c.name == "change_log").scalar_subquery(),
    )
)
_CHANGED = Prepared(
    lambda: select(change_log.c.space_pk, change_log.c.pk).where(
        change_log.c.seq > bindparam("after"), change_log.c.seq <= bindparam("top")
    )
)
_CHANGED_SINCE = Prepared(
    lambda: select(
        func.max(change_log.c.seq),
        func.group_concat(change_log.c.pk).filter(change_log.c.space_pk == bindparam("space")),
    ).where(change_log.c.seq > bindparam("after"))
)
_DELETE = Prepared(lambda: delete(change_log).where(change_log.c.seq <= bindparam("floor")))
_SET_FLOOR = Prepared(lambda: update(store_meta).values(log_floor=bindparam("floor")))


class State(NamedTuple):
    """The state of the log: a follower at `applied` reads `(applied, top]`, unless `applied` is below `floor`."""

    epoch: str
    floor: int
    top: int


def top(connection: Connection) -> int:
    """The highest sequence number that the log has reached."""
    row = _TOP.run(connection).fetchone()
    return 0 if row is None else _number(row[0])


def state(connection: Connection) -> State:
    """The state of the log in this transaction's snapshot."""
    row = _STATE.run(connection).fetchone()
    if row is None:
        raise corrupt_value("store_meta", "one row", None)
    epoch, floor, top = row
    if type(epoch) is not str:
        raise corrupt_value("store_meta.epoch", "str", epoch)
    if type(floor) is not int:
        raise corrupt_value("store_meta.log_floor", "int", floor)
    return State(epoch, floor, 0 if top is None else _number(top))


def _number(value: object) -> int:
    if type(value) is not int:
        raise corrupt_value("sqlite_sequence.seq", "the last number of change_log, an int", value)
    return value


def changed(connection: Connection, after: int, upto: int) -> dict[int, list[int]]:
    """Keys that changed in `(after, upto]`, by space; the tables say what they are now."""
    by_space: dict[int, dict[int, None]] = {}
    for rows in _CHANGED.fetch(connection, after=after, top=upto):
        for space_pk, pk in rows:
            by_space.setdefault(space_pk, {})[pk] = None  # each once, in order
    return {space_pk: [key for key in keys if type(key) is int] for space_pk, keys in by_space.items()}


def changed_since(connection: Connection, after: int, space: VectorSpace) -> tuple[int, list[int]]:
    """The last sequence number, and the keys of *space* that changed after the number *after*, ascending."""
    top, keys = _CHANGED_SINCE.run(connection, after=after, space=space.pk).fetchone()
    if top is None or keys is None:
        return after if top is None else int(top), []
    return int(top), np.unique(keys_joined(keys)).tolist()


def trim(connection: Connection, most: int) -> None:
    """Delete the older part of the log, up to the number *most*; a follower that has read less rebuilds its index.

    What a snapshot of the index needs is kept, until it has more entries than there are memories.
    """
    last, memories = top(connection), max(KEEP, count_memories(connection))
    index_snapshots.drop_older(connection, last - memories)
    floor = min(most, last - max(KEEP, memories // 10), index_snapshots.floor(connection, last))
    if floor > state(connection).floor:
        _DELETE.run(connection, floor=floor)
        _SET_FLOOR.run(connection, floor=floor)

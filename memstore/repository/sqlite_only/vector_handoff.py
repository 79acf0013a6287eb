"""Vectors that the open transaction wrote, handed to whoever follows its COMMIT: it need not read them back.

True of what is handed over, and why it may be taken for what is stored:

* when it was handed over it was: the log had grown by what the statement wrote, and by nothing else, so the statement
  stored all of them, and no trigger of anybody's stored anything else;
* whatever changes one of them later, in this transaction or after it, writes its key to the log once more, behind;
  so does whatever changed the namespace or the expiry of one before, and what the log says besides is read;
* what undoes a part of the transaction takes numbers of the log back, to be given out again, and all that was
  handed over with them (`commit.Carried`).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, or_, select, type_coerce
from sqlalchemy.types import NullType

from memstore.database.transactions import carried, raw
from memstore.repository.sqlite_only import change_log
from memstore.repository.statements import Prepared, of_schema
from memstore.repository.vectors import VectorSpace
from memstore.schema.tables import memory
from memstore.schema.triggers import TRIGGERS

_expiry = type_coerce(memory.c.expires_at, NullType())
_APART = Prepared(
    select(memory.c.pk, memory.c.namespace_pk, _expiry).where(
        memory.c.pk.between(bindparam("first"), bindparam("last")),
        or_(memory.c.namespace_pk != bindparam("owner"), memory.c.expires_at.is_not(None)),
    )
)


class Written(NamedTuple):
    """Vectors of memories, side by side, and what the log says of them.

    Attributes:
        space: of which they are.
        after: the log's number before they were written.
        upto: its number after: each number between is of one of them, and of nothing else.
        keys: each once.
        blobs: as they are stored.
        namespace: the key of the namespace they are in.
        apart: key, namespace and expiry of those that are in another or expire; memories without a vector may be among
            them.
    """

    space: VectorSpace
    after: int
    upto: int
    keys: Sequence[int]
    blobs: Sequence[bytes]
    namespace: int
    apart: Sequence[tuple[int, int, int | None]]


def hand_over_new(
    connection: Connection, space: VectorSpace, after: int, keys: Sequence[int], blobs: Sequence[bytes], owner: int
) -> None:
    """Tell of the vectors *blobs* of new memories, *keys* ascending, that were inserted when the log was at *after*.

    Nothing is told where the log says more or less than that.
    """
    upto = change_log.top(connection)
    if upto - after != len(keys) or not len(keys):
        return
    apart = _APART.run(connection, first=keys[0], last=keys[-1], owner=owner).fetchall()
    _tell(connection, Written(space, after, upto, keys, blobs, owner, apart))


def hand_over_changed(
    connection: Connection,
    space: VectorSpace,
    after: int,
    keys: Sequence[int],
    blobs: Sequence[bytes],
    owner: int,
    expiring: Mapping[int, int],
) -> None:
    """Tell of the vectors *blobs* that memories of the namespace *owner* got when the log was at *after*.

    Nothing is told where the log speaks of fewer of them, as it does where one had that vector already; nor where
    triggers of a host could have written more.

    Args:
        connection: of the transaction that wrote them.
        space: of which they are.
        after: the log's number before.
        keys: of the memories, each once.
        blobs: what each got.
        owner: the key of their namespace.
        expiring: of those that expire, when, as stored; the log spoke of it before if this transaction changed it.
    """
    if not len(keys) or of_schema(connection, _has_hosts_triggers):
        return
    upto = change_log.top(connection)
    if upto - after != len(keys):
        return
    apart = [(key, owner, when) for key, when in expiring.items()]
    _tell(connection, Written(space, after, upto, keys, blobs, owner, apart))


def _tell(connection: Connection, told: Written) -> None:
    carried(connection).add(told, 4 * told.space.dimension * len(told.keys))


def _has_hosts_triggers(connection: Connection) -> bool:
    """Whether there is a trigger that is none of ours."""
    names = raw(connection).execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
    return any(name not in TRIGGERS for (name,) in names)


def parted(after: int, upto: int, told: Sequence[Written]) -> tuple[Sequence[Written], list[tuple[int, int]]]:
    """What was *told* of the log in `(after, upto]`, and the pieces of it, written in the same way, that were not."""
    if told and told[0].after < after:
        told = ()  # somebody has read it already, and more: what was told may be old
    pieces: list[tuple[int, int]] = []
    for each in told:
        pieces.append((after, each.after))
        after = each.upto
    pieces.append((after, upto))
    return told, [(start, end) for start, end in pieces if start < end]

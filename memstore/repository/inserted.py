"""Vectors that the open transaction inserted, handed to whoever follows its COMMIT: it need not read them back.

True of what is handed over, and why it may be taken for what is stored:

* when it was handed over it was: the log had grown by one number for each of its vectors, so the statement stored them
  all, and no trigger of anybody's stored anything else; namespaces and expiries are read from the rows themselves;
* whatever changes one of them later, in this transaction or after it, writes its key to the log once more, behind;
* what undoes a part of the transaction takes numbers of the log back, to be given out again, and all that was
  handed over with them (`commit.Carried`).
"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, or_, select, type_coerce
from sqlalchemy.types import NullType

from memstore.database.commit import carried
from memstore.repository import log
from memstore.repository.log import VectorSpace
from memstore.repository.prepared import Prepared
from memstore.schema import memory

_expiry = type_coerce(memory.c.expires_at, NullType())
_APART = Prepared(
    select(memory.c.pk, memory.c.namespace_pk, _expiry).where(
        memory.c.pk.between(bindparam("first"), bindparam("last")),
        or_(memory.c.namespace_pk != bindparam("owner"), memory.c.expires_at.is_not(None)),
    )
)


class Inserted(NamedTuple):
    """Vectors of memories, side by side, and what the log says of them.

    Attributes:
        space: of which they are.
        after: the log's number before they were inserted.
        upto: its number after: each number between is of one of them, and of nothing else.
        keys: ascending.
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


def hand_over(
    connection: Connection, space: VectorSpace, after: int, keys: Sequence[int], blobs: Sequence[bytes], owner: int
) -> None:
    """Tell of the vectors *blobs* of new memories, *keys* ascending, that were inserted when the log was at *after*.

    Nothing is told where the log says more or less than that.
    """
    upto = log.top(connection)
    if upto - after != len(keys) or not len(keys):
        return
    apart = _APART.run(connection, first=keys[0], last=keys[-1], owner=owner).fetchall()
    told = Inserted(space, after, upto, keys, blobs, owner, apart)
    carried(connection).add(told, 4 * space.space.dimension * len(keys))


def parted(after: int, upto: int, told: Sequence[Inserted]) -> tuple[Sequence[Inserted], list[tuple[int, int]]]:
    """What was *told* of the log in `(after, upto]`, and the pieces of it, written in the same way, that were not."""
    if told and told[0].after < after:
        told = ()  # somebody has read it already, and more: what was told may be old
    pieces: list[tuple[int, int]] = []
    for each in told:
        pieces.append((after, each.after))
        after = each.upto
    pieces.append((after, upto))
    return told, [(start, end) for start, end in pieces if start < end]

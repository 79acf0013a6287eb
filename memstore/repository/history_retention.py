"""How much of its past a file keeps, from when on it is known, and how the rest of it goes.

What the file is to keep stands in the file, so that every process that writes to it does the same. A file that keeps
nothing has nothing: what was kept before goes when that is asked for.
"""

import json
from functools import lru_cache
from itertools import takewhile
from typing import NamedTuple, cast

from sqlalchemy import Connection, Text, bindparam, delete, select, type_coerce, update

from memstore.concurrency import yield_gil
from memstore.config import Keep
from memstore.repository.statements import Prepared
from memstore.schema.tables import journal, store_meta
from memstore.timestamps import now, to_micros

_DROPPED = 2_000  # rows a transaction: others come in between

_LAST = Prepared(select(journal.c.pk).order_by(journal.c.pk.desc()).limit(1))
_KEPT = Prepared(select(type_coerce(store_meta.c.history_options, Text)))
_OLDEST = Prepared(select(journal.c.pk, journal.c.at).order_by(journal.c.pk).limit(bindparam("most")))
_DROP = Prepared(delete(journal).where(journal.c.pk <= bindparam("upto")))
_DROP_SOME = Prepared(
    delete(journal).where(journal.c.pk.in_(select(journal.c.pk).order_by(journal.c.pk).limit(bindparam("most"))))
)


class Kept(NamedTuple):
    """What the file keeps of its past: how much, in whole seconds where it is a time; and from when on all is known."""

    keep: Keep
    since: int | None


def stored(connection: Connection) -> Kept | None:
    """What the file keeps of its past, which is nothing where it cannot be read; None while nobody has said."""
    row = _KEPT.run(connection).fetchone()
    return None if row is None or row[0] is None else _kept(row[0])


def kept(connection: Connection) -> Kept:
    """What the file keeps of its past: nothing while nobody has said."""
    return stored(connection) or Kept("off", None)


@lru_cache(16)
def _kept(text: object) -> Kept:
    try:
        found = json.loads(text) if isinstance(text, str) else {}
    except (ValueError, RecursionError):
        found = {}
    keep, since = (found.get("keep"), found.get("since")) if isinstance(found, dict) else (None, None)
    if type(since) is int and (keep == "full" or (type(keep) is int and keep > 0)):
        return Kept(cast("Keep", keep), since)
    return Kept("off", None)


def remember(connection: Connection, keep: Keep) -> None:
    """Have the file keep so much of its past from here on; what it has kept from before goes on being known."""
    standing = kept(connection)
    since = None if keep == "off" else to_micros(now()) if standing.since is None else standing.since
    connection.execute(update(store_meta).values(history_options={"keep": keep, "since": since}))


def to_drop(connection: Connection) -> bool:
    """Whether there is anything left in a file that keeps nothing."""
    return kept(connection).keep == "off" and _LAST.run(connection).fetchone() is not None


def drop_some(connection: Connection) -> bool:
    """Delete rows of a file that keeps nothing; whether there may be others."""
    return kept(connection).keep == "off" and _DROP_SOME.run(connection, most=_DROPPED).rowcount == _DROPPED


def trim_all(connection: Connection) -> None:
    """Delete all that is older than is kept."""
    while trim(connection, kept(connection), to_micros(now()), _DROPPED):
        yield_gil()


def trim(connection: Connection, standing: Kept, at: int, most: int) -> bool:
    """Delete *most* rows that are older than is kept; whether there were so many."""
    if not isinstance(standing.keep, int):
        return False
    before = at - standing.keep * 1_000_000
    old = list(takewhile(lambda row: type(row[1]) is not int or row[1] < before, _OLDEST.run(connection, most=most)))
    if old:
        _DROP.run(connection, upto=old[-1][0])
        since = max([standing.since or 0, *(at for _, at in old if type(at) is int)])
        connection.execute(update(store_meta).values(history_options={"keep": standing.keep, "since": since}))
    return len(old) == most

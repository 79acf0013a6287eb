"""How long a file keeps its history, since when the history is complete, and the deletion of older rows.

The settings are stored in the file, so that every process that writes to it keeps the same. With `off` no row is
written; rows from before are deleted in pieces when the store is opened.

Rows are deleted in the order of their numbers, by times that can be trusted (`history_times`). One commit under a clock
that is ahead deletes nothing: rows are too old by the time of the commit before it.
"""

import json
from functools import lru_cache
from itertools import takewhile
from typing import NamedTuple, cast

from sqlalchemy import Connection, Delete, Integer, Text, bindparam, delete, literal_column, select, type_coerce, update
from sqlalchemy.types import NullType

from memstore.concurrency import yield_gil
from memstore.config import Keep
from memstore.repository import history_times
from memstore.repository.statements import Prepared
from memstore.repository.statements import stored as stored_value
from memstore.schema.tables import journal, store_meta
from memstore.timestamps import now, to_micros

_DELETED_AT_ONCE = 2_000  # rows a transaction: other writers come in between
_SLACK_PARTS = 64  # of the time that is kept: half a day of 30 days
_MOST_BREAKS = 100  # with more, reads of times before them may be wrong

_LAST_NUMBER = 2**63 - 1

_LAST = Prepared(lambda: select(journal.c.pk).order_by(journal.c.pk.desc()).limit(literal_column("1")))
_SETTINGS = Prepared(lambda: select(type_coerce(store_meta.c.history_options, Text)))
_STORE_SETTINGS = Prepared(lambda: update(store_meta).values(history_options=bindparam("options", type_=NullType())))
_OLDEST = Prepared(
    lambda: (
        select(journal.c.pk, journal.c.at)
        .where(journal.c.pk < bindparam("number"))
        .order_by(journal.c.pk)
        .limit(bindparam("most", type_=Integer))
    )
)
_LAST_TIME = Prepared(lambda: select(journal.c.at).order_by(journal.c.pk.desc()).limit(literal_column("1")))
_DELETE_UP_TO = Prepared(lambda: delete(journal).where(journal.c.pk <= bindparam("upto")))


def _delete_oldest() -> Delete:
    oldest = select(journal.c.pk).order_by(journal.c.pk).limit(bindparam("most", type_=Integer))
    return delete(journal).where(journal.c.pk.in_(oldest))


_DELETE_OLDEST = Prepared(_delete_oldest)


class RetentionSettings(NamedTuple):
    """What a file keeps of its history.

    Attributes:
        keep: `"full"`, `"off"`, or a number of seconds.
        since: microseconds since the epoch from which the history is complete; None where nothing is kept.
        breaks: numbers of the changes at which the clock had gone back, ascending; the latest 100 of them.
    """

    keep: Keep
    since: int | None
    breaks: tuple[int, ...] = ()

    def limit(self, now: int, last: object) -> int | None:
        """The time before which rows are not kept, by the time of the *last* commit; None where all are."""
        if not isinstance(self.keep, int):
            return None
        return (min(now, last) if type(last) is int else now) - self.keep * 1_000_000


def stored(connection: Connection) -> RetentionSettings | None:
    """The settings in the file, `off` where they cannot be read; None in a file that has none yet."""
    text = _SETTINGS.value(connection)
    return None if text is None else parse(text)


def read(connection: Connection) -> RetentionSettings:
    """The settings in the file; `off` in a file that has none yet."""
    return stored(connection) or RetentionSettings("off", None)


@lru_cache(16)
def parse(text: object) -> RetentionSettings:
    """The settings in the *text* that the file stores; `off` where it cannot be read."""
    try:
        options = json.loads(text) if isinstance(text, str) else {}
    except (ValueError, RecursionError):
        options = {}
    if not isinstance(options, dict):
        options = {}
    keep, since, breaks = (options.get(name) for name in ("keep", "since", "breaks"))
    if type(since) is int and (keep == "full" or (type(keep) is int and keep > 0)):
        numbers = breaks if isinstance(breaks, list) else []
        return RetentionSettings(cast("Keep", keep), since, tuple(n for n in numbers if type(n) is int))
    return RetentionSettings("off", None)


def set_keep(connection: Connection, keep: Keep) -> None:
    """Store *keep* in the file; history that it has already stays complete from the same time on."""
    settings = read(connection)
    since = None if keep == "off" else to_micros(now()) if settings.since is None else settings.since
    _store(connection, RetentionSettings(keep, since, settings.breaks))


def add_break(connection: Connection, settings: RetentionSettings, number: int) -> RetentionSettings:
    """Store that the clock has gone back before change *number*; the new settings."""
    changed = settings._replace(breaks=(*settings.breaks, number)[-_MOST_BREAKS:])
    _store(connection, changed)
    return changed


def _store(connection: Connection, settings: RetentionSettings) -> None:
    _STORE_SETTINGS.run(connection, options=stored_value(settings._asdict()))


def has_unwanted_rows(connection: Connection) -> bool:
    """Whether a file with history `off` has history rows."""
    return read(connection).keep == "off" and _LAST.value(connection) is not None


def delete_unwanted_rows(connection: Connection) -> bool:
    """Delete a piece of the history rows of a file with history `off`; whether there may be more."""
    return (
        read(connection).keep == "off"
        and _DELETE_OLDEST.run(connection, most=_DELETED_AT_ONCE).rowcount == _DELETED_AT_ONCE
    )


def due(settings: RetentionSettings, at: int, last: object, first: object) -> int | None:
    """The time before which a write deletes rows; None where the *first* row is not old enough for that to pay.

    A little more is kept than asked for, so that one write in hundreds deletes hundreds of rows.
    """
    limit = settings.limit(at, last)
    if limit is None or not isinstance(settings.keep, int):
        return None
    slack = settings.keep * 1_000_000 // _SLACK_PARTS
    return limit if settings.breaks or type(first) is not int or first < limit - slack else None


def trim_all(connection: Connection) -> None:
    """Delete all rows that are older than the file keeps."""
    while trim(connection, read(connection), to_micros(now()), _DELETED_AT_ONCE):
        yield_gil()


def is_due(connection: Connection) -> bool:
    """Whether the file has rows that are older than it keeps, and certainly so."""
    settings = read(connection)
    limit = settings.limit(to_micros(now()), _LAST_TIME.value(connection))
    return limit is not None and bool(_old_rows(connection, settings, limit, 1))


def trim_part(connection: Connection) -> bool:
    """Delete a part of the rows that are older than the file keeps; whether there may be more."""
    settings = read(connection)
    limit = settings.limit(to_micros(now()), _LAST_TIME.value(connection))
    return limit is not None and trim_before(connection, settings, limit, _DELETED_AT_ONCE)


def trim(connection: Connection, settings: RetentionSettings, at: int, most: int) -> bool:
    """Delete at most *most* rows that are older at a time than the file keeps; whether there were as many."""
    limit = settings.limit(at, None)
    return limit is not None and trim_before(connection, settings, limit, most)


def trim_before(connection: Connection, settings: RetentionSettings, limit: int, most: int) -> bool:
    """Delete at most *most* rows of before the time *limit*, the oldest first; whether there were as many."""
    rows = _old_rows(connection, settings, limit, most)
    if rows:
        last = rows[-1][0]
        _DELETE_UP_TO.run(connection, upto=last)
        times = [time for _, time in rows if type(time) is int and time <= limit]
        if settings.since is not None and settings.since <= limit:
            times.append(settings.since)
        breaks = tuple(number for number in settings.breaks if number > last)
        _store(connection, RetentionSettings(settings.keep, max(times, default=limit), breaks))
    return len(rows) == most


def _old_rows(connection: Connection, settings: RetentionSettings, limit: int, most: int) -> list[tuple[int, object]]:
    """Number and time of at most *most* rows of before the time *limit*, the oldest first."""
    if settings.breaks:
        last_old = history_times.last_before(connection, limit, to_micros(now()), settings.breaks)
        return [] if last_old is None else _OLDEST.run(connection, number=last_old + 1, most=most).fetchall()
    oldest = _OLDEST.run(connection, number=_LAST_NUMBER, most=most)
    rows = list(takewhile(lambda row: type(row[1]) is not int or row[1] < limit, oldest))
    while rows and type(rows[-1][1]) is not int:  # its time is damaged: it is as old as the rows around it
        rows.pop()
    return rows

"""How long a file keeps its history, since when the history is complete, and the deletion of older rows.

The settings are stored in the file, so that every process that writes to it keeps the same. With `off` no row is
written; rows from before are deleted in pieces when the store is opened.
"""

import json
from functools import lru_cache
from itertools import takewhile
from typing import NamedTuple, cast

from sqlalchemy import Connection, Delete, Integer, Text, bindparam, delete, literal_column, select, type_coerce, update
from sqlalchemy.types import NullType

from memstore.concurrency import yield_gil
from memstore.config import Keep
from memstore.repository.statements import Prepared
from memstore.repository.statements import stored as stored_value
from memstore.schema.tables import journal, store_meta
from memstore.timestamps import now, to_micros

_DELETED_AT_ONCE = 2_000  # rows a transaction: other writers come in between

_LAST = Prepared(lambda: select(journal.c.pk).order_by(journal.c.pk.desc()).limit(literal_column("1")))
_SETTINGS = Prepared(lambda: select(type_coerce(store_meta.c.history_options, Text)))
_STORE_SETTINGS = Prepared(lambda: update(store_meta).values(history_options=bindparam("options", type_=NullType())))
_OLDEST = Prepared(
    lambda: select(journal.c.pk, journal.c.at).order_by(journal.c.pk).limit(bindparam("most", type_=Integer))
)
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
    """

    keep: Keep
    since: int | None


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
    keep, since = (options.get("keep"), options.get("since")) if isinstance(options, dict) else (None, None)
    if type(since) is int and (keep == "full" or (type(keep) is int and keep > 0)):
        return RetentionSettings(cast("Keep", keep), since)
    return RetentionSettings("off", None)


def set_keep(connection: Connection, keep: Keep) -> None:
    """Store *keep* in the file; history that it has already stays complete from the same time on."""
    settings = read(connection)
    since = None if keep == "off" else to_micros(now()) if settings.since is None else settings.since
    _store(connection, RetentionSettings(keep, since))


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


def trim_all(connection: Connection) -> None:
    """Delete all rows that are older than the file keeps."""
    while trim(connection, read(connection), to_micros(now()), _DELETED_AT_ONCE):
        yield_gil()


def trim(connection: Connection, settings: RetentionSettings, at: int, most: int) -> bool:
    """Delete at most *most* rows that are older than the file keeps; whether there were as many."""
    if not isinstance(settings.keep, int):
        return False
    oldest_kept = at - settings.keep * 1_000_000
    rows = _OLDEST.run(connection, most=most)
    old = list(takewhile(lambda row: type(row[1]) is not int or row[1] < oldest_kept, rows))
    if old:
        _DELETE_UP_TO.run(connection, upto=old[-1][0])
        since = max([settings.since or 0, *(time for _, time in old if type(time) is int)])
        _store(connection, RetentionSettings(settings.keep, since))
    return len(old) == most

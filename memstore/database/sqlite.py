"""Which SQLite the store runs on. The only module that imports one; every other takes `sqlite3` from here.

Python carries one, and the package pysqlite3, which the extra `memstore[sqlite]` installs, another; the newer is used.
It is the same for the whole process, because two copies of SQLite in one process do not know of each other: whichever
closes a file first drops the other's locks on it. The variable `MEMSTORE_SQLITE` decides where a program must agree
with other code that opens the same file: `stdlib` or `pysqlite3`.

pysqlite3 knows SQLite's primary error codes alone, so nothing may depend on the extended ones.
"""

import logging
import os
import sqlite3 as stdlib
from types import ModuleType
from typing import TYPE_CHECKING

try:
    import pysqlite3 as extra
except ImportError:
    extra = None

__all__ = ["BUG", "SOURCE", "VERSION", "sqlite3", "wal_reset_bug", "warn_of_bug"]

Version = tuple[int, int, int]

_log = logging.getLogger("memstore.sqlite")
_warned = False


def wal_reset_bug(version: Version) -> bool:
    """Whether this version of SQLite can lose commits when a passive checkpoint overlaps a restart of the log."""
    if not (3, 7, 0) <= version < (3, 51, 3):
        return False
    mended = {(3, 50): 7, (3, 44): 6}.get(version[:2])
    return mended is None or version[2] < mended


def chosen(own: ModuleType, other: ModuleType | None, wish: str | None) -> ModuleType:
    """The one of two SQLites to use: the one wished for, without a wish the newer.

    Raises:
        ImportError: it is not installed, or there is no such word.
    """
    if wish not in (None, "", "stdlib", "pysqlite3"):
        raise ImportError(f"MEMSTORE_SQLITE is 'stdlib' or 'pysqlite3'; got {wish!r}")
    if wish == "pysqlite3" and other is None:
        raise ImportError("MEMSTORE_SQLITE asks for pysqlite3, which is not installed: pip install 'memstore[sqlite]'")
    if other is None or wish == "stdlib":
        return own
    newer = other.sqlite_version_info > own.sqlite_version_info
    return other if newer or wish == "pysqlite3" else own


if TYPE_CHECKING:
    import sqlite3
else:
    sqlite3 = chosen(stdlib, extra, os.environ.get("MEMSTORE_SQLITE"))

VERSION: Version = sqlite3.sqlite_version_info
SOURCE = sqlite3.__name__
"""Where it comes from: `sqlite3`, which is Python's own, or `pysqlite3`."""

BUG = wal_reset_bug(VERSION)
"""Whether it has the WAL-reset bug."""


def warn_of_bug() -> None:
    """Log, once a process, that this SQLite has the WAL-reset bug, if it has.

    A log line and no `warnings.warn`: under `-W error` that would keep a program from opening a store for what memstore
    itself avoids, and only a program beside it can bring about.
    """
    global _warned
    if not BUG or _warned:
        return
    _warned = True
    _log.warning(
        "SQLite %s (%s) can lose commits when a checkpoint overlaps a restart of the write-ahead log. memstore's own "
        "checkpoints avoid that; those of other programs that write to the same file may not. "
        "pip install 'memstore[sqlite]' brings a SQLite that is mended",
        sqlite3.sqlite_version,
        SOURCE,
    )

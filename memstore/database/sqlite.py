"""Chooses the SQLite library. Every other module takes `sqlite3` from here.

Python has one SQLite, and the package pysqlite3 of the extra `memstore[sqlite]` another; the newer is used. The whole
process uses the same one: two SQLite libraries in one process do not see each other's locks, and the one that closes a
file first drops the locks of the other (`sqlite_libraries` refuses that). A program whose other code opens the same
file sets the environment variable `MEMSTORE_SQLITE` to the library of that code: `stdlib` or `pysqlite3`.

pysqlite3 reports only SQLite's primary error codes, so no code may depend on extended ones.
"""

import os
import sqlite3 as stdlib
from types import ModuleType
from typing import TYPE_CHECKING

try:
    import pysqlite3 as installed
except ImportError:
    installed = None

__all__ = ["BUG", "SOURCE", "VERSION", "installed", "sqlite3", "stdlib", "wal_reset_bug"]

Version = tuple[int, int, int]


def wal_reset_bug(version: Version) -> bool:
    """Whether this version of SQLite can lose commits when a passive checkpoint overlaps a restart of the log."""
    if not (3, 7, 0) <= version < (3, 51, 3):
        return False
    fixed_patch = {(3, 50): 7, (3, 44): 6}.get(version[:2])
    return fixed_patch is None or version[2] < fixed_patch


def select(stdlib: ModuleType, pysqlite3: ModuleType | None, name: str | None) -> ModuleType:
    """The SQLite library to use: the one with *name*, or the newer one without a name.

    Raises:
        ImportError: it is not installed, or *name* is neither of the two.
    """
    if name not in (None, "", "stdlib", "pysqlite3"):
        raise ImportError(f"Invalid MEMSTORE_SQLITE: expected 'stdlib' or 'pysqlite3', found {name!r}")
    if name == "pysqlite3" and pysqlite3 is None:
        raise ImportError("MEMSTORE_SQLITE is pysqlite3, which is not installed: pip install 'memstore[sqlite]'")
    if pysqlite3 is None or name == "stdlib":
        return stdlib
    is_newer = pysqlite3.sqlite_version_info > stdlib.sqlite_version_info
    return pysqlite3 if is_newer or name == "pysqlite3" else stdlib


if TYPE_CHECKING:
    import sqlite3
else:
    sqlite3 = select(stdlib, installed, os.environ.get("MEMSTORE_SQLITE"))

VERSION: Version = sqlite3.sqlite_version_info
SOURCE = sqlite3.__name__
"""The module it comes from: `sqlite3` of Python, or `pysqlite3`."""

BUG = wal_reset_bug(VERSION)
"""Whether it has the WAL-reset bug.

`stats()` and `memstore doctor` report it. Nothing is logged: memstore avoids the bug, and only another program that
writes to the same file can trigger it.
"""

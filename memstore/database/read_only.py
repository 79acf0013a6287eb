"""Reading a file without leaving files beside it, also where none can be created.

SQLite reads a file with a write-ahead log by the two files beside it, -wal and -shm. It creates them if they are
missing, and a connection that only reads does not delete them. Where they cannot be created, or would belong to a
user who may not write the file, the file is read as immutable: without locks, and without a log.
"""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from memstore.database.engine import uri
from memstore.database.sqlite import sqlite3

_BESIDE = ("-wal", "-shm", "-journal")


def read_uri(path: str) -> str:
    """*path* as the URI of a connection that only reads."""
    return uri(path, "ro") + ("&immutable=1" if is_immutable(path) else "")


def is_immutable(path: str) -> bool:
    """Whether SQLite must read the file at *path* as one that nobody changes.

    A file with a log is not immutable: its latest commits are in the log.
    """
    return not _is_writable(path) and not any(os.path.exists(path + suffix) for suffix in _BESIDE)


def _is_writable(path: str) -> bool:
    effective = os.access in os.supports_effective_ids
    return all(os.access(name, os.W_OK, effective_ids=effective) for name in (path, os.path.dirname(path)))


def has_log(path: str) -> bool:
    """Whether there is a file of a write-ahead log beside the file at *path*."""
    return any(os.path.exists(path + suffix) for suffix in ("-wal", "-shm"))


def uses_log(path: str) -> bool:
    """Whether SQLite reads the file at *path* by a write-ahead log; not if it is immutable."""
    with closing(sqlite3.connect(read_uri(path), uri=True)) as base:
        return bool(base.execute("PRAGMA journal_mode").fetchone()[0] == "wal")


@contextmanager
def without_log(path: str) -> Iterator[None]:
    """Delete the log files that connections of the block create, unless another connection uses them."""
    existed = has_log(path)
    try:
        yield
    finally:
        if not existed:
            delete_log(path)


def delete_log(path: str) -> None:
    """Have SQLite delete the log beside the file at *path*, as the last connection that writes does.

    SQLite does nothing while another connection has the file open.
    """
    if not has_log(path):
        return
    with suppress(sqlite3.Error), closing(sqlite3.connect(uri(path, "rw"), uri=True, timeout=0.0)) as base:
        base.execute("PRAGMA wal_autocheckpoint=0")  # see checkpoint.write_back
        base.execute("SELECT 1 FROM sqlite_master").fetchone()

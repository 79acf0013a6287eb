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
from memstore.errors import StorageError

_BESIDE = ("-wal", "-shm", "-journal")


def read_uri(path: str) -> str:
    """*path* as the URI of a connection that only reads. Raises `StorageError` if its log cannot be read."""
    if _size(f"{path}-wal") and not os.path.exists(f"{path}-shm") and not _is_writable(path):
        raise StorageError(
            f"{path!r} has a log beside it ({path}-wal), which can be read only where the folder can be written. Copy "
            "both files to a folder that this process can write, and open the copy there; or make a backup where the "
            "folder can be written, and open that"
        )
    return uri(path, "ro") + ("&immutable=1" if is_immutable(path) else "")


def is_immutable(path: str) -> bool:
    """Whether SQLite must read the file at *path* as one that nobody changes.

    A file with a log is not immutable: its latest commits are in the log.
    """
    return not _is_writable(path) and not any(os.path.exists(path + suffix) for suffix in _BESIDE)


def _is_writable(path: str) -> bool:
    return _may_write(path) and _may_write(os.path.dirname(path))


def _may_write(path: str) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def check_writable(path: str) -> None:
    """Raise `StorageError` if this process may not write the file at *path*, or the files of its log.

    SQLite would create them before it fails, and they would belong to the wrong user.
    """
    if not os.path.exists(path) or _is_writable(path):
        return
    if not _may_write(path):
        reason = "this process may not write the file"
    elif all(_may_write(path + suffix) for suffix in ("-wal", "-shm")):
        return
    else:
        reason = f"this process may not write the folder {os.path.dirname(path)!r}"
    raise StorageError(
        f"{path!r} cannot be opened for writing: {reason}. Open it with read_only=True, or make a backup of it in "
        "another folder, and open that"
    )


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

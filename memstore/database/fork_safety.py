"""What a forked child inherits of SQLite, and how it is closed.

SQLite keeps the locks of its process in memory, by file. A child inherits that memory and none of the locks. If it
opened the same file, it would take the parent's locks for its own, hold none, and commit to a log that the process
which closes last removes. So before a fork the stores' threads leave SQLite, and the child first closes the
connections that it inherited; that touches no lock of the parent. A connection in a transaction cannot be closed,
because that would undo the transaction in the memory that both share; a connection that stays busy for too long cannot
be closed either. The child leaves such a connection open, and may not open its file.
"""

import ctypes
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock, local
from typing import Protocol

from memstore.concurrency import monotonic
from memstore.database.sqlite import sqlite3
from memstore.errors import ForkedStoreError

_MAX_WAIT = 1.0  # seconds that a fork waits for running functions


class InheritedConnection(Protocol):
    """A connection that a child may inherit. Its thread is in SQLite only while it holds the *gate*."""

    gate: RLock
    path: str

    @property
    def base(self) -> sqlite3.Connection | None:
        """The SQLite connection; None before it is open."""
        ...


def forked_store_error() -> ForkedStoreError:
    """The error for the use of a store in a child of the process that opened it."""
    return ForkedStoreError("This store was opened by the parent process: open a store in the child")


_registered: weakref.WeakValueDictionary[int, InheritedConnection] = weakref.WeakValueDictionary()
_temporary: list[str] = []  # files to which temporary connections, which no gate guards, are open
_fork = local()  # `gated`: connections whose gates this thread holds during the fork
_refused: set[str] = set()


def register(connection: InheritedConnection) -> None:
    """Have forked children close *connection*."""
    _registered[id(connection)] = connection


@contextmanager
def temporary_connections(path: str) -> Iterator[None]:
    """A block that opens and closes connections to *path*. A child forked meanwhile may not open that file.

    Raises:
        ForkedStoreError: this process is such a child.
    """
    name = os.path.realpath(path)
    if name in _refused:
        raise ForkedStoreError(
            f"This process was forked while its parent was using {path!r}, and shares SQLite's memory of the locks: "
            "fork when no transaction is open and no store is being opened, or start the process with the method "
            "'spawn' or 'forkserver' of multiprocessing"
        )
    _temporary.append(name)
    try:
        yield
    finally:
        if name in _temporary:  # not in a child that was forked inside the block
            _temporary.remove(name)


def _before() -> None:
    deadline = monotonic() + _MAX_WAIT
    _fork.gated = gated = list[InheritedConnection]()
    for reference in _registered.valuerefs():
        connection = reference()
        if connection is not None and connection.gate.acquire(timeout=max(0.0, deadline - monotonic())):
            gated.append(connection)


def _in_parent() -> None:
    for connection in _fork.gated:
        connection.gate.release()
    _fork.gated = []


def _in_child() -> None:
    _refused.update(_temporary)
    for reference in _registered.valuerefs():
        connection = reference()
        if connection is None:
            continue
        _never_free(connection)
        if connection.base is None:
            continue
        if any(connection is gated for gated in _fork.gated) and not connection.base.in_transaction:
            connection.base.close()
        else:
            _refused.add(os.path.realpath(connection.path))
    _registered.clear()
    _temporary.clear()
    _fork.gated = []


def _never_free(connection: InheritedConnection) -> None:
    """Keep *connection* until the process ends: its finalizers would act on what belongs to the parent."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)

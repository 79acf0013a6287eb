"""What a forked child inherits of SQLite, and how it is rid of it.

SQLite keeps the locks of its process in memory, by file. A child inherits that memory and none of the locks: with the
same file opened anew it would take the parent's locks for its own, hold none, and commit to a log that whoever closes
last removes. So before a fork the stores' threads come to the end of what they do in SQLite, and the first thing the
child does is to close the connections it inherited; that touches no lock of the parent's. A connection that is in a
transaction cannot be closed, for that would undo the parent's in the memory they share, and neither can one that is
busy for too long: such a connection is left as it is, and the child may not open its file.
"""

import ctypes
import os
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock, local
from typing import Protocol

from memstore.database.sqlite import sqlite3
from memstore.errors import ForkedStoreError

_PATIENCE = 1.0  # seconds that a fork waits for what the threads are doing


class Inherited(Protocol):
    """A connection that a child may inherit. Its thread is in SQLite only while it holds the *gate*."""

    gate: RLock
    path: str

    @property
    def base(self) -> sqlite3.Connection | None:
        """SQLite's own connection; None before it is made."""
        ...


def of_the_parent() -> ForkedStoreError:
    """What is wrong with using a store in a child of the process that opened it."""
    return ForkedStoreError("this store was opened by the parent process: open one in the child")


_known: weakref.WeakValueDictionary[int, Inherited] = weakref.WeakValueDictionary()
_briefly: list[str] = []  # files that connections are opened to for a moment, which no gate guards
_fork = local()  # `gated`: those whose gates this thread holds while it forks
_refused: set[str] = set()


def know(connection: Inherited) -> None:
    """Have children close *connection*."""
    _known[id(connection)] = connection


@contextmanager
def briefly(path: str) -> Iterator[None]:
    """Connections to the file at *path* are opened and closed in this block; a child of now may not open it.

    Raises:
        ForkedStoreError: this is such a child.
    """
    name = os.path.realpath(path)
    if name in _refused:
        raise ForkedStoreError(
            f"this process was forked while its parent was in the middle of something in {path!r}, and shares SQLite's "
            "memory of its locks: fork when no transaction is open and nothing is being opened, or start the process "
            "by multiprocessing's 'spawn' or 'forkserver'"
        )
    _briefly.append(name)
    try:
        yield
    finally:
        if name in _briefly:  # else this is a child, in a block of its parent's
            _briefly.remove(name)


def _before() -> None:
    deadline = time.monotonic() + _PATIENCE
    _fork.gated = gated = list[Inherited]()
    for ref in _known.valuerefs():
        held = ref()
        if held is not None and held.gate.acquire(timeout=max(0.0, deadline - time.monotonic())):
            gated.append(held)


def _in_parent() -> None:
    for held in _fork.gated:
        held.gate.release()
    _fork.gated = []


def _in_child() -> None:
    _refused.update(_briefly)
    for ref in _known.valuerefs():
        held = ref()
        if held is None:
            continue
        _keep(held)
        if held.base is None:
            continue
        if any(held is one for one in _fork.gated) and not held.base.in_transaction:
            held.base.close()
        else:
            _refused.add(os.path.realpath(held.path))
    _known.clear()
    _briefly.clear()
    _fork.gated = []


def _keep(held: Inherited) -> None:
    """Let *held* live as long as the process: whatever it ends with, at exit too, is the parent's to end."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)

"""Locks of an open file that survive what drops SQLite's own.

SQLite uses POSIX record locks, which belong to the process: when it closes any handle of the file, also one that only
read the file, all of its locks on the file are gone, and SQLite does not learn of it. The next process that closes the
file then takes itself for the last one and deletes the write-ahead log, which is still in use here.

Open file description locks (Linux) belong to one handle. A process that has a store open holds these beside SQLite's:

* shared, the bytes of the file that SQLite locks exclusively before it deletes the log or changes the journal mode;
* shared, the byte of the -shm file that shows that it is in use: a process that finds it free resets the -shm file;
* exclusive during a write transaction, one byte far beyond the end of the file: without SQLite's write lock, another
  process could write at the same time.

One set of handles serves all stores of a process. Closing one of them drops SQLite's locks too. So they stay open
while the process has other handles of the file, and the next store that opens or closes any file closes them.
"""

import errno
import os
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from memstore.concurrency import ProcessLock, monotonic
from memstore.errors import BusyError

if sys.platform == "linux":
    import fcntl

_PENDING_BYTE = (0x40000000, 1)  # PENDING_BYTE of SQLite: locked exclusively, it keeps others from opening the file
_SHARED_BYTES = (0x40000002, 510)  # SHARED_FIRST and SHARED_SIZE of SQLite
_DEAD_MAN_SWITCH = (128, 1)  # UNIX_SHM_DMS of SQLite, in the -shm file
_WRITE_BYTE = (1 << 62, 1)
_POLL_INTERVAL = 0.005  # seconds; another process holds the file exclusively while it deletes the log
_HANDLES = "/proc/self/fd"


class Identity(NamedTuple):
    """Which file it is, whatever its name."""

    device: int
    inode: int


def identity_of(status: os.stat_result) -> Identity:
    """The identity of the file with this *status*."""
    return Identity(status.st_dev, status.st_ino)


def _request(kind: int, span: tuple[int, int]) -> bytes:
    """A `struct flock` of C: type, whence, start, length, and 0 for the process."""
    return struct.pack("hhqqi", kind, os.SEEK_SET, *span, 0)


if sys.platform == "linux":
    _LOCK_WRITE_BYTE = _request(fcntl.F_WRLCK, _WRITE_BYTE)
    _UNLOCK_WRITE_BYTE = _request(fcntl.F_UNLCK, _WRITE_BYTE)

    def _lock(handle: int, *, exclusive: bool, span: tuple[int, int]) -> bool:
        """Lock bytes by an open file description lock; False if another handle or process prevents it."""
        try:
            fcntl.fcntl(handle, fcntl.F_OFD_SETLK, _request(fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK, span))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True

    def _unlock(handle: int, span: tuple[int, int]) -> None:
        fcntl.fcntl(handle, fcntl.F_OFD_SETLK, _request(fcntl.F_UNLCK, span))

    def _is_locked_by_others(handle: int, span: tuple[int, int]) -> bool:
        """Whether other processes have record locks of any kind on these bytes."""
        answer = fcntl.fcntl(handle, fcntl.F_GETLK, _request(fcntl.F_WRLCK, span))
        return bool(struct.unpack_from("h", answer)[0] != fcntl.F_UNLCK)

else:

    def _lock(handle: int, *, exclusive: bool, span: tuple[int, int]) -> bool:  # noqa: ARG001
        return True

    def _unlock(handle: int, span: tuple[int, int]) -> None: ...

    def _is_locked_by_others(handle: int, span: tuple[int, int]) -> bool:  # noqa: ARG001
        return True


class FileLocks:
    """The locks of this process on one file. `acquire` returns them; each owner releases and closes them once.

    Args:
        handle: a handle of the file, for writing where that is permitted.
        identity: the file.
    """

    def __init__(self, handle: int, identity: Identity) -> None:
        self.identity = identity
        self.owners = 0
        self._handle = handle
        self._shm: int | None = None  # a handle of the -shm file
        self._deleted: list[int] = []  # handles of earlier -shm files
        self._writers = 0
        self._mutex = threading.Lock()

    def add_owner(self) -> bool:
        """Count one more owner; False while another process holds the file exclusively."""
        with self._mutex:
            if not self.owners and not _lock(self._handle, exclusive=False, span=_SHARED_BYTES):
                return False
            self.owners += 1
            return True

    def lock_shm(self, path: str) -> None:
        """Lock the -shm file at *path*, which SQLite has opened."""
        with self._mutex:
            try:
                current = identity_of(os.stat(path))
            except OSError:  # the file has no log
                return
            if self._shm is not None and identity_of(os.fstat(self._shm)) != current:
                self._deleted.append(self._shm)
                self._shm = None
            if self._shm is None:
                self._shm = _open(path)
            if self._shm is not None:
                _lock(self._shm, exclusive=False, span=_DEAD_MAN_SWITCH)

    def lock_write(self) -> bool:
        """Lock the write byte; False while another process has it. Stores of this process share it."""
        with self._mutex:
            if not self._writers:
                try:
                    fcntl.fcntl(self._handle, fcntl.F_OFD_SETLK, _LOCK_WRITE_BYTE)
                except OSError as error:
                    if error.errno in (errno.EAGAIN, errno.EACCES):
                        return False
                    if error.errno != errno.EBADF:  # the handle is for reading: nothing is written by this process
                        raise
            self._writers += 1
            return True

    def unlock_write(self) -> None:
        """Undo one `lock_write`."""
        with self._mutex:
            self._writers -= 1
            if not self._writers:
                fcntl.fcntl(self._handle, fcntl.F_OFD_SETLK, _UNLOCK_WRITE_BYTE)

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether no other process has the file open. If so, none can open it during the block."""
        with self._mutex:
            is_alone = self.owners == 1 and _lock(self._handle, exclusive=True, span=_PENDING_BYTE)
            try:
                if is_alone:
                    _unlock(self._handle, _SHARED_BYTES)
                    try:
                        is_alone = not _is_locked_by_others(self._handle, _SHARED_BYTES)
                    finally:
                        _lock(self._handle, exclusive=False, span=_SHARED_BYTES)
                yield is_alone
            finally:
                _unlock(self._handle, _PENDING_BYTE)

    def release(self) -> None:
        """Remove an owner; with the last one the locks are released. Called before its last connection closes.

        Only then can SQLite lock the file exclusively, write the log back and delete it.
        """
        with self._mutex:
            self.owners -= 1
            if not self.owners:
                _unlock(self._handle, _SHARED_BYTES)
                if self._shm is not None:
                    _unlock(self._shm, _DEAD_MAN_SWITCH)

    def handles(self) -> list[int]:
        """The open handles."""
        return [self._handle, *([] if self._shm is None else [self._shm]), *self._deleted]


_registry: dict[Identity, FileLocks] = {}
_registry_lock = ProcessLock()


def acquire(path: str, timeout: float) -> FileLocks | None:
    """The locks of the file at *path*, with one more owner; None where the system has no such locks.

    Raises:
        BusyError: another process held the file exclusively for longer than *timeout*, in seconds.
    """
    if sys.platform != "linux":
        return None
    deadline = monotonic() + timeout
    while True:
        with _registry_lock:
            locks = _registered(path)
            try:
                if locks is None or locks.add_owner():
                    return locks
            except OSError:  # the file system has no such locks
                return None
        if monotonic() >= deadline:
            raise BusyError(f"Another process used {path!r} exclusively for {timeout:g} s: try again")
        time.sleep(_POLL_INTERVAL)


def _registered(path: str) -> FileLocks | None:
    try:
        locks = _registry.get(identity_of(os.stat(path)))
    except OSError:  # the next access to the file reports it
        return None
    if locks is None:
        handle = _open(path)
        if handle is None:
            return None
        identity = identity_of(os.fstat(handle))
        locks = _registry.setdefault(identity, FileLocks(handle, identity))
    return locks


def close_unused() -> None:
    """Close the handles of files without owners, unless the process has other handles of the same file."""
    if sys.platform != "linux" or not _registry:
        return
    with _registry_lock:
        unused = [locks for locks in _registry.values() if not locks.owners]
        counts = open_handles() if unused else Counter[Identity]()
        for locks in unused:
            handles = locks.handles()
            if all(counts[identity_of(os.fstat(handle))] <= 1 for handle in handles):
                del _registry[locks.identity]
                for handle in handles:
                    os.close(handle)


def open_handles() -> "Counter[Identity]":
    """How many handles this process has of each file; empty where the system does not tell."""
    counts: Counter[Identity] = Counter()
    try:
        names = os.listdir(_HANDLES)
    except OSError:
        return counts
    for name in names:
        try:
            counts[identity_of(os.fstat(int(name)))] += 1
        except OSError:  # closed meanwhile
            continue
    return counts


def _open(path: str) -> int | None:
    for flags in (os.O_RDWR, os.O_RDONLY):
        try:
            return os.open(path, flags | os.O_CLOEXEC)
        except OSError:
            continue
    return None


def _in_child() -> None:
    """Close the handles that a forked child inherits. They are shared with the parent, which keeps its locks."""
    for locks in _registry.values():
        for handle in locks.handles():
            os.close(handle)
    _registry.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)

"""Whether the opened file is still the file at its path, with the log that was opened with it.

An open connection refers to its files by handles. It goes on reading, and acknowledging writes, in a file or a log that
another program moved, deleted or replaced, and nobody who opens the path would find those writes. So the paths of the
file and of its log are checked before each transaction, and again before each COMMIT; a check takes 3 to 5 µs. A file
whose bytes are overwritten in place counts as the same file.

Where the system has open file description locks (`file_locks`), no process that uses SQLite deletes a log that is in
use. Elsewhere, and where a hand deletes it, the checks detect it.
"""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager

from memstore.concurrency import ProcessLock, monotonic
from memstore.database import file_locks
from memstore.database.file_locks import FileLocks, Identity, identity_of
from memstore.database.read_only import delete_log
from memstore.errors import BusyError, OpenError, StorageError, StoreReplacedError

LOG_SUFFIXES = ("-wal", "-shm")
_POLL_INTERVAL = 0.002  # seconds
_MOUNTS = "/proc/self/mountinfo"


class OpenedFile:
    """The file that is at *path* now and is about to be opened.

    Args:
        path: the file, without symbolic links.
        link: a path to it that leads through symbolic links, if the caller gave one.
        immutable: it is read as a file that nobody changes: without locks and without a log.
        delete_log: the connections only read, and create the log that they need: it is deleted after them.

    Attributes:
        locks: the locks that this process holds on it; None before `lock`, and where the system has none.
    """

    def __init__(
        self, path: str, link: str | None = None, *, immutable: bool = False, delete_log: bool = False
    ) -> None:
        self.path = path
        self.immutable = immutable
        self._delete_log = delete_log
        self._identity = _identity(path)
        self._log: list[tuple[str, Identity]] = []  # the path and the identity of each file of the log
        names = (path,) if link is None else (path, link)
        self._expected = [(name, self._identity) for name in names]  # what `check` compares
        self.locks: FileLocks | None = None
        self._is_registered = False
        self._version = _version(path) if immutable else None

    @property
    def in_place(self) -> bool:
        """Whether it is still at its path, with its log."""
        return self._identity == _identity(self.path) and not self._changed_log()

    def lock(self, timeout: float) -> None:
        """Hold the locks of `file_locks`. Called before the first connection is opened."""
        self.locks = file_locks.acquire(self.path, timeout)
        self.register()

    def register(self) -> None:
        """Count it among the files that this process has open."""
        if self._identity is not None and not self._is_registered:
            self._is_registered = True
            with _opened_lock:
                _opened.append(self._identity)

    def log_opened(self) -> None:
        """Remember which files the log consists of. Called when the first connection has opened them."""
        if self.locks is not None:
            self.locks.lock_shm(f"{self.path}-shm")
        for suffix in LOG_SUFFIXES:
            identity = _identity(self.path + suffix)
            if identity is not None:
                self._log.append((self.path + suffix, identity))
        self._expected += self._log

    def check(self) -> None:
        """Raise `StoreReplacedError` if it is no longer at its path, `StorageError` if the path cannot be read."""
        try:
            for path, identity in self._expected:
                status = os.stat(path)
                if (status.st_dev, status.st_ino) != identity:
                    break
            else:
                if self.immutable and self._version != _version(self.path):
                    raise StoreReplacedError(
                        f"{self.path!r} is being written by another process, which this read-only store cannot follow, "
                        "because the folder of the file cannot be written. Close this store and open it again"
                    )
                return
        except (FileNotFoundError, NotADirectoryError):  # a folder of the path may be missing too
            status = None
        except OSError as error:
            raise _unreadable(path, error) from error
        change = "was deleted or moved" if status is None else "is another file than the one that was opened"
        raise StoreReplacedError(
            f"{path!r} {change}. Nothing was written: close this store, then open the path again for what is "
            "there now, or move the file back"
        )

    @contextmanager
    def lost_log(self) -> Iterator[bool]:
        """Whether the log was deleted by hand, and only this process has the file open, during the block.

        Then the log still exists in the connections of this process, and can be written into the file.
        """
        changed = self._changed_log()
        if self.locks is None or not changed or _identity(self.path) != self._identity:
            yield False
            return
        with self.locks.alone() as is_alone:
            yield is_alone and all(current is None for _, current in self._changed_log())

    @contextmanager
    def excluding_writers(self, wait: float) -> Iterator[None]:
        """Keep other processes from writing during the block, which begins its own transactions.

        Raises:
            BusyError: another process was writing for longer than *wait*, in seconds.
        """
        locks, deadline = self.locks, monotonic() + wait
        if locks is None:
            yield
            return
        while not locks.lock_write():
            if monotonic() >= deadline:
                raise BusyError(f"Another process was writing for longer than {wait:g} s: try again")
            time.sleep(_POLL_INTERVAL)
        try:
            yield
        finally:
            locks.unlock_write()

    @contextmanager
    def closing(self) -> Iterator[None]:
        """The block closes the last connection.

        With another log at the path, the locks are held during the block: SQLite then does not write the log of this
        store, which is older, into the file, and does not delete the other log.
        """
        is_other_log = any(current is not None for _, current in self._changed_log())
        if not is_other_log:
            self.release()
        try:
            yield
        finally:
            self.release()
            file_locks.close_unused()
            if self._delete_log:
                delete_log(self.path)

    def release(self) -> None:
        """Release the locks, if they are held."""
        locks, self.locks = self.locks, None
        if locks is not None:
            locks.release()
        if self._is_registered and self._identity is not None:
            self._is_registered = False
            with _opened_lock:
                _opened.remove(self._identity)

    def _changed_log(self) -> list[tuple[str, Identity | None]]:
        return [(path, current) for path, identity in self._log if (current := _identity(path)) != identity]


_opened: list[Identity] = []  # once for each open store
_opened_lock = ProcessLock()


def is_open(identity: Identity) -> bool:
    """Whether this process has a store open in the file."""
    return identity in _opened


def check_single_name(path: str) -> None:
    """Raise `OpenError` if the file at *path* has another name, under which it has another log."""
    try:
        status = os.stat(path)
    except OSError:  # there is no file yet, or the next access reports what is wrong
        return
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        raise OpenError(
            f"{path!r} has {status.st_nlink} names (hard links): expected 1. SQLite keeps a log for each name, and "
            "commits would be lost. Delete the other names, or make a copy (`cp`) and open the copy"
        )
    if _is_mount_point(path):
        raise OpenError(
            f"{path!r} is a mount of a single file: its log would be outside the mount, and commits would be lost. "
            "Mount the folder of the file instead"
        )


def _is_mount_point(path: str) -> bool:
    try:
        with open(_MOUNTS, encoding="utf-8", errors="surrogateescape") as mounts:
            points = [line.split(" ", 5)[4] for line in mounts]
    except (OSError, IndexError):
        return False
    escaped = path.replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")
    return escaped in points


def _version(path: str) -> tuple[int, int, bool]:
    """What changes when another process writes to a file: its time, its size, and whether it has a log."""
    try:
        status = os.stat(path)
    except OSError:  # the comparison of identities reports it
        return 0, 0, False
    return status.st_mtime_ns, status.st_size, os.path.exists(f"{path}-wal")


def _identity(path: str) -> Identity | None:
    try:
        return identity_of(os.stat(path))
    except (FileNotFoundError, NotADirectoryError):  # a folder of the path may be missing too
        return None
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError) -> StorageError:
    return StorageError(f"Cannot read {path!r} ({error}): check the folders of the path")

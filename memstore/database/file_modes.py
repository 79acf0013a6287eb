"""The permissions of the files that memstore makes: private, unless the caller's own file is not.

A new file has mode 0600, whatever the umask. A copy of a store has no wider permissions than the store, and a file that
replaces another one has those of that file. SQLite gives `-wal`, `-shm` and `-journal` the permissions of the database
file.
"""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PRIVATE = 0o600


def mode_like(path: str | os.PathLike[str]) -> int:
    """The mode of a new file with contents of the store at *path*: who may read and write it. Never executable."""
    try:
        return stat.S_IMODE(os.stat(path).st_mode) & 0o666 | PRIVATE
    except OSError:  # whatever needs the file reports what is wrong with it
        return PRIVATE


def create_file(path: str | os.PathLike[str], mode: int = PRIVATE, *, like: Path | None = None) -> int:
    """A descriptor of the new, empty file *path*, for writing.

    Args:
        path: a path without a file.
        mode: its mode. The umask narrows it, but to 0600 at most.
        like: a file that it will replace; its mode is used as it is. None, or a missing file, for *mode*.

    Raises:
        FileExistsError: there is a file, or a link of any kind.
        OSError: it cannot be created.
    """
    replaced = None if like is None or not like.exists() else stat.S_IMODE(like.stat().st_mode)
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, mode if replaced is None else PRIVATE)
    if hasattr(os, "fchmod"):  # not on Windows
        os.fchmod(descriptor, stat.S_IMODE(os.fstat(descriptor).st_mode) | PRIVATE if replaced is None else replaced)
    return descriptor


@contextmanager
def new_file(path: Path, mode: int = PRIVATE) -> Iterator[int]:
    """A descriptor of a file that appears at *path* when the block ends; see `create_file`. Closes it.

    On Linux the file has no name before, so that a process that is killed leaves nothing. Elsewhere it is deleted if
    the block raises.
    """
    try:
        descriptor = os.open(path.parent, os.O_TMPFILE | os.O_RDWR, mode)
    except (AttributeError, OSError):  # the system, or the file system, has no files without a name
        descriptor, is_named = create_file(path, mode), True
    else:
        is_named = False
    with open(descriptor, "rb", closefd=True):
        try:
            if not is_named:
                os.fchmod(descriptor, stat.S_IMODE(os.fstat(descriptor).st_mode) | PRIVATE)
            yield descriptor
            if not is_named:  # with a folder, so that Python uses `linkat`, which follows the link to the descriptor
                folder = os.open(path.parent, os.O_RDONLY)
                try:
                    os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=folder, follow_symlinks=True)
                finally:
                    os.close(folder)
        except BaseException:
            if is_named:
                path.unlink()
            raise


@contextmanager
def private_template(path: str) -> Iterator[str]:
    """A private file, whose permissions SQLite copies to a database file that it creates at *path* (`modeof`).

    memstore does not create the database file itself: if another thread opened it at once, closing this descriptor
    would drop the locks of that thread.
    """
    try:
        template = tempfile.NamedTemporaryFile(prefix="memstore-")  # noqa: SIM115 - closed below
    except OSError:  # no folder for temporary files
        template = tempfile.NamedTemporaryFile(prefix=".memstore-", dir=Path(path).parent)  # noqa: SIM115
    with template:
        if hasattr(os, "fchmod"):
            os.fchmod(template.fileno(), PRIVATE)  # the umask may have taken this too
        yield template.name

"""Whether the file that was opened is the one that lies at its path still.

An open connection has its file by a handle: it goes on reading, and acknowledging writes, in a file that another
program has moved away, deleted, or put another in place of. Nobody who opens the path would find those writes. So the
path is looked up before each transaction, and once more before each COMMIT; a look is 1 to 2 µs. A file whose bytes
are overwritten where it lies is the same file to this.
"""

import os
from typing import NamedTuple

from memstore.errors import StorageError, StoreReplacedError


class _Identity(NamedTuple):
    device: int
    inode: int


class OpenedFile:
    """The file at *path* at this moment, which is about to be opened."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._identity = _look(path)

    @property
    def in_place(self) -> bool:
        """Whether it lies at its path."""
        return _look(self._path) == self._identity

    def check(self) -> None:
        """Raise `StoreReplacedError` where it does not lie at its path, `StorageError` where that cannot be seen."""
        found = _look(self._path)
        if found == self._identity:
            return
        what = "was deleted or moved away" if found is None else "is another file than the one that was opened"
        raise StoreReplacedError(
            f"{self._path!r} {what}: nothing was written; close this store, and open the path again for what is there "
            "now, or put the file back"
        )


def _look(path: str) -> _Identity | None:
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):  # a folder on the way to it can go too
        return None
    except OSError as error:
        raise StorageError(f"{path!r} cannot be looked up ({error}): see to the folders on the way to it") from error
    return _Identity(found.st_dev, found.st_ino)

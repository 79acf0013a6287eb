"""Keeps two SQLite libraries of one process apart: Python's own, and pysqlite3.

Two libraries do not see each other's locks. The one that closes a file first drops the locks of the other, and both may
write at once. So a connection of the library that memstore does not use is refused for a file that a store has open,
and a store is refused for a file to which such a connection is open.

Python's `sqlite3` reports its connections by the audit event `sqlite3.connect`. pysqlite3 has no such event, so its
`connect` is wrapped. Nothing is installed where pysqlite3 is not.
"""

import functools
import gc
import os
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from memstore.database import file_locks
from memstore.database.file_identity import is_open
from memstore.database.file_locks import identity_of
from memstore.database.sqlite import SOURCE, VERSION, installed, sqlite3, stdlib
from memstore.errors import OpenError, UsageError
from memstore.escaping import library_logger

_MAX_PATHS = 1_000
_OTHER = "pysqlite3" if SOURCE == "sqlite3" else "sqlite3"
_ADVICE = (
    "Two SQLite libraries in one process drop each other's locks, and data is lost. Set MEMSTORE_SQLITE="
    f"{'pysqlite3' if _OTHER == 'pysqlite3' else 'stdlib'} in the environment, so that memstore uses the library of "
    "your code, or use `from memstore.database.sqlite import sqlite3` in your code"
)
_log = library_logger("memstore.sqlite")
_paths: dict[str, None] = {}  # files to which the other library connected, oldest first; perhaps closed meanwhile


def check_connections(path: str) -> None:
    """Raise `OpenError` if the other library has a connection to the file at *path*, which is about to be opened.

    A handle that was opened before memstore was imported is only logged: it may be that of a reader of bytes.
    """
    if installed is None:
        return
    try:
        identity = identity_of(os.stat(path))
    except OSError:  # there is no file yet, or the next access reports what is wrong
        return
    if is_open(identity):
        return
    file_locks.close_unused()
    if not file_locks.open_handles()[identity]:
        _paths.pop(path, None)
        return
    if path in _paths:
        raise OpenError(f"{path!r} is open in this process by {_OTHER}, and memstore uses {_source()}. {_ADVICE}")
    if _other_has_connections():
        _log.error(
            "%r is already open in this process by other code. If that is a connection of %s, close it: memstore uses "
            "%s. %s",
            path,
            _OTHER,
            _source(),
            _ADVICE,
        )


def _source() -> str:
    return f"{SOURCE} (SQLite {'.'.join(map(str, VERSION))})"


def _other_has_connections() -> bool:
    """Whether the other library has any connection. Takes 10 ms for 100,000 objects."""
    other: Any = stdlib if sqlite3 is installed else installed
    return any(issubclass(type(value), other.Connection) for value in gc.get_objects())


def _on_connect(database: object) -> None:
    """Called before the other library connects to *database*. Raises `UsageError` if a store has that file open."""
    for path in _file_paths(database):
        try:
            identity = identity_of(os.stat(path))
        except (OSError, ValueError):
            identity = None
        if identity is not None and is_open(identity):
            raise UsageError(
                f"memstore has {path!r} open in this process by {_source()}, so {_OTHER} must not open it. {_ADVICE}"
            )
        _paths.pop(path, None)
        _paths[path] = None
    while len(_paths) > _MAX_PATHS:
        del _paths[next(iter(_paths))]


def _file_paths(database: object) -> list[str]:
    """The paths that the argument of `connect` may mean. A text that begins with `file:` is a path or a URI."""
    if not isinstance(database, str | bytes | os.PathLike):
        return []
    text = os.fsdecode(database)
    if text in ("", ":memory:"):
        return []
    names = [text]
    if text.startswith("file:"):
        name = unquote(text[5:].split("#", 1)[0].split("?", 1)[0])
        names.append("/" + name.lstrip("/").partition("/")[2] if name.startswith("//") and name[2:3] != "/" else name)
    return [os.path.realpath(name) for name in names if "\0" not in name]


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "sqlite3.connect":
        _on_connect(arguments[0])


def _checked(connect: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(connect)
    def checked(database: Any, *arguments: Any, **options: Any) -> Any:
        _on_connect(database)
        return connect(database, *arguments, **options)

    return checked


def _install() -> None:
    if installed is None or installed is stdlib:
        return
    if sqlite3 is installed:
        sys.addaudithook(_audit)
        return
    for module in (installed, installed.dbapi2):
        module.connect = _checked(module.connect)


_install()

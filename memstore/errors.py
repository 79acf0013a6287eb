"""Every error memstore raises, in one tree.

::

    MemstoreError
    ├── OpenError                   the file cannot be opened
    │   ├── ForeignFileError        it is not a memstore file
    │   ├── MissingFileError        (FileNotFoundError) there is no file or folder where one is needed
    │   ├── NewerFileError          it was written by a newer release
    │   └── SettingsMismatchError   (ValueError) it has another dimension, metric, curvature or embedder
    ├── InvalidError                (ValueError) an argument was refused; nothing was written
    │   ├── DimensionError          an embedding of another dimension
    │   ├── EmbeddingError          an embedding that cannot be stored or searched
    │   └── FilterError             a filter the language does not have
    ├── DuplicateError              (ValueError) the id is taken
    ├── NotFoundError               (LookupError) there is no such record
    ├── StalePlanError              (RuntimeError) a plan to forget of what has changed since
    ├── ConflictError               (RuntimeError) a change or merge that cannot be undone: later changes depend on it
    ├── HistoryError                (LookupError) what is asked for of the past is not known
    ├── BusyError                   (TimeoutError) another writer held the file too long
    ├── TransactionError            (RuntimeError) a transaction used where it cannot be
    ├── UsageError                  (RuntimeError) the store used where it cannot be
    │   ├── ClosedError             after it was closed
    │   ├── EventLoopError          from another event loop than the one that opened it
    │   ├── ForkedStoreError        in a forked child
    │   └── ReadOnlyError           for writing, while opened with read_only=True
    ├── EmbedderError               no embedder where one is needed, or one that returned what cannot be stored
    ├── EngineError                 the search engine asked for cannot be used safely here
    ├── LoadError                   a load stopped partway; says how many were stored
    └── StorageError                (OSError) SQLite or the disk failed
        ├── CommitUnknownError      whether the last write was stored is known only after a reopen
        ├── DamagedError            what is stored cannot be what was written
        └── StoreReplacedError      the file was moved, deleted or replaced while it was open

Errors carry their data as attributes, and their message says what to do next. Errors of SQLite and
SQLAlchemy are translated in `memstore.database`, and nowhere else.
"""

import datetime
import reprlib

__all__ = [
    "BusyError",
    "ClosedError",
    "CommitUnknownError",
    "ConflictError",
    "DamagedError",
    "DimensionError",
    "DuplicateError",
    "EmbedderError",
    "EmbeddingError",
    "EngineError",
    "EventLoopError",
    "FilterError",
    "ForeignFileError",
    "ForkedStoreError",
    "HistoryError",
    "InvalidError",
    "LoadError",
    "MemstoreError",
    "MissingFileError",
    "NewerFileError",
    "NotFoundError",
    "OpenError",
    "ReadOnlyError",
    "SettingsMismatchError",
    "StalePlanError",
    "StorageError",
    "StoreReplacedError",
    "TransactionError",
    "UsageError",
]


class MemstoreError(Exception):
    """The base of every error memstore raises."""


_words = reprlib.Repr()
_words.maxstring = _words.maxother = 200


def short_repr(value: object) -> str:
    """*value* as a message shows it: no more than its beginning, and its type where its own `repr` raises."""
    try:
        return _words.repr(value)
    except Exception:  # noqa: BLE001 - an integer of 5,000 digits raises, and a caller's class may raise anything
        return f"a value of type {type(value).__name__}"


class OpenError(MemstoreError):
    """The file cannot be opened as a store."""


class ForeignFileError(OpenError):
    """The file is not a memstore file; it was not touched."""


class MissingFileError(OpenError, FileNotFoundError):
    """There is no file, or no folder, where one is needed."""


class NewerFileError(OpenError):
    """The file was written by a newer release; it was not touched.

    Attributes:
        revision: the schema revision found in the file.
    """

    def __init__(self, message: str, *, revision: str) -> None:
        super().__init__(message)
        self.revision = revision


class SettingsMismatchError(OpenError, ValueError):
    """The file holds another dimension, metric, curvature or embedder than was asked for, or than when it was opened.

    Attributes:
        setting: `"dimension"`, `"metric"`, `"curvature"` or `"embedder"`.
        expected: what the file holds.
        got: what was asked for.
    """

    def __init__(self, setting: str, *, expected: object, got: object, restored: bool = False) -> None:
        super().__init__(
            f"the file was replaced by one with {setting} {expected!r} while this store was open with {got!r}: "
            "close it, and open it again for what is there now"
            if restored
            else f"this file has {setting} {expected!r}, but {got!r} was asked for: "
            f"leave {setting} out to use what is stored, or open another file"
        )
        self.setting = setting
        self.expected = expected
        self.got = got


class InvalidError(MemstoreError, ValueError):
    """An argument was refused; nothing was written."""


class DimensionError(InvalidError):
    """An embedding of another dimension than the store's.

    Attributes:
        expected: the store's dimension.
        got: the dimension, or the shape, that was given.
    """

    def __init__(self, *, expected: int, got: object) -> None:
        super().__init__(f"this store holds embeddings of dimension {expected}; got {got}")
        self.expected = expected
        self.got = got


class EmbeddingError(InvalidError):
    """An embedding that cannot be stored or searched: not numbers, not finite, or without a place in the metric."""


class FilterError(InvalidError):
    """A filter the language does not have; see the guide for the whole of it."""


class DuplicateError(MemstoreError, ValueError):
    """The id is taken.

    Attributes:
        id: the id that exists, or that was given twice.
    """

    def __init__(self, noun: str, id: str, *, given_twice: bool = False, restored: bool = False) -> None:
        what = (
            "was given twice in one call" if given_twice else "exists: use upsert to replace it, or update to change it"
        )
        if restored:
            what = "exists again: forget or delete that one to bring back the one before it"
        super().__init__(f"{noun} {id!r} {what}")
        self.id = id


class NotFoundError(MemstoreError, LookupError):
    """There is no such record in this namespace.

    Attributes:
        id: the id that was not found.
    """

    def __init__(self, noun: str, id: str, namespace: tuple[str, ...], *, trash: bool = False) -> None:
        super().__init__(f"there is no {noun} {id!r} in {'the trash of ' if trash else ''}namespace {namespace!r}")
        self.id = id
        self.namespace = namespace


class StalePlanError(MemstoreError, RuntimeError):
    """Records that a plan names are not what they were when it was made; nothing was moved.

    Attributes:
        ids: of those records.
    """

    def __init__(self, noun: str, ids: list[str]) -> None:
        some = ", ".join(map(short_repr, ids[:3])) + (f" and {len(ids) - 3:,} more" if len(ids) > 3 else "")
        super().__init__(
            f"this plan is stale, and nothing was moved: {noun} {some} {'was' if len(ids) == 1 else 'were'} changed, "
            "used, pinned or deleted since it was made; plan again"
        )
        self.ids = ids


class ConflictError(MemstoreError, RuntimeError):
    """A change or a merge cannot be undone, because later changes depend on it; nothing was written.

    Attributes:
        later: the numbers of the later changes that depend on it, ascending; empty for a merge.
        merge: the number of the merge; None for a change.
    """

    def __init__(self, message: str, *, later: tuple[int, ...] = (), merge: int | None = None) -> None:
        super().__init__(message)
        self.later = later
        self.merge = merge


class HistoryError(MemstoreError, LookupError):
    """What is asked for of the past is not known, or not any more.

    Attributes:
        since: from when on everything is known; None where the file keeps nothing of its past.
    """

    def __init__(self, message: str, *, since: datetime.datetime | None) -> None:
        super().__init__(message)
        self.since = since

    @classmethod
    def before(cls, since: datetime.datetime | None) -> "HistoryError":
        """The error where *since* is later than what was asked for."""
        if since is None:
            return cls("this file keeps nothing of its past: open it with history='full' to begin", since=None)
        return cls(f"the history of this file is known from {since.isoformat()} on: ask for then or later", since=since)


class BusyError(MemstoreError, TimeoutError):
    """Another writer held the file for longer than `timeout`; nothing was written, so try again."""


class TransactionError(MemstoreError, RuntimeError):
    """A transaction was used where it cannot be."""


class UsageError(MemstoreError, RuntimeError):
    """The store was used where it cannot be."""


class ClosedError(UsageError):
    """The store is closed: open it again."""


class EventLoopError(UsageError):
    """The store belongs to another event loop: open one in this loop."""


class ForkedStoreError(UsageError):
    """The store was opened in the parent process: open one in the child."""


class ReadOnlyError(UsageError):
    """The store was opened with `read_only=True`."""


class EmbedderError(MemstoreError):
    """There is no embedder where one is needed, or it returned what cannot be stored."""


class EngineError(MemstoreError):
    """The search engine asked for cannot be used safely in this process."""


class LoadError(MemstoreError):
    """A load stopped partway; its cause is the error that stopped it.

    Attributes:
        stored: how many items were stored, durably, before it stopped.
    """

    def __init__(self, message: str, *, stored: int) -> None:
        super().__init__(message)
        self.stored = stored


class StorageError(MemstoreError, OSError):
    """SQLite or the disk failed; the message is SQLite's own."""


class CommitUnknownError(StorageError):
    """Whether the last write was stored is known only after a reopen; the store takes no more writes."""


class DamagedError(StorageError):
    """What is stored cannot be what was written; `check()` names every such record."""


class StoreReplacedError(StorageError):
    """The file at the store's path is not the one that was opened, or there is none; nothing was written."""

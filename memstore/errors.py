"""Every error that memstore raises, in one tree.

::

    MemstoreError
    ├── OpenError                   the file cannot be opened
    │   ├── ForeignFileError        it is not a memstore file
    │   ├── MissingFileError        (FileNotFoundError) there is no file or folder where one is needed
    │   ├── NewerFileError          it was written by a newer release
    │   └── SettingsMismatchError   (ValueError) it has another dimension, metric, curvature or embedder
    ├── InvalidError                (ValueError) an invalid argument; nothing was written
    │   ├── DimensionError          an embedding of another dimension
    │   ├── EmbeddingError          an embedding that cannot be stored or searched
    │   └── FilterError             a filter that the filter language does not have
    ├── DuplicateError              (ValueError) the id exists already
    ├── NotFoundError               (LookupError) there is no such record
    ├── ConflictError               (RuntimeError) what the caller passes does not agree with the file any more
    │   └── StalePlanError          records changed after the plan to forget them was made
    ├── HistoryError                (LookupError) the file does not keep that part of its history
    ├── BusyError                   (TimeoutError) another writer used the file for too long
    ├── TransactionError            (RuntimeError) a transaction used in a way that is not possible
    ├── UsageError                  (RuntimeError) the store used in a way that is not possible
    │   ├── ClosedError             after it was closed
    │   ├── EventLoopError          from another event loop than the one that opened it
    │   ├── ForkedStoreError        in a forked child
    │   └── ReadOnlyError           for writing, although opened with read_only=True
    ├── EmbedderError               no embedder where one is needed, or an embedder with invalid output
    ├── EngineError                 the requested search engine cannot be used safely in this process
    ├── LoadError                   a load stopped partway; gives the number of stored items
    └── StorageError                (OSError) SQLite or the disk failed
        ├── CommitUnknownError      whether the write was stored is known only after the next write that succeeds
        ├── DamagedError            the file contains values that memstore did not write
        └── StoreReplacedError      the file or its log was moved, deleted or replaced while it was open

An error has its data as attributes, and its message says what to do next. Only `memstore.database`
translates errors of SQLite and SQLAlchemy.
"""

import datetime
import reprlib
import typing
from collections import abc

from memstore.escaping import escape_text

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
    """The base of every error memstore raises. Its message is one line without control characters.

    Pickle and copy keep its message, attributes and notes.

    Attributes:
        item: index, from 0, of the item of a batch that caused it; None if it is not about one item.
        item_id: the id of that item; None if it has none.
    """

    item: int | None = None
    item_id: object = None
    detail: str

    def __str__(self) -> str:
        return escape_text(super().__str__())

    def of_item(self, index: int, id: object = None) -> typing.Self:
        """The same error, whose message starts with the index, from 0, and the id of the item that caused it."""
        if self.item is None:
            self.detail = self.args[0]
        name = "" if id is None else f" (id {short_repr(id)})"
        self.args = (f"Item {index}{name}, counted from 0: {self.detail}", *self.args[1:])
        self.item, self.item_id = index, id
        return self

    def __reduce__(self) -> tuple[abc.Callable[..., typing.Any], tuple[typing.Any, ...]]:
        return _restored, (type(self), self.args, self.__dict__)


def _restored(
    kind: type[MemstoreError], arguments: tuple[typing.Any, ...], attributes: dict[str, typing.Any]
) -> MemstoreError:
    """The error with these arguments and attributes: `__init__` of most errors takes others than the message."""
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    error.__dict__.update(attributes)
    if "__notes__" in attributes:
        error.__notes__ = list(attributes["__notes__"])
    return error


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 200


def short_repr(value: object) -> str:
    """The `repr` of *value* for a message: only its beginning if it is long, and its type if `repr` raises."""
    try:
        return escape_text(_short.repr(value))
    except Exception:  # noqa: BLE001 - the repr of a caller's class may raise anything
        return f"a value of type {type(value).__name__}"


def describe_content(value: object) -> str:
    """What *value*, a part of a record, is, for a message that must not contain it: its type and size.

    Numbers, booleans and None are shown: they say what is wrong, and no more.
    """
    if value is None or isinstance(value, bool | int | float):
        return short_repr(value)
    unit = "characters" if isinstance(value, str) else "bytes" if isinstance(value, bytes | bytearray) else "items"
    try:
        return f"{type(value).__name__} of {len(value):,} {unit}"  # type: ignore[arg-type]  # most values have none
    except Exception:  # noqa: BLE001 - a value without a length, or one whose length raises
        return f"a value of type {type(value).__name__}"


class OpenError(MemstoreError):
    """The file cannot be opened as a store."""


class ForeignFileError(OpenError):
    """The file is not a memstore file; it was not changed."""


class MissingFileError(OpenError, FileNotFoundError):
    """A file or a folder is missing."""


class NewerFileError(OpenError):
    """A newer release wrote the file; it was not changed.

    Attributes:
        revision: the schema revision of the file.
    """

    def __init__(self, message: str, *, revision: str) -> None:
        super().__init__(message)
        self.revision = revision


class SettingsMismatchError(OpenError, ValueError):
    """The file has another dimension, metric, curvature or embedder than requested, or than when it was opened.

    Attributes:
        setting: `"dimension"`, `"metric"`, `"curvature"` or `"embedder"`.
        expected: the value in the file.
        got: the requested value.
    """

    def __init__(self, setting: str, *, expected: object, got: object, restored: bool = False) -> None:
        if restored:
            message = (
                f"The content of the file was replaced while this store was open: expected {setting} {got!r}, found "
                f"{expected!r}. Close the store and open it again"
            )
        elif setting == "embedder":
            message = (
                f"The vectors of this file are from embedder {expected!r}; those of {got!r} cannot be compared with "
                f"them. If it is the same model under another name, give the embedder the name {expected!r}; for "
                "another model, open the file without an embedder, and copy it with memstore.importers.reembed"
            )
        else:
            message = (
                f"This file has {setting} {expected!r}, but {got!r} was requested: "
                f"leave {setting} out to use the stored value, or open another file"
            )
        super().__init__(message)
        self.setting = setting
        self.expected = expected
        self.got = got


class InvalidError(MemstoreError, ValueError):
    """An argument is invalid; nothing was written."""


class DimensionError(InvalidError):
    """An embedding of another dimension than the store's.

    Attributes:
        expected: the dimension of the store.
        got: the dimension, or the shape, of the argument.
    """

    def __init__(self, *, expected: int, got: object) -> None:
        super().__init__(f"Wrong dimension of an embedding: expected {expected}, found {got}")
        self.expected = expected
        self.got = got


class EmbeddingError(InvalidError):
    """An embedding that cannot be stored or searched: not numbers, not finite, or outside the domain of the metric."""


class FilterError(InvalidError):
    """A filter that the filter language does not have; the guide describes the language."""


class DuplicateError(MemstoreError, ValueError):
    """The id exists already.

    Attributes:
        id: the id that exists, or that one call contains twice.
    """

    def __init__(self, record_kind: str, id: str, *, given_twice: bool = False, restored: bool = False) -> None:
        if given_twice:
            reason = "is twice in one call: give each id once"
        elif restored:
            reason = "exists again: forget or delete it to recover the earlier one"
        else:
            reason = "exists: use upsert to replace it, or update to change it"
        super().__init__(f"{record_kind.capitalize()} {id!r} {reason}")
        self.id = id


class NotFoundError(MemstoreError, LookupError):
    """There is no such record in this namespace.

    Attributes:
        id: the id that was not found.
    """

    def __init__(self, record_kind: str, id: str, namespace: tuple[str, ...], *, trash: bool = False) -> None:
        super().__init__(
            f"There is no {record_kind} {id!r} in {'the trash of ' if trash else ''}namespace {namespace!r}"
        )
        self.id = id
        self.namespace = namespace


class ConflictError(MemstoreError, RuntimeError):
    """What the caller passes does not agree with the file any more; nothing was written.

    A change or a merge cannot be undone because later changes depend on it, or because it was read from another file or
    before a backup was restored into this one. A list as of a time cannot go on after a backup was restored.

    Attributes:
        later: the numbers of the later changes that depend on it, ascending; empty for a merge.
        merge: the number of the merge; None for a change.
    """

    def __init__(self, message: str, *, later: tuple[int, ...] = (), merge: int | None = None) -> None:
        super().__init__(message)
        self.later = later
        self.merge = merge


class StalePlanError(ConflictError):
    """Records of a plan to forget have changed since it was made, or it is of another file; nothing was forgotten.

    Attributes:
        ids: the ids of those records.
    """

    def __init__(self, record_kind: str, ids: list[str], *, replaced: bool = False) -> None:
        names = ", ".join(map(short_repr, ids[:3])) + (f" and {len(ids) - 3:,} more" if len(ids) > 3 else "")
        super().__init__(
            "This plan was made for another file, or before a backup was restored into this one, and nothing was "
            "forgotten. Plan again"
            if replaced
            else f"This plan is out of date, and nothing was forgotten: {record_kind} {names} "
            f"{'was' if len(ids) == 1 else 'were'} changed, used, pinned or deleted since it was made. Plan again"
        )
        self.ids = ids


class HistoryError(MemstoreError, LookupError):
    """The file does not keep that part of its history, or no longer.

    Attributes:
        since: the start of the history that the file keeps; None if it keeps none.
    """

    def __init__(self, message: str, *, since: datetime.datetime | None) -> None:
        super().__init__(message)
        self.since = since

    @classmethod
    def before(cls, since: datetime.datetime | None) -> "HistoryError":
        """The error for a time before *since*, the start of the history."""
        if since is None:
            return cls("This file keeps no history: open it with history='full' to start one", since=None)
        return cls(f"The history of this file starts at {since.isoformat()}: use that time or a later one", since=since)


class BusyError(MemstoreError, TimeoutError):
    """Another writer used the file for longer than `timeout`; nothing was written. Try again."""


class TransactionError(MemstoreError, RuntimeError):
    """A transaction was used in a way that is not possible."""


class UsageError(MemstoreError, RuntimeError):
    """The store was used in a way that is not possible."""


class ClosedError(UsageError):
    """The store is closed: open it again."""


class EventLoopError(UsageError):
    """The store belongs to another event loop: open one in this loop."""


class ForkedStoreError(UsageError):
    """The store was opened in the parent process: open one in the child."""


class ReadOnlyError(UsageError):
    """The store was opened with `read_only=True`."""


class EmbedderError(MemstoreError):
    """There is no embedder where one is needed, or its output is invalid."""


class EngineError(MemstoreError):
    """The requested search engine cannot be used safely in this process."""


class LoadError(MemstoreError):
    """A load stopped partway; its cause is the error that stopped it.

    Attributes:
        stored: how many items were stored, durably, before it stopped.
    """

    def __init__(self, message: str, *, stored: int) -> None:
        super().__init__(message)
        self.stored = stored


class StorageError(MemstoreError, OSError):
    """SQLite or the disk failed; the message contains that of SQLite."""


class CommitUnknownError(StorageError):
    """Whether the write was stored is known only after the next write that succeeds, or after a reopen."""


class DamagedError(StorageError):
    """The file contains values that memstore did not write; `check()` names every such record."""


class StoreReplacedError(StorageError):
    """The file at the store's path, or its log, is missing or not the opened one; nothing was written."""

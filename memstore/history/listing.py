"""Lists of records as of an earlier time, read page by page."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, Generic, TypeVar, cast

from sqlalchemy import Connection

from memstore import filters
from memstore.concurrency import chunks, yield_gil
from memstore.errors import ConflictError
from memstore.history.as_of import FormerRecords
from memstore.models.records import Assembly, Memory
from memstore.repository import history_reader, namespaces, records, selection, store_meta
from memstore.repository.corruption import expect_stored
from memstore.repository.record_types import ASSEMBLY
from memstore.repository.records import Position, SortOrder
from memstore.repository.selection import Selection
from memstore.repository.vectors import Spaces
from memstore.timestamps import EPOCH, to_micros

RecordT = TypeVar("RecordT", Memory, Assembly)


@dataclass(frozen=True, slots=True)
class _RankedKey:
    """A record by its rank in a list: by the sort value, then by key."""

    value: Any
    key: int
    descending: bool

    def __lt__(self, other: "_RankedKey") -> bool:
        first, second = (other, self) if self.descending else (self, other)
        with expect_stored("the sort column of a list"):
            return bool((first.value, first.key) < (second.value, second.key))


class AsOfListing(Generic[RecordT]):
    """The records that match a selection as of a time, in order.

    Every page is as of the same time, whatever is changed between pages. It merges two sorted sources: unchanged
    records, read from the table as by any list, and a heap of the records that have changed since (about
    200 bytes each). A change of members changes an assembly too, so every assembly is in the heap.

    Args:
        spaces: the vector space of each kind of record.
        matching: which records; its `now` is the time.
        order: of the list.
        after: where the list starts; None for its beginning.
        embeddings: whether the records have their vectors.
    """

    def __init__(
        self,
        spaces: Spaces,
        matching: Selection,
        order: SortOrder,
        *,
        after: Position | None = None,
        embeddings: bool = True,
    ) -> None:
        self._spaces = spaces
        self._embeddings = embeddings
        self._selection = matching
        self._order = order
        self._origin = ""  # of the file when the first page was read: another content has other numbers and keys
        self._first_change: int | None = None  # the first change after the time; None before the first page
        self._next_change = 0  # the first change that is not in `_changed` yet
        self._changed: set[int] = set()
        self._changed_keys: list[_RankedKey] = []  # a heap
        self._unchanged: deque[_RankedKey] = deque()
        self._table_position = after  # up to which the table is read
        self._table_ended = False
        self._last = None if after is None else _RankedKey(after.value, after.pk, order.descending)
        """Of the record that was returned last; None before the first."""

    def page(self, connection: Connection, size: int, offset: int = 0) -> tuple[list[RecordT], Position | None]:
        """The next *size* records after *offset* others, and the end of the page; None if there are no more.

        Raises:
            HistoryError: the history is not complete since the time of the list.
            ConflictError: a backup was restored since the first page.
        """
        record_type, at = self._selection.record_type, self._selection.now
        origin = store_meta.origin(connection)
        if self._first_change is None:
            self._origin = origin
            self._start(connection)
        elif origin != self._origin:
            raise ConflictError("A backup was restored into the file while the list was read. Start the list again.")
        history_reader.check_complete(connection, to_micros(at))  # older rows are deleted from time to time
        self._read_new_changes(connection)
        for _ in range(offset):
            if self._take_next(connection, size) is None:
                return [], None
        keys: list[int] = []
        while len(keys) < size and (key := self._take_next(connection, size)) is not None:
            keys.append(key)
        number = cast("int", self._first_change)
        page = FormerRecords(connection, self._spaces, record_type, self._embeddings).before(keys, number, at)
        more = self._last is not None and self._next(connection, size) is not None
        end = Position(self._last.value, self._last.key) if self._last is not None and more else None
        return [cast("RecordT", page[key]) for key in keys if key in page], end

    def _start(self, connection: Connection) -> None:
        self._first_change = history_reader.first_after(connection, to_micros(self._selection.now))
        self._next_change = self._first_change
        if self._selection.record_type is ASSEMBLY:
            path, recursive = self._selection.namespace, self._selection.recursive
            everything = Selection(record_type=ASSEMBLY, namespace=path, now=EPOCH, recursive=recursive)
            self._add_changed(connection, selection.selected(connection, everything))
            self._table_ended = True

    def _next(self, connection: Connection, size: int) -> _RankedKey | None:
        """The next record; None at the end."""
        self._fill_unchanged(connection, size)
        first = self._unchanged[0] if self._unchanged else None
        if self._changed_keys and (first is None or self._changed_keys[0] < first):
            return self._changed_keys[0]
        return first

    def _take_next(self, connection: Connection, size: int) -> int | None:
        """Go on to the next record; its key, None at the end."""
        following = self._next(connection, size)
        if following is None:
            return None
        if self._unchanged and self._unchanged[0] is following:
            self._unchanged.popleft()
        else:
            heappop(self._changed_keys)
        self._last = following
        return following.key

    def _fill_unchanged(self, connection: Connection, size: int) -> None:
        """Read the table until the next unchanged record is at the front of the queue, or the table ends."""
        while self._unchanged and self._unchanged[0].key in self._changed:
            self._unchanged.popleft()
        record_type, number = self._selection.record_type, cast("int", self._first_change)
        while not self._unchanged and not self._table_ended:
            rows, self._table_position = records.page(
                connection, self._selection, self._order, self._table_position, size
            )
            self._table_ended = self._table_position is None
            added = history_reader.added_since(connection, record_type, [row.pk for row in rows], number)
            for row in rows:
                if row.pk not in self._changed and row.pk not in added:
                    self._unchanged.append(_RankedKey(row.value, row.pk, self._order.descending))
            yield_gil()

    def _read_new_changes(self, connection: Connection) -> None:
        """Add the records that were changed since the last page."""
        upto = history_reader.last_number(connection)
        if upto < self._next_change:
            return
        scope = namespaces.scope(connection, self._selection.namespace, recursive=self._selection.recursive)
        namespace_pks = None if scope is None else set(scope)
        changes = history_reader.changed_keys(connection, self._selection.record_type, self._next_change, upto)
        keys = {key for namespace_pk, key in changes if namespace_pks is None or namespace_pk in namespace_pks}
        self._next_change = upto + 1
        self._add_changed(connection, sorted(keys - self._changed))

    def _add_changed(self, connection: Connection, keys: Sequence[int]) -> None:
        """Add changed records to the heap, if they matched as of the time and were not returned yet."""
        self._changed.update(keys)
        where, tags = self._selection.where, self._selection.tags
        record_type, number = self._selection.record_type, cast("int", self._first_change)
        former = FormerRecords(connection, self._spaces, record_type)
        for chunk in chunks(keys):
            versions = history_reader.versions_before(connection, record_type, chunk, number)
            records_by_key = former.decode(versions, number, self._selection.now, with_members=where is not None)
            for key, record in records_by_key.items():
                if not tags <= record.tags or (where and not filters.matches(where, record)):
                    continue
                value = versions[key].columns[self._order.column]
                value = records.BEFORE_ALL if value is None else value
                ranked = _RankedKey(value, key, self._order.descending)
                if self._last is None or self._last < ranked:
                    heappush(self._changed_keys, ranked)

"""Records as they were: of one moment, in a list of one moment, and change by change.

A record of a moment is exact but for what the journal does not keep: use (`accessed_at`, `access_count`, activation)
and `revision` are what they were when the record was next changed in them, or are today. An assembly's members, their
number and its composite are worked out from its members as they were: that reads all of them.
"""

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from heapq import heappop, heappush
from typing import Any, Generic, TypeVar, cast

import numpy as np
from sqlalchemy import Connection

from memstore import filters
from memstore.concurrency import chunks, yield_gil
from memstore.errors import NotFoundError
from memstore.models.history import Change, FieldValue
from memstore.models.records import Assembly, Memory, Namespace, RecordKind
from memstore.repository import history_reader, history_writer, namespaces, selection
from memstore.repository import records as record_rows
from memstore.repository.corruption import corrupt_value, expect_stored
from memstore.repository.history_reader import Entry
from memstore.repository.history_writer import RowVersion
from memstore.repository.record_types import ASSEMBLY, MEMORY, RecordType
from memstore.repository.records import Order, Position
from memstore.repository.selection import Selection
from memstore.repository.vectors import VectorSpace
from memstore.sync import composites
from memstore.timestamps import EPOCH, from_micros, to_micros
from memstore.validation.values import check_time
from memstore.vectors.encoding import decode
from memstore.vectors.mean import Mean

RecordT = TypeVar("RecordT", Memory, Assembly)
Spaces = Mapping[RecordKind, VectorSpace]

_TIMES = frozenset({"created_at", "updated_at", "expires_at", "accessed_at", "activated_at"})
_FIELDS = {
    noun.kind: frozenset(f.name for f in fields(made)) for noun, made in ((MEMORY, Memory), (ASSEMBLY, Assembly))
}


def get(
    connection: Connection, spaces: Spaces, noun: RecordType, namespace: Namespace, id: str, as_of: datetime
) -> Any:
    """The record that had an id at a moment.

    Raises:
        NotFoundError: there was none.
        HistoryError: what was there then is not known.
    """
    number = history_reader.after(connection, to_micros(as_of))
    had = sorted(keys(connection, noun, namespace, id))
    for record in _records(connection, spaces, noun, had, number, as_of).values():
        return record
    raise NotFoundError(noun.kind, id, namespace)


def moment(as_of: object) -> datetime:
    """*as_of* as a moment, else `InvalidError`."""
    return check_time("as_of", as_of)


def history(
    connection: Connection, spaces: Spaces, noun: RecordType, namespace: Namespace, id: str, limit: int | None
) -> list[Change]:
    """What happened to the records that have or had an id, the latest first.

    Raises:
        NotFoundError: there is none, and no change of one is known.
    """
    had = keys(connection, noun, namespace, id)
    found = [change for key in had for change in _changes(connection, spaces, noun, (namespace, id), key, limit)]
    if not found and record_rows.key_of(connection, noun, namespace, id, EPOCH) is None:
        raise NotFoundError(noun.kind, id, namespace)
    return sorted(found, key=lambda change: change.number, reverse=True)[:limit]


class Listing(Generic[RecordT]):
    """A list of the records that match as of a moment, in order, read page by page.

    All pages are of that one moment, whatever is changed meanwhile. Records that have not changed since come from the
    table as in any list; of all others the places in the order are kept, some 200 bytes each, for all of the list. The
    others are, of assemblies, all of them: what their members did, changes them too.
    """

    def __init__(self, spaces: Spaces, selection: Selection, order: Order) -> None:
        self._spaces = spaces
        self._selection = selection  # its `now` is the moment
        self._order = order
        self._number: int | None = None  # the first change that is taken back
        self._seen = 0  # changes before this one are known of
        self._changed: set[int] = set()
        self._others: list[_At] = []  # a heap
        self._unchanged: deque[_At] = deque()
        self._place: Position | None = None  # up to which the table is read
        self._ended = False
        self._yielded: _At | None = None

    def page(self, connection: Connection, size: int) -> list[RecordT]:
        """The next *size* records; fewer only at the end. Raises `HistoryError`."""
        if self._number is None:
            self._number = self._seen = history_reader.after(connection, to_micros(self._selection.now))
            if self._selection.record_type is ASSEMBLY:
                every = Selection(
                    record_type=ASSEMBLY,
                    namespace=self._selection.namespace,
                    now=EPOCH,
                    recursive=self._selection.recursive,
                )
                self._look_at(connection, selection.selected(connection, every))
                self._ended = True
        history_reader.check_known(connection, to_micros(self._selection.now))  # what is kept is less from time to time
        self._catch_up(connection)
        chosen: list[int] = []
        while len(chosen) < size and (key := self._next(connection, size)) is not None:
            chosen.append(key)
        noun, at = self._selection.record_type, self._selection.now
        found = _records(connection, self._spaces, noun, chosen, self._number, at)
        return [cast("RecordT", found[key]) for key in chosen if key in found]

    def _next(self, connection: Connection, size: int) -> int | None:
        """The key of the next record; None at the end."""
        self._fill(connection, size)
        first = self._unchanged[0] if self._unchanged else None
        if self._others and (first is None or self._others[0] < first):
            self._yielded = heappop(self._others)
        elif first is not None:
            self._yielded = self._unchanged.popleft()
        else:
            return None
        return self._yielded.key

    def _fill(self, connection: Connection, size: int) -> None:
        """Have the next record of the table that has not changed since at hand, if there is one."""
        while self._unchanged and self._unchanged[0].key in self._changed:
            self._unchanged.popleft()
        while not self._unchanged and not self._ended:
            read, self._place = record_rows.page(connection, self._selection, self._order, self._place, size)
            self._ended = self._place is None
            keys = [place.pk for place in read]
            noun = self._selection.record_type
            new = history_reader.born_since(connection, noun, keys, cast("int", self._number))
            for place in read:
                if place.pk not in self._changed and place.pk not in new:
                    self._unchanged.append(_At(place.value, place.pk, self._order.descending))
            yield_gil()

    def _catch_up(self, connection: Connection) -> None:
        """Take note of what was changed since the last page: what is not listed yet, is listed as it was."""
        upto = history_reader.last(connection)
        if upto < self._seen:
            return
        owners = namespaces.scope(connection, self._selection.namespace, recursive=self._selection.recursive)
        inside = None if owners is None else set(owners)
        touched = history_reader.touched(connection, self._selection.record_type, self._seen, upto)
        keys = {key for owner, key in touched if inside is None or owner in inside}
        self._seen = upto + 1
        self._look_at(connection, sorted(keys - self._changed))

    def _look_at(self, connection: Connection, keys: Sequence[int]) -> None:
        """Keep the places of those of *keys*, not known before, that are listed and were not yet."""
        self._changed.update(keys)
        wanted, noun, at = self._selection, self._selection.record_type, self._selection.now
        for some in chunks(keys):
            states = history_reader.states(connection, noun, some, cast("int", self._number))
            whole = wanted.where is not None
            records = _of(connection, self._spaces, noun, states, cast("int", self._number), at, whole=whole)
            for key, record in records.items():
                if not wanted.tags <= record.tags or (wanted.where and not filters.matches(wanted.where, record)):
                    continue
                value = states[key].columns[self._order.column]
                place = _At(record_rows.BEFORE_ALL if value is None else value, key, self._order.descending)
                if self._yielded is None or self._yielded < place:
                    heappush(self._others, place)


@dataclass(frozen=True, slots=True)
class _At:
    """A record's place in a list: before another's by the value it is sorted by, then by key; or after it."""

    value: Any
    key: int
    down: bool

    def __lt__(self, other: "_At") -> bool:
        one, two = (other, self) if self.down else (self, other)
        with expect_stored("the sort column of a list"):
            return bool((one.value, one.key) < (two.value, two.key))


def keys(connection: Connection, noun: RecordType, namespace: Namespace, id: str) -> set[int]:
    """Keys of the record that has an id, and of those that had it and went."""
    owner = namespaces.key(connection, namespace)
    if owner is None:
        return set()
    here = record_rows.key_of(connection, noun, namespace, id, EPOCH)
    return history_reader.keys_of_id(connection, noun, owner, id) | (set() if here is None else {here})


def check(noun: RecordType, was: RowVersion, spaces: Spaces) -> None:
    """Raise `DamagedError` where a row is not what a record can have been."""
    _made(Memory if noun is MEMORY else Assembly, was, {was.namespace_pk: ()}, spaces)


def _records(
    connection: Connection, spaces: Spaces, noun: RecordType, keys: Sequence[int], number: int, at: datetime
) -> dict[int, Any]:
    """The records of *keys* as they were before change *number*, by key, but for those that had expired *at* then."""
    return _of(connection, spaces, noun, history_reader.states(connection, noun, keys, number), number, at)


def _of(
    connection: Connection,
    spaces: Spaces,
    noun: RecordType,
    states: Mapping[int, RowVersion],
    number: int,
    at: datetime,
    *,
    whole: bool = True,
) -> dict[int, Any]:
    """The records that rows were, but for those that had expired; assemblies that are not *whole* have no members."""
    paths = _paths(connection, {was.namespace_pk for was in states.values()})
    if noun is MEMORY:
        found = {key: _made(Memory, was, paths, spaces) for key, was in states.items()}
        return {key: record for key, record in found.items() if record.expires_at is None or record.expires_at > at}
    derived = {key: _composed(connection, spaces, key, number, at) if whole else {} for key in states}
    return {key: _made(Assembly, was, paths, spaces, **derived[key]) for key, was in states.items()}


def _paths(connection: Connection, keys: set[int]) -> dict[int, Namespace]:
    return {key: namespaces.path(connection, key) for key in keys}


def _made(made: Any, was: RowVersion, paths: Mapping[int, Namespace], spaces: Spaces, **derived: object) -> Any:
    """The record that a row *was*."""
    noun = MEMORY if made is Memory else ASSEMBLY
    with expect_stored(f"journal.old of a {noun.kind}"):
        return made(namespace=paths[was.namespace_pk], **_public(noun, was, spaces), **derived)


def _public(noun: RecordType, was: RowVersion, spaces: Spaces, only: Iterable[str] | None = None) -> dict[str, Any]:
    """The fields of a record that a row *was*, as its record has them; *only* some of them."""
    id = was.columns.get("id")
    wanted = _FIELDS[noun.kind] if only is None else _FIELDS[noun.kind].intersection(only)
    found: dict[str, Any] = {}
    with expect_stored(f"journal.old of a {noun.kind}"):
        for name, value in was.columns.items():
            if name in wanted:
                found[name] = _value(name, value)
        if "tags" in wanted:
            found["tags"] = was.tags
        if "embedding" in wanted:
            dimension = spaces["memory"].dimension
            what = f"memory {id!r} as it was"
            found["embedding"] = None if was.vector is None else decode(was.vector, dimension, what, was.checksum)
    return found


def _value(name: str, stored: Any) -> FieldValue:
    """The value of a field, *stored* in its column. Raises `DamagedError`."""
    if name in _TIMES:
        return None if stored is None else from_micros(stored)
    if name in ("metadata", "topics"):
        value = json.loads(stored)
        if not isinstance(value, dict if name == "metadata" else list):
            raise corrupt_value(f"journal.old, {name}", "JSON of the right type", stored)
        return tuple(value) if name == "topics" else cast("FieldValue", value)
    if not isinstance(stored, _TYPES.get(name, int | float | str)):
        raise corrupt_value(f"journal.old, {name}", _TYPES.get(name, str).__name__, stored)
    return bool(stored) if name == "pinned" else cast("FieldValue", stored)


_TYPES: dict[str, type] = {
    **dict.fromkeys(("id", "content", "name", "description"), str),
    **dict.fromkeys(("importance", "activation"), float),
    **dict.fromkeys(("access_count", "revision", "activation_count", "pinned"), int),
}


def _composed(connection: Connection, spaces: Spaces, key: int, number: int, at: datetime) -> dict[str, Any]:
    """How many members an assembly had, and their mean."""
    space = spaces["memory"]
    mean, count = Mean(np.zeros(space.dimension)), 0
    for some in chunks(sorted(history_reader.members(connection, key, number))):
        here = _records(connection, spaces, MEMORY, some, number, at)
        count += len(here)
        vectors = [record.embedding for record in here.values() if record.embedding is not None]
        composites.add_vectors(mean, spaces["memory"], vectors)
    return {"member_count": count, "composite": mean.vector(space.measure)}


def _changes(
    connection: Connection, spaces: Spaces, noun: RecordType, name: tuple[Namespace, str], key: int, limit: int | None
) -> Iterator[Change]:
    """What happened to the record of a key, the latest first."""
    after = history_writer.current_versions(connection, noun, [key]).get(key)
    count = 0
    for each in history_reader.entries(connection, noun, [key]):
        before = history_reader.before(each, after)
        yield _change(connection, spaces, noun, name, each, before, after)
        after, count = before, count + 1
        if count == limit:
            return
    run = history_reader.run(connection, noun, key)
    first = None if run is None else history_reader.entry(connection, run.number)
    if first is not None:
        yield _change(connection, spaces, noun, name, replace(first, key=key), None, after)


def _change(
    connection: Connection,
    spaces: Spaces,
    noun: RecordType,
    name: tuple[Namespace, str],
    entry: Entry,
    before: RowVersion | None,
    after: RowVersion | None,
) -> Change:
    if after is None and before is None:
        raise corrupt_value(f"journal row {entry.number}", f"a change of {noun.kind} {name[1]!r}", None)
    only = entry.known() if entry.what == "updated" else _FIELDS[noun.kind] - history_writer.DERIVED
    joined, left = entry.members() if noun is ASSEMBLY and not entry.born else ({}, {})
    if noun is ASSEMBLY and entry.born:
        joined = history_reader.ids(connection, history_reader.members(connection, entry.key, entry.number + 1))
    with expect_stored("journal.at"):
        at = from_micros(entry.at)
    return Change(
        number=entry.number,
        noun=noun.kind,
        id=name[1],
        namespace=name[0],
        kind=entry.what,
        at=at,
        actor=entry.actor,
        reason=entry.reason,
        undoes=entry.undoes,
        old={} if before is None else _public(noun, before, spaces, only),
        new={} if after is None else _public(noun, after, spaces, only),
        members_added=tuple(joined.values()),
        members_removed=tuple(left.values()),
    )

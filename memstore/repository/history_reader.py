"""The journal read backwards: what records were, from what they are.

A record as of a moment is its row as it is, with each of its changes after that moment taken back, the latest first.
Which changes those are a number says: the first of them. What a row of the journal says is believed only where it can
be what was written; everything else is a `DamagedError`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

from sqlalchemy import Connection, bindparam, func, select, text

from memstore.concurrency import chunks, yield_gil
from memstore.database.driver_errors import translated
from memstore.errors import DamagedError, HistoryError
from memstore.models.history import ChangeKind
from memstore.models.records import RecordKind
from memstore.repository import history_retention
from memstore.repository import history_writer as writing
from memstore.repository.corruption import corrupt_value, expect_stored
from memstore.repository.history_writer import COLUMNS, RowVersion
from memstore.repository.key_lists import keys_in, keys_json
from memstore.repository.record_types import ASSEMBLY, MEMORY, RecordType
from memstore.repository.statements import Prepared
from memstore.schema.tables import assembly_member, journal
from memstore.timestamps import from_micros

GONE = frozenset({"deleted", "expired", "forgotten", "merged"})
"""What is said of a record that went: the row has all of it."""

_SCAN = 1_000  # rows that are read before others may run

_added, _others = text("what = 'added'"), text("what <> 'added'")  # as the partial indexes have them
_entry = select(*journal.c)
_BOUNDS = Prepared(select(func.min(journal.c.pk), func.max(journal.c.pk)))
_FROM = Prepared(
    select(journal.c.pk, journal.c.at).where(journal.c.pk >= bindparam("pk")).order_by(journal.c.pk).limit(1)
)
_ENTRY = Prepared(_entry.where(journal.c.pk == bindparam("pk")))
_ENTRIES = Prepared(
    _entry.with_hint(journal, "INDEXED BY ix_journal_changed", "sqlite")
    .where(journal.c.kind == bindparam("kind"), _others, journal.c.last_pk.in_(select(keys_in().c.value)))
    .where(journal.c.pk >= bindparam("number"))
    .order_by(journal.c.pk.desc())
)
_RUN = Prepared(
    select(journal.c.pk, journal.c.first_pk, journal.c.last_pk)
    .with_hint(journal, "INDEXED BY ix_journal_added", "sqlite")
    .where(journal.c.kind == bindparam("kind"), _added, journal.c.last_pk >= bindparam("key"))
    .order_by(journal.c.last_pk)
    .limit(1)
)
_OF_ID = Prepared(
    select(journal.c.last_pk)
    .distinct()
    .with_hint(journal, "INDEXED BY ix_journal_id", "sqlite")
    .where(journal.c.namespace_pk == bindparam("namespace"), journal.c.kind == bindparam("kind"))
    .where(journal.c.id == bindparam("id"))
)
_TOUCHED = Prepared(
    select(journal.c.namespace_pk, journal.c.last_pk).where(
        journal.c.pk >= bindparam("number"),
        journal.c.pk <= bindparam("upto"),
        journal.c.kind == bindparam("kind"),
        _others,
    )
)
_MEMBERS = Prepared(select(assembly_member.c.memory_pk).where(assembly_member.c.assembly_pk == bindparam("assembly")))


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the journal; times as stored. `old` is None where nothing is known of what was there."""

    number: int
    kind: RecordKind
    namespace_pk: int
    first: int
    key: int
    id: str | None
    what: ChangeKind
    at: int
    actor: str | None
    reason: str | None
    undoes: int | None
    old: Mapping[str, Any] | None
    vector: bytes | None
    checksum: int | None

    @property
    def born(self) -> bool:
        """Whether the record was not there before."""
        return self.what in ("added", "restored")

    def known(self) -> Mapping[str, Any]:
        """`old`. Raises `DamagedError`."""
        if self.old is None:
            raise DamagedError(
                f"change {self.number} of {self.kind} {self.id or self.key!r} was made while the record could not be "
                "read, so nothing before it is known: ask for a later moment"
            )
        return self.old

    def tags(self) -> tuple[frozenset[str], frozenset[str]]:
        """The tags that came with this change, and those that went."""
        came, went = self._two("tags")
        return frozenset(came), frozenset(went)

    def members(self) -> tuple[dict[int, str], dict[int, str]]:
        """The memories that became members with this change, and those that ended being it: ids by key."""
        if self.what in GONE:
            return {}, self.pairs("members")
        came, went = self._two("members")
        return _pairs(came), _pairs(went)

    def pairs(self, name: str) -> dict[int, str]:
        """Keys and ids that a record that went had under *name*."""
        return _pairs(self.known().get(name, []))

    def _two(self, name: str) -> tuple[list[Any], list[Any]]:
        came, went = self.known().get(name, ([], []))
        return came, went


class Run(NamedTuple):
    """Keys that one write added, and the number of that change."""

    number: int
    first: int
    last: int


def after(connection: Connection, at: int) -> int:
    """The number of the first change after the moment *at*; one more than the last's where there is none.

    Raises:
        HistoryError: what was there then is not known, or not any more.
    """
    check_known(connection, at)
    least, most = _BOUNDS.run(connection).fetchone()
    if least is None:
        return last(connection) + 1
    low, high = _whole(least), _whole(most) + 1
    while low < high:
        middle = (low + high) // 2
        number, when = _FROM.run(connection, pk=middle).fetchone()
        if _whole(when) > at:
            high = middle
        else:
            low = _whole(number) + 1
    return low


def check_known(connection: Connection, at: int) -> None:
    """Raise `HistoryError` where what was there at the moment *at* is not known, or not any more."""
    since = history_retention.read(connection).since
    if since is None or at < since:
        raise HistoryError.before(None if since is None else moment(since))


def last(connection: Connection) -> int:
    """The number of the last change; 0 where there is none."""
    most = _BOUNDS.run(connection).fetchone()[1]
    return 0 if most is None else _whole(most)


def moment(micros: object) -> Any:
    """A stored time as a datetime. Raises `DamagedError`."""
    with expect_stored("journal.at"):
        return from_micros(_whole(micros))


def entry(connection: Connection, number: int) -> Entry | None:
    """The row of one change; None where there is none, or none any more."""
    with translated():
        row = _ENTRY.run(connection, pk=number).fetchone()
        return None if row is None else _as_entry(row)


def entries(connection: Connection, noun: RecordType, keys: Sequence[int], number: int = 0) -> Iterator[Entry]:
    """What changed of records, named by key, from *number* on, the latest first; not that they were added."""
    with translated():
        for row in _ENTRIES.run(connection, kind=noun.kind, keys=keys_json(keys), number=number):
            yield _as_entry(row)


def run(connection: Connection, noun: RecordType, key: int) -> Run | None:
    """With which keys a record was added; None where that is not known, or not any more."""
    row = _RUN.run(connection, kind=noun.kind, key=key).fetchone()
    if row is None:
        return None
    found = Run(*map(_whole, row))
    return found if found.first <= key else None


def born_since(connection: Connection, noun: RecordType, keys: Iterable[int], number: int) -> set[int]:
    """Those of *keys* whose records were added by change *number* or a later one."""
    found: set[int] = set()
    here: Run | None = None
    for key in sorted(keys):
        if here is None or not here.first <= key <= here.last:
            here = run(connection, noun, key)
        if here is not None and here.number >= number:
            found.add(key)
    return found


def keys_of_id(connection: Connection, noun: RecordType, namespace_pk: int, id: str) -> set[int]:
    """Keys of the records that had an id and went, as far as the journal knows of them."""
    return {_whole(key) for (key,) in _OF_ID.run(connection, namespace=namespace_pk, kind=noun.kind, id=id)}


def touched(connection: Connection, noun: RecordType, number: int, upto: int) -> Iterator[tuple[int, int]]:
    """Keys of namespace and record of every change from *number* to *upto*, but of records that were added."""
    cursor = _TOUCHED.run(connection, kind=noun.kind, number=number, upto=upto)
    while rows := cursor.fetchmany(_SCAN):
        yield from ((_whole(owner), _whole(key)) for owner, key in rows)
        yield_gil()


def states(connection: Connection, noun: RecordType, keys: Sequence[int], number: int) -> dict[int, RowVersion]:
    """The records of *keys* as they were before change *number*, by key; what was not there is left out."""
    found: dict[int, RowVersion] = {}
    for some in chunks(keys):
        here: dict[int, RowVersion | None] = dict(writing.current_versions(connection, noun, some))
        for each in entries(connection, noun, some, number):
            here[each.key] = before(each, here.get(each.key))
        for key in born_since(connection, noun, some, number):
            here[key] = None
        found |= {key: was for key, was in here.items() if was is not None}
    return found


def before(entry: Entry, then: RowVersion | None) -> RowVersion | None:
    """What a record was before a change after which it was *then*; None where it was not there."""
    if entry.born:
        return None
    old = entry.known()
    with expect_stored(f"journal.old of row {entry.number}"):
        if entry.what in GONE:
            columns = {name: old[name] for name in COLUMNS[entry.kind] if name in old}
            return RowVersion(
                entry.key,
                entry.namespace_pk,
                columns,
                frozenset(cast("Any", old.get("tags"))),
                entry.vector,
                entry.checksum,
            )
        if then is None:
            raise DamagedError(
                f"change {entry.number} is of a {entry.kind} that is not there, and no change says that it went: "
                "raw SQL may have deleted it, and nothing before that is known"
            )
        came, went = entry.tags()
        columns = {**then.columns, **{name: old[name] for name in old if name in then.columns}}
        made = replace(then, columns=columns, tags=(then.tags - came) | went)
        return replace(made, vector=entry.vector, checksum=entry.checksum) if "embedding" in old else made


def members(connection: Connection, key: int, number: int) -> set[int]:
    """Keys of the members that an assembly had before change *number*."""
    found = {_whole(k) for (k,) in _MEMBERS.run(connection, assembly=key)}
    for each in entries(connection, ASSEMBLY, [key], number):
        if each.born:
            found = set()
            continue
        came, went = each.members()
        found = (found - came.keys()) | went.keys()
    return found


def ids(connection: Connection, keys: Iterable[int]) -> dict[int, str]:
    """Ids by key of memories, of those that went too, as far as the journal knows of them; in order of their keys."""
    wanted = sorted(keys)
    found = writing.memory_ids(connection, wanted)
    gone = [key for key in wanted if key not in found]
    for each in entries(connection, MEMORY, gone):
        if each.id is not None:
            found.setdefault(each.key, each.id)
    return {key: found[key] for key in wanted if key in found}


def _as_entry(row: Sequence[Any]) -> Entry:
    number, kind, owner, first, key, id, what, at, actor, reason, undoes, old, vector, checksum = row
    with expect_stored("journal"):
        said = None if old is None else json.loads(old)
        texts = all(value is None or isinstance(value, str) for value in (id, actor, reason))
        whole = all(type(value) is int for value in (number, owner, first, key, at))
        if not texts or not whole or not isinstance(said, dict | None) or not isinstance(vector, bytes | None):
            raise corrupt_value("journal", "a row that memstore wrote", row[:10])
        if not isinstance(undoes, int | None) or what not in _WHAT or not isinstance(checksum, int | None):
            raise corrupt_value("journal", "a row that memstore wrote", row[:10])
        return Entry(
            number,
            kind,
            owner,
            first,
            key,
            id,
            cast("ChangeKind", what),
            at,
            actor,
            reason,
            undoes,
            said,
            vector,
            checksum,
        )


_WHAT = GONE | {"added", "updated", "restored"}


def _pairs(pairs: object) -> dict[int, str]:
    with expect_stored("journal.old, members"):
        found = dict(cast("Any", pairs))
        if not all(type(key) is int and isinstance(id, str) for key, id in found.items()):
            raise corrupt_value("journal.old, members", "pairs of key and id", pairs)
        return found


def _whole(value: object) -> int:
    if type(value) is not int:
        raise corrupt_value("journal", "int", value)
    return value

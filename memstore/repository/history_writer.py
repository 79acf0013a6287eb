"""The journal: what was changed, when, by whom, and what was there before, written in the same transaction.

* Keys that one write added are one row, whatever their number. What came is nowhere written: it is the row itself, or
  what the next change found there.
* A change says which fields it found different, tags and members by what came and what went; a record that goes is
  written whole. The vector that was there is kept once, with the change that replaced it.
* Times never decrease from one row to the next, and are one for all rows of a transaction: a moment is found by
  halving, and is never in the middle of a transaction.
* What cannot be read is changed and deleted all the same; `old` is NULL then.
* Where the file is not to keep its past, nothing is written, and nothing is read for it.
"""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, cast

from sqlalchemy import Connection, LargeBinary, bindparam, insert, select, type_coerce
from sqlalchemy.types import NullType

from memstore.actor import Actor
from memstore.concurrency import chunks
from memstore.database.driver_errors import translated
from memstore.errors import DamagedError
from memstore.models.history import What
from memstore.models.records import RecordKind
from memstore.repository import history_retention, record_tags, records
from memstore.repository.corruption import expect_stored
from memstore.repository.history_retention import Kept
from memstore.repository.key_lists import keys_in, keys_json
from memstore.repository.record_types import MEMORY, RECORD_TYPES, RecordType
from memstore.repository.statements import Prepared, Wide
from memstore.schema.tables import assembly, assembly_member, journal, memory, memory_vector
from memstore.schema.types import json_text
from memstore.timestamps import now, to_micros

TRIMMED = 256
"""Rows that one write deletes at most of what is older than is kept, or twice as many as it wrote."""

_AT_ONCE = 10_000  # records whose memberships are gathered to one row an assembly
_WIDTH = 50  # rows an INSERT statement: their vectors are bound at once, with the GIL held
DERIVED = frozenset({"revision", "activation", "activated_at", "activation_count"})
"""What no caller changes: it follows from other changes, or from use."""

_NAMES = tuple(column.name for column in journal.c if column.name != "pk")
COLUMNS = {
    noun.kind: tuple(c.name for c in noun.table.c if c.name not in ("pk", "namespace_pk")) for noun in RECORD_TYPES
}
"""The columns of a record, which `RowVersion` has as they are stored."""

_INSERT = Wide(insert(journal).values({name: bindparam(name, type_=NullType()) for name in _NAMES}), _WIDTH)
_LAST = Prepared(select(journal.c.at).order_by(journal.c.pk.desc()).limit(1))
_READ = {
    n.kind: Prepared(
        select(n.table.c.pk, n.table.c.namespace_pk, *(type_coerce(n.table.c[c], NullType()) for c in COLUMNS[n.kind]))
        .where(n.table.c.pk.in_(select(keys_in().c.value)))
        .order_by(n.table.c.pk)
    )
    for n in RECORD_TYPES
}
_OWNERS = {
    n.kind: Prepared(select(n.table.c.pk, n.table.c.namespace_pk).where(n.table.c.pk.in_(select(keys_in().c.value))))
    for n in RECORD_TYPES
}
_VECTORS = Prepared(
    select(memory_vector.c.memory_pk, type_coerce(memory_vector.c.vector, LargeBinary), memory_vector.c.checksum).where(
        memory_vector.c.memory_pk.in_(select(keys_in().c.value))
    )
)
_MEMBERS = Prepared(
    select(assembly_member.c.assembly_pk, memory.c.pk, memory.c.id)
    .join(memory, memory.c.pk == assembly_member.c.memory_pk)
    .where(assembly_member.c.assembly_pk.in_(select(keys_in().c.value)))
    .order_by(memory.c.pk)
)
_OF = Prepared(
    select(assembly_member.c.memory_pk, assembly.c.pk, assembly.c.id, assembly.c.namespace_pk)
    .join(assembly, assembly.c.pk == assembly_member.c.assembly_pk)
    .where(assembly_member.c.memory_pk.in_(select(keys_in().c.value)))
    .order_by(assembly.c.pk)
)
_IDS = Prepared(select(memory.c.pk, memory.c.id).where(memory.c.pk.in_(select(keys_in().c.value))))
_STAMPED = {
    n.kind: Prepared(
        select(n.table.c.pk, n.table.c.namespace_pk, type_coerce(n.table.c.updated_at, NullType())).where(
            n.table.c.pk.in_(select(keys_in().c.value))
        )
    )
    for n in RECORD_TYPES
}
Pair = tuple[int, str]
"""Key and id of a record."""


@dataclass(frozen=True, slots=True)
class RowVersion:
    """A record's row as stored, its tags and its vector."""

    pk: int
    namespace_pk: int
    columns: Mapping[str, Any]
    tags: frozenset[str]
    vector: bytes | None
    checksum: int | None


class TransactionTime:
    """The one time that all changes of a transaction have, settled by the first; and how many there were."""

    __slots__ = ("at", "kept", "noted")

    def __init__(self) -> None:
        self.kept: Kept | None = None
        self.at = 0
        self.noted = 0

    def settle(self, connection: Connection) -> bool:
        """Whether changes are written down here, and if so at what time."""
        if self.kept is None:
            self.kept = history_retention.kept(connection)
            if self.kept.keep != "off":
                last = _LAST.run(connection).fetchone()
                latest = last[0] if last is not None and type(last[0]) is int else 0
                self.at = max(to_micros(now()), latest)
        return self.kept.keep != "off"


class _Row(NamedTuple):
    kind: RecordKind
    namespace_pk: int
    key: int
    id: str | None
    what: What
    old: str | None
    vector: bytes | None = None
    checksum: int | None = None


@contextmanager
def written_by(connection: Connection, author: Actor, moment: TransactionTime) -> Iterator[None]:
    """Say of whatever the block notes that it was *author*'s doing, at *moment*."""
    around = connection.info.get(TransactionTime)
    connection.info[TransactionTime] = author, moment
    try:
        yield
    finally:
        connection.info[TransactionTime] = around


@contextmanager
def said_by(connection: Connection, actor: str | None, reason: str | None) -> Iterator[Actor]:
    """Whoever asks for the block, and why: *actor* and *reason*, or if neither is given whoever acts anyway."""
    here = _here(connection)
    if actor is None and reason is None:
        yield here[0]
        return
    said = Actor(here[0].actor if actor is None else actor, reason)
    with written_by(connection, said, here[1]):
        yield said


def added(connection: Connection, noun: RecordType, namespace_pk: int, keys: Sequence[int]) -> None:
    """Note that records came, whose keys are *keys*, one after the other without a gap."""
    author, moment = _here(connection)
    if not keys or not moment.settle(connection):
        return
    values = (noun.kind, namespace_pk, keys[0], keys[-1], None, "added", moment.at, *author, None, None, None, None)
    _INSERT.insert(connection, [(value,) for value in values])
    moment.noted += 1


def delete_keys(
    connection: Connection, noun: RecordType, keys: Sequence[int], what: What = "deleted", undoes: int | None = None
) -> None:
    """Delete records, and note what they were."""
    for start in range(0, len(keys), _AT_ONCE):
        some = keys[start : start + _AT_ONCE]
        leaving(connection, noun, some, what, undoes)
        records.delete_keys(connection, noun, some)


def purge_expired(connection: Connection, now: datetime) -> None:
    """Delete the memories that have expired, so that nothing a write does meets one."""
    keys = records.expired(connection, now)
    if keys:
        delete_keys(connection, MEMORY, keys, "expired")


def leaving(
    connection: Connection, noun: RecordType, keys: Sequence[int], what: What = "deleted", undoes: int | None = None
) -> None:
    """Note what records are that are about to go, and that their assemblies lose them."""
    author, moment = _here(connection)
    if not moment.settle(connection):
        return
    if noun is MEMORY:
        _moved(connection, author, moment, keys, back=False)
    for some in chunks(keys):
        found = readable(connection, noun, some)
        belongs = _belonging(connection, noun, some)
        named = "assemblies" if noun is MEMORY else "members"
        gone = []
        for key, owner in _OWNERS[noun.kind].run(connection, keys=keys_json(some)):
            was = found.get(key)
            if was is None:
                gone.append(_Row(noun.kind, owner, key, None, what, None))
                continue
            old = _text({**was.columns, "tags": sorted(was.tags), named: belongs.get(key, [])})
            id = was.columns["id"] if isinstance(was.columns["id"], str) else None
            gone.append(_Row(noun.kind, owner, key, id, what, old, was.vector, was.checksum))
        _put(connection, author, moment, gone, undoes)


def returned(connection: Connection, noun: RecordType, keys: Sequence[int], undoes: int | None = None) -> None:
    """Note that records are there again under the keys they had, with the memberships they have again."""
    author, moment = _here(connection)
    if not moment.settle(connection):
        return
    if noun is MEMORY:
        _moved(connection, author, moment, keys, back=True)
    for some in chunks(keys):
        found = readable(connection, noun, some).values()
        back = [_Row(noun.kind, was.namespace_pk, was.pk, was.columns["id"], "restored", None) for was in found]
        _put(connection, author, moment, back, undoes)


class Changing:
    """What a block changes beside the fields of records: who becomes a member of an assembly, and who is none more."""

    def __init__(self) -> None:
        self.joined: dict[int, set[int]] = {}
        self.left: dict[int, set[int]] = {}

    def members(self, key: int, joined: AbstractSet[int], left: AbstractSet[int] = frozenset()) -> None:
        """Note the keys of memories that became members of the assembly *key*, and of those that are none any more."""
        self.joined.setdefault(key, set()).update(joined - left)
        self.left.setdefault(key, set()).update(left - joined)


@contextmanager
def changing(
    connection: Connection, noun: RecordType, keys: Sequence[int], undoes: int | None = None
) -> Iterator[Changing]:
    """Note what the block changes in records, few of them, named by key."""
    author, moment = _here(connection)
    noted = Changing()
    if not moment.settle(connection):
        yield noted
        return
    before = readable(connection, noun, keys)
    yield noted
    after = readable(connection, noun, keys)
    changed = []
    for key, owner in _OWNERS[noun.kind].run(connection, keys=keys_json(keys)).fetchall():
        was, is_now = before.get(key), after.get(key)
        if was is None or is_now is None:
            changed.append(_Row(noun.kind, owner, key, None, "updated", None))
            continue
        old = _difference(was, is_now.columns, is_now.tags, is_now.vector)
        moved = [noted.joined.get(key, set()), noted.left.get(key, set())]
        if any(moved):
            old["members"] = [_pairs(connection, some) for some in moved]
        if old:
            changed.append(_updated(noun, was, old))
    _put(connection, author, moment, changed, undoes)


def replacing(
    connection: Connection,
    keys: Sequence[int],
    columns: Mapping[str, Sequence[Any]],
    tags: Sequence[AbstractSet[str]],
    vectors: Sequence[bytes | None],
) -> None:
    """Note what memories are that are about to have these columns, tags and vectors instead, in the order of *keys*."""
    author, moment = _here(connection)
    if not moment.settle(connection):
        return
    for places in chunks(range(len(keys))):
        found = readable(connection, MEMORY, [keys[i] for i in places])
        owners = dict(_OWNERS["memory"].run(connection, keys=keys_json([keys[i] for i in places])).fetchall())
        changed = []
        for i in places:
            was = found.get(keys[i])
            if was is None:
                changed.append(_Row("memory", owners.get(keys[i], 0), keys[i], None, "updated", None))
                continue
            new = {name: column[i] for name, column in columns.items()}
            old = _difference(was, new, tags[i], vectors[i])
            if old:
                changed.append(_updated(MEMORY, was, old))
        _put(connection, author, moment, changed)


def retagging(connection: Connection, noun: RecordType, keys: Sequence[int], old: str, new: str | None) -> None:
    """Note that records, all of which carry the tag *old*, are about to carry *new* instead, or none."""
    author, moment = _here(connection)
    if not moment.settle(connection):
        return
    for some in chunks(keys):
        text = keys_json(some)
        tags = record_tags.tags_of(connection, noun, text)
        changed = []
        for key, owner, stamp in _STAMPED[noun.kind].run(connection, keys=text):
            came = [] if new is None or new in tags.get(key, ()) else [new]
            before = _text({"updated_at": stamp, "tags": [came, [old]]})
            changed.append(_Row(noun.kind, owner, key, None, "updated", before))
        _put(connection, author, moment, changed)


def trim(connection: Connection, moment: TransactionTime) -> None:
    """Delete a piece of what is older than is kept, where this transaction wrote anything."""
    if moment.noted and moment.kept is not None:
        history_retention.trim(connection, moment.kept, moment.at, max(TRIMMED, 2 * moment.noted))


def readable(connection: Connection, noun: RecordType, keys: Sequence[int]) -> dict[int, RowVersion]:
    """The records of *keys*, by key; what is not there, or cannot be read, is left out."""
    try:
        return standing(connection, noun, keys)
    except DamagedError:
        if len(keys) == 1:
            return {}
        return {pk: was for key in keys for pk, was in readable(connection, noun, [key]).items()}


def standing(connection: Connection, noun: RecordType, keys: Sequence[int]) -> dict[int, RowVersion]:
    """The records of *keys* as they are, by key; what is not there is left out. Raises `DamagedError`."""
    names, found = COLUMNS[noun.kind], {}
    for some in chunks(keys):
        text = keys_json(some)
        with translated(), expect_stored(f"a {noun.kind}"):
            tags = record_tags.tags_of(connection, noun, text)
            vectors = {k: (v, c) for k, v, c in _VECTORS.run(connection, keys=text)} if noun is MEMORY else {}
            for pk, owner, *values in _READ[noun.kind].run(connection, keys=text):
                columns = dict(zip(names, values, strict=True))
                found[pk] = RowVersion(pk, owner, columns, frozenset(tags.get(pk, ())), *vectors.get(pk, (None, None)))
    return found


def _here(connection: Connection) -> tuple[Actor, TransactionTime]:
    """Who writes, and when; nobody in particular where no step of a session is around."""
    return connection.info.get(TransactionTime) or (Actor(), TransactionTime())


def _difference(
    was: RowVersion, columns: Mapping[str, Any], tags: AbstractSet[str], vector: bytes | None
) -> dict[str, Any]:
    """What `old` says of a record that *was*, and is about to have these columns, tags and this vector."""
    had = was.columns
    old = {name: had[name] for name, value in columns.items() if name not in DERIVED and had[name] != value}
    if was.tags != tags:
        old["tags"] = [sorted(tags - was.tags), sorted(was.tags - tags)]
    if was.vector != vector:
        old["embedding"] = True
    return old


def _updated(noun: RecordType, was: RowVersion, old: Mapping[str, Any]) -> _Row:
    vector, checksum = (was.vector, was.checksum) if "embedding" in old else (None, None)
    return _Row(noun.kind, was.namespace_pk, was.pk, None, "updated", _text(old), vector, checksum)


def _text(old: Mapping[str, Any]) -> str | None:
    """*old* as it is stored; None where a column holds what no verb stored."""
    try:
        return json_text(cast("Any", old))
    except (TypeError, ValueError, RecursionError):
        return None


def _belonging(connection: Connection, noun: RecordType, keys: Sequence[int]) -> dict[int, list[Pair]]:
    """The members of assemblies, or the assemblies of memories."""
    found: dict[int, list[Pair]] = {}
    statement = _OF if noun is MEMORY else _MEMBERS
    for key, other, id, *_ in statement.run(connection, keys=keys_json(keys)):
        found.setdefault(key, []).append((other, id))
    return found


def _pairs(connection: Connection, keys: AbstractSet[int]) -> list[Pair]:
    return sorted(ids(connection, sorted(keys)).items())


def ids(connection: Connection, keys: Sequence[int]) -> dict[int, str]:
    """Ids by key of the memories that are there."""
    return dict(_IDS.run(connection, keys=keys_json(keys)).fetchall()) if keys else {}


def _moved(connection: Connection, author: Actor, moment: TransactionTime, keys: Sequence[int], *, back: bool) -> None:
    """Note that assemblies lose the memories *keys*, or have them *back*."""
    moved: dict[tuple[int, int], list[Pair]] = {}
    for some in chunks(keys):
        named = ids(connection, some)
        for key, owner, _, namespace_pk in _OF.run(connection, keys=keys_json(some)):
            moved.setdefault((namespace_pk, owner), []).append((key, named[key]))
    changed = [
        _Row("assembly", namespace_pk, key, None, "updated", _text({"members": [pairs, []] if back else [[], pairs]}))
        for (namespace_pk, key), pairs in moved.items()
    ]
    _put(connection, author, moment, changed)


def _put(
    connection: Connection, author: Actor, moment: TransactionTime, new: Sequence[_Row], undoes: int | None = None
) -> None:
    if not new:
        return
    count = len(new)
    kinds, owners, keys, ids, what, old, vectors, checksums = zip(*new, strict=True)
    alike = [[value] * count for value in (moment.at, *author, undoes)]
    _INSERT.insert(connection, [kinds, owners, keys, keys, ids, what, *alike, old, vectors, checksums])
    moment.noted += count

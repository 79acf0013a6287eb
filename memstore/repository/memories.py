"""Memories as rows.

A `Batch` is memories as columns, encoded. It is encoded before a transaction begins, and leaves the garbage collector
nothing to traverse but the sets of tags.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import chain, compress, islice
from operator import attrgetter
from typing import Any, NamedTuple, cast

from sqlalchemy import (
    ColumnElement,
    Connection,
    Insert,
    Integer,
    LargeBinary,
    Select,
    and_,
    bindparam,
    delete,
    insert,
    literal_column,
    null,
    select,
    type_coerce,
    update,
)
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.types import NullType

from memstore.concurrency import CHUNK_SIZE, chunks, yield_gil
from memstore.database.sqlite import sqlite3
from memstore.errors import DamagedError, DimensionError
from memstore.models.fields import RECORD_FIELDS
from memstore.models.records import (
    Address,
    Embedding,
    Json,
    Memory,
    Namespace,
)
from memstore.models.records import memory as new_record
from memstore.repository import history_writer, namespaces, record_tags, records
from memstore.repository.context import WriteContext
from memstore.repository.corruption import UNREADABLE, corrupt_row, expect_stored, wrong_vector
from memstore.repository.key_lists import keys_json, listed_keys
from memstore.repository.record_types import MEMORY
from memstore.repository.sqlite_only import change_log, vector_handoff
from memstore.repository.statements import PAIR, InListQuery, MultiRowInsert, PairListQuery, Prepared, stored
from memstore.repository.vectors import VectorSpace
from memstore.schema.namespace_path import namespace_parts
from memstore.schema.tables import memory, memory_vector, namespace
from memstore.schema.types import json_text
from memstore.timestamps import from_micros, to_micros
from memstore.vectors.encoding import checksum, decode, encode

_DECODER = json.JSONDecoder()

_COLUMNS = MEMORY.columns
COMPARED = ("created_at", "expires_at", "accessed_at", "access_count", "importance", "pinned")
"""The columns that an upsert compares first, because it seldom changes them."""
_REPLACED = ("content", "metadata", "updated_at")
"""The columns that it writes without comparing."""

_WIDTH = 100  # rows an INSERT statement: of more SQLite gains nothing
_WIDE_BYTES = 1 << 20  # of vectors an INSERT statement: they are bound in one call, which keeps the GIL
_JSON_AT_ONCE = 1 << 14  # characters of JSON made by one call, beyond which the next call makes less


def _insert() -> Insert:
    names = ("pk", "namespace_pk", *_COLUMNS)
    return insert(memory).values({name: bindparam(name, type_=NullType()) for name in names})


def _put_vector() -> Insert:
    put = sqlite_insert(memory_vector).values({c.name: bindparam(c.name, type_=NullType()) for c in memory_vector.c})
    return put.on_conflict_do_update(
        index_elements=["memory_pk", "space_pk"],
        set_={"vector": put.excluded.vector, "checksum": put.excluded.checksum},
        # The same vector again is no change: it changes no composite and no index entry. But it restores its checksum.
        where=memory_vector.c.vector.is_distinct_from(put.excluded.vector)
        | memory_vector.c.checksum.is_distinct_from(put.excluded.checksum),
    )


def _read(*vector: ColumnElement[Any]) -> Select[Any]:
    rows = select(memory.c.pk, namespace.c.path, *(memory.c[name] for name in _COLUMNS), *vector)
    rows = rows.join(namespace, namespace.c.pk == memory.c.namespace_pk)
    return rows.where(memory.c.pk.in_(listed_keys()))


def _read_with_vector() -> Select[Any]:
    c = memory_vector.c
    rows = _read(type_coerce(c.vector, LargeBinary), c.checksum, c.memory_pk.label("owner"))
    return rows.outerjoin(memory_vector, records.joins_vector(MEMORY))


def _read_without_vector() -> Select[Any]:
    return _read(null(), null(), null())


_INSERT = MultiRowInsert(_insert, _WIDTH)
_PUT_VECTOR = MultiRowInsert(_put_vector, _WIDTH)
_DELETE_VECTORS = Prepared(lambda: delete(memory_vector).where(memory_vector.c.memory_pk.in_(listed_keys())))
_TOUCH = Prepared(
    lambda: (
        update(memory)
        .where(memory.c.pk.in_(listed_keys()))
        .values(accessed_at=bindparam("now"), access_count=memory.c.access_count + literal_column("1"))
    )
)
_SET_EXPIRY = Prepared(
    # Equal values are not written: the index would read the row again.
    lambda: (
        update(memory)
        .where(
            memory.c.pk.in_(listed_keys()), memory.c.expires_at.is_distinct_from(bindparam("expires", type_=Integer))
        )
        .values(expires_at=bindparam("expires", type_=Integer))
    )
)
_EXISTING = InListQuery(
    lambda ids: select(memory.c.id, memory.c.pk, *(memory.c[name] for name in COMPARED)).where(
        memory.c.namespace_pk == bindparam("namespace"), memory.c.id.in_(ids)
    )
)
_EXISTING_IN_MANY = PairListQuery(
    lambda: select(PAIR.c.key, PAIR.c.text, memory.c.pk, *(memory.c[name] for name in COMPARED)).join_from(
        PAIR, memory, and_(memory.c.namespace_pk == PAIR.c.key, memory.c.id == PAIR.c.text)
    )
)
_READ = {True: Prepared(_read_with_vector), False: Prepared(_read_without_vector)}


class Batch:
    """Memories as columns, in the order of their fields' columns, then namespaces, vectors and tags."""

    SIZE = 1_000
    """Memories that are stored table by table: with more, the rows leave the page cache before their vectors follow."""

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = {}
        self.namespaces: list[Namespace] = []
        self.vectors: list[bytes | None] = []
        self.tags: list[frozenset[str]] = []

    def __len__(self) -> int:
        return len(self.tags)

    @property
    def ids(self) -> list[str]:
        """The memories' ids, in order."""
        return self.columns["id"]

    def addresses(self) -> list[Address]:
        """The memories' namespaces and ids, in order."""
        return list(zip(self.namespaces, self.ids, strict=True))

    def add(self, memories: Sequence[Memory]) -> None:
        """Encode memories and append them."""
        for name, value_of, encode_all in _ENCODERS:
            values: list[Any] = list(map(value_of, memories))
            if encode_all is not None and values.count(None) < len(values):
                values = encode_all(values)
            self.columns.setdefault(name, []).extend(values)
        self.namespaces += map(_NAMESPACE, memories)
        self.vectors += [None if m.embedding is None else encode(m.embedding) for m in memories]
        self.tags += map(_TAGS, memories)

    def only(self, places: Iterable[int]) -> "Batch":
        """The memories at *places*, as a batch of their own."""
        part, indexes = Batch(), list(places)
        part.columns = {name: [column[i] for i in indexes] for name, column in self.columns.items()}
        part.namespaces = [self.namespaces[i] for i in indexes]
        part.vectors = [self.vectors[i] for i in indexes]
        part.tags = [self.tags[i] for i in indexes]
        return part


def batches(memories: Iterable[Memory]) -> list[Batch]:
    """All of *memories* in batches, encoded chunk by chunk as *memories* yields them."""
    iterator = iter(memories)
    batches: list[Batch] = []
    while chunk := list(islice(iterator, CHUNK_SIZE)):
        if not batches or len(batches[-1]) == Batch.SIZE:
            batches.append(Batch())
        batches[-1].add(chunk)
    return batches


def _json_texts(values: Sequence[Json]) -> list[str]:
    """*values* as they are stored: one call encodes several, separated by U+0000, which none contains."""
    texts: list[str] = []
    size = 1
    while chunk := values[len(texts) : len(texts) + size]:
        separated: list[Json] = ["\0"] * (2 * len(chunk) - 1)
        separated[::2] = chunk
        text = json_text(separated)
        texts += text[1:-1].split(',"\\u0000",')
        size = size * 4 if len(text) < _JSON_AT_ONCE else 1  # the GIL is kept meanwhile
    return texts


def _micros(times: list[datetime | None]) -> list[int | None]:
    first = times[0]
    if first is not None and times.count(first) == len(times):  # as a rule, the times of one call are equal
        return [to_micros(first)] * len(times)
    return [None if when is None else to_micros(when) for when in times]


_BY_KIND: dict[str, Callable[[list[Any]], list[Any]]] = {"json": _json_texts, "time": _micros}
_NAMESPACE, _TAGS, _NAMESPACES = attrgetter("namespace"), attrgetter("tags"), attrgetter("namespaces")
_ENCODERS = [
    (field.column, attrgetter(field.name), _BY_KIND.get(field.kind))
    for field in RECORD_FIELDS["memory"]
    if field.column is not None
]


def insert_new(context: WriteContext, new: Sequence[Batch]) -> None:
    """Store memories whose ids do not exist. Raises `DuplicateError` naming the first that does."""
    connection, space = context.connection, context.spaces["memory"]
    if context.has_expired_rows:
        history_writer.delete_expired_ids(context, [address for batch in new for address in batch.addresses()])
    owners = _owners(connection, new)
    single = owners[0] if len(set(owners)) == 1 else None
    first = pk = records.next_key(connection, MEMORY)
    logged = change_log.top(connection)
    try:
        for batch in new:
            keys = range(pk, pk + len(batch.tags))
            batch_owners = owners[keys.start - first : keys.stop - first]
            _INSERT.insert(connection, [keys, batch_owners, *batch.columns.values()])
            vector_keys, blobs = _with_vectors(keys, batch.vectors)
            _put_vectors(connection, space, vector_keys, blobs)
            logged = vector_handoff.hand_over_new(connection, space, logged, vector_keys, blobs, owners[0])
            record_tags.add_tags(connection, MEMORY, single or batch_owners, keys, batch.tags)
            pk = keys.stop
        history_writer.record_addition(context, MEMORY, single or owners, range(first, pk))
    except sqlite3.IntegrityError:
        addresses = [address for batch in new for address in batch.addresses()]
        duplicate = records.duplicate_error(connection, MEMORY, addresses, first)
        if duplicate is None:
            raise
        raise duplicate from None


def _owners(connection: Connection, batches: Sequence[Batch]) -> list[int]:
    """The key of the namespace of each memory of *batches*; missing namespaces are added."""
    paths = list(chain.from_iterable(map(_NAMESPACES, batches)))
    unique = dict.fromkeys(paths)
    if len(unique) == 1:
        return [namespaces.ensure_key(connection, paths[0])] * len(paths)
    return list(map(namespaces.ensure_keys(connection, unique).__getitem__, paths))


def _with_vectors(keys: Sequence[int], vectors: Sequence[bytes | None]) -> tuple[Sequence[int], Sequence[bytes]]:
    """The keys that have a vector, and their vectors."""
    if None in vectors:
        exists = [data is not None for data in vectors]
        keys, vectors = list(compress(keys, exists)), list(compress(vectors, exists))
    return keys, cast("Sequence[bytes]", vectors)


def _put_vectors(connection: Connection, space: VectorSpace, keys: Sequence[int], vectors: Sequence[bytes]) -> None:
    """Store vectors, in place of existing ones."""
    if keys:
        size = len(vectors[0])
        wrong = {size, *map(len, vectors)} - {4 * space.dimension} if space.dimension else set()
        if wrong:  # checked before another process, or another write of the transaction, fixed the dimension
            raise DimensionError(expected=space.dimension, got=wrong.pop() // 4)
        most = max(1, _WIDE_BYTES // size)
        checksums = list(map(checksum, vectors))
        _PUT_VECTOR.insert(connection, [keys, [space.pk] * len(keys), vectors, checksums], most)


def _delete_vectors(connection: Connection, keys: Sequence[int], vectors: Sequence[bytes | None]) -> None:
    """Delete the vectors of those *keys* whose entry in *vectors* is None."""
    without = [key for key, data in zip(keys, vectors, strict=True) if data is None]
    if without:
        _DELETE_VECTORS.run(connection, keys=keys_json(without))


class ExistingMemory(NamedTuple):
    """The key of a memory that an upsert replaces, and the columns that it compares, as stored."""

    pk: int
    created_at: int
    expires_at: int | None
    accessed_at: int | None
    access_count: int
    importance: float
    pinned: int


def existing(connection: Connection, batch: Batch) -> list[ExistingMemory | None]:
    """For each memory of *batch* the existing one with its namespace and id. Raises `DamagedError`."""
    owners = namespaces.keys(connection, batch.namespaces)
    rows: dict[tuple[int, str], ExistingMemory] = {}
    if len(owners) == 1:
        ((path, owner),) = owners.items()
        ids = [id for id, other in zip(batch.ids, batch.namespaces, strict=True) if other == path]
        for id, *columns in _EXISTING.rows(connection, ids, namespace=owner):
            rows[owner, id] = ExistingMemory(*columns)
        if len(rows) > len(rows.keys() & {(owner, id) for id in ids}):
            raise DamagedError(
                "Corrupt index of memory.id: it leads to records with other ids. Run `memstore repair` to rebuild it."
            )
    elif owners:
        addresses = zip(batch.namespaces, batch.ids, strict=True)
        pairs = [(owners[path], id) for path, id in addresses if path in owners]
        for owner, id, *columns in _EXISTING_IN_MANY.rows(connection, pairs):
            rows[owner, id] = ExistingMemory(*columns)
    return [rows.get((owners.get(path, 0), id)) for path, id in zip(batch.namespaces, batch.ids, strict=True)]


def replace(context: WriteContext, batch: Batch, rows: Sequence[ExistingMemory]) -> None:
    """Give memories, whose existing *rows* are given, every field that *batch* has."""
    connection, space = context.connection, context.spaces["memory"]
    keys = [row.pk for row in rows]
    history_writer.record_replacement(context, keys, batch.columns, batch.tags, batch.vectors)
    differing: dict[str, list[bool]] = {}
    for name, column in ((name, batch.columns[name]) for name in COMPARED):
        old = [getattr(row, name) for row in rows]
        if old != column:
            differing[name] = [before != after for before, after in zip(old, column, strict=True)]
    by_names: dict[tuple[str, ...], list[int]] = {}
    for i, differs in enumerate(zip(*differing.values(), strict=True) if differing else [()] * len(keys)):
        if i and i % CHUNK_SIZE == 0:
            yield_gil()
        # Equal values are not written: a new expiry makes the index read the row, and for a column that is named SQLite
        # moves its index entry, whatever the value.
        by_names.setdefault((*_REPLACED, *compress(differing, differs)), []).append(i)
    for names, places in by_names.items():
        columns = [[batch.columns[name][i] for i in places] for name in names]
        _update(names).many(connection, list(zip(*columns, [keys[i] for i in places], strict=True)))
    owners = _owners(connection, [batch])
    before = change_log.top(connection)
    vector_keys, blobs = _with_vectors(keys, batch.vectors)
    _put_vectors(connection, space, vector_keys, blobs)
    scopes = zip(keys, owners, batch.columns["expires_at"], strict=True)
    exceptions = [scope for scope in scopes if scope[1] != owners[0] or scope[2] is not None]
    vector_handoff.hand_over_changed(connection, space, before, vector_keys, blobs, owners[0], exceptions)
    _delete_vectors(connection, keys, batch.vectors)
    record_tags.replace_tags(connection, MEMORY, owners, dict(zip(keys, batch.tags, strict=True)))


def change(
    connection: Connection, space: VectorSpace, path: Namespace, keys: Sequence[int], changes: Mapping[str, Any]
) -> None:
    """Give memories of one namespace new values of the fields named; the others stay as they are."""
    names = tuple(name for name in _COLUMNS if name in changes)
    if names:
        values = tuple(stored(changes[name]) for name in names)
        _update(names).many(connection, [(*values, key) for key in keys])
    if "embedding" in changes:
        vectors = [None if changes["embedding"] is None else encode(changes["embedding"])] * len(keys)
        _put_vectors(connection, space, *_with_vectors(keys, vectors))
        _delete_vectors(connection, keys, vectors)
    if "tags" in changes:
        owner = namespaces.ensure_key(connection, path)
        record_tags.replace_tags(connection, MEMORY, owner, dict.fromkeys(keys, changes["tags"]))


@lru_cache(256)
def _update(names: tuple[str, ...]) -> Prepared:
    """The UPDATE of the columns *names*: it takes their values, then the key."""
    values = [(memory.c[name], bindparam(f"new_{name}", type_=NullType())) for name in names]
    return Prepared(lambda: update(memory).where(memory.c.pk == bindparam("row")).ordered_values(*values))


def touch(connection: Connection, keys: Sequence[int], now: datetime) -> None:
    """Note that memories were used."""
    _TOUCH.run(connection, keys=keys_json(keys), now=now)


def set_expiry(connection: Connection, keys: Sequence[int], expires_at: datetime | None) -> None:
    """Give memories another expiry, None for none."""
    _SET_EXPIRY.run(connection, keys=keys_json(keys), expires=None if expires_at is None else to_micros(expires_at))


def read(connection: Connection, space: VectorSpace, keys: Sequence[int], *, embeddings: bool = True) -> list[Memory]:
    """The memories of *keys*, in their order; keys that do not exist are left out. Raises `DamagedError`.

    Without *embeddings*, no vector is read.
    """
    statement = _READ[embeddings]
    by_key: dict[int, Memory] = {}
    for chunk in chunks(keys):
        parameter = keys_json(chunk)
        tags = record_tags.tags_of(connection, MEMORY, parameter)
        with expect_stored("memory"):
            for pk, path, *columns, vector, written, owner in statement.run(connection, keys=parameter, space=space.pk):
                if owner is not None and owner != pk:
                    raise wrong_vector("memory", columns[0])
                if vector is not None:
                    vector = decode(vector, space.dimension, f"memory {columns[0]!r}", written)
                by_key[pk] = memory_of(columns, namespace_parts(path), frozenset(tags.get(pk, ())), vector)
    return list(map(by_key.__getitem__, filter(by_key.__contains__, keys)))


def memory_of(
    columns: Sequence[Any], namespace: Namespace, tags: frozenset[str], embedding: Embedding | None
) -> Memory:
    """The memory of a row, whose *columns* are as stored and in the table's order. Raises `DamagedError`."""
    id, content, metadata, importance, created, updated, expires, accessed, count, pinned = columns
    is_valid = (
        type(id) is type(content) is str
        and type(importance) is float
        and type(count) is type(created) is type(updated) is int
        and (expires is None or type(expires) is int)
        and (accessed is None or type(accessed) is int)
    )
    if not (is_valid and 0.0 <= importance <= 1.0 and count >= 0 and pinned in (0, 1)):
        raise _corrupt(columns)
    try:
        value, end = _DECODER.raw_decode(metadata)  # as json.loads, which first looks for white space around it
        if end < len(metadata):
            value = json.loads(metadata)
        at = from_micros(created)
        times = (
            at,
            at if updated == created else from_micros(updated),
            None if expires is None else from_micros(expires),
            None if accessed is None else from_micros(accessed),
        )
    except UNREADABLE:
        raise _corrupt(columns) from None
    if type(value) is not dict:
        raise _corrupt(columns)
    return new_record(id, namespace, content, embedding, tags, value, importance, *times, count, pinned == 1)


def _corrupt(columns: Sequence[Any]) -> DamagedError:
    return corrupt_row("memory", dict(zip(_COLUMNS, columns, strict=True)))

"""Memories as rows.

A `Batch` is memories as columns, encoded: that is done before a transaction begins, and nothing is left of it for
the garbage collector to walk through but the sets of tags.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import compress, islice
from typing import Any, NamedTuple, cast

from sqlalchemy import Connection, LargeBinary, bindparam, delete, insert, literal_column, select, type_coerce, update
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.types import NullType

from memstore.concurrency import CHUNK_SIZE, chunks, yield_gil
from memstore.database.sqlite import sqlite3
from memstore.errors import DamagedError, short_repr
from memstore.models.records import Json, Memory, Namespace, set_kept_fields
from memstore.models.records import memory as memory_record
from memstore.repository import history_writer, namespaces, record_tags, records
from memstore.repository.context import WriteContext
from memstore.repository.corruption import corrupt_value, expect_stored, wrong_vector
from memstore.repository.key_lists import keys_in, keys_json
from memstore.repository.record_types import MEMORY
from memstore.repository.sqlite_only import change_log, vector_handoff
from memstore.repository.statements import Among, Prepared, Wide
from memstore.repository.vectors import VectorSpace
from memstore.schema.namespace_path import namespace_parts
from memstore.schema.tables import memory, memory_vector, namespace
from memstore.schema.types import json_text
from memstore.timestamps import from_micros, to_micros
from memstore.validation.records import Draft
from memstore.vectors.encoding import checksum, decode, encode

_DECODER = json.JSONDecoder()

_COLUMNS = (
    "pk",
    "namespace_pk",
    "id",
    "content",
    "metadata",
    "importance",
    "created_at",
    "updated_at",
    "expires_at",
    "accessed_at",
    "access_count",
    "pinned",
)
_SELDOM = ("created_at", "expires_at", "accessed_at", "access_count", "importance", "pinned")
"""What an upsert seldom changes."""
_ALWAYS = ("content", "metadata", "updated_at")
"""What it writes without a look."""

_WIDTH = 100  # rows an INSERT statement: of more SQLite gains nothing
_WIDE_BYTES = 1 << 20  # of vectors an INSERT statement: they are bound at once, with the GIL held
_JSON_AT_ONCE = 1 << 14  # characters of JSON made by a call, beyond which the next call makes less

_INSERT = Wide(insert(memory).values({name: bindparam(name, type_=NullType()) for name in _COLUMNS}), _WIDTH)
_put = sqlite_insert(memory_vector).values({c.name: bindparam(c.name, type_=NullType()) for c in memory_vector.c})
_PUT_VECTOR = Wide(
    _put.on_conflict_do_update(
        index_elements=["memory_pk", "space_pk"],
        set_={"vector": _put.excluded.vector, "checksum": _put.excluded.checksum},
        # The same vector again is no change: it moves no composite and no index entry. But it mends its checksum.
        where=memory_vector.c.vector.is_distinct_from(_put.excluded.vector)
        | memory_vector.c.checksum.is_distinct_from(_put.excluded.checksum),
    ),
    _WIDTH,
)
_DROP_VECTORS = Prepared(delete(memory_vector).where(memory_vector.c.memory_pk.in_(select(keys_in().c.value))))
_TOUCH = Prepared(
    update(memory)
    .where(memory.c.pk.in_(select(keys_in().c.value)))
    .values(accessed_at=bindparam("now", type_=NullType()), access_count=memory.c.access_count + literal_column("1"))
)
_STANDING = Among(
    lambda ids: select(memory.c.id, memory.c.pk, *(type_coerce(memory.c[name], NullType()) for name in _SELDOM)).where(
        memory.c.namespace_pk == bindparam("namespace"), memory.c.id.in_(ids)
    )
)
_READ = Prepared(
    select(
        memory.c.pk,
        namespace.c.path,
        *(type_coerce(memory.c[name], NullType()) for name in _COLUMNS[2:]),
        type_coerce(memory_vector.c.vector, LargeBinary),
        memory_vector.c.checksum,
        memory_vector.c.memory_pk.label("owner"),
    )
    .join(namespace, namespace.c.pk == memory.c.namespace_pk)
    .outerjoin(memory_vector, records.holds_vector(MEMORY))
    .where(memory.c.pk.in_(select(keys_in().c.value)))
)


class Batch:
    """Memories as columns: those of `memory` but the keys, in their order, then vectors and tags."""

    SIZE = 1_000
    """Memories that are stored table by table: the rows of more had left the page cache when their vectors follow."""

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS[2:]}
        self.vectors: list[bytes | None] = []
        self.tags: list[frozenset[str]] = []

    def __len__(self) -> int:
        return len(self.tags)

    @property
    def ids(self) -> list[str]:
        """The memories' ids, in order."""
        return self.columns["id"]

    def add(self, memories: Sequence[Memory]) -> None:
        """Encode a slice of memories, after those that are here."""
        new: dict[str, list[Any]] = {
            "id": [m.id for m in memories],
            "content": [m.content for m in memories],
            "metadata": _json_texts([m.metadata for m in memories]),
            "importance": [m.importance for m in memories],
            "created_at": _micros([m.created_at for m in memories]),
            "updated_at": _micros([m.updated_at for m in memories]),
            "expires_at": _micros([m.expires_at for m in memories]),
            "accessed_at": _micros([m.accessed_at for m in memories]),
            "access_count": [m.access_count for m in memories],
            "pinned": [m.pinned for m in memories],
        }
        for name, column in self.columns.items():
            column += new[name]
        self.vectors += [None if m.embedding is None else encode(m.embedding) for m in memories]
        self.tags += [m.tags for m in memories]

    def only(self, places: Iterable[int]) -> "Batch":
        """The memories at *places*, as a batch of their own."""
        some, chosen = Batch(), list(places)
        some.columns = {name: [column[i] for i in chosen] for name, column in self.columns.items()}
        some.vectors = [self.vectors[i] for i in chosen]
        some.tags = [self.tags[i] for i in chosen]
        return some


def batches(memories: Iterable[Memory]) -> Iterator[Batch]:
    """All of *memories*, in batches, each made slice by slice as *memories* yields them."""
    given = iter(memories)
    batch = Batch()
    while some := list(islice(given, CHUNK_SIZE)):
        batch.add(some)
        if len(batch) == Batch.SIZE:
            yield batch
            batch = Batch()
    if len(batch):
        yield batch


def _json_texts(values: Sequence[Json]) -> list[str]:
    """Each of *values* as it is stored: several are made by one call, with U+0000, which none holds, between them."""
    texts: list[str] = []
    size = 1
    while some := values[len(texts) : len(texts) + size]:
        parted: list[Json] = ["\0"] * (2 * len(some) - 1)
        parted[::2] = some
        text = json_text(parted)
        texts += text[1:-1].split(',"\\u0000",')
        size = size * 4 if len(text) < _JSON_AT_ONCE else 1  # the GIL is held meanwhile
    return texts


def _micros(times: list[datetime | None]) -> list[int | None]:
    first = times[0]
    if times.count(first) == len(times):  # one call's are alike as a rule
        return [None if first is None else to_micros(first)] * len(times)
    return [None if when is None else to_micros(when) for when in times]


def insert_new(context: WriteContext, path: Namespace, new: Sequence[Batch]) -> None:
    """Store memories whose ids are not taken. Raises `DuplicateError` naming the first that is."""
    connection, space = context.connection, context.spaces["memory"]
    owner = namespaces.key_made(connection, path)
    first = pk = records.next_key(connection, MEMORY)
    try:
        for batch in new:
            keys = range(pk, pk + len(batch))
            _INSERT.insert(connection, [keys, [owner] * len(keys), *batch.columns.values()])
            held, blobs = _with_vectors(keys, batch.vectors)
            before = change_log.top(connection)
            _put_vectors(connection, space, held, blobs)
            vector_handoff.hand_over_new(connection, space, before, held, blobs, owner)
            record_tags.add_tags(connection, MEMORY, owner, zip(keys, batch.tags, strict=True))
            pk += len(keys)
        history_writer.record_addition(context, MEMORY, owner, range(first, pk))
    except sqlite3.IntegrityError as error:
        ids = [id for batch in new for id in batch.ids]
        raise records.taken(connection, MEMORY, path, ids, first) or error from error


def _with_vectors(keys: Sequence[int], vectors: Sequence[bytes | None]) -> tuple[Sequence[int], Sequence[bytes]]:
    """The vectors that there are, and whose."""
    if None in vectors:
        held = [data is not None for data in vectors]
        keys, vectors = list(compress(keys, held)), list(compress(vectors, held))
    return keys, cast("Sequence[bytes]", vectors)


def _put_vectors(connection: Connection, space: VectorSpace, keys: Sequence[int], vectors: Sequence[bytes]) -> None:
    """Store vectors in place of those that there are."""
    if keys:
        most = max(1, _WIDE_BYTES // (4 * space.dimension))
        checksums = [checksum(data) for data in vectors]
        _PUT_VECTOR.insert(connection, [keys, [space.pk] * len(keys), vectors, checksums], most)


def _set_vectors(
    connection: Connection, space: VectorSpace, keys: Sequence[int], vectors: Sequence[bytes | None]
) -> None:
    """Give memories these vectors, or none."""
    _put_vectors(connection, space, *_with_vectors(keys, vectors))
    _drop_vectors(connection, keys, vectors)


def _drop_vectors(connection: Connection, keys: Sequence[int], vectors: Sequence[bytes | None]) -> None:
    """Those of *keys* that are to have none of *vectors* have none."""
    without = [key for key, data in zip(keys, vectors, strict=True) if data is None]
    if without:
        _DROP_VECTORS.run(connection, keys=keys_json(without))


class Standing(NamedTuple):
    """What an upsert finds of a memory: its key, and what may be the same. Times are as stored."""

    pk: int
    created_at: int
    expires_at: int | None
    accessed_at: int | None
    access_count: int
    importance: float
    pinned: int


def standing(connection: Connection, path: Namespace, ids: Sequence[str]) -> dict[str, Standing]:
    """What there is of *ids*, by id. Raises `DamagedError`."""
    owner = namespaces.key(connection, path)
    if owner is None:
        return {}
    there = {row[0]: Standing(*row[1:]) for row in _STANDING.rows(connection, ids, namespace=owner)}
    if not there.keys() <= set(ids):
        raise DamagedError("the file's index of ids leads to other records: `memstore repair` builds it anew")
    return there


def keep(batch: Batch, drafts: Sequence[Draft[Memory]], there: Mapping[str, Standing]) -> None:
    """Have the memories of *drafts*, and *batch*, which is made of them, keep what an upsert keeps."""
    columns = batch.columns
    for i, draft in enumerate(drafts):
        if i and i % CHUNK_SIZE == 0:
            yield_gil()
        new, old, named = draft.record, there[draft.record.id], draft.named
        created, accessed, count, pinned = new.created_at, new.accessed_at, new.access_count, new.pinned
        if "created_at" not in named:
            columns["created_at"][i], created = old.created_at, from_micros(old.created_at)
        if "accessed_at" not in named:
            columns["accessed_at"][i] = old.accessed_at
            accessed = None if old.accessed_at is None else from_micros(old.accessed_at)
        if "access_count" not in named:
            columns["access_count"][i] = count = old.access_count
        if "pinned" not in named:
            columns["pinned"][i] = pinned = bool(old.pinned)
        set_kept_fields(new, created, accessed, count, pinned)


def replace(context: WriteContext, path: Namespace, batch: Batch, there: Mapping[str, Standing]) -> None:
    """Give memories that are *there* every field that *batch* says of them."""
    connection, space = context.connection, context.spaces["memory"]
    found = [there[id] for id in batch.ids]
    keys = [old.pk for old in found]
    history_writer.record_replacement(context, keys, batch.columns, batch.tags, batch.vectors)
    differing: dict[str, list[bool]] = {}
    for name, column in ((name, batch.columns[name]) for name in _SELDOM):
        had = [getattr(old, name) for old in found]
        if had != column:
            differing[name] = [before != after for before, after in zip(had, column, strict=True)]
    alike: dict[tuple[str, ...], list[int]] = {}
    for i, differs in enumerate(zip(*differing.values(), strict=True) if differing else [()] * len(keys)):
        if i and i % CHUNK_SIZE == 0:
            yield_gil()
        # What is the same is not written: a new expiry has the index look, and of a column that is named SQLite moves
        # the entry in its index, whatever its value.
        alike.setdefault((*_ALWAYS, *compress(differing, differs)), []).append(i)
    for names, places in alike.items():
        columns = [[batch.columns[name][i] for i in places] for name in names]
        _update(names).many(connection, list(zip(*columns, [keys[i] for i in places], strict=True)))
    owner = namespaces.key_made(connection, path)
    before = change_log.top(connection)
    held, blobs = _with_vectors(keys, batch.vectors)
    _put_vectors(connection, space, held, blobs)
    expiring = {key: when for key, when in zip(keys, batch.columns["expires_at"], strict=True) if when is not None}
    vector_handoff.hand_over_changed(connection, space, before, held, blobs, owner, expiring)
    _drop_vectors(connection, keys, batch.vectors)
    record_tags.replace_tags(connection, MEMORY, owner, dict(zip(keys, batch.tags, strict=True)))


def change(connection: Connection, space: VectorSpace, path: Namespace, pk: int, changes: Mapping[str, Any]) -> None:
    """Give a memory new values of the fields named; the others stay as they are."""
    names = tuple(name for name in _COLUMNS if name in changes)
    if names:
        _update(names).many(connection, [(*(_stored(changes[name]) for name in names), pk)])
    if "embedding" in changes:
        vector = changes["embedding"]
        _set_vectors(connection, space, [pk], [None if vector is None else encode(vector)])
    if "tags" in changes:
        record_tags.replace_tags(connection, MEMORY, namespaces.key_made(connection, path), {pk: changes["tags"]})


def _stored(value: object) -> object:
    if isinstance(value, dict):
        return json_text(value)
    return to_micros(value) if isinstance(value, datetime) else value


@lru_cache(256)
def _update(names: tuple[str, ...]) -> Prepared:
    """The UPDATE of the columns *names*: it takes their values, then the key."""
    values = [(memory.c[name], bindparam(f"new_{name}", type_=NullType())) for name in names]
    return Prepared(update(memory).where(memory.c.pk == bindparam("row")).ordered_values(*values))


def touch(connection: Connection, keys: Sequence[int], now: datetime) -> None:
    """Note that memories were used."""
    _TOUCH.run(connection, keys=keys_json(keys), now=to_micros(now))


def read(connection: Connection, space: VectorSpace, keys: Sequence[int]) -> list[Memory]:
    """The memories of *keys*, in their order; keys that do not exist are left out. Raises `DamagedError`."""
    found: dict[int, Memory] = {}
    for slice_ in chunks(keys):
        some = keys_json(slice_)
        tags = record_tags.tags_of(connection, MEMORY, some)
        with expect_stored("a memory"):
            for row in _READ.run(connection, keys=some, space=space.pk):
                found[row[0]] = _record(row, tags, space)
    return [found[key] for key in keys if key in found]


def _metadata(text: str, id: str) -> dict[str, Json]:
    try:
        found, end = _DECODER.raw_decode(text)  # as json.loads, which first looks for white space around it
        return cast("dict[str, Json]", found if end == len(text) else json.loads(text))
    except (TypeError, ValueError, RecursionError) as error:
        raise DamagedError(f"the stored metadata of memory {id!r} is no JSON: replace it with update()") from error


def _record(row: tuple[Any, ...], tags: Mapping[int, set[str]], space: VectorSpace) -> Memory:
    pk, path, id, content, metadata, importance, created, updated, expires, accessed, count, *rest = row
    pinned, vector, vector_handoff, owner = rest
    if owner is not None and owner != pk:
        raise wrong_vector("memory", id)
    if not (type(id) is type(content) is str and type(importance) is float and type(count) is int and pinned in (0, 1)):
        raise corrupt_value(f"the id, content, importance, access count and pin of memory {short_repr(id)}", row[2:])
    at = from_micros(created)
    return memory_record(
        id,
        namespace_parts(path),
        content,
        None if vector is None else decode(vector, space.dimension, f"memory {id!r}", vector_handoff),
        frozenset(tags.get(pk, ())),
        _metadata(metadata, id),
        importance,
        at,
        at if updated == created else from_micros(updated),
        None if expires is None else from_micros(expires),
        None if accessed is None else from_micros(accessed),
        count,
        pinned == 1,
    )

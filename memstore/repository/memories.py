"""Memories as rows."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Connection, LargeBinary, bindparam, delete, insert, select, type_coerce, update
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.types import NullType

from memstore.errors import DamagedError
from memstore.fields import from_micros, to_micros
from memstore.records import Embedding, Json, Memory, Namespace
from memstore.repository import namespaces, rows
from memstore.repository.log import VectorSpace, keys_in, keys_json
from memstore.repository.nouns import MEMORY
from memstore.repository.prepared import Prepared
from memstore.schema import json_text, memory, memory_vector, namespace, namespace_parts
from memstore.threads import slices
from memstore.vectors import checksum, decode, encode

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
)
_STORED = {name: bindparam(name, type_=NullType()) for name in _COLUMNS}
_INSERT = Prepared(insert(memory).values(_STORED))
_INSERT_VECTOR = Prepared(
    insert(memory_vector).values({c.name: bindparam(c.name, type_=NullType()) for c in memory_vector.c})
)
_put = sqlite_insert(memory_vector).values({c.name: bindparam(c.name, type_=NullType()) for c in memory_vector.c})
_PUT_VECTOR = Prepared(
    _put.on_conflict_do_update(
        index_elements=["memory_pk", "space_pk"],
        set_={"vector": _put.excluded.vector, "checksum": _put.excluded.checksum},
        # The same vector again is no change: it moves no composite and no index entry. But it mends its checksum.
        where=memory_vector.c.vector.is_distinct_from(_put.excluded.vector)
        | memory_vector.c.checksum.is_distinct_from(_put.excluded.checksum),
    )
)
_READ = Prepared(
    select(
        memory.c.pk,
        namespace.c.path,
        *(type_coerce(memory.c[name], NullType()) for name in _COLUMNS[2:]),
        type_coerce(memory_vector.c.vector, LargeBinary),
    )
    .join(namespace, namespace.c.pk == memory.c.namespace_pk)
    .outerjoin(
        memory_vector, (memory_vector.c.memory_pk == memory.c.pk) & (memory_vector.c.space_pk == bindparam("space"))
    )
    .where(memory.c.pk.in_(select(keys_in().c.value)))
)


def insert_new(connection: Connection, space: VectorSpace, path: Namespace, memories: Sequence[Memory]) -> None:
    """Store memories whose ids are not taken. Raises `DuplicateError` naming the first that is."""
    owner = namespaces.key_made(connection, path)
    first = rows.next_key(connection, MEMORY)
    tags = rows.tag_keys(connection, owner, set().union(*(m.tags for m in memories)))
    pk = first
    try:
        for some in slices(memories):
            keyed = list(enumerate(some, pk))
            _INSERT.insert(connection, [_row(pk, owner, m) for pk, m in keyed])
            _INSERT_VECTOR.insert(
                connection, [_vector(pk, space, m.embedding) for pk, m in keyed if m.embedding is not None]
            )
            rows.carry(connection, MEMORY, tags, [(pk, m.tags) for pk, m in keyed if m.tags])
            pk += len(some)
    except sqlite3.IntegrityError as error:
        raise rows.taken(connection, MEMORY, path, [m.id for m in memories], first) or error from error


def _row(pk: int, owner: int, record: Memory) -> tuple[Any, ...]:
    return (
        pk,
        owner,
        record.id,
        record.content,
        json_text(record.metadata),
        record.importance,
        to_micros(record.created_at),
        to_micros(record.updated_at),
        None if record.expires_at is None else to_micros(record.expires_at),
        None if record.accessed_at is None else to_micros(record.accessed_at),
        record.access_count,
    )


def _vector(pk: int, space: VectorSpace, embedding: Embedding) -> tuple[Any, ...]:
    data = encode(embedding)
    return pk, space.pk, data, checksum(data)


def change(
    connection: Connection, space: VectorSpace, path: Namespace, changes: Mapping[int, Mapping[str, Any]]
) -> None:
    """Give memories, named by key, new values of the fields named; the others stay as they are."""
    owner = namespaces.key_made(connection, path)
    vectors = [_vector(pk, space, c["embedding"]) for pk, c in changes.items() if c.get("embedding") is not None]
    without = [pk for pk, c in changes.items() if "embedding" in c and c["embedding"] is None]
    tags = [(pk, c["tags"]) for pk, c in changes.items() if "tags" in c]
    by_names: dict[frozenset[str], list[dict[str, Any]]] = {}
    for pk, fields in changes.items():
        plain = {name: value for name, value in fields.items() if name in memory.c}
        if plain:
            by_names.setdefault(frozenset(plain), []).append({"row": pk, **{f"new_{k}": v for k, v in plain.items()}})
    for names, values in by_names.items():
        setters: dict[str, Any] = {name: bindparam(f"new_{name}") for name in sorted(names)}
        statement = update(memory).where(memory.c.pk == bindparam("row")).values(setters)
        for some in slices(values):
            connection.execute(statement, list(some))
    _PUT_VECTOR.many(connection, vectors)
    if without:
        gone = delete(memory_vector).where(memory_vector.c.memory_pk.in_(select(keys_in().c.value)))
        connection.execute(gone, {"keys": keys_json(without)})
    if tags:
        rows.replace_tags(connection, MEMORY, owner, tags)


def touch(connection: Connection, keys: Sequence[int], now: datetime) -> None:
    """Note that memories were used."""
    used = update(memory).where(memory.c.pk.in_(select(keys_in().c.value)))
    values = {"accessed_at": now, "access_count": memory.c.access_count + 1}
    connection.execute(used.values(values), {"keys": keys_json(keys)})


def read(connection: Connection, space: VectorSpace, keys: Sequence[int]) -> list[Memory]:
    """The memories of *keys*, in their order; keys that do not exist are left out. Raises `DamagedError`."""
    found: dict[int, Memory] = {}
    for slice_ in slices(keys):
        some = keys_json(slice_)
        tags = rows.tags_of(connection, MEMORY, some)
        for row in _READ.run(connection, keys=some, space=space.pk):
            found[row[0]] = _record(row, tags, space)
    return [found[key] for key in keys if key in found]


def _metadata(text: str, id: str) -> dict[str, Json]:
    try:
        return cast("dict[str, Json]", json.loads(text))
    except ValueError as error:
        raise DamagedError(f"the stored metadata of memory {id!r} is no JSON: replace it with update()") from error


def _record(row: tuple[Any, ...], tags: Mapping[int, set[str]], space: VectorSpace) -> Memory:
    pk, path, id, content, metadata, importance, created, updated, expires, accessed, count, vector = row
    return Memory(
        id=id,
        namespace=namespace_parts(path),
        content=content,
        embedding=None if vector is None else decode(vector, space.space.dimension, f"memory {id!r}"),
        tags=frozenset(tags.get(pk, ())),
        metadata=_metadata(metadata, id),
        importance=importance,
        created_at=from_micros(created),
        updated_at=from_micros(updated),
        expires_at=None if expires is None else from_micros(expires),
        accessed_at=None if accessed is None else from_micros(accessed),
        access_count=count,
    )

"""What `check` reads and `repair` writes: rows that no other room looks at in this way."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from sqlalchemy import Connection, delete, func, select, update

from memstore.concurrency import yield_gil
from memstore.database import raw
from memstore.database.sqlite import sqlite3
from memstore.models.records import Namespace, RecordKind
from memstore.models.reports import Finding
from memstore.repository.corruption import expect_stored
from memstore.repository.key_lists import keys_in, keys_json
from memstore.repository.record_types import BY_KIND, RECORD_TYPES
from memstore.repository.vectors import VectorSpace
from memstore.schema.namespace_path import namespace_parts, namespace_path
from memstore.schema.tables import assembly_vector, metadata, namespace, tombstone
from memstore.vectors.encoding import checksum

_CHUNK = 500


def integrity(connection: Connection) -> list[str]:
    """What SQLite finds wrong with the file's structure, a line each."""
    try:
        lines = [row[0] for row in raw(connection).execute("PRAGMA integrity_check")]
    except sqlite3.OperationalError as error:  # a constraint on JSON raises at what is none
        lines = [f"SQLite's own check did not come to its end: {error}"]
    return [line for line in lines if line != "ok"]


def orphans(connection: Connection) -> list[tuple[str, str]]:
    """Rows whose owner does not exist: where they are, and in which table the owner is missing."""
    rows = raw(connection).execute("PRAGMA foreign_key_check").fetchall()
    return [(f"{table} row {rowid}" if rowid is not None else table, parent) for table, rowid, parent, _ in rows]


def remove_orphans(connection: Connection) -> int:
    """Delete rows that belong to a record or a tag that does not exist; how many. Records are never touched."""
    removed = 0
    for table in metadata.tables.values():
        for key in table.foreign_keys:
            if key.ondelete == "CASCADE":
                owners = select(key.column)
                removed += connection.execute(delete(table).where(key.parent.not_in(owners))).rowcount
    return removed


def stored_vectors(connection: Connection, space: VectorSpace) -> Iterator[tuple[int, bytes, int | None]]:
    """Key, bytes and checksum of every stored vector of a space. Of what has no key for an owner `orphans` tells."""
    noun = BY_KIND[space.kind]
    vectors = noun.vectors.c
    query = select(noun.vector_owner, vectors.vector, vectors.checksum)
    owned = func.typeof(noun.vector_owner) == "integer"
    cursor = connection.execute(query.where(vectors.space_pk == space.pk, vectors.vector.is_not(None), owned))
    while rows := cursor.fetchmany(_CHUNK):
        yield from (tuple(row) for row in rows)
        yield_gil()


def stored_composites(connection: Connection, space: VectorSpace) -> list[tuple[int, bytes | None]]:
    """Key and composite of every assembly that has a row for one."""
    c = assembly_vector.c
    owned = func.typeof(c.assembly_pk) == "integer"  # of any other `orphans` tells
    query = select(c.assembly_pk, c.vector).where(c.space_pk == space.pk, owned).order_by(c.assembly_pk)
    return [(key, blob) for key, blob in connection.execute(query)]


def changed_at(connection: Connection) -> datetime | None:
    """When a record was last added or updated; None where there is none. Raises `DamagedError`."""
    with expect_stored("the time of an update"):
        times = [connection.execute(select(func.max(noun.table.c.updated_at))).scalar_one() for noun in RECORD_TYPES]
    return max((time for time in times if time is not None), default=None)


def tombstones(connection: Connection, kind: RecordKind) -> list[tuple[int, str, Namespace]]:
    """Key, id and namespace of every tombstone of a kind. Of those without a namespace `orphans` tells."""
    held = select(tombstone.c.pk, tombstone.c.id, namespace.c.path)
    owned = held.join(namespace, namespace.c.pk == tombstone.c.namespace_pk).where(tombstone.c.kind == kind)
    with expect_stored("the path of a namespace"):
        return [(pk, str(id), namespace_parts(path)) for pk, id, path in connection.execute(owned)]


def names(connection: Connection, kind: RecordKind, keys: Iterable[int]) -> dict[int, tuple[str, Namespace]]:
    """Id and namespace of the records of *keys* that exist."""
    table = BY_KIND[kind].table
    query = (
        select(table.c.pk, table.c.id, namespace.c.path)
        .join(namespace, namespace.c.pk == table.c.namespace_pk)
        .where(table.c.pk.in_(select(keys_in().c.value)))
    )
    rows = connection.execute(query, {"keys": keys_json(list(keys))})
    with expect_stored("the path of a namespace"):
        return {key: (str(id), namespace_parts(path)) for key, id, path in rows}


def keys(connection: Connection, findings: Sequence[Finding]) -> list[int]:
    """Keys of the records that *findings* name."""
    found = []
    for finding in findings:
        table = BY_KIND["assembly" if finding.noun == "assembly" else "memory"].table
        query = select(table.c.pk).join(namespace, namespace.c.pk == table.c.namespace_pk)
        query = query.where(table.c.id == finding.id, namespace.c.path == namespace_path(finding.namespace))
        found += [int(key) for key in connection.execute(query).scalars()]
    return found


def fill_checksums(connection: Connection, space: VectorSpace) -> int:
    """Compute the checksums that raw SQL left unknown; how many there were."""
    noun = BY_KIND[space.kind]
    vectors = noun.vectors.c
    unknown = select(noun.vector_owner, vectors.vector).where(
        vectors.space_pk == space.pk, vectors.checksum.is_(None), func.typeof(vectors.vector) == "blob"
    )
    rows = connection.execute(unknown).all()
    for key, blob in rows:
        found = update(noun.vectors).where(noun.vector_owner == key, vectors.space_pk == space.pk)
        connection.execute(found.values(checksum=checksum(blob)))
    return len(rows)


def reindex(connection: Connection) -> None:
    """Build SQLite's own indexes again from the tables."""
    raw(connection).execute("REINDEX")

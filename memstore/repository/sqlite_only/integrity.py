"""What `check` reads and `repair` writes: statements on damaged rows that nothing else needs."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial

from sqlalchemy import Connection, Delete, ForeignKey, Select, bindparam, delete, func, select, text, update

from memstore.database import raw
from memstore.database.sqlite import sqlite3
from memstore.database.statement_limits import STATEMENT, watched_often
from memstore.models.records import Namespace, RecordKind
from memstore.models.reports import Finding
from memstore.repository.corruption import expect_stored
from memstore.repository.key_lists import keys_json, listed_keys
from memstore.repository.record_types import RecordType
from memstore.repository.statements import Prepared, prepared_by_kind
from memstore.repository.vectors import VectorSpace
from memstore.schema import column_rules
from memstore.schema.namespace_path import namespace_parts, namespace_path
from memstore.schema.tables import assembly_vector, metadata, namespace, tombstone
from memstore.timestamps import from_micros
from memstore.vectors.encoding import checksum


def _with_path(t: RecordType) -> Select[tuple[int, str, str]]:
    rows = select(t.table.c.pk, t.table.c.id, namespace.c.path)
    return rows.join(namespace, namespace.c.pk == t.table.c.namespace_pk)


def _delete_orphans(key: ForeignKey) -> Delete:
    return delete(key.parent.table).where(key.parent.not_in(select(key.column)))


_ORPHANS = [
    Prepared(partial(_delete_orphans, key))
    for table in metadata.tables.values()
    for key in sorted(table.foreign_keys, key=lambda key: key.parent.name)
    if key.ondelete == "CASCADE"
]
_VECTORS = prepared_by_kind(
    lambda t: select(t.vector_owner, t.vectors.c.vector, t.vectors.c.checksum).where(
        t.vectors.c.space_pk == bindparam("space"),
        t.vectors.c.vector.is_not(None),
        func.typeof(t.vector_owner) == "integer",  # `orphans` reports the others
    )
)
_COMPOSITES = Prepared(
    lambda: (
        select(assembly_vector.c.assembly_pk, assembly_vector.c.vector)
        .where(
            assembly_vector.c.space_pk == bindparam("space"), func.typeof(assembly_vector.c.assembly_pk) == "integer"
        )
        .order_by(assembly_vector.c.assembly_pk)
    )
)
_LAST_UPDATE = prepared_by_kind(
    lambda t: select(func.max(t.table.c.updated_at)).where(text(column_rules.is_valid_sql(t.kind, "updated_at")))
)
_TOMBSTONES = Prepared(
    lambda: (
        select(tombstone.c.pk, tombstone.c.id, namespace.c.path)
        .join(namespace, namespace.c.pk == tombstone.c.namespace_pk)
        .where(tombstone.c.kind == bindparam("kind"))
    )
)
_NAMES = prepared_by_kind(lambda t: _with_path(t).where(t.table.c.pk.in_(listed_keys())))
_KEYS = prepared_by_kind(
    lambda t: _with_path(t).where(t.table.c.id == bindparam("id"), namespace.c.path == bindparam("path"))
)
_WITHOUT_CHECKSUM = prepared_by_kind(
    lambda t: select(t.vector_owner, t.vectors.c.vector).where(
        t.vectors.c.space_pk == bindparam("space"),
        t.vectors.c.checksum.is_(None),
        func.typeof(t.vectors.c.vector) == "blob",
    )
)
_SET_CHECKSUM = prepared_by_kind(
    lambda t: (
        update(t.vectors)
        .where(t.vector_owner == bindparam("owner"), t.vectors.c.space_pk == bindparam("space"))
        .values(checksum=bindparam("new_checksum"))
    )
)


def integrity(connection: Connection) -> list[str]:
    """What SQLite finds wrong with the file's structure, a line each."""
    try:
        with watched_often(connection):
            lines = [row[0] for row in raw(connection).execute("PRAGMA integrity_check")]
    except (sqlite3.OperationalError, sqlite3.DataError) as error:
        # A constraint on JSON raises at a text that is not JSON; one of another application may take too long.
        lines = [f"PRAGMA integrity_check failed: {error}"]
    return [line for line in lines if line != "ok"]


def orphans(connection: Connection) -> list[tuple[str, str]]:
    """Rows whose owner does not exist: table and row, and the table in which the owner is missing."""
    STATEMENT.is_new = True
    rows = raw(connection).execute("PRAGMA foreign_key_check").fetchall()
    return [(f"{table} row {rowid}" if rowid is not None else table, parent) for table, rowid, parent, _ in rows]


def remove_orphans(connection: Connection) -> int:
    """Delete rows that belong to a record or a tag that does not exist; how many. Records are never deleted."""
    return sum(statement.run(connection).rowcount for statement in _ORPHANS)


def stored_vectors(connection: Connection, space: VectorSpace) -> Iterator[tuple[int, bytes, int | None]]:
    """Key of the owner, bytes and checksum of every stored vector of a space, but for those that `orphans` reports."""
    for rows in _VECTORS[space.kind].fetch(connection, space=space.pk):
        yield from rows


def stored_composites(connection: Connection, space: VectorSpace) -> list[tuple[int, bytes | None]]:
    """Key and composite of every assembly that has a row for one, but for those that `orphans` reports."""
    return _COMPOSITES.run(connection, space=space.pk).fetchall()


def changed_at(connection: Connection) -> datetime | None:
    """When a record was last added or updated, as far as the times can be read; None where there is none."""
    micros = [statement.value(connection) for statement in _LAST_UPDATE.values()]
    return max((from_micros(value) for value in micros if value is not None), default=None)


def wrong_sequences(connection: Connection) -> list[tuple[str, int, object]]:
    """Counters that would hand out a key again: the table, the least value of its counter, and its value or None."""
    base, wrong = raw(connection), []
    sequences = dict(
        base.execute(
            "SELECT CAST(name AS BLOB), CASE typeof(seq) WHEN 'text' THEN '' ELSE seq END FROM sqlite_sequence"
        )
    )
    for name, table in metadata.tables.items():
        if table.dialect_options["sqlite"]["autoincrement"]:
            (last,) = base.execute(f'SELECT max(rowid) FROM "{name}"').fetchone()  # noqa: S608 - a table of ours
            seq = sequences.get(name.encode(), None if last else 0)
            if type(seq) is not int or not (last or 0) <= seq < 2**62:
                wrong.append((str(name), last or 0, seq))
    return wrong


def tombstones(connection: Connection, kind: RecordKind) -> list[tuple[int, str, Namespace]]:
    """Key, id and namespace of every tombstone of a kind, but for those that `orphans` reports."""
    rows = _TOMBSTONES.run(connection, kind=kind).fetchall()
    with expect_stored("namespace.path"):
        return [(pk, str(id), namespace_parts(path)) for pk, id, path in rows]


def names(connection: Connection, kind: RecordKind, keys: Iterable[int]) -> dict[int, tuple[str, Namespace]]:
    """Id and namespace of the records of *keys* that exist."""
    rows = _NAMES[kind].run(connection, keys=keys_json(list(keys))).fetchall()
    with expect_stored("namespace.path"):
        return {key: (str(id), namespace_parts(path)) for key, id, path in rows}


def keys(connection: Connection, findings: Sequence[Finding]) -> list[int]:
    """Keys of the records that *findings* name."""
    pks: list[int] = []
    for finding in findings:
        statement = _KEYS["assembly" if finding.record_kind == "assembly" else "memory"]
        pks += statement.column(connection, id=finding.id, path=namespace_path(finding.namespace))
    return pks


def fill_checksums(connection: Connection, space: VectorSpace) -> int:
    """Compute the checksums that raw SQL removed; how many there were."""
    rows = _WITHOUT_CHECKSUM[space.kind].run(connection, space=space.pk).fetchall()
    for key, blob in rows:
        _SET_CHECKSUM[space.kind].run(connection, owner=key, space=space.pk, new_checksum=checksum(blob))
    return len(rows)


def reindex(connection: Connection) -> None:
    """Rebuild SQLite's own indexes from the tables."""
    raw(connection).execute("REINDEX")

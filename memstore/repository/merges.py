"""Merges of assemblies as rows: the target, its sources, and what the merge added to the target.

Assemblies are named by key: a key belongs to one assembly for ever, an id can be used again. A merge that was undone
keeps its row and is left out of the lineage. The sources of all other merges are archived, and existed when the merge
was made, so the lineage has no cycles.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Insert,
    Table,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    null,
    select,
    type_coerce,
    update,
)
from sqlalchemy.types import NullType

from memstore.models.merging import Merge
from memstore.models.records import Namespace
from memstore.repository import namespaces, store_meta
from memstore.repository.context import WriteContext
from memstore.repository.corruption import corrupt_value, expect_stored, only
from memstore.repository.key_lists import key_lists, keys_json, listed_keys
from memstore.repository.statements import Prepared, stored
from memstore.schema.namespace_path import namespace_parts
from memstore.schema.tables import assembly_merge, assembly_merge_source, namespace
from memstore.timestamps import from_micros, to_micros

_COLUMNS = ("target_pk", "target_id", "at", "similarity", "threshold", "actor", "reason", "brought", "undone_at")
NOTHING = "{}"
"""What a merge with an erased source has as added to its target: it cannot be undone."""

_merge, _source = assembly_merge.c, assembly_merge_source.c


def _insert(table: Table) -> Insert:
    return insert(table).values({c.name: bindparam(c.name, type_=NullType()) for c in table.c if c.name != "pk"})


def _of_namespace() -> ColumnElement[bool]:
    return _merge.namespace_pk == bindparam("namespace")


_INSERT = Prepared(lambda: _insert(assembly_merge))
_INSERT_SOURCE = Prepared(lambda: _insert(assembly_merge_source))
_READ = Prepared(
    lambda: (
        select(_merge.pk, namespace.c.path, *(type_coerce(_merge[name], NullType()) for name in _COLUMNS))
        .join(namespace, namespace.c.pk == _merge.namespace_pk)
        .where(_merge.pk.in_(listed_keys()))
        .order_by(_merge.pk)
    )
)
_SOURCES = Prepared(
    lambda: (
        select(_source.merge_pk, _source.source_pk, _source.source_id)
        .where(_source.merge_pk.in_(listed_keys()))
        .order_by(_source.merge_pk, _source.position)
    )
)
_INTO = Prepared(lambda: select(_merge.pk).where(_merge.target_pk.in_(listed_keys()), _merge.undone_at.is_(None)))
_OUT_OF = Prepared(
    lambda: (
        select(_merge.pk)
        .join(assembly_merge_source, _source.merge_pk == _merge.pk)
        .where(_source.source_pk.in_(listed_keys()), _merge.undone_at.is_(None))
        .distinct()
    )
)
_LATEST = Prepared(
    lambda: select(func.max(_merge.pk)).where(
        _of_namespace(), _merge.target_id == bindparam("id"), _merge.undone_at.is_(None)
    )
)
_LAST_TARGET = Prepared(
    lambda: select(func.max(_merge.target_pk)).where(_of_namespace(), _merge.target_id == bindparam("id"))
)
_LAST_SOURCE = Prepared(
    lambda: (
        select(func.max(_source.source_pk))
        .join(assembly_merge, _merge.pk == _source.merge_pk)
        .where(_of_namespace(), _source.source_id == bindparam("id"))
    )
)
_KEYS_OF_ID = Prepared(
    lambda: (
        select(_merge.target_pk)
        .where(_of_namespace(), _merge.target_id == bindparam("id"))
        .union(
            select(_source.source_pk)
            .join(assembly_merge, _merge.pk == _source.merge_pk)
            .where(_of_namespace(), _source.source_id == bindparam("id"))
        )
    )
)
_DELETE_INTO = Prepared(lambda: delete(assembly_merge).where(_merge.target_pk.in_(listed_keys())))
_WITH_SOURCES = Prepared(lambda: select(_source.merge_pk).where(_source.source_pk.in_(listed_keys())).distinct())
_DELETE_SOURCES = Prepared(lambda: delete(assembly_merge_source).where(_source.source_pk.in_(listed_keys())))
_DELETE_WITHOUT_SOURCES = Prepared(
    lambda: delete(assembly_merge).where(
        _merge.pk.in_(listed_keys()), _merge.pk.not_in(select(_source.merge_pk).where(_source.merge_pk == _merge.pk))
    )
)
_CLEAR = Prepared(
    lambda: (
        update(assembly_merge)
        .where(_merge.pk.in_(listed_keys()))
        .values(brought=literal_column(f"'{NOTHING}'"), reason=null(), undone_reason=null())
    )
)
_DELETE_NAMESPACES = Prepared(lambda: delete(assembly_merge).where(_merge.namespace_pk.in_(listed_keys())))
_MARK_UNDONE = Prepared(
    lambda: (
        update(assembly_merge)
        .where(_merge.pk == bindparam("row"))
        .values({name: bindparam(name, type_=NullType()) for name in ("undone_at", "undone_by", "undone_reason")})
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMerge:
    """A merge, the keys of its target and of its sources in order, and what it added to the target."""

    merge: Merge
    target: int
    sources: tuple[int, ...]
    added: Mapping[str, Any]


def add(
    connection: Connection, merge: Merge, target: int, sources: Sequence[int], added: Mapping[str, Any]
) -> StoredMerge:
    """Store *merge*, which gets a new number, of the assemblies with these keys."""
    row = {
        "namespace_pk": namespaces.ensure_key(connection, merge.namespace),
        "target_pk": target,
        "target_id": merge.target,
        "at": to_micros(merge.at),
        "similarity": merge.similarity,
        "threshold": merge.threshold,
        "actor": merge.actor,
        "reason": merge.reason,
        "brought": stored(dict(added)),
        "undone_at": None,
        "undone_by": None,
        "undone_reason": None,
    }
    number = _INSERT.run(connection, **row).lastrowid or 0
    for position, (key, id) in enumerate(zip(sources, merge.sources, strict=True)):
        _INSERT_SOURCE.run(connection, merge_pk=number, position=position, source_pk=key, source_id=id)
    return only(read(connection, [number]))


def read(connection: Connection, numbers: Sequence[int]) -> list[StoredMerge]:
    """The merges *numbers*, ascending; one that does not exist is left out. Raises `DamagedError`."""
    sources: dict[int, list[tuple[int, str]]] = {}
    for number, key, id in _SOURCES.of_keys(connection, numbers):
        sources.setdefault(number, []).append((key, id))
    rows = list(_READ.of_keys(connection, sorted(numbers)))
    origin = store_meta.origin(connection) if rows else ""
    return [_stored_merge(row, sources.get(row[0], []), origin) for row in rows]


def _stored_merge(row: Sequence[Any], sources: Sequence[tuple[int, str]], origin: str) -> StoredMerge:
    number, path, *values = row
    columns = dict(zip(_COLUMNS, values, strict=True))
    ids = [columns["target_id"], *(id for _, id in sources)]
    keys = [columns["target_pk"], *(key for key, _ in sources)]
    with expect_stored("assembly_merge"):
        added = json.loads(columns["brought"])
        if {type(id) for id in ids} != {str} or {type(key) for key in keys} != {int} or type(added) is not dict:
            raise corrupt_value("assembly_merge", "ids as str, keys as int and brought as an object", tuple(row))
        undone_at = columns["undone_at"]
        merge = Merge(
            id=number,
            namespace=namespace_parts(path),
            target=columns["target_id"],
            sources=tuple(ids[1:]),
            at=from_micros(columns["at"]),
            similarity=columns["similarity"],
            threshold=columns["threshold"],
            actor=columns["actor"],
            reason=columns["reason"],
            undone_at=None if undone_at is None else from_micros(undone_at),
            origin=origin,
        )
    return StoredMerge(merge=merge, target=columns["target_pk"], sources=tuple(keys[1:]), added=added)


def one(connection: Connection, path: Namespace, number: int) -> StoredMerge | None:
    """The merge *number* of a namespace; None where the namespace has no such merge."""
    return next((stored for stored in read(connection, [number]) if stored.merge.namespace == path), None)


def latest(connection: Connection, path: Namespace, target: str) -> StoredMerge | None:
    """The last merge, not undone, into an assembly with the id *target*; None where there is none."""
    namespace_pk = namespaces.key(connection, path)
    number = _LATEST.value(connection, namespace=namespace_pk, id=target)
    return None if number is None else one(connection, path, number)


def into(connection: Connection, targets: Sequence[int]) -> list[StoredMerge]:
    """The merges, not undone, into the assemblies *targets*, by number."""
    return _read_matching(connection, _INTO, targets)


def out_of(connection: Connection, sources: Sequence[int]) -> list[StoredMerge]:
    """The merges, not undone, that have one of the assemblies *sources* as a source, by number."""
    return _read_matching(connection, _OUT_OF, sources)


def _read_matching(connection: Connection, statement: Prepared, keys: Sequence[int]) -> list[StoredMerge]:
    return read(connection, sorted({number for (number,) in statement.of_keys(connection, keys)}))


def mark_undone(context: WriteContext, number: int) -> None:
    """Store that the merge *number* was undone, when, by whom and why."""
    _MARK_UNDONE.run(
        context.connection,
        row=number,
        undone_at=to_micros(context.now),
        undone_by=context.actor.name,
        undone_reason=context.actor.reason,
    )


def last_key_of_id(connection: Connection, path: Namespace, id: str) -> int | None:
    """The key of the last assembly with the id *id* that is the target or a source of a merge; None without one."""
    namespace_pk = namespaces.key(connection, path)
    keys = [query.value(connection, namespace=namespace_pk, id=id) for query in (_LAST_TARGET, _LAST_SOURCE)]
    return max((key for key in keys if key is not None), default=None)


def keys_of_id(connection: Connection, namespace_pk: int, id: str) -> set[int]:
    """Keys of the assemblies with the id *id* that are the target or a source of a merge, undone ones included."""
    return set(_KEYS_OF_ID.column(connection, namespace=namespace_pk, id=id))


def erase(connection: Connection, keys: Sequence[int]) -> int:
    """Remove the assemblies *keys* from all merges; how many merges were deleted or changed.

    A merge into one of them is deleted, and one without a source left. A merge with other sources stays, without the
    erased ones, what it added and its reasons: it cannot be undone.
    """
    count = 0
    for part in key_lists(keys):
        key_list = keys_json(part)
        count += _DELETE_INTO.run(connection, keys=key_list).rowcount
        numbers = keys_json(_WITH_SOURCES.column(connection, keys=key_list))
        _DELETE_SOURCES.run(connection, keys=key_list)
        count += _DELETE_WITHOUT_SOURCES.run(connection, keys=numbers).rowcount
        count += _CLEAR.run(connection, keys=numbers).rowcount
    return count


def erase_namespaces(connection: Connection, namespace_pks: Sequence[int]) -> int:
    """Delete every merge of the namespaces *namespace_pks*; how many there were."""
    return _DELETE_NAMESPACES.run(connection, keys=keys_json(namespace_pks)).rowcount

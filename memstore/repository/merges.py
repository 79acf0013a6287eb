"""Merges of assemblies as rows: what went into what, and what that brought.

Assemblies are named by key here: a key stands for one assembly for ever, an id for one after the other. A merge that
was undone stays as a row and leads nowhere. Among those that stand every source is gone, and was there when the merge
was made, so that no way along them comes back to where it began.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, func, insert, select, update

from memstore.models.merging import Merge
from memstore.models.records import Namespace
from memstore.repository import namespaces
from memstore.repository.context import WriteContext
from memstore.repository.corruption import corrupt_value, expect_stored
from memstore.repository.key_lists import Keys, keys_in, keys_json
from memstore.repository.record_types import ASSEMBLY, MEMORY, RecordType
from memstore.schema.namespace_path import namespace_parts
from memstore.schema.tables import (
    assembly,
    assembly_member,
    assembly_merge,
    assembly_merge_source,
    memory,
    namespace,
    tombstone,
)

_AT_ONCE = 10_000  # keys a statement

_MERGES = (
    select(assembly_merge, namespace.c.path)
    .join(namespace, namespace.c.pk == assembly_merge.c.namespace_pk)
    .where(assembly_merge.c.pk.in_(select(keys_in().c.value)))
    .order_by(assembly_merge.c.pk)
)
_SOURCES = (
    select(assembly_merge_source)
    .where(assembly_merge_source.c.merge_pk.in_(select(keys_in().c.value)))
    .order_by(assembly_merge_source.c.merge_pk, assembly_merge_source.c.position)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A merge as a row: the record, with the keys of the assemblies, and what it *brought* into the target."""

    merge: Merge
    target: int
    sources: tuple[int, ...]
    brought: Mapping[str, Any]


def add(
    connection: Connection,
    merge: Merge,
    target: int,
    sources: Sequence[int],
    brought: Mapping[str, Any],
) -> int:
    """Store *merge*, whose number does not count, of the assemblies of these keys; the number it got."""
    row = {
        "namespace_pk": namespaces.ensure_key(connection, merge.namespace),
        "target_pk": target,
        "target_id": merge.target,
        "at": merge.at,
        "similarity": merge.similarity,
        "threshold": merge.threshold,
        "actor": merge.actor,
        "reason": merge.reason,
        "brought": brought,
    }
    (pk,) = connection.execute(insert(assembly_merge).values(row)).inserted_primary_key or (0,)
    named = enumerate(zip(sources, merge.sources, strict=True))
    rows = [{"merge_pk": pk, "position": i, "source_pk": key, "source_id": id} for i, (key, id) in named]
    connection.execute(insert(assembly_merge_source), rows)
    return int(pk)


def read(connection: Connection, keys: Sequence[int]) -> list[Stored]:
    """The merges *keys*, by number; those that do not exist are left out."""
    sources: dict[int, list[tuple[int, str]]] = {}
    asked = {"keys": keys_json(keys)}
    with expect_stored("assembly_merge"):
        for row in connection.execute(_SOURCES, asked):
            sources.setdefault(row.merge_pk, []).append((row.source_pk, row.source_id))
        rows = connection.execute(_MERGES, asked).all()
    return [_stored(row, sources.get(row.pk, [])) for row in rows]


def _stored(row: Any, sources: Sequence[tuple[int, str]]) -> Stored:
    ids = [row.target_id, *(id for _, id in sources)]
    keys = [row.target_pk, *(key for key, _ in sources)]
    if {type(id) for id in ids} != {str} or {type(key) for key in keys} != {int} or type(row.brought) is not dict:
        raise corrupt_value("assembly_merge", "ids as str, keys as int and brought as an object", tuple(row))
    merge = Merge(
        id=row.pk,
        namespace=namespace_parts(row.path),
        target=row.target_id,
        sources=tuple(ids[1:]),
        at=row.at,
        similarity=row.similarity,
        threshold=row.threshold,
        actor=row.actor,
        reason=row.reason,
        undone_at=row.undone_at,
    )
    return Stored(merge=merge, target=row.target_pk, sources=tuple(keys[1:]), brought=row.brought)


def one(connection: Connection, path: Namespace, pk: int) -> Stored | None:
    """The merge *pk* of a namespace; None where it has none of that number."""
    found = [each for each in read(connection, [pk]) if each.merge.namespace == path]
    return found[0] if found else None


def latest(connection: Connection, path: Namespace, target: str) -> Stored | None:
    """The last merge that stands into an assembly that had the id *target*; None where there is none."""
    named = _of(path) & (assembly_merge.c.target_id == target) & assembly_merge.c.undone_at.is_(None)
    pk = connection.execute(select(func.max(assembly_merge.c.pk)).where(named)).scalar()
    return None if pk is None else one(connection, path, pk)


def into(connection: Connection, targets: Sequence[int]) -> list[Stored]:
    """The merges that stand into the assemblies *targets*, by number."""
    return _standing(connection, assembly_merge.c.target_pk.in_(select(keys_in().c.value)), targets)


def out_of(connection: Connection, sources: Sequence[int]) -> list[Stored]:
    """The merges that stand by which the assemblies *sources* went, by number."""
    went = select(assembly_merge_source.c.merge_pk).where(
        assembly_merge_source.c.source_pk.in_(select(keys_in().c.value))
    )
    return _standing(connection, assembly_merge.c.pk.in_(went), sources)


def _standing(connection: Connection, which: ColumnElement[bool], keys: Sequence[int]) -> list[Stored]:
    found = select(assembly_merge.c.pk).where(which, assembly_merge.c.undone_at.is_(None))
    merges: set[int] = set()
    for some in _pieces(keys):
        merges.update(connection.execute(found, {"keys": some}).scalars())
    return [each for some in _parts(sorted(merges)) for each in read(connection, some)]


def mark_undone(context: WriteContext, pk: int) -> None:
    """Store that the merge *pk* was undone, when, by whom and why."""
    values = {"undone_at": context.now, "undone_by": context.actor.name, "undone_reason": context.actor.reason}
    context.connection.execute(update(assembly_merge).where(assembly_merge.c.pk == pk).values(values))


def named(connection: Connection, path: Namespace, id: str) -> int | None:
    """The key of the assembly that last went by the id *id* into a merge, or that one last went into it."""
    target = select(func.max(assembly_merge.c.target_pk)).where(_of(path), assembly_merge.c.target_id == id)
    source = (
        select(func.max(assembly_merge_source.c.source_pk))
        .join(assembly_merge, assembly_merge.c.pk == assembly_merge_source.c.merge_pk)
        .where(_of(path), assembly_merge_source.c.source_id == id)
    )
    keys = [connection.execute(query).scalar() for query in (target, source)]
    return max((key for key in keys if key is not None), default=None)


def set_aside_by(connection: Connection, sources: Sequence[int]) -> dict[int, int]:
    """The newest tombstone of each of the assemblies *sources*, by their keys, of those that a merge set aside."""
    held = (
        select(tombstone.c.record_pk, func.max(tombstone.c.pk))
        .where(
            tombstone.c.kind == "assembly",
            tombstone.c.cause == "merged",
            tombstone.c.record_pk.in_(select(keys_in().c.value)),
        )
        .group_by(tombstone.c.record_pk)
    )
    found: dict[int, int] = {}
    for some in _pieces(sources):
        found.update((key, pk) for key, pk in connection.execute(held, {"keys": some}))
    return found


def is_set_aside(connection: Connection, pk: int) -> bool:
    """Whether there is a tombstone of the assembly *pk*."""
    held = select(tombstone.c.pk).where(tombstone.c.kind == "assembly", tombstone.c.record_pk == pk)
    return connection.execute(held).first() is not None


def alive(connection: Connection, keys: Sequence[int]) -> set[int]:
    """Those of *keys* that are keys of assemblies."""
    there = select(assembly.c.pk).where(assembly.c.pk.in_(select(keys_in().c.value)))
    return {key for some in _pieces(keys) for key in connection.execute(there, {"keys": some}).scalars()}


def members(connection: Connection, assemblies: Sequence[int]) -> list[int]:
    """Keys of the members of any of *assemblies*, ascending, each once."""
    held = select(assembly_member.c.memory_pk).where(assembly_member.c.assembly_pk.in_(select(keys_in().c.value)))
    found = connection.execute(held.distinct(), {"keys": keys_json(assemblies)}).scalars()
    return sorted(found)


def ids(connection: Connection, keys: Sequence[int]) -> dict[int, str]:
    """The ids of the assemblies *keys* that there are."""
    return _ids(connection, ASSEMBLY, keys)


def memory_ids(connection: Connection, keys: Keys) -> dict[int, str]:
    """The ids of the memories *keys* that there are."""
    return _ids(connection, MEMORY, keys.tolist())


def _ids(connection: Connection, noun: RecordType, keys: Sequence[int]) -> dict[int, str]:
    named = select(noun.table.c.pk, noun.table.c.id).where(noun.table.c.pk.in_(select(keys_in().c.value)))
    return {pk: id for some in _pieces(keys) for pk, id in connection.execute(named, {"keys": some})}


def beginnings(connection: Connection, keys: Keys, size: int) -> dict[int, str]:
    """The first *size* characters of what the memories *keys* say."""
    said = select(memory.c.pk, func.substr(memory.c.content, 1, size)).where(memory.c.pk.in_(select(keys_in().c.value)))
    return {pk: text for some in _pieces(keys.tolist()) for pk, text in connection.execute(said, {"keys": some})}


def assigned(connection: Connection, keys: Keys) -> Keys:
    """Those of the memories *keys* that are members of an assembly, ascending."""
    held = select(assembly_member.c.memory_pk).where(assembly_member.c.memory_pk.in_(select(keys_in().c.value)))
    found: set[int] = set()
    for some in _pieces(keys.tolist()):
        found.update(connection.execute(held.distinct(), {"keys": some}).scalars())
    return np.array(sorted(found), dtype=np.int64)


def _of(path: Namespace) -> ColumnElement[bool]:
    return assembly_merge.c.namespace_pk == namespaces.keys_within(path, recursive=False)


def _parts(keys: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(keys), _AT_ONCE):
        yield keys[start : start + _AT_ONCE]


def _pieces(keys: Sequence[int]) -> Iterator[str]:
    return map(keys_json, _parts(keys))

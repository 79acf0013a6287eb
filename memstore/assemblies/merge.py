"""Merges of assemblies, and their undo.

A merge is one transaction. Its sources are archived as tombstones, and the merge stores what it added to its target.
Undoing it removes exactly that and restores the sources. Merges are undone in reverse order, and only if no later
change would be lost.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection

from memstore.concurrency import yield_gil
from memstore.errors import ConflictError, InvalidError, NotFoundError, short_repr
from memstore.models.ids import new_id
from memstore.models.merging import Merge, MergedAssembly
from memstore.models.records import Assembly, Json, Namespace
from memstore.repository import (
    assemblies,
    history_writer,
    memberships,
    merges,
    namespaces,
    record_keys,
    records,
    store_meta,
    tombstones,
)
from memstore.repository.context import WriteContext
from memstore.repository.corruption import corrupt_value, only
from memstore.repository.merges import StoredMerge
from memstore.repository.record_types import ASSEMBLY, MEMORY
from memstore.repository.vectors import VectorSpace
from memstore.schema.types import json_text
from memstore.sync import composites
from memstore.validation.text import check_metadata
from memstore.validation.values import check_ids, check_tags, check_topics
from memstore.vectors.metrics import index_form, scores

MAX_MERGED = 1_000
"""The most assemblies in one merge: each is compared with every other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeOptions:
    """The options of `Assemblies.merge`, checked."""

    into: str | None = None
    name: str | None = None
    similarity: float | None = None
    threshold: float | None = None


def check_sources(ids: object) -> list[str]:
    """*ids* as ids of assemblies to merge, each given once; else `InvalidError`."""
    id_list = list(ids) if isinstance(ids, Iterable) and not isinstance(ids, str | bytes | Mapping) else ids
    unique = check_ids(id_list)  # type: ignore[arg-type]
    if len(unique) < len(id_list):  # type: ignore[arg-type]
        raise InvalidError("An id is given twice. Give each assembly to merge once.")
    if len(unique) > MAX_MERGED:
        raise InvalidError(f"Too many assemblies in one merge: expected at most {MAX_MERGED:,}, found {len(unique):,}.")
    return unique


def merge(context: WriteContext, path: Namespace, ids: Sequence[str], options: MergeOptions) -> Merge:
    """Merge the assemblies *ids*: see `Assemblies.merge`."""
    connection, at, space = context.connection, context.now, context.spaces["assembly"]
    keys = records.keys_of(connection, ASSEMBLY, path, ids, at)
    for id in ids:
        if id not in keys:
            raise NotFoundError("assembly", id, path)
    into = options.into
    target = None if into is None else records.key_of(connection, ASSEMBLY, path, into, at)
    source_ids = [id for id in ids if id != into]
    if len(source_ids) + (target is not None) < 2:
        raise InvalidError("A merge takes two assemblies or more. Give the ids of all assemblies to merge.")
    sources = [keys[id] for id in source_ids]
    keys_of_all = sources if target is None else [target, *sources]
    composites.delete_expired_members(context, keys_of_all)
    merged = composites.read(connection, context.spaces, keys_of_all, at)
    similarity = lowest_score(space, merged) if options.similarity is None else options.similarity
    _check_threshold(options.threshold, similarity)
    own_members = set() if target is None else _members(connection, [target])
    new_members = sorted(_members(connection, sources) - own_members)
    before = Assembly(id=into or new_id(), namespace=path, created_at=at, updated_at=at)
    before = before if target is None else merged[0]
    after = _combine(before, merged, options.name)
    tombstones.archive(context, ASSEMBLY, sources, "merged")
    key = _store_target(context, path, target, after, new_members)
    record = Merge(
        id=0,
        namespace=path,
        target=after.id,
        sources=tuple(source_ids),
        at=at,
        similarity=similarity,
        threshold=options.threshold,
        actor=context.actor.name,
        reason=context.actor.reason,
    )
    added = _additions(before, after, new_members, created=target is None)
    return merges.add(connection, record, key, sources, added).merge


def _members(connection: Connection, keys: Sequence[int]) -> set[int]:
    """Keys of the members of any of the assemblies *keys*, which have no expired members."""
    return {member for key in keys for member in memberships.members(connection, key).tolist()}


def _store_target(
    context: WriteContext, path: Namespace, target: int | None, after: Assembly, new_members: Sequence[int]
) -> int:
    """Store the target as it is *after* the merge; its key. Composites are updated at the end of the write."""
    connection = context.connection
    if target is None:
        (key,) = assemblies.insert_new(connection, [after])
        memberships.add_members(connection, key, new_members)
        history_writer.record_addition(context, ASSEMBLY, namespaces.ensure_key(connection, path), [key])
        return key
    with history_writer.record_update(context, ASSEMBLY, [target]) as members:
        values = {name: getattr(after, name) for name in ("name", "description", "tags", "topics", "metadata")}
        assemblies.change(connection, path, target, {**values, "updated_at": context.now})
        members.note(target, set(memberships.add_members(connection, target, new_members)))
    return target


def lowest_score(space: VectorSpace, records: Sequence[Assembly]) -> float | None:
    """The lowest score between two of the composites of *records*; None if fewer than two have one."""
    composites = [record.composite for record in records if record.composite is not None]
    if len(composites) < 2:
        return None
    vectors = index_form(space.measure, np.stack(composites))
    lowest = np.inf
    for i in range(len(vectors) - 1):
        lowest = min(lowest, float(scores(space.measure, vectors[i], vectors[i + 1 :]).min()))
        yield_gil()
    return float(lowest)


def _check_threshold(threshold: float | None, similarity: float | None) -> None:
    if threshold is None or (similarity is not None and similarity >= threshold):
        return
    comparison = (
        "the assemblies cannot be compared, because fewer than two have a composite"
        if similarity is None
        else f"the lowest similarity is {similarity:.6g}"
    )
    raise InvalidError(f"Nothing was merged: {comparison}, and the threshold is {threshold:.6g}.")


def _combine(target: Assembly, records: Sequence[Assembly], name: str | None) -> Assembly:
    """*target* with the tags, topics and metadata of all *records*; of single values, the first that is not empty."""
    ordered = [target, *(record for record in records if record.id != target.id)]
    metadata: dict[str, Json] = {}
    for record in reversed(ordered):
        metadata = {**record.metadata, **{k: v for k, v in metadata.items() if k not in record.metadata}}
    return Assembly(
        id=target.id,
        namespace=target.namespace,
        name=next((record.name for record in ordered if record.name), "") if name is None else name,
        description=next((record.description for record in ordered if record.description), ""),
        tags=check_tags([tag for record in ordered for tag in sorted(record.tags)]),
        topics=check_topics([topic for record in ordered for topic in record.topics]),
        metadata=check_metadata(metadata),
        created_at=target.created_at,
        updated_at=target.updated_at,
    )


def _additions(before: Assembly, after: Assembly, members: Sequence[int], *, created: bool) -> dict[str, Any]:
    """What a merge added to its target, as it is stored: for each field the values that were not there *before*."""
    return {
        "made": created,
        "members": list(members),
        "name": [before.name, after.name],
        "description": [before.description, after.description],
        "tags": sorted(after.tags - before.tags),
        "topics": [topic for topic in after.topics if topic not in before.topics],
        "metadata": {key: value for key, value in after.metadata.items() if key not in before.metadata},
    }


def unmerge(context: WriteContext, path: Namespace, which: Merge | int | str) -> Merge:
    """Undo a merge, given itself, by its number or by the id of its target: see `Assemblies.unmerge`."""
    connection = context.connection
    number = which.id if isinstance(which, Merge) else which
    if isinstance(which, Merge) and which.origin != store_meta.origin(connection):
        raise _not_this_merge(which, "it was read from another file, or before a backup was restored into this one")
    stored = (
        merges.latest(connection, path, number) if isinstance(number, str) else merges.one(connection, path, number)
    )
    if stored is None:
        raise NotFoundError("merge", str(number), path)
    if isinstance(which, Merge):
        for name in ("target", "sources", "at"):
            if getattr(which, name) != getattr(stored.merge, name):
                raise _not_this_merge(which, f"the merge with this number in the file has another {name}")
    _check_last(connection, stored)
    if not stored.added:
        raise _conflict(stored, "one of its sources was erased")
    source_tombstones = tombstones.newest_merged(connection, stored.sources)
    named = zip(stored.sources, stored.merge.sources, strict=True)
    purged = [id for key, id in named if key not in source_tombstones]
    if purged:
        raise _conflict(stored, f"its source {short_repr(purged[0])} was purged, and cannot be restored")
    if record_keys.existing(connection, ASSEMBLY, [stored.target]):
        if stored.added["made"]:
            _delete_target(context, stored)
        else:
            _remove_additions(context, stored)
    tombstones.restore(context, ASSEMBLY, [source_tombstones[key] for key in stored.sources])
    merges.mark_undone(context, stored.merge.id)
    return only(merges.read(connection, [stored.merge.id])).merge


def _conflict(stored: StoredMerge, why: str) -> ConflictError:
    return ConflictError(f"Merge {stored.merge.id} cannot be undone: {why}.", merge=stored.merge.id)


def _not_this_merge(merge: Merge, why: str) -> ConflictError:
    return ConflictError(
        f"Merge {merge.id} cannot be undone: {why}. Call lineage() for the merges of this file.", merge=merge.id
    )


def _check_last(connection: Connection, stored: StoredMerge) -> None:
    """Raise `ConflictError` where a later merge depends on this one, or it was undone before."""
    number = stored.merge.id
    if stored.merge.undone_at is not None:
        raise _conflict(stored, f"it was undone at {stored.merge.undone_at:%Y-%m-%d %H:%M:%S} UTC")
    later = [other.merge for other in merges.into(connection, [stored.target]) if other.merge.id > number]
    later += [other.merge for other in merges.out_of(connection, [stored.target])]
    if later:
        last = max(later, key=lambda merge: merge.id)
        raise _conflict(
            stored,
            f"merge {last.id} of {len(last.sources):,} assemblies into {short_repr(last.target)} came later. "
            "Undo that merge first",
        )
    if tombstones.exists(connection, ASSEMBLY, stored.target):
        raise _conflict(
            stored, f"its target {short_repr(stored.merge.target)} is in the trash. Call recover() for it first"
        )


def _delete_target(context: WriteContext, stored: StoredMerge) -> None:
    """Delete the target that the merge created, unless it has values that did not come from the merge."""
    connection, added = context.connection, stored.added
    composites.delete_expired_members(context, [stored.target])
    record = only(composites.read(connection, context.spaces, [stored.target], context.now))
    changed = []
    if _members(connection, [stored.target]).difference(added["members"]):
        changed.append("members")
    changed += [name for name in ("name", "description") if getattr(record, name) != added[name][1]]
    if record.tags != set(added["tags"]):
        changed.append("tags")
    if list(record.topics) != added["topics"]:
        changed.append("topics")
    if json_text(record.metadata) != json_text(added["metadata"]):
        changed.append("metadata")
    if changed:
        raise _conflict(
            stored,
            f"{', '.join(changed)} of its target {short_repr(stored.merge.target)} changed later. "
            "Delete that assembly, then undo the merge",
        )
    history_writer.delete_records(context, ASSEMBLY, [stored.target])


def _remove_additions(context: WriteContext, stored: StoredMerge) -> None:
    """Remove from the target what the merge added; values that were changed later stay."""
    connection, added = context.connection, stored.added
    record = only(composites.read(connection, context.spaces, [stored.target], context.now))
    values: dict[str, Any] = {"updated_at": context.now}
    for name in ("name", "description"):
        before, after = added[name]
        if getattr(record, name) == after:
            values[name] = before
    values["tags"] = record.tags.difference(added["tags"])
    values["topics"] = tuple(topic for topic in record.topics if topic not in added["topics"])
    values["metadata"] = {
        key: value
        for key, value in record.metadata.items()
        if key not in added["metadata"] or json_text(value) != json_text(added["metadata"][key])
    }
    with history_writer.record_update(context, ASSEMBLY, [stored.target]) as members:
        removed = memberships.remove_members(connection, stored.target, added["members"])
        # A member in the trash must not return to the target when it is recovered.
        absent = sorted(set(added["members"]) - removed)
        tombstones.remove_partner(connection, MEMORY, absent, stored.target)
        members.note(stored.target, added=set(), removed=removed)
        assemblies.change(connection, stored.merge.namespace, stored.target, values)


def get_merged(connection: Connection, space: VectorSpace | None, path: Namespace, id: str) -> MergedAssembly:
    """The last assembly *id* that was merged into another: see `Assemblies.get_merged`.

    *space* is that of composites, None to leave the composite out.
    """
    keys = tombstones.find(connection, ASSEMBLY, path, [id], "merged")
    rows = tombstones.read(connection, ASSEMBLY, list(keys.values()))
    stored = merges.out_of(connection, [row.record_pk for row in rows])
    if not rows or not stored:
        raise NotFoundError("merged assembly", id, path)
    (row,) = rows
    assembly = tombstones.to_record(row, space)
    if not isinstance(assembly, Assembly):
        raise corrupt_value("tombstone", "an assembly", assembly)
    return MergedAssembly(
        assembly=assembly,
        members=tuple(member for _, member in row.partners),
        merge=stored[-1].merge,
    )

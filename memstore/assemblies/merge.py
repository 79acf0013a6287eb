"""Merges of assemblies: what they unite, what is kept to undo them, what came of what.

A merge is one transaction. Its sources are set aside as tombstones, as they were, and the merge remembers what it
brought into the target that was not there before: undoing it takes just that out again, and brings the sources back.
It is undone last first, and only where nothing that was done since would be lost by it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection

from memstore.concurrency import yield_gil
from memstore.errors import ConflictError, InvalidError, NotFoundError, short_repr
from memstore.models.ids import new_id
from memstore.models.merging import Merge, MergedAssembly
from memstore.models.records import Assembly, Json, Memory, Namespace, RecordKind
from memstore.repository import assemblies, history_writer, memberships, merges, recalled, tombstones
from memstore.repository import records as record_rows
from memstore.repository.context import WriteContext
from memstore.repository.corruption import corrupt_value, only
from memstore.repository.merges import Stored
from memstore.repository.record_types import ASSEMBLY, MEMORY
from memstore.repository.vectors import VectorSpace
from memstore.schema.types import json_text
from memstore.validation.text import check_metadata
from memstore.validation.values import check_ids, check_number, check_tags, check_topics
from memstore.vectors.metrics import index_form, scores

MAX_MERGED = 1_000
"""Assemblies in one merge: each is compared with every other."""

Spaces = Mapping[RecordKind, VectorSpace]


def check_sources(ids: object) -> list[str]:
    """*ids* as ids of assemblies to merge, each given once, else `InvalidError`."""
    given = list(ids) if isinstance(ids, Iterable) and not isinstance(ids, str | bytes | Mapping) else ids
    asked = check_ids(given)  # type: ignore[arg-type]
    if len(asked) < len(given):  # type: ignore[arg-type]
        raise InvalidError("an id was given twice: a merge takes each assembly once")
    if len(asked) > MAX_MERGED:
        raise InvalidError(f"a merge takes at most {MAX_MERGED:,} assemblies; got {len(asked):,}")
    return asked


def check_similarity(name: str, value: object) -> float | None:
    """*value* as a score, or None for nothing, else `InvalidError`."""
    return None if value is None else check_number(name, value)


def merge(
    context: WriteContext,
    path: Namespace,
    ids: Sequence[str],
    *,
    into: str | None,
    name: str | None,
    similarity: float | None,
    threshold: float | None,
) -> Merge:
    """Merge the assemblies *ids*: see `Assemblies.merge`."""
    connection, at = context.connection, context.now
    keys = record_rows.keys_of(connection, ASSEMBLY, path, ids, at)
    for id in ids:
        if id not in keys:
            raise NotFoundError("assembly", id, path)
    target = None if into is None else record_rows.key_of(connection, ASSEMBLY, path, into, at)
    going = [id for id in ids if id != into]
    if len(going) + (target is not None) < 2:
        raise InvalidError("a merge takes two assemblies or more: give the ids of those that are to be one")
    sources = [keys[id] for id in going]
    space = context.spaces["assembly"]
    records = assemblies.read(connection, space, sources if target is None else [target, *sources], at)
    if similarity is None:
        similarity = least_score(space, records)
    _hold_to(threshold, similarity)
    own = [] if target is None else merges.members(connection, [target])
    came = sorted(set(merges.members(connection, sources)).difference(own))
    before = Assembly(id=into or new_id(), namespace=path, created_at=at, updated_at=at)
    before = before if target is None else records[0]
    after = _united(before, records, name)
    tombstones.archive(context, ASSEMBLY, sources, "merged")
    key = _put(context, path, target, after, came)
    made = Merge(
        id=0,
        namespace=path,
        target=after.id,
        sources=tuple(going),
        at=at,
        similarity=similarity,
        threshold=threshold,
        actor=context.actor.name,
        reason=context.actor.reason,
    )
    number = merges.add(connection, made, key, sources, _brought(before, after, came, made=target is None))
    return only(merges.read(connection, [number])).merge


def _put(context: WriteContext, path: Namespace, target: int | None, after: Assembly, came: Sequence[int]) -> int:
    """Store the one that a merge makes, or what it makes of *target*; its key."""
    connection = context.connection
    if target is None:
        (key,) = assemblies.insert_new(connection, path, [after])
        memberships.add_members(connection, key, came)  # every write ends with the composites that it left behind
        history_writer.record_addition(context, ASSEMBLY, assemblies.owner(connection, key), [key])
        return key
    with history_writer.record_update(context, ASSEMBLY, [target]) as noted:
        assemblies.change(connection, path, target, {**_fields(after), "updated_at": context.now})
        noted.note(target, set(memberships.add_members(connection, target, came)))
    return target


def least_score(space: VectorSpace, records: Sequence[Assembly]) -> float | None:
    """The least score between two of the composites of *records*; None where fewer than two have one."""
    held = [record.composite for record in records if record.composite is not None]
    if len(held) < 2:
        return None
    metric = space.measure
    form = index_form(metric, np.stack(held))
    least = np.inf
    for i in range(len(form) - 1):
        least = min(least, float(scores(metric, form[i], form[i + 1 :]).min()))
        yield_gil()
    return float(least)


def _hold_to(threshold: float | None, similarity: float | None) -> None:
    if threshold is None or (similarity is not None and similarity >= threshold):
        return
    found = "they cannot be compared" if similarity is None else f"the least alike of them score {similarity:.6g}"
    raise InvalidError(f"{found}, and the threshold is {threshold:.6g}: nothing was merged")


def _united(target: Assembly, records: Sequence[Assembly], name: str | None) -> Assembly:
    """*target* with what *records* have, in their order: of what can be there only once, what comes first."""
    every = [target, *(record for record in records if record.id != target.id)]
    metadata: dict[str, Json] = {}
    for record in reversed(every):
        metadata = {**record.metadata, **{k: v for k, v in metadata.items() if k not in record.metadata}}
    return Assembly(
        id=target.id,
        namespace=target.namespace,
        name=next((r.name for r in every if r.name), "") if name is None else name,
        description=next((r.description for r in every if r.description), ""),
        tags=check_tags([tag for r in every for tag in sorted(r.tags)]),
        topics=check_topics([topic for r in every for topic in r.topics]),
        metadata=check_metadata(metadata),
        created_at=target.created_at,
        updated_at=target.updated_at,
    )


def _fields(record: Assembly) -> dict[str, Any]:
    return {name: getattr(record, name) for name in ("name", "description", "tags", "topics", "metadata")}


def _brought(before: Assembly, after: Assembly, came: Sequence[int], *, made: bool) -> dict[str, Any]:
    """What a merge brought into its target, as it is kept: for each field what was not there *before*."""
    return {
        "made": made,
        "members": list(came),
        "name": [before.name, after.name],
        "description": [before.description, after.description],
        "tags": sorted(after.tags - before.tags),
        "topics": [topic for topic in after.topics if topic not in before.topics],
        "metadata": {key: value for key, value in after.metadata.items() if key not in before.metadata},
    }


def unmerge(context: WriteContext, path: Namespace, which: int | str) -> Merge:
    """Undo a merge: see `Assemblies.unmerge`."""
    connection = context.connection
    found = merges.latest(connection, path, which) if isinstance(which, str) else merges.one(connection, path, which)
    if found is None:
        raise NotFoundError("merge", str(which), path)
    _refuse_later(connection, found)
    gone = merges.set_aside_by(connection, found.sources)
    lost = [id for key, id in zip(found.sources, found.merge.sources, strict=True) if key not in gone]
    if lost:
        raise _conflict(found.merge.id, f"what it merged was purged, {short_repr(lost[0])} for one: make it anew")
    if merges.alive(connection, [found.target]):
        if found.brought["made"]:
            _remove(context, found)
        else:
            _take_out(context, found)
    tombstones.restore(context, ASSEMBLY, [gone[key] for key in found.sources])
    merges.mark_undone(context, found.merge.id)
    return only(merges.read(connection, [found.merge.id])).merge


def _conflict(number: int, why: str) -> ConflictError:
    return ConflictError(f"merge {number} cannot be undone: {why}", merge=number)


def _refuse_later(connection: Connection, found: Stored) -> None:
    """Raise `ConflictError` where another merge builds on *found*, or it was undone before."""
    number = found.merge.id
    if found.merge.undone_at is not None:
        raise _conflict(number, f"it was undone at {found.merge.undone_at:%Y-%m-%d %H:%M:%S} UTC")
    later = [each.merge for each in merges.into(connection, [found.target]) if each.merge.id > number]
    later += [each.merge for each in merges.out_of(connection, [found.target])]
    if later:
        last = max(later, key=lambda merge: merge.id)
        what = f"merge {last.id} of {len(last.sources):,} assemblies into {short_repr(last.target)} came after it"
        raise _conflict(number, f"{what}: undo that first")
    if merges.is_set_aside(connection, found.target):
        raise _conflict(number, f"{short_repr(found.merge.target)} was forgotten since: restore it first")


def _remove(context: WriteContext, found: Stored) -> None:
    """Delete the assembly that a merge made, unless it holds what did not come with the merge."""
    connection = context.connection
    record = only(assemblies.read(connection, context.spaces["assembly"], [found.target], context.now))
    brought = found.brought
    own = len(set(merges.members(connection, [found.target])).difference(brought["members"]))
    changed = ["members"] * bool(own)
    changed += [name for name in ("name", "description") if getattr(record, name) != brought[name][1]]
    changed += ["tags"] * (record.tags != set(brought["tags"]))
    changed += ["topics"] * (list(record.topics) != brought["topics"])
    changed += ["metadata"] * (json_text(record.metadata) != json_text(brought["metadata"]))
    if changed:
        raise _conflict(
            found.merge.id,
            f"{', '.join(changed)} of {short_repr(found.merge.target)}, which it made, changed since: "
            "delete that assembly, then undo the merge",
        )
    history_writer.delete_records(context, ASSEMBLY, [found.target])


def _take_out(context: WriteContext, found: Stored) -> None:
    """Take out of the target what only the merge brought; what somebody gave another value since stays."""
    connection = context.connection
    record = only(assemblies.read(connection, context.spaces["assembly"], [found.target], context.now))
    brought = found.brought
    changes: dict[str, Any] = {"updated_at": context.now}
    for name in ("name", "description"):
        before, after = brought[name]
        if getattr(record, name) == after:
            changes[name] = before
    changes["tags"] = record.tags.difference(brought["tags"])
    changes["topics"] = tuple(topic for topic in record.topics if topic not in brought["topics"])
    changes["metadata"] = {
        key: value
        for key, value in record.metadata.items()
        if key not in brought["metadata"] or json_text(value) != json_text(brought["metadata"][key])
    }
    with history_writer.record_update(context, ASSEMBLY, [found.target]) as noted:
        gone = memberships.remove_members(connection, found.target, brought["members"])
        away = sorted(set(brought["members"]) - gone)  # in the trash, say: they are not to come back into it
        tombstones.part(connection, MEMORY, away, found.target)
        noted.note(found.target, added=set(), removed=gone)
        assemblies.change(connection, found.merge.namespace, found.target, changes)


def get_merged(connection: Connection, spaces: Spaces, path: Namespace, id: str) -> MergedAssembly:
    """The assembly that last went by *id* into another: see `Assemblies.merged`."""
    found = tombstones.find(connection, ASSEMBLY, path, [id], "merged")
    held = tombstones.read(connection, ASSEMBLY, list(found.values()))
    by = merges.out_of(connection, [each.record_pk for each in held])
    if not held or not by:
        raise NotFoundError("merged assembly", id, path)
    (was,) = held
    return MergedAssembly(
        assembly=_assembly(recalled.record_of(was, spaces["assembly"])),
        members=tuple(member for _, member in was.partners),
        merge=by[-1].merge,
    )


def _assembly(record: Memory | Assembly) -> Assembly:
    if not isinstance(record, Assembly):
        raise corrupt_value("tombstone", "an assembly", record)
    return record

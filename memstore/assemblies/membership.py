"""Assemblies and their members: storing assemblies, and adding and removing members.

Every change of members updates the composite in the same write, so that what these functions store can be read back.
"""

from collections.abc import Sequence
from typing import Any

from memstore.errors import NotFoundError
from memstore.models.records import Assembly, Namespace
from memstore.repository import assemblies, history_writer, memberships, namespaces, records
from memstore.repository.context import WriteContext
from memstore.repository.record_types import ASSEMBLY, MEMORY
from memstore.sync import composites
from memstore.validation.records import Draft

AssemblyDraft = tuple[Draft[Assembly], list[str]]
"""A checked assembly, and the ids of its members."""

_REPLACED = ("name", "description", "tags", "topics", "metadata", "updated_at")
_KEPT_BY_UPSERT = frozenset({"created_at", "activation_level", "activated_at", "activation_count"})


def add(context: WriteContext, namespace: Namespace, drafts: Sequence[AssemblyDraft]) -> list[int]:
    """Store new assemblies with their members; their keys. Raises `DuplicateError`, `NotFoundError` for a member."""
    if not drafts:
        return []
    keys = assemblies.insert_new(context.connection, namespace, [draft.record for draft, _ in drafts])
    for key, (_, members) in zip(keys, drafts, strict=True):
        _extend(context, namespace, key, members)
    history_writer.record_addition(context, ASSEMBLY, namespaces.ensure_key(context.connection, namespace), keys)
    return keys


def upsert(context: WriteContext, namespace: Namespace, drafts: Sequence[AssemblyDraft]) -> dict[str, int]:
    """Store assemblies, or replace those that have their ids; their keys by id. Of equal ids the last wins.

    A replaced assembly keeps its members, `created_at` and its activation unless the draft names them.
    """
    connection = context.connection
    by_id = {draft.record.id: (draft, members) for draft, members in drafts}
    existing = records.keys_of(connection, ASSEMBLY, namespace, list(by_id), context.now)
    new = [pair for id, pair in by_id.items() if id not in existing]
    new_keys = add(context, namespace, new)
    for id, key in existing.items():
        draft, members = by_id[id]
        with history_writer.record_update(context, ASSEMBLY, [key]) as changes:
            assemblies.change(connection, namespace, key, _replacement(draft))
            if "members" in draft.named:
                removed = memberships.remove_all_members(connection, key)
                changes.note(key, added=_extend(context, namespace, key, members), removed=removed)
    return existing | {draft.record.id: key for (draft, _), key in zip(new, new_keys, strict=True)}


def add_members(context: WriteContext, namespace: Namespace, key: int, ids: Sequence[str]) -> None:
    """Make the memories *ids* members of the assembly *key*. Raises `NotFoundError`."""
    with history_writer.record_update(context, ASSEMBLY, [key]) as changes:
        changes.note(key, added=_extend(context, namespace, key, ids))
        assemblies.change(context.connection, namespace, key, {"updated_at": context.now})


def remove_members(context: WriteContext, namespace: Namespace, key: int, ids: Sequence[str]) -> None:
    """End the membership of the memories *ids* in the assembly *key*; ids that are not members are ignored."""
    connection = context.connection
    members = records.keys_of(connection, MEMORY, namespace, ids, context.now)
    with history_writer.record_update(context, ASSEMBLY, [key]) as changes:
        removed = memberships.remove_members(connection, key, sorted(members.values()))
        if removed:
            changes.note(key, added=set(), removed=removed)
            composites.recompute(context, [key])
            assemblies.change(connection, namespace, key, {"updated_at": context.now})


def _extend(context: WriteContext, namespace: Namespace, key: int, ids: Sequence[str]) -> set[int]:
    """Make memories members; the keys of those that were not members before."""
    keys = records.keys_of(context.connection, MEMORY, namespace, ids, context.now)
    for id in ids:
        if id not in keys:
            raise NotFoundError("memory", id, namespace)
    return composites.extend(context, key, sorted(keys.values()))


def _replacement(draft: Draft[Assembly]) -> dict[str, Any]:
    names = [*_REPLACED, *sorted(_KEPT_BY_UPSERT & draft.named)]
    return {name: getattr(draft.record, name) for name in names}

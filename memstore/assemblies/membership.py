"""Assemblies and their members: storing assemblies, and adding and removing members.

Every change of members updates the composite in the same write, so that what these functions store can be read back.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from memstore.errors import NotFoundError
from memstore.models.records import Address, Assembly, Namespace, address_of
from memstore.repository import assemblies, history_writer, memberships, metadata, namespaces, records
from memstore.repository.context import WriteContext
from memstore.repository.record_types import ASSEMBLY, MEMORY
from memstore.sync import composites
from memstore.validation.merge_patch import patched
from memstore.validation.records import Draft

AssemblyDraft = tuple[Draft[Assembly], list[str]]
"""A checked assembly, and the ids of its members."""

_REPLACED = ("name", "description", "tags", "topics", "metadata")
_KEPT_BY_UPSERT = frozenset({"created_at", "updated_at", "activation_level", "activated_at", "activation_count"})


def add(context: WriteContext, drafts: Sequence[AssemblyDraft], places: Sequence[int] | None = None) -> list[int]:
    """Store new assemblies with their members; their keys. Raises `DuplicateError`, `NotFoundError` for a member.

    *places* are the indexes of the items of which the drafts come, for errors; None for those of the drafts.
    """
    if not drafts:
        return []
    keys = assemblies.insert_new(context.connection, [draft.record for draft, _ in drafts])
    for place, key, (draft, members) in zip(places or range(len(drafts)), keys, drafts, strict=True):
        try:
            _extend(context, draft.record.namespace, key, members)
        except NotFoundError as error:
            raise error.of_item(place, draft.record.id) if places or len(drafts) > 1 else error from None
    owners = namespaces.keys(context.connection, [draft.record.namespace for draft, _ in drafts])
    history_writer.record_addition(context, ASSEMBLY, [owners[draft.record.namespace] for draft, _ in drafts], keys)
    return keys


def existing(context: WriteContext, drafts: Iterable[AssemblyDraft]) -> dict[Address, int]:
    """The keys of those assemblies that exist."""
    addresses = [address_of(draft.record) for draft, _ in drafts]
    return records.keys_of_addresses(context.connection, ASSEMBLY, addresses, context.now)


def upsert(context: WriteContext, drafts: Sequence[AssemblyDraft]) -> dict[Address, int]:
    """Store assemblies, or replace those that have their ids; their keys. Of equal ids the last wins.

    A replaced assembly keeps its members, `created_at` and its activation unless the draft names them.
    """
    connection = context.connection
    last = {address_of(draft.record): (draft, members) for draft, members in drafts}
    present = existing(context, last.values())
    new = {address: pair for address, pair in last.items() if address not in present}
    places = {address_of(draft.record): i for i, (draft, _) in enumerate(drafts)}
    new_keys = add(context, list(new.values()), [places[address] for address in new] if len(drafts) > 1 else None)
    for address, key in present.items():
        draft, members = last[address]
        with history_writer.record_update(context, ASSEMBLY, [key]) as changes:
            assemblies.change(connection, address[0], key, _replacement(context, draft, key))
            if "members" in draft.named:
                changes.note(key, *_replace_members(context, address[0], key, members))
    return present | dict(zip(new, new_keys, strict=True))


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
    return composites.extend(context, key, _keys(context, namespace, ids))


def _replace_members(
    context: WriteContext, namespace: Namespace, key: int, ids: Sequence[str]
) -> tuple[set[int], set[int]]:
    """Make memories the only members; the keys of those that became members, and of those that were until now."""
    connection, keys = context.connection, _keys(context, namespace, ids)
    former = memberships.live_members(connection, key, context.now).tolist()
    removed = memberships.remove_members(connection, key, sorted(set(former).difference(keys)))
    return composites.extend(context, key, keys), removed


def _keys(context: WriteContext, namespace: Namespace, ids: Sequence[str]) -> list[int]:
    """Keys of the memories *ids*, ascending. Raises `NotFoundError`."""
    keys = records.keys_of(context.connection, MEMORY, namespace, ids, context.now)
    for id in ids:
        if id not in keys:
            raise NotFoundError("memory", id, namespace)
    return sorted(keys.values())


def _replacement(context: WriteContext, draft: Draft[Assembly], key: int) -> dict[str, Any]:
    names = [*_REPLACED, *sorted(_KEPT_BY_UPSERT & draft.named)]
    values = {name: getattr(draft.record, name) for name in names}
    if draft.patches:
        values["metadata"] = patched(metadata.read(context.connection, ASSEMBLY, [key])[key], draft.patches)
    return {"updated_at": max(context.now, values.get("created_at", context.now)), **values}

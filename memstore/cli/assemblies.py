"""The commands on assemblies: list, show, add, add-members, remove-members, delete."""

from typing import Annotated

import typer

from memstore import Assembly, NotFoundError
from memstore.cli import options
from memstore.cli.jsonl import record_as_json, record_without_vector
from memstore.cli.namespaces import format_namespace
from memstore.cli.options import ListOptions, parse_metadata, parse_namespace
from memstore.cli.output import (
    assembly_text,
    print_fields,
    print_json,
    print_memories,
    print_note,
    print_page,
    print_result,
    print_table,
    table,
)
from memstore.cli.stores import read_namespace, write_namespace
from memstore.cli.text import json_text, quantity, second_text, vector_text
from memstore.models import SyncState

FIRST_MEMBERS = 20

Id = Annotated[str, typer.Argument(help="The id of the assembly.", show_default=False)]
MemoryIds = Annotated[list[str], typer.Argument(help="Ids of memories in the same namespace.", show_default=False)]


async def list_(file: options.File, selection: ListOptions, json: options.Json = False) -> None:
    """List assemblies, oldest first.

    --json prints a line for each assembly: the record without its composite.
    """
    matching = selection.arguments()
    async with read_namespace(file, selection.namespace) as scope:
        records = scope.assemblies.list(limit=selection.most, **matching)
        if json:
            async for assembly in records:
                print_json(record_without_vector(assembly))
            return
        grid = table("assembly", ">members", ">activation")
        async for assembly in records:
            grid.add_row(assembly_text(assembly), f"{assembly.member_count:,}", f"{assembly.activation:.2f}")
        total = await scope.assemblies.count(**matching)
    print_table(grid)
    print_page(grid.row_count, total, "assembly")


async def show(file: options.File, id: Id, namespace: options.Namespace = "", json: options.Json = False) -> None:
    """Show an assembly with all its fields and its first members.

    --json prints the record with its composite, the ids of all members, and "sync": the revisions of the composite
    and of the index.
    """
    async with read_namespace(file, namespace) as scope:
        assembly = await scope.assemblies.get(id)
        sync = await scope.assemblies.sync_state(id)
        members = [member async for member in scope.assemblies.members(id)]
        if json:
            print_json({**record_as_json(assembly), "sync": record_as_json(sync), "members": members})
            return
        memories = await scope.memories.get_many(members[:FIRST_MEMBERS])
    print_fields(
        {
            "id": assembly.id,
            "namespace": format_namespace(assembly.namespace),
            "name": assembly.name,
            "description": assembly.description,
            "tags": ", ".join(sorted(assembly.tags)),
            "topics": ", ".join(assembly.topics),
            "metadata": json_text(assembly.metadata),
            "composite": vector_text(assembly.composite),
            "revision": f"{assembly.revision} ({_sync_text(sync)})",
            "activation": _activation_text(assembly),
            "created": second_text(assembly.created_at),
            "updated": second_text(assembly.updated_at),
            "members": f"{assembly.member_count:,}",
        }
    )
    print_memories(memories.values())
    if len(members) > FIRST_MEMBERS:
        print_note(f"the first {FIRST_MEMBERS} of {len(members):,} members; --json prints all ids")


async def add(
    file: options.File,
    id: Annotated[str, typer.Argument(help="The id of the new assembly.", show_default=False)],
    members: Annotated[list[str] | None, typer.Argument(help="Ids of memories.", show_default=False)] = None,
    name: Annotated[str, typer.Option("--name", help="Its name.")] = "",
    description: Annotated[str, typer.Option("--description", help="Its description.")] = "",
    tag: options.Tags = None,
    topic: Annotated[
        list[str] | None, typer.Option("--topic", help="Add this topic; repeatable, the order is stored.")
    ] = None,
    metadata: options.Metadata = None,
    upsert: Annotated[bool, typer.Option("--upsert", help="Replace the assembly that has this id.")] = False,
    namespace: options.Namespace = "",
    json: options.Json = False,
) -> None:
    """Create an assembly.

    --json prints the record without its composite.
    """
    fields = {
        "id": id,
        "name": name,
        "description": description,
        "tags": tag or (),
        "topics": topic or (),
        "metadata": parse_metadata(metadata),
        "members": members or None,
    }

    async with write_namespace(file, namespace) as scope:
        assemblies = scope.assemblies
        [assembly] = await (assemblies.upsert_many if upsert else assemblies.add_many)([fields])
    _print_members(assembly, json=json)


async def add_members(
    file: options.File, id: Id, ids: MemoryIds, namespace: options.Namespace = "", json: options.Json = False
) -> None:
    """Add memories to an assembly.

    --json prints the assembly without its composite.
    """
    async with write_namespace(file, namespace) as scope:
        assembly = await scope.assemblies.add_members(id, ids)
    _print_members(assembly, json=json)


async def remove_members(
    file: options.File, id: Id, ids: MemoryIds, namespace: options.Namespace = "", json: options.Json = False
) -> None:
    """Remove memories from an assembly.

    The memories stay in the store.

    --json prints the assembly without its composite.
    """
    async with write_namespace(file, namespace) as scope:
        assembly = await scope.assemblies.remove_members(id, ids)
    _print_members(assembly, json=json)


async def delete(file: options.File, id: Id, namespace: options.Namespace = "", json: options.Json = False) -> None:
    """Delete an assembly; its members stay.

    --json prints {"deleted": 1}.
    """
    async with write_namespace(file, namespace) as scope:
        deleted = await scope.assemblies.delete(id)
    if not deleted:
        raise NotFoundError("assembly", id, parse_namespace(namespace))
    print_result({"deleted": 1}, f"deleted assembly {id}", json=json)


def _sync_text(sync: SyncState) -> str:
    if sync.synced:
        return "composite and index are current"
    return f"composite of revision {sync.composite_revision}, index of revision {sync.indexed_revision}"


def _activation_text(assembly: Assembly) -> str | None:
    if assembly.activated_at is None:
        return None
    return (
        f"{assembly.activation:.3g} now, {assembly.activation_level:.3g} at {second_text(assembly.activated_at)} "
        f"(activated {quantity(assembly.activation_count, 'time')})"
    )


def _print_members(assembly: Assembly, *, json: bool) -> None:
    count = quantity(assembly.member_count, "member")
    print_result(record_without_vector(assembly), f"assembly {assembly.id} has {count}", json=json)

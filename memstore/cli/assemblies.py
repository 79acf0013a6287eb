"""The commands on assemblies."""

import asyncio
from typing import Annotated

import typer

from memstore import Assembly, NotFoundError
from memstore.cli.jsonl import as_json, brief
from memstore.cli.options import (
    AsJson,
    Below,
    Embedder,
    File,
    GiveTags,
    InNamespace,
    Limit,
    Metadata,
    MinScore,
    Tagged,
    Vector,
    Where,
    metadata_of,
    namespace_of,
    namespace_text,
    where_of,
)
from memstore.cli.output import (
    assembly_text,
    json_text,
    number,
    say,
    say_json,
    show_assembly_hits,
    show_fields,
    show_memories,
    show_table,
    table,
    vector_text,
)
from memstore.cli.stores import changing, looking, searching
from memstore.models import SyncState

SHOWN_MEMBERS = 20

Id = Annotated[str, typer.Argument(help="The assembly's id.", show_default=False)]
Ids = Annotated[list[str], typer.Argument(help="Ids of memories of the same namespace.", show_default=False)]

app = typer.Typer(
    help="Groups of memories, found by the mean of their members' vectors.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command("list")
def list_(
    file: File,
    limit: Annotated[int, typer.Option("--limit", "-l", min=1, help="How many at most.")] = 20,
    all: Annotated[bool, typer.Option("--all", "-a", help="All of them, whatever --limit says.")] = False,
    tag: Tagged = None,
    where: Where = None,
    namespace: InNamespace = "",
    recursive: Below = False,
    json: AsJson = False,
) -> None:
    """List assemblies, oldest first.

    --json prints a line each: the record without its composite.
    """
    filter = where_of(where)

    async def run() -> None:
        async with looking(file) as store:
            place = store.namespace(*namespace_of(namespace)).assemblies
            records = place.list(where=filter, tags=tag or (), recursive=recursive, limit=None if all else limit)
            if json:
                async for assembly in records:
                    say_json(brief(assembly))
                return
            made = table("assembly", ">members", ">activation")
            async for assembly in records:
                made.add_row(assembly_text(assembly), f"{assembly.member_count:,}", f"{assembly.activation:.2f}")
            count = await place.count(where=filter, tags=tag or (), recursive=recursive)
        shown = made.row_count
        if shown:
            show_table(made)
        rest = (
            f"{shown:,} of {count:,}: --all shows them all"
            if shown < count
            else number(count, "assembly", "assemblies")
        )
        say(rest, style="dim")

    asyncio.run(run())


@app.command()
def show(id: Id, file: File, namespace: InNamespace = "", json: AsJson = False) -> None:
    """Show all of an assembly.

    --json prints the record, its composite, the ids of its members and whether the index is in step with it.
    """

    async def run() -> None:
        async with looking(file) as store:
            place = store.namespace(*namespace_of(namespace))
            assembly = await place.assemblies.get(id)
            sync = await place.assemblies.sync_state(id)
            members = [member async for member in place.assemblies.members(id)]
            if json:
                say_json({**as_json(assembly), "sync": as_json(sync), "members": members})
                return
            shown = await place.memories.get_many(members[:SHOWN_MEMBERS])
        show_fields(
            {
                "id": assembly.id,
                "namespace": namespace_text(assembly.namespace),
                "name": assembly.name,
                "description": assembly.description,
                "tags": ", ".join(sorted(assembly.tags)),
                "topics": ", ".join(assembly.topics),
                "metadata": json_text(assembly.metadata),
                "composite": vector_text(assembly.composite),
                "revision": f"{assembly.revision}, {_sync_text(sync)}",
                "activation": _activation_text(assembly),
                "created": assembly.created_at,
                "updated": assembly.updated_at,
                "members": f"{assembly.member_count:,}",
            }
        )
        show_memories(shown.values())
        if len(members) > SHOWN_MEMBERS:
            say(f"the first {SHOWN_MEMBERS} of {len(members):,}: --json has the ids of all", style="dim")

    asyncio.run(run())


@app.command()
def search(
    file: File,
    text: Annotated[str | None, typer.Argument(help="What to look for, in plain words.", show_default=False)] = None,
    limit: Limit = 5,
    tag: Tagged = None,
    where: Where = None,
    min_score: MinScore = None,
    namespace: InNamespace = "",
    recursive: Below = False,
    embedding: Vector = None,
    embedder: Embedder = None,
    json: AsJson = False,
) -> None:
    """Find the assemblies nearest in meaning, best first.

    --json prints a line each: {"score": …, "assembly": {…}}.
    """
    filter = where_of(where)

    async def run() -> None:
        async with searching(file, embedder) as opened:
            hits = await opened.store.namespace(*namespace_of(namespace)).assemblies.search(
                opened.query(text, embedding),
                limit,
                tags=tag or (),
                where=filter,
                min_score=min_score,
                recursive=recursive,
            )
        if not json:
            show_assembly_hits(hits)
        for hit in hits if json else ():
            say_json({"score": hit.score, "assembly": brief(hit.assembly)})

    asyncio.run(run())


@app.command()
def add(
    id: Annotated[str, typer.Argument(help="The new assembly's id.", show_default=False)],
    file: File,
    members: Annotated[list[str] | None, typer.Argument(help="Ids of memories.", show_default=False)] = None,
    name: Annotated[str, typer.Option("--name", help="A title.")] = "",
    description: Annotated[str, typer.Option("--description", help="A text.")] = "",
    tag: GiveTags = None,
    topic: Annotated[list[str] | None, typer.Option("--topic", help="A topic; may be repeated, in order.")] = None,
    metadata: Metadata = None,
    upsert: Annotated[bool, typer.Option("--upsert", help="Replace the assembly that has the id, if any.")] = False,
    namespace: InNamespace = "",
    json: AsJson = False,
) -> None:
    """Make an assembly of memories.

    --json prints the record without its composite.
    """
    fields = {
        "id": id,
        "name": name,
        "description": description,
        "tags": tag or (),
        "topics": topic or (),
        "metadata": metadata_of(metadata),
        "members": members or None,
    }

    async def run() -> Assembly:
        async with changing(file) as store:
            place = store.namespace(*namespace_of(namespace)).assemblies
            return (await (place.upsert_many if upsert else place.add_many)([fields]))[0]

    _changed(asyncio.run(run()), json=json)


@app.command()
def add_members(id: Id, ids: Ids, file: File, namespace: InNamespace = "", json: AsJson = False) -> None:
    """Make memories members.

    --json prints the assembly without its composite.
    """

    async def run() -> Assembly:
        async with changing(file) as store:
            return await store.namespace(*namespace_of(namespace)).assemblies.add_members(id, ids)

    _changed(asyncio.run(run()), json=json)


@app.command()
def remove_members(id: Id, ids: Ids, file: File, namespace: InNamespace = "", json: AsJson = False) -> None:
    """End memberships; the memories stay.

    --json prints the assembly without its composite.
    """

    async def run() -> Assembly:
        async with changing(file) as store:
            return await store.namespace(*namespace_of(namespace)).assemblies.remove_members(id, ids)

    _changed(asyncio.run(run()), json=json)


@app.command()
def delete(id: Id, file: File, namespace: InNamespace = "", json: AsJson = False) -> None:
    """Delete an assembly; its members stay.

    --json prints {"deleted": 1}.
    """
    path = namespace_of(namespace)

    async def run() -> int:
        async with changing(file) as store:
            return await store.namespace(*path).assemblies.delete(id)

    if not asyncio.run(run()):
        raise NotFoundError("assembly", id, path)
    if json:
        say_json({"deleted": 1})
    else:
        say(f"deleted the assembly {id}; its members stay")


def _sync_text(sync: SyncState) -> str:
    if sync.synced:
        return "in step with its composite and the index"
    return f"its composite of {sync.composite_revision}, the index of {sync.indexed_revision}"


def _activation_text(assembly: Assembly) -> str | None:
    if assembly.activated_at is None:
        return None
    count = number(assembly.activation_count, "time")
    return f"{assembly.activation:.3g}, of {assembly.activation_level:.3g} at {assembly.activated_at} ({count})"


def _changed(assembly: Assembly, *, json: bool) -> None:
    if json:
        say_json(brief(assembly))
    else:
        say(f"assembly {assembly.id} has {number(assembly.member_count, 'member')}")

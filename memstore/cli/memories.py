"""The commands on memories: add, search, list, show, delete."""

import asyncio
from typing import Annotated, Any

import typer

from memstore import Memory
from memstore.cli.jsonl import as_json, brief
from memstore.cli.options import (
    AsJson,
    Below,
    Boost,
    Curvature,
    Dimension,
    Embedder,
    File,
    GiveTags,
    InNamespace,
    Limit,
    Metadata,
    Metric,
    MinScore,
    Tagged,
    Threshold,
    Vector,
    Weight,
    Where,
    activation_of,
    embedding_of,
    metadata_of,
    namespace_of,
    namespace_text,
    where_of,
)
from memstore.cli.output import json_text, number, say, say_json, show_fields, show_hits, show_memories, vector_text
from memstore.cli.stores import Wanted, changing, looking, searching, writing

Id = Annotated[str, typer.Argument(help="The memory's id.", show_default=False)]


def add(
    text: Annotated[str, typer.Argument(help="What to remember.", show_default=False)],
    file: File,
    id: Annotated[str | None, typer.Option("--id", help="Its id; a time-ordered one if left out.")] = None,
    tag: GiveTags = None,
    metadata: Metadata = None,
    importance: Annotated[float, typer.Option("--importance", min=0, max=1, help="0 to 1.")] = 0.5,
    ttl: Annotated[float | None, typer.Option("--ttl", metavar="SECONDS", help="Forget it after so long.")] = None,
    pin: Annotated[
        bool | None, typer.Option("--pin/--no-pin", help="Whether no policy may forget it.", show_default=False)
    ] = None,
    upsert: Annotated[bool, typer.Option("--upsert", help="Replace the memory that has the id, if any.")] = False,
    namespace: InNamespace = "",
    embedding: Vector = None,
    embedder: Embedder = None,
    dimension: Dimension = None,
    metric: Metric = None,
    curvature: Curvature = None,
    json: AsJson = False,
) -> None:
    """Store a memory; a file that does not exist is made.

    --json prints the record, without its embedding.

    The text is embedded by what the file names, wordllama if it is new. With --embedding the vector is yours
    (null for none), and a new file takes its dimension.
    """
    fields: dict[str, Any] = {
        "content": text,
        "tags": tag or (),
        "metadata": metadata_of(metadata),
        "importance": importance,
        "ttl": ttl,
        "pinned": pin,
    }
    if id is not None:
        fields["id"] = id
    if embedding is not None:
        fields["embedding"] = embedding_of(embedding)

    async def run() -> Memory:
        wanted = Wanted(
            embedder=embedder,
            dimension=dimension,
            metric=metric,
            curvature=curvature,
            given=len(fields.get("embedding") or ()) or None,
        )
        async with writing(file, wanted) as opened:
            if embedding is None:
                opened.check_embeds()
            place = opened.store.namespace(*namespace_of(namespace)).memories
            return (await (place.upsert_many if upsert else place.add_many)([fields]))[0]

    memory = asyncio.run(run())
    if json:
        say_json(brief(memory))
    else:
        say(f"stored {memory.id}" + ("" if memory.embedding is not None else ", without an embedding"))


def search(
    file: File,
    text: Annotated[str | None, typer.Argument(help="What to look for, in plain words.", show_default=False)] = None,
    limit: Limit = 5,
    tag: Tagged = None,
    where: Where = None,
    min_score: MinScore = None,
    namespace: InNamespace = "",
    recursive: Below = False,
    boost: Boost = False,
    threshold: Threshold = None,
    weight: Weight = None,
    embedding: Vector = None,
    embedder: Embedder = None,
    json: AsJson = False,
) -> None:
    """Find the memories nearest in meaning, best first.

    With --boost, members of assemblies near the query come before others as near as they.

    --json prints a line each: {"score": …, "memory": {…}}; with --boost also "base_score", "boost", "assembly" and
    "reason".
    """
    filter, activation = where_of(where), activation_of(boost, threshold, weight)

    async def run() -> None:
        async with searching(file, embedder) as opened:
            hits = await opened.store.namespace(*namespace_of(namespace)).memories.search(
                opened.query(text, embedding),
                limit,
                tags=tag or (),
                where=filter,
                min_score=min_score,
                recursive=recursive,
                boost=activation,
            )
        if not json:
            show_hits(hits)
        for hit in hits if json else ():
            gain = {} if hit.score_boost is None else as_json(hit.score_boost)
            say_json({"score": hit.score, **gain, "memory": brief(hit.memory)})

    asyncio.run(run())


def list_(
    file: File,
    limit: Annotated[int, typer.Option("--limit", "-l", min=1, help="How many at most.")] = 20,
    all: Annotated[bool, typer.Option("--all", "-a", help="All of them, whatever --limit says.")] = False,
    tag: Tagged = None,
    where: Where = None,
    order: Annotated[
        str, typer.Option("--order", help="A field to sort by, with - before it for descending.")
    ] = "created_at",
    namespace: InNamespace = "",
    recursive: Below = False,
    json: AsJson = False,
) -> None:
    """List memories, oldest first.

    --json prints a line each: the record without its embedding.
    """
    filter, path = where_of(where), namespace_of(namespace)

    async def run() -> None:
        async with looking(file) as store:
            place = store.namespace(*path)
            records = place.memories.list(
                where=filter, tags=tag or (), order=order, recursive=recursive, limit=None if all else limit
            )
            if json:
                async for memory in records:
                    say_json(brief(memory))
                return
            shown = show_memories([memory async for memory in records])
            count = await place.memories.count(where=filter, tags=tag or (), recursive=recursive)
            others = [] if shown or recursive else [n for n in await place.namespaces() if n != path]
        rest = f"{shown:,} of {count:,}: --all shows them all" if shown < count else number(count, "memory", "memories")
        say(rest, style="dim")
        if others:
            named = ", ".join(namespace_text(other) for other in others[:5])
            say(f"there are namespaces below: {named}{', …' * (len(others) > 5)} (--namespace, or --below)")

    asyncio.run(run())


def show(id: Id, file: File, namespace: InNamespace = "", json: AsJson = False) -> None:
    """Show all of a memory.

    --json prints the record, its embedding and the ids of its assemblies too.
    """

    async def run() -> tuple[Memory, list[str]]:
        async with looking(file) as store:
            place = store.namespace(*namespace_of(namespace))
            memory = await place.memories.get(id)
            return memory, [assembly.id for assembly in await place.assemblies.containing(id)]

    memory, owners = asyncio.run(run())
    if json:
        say_json({**as_json(memory), "assemblies": owners})
        return
    say(memory.content)
    say("")
    show_fields(
        {
            "id": memory.id,
            "namespace": namespace_text(memory.namespace),
            "tags": ", ".join(sorted(memory.tags)),
            "assemblies": ", ".join(owners),
            "metadata": json_text(memory.metadata),
            "importance": memory.importance,
            "pinned": "yes" if memory.pinned else None,
            "embedding": vector_text(memory.embedding),
            "created": memory.created_at,
            "updated": memory.updated_at,
            "expires": memory.expires_at,
            "accessed": memory.accessed_at and f"{memory.accessed_at} ({number(memory.access_count, 'time')})",
        }
    )


def delete(
    file: File,
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of memories.", show_default=False)] = None,
    where: Where = None,
    namespace: InNamespace = "",
    json: AsJson = False,
) -> None:
    """Delete memories, by their ids or by a filter; absent ids are no error.

    --json prints {"deleted": how many}.
    """
    filter = where_of(where)

    async def run() -> int:
        async with changing(file) as store:
            return await store.namespace(*namespace_of(namespace)).memories.delete_many(ids=ids or None, where=filter)

    deleted = asyncio.run(run())
    if json:
        say_json({"deleted": deleted})
    else:
        say(f"deleted {number(deleted, 'memory', 'memories')}")

"""The commands on memories: add, search, list, show, delete."""

from typing import Annotated, Any

import typer

from memstore.cli import options
from memstore.cli.jsonl import record_as_json, record_without_vector
from memstore.cli.options import (
    format_namespace,
    parse_boost,
    parse_embedding,
    parse_metadata,
    parse_namespace,
    parse_where,
)
from memstore.cli.output import (
    print_fields,
    print_hits,
    print_json,
    print_line,
    print_memories,
    print_page,
    print_result,
)
from memstore.cli.stores import VectorOptions, open_for_search, open_or_create, read_namespace, write_namespace
from memstore.cli.text import json_text, quantity, second_text, vector_text

Id = Annotated[str, typer.Argument(help="The id of the memory.", show_default=False)]
Query = Annotated[str | None, typer.Argument(help="The text to search for.", show_default=False)]


async def add(
    text: Annotated[str, typer.Argument(help="The text of the memory.", show_default=False)],
    file: options.File,
    id: Annotated[str | None, typer.Option("--id", help="Its id; by default a new time-ordered one.")] = None,
    tag: options.Tags = None,
    metadata: options.Metadata = None,
    importance: Annotated[float, typer.Option("--importance", min=0, max=1, help="Its importance, 0 to 1.")] = 0.5,
    ttl: Annotated[
        float | None, typer.Option("--ttl", metavar="SECONDS", help="It expires after this many seconds.")
    ] = None,
    pin: Annotated[
        bool | None, typer.Option("--pin/--no-pin", help="Whether `forget` must not take it.", show_default=False)
    ] = None,
    upsert: Annotated[bool, typer.Option("--upsert", help="Replace the memory that has this id.")] = False,
    namespace: options.Namespace = "",
    embedding: options.Embedding = None,
    embedder: options.Embedder = None,
    dimension: options.Dimension = None,
    metric: options.Metric = None,
    curvature: options.Curvature = None,
    json: options.Json = False,
) -> None:
    """Add a memory; creates the store if there is none.

    The text is embedded with the embedder of the file, wordllama for a new file. With --embedding the vector is used
    as it is (null for no vector), and a new file gets its dimension.

    --json prints the record, without its embedding.
    """
    path = parse_namespace(namespace)
    fields: dict[str, Any] = {
        "content": text,
        "tags": tag or (),
        "metadata": parse_metadata(metadata),
        "importance": importance,
        "ttl": ttl,
        "pinned": pin,
    }
    if id is not None:
        fields["id"] = id
    if embedding is not None:
        fields["embedding"] = parse_embedding(embedding)
    vectors = VectorOptions(
        embedder=embedder,
        dimension=dimension,
        metric=metric,
        curvature=curvature,
        input_size=len(fields.get("embedding") or ()) or None,
    )
    async with open_or_create(file, vectors) as opened:
        if embedding is None:
            opened.check_embedder()
        memories = opened.store.namespace(*path).memories
        [memory] = await (memories.upsert_many if upsert else memories.add_many)([fields])
    note = "" if memory.embedding is not None else ", without an embedding"
    print_result(record_without_vector(memory), f"added {memory.id}{note}", json=json)


async def search(
    file: options.File,
    text: Query = None,
    limit: options.Limit = 5,
    tag: options.TagFilter = None,
    where: options.Where = None,
    min_score: options.MinScore = None,
    namespace: options.Namespace = "",
    recursive: options.Recursive = False,
    boost: options.Boost = False,
    threshold: options.Threshold = None,
    weight: options.Weight = None,
    embedding: options.Embedding = None,
    embedder: options.Embedder = None,
    json: options.Json = False,
) -> None:
    """Search memories by meaning, best first.

    With --boost, members of assemblies near the query get a higher score.

    --json prints a line for each hit: {"score": …, "memory": {…}}; with --boost also "base_score", "boost", "assembly"
    and "reason".
    """
    filter, assembly_boost, path = parse_where(where), parse_boost(boost, threshold, weight), parse_namespace(namespace)
    async with open_for_search(file, embedder) as opened:
        hits = await opened.store.namespace(*path).memories.search(
            opened.query(text, embedding),
            limit,
            tags=tag or (),
            where=filter,
            min_score=min_score,
            recursive=recursive,
            boost=assembly_boost,
        )
    if not json:
        print_hits(hits)
        return
    for hit in hits:
        gain = {} if hit.score_boost is None else record_as_json(hit.score_boost)
        print_json({"score": hit.score, **gain, "memory": record_without_vector(hit.memory)})


async def list_(
    file: options.File,
    limit: options.ListLimit = 20,
    all: options.All = False,
    tag: options.TagFilter = None,
    where: options.Where = None,
    order: Annotated[
        str, typer.Option("--order", help="The field to sort by; with a - before it, in descending order.")
    ] = "created_at",
    namespace: options.Namespace = "",
    recursive: options.Recursive = False,
    json: options.Json = False,
) -> None:
    """List memories, oldest first.

    --json prints a line for each memory: the record without its embedding.
    """
    filter, path = parse_where(where), parse_namespace(namespace)
    async with read_namespace(file, namespace) as scope:
        records = scope.memories.list(
            where=filter, tags=tag or (), order=order, recursive=recursive, limit=None if all else limit
        )
        if json:
            async for memory in records:
                print_json(record_without_vector(memory))
            return
        count = print_memories([memory async for memory in records])
        total = await scope.memories.count(where=filter, tags=tag or (), recursive=recursive)
        nested = [] if count or recursive else [name for name in await scope.namespaces() if name != path]
    print_page(count, total, "memory")
    if nested:
        names = ", ".join(format_namespace(name) for name in nested[:5]) + ", …" * (len(nested) > 5)
        print_line(f"There are namespaces below: {names}. Pass --namespace or --recursive.")


async def show(id: Id, file: options.File, namespace: options.Namespace = "", json: options.Json = False) -> None:
    """Show a memory with all its fields.

    --json prints the record with its embedding, and the ids of its assemblies.
    """
    async with read_namespace(file, namespace) as scope:
        memory = await scope.memories.get(id)
        assemblies = [assembly.id for assembly in await scope.assemblies.containing(id)]
    if json:
        print_json({**record_as_json(memory), "assemblies": assemblies})
        return
    print_line(memory.content)
    print_line("")
    accessed = second_text(memory.accessed_at)
    print_fields(
        {
            "id": memory.id,
            "namespace": format_namespace(memory.namespace),
            "tags": ", ".join(sorted(memory.tags)),
            "assemblies": ", ".join(assemblies),
            "metadata": json_text(memory.metadata),
            "importance": memory.importance,
            "pinned": "yes" if memory.pinned else None,
            "embedding": vector_text(memory.embedding),
            "created": second_text(memory.created_at),
            "updated": second_text(memory.updated_at),
            "expires": second_text(memory.expires_at),
            "accessed": accessed and f"{accessed} ({quantity(memory.access_count, 'time')})",
        }
    )


async def delete(
    file: options.File,
    ids: Annotated[list[str] | None, typer.Argument(help="The ids of memories.", show_default=False)] = None,
    where: options.Where = None,
    namespace: options.Namespace = "",
    json: options.Json = False,
) -> None:
    """Delete memories, by id or by a filter.

    Ids that do not exist are ignored.

    --json prints {"deleted": number}.
    """
    filter = parse_where(where)
    if bool(ids) == (filter is not None):
        raise typer.BadParameter("Pass either ids or --where.")
    async with write_namespace(file, namespace) as scope:
        count = await scope.memories.delete_many(ids=ids or None, where=filter)
    print_result({"deleted": count}, f"deleted {quantity(count, 'memory')}", json=json)

"""The commands on memories: add, list, show, delete."""

from typing import Annotated, Any

import typer

from memstore.cli import options
from memstore.cli.jsonl import record_as_json, record_without_vector
from memstore.cli.namespaces import format_namespace
from memstore.cli.options import (
    ListOptions,
    NewFileOptions,
    parse_duration,
    parse_embedding,
    parse_metadata,
    parse_namespace,
    parse_where,
)
from memstore.cli.output import (
    print_fields,
    print_json,
    print_line,
    print_memories,
    print_page,
    print_result,
    print_text,
)
from memstore.cli.stores import open_or_create, read_namespace, write_namespace
from memstore.cli.text import json_text, quantity, second_text, vector_text

Id = Annotated[str, typer.Argument(help="The id of the memory.", show_default=False)]


async def add(
    file: options.File,
    text: Annotated[str, typer.Argument(help="The text of the memory.", show_default=False)],
    vectors: NewFileOptions,
    id: Annotated[str | None, typer.Option("--id", help="Its id; by default a new time-ordered one.")] = None,
    tag: options.Tags = None,
    metadata: options.Metadata = None,
    importance: options.Importance = None,
    ttl: options.Ttl = None,
    pin: options.Pin = None,
    upsert: Annotated[bool, typer.Option("--upsert", help="Replace the memory that has this id.")] = False,
    namespace: options.Namespace = "",
    embedding: options.Embedding = None,
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
        "importance": 0.5 if importance is None else importance,
        "ttl": parse_duration(ttl, "--ttl"),
        "pinned": pin,
    }
    if id is not None:
        fields["id"] = id
    if embedding is not None:
        fields["embedding"] = parse_embedding(embedding)
    input_size = len(fields.get("embedding") or ()) or None
    async with open_or_create(file, vectors, input_size=input_size) as opened:
        if embedding is None:
            opened.check_embedder()
        memories = opened.store.namespace(*path).memories
        [memory] = await (memories.upsert_many if upsert else memories.add_many)([fields])
    note = "" if memory.embedding is not None else ", without an embedding"
    print_result(record_without_vector(memory), f"added {memory.id}{note}", json=json)


async def list_(
    file: options.File,
    selection: ListOptions,
    order: Annotated[
        str, typer.Option("--order", help="The field to sort by; with a - before it, in descending order.")
    ] = "created_at",
    json: options.Json = False,
) -> None:
    """List memories, oldest first.

    --json prints a line for each memory: the record without its embedding.
    """
    matching, path = selection.arguments(), parse_namespace(selection.namespace)
    async with read_namespace(file, selection.namespace) as scope:
        records = scope.memories.list(order=order, limit=selection.most, **matching)
        if json:
            async for memory in records:
                print_json(record_without_vector(memory))
            return
        count = print_memories([memory async for memory in records])
        total = await scope.memories.count(**matching)
        nested = [] if count or selection.recursive else [name for name in await scope.namespaces() if name != path]
    print_page(count, total, "memory")
    if nested:
        names = ", ".join(format_namespace(name) for name in nested[:5]) + ", …" * (len(nested) > 5)
        print_line(f"There are namespaces below: {names}. Pass --namespace or --recursive.")


async def show(file: options.File, id: Id, namespace: options.Namespace = "", json: options.Json = False) -> None:
    """Show a memory with all its fields.

    --json prints the record with its embedding, and the ids of its assemblies.
    """
    async with read_namespace(file, namespace) as scope:
        memory = await scope.memories.get(id)
        assemblies = [assembly.id for assembly in await scope.assemblies.containing(id)]
    if json:
        print_json({**record_as_json(memory), "assemblies": assemblies})
        return
    print_text(memory.content)
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

"""The commands that change memories: update, pin, unpin."""

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from memstore import Memory, NotFoundError, Transaction, as_actor
from memstore.cli import options
from memstore.cli.jsonl import record_without_vector
from memstore.cli.namespaces import NamespacePath
from memstore.cli.options import (
    ChangeOptions,
    parse_duration,
    parse_embedding,
    parse_metadata,
    parse_namespace,
    parse_object,
    parse_where,
)
from memstore.cli.output import print_json, print_line, print_result
from memstore.cli.stores import open_with_embedder, write_namespace
from memstore.cli.text import quantity

Ids = Annotated[list[str], typer.Argument(help="The ids of memories.", show_default=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """The options of `update` that name the new values of fields."""

    text: Annotated[str | None, typer.Option("--text", help="The new text, which is embedded again.")] = None
    tag: Annotated[
        list[str] | None, typer.Option("--tag", "-t", metavar="TAG", help="Replace the tags by this one; repeatable.")
    ] = None
    add_tag: Annotated[list[str] | None, typer.Option("--add-tag", metavar="TAG", help="Add this tag; repeatable.")] = (
        None
    )
    remove_tag: Annotated[
        list[str] | None, typer.Option("--remove-tag", metavar="TAG", help="Remove this tag; repeatable.")
    ] = None
    metadata: Annotated[
        str | None, typer.Option("--metadata", "-m", metavar="JSON", help="Replace the metadata by this JSON object.")
    ] = None
    patch: Annotated[
        str | None,
        typer.Option("--patch", metavar="JSON", help="Replace these keys of the metadata; null removes a key."),
    ] = None
    importance: Annotated[float | None, typer.Option("--importance", min=0, max=1, help="The new importance.")] = None
    ttl: options.Ttl = None
    no_ttl: Annotated[bool, typer.Option("--no-ttl", help="It no longer expires.")] = False
    pin: options.Pin = None
    embedding: options.Embedding = None

    def changes(self) -> dict[str, Any]:
        """The arguments of `update_many` that the options stand for, without added and removed tags.

        Raises:
            typer.BadParameter: nothing is to be changed, or two options contradict each other.
        """
        if self.tag and (self.add_tag or self.remove_tag):
            raise typer.BadParameter("Pass either --tag, or --add-tag and --remove-tag.")
        if self.no_ttl and self.ttl is not None:
            raise typer.BadParameter("Pass either --ttl or --no-ttl.")
        values = {
            "content": self.text,
            "tags": self.tag,
            "metadata": parse_metadata(self.metadata),
            "metadata_patch": parse_object(self.patch, "--patch", "'{\"done\": true}'"),
            "importance": self.importance,
            "ttl": parse_duration(self.ttl, "--ttl"),
            "pinned": self.pin,
        }
        changes: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
        if self.no_ttl:
            changes["expires_at"] = None
        if self.embedding is not None:
            changes["embedding"] = parse_embedding(self.embedding)
        if not changes and not self.add_tag and not self.remove_tag:
            raise typer.BadParameter("Pass what to change, such as --text, --add-tag or --importance.")
        return changes

    def new_tags(self, tags: frozenset[str]) -> frozenset[str]:
        """The tags of a memory that has *tags*."""
        return tags.union(self.add_tag or ()) - frozenset(self.remove_tag or ())


async def update(
    file: options.File,
    fields: Fields,
    change: ChangeOptions,
    ids: Annotated[list[str] | None, typer.Argument(help="The ids of memories.", show_default=False)] = None,
    where: options.Where = None,
    embedder: options.Embedder = None,
    namespace: options.Namespace = "",
    json: options.Json = False,
) -> None:
    """Change fields of memories; the others stay.

    All memories get the same values, in one transaction: those with the ids, or those that match --where. An id that
    does not exist is an error, and nothing is changed.

    --json prints a line for each memory: the record without its embedding.
    """
    filter, changes, path = parse_where(where), fields.changes(), parse_namespace(namespace)
    if bool(ids) == (filter is not None):
        raise typer.BadParameter("Pass either ids or --where.")
    needs_embedder = "content" in changes and "embedding" not in changes
    async with open_with_embedder(file, embedder if needs_embedder else options.EmbedderChoice.NONE) as opened:
        if needs_embedder:
            opened.check_embedder()
        with as_actor(change.actor, reason=change.reason):
            async with opened.store.namespace(*path).transaction() as tx:
                if ids:
                    records = await _existing(tx, path, ids)
                else:
                    records = [memory async for memory in tx.memories.list(where=filter, embeddings=False)]
                for memory in records if fields.add_tag or fields.remove_tag else ():
                    await tx.memories.update(memory.id, tags=fields.new_tags(memory.tags))
                names = [memory.id for memory in records]
                if changes and names:
                    await tx.memories.update_many(ids=names, **changes)
                records = list((await tx.memories.get_many(names)).values()) if json else records
    if json:
        for memory in records:
            print_json(record_without_vector(memory))
    else:
        print_line(f"updated {names[0] if len(names) == 1 else quantity(len(names), 'memory')}")


async def pin(
    file: options.File, ids: Ids, change: ChangeOptions, namespace: options.Namespace = "", json: options.Json = False
) -> None:
    """Pin memories: no policy forgets them.

    All of them, or none if one does not exist. A pinned memory can be deleted, and it expires, like any other.

    --json prints {"pinned": number}.
    """
    count = await _set_pinned(file, ids, change, namespace, pinned=True)
    print_result({"pinned": count}, f"pinned {quantity(count, 'memory')}", json=json)


async def unpin(
    file: options.File, ids: Ids, change: ChangeOptions, namespace: options.Namespace = "", json: options.Json = False
) -> None:
    """Unpin memories.

    All of them, or none if one does not exist.

    --json prints {"unpinned": number}.
    """
    count = await _set_pinned(file, ids, change, namespace, pinned=False)
    print_result({"unpinned": count}, f"unpinned {quantity(count, 'memory')}", json=json)


async def _set_pinned(
    file: options.File, ids: list[str], change: ChangeOptions, namespace: str, *, pinned: bool
) -> int:
    path = parse_namespace(namespace)
    async with write_namespace(file, namespace) as scope:
        with as_actor(change.actor, reason=change.reason):
            async with scope.transaction() as tx:
                records = await _existing(tx, path, ids)
                return await tx.memories.update_many(ids=[memory.id for memory in records], pinned=pinned)


async def _existing(tx: Transaction, path: NamespacePath, ids: list[str]) -> list[Memory]:
    """The memories with these *ids*, each once. Raises `NotFoundError` for the first that does not exist."""
    records = await tx.memories.get_many(ids)
    for id in ids:
        if id not in records:
            raise NotFoundError("memory", id, path)
    return list(records.values())

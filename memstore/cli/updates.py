"""The commands that change memories: update, pin, unpin."""

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from memstore import StoreNamespace, as_actor
from memstore.cli import options
from memstore.cli.jsonl import record_without_vector
from memstore.cli.options import ChangeOptions, parse_duration, parse_embedding, parse_metadata, parse_namespace
from memstore.cli.output import print_result
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
    metadata: options.Metadata = None
    importance: Annotated[float | None, typer.Option("--importance", min=0, max=1, help="Its new importance.")] = None
    ttl: options.Ttl = None
    keep: Annotated[bool, typer.Option("--no-ttl", help="It no longer expires.")] = False
    pin: options.Pin = None
    embedding: options.Embedding = None

    def changes(self) -> dict[str, Any]:
        """The arguments of `update` that the options stand for, without added and removed tags.

        Raises:
            typer.BadParameter: nothing is to be changed, or two options contradict each other.
        """
        if self.tag and (self.add_tag or self.remove_tag):
            raise typer.BadParameter("Pass either --tag, or --add-tag and --remove-tag.")
        if self.keep and self.ttl is not None:
            raise typer.BadParameter("Pass either --ttl or --no-ttl.")
        values = {
            "content": self.text,
            "tags": self.tag,
            "metadata": parse_metadata(self.metadata),
            "importance": self.importance,
            "ttl": parse_duration(self.ttl, "--ttl"),
            "pinned": self.pin,
        }
        changes: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
        if self.keep:
            changes["expires_at"] = None
        if self.embedding is not None:
            changes["embedding"] = parse_embedding(self.embedding)
        if not changes and not self.add_tag and not self.remove_tag:
            raise typer.BadParameter("Pass what to change, such as --text, --add-tag or --importance.")
        return changes


async def update(
    file: options.File,
    id: Annotated[str, typer.Argument(help="The id of the memory.", show_default=False)],
    fields: Fields,
    change: ChangeOptions,
    embedder: options.Embedder = None,
    namespace: options.Namespace = "",
    json: options.Json = False,
) -> None:
    """Change fields of a memory; the others stay.

    --json prints the record, without its embedding.
    """
    changes, path = fields.changes(), parse_namespace(namespace)
    needs_embedder = "content" in changes and "embedding" not in changes
    async with open_with_embedder(file, embedder if needs_embedder else options.EmbedderChoice.NONE) as opened:
        if needs_embedder:
            opened.check_embedder()
        with as_actor(change.actor, reason=change.reason):
            async with opened.store.namespace(*path).transaction() as tx:
                if fields.add_tag or fields.remove_tag:
                    tags = (await tx.memories.get(id)).tags
                    changes["tags"] = (tags | set(fields.add_tag or ())) - set(fields.remove_tag or ())
                memory = await tx.memories.update(id, **changes)
    print_result(record_without_vector(memory), f"updated {memory.id}", json=json)


async def pin(
    file: options.File, ids: Ids, change: ChangeOptions, namespace: options.Namespace = "", json: options.Json = False
) -> None:
    """Pin memories: no policy forgets them.

    All of them, or none if one does not exist. A pinned memory can be deleted, and it expires, like any other.

    --json prints {"pinned": number}.
    """
    async with write_namespace(file, namespace) as scope:
        count = await _set_pinned(scope, ids, change, pinned=True)
    print_result({"pinned": count}, f"pinned {quantity(count, 'memory')}", json=json)


async def unpin(
    file: options.File, ids: Ids, change: ChangeOptions, namespace: options.Namespace = "", json: options.Json = False
) -> None:
    """Unpin memories.

    All of them, or none if one does not exist.

    --json prints {"unpinned": number}.
    """
    async with write_namespace(file, namespace) as scope:
        count = await _set_pinned(scope, ids, change, pinned=False)
    print_result({"unpinned": count}, f"unpinned {quantity(count, 'memory')}", json=json)


async def _set_pinned(scope: StoreNamespace, ids: list[str], change: ChangeOptions, *, pinned: bool) -> int:
    unique = list(dict.fromkeys(ids))
    with as_actor(change.actor, reason=change.reason):
        async with scope.transaction() as tx:
            for id in unique:
                await tx.memories.update(id, pinned=pinned)
    return len(unique)

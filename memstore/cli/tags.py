"""The commands on tags: list, rename, delete."""

from typing import Annotated

import typer
from rich.text import Text

from memstore.cli import options
from memstore.cli.jsonl import record_as_json
from memstore.cli.output import print_json, print_note, print_result, print_table, table
from memstore.cli.stores import read_namespace, write_namespace
from memstore.cli.text import quantity
from memstore.escaping import escape_text


async def list_(file: options.File, namespace: options.Namespace = "", json: options.Json = False) -> None:
    """List the tags in use, by name.

    --json prints a line for each tag: name, memory_count, assembly_count.
    """
    async with read_namespace(file, namespace) as scope:
        tags = scope.tags.list()
        if json:
            async for tag in tags:
                print_json(record_as_json(tag))
            return
        grid = table("tag", ">memories", ">assemblies")
        async for tag in tags:
            grid.add_row(Text(escape_text(tag.name), style="cyan"), f"{tag.memory_count:,}", f"{tag.assembly_count:,}")
    print_table(grid)
    print_note(quantity(grid.row_count, "tag"))


async def rename(
    file: options.File,
    old: Annotated[str, typer.Argument(help="The tag.", show_default=False)],
    new: Annotated[str, typer.Argument(help="Its new name; an existing tag is merged with it.", show_default=False)],
    namespace: options.Namespace = "",
    json: options.Json = False,
) -> None:
    """Rename a tag on all records that have it.

    --json prints {"changed": number of records}.
    """
    async with write_namespace(file, namespace) as scope:
        count = await scope.tags.rename(old, new)
    print_result({"changed": count}, f"renamed {old} to {new} on {quantity(count, 'record')}", json=json)


async def delete(
    file: options.File,
    tag: Annotated[str, typer.Argument(help="The tag.", show_default=False)],
    namespace: options.Namespace = "",
    json: options.Json = False,
) -> None:
    """Remove a tag from all records that have it.

    The records stay.

    --json prints {"changed": number of records}.
    """
    async with write_namespace(file, namespace) as scope:
        count = await scope.tags.delete(tag)
    print_result({"changed": count}, f"removed {tag} from {quantity(count, 'record')}", json=json)

"""The commands on tags."""

import asyncio
from typing import Annotated

import typer
from rich.text import Text

from memstore.cli.jsonl import as_json
from memstore.cli.options import AsJson, File, InNamespace, namespace_of
from memstore.cli.output import clean, number, say, say_json, show_table, table
from memstore.cli.stores import changing, looking

app = typer.Typer(
    help="Words that memories and assemblies carry.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command("list")
def list_(file: File, namespace: InNamespace = "", json: AsJson = False) -> None:
    """List the tags in use, by name.

    --json prints a line each: name, memory_count, assembly_count.
    """

    async def run() -> None:
        async with looking(file) as store:
            tags = store.namespace(*namespace_of(namespace)).tags.list()
            if json:
                async for tag in tags:
                    say_json(as_json(tag))
                return
            made = table("tag", ">memories", ">assemblies")
            async for tag in tags:
                made.add_row(Text(clean(tag.name), style="cyan"), f"{tag.memory_count:,}", f"{tag.assembly_count:,}")
        if made.row_count:
            show_table(made)
        say(number(made.row_count, "tag"), style="dim")

    asyncio.run(run())


@app.command()
def rename(
    old: Annotated[str, typer.Argument(help="The tag as it is.", show_default=False)],
    new: Annotated[str, typer.Argument(help="The tag as it will be; if in use, the two become one.")],
    file: File,
    namespace: InNamespace = "",
    json: AsJson = False,
) -> None:
    """Rename a tag on whatever carries it.

    --json prints {"changed": how many records}.
    """

    async def run() -> int:
        async with changing(file) as store:
            return await store.namespace(*namespace_of(namespace)).tags.rename(old, new)

    _changed(asyncio.run(run()), f"{old} is now {new} on", json=json)


@app.command()
def delete(
    tag: Annotated[str, typer.Argument(help="The tag.", show_default=False)],
    file: File,
    namespace: InNamespace = "",
    json: AsJson = False,
) -> None:
    """Take a tag from whatever carries it; the records stay.

    --json prints {"changed": how many records}.
    """

    async def run() -> int:
        async with changing(file) as store:
            return await store.namespace(*namespace_of(namespace)).tags.delete(tag)

    _changed(asyncio.run(run()), f"{tag} was taken from", json=json)


def _changed(count: int, what: str, *, json: bool) -> None:
    if json:
        say_json({"changed": count})
    else:
        say(f"{what} {number(count, 'record')}")

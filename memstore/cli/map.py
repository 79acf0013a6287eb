"""The command that draws a store."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from memstore.cli.jsonl import as_json
from memstore.cli.options import AsJson, File, InNamespace, namespace_of
from memstore.cli.output import number, progress, say, say_json, size_text
from memstore.cli.stores import looking
from memstore.visualize import MAX_POINTS, Drawn, write_map


def map_(
    target: Annotated[Path, typer.Argument(metavar="FILE.html", help="The page to write.", show_default=False)],
    file: File,
    limit: Annotated[
        int, typer.Option("--limit", "-l", min=1, max=1_000_000, help="Memories drawn at most: a sample, if need be.")
    ] = MAX_POINTS,
    text: Annotated[
        int, typer.Option("--text", min=0, max=10_000, help="Characters of each memory that the page holds.")
    ] = 160,
    namespace: InNamespace = "",
    json: AsJson = False,
) -> None:
    """Draw the store as one page to look at in a browser: memories as points, assemblies as groups.

    The page holds the first words of every memory it draws, and needs no network. An older page is replaced, any other
    file is not. --json prints {"memories", "points", "without_embedding", "assemblies", "variance", "size"}.
    """
    path = namespace_of(namespace)

    async def run() -> Drawn:
        async with looking(file) as store:
            with progress() as bar:
                task = bar.add_task("reading", total=None)
                return await write_map(
                    store,
                    target,
                    namespace=path,
                    limit=limit,
                    text=text,
                    on_progress=lambda done, total: bar.update(task, completed=done, total=total),
                )

    drawn = asyncio.run(run())
    if json:
        say_json(as_json(drawn))
        return
    points, groups = number(drawn.points, "memory", "memories"), number(drawn.assemblies, "assembly", "assemblies")
    say(f"drew {points} and {groups} in {target}, {size_text(drawn.size)}")
    if drawn.without_embedding:
        say(f"{number(drawn.without_embedding, 'memory has', 'memories have')} no vector, and so no place on it")
    if drawn.points < drawn.memories - drawn.without_embedding:
        say(f"that is a sample of {drawn.memories:,}, the same each time: --limit draws more")

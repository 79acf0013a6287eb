"""The command `map`."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from memstore.cli.jsonl import as_json
from memstore.cli.options import AsJson, File, InNamespace, namespace_of
from memstore.cli.output import number, progress, say, say_json, size_text
from memstore.cli.stores import looking
from memstore.visualize import MAX_POINTS, MapReport, write_map


def map_(
    target: Annotated[Path, typer.Argument(metavar="FILE.html", help="The page to write.", show_default=False)],
    file: File,
    limit: Annotated[
        int, typer.Option("--limit", "-l", min=1, max=1_000_000, help="Show at most this many memories: a sample.")
    ] = MAX_POINTS,
    text_limit: Annotated[
        int, typer.Option("--text-limit", min=0, max=10_000, help="Characters of each memory on the page.")
    ] = 160,
    namespace: InNamespace = "",
    json: AsJson = False,
) -> None:
    """Write a map of the store, to open in a browser: memories as points, assemblies as groups of one colour.

    The page needs no network. It contains the first words of every memory on it. A map at this path is replaced; any
    other file is not. --json prints {"memories", "points", "without_embedding", "assemblies", "variance", "size"}.
    """
    path = namespace_of(namespace)

    async def run() -> MapReport:
        async with looking(file) as store:
            with progress() as bar:
                task = bar.add_task("reading", total=None)
                return await write_map(
                    store,
                    target,
                    namespace=path,
                    limit=limit,
                    text_limit=text_limit,
                    on_progress=lambda count, total: bar.update(task, completed=count, total=total),
                )

    report = asyncio.run(run())
    if json:
        say_json(as_json(report))
        return
    points, groups = number(report.points, "memory", "memories"), number(report.assemblies, "assembly", "assemblies")
    say(f"Wrote {target} ({size_text(report.size)}): {points} and {groups}.")
    if report.without_embedding:
        say(f"Not on the map: {number(report.without_embedding, 'memory', 'memories')} without a vector.")
    if report.points < report.memories - report.without_embedding:
        say(f"The map shows a sample of {report.memories:,} memories. Use --limit to show more.")

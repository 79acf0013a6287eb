"""The command `map`."""

from pathlib import Path
from typing import Annotated

import typer

from memstore.cli import options
from memstore.cli.jsonl import record_as_json
from memstore.cli.options import parse_namespace
from memstore.cli.output import print_json, print_line, progress
from memstore.cli.stores import open_read_only
from memstore.cli.text import quantity, size_text
from memstore.visualize import MAX_POINTS, write_map


async def map_(
    file: options.File,
    target: Annotated[Path, typer.Argument(metavar="FILE.html", help="The page to write.", show_default=False)],
    limit: Annotated[
        int, typer.Option("--limit", "-l", min=1, max=1_000_000, help="Show at most this many memories: a sample.")
    ] = MAX_POINTS,
    text_limit: Annotated[
        int, typer.Option("--text-limit", min=0, max=10_000, help="Characters of each memory on the page.")
    ] = 160,
    namespace: options.Namespace = "",
    json: options.Json = False,
) -> None:
    """Write a map of the store as an HTML page.

    Memories are points, assemblies are groups of one colour. The page needs no network. It contains the first words of
    every memory on it. An existing map at this path is replaced; any other file is not.

    --json prints {"memories", "points", "without_embedding", "assemblies", "variance", "size"}.
    """
    path = parse_namespace(namespace)
    async with open_read_only(file) as store:
        with progress("reading") as update:
            report = await write_map(
                store, target, namespace=path, limit=limit, text_limit=text_limit, on_progress=update
            )
    if json:
        print_json(record_as_json(report))
        return
    points, groups = quantity(report.points, "memory"), quantity(report.assemblies, "assembly")
    print_line(f"Wrote {target} ({size_text(report.size)}): {points} and {groups}.")
    if report.without_embedding:
        print_line(f"Not on the map: {quantity(report.without_embedding, 'memory')} without a vector.")
    if report.points < report.memories - report.without_embedding:
        print_line(f"The map shows a sample of {report.memories:,} memories. Use --limit to show more.")

"""The commands on merges of assemblies: merge-candidates, merge, unmerge, lineage."""

from typing import Annotated

import typer
from rich.text import Text

from memstore.cli import options
from memstore.cli.jsonl import record_as_json
from memstore.cli.options import ChangeOptions
from memstore.cli.output import (
    print_json,
    print_line,
    print_note,
    print_result,
    print_table,
    progress,
    score_text,
    table,
)
from memstore.cli.stores import read_namespace, write_namespace
from memstore.cli.text import minute_text, quantity
from memstore.escaping import escape_text
from memstore.models import LineageEntry


async def merge_candidates(
    file: options.File,
    threshold: Annotated[
        float, typer.Option("--threshold", "-s", help="The lowest score between the two.", show_default=False)
    ],
    limit: options.Limit = 20,
    namespace: options.Namespace = "",
    json: options.Json = False,
) -> None:
    """List pairs of assemblies near each other, best first.

    --json prints a line for each pair: {"a": id, "b": id, "similarity": …}.
    """
    async with read_namespace(file, namespace) as scope:
        with progress("comparing assemblies") as update:
            pairs = await scope.assemblies.merge_candidates(threshold, limit=limit, on_progress=update)
    if json:
        for pair in pairs:
            print_json(record_as_json(pair))
        return
    grid = table(">score", "assembly", "other assembly")
    for pair in pairs:
        grid.add_row(score_text(pair.similarity), Text(escape_text(pair.a)), Text(escape_text(pair.b)))
    print_table(grid)
    print_note(quantity(len(pairs), "pair"))


async def merge(
    file: options.File,
    ids: Annotated[list[str], typer.Argument(help="Ids of assemblies in the same namespace.", show_default=False)],
    change: ChangeOptions,
    into: Annotated[
        str | None, typer.Option("--into", help="The id of the result; one of IDS, another assembly, or a new id.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="The name of the result; by default the first name among the merged.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", "-s", help="Fail if the lowest score between two of them is below this."),
    ] = None,
    namespace: options.Namespace = "",
    json: options.Json = False,
) -> None:
    """Merge assemblies into one.

    The merged assemblies are archived; `memstore assemblies unmerge` restores them.

    --json prints the merge.
    """
    async with write_namespace(file, namespace) as scope:
        result = await scope.assemblies.merge(ids, into=into, name=name, threshold=threshold, **change.arguments())
    similarity = "" if result.similarity is None else f" (lowest score between two: {result.similarity:.3f})"
    count = quantity(len(result.sources), "assembly")
    print_result(
        record_as_json(result), f"merge {result.id}: merged {count} into {result.target}{similarity}", json=json
    )


async def unmerge(
    file: options.File,
    change: ChangeOptions,
    id: Annotated[
        str | None,
        typer.Argument(help="The id of an assembly: undo the last merge into it.", show_default=False),
    ] = None,
    merge: Annotated[int | None, typer.Option("--merge", min=1, help="The number of a merge, instead of ID.")] = None,
    namespace: options.Namespace = "",
    json: options.Json = False,
) -> None:
    """Undo a merge.

    The merged assemblies are restored, and the members that only they brought leave the result.

    --json prints the merge.
    """
    target = merge if id is None else id
    if target is None or (id is not None and merge is not None):
        raise typer.BadParameter("Pass either the id of an assembly or --merge.")
    async with write_namespace(file, namespace) as scope:
        result = await scope.assemblies.unmerge(target, **change.arguments())
    sources = ", ".join(result.sources)
    print_result(record_as_json(result), f"undid merge {result.id}: restored {sources} from {result.target}", json=json)


async def lineage(
    file: options.File,
    id: Annotated[str, typer.Argument(help="The id of an assembly, existing or merged.", show_default=False)],
    namespace: options.Namespace = "",
    json: options.Json = False,
) -> None:
    """Show the merges that led to an assembly, or from it.

    --json prints the lineage: ancestors and descendants, each with its depth and the merge.
    """
    async with read_namespace(file, namespace) as scope:
        result = await scope.assemblies.lineage(id)
    if json:
        print_json(record_as_json(result))
        return
    print_line(result.id + _state(result.exists))
    for title, relatives in (("ancestor", result.ancestors), ("descendant", result.descendants)):
        grid = table(title, "merge", "when (UTC)", ">score", "actor", "reason")
        for relative in relatives:
            grid.add_row(*_cells(relative))
        print_table(grid)
    if not (result.ancestors or result.descendants):
        print_note("no merges")


def _state(exists: bool) -> str:
    return "" if exists else " (merged or deleted)"


def _cells(entry: LineageEntry) -> tuple[Text, ...]:
    merge = entry.merge
    name = Text("  " * (entry.depth - 1) + escape_text(entry.id))
    name.append(_state(entry.exists), style="dim")
    similarity = "" if merge.similarity is None else f"{merge.similarity:.3f}"
    texts = (
        str(merge.id),
        minute_text(merge.at),
        similarity,
        escape_text(merge.actor or ""),
        escape_text(merge.reason or ""),
    )
    return name, *map(Text, texts)

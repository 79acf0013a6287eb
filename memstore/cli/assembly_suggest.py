"""The command that suggests assemblies of memories near each other, and creates them."""

from collections import Counter
from typing import Annotated

import typer
from rich.text import Text

from memstore.cli import options
from memstore.cli.options import ChangeOptions, parse_where
from memstore.cli.output import print_json, print_note, print_table, progress, table
from memstore.cli.stores import read_namespace, write_namespace
from memstore.cli.text import quantity, snippet
from memstore.escaping import escape_text
from memstore.models import AssemblySuggestions, ClusterResult

_REASONS = {
    "no_vector": "without a vector",
    "no_neighbour": "without a neighbour at this threshold",
    "too_few": "with too few neighbours",
}


async def suggest(
    file: options.File,
    change: ChangeOptions,
    threshold: Annotated[
        float, typer.Option("--threshold", "-s", help="The lowest score to the leader of a group.", show_default=False)
    ],
    min_size: Annotated[int, typer.Option("--min-size", min=2, max=1_000, help="The lowest number of members.")] = 3,
    max_size: Annotated[int, typer.Option("--max-size", min=2, max=1_000, help="The highest number of members.")] = 50,
    create: Annotated[bool, typer.Option("--create", help="Create the assemblies; else nothing is written.")] = False,
    tag: options.TagFilter = None,
    where: options.Where = None,
    namespace: options.Namespace = "",
    json: options.Json = False,
) -> None:
    """Suggest assemblies of near memories that are in none; --create creates them.

    --json prints a line for each group: leader, members, similarity and name; with --create one line: the ids of the
    new "assemblies", and how many suggestions were "stale" by then. The last line is {"unassigned": {id: reason}}.
    """
    filter, result = parse_where(where), None
    async with (write_namespace if create else read_namespace)(file, namespace) as scope:
        with progress("comparing memories") as update:
            suggestions = await scope.assemblies.suggest(
                threshold, min_size=min_size, max_size=max_size, tags=tag or (), where=filter, on_progress=update
            )
        if create:
            result = await scope.assemblies.create_from(suggestions, **change.arguments())
    if json:
        _print_json(suggestions, result)
    else:
        _print(suggestions, result)


def _print_json(suggestions: AssemblySuggestions, result: ClusterResult | None) -> None:
    if result is None:
        for group in suggestions.groups:
            print_json({name: getattr(group, name) for name in ("leader", "members", "similarity", "name")})
    else:
        print_json({"assemblies": list(result.assemblies), "stale": len(result.stale)})
    print_json({"unassigned": suggestions.unassigned})


def _print(suggestions: AssemblySuggestions, result: ClusterResult | None) -> None:
    grid = table(">members", ">score", "leader")
    for group in suggestions.groups:
        leader = Text(snippet(group.name) or "(empty)")
        leader.append("\n" + escape_text(group.leader), style="dim")
        grid.add_row(f"{len(group.members):,}", f"{group.similarity:.3f}", leader)
    print_table(grid)
    print_note(f"{quantity(len(suggestions.groups), 'group')}; {_unassigned_text(suggestions)}")
    if result is not None:
        print_note(f"created {quantity(len(result.assemblies), 'assembly')}")
    elif suggestions.groups:
        print_note("nothing was written; pass --create to create the assemblies")


def _unassigned_text(suggestions: AssemblySuggestions) -> str:
    counts: Counter[str] = Counter(suggestions.unassigned.values())
    if not counts and not suggestions.groups:
        return "every memory is in an assembly already"
    texts = [f"{counts[reason]:,} {text}" for reason, text in _REASONS.items() if reason in counts]
    return f"in no group: {', '.join(texts)}" if texts else "every memory is in a group"

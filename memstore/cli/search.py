"""The commands that search: search, explain, and assemblies search. They take the same options."""

from typing import Annotated

import typer

from memstore.cli import options
from memstore.cli.jsonl import record_as_json, record_without_vector
from memstore.cli.options import BoostOptions, SearchOptions, parse_namespace
from memstore.cli.output import print_assembly_hits, print_hits, print_json, print_line
from memstore.cli.stores import open_with_embedder

Text = Annotated[str | None, typer.Argument(help="The text to search for.", show_default=False)]


async def search(
    file: options.File,
    search: SearchOptions,
    boosting: BoostOptions,
    text: Text = None,
    json: options.Json = False,
) -> None:
    """Search memories by meaning, best first.

    With --boost, members of assemblies near the query get a higher score.

    --json prints a line for each hit: {"score": …, "memory": {…}}; with --boost also "base_score", "boost", "assembly"
    and "reason".
    """
    arguments, boost, path = search.arguments(), boosting.parse(), parse_namespace(search.namespace)
    query = search.query(text)
    async with open_with_embedder(file, search.embedder, read_only=True) as opened:
        memories = opened.store.namespace(*path).memories
        hits = await memories.search(opened.checked(query), boost=boost, **arguments)
    if not json:
        print_hits(hits)
        return
    for hit in hits:
        gain = {} if hit.score_boost is None else record_as_json(hit.score_boost)
        print_json({"score": hit.score, **gain, "memory": record_without_vector(hit.memory)})


async def explain(
    file: options.File,
    id: Annotated[str, typer.Argument(help="The id of the memory.", show_default=False)],
    search: SearchOptions,
    boosting: BoostOptions,
    text: Text = None,
    memory_namespace: Annotated[
        str | None,
        typer.Option("--in", metavar="A/B", help="The namespace of the memory; by default that of the search."),
    ] = None,
    json: options.Json = False,
) -> None:
    """Explain the rank of a memory in a search.

    Takes the options of `memstore search`, runs that search again, and prints the parts of the memory's score, or what
    excludes it from the hits.

    --json prints one object: rank, base_score, boost, score, reason, assemblies, exclusions, activated and plan.
    """
    arguments, boost, path = search.arguments(), boosting.parse(), parse_namespace(search.namespace)
    query = search.query(text)
    memory_path = None if memory_namespace is None else parse_namespace(memory_namespace, "--in")
    async with open_with_embedder(file, search.embedder, read_only=True) as opened:
        memories = opened.store.namespace(*path).memories
        explanation = await memories.explain(opened.checked(query), id, boost=boost, namespace=memory_path, **arguments)
    if json:
        print_json(record_as_json(explanation))
        return
    for line in str(explanation).split("\n"):
        print_line(line)


async def search_assemblies(
    file: options.File, search: SearchOptions, text: Text = None, json: options.Json = False
) -> None:
    """Search assemblies by the mean of their members' vectors, best first.

    --json prints a line for each hit: {"score": …, "assembly": {…}}.
    """
    arguments, path = search.arguments(), parse_namespace(search.namespace)
    query = search.query(text)
    async with open_with_embedder(file, search.embedder, read_only=True) as opened:
        hits = await opened.store.namespace(*path).assemblies.search(opened.checked(query), **arguments)
    if not json:
        print_assembly_hits(hits)
        return
    for hit in hits:
        print_json({"score": hit.score, "assembly": record_without_vector(hit.assembly)})

"""The command that explains the rank of a memory in a search."""

from typing import Annotated

import typer

from memstore.cli import options
from memstore.cli.jsonl import record_as_json
from memstore.cli.options import parse_boost, parse_namespace, parse_where
from memstore.cli.output import print_json, print_line
from memstore.cli.stores import open_for_search


async def explain(
    id: Annotated[str, typer.Argument(help="The id of the memory.", show_default=False)],
    file: options.File,
    text: Annotated[str | None, typer.Argument(help="The text of the search.", show_default=False)] = None,
    limit: options.Limit = 5,
    tag: options.TagFilter = None,
    where: options.Where = None,
    min_score: options.MinScore = None,
    namespace: options.Namespace = "",
    recursive: options.Recursive = False,
    memory_namespace: Annotated[
        str | None,
        typer.Option("--in", metavar="A/B", help="The namespace of the memory; by default that of the search."),
    ] = None,
    boost: options.Boost = False,
    threshold: options.Threshold = None,
    weight: options.Weight = None,
    embedding: options.Embedding = None,
    embedder: options.Embedder = None,
    json: options.Json = False,
) -> None:
    """Explain the rank of a memory in a search.

    Takes the options of `memstore search`, runs that search again, and prints the parts of the memory's score, or what
    excludes it from the hits.

    --json prints one object: rank, base_score, boost, score, reason, assemblies, exclusions, activated and plan.
    """
    filter, assembly_boost, path = parse_where(where), parse_boost(boost, threshold, weight), parse_namespace(namespace)
    memory_path = None if memory_namespace is None else parse_namespace(memory_namespace, "--in")
    async with open_for_search(file, embedder) as opened:
        explanation = await opened.store.namespace(*path).memories.explain(
            opened.query(text, embedding),
            id,
            limit,
            tags=tag or (),
            where=filter,
            min_score=min_score,
            recursive=recursive,
            boost=assembly_boost,
            namespace=memory_path,
        )
    if json:
        print_json(record_as_json(explanation))
    else:
        print_line(str(explanation))

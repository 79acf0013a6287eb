"""The command that says why a memory ranks where it does."""

import asyncio
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any

import typer

from memstore import Explanation
from memstore.cli.options import (
    AsJson,
    Below,
    Boost,
    Embedder,
    File,
    InNamespace,
    Limit,
    MinScore,
    Tagged,
    Threshold,
    Vector,
    Weight,
    Where,
    activation_of,
    namespace_of,
    where_of,
)
from memstore.cli.output import say, say_json
from memstore.cli.stores import searching


def explain(
    id: Annotated[str, typer.Argument(help="The memory's id.", show_default=False)],
    file: File,
    text: Annotated[str | None, typer.Argument(help="What was looked for, in plain words.", show_default=False)] = None,
    limit: Limit = 5,
    tag: Tagged = None,
    where: Where = None,
    min_score: MinScore = None,
    namespace: InNamespace = "",
    recursive: Below = False,
    lives_in: Annotated[
        str | None,
        typer.Option("--in", metavar="A/B", help="The namespace the memory is in, where that is another."),
    ] = None,
    boost: Boost = False,
    threshold: Threshold = None,
    weight: Weight = None,
    embedding: Vector = None,
    embedder: Embedder = None,
    json: AsJson = False,
) -> None:
    """Say why a memory ranks where it does in a search, or what keeps it out of the hits.

    Takes the options of search, and does that search once more.

    --json prints one object: rank, base_score, boost and score, reason, assemblies, exclusions, activated and plan.
    """
    filter, activation = where_of(where), activation_of(boost, threshold, weight)

    async def run() -> Explanation:
        async with searching(file, embedder) as opened:
            return await opened.store.namespace(*namespace_of(namespace)).memories.explain(
                opened.query(text, embedding),
                id,
                limit,
                tags=tag or (),
                where=filter,
                min_score=min_score,
                recursive=recursive,
                boost=activation,
                namespace=None if lives_in is None else namespace_of(lives_in),
            )

    found = asyncio.run(run())
    if json:
        say_json(_plain(asdict(found)))
    else:
        say(str(found))


def _plain(value: Any) -> Any:
    """*value* in JSON's types."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.total_seconds() if isinstance(value, timedelta) else value

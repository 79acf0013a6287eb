"""The arguments that commands share, and what their texts mean.

A text that means nothing is a `typer.BadParameter`: exit code 2, before any file is touched.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from memstore import AssemblyBoost, InvalidError
from memstore.models.fields import TIMES

Namespace = tuple[str, ...]

_JOINING = frozenset({"$and", "$or", "$not"})


class EmbedderChoice(StrEnum):
    """What turns texts into embeddings."""

    WORDLLAMA = "wordllama"
    NONE = "none"


class MetricChoice(StrEnum):
    """How embeddings are compared."""

    COSINE = "cosine"
    INNER_PRODUCT = "inner_product"
    L2 = "l2"
    SPHERICAL = "spherical"
    HYPERBOLIC = "hyperbolic"


FILE = typer.Option("--file", "-f", envvar="MEMSTORE_FILE", help="The store: its database file.", show_default=False)
File = Annotated[Path, FILE]
MaybeFile = Annotated[Path | None, FILE]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines; the command's help says in what form.")]
InNamespace = Annotated[
    str,
    typer.Option(
        "--namespace",
        "-n",
        metavar="A/B",
        help='The namespace; parts that hold a "/" go in JSON: \'["a/b", "c"]\'. The root if left out.',
        show_default=False,
    ),
]
Below = Annotated[bool, typer.Option("--recursive", "-b", help="Also everything in the namespaces below it.")]
Tagged = Annotated[
    list[str] | None, typer.Option("--tag", "-t", metavar="TAG", help="Only what has this tag; may be repeated.")
]
GiveTags = Annotated[
    list[str] | None, typer.Option("--tag", "-t", metavar="TAG", help="Give it this tag; may be repeated.")
]
Where = Annotated[
    str | None,
    typer.Option("--where", "-w", metavar="JSON", help='A filter, such as \'{"importance": {"$gte": 0.5}}\'.'),
]
Limit = Annotated[int, typer.Option("--limit", "-l", min=1, max=10_000, help="How many at most.")]
MinScore = Annotated[float | None, typer.Option("--min-score", help="Only what is at least this close.")]
Boost = Annotated[bool, typer.Option("--boost", help="Let assemblies near the query boost their members.")]
Threshold = Annotated[
    float | None, typer.Option("--threshold", help="With --boost: how close an assembly has to be; 0.5 if left out.")
]
Weight = Annotated[
    float | None, typer.Option("--weight", help="With --boost: the largest boost there can be; 0.25 if left out.")
]
Metadata = Annotated[
    str | None, typer.Option("--metadata", "-m", metavar="JSON", help='A JSON object, such as \'{"source": "chat"}\'.')
]
Vector = Annotated[
    str | None,
    typer.Option("--embedding", "-e", metavar="JSON", help="The embedding: a JSON list of numbers, in place of text."),
]
Embedder = Annotated[
    EmbedderChoice | None,
    typer.Option("--embedder", help="What makes embeddings of texts. What the file names, or wordllama if it is new."),
]
Dimension = Annotated[
    int | None, typer.Option("--dimension", min=1, max=65_536, help="For a new file: numbers per embedding.")
]
Metric = Annotated[
    MetricChoice | None,
    typer.Option("--metric", help="For a new file: how embeddings are compared; cosine if left out."),
]
Curvature = Annotated[
    float | None,
    typer.Option("--curvature", help="For a new hyperbolic file: its space is curved by minus so much; 1 if left out."),
]


def refuse(option: str, why: str) -> typer.BadParameter:
    """What to raise for a value of *option* that cannot be."""
    return typer.BadParameter(why, param_hint=f"'{option}'")


def namespace_of(text: str) -> Namespace:
    """The namespace that `a/b`, or a JSON list of texts, names; the empty text names the root."""
    if not text.startswith("["):
        return tuple(text.split("/")) if text else ()
    parts = json_of(text, "--namespace")
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise refuse("--namespace", "give a/b, or a JSON list of texts")
    return tuple(parts)


def namespace_text(namespace: Namespace) -> str:
    """What `namespace_of` turns into *namespace*."""
    text = "/".join(namespace)
    plain = not text.startswith("[") and namespace_of(text) == namespace
    return text if plain else json.dumps(list(namespace), ensure_ascii=False)


def json_of(text: str, option: str) -> Any:
    """The value of a JSON text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise refuse(option, f"not JSON: {error}") from error


def activation_of(boost: bool, threshold: float | None, weight: float | None) -> AssemblyBoost | None:
    """How assemblies are used; None for not at all."""
    given: dict[str, Any] = {
        name: value for name, value in {"threshold": threshold, "weight": weight}.items() if value is not None
    }
    if not boost:
        if given:
            raise refuse(f"--{min(given)}", "say --boost too: without it assemblies have no say")
        return None
    try:
        return AssemblyBoost(**given)
    except InvalidError as error:
        raise refuse("--boost", str(error)) from error


def metadata_of(text: str | None) -> dict[str, Any] | None:
    """A JSON object; None for None."""
    value = None if text is None else json_of(text, "--metadata")
    if value is not None and not isinstance(value, dict):
        raise refuse("--metadata", 'give a JSON object, such as \'{"source": "chat"}\'')
    return value


def embedding_of(text: str) -> list[float] | None:
    """A JSON list of numbers, or None for `null`."""
    value = json_of(text, "--embedding")
    if value is None:
        return None
    numbers = isinstance(value, list) and all(isinstance(n, int | float) and not isinstance(n, bool) for n in value)
    if not numbers or not value:
        raise refuse("--embedding", "give a JSON list of numbers, such as '[0.1, 0.2]'")
    return cast("list[float]", value)


def where_of(text: str | None) -> dict[str, Any] | None:
    """A filter from JSON, in which times are ISO 8601 texts; None for None. The store checks the language."""
    value = None if text is None else json_of(text, "--where")
    if value is not None and not isinstance(value, dict):
        raise refuse("--where", 'give a JSON object, such as \'{"importance": {"$gte": 0.5}}\'')
    return None if value is None else cast("dict[str, Any]", _timed(value))


def _timed(where: object) -> object:
    """A filter with the operands of its times read; what the language does not have is left for the store to refuse."""
    if isinstance(where, list):
        return [_timed(filter) for filter in where]
    if not isinstance(where, Mapping):
        return where
    return {
        key: _times(value) if key in TIMES else _timed(value) if key in _JOINING else value
        for key, value in where.items()
    }


def _times(operand: object) -> object:
    if isinstance(operand, str):
        return time_of(operand, "--where")
    if isinstance(operand, list):
        return [_times(item) for item in operand]
    return {key: _times(item) for key, item in operand.items()} if isinstance(operand, Mapping) else operand


def time_of(text: str, option: str) -> datetime:
    """A time from ISO 8601, aware; UTC where it names no zone."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise refuse(option, f"{text!r} is no time: write it as 2030-01-31T12:00:00Z") from error
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)

"""The options that several commands have, and the parsers of their values.

A value that cannot be parsed raises `typer.BadParameter`: exit code 2, before any file is opened.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from memstore import AssemblyBoost, InvalidError
from memstore.models.fields import TIMES

NamespacePath = tuple[str, ...]

_CONNECTIVES = frozenset({"$and", "$or", "$not"})
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_FILTER_EXAMPLE = '\'{"importance": {"$gte": 0.5}}\''
_METADATA_EXAMPLE = '\'{"source": "chat"}\''
DURATION_HELP = "Such as 45s, 30m, 12h, 90d or 4w."


class EmbedderChoice(StrEnum):
    """The embedders that the command line can load."""

    WORDLLAMA = "wordllama"
    NONE = "none"


class MetricChoice(StrEnum):
    """The metrics of a store."""

    COSINE = "cosine"
    INNER_PRODUCT = "inner_product"
    L2 = "l2"
    SPHERICAL = "spherical"
    HYPERBOLIC = "hyperbolic"


FILE = typer.Option("--file", "-f", envvar="MEMSTORE_FILE", help="The database file.", show_default=False)
File = Annotated[Path, FILE]
OptionalFile = Annotated[Path | None, FILE]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, as described above.")]
Namespace = Annotated[
    str,
    typer.Option(
        "--namespace",
        "-n",
        metavar="A/B",
        help='The namespace; the root by default. Names that contain / are written as JSON: \'["a/b", "c"]\'.',
        show_default=False,
    ),
]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Include all namespaces below it.")]
TagFilter = Annotated[
    list[str] | None, typer.Option("--tag", "-t", metavar="TAG", help="Only records with this tag; repeatable.")
]
Tags = Annotated[list[str] | None, typer.Option("--tag", "-t", metavar="TAG", help="Add this tag; repeatable.")]
Where = Annotated[
    str | None,
    typer.Option("--where", "-w", metavar="JSON", help=f"Only records that match this filter: {_FILTER_EXAMPLE}."),
]
Limit = Annotated[int, typer.Option("--limit", "-l", min=1, max=10_000, help="The highest number of results.")]
ListLimit = Annotated[int, typer.Option("--limit", "-l", min=1, help="The highest number of records.")]
All = Annotated[bool, typer.Option("--all", "-a", help="All records; ignores --limit.")]
MinScore = Annotated[float | None, typer.Option("--min-score", help="Only hits with at least this score.")]
Boost = Annotated[bool, typer.Option("--boost", help="Raise the scores of members of assemblies near the query.")]
Threshold = Annotated[
    float | None, typer.Option("--threshold", help="With --boost: the lowest score of an assembly; 0.5 by default.")
]
Weight = Annotated[float | None, typer.Option("--weight", help="With --boost: the highest boost; 0.25 by default.")]
Metadata = Annotated[
    str | None, typer.Option("--metadata", "-m", metavar="JSON", help=f"A JSON object: {_METADATA_EXAMPLE}.")
]
Embedding = Annotated[
    str | None,
    typer.Option("--embedding", "-e", metavar="JSON", help="The embedding, as a JSON list of numbers."),
]
Embedder = Annotated[
    EmbedderChoice | None,
    typer.Option("--embedder", help="The embedder of texts. By default that of the file, wordllama for a new file."),
]
Dimension = Annotated[
    int | None, typer.Option("--dimension", min=1, max=65_536, help="New file: the dimension of its embeddings.")
]
Metric = Annotated[MetricChoice | None, typer.Option("--metric", help="New file: its metric; cosine by default.")]
Curvature = Annotated[
    float | None,
    typer.Option("--curvature", help="New hyperbolic file: the curvature magnitude of its space; 1 by default."),
]
Upsert = Annotated[bool, typer.Option("--upsert", help="Replace records that have the same id.")]
Actor = Annotated[str | None, typer.Option("--actor", help="Who makes the change; stored with it.")]
Reason = Annotated[str | None, typer.Option("--reason", help="Why; stored with the change.")]
Assemblies = Annotated[bool, typer.Option("--assemblies", help="Assemblies instead of memories.")]
OneAssembly = Annotated[bool, typer.Option("--assembly", "-a", help="The id is that of an assembly.")]


def refuse(option: str, reason: str) -> typer.BadParameter:
    """The error for an invalid value of *option*."""
    return typer.BadParameter(reason, param_hint=f"'{option}'")


def parse_namespace(text: str, option: str = "--namespace") -> NamespacePath:
    """The namespace that `a/b`, or a JSON list of strings, names; the empty text names the root."""
    if not text.startswith("["):
        return tuple(text.split("/")) if text else ()
    parts = parse_json(text, option)
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise refuse(option, "Expected a/b, or a JSON list of strings.")
    return tuple(parts)


def format_namespace(namespace: NamespacePath) -> str:
    """The text that `parse_namespace` turns into *namespace*."""
    text = "/".join(namespace)
    plain = not text.startswith("[") and parse_namespace(text) == namespace
    return text if plain else json.dumps(list(namespace), ensure_ascii=False)


def parse_json(text: str, option: str) -> Any:
    """The value of a JSON text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise refuse(option, f"Not valid JSON: {error}.") from error


def parse_object(text: str | None, option: str, example: str) -> dict[str, Any] | None:
    """A JSON object; None for None."""
    value = None if text is None else parse_json(text, option)
    if value is not None and not isinstance(value, dict):
        raise refuse(option, f"Expected a JSON object, such as {example}.")
    return value


def parse_metadata(text: str | None) -> dict[str, Any] | None:
    """The value of `--metadata`."""
    return parse_object(text, "--metadata", _METADATA_EXAMPLE)


def parse_embedding(text: str) -> list[float] | None:
    """A JSON list of numbers, or None for `null`."""
    value = parse_json(text, "--embedding")
    if value is None:
        return None
    numeric = isinstance(value, list) and all(isinstance(n, int | float) and not isinstance(n, bool) for n in value)
    if not numeric or not value:
        raise refuse("--embedding", "Expected a JSON list of numbers, such as '[0.1, 0.2]'.")
    return cast("list[float]", value)


def parse_boost(boost: bool, threshold: float | None, weight: float | None) -> AssemblyBoost | None:
    """The boost of `--boost`, `--threshold` and `--weight`; None without `--boost`."""
    options: dict[str, Any] = {
        name: value for name, value in {"threshold": threshold, "weight": weight}.items() if value is not None
    }
    if not boost:
        if options:
            raise refuse(f"--{min(options)}", "It needs --boost.")
        return None
    try:
        return AssemblyBoost(**options)
    except InvalidError as error:
        raise refuse("--boost", str(error)) from error


def parse_duration(text: str | None, option: str) -> timedelta | None:
    """A duration such as `90d`; None for None."""
    if text is None:
        return None
    match = _DURATION.fullmatch(text)
    try:
        if match is not None:
            return timedelta(seconds=float(match[1]) * _SECONDS[match[2]])
    except OverflowError:
        pass
    raise refuse(option, f"{text!r} is not a duration. Write it as 45s, 30m, 12h, 90d or 4w.")


def parse_where(text: str | None) -> dict[str, Any] | None:
    """A filter from JSON, in which times are ISO 8601 texts; None for None. The store checks operators and fields."""
    value = parse_object(text, "--where", _FILTER_EXAMPLE)
    return None if value is None else cast("dict[str, Any]", _with_times(value))


def _with_times(where: object) -> object:
    """A filter with the operands of its time fields parsed; anything unknown is unchanged, for the store to refuse."""
    if isinstance(where, list):
        return [_with_times(item) for item in where]
    if not isinstance(where, Mapping):
        return where
    return {
        key: _parse_times(value) if key in TIMES else _with_times(value) if key in _CONNECTIVES else value
        for key, value in where.items()
    }


def _parse_times(operand: object) -> object:
    if isinstance(operand, str):
        return parse_time(operand, "--where")
    if isinstance(operand, list):
        return [_parse_times(item) for item in operand]
    return {key: _parse_times(item) for key, item in operand.items()} if isinstance(operand, Mapping) else operand


def parse_time(text: str, option: str) -> datetime:
    """An aware time from ISO 8601; UTC if the text has no zone."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise refuse(option, f"{text!r} is not a time. Write it as 2030-01-31T12:00:00Z.") from error
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)

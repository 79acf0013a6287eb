"""The options that several commands have, and the parsers of their values.

A value that cannot be parsed raises `typer.BadParameter`: exit code 2, before any file is opened.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, cast, overload

import typer

from memstore import AssemblyBoost, InvalidError
from memstore.cli.namespaces import NamespacePath
from memstore.errors import short_repr
from memstore.models.fields import TIMES

_CONNECTIVES = frozenset({"$and", "$or", "$not"})
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_FILTER_EXAMPLE = '\'{"importance": {"$gte": 0.5}}\''
_METADATA_EXAMPLE = '\'{"source": "chat"}\''
EXAMPLE_DURATIONS = "Such as 45s, 15m, 12h, 30d, 4w or 1d12h."


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


File = Annotated[Path, typer.Argument(metavar="STORE", help="The database file.", show_default=False)]
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
    float | None,
    typer.Option(
        "--threshold", help="With --boost: the lowest score of an assembly; relative to the query by default."
    ),
]
Weight = Annotated[float | None, typer.Option("--weight", help="With --boost: the highest boost; 0.1 by default.")]
Metadata = Annotated[
    str | None, typer.Option("--metadata", "-m", metavar="JSON", help=f"A JSON object: {_METADATA_EXAMPLE}.")
]
Importance = Annotated[float | None, typer.Option("--importance", min=0, max=1, help="Its importance; 0.5 by default.")]
Ttl = Annotated[
    str | None, typer.Option("--ttl", metavar="DURATION", help=f"It expires after this time. {EXAMPLE_DURATIONS}")
]
Pin = Annotated[
    bool | None, typer.Option("--pin/--no-pin", help="Whether policies must not forget it.", show_default=False)
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """The options of every search."""

    limit: Limit = 5
    tag: TagFilter = None
    where: Where = None
    min_score: MinScore = None
    namespace: Namespace = ""
    recursive: Recursive = False
    embedding: Embedding = None
    embedder: Embedder = None

    def arguments(self) -> dict[str, Any]:
        """The arguments of `search` that these options stand for, without the query."""
        return {
            "limit": self.limit,
            "tags": self.tag or (),
            "where": parse_where(self.where),
            "min_score": self.min_score,
            "recursive": self.recursive,
        }

    def query(self, text: str | None) -> str | list[float]:
        """What to search for: the argument *text*, or the vector of `--embedding`."""
        if (text is None) == (self.embedding is None):
            raise typer.BadParameter(
                "Pass what to search for: a text, as in `memstore search notes.db 'green tea'`, or --embedding."
            )
        if self.embedding is None:
            return text or ""
        vector = parse_embedding(self.embedding)
        if vector is None:
            raise refuse("--embedding", "null is not a vector to search for.")
        return vector


@dataclass(frozen=True, slots=True, kw_only=True)
class BoostOptions:
    """The options of a search whose hits assemblies may boost."""

    boost: Boost = False
    threshold: Threshold = None
    weight: Weight = None

    def parse(self) -> AssemblyBoost | None:
        """The boost that the options describe; None without `--boost`."""
        values = {"threshold": self.threshold, "weight": self.weight}
        options: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
        if not self.boost:
            if options:
                raise refuse(f"--{min(options)}", "It needs --boost.")
            return None
        try:
            return AssemblyBoost(**options)
        except InvalidError as error:
            raise refuse("--boost", str(error)) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOptions:
    """The options of every list of records."""

    limit: ListLimit = 20
    all: All = False
    tag: TagFilter = None
    where: Where = None
    namespace: Namespace = ""
    recursive: Recursive = False

    def arguments(self) -> dict[str, Any]:
        """The arguments of `list` and `count` that say which records."""
        return {"where": parse_where(self.where), "tags": self.tag or (), "recursive": self.recursive}

    @property
    def most(self) -> int | None:
        """The highest number of records; None for all."""
        return None if self.all else self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFileOptions:
    """The options about the vectors of a store; those of its dimension and metric count for a new file."""

    embedder: Embedder = None
    dimension: Dimension = None
    metric: Metric = None
    curvature: Curvature = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeOptions:
    """Who makes a change, and why."""

    actor: Actor = None
    reason: Reason = None

    def arguments(self) -> dict[str, Any]:
        """The arguments of the verbs that take both."""
        return {"actor": self.actor, "reason": self.reason}


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


@overload
def parse_duration(text: str, option: str, others: str = "") -> timedelta: ...
@overload
def parse_duration(text: str | None, option: str, others: str = "") -> timedelta | None: ...
def parse_duration(text: str | None, option: str, others: str = "") -> timedelta | None:
    """A duration: numbers with units, such as `30d` or `1d12h`; None for None. The only parser of durations.

    *others* names the values that the option takes besides.
    """
    if text is None:
        return None
    parts = _DURATION.findall(text)
    try:
        if parts and "".join(number + unit for number, unit in parts) == text:
            return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))
    except OverflowError:
        raise refuse(option, f"{short_repr(text)} is too long.") from None
    what = "has no unit" if text.replace(".", "", 1).isdecimal() else "is not a duration"
    raise refuse(
        option,
        f"{short_repr(text)} {what}. Write a number and a unit (s seconds, m minutes, h hours, d days, w weeks), such "
        f"as 45s, 15m, 12h, 30d or 4w{f'; or {others}' if others else ''}.",
    )


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

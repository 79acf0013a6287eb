"""Records as JSON and back: the lines of `export` and `import`, and the output of `--json`.

A line of an export is one JSON object: first the store (`"kind": "store"`, with dimension, metric, embedder, and the
curvature of a hyperbolic space), then memories and assemblies, with every field that `add` accepts, then the end
(`"kind": "end"`), without which an import fails: the export was interrupted. Fields that the store computes (composite,
member count, revision) are left out. Times are ISO 8601 with microseconds and zone. An embedding is a list of numbers;
each float32 has the digits of the double it equals, so that no bit is lost.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np

from memstore import Assembly, InvalidError, Memory, Store
from memstore.cli.namespaces import NamespacePath
from memstore.errors import short_repr
from memstore.models.fields import TIMES, computed

FORMAT = 1

Kind = Literal["store", "memory", "assembly", "end"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One line or passage to import.

    Attributes:
        kind: `store` for the first line of an export, `end` for the last, else the kind of record.
        namespace: the namespace of the record, below that of the import.
        fields: the keyword arguments of its `add`, with their values.
        place: the file and line it comes from, for messages.
    """

    kind: Kind
    namespace: NamespacePath = ()
    fields: dict[str, Any]
    place: str


def record_as_json(record: object, *, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The fields of a record of memstore in JSON's types, except those named in *without*."""
    return {
        field.name: value_as_json(getattr(record, field.name))
        for field in fields(record)  # type: ignore[arg-type]
        if field.name not in without
    }


def value_as_json(value: Any) -> Any:
    """The value of a field, with all it contains, in JSON's types."""
    if is_dataclass(value):
        return record_as_json(value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [value_as_json(item) for item in value]
    if isinstance(value, Mapping):
        return {name: value_as_json(item) for name, item in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value.isoformat() if isinstance(value, datetime) else value


def record_without_vector(record: Memory | Assembly) -> dict[str, Any]:
    """A record as JSON without its embedding or composite."""
    return record_as_json(record, without=frozenset({"embedding", "composite"}))


async def store_line(store: Store) -> dict[str, Any]:
    """The first line of an export: the settings that a new file needs."""
    stats = await store.stats()
    return {
        "kind": "store",
        "format": FORMAT,
        "dimension": stats.dimension,
        "metric": stats.metric,
        **({} if stats.curvature is None else {"curvature": stats.curvature}),
        "embedder": stats.embedder,
    }


def end_line(memories: int, assemblies: int) -> dict[str, Any]:
    """The last line of an export: the numbers of records before it. An import of an export without it fails."""
    return {"kind": "end", "memories": memories, "assemblies": assemblies}


def memory_line(memory: Memory) -> dict[str, Any]:
    """A memory as a line of an export."""
    return {"kind": "memory", **record_as_json(memory)}


def assembly_line(assembly: Assembly, members: list[str]) -> dict[str, Any]:
    """An assembly as a line of an export."""
    return {"kind": "assembly", **record_as_json(assembly, without=computed("assembly")), "members": members}


def parse_item(line: object, place: str) -> Item:
    """The item that a line of JSON describes; without a `kind` it is a memory.

    Raises:
        InvalidError: it is not an object, or of an unknown kind or format; the message starts with *place*.
    """
    if not isinstance(line, dict):
        raise InvalidError(f'{place}: Expected one JSON object a line, such as {{"content": "a text"}}.')
    values = dict(line)
    kind = values.pop("kind", "memory")
    if kind not in ("store", "memory", "assembly", "end"):
        raise InvalidError(f"{place}: Invalid kind: expected 'memory' or 'assembly', got {short_repr(kind)}.")
    if kind == "store" and values.get("format") != FORMAT:
        raise InvalidError(
            f"{place}: Unsupported export: this release reads format {FORMAT}, got format "
            f"{short_repr(values.get('format'))}."
        )
    if kind == "memory" and "content" not in values:
        names = ", ".join(map(short_repr, list(values)[:20])) or "none"
        raise InvalidError(f"{place}: A memory needs the field 'content'; its fields are: {names}.")
    namespace = values.pop("namespace", [])
    if not isinstance(namespace, list) or not all(isinstance(part, str) for part in namespace):
        raise InvalidError(f"{place}: Invalid namespace: expected a list of strings, got {short_repr(namespace)}.")
    return Item(kind=kind, namespace=tuple(namespace), fields=_with_times(values, place), place=place)


def _with_times(values: Mapping[str, Any], place: str) -> dict[str, Any]:
    parsed = dict(values)
    for name in TIMES & parsed.keys():
        if isinstance(parsed[name], str):
            try:
                parsed[name] = datetime.fromisoformat(parsed[name])
            except ValueError as error:
                raise InvalidError(
                    f"{place}: Invalid {name}: expected a time in ISO 8601, got {short_repr(parsed[name])}."
                ) from error
    return parsed

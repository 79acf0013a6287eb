"""Records as JSON and back: the lines of `export` and `import`, and what `--json` prints.

A line of an export is one JSON object: first the store (`"kind": "store"`, with dimension, metric, embedder, and the
curvature of a hyperbolic space), then memories and assemblies, each with every field it was given. What the store
computes (composite, member count, revision) is computed again. Times are ISO 8601 with microseconds and zone; an
embedding is a list of numbers, each float32 written with the digits of the double it equals, so that no bit is lost.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np

from memstore import Assembly, InvalidError, Memory, Store
from memstore.cli.options import Namespace
from memstore.errors import short_repr
from memstore.models.fields import TIMES, computed

FORMAT = 1

Kind = Literal["store", "memory", "assembly"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing to import.

    Attributes:
        kind: what it is.
        namespace: where it goes.
        fields: the keyword names of the noun's `add`, with their values.
        place: where it was read, for messages.
    """

    kind: Kind
    namespace: Namespace = ()
    fields: dict[str, Any]
    place: str


def as_json(record: object, *, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The fields of a record of memstore, in JSON's types; those named in *without* left out."""
    return {
        field.name: value_as_json(getattr(record, field.name))
        for field in fields(record)  # type: ignore[arg-type]
        if field.name not in without
    }


def value_as_json(value: Any) -> Any:
    """The value of a field, in JSON's types."""
    if isinstance(value, np.ndarray | tuple):
        return list(value) if isinstance(value, tuple) else value.tolist()
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value.isoformat() if isinstance(value, datetime) else value


def brief(record: Memory | Assembly) -> dict[str, Any]:
    """A record as JSON without its vector: what lists and searches print."""
    return as_json(record, without=frozenset({"embedding", "composite"}))


async def header(store: Store) -> dict[str, Any]:
    """The first line of an export: what a new file needs to know of this one."""
    stats = await store.stats()
    return {
        "kind": "store",
        "format": FORMAT,
        "dimension": stats.dimension,
        "metric": stats.metric,
        **({} if stats.curvature is None else {"curvature": stats.curvature}),
        "embedder": stats.embedder,
    }


def memory_line(memory: Memory) -> dict[str, Any]:
    """A memory as a line of an export."""
    return {"kind": "memory", **as_json(memory)}


def assembly_line(assembly: Assembly, members: list[str]) -> dict[str, Any]:
    """An assembly as a line of an export."""
    return {"kind": "assembly", **as_json(assembly, without=computed("assembly")), "members": members}


def item_of(line: object, place: str) -> Item:
    """What a line of JSON describes; a line that names no kind is a memory.

    Raises:
        InvalidError: it is no object, or of another kind or format; *place* is in the message.
    """
    if not isinstance(line, dict):
        raise InvalidError(f'{place}: one line is one JSON object, such as {{"content": "a text"}}')
    values = dict(line)
    kind = values.pop("kind", "memory")
    if kind not in ("store", "memory", "assembly"):
        raise InvalidError(f"{place}: kind is 'memory' or 'assembly'; got {short_repr(kind)}")
    if kind == "store" and values.get("format") != FORMAT:
        raise InvalidError(
            f"{place}: an export of format {short_repr(values.get('format'))}; this release reads {FORMAT}"
        )
    if kind == "memory" and "content" not in values:
        fields = ", ".join(map(short_repr, list(values)[:20])) or "no field"
        raise InvalidError(f"{place}: a memory has its text in 'content'; this one has {fields}")
    namespace = values.pop("namespace", [])
    if not isinstance(namespace, list) or not all(isinstance(part, str) for part in namespace):
        raise InvalidError(f"{place}: namespace is a list of texts; got {short_repr(namespace)}")
    return Item(kind=kind, namespace=tuple(namespace), fields=_read(values, place), place=place)


def _read(values: Mapping[str, Any], place: str) -> dict[str, Any]:
    read = dict(values)
    for name in TIMES & read.keys():
        if isinstance(read[name], str):
            try:
                read[name] = datetime.fromisoformat(read[name])
            except ValueError as error:
                raise InvalidError(f"{place}: {name} is a time in ISO 8601; got {short_repr(read[name])}") from error
    return read

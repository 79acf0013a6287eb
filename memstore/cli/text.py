"""Values as text: counts, sizes, times, snippets and lines of JSON. Imports nothing of rich."""

import json
from datetime import datetime

import numpy as np

from memstore import Embedding
from memstore.escaping import escape_json, escape_text

SNIPPET = 220


def snippet(text: str, size: int = SNIPPET) -> str:
    """The first *size* characters of *text*, on one line."""
    line = escape_text(" ".join(text[: size * 4].split()))
    return line if len(line) <= size and len(text) <= size * 4 else line[: size - 1].rstrip() + "…"


def quantity(count: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun: `1 memory`, `2,000 memories`."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {plural or (noun[:-1] + 'ies' if noun.endswith('y') else noun + 's')}"


def size_text(size: int) -> str:
    """A number of bytes in decimal units."""
    value, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} B" if units[0] == "B" else f"{value:.1f} {units[0]}"


def minute_text(time: datetime) -> str:
    """A UTC time to the minute, for columns whose title says UTC."""
    return f"{time:%Y-%m-%d %H:%M}"


def second_text(time: datetime | None) -> str | None:
    """A UTC time to the second, with its zone; None for None."""
    return None if time is None else f"{time:%Y-%m-%d %H:%M:%S} UTC"


def space_text(dimension: int | None, metric: str | None, curvature: float | None) -> str:
    """The vector space of a store."""
    curved = "" if curvature is None else f", curvature -{curvature:g}"
    size = f"dimension {dimension}" if dimension else "no dimension until the first vector"
    return f"{size}, metric {metric}{curved}"


def vector_text(vector: Embedding | None) -> str:
    """A vector: its dimension, its norm and its first components."""
    if vector is None:
        return "none"
    head = ", ".join(f"{x:.4g}" for x in vector[:4].tolist())
    return f"dimension {vector.size}, norm {float(np.linalg.norm(vector)):.4g}: {head}{', …' * (vector.size > 4)}"


def json_text(value: object) -> str:
    """JSON for people; an empty text for an empty object."""
    return json.dumps(value, ensure_ascii=False) if value else ""


def json_line(value: object) -> str:
    """*value* as one line of JSON in UTF-8, with escapes for what could control a terminal."""
    return escape_json(json.dumps(value, ensure_ascii=False, allow_nan=False)) + "\n"

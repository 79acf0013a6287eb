"""The HTML page: a frame, a style sheet, a script, and the data.

The data are one block: the length of a JSON header (uint32), the header, then arrays, each at a multiple of 8 bytes,
little-endian. The block is compressed by gzip and encoded in base64, which has no character with a meaning in HTML: so
texts of records cannot become part of the page. The page's Content-Security-Policy allows its own script and style, by
their digests, and nothing else: no other script runs, and nothing is fetched.
"""

import base64
import gzip
import hashlib
import html
import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from memstore.models.records import Namespace

PAGE_PREFIX = b"<!DOCTYPE html>\n<!-- memstore map -->\n"
"""The first bytes of every page; `write_map` recognises a page by them."""

_FOLDER = Path(__file__).parent
_ALIGNMENT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A memory on the map.

    Attributes:
        text: the content, cut to the text limit.
        created: time of creation in seconds since 1970, UTC.
    """

    id: str
    namespace: Namespace
    text: str
    tags: tuple[str, ...]
    created: float
    importance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """An assembly on the map.

    Attributes:
        size: number of all members.
        members: indexes of the members that are on the map, in the sequence of points.
    """

    id: str
    name: str
    tags: tuple[str, ...]
    size: int
    members: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapData:
    """Everything that a page shows.

    Attributes:
        memories: number of all memories, on the map or not.
        without_embedding: number of memories without a vector.
        variance: share of the variance that the positions keep, 0 to 1.
        positions: float32, shape (points, 2).
        groups: the largest first.
    """

    title: str
    metric: str
    memories: int
    without_embedding: int
    variance: float
    text_limit: int
    points: Sequence[Point]
    positions: npt.NDArray[np.float32]
    groups: Sequence[Group]


def render_page(data: MapData) -> bytes:
    """The page, encoded as UTF-8."""
    style, script, frame = (_read(name) for name in ("map.css", "map.js", "map.html"))
    values = {
        "policy": f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'",
        "title": html.escape(data.title),
        "style": style,
        "script": script,
        "data": base64.b64encode(gzip.compress(_pack(data), compresslevel=6, mtime=0)).decode(),
    }
    # The frame is split once, so a placeholder inside a value is not replaced.
    parts = frame.split("%%")
    return PAGE_PREFIX + "".join(values[part] if k % 2 else part for k, part in enumerate(parts)).encode()


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _pack(data: MapData) -> bytes:
    points = data.points
    tags, tag_indexes = _index_words(tag for point in points for tag in point.tags)
    namespaces, namespace_indexes = _index_words("/".join(point.namespace) for point in points)
    body, layout = _pack_arrays(
        {
            "x": data.positions[:, 0],
            "y": data.positions[:, 1],
            "created": np.array([point.created for point in points], dtype="<f8"),
            "importance": np.array([point.importance for point in points], dtype="<f4"),
            "namespaceIndexes": np.array(namespace_indexes, dtype="<u4"),
            "tagEnds": np.cumsum([len(point.tags) for point in points], dtype="<u4"),
            "tagIndexes": np.array(tag_indexes, dtype="<u4"),
            "memberEnds": np.cumsum([len(group.members) for group in data.groups], dtype="<u4"),
            "memberIndexes": np.array([index for group in data.groups for index in group.members], dtype="<u4"),
        }
    )
    header = {
        "title": data.title,
        "metric": data.metric,
        "memories": data.memories,
        "withoutEmbedding": data.without_embedding,
        "variance": data.variance,
        "textLimit": data.text_limit,
        "texts": [point.text for point in points],
        "ids": [point.id for point in points],
        "tags": tags,
        "namespaces": namespaces,
        "groups": [{"id": g.id, "name": g.name, "tags": g.tags, "size": g.size} for g in data.groups],
        "arrays": layout,
    }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    return _pad(struct.pack("<I", len(text)) + text) + body


def _index_words(words: Iterable[str]) -> tuple[list[str], list[int]]:
    """The distinct words, and the index of each of *words* among them."""
    numbers: dict[str, int] = {}
    indexes = [numbers.setdefault(word, len(numbers)) for word in words]
    return list(numbers), indexes


def _pack_arrays(arrays: dict[str, npt.NDArray[Any]]) -> tuple[bytes, list[tuple[str, str, int, int]]]:
    """The bytes of the arrays, and the layout: name, type, offset in bytes and length of each array."""
    body, layout = bytearray(), []
    for name, array in arrays.items():
        dtype = array.dtype.newbyteorder("<")
        layout.append((name, dtype.str[1:], len(body), len(array)))
        body += _pad(array.astype(dtype).tobytes())
    return bytes(body), layout


def _pad(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % _ALIGNMENT)

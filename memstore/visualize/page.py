"""The page itself: a frame, a style, a script, and the data packed so that nothing in them can be read as HTML.

The data are one block: the length of a JSON text (uint32), the text, then arrays, each at a multiple of 8 bytes,
little-endian; compressed by gzip, and written in base64, whose alphabet has no character that means anything in HTML.
A policy in the page allows its own script and style, by their digests, and nothing else: no other script runs, and
nothing is fetched.
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

MARK = b"<!DOCTYPE html>\n<!-- memstore map -->\n"
"""What every page begins with."""

_PARTS = Path(__file__).parent
_ALIGNED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A memory on the page: its text cut, its time in seconds since 1970."""

    id: str
    namespace: Namespace
    text: str
    tags: tuple[str, ...]
    created: float
    importance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """An assembly on the page: `members` are numbers of points, `size` counts all it has."""

    id: str
    name: str
    tags: tuple[str, ...]
    size: int
    members: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """All that a page shows; `places` is float32, shape (number of points, 2)."""

    title: str
    metric: str
    memories: int
    without_embedding: int
    variance: float
    text: int
    points: Sequence[Point]
    places: npt.NDArray[np.float32]
    groups: Sequence[Group]


def page(picture: Picture) -> bytes:
    """The page, as UTF-8."""
    style, script, frame = (_part(name) for name in ("map.css", "map.js", "map.html"))
    policy = f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'"
    parts = {
        "policy": policy,
        "title": html.escape(picture.title),
        "style": style,
        "script": script,
        "data": base64.b64encode(gzip.compress(_packed(picture), compresslevel=6, mtime=0)).decode(),
    }
    # One pass over the frame, so that nothing that is put in is looked at again.
    pieces = frame.split("%%")
    return MARK + "".join(parts[piece] if odd % 2 else piece for odd, piece in enumerate(pieces)).encode()


def _part(name: str) -> str:
    return (_PARTS / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _packed(picture: Picture) -> bytes:
    points = picture.points
    tags, tag_numbers = _numbered(tag for point in points for tag in point.tags)
    spaces, space_numbers = _numbered("/".join(point.namespace) for point in points)
    arrays = {
        "x": picture.places[:, 0],
        "y": picture.places[:, 1],
        "created": np.array([point.created for point in points], dtype="<f8"),
        "importance": np.array([point.importance for point in points], dtype="<f4"),
        "space": np.array(space_numbers, dtype="<u4"),
        "tagEnd": np.cumsum([len(point.tags) for point in points], dtype="<u4"),
        "tag": np.array(tag_numbers, dtype="<u4"),
        "memberEnd": np.cumsum([len(group.members) for group in picture.groups], dtype="<u4"),
        "member": np.array([number for group in picture.groups for number in group.members], dtype="<u4"),
    }
    body, layout = _laid_out(arrays)
    head = {
        "title": picture.title,
        "metric": picture.metric,
        "memories": picture.memories,
        "without": picture.without_embedding,
        "variance": picture.variance,
        "textLimit": picture.text,
        "texts": [point.text for point in points],
        "ids": [point.id for point in points],
        "tags": tags,
        "spaces": spaces,
        "groups": [{"id": g.id, "name": g.name, "tags": g.tags, "size": g.size} for g in picture.groups],
        "arrays": layout,
    }
    text = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode()
    return _padded(struct.pack("<I", len(text)) + text) + body


def _numbered(words: Iterable[str]) -> tuple[list[str], list[int]]:
    """The different words, and for each of *words* its number among them."""
    numbers: dict[str, int] = {}
    found = [numbers.setdefault(word, len(numbers)) for word in words]
    return list(numbers), found


def _laid_out(arrays: dict[str, npt.NDArray[Any]]) -> tuple[bytes, list[tuple[str, str, int, int]]]:
    """Arrays one after the other, and of each its name, type, place in bytes, and length."""
    body, layout = bytearray(), []
    for name, array in arrays.items():
        kind = array.dtype.newbyteorder("<")
        layout.append((name, kind.str[1:], len(body), len(array)))
        body += _padded(array.astype(kind).tobytes())
    return bytes(body), layout


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % _ALIGNED)

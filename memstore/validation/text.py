"""Texts and metadata: what SQLite and JSON keep exactly, and the limits of both.

A value is refused, never bent: what a check lets through is stored exactly, and comes back equal.
"""

import math
from collections.abc import Mapping
from typing import Any, cast

from memstore.errors import InvalidError, short_repr
from memstore.models.records import Json

MAX_TEXT_BYTES = 100_000_000
MAX_METADATA_DEPTH = 100
MAX_METADATA_VALUES = 100_000

_INT64 = range(-(2**63), 2**63)
_FEW = 16  # texts, of which the longest together are no trouble


def check_text(name: str, value: object, *, most: int = MAX_TEXT_BYTES, least: int = 0) -> str:
    """*value* as text of *least* to *most* bytes of UTF-8, else `InvalidError`."""
    if type(value) is not str:
        raise InvalidError(f"{name} is text (str); got {type(value).__name__}")
    try:
        size = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError as error:
        raise InvalidError(
            f"{name} holds half of a surrogate pair, which is no text: decode it before storing"
        ) from error
    if not least <= size <= most:
        raise InvalidError(f"{name} has {size:,} bytes of UTF-8; {least:,} to {most:,} can be stored")
    return value


def check_metadata(value: object) -> dict[str, Json]:
    """A copy of *value* as a JSON object that comes back equal, else `InvalidError` naming the place."""
    if not isinstance(value, Mapping):
        raise InvalidError(f"metadata is a dict; got {type(value).__name__}")
    given = dict(value)
    try:
        copy = plain(given)
    except InvalidError:
        copy = None
    return cast("dict[str, Json]", _json(given, "metadata", 1, _Room()) if copy is None else copy)


class _Room:
    """What metadata may hold still. A list that lies in two places is stored twice, and so is what lies in it."""

    __slots__ = ("size", "values")

    def __init__(self) -> None:
        self.values = MAX_METADATA_VALUES
        self.size = MAX_TEXT_BYTES

    def take(self, size: int) -> None:
        """Note one more value, a text of *size* or none. Raises `InvalidError`."""
        self.values -= 1
        self.size -= size
        if self.values < 0 or self.size < 0:
            raise InvalidError(
                f"metadata holds at most {MAX_METADATA_VALUES:,} values, and texts of {MAX_TEXT_BYTES:,} bytes in all: "
                "what is larger is content, or a file of its own"
            )


def plain(value: dict[str, Any]) -> dict[str, Json] | None:
    """A copy of *value*, or None where `_json` has to look, which knows each place by name and takes its time."""
    texts: list[str] = []
    copy = _copied(value, texts, 1, _Room())
    if copy is None or (len(texts) > _FEW and sum(map(len, texts)) > MAX_TEXT_BYTES):
        return None
    text = "".join(texts)  # looked through once, not one by one
    return copy if "\0" not in text and (text.isascii() or _encodes(text)) else None


def _copied(value: dict[str, Any], texts: list[str], depth: int, room: _Room) -> dict[str, Json] | None:
    """A copy of *value* if it is made of plain types, its texts added to *texts* to be looked through."""
    copy = value.copy()
    texts += copy
    if len(texts) > MAX_METADATA_VALUES:
        return None
    for key, item in copy.items():
        kind = type(item)
        if type(key) is not str:
            return None
        if kind is str:
            texts.append(item)
        elif kind is int:
            if item not in _INT64:
                return None
        elif kind is float:
            if not math.isfinite(item):
                return None
        elif kind is dict and depth < MAX_METADATA_DEPTH:
            copy[key] = inner = _copied(item, texts, depth + 1, room)
            if inner is None:
                return None
        elif kind is list:
            copy[key] = _json(item, "metadata", depth + 1, room)
        elif item is not None and kind is not bool:
            return None
    return copy


def _encodes(text: str) -> bool:
    try:
        return len(text.encode()) <= MAX_TEXT_BYTES
    except UnicodeEncodeError:
        return False


def _json(value: object, place: str, depth: int, room: _Room) -> Json:
    kind = type(value)
    room.take(len(value) if kind is str else 0)  # type: ignore[arg-type]
    if kind is str:
        return check_json_text(value, place)  # type: ignore[arg-type]
    if value is None or kind is bool:
        return value  # type: ignore[return-value]
    if kind is int:
        if value not in _INT64:
            raise InvalidError(
                f"{place} is an integer beyond 64 bits, which no JSON reader keeps exactly: store it as text"
            )
        return value  # type: ignore[return-value]
    if kind is float:
        if not math.isfinite(value):  # type: ignore[arg-type]
            raise InvalidError(f"{place} is {value}, which JSON does not have: use None")
        return value  # type: ignore[return-value]
    if depth > MAX_METADATA_DEPTH:
        raise InvalidError(f"metadata is nested more than {MAX_METADATA_DEPTH} levels deep")
    if kind is list:
        return [_json(item, f"{place}[{i}]", depth + 1, room) for i, item in enumerate(cast("list[object]", value))]
    if kind is dict:
        members = cast("dict[object, object]", value).items()
        return {_json_key(k, place, room): _json(v, f"{place}.{k}", depth + 1, room) for k, v in members}
    raise InvalidError(f"{place} is a {kind.__name__}, which would not come back as one from JSON: convert it first")


def _json_key(key: object, place: str, room: _Room) -> str:
    if type(key) is not str:
        raise InvalidError(
            f"{place} has the key {short_repr(key)}: keys are text, JSON would silently turn others into it"
        )
    room.take(len(key))
    return check_json_text(key, f"a key of {place}")


def check_json_text(value: str, place: str) -> str:
    """*value* as a text in JSON that SQLite reads to its end, else `InvalidError` naming its *place*."""
    if "\0" in value:
        raise InvalidError(f"{place} holds U+0000, at which SQLite's JSON functions end a text: remove it")
    return value if value.isascii() else check_text(place, value)

"""Checks of texts and metadata: what SQLite and JSON store exactly, and the limits of both.

An accepted value is stored exactly and read back equal. No value is changed.
"""

import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from memstore.errors import InvalidError, describe_content
from memstore.models.records import Json
from memstore.vectors.scalars import plain_scalar

MAX_TEXT_BYTES = 100_000_000
MAX_METADATA_DEPTH = 100
MAX_METADATA_VALUES = 100_000

_INT64 = range(-(2**63), 2**63)
_FEW = 16  # texts: so few cannot exceed the memory of a process, whatever their lengths


def check_text(name: str, value: object, *, most: int = MAX_TEXT_BYTES, least: int = 0) -> str:
    """*value* as text of *least* to *most* bytes of UTF-8, else `InvalidError`."""
    if type(value) is not str:
        value = plain_scalar(value)
        if type(value) is not str:
            raise InvalidError(f"Invalid {name}: expected text (str), found {type(value).__name__}")
    try:
        size = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError as error:
        raise InvalidError(
            f"Invalid {name}: it contains half of a surrogate pair, which UTF-8 cannot encode. Decode it before storing"
        ) from error
    if not least <= size <= most:
        raise InvalidError(f"Invalid {name}: expected {least:,} to {most:,} bytes of UTF-8, found {size:,}")
    return value


def check_metadata(value: object) -> dict[str, Json]:
    """A copy of *value* as a JSON object that is read back equal, else `InvalidError` with the place of the fault."""
    if not isinstance(value, Mapping):
        raise InvalidError(f"Invalid metadata: expected a dict, found {type(value).__name__}")
    document = dict(value)
    try:
        copy = copy_plain(document)
    except InvalidError:
        copy = None
    return cast("dict[str, Json]", copy_checked(document) if copy is None else copy)


def copy_checked(document: dict[Any, Any]) -> Json:
    """A copy of *document*, with an error that names the place of the fault. It is slower than `copy_plain`."""
    return _json(document, "metadata", 1, _Budget())


class _Budget:
    """How many values and bytes one record's metadata can still take. A list in two places counts twice."""

    __slots__ = ("size", "values")

    def __init__(self) -> None:
        self.values = MAX_METADATA_VALUES
        self.size = MAX_TEXT_BYTES

    def spend(self, size: int) -> None:
        """Count one value, which is a text of *size* or has size 0. Raises `InvalidError`."""
        self.values -= 1
        self.size -= size
        if self.values < 0 or self.size < 0:
            raise InvalidError(
                f"Invalid metadata: expected at most {MAX_METADATA_VALUES:,} values and {MAX_TEXT_BYTES:,} bytes of "
                "text, found more. Store large data as content, or in a file"
            )


def copy_plain(value: dict[str, Any]) -> dict[str, Json] | None:
    """A copy of *value* if it consists of plain types; None where `copy_checked` has to decide.

    Its texts are joined and checked once, which is quicker than one check per text.
    """
    texts: list[str] = []
    copy = _copy_plain(value, texts, 1, _Budget())
    if copy is None or (len(texts) > _FEW and sum(map(len, texts)) > MAX_TEXT_BYTES):
        return None
    text = "".join(texts)
    return copy if "\0" not in text and (text.isascii() or _fits_utf8(text)) else None


def _copy_plain(value: dict[str, Any], texts: list[str], depth: int, budget: _Budget) -> dict[str, Json] | None:
    """A copy of *value* if it consists of plain types. Adds its unchecked texts to *texts*."""
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
            copy[key] = inner = _copy_plain(item, texts, depth + 1, budget)
            if inner is None:
                return None
        elif kind is list:
            copy[key] = _json(item, "metadata", depth + 1, budget)
        elif item is not None and kind is not bool:
            return None
    return copy


def _fits_utf8(text: str) -> bool:
    try:
        return len(text.encode()) <= MAX_TEXT_BYTES
    except UnicodeEncodeError:
        return False


def _json(value: object, place: str, depth: int, budget: _Budget) -> Json:
    if isinstance(value, np.generic):
        value = plain_scalar(value)
    kind = type(value)
    budget.spend(len(value) if kind is str else 0)  # type: ignore[arg-type]
    if kind is str:
        return check_json_text(value, place)  # type: ignore[arg-type]
    if value is None or kind is bool:
        return value  # type: ignore[return-value]
    if kind is int:
        if value not in _INT64:
            raise InvalidError(
                f"Invalid {place}: expected an integer of at most 64 bits, found a larger one. Store it as text, "
                "because JSON readers round it"
            )
        return value  # type: ignore[return-value]
    if kind is float:
        if not math.isfinite(value):  # type: ignore[arg-type]
            raise InvalidError(f"Invalid {place}: expected a finite number, found {value}. Use None")
        return value  # type: ignore[return-value]
    if depth > MAX_METADATA_DEPTH:
        raise InvalidError(f"Invalid metadata: expected at most {MAX_METADATA_DEPTH} levels, found more. Flatten it")
    if kind is list:
        return [_json(item, f"{place}[{i}]", depth + 1, budget) for i, item in enumerate(cast("list[object]", value))]
    if kind is dict:
        members = cast("dict[object, object]", value).items()
        return {_json_key(k, place, budget): _json(v, f"{place}.{k}", depth + 1, budget) for k, v in members}
    raise InvalidError(
        f"Invalid {place}: expected a JSON type (dict, list, str, int, float, bool or None), found {kind.__name__}. "
        "Convert it"
    )


def _json_key(key: object, place: str, budget: _Budget) -> str:
    if type(key) is not str:
        key = plain_scalar(key)
        if type(key) is not str:
            raise InvalidError(
                f"Invalid key in {place}: expected text (str), because JSON converts other keys to text, "
                f"found {describe_content(key)}"
            )
    budget.spend(len(key))
    return check_json_text(key, f"key in {place}")


def check_json_text(value: str, place: str) -> str:
    """*value* as a text in JSON without U+0000, else `InvalidError` with its *place*."""
    if "\0" in value:
        raise InvalidError(f"Invalid {place}: it contains U+0000, which ends a text in SQLite's JSON. Remove it")
    return value if value.isascii() else check_text(place, value)

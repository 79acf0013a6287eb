r"""Paths of values in metadata, as callers write them (`source.kind`, `["a.b"].c`) and as SQL (`$."source"."kind"`).

A path is a tuple of keys. No key contains `"`, `\` or a control character (`checked_key`), so a key in double quotes
needs no escape in SQL.
"""

import json
import re
from collections.abc import Iterable

from memstore.errors import FilterError, InvalidError, short_repr

Path = tuple[str, ...]

MAX_INDEXED = 16
MAX_INDEXED_LENGTH = 1_024

_PLAIN = re.compile(r"[^.\[]+")
_UNNAMEABLE = re.compile(r'["\\\x00-\x1f]')


def keys(name: str) -> Path:
    """The keys of a path that begins with `metadata`. A step is `.key` or `["key"]`, a JSON text."""
    path: list[str] = []
    at = len("metadata")
    while at < len(name):
        if name[at] == ".":
            match = _PLAIN.match(name, at + 1)
            if match is None:
                raise FilterError(f'Invalid path {short(name)}: it has an empty step. An empty key is metadata[""]')
            key, end = match[0], match.end()
        else:
            key, end = _bracketed(name, at)
        path.append(checked_key(key))
        at = end
    return tuple(path)


def _bracketed(name: str, at: int) -> tuple[str, int]:
    problem = FilterError(
        f'Invalid path {short(name)}: expected .key or ["key"] for each step, with the key in double quotes as in '
        "JSON. A path cannot step into a list"
    )
    if name[at : at + 2] != '["':
        raise problem
    try:
        key, end = json.JSONDecoder().raw_decode(name, at + 1)
    except ValueError as error:
        raise problem from error
    if name[end : end + 1] != "]":
        raise problem
    return key, end + 1


def checked_key(key: object) -> str:
    """*key* as a `str`, else `FilterError` where SQL cannot name it."""
    if not isinstance(key, str):
        raise FilterError(f"Invalid key in an object of a filter: expected text (str), found {short_repr(key)}")
    key = str.__str__(key)  # the text of a member of a StrEnum
    if _UNNAMEABLE.search(key):
        raise FilterError(
            f"Invalid metadata key {short(key)}: SQLite's JSON paths cannot name a key that contains "
            "a double quote, a backslash or a control character"
        )
    return plain_text(key)


def plain_text(value: str) -> str:
    """*value* as a `str`, else `FilterError` where no record can contain it."""
    value = str.__str__(value)  # the text of a member of a StrEnum
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise FilterError(
            f"Invalid text {short_repr(value)}: it contains half of a surrogate pair, which no record contains"
        ) from error
    return value


def short(name: str) -> str:
    """*name* in quotes for a message, cut after 100 characters."""
    return repr(name if len(name) <= 100 else name[:100] + "…")


def written(path: Path) -> str:
    """*path* as callers write it after `metadata.`; the inverse of `indexed` for one path."""
    steps = [f".{key}" if _PLAIN.fullmatch(key) else f"[{json.dumps(key, ensure_ascii=False)}]" for key in path]
    return "".join(steps).removeprefix(".")


def json_path(path: Path) -> str:
    """*path* as the argument of SQLite's JSON functions."""
    return "$" + "".join(map('."{}"'.format, path))


def quoted(path: Path) -> str:
    """`json_path` as a literal: SQLite uses an index on an expression only where the path is part of the statement."""
    return "'" + json_path(path).replace("'", "''") + "'"


def from_json_path(text: str) -> Path:
    """The path of a result of `json_path`."""
    return tuple(text.removeprefix('$."').removesuffix('"').split('"."'))


def indexed(value: object) -> tuple[Path, ...]:
    """The paths of the argument `indexed_metadata`, without duplicates.

    Args:
        value: None or a list of texts, each a path as a filter writes it after `metadata.`.

    Raises:
        InvalidError: *value* is not a list of paths, a path is invalid or over 1,024 bytes long, or there are more
            than 16.
    """
    if value is None:
        return ()
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise InvalidError(
            f"Invalid indexed_metadata: expected a list of paths, such as ('user_id',), found {short_repr(value)}"
        )
    paths = tuple(dict.fromkeys(_indexed(text) for text in value))
    check_indexed(len(paths))
    return paths


def check_indexed(count: int) -> None:
    """Raise `InvalidError` where a file would have more than 16 indexes on metadata."""
    if count > MAX_INDEXED:
        raise InvalidError(
            f"Too many indexes on metadata: expected at most {MAX_INDEXED} in a file, found {count}. Every insert "
            "updates every index: name only the paths that most filters use"
        )


def _indexed(text: object) -> Path:
    if not isinstance(text, str) or not text:
        raise InvalidError(
            "Invalid path in indexed_metadata: expected a text such as 'user_id' or 'source.kind', "
            f"found {short_repr(text)}"
        )
    text = str.__str__(text)
    try:
        path = keys(f"metadata{text}" if text.startswith("[") else f"metadata.{text}")
    except FilterError as error:
        raise InvalidError(f"Invalid indexed_metadata: {error}") from error
    if len(json_path(path).encode()) > MAX_INDEXED_LENGTH:
        raise InvalidError(
            f"Invalid path in indexed_metadata: expected at most {MAX_INDEXED_LENGTH:,} bytes, found {short(text)}"
        )
    return path

r"""How a value inside metadata is named: by callers (`source.kind`, `["a.b"].c`) and in SQL (`$."source"."kind"`).

A path is a tuple of keys, a step each. No key holds `"`, `\` or a control character (`checked_key`), so that in SQL
a key in double quotes is itself, and nothing in it has to be escaped or can end it.
"""

import json
import re
from collections.abc import Iterable

from memstore.errors import FilterError, InvalidError, short_repr

Path = tuple[str, ...]

MAX_INDEXED = 16
MAX_INDEXED_LENGTH = 1_024

_PLAIN = re.compile(r"[^.\[]+")


def keys(name: str) -> Path:
    """The steps of a path that begins with `metadata`: `.key` or `["key"]`, the latter a JSON text."""
    steps: list[str] = []
    at = len("metadata")
    while at < len(name):
        if name[at] == ".":
            end = min((i for i in (name.find(mark, at + 1) for mark in ".[") if i >= 0), default=len(name))
            key = name[at + 1 : end]
            if not key:
                raise FilterError(f'{short(name)} has an empty step; the key that is empty is written metadata[""]')
        else:
            key, end = _bracketed(name, at)
        steps.append(checked_key(key))
        at = end
    return tuple(steps)


def _bracketed(name: str, at: int) -> tuple[str, int]:
    problem = FilterError(
        f'{short(name)} is no path: after a step comes .key or ["key"], the key in double quotes as in JSON; '
        "there is no step into a list"
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
    """A key of an object, if SQL can name it."""
    if not isinstance(key, str):
        raise FilterError(f"the keys of an object in a filter are text; got {short_repr(key)}")
    key = str.__str__(key)  # an enum's member is its text
    if any(char in '"\\' or char < " " for char in key):
        raise FilterError(
            f"the metadata key {short(key)} cannot be named in a filter: SQLite's JSON paths have no way to write "
            'keys that hold ", \\ or a control character'
        )
    return plain_text(key)


def plain_text(value: str) -> str:
    """*value* as a `str`, if it can be stored at all."""
    value = str.__str__(value)  # an enum's member is its text
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise FilterError(f"{short_repr(value)} holds half of a surrogate pair, which is never stored") from error
    return value


def short(name: str) -> str:
    """*name*, quoted, as an error shows it."""
    return repr(name if len(name) <= 100 else name[:100] + "…")


def written(path: Path) -> str:
    """*path* as callers write it after `metadata.`: what `indexed` makes the same path of."""
    steps = [f".{key}" if _PLAIN.fullmatch(key) else f"[{json.dumps(key, ensure_ascii=False)}]" for key in path]
    return "".join(steps).removeprefix(".")


def json_path(path: Path) -> str:
    """*path* as SQLite's JSON functions take it."""
    return "$" + "".join(f'."{key}"' for key in path)


def quoted(path: Path) -> str:
    """`json_path` as a text literal in a statement: an index on an expression serves only where it stands as text."""
    return "'" + json_path(path).replace("'", "''") + "'"


def from_json_path(text: str) -> Path:
    """The path that `json_path` made *text* of."""
    return tuple(text.removeprefix('$."').removesuffix('"').split('"."'))


def indexed(asked: object) -> tuple[Path, ...]:
    """What a caller asks to have indexed, each path once, written as in a filter after `metadata.`.

    Raises:
        InvalidError: it is no list of paths, or a filter could not name one, or one is over 1,024 bytes long, or
            there are more than 16.
    """
    if asked is None:
        return ()
    if isinstance(asked, str | bytes) or not isinstance(asked, Iterable):
        raise InvalidError(f"indexed_metadata is a list of paths such as ('user_id',); got {short_repr(asked)}")
    paths = tuple(dict.fromkeys(_indexed(text) for text in asked))
    check_indexed(len(paths))
    return paths


def check_indexed(count: int) -> None:
    """Refuse more indexes on metadata than a file may have."""
    if count > MAX_INDEXED:
        raise InvalidError(
            f"a file has at most {MAX_INDEXED} indexes on metadata, and this would make {count}: every insert pays "
            "for each; name those paths only by which searches are filtered most"
        )


def _indexed(text: object) -> Path:
    if not isinstance(text, str) or not text:
        raise InvalidError(
            f"a path in indexed_metadata is a text such as 'user_id' or 'source.kind'; got {short_repr(text)}"
        )
    text = str.__str__(text)
    try:
        path = keys(f"metadata{text}" if text.startswith("[") else f"metadata.{text}")
    except FilterError as error:
        raise InvalidError(f"indexed_metadata: {error}") from error
    if len(json_path(path).encode()) > MAX_INDEXED_LENGTH:
        raise InvalidError(f"a path in indexed_metadata has at most {MAX_INDEXED_LENGTH:,} bytes; got {short(text)}")
    return path

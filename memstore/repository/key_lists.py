"""Lists of keys, bound to statements as one JSON parameter, and read as one joined text."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sqlalchemy import bindparam, func, select
from sqlalchemy.sql.expression import Select, TableValuedAlias

from memstore.repository.corruption import UNREADABLE, unreadable
from memstore.vectors.arrays import Keys

_PIECE = 1 << 18  # characters that NumPy parses in one call, which keeps the GIL for 0.5 ms
_LIST = 10_000  # keys of one parameter


def keys_in(name: str = "keys") -> TableValuedAlias:
    """A table of integer keys, bound as one JSON array (`keys_json`): one parameter, however many keys."""
    return func.json_each(bindparam(name)).table_valued("value")


def listed_keys(name: str = "keys") -> Select[Any]:
    """The keys of `keys_in` as a subquery, for `column.in_(...)`."""
    return select(keys_in(name).c.value)


def keys_json(keys: Sequence[int] | Keys) -> str:
    """*keys* as `keys_in` takes them."""
    return json.dumps(keys.tolist() if isinstance(keys, np.ndarray) else list(keys))


def key_lists(keys: Sequence[int]) -> Iterator[Sequence[int]]:
    """*keys* in lists short enough for one parameter."""
    for start in range(0, len(keys), _LIST):
        yield keys[start : start + _LIST]


def keys_joined(text: str | None) -> Keys:
    """Keys as SQLite's `group_concat` joins them. NumPy keeps the GIL while it parses: hence in pieces."""
    if text is None:
        return np.empty(0, dtype=np.int64)
    pieces, start = [], 0
    while start < len(text):
        comma = text.find(",", start + _PIECE)
        end = len(text) if comma < 0 else comma
        try:
            pieces.append(np.fromstring(text[start:end], dtype=np.int64, sep=","))
        except UNREADABLE as error:
            raise unreadable("a key column", error) from None
        start = end + 1
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

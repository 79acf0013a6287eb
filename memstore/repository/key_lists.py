"""Lists of keys, bound to statements as one JSON parameter."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import (
    bindparam,
    func,
)
from sqlalchemy.sql.expression import TableValuedAlias

from memstore.repository.corruption import expect_stored

_PIECE = 1 << 18  # characters of a list of keys that NumPy reads without letting go of the interpreter, 0.5 ms

Keys = npt.NDArray[np.int64]


def keys_in(name: str = "keys") -> TableValuedAlias:
    """A table of integer keys, bound as one JSON array (`keys_json`): one parameter, however many keys."""
    return func.json_each(bindparam(name)).table_valued("value")


def keys_json(keys: Sequence[int] | np.ndarray[Any, np.dtype[np.int64]]) -> str:
    """*keys* as `keys_in` takes them."""
    return json.dumps(keys.tolist() if isinstance(keys, np.ndarray) else list(keys))


def keys_joined(text: str | None) -> Keys:
    """Keys as SQLite's `group_concat` joins them. NumPy holds the interpreter lock: hence in pieces."""
    if text is None:
        return np.empty(0, dtype=np.int64)
    pieces, start = [], 0
    while start < len(text):
        comma = text.find(",", start + _PIECE)
        end = len(text) if comma < 0 else comma
        with expect_stored("keys"):
            pieces.append(np.fromstring(text[start:end], dtype=np.int64, sep=","))
        start = end + 1
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

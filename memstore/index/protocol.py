"""What an index is.

An index holds one entry a key: a vector in index form (see `memstore.geometry`), the key of its namespace, and
when it expires. Keys are the database's `pk`. True of every index:

* a key has one entry or none; `put` of a key it has replaces the entry, `remove` of one it lacks does nothing;
* `search` returns only entries that the scope allows, and fewer than *limit* only when fewer are allowed;
* whoever calls `put` or `remove` holds the index alone; any number may search at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from memstore.vectors.arrays import Rows, Wide
from memstore.vectors.space import Measure

Keys = npt.NDArray[np.int64]
"""Keys, positions or times: int64, shape (n,)."""

Mask = npt.NDArray[np.bool_]
"""Which places: bool, shape (n,)."""

Held = npt.NDArray[np.floating]
"""Vectors as an index keeps them: float32 or float16, shape (n, dimension)."""

NEVER = np.iinfo(np.int64).max
"""The expiry of what does not expire, in microseconds."""

Method = Literal["exact", "graph"]


class DriftError(Exception):
    """An index named a record that does not exist. Never seen outside: the index is built anew and asked again."""


class Entries(NamedTuple):
    """Rows of an index, side by side: `keys`, `namespaces` and `expiries` int64 (n,), `rows` float32 (n, dimension)."""

    keys: Keys
    namespaces: Keys
    expiries: Keys
    rows: Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which entries a search may return.

    Attributes:
        now: microseconds; entries that expire then or before are out.
        namespaces: keys of the namespaces that are in; None for all.
        allowed: keys of the records that are in, from a filter; None for all.
        without: keys that are out, whatever else is said.
    """

    now: int
    namespaces: Keys | None = None
    allowed: Keys | None = None
    without: Keys | None = None


class How(NamedTuple):
    """How an answer was found: by what, why so, how many the graph gave, how many newer than it were compared."""

    method: Method = "exact"
    reason: str = "no graph"
    candidates: int = 0
    tail: int = 0


class Found(NamedTuple):
    """The answer to one query, best first: keys int64 (n,), scores float64 (n,), and how many entries were allowed."""

    keys: Keys
    scores: Wide
    allowed: int
    how: How = How()


class Engine(Protocol):
    """What compares vectors. Called with the index shared, from any thread."""

    @property
    def name(self) -> Literal["faiss", "numpy"]:
        """Which one."""
        ...

    def nearest(self, metric: Measure, queries: Rows, rows: Held, limit: int, positions: Keys | None) -> Keys:
        """Positions of the *limit* rows nearest to each query, in no order: int64, shape (len(queries), limit).

        Args:
            metric: by which.
            queries: float32, shape (q, dimension), in index form.
            rows: float32 or float16, shape (n, dimension), contiguous, in index form.
            limit: at most the number of rows, or of positions if given.
            positions: the rows to look at, ascending; None for all.
        """
        ...


Scan = Callable[[Rows, int, range, "Keys | None"], "Keys"]
"""Places of the nearest to each query, how many, among which places, or of these which ones: int64, shape (q, n)."""


class Storage(NamedTuple):
    """Memory for vectors: *rows*, shape (capacity, dimension), not yet filled; *owner* keeps it alive.

    *owner* is FAISS's storage index where FAISS made it, so that a graph can be built over the very same memory, and
    *scan* compares its vectors where they are not the float32 that engines compare.
    """

    rows: Held
    owner: object | None = None
    scan: Scan | None = None


class VectorIndex(Protocol):
    """An index of one kind of record."""

    def put(self, entries: Entries) -> None:
        """Add entries, each key once; they replace those that have their keys."""
        ...

    def remove(self, keys: Keys) -> None:
        """Drop the entries of *keys*, each key once."""
        ...

    def search(self, engine: Engine, queries: Rows, limit: int, scope: Scope) -> list[Found]:
        """The entries nearest to each of *queries* (float32, shape (q, dimension), in index form)."""
        ...

    def __len__(self) -> int: ...

    @property
    def bytes(self) -> int:
        """Memory held by its arrays."""
        ...

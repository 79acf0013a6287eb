"""The vocabulary of vector indexes: entries, scopes, results, engines.

An index holds one entry per key: a vector in index form (see `memstore.vectors.metrics`), the key of its namespace, and
its expiry. Keys are the primary keys of the database. True of every index:

* a key has at most one entry; `put` replaces the entry of an existing key, `remove` ignores an absent one;
* `search` returns only entries that the scope allows, and fewer than *limit* only when fewer are allowed;
* `put` and `remove` need exclusive access to the index; any number of searches may run at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from memstore.vectors.arrays import Doubles, Keys, Rows
from memstore.vectors.space import Measure

Mask = npt.NDArray[np.bool_]
"""A selection of positions: bool, shape (n,)."""

StoredRows = npt.NDArray[np.floating]
"""Vectors as an index stores them: float32 or float16, shape (n, dimension)."""

NEVER = np.iinfo(np.int64).max
"""Expiry of entries that do not expire, in microseconds."""

MethodName = Literal["exact", "graph"]


class DriftError(Exception):
    """An index returned a record that does not exist. Internal: the index is rebuilt and the search repeated."""


class IndexEntries(NamedTuple):
    """Entries as columns: `keys`, `namespaces`, `expiries` int64 (n,), `rows` float32 (n, dimension)."""

    keys: Keys
    namespaces: Keys
    expiries: Keys
    rows: Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchScope:
    """The entries that a search may return.

    Attributes:
        now: microseconds; entries that expire at this time or earlier are excluded.
        namespaces: keys of the namespaces to include; None for all.
        allowed: keys of the records to include, the result of a filter; None for all.
        excluded: keys of records to exclude in any case; None for no record.
    """

    now: int
    namespaces: Keys | None = None
    allowed: Keys | None = None
    excluded: Keys | None = None


class SearchMethod(NamedTuple):
    """How a result was computed.

    Attributes:
        name: exact comparison, or the graph.
        reason: why this method was chosen.
        candidates: candidates that the graph search kept; 0 for exact search.
        unindexed: allowed entries that the graph does not cover and that were compared exactly.
    """

    name: MethodName = "exact"
    reason: str = "no graph"
    candidates: int = 0
    unindexed: int = 0


class SearchResult(NamedTuple):
    """The result for one query, best first.

    Attributes:
        keys: int64, shape (n,).
        closeness: float64, shape (n,): orders the keys, higher is closer, see `vectors.metrics.closeness`.
        scores: float64, shape (n,); higher is closer.
        allowed_count: entries that the scope allows.
        method: how it was computed.
    """

    keys: Keys
    closeness: Doubles
    scores: Doubles
    allowed_count: int
    method: SearchMethod = SearchMethod()

    def part(self, span: slice) -> "SearchResult":
        """This result with those of its entries that are in *span*."""
        return self._replace(keys=self.keys[span], closeness=self.closeness[span], scores=self.scores[span])


class Engine(Protocol):
    """Compares vectors. Called with shared access to the index, from any thread."""

    @property
    def name(self) -> Literal["faiss", "numpy"]:
        """The name of the library."""
        ...

    def find_nearest(
        self,
        metric: Measure,
        queries: Rows,
        rows: StoredRows,
        limit: int,
        positions: Keys | None,
        norm: float = np.inf,
    ) -> list[Keys]:
        """Positions of the rows that can be among the *limit* nearest to each query, unordered: int64, shape (n,).

        They are *limit* or more: rows that rounding could put among the nearest, and all of equal ones, are included.
        Fewer mean that similarities left the range of float32.

        Args:
            metric: what vectors are compared by.
            queries: float32, shape (q, dimension), in index form.
            rows: float32 or float16, shape (n, dimension), contiguous, in index form.
            limit: at most the number of rows, or of *positions* if given.
            positions: the rows to compare, ascending; None for all.
            norm: at least the norm of every row; only used under inner product.
        """
        ...


Scan = Callable[[Rows, int, range, "Keys | None"], "list[Keys]"]
"""Queries, limit, range of positions, and the allowed positions in it -> as `Engine.find_nearest`."""


class VectorStorage(NamedTuple):
    """Memory for vectors.

    Attributes:
        rows: shape (capacity, dimension), uninitialised.
        owner: the FAISS storage index that owns the memory, so that a graph can be built over it; None for NumPy's.
        scan: compares vectors that engines cannot compare, because they are not float32; None for float32.
    """

    rows: StoredRows
    owner: object | None = None
    scan: Scan | None = None

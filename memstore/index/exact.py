"""Exact search over arrays we own: append, replace in place, swap with the last on removal.

Entries lie in the first `len` places of each array, in no order; `Places` knows where each key lies.
"""

import numpy as np

from memstore.geometry import Rows, scores
from memstore.index.numpy_engine import NumpyEngine
from memstore.index.places import Places
from memstore.index.protocol import NEVER, Engine, Entries, Found, Keys, Scope
from memstore.settings import Metric

_WIDE = NumpyEngine(wide=True)
_SAFE = (1e-30, 1e37)
"""Between these, sums of float32 products neither vanish nor overflow, so that any engine's ranking can be trusted."""


class ExactIndex:
    """An index that compares every allowed entry."""

    def __init__(self, dimension: int, metric: Metric, *, room: int = 0) -> None:
        self._metric: Metric = metric
        self._size = 0
        self._keys = np.empty(room, dtype=np.int64)
        self._namespaces = np.empty(room, dtype=np.int64)
        self._expiries = np.empty(room, dtype=np.int64)
        self._rows = np.empty((room, dimension), dtype=np.float32)
        self._places = Places()
        self._first_expiry = NEVER  # never later than the earliest expiry held
        self._largest = 0.0  # never less than the largest component held
        self._smallest = np.inf  # never more than the smallest row's largest component held, zeros aside

    def __len__(self) -> int:
        return self._size

    @property
    def bytes(self) -> int:
        """Memory held by its arrays."""
        arrays = (self._keys, self._namespaces, self._expiries, self._rows)
        return sum(array.nbytes for array in arrays) + self._places.bytes

    def entries(self) -> Entries:
        """See `VectorIndex.entries`."""
        n = self._size
        return Entries(self._keys[:n], self._namespaces[:n], self._expiries[:n], self._rows[:n])

    def places(self, keys: Keys) -> Keys:
        """Where each of *keys* lies; -1 where it does not."""
        return self._places.find(keys)

    def put(self, entries: Entries) -> None:
        """See `VectorIndex.put`."""
        if not len(entries.keys):
            return
        places = self.places(entries.keys)
        fresh = np.flatnonzero(places < 0)
        self._reserve(self._size + len(fresh))
        places[fresh] = np.arange(self._size, self._size + len(fresh))
        self._size += len(fresh)
        self._keys[places] = entries.keys
        self._namespaces[places] = entries.namespaces
        self._expiries[places] = entries.expiries
        self._rows[places] = entries.rows
        self._places.put(entries.keys, places, self._keys[: self._size])
        self._first_expiry = min(self._first_expiry, int(entries.expiries.min()))
        peaks = np.abs(entries.rows).max(axis=1)
        self._largest = max(self._largest, float(peaks.max()))
        self._smallest = min(self._smallest, float(peaks[peaks > 0].min(initial=np.inf)))

    def remove(self, keys: Keys) -> None:
        """See `VectorIndex.remove`."""
        places = self.places(keys)
        gone = np.sort(places[places >= 0])
        if not len(gone):
            return
        self._places.drop(self._keys[gone])
        size = self._size - len(gone)
        holes = gone[gone < size]
        stays = np.ones(len(gone), dtype=bool)  # of the last places, as many as go
        stays[gone[gone >= size] - size] = False
        movers = size + np.flatnonzero(stays)
        for array in (self._keys, self._namespaces, self._expiries, self._rows):
            array[holes] = array[movers]
        if len(holes):
            self._places.put(self._keys[holes], holes, self._keys[:size])
        self._size = size

    def search(self, engine: Engine, queries: Rows, limit: int, scope: Scope) -> list[Found]:
        """See `VectorIndex.search`."""
        positions = self._allowed(scope)
        allowed = self._size if positions is None else len(positions)
        count = min(limit, allowed)
        if count == 0:
            empty = Found(np.empty(0, dtype=np.int64), np.empty(0), allowed)
            return [empty] * len(queries)
        rows = self._rows[: self._size]
        chosen = engine if self._safe(queries) else _WIDE
        nearest = chosen.nearest(self._metric, queries, rows, count, positions)
        if chosen is not _WIDE and int(nearest.min()) < 0:  # short where it cannot be: not to be trusted
            nearest = _WIDE.nearest(self._metric, queries, rows, count, positions)
        return [self._found(query, places, allowed) for query, places in zip(queries, nearest, strict=True)]

    def _found(self, query: Rows, places: Keys, allowed: int) -> Found:
        keys = self._keys[places]
        values = scores(self._metric, query, self._rows[places])
        order = np.lexsort((keys, -values))
        return Found(keys[order], values[order], allowed)

    def _allowed(self, scope: Scope) -> Keys | None:
        """The places a search may return, ascending; None for all."""
        expired = self._first_expiry <= scope.now
        if scope.allowed is not None:
            places = self.places(scope.allowed)
            places = np.sort(places[places >= 0])
            keep = np.ones(len(places), dtype=bool)
        elif scope.namespaces is None and not expired and scope.without is None:
            return None
        else:
            places = np.arange(self._size)
            keep = np.ones(self._size, dtype=bool)
        if scope.namespaces is not None:
            keep &= np.isin(self._namespaces[places], scope.namespaces)
        if expired:
            keep &= self._expiries[places] > scope.now
        if scope.without is not None:
            keep &= ~np.isin(self._keys[places], scope.without)
        if keep.all():
            return places if len(places) < self._size else None
        return places[keep]

    def _safe(self, queries: Rows) -> bool:
        if self._metric == "cosine":
            return True
        peak = float(np.abs(queries).max())
        low, high = _SAFE
        reach = max(peak, self._largest)
        if reach * reach * 4 * self._rows.shape[1] > high:
            return False
        if self._metric == "inner_product":
            return peak == 0 or peak * self._smallest > low
        return max(peak, self._smallest) ** 2 > low

    def _reserve(self, size: int) -> None:
        if size <= len(self._keys):
            return
        room = max(size, len(self._keys) * 3 // 2, 256)
        for name in ("_keys", "_namespaces", "_expiries", "_rows"):
            old = getattr(self, name)
            new = np.empty((room, *old.shape[1:]), dtype=old.dtype)
            new[: self._size] = old[: self._size]
            setattr(self, name, new)

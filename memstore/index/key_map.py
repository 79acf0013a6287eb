"""Where each key of an index lies: a table from key to place.

Keys grow and are never used again, so a plain array from the lowest key on is a hundred times smaller and faster than
a dict. Where keys lie so far apart that the array would be mostly empty (raw SQL may use any key), it is a dict.
"""

import numpy as np

from memstore.index.protocol import Keys

_SPARSE = 64  # an array so many times longer than what it holds is no saving any more
_SMALL = 1 << 20  # an array of so many places is no matter


class Places:
    """A table from key to place; a key that is not in it has place -1."""

    def __init__(self) -> None:
        self._lowest = 0
        self._array = np.empty(0, dtype=np.int64)
        self._dict: dict[int, int] | None = None

    @property
    def bytes(self) -> int:
        """Memory held, about a hundred bytes an entry where it is a dict."""
        return self._array.nbytes if self._dict is None else 100 * len(self._dict)

    def find(self, keys: Keys) -> Keys:
        """Where each of *keys* lies: int64, the shape of *keys*."""
        if self._dict is not None:
            return np.array([self._dict.get(key, -1) for key in keys.tolist()], dtype=np.int64)
        offsets = keys - self._lowest
        if len(keys) and offsets.min() >= 0 and offsets.max() < len(self._array):  # as a rule, and in half the time
            return self._array[offsets]
        inside = (offsets >= 0) & (offsets < len(self._array))
        places = np.full(len(keys), -1, dtype=np.int64)
        places[inside] = self._array[offsets[inside]]
        return places

    def put(self, keys: Keys, places: Keys) -> None:
        """Note where *keys* lie."""
        if self._dict is None and not self._covers(keys):
            known = np.flatnonzero(self._array >= 0)
            known = known[~np.isin(known + self._lowest, keys)]
            self.make(np.concatenate([known + self._lowest, keys]), np.concatenate([self._array[known], places]))
        elif self._dict is None:
            self._array[keys - self._lowest] = places
        else:
            self._dict.update(zip(keys.tolist(), places.tolist(), strict=True))

    def drop(self, keys: Keys) -> None:
        """Forget *keys*, all of which are in it."""
        if self._dict is None:
            self._array[keys - self._lowest] = -1
            return
        for key in keys.tolist():
            del self._dict[key]

    def _covers(self, keys: Keys) -> bool:
        return bool(len(self._array)) and bool(
            keys.min() >= self._lowest and keys.max() < self._lowest + len(self._array)
        )

    def make(self, keys: Keys, places: Keys) -> None:
        """Lay the table out anew, with room for half as many keys above: those that are dropped are left out."""
        low, high = int(keys.min()), int(keys.max())
        span = high - low + 1
        if span > max(_SMALL, _SPARSE * len(keys)):
            self._dict = dict(zip(keys.tolist(), places.tolist(), strict=True))
            self._array = np.empty(0, dtype=np.int64)
            return
        self._lowest = low
        self._array = np.full(span + max(span // 2, 256), -1, dtype=np.int64)
        self._array[keys - low] = places

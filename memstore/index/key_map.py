"""The map from the keys of an index to positions in its vector table.

Keys ascend and are never reused, so an array that starts at the lowest key is a hundred times smaller and faster than
a dict. Where keys are sparse, so that the array would be mostly empty (raw SQL may use any key), the map is a dict.
"""

import numpy as np

from memstore.vectors.arrays import Keys

_MAX_SPARSITY = 64  # the array may be this many times longer than the number of keys
_SMALL_ARRAY = 1 << 20  # an array of this length is acceptable for any number of keys


class KeyMap:
    """A map from key to position; absent keys have position -1."""

    def __init__(self) -> None:
        self._lowest = 0
        self._array = np.empty(0, dtype=np.int64)
        self._dict: dict[int, int] | None = None

    @property
    def bytes(self) -> int:
        """Memory used, about a hundred bytes per key for a dict."""
        return self._array.nbytes if self._dict is None else 100 * len(self._dict)

    def find(self, keys: Keys) -> Keys:
        """The position of each of *keys*, -1 if absent: int64, shape (n,)."""
        if self._dict is not None:
            return np.array([self._dict.get(key, -1) for key in keys.tolist()], dtype=np.int64)
        offsets = keys - self._lowest
        if len(keys) and offsets.min() >= 0 and offsets.max() < len(self._array):  # the usual case, twice as fast
            return self._array[offsets]
        inside = (offsets >= 0) & (offsets < len(self._array))
        positions = np.full(len(keys), -1, dtype=np.int64)
        positions[inside] = self._array[offsets[inside]]
        return positions

    def put(self, keys: Keys, positions: Keys) -> None:
        """Set the positions of *keys*."""
        if self._dict is None and not self._covers(keys):
            occupied = np.flatnonzero(self._array >= 0)
            occupied = occupied[~np.isin(occupied + self._lowest, keys)]
            self.rebuild(
                np.concatenate([occupied + self._lowest, keys]), np.concatenate([self._array[occupied], positions])
            )
        elif self._dict is None:
            self._array[keys - self._lowest] = positions
        else:
            self._dict.update(zip(keys.tolist(), positions.tolist(), strict=True))

    def remove(self, keys: Keys) -> None:
        """Remove *keys*, all of which are present."""
        if self._dict is None:
            self._array[keys - self._lowest] = -1
            return
        for key in keys.tolist():
            del self._dict[key]

    def _covers(self, keys: Keys) -> bool:
        return bool(len(self._array)) and bool(
            keys.min() >= self._lowest and keys.max() < self._lowest + len(self._array)
        )

    def rebuild(self, keys: Keys, positions: Keys) -> None:
        """Replace the content by *keys* at *positions*, with capacity for half as many keys above the highest."""
        low, high = int(keys.min()), int(keys.max())
        span = high - low + 1
        if span > max(_SMALL_ARRAY, _MAX_SPARSITY * len(keys)):
            self._dict = dict(zip(keys.tolist(), positions.tolist(), strict=True))
            self._array = np.empty(0, dtype=np.int64)
            return
        self._lowest = low
        self._array = np.full(span + max(span // 2, 256), -1, dtype=np.int64)
        self._array[keys - low] = positions

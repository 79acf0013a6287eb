"""The entries of an index as columns: the position of each key, and the positions that a scope allows.

Entries occupy the positions below `size`, unordered; a `KeyMap` maps keys to positions. New entries are appended,
replaced ones overwritten, removed ones overwritten by the last entry. A graph refers to vectors by position. So the
positions below `pinned` keep their vectors: an entry that is removed or replaced there is only marked deleted, and no
search returns it.

Storage can be one component wider than the vectors. That component lifts them to a sphere, see `lift`.
"""

from collections.abc import Callable

import numpy as np

from memstore.index.key_map import KeyMap
from memstore.index.protocol import NEVER, IndexEntries, Mask, SearchScope, StoredRows, VectorStorage
from memstore.vectors.arrays import Doubles, Keys, Rows

Allocator = Callable[[int, VectorStorage | None], VectorStorage]
"""Capacity and the present storage, or None -> storage of that capacity. It may extend the present one in place."""

_MIN_CAPACITY = 256
_MAX_RADIUS = 1e18  # the square is a float32 number; longer vectors are compared in float64, without a graph
_LARGE_TABLE = 100_000  # capacity grows by half below this number of entries, and by a quarter from it on
_SPARE_SHARE = 16  # a table that is shrunk keeps spare capacity for one sixteenth more entries
_COLUMNS = ("_keys", "_namespaces", "_expiries", "_live")


def allocate_numpy(dtype: str, dimension: int, capacity: int, present: VectorStorage | None = None) -> VectorStorage:
    """Vectors in memory of NumPy; *present* is extended in place if no view of it exists.

    Linux extends large allocations without copying, so that both are never in memory at once.
    """
    if present is not None and present.owner is None:
        try:
            present.rows.resize((capacity, dimension))
        except ValueError:  # there is a view of it
            pass
        else:
            return present
    return VectorStorage(np.empty((capacity, dimension), dtype=dtype))


class VectorTable:
    """The entries of an index, by position.

    Attributes:
        storage: the memory of the vectors.
        size: number of entries, deleted ones included.
        pinned: positions below it keep their vectors.
        deleted: number of deleted entries.
        lifted: whether storage is one component wider than the vectors.
        radius: of the sphere that the last component of wider storage lifts vectors to.
    """

    def __init__(self, allocate: Allocator, capacity: int = 0, dimension: int | None = None) -> None:
        self._allocate = allocate
        self.storage = allocate(capacity, None)
        self._dimension = self.storage.rows.shape[1] if dimension is None else dimension
        self.lifted: bool = self.storage.rows.shape[1] > self._dimension
        self.radius = 0.0
        self.size = 0
        self.pinned = 0
        self.deleted = 0
        self._keys = np.empty(capacity, dtype=np.int64)
        self._namespaces = np.empty(capacity, dtype=np.int64)
        self._expiries = np.empty(capacity, dtype=np.int64)
        self._live = np.empty(capacity, dtype=np.bool_)
        self._key_map = KeyMap()
        self._reserved: KeyMap | None = None  # positions of keys that `begin_load` reserved
        self._first_expiry = NEVER  # a lower bound of all expiries

    def __len__(self) -> int:
        return self.size - self.deleted

    @property
    def bytes(self) -> int:
        """Memory of its arrays."""
        columns = sum(getattr(self, name).nbytes for name in _COLUMNS)
        return int(self.storage.rows.nbytes + columns + self._key_map.bytes)

    @property
    def rows(self) -> StoredRows:
        """The vectors by position, deleted ones included: shape (size, dimension), a view."""
        return self.storage.rows[: self.size, : self._dimension]

    @property
    def keys(self) -> Keys:
        """The keys by position, deleted ones included: a view."""
        return self._keys[: self.size]

    @property
    def live(self) -> Mask:
        """Which positions are not deleted: a view."""
        return self._live[: self.size]

    def entries(self) -> IndexEntries:
        """All live entries, as views if none is deleted. Views are valid while the lock of the index is held."""
        n = self.size
        selected = self.live if self.deleted else slice(None)
        return IndexEntries(
            self._keys[:n][selected],
            self._namespaces[:n][selected],
            self._expiries[:n][selected],
            self.rows[selected],
        )

    def find(self, keys: Keys) -> Keys:
        """The position of each of *keys*; -1 if absent."""
        return self._key_map.find(keys)

    def entries_at(self, positions: Keys) -> IndexEntries:
        """The entries at *positions*, copied."""
        rows = self.rows[positions].astype(np.float32, copy=False)
        return IndexEntries(self._keys[positions], self._namespaces[positions], self._expiries[positions], rows)

    def put(self, entries: IndexEntries) -> None:
        """Add entries with distinct keys; they replace the entries of existing keys."""
        if not len(entries.keys):
            return
        positions = self._key_map.find(entries.keys)
        if self.pinned:
            self._mark_deleted(self._changed_pinned(positions, entries.rows))
            positions = self._key_map.find(entries.keys)
        added = np.flatnonzero(positions < 0)
        self.reserve(self.size + len(added))
        positions[added] = np.arange(self.size, self.size + len(added))
        if len(added) == len(positions):  # the usual case, which needs no gather of vectors
            if self.lifted:
                self._write(slice(self.size, self.size + len(added)), entries.rows)
            else:
                self.storage.rows[self.size : self.size + len(added)] = entries.rows
        else:
            movable = positions >= self.pinned
            self._write(positions[movable], entries.rows[movable])
        self.size += len(added)
        self._keys[positions] = entries.keys
        self._namespaces[positions] = entries.namespaces
        self._expiries[positions] = entries.expiries
        self._live[positions] = True
        self._key_map.put(entries.keys, positions)
        self._first_expiry = min(self._first_expiry, int(entries.expiries.min()))

    def _write(self, positions: Keys | slice, rows: Rows) -> None:
        """Set the vectors at *positions*."""
        if not self.lifted:
            self.storage.rows[positions] = rows
            return
        self.storage.rows[positions, : self._dimension] = rows
        self.storage.rows[positions, self._dimension] = self._lifts(rows)

    def _lifts(self, rows: StoredRows) -> Doubles:
        """The component that lifts each of *rows* to the sphere of `radius`; 0 for longer vectors."""
        squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
        lifts: Doubles = np.sqrt(np.maximum(min(self.radius, _MAX_RADIUS) ** 2 - squares, 0.0))
        return lifts

    def lift(self, start: int, stop: int) -> None:
        """Compute the last component of the vectors from *start* to *stop* for the present `radius`."""
        rows = self.storage.rows[start:stop]
        rows[:, self._dimension] = self._lifts(rows[:, : self._dimension])

    def _changed_pinned(self, positions: Keys, rows: Rows) -> Keys:
        """Pinned ones of *positions* whose vector differs from that in *rows*."""
        pinned = np.flatnonzero((positions >= 0) & (positions < self.pinned))
        vectors = rows[pinned].astype(self.storage.rows.dtype, copy=False)
        equal = (self.storage.rows[positions[pinned], : self._dimension] == vectors).all(axis=1)
        changed: Keys = positions[pinned[~equal]]
        return changed

    def _mark_deleted(self, positions: Keys) -> None:
        """Delete pinned entries, whose vectors stay in place."""
        if len(positions):
            self._key_map.remove(self._keys[positions])
            self._live[positions] = False
            self.deleted += len(positions)

    def remove(self, keys: Keys) -> None:
        """Remove the entries of *keys*, which are distinct."""
        positions = self._key_map.find(keys)
        self._mark_deleted(positions[(positions >= 0) & (positions < self.pinned)])
        movable = np.sort(positions[positions >= self.pinned])
        if len(movable):
            self._key_map.remove(self._keys[movable])
            self._close_gaps(movable)

    def _close_gaps(self, gaps: Keys) -> None:
        """Move the last entries into the free positions *gaps*, which ascend and which no key maps to."""
        size = self.size - len(gaps)
        targets = gaps[gaps < size]
        occupied = np.ones(len(gaps), dtype=bool)  # of the last len(gaps) positions
        occupied[gaps[gaps >= size] - size] = False
        sources = size + np.flatnonzero(occupied)
        for array in (self._keys, self._namespaces, self._expiries, self._live, self.storage.rows):
            array[targets] = array[sources]
        self.size = size
        if len(targets):
            self._key_map.put(self._keys[targets], targets)

    def begin_load(self, keys: Keys, valid: Mask) -> bool:
        """Reserve pinned positions for *keys* in an empty table; `load` then fills those of *valid* keys.

        All other positions, and those that are never filled, stay deleted. Returns False, and does nothing, if a valid
        key occurs twice.
        """
        reserved, positions = KeyMap(), np.flatnonzero(valid)
        if len(positions):
            reserved.rebuild(keys[positions], positions)
            if (reserved.find(keys[positions]) != positions).any():
                return False
        count = len(keys)
        self.reserve(count)
        self._keys[:count] = keys
        self._namespaces[:count] = 0
        self._expiries[:count] = 0
        self._live[:count] = False
        self.size = self.pinned = self.deleted = count
        self._reserved = reserved
        return True

    def load(self, entries: IndexEntries) -> None:
        """Put entries with new keys; those with reserved positions go there."""
        if self._reserved is None:
            self.put(entries)
            return
        positions = self._reserved.find(entries.keys)
        reserved = positions >= 0
        self.put(IndexEntries(*(column[~reserved] for column in entries)))  # type: ignore[arg-type]
        positions = positions[reserved]
        self._write(positions, entries.rows[reserved])
        self._namespaces[positions] = entries.namespaces[reserved]
        self._expiries[positions] = entries.expiries[reserved]
        self._live[positions] = True
        self.deleted -= len(positions)
        self._first_expiry = min(self._first_expiry, int(entries.expiries.min(initial=NEVER)))

    def end_load(self) -> None:
        """Finish loading: positions that are reserved and not filled stay deleted."""
        self._reserved = None
        positions = np.flatnonzero(self.live)
        if len(positions):
            self._key_map.rebuild(self._keys[positions], positions)

    def pin(self) -> int:
        """Pin all positions, and return their number."""
        self.pinned = self.size
        return self.size

    def unpin(self) -> None:
        """Pin no position, and remove the deleted entries."""
        self.pinned = 0
        deleted = np.flatnonzero(~self.live)
        self.deleted = 0
        if len(deleted):
            self._close_gaps(deleted)

    def move_to_end(self, stop: int, positions: Keys, order: Keys) -> None:
        """Make the entries at *positions* the last ones before *stop*, in their order.

        Args:
            stop: the end of the entries that may be moved.
            positions: ascending, before *stop*, not part of a graph.
            order: an array of positions, shape (stop,), of which the same elements are moved.
        """
        first = stop - len(positions)
        is_moved = np.zeros(len(positions), dtype=bool)  # of the last positions
        is_moved[positions[positions >= first] - first] = True
        gaps, displaced = positions[positions < first], first + np.flatnonzero(~is_moved)
        for array in (self._keys, self._namespaces, self._expiries, self._live, self.storage.rows, order):
            moved = array[positions]
            array[gaps] = array[displaced]
            array[first:stop] = moved
        changed = np.concatenate([gaps, np.arange(first, stop)])
        changed = changed[self._live[changed]]
        if len(changed):
            self._key_map.put(self._keys[changed], changed)

    def shrink(self) -> bool:
        """Give memory back that no entry needs; whether there was enough of it. Positions do not change."""
        capacity = self.size + self.size // _SPARE_SHARE
        if len(self._keys) <= max(_MIN_CAPACITY, capacity + capacity // _SPARE_SHARE):
            return False
        self.reserve(capacity, shrink=True)
        keys, positions = self.keys[self.live], np.flatnonzero(self.live)
        self._key_map = KeyMap()
        if len(keys):
            self._key_map.rebuild(keys, positions)
        return True

    def allowed(self, scope: SearchScope) -> Keys | None:
        """The positions that *scope* allows, ascending; None for all, which implies that none is deleted."""
        if scope.allowed is None:
            mask = self._scope_mask(scope, slice(self.size))
            return None if mask is None or mask.all() else np.flatnonzero(mask)
        positions = self._key_map.find(scope.allowed)
        if len(positions) and positions.min() < 0:
            positions = positions[positions >= 0]
        if (positions[1:] < positions[:-1]).any():  # they usually ascend, and this test is cheaper than a sort
            positions = np.sort(positions)
        mask = self._scope_mask(scope, positions)
        if mask is not None:
            positions = positions[mask]
        return None if len(positions) == self.size else positions

    def _scope_mask(self, scope: SearchScope, positions: Keys | slice) -> Mask | None:
        """Which of *positions* are live and allowed by *scope* except for its allowed keys; None for all."""
        masks = []
        if self.deleted:
            masks.append(self._live[positions])
        if scope.namespaces is not None:
            masks.append(_is_in(self._namespaces[positions], scope.namespaces))
        if self._first_expiry <= scope.now:
            masks.append(self._expiries[positions] > scope.now)
        if scope.excluded is not None:
            masks.append(~np.isin(self._keys[positions], scope.excluded))
        return np.logical_and.reduce(masks) if masks else None

    def reserve(self, size: int, *, shrink: bool = False) -> None:
        """Grow the capacity to *size* entries or more; with *shrink*, change it to *size*."""
        capacity = len(self._keys)
        if size <= capacity and not shrink:
            return
        if shrink:
            capacity = size
        else:
            capacity = max(size, capacity + capacity // (2 if capacity < _LARGE_TABLE else 4), _MIN_CAPACITY)
        storage = self._allocate(capacity, None if shrink else self.storage)
        if storage is not self.storage:
            self.replace_storage(storage)
        for name in _COLUMNS:
            column = np.empty(capacity, dtype=getattr(self, name).dtype)
            column[: self.size] = getattr(self, name)[: self.size]
            setattr(self, name, column)

    def replace_storage(self, storage: VectorStorage) -> None:
        """Copy the vectors into *storage*, and use it from now on."""
        storage.rows[: self.size] = self.storage.rows[: self.size]
        self.storage = storage


def _is_in(values: Keys, members: Keys) -> Mask:
    return values == members[0] if len(members) == 1 else np.isin(values, members)

"""The entries of an index, side by side in arrays we own: which key lies where, and which places a scope allows.

Entries lie in the first `size` places, in no order; `Places` knows where each key lies. They are appended, replaced
in place, and swapped with the last on removal. A graph names vectors by their places: so the first `pinned` places
keep their vectors. What is removed or replaced there is dead: it lies where it lay, and no search returns it.
"""

from collections.abc import Callable

import numpy as np

from memstore.index.key_map import Places
from memstore.index.protocol import NEVER, Entries, Held, Keys, Mask, Scope, Storage
from memstore.vectors.arrays import Rows

Allocate = Callable[[int, Storage | None], Storage]
"""Makes memory for at least so many vectors; the memory given, which is too short, may be made longer instead."""

_LEAST = 256
_LARGE = 100_000  # entries from which on room is made for a quarter more, below for half as many
_COLUMNS = ("_keys", "_namespaces", "_expiries", "_live")


def plain(dtype: str, dimension: int, room: int, short: Storage | None = None) -> Storage:
    """NumPy's memory for vectors: *short* itself made longer, if nobody has a view of it.

    Linux makes much memory longer without a copy, and without having both at once.
    """
    if short is not None and short.owner is None:
        try:
            short.rows.resize((room, dimension))
        except ValueError:  # it is not alone
            pass
        else:
            return short
    return Storage(np.empty((room, dimension), dtype=dtype))


class Table:
    """Entries by place."""

    def __init__(self, allocate: Allocate, room: int = 0) -> None:
        self._allocate = allocate
        self.storage = allocate(room, None)
        self.size = 0
        self.pinned = 0
        self.dead = 0
        self._keys = np.empty(room, dtype=np.int64)
        self._namespaces = np.empty(room, dtype=np.int64)
        self._expiries = np.empty(room, dtype=np.int64)
        self._live = np.empty(room, dtype=np.bool_)
        self._places = Places()
        self._expected: Places | None = None
        self._first_expiry = NEVER  # never later than the earliest expiry held

    def __len__(self) -> int:
        return self.size - self.dead

    @property
    def bytes(self) -> int:
        """Memory held by its arrays."""
        columns = sum(getattr(self, name).nbytes for name in _COLUMNS)
        return int(self.storage.rows.nbytes + columns + self._places.bytes)

    @property
    def rows(self) -> Held:
        """The vectors by place, dead ones among them: shape (size, dimension), a view."""
        return self.storage.rows[: self.size]

    @property
    def keys(self) -> Keys:
        """The keys by place, dead ones among them, a view."""
        return self._keys[: self.size]

    @property
    def live(self) -> Mask:
        """Which places are not dead, a view."""
        return self._live[: self.size]

    def entries(self) -> Entries:
        """All that it holds, as views where nothing is dead; they hold while the index is held."""
        n = self.size
        some = self.live if self.dead else slice(None)
        return Entries(
            self._keys[:n][some],
            self._namespaces[:n][some],
            self._expiries[:n][some],
            self.rows[some],
        )

    def places(self, keys: Keys) -> Keys:
        """Where each of *keys* lies; -1 where it does not."""
        return self._places.find(keys)

    def at(self, places: Keys) -> Entries:
        """The entries at *places*, copied."""
        rows = self.storage.rows[places].astype(np.float32, copy=False)
        return Entries(self._keys[places], self._namespaces[places], self._expiries[places], rows)

    def put(self, entries: Entries) -> None:
        """See `VectorIndex.put`."""
        if not len(entries.keys):
            return
        places = self.places(entries.keys)
        if self.pinned:
            self._bury(self._replaced(places, entries.rows))
            places = self.places(entries.keys)
        fresh = np.flatnonzero(places < 0)
        self.reserve(self.size + len(fresh))
        places[fresh] = np.arange(self.size, self.size + len(fresh))
        if len(fresh) == len(places):  # as a rule, and then no vector need be gathered first
            self.storage.rows[self.size : self.size + len(fresh)] = entries.rows
        else:
            moved = places >= self.pinned
            self.storage.rows[places[moved]] = entries.rows[moved]
        self.size += len(fresh)
        self._keys[places] = entries.keys
        self._namespaces[places] = entries.namespaces
        self._expiries[places] = entries.expiries
        self._live[places] = True
        self._places.put(entries.keys, places)
        self._first_expiry = min(self._first_expiry, int(entries.expiries.min()))

    def _replaced(self, places: Keys, rows: Rows) -> Keys:
        """The pinned ones of *places* that are to get another vector than they have."""
        here = np.flatnonzero((places >= 0) & (places < self.pinned))
        new = rows[here].astype(self.storage.rows.dtype, copy=False)
        same = (self.storage.rows[places[here]] == new).all(axis=1)
        changed: Keys = places[here[~same]]
        return changed

    def _bury(self, places: Keys) -> None:
        """Leave pinned entries where they are, and out of everything."""
        if len(places):
            self._places.drop(self._keys[places])
            self._live[places] = False
            self.dead += len(places)

    def remove(self, keys: Keys) -> None:
        """See `VectorIndex.remove`."""
        places = self.places(keys)
        self._bury(places[(places >= 0) & (places < self.pinned)])
        gone = np.sort(places[places >= self.pinned])
        if len(gone):
            self._places.drop(self._keys[gone])
            self._close_up(gone)

    def _close_up(self, gone: Keys) -> None:
        """Move the last entries into the places *gone*, ascending, which nothing names any more."""
        size = self.size - len(gone)
        holes = gone[gone < size]
        stays = np.ones(len(gone), dtype=bool)  # of the last places, as many as go
        stays[gone[gone >= size] - size] = False
        movers = size + np.flatnonzero(stays)
        for array in (self._keys, self._namespaces, self._expiries, self._live, self.storage.rows):
            array[holes] = array[movers]
        self.size = size
        if len(holes):
            self._places.put(self._keys[holes], holes)

    def expect(self, keys: Keys, good: Mask) -> bool:
        """Lay out pinned places for *keys*, in a table that is empty; `load` gives the *good* ones their entries.

        The others, and those that never come, are dead. False, and nothing done, where a good key is there twice.
        """
        expected, places = Places(), np.flatnonzero(good)
        if len(places):
            expected.make(keys[places], places)
            if (expected.find(keys[places]) != places).any():
                return False
        count = len(keys)
        self.reserve(count)
        self._keys[:count] = keys
        self._namespaces[:count] = 0
        self._expiries[:count] = 0
        self._live[:count] = False
        self.size = self.pinned = self.dead = count
        self._expected = expected
        return True

    def load(self, entries: Entries) -> None:
        """As `put` of keys that are new, those expected into their places."""
        if self._expected is None:
            self.put(entries)
            return
        places = self._expected.find(entries.keys)
        here = places >= 0
        self.put(Entries(*(column[~here] for column in entries)))  # type: ignore[arg-type]
        places = places[here]
        self.storage.rows[places] = entries.rows[here]
        self._namespaces[places] = entries.namespaces[here]
        self._expiries[places] = entries.expiries[here]
        self._live[places] = True
        self.dead -= len(places)
        self._first_expiry = min(self._first_expiry, int(entries.expiries.min(initial=NEVER)))

    def loaded(self) -> None:
        """All has come that will."""
        self._expected = None
        places = np.flatnonzero(self.live)
        if len(places):
            self._places.make(self._keys[places], places)

    def pin(self) -> int:
        """Pin every place there is; how many."""
        self.pinned = self.size
        return self.size

    def unpin(self) -> None:
        """Pin nothing any more: the dead go."""
        self.pinned = 0
        gone = np.flatnonzero(~self.live)
        self.dead = 0
        if len(gone):
            self._close_up(gone)

    def allowed(self, scope: Scope) -> Keys | None:
        """The places a search may return, ascending; None for all, which is never so while any are dead."""
        if scope.allowed is None:
            keep = self._kept(scope, slice(self.size))
            return None if keep is None or keep.all() else np.flatnonzero(keep)
        places = self.places(scope.allowed)
        if len(places) and places.min() < 0:
            places = places[places >= 0]
        if (places[1:] < places[:-1]).any():  # mostly they are in order, and a sort would cost more than the look
            places = np.sort(places)
        keep = self._kept(scope, places)
        if keep is not None:
            places = places[keep]
        return None if len(places) == self.size else places

    def _kept(self, scope: Scope, places: Keys | slice) -> Mask | None:
        """Which of *places* are not dead, and in every part of *scope* but its allowed keys; None where all are."""
        masks = []
        if self.dead:
            masks.append(self._live[places])
        if scope.namespaces is not None:
            masks.append(_among(self._namespaces[places], scope.namespaces))
        if self._first_expiry <= scope.now:
            masks.append(self._expiries[places] > scope.now)
        if scope.without is not None:
            masks.append(~np.isin(self._keys[places], scope.without))
        return np.logical_and.reduce(masks) if masks else None

    def reserve(self, size: int) -> None:
        """Have room for *size* entries."""
        if size <= len(self._keys):
            return
        held = len(self._keys)
        room = max(size, held + held // (2 if held < _LARGE else 4), _LEAST)
        storage = self._allocate(room, self.storage)
        if storage is not self.storage:
            self.move_to(storage)
        for name in _COLUMNS:
            old = getattr(self, name)
            new = np.empty(room, dtype=old.dtype)
            new[: self.size] = old[: self.size]
            setattr(self, name, new)

    def move_to(self, storage: Storage) -> None:
        """Keep the vectors in *storage* from now on."""
        storage.rows[: self.size] = self.storage.rows[: self.size]
        self.storage = storage


def _among(values: Keys, wanted: Keys) -> Mask:
    return values == wanted[0] if len(wanted) == 1 else np.isin(values, wanted)

"""Keeps the indexes equal to the database.

The follower knows the number of the change log up to which the indexes are right (`applied`). It reads what changed
since, looks at what those rows now are, and puts or removes them: applying a change twice, or a change that was
undone, does no harm, and it matters not which process made it. Where the log cannot tell (a first use, another
epoch, a log trimmed too far), the indexes are built anew from the stored vectors.

The lock is taken before the transaction begins. So a reader's snapshot is never older than the index, and after
catching up both are of one state until the lock is let go: no index entry ever meets a row of another time.
"""

import logging
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from sqlalchemy import Connection

from memstore.database.commit import snapshot
from memstore.errors import EngineError
from memstore.geometry import Rows, index_form, usable
from memstore.index.exact import ExactIndex
from memstore.index.faiss_engine import FaissEngine
from memstore.index.lock import FairLock
from memstore.index.numpy_engine import NumpyEngine
from memstore.index.protocol import NEVER, Engine, Entries, Found, Scope
from memstore.index.runtimes import carries_llvm
from memstore.repository import log
from memstore.repository.log import State, VectorRows, VectorSpace
from memstore.repository.nouns import Kind
from memstore.settings import Engine as EngineName
from memstore.vectors import decode_rows

T = TypeVar("T")

FAISS_FROM = 5_000
"""Vectors from which on FAISS is quicker by more than its import costs; below, NumPy answers in 0.3 ms."""

_log = logging.getLogger("memstore")


class View:
    """The indexes at one state of the database, plus what a transaction has changed and not committed."""

    def __init__(self, follower: "Follower", overlays: dict[Kind, tuple[list[int], ExactIndex]] | None = None) -> None:
        self._follower = follower
        self._overlays = overlays or {}

    @property
    def engine(self) -> Engine:
        """What compares vectors."""
        return self._follower.engine

    def rows(self, kind: Kind) -> int:
        """Vectors held."""
        return len(self._follower.indexes[kind])

    def search(self, kind: Kind, queries: Rows, limit: int, scope: Scope) -> list[tuple[Found, int]]:
        """For each query what is found, and how many uncommitted vectors were among those allowed."""
        index = self._follower.indexes[kind]
        prepared = index_form(self._follower.spaces[kind].space.metric, queries)
        changed, overlay = self._overlays.get(kind, ((), None))
        if overlay is None or not changed:
            return [(found, 0) for found in index.search(self.engine, prepared, limit, scope)]
        without = np.array(changed, dtype=np.int64)
        stored = index.search(self.engine, prepared, limit, _outside(scope, without))
        own = overlay.search(self.engine, prepared, limit, scope)
        return [(_merged(a, b, limit), b.allowed) for a, b in zip(stored, own, strict=True)]


def _outside(scope: Scope, without: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Scope:
    return Scope(now=scope.now, namespaces=scope.namespaces, allowed=scope.allowed, without=without)


def _merged(one: Found, other: Found, limit: int) -> Found:
    keys = np.concatenate([one.keys, other.keys])
    scores = np.concatenate([one.scores, other.scores])
    order = np.lexsort((keys, -scores))[:limit]
    return Found(keys[order], scores[order], one.allowed + other.allowed)


class Follower:
    """The indexes of a store, one a kind. They are loaded when first needed, not when the store is opened."""

    def __init__(self, spaces: dict[Kind, VectorSpace], engine: EngineName) -> None:
        self.spaces = spaces
        self.lock = FairLock()
        self.indexes: dict[Kind, ExactIndex] = {}
        self.lagging: set[int] = set()
        self.applied: int | None = None
        self.engine: Engine = NumpyEngine()
        self.engine_reason = "no search yet" if engine == "auto" else "asked for"
        self._epoch = ""
        self._wanted: EngineName = engine

    def consistent(self, connection: Connection, function: Callable[[Connection, View], T]) -> T:
        """Run *function* in a read transaction whose snapshot the indexes equal, on the calling thread."""
        self._choose_engine()
        with self.lock.shared(), snapshot(connection):
            if self._is_current(log.state(connection)):
                return function(connection, View(self))
        with self.lock.exclusive() as hold, snapshot(connection):
            self.catch_up(connection)
            self._choose_engine()  # now it is known how many there are
            hold.share()
            return function(connection, View(self))

    def committed(self, connection: Connection) -> None:
        """Take in what was just committed, on the writer's thread, before the caller is answered.

        The commit stands whatever happens here: if the indexes cannot follow, they are dropped, and the next search
        builds them from the rows.
        """
        if self.applied is None:
            return
        try:
            with self.lock.exclusive(), snapshot(connection):
                self.catch_up(connection)
        except Exception:  # noqa: BLE001 - not passed over: what failed is thrown away and built again
            self.drop()
            _log.exception("the index could not follow a commit; the next search builds it anew from the rows")

    def at(self, connection: Connection, base: int, function: Callable[[Connection, View], T]) -> T | None:
        """Run *function* inside the caller's own write transaction, which began when the log stood at *base*.

        Nobody else can commit meanwhile, so the indexes stand still at *base*; what the log says after it is the
        caller's own. None when the indexes are not at *base*: then let a reader catch up first.
        """
        with self.lock.shared():
            if self.applied != base:
                return None
            changed = log.changed(connection, base, log.top(connection))
            overlays = {
                space.kind: (changed[space.pk], self._built(connection, space, changed[space.pk]))
                for space in self.spaces.values()
                if space.pk in changed
            }
            return function(connection, View(self, overlays))

    def catch_up(self, connection: Connection) -> None:
        """Make the indexes equal to *connection*'s snapshot. The lock is held alone."""
        state = log.state(connection)
        if self._is_current(state):
            return
        if self.applied is None or not self._can_follow(state):
            self._rebuild(connection, state)
            return
        changed = log.changed(connection, self.applied, state.top)
        for space in self.spaces.values():
            keys = changed.get(space.pk)
            if keys:
                self._apply(connection, space, keys)
        self.applied = state.top

    def drop(self) -> None:
        """Forget the indexes; the next search builds them from the rows. Waits for the lock: call it on a thread."""
        with self.lock.exclusive():
            self.applied = None
            self.indexes.clear()

    def lagging_now(self, connection: Connection) -> list[int]:
        """Keys of assemblies whose stored composite is out of date in *connection*'s transaction, ascending."""
        pending = self.pending(connection)
        if pending is None:
            return log.lagging(connection)
        changed = pending.get(self.spaces["assembly"].pk, [])
        return log.lagging(connection, sorted({*self.lagging, *changed}))

    def pending(self, connection: Connection) -> dict[int, list[int]] | None:
        """What the log says that the indexes have not taken in, by space; None when they would be built anew."""
        state = log.state(connection)
        if self.applied is None or not self._can_follow(state):
            return None
        return log.changed(connection, self.applied, state.top)

    def _is_current(self, state: State) -> bool:
        return self.applied == state.top and self._epoch == state.epoch

    def _can_follow(self, state: State) -> bool:
        return self.applied is not None and self._epoch == state.epoch and state.floor <= self.applied <= state.top

    def _apply(self, connection: Connection, space: VectorSpace, keys: list[int]) -> None:
        index = self.indexes[space.kind]
        held: set[int] = set()
        for chunk in log.vectors(connection, space, keys):
            entries = as_entries(chunk, space)
            index.put(entries)
            held.update(entries.keys.tolist())
        if len(held) < len(keys):
            index.remove(np.array([key for key in keys if key not in held], dtype=np.int64))
        if space.kind == "assembly":
            self.lagging.difference_update(keys)
            self.lagging.update(log.lagging(connection, keys))

    def _rebuild(self, connection: Connection, state: State) -> None:
        if self.applied is not None:
            _log.info("the index is built anew: it was at change %s, the log is at %s", self.applied, state)
        self.applied = None
        for space in self.spaces.values():
            self.indexes[space.kind] = self._built(connection, space, None)
        self.lagging = set(log.lagging(connection))
        self.applied, self._epoch = state.top, state.epoch

    def _built(self, connection: Connection, space: VectorSpace, keys: list[int] | None) -> ExactIndex:
        room = log.count_vectors(connection, space) if keys is None else len(keys)
        index = ExactIndex(space.space.dimension, space.space.metric, room=room)
        for chunk in log.vectors(connection, space, keys):
            index.put(as_entries(chunk, space))
        return index

    def _choose_engine(self) -> None:
        """Load FAISS when it is due: on a thread, and never by a write."""
        if self.engine.name == "faiss" or self._wanted == "numpy":
            return
        if self._wanted == "faiss":
            self.engine = FaissEngine.load()
            return
        vectors = sum(len(index) for index in self.indexes.values())
        if carries_llvm():
            self.engine_reason = (
                "this platform's FAISS brings an OpenMP runtime of its own: ask for it by engine='faiss'"
            )
        elif vectors < FAISS_FROM:
            self.engine_reason = f"fewer than {FAISS_FROM:,} vectors: NumPy is as quick"
        else:
            try:
                self.engine = FaissEngine.load()
                self.engine_reason = f"{FAISS_FROM:,} vectors or more"
            except EngineError as error:
                self._wanted = "numpy"
                self.engine_reason = str(error)
                _log.warning("searching with NumPy: %s", error)


def as_entries(chunk: VectorRows, space: VectorSpace) -> Entries:
    """Stored rows as index entries; what no verb would store is no neighbour of anything, and is left out."""
    size, metric = 4 * space.space.dimension, space.space.metric
    if any(len(blob) != size for blob in chunk.blobs):
        whole = [row for row in zip(*chunk, strict=True) if len(row[3]) == size]
        chunk = VectorRows(*zip(*whole, strict=True)) if whole else VectorRows((), (), (), ())
    rows = decode_rows(list(chunk.blobs), space.space.dimension)
    expiries = [NEVER if expiry is None else expiry for expiry in chunk.expiries]
    entries = Entries(
        np.array(chunk.keys, dtype=np.int64),
        np.array(chunk.namespaces, dtype=np.int64),
        np.array(expiries, dtype=np.int64),
        rows,
    )
    good = usable(metric, rows)
    if not good.all():
        entries = Entries(*(array[good] for array in entries))  # type: ignore[arg-type]
    return entries._replace(rows=index_form(metric, entries.rows))

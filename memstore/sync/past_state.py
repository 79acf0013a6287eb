"""Searches at an earlier state of the database, for reads that share one read transaction.

The shared indexes go on to later states meanwhile. So an `AppliedKeys` collects the keys that they apply; a search
leaves those out, and compares their vectors of the earlier state, which it reads in its own transaction. Other vectors
are equal in both states. Where the log no longer has what changed, the vectors of the earlier state are read into
indexes of their own.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from sqlalchemy import Connection

from memstore.index.exact import ExactIndex
from memstore.models.records import RecordKind
from memstore.repository import vectors as stored_vectors
from memstore.repository.sqlite_only import change_log
from memstore.repository.vectors import Spaces
from memstore.sync import loader
from memstore.sync.index_set import AppliedKeys, IndexSet
from memstore.sync.loader import as_entries
from memstore.sync.view import View

T = TypeVar("T")


class PastState:
    """One state of the database, which the transaction of its own connection still reads.

    Args:
        indexes: the shared indexes.
        spaces: the vector spaces in that state.
        connection: in the transaction that reads the state.
    """

    def __init__(self, indexes: IndexSet, spaces: Spaces, connection: Connection) -> None:
        self.spaces = dict(spaces)
        self._shared = indexes
        self._state = change_log.state(connection)
        self._applied: AppliedKeys | None = None
        self._overlays = {
            kind: ExactIndex(space.dimension, space.measure) for kind, space in self.spaces.items() if space.dimension
        }
        self._overlaid: dict[RecordKind, set[int]] = {kind: set() for kind in self.spaces}
        self._private: IndexSet | None = None

    def attach(self, connection: Connection, view: View) -> bool:
        """Collect from now on what the shared indexes apply; False if the log does not have what they applied before.

        Args:
            connection: in a read transaction whose state the shared indexes equal.
            view: of them; its lock is held.
        """
        now = change_log.state(connection)
        if now.epoch != self._state.epoch or not now.floor <= self._state.top <= now.top or not self._overlays:
            return False
        changed = change_log.changed(connection, self._state.top, now.top)
        self._applied = AppliedKeys({space.kind: set(changed.get(space.pk, ())) for space in self.spaces.values()})
        view.indexes.recorders.add(self._applied)
        return True

    def run(self, connection: Connection, function: Callable[[Connection, View], T]) -> tuple[T] | None:
        """The result of *function* by the shared indexes; None if `attach` has to be called before.

        *connection* is in the transaction that reads the state.
        """
        with self._shared.lock.shared():
            if self._applied is None or not self._applied.complete:
                return None
            overlays = {
                kind: (sorted(keys), self._overlay(connection, kind, keys))
                for kind, keys in self._applied.keys.items()
                if keys
            }
            return (function(connection, View(self._shared, connection, overlays, is_past=True)),)

    def run_alone(self, connection: Connection, function: Callable[[Connection, View], T]) -> T:
        """The result of *function* by indexes that are loaded from the rows of the state, once."""
        if self._private is None:
            self._private = self._load(connection)
        return function(connection, View(self._private, connection))

    def _overlay(self, connection: Connection, kind: RecordKind, keys: set[int]) -> ExactIndex:
        """The vectors that *keys* have in the state. Only those of new keys are read."""
        index, new = self._overlays[kind], sorted(keys - self._overlaid[kind])
        for chunk in stored_vectors.vectors(connection, self.spaces[kind], new) if new else ():
            index.put(as_entries(chunk, self.spaces[kind]))
        self._overlaid[kind].update(new)
        return index

    def _load(self, connection: Connection) -> IndexSet:
        options = replace(self._shared.options, kind="exact", vector_type="float32")
        private = IndexSet(self.spaces, options, self._shared.engines)
        for kind, space in self.spaces.items():
            count = stored_vectors.count_vectors(connection, space)
            loader.load_index(connection, private, kind, self._state, count)
        private.revisions = stored_vectors.composed(connection, self.spaces["assembly"])
        return private

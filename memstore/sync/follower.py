"""Keeps the indexes equal to the database.

The indexes are current up to a sequence number of the change log (`IndexSet.applied`). The follower reads which keys
changed since, reads their present rows, and puts or removes them. Applying a change twice, or a change that was undone,
is harmless, and it does not matter which process made it. Where the log is insufficient (first use, another epoch, a
log trimmed too far), the indexes are rebuilt from the stored vectors.

The lock is acquired before the transaction begins. So a reader's snapshot is never older than the indexes; after
catching up both have the same state until the lock is released, and no index entry meets a row of another state.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from sqlalchemy import Connection

from memstore.concurrency import check_stop, unstoppable, yield_gil
from memstore.database.transactions import snapshot, take_cached
from memstore.escaping import library_logger
from memstore.index.exact import ExactIndex
from memstore.index.hybrid import HybridIndex
from memstore.repository import vectors as stored_vectors
from memstore.repository.corruption import corrupt_value
from memstore.repository.sqlite_only import change_log, vector_handoff
from memstore.repository.sqlite_only.change_log import State
from memstore.repository.sqlite_only.space_guard import SpaceGuard
from memstore.repository.sqlite_only.vector_handoff import VectorHandoff
from memstore.repository.vectors import VectorSpace
from memstore.sync import loader
from memstore.sync.index_set import IndexSet
from memstore.sync.loader import as_entries, written_entries
from memstore.sync.view import View

T = TypeVar("T")

_RESERVE_FROM = 1_000  # changed keys from which on capacity for all of them is reserved first

_log = library_logger()


class Follower:
    """Brings the indexes up to date before a search and after a commit.

    Args:
        indexes: the indexes, loaded at the first search.
        guard: refuses a file whose content was replaced by vectors of another space.
        on_change: called on any thread after entries or the engine changed.
    """

    def __init__(self, indexes: IndexSet, guard: SpaceGuard, on_change: Callable[[], None]) -> None:
        self.indexes = indexes
        self.guard = guard
        self._on_change = on_change

    def run_current(self, connection: Connection, function: Callable[[Connection, View], T]) -> T:
        """Run *function* in a read transaction whose snapshot the indexes equal, on the calling thread."""
        indexes = self.indexes
        self._select_engine(indexes.vector_count())
        with indexes.lock.shared(), snapshot(connection):
            if indexes.is_current(change_log.state(connection)):
                result = function(connection, View(indexes, connection))
                for index in indexes.by_kind.values():
                    if index.samples.pending:
                        self._on_change()
                return result
        with indexes.lock.exclusive() as hold, snapshot(connection):
            with unstoppable():
                self.catch_up(connection)
            self._select_engine(indexes.vector_count())
            hold.downgrade()  # other searches may run from here on
            self._on_change()
            check_stop()
            return function(connection, View(indexes, connection))

    def after_commit(self, connection: Connection) -> None:
        """Apply what was just committed, on the writer's thread, before the caller gets its result.

        The commit is valid whatever happens here: if the indexes cannot be updated, they are dropped, and the next
        search rebuilds them from the rows.
        """
        handed_over: list[VectorHandoff] = take_cached(connection)
        if not self.guard.is_settled:
            with snapshot(connection):
                self.guard.adopt(connection)
        if self.indexes.applied is None:
            return
        try:
            with self.indexes.lock.exclusive(), snapshot(connection):
                self.catch_up(connection, handed_over)
            self._on_change()
        except Exception:  # noqa: BLE001 - handled: the indexes are dropped and rebuilt
            self.drop()
            _log.exception("the index could not be updated after a commit; the next search rebuilds it from the rows")

    def run_in_transaction(
        self, connection: Connection, base: State, function: Callable[[Connection, View], T]
    ) -> T | None:
        """Run *function* inside the caller's write transaction, which began at *base* of the log.

        No other writer can commit meanwhile, so the indexes stay at *base*; all later changes in the log are the
        caller's. Returns None if the indexes are not at *base*: a reader must catch up first.
        """
        indexes = self.indexes
        with indexes.lock.shared():
            if not indexes.is_current(base):
                return None
            changed = change_log.changed(connection, base.top, change_log.top(connection))
            overlays = {
                space.kind: (changed[space.pk], _overlay(connection, space, changed[space.pk]))
                for space in self.guard.spaces_of(connection).values()
                if space.pk in changed
            }
            return function(connection, View(indexes, connection, overlays))

    def catch_up(self, connection: Connection, handed_over: Sequence[VectorHandoff] = ()) -> None:
        """Make the indexes equal to the snapshot of *connection*. Needs exclusive access.

        Args:
            connection: in a read transaction.
            handed_over: vectors of memories that the snapshot includes, and that need not be read.
        """
        indexes = self.indexes
        state = change_log.state(connection)
        if not self.guard.is_settled:
            self.guard.adopt(connection)
        if indexes.is_current(state):
            return
        if indexes.applied is None or not indexes.can_catch_up(state):
            self._rebuild(connection, state)
            return
        handed_over, gaps = vector_handoff.split_log(indexes.applied, state.top, handed_over)
        if handed_over:
            self._apply_handoff(handed_over)
        for after, upto in gaps:
            changed = change_log.changed(connection, after, upto)
            for space in indexes.spaces.values():
                keys = changed.get(space.pk)
                if keys:
                    self._apply(connection, space, keys)
        indexes.applied = state.top

    def drop(self) -> None:
        """Remove the indexes; the next search rebuilds them from the rows. Waits for the lock: call it on a thread."""
        with self.indexes.lock.exclusive():
            self.indexes.clear()

    def outdated_composites(self, connection: Connection) -> list[int]:
        """Keys of assemblies whose stored composite is outdated in the transaction of *connection*, ascending."""
        pending = self.pending(connection)
        if pending is None:
            return stored_vectors.lagging(connection)
        changed = pending.get(self.indexes.spaces["assembly"].pk, [])
        return stored_vectors.lagging(connection, sorted({*self.indexes.outdated, *changed}))

    def pending(self, connection: Connection) -> dict[int, list[int]] | None:
        """Keys in the log that the indexes have not applied, by space; None if the indexes need a rebuild."""
        state = change_log.state(connection)
        if self.indexes.applied is None or not self.indexes.can_catch_up(state):
            return None
        return change_log.changed(connection, self.indexes.applied, state.top)

    def _apply_handoff(self, handed_over: Sequence[VectorHandoff]) -> None:
        """Put vectors that were handed over. Later changes of the same keys are in the log, and are read after it."""
        index = self.indexes.by_kind["memory"]
        if len(handed_over) > 1:
            index.reserve(sum(len(batch.keys) for batch in handed_over))  # once, not for every batch
        for i, batch in enumerate(handed_over):
            if i:
                yield_gil()
            self.indexes.record("memory", batch.keys)
            index.put(written_entries(batch))

    def _apply(self, connection: Connection, space: VectorSpace, keys: list[int]) -> None:
        indexes = self.indexes
        index = indexes.by_kind[space.kind]
        present: set[int] = set()
        indexes.record(space.kind, keys)
        if len(keys) > _RESERVE_FROM:  # once, or the table would grow again and again
            index.reserve(_count_present(connection, index, space, keys))
        for chunk in stored_vectors.vectors(connection, space, keys):
            entries = as_entries(chunk, space)
            index.put(entries)
            present.update(entries.keys.tolist())
        if len(present) < len(keys):
            index.remove(np.array([key for key in keys if key not in present], dtype=np.int64))
        if space.kind == "assembly":
            indexes.outdated.difference_update(keys)
            indexes.outdated.update(stored_vectors.lagging(connection, keys))
            for key in keys:
                indexes.revisions.pop(key, None)
            indexes.revisions.update(stored_vectors.composed(connection, space, keys))

    def _rebuild(self, connection: Connection, state: State) -> None:
        indexes = self.indexes
        self.guard.check(connection)
        if indexes.applied is not None:
            _log.info("rebuilding the index: it is at change %s, and the log is at %s", indexes.applied, state)
        indexes.clear()
        counts = {kind: stored_vectors.count_vectors(connection, space) for kind, space in indexes.spaces.items()}
        if counts["memory"] and not indexes.spaces["memory"].dimension:
            raise corrupt_value("vector_space.dimension", "that of the stored vectors", "none")
        self._select_engine(sum(counts.values()))
        for kind in indexes.spaces:
            loader.load_index(connection, indexes, kind, state, counts[kind])
        indexes.outdated = set(stored_vectors.lagging(connection))
        indexes.revisions = stored_vectors.composed(connection, indexes.spaces["assembly"])
        indexes.applied, indexes.epoch = state.top, state.epoch
        indexes.dimension = indexes.spaces["memory"].dimension

    def _select_engine(self, vectors: int) -> None:
        if self.indexes.engines.select(vectors):
            self._on_change()  # a graph is possible from now on


def _count_present(connection: Connection, index: HybridIndex, space: VectorSpace, keys: list[int]) -> int:
    """How many of the changed *keys* have a stored vector: all others of the stored vectors are in *index*."""
    indexed = int(np.count_nonzero(index.table.find(np.array(keys, dtype=np.int64)) >= 0))
    unchanged = len(index) - indexed
    return min(len(keys), max(0, stored_vectors.count_vectors(connection, space) - unchanged))


def _overlay(connection: Connection, space: VectorSpace, keys: list[int]) -> ExactIndex:
    """An index of the vectors that *keys* have inside the transaction of *connection*."""
    index = ExactIndex(space.dimension, space.measure, capacity=len(keys))
    for chunk in stored_vectors.vectors(connection, space, keys):
        index.put(as_entries(chunk, space))
    return index

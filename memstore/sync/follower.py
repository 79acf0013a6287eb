"""Keeps the indexes equal to the database.

The follower knows the number of the change log up to which the indexes are right (`applied`). It reads what changed
since, looks at what those rows now are, and puts or removes them: applying a change twice, or a change that was
undone, does no harm, and it matters not which process made it. Where the log cannot tell (a first use, another
epoch, a log trimmed too far), the indexes are built anew from the stored vectors.

The lock is taken before the transaction begins. So a reader's snapshot is never older than the index, and after
catching up both are of one state until the lock is let go: no index entry ever meets a row of another time.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from sqlalchemy import Connection

from memstore.concurrency import yield_gil
from memstore.config import Engine as EngineName
from memstore.config import IndexSettings
from memstore.database.transactions import carried, snapshot
from memstore.errors import EngineError
from memstore.index.exact import ExactIndex
from memstore.index.faiss_engine import FaissEngine
from memstore.index.hybrid import HybridIndex
from memstore.index.numpy_engine import NumpyEngine
from memstore.index.openmp import carries_llvm
from memstore.index.protocol import DriftError, Engine, Found, Keys, Scope, Storage
from memstore.index.rwlock import FairLock
from memstore.index.vector_table import Allocate, plain
from memstore.models.records import RecordKind
from memstore.repository import vectors as vector_rows
from memstore.repository.sqlite_only import change_log, vector_handoff
from memstore.repository.sqlite_only.change_log import State
from memstore.repository.sqlite_only.space_guard import History
from memstore.repository.sqlite_only.vector_handoff import Written
from memstore.repository.vectors import VectorSpace
from memstore.sync import loader
from memstore.sync.loader import as_entries, written_entries
from memstore.vectors.arrays import Rows
from memstore.vectors.metrics import index_form, scores

T = TypeVar("T")

FAISS_FROM = 5_000
"""Vectors from which on FAISS is quicker by more than its import costs; below, NumPy answers in 0.3 ms."""

SPARE_SHARE, SPARE = 2, 10
"""So many times what is wanted, and so many more, are taken from a float16 index and scored again by the rows."""

_TOGETHER = 1_000  # so many changes are known to be many before they are taken in

_ROOM = 16  # an index is loaded into memory for a share of 1 / _ROOM more than there are

_log = logging.getLogger("memstore")


class View:
    """The indexes at one state of the database, plus what a transaction has changed and not committed."""

    def __init__(
        self,
        follower: "Follower",
        connection: Connection,
        overlays: dict[RecordKind, tuple[list[int], ExactIndex]] | None = None,
    ) -> None:
        self._follower = follower
        self._connection = connection
        self._overlays = overlays or {}

    @property
    def engine(self) -> Engine:
        """What compares vectors."""
        return self._follower.engine

    def rows(self, kind: RecordKind) -> int:
        """Vectors held."""
        return len(self._follower.indexes[kind])

    def revision(self, key: int) -> int | None:
        """Of which revision of the assembly *key* its entry in the shared index is; None where it has none there."""
        return self._follower.revision(key)

    def search(self, kind: RecordKind, queries: Rows, limit: int, scope: Scope) -> list[tuple[Found, int]]:
        """For each query what is found, and how many uncommitted vectors were among those allowed."""
        prepared = index_form(self._follower.spaces[kind].measure, queries)
        changed, overlay = self._overlays.get(kind, ((), None))
        if overlay is None or not changed:
            return [(found, 0) for found in self._stored(kind, prepared, limit, scope)]
        without = np.array(changed, dtype=np.int64)
        stored = self._stored(kind, prepared, limit, _outside(scope, without))
        own = overlay.search(self.engine, prepared, limit, scope)
        return [(_merged(a, b, limit), b.allowed) for a, b in zip(stored, own, strict=True)]

    def _stored(self, kind: RecordKind, queries: Rows, limit: int, scope: Scope) -> list[Found]:
        """What the shared index finds; where it keeps float16, scored again by the vectors as they are stored."""
        index = self._follower.indexes[kind]
        if self._follower.options.vector_type == "float32":
            return index.search(self.engine, queries, limit, scope)
        more = index.search(self.engine, queries, limit * SPARE_SHARE + SPARE, scope)
        return [self._rescored(kind, query, found, limit) for query, found in zip(queries, more, strict=True)]

    def _rescored(self, kind: RecordKind, query: Rows, found: Found, limit: int) -> Found:
        space = self._follower.spaces[kind]
        read = [as_entries(chunk, space) for chunk in vector_rows.vectors(self._connection, space, found.keys.tolist())]
        if sum(len(entries.keys) for entries in read) < len(found.keys):
            raise DriftError
        if not read:
            return found
        keys = np.concatenate([entries.keys for entries in read])
        values = scores(space.measure, query, np.concatenate([entries.rows for entries in read]))
        order = np.lexsort((keys, -values))[:limit]
        return found._replace(keys=keys[order], scores=values[order])


def _outside(scope: Scope, without: Keys) -> Scope:
    return Scope(now=scope.now, namespaces=scope.namespaces, allowed=scope.allowed, without=without)


def _merged(one: Found, other: Found, limit: int) -> Found:
    keys = np.concatenate([one.keys, other.keys])
    scores = np.concatenate([one.scores, other.scores])
    order = np.lexsort((keys, -scores))[:limit]
    return Found(keys[order], scores[order], one.allowed + other.allowed, one.how)


class Follower:
    """The indexes of a store, one a kind. They are loaded when first needed, not when the store is opened."""

    def __init__(
        self, spaces: dict[RecordKind, VectorSpace], history: History, engine: EngineName, options: IndexSettings
    ) -> None:
        self.spaces = spaces
        self.history = history
        self.options = options
        self.lock = FairLock()
        self.indexes: dict[RecordKind, HybridIndex] = {}
        self.moved: Callable[[], None] = lambda: None
        self.lagging: set[int] = set()
        self.revisions: dict[int, int] = {}  # of assemblies, by key: the one their composite was read at
        self.applied: int | None = None
        self.engine: Engine = NumpyEngine()
        self.engine_reason = "no search yet" if engine == "auto" else "asked for"
        self.epoch = ""
        self._wanted: EngineName = engine

    def consistent(self, connection: Connection, function: Callable[[Connection, View], T]) -> T:
        """Run *function* in a read transaction whose snapshot the indexes equal, on the calling thread."""
        self._choose_engine()
        with self.lock.shared(), snapshot(connection):
            if self._is_current(change_log.state(connection)):
                return function(connection, View(self, connection))
        with self.lock.exclusive() as hold, snapshot(connection):
            self.catch_up(connection)
            self._choose_engine()  # now it is known how many there are
            hold.share()
            self.moved()
            return function(connection, View(self, connection))

    def committed(self, connection: Connection) -> None:
        """Take in what was just committed, on the writer's thread, before the caller is answered.

        The commit stands whatever happens here: if the indexes cannot follow, they are dropped, and the next search
        builds them from the rows.
        """
        told = carried(connection).take(Written)
        if self.applied is None:
            return
        try:
            with self.lock.exclusive(), snapshot(connection):
                self.catch_up(connection, told)
            self.moved()
        except Exception:  # noqa: BLE001 - not passed over: what failed is thrown away and built again
            self.drop()
            _log.exception("the index could not follow a commit; the next search builds it anew from the rows")

    def at(self, connection: Connection, base: State, function: Callable[[Connection, View], T]) -> T | None:
        """Run *function* inside the caller's own write transaction, which began when the log stood at *base*.

        Nobody else can commit meanwhile, so the indexes stand still at *base*; what the log says after it is the
        caller's own. None when the indexes are not at *base*: then let a reader catch up first.
        """
        with self.lock.shared():
            if not self._is_current(base):
                return None
            changed = change_log.changed(connection, base.top, change_log.top(connection))
            overlays = {
                space.kind: (changed[space.pk], self._built(connection, space, changed[space.pk]))
                for space in self.spaces.values()
                if space.pk in changed
            }
            return function(connection, View(self, connection, overlays))

    def catch_up(self, connection: Connection, told: Sequence[Written] = ()) -> None:
        """Make the indexes equal to *connection*'s snapshot, which includes what was *told*. The lock is held alone."""
        state = change_log.state(connection)
        if self._is_current(state):
            return
        if self.applied is None or not self._can_follow(state):
            self._rebuild(connection, state)
            return
        told, untold = vector_handoff.parted(self.applied, state.top, told)
        self._take(told)
        for after, upto in untold:
            changed = change_log.changed(connection, after, upto)
            for space in self.spaces.values():
                keys = changed.get(space.pk)
                if keys:
                    self._apply(connection, space, keys)
        self.applied = state.top

    def revision(self, key: int) -> int | None:
        """Of which revision the composite in the index of the assembly *key* is; the lock is held, shared or alone."""
        held = self.indexes["assembly"].places(np.array([key], dtype=np.int64))
        return self.revisions.get(key) if held[0] >= 0 else None

    def drop(self) -> None:
        """Forget the indexes; the next search builds them from the rows. Waits for the lock: call it on a thread."""
        with self.lock.exclusive():
            self.applied = None
            self.indexes.clear()

    def lagging_now(self, connection: Connection) -> list[int]:
        """Keys of assemblies whose stored composite is out of date in *connection*'s transaction, ascending."""
        pending = self.pending(connection)
        if pending is None:
            return vector_rows.lagging(connection)
        changed = pending.get(self.spaces["assembly"].pk, [])
        return vector_rows.lagging(connection, sorted({*self.lagging, *changed}))

    def pending(self, connection: Connection) -> dict[int, list[int]] | None:
        """What the log says that the indexes have not taken in, by space; None when they would be built anew."""
        state = change_log.state(connection)
        if self.applied is None or not self._can_follow(state):
            return None
        return change_log.changed(connection, self.applied, state.top)

    def _is_current(self, state: State) -> bool:
        return self.applied == state.top and self.epoch == state.epoch

    def _can_follow(self, state: State) -> bool:
        return self.applied is not None and self.epoch == state.epoch and state.floor <= self.applied <= state.top

    def _take(self, told: Sequence[Written]) -> None:
        """Take in what need not be read; what became of it since is read after it."""
        index = self.indexes["memory"]
        index.reserve(sum(len(each.keys) for each in told))
        for i, each in enumerate(told):
            if i:
                yield_gil()
            index.put(written_entries(each))

    def _apply(self, connection: Connection, space: VectorSpace, keys: list[int]) -> None:
        index = self.indexes[space.kind]
        held: set[int] = set()
        if len(keys) > _TOGETHER:
            index.reserve(len(keys))  # at once, or it would grow again and again
        for chunk in vector_rows.vectors(connection, space, keys):
            entries = as_entries(chunk, space)
            index.put(entries)
            held.update(entries.keys.tolist())
        if len(held) < len(keys):
            index.remove(np.array([key for key in keys if key not in held], dtype=np.int64))
        if space.kind == "assembly":
            self.lagging.difference_update(keys)
            self.lagging.update(vector_rows.lagging(connection, keys))
            for key in keys:
                self.revisions.pop(key, None)
            self.revisions.update(vector_rows.composed(connection, space, keys))

    def _rebuild(self, connection: Connection, state: State) -> None:
        self.history.check(connection)
        if self.applied is not None:
            _log.info("the index is built anew: it was at change %s, the log is at %s", self.applied, state)
        self.applied = None
        self.indexes.clear()
        counts = {space.kind: vector_rows.count_vectors(connection, space) for space in self.spaces.values()}
        self._choose_engine(sum(counts.values()))
        for space in self.spaces.values():
            room = counts[space.kind] + counts[space.kind] // _ROOM
            index = HybridIndex(
                space.dimension,
                space.measure,
                kind=self.options.kind,
                room=room,
                allocate=self.allocator(space),
            )
            header = None
            if isinstance(self.engine, FaissEngine):
                header = loader.usable_snapshot(connection, space, state, self.options, counts[space.kind])
            loader.load(connection, space, index, state, header)
            self.indexes[space.kind] = index
        self.lagging = set(vector_rows.lagging(connection))
        self.revisions = vector_rows.composed(connection, self.spaces["assembly"])
        self.applied, self.epoch = state.top, state.epoch

    def _built(self, connection: Connection, space: VectorSpace, keys: list[int]) -> ExactIndex:
        """An index of the vectors that *keys* now have: what lies over the shared one in a transaction."""
        index = ExactIndex(space.dimension, space.measure, room=len(keys))
        for chunk in vector_rows.vectors(connection, space, keys):
            index.put(as_entries(chunk, space))
        return index

    def allocator(self, space: VectorSpace) -> Allocate:
        """Makes memory for vectors of *space*: FAISS's where a graph may be built over it."""
        metric, dimension, vector_type = space.measure, space.dimension, self.options.vector_type

        def allocate(room: int, short: Storage | None = None) -> Storage:
            if isinstance(self.engine, FaissEngine) and (self.options.kind != "exact" or vector_type == "float16"):
                return self.engine.graphs.storage(metric, dimension, vector_type, room)
            return plain(vector_type, dimension, room, short)

        return allocate

    def described(self, kind: RecordKind) -> dict[str, Any]:
        """What `Stats` says of the index of *kind*."""
        index = self.indexes.get(kind)
        graph = None if index is None else index.graph
        return {
            "index": "exact" if graph is None else "graph",
            "index_reason": "no search yet" if index is None else self._reason(index),
            "vector_type": self.options.vector_type,
            "graph_nodes": 0 if graph is None else graph.nodes,
            "graph_deleted": 0 if index is None else index.table.dead,
            "unindexed": 0 if index is None else index.tail,
            "graph_bytes": 0 if graph is None else graph.bytes,
            "ef_search": None if graph is None else graph.effort,
            "recall": None if graph is None else graph.recall,
        }

    def _reason(self, index: HybridIndex) -> str:
        if index.unfit is not None:
            return index.unfit
        wanted, reason = index.wants_graph()
        if wanted and not isinstance(self.engine, FaissEngine):
            return f"a graph needs FAISS: {self.engine_reason}"
        return reason if index.graph is not None or not wanted else f"{reason}; the graph is still to be built"

    def _choose_engine(self, vectors: int | None = None) -> None:
        """Load FAISS when it is due, for so many *vectors* or those held: on a thread, and never by a write."""
        if self.engine.name == "faiss" or self._wanted == "numpy":
            return
        self._choose(vectors)
        if isinstance(self.engine, FaissEngine):
            self.moved()  # now there can be a graph

    def _choose(self, vectors: int | None) -> None:
        if self._wanted == "faiss":
            self.engine = FaissEngine.load()
            return
        if vectors is None:
            vectors = sum(len(index) for index in self.indexes.values())
        if carries_llvm():
            self.engine_reason = (
                "this platform's FAISS brings an OpenMP runtime of its own: ask for it by engine='faiss'"
            )
        elif vectors < FAISS_FROM and self.options.kind != "graph":
            self.engine_reason = f"fewer than {FAISS_FROM:,} vectors: NumPy is as quick"
        else:
            try:
                self.engine = FaissEngine.load()
                self.engine_reason = (
                    "the graph needs it" if self.options.kind == "graph" else f"{FAISS_FROM:,} vectors or more"
                )
            except EngineError as error:
                self._wanted = "numpy"
                self.engine_reason = str(error)
                _log.warning("searching with NumPy: %s", error)

"""The indexes of a store, one per kind, with the lock and the log position that they share."""

from collections.abc import Iterable
from typing import Any
from weakref import WeakSet

import numpy as np

from memstore.config import IndexSettings
from memstore.index.engine_selector import EngineSelector
from memstore.index.faiss_engine import FaissEngine
from memstore.index.hybrid import HybridIndex
from memstore.index.protocol import Engine, VectorStorage
from memstore.index.rwlock import FairLock
from memstore.index.vector_table import Allocator, allocate_numpy
from memstore.models.records import RecordKind
from memstore.repository.sqlite_only.change_log import State
from memstore.repository.sqlite_only.index_snapshots import Header
from memstore.repository.vectors import VectorSpace


class AppliedKeys:
    """The keys that the indexes have applied since some state of the database, by kind.

    Attributes:
        keys: the keys.
        complete: whether these are all; False from the moment at which the indexes are dropped or rebuilt.
    """

    def __init__(self, keys: dict[RecordKind, set[int]]) -> None:
        self.keys = keys
        self.complete = True


class IndexSet:
    """The indexes in memory. Only `Follower` changes entries; only `IndexMaintainer` changes graphs.

    Attributes:
        spaces: the vector space of each kind.
        options: how vectors are searched.
        engines: the engine that compares vectors.
        lock: shared for searches, exclusive for changes.
        by_kind: the indexes; empty until the first search loads them.
        pending_snapshots: snapshots of the graphs that loaded indexes are laid out for and do not have yet.
        applied: the change-log sequence number up to which the indexes are current; None while they are not loaded.
        epoch: the epoch of the file to which `applied` refers.
        dimension: the dimension with which the indexes were loaded.
        outdated: keys of assemblies whose stored composite was not current when it was read.
        revisions: revision of the assembly at which each composite was computed, by key of the assembly.
        recorders: what collects the keys that are applied from now on.
    """

    def __init__(self, spaces: dict[RecordKind, VectorSpace], options: IndexSettings, engines: EngineSelector) -> None:
        self.spaces = spaces
        self.options = options
        self.engines = engines
        self.lock = FairLock()
        self.by_kind: dict[RecordKind, HybridIndex] = {}
        self.pending_snapshots: dict[RecordKind, Header] = {}
        self.applied: int | None = None
        self.epoch = ""
        self.dimension = 0
        self.outdated: set[int] = set()
        self.revisions: dict[int, int] = {}
        self.recorders: WeakSet[AppliedKeys] = WeakSet()

    @property
    def engine(self) -> Engine:
        """The engine that compares vectors."""
        return self.engines.engine

    def vector_count(self) -> int:
        """Number of vectors in memory, of all kinds."""
        return sum(map(len, tuple(self.by_kind.values())))

    def is_current(self, state: State) -> bool:
        """Whether the indexes equal the rows at *state* of the change log."""
        return self.applied == state.top and self.epoch == state.epoch

    def can_catch_up(self, state: State) -> bool:
        """Whether the log still holds every change between the indexes and *state*."""
        if self.applied is None or self.epoch != state.epoch or self.dimension != self.spaces["memory"].dimension:
            return False
        return state.floor <= self.applied <= state.top

    def record(self, kind: RecordKind, keys: Iterable[int]) -> None:
        """Note that entries of *keys* are changed. Needs exclusive access."""
        if not self.recorders:  # as a rule; to iterate over no weak references takes 3 µs
            return
        for recorder in self.recorders:
            recorder.keys[kind].update(keys)

    def clear(self) -> None:
        """Remove the indexes; the next search loads them. Needs exclusive access."""
        for recorder in self.recorders:
            recorder.complete = False
        self.recorders.clear()
        self.applied = None
        self.by_kind.clear()
        self.pending_snapshots.clear()

    def revision(self, key: int) -> int | None:
        """The revision of the composite that the index holds for the assembly *key*; None if it holds none.

        Needs shared or exclusive access.
        """
        positions = self.by_kind["assembly"].table.find(np.array([key], dtype=np.int64))
        return self.revisions.get(key) if positions[0] >= 0 else None

    def allocator(self, space: VectorSpace) -> Allocator:
        """Allocates memory for vectors of *space*: in FAISS where a graph may be built over it."""
        metric, vector_type = space.measure, self.options.vector_type
        # A graph under inner product needs one more component, see `index.walk`.
        lifted = metric == "inner_product" and self.options.kind != "exact"
        dimension = space.dimension + 1 if lifted else space.dimension

        def allocate(capacity: int, present: VectorStorage | None = None) -> VectorStorage:
            engine = self.engines.engine
            if (
                isinstance(engine, FaissEngine)
                and dimension
                and (self.options.kind != "exact" or vector_type == "float16")
            ):
                return engine.graphs.allocate(metric, dimension, vector_type, capacity)
            return allocate_numpy(vector_type, dimension, capacity, present)

        return allocate

    def stats(self, kind: RecordKind) -> dict[str, Any]:
        """The fields of `Stats` that describe the index of *kind*."""
        index = self.by_kind.get(kind)
        graph = None if index is None else index.graph
        calibration = None if index is None else index.calibration
        return {
            "index": "exact" if graph is None else "graph",
            "index_reason": "no search yet" if index is None else self._reason(index),
            "vector_type": self.options.vector_type,
            "graph_nodes": 0 if graph is None else graph.nodes,
            "graph_deleted": 0 if index is None else index.table.deleted,
            "unindexed": 0 if index is None else index.unindexed,
            "graph_bytes": 0 if graph is None else graph.bytes,
            "ef_search": None if calibration is None else calibration.ef_search,
            "recall": None if calibration is None else calibration.recall,
            "recall_observed": None if graph is None or index is None else index.samples.recall,
        }

    def _reason(self, index: HybridIndex) -> str:
        if index.graph_unsuitable is not None:
            return index.graph_unsuitable
        graph_wanted, reason = index.wants_graph()
        if graph_wanted and not isinstance(self.engine, FaissEngine):
            return f"a graph needs FAISS: {self.engines.reason}"
        return reason if index.graph is not None or not graph_wanted else f"{reason}; the graph is not built yet"

"""The search graph: FAISS's HNSW over memory that an exact index owns.

A node of the graph is a place of the index's table: the graph holds links alone, and its vectors are the first
`nodes` rows of the table, whose places are pinned. A graph that is searched never changes, because adding to one
while it is searched crashes. A larger one is made from a private copy of its links, and takes its place.

FAISS adds a vector to a graph by adding it to the storage first. Ours is there already, at its place. So before each
call the storage is told that it ends some rows before its capacity: FAISS then writes its copies into these last
rows, which nothing else uses (`scratch`), changes no size, moves no memory, and links the rows that lie in place.
"""

import hashlib
import os
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from memstore.config import GraphOptions, VectorType
from memstore.index.protocol import Keys, Storage
from memstore.vectors.arrays import Rows
from memstore.vectors.space import Ball, Measure

_SCRATCH_NUMBERS = 1_000_000

Numbers = npt.NDArray[np.int32]

_MANY = 16  # queries in one call that are worth a second thread

_TYPES: dict[VectorType, type[np.floating]] = {"float32": np.float32, "float16": np.float16}


def scratch(dimension: int) -> int:
    """Rows that FAISS writes its copies into, and so the most that can be linked in one call: four megabytes."""
    return max(1, min(256, _SCRATCH_NUMBERS // dimension))


class BrokenLinksError(Exception):
    """Links that no graph of ours has. Never seen outside: the graph is built anew."""


class Links(NamedTuple):
    """A graph without its vectors.

    Attributes:
        levels: int32, shape (nodes,): on how many layers each node is, 1 or more.
        neighbors: int32: for each node in turn, its links layer by layer, 2 * m on the lowest and m on each above;
            -1 for none.
        entry: the node a search begins at.
        top: the highest layer.
    """

    levels: Numbers
    neighbors: Numbers
    entry: int
    top: int

    def check(self, m: int) -> None:
        """Raise `BrokenLinksError` where following the links could lead out of the graph."""
        nodes = len(self.levels)
        if not nodes or int(self.levels.min()) < 1 or int(self.levels.max()) != self.top + 1 or self.top >= _layers(m):
            raise BrokenLinksError("levels")
        if not 0 <= self.entry < nodes or int(self.levels[self.entry]) != self.top + 1:
            raise BrokenLinksError("entry point")
        starts = _starts(self.levels, m)
        if len(self.neighbors) != starts[-1]:
            raise BrokenLinksError("number of links")
        if int(self.neighbors.min()) < -1 or int(self.neighbors.max()) >= nodes:
            raise BrokenLinksError("links")
        for layer in range(1, self.top + 1):
            above = np.flatnonzero(self.levels > layer)
            first = starts[above] + m * (layer + 1)
            linked = self.neighbors[first[:, None] + np.arange(m)]
            if (self.levels[linked[linked >= 0]] <= layer).any():
                raise BrokenLinksError("links between layers")

    def digest(self) -> bytes:
        """16 bytes that say what the links are."""
        made = hashlib.blake2b(digest_size=16)
        for array in (self.levels, self.neighbors, np.array([self.entry, self.top], dtype=np.int32)):
            made.update(array.view(np.uint8).data)
        return made.digest()

    def nearest_of(self, nodes: Keys, good: npt.NDArray[np.bool_], m: int) -> Keys:
        """For each of *nodes* the first node it is linked to that is *good*; -1 where there is none."""
        first = _starts(self.levels, m)[nodes]
        linked = self.neighbors[first[:, None] + np.arange(2 * m)]
        fit = (linked >= 0) & good[linked]
        return np.where(fit.any(axis=1), linked[np.arange(len(nodes)), fit.argmax(axis=1)], -1)


def _layers(m: int) -> int:
    """How many layers a graph can have: FAISS draws none whose chance is under 1e-9, and has no room for more."""
    layers = 0
    while m**-layers * (1 - 1 / m) >= 1e-9:
        layers += 1
    return layers


def _starts(levels: Numbers, m: int) -> npt.NDArray[np.int64]:
    """Where each node's links begin, and where the last one's end."""
    return np.concatenate([[0], np.cumsum((levels.astype(np.int64) + 1) * m)])


class Graph:
    """A graph that is searched. It never changes, but for the memory its vectors lie in."""

    def __init__(self, faiss: Any, index: Any, options: GraphOptions) -> None:
        self._faiss = faiss
        self._index = index
        self._storage: object = None
        self.options = options
        self.nodes = int(index.ntotal)
        self.effort = options.ef_search or 0
        self.recall: float | None = None
        self.digest = self.links().digest()

    @property
    def bytes(self) -> int:
        """Memory held by its links."""
        hnsw = self._index.hnsw
        return int(4 * hnsw.neighbors.size() + 4 * hnsw.levels.size() + 8 * hnsw.offsets.size())

    def lie_in(self, storage: Storage) -> None:
        """Find the vectors in *storage* from now on. Nobody may be searching."""
        if storage.owner is not self._storage:
            self._storage = self._index.storage = storage.owner

    def search(self, queries: Rows, limit: int, effort: int) -> Keys:
        """The places nearest to each query, best first: int64, shape (q, limit), -1 where there is none.

        Args:
            queries: float32, shape (q, dimension), in index form.
            limit: how many.
            effort: candidates kept (HNSW's ef).
        """
        faiss = self._faiss
        faiss.omp_set_num_threads(1 if len(queries) < _MANY else _processors())
        labels = np.empty((len(queries), limit), dtype=np.int64)
        distances = np.empty((len(queries), limit), dtype=np.float32)
        parameters = faiss.SearchParametersHNSW()
        parameters.efSearch = effort
        self._index.search_c(
            len(queries),
            faiss.swig_ptr(queries),
            limit,
            faiss.swig_ptr(distances),
            faiss.swig_ptr(labels),
            parameters,
        )
        return labels

    def links(self) -> Links:
        """A copy of its links."""
        hnsw, faiss = self._index.hnsw, self._faiss
        neighbors = faiss.rev_swig_ptr(hnsw.neighbors.data(), hnsw.neighbors.size()).copy()
        return Links(faiss.vector_to_array(hnsw.levels), neighbors, int(hnsw.entry_point), int(hnsw.max_level))


class GraphMaker:
    """Makes memory for vectors, and graphs over it."""

    def __init__(self, faiss: Any) -> None:
        self._faiss = faiss

    def storage(self, metric: Measure, dimension: int, vector_type: VectorType, capacity: int) -> Storage:
        """Memory for *capacity* vectors that FAISS owns, so that a graph can be built over it."""
        faiss = self._faiss
        kind = faiss.METRIC_L2 if metric == "l2" or isinstance(metric, Ball) else faiss.METRIC_INNER_PRODUCT
        if vector_type == "float16":
            owner = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, kind)
        else:
            owner = faiss.IndexFlat(dimension, kind)
        dtype = np.dtype(_TYPES[vector_type])
        rows = capacity + scratch(dimension)
        size = rows * dimension * dtype.itemsize
        owner.codes.resize(size)
        owner.ntotal = rows
        memory = faiss.rev_swig_ptr(owner.codes.data(), size)
        scan = partial(self._scanned, owner) if vector_type == "float16" else None
        return Storage(memory.view(dtype).reshape(rows, dimension)[:capacity], owner, scan)

    def _scanned(self, owner: Any, queries: Rows, limit: int, among: range, places: Keys | None) -> Keys:
        """See `Storage.scan`. FAISS compares float16 twice as fast as float32; NumPy takes 20 times as long."""
        faiss = self._faiss
        faiss.omp_set_num_threads(1)
        labels = np.empty((len(queries), limit), dtype=np.int64)
        distances = np.empty((len(queries), limit), dtype=np.float32)
        parameters = faiss.SearchParameters()
        if places is None:
            parameters.sel = selector = faiss.IDSelectorRange(among.start, among.stop)
        else:
            chosen = np.zeros(among.stop, dtype=np.bool_)
            chosen[places] = True
            bits = np.packbits(chosen, bitorder="little")
            parameters.sel = selector = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
        pointers = (faiss.swig_ptr(queries), limit, faiss.swig_ptr(distances), faiss.swig_ptr(labels))
        owner.search_c(len(queries), *pointers, parameters)
        del selector  # it had to live so long
        return labels

    def growing(self, options: GraphOptions, storage: Storage, start: Graph | None = None) -> "GrowingGraph":
        """A graph that is being built, from nothing or from a copy of *start*'s links."""
        links = None if start is None else start.links()
        return GrowingGraph(self._faiss, self._index(options, storage, links), options)

    def of(self, links: Links, options: GraphOptions, storage: Storage) -> Graph:
        """The graph that has *links*, which were checked."""
        graph = Graph(self._faiss, self._index(options, storage, links), options)
        graph.lie_in(storage)
        return graph

    def _index(self, options: GraphOptions, storage: Storage, links: Links | None) -> Any:
        faiss = self._faiss
        index = faiss.IndexHNSW(storage.owner, options.m)
        index.own_fields = False
        hnsw = index.hnsw
        hnsw.efConstruction = options.ef_construction
        if links is not None:
            faiss.copy_array_to_vector(links.levels, hnsw.levels)
            faiss.copy_array_to_vector(_starts(links.levels, options.m).astype(np.uint64), hnsw.offsets)
            hnsw.neighbors.resize(len(links.neighbors))
            faiss.rev_swig_ptr(hnsw.neighbors.data(), len(links.neighbors))[:] = links.neighbors
            hnsw.entry_point, hnsw.max_level = links.entry, links.top
            hnsw.rng = faiss.RandomGenerator(12_345 + len(links.levels))  # or it would draw the same levels again
            index.ntotal = len(links.levels)
        return index


def _processors() -> int:
    return min(os.cpu_count() or 1, 8)


class GrowingGraph:
    """A graph that nobody searches yet."""

    def __init__(self, faiss: Any, index: Any, options: GraphOptions) -> None:
        self._faiss = faiss
        self._index = index
        self._options = options

    @property
    def nodes(self) -> int:
        """How many vectors are linked."""
        return int(self._index.ntotal)

    def link(self, storage: Storage, count: int) -> None:
        """Link the next *count* rows of *storage*, `scratch` at most. On half of the machine's processors."""
        faiss, index = self._faiss, self._index
        faiss.omp_set_num_threads(max(1, _processors() // 2))
        done = self.nodes
        rows = np.ascontiguousarray(storage.rows[done : done + count], dtype=np.float32)
        owner: Any = storage.owner
        index.storage = owner
        owner.ntotal = len(storage.rows) + scratch(index.d) - len(rows)
        index.add_c(len(rows), faiss.swig_ptr(rows))
        index.ntotal = done + len(rows)

    def finished(self, storage: Storage) -> Graph:
        """It as a graph that is searched, whose vectors lie in *storage*."""
        graph = Graph(self._faiss, self._index, self._options)
        graph.lie_in(storage)
        return graph

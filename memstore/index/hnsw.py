"""The search graph: FAISS's HNSW over memory that an exact index owns.

A node of the graph is a position in the index's vector table. The graph holds links only; its vectors are the first
`nodes` rows of the table, which are pinned. A graph in use is immutable, because FAISS crashes if a graph is extended
while it is searched. A larger graph is built from a private copy of the links, and replaces it.

FAISS adds a vector to a graph by first adding it to the storage. Here the vector is in the storage already. So before
each call the storage is told that it ends `scratch_rows` before its capacity: FAISS then writes its copies into these
last rows, which are used for nothing else, changes no size, moves no memory, and links the rows in place.
"""

import hashlib
import os
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from memstore.config import GraphOptions, VectorType
from memstore.index.protocol import Mask, VectorStorage
from memstore.index.rounding import tolerance
from memstore.vectors.arrays import Keys, Rows
from memstore.vectors.space import ANGULAR_METRICS, Measure

_SCRATCH_NUMBERS = 1_000_000  # four megabytes of float32

_SPARE_RESULTS = 10  # results of a float16 scan beyond twice the limit

_NODES = 1 << 16  # nodes whose links are counted at a time

_PARALLEL_QUERIES = 16  # queries per call from which on more than one thread pays

_DTYPES: dict[VectorType, type[np.floating]] = {"float32": np.float32, "float16": np.float16}

Int32s = npt.NDArray[np.int32]


def scratch_rows(dimension: int) -> int:
    """Rows reserved for FAISS's copies, and so the number of vectors that one call can link."""
    return max(1, min(256, _SCRATCH_NUMBERS // dimension))


class BrokenLinksError(Exception):
    """Links that no valid graph has. Internal: the graph is rebuilt."""


class GraphLinks(NamedTuple):
    """A graph without its vectors.

    Attributes:
        levels: int32, shape (nodes,): number of layers of each node, 1 or more.
        neighbors: int32: the links of each node in turn, layer by layer, 2 * m on the lowest layer and m on each other
            one; -1 for an unused link.
        entry: the node at which searches start.
        top: the highest layer.
    """

    levels: Int32s
    neighbors: Int32s
    entry: int
    top: int

    def check(self, m: int) -> None:
        """Raise `BrokenLinksError` if following the links could lead out of the graph."""
        nodes = len(self.levels)
        if not nodes or int(self.levels.min()) < 1 or int(self.levels.max()) != self.top + 1:
            raise BrokenLinksError("levels")
        if self.top >= _max_layers(m):
            raise BrokenLinksError("levels")
        if not 0 <= self.entry < nodes or int(self.levels[self.entry]) != self.top + 1:
            raise BrokenLinksError("entry point")
        offsets = _link_offsets(self.levels, m)
        if len(self.neighbors) != offsets[-1]:
            raise BrokenLinksError("number of links")
        if int(self.neighbors.min()) < -1 or int(self.neighbors.max()) >= nodes:
            raise BrokenLinksError("links")
        for layer in range(1, self.top + 1):
            nodes_above = np.flatnonzero(self.levels > layer)
            first = offsets[nodes_above] + m * (layer + 1)
            targets = self.neighbors[first[:, None] + np.arange(m)]
            if (self.levels[targets[targets >= 0]] <= layer).any():
                raise BrokenLinksError("links between layers")

    def digest(self) -> bytes:
        """A 16-byte digest of the links."""
        blake = hashlib.blake2b(digest_size=16)
        for array in (self.levels, self.neighbors, np.array([self.entry, self.top], dtype=np.int32)):
            blake.update(array.view(np.uint8).data)
        return blake.digest()

    def in_degrees(self, m: int) -> Int32s:
        """How many links of the lowest layer lead to each node: shape (nodes,)."""
        counts = np.zeros(len(self.levels), dtype=np.int32)
        offsets = _link_offsets(self.levels, m)
        for start in range(0, len(self.levels), _NODES):
            targets = self.neighbors[offsets[start : min(start + _NODES, len(self.levels)), None] + np.arange(2 * m)]
            counts += np.bincount(targets[targets >= 0], minlength=len(counts)).astype(np.int32)
        return counts

    def lowest_links(self, nodes: Keys, m: int) -> Int32s:
        """The links of *nodes* on the lowest layer: shape (n, 2 * m), -1 for none."""
        links: Int32s = self.neighbors[_link_offsets(self.levels, m)[nodes][:, None] + np.arange(2 * m)]
        return links

    def first_neighbors(self, nodes: Keys, accepted: Mask, m: int) -> Keys:
        """The first *accepted* neighbour of each of *nodes* on the lowest layer; -1 if there is none."""
        targets = self.lowest_links(nodes, m)
        matches = (targets >= 0) & accepted[targets]
        return np.where(matches.any(axis=1), targets[np.arange(len(nodes)), matches.argmax(axis=1)], -1)


def _max_layers(m: int) -> int:
    """How many layers a graph can have: FAISS uses none with a probability under 1e-9."""
    layers = 0
    while m**-layers * (1 - 1 / m) >= 1e-9:
        layers += 1
    return layers


def _link_offsets(levels: Int32s, m: int) -> npt.NDArray[np.int64]:
    """Where the links of each node start, and where those of the last one end: shape (nodes + 1,)."""
    return np.concatenate([[0], np.cumsum((levels.astype(np.int64) + 1) * m)])


class Graph:
    """A graph in use. It never changes, except for the storage that holds its vectors.

    Attributes:
        options: how it was built.
        nodes: number of vectors that it covers.
        digest: of its links when it was created.
    """

    def __init__(self, faiss: Any, index: Any, options: GraphOptions) -> None:
        self._faiss = faiss
        self._index = index
        self._owner: object = None
        self._by_distance = bool(index.metric_type == faiss.METRIC_L2)
        self.options = options
        self.nodes = int(index.ntotal)
        self.digest = self.links().digest()

    @property
    def bytes(self) -> int:
        """Memory of its links."""
        hnsw = self._index.hnsw
        return int(4 * hnsw.neighbors.size() + 4 * hnsw.levels.size() + 8 * hnsw.offsets.size())

    def use_storage(self, storage: VectorStorage) -> None:
        """Read the vectors from *storage* from now on. Needs exclusive access."""
        if storage.owner is not self._owner:
            self._owner = self._index.storage = storage.owner

    def search(self, queries: Rows, limit: int, ef_search: int) -> tuple[Keys, Rows]:
        """The nodes nearest to each query, best first, and their similarities: products, or negative squared distances.

        Args:
            queries: float32, shape (q, dimension of the storage), in index form.
            limit: number of nodes per query.
            ef_search: candidates kept.

        Returns:
            Positions, int64, -1 for none, and similarities, float32: both of shape (q, limit).
        """
        faiss = self._faiss
        faiss.omp_set_num_threads(1 if len(queries) < _PARALLEL_QUERIES else _processors())
        labels = np.empty((len(queries), limit), dtype=np.int64)
        distances = np.empty((len(queries), limit), dtype=np.float32)
        parameters = faiss.SearchParametersHNSW()
        parameters.efSearch = ef_search
        self._index.search_c(
            len(queries),
            faiss.swig_ptr(queries),
            limit,
            faiss.swig_ptr(distances),
            faiss.swig_ptr(labels),
            parameters,
        )
        return labels, np.negative(distances, out=distances) if self._by_distance else distances

    def links(self) -> GraphLinks:
        """A copy of its links."""
        hnsw, faiss = self._index.hnsw, self._faiss
        neighbors = faiss.rev_swig_ptr(hnsw.neighbors.data(), hnsw.neighbors.size()).copy()
        return GraphLinks(faiss.vector_to_array(hnsw.levels), neighbors, int(hnsw.entry_point), int(hnsw.max_level))


def bitmap_selector(faiss: Any, positions: Keys, count: int) -> tuple[Any, object]:
    """FAISS's selector of *positions* among *count*, and the memory that must outlive it."""
    mask = np.zeros(count, dtype=np.bool_)
    mask[positions] = True
    bits = np.packbits(mask, bitorder="little")
    return faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits)), bits


class GraphBuilder:
    """Allocates memory for vectors in FAISS, and creates graphs over it."""

    def __init__(self, faiss: Any) -> None:
        self._faiss = faiss

    def allocate(self, metric: Measure, dimension: int, vector_type: VectorType, capacity: int) -> VectorStorage:
        """Memory for *capacity* vectors, owned by FAISS, so that a graph can be built over it.

        A graph under inner product is one of distances: its vectors have one more component, see `walk`.
        """
        faiss = self._faiss
        by_angle = metric in ANGULAR_METRICS
        faiss_metric = faiss.METRIC_INNER_PRODUCT if by_angle else faiss.METRIC_L2
        if vector_type == "float16":
            owner = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss_metric)
        else:
            owner = faiss.IndexFlat(dimension, faiss_metric)
        dtype = np.dtype(_DTYPES[vector_type])
        rows = capacity + scratch_rows(dimension)
        size = rows * dimension * dtype.itemsize
        owner.codes.resize(size)
        owner.ntotal = rows
        memory = faiss.rev_swig_ptr(owner.codes.data(), size)
        scan = partial(self._scan, owner) if vector_type == "float16" else None
        return VectorStorage(memory.view(dtype).reshape(rows, dimension)[:capacity], owner, scan)

    def _scan(self, owner: Any, queries: Rows, limit: int, span: range, positions: Keys | None) -> list[Keys]:
        """See `VectorStorage.scan`. FAISS compares float16 twice as fast as float32; NumPy takes 20 times as long."""
        faiss = self._faiss
        faiss.omp_set_num_threads(1)
        total = len(span) if positions is None else len(positions)
        count = min(2 * limit + _SPARE_RESULTS, total)
        labels = np.empty((len(queries), count), dtype=np.int64)
        similarities = np.empty((len(queries), count), dtype=np.float32)
        parameters = faiss.SearchParameters()
        if positions is None:
            selector, memory = faiss.IDSelectorRange(span.start, span.stop), None
        else:
            selector, memory = bitmap_selector(faiss, positions, span.stop)
        parameters.sel = selector
        pointers = (faiss.swig_ptr(queries), count, faiss.swig_ptr(similarities), faiss.swig_ptr(labels))
        owner.search_c(len(queries), *pointers, parameters)
        nearest: list[Keys] = []
        for query, found_labels, values in zip(queries, labels, similarities, strict=True):
            lowest = tolerance("cosine", query, 1.0, stored=np.float16).lowest(values[limit - 1])
            if count < total and values[-1] >= lowest:  # more rows than these can be among the nearest
                ranges = faiss.RangeSearchResult(1)
                radius = float(np.nextafter(np.float32(lowest), np.float32(-np.inf)))
                owner.range_search_c(1, faiss.swig_ptr(query), radius, ranges, parameters)
                size = int(faiss.rev_swig_ptr(ranges.lims, 2)[1])
                nearest.append(faiss.rev_swig_ptr(ranges.labels, size).copy())
            else:
                nearest.append(found_labels[(values >= lowest) & (found_labels >= 0)])
        del selector, memory  # FAISS does not own them: they must live until here
        return nearest

    def start(self, options: GraphOptions, storage: VectorStorage, base: Graph | None = None) -> "GraphConstruction":
        """A graph under construction: empty, or with a copy of the links of *base*."""
        links = None if base is None else base.links()
        return GraphConstruction(self._faiss, self._hnsw_index(options, storage, links), options)

    def from_links(self, links: GraphLinks, options: GraphOptions, storage: VectorStorage) -> Graph:
        """The graph with *links*, which passed `GraphLinks.check`."""
        graph = Graph(self._faiss, self._hnsw_index(options, storage, links), options)
        graph.use_storage(storage)
        return graph

    def _hnsw_index(self, options: GraphOptions, storage: VectorStorage, links: GraphLinks | None) -> Any:
        faiss = self._faiss
        index = faiss.IndexHNSW(storage.owner, options.m)
        index.own_fields = False
        hnsw = index.hnsw
        hnsw.efConstruction = options.ef_construction
        if links is not None:
            faiss.copy_array_to_vector(links.levels, hnsw.levels)
            faiss.copy_array_to_vector(_link_offsets(links.levels, options.m).astype(np.uint64), hnsw.offsets)
            hnsw.neighbors.resize(len(links.neighbors))
            faiss.rev_swig_ptr(hnsw.neighbors.data(), len(links.neighbors))[:] = links.neighbors
            hnsw.entry_point, hnsw.max_level = links.entry, links.top
            # Without another seed it would draw the same levels again.
            hnsw.rng = faiss.RandomGenerator(12_345 + len(links.levels))
            index.ntotal = len(links.levels)
        return index


def _processors() -> int:
    return min(os.cpu_count() or 1, 8)


class GraphConstruction:
    """A graph that is not in use yet."""

    def __init__(self, faiss: Any, index: Any, options: GraphOptions) -> None:
        self._faiss = faiss
        self._index = index
        self._options = options

    @property
    def nodes(self) -> int:
        """Number of linked vectors."""
        return int(self._index.ntotal)

    def link(self, storage: VectorStorage, count: int) -> None:
        """Link the next *count* rows of *storage*, at most `scratch_rows`, on half of the processors."""
        faiss, index = self._faiss, self._index
        faiss.omp_set_num_threads(max(1, _processors() // 2))
        start = self.nodes
        rows = np.ascontiguousarray(storage.rows[start : start + count], dtype=np.float32)
        owner: Any = storage.owner
        index.storage = owner
        owner.ntotal = len(storage.rows) + scratch_rows(index.d) - len(rows)
        index.add_c(len(rows), faiss.swig_ptr(rows))
        index.ntotal = start + len(rows)

    def append(self, count: int) -> None:
        """Cover the next *count* rows by nodes without links, which no walk reaches."""
        index, hnsw, faiss = self._index, self._index.hnsw, self._faiss
        links = 2 * self._options.m
        nodes, slots = hnsw.levels.size(), hnsw.neighbors.size()
        hnsw.levels.resize(nodes + count)
        hnsw.offsets.resize(nodes + 1 + count)
        hnsw.neighbors.resize(slots + count * links)
        faiss.rev_swig_ptr(hnsw.levels.data(), nodes + count)[nodes:] = 1
        ends = slots + links * np.arange(1, count + 1)
        faiss.rev_swig_ptr(hnsw.offsets.data(), nodes + 1 + count)[nodes + 1 :] = ends
        faiss.rev_swig_ptr(hnsw.neighbors.data(), slots + count * links)[slots:] = -1
        index.ntotal += count

    def finish(self, storage: VectorStorage) -> Graph:
        """The finished graph, which reads its vectors from *storage*."""
        graph = Graph(self._faiss, self._index, self._options)
        graph.use_storage(storage)
        return graph

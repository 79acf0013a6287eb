"""The byte format of a graph snapshot: the keys of the nodes, the links and the coverage; without vectors.

One stream in chunks: keys (int64), levels (uint8), links (int32), all in the order of the nodes, then the duplicates,
their originals and the outliers (int32); all little-endian. About 150 bytes per vector. A node whose vector was deleted
has the key `DELETED_KEY`.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from memstore.config import GraphOptions
from memstore.index.hnsw import BrokenLinksError, GraphLinks
from memstore.index.recall import Calibration, Effort
from memstore.index.walk import Coverage
from memstore.repository.sqlite_only.index_snapshots import CHUNK, BrokenSnapshotError
from memstore.vectors.arrays import Keys
from memstore.vectors.space import Space

FORMAT = 2
DELETED_KEY = np.iinfo(np.int64).min


class SnapshotContent(NamedTuple):
    """The content of a snapshot."""

    keys: Keys
    links: GraphLinks
    options: GraphOptions
    calibration: Calibration
    coverage: Coverage
    radius: float

    def parameters(self, space: Space) -> dict[str, Any]:
        """The header of the snapshot, as JSON."""
        return {
            "format": FORMAT,
            "nodes": len(self.keys),
            "links": len(self.links.neighbors),
            "entry": self.links.entry,
            "top": self.links.top,
            "m": self.options.m,
            "ef_construction": self.options.ef_construction,
            "effort": self.calibration.ef_search,  # this name is part of the file format
            "recall": self.calibration.recall,
            "efforts": [list(effort) for effort in self.calibration.efforts],
            "duplicates": len(self.coverage.duplicates),
            "outliers": len(self.coverage.outliers),
            "radius": self.radius,
            "dimension": space.dimension,
            "metric": space.metric,
        }

    def chunks(self) -> Iterator[bytes]:
        """The bytes, in chunks of `CHUNK`."""
        parts = (
            self.keys.astype("<i8", copy=False),
            self.links.levels.astype("<u1"),
            self.links.neighbors.astype("<i4", copy=False),
            self.coverage.duplicates.astype("<i4"),
            self.coverage.originals.astype("<i4"),
            self.coverage.outliers.astype("<i4"),
        )
        buffer = b""
        for part in parts:
            view = memoryview(part).cast("B")  # type: ignore[arg-type]
            start = 0
            while len(view) - start >= CHUNK - len(buffer):
                stop = start + CHUNK - len(buffer)
                yield buffer + bytes(view[start:stop])
                buffer, start = b"", stop
            buffer += bytes(view[start:])
        if buffer:
            yield buffer


def matches(parameters: Mapping[str, Any], options: GraphOptions, space: Space) -> bool:
    """Whether a snapshot with this header is valid, and of a graph with *options* in *space*."""
    expected = {
        "format": FORMAT,
        "m": options.m,
        "ef_construction": options.ef_construction,
        "dimension": space.dimension,
        "metric": space.metric,
    }
    return is_valid_header(parameters) and all(parameters.get(name) == value for name, value in expected.items())


def is_valid_header(parameters: Mapping[str, Any]) -> bool:
    """Whether every value of a header has its type and range."""
    minima = {
        "format": FORMAT,
        "m": 4,
        "nodes": 1,
        "links": 0,
        "entry": 0,
        "top": 0,
        "effort": 1,
        "duplicates": 0,
        "outliers": 0,
    }
    recall, radius, efforts = (parameters.get(name, "") for name in ("recall", "radius", "efforts"))
    return (
        all(type(parameters.get(n)) is int and least <= parameters[n] < 2**40 for n, least in minima.items())
        and (recall is None or _is_share(recall))
        and type(radius) is float
        and 0 <= radius < np.inf
        and type(efforts) is list
        and all(map(_is_effort, efforts))
        and all(lower[0] < upper[0] and lower[1] <= upper[1] for lower, upper in pairwise(efforts))
    )


def _is_share(value: object) -> bool:
    return type(value) is float and 0 <= value <= 1


def _is_effort(value: object) -> bool:
    if type(value) is not list or len(value) != 3:
        return False
    limit, ef_search, recall = value
    return type(limit) is int and type(ef_search) is int and min(limit, ef_search) >= 1 and _is_share(recall)


def calibration(parameters: Mapping[str, Any], options: GraphOptions) -> Calibration:
    """How to search the graph of a snapshot with a valid header; `ef_search` of *options* overrides the stored one."""
    if options.ef_search is not None:
        return Calibration(options.ef_search, parameters["recall"], nodes=0)
    efforts = tuple(Effort(*effort) for effort in parameters["efforts"])
    return Calibration(int(parameters["effort"]), parameters["recall"], nodes=0, efforts=efforts)


def count_chunks(parameters: Mapping[str, Any]) -> int:
    """Number of chunks of a snapshot."""
    return -(-_size(parameters) // CHUNK)


def _size(parameters: Mapping[str, Any]) -> int:
    extra = 2 * int(parameters["duplicates"]) + int(parameters["outliers"])
    return 9 * int(parameters["nodes"]) + 4 * (int(parameters["links"]) + extra)


def read_keys(parameters: Mapping[str, Any], read_chunk: Callable[[int], bytes]) -> Keys:
    """The keys of the nodes; *read_chunk* returns a chunk by number. Raises `BrokenSnapshotError`."""
    size = 8 * int(parameters["nodes"])
    data = b"".join(read_chunk(number) for number in range(-(-size // CHUNK)))
    if len(data) < size:
        raise BrokenSnapshotError(f"the keys are truncated: expected {size} bytes, found {len(data)}")
    return np.frombuffer(data[:size], "<i8").astype(np.int64)


class StoredGraph(NamedTuple):
    """The graph of a snapshot: its links, which are safe to follow, and positions as in `Coverage`."""

    links: GraphLinks
    duplicates: Keys
    originals: Keys
    outliers: Keys


def read_graph(parameters: Mapping[str, Any], read_chunk: Callable[[int], bytes]) -> StoredGraph:
    """The graph of a snapshot; *read_chunk* as in `read_keys`. Raises `BrokenSnapshotError`."""
    nodes, size = int(parameters["nodes"]), _size(parameters)
    try:
        memory = np.empty(size, dtype=np.uint8)
    except MemoryError as error:
        raise BrokenSnapshotError(f"its size in the header, {size} bytes, exceeds memory") from error
    for number in range(count_chunks(parameters)):
        data = read_chunk(number)
        start = number * CHUNK
        if len(data) != min(CHUNK, size - start):
            raise BrokenSnapshotError("its size differs from the size in the header")
        memory[start : start + len(data)] = np.frombuffer(data, np.uint8)
    levels = np.frombuffer(memory, "<u1", nodes, 8 * nodes).astype(np.int32)
    numbers = np.frombuffer(memory, "<i4", offset=9 * nodes).astype(np.int32, copy=False)
    counts = [int(parameters[name]) for name in ("links", "duplicates", "duplicates", "outliers")]
    neighbors, *positions = np.split(numbers, np.cumsum(counts)[:-1])
    links = GraphLinks(levels, neighbors, int(parameters["entry"]), int(parameters["top"]))
    try:
        links.check(int(parameters["m"]))
    except BrokenLinksError as error:
        raise BrokenSnapshotError(f"it has invalid links: {error}") from error
    duplicates, originals, outliers = (column.astype(np.int64) for column in positions)
    for column in (duplicates, originals, outliers):
        if len(column) and not 0 <= int(column.min()) <= int(column.max()) < nodes:
            raise BrokenSnapshotError("it refers to nodes that it does not have")
    if len(np.unique(duplicates)) < len(duplicates) or np.isin(originals, duplicates).any():
        raise BrokenSnapshotError("a duplicate occurs twice")
    return StoredGraph(links, duplicates, originals, np.unique(outliers))

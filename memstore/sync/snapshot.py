"""A graph as bytes, without its vectors: which keys its nodes are, and its links.

One stream, cut into chunks: keys (int64), levels (uint8), links (int32), all little-endian, in the order of the
nodes. About 150 bytes a vector. A node whose vector is gone has the key `GONE`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from memstore.config import GraphOptions
from memstore.index.hnsw import BrokenLinksError, Graph, Links
from memstore.index.protocol import Keys
from memstore.repository.sqlite_only.index_snapshots import CHUNK, BrokenSnapshotError
from memstore.vectors.space import Space

FORMAT = 1
GONE = np.iinfo(np.int64).min


class Contents(NamedTuple):
    """What a snapshot holds."""

    keys: Keys
    links: Links
    graph: Graph

    def parameters(self, space: Space) -> dict[str, Any]:
        """What the snapshot says of itself, as JSON."""
        return {
            "format": FORMAT,
            "nodes": len(self.keys),
            "links": len(self.links.neighbors),
            "entry": self.links.entry,
            "top": self.links.top,
            "m": self.graph.options.m,
            "ef_construction": self.graph.options.ef_construction,
            "effort": self.graph.effort,
            "recall": self.graph.recall,
            "dimension": space.dimension,
            "metric": space.metric,
        }

    def stream(self) -> Iterator[bytes]:
        """Its chunks, in order."""
        parts = (
            self.keys.astype("<i8", copy=False),
            self.links.levels.astype("<u1"),
            self.links.neighbors.astype("<i4", copy=False),
        )
        held = b""
        for part in parts:
            view = memoryview(part).cast("B")  # type: ignore[arg-type]
            start = 0
            while len(view) - start >= CHUNK - len(held):
                stop = start + CHUNK - len(held)
                yield held + bytes(view[start:stop])
                held, start = b"", stop
            held += bytes(view[start:])
        if held:
            yield held


def fits(parameters: Mapping[str, Any], options: GraphOptions, space: Space) -> bool:
    """Whether a snapshot is of the graph that *options* and *space* ask for."""
    asked = {
        "format": FORMAT,
        "m": options.m,
        "ef_construction": options.ef_construction,
        "dimension": space.dimension,
        "metric": space.metric,
    }
    return sound(parameters) and all(parameters.get(name) == value for name, value in asked.items())


def sound(parameters: Mapping[str, Any]) -> bool:
    """Whether a snapshot says of itself what one of ours could."""
    least = {"format": FORMAT, "m": 4, "nodes": 1, "links": 0, "entry": 0, "top": 0, "effort": 1}
    recall = parameters.get("recall", "")
    return all(
        type(parameters.get(name)) is int and number <= parameters[name] < 2**40 for name, number in least.items()
    ) and (recall is None or (type(recall) is float and 0 <= recall <= 1))


def chunks(parameters: Mapping[str, Any]) -> int:
    """How many chunks a snapshot has."""
    return -(-_size(parameters) // CHUNK)


def _size(parameters: Mapping[str, Any]) -> int:
    return 9 * int(parameters["nodes"]) + 4 * int(parameters["links"])


def keys_of(parameters: Mapping[str, Any], read: Callable[[int], bytes]) -> Keys:
    """The keys of the nodes; *read* gives a chunk by its number. Raises `BrokenSnapshotError`."""
    size = 8 * int(parameters["nodes"])
    data = b"".join(read(number) for number in range(-(-size // CHUNK)))
    if len(data) < size:
        raise BrokenSnapshotError("it ends too soon")
    return np.frombuffer(data[:size], "<i8").astype(np.int64)


def links_of(parameters: Mapping[str, Any], read: Callable[[int], bytes]) -> Links:
    """The links, found to be ones that can be followed. Raises `BrokenSnapshotError`."""
    nodes, size = int(parameters["nodes"]), _size(parameters)
    try:
        memory = np.empty(size, dtype=np.uint8)
    except MemoryError as error:
        raise BrokenSnapshotError("it says that it is larger than memory") from error
    for number in range(chunks(parameters)):
        data = read(number)
        start = number * CHUNK
        if len(data) != min(CHUNK, size - start):
            raise BrokenSnapshotError("it has not the size it says")
        memory[start : start + len(data)] = np.frombuffer(data, np.uint8)
    levels = np.frombuffer(memory, "<u1", nodes, 8 * nodes).astype(np.int32)
    neighbors = np.frombuffer(memory, "<i4", offset=9 * nodes).astype(np.int32, copy=False)
    links = Links(levels, neighbors, int(parameters["entry"]), int(parameters["top"]))
    try:
        links.check(int(parameters["m"]))
    except BrokenLinksError as error:
        raise BrokenSnapshotError(f"it has links that cannot be: {error}") from error
    return links

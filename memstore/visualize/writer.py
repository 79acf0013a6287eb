"""`write_map`: reads a store, draws a sample of its memories, and writes the page.

At most *limit* memories and their vectors are in memory. A store with more is sampled: the sample is the memories whose
ids have the smallest hashes, so it is the same for every run and every memory is equally likely to be in it.
"""

import asyncio
import hashlib
import heapq
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from memstore.api.namespace import StoreNamespace
from memstore.api.store import Store
from memstore.config import path_text
from memstore.database.file_modes import create_file, mode_like
from memstore.errors import InvalidError, MissingFileError
from memstore.models.records import Memory, Namespace
from memstore.timestamps import EPOCH
from memstore.validation.values import check_count
from memstore.visualize.page import PAGE_PREFIX, Group, MapData, Point, render_page
from memstore.visualize.projection import project_to_plane

MAX_POINTS = 100_000
"""The default limit of points: a frame of the page takes 24 ms with so many."""

_LARGEST_LIMIT = 1_000_000
_LARGEST_TEXT_LIMIT = 10_000
_DIRECTIONAL = frozenset({"cosine", "spherical"})
"""Metrics that ignore the length of vectors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapReport:
    """What a page shows.

    Attributes:
        memories: number of memories in the namespace.
        points: number of memories on the map.
        without_embedding: number of memories without a vector; they are not on the map.
        assemblies: number of assemblies in the namespace.
        variance: share of the variance of the vectors that the projection keeps, 0 to 1.
        size: size of the page in bytes.
    """

    memories: int
    points: int
    without_embedding: int
    assemblies: int
    variance: float
    size: int


async def write_map(
    store: Store,
    path: str | os.PathLike[str],
    *,
    namespace: Namespace = (),
    limit: int = MAX_POINTS,
    text_limit: int = 160,
    title: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> MapReport:
    """Write the map of a namespace and its descendants to *path*, as one HTML page.

    On one machine, an unchanged store gives the same page, byte for byte. Takes no lock: the page may or may not
    contain changes that are made during the call.

    Args:
        store: an open store.
        path: the file to write. A map at this path is replaced atomically; any other file is not replaced. A new
            page has the permissions of the store's file.
        namespace: the namespace to show; `()` is the whole store.
        limit: the largest number of points, 1 to 1,000,000. A namespace with more memories is sampled.
        text_limit: the number of characters of each memory that the page contains, 0 to 10,000.
        title: the title of the page; by default the name of the store's file.
        on_progress: called with the number of memories read so far, and the number of all memories.

    Raises:
        InvalidError: an argument is out of its range, or the file at *path* is not a map.
        MissingFileError: the folder of *path* does not exist.
    """
    target = Path(path_text(path))
    check_count("limit", limit, 1, _LARGEST_LIMIT)
    check_count("text_limit", text_limit, 0, _LARGEST_TEXT_LIMIT)
    await asyncio.to_thread(_check_target, target)
    root = store.namespace(*namespace)
    sample = _Sample(limit, text_limit, store.dimension or 0)
    total = await root.memories.count(recursive=True)
    count = 0
    async for memory in root.memories.list(recursive=True):
        sample.add(memory)
        count += 1
        if on_progress is not None and (count % 1_000 == 0 or count == total):
            on_progress(count, total)
    points, vectors = sample.points_and_vectors()
    groups = await _groups(store, root, points)
    file = (await store.stats()).path
    page_title = Path(file).name if title is None else title

    def write_page() -> tuple[float, int]:
        if store.metric in _DIRECTIONAL:
            _normalise(vectors)
        positions, variance = project_to_plane(vectors)
        data = MapData(
            title=page_title,
            metric=store.metric,
            memories=count,
            without_embedding=sample.without_embedding,
            variance=variance,
            text_limit=text_limit,
            points=points,
            positions=positions,
            groups=groups,
        )
        page = render_page(data)
        _replace(target, page, mode_like(file))
        return variance, len(page)

    variance, size = await asyncio.to_thread(write_page)
    return MapReport(
        memories=count,
        points=len(points),
        without_embedding=sample.without_embedding,
        assemblies=len(groups),
        variance=variance,
        size=size,
    )


class _SampleEntry(NamedTuple):
    """A memory in the sample. Entries compare by rank: the next one to be replaced is the smallest."""

    rank: int
    order: int
    row: int
    point: Point


class _Sample:
    """The *limit* memories with the smallest hashes among those added, and their vectors."""

    def __init__(self, limit: int, text_limit: int, dimension: int) -> None:
        self._limit = limit
        self._text_limit = text_limit
        self._heap: list[_SampleEntry] = []
        self._vectors = np.empty((0, dimension), dtype=np.float32)
        self._order = 0
        self.without_embedding = 0

    def add(self, memory: Memory) -> None:
        """Add a memory if it has a vector and its hash is small enough."""
        if memory.embedding is None:
            self.without_embedding += 1
            return
        self._order += 1
        rank = -_hash(memory.namespace, memory.id)
        if len(self._heap) < self._limit:
            row = len(self._heap)
            if row == len(self._vectors):
                rows = min(self._limit, max(1_024, row * 2))
                self._vectors = np.resize(self._vectors, (rows, memory.embedding.size))
            heapq.heappush(self._heap, _SampleEntry(rank, self._order, row, self._point(memory)))
        elif rank > self._heap[0].rank:
            row = self._heap[0].row
            heapq.heapreplace(self._heap, _SampleEntry(rank, self._order, row, self._point(memory)))
        else:
            return
        self._vectors[row] = memory.embedding

    def _point(self, memory: Memory) -> Point:
        text = " ".join(memory.content[: self._text_limit * 4].split())
        return Point(
            id=memory.id,
            namespace=memory.namespace,
            text=text if len(text) <= self._text_limit else text[: self._text_limit].rstrip() + "…",
            tags=tuple(sorted(memory.tags)),
            created=(memory.created_at - EPOCH).total_seconds(),
            importance=memory.importance,
        )

    def points_and_vectors(self) -> tuple[list[Point], npt.NDArray[np.float32]]:
        """The points in the order they were added, and their vectors: float32, shape (points, dimension)."""
        entries = sorted(self._heap, key=lambda entry: entry.order)
        return [entry.point for entry in entries], self._vectors[[entry.row for entry in entries]]


def _hash(namespace: Namespace, id: str) -> int:
    digest = hashlib.blake2b("\0".join((*namespace, id)).encode(), digest_size=8).digest()
    return int.from_bytes(digest)


async def _groups(store: Store, root: StoreNamespace, points: list[Point]) -> list[Group]:
    """The assemblies with those of their members that are on the map; the largest first."""
    numbers = {(point.namespace, point.id): number for number, point in enumerate(points)}
    groups = []
    async for assembly in root.assemblies.list(recursive=True):
        assemblies = store.namespace(*assembly.namespace).assemblies
        members = [
            number
            async for id in assemblies.members(assembly.id)
            if (number := numbers.get((assembly.namespace, id))) is not None
        ]
        groups.append(
            Group(
                id=assembly.id,
                name=assembly.name or assembly.id,
                tags=(*sorted(assembly.tags), *assembly.topics),
                size=assembly.member_count,
                members=members,
            )
        )
    return sorted(groups, key=lambda group: (-len(group.members), group.name, group.id))


def _normalise(vectors: npt.NDArray[np.float32]) -> None:
    """Scale every row to length 1, in place; first by its largest number, so that no square overflows."""
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
    vectors /= np.where(largest > 0, largest, 1)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)


def _check_target(path: Path) -> None:
    """Raise if the page cannot be written to *path*, or if it would replace a file that is not a map."""
    if not path.parent.is_dir():
        raise MissingFileError(f"The folder {str(path.parent)!r} does not exist. Create it, or give another path.")
    if not path.exists():
        return
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(PAGE_PREFIX)) == PAGE_PREFIX:
                return
    raise InvalidError(f"{str(path)!r} exists and is not a map, so it is not replaced. Give another path.")


def _replace(path: Path, page: bytes, mode: int) -> None:
    """Write *page* to *path*, completely or not at all. A new file gets *mode*, another keeps its own."""
    temporary = path.with_name(f".memstore-map-{secrets.token_hex(8)}")
    try:
        with open(create_file(temporary, mode, like=path), "wb") as file:
            file.write(page)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

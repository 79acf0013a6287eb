"""What is drawn of a store: which memories, which groups, and the file that is written of them.

At most *limit* memories are in memory, with their vectors. Where there are more, those are drawn whose ids have the
smallest hashes: the same ones each time, and each as likely as any other.
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

from memstore.api.store import Store, StoreNamespace
from memstore.config import path_text
from memstore.errors import InvalidError, MissingFileError
from memstore.models.records import Memory, Namespace
from memstore.timestamps import EPOCH
from memstore.validation.values import check_count
from memstore.visualize.page import MARK, Group, Picture, Point, page
from memstore.visualize.projection import plane

MAX_POINTS = 100_000
"""Points of a page, unless the caller says otherwise: what an ordinary machine draws without a stutter."""

MOST_POINTS = 1_000_000
_DIRECTIONAL = frozenset({"cosine", "spherical"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What a page shows.

    Attributes:
        memories: how many there are.
        points: how many of them are drawn.
        without_embedding: how many of them have no vector, and so no place.
        assemblies: how many groups.
        variance: the share of the variance of the vectors that the plane shows, 0 to 1.
        size: of the page, in bytes.
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
    text: int = 160,
    title: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Drawn:
    """Draw a namespace and all below it as one page of HTML at *path*.

    On one machine the same store gives the same page, byte for byte. Takes no lock; what changes meanwhile may be in it
    or not.

    Args:
        store: an open store.
        path: the page; an older one that this function wrote is replaced, whole.
        namespace: what to draw; the root is all of it.
        limit: points at most, 1 to 1,000,000; the page says so where there are more memories.
        text: characters of each memory that the page shows and searches, 0 to 10,000.
        title: of the page; the name of the store's file if left out.
        on_progress: called with how many memories were read, and how many there are.

    Raises:
        InvalidError: there is a file at *path* that is no such page.
        MissingFileError: its folder does not exist.
    """
    target = Path(path_text(path))
    check_count("limit", limit, 1, MOST_POINTS)
    check_count("text", text, 0, 10_000)
    await asyncio.to_thread(_check_target, target)
    place = store.namespace(*namespace)
    chosen = _Chosen(limit, text, store.dimension)
    memories = await place.memories.count(recursive=True)
    read = 0
    async for memory in place.memories.list(recursive=True):
        chosen.offer(memory)
        read += 1
        if on_progress is not None and (read % 1_000 == 0 or read == memories):
            on_progress(read, memories)
    points, vectors = chosen.settled()
    groups = await _groups(store, place, points)
    name = Path((await store.stats()).path).name if title is None else title

    def write() -> tuple[float, int]:
        if store.metric in _DIRECTIONAL:
            _normalise(vectors)
        places, variance = plane(vectors)
        picture = Picture(
            title=name,
            metric=store.metric,
            memories=read,
            without_embedding=chosen.without_embedding,
            variance=variance,
            text=text,
            points=points,
            places=places,
            groups=groups,
        )
        data = page(picture)
        _replace(target, data)
        return variance, len(data)

    variance, size = await asyncio.to_thread(write)
    return Drawn(
        memories=read,
        points=len(points),
        without_embedding=chosen.without_embedding,
        assemblies=len(groups),
        variance=variance,
        size=size,
    )


class _Kept(NamedTuple):
    """A memory that is drawn unless others come first; the one that comes last is the least of the heap."""

    rank: int
    order: int
    slot: int
    point: Point


class _Chosen:
    """The memories that are drawn, of those offered so far, and their vectors."""

    def __init__(self, limit: int, text: int, dimension: int) -> None:
        self._limit = limit
        self._text = text
        self._kept: list[_Kept] = []
        self._vectors = np.empty((0, dimension), dtype=np.float32)
        self._order = 0
        self.without_embedding = 0

    def offer(self, memory: Memory) -> None:
        """Take one more memory into account."""
        if memory.embedding is None:
            self.without_embedding += 1
            return
        self._order += 1
        rank = -_hash(memory.namespace, memory.id)
        if len(self._kept) < self._limit:
            slot = len(self._kept)
            if slot == len(self._vectors):
                self._vectors = np.resize(
                    self._vectors, (min(self._limit, max(1_024, slot * 2)), memory.embedding.size)
                )
            heapq.heappush(self._kept, _Kept(rank, self._order, slot, self._point(memory)))
        elif rank > self._kept[0].rank:
            slot = self._kept[0].slot
            heapq.heapreplace(self._kept, _Kept(rank, self._order, slot, self._point(memory)))
        else:
            return
        self._vectors[slot] = memory.embedding

    def _point(self, memory: Memory) -> Point:
        shown = " ".join(memory.content[: self._text * 4].split())
        return Point(
            id=memory.id,
            namespace=memory.namespace,
            text=shown if len(shown) <= self._text else shown[: self._text].rstrip() + "…",
            tags=tuple(sorted(memory.tags)),
            created=(memory.created_at - EPOCH).total_seconds(),
            importance=memory.importance,
        )

    def settled(self) -> tuple[list[Point], npt.NDArray[np.float32]]:
        """The points in order of creation, and their vectors; nothing may be offered afterwards."""
        kept = sorted(self._kept, key=lambda one: one.order)
        return [one.point for one in kept], self._vectors[[one.slot for one in kept]]


def _hash(namespace: Namespace, id: str) -> int:
    digest = hashlib.blake2b("\0".join((*namespace, id)).encode(), digest_size=8).digest()
    return int.from_bytes(digest)


async def _groups(store: Store, place: StoreNamespace, points: list[Point]) -> list[Group]:
    """The assemblies, each with those of its members that are drawn; the largest first."""
    numbers = {(point.namespace, point.id): number for number, point in enumerate(points)}
    groups = []
    async for assembly in place.assemblies.list(recursive=True):
        home = store.namespace(*assembly.namespace).assemblies
        members = [
            number
            async for id in home.members(assembly.id)
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
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
    vectors /= np.where(largest > 0, largest, 1)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)


def _check_target(path: Path) -> None:
    """Raise where the page would take the place of something else."""
    if not path.parent.is_dir():
        raise MissingFileError(f"there is no folder {str(path.parent)!r} to write a page in")
    if not path.exists():
        return
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(MARK)) == MARK:
                return
    raise InvalidError(f"{str(path)!r} exists and is no page of memstore's, so it is not replaced: give another path")


def _replace(path: Path, data: bytes) -> None:
    """Put *data* at *path*, whole or not at all."""
    beside = path.with_name(f".memstore-map-{secrets.token_hex(8)}")
    try:
        with beside.open("xb") as file:
            file.write(data)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise

"""Keeping the graphs in shape: a task of the store's own that works while there is something to do.

It builds a graph, folds the tail into it, builds it anew when enough of it is dead, and writes snapshots. Nothing
waits for it, and nothing is lost if it ends in the middle: what it makes can be made again from the rows.

The work runs on threads, a piece at a time. The graph that is searched is never touched: pieces are linked into a
private copy, which takes its place under the lock. The rows a piece reads are pinned, so it reads them without.
"""

import asyncio
import logging
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np

from memstore.concurrency import in_thread
from memstore.database import Database
from memstore.database.transactions import snapshot
from memstore.errors import BusyError, MemstoreError
from memstore.index import planner
from memstore.index.faiss_engine import FaissEngine
from memstore.index.hnsw import Graph, GrowingGraph, scratch
from memstore.index.hybrid import HybridIndex
from memstore.index.recall import measured
from memstore.models.records import RecordKind
from memstore.repository.sqlite_only import change_log, index_snapshots
from memstore.repository.sqlite_only.index_snapshots import Header
from memstore.sync.follower import Follower
from memstore.sync.snapshot import GONE, Contents, chunks, fits, links_of
from memstore.vectors.space import Space

T = TypeVar("T")

_PATIENCE = 0.25  # seconds of one wait for other writers
_REST = 60.0  # seconds after a failure in which nothing is tried again

_log = logging.getLogger("memstore")


class IndexMaintainer:
    """Tends the indexes of one store. Made in the event loop that the store belongs to."""

    def __init__(self, follower: Follower, database: Database) -> None:
        self._follower = follower
        self._database = database
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._again = False
        self._not_before = 0.0
        self._given_up: set[RecordKind] = set()  # whose snapshots could not be written this time
        moved = weakref.WeakMethod(self._moved)  # a thread may hold the follower: it must not hold a forgotten store
        follower.moved = lambda: told() if (told := moved()) is not None else None

    def _moved(self) -> None:
        """Whoever moved the indexes says so, on any thread."""
        if self._stopping or time.monotonic() < self._not_before:
            return
        if any(self._next(kind, whole=False) for kind in self._follower.spaces):
            try:
                self._loop.call_soon_threadsafe(self._begin)
            except RuntimeError:
                self._stopping = True  # the loop was closed under the store

    def _busy(self) -> bool:
        return self._task is not None and not self._task.done()

    def _begin(self) -> None:
        self._again = True  # whoever is at work may have looked already
        if not self._busy() and not self._stopping:
            self._task = self._loop.create_task(self._tend(whole=False), name="memstore-tending")

    async def optimize(self) -> None:
        """Do all there is to do, small or not, and end when it is done."""
        while self._busy() and self._task is not None:
            await asyncio.wait([self._task])
        if not self._stopping:
            self._task = self._loop.create_task(self._tend(whole=True), name="memstore-tending")
            await asyncio.shield(self._task)

    async def stop(self) -> None:
        """End after the piece of work that is being done."""
        self._stopping = True
        while self._busy() and self._task is not None:
            await asyncio.wait([self._task])

    def resume(self) -> None:
        """Go on as before `stop`."""
        self._stopping = False

    async def _tend(self, *, whole: bool) -> None:
        self._given_up.clear()
        self._again = True
        try:
            while self._again:
                self._again = False
                for kind in self._follower.spaces:
                    while not self._stopping and (work := self._next(kind, whole=whole)) is not None:
                        await work()
        except Exception:
            # Not passed over: searches are exact without it, and whoever asked for the work is told.
            self._not_before = time.monotonic() + _REST
            if whole:
                raise
            _log.exception("the graph could not be tended; it is tried again in %.0f s at the earliest", _REST)

    def _next(self, kind: RecordKind, *, whole: bool) -> Callable[[], Any] | None:
        """What is to be done first; with *whole* even if it hardly pays."""
        index = self._follower.indexes.get(kind)
        if index is None or self._follower.applied is None:
            return None
        if index.expected is not None:
            return partial(self._attach, kind, index, index.expected)
        need = planner.need(
            wanted=self._wanted(index), nodes=index.nodes, tail=index.tail, dead=index.table.dead, whole=whole
        )
        if need == "drop":
            return partial(self._drop, kind, index)
        if need == "rebuild":
            return partial(self._rebuild, kind, index)
        if need is not None:
            return partial(self._fold, kind, index)
        return partial(self._write, kind, index) if self._unwritten(kind, index, whole=whole) else None

    def _wanted(self, index: HybridIndex) -> bool:
        if not isinstance(self._follower.engine, FaissEngine) or len(index) < index.unfit_until:
            return False
        return index.wants_graph()[0]

    async def _held(self, kind: RecordKind, index: HybridIndex, change: Callable[[], Any]) -> Any:
        """Do *change* with the indexes held alone; None where this one is not in use any more."""

        def step() -> Any:
            with self._follower.lock.exclusive():
                return change() if self._follower.indexes.get(kind) is index else None

        return await in_thread(step)

    async def _drop(self, kind: RecordKind, index: HybridIndex) -> None:
        await self._held(kind, index, index.drop_graph)

    async def _rebuild(self, kind: RecordKind, index: HybridIndex) -> None:
        await self._drop(kind, index)
        await self._fold(kind, index)

    async def _attach(self, kind: RecordKind, index: HybridIndex, header: Header) -> None:
        """Let the index have the graph that its entries were laid out for."""
        engine = self._follower.engine
        if not isinstance(engine, FaissEngine):
            raise TypeError("a graph was expected without FAISS")

        def read(connection: Any) -> Graph:
            with snapshot(connection):
                links = links_of(header.parameters, lambda number: index_snapshots.chunk(connection, header, number))
            graph = engine.graphs.of(links, self._follower.options.graph, index.table.storage)
            graph.effort = self._follower.options.graph.ef_search or int(header.parameters["effort"])
            graph.recall = header.parameters["recall"]
            return graph

        try:
            graph = await self._database.call(read)
        except index_snapshots.BrokenSnapshotError as error:
            _log.warning("a snapshot of the graph is damaged (%s): the graph is built anew", error)
            await self._drop(kind, index)
            return

        def attach() -> None:
            index.fill_dead(graph)
            index.publish(graph)

        await self._held(kind, index, attach)
        index.written = (graph.nodes, header.seq)
        if not self._database.settings.read_only:
            try:
                await self._forget(header.space_pk, header.pk)  # what a process left that ended too soon
            except MemstoreError as error:
                _log.warning("an older snapshot of the graph could not be deleted: %s", error)

    async def _fold(self, kind: RecordKind, index: HybridIndex) -> None:
        """Link the tail into a copy of the graph, and let that take its place."""
        engine, options = self._follower.engine, self._follower.options.graph
        if not isinstance(engine, FaissEngine):
            raise TypeError("a graph is wanted without FAISS")
        target = await self._held(kind, index, partial(self._pinned, kind, index))
        if target is None:
            return
        growing = await in_thread(partial(engine.graphs.growing, options, index.table.storage, index.graph))
        while growing.nodes < target:
            if self._stopping or self._follower.indexes.get(kind) is not index:
                return
            storage = index.table.storage
            await in_thread(partial(growing.link, storage, min(scratch(index.dimension), target - growing.nodes)))
        graph = await in_thread(partial(_finished, growing, index, engine))
        if graph.recall is not None and graph.recall < planner.TOO_FEW and index.kind == "auto":
            index.unfit = f"a graph of these vectors finds {graph.recall:.0%} of the neighbours: they have no structure"
            index.unfit_until = 2 * graph.nodes
            await self._drop(kind, index)
            _log.info("%s", index.unfit)
            return
        await self._held(kind, index, partial(index.publish, graph))

    def _pinned(self, kind: RecordKind, index: HybridIndex) -> int:
        """How many entries the graph will cover; they keep their places from now on."""
        if index.table.storage.owner is None:
            index.move_to(self._follower.allocator(self._follower.spaces[kind])(len(index.table.storage.rows), None))
        return index.table.pin()

    def _unwritten(self, kind: RecordKind, index: HybridIndex, *, whole: bool) -> bool:
        if index.graph is None or self._database.settings.read_only:
            return False
        if kind in self._given_up:
            return False
        if index.written is None:
            return True
        nodes, seq = index.written
        if whole:
            return nodes != index.nodes
        behind = (self._follower.applied or 0) - seq
        grown = index.nodes >= nodes + max(planner.FOLD_LEAST, int(planner.SNAPSHOT_SHARE * nodes))
        return grown or behind > max(change_log.KEEP, index.nodes // 2)

    async def _write(self, kind: RecordKind, index: HybridIndex) -> None:
        """Write a snapshot, a chunk a transaction, and delete those it stands for."""
        space = self._follower.spaces[kind]

        def copied() -> tuple[Header, Contents] | None:
            with self._follower.lock.shared():
                graph, seq = index.graph, self._follower.applied
                if graph is None or seq is None or self._follower.indexes.get(kind) is not index:
                    return None
                table = index.table
                keys = np.where(table.live[: graph.nodes], table.keys[: graph.nodes], GONE)
                epoch = self._follower.epoch
            contents = Contents(keys, graph.links(), graph)
            parameters = contents.parameters(space)
            return Header(0, space.pk, epoch, seq, parameters, chunks(parameters)), contents

        made = await in_thread(copied)
        if made is None:
            return
        header, contents = made
        try:
            written = await self._stored(space, header, contents)
            if written is None:
                self._given_up.add(kind)
                return
            index.written = (len(contents.keys), header.seq)
            await self._forget(space.pk, written)
        except MemstoreError as error:
            self._given_up.add(kind)
            self._not_before = time.monotonic() + _REST
            _log.warning("a snapshot of the graph could not be written: %s", error)

    async def _stored(self, space: Space, header: Header, contents: Contents) -> int | None:
        """Write the snapshot unless another process has; the key of the one that counts, None where none came of it."""
        found = await self._database.read(lambda c: index_snapshots.latest(c, header.space_pk, change_log.top(c)))
        newer = found is not None and found.epoch == header.epoch and found.seq > header.seq
        if found is not None and newer and fits(found.parameters, contents.graph.options, space):
            return found.pk
        header = await self._put(lambda c: index_snapshots.begin(c, header))
        pieces = await in_thread(contents.stream)
        for number in range(header.chunks):
            if self._stopping:
                return None
            data = await in_thread(lambda: next(pieces))
            await self._put(partial(_add, header=header, number=number, data=data))
        return header.pk if await self._put(lambda c: index_snapshots.complete(c, header)) else None

    async def _put(self, function: Callable[[Any], T]) -> T:
        """Run *function* in a write transaction, waiting for other writers a little at a time: the end may come."""
        deadline = time.monotonic() + self._database.settings.timeout
        while True:
            try:
                return await self._database.write(function, wait=_PATIENCE, batch=True)
            except BusyError:
                if self._stopping or time.monotonic() >= deadline:
                    raise

    async def _forget(self, space_pk: int, kept: int) -> None:
        """Delete the snapshots of a space but the one *kept*, in small parts."""
        for pk in await self._database.read(lambda c: index_snapshots.others(c, space_pk, kept)):
            while not self._stopping and await self._put(partial(index_snapshots.drop_part, pk=pk)):
                pass


def _finished(growing: GrowingGraph, index: HybridIndex, engine: FaissEngine) -> Graph:
    storage = index.table.storage
    graph = growing.finished(storage)
    measured(graph, index, engine, storage)
    return graph


def _add(connection: Any, header: Header, number: int, data: bytes) -> None:
    index_snapshots.add(connection, header, number, data)

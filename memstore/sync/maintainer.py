"""Maintains the graphs: a background task of the store that runs while there is work.

It builds graphs, merges unindexed entries into them, rebuilds those with many deleted nodes, and has snapshots written.
Nothing waits for it, and its work can be interrupted at any point: everything can be derived again from the rows.

The work runs on threads, in small pieces. A graph in use never changes: vectors are linked into a private copy, which
replaces it under the lock. The rows that a piece of work reads are pinned, so it reads them without the lock.
"""

import asyncio
import threading
import weakref
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection

from memstore.concurrency import in_thread, monotonic
from memstore.database import Database
from memstore.database.transactions import snapshot
from memstore.errors import MemstoreError
from memstore.escaping import library_logger
from memstore.index import planner
from memstore.index.faiss_engine import FaissEngine
from memstore.index.hnsw import Graph
from memstore.index.hybrid import HybridIndex
from memstore.index.walk import Coverage
from memstore.models.records import RecordKind
from memstore.repository.sqlite_only import index_snapshots
from memstore.repository.sqlite_only.index_snapshots import BrokenSnapshotError, Header, ReplacedSnapshotError
from memstore.sync import observation
from memstore.sync.graph_fold import GraphFold
from memstore.sync.index_set import IndexSet
from memstore.sync.snapshot import StoredGraph, calibration, read_graph
from memstore.sync.snapshot_writer import SnapshotWriter

T = TypeVar("T")
Task = Callable[[], Coroutine[Any, Any, None]]

_RETRY_DELAY = 60.0  # seconds after a failure before work is tried again

_log = library_logger()


class IndexMaintainer:
    """Maintains the graphs of one store. Created in the event loop that the store belongs to."""

    def __init__(self, indexes: IndexSet, database: Database) -> None:
        self._indexes = indexes
        self._database = database
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._stopping = threading.Event()
        self._paused = False  # while memory is given back
        self._snapshots = SnapshotWriter(indexes, database, self._stopping)
        self._rerun = False
        self._retry_at = 0.0
        self._skipped: set[RecordKind] = set()  # kinds whose snapshot could not be written in this run

    def notifier(self) -> Callable[[], None]:
        """A function to call, on any thread, after the indexes changed.

        It refers to the maintainer weakly, because a thread may hold it longer than the store is referenced.
        """
        method = weakref.WeakMethod(self._notify)

        def notify() -> None:
            notify_maintainer = method()
            if notify_maintainer is not None:
                notify_maintainer()

        return notify

    def _notify(self) -> None:
        if self._stopping.is_set() or monotonic() < self._retry_at:
            return
        if not any(map(partial(self._next_task, thorough=False), tuple(self._indexes.by_kind))):
            return
        try:
            self._loop.call_soon_threadsafe(self._start)
        except RuntimeError:
            self._stopping.set()  # the loop was closed before the store

    def _is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    def _start(self) -> None:
        self._rerun = True  # a running task may have looked for work already
        if not self._is_running() and not self._is_stopping():
            self._task = self._loop.create_task(self._run(thorough=False), name="memstore-maintenance")

    async def optimize(self) -> None:
        """Do all work, small amounts included, and return when it is done."""
        while self._is_running() and self._task is not None:
            await asyncio.wait([self._task])
        if not self._stopping.is_set():
            self._task = self._loop.create_task(self._run(thorough=True), name="memstore-maintenance")
            await asyncio.shield(self._task)

    def snapshots_deleted(self) -> None:
        """The file holds no snapshot any more: write new ones."""
        self._snapshots.mark_deleted()
        self._notify()

    async def stop(self) -> None:
        """Stop after the present piece of work."""
        self._stopping.set()
        while self._is_running() and self._task is not None:
            await asyncio.wait([self._task])

    async def release_memory(self) -> None:
        """Give back the memory that no entry needs; a graph with many deleted nodes is dropped, and built again."""
        self._paused = True
        try:
            while self._is_running() and self._task is not None:
                await asyncio.wait([self._task])
            for kind, index in tuple(self._indexes.by_kind.items()):
                await self._exclusively(kind, index, partial(self._shrink, kind, index))
        finally:
            self._paused = False
        self._notify()

    def _shrink(self, kind: RecordKind, index: HybridIndex) -> None:
        deleted = index.table.deleted
        if deleted and deleted >= planner.COMPACT_DELETED_SHARE * index.table.size:
            self._indexes.pending_snapshots.pop(kind, None)  # dropping moves entries
            index.drop_graph()
        else:
            index.shrink()

    def _is_stopping(self) -> bool:
        return self._paused or self._stopping.is_set()

    def resume(self) -> None:
        """Continue after `stop`."""
        self._stopping.clear()

    async def _run(self, *, thorough: bool) -> None:
        self._skipped.clear()
        self._rerun = True
        try:
            while self._rerun:
                self._rerun = False
                for kind in self._indexes.spaces:
                    while not self._is_stopping() and (task := self._next_task(kind, thorough=thorough)) is not None:
                        await task()
        except Exception:
            # Handled: searches are exact without the graph, and `optimize` raises the error.
            self._retry_at = monotonic() + _RETRY_DELAY
            if thorough:
                raise
            _log.exception("graph maintenance failed; the next attempt is in %.0f s at the earliest", _RETRY_DELAY)

    def _next_task(self, kind: RecordKind, *, thorough: bool) -> Task | None:
        """The next task for the index of *kind*; with *thorough* even one that hardly pays."""
        index = self._indexes.by_kind.get(kind)
        if index is None or self._indexes.applied is None:
            return None
        header = self._indexes.pending_snapshots.get(kind)
        if header is not None:
            return partial(self._attach_graph, kind, index, header)
        has_faiss = isinstance(self._indexes.engines.engine, FaissEngine)
        if not has_faiss and index.graph is None:
            return None
        task = planner.next_task(
            graph_wanted=has_faiss and len(index) >= index.min_graph_size and index.wants_graph()[0],
            nodes=index.nodes,
            unindexed=index.unindexed,
            deleted=index.table.deleted,
            thorough=thorough,
        )
        if task == "drop":
            return partial(self._drop_graph, kind, index)
        if task == "rebuild":
            return partial(self._rebuild_graph, kind, index)
        if task is not None:
            return partial(self._merge, kind, index)
        if kind not in self._skipped and self._snapshots.is_due(index, thorough=thorough):
            return partial(self._write_snapshot, kind, index)
        return partial(self._observe, kind, index) if index.samples.pending else None

    def _faiss(self) -> FaissEngine:
        engine = self._indexes.engine
        if not isinstance(engine, FaissEngine):
            raise TypeError("a graph needs FAISS, and the engine is NumPy")
        return engine

    async def _exclusively(self, kind: RecordKind, index: HybridIndex, change: Callable[[], T]) -> T | None:
        """Run *change* on a thread with exclusive access; None if *index* is not in use any more."""

        def step() -> T | None:
            with self._indexes.lock.exclusive():
                return change() if self._indexes.by_kind.get(kind) is index else None

        return await in_thread(step)

    async def _drop_graph(self, kind: RecordKind, index: HybridIndex) -> None:
        def drop() -> None:
            # Dropping moves entries, so a pending snapshot does not match their positions any more.
            self._indexes.pending_snapshots.pop(kind, None)
            index.drop_graph()

        await self._exclusively(kind, index, drop)

    async def _rebuild_graph(self, kind: RecordKind, index: HybridIndex) -> None:
        await self._drop_graph(kind, index)
        await self._merge(kind, index)

    async def _attach_graph(self, kind: RecordKind, index: HybridIndex, header: Header) -> None:
        """Attach the graph of the snapshot whose node order the entries of *index* follow."""
        graphs, options = self._faiss().graphs, self._indexes.options.graph

        def read(connection: Connection) -> tuple[Graph, StoredGraph]:
            with snapshot(connection):
                try:
                    read_chunk = partial(index_snapshots.chunk, connection, header)
                    content = read_graph(header.parameters, read_chunk)
                except BrokenSnapshotError as error:
                    if index_snapshots.is_replaced(connection, header):
                        raise ReplacedSnapshotError from error
                    raise
            return graphs.from_links(content.links, options, index.table.storage), content

        try:
            graph, content = await self._database.call(read, long=True)
        except ReplacedSnapshotError:
            _log.info("another process replaced a graph snapshot: the next search loads the newer one")
            await in_thread(partial(self._unload, kind, index))
            return
        except BrokenSnapshotError as error:
            _log.warning("a graph snapshot is damaged (%s): the graph is rebuilt", error)
            await self._drop_graph(kind, index)
            return

        def attach() -> None:
            self._indexes.pending_snapshots.pop(kind, None)
            index.fill_deleted(graph, content.duplicates, content.originals)
            rows = index.table.storage.rows
            coverage = Coverage(graph.nodes, rows, content.duplicates, content.originals, content.outliers)
            index.publish(graph, coverage, calibration(header.parameters, options))

        await self._exclusively(kind, index, attach)
        self._snapshots.mark_saved(index, graph.nodes, header.seq)
        if not self._database.settings.read_only:
            try:
                await self._snapshots.delete_others(header.space_pk, header.pk)  # left by an interrupted process
            except MemstoreError as error:
                _log.warning("an older graph snapshot could not be deleted: %s", error)

    def _unload(self, kind: RecordKind, index: HybridIndex) -> None:
        with self._indexes.lock.exclusive():
            if self._indexes.by_kind.get(kind) is index:
                self._indexes.clear()

    async def _merge(self, kind: RecordKind, index: HybridIndex) -> None:
        """Link the unindexed entries into a copy of the graph, and replace the graph by it."""
        result = await GraphFold(self._indexes, kind, index, self._faiss(), self._is_stopping).run()
        if result is None:
            return
        defect = result.defect()
        if defect is not None and index.kind == "auto":
            if not result.is_new:  # the entries have changed since the graph was built
                await self._rebuild_graph(kind, index)
                return
            await self._exclusively(kind, index, partial(index.reject_graph, defect, 2 * result.graph.nodes))
            _log.info("%s", defect)
            return
        await self._exclusively(kind, index, partial(index.publish, result.graph, result.coverage, result.calibration))

    async def _observe(self, kind: RecordKind, index: HybridIndex) -> None:
        """Answer a query that the graph answered exactly as well; raise the effort where the graph finds too little."""
        observe = partial(observation.observe, self._indexes, kind, index)
        if self._database.settings.read_only:
            change = await in_thread(observe)
        else:
            change = await self._database.upkeep(lambda _: observe())
        if change is None:
            return
        recall = change.recall_at(10)
        if not change.is_useful(10) and index.kind == "auto":
            defect = f"a graph of these vectors finds {recall or 0.0:.0%} of the neighbours of the queries asked"
            await self._exclusively(kind, index, partial(index.reject_graph, defect, 2 * index.nodes))
            _log.info("%s", defect)

    async def _write_snapshot(self, kind: RecordKind, index: HybridIndex) -> None:
        try:
            if not await self._snapshots.write(kind, index):
                self._skipped.add(kind)
        except MemstoreError as error:
            self._skipped.add(kind)
            self._retry_at = monotonic() + _RETRY_DELAY
            _log.warning("a graph snapshot could not be written: %s", error)

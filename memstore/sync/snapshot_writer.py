"""Writes graph snapshots into the file, and deletes those that they replace.

A snapshot is written one chunk per transaction, so that other writers wait for no more than a chunk. It counts from the
transaction that marks it complete. One process at a time writes a snapshot of a space; others wait for it, and then
need none of their own if its snapshot is as new as theirs.
"""

import asyncio
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
from sqlalchemy import Connection

from memstore.concurrency import in_thread, monotonic
from memstore.database import Database
from memstore.errors import BusyError, MemstoreError
from memstore.index import planner
from memstore.index.hybrid import HybridIndex
from memstore.models.records import RecordKind
from memstore.repository.sqlite_only import change_log, index_snapshots
from memstore.repository.sqlite_only.activity import activity
from memstore.repository.sqlite_only.index_snapshots import Header, ReplacedSnapshotError
from memstore.sync.index_set import IndexSet
from memstore.sync.snapshot import DELETED_KEY, SnapshotContent, count_chunks, matches

T = TypeVar("T")

_WRITE_WAIT = 0.25  # seconds of one wait for other writers
_CLAIM_POLL = 0.05  # seconds between looks at the claim of another process


class SavedSnapshot(NamedTuple):
    """The newest snapshot of an index in the file: its number of nodes, and the log position it includes."""

    nodes: int
    seq: int


class SnapshotWriter:
    """Writes snapshots of the indexes of one store.

    Args:
        indexes: the indexes.
        database: the file.
        stopping: set while the store closes; work then ends after the present transaction.
    """

    def __init__(self, indexes: IndexSet, database: Database, stopping: threading.Event) -> None:
        self._indexes = indexes
        self._database = database
        self._stopping = stopping
        self._saved: weakref.WeakKeyDictionary[HybridIndex, SavedSnapshot] = weakref.WeakKeyDictionary()

    def mark_saved(self, index: HybridIndex, nodes: int, seq: int) -> None:
        """Record that the file holds a snapshot of *index* with *nodes* nodes, at *seq* of the log."""
        self._saved[index] = SavedSnapshot(nodes, seq)

    def mark_deleted(self) -> None:
        """Record that the file holds no snapshot any more."""
        self._saved.clear()

    def is_due(self, index: HybridIndex, *, thorough: bool) -> bool:
        """Whether to write a snapshot of *index*: it has none, or has grown, or the log has; *thorough*: at all."""
        if index.graph is None or self._database.settings.read_only:
            return False
        saved = self._saved.get(index)
        if saved is None:
            return True
        if thorough:
            return saved.nodes != index.nodes
        growth = max(planner.MERGE_MIN, int(planner.SNAPSHOT_GROWTH_SHARE * saved.nodes))
        log_distance = (self._indexes.applied or 0) - saved.seq
        return index.nodes >= saved.nodes + growth or log_distance > max(change_log.KEEP, index.nodes // 2)

    async def write(self, kind: RecordKind, index: HybridIndex) -> bool:
        """Write a snapshot of *index*, and delete the older ones.

        Returns:
            False if the snapshot was not completed. True if it was, or if *index* is not in use any more.

        Raises:
            MemstoreError: the file could not be written.
        """
        copied = await in_thread(partial(self._copy, kind, index))
        if copied is None:
            return True
        header, content = copied
        stored_pk = await self._store(kind, header, content)
        if stored_pk is None:
            return False
        self.mark_saved(index, len(content.keys), header.seq)
        await self.delete_others(header.space_pk, stored_pk)
        return True

    def _copy(self, kind: RecordKind, index: HybridIndex) -> tuple[Header, SnapshotContent] | None:
        """A snapshot of *index*; None if it is not in use any more, or has no graph."""
        indexes, space = self._indexes, self._indexes.spaces[kind]
        with indexes.lock.shared():
            graph, calibration, coverage, seq = index.graph, index.calibration, index.coverage, indexes.applied
            if graph is None or calibration is None or coverage is None or seq is None:
                return None
            if indexes.by_kind.get(kind) is not index:
                return None
            table = index.table
            keys = np.where(table.live[: graph.nodes], table.keys[: graph.nodes], DELETED_KEY)
            epoch = indexes.epoch
        content = SnapshotContent(keys, graph.links(), graph.options, calibration, coverage, index.table.radius)
        parameters = content.parameters(space)
        return Header(0, space.pk, epoch, seq, parameters, count_chunks(parameters)), content

    async def _store(self, kind: RecordKind, header: Header, content: SnapshotContent) -> int | None:
        """Write the snapshot unless the file has one as new; the key of the newest, None if writing was stopped."""
        with activity() as writer:
            return await self._store_as(writer, kind, header, content)

    async def _store_as(self, writer: str, kind: RecordKind, header: Header, content: SnapshotContent) -> int | None:
        claimed = await self._claim(writer, kind, header, content)
        if not isinstance(claimed, Header):
            return claimed
        completed = False
        try:
            completed = await self._write_chunks(claimed, content)
        finally:
            if not completed:  # the next writer need not wait until the claim is overdue
                with suppress(MemstoreError):
                    await self._write(partial(index_snapshots.retire, pk=claimed.pk))
        return claimed.pk if completed else None

    async def _write_chunks(self, header: Header, content: SnapshotContent) -> bool:
        """Write the chunks of a claimed snapshot, and mark it complete; False if it was stopped or taken over."""
        chunks = await in_thread(content.chunks)
        for number in range(header.chunks):
            if self._stopping.is_set():
                return False
            data = await in_thread(lambda: next(chunks))
            try:
                await self._write(partial(_add_chunk, header=header, number=number, data=data))
            except ReplacedSnapshotError:
                return False
        return await self._write(lambda c: index_snapshots.complete(c, header))

    async def _claim(
        self, writer: str, kind: RecordKind, header: Header, content: SnapshotContent
    ) -> Header | int | None:
        """*header* with its key, once no other process writes a snapshot of the space.

        The key of the newest snapshot instead if that is as new; None if writing was stopped.
        """
        claim, deadline = None, 0.0
        previous: int | None = None
        while not self._stopping.is_set():
            latest = await self._database.read(lambda c: index_snapshots.latest(c, header.space_pk, change_log.top(c)))
            if latest is not None and self._is_newer(kind, latest, header, content, previous):
                return latest.pk
            previous = previous or (latest.pk if latest is not None else -1)
            overdue = claim if time.monotonic() >= deadline else None
            claimed = await self._write(partial(index_snapshots.begin, header=header, writer=writer, overdue=overdue))
            if claimed is not None:
                return claimed
            present = await self._database.read(lambda c: index_snapshots.claim(c, header.space_pk))
            if present != claim:
                claim, deadline = present, time.monotonic() + index_snapshots.CLAIM_SECONDS
            await asyncio.sleep(_CLAIM_POLL)
        return None

    def _is_newer(
        self, kind: RecordKind, latest: Header, header: Header, content: SnapshotContent, previous: int | None
    ) -> bool:
        """Whether the stored snapshot *latest* replaces that of *header*.

        One of the same state does if it was written meanwhile. The *previous* one, which was there before, can be
        damaged.
        """
        space = self._indexes.spaces[kind]
        if latest.epoch != header.epoch or not matches(latest.parameters, content.options, space):
            return False
        same = latest.seq == header.seq and latest.parameters["nodes"] == len(content.keys)
        return latest.seq > header.seq or (same and previous is not None and latest.pk != previous)

    async def delete_others(self, space_pk: int, kept_pk: int) -> None:
        """Delete the snapshots of a space except *kept_pk* and one that is being written, in small transactions."""
        for pk in await self._database.read(lambda c: index_snapshots.others(c, space_pk, kept_pk)):
            if self._stopping.is_set():
                return
            await self._write(partial(index_snapshots.retire, pk=pk))
            while not self._stopping.is_set() and await self._write(partial(index_snapshots.drop_part, pk=pk)):
                pass

    async def _write(self, function: Callable[[Connection], T]) -> T:
        """Run *function* in a write transaction. It waits for other writers in short steps, so that closing ends it."""
        deadline = monotonic() + self._database.settings.timeout
        while True:
            try:
                return await self._database.write(function, wait=_WRITE_WAIT, batch=True)
            except BusyError:
                if self._stopping.is_set() or monotonic() >= deadline:
                    raise


def _add_chunk(connection: Connection, header: Header, number: int, data: bytes) -> None:
    index_snapshots.add(connection, header, number, data)

"""The store: the nouns of a namespace, and the verbs on the whole file."""

import asyncio
import logging
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection

from memstore import filters
from memstore.api.assemblies import Assemblies
from memstore.api.memories import Memories
from memstore.api.tags import Tags
from memstore.database import raw
from memstore.database.driver_errors import translated
from memstore.database.inspect import HEAD
from memstore.database.sqlite import BUG, SOURCE, sqlite3
from memstore.errors import LoadError, MemstoreError
from memstore.history import undo as undo_module
from memstore.maintenance import check as checks
from memstore.maintenance.backup import backup
from memstore.models.history import Change
from memstore.models.records import Namespace
from memstore.models.reports import Finding, RepairReport, Stats
from memstore.repository import (
    history_retention,
    history_writer,
    namespaces,
    records,
    selection,
    tags,
    tombstones,
    vectors,
)
from memstore.repository.context import WriteContext
from memstore.repository.record_types import RECORD_TYPES
from memstore.repository.sqlite_only import change_log, index_snapshots, metadata_indexes
from memstore.session import Autocommit, OpenTransaction, Session
from memstore.sync.maintainer import IndexMaintainer
from memstore.timestamps import now
from memstore.validation.values import check_count, check_namespace
from memstore.vectors.space import Metric

_log = logging.getLogger("memstore")

MAX_CHUNK = 100_000
CHUNK_BYTES = 8 * 1024 * 1024
"""Of vectors in a transaction of `load`: at dimension 384, transactions of 5,000 load a fifth faster than of 1,000."""

INCREMENTAL = 2  # as SQLite numbers the kinds of auto_vacuum
VACUUM_PAGES = 1_000
"""Pages that `compact` frees in one transaction: other writers come in between."""


class _Nouns:
    """Memories, assemblies and tags of one namespace, in one session."""

    _session: Session

    def __init__(self, session: Session, namespace: Namespace) -> None:
        self._session = session
        self._namespace = namespace
        self.memories = Memories(session, namespace)
        self.assemblies = Assemblies(session, namespace)
        self.tags = Tags(session, namespace)

    async def clear(self, *, recursive: bool = False) -> int:
        """Delete every memory and assembly of this namespace, and with *below* of all below it; how many.

        What lies in the trash goes too, and is not counted: nothing is left. Takes the writer lock. All or nothing.
        """

        def step(context: WriteContext) -> int:
            connection = context.connection
            deleted = 0
            for noun in RECORD_TYPES:
                chosen = selection.Selection(
                    record_type=noun, namespace=self._namespace, now=context.now, recursive=recursive
                )
                keys = selection.selected(connection, chosen)
                history_writer.delete_records(context, noun, keys)
                deleted += len(keys)
            for cause in tombstones.CAUSES:
                tombstones.purge(connection, None, cause, self._namespace, recursive=recursive)
            return deleted

        return await self._session.write(step, batch=True)

    async def undo(self, change: Change) -> Change:
        """Undo a change, where nothing later depends on it: of `history()` of this namespace or one below it.

        What was changed is as it was before: of `added` the record goes, of `deleted` it is back with its vector bit
        for bit and, where the other side is still there, its memberships. Takes the writer lock.

        Returns:
            The change that undid it, which can be undone in turn.

        Raises:
            UndoError: something later depends on it; its `later` says what. Nothing was written.
            HistoryError: the change is not kept any more.
        """
        return await self._session.write(lambda context: undo_module.undo(context, self._namespace, change))

    async def namespaces(self, prefix: Namespace = ()) -> list[Namespace]:
        """The namespaces at and below *prefix*, itself below this one, that hold anything; sorted."""
        path = check_namespace((*self._namespace, *check_namespace(prefix)))
        return await self._session.read(lambda c: sorted(namespaces.used(c, path, now())))


class Transaction(_Nouns):
    """All of it or none of it, index included: what `async with store.transaction() as tx` gives.

    Each verb runs in a savepoint of its own: one that raises leaves nothing, and the block may go on. Searches see
    what the transaction has changed; nobody else does before it ends. One task at a time may use it.
    """

    def __init__(self, opened: OpenTransaction, namespace: Namespace) -> None:
        super().__init__(opened, namespace)
        self._opened = opened

    def namespace(self, *parts: str) -> "Transaction":
        """The same transaction in the namespace *parts* below this one."""
        return Transaction(self._opened, check_namespace((*self._namespace, *parts)))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["Transaction"]:
        """A part of this transaction that is undone alone if its block raises."""
        async with self._opened.nested():
            yield self


class StoreNamespace(_Nouns):
    """One namespace of a store, with the same verbs: what `store.namespace(...)` gives."""

    _session: Autocommit

    def __init__(self, session: Autocommit, namespace: Namespace) -> None:
        super().__init__(session, namespace)

    def namespace(self, *parts: str) -> "StoreNamespace":
        """The namespace *parts* below this one. It need not exist: storing something in it makes it."""
        return StoreNamespace(self._session, check_namespace((*self._namespace, *parts)))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """All of the block or none of it: committed if it ends well, rolled back if it raises or is cancelled.

        Takes the writer lock and holds it: other writers wait, so keep the block short.

        Raises:
            BusyError: the writer was not to be had within the timeout.
            TransactionError: this task has a transaction open on this store already; use `tx.transaction()`.
        """
        async with self._session.transaction() as opened:
            yield Transaction(opened, self._namespace)

    async def load(
        self,
        items: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]],
        *,
        chunk: int | None = None,
        upsert: bool = False,
        on_progress: Callable[[int], None] | None = None,
    ) -> int:
        """Store any number of memories, committing chunk by chunk; how many were stored.

        Takes the writer lock for each chunk, and never while *items* is waited for.

        Args:
            items: mappings with the keyword names of `memories.add`; any iterable, also an async one.
            chunk: memories a transaction; None for as many as have 8 MiB of vectors, but 1,000 to 5,000. A longer one
                is written faster, and holds up other writes longer.
            upsert: replace memories whose ids are taken, instead of stopping at them.
            on_progress: called after each chunk with how many are stored.

        Raises:
            LoadError: it stopped partway. `stored` says how many are stored, the cause why it stopped.
        """
        if chunk is None:
            chunk = max(1_000, min(5_000, CHUNK_BYTES // (4 * self._session.spaces["memory"].dimension)))
        check_count("chunk", chunk, 1, MAX_CHUNK)
        self._session.check_usable()  # before anything is taken from *items*
        store = self.memories.upsert_many if upsert else self.memories.add_many
        stored = 0
        try:
            async for some in _chunks(items, chunk):
                await store(some)
                stored += len(some)
                if on_progress is not None:
                    on_progress(stored)
        except Exception as error:
            raise LoadError(
                f"the load stopped after {stored:,} memories were stored: {error}", stored=stored
            ) from error
        return stored


class Store(StoreNamespace):
    """An open store, and its root namespace. Made by `memstore.open`; close it, or use it with `async with`."""

    def __init__(self, session: Autocommit, maintainer: IndexMaintainer) -> None:
        super().__init__(session, ())
        self._database = session.database
        self._follower = session.follower
        self._maintainer = maintainer

    @property
    def dimension(self) -> int:
        """Numbers per embedding."""
        return self._session.spaces["memory"].dimension

    @property
    def metric(self) -> Metric:
        """How embeddings are compared."""
        return self._session.spaces["memory"].metric

    @property
    def curvature(self) -> float | None:
        """Of a hyperbolic store, by minus which its space is curved; None under every other metric."""
        return self._session.spaces["memory"].curvature

    async def check(self) -> list[Finding]:
        """Compare everything with everything, by content, and change nothing; empty when all is well.

        SQLite's own integrity, owners of rows, checksums, composites with their members, and the index with the
        rows. Takes seconds for a million memories; searches and writes go on meanwhile, but the comparison of the
        index holds commits back for its share of it.
        """

        def stored(connection: Connection) -> list[Finding]:
            self._follower.guard.check(connection)
            return checks.stored(connection, self._session.spaces.values())

        findings = await self._database.read(stored)
        return findings + await self._database.call(lambda c: checks.indexed(c, self._follower))

    async def repair(self) -> RepairReport:
        """Build the index anew from the rows, and mend in the file what can be mended; says what it did.

        Takes the writer lock. Nothing is invented, and nothing is lost but rows whose owner does not exist. What
        remains is damage to stored data itself, named by id.
        """
        found = await self.check()
        for finding in found:
            _log.warning("repair found %s", finding)
        orphans, filled, recomposed = await self._session.write(lambda context: checks.mend(context, found), batch=True)
        await self._database.call(lambda _: self._follower.drop())
        reindexed = await self._session.search(lambda _, view: sum(view.count(noun.kind) for noun in RECORD_TYPES))
        return RepairReport(
            findings=found,
            remaining=await self.check(),
            reindexed=reindexed,
            recomposed=recomposed,
            checksums=filled,
            orphans=orphans,
        )

    async def stats(self) -> Stats:
        """What the store holds and how."""
        return await self._session.read(self._stats)

    def _stats(self, connection: Connection) -> Stats:
        self._follower.guard.check(connection)
        settings, space = self._database.settings, self._session.spaces["memory"]
        at = now()
        counts = {
            noun.kind: selection.count(
                connection, selection.Selection(record_type=noun, namespace=(), now=at, recursive=True)
            )
            for noun in RECORD_TYPES
        }
        return Stats(
            path=settings.path,
            dimension=space.dimension,
            metric=space.metric,
            curvature=space.curvature,
            embedder=space.embedder,
            durability=settings.durability,
            revision=HEAD,
            sqlite=sqlite3.sqlite_version,
            sqlite_source=SOURCE,
            wal_reset_bug=BUG,
            memories=counts["memory"],
            assemblies=counts["assembly"],
            tags=tags.count(connection, at),
            namespaces=len(namespaces.used(connection, (), at)),
            vectors=vectors.count_vectors(connection, self._session.spaces["memory"])
            - records.expired_vectors(connection, at),
            trashed=sum(tombstones.count(connection, noun, "forgotten") for noun in RECORD_TYPES),
            file_bytes=Path(settings.path).stat().st_size,
            wal_bytes=self._database.wal_bytes(),
            engine=self._follower.indexes.engine.name,
            engine_reason=self._follower.indexes.engines.reason,
            indexed=sum(len(index) for index in self._follower.indexes.by_kind.values()),
            index_bytes=sum(index.bytes for index in self._follower.indexes.by_kind.values()),
            index_loaded=self._follower.indexes.applied is not None,
            snapshot_bytes=index_snapshots.stored_bytes(connection),
            **self._follower.indexes.stats("memory"),
            indexed_metadata=tuple(filters.written(path) for path in sorted(metadata_indexes.paths(connection))),
        )

    async def optimize(self) -> None:
        """Bring the graph up to date now: every vector in it, the dead out of it, and a snapshot of it in the file.

        It happens by itself in the background, whenever enough has changed; after a large load, before closing, this
        spares the next open the work. Does nothing where searches are to be exact. Takes the writer lock for each
        megabyte of the snapshot.
        """
        self._session.check_no_open_transaction()
        await self._session.search(lambda connection, view: None)  # noqa: ARG005 - so that the index is there
        await self._maintainer.optimize()

    async def compact(self) -> int:
        """Give back to the disk what deleted records held; how many bytes the file is smaller by.

        Takes the writer lock. Expired memories, unused tags and the older part of the change log go too.
        """

        def tidy(context: WriteContext) -> None:
            connection = context.connection
            history_retention.trim_all(connection)
            tags.drop_unused(connection)
            change_log.trim(connection, change_log.top(connection))

        def shrink(connection: Connection) -> int:
            base = raw(connection)
            with translated():
                base.execute(f"PRAGMA busy_timeout={int(self._database.settings.timeout * 1000)}")
                before = base.execute("PRAGMA page_count").fetchone()[0]
                if base.execute("PRAGMA auto_vacuum").fetchone()[0] != INCREMENTAL:  # another tool made it so
                    base.execute(f"PRAGMA auto_vacuum={INCREMENTAL}")
                    base.execute("VACUUM")
                free = base.execute("PRAGMA freelist_count").fetchone()[0]
                while free:
                    # A script runs it to its end; execute() would stop after the first page.
                    base.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")
                    left = base.execute("PRAGMA freelist_count").fetchone()[0]
                    free = left if left < free else 0
                base.execute("PRAGMA optimize").fetchall()
                after = base.execute("PRAGMA page_count").fetchone()[0]
                return int((before - after) * base.execute("PRAGMA page_size").fetchone()[0])

        await self._session.write(tidy, batch=True)
        freed = await self._database.upkeep(shrink)
        await self._database.checkpoint()
        return freed

    async def backup(
        self, path: str | os.PathLike[str], *, on_progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Copy the store, as it is at one moment, into a new file at *path*; reads and writes go on meanwhile.

        The copy is one file, a store that `memstore.open` opens and `memstore.restore_backup` puts in the
        place of another.

        Args:
            path: a file that does not exist.
            on_progress: called with pages copied and pages in all.

        Raises:
            InvalidError: there is a file at *path*.
            MissingFileError: its folder does not exist.
            StorageError: the disk failed or is full; nothing is left of the copy.
        """
        self._database.check_usable()
        await backup(self._database.settings.path, path, on_progress, self._database.file)

    async def close(self) -> None:
        """Wait for what is running, and close the file. Closing a closed store does nothing.

        Raises:
            BusyError: other tasks were still writing after the store's timeout; it is open still.
            TransactionError: this task has a transaction open on it.
        """
        if not self._database.closed:
            self._session.check_no_open_transaction()
        try:
            await self._maintainer.stop()
            await self._database.close()
        except BaseException:
            self._maintainer.resume()  # a store that is open still goes on as before
            raise
        if self._session.embedder is not None:
            self._session.embedder.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await close_after(self, error)

    def __repr__(self) -> str:
        return f"<memstore.Store {self._database.settings.path!r}{' closed' if self._database.closed else ''}>"


async def close_after(store: Store, error: BaseException | None) -> None:
    """Close *store* at the end of a block; an *error* of the block is not replaced by one of closing."""
    try:
        await store.close()
    except MemstoreError as failure:
        if error is None:
            raise
        error.add_note(f"and the store could not be closed: {failure}")


async def _chunks(
    items: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]], size: int
) -> AsyncIterator[list[Mapping[str, Any]]]:
    some: list[Mapping[str, Any]] = []
    async for item in _each(items):
        some.append(item)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some


async def _each(
    items: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]],
) -> AsyncIterator[Mapping[str, Any]]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
        return
    for i, item in enumerate(items):
        if i % 100 == 99:
            await asyncio.sleep(0)  # an iterable that computes its items shares the loop
        yield item

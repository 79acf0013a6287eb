"""`Store`: an open store, with the verbs on the whole file."""

import os
from collections.abc import Callable
from types import TracebackType
from typing import Self

from memstore.api.namespace import StoreNamespace
from memstore.errors import MemstoreError
from memstore.maintenance.backup import backup
from memstore.maintenance.check import check
from memstore.maintenance.compact import compact
from memstore.maintenance.repair import repair
from memstore.maintenance.stats import read_stats
from memstore.models.reports import Finding, RepairReport, Stats
from memstore.session import Autocommit
from memstore.sync.maintainer import IndexMaintainer
from memstore.sync.retention import HistoryTrimmer
from memstore.validation.values import check_flag
from memstore.vectors.space import Metric


class Store(StoreNamespace):
    """An open store, and its root namespace. `memstore.open` opens it; close it, or use it with `async with`."""

    def __init__(self, session: Autocommit, maintainer: IndexMaintainer) -> None:
        super().__init__(session, ())
        self._database = session.database
        self._follower = session.follower
        self._maintainer = maintainer
        self._trimmer = HistoryTrimmer(session.database)

    @property
    def dimension(self) -> int | None:
        """Numbers per embedding; None while this store has met no vector that fixes it."""
        return self._session.spaces["memory"].dimension or None

    @property
    def metric(self) -> Metric:
        """The metric of the embeddings."""
        return self._session.spaces["memory"].metric

    @property
    def curvature(self) -> float | None:
        """Curvature magnitude c > 0 of the Poincaré ball (the curvature is -c); None under every other metric."""
        return self._session.spaces["memory"].curvature

    async def check(self) -> list[Finding]:
        """Compare everything that is stored or computed twice, by content. Changes nothing.

        Checks SQLite's structure, foreign keys, checksums, composites against their members, and the index against the
        rows. Takes seconds for a million memories. Searches and writes go on; only the comparison of the index delays
        commits.

        Returns:
            The defects; empty for a sound store.
        """
        return await check(self._session)

    async def repair(self) -> RepairReport:
        """Rebuild the index from the rows, and repair what the rows determine. Takes the writer lock.

        Deletes no row except those that refer to a row that does not exist. Damage to stored data itself remains, and
        the report names it by id.
        """
        return await repair(self._session)

    async def stats(self) -> Stats:
        """Read the statistics of the store."""
        return await self._session.read(lambda connection: read_stats(connection, self._session), long=True)

    async def optimize(self) -> None:
        """Bring the search graph up to date now: add new vectors, remove deleted ones, store a snapshot in the file.

        The background does this whenever enough has changed. After a large load and before closing, this saves the next
        open the work. Does nothing if searches are exact. Takes the writer lock for each megabyte of the snapshot.
        """
        self._session.check_no_open_transaction()
        await self._session.search(lambda connection, view: None)  # noqa: ARG005 - loads the index
        await self._maintainer.optimize()

    async def compact(self, *, secure: bool = False) -> int:
        """Return the space of deleted records to the disk. Takes the writer lock.

        Also deletes expired memories, unused tags, history older than is kept, and the older part of the change log.
        Memory that the index needed for deleted vectors is given back.

        Args:
            secure: write the whole file anew and empty its log, so that neither contains a byte of data that was
                erased, purged, cleared, or deleted and no longer in the history. Takes the writer lock for the time
                that writing the file takes, and as much free disk space as the file. Stored search graphs are deleted,
                and stored again in the background.

        Returns:
            By how many bytes the file is smaller; 0 if it is not.

        Raises:
            BusyError: with *secure*, another connection used the log for longer than the store's timeout.
        """
        freed = await compact(self._session, secure=check_flag("secure", secure))
        if secure:
            self._maintainer.snapshots_deleted()
        await self._maintainer.release_memory()
        return freed

    async def backup(
        self, path: str | os.PathLike[str], *, on_progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Copy one state of the store into a new file; reads and writes go on meanwhile.

        The copy is a single file. `memstore.open` opens it, and `memstore.restore_backup` restores it.

        Args:
            path: a file that does not exist.
            on_progress: called with the pages copied and the total.

        Raises:
            InvalidError: there is a file at *path*.
            MissingFileError: its folder does not exist.
            StorageError: the disk failed or is full; the incomplete copy is deleted.
        """
        self._database.check_usable()
        await backup(self._database.settings.path, path, on_progress, self._database.file)

    async def close(self) -> None:
        """Wait for running calls, and close the file. Closing a closed store does nothing.

        Raises:
            BusyError: other tasks were still writing after the store's timeout; the store stays open.
            TransactionError: this task has a transaction open on the store.
        """
        if not self._database.closed:
            self._session.check_no_open_transaction()
        try:
            await self._session.sweeper.stop()
            await self._trimmer.stop()
            await self._maintainer.stop()
            await self._database.close()
        except BaseException:
            self._session.sweeper.resume()  # the store is still open
            self._trimmer.resume()
            self._maintainer.resume()
            raise
        if self._session.embedder is not None:
            self._session.embedder.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await close_after(self, error)


async def close_after(store: Store, error: BaseException | None) -> None:
    """Close *store* at the end of a block; an error of closing does not replace the *error* of the block."""
    try:
        await store.close()
    except MemstoreError as failure:
        if error is None:
            raise
        error.add_note(f"and the store could not be closed: {failure}")

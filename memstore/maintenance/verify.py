"""Verifying a file that need not be open here: what it contains, and whether it is sound. The file is not changed."""

import os
from pathlib import Path

from sqlalchemy import Connection

from memstore.concurrency import StopSignal, in_cancellable_thread
from memstore.config import path_text
from memstore.database import raw
from memstore.database.driver_errors import translated
from memstore.database.fork_safety import temporary_connections
from memstore.database.inspect import HEAD, inspect
from memstore.database.migrate import migrate_copy
from memstore.database.read_only import without_log
from memstore.database.restore_copy import CopyControl, private_copy, reading
from memstore.database.transactions import snapshot
from memstore.errors import DamagedError, MissingFileError
from memstore.maintenance import check
from memstore.models.reports import Finding, VerifyReport
from memstore.repository import selection, store_meta
from memstore.repository.record_types import RECORD_TYPES
from memstore.repository.selection import Selection
from memstore.repository.sqlite_only import integrity
from memstore.timestamps import now


async def verify(path: str | os.PathLike[str]) -> VerifyReport:
    """Read the whole file at *path* and report its contents and its defects. Does not change the file.

    Checks SQLite's structure, foreign keys, checksums of vectors, composites and the stored search graph. A file of an
    older release is migrated in a private copy, and the copy is checked. Other processes may have the file open and
    write to it; one state of it is checked. Takes seconds for a million memories.

    Args:
        path: a store, or a backup of one.

    Raises:
        MissingFileError: there is no file, or it contains no store yet.
        ForeignFileError, NewerFileError: this release cannot read the file.
        StorageError: the disk failed, or has no room for the private copy.
    """
    file = path_text(path)
    return await in_cancellable_thread(lambda stop: _verify(file, stop))


def no_progress(done: int, total: int) -> None:
    """Where the caller wants no progress."""


def _verify(path: str, stop: StopSignal) -> VerifyReport:
    try:
        with temporary_connections(path), without_log(path):
            revision = stored_revision(path)
            if revision != HEAD:
                with private_copy(path, None, CopyControl(stop, no_progress)) as connection:
                    return examine(connection, path, revision)
            with reading(path, stop) as connection:
                return examine(connection, path, revision)
    except DamagedError as error:
        finding = Finding(kind="integrity", record_kind="file", id="", detail=str(error))
        return VerifyReport(path=path, file_bytes=Path(path).stat().st_size, findings=[finding])


def stored_revision(path: str) -> str:
    """The schema revision of the file at *path*. Raises `MissingFileError` where it is no store."""
    revision = inspect(path)
    if revision is None:
        raise MissingFileError(f"there is no store in {path!r}: give the path of a memstore file, or of a backup")
    return revision


def examine(connection: Connection, path: str, revision: str) -> VerifyReport:
    """The contents and the defects of the file at *path*; of an older *revision*, *connection* is to a private copy.

    Raises:
        MissingFileError: it contains no store yet.
        DamagedError: it cannot be read.
    """
    findings: list[Finding] = []
    if revision != HEAD:
        with snapshot(connection):
            findings = list(check.check_structure(connection))
        if not findings:  # the migration of a damaged file would fail
            migrate_copy(raw(connection), path)
    with snapshot(connection):
        try:
            with translated():
                spaces = store_meta.spaces(connection)
        except DamagedError:
            findings = findings or check.check_values(connection)
            if not findings:
                raise
            return VerifyReport(path=path, file_bytes=Path(path).stat().st_size, revision=revision, findings=findings)
        if not spaces:
            raise MissingFileError(f"{path!r} contains no store yet: open it with dimension= to create one")
        space, at = spaces["memory"], now()
        memories, assemblies = (
            selection.count(connection, Selection(record_type=record_type, namespace=(), now=at, recursive=True))
            for record_type in RECORD_TYPES
        )
        return VerifyReport(
            path=path,
            file_bytes=Path(path).stat().st_size,
            revision=revision,
            dimension=space.dimension or None,
            metric=space.metric,
            curvature=space.curvature,
            embedder=space.embedder,
            memories=memories,
            assemblies=assemblies,
            changed_at=integrity.changed_at(connection),
            findings=findings or check.check_file(connection, spaces.values()),
        )

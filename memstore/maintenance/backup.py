"""Whole files: whether one is sound, a copy of one, and one put in the place of what another holds.

None of it needs the store to be open here, and all of it may happen while others have the files open.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from sqlalchemy import Connection

from memstore.concurrency import StopSignal, in_cancellable_thread, on_current_loop
from memstore.config import check_timeout, path_text
from memstore.database import raw
from memstore.database.backup_copy import copy_file, set_new_epoch
from memstore.database.driver_errors import translated
from memstore.database.file_identity import OpenedFile
from memstore.database.fork_safety import temporary_connections
from memstore.database.inspect import HEAD, inspect
from memstore.database.migrate import migrate_copy
from memstore.database.restore_copy import CopyControl, page_size, private_copy, reading, replace_content
from memstore.database.transactions import begin_write, commit, snapshot
from memstore.errors import DamagedError, InvalidError, MissingFileError
from memstore.maintenance import check as checks
from memstore.models.reports import Finding, VerifyReport
from memstore.repository import selection, store_meta
from memstore.repository.context import WriteContext
from memstore.repository.record_types import RECORD_TYPES
from memstore.repository.sqlite_only import integrity
from memstore.session import check_no_open_transaction
from memstore.timestamps import now

Progress = Callable[[int, int], None]

_NAMED = 3  # findings named in a refusal


async def backup(
    path: str,
    target: str | os.PathLike[str],
    on_progress: Progress | None = None,
    opened: OpenedFile | None = None,
) -> None:
    """Copy the file at *path*, of any revision, into a new file *target*; see `Store.backup` and `copying.copy`."""
    made = path_text(target)
    told = _untold if on_progress is None else on_current_loop(on_progress)

    def work(stop: StopSignal) -> None:
        def step(done: int, total: int) -> None:
            stop.check()
            told(done, total)

        copy_file(path, opened, made, step)

    await in_cancellable_thread(work)


async def verify(path: str | os.PathLike[str]) -> VerifyReport:
    """Read the whole of the file at *path*, and say what it is and what is wrong with it. It is not changed.

    SQLite's own integrity, owners of rows, checksums of vectors, composites with their members, the stored search
    graph. A file of an older release is brought up to date in a private copy, and that is looked at. Others may have
    the file open and write to it: one moment of it is looked at. Takes seconds for a million memories.

    Args:
        path: a store, or a backup of one.

    Raises:
        MissingFileError: there is no file, or no store in it yet.
        ForeignFileError, NewerFileError: it is not a file this release can read.
        StorageError: the disk failed, or is too full for the private copy.
    """
    text = path_text(path)
    return await in_cancellable_thread(lambda stop: _verified(text, stop))


async def restore_backup(
    backup: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    timeout: float = 30.0,
    on_progress: Progress | None = None,
) -> VerifyReport:
    """Have the file at *path* hold what *backup* holds. What it held before is lost.

    Others may have the file open. They read the old state until the restored one is there whole; a store that is open
    sees it at its next call, and builds its index anew. One that was opened for another dimension, metric, curvature or
    embedder than the backup has raises `SettingsMismatchError` from then on. Takes the writer lock while it writes.

    *backup* is looked at first, as by `verify`. A copy of it is brought up to date and given a history of its own, in
    SQLite's folder for temporary files (`SQLITE_TMPDIR`, else `TMPDIR`), which needs room for it; the folder of *path*
    needs room for it twice. Stopped at any moment, by a cancellation or a crash, it has done all of it or nothing.

    Args:
        backup: a file that `Store.backup` made, or any other memstore file. It is not changed.
        path: the file to replace; one that does not exist is made.
        timeout: seconds to wait for those who write to it.
        on_progress: called with pages copied and pages in all; every page is copied twice.

    Returns:
        What was restored. Findings of what is computed from the rows (composites, the stored graph) were mended.

    Raises:
        DamagedError: stored data in *backup* is damaged; nothing was restored.
        InvalidError: both are one file.
        MissingFileError: there is no backup, or no folder for *path*.
        ForeignFileError, NewerFileError: one of the two is not a file this release can read; neither was touched.
        BusyError: others were writing for longer than *timeout*; the file is as it was.
        TransactionError: this task has a transaction open on a store in *path*.
        StorageError: the disk failed or is full; run it again once it is well.
    """
    source, target = path_text(backup), path_text(path)
    wait = check_timeout(timeout)
    check_no_open_transaction(target)
    told = _untold if on_progress is None else on_current_loop(on_progress)
    return await in_cancellable_thread(lambda stop: _restored(source, target, wait, CopyControl(stop, told)))


def _verified(path: str, stop: StopSignal) -> VerifyReport:
    with temporary_connections(path):
        return _looked_at(path, stop)


def _looked_at(path: str, stop: StopSignal) -> VerifyReport:
    try:
        revision = _revision(path)
        if revision != HEAD:
            with private_copy(path, None, CopyControl(stop, _untold)) as connection:
                return _examined(connection, path, revision)
        with reading(path, stop) as connection:
            return _examined(connection, path, revision)
    except DamagedError as error:
        finding = Finding(kind="integrity", noun="file", id="", detail=str(error))
        return VerifyReport(
            path=path,
            file_bytes=Path(path).stat().st_size,
            revision=None,
            dimension=None,
            metric=None,
            curvature=None,
            embedder=None,
            memories=0,
            assemblies=0,
            changed_at=None,
            findings=[finding],
        )


def _restored(source: str, target: str, timeout: float, control: CopyControl) -> VerifyReport:
    with temporary_connections(source), temporary_connections(target):
        return _put(source, target, timeout, control)


def _put(source: str, target: str, timeout: float, control: CopyControl) -> VerifyReport:
    size = page_size(target)
    if source == target or (size is not None and Path(source).exists() and Path(source).samefile(target)):
        raise InvalidError(f"{source!r} cannot be restored to itself: give another file as the backup")
    first, second = (CopyControl(control.stop, partial(_half, control.progress, half)) for half in (0, 1))
    with ExitStack() as stack:
        try:
            revision = _revision(source)
            connection = stack.enter_context(private_copy(source, size, first))
            found = _examined(connection, source, revision)
        except DamagedError as error:
            raise _refusal(source, [str(error.__cause__ or error)]) from error
        damage = [str(finding) for finding in found.findings if not _derived(finding)]
        if damage:
            raise _refusal(source, damage)
        _made_its_own(connection, found.findings)
        replace_content(target, connection, timeout, second)
    return found


def _half(told: Progress, half: int, done: int, total: int) -> None:
    told(half * total + done, 2 * total)


def _untold(done: int, total: int) -> None: ...


def _revision(path: str) -> str:
    revision = inspect(path)
    if revision is None:
        raise MissingFileError(
            f"there is no store in {path!r}: give the path of a memstore file, or of a backup of one"
        )
    return revision


def _examined(connection: Connection, path: str, revision: str) -> VerifyReport:
    """What the file at *path* is; where it is of an older revision, *connection* is to a copy, and that is migrated."""
    findings: list[Finding] = []
    if revision != HEAD:
        with snapshot(connection):
            findings = list(checks.structure(connection))
        if not findings:  # a migration would stumble over them
            migrate_copy(raw(connection))
    with snapshot(connection):
        spaces = store_meta.spaces(connection)
        if not spaces:
            raise MissingFileError(f"{path!r} holds no store yet: nobody has said what its vectors are")
        space, at = spaces["memory"], now()
        memories, assemblies = (
            selection.count(connection, selection.Selection(record_type=noun, namespace=(), now=at, recursive=True))
            for noun in RECORD_TYPES
        )
        return VerifyReport(
            path=path,
            file_bytes=Path(path).stat().st_size,
            revision=revision,
            dimension=space.dimension,
            metric=space.metric,
            curvature=space.curvature,
            embedder=space.embedder,
            memories=memories,
            assemblies=assemblies,
            changed_at=integrity.changed_at(connection),
            findings=findings or checks.stored(connection, spaces.values()),
        )


def _refusal(path: str, damage: list[str]) -> DamagedError:
    more = f"; and {len(damage) - _NAMED} more" if len(damage) > _NAMED else ""
    return DamagedError(
        f"the backup {path!r} is damaged, and was not restored ({'; '.join(damage[:_NAMED])}{more}): "
        "take another, or see what `memstore repair` can mend of a copy of it, and restore that"
    )


def _derived(finding: Finding) -> bool:
    """Whether it is of what is computed again from the rows."""
    composite = finding.noun == "assembly" and finding.kind in ("composite", "checksum", "unusable")
    return composite or finding.kind == "snapshot"


def _made_its_own(connection: Connection, findings: list[Finding]) -> None:
    """Give a copy a history of its own, and mend what *findings* say of it."""
    with translated():
        raw(connection).execute("PRAGMA foreign_keys=ON")
        begin_write(connection, 0.0)
        if findings:
            checks.mend(WriteContext(connection, store_meta.spaces(connection), now()), findings)
        set_new_epoch(raw(connection))
        commit(connection)

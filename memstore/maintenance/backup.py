"""Backup and restore of whole files. Other processes may have the files open, and the store need not be open here."""

import asyncio
import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from sqlalchemy import Connection

from memstore.concurrency import Progress, StopSignal, in_cancellable_thread, on_current_loop
from memstore.config import check_timeout, path_text
from memstore.database import raw
from memstore.database.backup_copy import copy_file, set_new_epoch
from memstore.database.driver_errors import translated
from memstore.database.file_identity import OpenedFile, check_single_name
from memstore.database.fork_safety import temporary_connections
from memstore.database.read_only import check_writable, without_log
from memstore.database.restore_copy import CopyControl, page_size, private_copy, replace_content
from memstore.database.transactions import begin_write, commit
from memstore.errors import DamagedError, InvalidError
from memstore.maintenance.repair import repair_file
from memstore.maintenance.verify import examine, no_progress, stored_revision
from memstore.models.reports import Finding, VerifyReport
from memstore.repository import store_meta
from memstore.repository.context import WriteContext
from memstore.session import check_no_open_transaction
from memstore.timestamps import now

_NAMED = 3  # findings that the error of a damaged backup names


async def backup(
    path: str,
    target: str | os.PathLike[str],
    on_progress: Progress | None = None,
    opened: OpenedFile | None = None,
) -> None:
    """Copy the file at *path*, of any schema revision, into a new file *target*; see `Store.backup`.

    *opened* is the file as an open store knows it, so that a file that replaced it is not copied.
    """
    file = path_text(target)
    report = no_progress if on_progress is None else on_current_loop(on_progress)

    is_complete = False

    def work(stop: StopSignal) -> None:
        nonlocal is_complete

        def step(done: int, total: int) -> None:
            stop.check()
            report(done, total)

        copy_file(path, opened, file, step)
        is_complete = True

    try:
        await in_cancellable_thread(work)
    except asyncio.CancelledError:
        if is_complete:  # cancelled after the last page: the caller sees no result, so there must be none
            _delete(file)
        raise


def _delete(path: str) -> None:
    Path(path).unlink(missing_ok=True)


async def restore_backup(
    backup: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    timeout: float = 30.0,
    on_progress: Progress | None = None,
) -> VerifyReport:
    """Replace the contents of the file at *path* by those of *backup*. The old contents are lost.

    Other processes may have the file open. They read the old state until the restore is complete; then an open store
    sees the new state at its next call, and rebuilds its index. If the backup has another dimension, metric, curvature
    or embedder, its next calls raise `SettingsMismatchError`. Takes the writer lock while it writes.

    The backup is verified first, as by `verify`. A copy of it is migrated and gets a change log of its own, in SQLite's
    folder for temporary files (`SQLITE_TMPDIR`, else `TMPDIR`), which needs room for one copy; the folder of *path*
    needs room for two. A crash or a cancellation at any time leaves the old contents or the new ones, never a mixture.

    Args:
        backup: a file that `Store.backup` made, or any other memstore file. It is not changed.
        path: the file to replace; it is created if it does not exist.
        timeout: seconds to wait for other writers.
        on_progress: called with the pages copied and the total; every page is copied twice.

    Returns:
        What was restored. Findings about derived data (composites, the graph snapshot) are repaired in the new file.

    Raises:
        DamagedError: stored data in *backup* is damaged; nothing was restored.
        InvalidError: *backup* and *path* are the same file.
        MissingFileError: there is no backup, or no folder for *path*.
        ForeignFileError, NewerFileError: this release cannot read one of the files; neither was changed.
        BusyError: other writers held the lock for longer than *timeout*; the file was not changed.
        TransactionError: this task has a transaction open on a store in *path*.
        StorageError: the disk failed or is full; run it again once that is fixed.
    """
    source, target = path_text(backup), path_text(path)
    wait = check_timeout(timeout)
    check_no_open_transaction(target)
    report = no_progress if on_progress is None else on_current_loop(on_progress)
    return await in_cancellable_thread(lambda stop: _restore(source, target, wait, CopyControl(stop, report)))


def _restore(source: str, target: str, timeout: float, control: CopyControl) -> VerifyReport:
    with temporary_connections(source), temporary_connections(target), without_log(source), ExitStack() as stack:
        size = page_size(target)
        if source == target or (size is not None and Path(source).exists() and Path(source).samefile(target)):
            raise InvalidError(f"{source!r} cannot be restored to itself: give another file as the backup")
        check_single_name(target)
        check_writable(target)
        first, second = (CopyControl(control.stop, partial(_report_half, control.progress, half)) for half in (0, 1))
        try:
            revision = stored_revision(source)
            connection = stack.enter_context(private_copy(source, size, first))
            report = examine(connection, source, revision)
        except DamagedError as error:
            raise _damaged_backup(source, [str(error.__cause__ or error)]) from error
        # Damage in the history affects reads as of an earlier time only, and the report names it.
        if not all(_is_derived(finding) or finding.kind == "history" for finding in report.findings):
            raise _damaged_backup(source, list(map(str, report.findings)))
        _finish_copy(connection, report.findings)
        replace_content(target, connection, timeout, second)
    return report


def _report_half(report: Progress, half: int, done: int, total: int) -> None:
    """Report the progress of one of two copies as that of both."""
    report(half * total + done, 2 * total)


def _damaged_backup(path: str, damage: list[str]) -> DamagedError:
    more = f"; and {len(damage) - _NAMED} more" if len(damage) > _NAMED else ""
    return DamagedError(
        f"the backup {path!r} is damaged and was not restored ({'; '.join(damage[:_NAMED])}{more}): use another "
        "backup, or run `memstore repair` on a copy of it and restore that"
    )


def _is_derived(finding: Finding) -> bool:
    """Whether *finding* is about data that can be computed from the rows."""
    composite = finding.record_kind == "assembly" and finding.kind in ("composite", "checksum", "unusable")
    return composite or finding.kind == "snapshot"


def _finish_copy(connection: Connection, findings: list[Finding]) -> None:
    """Repair what *findings* say of a copy, and give it a change log of its own."""
    with translated():
        raw(connection).execute("PRAGMA foreign_keys=ON")
        begin_write(connection, 0.0)
        if findings:
            repair_file(WriteContext(connection, store_meta.spaces(connection), now()), findings)
        set_new_epoch(raw(connection))
        commit(connection)

"""The commands on whole files: backup, verify, restore."""

from collections.abc import Callable, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

import memstore
from memstore import MemstoreError, MissingFileError
from memstore.cli import options
from memstore.cli.confirmation import confirm
from memstore.cli.event_loop import run_async
from memstore.cli.exit_codes import PROBLEM
from memstore.cli.jsonl import record_as_json
from memstore.cli.options import EXAMPLE_DURATIONS
from memstore.cli.output import (
    ProgressCallback,
    print_fields,
    print_findings,
    print_json,
    print_line,
    print_result,
    progress,
)
from memstore.cli.stores import open_read_only
from memstore.cli.text import quantity, second_text, size_text, space_text
from memstore.config import path_text
from memstore.database.inspect import HEAD, inspect
from memstore.database.restore_copy import has_store
from memstore.maintenance.backup import backup as copy
from memstore.models import VerifyReport

T = TypeVar("T")


def backup(
    file: options.File,
    target: Annotated[Path, typer.Argument(help="The new file; it must not exist.", show_default=False)],
    json: options.Json = False,
) -> None:
    """Copy the store into a new file.

    The copy has the state of one moment; others may read and write the store meanwhile. It is a store itself:
    `memstore verify` checks it, `memstore restore` restores it, and every command opens it.

    --json prints {"path": …, "bytes": …}.
    """
    if inspect(str(file)) is None:
        raise MissingFileError(f"No store at {str(file)!r} to copy.")
    _with_progress("copying", lambda update: copy(path_text(file), target, update))
    size = target.stat().st_size
    print_result({"path": str(target), "bytes": size}, f"copied to {target} ({size_text(size)})", json=json)


def verify(file: options.File, json: options.Json = False) -> None:
    """Verify a backup or a store.

    Reads the whole file: SQLite's structure, owners of rows, checksums of vectors, composites, the stored search graph
    and the schema. The file is not changed, and others may use it meanwhile. Exit code 3 if it is damaged, 1 if it is
    not a memstore file or belongs to a newer release.

    --json prints one object, with "intact" and "findings".
    """
    report = run_async(memstore.verify(file))
    if json:
        print_json({"intact": not report.findings, **record_as_json(report)})
    else:
        _print_report(report)
    if report.findings:
        raise typer.Exit(PROBLEM)


def _print_report(report: VerifyReport) -> None:
    fields: dict[str, object] = {"file": report.path, "size": size_text(report.file_bytes)}
    if report.revision is not None:
        older = f" (this release: {HEAD}; the file is migrated when it is opened for writing or restored)"
        fields |= {
            "memories": f"{report.memories:,}",
            "assemblies": f"{report.assemblies:,}",
            "vectors": space_text(report.dimension, report.metric, report.curvature),
            "embedder": report.embedder or "none",
            "last change": second_text(report.changed_at),
            "file revision": report.revision + (older if report.revision != HEAD else ""),
        }
    print_fields(fields)
    if not report.findings:
        print_line("intact")
        return
    print_findings(report.findings)
    print_line(
        f"{quantity(len(report.findings), 'finding')}. Use another backup, or run `memstore repair` on a copy of this "
        "file."
    )


def restore(
    file: options.File,
    source: Annotated[Path, typer.Argument(metavar="BACKUP", help="The backup.", show_default=False)],
    yes: options.Yes = False,
    timeout: Annotated[
        str,
        typer.Option("--timeout", metavar="DURATION", help=f"How long to wait for other writers. {EXAMPLE_DURATIONS}"),
    ] = "30s",
    json: options.Json = False,
) -> None:
    """Replace the store with a backup.

    What the store contained before is lost, so the command asks first, or needs --yes. A missing store is created.
    The backup is verified first, and a damaged one is refused. Others may have the store open, and see the restored
    one at their next call. If the command is interrupted, the store is as before, or restored completely.

    --json prints what was restored, as `memstore verify` does.
    """
    seconds = options.parse_duration(timeout, "--timeout").total_seconds()
    if not yes and has_store(path_text(file)):
        confirm(_question(source, file))
    report = _with_progress(
        "restoring", lambda update: memstore.restore_backup(source, file, timeout=seconds, on_progress=update)
    )
    contents = _contents(report.memories, report.assemblies, report.changed_at)
    print_result(record_as_json(report), f"restored {contents} into {file}", json=json)
    if report.findings and not json:
        print_line(f"recomputed {quantity(len(report.findings), 'value')} that did not match the records")


def _question(source: Path, file: Path) -> str:
    """What would be lost, and what would replace it."""
    report = run_async(memstore.verify(source))
    try:
        contents = run_async(_current_contents(file))
    except MemstoreError as error:
        contents = f"data that cannot be read ({str(error).rstrip('.')})"
    replacement = _contents(report.memories, report.assemblies, report.changed_at)
    return f"{file} contains {contents}. Restoring replaces all of it with {replacement} from {source}."


async def _current_contents(file: Path) -> str:
    async with open_read_only(file) as store:
        statistics, changed_at = await store.stats(), None
        for records in (store.memories, store.assemblies):
            async for record in records.list(recursive=True, order="-updated_at", limit=1):
                changed_at = record.updated_at if changed_at is None else max(changed_at, record.updated_at)
        return _contents(statistics.memories, statistics.assemblies, changed_at)


def _contents(memories: int, assemblies: int, changed_at: datetime | None) -> str:
    changed = "" if changed_at is None else f" (last change {second_text(changed_at)})"
    return f"{quantity(memories, 'memory')} and {quantity(assemblies, 'assembly')}{changed}"


def _with_progress(description: str, work: Callable[[ProgressCallback], Coroutine[Any, Any, T]]) -> T:
    with progress(description) as update:
        return run_async(work(update))

"""The commands on whole files: backup, verify, restore."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

import memstore
from memstore import InvalidError, MemstoreError, MissingFileError
from memstore.cli.jsonl import as_json
from memstore.cli.maintenance import FOUND_SOMETHING
from memstore.cli.options import AsJson, File
from memstore.cli.output import number, progress, say, say_json, show_fields, show_findings, size_text, space_text
from memstore.cli.stores import looking
from memstore.config import path_text
from memstore.database.inspect import HEAD, inspect
from memstore.database.restore_copy import has_store
from memstore.maintenance.backup import backup as copy
from memstore.models import VerifyReport

T = TypeVar("T")


def backup(
    target: Annotated[Path, typer.Argument(help="The new file; it must not exist.", show_default=False)],
    file: File,
    json: AsJson = False,
) -> None:
    """Copy the store, as it is at one moment, into a new file; others may go on reading and writing it.

    The copy is one file, of the same release as the store: a store that every command opens, that verify looks over,
    and that restore puts back. --json prints {"path": …, "bytes": …}.
    """
    if inspect(str(file)) is None:
        raise MissingFileError(f"there is no store at {str(file)!r} to copy")
    _shown("copying", lambda told: copy(path_text(file), target, told))
    size = target.stat().st_size
    if json:
        say_json({"path": str(target), "bytes": size})
    else:
        say(f"copied to {target} ({size_text(size)})")


def verify(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="A backup, or any other memstore file.", show_default=False)
    ],
    json: AsJson = False,
) -> None:
    """Read all of a file, say what it is, and whether it is whole: a backup, before it is needed.

    Looks at SQLite's own structure, owners of rows, checksums of vectors, composites, the stored search graph and the
    schema. The file is not changed, and others may go on using it. Exit code 0 if it is whole, 3 if something is wrong
    with it, 1 if it is no memstore file, or one of a newer release. --json prints one object, with "whole" and
    "findings".
    """
    found = asyncio.run(memstore.verify(path))
    if json:
        findings = [as_json(finding) for finding in found.findings]
        say_json({"whole": not findings, **as_json(found), "findings": findings})
    else:
        _show(found)
    if found.findings:
        raise typer.Exit(FOUND_SOMETHING)


def _show(found: VerifyReport) -> None:
    older = f", older than this release's {HEAD}: it is brought up to date when it is opened or restored"
    readable = found.revision is not None
    show_fields(
        {
            "file": found.path,
            "size": size_text(found.file_bytes),
            "memories": f"{found.memories:,}" if readable else None,
            "assemblies": f"{found.assemblies:,}" if readable else None,
            "embeddings": space_text(found) if readable else None,
            "embedder": (found.embedder or "none named") if readable else None,
            "last change": _when(found.changed_at) if readable else None,
            "revision": f"{found.revision}{older if found.revision != HEAD else ''}" if readable else None,
        }
    )
    if not found.findings:
        say("whole: nothing is wrong with it")
        return
    show_findings(found.findings)
    say(
        f"{number(len(found.findings), 'finding')}: take another backup if there is one; "
        "else see what memstore repair can mend of a copy of it"
    )


def restore(
    source: Annotated[Path, typer.Argument(metavar="BACKUP", help="What to restore from.", show_default=False)],
    file: File,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before replacing what the file holds.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait for those who write.")] = 30.0,
    json: AsJson = False,
) -> None:
    """Have the store hold what a backup holds; what it held before is lost. A store that does not exist is made.

    The backup is verified first, and a damaged one is refused. Others may have the store open: they see the restored
    one at their next call. Stopped at any moment, it has done all of it or nothing. --json prints what was restored,
    as verify does.
    """
    if not yes and has_store(path_text(file)):
        _confirm(source, file)
    done = _shown("restoring", lambda told: memstore.restore_backup(source, file, timeout=timeout, on_progress=told))
    if json:
        say_json(as_json(done) | {"findings": [as_json(finding) for finding in done.findings]})
        return
    say(f"restored {_holdings(done.memories, done.assemblies, done.changed_at)} into {file}")
    if done.findings:
        say(f"{number(len(done.findings), 'derived value')} that had fallen behind was computed again")


def _confirm(source: Path, file: Path) -> None:
    """Say what would be lost, and go on only if that is wanted."""
    found = asyncio.run(memstore.verify(source))
    try:
        held = asyncio.run(_held(file))
    except MemstoreError as error:
        held = f"what cannot be read ({error})"
    question = (
        f"{file} holds {held}; all of it would be replaced by "
        f"{_holdings(found.memories, found.assemblies, found.changed_at)} of {source}"
    )
    if not _somebody_is_there():
        raise InvalidError(f"{question}: say --yes if that is wanted; nothing was changed")
    if not typer.confirm(f"{question}. Go on?", err=True):
        raise InvalidError("nothing was changed")


def _somebody_is_there() -> bool:
    return sys.stdin.isatty()


async def _held(file: Path) -> str:
    async with looking(file) as store:
        stats, when = await store.stats(), None
        for noun in (store.memories, store.assemblies):
            async for record in noun.list(recursive=True, order="-updated_at"):
                when = record.updated_at if when is None else max(when, record.updated_at)
                break
        return _holdings(stats.memories, stats.assemblies, when)


def _holdings(memories: int, assemblies: int, changed_at: datetime | None) -> str:
    changed = "" if changed_at is None else f" (last change {_when(changed_at)})"
    return f"{number(memories, 'memory', 'memories')} and {number(assemblies, 'assembly', 'assemblies')}{changed}"


def _when(time: datetime | None) -> str | None:
    return None if time is None else f"{time:%Y-%m-%d %H:%M:%S} UTC"


def _shown(what: str, work: Callable[[Callable[[int, int], None]], Coroutine[Any, Any, T]]) -> T:
    """Run *work*, which tells of its progress, under a bar."""
    with progress() as bar:
        task = bar.add_task(what, total=None)
        return asyncio.run(work(lambda done, of: bar.update(task, completed=done, total=of)))

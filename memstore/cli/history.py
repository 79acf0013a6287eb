"""The commands on the history of a record: history, undo."""

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.text import Text

import memstore
from memstore import Assemblies, Change, HistoryError, Memories, StoreNamespace, as_actor
from memstore.cli import options
from memstore.cli.jsonl import record_as_json
from memstore.cli.options import EXAMPLE_DURATIONS, parse_duration
from memstore.cli.output import print_json, print_note, print_result, print_table, table
from memstore.cli.stores import open_existing, read_namespace, write_namespace
from memstore.cli.text import json_text, quantity, snippet
from memstore.escaping import escape_text

Id = Annotated[str, typer.Argument(help="The id of the record, existing or deleted.", show_default=False)]

_VALUE_SIZE = 48
_HIDDEN_FIELDS = frozenset({"id", "updated_at", "created_at", "accessed_at", "access_count"})


async def history(
    file: options.File,
    id: Annotated[
        str | None, typer.Argument(help="The id of the record, existing or deleted.", show_default=False)
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            "--keep",
            metavar="DURATION",
            help=f"Set how long the file keeps changes; full for ever, off for no history. {EXAMPLE_DURATIONS}",
        ),
    ] = None,
    assembly: options.OneAssembly = False,
    limit: Annotated[int, typer.Option("--limit", "-l", min=1, help="The highest number of changes.")] = 20,
    namespace: options.Namespace = "",
    json: options.Json = False,
) -> None:
    """List the changes of a record, or set how long changes are kept.

    The latest change comes first. With --keep instead of an id, the file keeps changes for that time from now on, and
    deletes older ones; `memstore compact` returns their space to the file system.

    --json prints a line for each change: number, record_kind, id, namespace, kind, at, actor, reason, undoes, old, new,
    members_added, members_removed. With --keep it prints {"keep": seconds, "full" or "off"}.
    """
    if (id is None) == (keep is None):
        raise typer.BadParameter("Pass either the id of a record or --keep.")
    if keep is not None:
        await _set_retention(file, keep, json=json)
        return
    async with read_namespace(file, namespace) as scope:
        changes = await _noun(scope, assembly=assembly).history(id or "", limit=limit)
    if json:
        for change in changes:
            print_json(record_as_json(change))
        return
    _print(changes)
    print_note(quantity(len(changes), "change"))


async def _set_retention(file: Path, text: str, *, json: bool) -> None:
    """Store in *file* for how long it keeps changes."""
    keep: Any = text
    if text not in ("full", "off"):
        keep = parse_duration(text, "--keep", "full for ever, or off")
    async with open_existing(file):
        pass
    async with memstore.open(file, history=keep):
        pass
    seconds = keep.total_seconds() if isinstance(keep, timedelta) else keep
    words = {"full": "keeps all changes", "off": "keeps no history, and deleted what it had"}
    print_result({"keep": seconds}, f"{file} {words.get(text, f'keeps changes for {text}')}", json=json)


async def undo(
    file: options.File,
    number: Annotated[
        int,
        typer.Argument(metavar="CHANGE", help="The number of the change, from `memstore history`.", show_default=False),
    ],
    id: Id,
    assembly: options.OneAssembly = False,
    actor: Annotated[str, typer.Option("--actor", help="Who makes the change; stored with it.")] = "memstore undo",
    reason: options.Reason = None,
    namespace: options.Namespace = "",
    json: options.Json = False,
) -> None:
    """Undo a change of a memory or an assembly.

    The command fails if a later change depends on it.

    --json prints the new change, as `memstore history` does.
    """
    async with write_namespace(file, namespace) as scope:
        changes = await _noun(scope, assembly=assembly).history(id)
        target = next((entry for entry in changes if entry.number == number), None)
        if target is None:
            raise HistoryError(
                f"The history of {id!r} has no change {number}. Run `memstore history` to list its changes.",
                since=None,
            )
        with as_actor(actor, reason=reason):
            undone = await scope.undo(target)
    if json:
        print_json(record_as_json(undone))
    else:
        _print([undone])


def _noun(scope: StoreNamespace, *, assembly: bool) -> Assemblies | Memories:
    return scope.assemblies if assembly else scope.memories


def _print(changes: Iterable[Change]) -> None:
    grid = table(">change", "when (UTC)", "what", "actor and reason")
    for change in changes:
        actor = Text(escape_text(change.actor or ""))
        if change.reason is not None:
            actor.append("\n" + snippet(change.reason), style="dim")
        grid.add_row(str(change.number), f"{change.at:%Y-%m-%d %H:%M:%S}", _description(change), actor)
    print_table(grid)


def _description(change: Change) -> Text:
    undoes = "" if change.undoes is None else f" (undoes {change.undoes})"
    text = Text(change.kind + undoes, style="bold")
    for name in sorted({*change.old, *change.new} - _HIDDEN_FIELDS):
        old, new = (_value_text(values[name]) if name in values else None for values in (change.old, change.new))
        if (not old and not new) or (not change.old and change.new[name] is False):
            continue
        line = f"{old or '(none)'} → {new or '(none)'}" if change.old and change.new else (new or old)
        if name == "embedding" and old == new:
            line = f"{new}, with other values"
        text.append(f"\n{name}: {line}", style="not bold")
    for title, ids in (("members added", change.members_added), ("members removed", change.members_removed)):
        if ids:
            names = ", ".join(snippet(id, _VALUE_SIZE) for id in ids[:5])
            text.append(f"\n{title}: {names}{', …' * (len(ids) > 5)}", style="not bold")
    return text


def _value_text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"dimension {value.size}"
    if isinstance(value, frozenset | tuple):
        return ", ".join(escape_text(word) for word in (sorted(value) if isinstance(value, frozenset) else value))
    if isinstance(value, dict):
        return snippet(json_text(value), _VALUE_SIZE)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else snippet(str(value), _VALUE_SIZE)

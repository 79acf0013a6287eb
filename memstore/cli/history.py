"""The commands on what was: the history of a record, and undoing a change of it."""

import asyncio
from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np
import typer
from rich.text import Text

from memstore import Change, HistoryError, as_actor
from memstore.cli.jsonl import as_json, value_as_json
from memstore.cli.options import AsJson, File, InNamespace, namespace_of
from memstore.cli.output import clean, number, say, say_json, show_table, snippet, table
from memstore.cli.stores import changing, looking

Id = Annotated[str, typer.Argument(help="The record's id; of one that is gone, too.", show_default=False)]
OfAssembly = Annotated[bool, typer.Option("--assembly", "-a", help="Of an assembly; of a memory if left out.")]

_SHORT = 48  # characters of a value
_UNSAID = frozenset({"id", "updated_at", "created_at", "accessed_at", "access_count"})
"""What is not said of a change: it says nothing that the change does not."""


def history(
    id: Id,
    file: File,
    assembly: OfAssembly = False,
    limit: Annotated[int, typer.Option("--limit", "-l", min=1, help="How many changes at most.")] = 20,
    namespace: InNamespace = "",
    json: AsJson = False,
) -> None:
    """Show what happened to a memory or an assembly, the latest first.

    --json prints a line each: number, noun, id, namespace, kind, at, actor, reason, undoes, old,
    new, members_added, members_removed.
    """

    async def run() -> list[Change]:
        async with looking(file) as store:
            place = store.namespace(*namespace_of(namespace))
            noun = place.assemblies if assembly else place.memories
            return await noun.history(id, limit=limit)

    changes = asyncio.run(run())
    if json:
        for change in changes:
            say_json(_as_json(change))
        return
    _show(changes)
    say(number(len(changes), "change"), style="dim")


def undo(
    change: Annotated[int, typer.Argument(help="The number of the change, as history shows it.", show_default=False)],
    id: Id,
    file: File,
    assembly: OfAssembly = False,
    actor: Annotated[str, typer.Option("--actor", help="Who undoes it, for the history.")] = "memstore undo",
    reason: Annotated[str | None, typer.Option("--reason", help="Why, for the history.")] = None,
    namespace: InNamespace = "",
    json: AsJson = False,
) -> None:
    """Undo a change of a memory or an assembly, where nothing later depends on it.

    --json prints the change that undid it, as history does.
    """

    async def run() -> Change:
        async with changing(file) as store:
            place = store.namespace(*namespace_of(namespace))
            noun = place.assemblies if assembly else place.memories
            for one in await noun.history(id):
                if one.number == change:
                    with as_actor(actor, reason=reason):
                        return await store.undo(one)
            raise HistoryError(f"{id!r} has no change {change} that is kept: `memstore history` shows them", since=None)

    made = asyncio.run(run())
    if json:
        say_json(_as_json(made))
        return
    _show([made])


def _show(changes: Iterable[Change]) -> None:
    made = table(">change", "when (UTC)", "what", "by")
    for change in changes:
        by = Text(clean(change.actor or ""))
        if change.reason is not None:
            by.append("\n" + snippet(change.reason), style="dim")
        made.add_row(str(change.number), f"{change.at:%Y-%m-%d %H:%M:%S}", _what(change), by)
    show_table(made)


def _what(change: Change) -> Text:
    undoes = "" if change.undoes is None else f" (undoes {change.undoes})"
    text = Text(change.kind + undoes, style="bold")
    for name in sorted({*change.old, *change.new} - _UNSAID):
        old, new = (_shown(values[name]) if name in values else None for values in (change.old, change.new))
        if not old and not new:
            continue
        said = f"{old} → {new}" if change.old and change.new else (new or old)
        if name == "embedding" and old == new:
            said = f"{new}, others than before"
        text.append(f"\n{name}: {said}", style="not bold")
    for what, ids in (("added", change.members_added), ("removed", change.members_removed)):
        if ids:
            named = ", ".join(snippet(id, _SHORT) for id in ids[:5])
            text.append(f"\n{what}: {named}{', …' * (len(ids) > 5)}", style="not bold")
    return text


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.size} numbers"
    if isinstance(value, frozenset | tuple):
        return ", ".join(clean(word) for word in (sorted(value) if isinstance(value, frozenset) else value))
    return "" if value is None or value == {} else snippet(str(value), _SHORT)


def _as_json(change: Change) -> dict[str, Any]:
    said = as_json(change)
    for name in ("old", "new"):
        said[name] = {field: value_as_json(value) for field, value in said[name].items()}
    return said

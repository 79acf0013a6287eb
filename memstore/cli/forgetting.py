"""The commands of forgetting: forget, trash, untrash, purge, and prune for assemblies."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from memstore import AssemblyForgetPolicy, ForgetPlan, ForgetPolicy, Store, StoreNamespace
from memstore.cli.jsonl import as_json, brief
from memstore.cli.options import AsJson, Below, File, InNamespace, Where, namespace_of, refuse, where_of
from memstore.cli.output import assembly_text, clean, memory_text, number, say, say_json, show_table, size_text, table
from memstore.cli.stores import changing, looking
from memstore.models import TrashEntry

SHOWN = 50

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")

_FORM = "A number with s, m, h, d or w behind it: 90d."
OlderThan = Annotated[
    str | None, typer.Option("--older-than", metavar="TIME", help=f"Created longer ago than this. {_FORM}")
]
Any_ = Annotated[bool, typer.Option("--any", help="What meets any of the criteria, not only what meets all.")]
Apply = Annotated[bool, typer.Option("--apply", help="Move it to the trash. Without this nothing is changed.")]
Actor = Annotated[str | None, typer.Option("--actor", help="Who asks for it; kept with each record.")]
Reason = Annotated[str | None, typer.Option("--reason", help="Why; the criteria each met, if left out.")]
Shown = Annotated[int, typer.Option("--limit", "-l", min=1, help="How many to show at most; all count.")]
OfAssemblies = Annotated[bool, typer.Option("--assemblies", help="Assemblies instead of memories.")]


def forget(
    file: File,
    older_than: OlderThan = None,
    unused_for: Annotated[
        str | None, typer.Option("--unused-for", metavar="TIME", help="Not touched for longer than this.")
    ] = None,
    importance_below: Annotated[
        float | None, typer.Option("--importance-below", min=0, max=1, help="Of less importance.")
    ] = None,
    expires_within: Annotated[
        str | None, typer.Option("--expires-within", metavar="TIME", help="To expire within this time.")
    ] = None,
    max_count: Annotated[int | None, typer.Option("--max-count", min=0, help="So many may stay.")] = None,
    max_bytes: Annotated[int | None, typer.Option("--max-bytes", min=0, help="So many bytes may stay.")] = None,
    where: Where = None,
    any: Any_ = False,
    namespace: InNamespace = "",
    recursive: Below = False,
    apply: Apply = False,
    actor: Actor = None,
    reason: Reason = None,
    limit: Shown = SHOWN,
    json: AsJson = False,
) -> None:
    """Say which memories would be forgotten, and why; with --apply move them to the trash.

    Several criteria must all be met, unless --any is given. A budget (--max-count, --max-bytes) takes the least
    important first, of equals the one unused for longest. Pinned memories never go. `memstore untrash` brings back what
    was forgotten. --json prints a line each, {"id", "namespace", "reasons", "bytes"}, and then {"applied", "forgotten",
    "bytes", "remaining"}.
    """
    policy = ForgetPolicy(
        older_than=_span(older_than, "--older-than"),
        unused_for=_span(unused_for, "--unused-for"),
        importance_below=importance_below,
        expires_within=_span(expires_within, "--expires-within"),
        max_count=max_count,
        max_bytes=max_bytes,
        where=where_of(where),
        match="any" if any else "all",
    )

    async def plan(place: StoreNamespace) -> ForgetPlan:
        return await place.memories.plan_forget(policy, recursive=recursive)

    async def carry_out(place: StoreNamespace, plan: ForgetPlan) -> int:
        return await place.memories.forget(plan, actor=actor, reason=reason)

    asyncio.run(_planned(_opened(file, apply), namespace, plan, carry_out if apply else None, limit, json=json))


def prune(
    file: File,
    older_than: OlderThan = None,
    inactive_for: Annotated[
        str | None, typer.Option("--inactive-for", metavar="TIME", help="Not activated for longer than this.")
    ] = None,
    activated_fewer_than: Annotated[
        int | None, typer.Option("--activated-fewer-than", min=1, help="Activated fewer times than this.")
    ] = None,
    members_below: Annotated[
        int | None, typer.Option("--members-below", min=1, help="Of fewer members than this; 1 for the empty ones.")
    ] = None,
    where: Where = None,
    any: Any_ = False,
    namespace: InNamespace = "",
    recursive: Below = False,
    apply: Apply = False,
    actor: Actor = None,
    reason: Reason = None,
    limit: Shown = SHOWN,
    json: AsJson = False,
) -> None:
    """Say which assemblies would be forgotten, and why; with --apply move them to the trash. Their members stay.

    Several criteria must all be met, unless --any is given. --json prints as `memstore forget` does.
    """
    policy = AssemblyForgetPolicy(
        older_than=_span(older_than, "--older-than"),
        inactive_for=_span(inactive_for, "--inactive-for"),
        activated_fewer_than=activated_fewer_than,
        members_below=members_below,
        where=where_of(where),
        match="any" if any else "all",
    )

    async def plan(place: StoreNamespace) -> ForgetPlan:
        return await place.assemblies.plan_forget(policy, recursive=recursive)

    async def carry_out(place: StoreNamespace, plan: ForgetPlan) -> int:
        return await place.assemblies.forget(plan, actor=actor, reason=reason)

    asyncio.run(_planned(_opened(file, apply), namespace, plan, carry_out if apply else None, limit, json=json))


def _opened(file: Path, apply: bool) -> AbstractAsyncContextManager[Store]:
    return changing(file) if apply else looking(file)


async def _planned(
    opened: AbstractAsyncContextManager[Store],
    namespace: str,
    make: Callable[[StoreNamespace], Awaitable[ForgetPlan]],
    carry_out: Callable[[StoreNamespace, ForgetPlan], Awaitable[int]] | None,
    limit: int,
    *,
    json: bool,
) -> None:
    """Make a plan and show it; with *carry_out*, do it."""
    async with opened as store:
        place = store.namespace(*namespace_of(namespace))
        plan = await make(place)
        rows = [] if json else await _rows(store, plan, limit)
        gone = None if carry_out is None else await carry_out(place, plan)
    if json:
        for each in plan.candidates:
            say_json({"id": each.id, "namespace": each.namespace, "reasons": each.reasons, "bytes": each.bytes})
        summary = {"forgotten": len(plan) if gone is None else gone, "bytes": plan.bytes, "remaining": plan.remaining}
        say_json({"applied": gone is not None, **summary})
        return
    if rows:
        made = table(plan.noun, "why", ">size")
        for row in rows:
            made.add_row(*row)
        show_table(made)
    _told(plan, gone, len(rows))


async def _rows(store: Store, plan: ForgetPlan, limit: int) -> list[tuple[Text, str, str]]:
    rows = []
    for each in plan.candidates[:limit]:
        place = store.namespace(*each.namespace)
        if plan.noun == "memory":
            shown = [memory_text(record) for record in (await place.memories.get_many([each.id])).values()]
        else:
            shown = [assembly_text(record) for record in (await place.assemblies.get_many([each.id])).values()]
        rows.append((shown[0] if shown else Text(clean(each.id)), ", ".join(each.reasons), size_text(each.bytes)))
    return rows


def _told(plan: ForgetPlan, gone: int | None, shown: int) -> None:
    many = number(len(plan), *_NOUNS[plan.noun])
    more = f" ({shown:,} of them shown)" if shown < len(plan) else ""
    if gone is not None:
        say(f"moved {number(gone, *_NOUNS[plan.noun])} to the trash{more}; {plan.remaining:,} stay")
    elif len(plan):
        say(f"{many}{more} of {size_text(plan.bytes)} would go, {plan.remaining:,} would stay; nothing was changed")
        say("--apply moves them to the trash", style="dim")
    else:
        say(f"nothing would go; {plan.remaining:,} would stay")


_NOUNS = {"memory": ("memory", "memories"), "assembly": ("assembly", "assemblies")}


def trash(
    file: File,
    assemblies: OfAssemblies = False,
    limit: Annotated[int, typer.Option("--limit", "-l", min=1, help="How many at most.")] = 20,
    namespace: InNamespace = "",
    json: AsJson = False,
) -> None:
    """List what was forgotten and can be brought back, the latest first.

    --json prints a line each: {"at", "actor", "reason", "record"}, the record without its vector.
    """

    async def run() -> list[TrashEntry[Any]]:
        async with looking(file) as store:
            place = store.namespace(*namespace_of(namespace))
            found: list[TrashEntry[Any]] = []
            lying: Any = place.assemblies.trash() if assemblies else place.memories.trash()
            async with aclosing(lying):
                async for each in lying:
                    found.append(each)
                    if len(found) == limit:
                        break
            return found

    found = asyncio.run(run())
    if json:
        for each in found:
            say_json({**as_json(each, without=frozenset({"record"})), "record": brief(each.record)})
        return
    if not found:
        say("the trash is empty")
        return
    made = table("assembly" if assemblies else "memory", "forgotten (UTC)", "by", "why")
    for each in found:
        text = assembly_text(each.record) if assemblies else memory_text(each.record)
        who, why = Text(clean(each.actor or "")), Text(clean(each.reason or ""))
        made.add_row(text, Text(f"{each.at:%Y-%m-%d %H:%M}", style="dim"), who, why)
    show_table(made)


def untrash(
    ids: Annotated[list[str], typer.Argument(help="Ids of what was forgotten.", show_default=False)],
    file: File,
    assemblies: OfAssemblies = False,
    namespace: InNamespace = "",
    json: AsJson = False,
) -> None:
    """Bring back from the trash what was forgotten, all of it or nothing.

    (`memstore restore` is another thing: it puts a backup in the place of the whole file.) --json prints a line each:
    the record without its vector.
    """

    async def run() -> list[Any]:
        async with changing(file) as store:
            place = store.namespace(*namespace_of(namespace))
            noun: Any = place.assemblies if assemblies else place.memories
            return list(await noun.recover(ids))

    back = asyncio.run(run())
    if json:
        for record in back:
            say_json(brief(record))
    else:
        say(f"brought back {number(len(back), *_NOUNS['assembly' if assemblies else 'memory'])}")


def purge(
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="TIME", help=f"Forgotten longer ago; 0d for all. {_FORM}")
    ],
    file: File,
    namespace: InNamespace = "",
    recursive: Below = False,
    json: AsJson = False,
) -> None:
    """End for good what has lain in the trash for so long. `memstore compact` then gives its room back to the disk.

    --json prints {"purged": how many}.
    """
    length = _span(older_than, "--older-than")

    async def run() -> int:
        async with changing(file) as store:
            place = store.namespace(*namespace_of(namespace))
            memories = await place.memories.purge(older_than=length or 0, recursive=recursive)
            return memories + await place.assemblies.purge(older_than=length or 0, recursive=recursive)

    gone = asyncio.run(run())
    if json:
        say_json({"purged": gone})
    else:
        say(f"purged {number(gone, 'record')}")


def _span(text: str | None, option: str) -> timedelta | None:
    """A span of time from a number and its unit; None for None."""
    if text is None:
        return None
    found = _SPAN.fullmatch(text)
    try:
        if found is not None:
            return timedelta(seconds=float(found[1]) * _UNITS[found[2]])
    except OverflowError:
        pass
    raise refuse(option, f"{text!r} is no time: write it as 90d, 12h, 30m or 45s")

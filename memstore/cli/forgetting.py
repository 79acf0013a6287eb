"""The commands on the trash, for memories and with --assemblies for assemblies: forget, trash, recover, purge."""

from contextlib import aclosing
from typing import Annotated, Any

import typer
from rich.text import Text

from memstore import Assemblies, AssemblyForgetPolicy, ForgetPlan, ForgetPolicy, Memories, StoreNamespace
from memstore.cli import options
from memstore.cli.jsonl import record_as_json, record_without_vector
from memstore.cli.options import DURATION_HELP, parse_duration, parse_where, refuse
from memstore.cli.output import (
    assembly_text,
    memory_text,
    print_json,
    print_line,
    print_note,
    print_result,
    print_table,
    table,
)
from memstore.cli.stores import read_namespace, write_namespace
from memstore.cli.text import clean, minute_text, quantity, size_text

ROWS = 50

_MEMORY_PANEL = "Criteria for memories"
_ASSEMBLY_PANEL = "Criteria for assemblies"


def _duration(name: str, help: str, panel: str | None = None) -> Any:
    return typer.Option(name, metavar="DURATION", help=f"{help} {DURATION_HELP}", rich_help_panel=panel)


OlderThan = Annotated[str | None, _duration("--older-than", "Created longer ago.")]
UnusedFor = Annotated[str | None, _duration("--unused-for", "Not touched for longer.", _MEMORY_PANEL)]
ImportanceBelow = Annotated[
    float | None,
    typer.Option("--importance-below", min=0, max=1, help="Less important.", rich_help_panel=_MEMORY_PANEL),
]
ExpiresWithin = Annotated[str | None, _duration("--expires-within", "Expires sooner.", _MEMORY_PANEL)]
MaxCount = Annotated[
    int | None,
    typer.Option("--max-count", min=0, help="The number of memories to keep.", rich_help_panel=_MEMORY_PANEL),
]
MaxBytes = Annotated[
    int | None, typer.Option("--max-bytes", min=0, help="The bytes of memories to keep.", rich_help_panel=_MEMORY_PANEL)
]
InactiveFor = Annotated[str | None, _duration("--inactive-for", "Not activated for longer.", _ASSEMBLY_PANEL)]
ActivatedFewerThan = Annotated[
    int | None,
    typer.Option("--activated-fewer-than", min=1, help="Activated fewer times.", rich_help_panel=_ASSEMBLY_PANEL),
]
MembersBelow = Annotated[
    int | None,
    typer.Option("--members-below", min=1, help="Fewer members; 1 for empty.", rich_help_panel=_ASSEMBLY_PANEL),
]
AnyCriterion = Annotated[bool, typer.Option("--any", help="Records that meet any criterion, not all of them.")]
Apply = Annotated[bool, typer.Option("--apply", help="Move them to the trash; else nothing is changed.")]
ForgetReason = Annotated[
    str | None, typer.Option("--reason", help="Why; stored with the change. By default the criteria met.")
]
RowLimit = Annotated[int, typer.Option("--limit", "-l", min=1, help="The highest number of rows to print.")]


async def forget(
    file: options.File,
    assemblies: options.Assemblies = False,
    older_than: OlderThan = None,
    unused_for: UnusedFor = None,
    importance_below: ImportanceBelow = None,
    expires_within: ExpiresWithin = None,
    max_count: MaxCount = None,
    max_bytes: MaxBytes = None,
    inactive_for: InactiveFor = None,
    activated_fewer_than: ActivatedFewerThan = None,
    members_below: MembersBelow = None,
    where: options.Where = None,
    any: AnyCriterion = False,
    namespace: options.Namespace = "",
    recursive: options.Recursive = False,
    apply: Apply = False,
    actor: options.Actor = None,
    reason: ForgetReason = None,
    limit: RowLimit = ROWS,
    json: options.Json = False,
) -> None:
    """Move memories or assemblies to the trash by a policy.

    Without --apply the command only lists what it would move, and why. A record must meet all criteria, or any with
    --any. --max-count and --max-bytes select the least important memories first, and among equals those unused
    longest. Pinned memories are never moved; members of a moved assembly stay. `memstore recover` brings records back
    from the trash.

    --json prints a line for each record, {"id", "namespace", "reasons", "bytes"}, and then {"applied", "forgotten",
    "bytes", "remaining"}.
    """
    memory_criteria: dict[str, Any] = {
        "unused_for": parse_duration(unused_for, "--unused-for"),
        "importance_below": importance_below,
        "expires_within": parse_duration(expires_within, "--expires-within"),
        "max_count": max_count,
        "max_bytes": max_bytes,
    }
    assembly_criteria: dict[str, Any] = {
        "inactive_for": parse_duration(inactive_for, "--inactive-for"),
        "activated_fewer_than": activated_fewer_than,
        "members_below": members_below,
    }
    _check_criteria(memory_criteria if assemblies else assembly_criteria, assemblies=assemblies)
    criteria: dict[str, Any] = {
        "older_than": parse_duration(older_than, "--older-than"),
        "where": parse_where(where),
        "match": "any" if any else "all",
    }
    policy: Any = (
        AssemblyForgetPolicy(**criteria, **assembly_criteria)
        if assemblies
        else ForgetPolicy(**criteria, **memory_criteria)
    )
    async with (write_namespace if apply else read_namespace)(file, namespace) as scope:
        records = _records_of(scope, assemblies=assemblies)
        plan = await records.plan_forget(policy, recursive=recursive)
        rows = [] if json else await _rows(scope, plan, limit)
        count = await records.forget(plan, actor=actor, reason=reason) if apply else None
    if json:
        _print_json(plan, count)
    else:
        _print(plan, rows, count)


def _check_criteria(other_criteria: dict[str, Any], *, assemblies: bool) -> None:
    """Refuse the criteria of the other kind of record."""
    for name, value in other_criteria.items():
        if value is not None:
            option = "--" + name.replace("_", "-")
            raise refuse(
                option, "It applies to memories, not to --assemblies." if assemblies else "It needs --assemblies."
            )


def _records_of(scope: StoreNamespace, *, assemblies: bool) -> Any:
    records: Assemblies | Memories = scope.assemblies if assemblies else scope.memories
    return records


def _print_json(plan: ForgetPlan, count: int | None) -> None:
    for candidate in plan.candidates:
        print_json({name: getattr(candidate, name) for name in ("id", "namespace", "reasons", "bytes")})
    forgotten = len(plan) if count is None else count
    print_json({"applied": count is not None, "forgotten": forgotten, "bytes": plan.bytes, "remaining": plan.remaining})


def _print(plan: ForgetPlan, rows: list[tuple[Text, str, str]], count: int | None) -> None:
    """Print the plan; *count* is the number of records moved, or None if it was not applied."""
    grid = table(plan.record_kind, "criteria met", ">size")
    for row in rows:
        grid.add_row(*row)
    print_table(grid)
    hidden = f" ({len(rows):,} listed)" if len(rows) < len(plan) else ""
    if count is not None:
        print_line(f"moved {quantity(count, plan.record_kind)} to the trash{hidden}, {plan.remaining:,} remain")
    elif len(plan):
        count_and_size = f"{quantity(len(plan), plan.record_kind)} ({size_text(plan.bytes)})"
        print_line(f"would move {count_and_size} to the trash{hidden}, {plan.remaining:,} remain")
        print_note("nothing was changed; pass --apply to move them")
    else:
        print_line(f"nothing to forget, {plan.remaining:,} remain")


async def _rows(scope: StoreNamespace, plan: ForgetPlan, limit: int) -> list[tuple[Text, str, str]]:
    rows = []
    assemblies = plan.record_kind == "assembly"
    for candidate in plan.candidates[:limit]:
        owner = scope.namespace(*candidate.namespace[len(plan.namespace) :])
        record = (await _records_of(owner, assemblies=assemblies).get_many([candidate.id])).get(candidate.id)
        cell = Text(clean(candidate.id)) if record is None else _record_text(record, assemblies=assemblies)
        rows.append((cell, ", ".join(candidate.reasons), size_text(candidate.bytes)))
    return rows


async def trash(
    file: options.File,
    assemblies: options.Assemblies = False,
    limit: options.ListLimit = 20,
    namespace: options.Namespace = "",
    json: options.Json = False,
) -> None:
    """List the trash, latest first.

    --json prints a line for each entry: {"at", "actor", "reason", "record"}, the record without its vector.
    """
    entries = []
    async with (
        read_namespace(file, namespace) as scope,
        aclosing(_records_of(scope, assemblies=assemblies).trash()) as iterator,
    ):
        async for entry in iterator:
            entries.append(entry)
            if len(entries) == limit:
                break
    if json:
        for entry in entries:
            fields = record_as_json(entry, without=frozenset({"record"}))
            print_json({**fields, "record": record_without_vector(entry.record)})
        return
    grid = table(_word(assemblies=assemblies), "forgotten (UTC)", "actor", "reason")
    for entry in entries:
        cell = _record_text(entry.record, assemblies=assemblies)
        time = Text(minute_text(entry.at), style="dim")
        grid.add_row(cell, time, Text(clean(entry.actor or "")), Text(clean(entry.reason or "")))
    print_table(grid)
    print_note(
        quantity(len(entries), _word(assemblies=assemblies)) + " in the trash" if entries else "the trash is empty"
    )


async def recover(
    ids: Annotated[list[str], typer.Argument(help="The ids of records in the trash.", show_default=False)],
    file: options.File,
    assemblies: options.Assemblies = False,
    actor: options.Actor = None,
    reason: options.Reason = None,
    namespace: options.Namespace = "",
    json: options.Json = False,
) -> None:
    """Recover memories or assemblies from the trash.

    All of them, or none if one is not in the trash. (`memstore restore` replaces the whole store with a backup.)

    --json prints a line for each record, without its vector.
    """
    async with write_namespace(file, namespace) as scope:
        records = list(await _records_of(scope, assemblies=assemblies).recover(ids, actor=actor, reason=reason))
    if json:
        for record in records:
            print_json(record_without_vector(record))
    else:
        print_line(f"recovered {quantity(len(records), _word(assemblies=assemblies))}")


async def purge(
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="DURATION", help=f"Forgotten longer ago; 0d for all. {DURATION_HELP}")
    ],
    file: options.File,
    assemblies: options.Assemblies = False,
    namespace: options.Namespace = "",
    recursive: options.Recursive = False,
    json: options.Json = False,
) -> None:
    """Delete old records in the trash permanently.

    `memstore compact` then returns their space to the file system.

    --json prints {"purged": number}.
    """
    duration = parse_duration(older_than, "--older-than")
    async with write_namespace(file, namespace) as scope:
        count = await _records_of(scope, assemblies=assemblies).purge(older_than=duration, recursive=recursive)
    print_result({"purged": count}, f"purged {quantity(count, _word(assemblies=assemblies))}", json=json)


def _record_text(record: Any, *, assemblies: bool) -> Text:
    return assembly_text(record) if assemblies else memory_text(record)


def _word(*, assemblies: bool) -> str:
    return "assembly" if assemblies else "memory"

"""The commands on the trash, for memories and with --assemblies for assemblies: forget, trash, recover, purge."""

from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.text import Text

from memstore import Assemblies, AssemblyForgetPolicy, ForgetPlan, ForgetPolicy, Memories, StoreNamespace
from memstore.cli import options
from memstore.cli.jsonl import record_as_json, record_without_vector
from memstore.cli.options import EXAMPLE_DURATIONS, ChangeOptions, parse_duration, parse_where, refuse
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
from memstore.cli.text import minute_text, quantity, size_text
from memstore.escaping import escape_text

ROWS = 50

_MEMORY_PANEL = "Criteria for memories"
_ASSEMBLY_PANEL = "Criteria for assemblies"


def _duration(name: str, help: str, panel: str | None = None) -> Any:
    return typer.Option(name, metavar="DURATION", help=f"{help} {EXAMPLE_DURATIONS}", rich_help_panel=panel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """The options of `forget` that say which records."""

    older_than: Annotated[str | None, _duration("--older-than", "Created longer ago.")] = None
    unused_for: Annotated[str | None, _duration("--unused-for", "Not touched for longer.", _MEMORY_PANEL)] = None
    importance_below: Annotated[
        float | None,
        typer.Option("--importance-below", min=0, max=1, help="Less important.", rich_help_panel=_MEMORY_PANEL),
    ] = None
    expires_within: Annotated[str | None, _duration("--expires-within", "Expires sooner.", _MEMORY_PANEL)] = None
    max_count: Annotated[
        int | None,
        typer.Option("--max-count", min=0, help="The number of memories to keep.", rich_help_panel=_MEMORY_PANEL),
    ] = None
    max_bytes: Annotated[
        int | None,
        typer.Option("--max-bytes", min=0, help="The bytes of memories to keep.", rich_help_panel=_MEMORY_PANEL),
    ] = None
    inactive_for: Annotated[str | None, _duration("--inactive-for", "Not activated for longer.", _ASSEMBLY_PANEL)] = (
        None
    )
    activated_fewer_than: Annotated[
        int | None,
        typer.Option("--activated-fewer-than", min=1, help="Activated fewer times.", rich_help_panel=_ASSEMBLY_PANEL),
    ] = None
    members_below: Annotated[
        int | None,
        typer.Option("--members-below", min=1, help="Fewer members; 1 for empty.", rich_help_panel=_ASSEMBLY_PANEL),
    ] = None
    where: options.Where = None
    any: Annotated[bool, typer.Option("--any", help="Records that meet any criterion, not all of them.")] = False

    def policy(self, *, assemblies: bool) -> Any:
        """The policy that the options describe, for memories or for assemblies.

        Raises:
            typer.BadParameter: there is no criterion, or one of the other kind of record.
        """
        shared = {"older_than": parse_duration(self.older_than, "--older-than"), "where": parse_where(self.where)}
        memory = {
            "unused_for": parse_duration(self.unused_for, "--unused-for"),
            "importance_below": self.importance_below,
            "expires_within": parse_duration(self.expires_within, "--expires-within"),
            "max_count": self.max_count,
            "max_bytes": self.max_bytes,
        }
        assembly = {
            "inactive_for": parse_duration(self.inactive_for, "--inactive-for"),
            "activated_fewer_than": self.activated_fewer_than,
            "members_below": self.members_below,
        }
        criteria, others = (assembly, memory) if assemblies else (memory, assembly)
        for name, value in others.items():
            if value is not None:
                reason = "It applies to memories, not to --assemblies." if assemblies else "It needs --assemblies."
                raise refuse("--" + name.replace("_", "-"), reason)
        if all(value is None for value in (*shared.values(), *criteria.values())):
            names = ", ".join("--" + name.replace("_", "-") for name in (*shared, *criteria))
            raise typer.BadParameter(f"Pass at least one criterion: {names}.")
        arguments: dict[str, Any] = {**shared, **criteria, "match": "any" if self.any else "all"}
        return AssemblyForgetPolicy(**arguments) if assemblies else ForgetPolicy(**arguments)


Apply = Annotated[bool, typer.Option("--apply", help="Move them to the trash; else nothing is changed.")]
ForgetReason = Annotated[
    str | None, typer.Option("--reason", help="Why; stored with the change. By default the criteria met.")
]
RowLimit = Annotated[int, typer.Option("--limit", "-l", min=1, help="The highest number of rows to print.")]


async def forget(
    file: options.File,
    criteria: Criteria,
    assemblies: options.Assemblies = False,
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
    policy = criteria.policy(assemblies=assemblies)
    async with (write_namespace if apply else read_namespace)(file, namespace) as scope:
        records = _records_of(scope, assemblies=assemblies)
        plan = await records.plan_forget(policy, recursive=recursive)
        rows = [] if json else await _rows(scope, plan, limit)
        count = await records.forget(plan, actor=actor, reason=reason) if apply else None
    if json:
        _print_json(plan, count)
    else:
        _print(plan, rows, count)


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
        cell = Text(escape_text(candidate.id)) if record is None else _record_text(record, assemblies=assemblies)
        rows.append((cell, ", ".join(candidate.reasons).replace("_", " "), size_text(candidate.bytes)))
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
        grid.add_row(cell, time, Text(escape_text(entry.actor or "")), Text(escape_text(entry.reason or "")))
    print_table(grid)
    print_note(
        quantity(len(entries), _word(assemblies=assemblies)) + " in the trash" if entries else "the trash is empty"
    )


async def recover(
    file: options.File,
    ids: Annotated[list[str], typer.Argument(help="The ids of records in the trash.", show_default=False)],
    change: ChangeOptions,
    assemblies: options.Assemblies = False,
    namespace: options.Namespace = "",
    json: options.Json = False,
) -> None:
    """Recover memories or assemblies from the trash.

    All of them, or none if one is not in the trash. (`memstore restore` replaces the whole store with a backup.)

    --json prints a line for each record, without its vector.
    """
    async with write_namespace(file, namespace) as scope:
        records = list(await _records_of(scope, assemblies=assemblies).recover(ids, **change.arguments()))
    if json:
        for record in records:
            print_json(record_without_vector(record))
    else:
        print_line(f"recovered {quantity(len(records), _word(assemblies=assemblies))}")


async def purge(
    file: options.File,
    older_than: Annotated[
        str,
        typer.Option("--older-than", metavar="DURATION", help=f"Forgotten longer ago; 0d for all. {EXAMPLE_DURATIONS}"),
    ],
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

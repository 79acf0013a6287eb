"""The command `erase`: removes records for good, after a question."""

from typing import Annotated, Any

import typer

from memstore import StoreNamespace
from memstore.cli import options
from memstore.cli.confirmation import confirm
from memstore.cli.exit_codes import PROBLEM
from memstore.cli.jsonl import record_as_json
from memstore.cli.namespaces import NamespacePath, format_namespace
from memstore.cli.options import parse_namespace, parse_where, refuse
from memstore.cli.output import print_json, print_line, print_note
from memstore.cli.stores import open_existing
from memstore.cli.text import quantity, size_text
from memstore.models import EraseReport

_SHOWN = 5


async def erase(
    file: options.File,
    ids: Annotated[
        list[str] | None, typer.Argument(help="The ids of records, existing or deleted.", show_default=False)
    ] = None,
    where: options.Where = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All records, tags and history of the namespace, and its name.")
    ] = False,
    assemblies: options.Assemblies = False,
    namespace: options.Namespace = "",
    recursive: options.Recursive = False,
    secure: Annotated[
        bool, typer.Option("--secure", help="Also remove the last bytes from the file, as `memstore compact --secure`.")
    ] = False,
    yes: options.Yes = False,
    json: options.Json = False,
) -> None:
    """Erase records from the store, its trash and its history.

    Nothing can bring them back, so the command asks first, or needs --yes. Backups and exports keep what they contain.
    docs/deleting.md says what is left. Exit code 3 if a damaged record could not be compared with --where.

    --json prints the report: ids, namespaces, memories, assemblies, archived, changes, merges, tags, missing,
    unreadable; with --secure also "freed", in bytes.
    """
    filter, path = parse_where(where), parse_namespace(namespace)
    if bool(ids) + (filter is not None) + everything != 1:
        raise typer.BadParameter("Pass exactly one of ids, --where and --all.")
    if ids and recursive:
        raise refuse("--recursive", "An id belongs to one namespace; pass --where or --all.")
    if everything and assemblies:
        raise refuse("--all", "It erases memories and assemblies; leave out --assemblies.")
    async with open_existing(file) as store:
        scope = store.namespace(*path)
        records: Any = scope.assemblies if assemblies else scope.memories
        if not yes:
            what = await _description(scope, path, ids, filter, assemblies=assemblies, recursive=recursive)
            confirm(f"Erase {what} from {file}, with all earlier versions? Nothing can bring them back.")
        if everything:
            report = await scope.erase(recursive=recursive)
        elif ids:
            report = await records.erase(ids=ids)
        else:
            report = await records.erase(where=filter, recursive=recursive)
        freed = await store.compact(secure=True) if secure else None
    if json:
        print_json({**record_as_json(report), **({} if freed is None else {"freed": freed})})
    else:
        _print(report, freed)
    if report.unreadable:
        raise typer.Exit(PROBLEM)


async def _description(
    scope: StoreNamespace,
    path: NamespacePath,
    ids: list[str] | None,
    filter: dict[str, Any] | None,
    *,
    assemblies: bool,
    recursive: bool,
) -> str:
    """What would be erased, for the question."""
    noun = "assembly" if assemblies else "memory"
    if ids:
        return f"{quantity(len(ids), noun)} ({_names(ids)})"
    if filter is not None:
        records: Any = scope.assemblies if assemblies else scope.memories
        return f"{quantity(await records.count(where=filter, recursive=recursive), noun)} that match the filter"
    memories = await scope.memories.count(recursive=recursive)
    groups = await scope.assemblies.count(recursive=recursive)
    name = format_namespace(path) or "the root namespace"
    below = " and all namespaces below it" if recursive else ""
    return f"everything of {name}{below}: {quantity(memories, 'memory')} and {quantity(groups, 'assembly')}"


def _names(ids: list[str] | tuple[str, ...]) -> str:
    return ", ".join(ids[:_SHOWN]) + ", …" * (len(ids) > _SHOWN)


def _print(report: EraseReport, freed: int | None) -> None:
    counts = {
        "memory": report.memories,
        "assembly": report.assemblies,
        "archived record": report.archived,
        "change": report.changes,
        "merge": report.merges,
        "tag": report.tags,
    }
    texts = [quantity(count, noun) for noun, count in counts.items() if count]
    print_line(f"erased {', '.join(texts) or 'nothing'}")
    if report.missing:
        print_line(f"not in the store: {_names(report.missing)}")
    if report.unreadable:
        print_line(f"damaged, so not compared and not erased: {_names(report.unreadable)}. Erase them by their ids.")
    if freed is not None:
        smaller = f", which is {size_text(freed)} smaller" if freed else ""
        print_note(f"no byte of them is left in the file{smaller}")
    elif texts:
        print_note("bytes of them may be left in free pages of the file; `memstore compact --secure` removes them")

"""The command that imports a folder of JSON files."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from memstore.cli import options
from memstore.cli.exit_codes import PROBLEM
from memstore.cli.jsonl import record_as_json
from memstore.cli.options import EmbedderChoice, NewFileOptions, parse_namespace
from memstore.cli.output import print_fields, print_json, print_line, print_table, progress, table
from memstore.cli.stores import is_new, open_or_create
from memstore.cli.text import quantity
from memstore.escaping import escape_text
from memstore.importers import FolderReport, Remark, import_folder, vector_sizes


async def import_folder_(
    file: options.File,
    folder: Annotated[Path, typer.Argument(help="The folder; it is not changed.", show_default=False)],
    upsert: Annotated[bool, typer.Option("--upsert", help="Replace records with the same id; else they stay.")] = False,
    namespace: options.Namespace = "",
    dimension: options.Dimension = None,
    metric: options.Metric = None,
    json: options.Json = False,
) -> None:
    """Import a folder of JSON files.

    Reads memory_index.json, memories/*.json and assemblies/*.json. A missing store is created, with the dimension of
    most vectors in the folder. Everything that cannot be stored is listed with the reason, and the exit code is then 3.
    A second import stores only what is new. docs/import-folder.md describes the mapping of fields.

    --json prints one object: the numbers of records, and the lists "left_out", "mended" and "ignored" of {"what",
    "place", "id", "reason"}.
    """
    path = parse_namespace(namespace)
    size = dimension
    if size is None and await is_new(file):
        size = next((size for size, _ in await asyncio.to_thread(vector_sizes, folder)), None)
    vectors = NewFileOptions(embedder=EmbedderChoice.NONE, dimension=size, metric=metric)
    async with open_or_create(file, vectors) as opened:
        with progress("importing") as update:
            report = await import_folder(opened.store, folder, namespace=path, upsert=upsert, on_progress=update)
    if json:
        _print_json(report)
    else:
        _print(report)
    if report.left_out:
        raise typer.Exit(PROBLEM)


def _print_json(report: FolderReport) -> None:
    remarks = {
        outcome: [
            record_as_json(remark, without=frozenset({"outcome"}))
            for remark in report.remarks
            if remark.outcome == outcome
        ]
        for outcome in ("left_out", "mended", "ignored")
    }
    print_json({**record_as_json(report, without=frozenset({"remarks"})), **remarks})


def _print(report: FolderReport) -> None:
    grid = table("result", "file and id", "reason")
    for remark in report.remarks:
        style = "red" if remark.outcome == "left_out" else "dim"
        result = Text(f"{remark.what} {remark.outcome.replace('_', ' ')}", style=style)
        grid.add_row(result, _location(remark), Text(escape_text(remark.reason)))
    print_table(grid)
    print_fields(
        {
            "files": f"{report.memory_files:,} of memories, {report.assembly_files:,} of assemblies",
            "not in the index": f"{report.unindexed:,} of the files, imported too" if report.unindexed else None,
            "memories": f"{report.memories:,} stored, {report.memories_present:,} already present",
            "from assemblies": f"{report.rescued:,} of these memories" if report.rescued else None,
            "assemblies": f"{report.assemblies:,} stored, {report.assemblies_present:,} already present",
            "members": f"{report.members:,} stored",
        }
    )
    print_line(f"left out: {quantity(len(report.left_out), 'item')}" if report.left_out else "everything was imported")


def _location(remark: Remark) -> Text:
    text = Text(escape_text(remark.place))
    return text if remark.id is None else text.append("\n" + escape_text(remark.id))

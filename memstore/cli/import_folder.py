"""The command that brings in a folder of JSON files."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from memstore.cli.jsonl import as_json
from memstore.cli.options import AsJson, Dimension, EmbedderChoice, File, InNamespace, Metric, namespace_of
from memstore.cli.output import clean, number, progress, say, say_json, show_fields, show_table, table
from memstore.cli.stores import Wanted, is_new, writing
from memstore.importers import FolderReport, Remark, import_folder, vector_sizes

LEFT_SOMETHING_OUT = 3


def import_folder_(
    folder: Annotated[Path, typer.Argument(help="The folder; it is only read.", show_default=False)],
    file: File,
    upsert: Annotated[
        bool, typer.Option("--upsert", help="Replace what has the same id, instead of leaving it as it is.")
    ] = False,
    namespace: InNamespace = "",
    dimension: Dimension = None,
    metric: Metric = None,
    json: AsJson = False,
) -> None:
    """Import a folder of memory_index.json, memories/*.json and assemblies/*.json; a store that does not exist is made.

    A new store has the dimension that most of the vectors in the folder have. Whatever cannot be taken is listed with
    the reason, and the exit code is then 3. Importing again stores only what is new. docs/import-folder.md says what
    becomes of each field. --json prints one object: the counts, and "left_out", "mended", "ignored", lists of
    {"what", "place", "id", "reason"}.
    """
    path = namespace_of(namespace)

    async def run() -> FolderReport:
        size = dimension
        if size is None and await is_new(file):
            size = next((size for size, _ in await asyncio.to_thread(vector_sizes, folder)), None)
        wanted = Wanted(embedder=EmbedderChoice.NONE, dimension=size, metric=metric)
        async with writing(file, wanted) as opened:
            with progress() as bar:
                task = bar.add_task("importing", total=None)
                return await import_folder(
                    opened.store,
                    folder,
                    namespace=path,
                    upsert=upsert,
                    on_progress=lambda done, total: bar.update(task, completed=done, total=total),
                )

    report = asyncio.run(run())
    if json:
        counts = {name: value for name, value in as_json(report).items() if name != "remarks"}
        say_json({**counts, **{outcome: list(_of(report, outcome)) for outcome in ("left_out", "mended", "ignored")}})
    else:
        _show(report, file)
    if report.left_out:
        raise typer.Exit(LEFT_SOMETHING_OUT)


def _of(report: FolderReport, outcome: str) -> Iterable[dict[str, object]]:
    return (as_json(r, without=frozenset({"outcome"})) for r in report.remarks if r.outcome == outcome)


def _show(report: FolderReport, file: Path) -> None:
    if report.remarks:
        made = table("", "of", "why")
        for remark in report.remarks:
            style = "red" if remark.outcome == "left_out" else "dim"
            outcome = f"{remark.what} {remark.outcome.replace('_', ' ')}"
            made.add_row(Text(outcome, style=style), Text(_whose(remark)), Text(clean(remark.reason)))
        show_table(made)
    show_fields(
        {
            "read": f"{number(report.memory_files, 'file')} of memories, {report.assembly_files:,} of assemblies",
            "not in the index": f"{report.unindexed:,} of them, taken like the others" if report.unindexed else "",
            "memories": f"{report.memories:,} stored, {report.memories_present:,} there before",
            "from copies": f"{report.rescued:,} of these, which only an assembly held" if report.rescued else "",
            "assemblies": f"{report.assemblies:,} stored, {report.assemblies_present:,} there before",
            "members": f"{report.members:,} stored",
        }
    )
    out = len(report.left_out)
    say(f"{number(out, 'thing was', 'things were')} left out" if out else f"nothing was left out; it is all in {file}")


def _whose(remark: Remark) -> str:
    return clean(remark.place if remark.id is None else f"{remark.place}\n{remark.id}")

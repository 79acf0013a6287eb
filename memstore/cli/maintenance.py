"""The commands that maintain a store: stats, check, repair, compact, optimize, migrate."""

import math
from typing import Annotated

import numpy as np
import typer

import memstore
from memstore import MissingFileError, Store
from memstore.cli import options
from memstore.cli.exit_codes import PROBLEM
from memstore.cli.jsonl import record_as_json, value_as_json
from memstore.cli.namespaces import format_namespace
from memstore.cli.output import print_fields, print_findings, print_json, print_line, print_note, print_result, progress
from memstore.cli.stores import open_existing, open_read_only
from memstore.cli.text import quantity, size_text, space_text
from memstore.database.inspect import inspect
from memstore.models import RepairReport

NAMESPACES = 8
"""Namespaces that `stats` names."""

WAL_RESET_BUG = (
    "This SQLite can lose commits if another program writes to the file; memstore's own writes are safe. "
    "`memstore doctor` says more."
)
_INDEX_FIELDS = {
    "engine",
    "engine_reason",
    "indexed",
    "index_loaded",
    "index",
    "index_reason",
    "index_bytes",
    "graph_nodes",
    "graph_deleted",
    "graph_bytes",
    "unindexed",
    "ef_search",
    "recall",
    "recall_observed",
}
"""Statistics of a loaded index. `stats` loads none, so it does not print them."""


async def stats(file: options.File, json: options.Json = False) -> None:
    """Show what the store contains.

    --json prints one object; sizes are in bytes.
    """
    async with open_read_only(file) as store:
        statistics, namespaces = await store.stats(), await store.namespaces()
    if json:
        print_json({name: value for name, value in record_as_json(statistics).items() if name not in _INDEX_FIELDS})
        return
    names = [format_namespace(namespace) or "(root)" for namespace in namespaces[:NAMESPACES]]
    names += ["…"] * (len(namespaces) > NAMESPACES)
    log = f", and {size_text(statistics.wal_bytes)} of write-ahead log" if statistics.wal_bytes else ""
    graph = f"{size_text(statistics.snapshot_bytes)} stored" if statistics.snapshot_bytes else "not stored"
    print_fields(
        {
            "file": statistics.path,
            "size": size_text(statistics.file_bytes) + log,
            "memories": f"{statistics.memories:,}, {statistics.vectors:,} with an embedding",
            "assemblies": f"{statistics.assemblies:,}",
            "tags": f"{statistics.tags:,}",
            "history": size_text(statistics.history_bytes),
            "trash": f"{quantity(statistics.trashed, 'record')}, {size_text(statistics.trash_bytes)}"
            if statistics.trashed
            else None,
            "namespaces": f"{statistics.namespaces:,}: {', '.join(names)}" if names else "0",
            "vectors": space_text(statistics.dimension, statistics.metric, statistics.curvature),
            "embedder": statistics.embedder or "none",
            "search graph": graph,
            "indexed metadata": ", ".join(statistics.indexed_metadata) or "none",
            "file revision": statistics.revision,
            "sqlite": f"{statistics.sqlite}, from {'Python' if statistics.sqlite_source == 'sqlite3' else 'pysqlite3'}",
        }
    )

    if statistics.wal_reset_bug:
        print_note(WAL_RESET_BUG)


async def check(file: options.File, json: options.Json = False) -> None:
    """Check the store for damage.

    Compares rows, checksums, composites and the index built from them. Changes nothing. Exit code 3 if it finds
    damage.

    --json prints {"clean": …, "findings": […]}.
    """
    async with open_read_only(file) as store:
        await _load_index(store)
        findings = await store.check()
    if json:
        print_json({"clean": not findings, "findings": value_as_json(findings)})
    elif findings:
        print_findings(findings)
        print_line(f"{quantity(len(findings), 'finding')}. Run `memstore repair`.")
    else:
        print_line("clean")
    if findings:
        raise typer.Exit(PROBLEM)


async def _load_index(store: Store) -> None:
    """Load the index by a search: `check` compares only a loaded one.

    No score reaches infinity, so the search reads no record: a damaged one must not raise before `check` names it.
    """
    await store.memories.search(np.ones(store.dimension or 1, dtype=np.float32), limit=1, min_score=math.inf)


async def repair(file: options.File, json: options.Json = False) -> None:
    """Repair the store.

    Rebuilds the index and everything that is derived from intact records. Damaged records themselves remain, and are
    listed: exit code 3.

    --json prints one object: findings, remaining, and the numbers of repairs.
    """
    async with open_existing(file) as store:
        report = await store.repair()
    if json:
        print_json(record_as_json(report))
    else:
        _print_report(report)
    if report.remaining:
        raise typer.Exit(PROBLEM)


def _print_report(report: RepairReport) -> None:
    if report.findings:
        print_findings(report.findings)
    print_fields(
        {
            "found": quantity(len(report.findings), "finding"),
            "reindexed": quantity(report.reindexed, "vector"),
            "recomputed": quantity(report.recomposed, "composite"),
            "checksums": f"{report.checksums:,} added",
            "orphans": f"{quantity(report.orphans, 'row')} deleted",
            "remaining": quantity(len(report.remaining), "finding"),
        }
    )
    if report.remaining:
        print_findings(report.remaining)
        print_line("These records are damaged. Delete them, add them again, or restore a backup.")
    else:
        print_line("clean")


async def compact(
    file: options.File,
    secure: Annotated[
        bool, typer.Option("--secure", help="Also overwrite the bytes of erased and deleted records in file and log.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Return free space to the file system.

    --json prints {"freed": bytes}.
    """
    async with open_existing(file) as store:
        freed = await store.compact(secure=secure)
    text = f"the file is {size_text(freed)} smaller" if freed > 0 else "the file has no free space"
    print_result({"freed": freed}, text, json=json)


async def optimize(file: options.File, json: options.Json = False) -> None:
    """Build the search graph now.

    The graph is stored in the file, and the next open loads it. An open store builds it in the background when an
    exact search takes longer than about a millisecond; a smaller store needs none.

    --json prints {"index", "index_reason", "graph_nodes", "ef_search", "recall", "snapshot_bytes"}.
    """
    async with open_existing(file) as store:
        with progress("building the graph"):
            await store.optimize()
        statistics = await store.stats()
    if json:
        names = ("index", "index_reason", "graph_nodes", "ef_search", "recall", "snapshot_bytes")
        print_json({name: value for name, value in record_as_json(statistics).items() if name in names})
    elif statistics.index == "exact":
        print_line(f"searches are exact: {statistics.index_reason}")
    else:
        nodes, size = quantity(statistics.graph_nodes, "vector"), size_text(statistics.snapshot_bytes)
        print_line(f"the graph has {nodes} and takes {size} in the file")
        print_line(
            f"recall of the nearest ten: {statistics.recall:.1%} (measured on a sample, ef {statistics.ef_search})"
        )


def migrate(file: options.File, json: options.Json = False) -> None:
    """Migrate the file of an older release.

    Every command that writes does this too. A current file stays unchanged.

    --json prints {"before": revision, "after": revision}.
    """
    if not file.exists():
        raise MissingFileError(f"No file {str(file)!r} to migrate.")
    before = inspect(str(file))
    after = memstore.migrate(str(file))
    if before == after:
        text = f"{file} is up to date: revision {after}"
    else:
        text = f"migrated {file} from {f'revision {before}' if before else 'an empty file'} to revision {after}"
    print_result({"before": before, "after": after}, text, json=json)

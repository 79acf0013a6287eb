"""The commands on the file: stats, check, repair, compact, optimize, migrate."""

import asyncio
import math

import numpy as np
import typer

from memstore import MissingFileError, Store
from memstore import migrate as bring_up_to_date
from memstore.cli.jsonl import as_json
from memstore.cli.options import AsJson, File, namespace_text
from memstore.cli.output import number, progress, say, say_json, show_fields, show_findings, size_text, space_text
from memstore.cli.stores import changing, looking
from memstore.database.inspect import inspect
from memstore.models import Finding, RepairReport, Stats

FOUND_SOMETHING = 3
SHOWN_NAMESPACES = 8


def stats(file: File, json: AsJson = False) -> None:
    """Say what the store holds.

    --json prints one object, sizes in bytes.
    """

    async def run() -> tuple[Stats, list[tuple[str, ...]]]:
        async with looking(file) as store:
            return await store.stats(), await store.namespaces()

    found, namespaces = asyncio.run(run())
    if json:
        say_json({name: value for name, value in as_json(found).items() if name not in _UNLOADED})
        return
    named = [namespace_text(n) or "(root)" for n in namespaces[:SHOWN_NAMESPACES]]
    more = ["…"] * (len(namespaces) > SHOWN_NAMESPACES)
    show_fields(
        {
            "file": found.path,
            "size": size_text(found.file_bytes)
            + (f", and {size_text(found.wal_bytes)} not yet written back" if found.wal_bytes else ""),
            "memories": f"{found.memories:,}, {found.vectors:,} with an embedding",
            "assemblies": f"{found.assemblies:,}",
            "tags": f"{found.tags:,}",
            "trash": number(found.trashed, "record") if found.trashed else None,
            "namespaces": f"{found.namespaces:,}: {', '.join(named + more)}" if named else "0",
            "embeddings": space_text(found),
            "embedder": found.embedder or "none named",
            "search graph": f"{size_text(found.snapshot_bytes)} stored" if found.snapshot_bytes else "none stored",
            "indexed metadata": ", ".join(found.indexed_metadata) or "none",
            "revision": found.revision,
        }
    )


_UNLOADED = {
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
}
"""What `stats` does not say: this command loads no index."""


def check(file: File, json: AsJson = False) -> None:
    """Compare everything with everything, by content: rows, checksums, composites, and the index built from them.

    Changes nothing. Exit code 3 if something was found. --json prints {"clean": …, "findings": […]}.
    """

    async def run() -> list[Finding]:
        async with looking(file) as store:
            await _load_index(store)
            return await store.check()

    findings = asyncio.run(run())
    if json:
        say_json({"clean": not findings, "findings": [as_json(finding) for finding in findings]})
    elif findings:
        show_findings(findings)
        say(f"{number(len(findings), 'finding')}: memstore repair mends what can be mended")
    else:
        say("clean")
    if findings:
        raise typer.Exit(FOUND_SOMETHING)


async def _load_index(store: Store) -> None:
    """Have the index built, as the first search does: `check` compares none that is not there.

    No record is that near, so none is read: one that is damaged must not keep `check` from naming it.
    """
    await store.memories.search(np.ones(store.dimension, dtype=np.float32), limit=1, min_score=math.inf)


def repair(file: File, json: AsJson = False) -> None:
    """Build the index anew and mend in the file what can be mended; nothing is invented, nothing that is whole is lost.

    Exit code 3 if something remains. --json prints one object: findings, remaining, and how many of each were mended.
    """

    async def run() -> RepairReport:
        async with changing(file) as store:
            return await store.repair()

    done = asyncio.run(run())
    if json:
        lists = {name: [as_json(finding) for finding in getattr(done, name)] for name in ("findings", "remaining")}
        say_json({**as_json(done), **lists})
    else:
        if done.findings:
            show_findings(done.findings)
        show_fields(
            {
                "findings": number(len(done.findings), "finding"),
                "reindexed": number(done.reindexed, "vector"),
                "recomposed": number(done.recomposed, "composite"),
                "checksums": f"{number(done.checksums, 'unknown one')} filled in",
                "orphans": f"{number(done.orphans, 'row')} removed",
                "remaining": number(len(done.remaining), "finding"),
            }
        )
        if done.remaining:
            show_findings(done.remaining)
            say("these are damage to what is stored: delete those records, or give them anew")
        else:
            say("clean")
    if done.remaining:
        raise typer.Exit(FOUND_SOMETHING)


def compact(file: File, json: AsJson = False) -> None:
    """Give back to the disk what deleted records held.

    --json prints {"freed": bytes}.
    """

    async def run() -> int:
        async with changing(file) as store:
            return await store.compact()

    freed = asyncio.run(run())
    if json:
        say_json({"freed": freed})
    else:
        say(f"the file is {size_text(freed)} smaller" if freed else "there was nothing to give back")


def optimize(file: File, json: AsJson = False) -> None:
    """Build the search graph now and store it in the file, so that the next open finds it.

    A store does this by itself in the background, from about a millisecond an exact search on; below that there is
    nothing to do. --json prints {"index", "index_reason", "graph_nodes", "ef_search", "recall", "snapshot_bytes"}.
    """

    async def run() -> Stats:
        async with changing(file) as store:
            with progress() as bar:
                bar.add_task("building the graph", total=None)
                await store.optimize()
            return await store.stats()

    found = asyncio.run(run())
    if json:
        names = ("index", "index_reason", "graph_nodes", "ef_search", "recall", "snapshot_bytes")
        say_json({name: value for name, value in as_json(found).items() if name in names})
    elif found.index == "exact":
        say(f"searches stay exact: {found.index_reason}")
    else:
        say(f"{number(found.graph_nodes, 'vector')} in the graph, {size_text(found.snapshot_bytes)} stored")
        say(f"it finds {found.recall:.1%} of the nearest ten (a measured sample, ef {found.ef_search})")


def migrate(file: File, json: AsJson = False) -> None:
    """Bring a file of an older release to this one's schema; one that is up to date stays as it is.

    Every command that changes a file does so by itself. --json prints {"before": revision, "after": revision}.
    """
    if not file.exists():
        raise MissingFileError(f"there is no file {str(file)!r} to migrate: memstore add makes one")
    before = inspect(str(file))
    after = bring_up_to_date(str(file))
    if json:
        say_json({"before": before, "after": after})
    elif before == after:
        say(f"{file} is up to date: revision {after}")
    else:
        say(f"{file} was brought from {f'revision {before}' if before else 'nothing'} to revision {after}")

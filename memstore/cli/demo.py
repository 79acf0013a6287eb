"""The command `demo`: builds a store of real text, searches it, and checks it in a new process."""

import asyncio
import json as json_module
import math
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

import memstore
from memstore import AssemblyHit, Hit, InvalidError, MemstoreError, Store
from memstore.cli import options, subprocesses
from memstore.cli.exit_codes import PROBLEM
from memstore.cli.output import console, print_json, print_line, print_table, progress, score_text, table
from memstore.cli.reference import SOURCE, Reference, load_reference
from memstore.cli.stores import is_new, open_read_only
from memstore.cli.text import clean, quantity, size_text, snippet
from memstore.embedders.wordllama import WordLlamaEmbedder

QUESTIONS = (
    "How do I catch an exception and clean up afterwards?",
    "How do I format a number with two decimals?",
    "When are the default values of parameters evaluated?",
    "What does importing a module do?",
)
HITS = 3
"""Hits of each question."""

_DEMO_RECORDS = {"metadata.source": SOURCE}


def demo(
    questions: Annotated[
        list[str] | None, typer.Argument(metavar="QUESTION", help="Texts to search for.", show_default=False)
    ] = None,
    file: Annotated[Path, typer.Option("--file", "-f", help="The database file of the demo.")] = Path(
        "memstore-demo.db"
    ),
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build the store again if it exists.")] = False,
    json: options.Json = False,
) -> None:
    """Build a store from Python's language reference and search it.

    Takes a few seconds and needs no network. A new process then opens the file, checks it, and searches again. The
    file stays; the last lines list commands to try on it.

    --json prints one object: the numbers of records, the hits, and the result of the check.
    """
    started = time.perf_counter()
    texts = questions or list(QUESTIONS)
    report = asyncio.run(_build_and_search(file, texts, rebuild=rebuild, quiet=json))
    comparison = _compare_in_new_process(file, texts[0], report["questions"][0], quiet=json)
    seconds = round(time.perf_counter() - started, 2)
    if json:
        print_json({"file": str(file), **report, **comparison, "seconds": seconds})
    else:
        _print_next_steps(file, seconds)
    if not (comparison["clean"] and comparison["same_hits"]):
        raise typer.Exit(PROBLEM)


async def _build_and_search(file: Path, questions: list[str], *, rebuild: bool, quiet: bool) -> dict[str, Any]:
    started = time.perf_counter()
    reference = load_reference()
    reused = await _is_complete(file, reference) and not rebuild
    async with memstore.open(file, embedder=WordLlamaEmbedder()) as store:
        if not quiet:
            print_line(
                f"{file} contains the reference already. Pass --rebuild to build it again."
                if reused
                else f"Building {file} from the language reference of this Python …"
            )
        if not reused:
            await _build(store, reference)
        stats = await store.stats()
        seconds = round(time.perf_counter() - started, 2)
        if not quiet:
            print_line(
                f"{quantity(stats.memories, 'memory')} (passages), {quantity(stats.assemblies, 'assembly')} (topics), "
                f"{quantity(stats.tags, 'tag')}: {size_text(stats.file_bytes + stats.wal_bytes)} in {seconds} s"
            )
        answers = [await _search(store, question, quiet=quiet) for question in questions]
    return {
        "reused": reused,
        "memories": stats.memories,
        "assemblies": stats.assemblies,
        "tags": stats.tags,
        "build_seconds": seconds,
        "questions": answers,
    }


async def _is_complete(file: Path, reference: Reference) -> bool:
    """Whether the file contains the whole reference. Raises `InvalidError` if it contains other memories only."""
    if await is_new(file):
        return False
    async with open_read_only(file) as store:
        memories = await store.memories.count(where=_DEMO_RECORDS)
        assemblies = await store.assemblies.count(where=_DEMO_RECORDS)
        if not memories and (await store.stats()).memories:
            raise InvalidError(f"The store at {str(file)!r} is not a demo. Pass another --file.")
    return memories == len(reference.memories) and assemblies == len(reference.assemblies)


async def _build(store: Store, reference: Reference) -> None:
    """Store the reference. A former or incomplete one is deleted first; records of others stay."""
    await store.assemblies.delete_many(where=_DEMO_RECORDS)
    await store.memories.delete_many(where=_DEMO_RECORDS)
    total = len(reference.memories)
    with progress("storing passages") as update:
        await store.load(reference.memories, chunk=100, on_progress=lambda count: update(count, total))
    with progress("grouping by topic"):
        await store.assemblies.add_many(reference.assemblies)


async def _search(store: Store, question: str, *, quiet: bool) -> dict[str, Any]:
    hits = await store.memories.search(question, limit=HITS)
    topics = await store.assemblies.search(question, limit=HITS)
    if not quiet:
        _print_answer(question, hits, topics)
    return {
        "question": question,
        "hits": [
            {"score": hit.score, "id": hit.memory.id, "content": hit.memory.content, "tags": sorted(hit.memory.tags)}
            for hit in hits
        ],
        "assemblies": [
            {"score": hit.score, "id": hit.assembly.id, "name": hit.assembly.name, "members": hit.assembly.member_count}
            for hit in topics
        ],
    }


def _print_answer(question: str, hits: list[Hit], topics: list[AssemblyHit]) -> None:
    print_line("")
    print_line(question, style="bold")
    grid = table(">score", "passage")
    for hit in hits:
        headings = hit.memory.metadata.get("headings")
        title = " › ".join(map(str, headings)) if isinstance(headings, list) else hit.memory.id
        text = Text(clean(title).replace('"', ""), style="cyan")
        text.append(f"  {clean(hit.memory.id)}", style="dim")
        text.append("\n" + snippet(hit.memory.content, 150), style="default")
        grid.add_row(score_text(hit.score), text)
    print_table(grid)
    names = ", ".join(f"{hit.assembly.name or hit.assembly.id} ({hit.score:.2f})" for hit in topics)
    console().print(Text.assemble(("Topics: ", "dim"), clean(names)))


def _compare_in_new_process(file: Path, question: str, answer: dict[str, Any], *, quiet: bool) -> dict[str, bool]:
    """Check the file in a new process, and compare its hits of the first question with *answer*."""
    clean_file = bool(_run_command("check", file)[0]["clean"])
    hits = _run_command("search", file, "--limit", str(HITS), "--", question)
    same_hits = [hit["memory"]["id"] for hit in hits] == [hit["id"] for hit in answer["hits"]] and all(
        math.isclose(new["score"], old["score"], abs_tol=1e-6) for new, old in zip(hits, answer["hits"], strict=True)
    )
    if not quiet:
        check = "check finds no damage" if clean_file else "check FINDS DAMAGE (run `memstore check`)"
        search = "returns the same hits" if same_hits else "returns OTHER hits"
        print_line("")
        print_line(f"Opened again in a new process: {check}, and the first question {search}.")
    return {"clean": clean_file, "same_hits": same_hits}


def _run_command(command: str, file: Path, *arguments: str) -> list[dict[str, Any]]:
    """The JSON Lines that a command prints in a new process."""
    process = subprocesses.run("memstore.cli.main", command, "--json", "--file", str(file), *arguments)
    if process.returncode not in (0, PROBLEM):
        error = process.stderr.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
        raise MemstoreError(f"`memstore {command}` failed on {str(file)!r} in a new process: {error[0]}")
    return [json_module.loads(line) for line in process.stdout.splitlines()]


def _print_next_steps(file: Path, seconds: float) -> None:
    join = subprocess.list2cmdline if sys.platform == "win32" else shlex.join
    program = Path(sys.argv[0])
    if shutil.which("memstore"):
        prefix = ["memstore"]
    elif program.stem == "memstore" and program.is_file():
        prefix = [str(program)]  # the command of an environment that is not activated
    else:
        prefix = [sys.executable, "-m", "memstore.cli"]
    print_line(f"Finished in {seconds} s. The store is {file}. Try:")
    print_line("")
    for words in (
        ["search", "which operators bind tightest"],
        ["search", "how is it closed afterwards", "--tag", "topic:with"],
        ["assemblies", "search", "waiting for several things at once"],
        ["assemblies", "show", "try"],
        ["add", "Ada prefers the with statement", "--tag", "note"],
        ["map", "memstore-demo.html"],
        ["stats"],
    ):
        print_line("  " + join([*prefix, *words, "--file", str(file)]))

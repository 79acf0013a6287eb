"""The command `demo`: builds a store of real text, searches it, and checks it in a new process."""

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
from memstore.cli.event_loop import run_async
from memstore.cli.exit_codes import PROBLEM
from memstore.cli.output import (
    console,
    passage_text,
    print_json,
    print_line,
    print_table,
    progress,
    score_text,
    table,
)
from memstore.cli.reference import SOURCE, Reference, load_reference
from memstore.cli.stores import is_new, open_read_only
from memstore.cli.text import quantity, size_text
from memstore.cli.tour import NAMESPACE, time_text, tour
from memstore.embedders.wordllama import WordLlamaEmbedder
from memstore.escaping import escape_text

QUESTIONS = (
    "When are the default values of parameters evaluated?",
    "How do I stop a loop early?",
    "How are names resolved in nested scopes?",
)
HITS = 3
"""Hits of each question."""

_DEMO_RECORDS = {"metadata.source": SOURCE}


def demo(
    file: Annotated[Path, typer.Argument(metavar="STORE", help="The database file of the demo.")] = Path(
        "memstore-demo.db"
    ),
    questions: Annotated[
        list[str] | None, typer.Argument(metavar="QUESTION", help="Texts to search for.", show_default=False)
    ] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build the store again if it exists.")] = False,
    json: options.Json = False,
) -> None:
    """Build a store from Python's language reference and show what it can do.

    Takes a few seconds and needs no network: it searches, lets topics boost their passages, reads a note as it was
    before a change, undoes the change, and forgets by a policy. A new process then opens the file, checks it, and
    searches again. The file stays; the last lines list commands to try on it.

    --json prints one object: the numbers of records, the hits, the steps with their seconds, and the result of the
    check.
    """
    started = time.perf_counter()
    texts = questions or list(QUESTIONS)
    report = run_async(_build_and_search(file, texts, rebuild=rebuild, quiet=json))
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
        steps = await tour(store, quiet=quiet)
    return {
        "reused": reused,
        "memories": stats.memories,
        "assemblies": stats.assemblies,
        "tags": stats.tags,
        "build_seconds": seconds,
        "questions": answers,
        **steps,
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
    started = time.perf_counter()
    hits = await store.memories.search(question, limit=HITS)
    seconds = time.perf_counter() - started
    topics = await store.assemblies.search(question, limit=HITS)
    if not quiet:
        _print_answer(question, seconds, hits, topics)
    return {
        "question": question,
        "seconds": round(seconds, 6),
        "hits": [
            {"score": hit.score, "id": hit.memory.id, "content": hit.memory.content, "tags": sorted(hit.memory.tags)}
            for hit in hits
        ],
        "assemblies": [
            {"score": hit.score, "id": hit.assembly.id, "name": hit.assembly.name, "members": hit.assembly.member_count}
            for hit in topics
        ],
    }


def _print_answer(question: str, seconds: float, hits: list[Hit], topics: list[AssemblyHit]) -> None:
    print_line("")
    print_line(f"{question} {time_text(seconds)}", style="bold")
    grid = table(">score", "passage")
    for hit in hits:
        grid.add_row(score_text(hit.score), passage_text(hit.memory))
    print_table(grid)
    names = ", ".join(f"{hit.assembly.name or hit.assembly.id} ({hit.score:.2f})" for hit in topics)
    console().print(Text.assemble(("Topics: ", "dim"), escape_text(names)))


def _compare_in_new_process(file: Path, question: str, answer: dict[str, Any], *, quiet: bool) -> dict[str, bool]:
    """Check the file in a new process, and compare its hits of the first question with *answer*."""
    clean_file = bool(_run_command("check", "--", str(file))[0]["clean"])
    hits = _run_command("search", "--limit", str(HITS), "--", str(file), question)
    same_hits = [hit["memory"]["id"] for hit in hits] == [hit["id"] for hit in answer["hits"]] and all(
        math.isclose(new["score"], old["score"], abs_tol=1e-6) for new, old in zip(hits, answer["hits"], strict=True)
    )
    if not quiet:
        check = "check finds no damage" if clean_file else "check FINDS DAMAGE (run `memstore check`)"
        search = "returns the same hits" if same_hits else "returns OTHER hits"
        print_line("")
        print_line(f"Opened again in a new process: {check}, and the first question {search}.")
    return {"clean": clean_file, "same_hits": same_hits}


def _run_command(command: str, *arguments: str) -> list[dict[str, Any]]:
    """The JSON Lines that a command prints in a new process."""
    process = subprocesses.run("memstore.cli.main", command, "--json", *arguments)
    if process.returncode not in (0, PROBLEM):
        error = process.stderr.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
        raise MemstoreError(f"`memstore {command}` failed in a new process: {error[0]}")
    return [json_module.loads(line) for line in process.stdout.splitlines()]


def _print_next_steps(file: Path, seconds: float) -> None:
    join = subprocess.list2cmdline if sys.platform == "win32" else shlex.join
    program = Path(sys.argv[0])
    if shutil.which("memstore"):
        prefix = ["memstore"]
    elif program.stem == "memstore" and program.is_file():
        prefix = [str(program)]  # the command of an environment that is not activated
    else:
        prefix = [sys.executable, "-m", "memstore"]
    print_line(f"Finished in {seconds} s. The store is {file}. Try:")
    print_line("")
    for command, *words in (
        ["search", "How do I step through code in the debugger?"],
        ["search", "How do I unpack a dictionary into keyword arguments?", "--boost"],
        ["explain", "calls/5", "How do I unpack a dictionary into keyword arguments?", "--boost"],
        ["assemblies search", "comparing two values"],
        ["assemblies show", "try"],
        ["history", "meetup", "--namespace", NAMESPACE],
        ["forget", "--importance-below", "0.6", "--recursive"],
        ["map", "memstore-demo.html"],
    ):
        print_line("  " + join([*prefix, *command.split(), str(file), *words]))

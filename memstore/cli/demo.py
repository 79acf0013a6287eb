"""The command `demo`: a store of real text, questions in plain words, and a look at it from a new process."""

import asyncio
import json as jsons
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
from memstore.cli import subprocesses
from memstore.cli.maintenance import FOUND_SOMETHING
from memstore.cli.options import AsJson
from memstore.cli.output import clean, console, number, progress, say, say_json, show_table, size_text, snippet, table
from memstore.cli.reference import SOURCE, Reference, reference
from memstore.cli.stores import is_new, looking
from memstore.embedders.wordllama import WordLlamaEmbedder

QUESTIONS = (
    "How do I catch an exception and clean up afterwards?",
    "How do I format a number with two decimals?",
    "When are the default values of parameters evaluated?",
    "What does importing a module do?",
)
SHOWN = 3
OURS = {"metadata.source": SOURCE}


def demo(
    questions: Annotated[
        list[str] | None, typer.Argument(metavar="QUESTION", help="Questions in plain words.", show_default=False)
    ] = None,
    file: Annotated[Path, typer.Option("--file", "-f", help="Where to put the store.")] = Path("memstore-demo.db"),
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build it anew even if it is there.")] = False,
    json: AsJson = False,
) -> None:
    """Build a store from Python's own language reference, ask it questions, and look at it from a new process.

    Takes a few seconds and no network. What is built stays: the last lines say what to try on it. --json prints one
    object with what was built, found and checked.
    """
    started = time.perf_counter()
    asked = questions or list(QUESTIONS)
    told = _Told(quiet=json)
    built = asyncio.run(_build_and_ask(file, asked, rebuild, told))
    checked = _look_again(file, asked[0], built["questions"][0], told)
    seconds = round(time.perf_counter() - started, 2)
    if json:
        say_json({"file": str(file), **built, **checked, "seconds": seconds})
    else:
        _say_what_next(file, seconds)
    if not (checked["clean"] and checked["same_hits"]):
        raise typer.Exit(FOUND_SOMETHING)


class _Told:
    """What is told on the way; nothing with --json."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet

    def line(self, text: str, *, style: str | None = None) -> None:
        if not self.quiet:
            say(text, style=style)


async def _build_and_ask(file: Path, questions: list[str], rebuild: bool, told: _Told) -> dict[str, Any]:
    began = time.perf_counter()
    content = reference()
    reused = await _is_there(file, content) and not rebuild
    async with memstore.open(file, embedder=WordLlamaEmbedder()) as store:
        if reused:
            told.line(f"{file} has the reference already; --rebuild builds it anew.")
        else:
            told.line(f"Building {file} from the language reference of this Python …")
            await _build(store, content, quiet=told.quiet)
        stats = await store.stats()
        seconds = round(time.perf_counter() - began, 2)
        told.line(
            f"{number(stats.memories, 'memory', 'memories')} (passages), "
            f"{number(stats.assemblies, 'assembly', 'assemblies')} (topics), {number(stats.tags, 'tag')}: "
            f"{size_text(stats.file_bytes + stats.wal_bytes)}, {seconds} s"
        )
        answers = [await _ask(store, question, told) for question in questions]
    return {
        "reused": reused,
        "memories": stats.memories,
        "assemblies": stats.assemblies,
        "tags": stats.tags,
        "build_seconds": seconds,
        "questions": answers,
    }


async def _is_there(file: Path, content: Reference) -> bool:
    """Whether the file holds the whole reference. Raises `InvalidError` where it holds somebody's own memories only."""
    if await is_new(file):
        return False
    async with looking(file) as store:
        memories, assemblies = await store.memories.count(where=OURS), await store.assemblies.count(where=OURS)
        if not memories and (await store.stats()).memories:
            raise InvalidError(f"{str(file)!r} is a store of your own, not the demo's: give another --file")
    return memories == len(content.memories) and assemblies == len(content.assemblies)


async def _build(store: Store, content: Reference, *, quiet: bool) -> None:
    """Store the reference; one that is there, or a part of one, goes first, and what others added stays."""
    await store.assemblies.delete_many(where=OURS)
    await store.memories.delete_many(where=OURS)
    with progress() as bar:
        task = bar.add_task("storing passages", total=len(content.memories), visible=not quiet)
        await store.load(content.memories, chunk=100, on_progress=lambda stored: bar.update(task, completed=stored))
        bar.update(task, description="grouping by topic")
        await store.assemblies.add_many(content.assemblies)


async def _ask(store: Store, question: str, told: _Told) -> dict[str, Any]:
    hits = await store.memories.search(question, limit=SHOWN)
    groups = await store.assemblies.search(question, limit=SHOWN)
    if not told.quiet:
        _show(question, hits, groups)
    return {
        "question": question,
        "hits": [
            {"score": hit.score, "id": hit.memory.id, "content": hit.memory.content, "tags": sorted(hit.memory.tags)}
            for hit in hits
        ],
        "assemblies": [
            {"score": hit.score, "id": hit.assembly.id, "name": hit.assembly.name, "members": hit.assembly.member_count}
            for hit in groups
        ],
    }


def _show(question: str, hits: list[Hit], groups: list[AssemblyHit]) -> None:
    say("")
    say(question, style="bold")
    made = table(">score", "passage")
    for hit in hits:
        headings = hit.memory.metadata.get("headings")
        where = " › ".join(map(str, headings)) if isinstance(headings, list) else hit.memory.id
        text = Text(clean(where).replace('"', ""), style="cyan")
        text.append(f"  {clean(hit.memory.id)}", style="dim")
        text.append("\n" + snippet(hit.memory.content, 150), style="default")
        made.add_row(f"{hit.score:.3f}", text)
    show_table(made)
    named = ", ".join(f"{hit.assembly.name or hit.assembly.id} ({hit.score:.2f})" for hit in groups)
    console().print(Text.assemble(("Topics: ", "dim"), clean(named)))


def _look_again(file: Path, question: str, answer: dict[str, Any], told: _Told) -> dict[str, bool]:
    """Have a new process check the file, and ask it the first question again."""
    told.line("")
    clean_there = bool(_elsewhere("check", file)[0]["clean"])
    again = _elsewhere("search", file, "--limit", str(SHOWN), "--", question)
    same = [hit["memory"]["id"] for hit in again] == [hit["id"] for hit in answer["hits"]] and all(
        math.isclose(there["score"], here["score"], abs_tol=1e-6)
        for there, here in zip(again, answer["hits"], strict=True)
    )
    said = "check finds nothing wrong" if clean_there else "check FINDS SOMETHING: memstore check"
    told.line(
        f"Opened again in a new process: {said}, and the first question {'has the same' if same else 'HAS OTHER'} hits."
    )
    return {"clean": clean_there, "same_hits": same}


def _elsewhere(command: str, file: Path, *arguments: str) -> list[dict[str, Any]]:
    """What a command prints as JSON Lines when a new process runs it."""
    done = subprocesses.run("memstore.cli.main", command, "--json", "--file", str(file), *arguments)
    if done.returncode not in (0, FOUND_SOMETHING):
        why = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise MemstoreError(f"a new process could not {command} {str(file)!r}: {why[0]}")
    return [jsons.loads(text) for text in done.stdout.splitlines()]


def _say_what_next(file: Path, seconds: float) -> None:
    quote = subprocess.list2cmdline if sys.platform == "win32" else shlex.join
    called = Path(sys.argv[0])
    if shutil.which("memstore"):
        program = ["memstore"]
    elif called.stem == "memstore" and called.is_file():
        program = [str(called)]  # as it was called: the command of an environment that is not activated
    else:
        program = [sys.executable, "-m", "memstore.cli.main"]
    say(f"All of it took {seconds} s. The store is in {file}. To try on it:")
    say("")
    for words in (
        ["search", "which operators bind tightest"],
        ["search", "how is it closed afterwards", "--tag", "topic:with"],
        ["assemblies", "search", "waiting for several things at once"],
        ["assemblies", "show", "try"],
        ["add", "Ada prefers the with statement", "--tag", "note"],
        ["map", "memstore-demo.html"],
        ["stats"],
    ):
        say("  " + quote([*program, *words, "--file", str(file)]))

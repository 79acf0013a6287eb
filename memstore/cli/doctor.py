"""The command `doctor`: what stands under the store on this machine, and what to do about what is wrong."""

import json as jsons
import platform
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import typer
from rich.table import Table
from rich.text import Text

import memstore
from memstore import MemstoreError
from memstore.cli import subprocesses
from memstore.cli.jsonl import as_json
from memstore.cli.maintenance import FOUND_SOMETHING
from memstore.cli.options import AsJson, MaybeFile
from memstore.cli.output import clean, number, say, say_json, show_table, size_text
from memstore.database.engine import uri
from memstore.database.inspect import HEAD, MINIMUM_SQLITE, inspect
from memstore.database.sqlite import SOURCE, VERSION, sqlite3, wal_reset_bug
from memstore.index.openmp import describe_runtime, faiss_bundles_libomp, openmp_runtimes

_PACKAGES = (
    *("numpy", "sqlalchemy", "aiosqlite", "alembic", "faiss-cpu"),
    *("typer", "rich", "semantic-text-splitter", "wordllama", "pysqlite3"),
)
_EXTRAS = {
    "wordllama": "'memstore[wordllama]' turns texts into vectors without a network",
    "pysqlite3": "'memstore[sqlite]' brings a newer SQLite than many Pythons have",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing found out.

    Attributes:
        section: what it is about.
        name: what was looked at.
        value: what was found.
        state: `ok`, `note` (worth knowing, nothing to do) or `problem`.
        advice: what a note means, or what to do about a problem.
    """

    section: str
    name: str
    value: str
    state: Literal["ok", "note", "problem"] = "ok"
    advice: str = ""


def doctor(file: MaybeFile = None, json: AsJson = False) -> None:
    """Say what memstore runs on here (SQLite, OpenMP, FAISS, versions; with --file that file) and what to mend.

    Exit code 3 if there is a problem. --json prints {"problems": how many, "facts": […]}.
    """
    facts = [*_python(), *_sqlite(), *_faiss(), *(() if file is None else _file(file))]
    problems = [fact for fact in facts if fact.state == "problem"]
    if json:
        say_json({"problems": len(problems), "facts": [as_json(fact) for fact in facts]})
    else:
        _show(facts)
        say("")
        say(f"{number(len(problems), 'problem')}: see ✗ above" if problems else "no problems")
    if problems:
        raise typer.Exit(FOUND_SOMETHING)


def _show(facts: list[Fact]) -> None:
    marks = {"ok": Text("✓", style="green"), "note": Text("!", style="yellow"), "problem": Text("✗", style="red")}
    for section in dict.fromkeys(fact.section for fact in facts):
        say(section, style="bold")
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True)
        grid.add_column(style="dim", no_wrap=True, min_width=18)
        grid.add_column(overflow="fold")
        for fact in facts:
            if fact.section == section:
                grid.add_row(marks[fact.state], fact.name, Text(clean(fact.value)))
                if fact.advice:
                    grid.add_row("", "", Text(clean(fact.advice), style="italic"))
        show_table(grid)


def _python() -> Iterator[Fact]:
    here = "Python and packages"
    yield Fact(section=here, name="memstore", value=f"{memstore.__version__}, file revision {HEAD}")
    yield Fact(section=here, name="Python", value=f"{platform.python_version()} at {sys.executable}")
    yield Fact(section=here, name="platform", value=platform.platform())
    for package in _PACKAGES:
        try:
            yield Fact(section=here, name=package, value=version(package))
        except PackageNotFoundError:
            if package in _EXTRAS:
                advice = f"optional: pip install {_EXTRAS[package]}"
                yield Fact(section=here, name=package, value="not installed", state="note", advice=advice)
            elif package != "faiss-cpu":  # conda calls it faiss; whether it can be imported is seen below
                advice = f"pip install {package}"
                yield Fact(section=here, name=package, value="not installed", state="problem", advice=advice)


def _sqlite() -> Iterator[Fact]:
    here = "SQLite"
    with closing(sqlite3.connect(":memory:")) as connection:

        def one(statement: str) -> object:
            return connection.execute(statement).fetchone()[0]

        source, secure_delete = one("SELECT sqlite_source_id()"), one("PRAGMA secure_delete")
        options = [row[0] for row in connection.execute("PRAGMA compile_options")]
        try:
            has_json = one("SELECT json_extract('{\"a\": 1}', '$.a')") == 1
        except sqlite3.OperationalError:
            has_json = False
    least = ".".join(map(str, MINIMUM_SQLITE))
    value = f"{sqlite3.sqlite_version}, of {'Python itself' if SOURCE == 'sqlite3' else SOURCE}"
    yield _judged(here, "version", value, VERSION >= MINIMUM_SQLITE, f"memstore needs {least} or later: {_NEWER}")
    yield Fact(section=here, name="library", value=_library())
    yield Fact(section=here, name="source id", value=str(source))
    thread = next((option for option in options if option.startswith("THREADSAFE")), "THREADSAFE not told")
    yield _judged(here, "threads", thread, thread != "THREADSAFE=0", f"memstore uses threads: {_NEWER}")
    yield _judged(here, "JSON functions", "present" if has_json else "absent", has_json, f"filters need them: {_NEWER}")
    if wal_reset_bug(VERSION):
        yield Fact(
            section=here,
            name="WAL-reset bug",
            value=f"SQLite {sqlite3.sqlite_version} has it",
            state="note",
            advice="a passive checkpoint may lose commits of another connection (3.7.0 to 3.51.2). memstore "
            f"checkpoints with TRUNCATE only, which avoids it; other programs that write to the file may not: {_NEWER}",
        )
    else:
        yield Fact(section=here, name="WAL-reset bug", value="fixed in this version")
    words = {0: "off", 1: "on", 2: "fast"}
    advice = "memstore sets it to fast: with it on, deleted vectors are written twice" if secure_delete == 1 else ""
    value = f"{words.get(int(str(secure_delete)), secure_delete)} by default"
    yield Fact(section=here, name="secure_delete", value=value, state="note" if advice else "ok", advice=advice)


_NEWER = "pip install 'memstore[sqlite]' brings a newer one, and so may a newer Python"


def _library() -> str:
    """The file of the module that SQLite is reached by."""
    module = sys.modules.get(f"{SOURCE}._sqlite3") or sys.modules.get("_sqlite3")
    return getattr(module, "__file__", None) or "built into Python"


def _judged(section: str, name: str, value: str, fine: bool, advice: str) -> Fact:
    state: Literal["ok", "problem"] = "ok" if fine else "problem"
    return Fact(section=section, name=name, value=value, state=state, advice="" if fine else advice)


def _faiss() -> Iterator[Fact]:
    here = "FAISS and OpenMP"
    loaded = openmp_runtimes()
    yield Fact(
        section=here,
        name="in this process",
        value=", ".join(map(describe_runtime, loaded)) or "no OpenMP runtime, as it should be",
    )
    done = subprocesses.run("memstore.cli.doctor_probe")
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        advice = "install faiss-cpu again; until then open stores with index=IndexOptions(engine='numpy')"
        yield Fact(section=here, name="FAISS", value=f"loading it failed: {last[0]}", state="problem", advice=advice)
        return
    found = jsons.loads(done.stdout)
    why = found["conflict"] or found["error"]
    if why is not None:
        advice = "pip install faiss-cpu; until then stores are searched by NumPy, more slowly"
        yield Fact(section=here, name="FAISS", value=why, state="problem", advice="" if found["conflict"] else advice)
    else:
        yield Fact(section=here, name="FAISS", value=f"{found['version']}, built with {found['simd']}")
        yield Fact(
            section=here, name="OpenMP before it", value="\n".join(map(describe_runtime, found["before"])) or "none"
        )
        yield Fact(
            section=here, name="OpenMP after it", value="\n".join(map(describe_runtime, found["after"])) or "none"
        )
        if len(found["after"]) > 1:
            advice = "two of LLVM's or Intel's abort a process: install all from conda-forge, where they share one"
            yield Fact(section=here, name="runtimes", value="more than one", state="note", advice=advice)
    if faiss_bundles_libomp():
        advice = "FAISS brings an LLVM runtime here, and a second one ends the process; NumPy searches instead"
        yield Fact(
            section=here,
            name="loads by itself",
            value="no, only with engine='faiss'",
            state="note",
            advice=advice,
        )
    else:
        yield Fact(
            section=here, name="loads by itself", value="yes, as soon as a store has enough vectors to gain by it"
        )


def _file(file: Path) -> Iterator[Fact]:
    here = f"The file {file}"
    try:
        revision = inspect(str(file))
        if not file.exists():
            raise memstore.MissingFileError("there is no such file: memstore add makes it")
    except MemstoreError as error:
        yield Fact(section=here, name="can be opened", value=str(error), state="problem")
        return
    with closing(sqlite3.connect(uri(str(file), "ro"), uri=True, timeout=10.0)) as connection:

        def pragma(name: str) -> object:
            return connection.execute(f"PRAGMA {name}").fetchone()[0]

        application, journal = int(str(pragma("application_id"))), str(pragma("journal_mode"))
        pages, page, free = (int(str(pragma(name))) for name in ("page_count", "page_size", "freelist_count"))
    fine = revision == HEAD
    yield _judged(here, "revision", revision or "none yet", fine, f"this release writes {HEAD}: memstore migrate")
    yield Fact(section=here, name="application id", value=f"{application:#x}{' (memstore)' * (revision is not None)}")
    yield Fact(section=here, name="size", value=f"{size_text(pages * page)}, {pages:,} pages of {page:,} bytes")
    free_advice = "memstore compact gives them back" if free * 4 > pages else ""
    value = f"{size_text(free * page)} in {number(free, 'page')}"
    yield Fact(section=here, name="free", value=value, state="note" if free_advice else "ok", advice=free_advice)
    for suffix in ("-wal", "-shm"):
        beside = file.with_name(file.name + suffix)
        if beside.exists():
            yield Fact(
                section=here,
                name=suffix,
                value=f"{size_text(beside.stat().st_size)}: part of it; copy none without the other",
            )
    advice = "memstore sets WAL when it writes: memstore migrate does so now"
    yield _judged(here, "journal mode", journal, journal == "wal", advice)

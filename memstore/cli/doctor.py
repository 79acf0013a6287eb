"""The command `doctor`: facts about Python, SQLite, FAISS, OpenMP and a file, with advice for each problem."""

import json as json_module
import platform
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

import memstore
from memstore import MemstoreError, MissingFileError
from memstore.cli import options, subprocesses
from memstore.cli.exit_codes import PROBLEM
from memstore.cli.jsonl import value_as_json
from memstore.cli.output import print_json, print_line, print_table
from memstore.cli.text import quantity, size_text
from memstore.database.engine import uri
from memstore.database.inspect import HEAD, MINIMUM_SQLITE, inspect
from memstore.database.sqlite import SOURCE, VERSION, sqlite3, wal_reset_bug
from memstore.escaping import escape_text
from memstore.index.openmp import describe_runtime, faiss_bundles_libomp, openmp_runtimes

_PACKAGES = (
    *("numpy", "sqlalchemy", "aiosqlite", "alembic", "faiss-cpu"),
    *("typer", "rich", "semantic-text-splitter", "wordllama", "pysqlite3"),
)
_EXTRAS = {
    "wordllama": "Optional: pip install 'memstore[wordllama]' to embed texts without a network.",
    "pysqlite3": "Optional: pip install 'memstore[sqlite]' for a newer SQLite than many Pythons have.",
}
_NEWER_SQLITE = "Install a newer one with pip install 'memstore[sqlite]', or use a newer Python."


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One fact.

    Attributes:
        section: the title it is listed under.
        name: its name.
        value: its value.
        state: `ok`, `note` (worth knowing, nothing to do) or `problem`.
        advice: what a note means, or how to solve a problem.
    """

    section: str
    name: str
    value: str
    state: Literal["ok", "note", "problem"] = "ok"
    advice: str = ""


@dataclass(frozen=True, slots=True)
class _Section:
    """Makes the facts of one section."""

    title: str

    def ok(self, name: str, value: str) -> Fact:
        return Fact(section=self.title, name=name, value=value)

    def note(self, name: str, value: str, advice: str) -> Fact:
        """A note; without advice, a plain fact."""
        return Fact(section=self.title, name=name, value=value, state="note" if advice else "ok", advice=advice)

    def problem(self, name: str, value: str, advice: str = "") -> Fact:
        return Fact(section=self.title, name=name, value=value, state="problem", advice=advice)

    def require(self, name: str, value: str, condition: bool, advice: str) -> Fact:
        """A problem with *advice* unless *condition* is true."""
        return self.ok(name, value) if condition else self.problem(name, value, advice)


def doctor(
    file: Annotated[
        Path | None, typer.Argument(metavar="STORE", help="A database file to check too.", show_default=False)
    ] = None,
    json: options.Json = False,
) -> None:
    """Check what memstore runs on: SQLite, FAISS, OpenMP, packages.

    With a store also that file. Exit code 3 if there is a problem.

    --json prints {"problems": number, "facts": […]}.
    """
    facts = [*_python(), *_sqlite(), *_faiss(), *(() if file is None else _file(file))]
    problems = [fact for fact in facts if fact.state == "problem"]
    if json:
        print_json({"problems": len(problems), "facts": value_as_json(facts)})
    else:
        _print(facts)
        print_line("")
        print_line(f"{quantity(len(problems), 'problem')}, marked ✗" if problems else "no problems")
    if problems:
        raise typer.Exit(PROBLEM)


def _print(facts: list[Fact]) -> None:
    marks = {"ok": Text("✓", style="green"), "note": Text("!", style="yellow"), "problem": Text("✗", style="red")}
    for section in dict.fromkeys(fact.section for fact in facts):
        print_line(section, style="bold")
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True)
        grid.add_column(style="dim", no_wrap=True, min_width=22)
        grid.add_column(overflow="fold")
        for fact in facts:
            if fact.section == section:
                grid.add_row(marks[fact.state], fact.name, Text(escape_text(fact.value)))
                if fact.advice:
                    grid.add_row("", "", Text(escape_text(fact.advice), style="italic"))
        print_table(grid)


def _python() -> Iterator[Fact]:
    section = _Section("Python and packages")
    yield section.ok("memstore", f"{memstore.__version__}, file revision {HEAD}")
    yield section.ok("Python", f"{platform.python_version()} at {sys.executable}")
    yield section.ok("platform", platform.platform())
    for package in _PACKAGES:
        try:
            yield section.ok(package, version(package))
        except PackageNotFoundError:
            if package in _EXTRAS:
                yield section.note(package, "not installed", _EXTRAS[package])
            elif package != "faiss-cpu":  # conda names it faiss; the section on FAISS imports it
                yield section.problem(package, "not installed", f"Run pip install {package}.")


def _sqlite() -> Iterator[Fact]:
    section = _Section("SQLite")
    with closing(sqlite3.connect(":memory:")) as connection:

        def value(statement: str) -> object:
            return connection.execute(statement).fetchone()[0]

        source, secure_delete = value("SELECT sqlite_source_id()"), int(str(value("PRAGMA secure_delete")))
        compile_options = [row[0] for row in connection.execute("PRAGMA compile_options")]
        try:
            has_json = value("SELECT json_extract('{\"a\": 1}', '$.a')") == 1
        except sqlite3.OperationalError:
            has_json = False
    minimum = ".".join(map(str, MINIMUM_SQLITE))
    origin = f"{sqlite3.sqlite_version}, from {'Python' if SOURCE == 'sqlite3' else SOURCE}"
    yield section.require(
        "version", origin, VERSION >= MINIMUM_SQLITE, f"memstore needs {minimum} or later. {_NEWER_SQLITE}"
    )
    yield section.ok("library", _library())
    yield section.ok("source id", str(source))
    threads = next((option for option in compile_options if option.startswith("THREADSAFE")), "THREADSAFE unknown")
    yield section.require("threads", threads, threads != "THREADSAFE=0", f"memstore uses threads. {_NEWER_SQLITE}")
    present = "present" if has_json else "absent"
    yield section.require("JSON functions", present, has_json, f"Filters need them. {_NEWER_SQLITE}")
    if wal_reset_bug(VERSION):
        yield section.note(
            "WAL-reset bug",
            f"present in SQLite {sqlite3.sqlite_version}",
            "SQLite 3.7.0 to 3.51.2 can lose commits when a passive checkpoint overlaps a restart of the write-ahead "
            "log. memstore checkpoints with TRUNCATE only, which is safe; other programs that write to the file may "
            f"not. {_NEWER_SQLITE}",
        )
    else:
        yield section.ok("WAL-reset bug", "fixed in this version")
    name = {0: "off", 1: "on", 2: "fast"}.get(secure_delete, str(secure_delete))
    advice = "memstore sets it to fast: with it on, deleted vectors are written twice." if secure_delete == 1 else ""
    yield section.note("secure_delete", f"{name} by default", advice)


def _library() -> str:
    """The file of Python's SQLite module."""
    module = sys.modules.get(f"{SOURCE}._sqlite3") or sys.modules.get("_sqlite3")
    return getattr(module, "__file__", None) or "built into Python"


def _faiss() -> Iterator[Fact]:
    section = _Section("FAISS and OpenMP")
    yield section.ok("in this process", _runtimes_text(openmp_runtimes()))
    process = subprocesses.run("memstore.cli.doctor_probe")
    if process.returncode != 0:
        error = process.stderr.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
        yield section.problem(
            "FAISS",
            f"importing it failed: {error[0]}",
            "Install faiss-cpu again; until then open stores with index=IndexOptions(engine='numpy').",
        )
        return
    probe = json_module.loads(process.stdout)
    if probe["conflict"] is not None:
        yield section.problem("FAISS", probe["conflict"])
    elif probe["error"] is not None:
        yield section.problem(
            "FAISS", probe["error"], "Run pip install faiss-cpu; until then NumPy searches stores, more slowly."
        )
    else:
        yield section.ok("FAISS", f"{probe['version']}, built with {probe['simd']}")
        yield section.ok("OpenMP before FAISS", _runtimes_text(probe["before"]))
        yield section.ok("OpenMP after FAISS", _runtimes_text(probe["after"]))
        if len(probe["after"]) > 1:
            yield section.note(
                "runtimes",
                "more than one",
                "Two OpenMP runtimes of LLVM or Intel abort a process. Packages from conda-forge share one.",
            )
    if faiss_bundles_libomp():
        yield section.note(
            "loaded automatically",
            "no, only with engine='faiss'",
            "FAISS bundles an LLVM runtime here, and a second one aborts the process. NumPy searches instead.",
        )
    else:
        yield section.ok("loaded automatically", "yes, in stores with enough vectors to be faster")


def _runtimes_text(runtimes: list[str]) -> str:
    return "; ".join(map(describe_runtime, runtimes)) or "none"


def _file(file: Path) -> Iterator[Fact]:
    section = _Section(f"File {file}")
    try:
        revision = inspect(str(file))
        if not file.exists():
            raise MissingFileError("There is no such file. Create it with `memstore add`.")
    except MemstoreError as error:
        yield section.problem("can be opened", str(error))
        return
    with closing(sqlite3.connect(uri(str(file), "ro"), uri=True, timeout=10.0)) as connection:

        def pragma(name: str) -> object:
            return connection.execute(f"PRAGMA {name}").fetchone()[0]

        application, journal = int(str(pragma("application_id"))), str(pragma("journal_mode"))
        pages, page_size, free = (int(str(pragma(name))) for name in ("page_count", "page_size", "freelist_count"))
    advice = f"This release needs revision {HEAD}. Run `memstore migrate`."
    yield section.require("revision", revision or "none yet", revision == HEAD, advice)
    yield section.ok("application id", f"{application:#x}{' (memstore)' * (revision is not None)}")
    yield section.ok("size", f"{size_text(pages * page_size)}, {pages:,} pages of {page_size:,} bytes")
    advice = "Run `memstore compact` to return it to the file system." if free * 4 > pages else ""
    yield section.note("free space", f"{size_text(free * page_size)} in {quantity(free, 'page')}", advice)
    for suffix in ("-wal", "-shm"):
        companion = file.with_name(file.name + suffix)
        if companion.exists():
            size = size_text(companion.stat().st_size)
            yield section.ok(suffix, f"{size}; a part of the store: do not copy the file without it")
    advice = "memstore uses WAL for writes. Run `memstore migrate` to set it."
    yield section.require("journal mode", journal, journal == "wal", advice)

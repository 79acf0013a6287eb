"""The command line as a whole: the table of commands, and the one place that turns errors into exit codes.

A command's module is imported when the command is called, so that `memstore --help` and `--version` are quick.
"""

import asyncio
import inspect
import logging
import os
import re
import sys
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from typing import Annotated, Any, ClassVar, cast

import typer
from typer.core import TyperCommand, TyperGroup

import memstore
from memstore.cli.exit_codes import ERROR, EXIT_CODES, INTERRUPTED, OUTPUT_CLOSED
from memstore.cli.text import clean

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}
_ARGUMENT = re.compile(r"\b(boost|curvature|dimension|embedder|embedding|metric|where)=(?:'(\w+)')?")
"""An argument in a message of the API, with a value or without."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A command: its module and function, what the list of commands says of it, and under which title."""

    module: str
    function: str
    summary: str
    panel: str | None = None

    def load(self, name: str) -> TyperCommand:
        """Import the module, and make a command of the function and its docstring."""
        function = getattr(import_module(f"memstore.cli.{self.module}"), self.function)
        # typer would keep the line ends inside a paragraph.
        paragraphs = (inspect.getdoc(function) or "").split("\n\n")
        text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
        single = typer.Typer(add_completion=False)
        single.command(name, help=text, epilog=EXIT_CODES)(_run_to_end(function))
        return cast("TyperCommand", typer.main.get_command(single))


def _run_to_end(function: Any) -> Any:
    """*function* with the same options; if it is a coroutine function, called in an event loop of its own."""
    if not inspect.iscoroutinefunction(function):
        return function

    @wraps(function)
    def run(**arguments: Any) -> None:
        asyncio.run(function(**arguments))

    return run


class _LazyGroup(TyperGroup):
    """A group of commands whose modules are imported when they are called."""

    entries: ClassVar[dict[str, _Entry]] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the commands, in the order of the table."""
        return [*self.entries, *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command with this name; None if there is none."""
        entry = self.entries.get(cmd_name)
        return super().get_command(ctx, cmd_name) if entry is None else entry.load(cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help of the group, from the summaries of the table."""
        summaries: dict[str, Any] = {
            name: TyperCommand(name, help=entry.summary, rich_help_panel=entry.panel)
            for name, entry in self.entries.items()
        }
        group = TyperGroup(
            name=self.name,
            commands={**summaries, **self.commands},
            params=self.params,
            help=self.help,
            epilog=self.epilog,
            rich_markup_mode=self.rich_markup_mode,
        )
        group.format_help(ctx, formatter)


class _Assemblies(_LazyGroup):
    entries: ClassVar = {
        "list": _Entry("assemblies", "list_", "List assemblies, oldest first."),
        "show": _Entry("assemblies", "show", "Show an assembly with all its fields and its first members."),
        "search": _Entry("assemblies", "search", "Search assemblies by the mean of their members' vectors."),
        "add": _Entry("assemblies", "add", "Create an assembly."),
        "add-members": _Entry("assemblies", "add_members", "Add memories to an assembly."),
        "remove-members": _Entry("assemblies", "remove_members", "Remove memories from an assembly."),
        "delete": _Entry("assemblies", "delete", "Delete an assembly; its members stay."),
        "suggest": _Entry("assembly_suggest", "suggest", "Suggest assemblies of near memories that are in none."),
        "merge-candidates": _Entry("assembly_merge", "merge_candidates", "List pairs of assemblies near each other."),
        "merge": _Entry("assembly_merge", "merge", "Merge assemblies into one."),
        "unmerge": _Entry("assembly_merge", "unmerge", "Undo a merge."),
        "lineage": _Entry("assembly_merge", "lineage", "Show the merges that led to an assembly, or from it."),
    }


class _Tags(_LazyGroup):
    entries: ClassVar = {
        "list": _Entry("tags", "list_", "List the tags in use, by name."),
        "rename": _Entry("tags", "rename", "Rename a tag on all records that have it."),
        "delete": _Entry("tags", "delete", "Remove a tag from all records that have it."),
    }


_START, _MEMORIES, _FORGET, _TRANSFER, _STORE, _GROUPS = (
    "Start here",
    "Memories",
    "Forgetting and history",
    "Import, export and backup",
    "The store",
    "Assemblies and tags",
)


class _Commands(_LazyGroup):
    entries: ClassVar = {
        "demo": _Entry("demo", "demo", "Build a store from Python's language reference and search it.", _START),
        "doctor": _Entry("doctor", "doctor", "Check what memstore runs on: SQLite, FAISS, OpenMP, packages.", _START),
        "add": _Entry("memories", "add", "Add a memory; creates the store if there is none.", _MEMORIES),
        "search": _Entry("memories", "search", "Search memories by meaning, best first.", _MEMORIES),
        "explain": _Entry("explain", "explain", "Explain the rank of a memory in a search.", _MEMORIES),
        "list": _Entry("memories", "list_", "List memories, oldest first.", _MEMORIES),
        "show": _Entry("memories", "show", "Show a memory with all its fields.", _MEMORIES),
        "delete": _Entry("memories", "delete", "Delete memories, by id or by a filter.", _MEMORIES),
        "forget": _Entry("forgetting", "forget", "Move memories or assemblies to the trash by a policy.", _FORGET),
        "trash": _Entry("forgetting", "trash", "List the trash, latest first.", _FORGET),
        "recover": _Entry("forgetting", "recover", "Recover memories or assemblies from the trash.", _FORGET),
        "purge": _Entry("forgetting", "purge", "Delete old records in the trash permanently.", _FORGET),
        "history": _Entry("history", "history", "List the changes of a memory or an assembly.", _FORGET),
        "undo": _Entry("history", "undo", "Undo a change of a memory or an assembly.", _FORGET),
        "import": _Entry("import_export", "import_", "Import JSON Lines, Markdown or text files.", _TRANSFER),
        "export": _Entry("import_export", "export", "Export the store as JSON Lines.", _TRANSFER),
        "import-folder": _Entry("import_folder", "import_folder_", "Import a folder of JSON files.", _TRANSFER),
        "backup": _Entry("backups", "backup", "Copy the store into a new file.", _TRANSFER),
        "verify": _Entry("backups", "verify", "Verify a backup or a store.", _TRANSFER),
        "restore": _Entry("backups", "restore", "Replace the store with a backup.", _TRANSFER),
        "map": _Entry("map", "map_", "Write a map of the store as an HTML page.", _STORE),
        "stats": _Entry("maintenance", "stats", "Show what the store contains.", _STORE),
        "check": _Entry("maintenance", "check", "Check the store for damage.", _STORE),
        "repair": _Entry("maintenance", "repair", "Repair the store.", _STORE),
        "compact": _Entry("maintenance", "compact", "Return free space to the file system.", _STORE),
        "optimize": _Entry("maintenance", "optimize", "Build the search graph now.", _STORE),
        "migrate": _Entry("maintenance", "migrate", "Migrate the file of an older release.", _STORE),
    }

    def invoke(self, ctx: Any) -> Any:
        """Run the command; every error of memstore ends here."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except memstore.MemstoreError as error:
            sentences = map(_sentence, [str(error), *getattr(error, "__notes__", ())])
            _print_error("error: " + _with_options(" ".join(sentences)))
            raise typer.Exit(ERROR) from error
        except BrokenPipeError as error:
            # Python would flush stdout at its end, and raise once more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(OUTPUT_CLOSED) from error
        except OSError as error:
            _print_error(f"error: {error.strerror or error}: {error.filename}")
            raise typer.Exit(ERROR) from error
        except KeyboardInterrupt as error:
            _print_error("interrupted. Committed changes are stored, and the store is intact.")
            raise typer.Exit(INTERRUPTED) from error


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _with_options(message: str) -> str:
    """*message* with the names of the command line's options instead of the API's arguments."""
    message = message.replace("use upsert to replace it, or update to change it", "pass --upsert to replace it")
    message = message.replace(" in namespace ()", "")  # the root, which has no name on the command line
    return _ARGUMENT.sub(lambda match: f"--{match[1]}" + (f" {match[2]}" if match[2] else ""), message)


def _print_error(text: str) -> None:
    typer.echo(clean("memstore: " + " ".join(text.split())), err=True)


app = typer.Typer(
    cls=_Commands,
    help="A memory store in one SQLite file: memories, assemblies and tags, searched by meaning. "
    "To try it, run: memstore demo\n\n"
    "Pass the file with --file, or set the environment variable MEMSTORE_FILE.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=HELP_OPTIONS,
)
for _name, _group, _summary in (
    ("assemblies", _Assemblies, "Groups of memories, searched by the mean of their members' vectors."),
    ("tags", _Tags, "Labels of memories and assemblies."),
):
    app.add_typer(
        typer.Typer(cls=_group, no_args_is_help=True, context_settings=HELP_OPTIONS, callback=lambda: None),
        name=_name,
        help=_summary,
        rich_help_panel=_GROUPS,
    )


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"memstore {memstore.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[  # noqa: ARG001 - its callback acts
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    # JSON in a pipe is UTF-8 on every system; characters that a terminal cannot show are escaped.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")
    logging.getLogger("memstore.sqlite").setLevel(logging.ERROR)  # `doctor` reports it, not every command

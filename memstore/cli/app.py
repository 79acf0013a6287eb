"""Every command in its place, and the one place where errors become a line and an exit code."""

import inspect
import logging
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import memstore
from memstore.cli import (
    assemblies,
    assembly_merge,
    backups,
    demo,
    doctor,
    explain,
    forgetting,
    history,
    import_export,
    import_folder,
    maintenance,
    map,
    memories,
    tags,
)
from memstore.cli.output import clean, console

EXIT_CODES = (
    "Exit codes: 0 done; 1 an error, in one line on stderr; 2 the command was not understood; 3 check, verify or "
    "doctor found something, or import-folder left something out; 130 stopped by Ctrl-C; 141 the reader of the output "
    "went away."
)
ERROR, INTERRUPTED, READER_GONE = 1, 130, 141


class _Commands(TyperGroup):
    """A group of commands whose errors are told in one line."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; every error of memstore ends here."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except memstore.MemstoreError as error:
            hint = ("--upsert replaces it",) * any(
                isinstance(e, memstore.DuplicateError) for e in (error, error.__cause__)
            )
            _tell("error: " + "; ".join([str(error), *getattr(error, "__notes__", ()), *hint]))
            raise typer.Exit(ERROR) from error
        except BrokenPipeError as error:
            # What stdout still holds would raise once more when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(READER_GONE) from error
        except OSError as error:
            _tell(f"error: {error.strerror or error}: {error.filename}")
            raise typer.Exit(ERROR) from error
        except KeyboardInterrupt as error:
            _tell("stopped; what was committed is in the file, and the file is sound")
            raise typer.Exit(INTERRUPTED) from error


def _tell(line: str) -> None:
    console(stderr=True).print(clean("memstore: " + " ".join(line.split())), soft_wrap=True)


app = typer.Typer(
    cls=_Commands,
    help="Memories, assemblies and tags in one SQLite file, searched by meaning. New here? Run: memstore demo\n\n"
    "A command finds its store by --file, or by the environment variable MEMSTORE_FILE.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"memstore {memstore.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[  # noqa: ARG001 - its callback acts
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    # Pipes are UTF-8 everywhere, as JSON is; what a terminal cannot show is spelled out.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")
    logging.getLogger("memstore.sqlite").setLevel(logging.ERROR)  # `doctor` says it; not every command should


def _flowing(command: Callable[..., None]) -> str:
    """The docstring of *command* with one line a paragraph: typer would keep its line ends."""
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


for _name, _command, _panel in (
    ("demo", demo.demo, "Start here"),
    ("doctor", doctor.doctor, "Start here"),
    ("add", memories.add, "Memories"),
    ("search", memories.search, "Memories"),
    ("explain", explain.explain, "Memories"),
    ("list", memories.list_, "Memories"),
    ("show", memories.show, "Memories"),
    ("delete", memories.delete, "Memories"),
    ("forget", forgetting.forget, "Forgetting"),
    ("trash", forgetting.trash, "Forgetting"),
    ("untrash", forgetting.untrash, "Forgetting"),
    ("purge", forgetting.purge, "Forgetting"),
    ("lineage", assembly_merge.lineage, "Groups and words"),
    ("history", history.history, "Memories"),
    ("undo", history.undo, "Memories"),
    ("import", import_export.import_, "In and out"),
    ("export", import_export.export, "In and out"),
    ("import-folder", import_folder.import_folder_, "In and out"),
    ("backup", backups.backup, "In and out"),
    ("verify", backups.verify, "In and out"),
    ("restore", backups.restore, "In and out"),
    ("map", map.map_, "The file"),
    ("stats", maintenance.stats, "The file"),
    ("check", maintenance.check, "The file"),
    ("repair", maintenance.repair, "The file"),
    ("compact", maintenance.compact, "The file"),
    ("optimize", maintenance.optimize, "The file"),
    ("migrate", maintenance.migrate, "The file"),
):
    app.command(_name, help=_flowing(_command), rich_help_panel=_panel, epilog=EXIT_CODES)(_command)
assemblies.app.command("prune", help=_flowing(forgetting.prune))(forgetting.prune)
app.add_typer(assemblies.app, name="assemblies", rich_help_panel="Groups and words")
app.add_typer(tags.app, name="tags", rich_help_panel="Groups and words")

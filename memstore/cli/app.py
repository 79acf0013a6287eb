"""The command line as a whole: its groups, and the one place that turns errors into exit codes."""

import logging
import os
import sys
from typing import Annotated, Any, ClassVar

import typer

from memstore import __version__
from memstore.cli.commands import VARIABLE, CommandGroup
from memstore.cli.exit_codes import ERROR, EXIT_CODES, INTERRUPTED, INVALID, OUTPUT_CLOSED
from memstore.cli.interrupts import INTERRUPTION
from memstore.cli.table import COMMANDS, GROUPS, SUBGROUPS, Entry
from memstore.errors import MemstoreError
from memstore.escaping import escape_text

UsageError: Any = typer.BadParameter.__mro__[1]
"""The base of all errors about arguments, of click or of the click in newer releases of typer."""

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}


class _Commands(CommandGroup):
    """All commands."""

    entries: ClassVar = COMMANDS

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options before the name of the command."""
        try:
            return super().parse_args(ctx, args)
        except UsageError as error:
            raise _invalid_arguments(error) from error

    def invoke(self, ctx: Any) -> Any:
        """Run the command; every error of memstore ends here."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except MemstoreError as error:
            from memstore.cli.messages import in_words_of_commands  # late: `--help` needs none of it

            _print_error(in_words_of_commands(error))
            raise typer.Exit(ERROR) from error
        except UsageError as error:
            raise _invalid_arguments(error) from error
        except BrokenPipeError as error:
            # Python would flush stdout at its end, and raise once more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(OUTPUT_CLOSED) from error
        except OSError as error:
            _print_error(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
            raise typer.Exit(ERROR) from error
        except KeyboardInterrupt as error:
            typer.echo(INTERRUPTION, err=True)
            raise typer.Exit(INTERRUPTED) from error


def _invalid_arguments(error: Any) -> typer.Exit:
    """Print an error about arguments, and the usage of the command."""
    message = error.format_message().removeprefix("Invalid value: ")
    if message:  # else a group without a command, which has printed its help
        _print_error(_sentence(message))
        if error.ctx is not None:
            typer.echo(f"{error.ctx.get_usage().strip()}\nRun `{error.ctx.command_path} --help` for help.", err=True)
    return typer.Exit(INVALID)


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _print_error(message: str) -> None:
    typer.echo(escape_text(f"memstore: error: {message}"), err=True)


class _LogFormatter(logging.Formatter):
    """One line for each log record, without control characters."""

    def format(self, record: logging.LogRecord) -> str:
        return escape_text(f"memstore: {record.levelname.lower()}: {record.getMessage()}")


app = typer.Typer(
    name="memstore",
    cls=_Commands,
    help="A memory store in one SQLite file: memories, assemblies and tags, searched by meaning. "
    "To try it, run: memstore demo\n\n"
    f"The first argument of a command is the store: memstore search notes.db 'green tea'. The option --file or the "
    f"environment variable {VARIABLE} may name it instead.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=HELP_OPTIONS,
)


def _add_group(name: str, entries: dict[str, Entry], summary: str) -> None:
    group = type("Group", (CommandGroup,), {"entries": entries})
    typers = typer.Typer(cls=group, no_args_is_help=True, context_settings=HELP_OPTIONS, callback=lambda: None)
    app.add_typer(typers, name=name, help=summary, rich_help_panel=GROUPS)


for _name, (_entries, _summary) in SUBGROUPS.items():
    _add_group(_name, _entries, _summary)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"memstore {__version__}")
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
    if logging.lastResort is not None:  # the handler of programs that configure no logging
        logging.lastResort.setFormatter(_LogFormatter())

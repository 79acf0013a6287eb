"""Makes commands of the functions in the table, when they are called: `memstore --help` imports none of them.

A function may take groups of options: dataclasses such as `SearchOptions`, whose fields become options. The first
argument of a command that has a parameter `file` is the store.
"""

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from signal import default_int_handler
from typing import Annotated, Any, ClassVar, cast, get_type_hints

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from memstore.cli.exit_codes import EXIT_CODES
from memstore.cli.interrupts import on_interrupt
from memstore.cli.table import Entry

VARIABLE = "MEMSTORE_FILE"
"""The environment variable that names the store."""

_STORE_OPTION = inspect.Parameter(
    "store_option",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", metavar="STORE", help="The store, instead of the first argument.", show_default=False
        ),
    ],
)
_SUFFIXES = frozenset({".db", ".sqlite", ".sqlite3", ".memstore"})
_SQLITE_HEADER = b"SQLite format 3\0"


class CommandGroup(TyperGroup):
    """A group of commands whose modules are imported when they are called."""

    entries: ClassVar[Mapping[str, Entry]] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the commands, in the order of the table."""
        return [*self.entries, *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command with this name; None if there is none."""
        entry = self.entries.get(cmd_name)
        return super().get_command(ctx, cmd_name) if entry is None else load(entry, cmd_name)

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


class Command(TyperCommand):
    """A command whose usage line names its arguments in capitals."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the signature of the base
        """The parts of the usage line."""
        pieces = ["[OPTIONS]"]
        for argument in self.params:
            if isinstance(argument, TyperArgument):
                word = (argument.metavar or "") + "..." * (argument.nargs == -1)
                pieces.append(word if argument.required else f"[{word}]")
        return pieces


class StoreCommand(Command):
    """A command whose first argument is the store.

    `--file` or the environment variable may name the store instead. With the variable, the first argument is the store
    if there is one argument too many, or if it looks like a store: an existing SQLite file, or a name with one of
    `_SUFFIXES`. So `memstore delete other.db ID` never deletes from the store of the variable.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse *args*, after adding the store as the first one if it is named otherwise."""
        store = self._other_store(ctx, args)
        if store is not None:
            args = [os.path.join(os.curdir, store) if store.startswith("-") else store, *args]
        return super().parse_args(ctx, args)

    def _other_store(self, ctx: Any, args: list[str]) -> str | None:
        """The store that `--file`, the variable or the default names; None if it is the first of *args*."""
        store, *others = (param for param in self.params if isinstance(param, TyperArgument))
        words, file = self._words_and_file(ctx, args)
        least = sum(1 for argument in others if argument.required)
        most = None if any(argument.nargs == -1 for argument in others) else len(others)
        if file is not None:
            if most is not None and len(words) > most:
                raise typer.BadParameter("Pass the store once: as the first argument, or with --file.", ctx=ctx)
            return file
        default = store.default if isinstance(store.default, Path) else os.environ.get(VARIABLE)
        if not default or (most is not None and len(words) > most):
            return None
        return None if len(words) > least and _looks_like_store(words[0]) else str(default)

    def _words_and_file(self, ctx: Any, args: list[str]) -> tuple[list[str], str | None]:
        """The arguments among *args* that are no options, and the value of `--file`."""
        options: list[Any] = [param for param in self.params if not isinstance(param, TyperArgument)]
        command = TyperCommand(self.name, params=[*options, *_command("words", TyperCommand, _take_words).params])
        values, _, _ = command.make_parser(ctx).parse_args(list(args))
        return list(values.get("words") or ()), values.get("store_option")


def _take_words(words: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    """The function of a command that takes any arguments."""


def _looks_like_store(word: str) -> bool:
    path = Path(word)
    if path.suffix.lower() in _SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE_HEADER)) == _SQLITE_HEADER
    except (OSError, ValueError):
        return False


def load(entry: Entry, name: str) -> TyperCommand:
    """Import the module of *entry*, and make a command of its function and docstring."""
    function = _function(entry)
    # typer would keep the line ends inside a paragraph.
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    takes_store = "file" in inspect.signature(function).parameters
    kind = StoreCommand if takes_store else Command
    command = _command(name, kind, _flat(function), help=text, epilog=EXIT_CODES)
    for argument in command.params:
        if isinstance(argument, TyperArgument) and argument.metavar is None:
            argument.metavar = (argument.name or "").upper()
    return command


def flat_signature(entry: Entry) -> inspect.Signature:
    """The parameters of a command, each with the annotation that makes it an argument or an option."""
    return inspect.signature(_flat(_function(entry)))


def _function(entry: Entry) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(import_module(f"memstore.cli.{entry.module}"), entry.function)
    return function


def _command(name: str, kind: type[TyperCommand], function: Callable[..., None], **texts: str) -> TyperCommand:
    single = typer.Typer(add_completion=False)
    single.command(name, cls=kind, **texts)(function)  # type: ignore[arg-type]  # texts are texts
    return cast("TyperCommand", typer.main.get_command(single))


def _flat(function: Callable[..., Any]) -> Callable[..., None]:
    """*function* with the fields of its groups of options as parameters. A coroutine function is run to its end."""
    hints = get_type_hints(function, include_extras=True)
    parameters: list[inspect.Parameter] = []
    group_parameters: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        hint = hints[parameter.name]
        if not is_dataclass(hint):
            parameters.append(parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY))
            if parameter.name == "file":
                parameters.append(_STORE_OPTION)
            continue
        groups[parameter.name] = hint
        field_hints = get_type_hints(hint, include_extras=True)
        group_parameters += (
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if field.default is MISSING else field.default,
                annotation=field_hints[field.name],
            )
            for field in fields(hint)
        )

    parameters += group_parameters

    def run(**values: Any) -> None:
        values.pop(_STORE_OPTION.name, None)  # `StoreCommand` has made it the first argument
        arguments = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        with on_interrupt(default_int_handler):
            if inspect.iscoroutinefunction(function):
                from memstore.cli.event_loop import run_async  # late: it imports asyncio

                run_async(function(**values, **arguments))
            else:
                function(**values, **arguments)

    signature: Any = run
    signature.__signature__ = inspect.Signature(parameters)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run

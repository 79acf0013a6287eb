"""The command `completion`: scripts for bash, zsh and fish, made from the table of commands.

The scripts are static. A completion that asks the program, as typer has it, imports Python at every press of a key.
"""

import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args

import typer
from typer.models import ArgumentInfo, OptionInfo

from memstore.cli.commands import flat_signature
from memstore.cli.table import COMMANDS, SUBGROUPS, Entry

_FILE_ARGUMENTS = frozenset({"file", "sources", "target", "source", "folder"})
_COMMON = (("-h", "--help"), "Show this message and exit.")


class Shell(StrEnum):
    """The shells for which there is a script."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """An option of a command: its names, what its help says, and its value.

    Attributes:
        names: `("-t", "--tag")`.
        help: one sentence.
        takes_value: whether a value follows it.
        choices: the values it takes; empty if any.
        takes_file: whether its value is a file.
        repeatable: whether it may come more than once.
    """

    names: tuple[str, ...]
    help: str
    takes_value: bool = False
    choices: tuple[str, ...] = ()
    takes_file: bool = False
    repeatable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandWords:
    """What can follow the name of a command.

    Attributes:
        path: the words of its name, such as `("assemblies", "list")`.
        summary: what it does, as a sentence.
        options: its options.
        choices: the values of its first argument; empty if any.
        takes_files: whether its arguments may be files.
    """

    path: tuple[str, ...]
    summary: str
    options: tuple[Option, ...]
    choices: tuple[str, ...]
    takes_files: bool


def completion(
    shell: Annotated[Shell, typer.Argument(help="The shell: bash, zsh or fish.", show_default=False)],
) -> None:
    """Print a script that completes commands in a shell.

    For bash, put `source <(memstore completion bash)` into ~/.bashrc. For zsh, write the script to a file _memstore in
    a folder of $fpath. For fish, write it to ~/.config/fish/completions/memstore.fish.
    """
    sys.stdout.write({Shell.BASH: bash_script, Shell.ZSH: zsh_script, Shell.FISH: fish_script}[shell]())


def _summaries() -> dict[tuple[str, ...], dict[str, str]]:
    """The commands of word group with their summaries; the path of the first group is empty."""
    groups = {(): {name: entry.summary for name, entry in COMMANDS.items()}}
    groups[()] |= {name: summary for name, (_, summary) in SUBGROUPS.items()}
    return groups | {
        (name,): {command: entry.summary for command, entry in entries.items()}
        for name, (entries, _) in SUBGROUPS.items()
    }


def command_words() -> list[CommandWords]:
    """What can follow word command, in the order of the table."""
    tables: list[tuple[tuple[str, ...], Mapping[str, Entry]]] = [((), COMMANDS)]
    tables += [((name,), entries) for name, (entries, _) in SUBGROUPS.items()]
    return [_words_of((*prefix, name), entry) for prefix, table in tables for name, entry in table.items()]


def _words_of(path: tuple[str, ...], entry: Entry) -> CommandWords:
    options = [Option(names=_COMMON[0], help=_COMMON[1])]
    choices: tuple[str, ...] = ()
    takes_files = False
    for parameter in flat_signature(entry).parameters.values():
        info = next(word for word in parameter.annotation.__metadata__ if isinstance(word, OptionInfo | ArgumentInfo))
        types = _types(parameter)
        if isinstance(info, OptionInfo):
            options.append(_option(info, types))
        else:
            choices = choices or _choices(types)
            takes_files = takes_files or Path in types or parameter.name in _FILE_ARGUMENTS
    return CommandWords(
        path=path, summary=entry.summary, options=tuple(options), choices=choices, takes_files=takes_files
    )


def _types(parameter: inspect.Parameter) -> set[Any]:
    """The type of the values of a parameter, and `list` if it takes several."""
    declared = parameter.annotation.__origin__
    types: set[Any] = set()
    for part in get_args(declared) or (declared,):
        types |= {part} if not get_args(part) else {list, *get_args(part)}
    return types - {NoneType}


def _choices(types: set[Any]) -> tuple[str, ...]:
    return tuple(str(word.value) for kind in types if issubclass(kind, Enum) for word in kind)


def _option(info: OptionInfo, types: set[Any]) -> Option:
    declarations = [str(info.default), *(info.param_decls or ())]  # in Annotated, the first name is the default
    return Option(
        names=tuple(sorted((name for text in declarations for name in text.split("/")), key=len)),
        help=(info.help or "").partition(". ")[0].rstrip("."),
        takes_value=bool not in types,
        choices=_choices(types),
        takes_file=Path in types,
        repeatable=list in types,
    )


def bash_script() -> str:
    """The script for bash."""
    commands, values, choices = [], [], []
    groups = " ".join(SUBGROUPS)
    for command in command_words():
        name = " ".join(command.path)
        options = " ".join(option_name for option in command.options for option_name in option.names)
        commands.append(f'        "{name}") options="{options}"; arguments="{" ".join(command.choices)}" ;;')
        for option in command.options:
            patterns = "|".join(f'"{name} {option_name}"' for option_name in option.names)
            if option.choices:
                choices.append(f'        {patterns}) words="{" ".join(option.choices)}" ;;')
            elif option.takes_value:
                values.append(patterns)
    names = [f'        "{" ".join(path)}") words="{" ".join(names)}" ;;' for path, names in _summaries().items()]
    return _BASH.format(
        groups=groups,
        names="\n".join(names),
        commands="\n".join(commands),
        choices="\n".join(choices),
        values="|\\\n        ".join(values),
    )


_BASH = """\
# Completion of memstore in bash, by `memstore completion bash`.
_memstore() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
    local command=${{COMP_WORDS[1]}} length=1 words="" options="" arguments=""
    case " {groups} " in *" $command "*) command="$command ${{COMP_WORDS[2]}}"; length=2 ;; esac
    COMPREPLY=()
    if [ "$COMP_CWORD" -le "$length" ]; then
        command=${{COMP_WORDS[1]}}
        [ "$COMP_CWORD" -eq 1 ] && command=""
        case "$command" in
{names}
        esac
        COMPREPLY=($(compgen -W "$words --help" -- "$current"))
        return
    fi
    case "$command" in
{commands}
    esac
    case "$command $previous" in
{choices}
        {values}) return ;;
    esac
    if [ -n "$words" ]; then
        COMPREPLY=($(compgen -W "$words" -- "$current"))
    elif [[ "$current" == -* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$current"))
    elif [ -n "$arguments" ]; then
        COMPREPLY=($(compgen -W "$arguments" -- "$current"))
    fi
}}
complete -o default -F _memstore memstore
"""


def zsh_script() -> str:
    """The script for zsh."""
    functions = []
    for prefix, summaries in _summaries().items():
        descriptions = [_zsh_quoted(f"{name}:{summary}") for name, summary in summaries.items()]
        cases = [f"                {name}) _memstore_{name} ;;" for name in SUBGROUPS if not prefix]
        cases += [_zsh_case(command) for command in command_words() if command.path[:-1] == prefix]
        functions.append(
            _ZSH_FUNCTION.format(
                name="_".join(("_memstore", *prefix)),
                version="" if prefix else " '--version[Print the version and exit]'",
                descriptions="\n".join(f"                {text}" for text in descriptions),
                cases="\n".join(cases),
            )
        )
    return _ZSH_START + "".join(functions) + _ZSH_END


def _zsh_case(command: CommandWords) -> str:
    words = [_zsh_option(option) for option in command.options]
    if command.choices:
        words.append(_zsh_quoted(f"1:value:({' '.join(command.choices)})"))
    elif command.takes_files:
        words.append("'*:file:_files'")
    lines = " \\\n                    ".join(words)
    return f"                {command.path[-1]}) _arguments -s \\\n                    {lines} ;;"


def _zsh_option(option: Option) -> str:
    value = ":value:" if option.takes_value else ""
    value += f"({' '.join(option.choices)})" if option.choices else "_files" if option.takes_file else ""
    text = option.help.replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")
    description = _zsh_quoted(f"[{text}]{value}")
    names = option.names[0] if len(option.names) == 1 else "{" + ",".join(option.names) + "}"
    exclusive = "'*'" if option.repeatable else "" if len(option.names) == 1 else f"'({' '.join(option.names)})'"
    return f"{exclusive}{names}{description}"


def _zsh_quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


_ZSH_START = """\
#compdef memstore
# Completion of memstore in zsh, by `memstore completion zsh`.
"""
_ZSH_FUNCTION = """
{name}() {{
    local curcontext="$curcontext" state line
    typeset -A opt_args
    _arguments -C '(-h --help)'{{-h,--help}}'[Show this message and exit]'{version} \\
        '1:command:->command' '*::argument:->arguments'
    case $state in
        command)
            local -a commands=(
{descriptions}
            )
            _describe command commands ;;
        arguments)
            case $words[1] in
{cases}
            esac ;;
    esac
}}
"""
_ZSH_END = """
if [ "$funcstack[1]" = _memstore ]; then
    _memstore "$@"
else
    compdef _memstore memstore
fi
"""


def fish_script() -> str:
    """The script for fish."""
    lines = [_FISH_START]
    for prefix, summaries in _summaries().items():
        condition = " ".join(("__memstore_expects_command", *prefix))
        for name, summary in summaries.items():
            lines.append(f"complete -c memstore -n '{condition}' -a {name} -d {_fish_quoted(summary)}")
    for command in command_words():
        start = f"complete -c memstore -n '{' '.join(('__memstore_has_command', *command.path))}'"
        if command.choices:
            lines.append(f"{start} -a '{' '.join(command.choices)}'")
        elif command.takes_files:
            lines.append(f"{start} -F")
        lines += (f"{start} {_fish_option(option)}" for option in command.options)
    return "\n".join(lines) + "\n"


def _fish_option(option: Option) -> str:
    names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
    value = (" -r -F" if option.takes_file else " -x") if option.takes_value else ""
    value += f" -a '{' '.join(option.choices)}'" if option.choices else ""
    return f"{names}{value} -d {_fish_quoted(option.help)}"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_FISH_START = """\
# Completion of memstore in fish, by `memstore completion fish`.
function __memstore_expects_command
    set -l words (commandline -opc)
    test (count $words) -eq (math (count $argv) + 1); and test "$words[2..]" = "$argv"
end
function __memstore_has_command
    set -l words (commandline -opc)
    test (count $words) -gt (count $argv); and test "$words[2..$(math (count $argv) + 1)]" = "$argv"
end
complete -c memstore -f
complete -c memstore -n __memstore_expects_command -l version -d 'Print the version and exit'"""

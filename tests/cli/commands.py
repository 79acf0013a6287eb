"""Runs commands in tests: in this process, or in one of their own, as a user does."""

import asyncio
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup
from typer.testing import CliRunner, Result

import memstore
from memstore.cli.app import app
from memstore.cli.table import SUBGROUPS

CHECKOUT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "memstore"]
StorePath = Path | str | None


def environment(**extra: str) -> dict[str, str]:
    """The environment of a process, without a store of its own."""
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT), "COLUMNS": "80", "PYTHONWARNINGS": "error", **extra}
    if "MEMSTORE_FILE" not in extra:
        env.pop("MEMSTORE_FILE", None)
    return env


def words(store: StorePath, *arguments: object) -> list[str]:
    """The command line: the first argument is split into words, and the store follows the name of the command."""
    first, *others = arguments
    line = [*shlex.split(str(first)), *map(str, others)]
    name = 2 if line[0] in SUBGROUPS else 1
    return line if store is None else [*line[:name], str(store), *line[name:]]


def process(store: StorePath, *arguments: object, stdin: str = "", **extra: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    line = [*PROGRAM, *words(store, *arguments)]
    return subprocess.run(
        line, input=stdin, env=environment(**extra), capture_output=True, encoding="utf-8", timeout=240, check=False
    )


def invoke(store: StorePath, *arguments: object, stdin: str | None = None, columns: int = 80) -> Result:
    """The command in this process."""
    return CliRunner().invoke(app, words(store, *arguments), input=stdin, env={"COLUMNS": str(columns)})


def ok(store: StorePath, *arguments: object, stdin: str | None = None) -> str:
    """What the command prints, which succeeds in this process."""
    done = invoke(store, *arguments, stdin=stdin)
    assert done.exit_code == 0, (done.output, done.exception)
    assert done.stderr == ""
    return done.stdout


def lines(store: StorePath, *arguments: object, stdin: str | None = None) -> list[Any]:
    """The lines of JSON that the command prints, which succeeds in this process."""
    return [json.loads(line) for line in ok(store, *arguments, stdin=stdin).splitlines()]


def fails(store: StorePath, *arguments: object, code: int = 1, stdin: str | None = None) -> str:
    """What the command prints on stderr, which fails in this process: one line, or three for invalid arguments."""
    done = invoke(store, *arguments, stdin=stdin)
    assert done.exit_code == code, (done.output, done.exception)
    assert done.stdout == ""
    assert done.stderr.startswith("memstore: error: ")
    assert done.stderr.count("\n") == {1: 1, 2: 3}[code]
    return done.stderr


def script(function: Callable[[memstore.Store], Awaitable[Any]], path: Path, **options: Any) -> Any:
    """The result of *function* on an open store."""

    async def run() -> Any:
        async with memstore.open(path, **options) as store:
            return await function(store)

    return asyncio.run(run())


def _commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        if isinstance(command, TyperGroup):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(_commands(typer.main.get_command(app)))
"""Every command, by the words of its name."""

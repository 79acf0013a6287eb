"""Child processes that start in milliseconds: a server process that has imported everything forks them.

A child runs one coroutine function, `function(link, *arguments)`. Parent and child send each other objects over the
link; the last object that the child sends is the result of the function, or its traceback.
"""

import asyncio
import faulthandler
import logging
import multiprocessing
import os
import signal
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from multiprocessing import util
from multiprocessing.connection import Connection
from typing import Any, Self

PATIENCE = 60.0
"""Seconds after which a child that sends nothing counts as hanging."""

IMPORTED = [
    "alembic.command",
    "faiss",
    "memstore.database.migrate",
    "tests.reliability.corruption",
    "tests.reliability.kills",
]

context: Any = multiprocessing.get_context(
    "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
)
if context.get_start_method() == "forkserver":
    context.set_forkserver_preload(IMPORTED)
    util.get_temp_dir()  # the folder of the server's socket, before a test changes tempfile.tempdir to a long path


class Child:
    """A process that runs *function*. It is killed at the end of the `with` block."""

    def __init__(self, function: Callable[..., Awaitable[object]], *arguments: object) -> None:
        self._link, child_end = context.Pipe()
        self.process = context.Process(target=_main, args=(child_end, function, arguments), daemon=True)
        self.process.start()
        child_end.close()

    def send(self, value: object) -> None:
        """Send *value* to the child."""
        self._link.send(value)

    def receive(self, timeout: float = PATIENCE) -> Any:
        """Return the next object from the child. Fails with the child's traceback, or if it sends nothing."""
        if not self._link.poll(timeout):
            if hasattr(signal, "SIGUSR1"):
                os.kill(self.process.pid, signal.SIGUSR1)  # it prints the stacks of its threads to stderr
                self.process.join(1)
            raise AssertionError(f"the child {self.process.pid} hangs")
        try:
            kind, value = self._link.recv()
        except EOFError:
            self.process.join(PATIENCE)
            raise AssertionError(f"the child ended with {self.process.exitcode}") from None
        assert kind != "raised", f"in the child:\n{value}"
        return value

    def kill(self) -> None:
        """Send SIGKILL, and wait for the end of the child."""
        self.process.kill()
        self.process.join(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.is_alive():
            self.process.join(0.1)
        self.kill()
        self.process.close()
        self._link.close()


@contextmanager
def children(count: int, function: Callable[..., Awaitable[object]], *arguments: object) -> Iterator[list[Child]]:
    """Start *count* children; the first argument of each is its number."""
    started: list[Child] = []
    try:
        started.extend(Child(function, number, *arguments) for number in range(count))
        yield started
    finally:
        for child in started:
            child.__exit__()


class Link:
    """The child's end of the link."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, value: object) -> None:
        """Send *value* to the parent."""
        self._connection.send(("sent", value))

    async def receive(self) -> Any:
        """Return the next object from the parent; the event loop goes on meanwhile."""
        return await asyncio.to_thread(self._connection.recv)


def _main(connection: Connection, function: Callable[..., Awaitable[object]], arguments: tuple[object, ...]) -> None:
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1, all_threads=True)
    logging.getLogger("memstore").addHandler(logging.NullHandler())  # log records do not go to stderr

    async def run() -> object:
        return await function(Link(connection), *arguments)

    try:
        outcome = "returned", asyncio.run(run())
    except BaseException:
        outcome = "raised", traceback.format_exc()
    connection.send(outcome)
    connection.close()

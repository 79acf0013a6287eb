"""Child processes that start in milliseconds: forked from one that has imported everything and opened nothing.

A child runs one coroutine function, `function(link, *arguments)`. Over the link the two say to each other what they
choose; what the function returns, or raises, is said last.
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
from multiprocessing.connection import Connection
from typing import Any, Self

PATIENCE = 60.0
"""Seconds after which a child that says nothing is taken to hang."""

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


class Child:
    """A process that runs *function*; with the block it ends, whatever it is doing."""

    def __init__(self, function: Callable[..., Awaitable[object]], *arguments: object) -> None:
        self._link, theirs = context.Pipe()
        self.process = context.Process(target=_main, args=(theirs, function, arguments), daemon=True)
        self.process.start()
        theirs.close()

    def tell(self, word: object) -> None:
        """Say something to it."""
        self._link.send(word)

    def hear(self, timeout: float = PATIENCE) -> Any:
        """What it says next. Fails with what it raised, or if it says nothing."""
        if not self._link.poll(timeout):
            if hasattr(signal, "SIGUSR1"):
                os.kill(self.process.pid, signal.SIGUSR1)  # it says on stderr where its threads are
                self.process.join(1)
            raise AssertionError(f"the child {self.process.pid} hangs")
        try:
            kind, word = self._link.recv()
        except EOFError:
            self.process.join(PATIENCE)
            raise AssertionError(f"the child ended with {self.process.exitcode}") from None
        assert kind != "raised", f"in the child:\n{word}"
        return word

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
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
    """*count* of them; each is given its number before *arguments*."""
    started: list[Child] = []
    try:
        started.extend(Child(function, number, *arguments) for number in range(count))
        yield started
    finally:
        for child in started:
            child.__exit__()


class Link:
    """A child's end of the link."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def tell(self, word: object) -> None:
        """Say something to the parent."""
        self._connection.send(("said", word))

    async def hear(self) -> Any:
        """What the parent says next; the loop goes on meanwhile."""
        return await asyncio.to_thread(self._connection.recv)


def _main(connection: Connection, function: Callable[..., Awaitable[object]], arguments: tuple[object, ...]) -> None:
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1, all_threads=True)
    logging.getLogger("memstore").addHandler(logging.NullHandler())  # or what it logs is on everybody's stderr

    async def run() -> object:
        return await function(Link(connection), *arguments)

    try:
        word = "returned", asyncio.run(run())
    except BaseException:
        word = "raised", traceback.format_exc()
    connection.send(word)
    connection.close()

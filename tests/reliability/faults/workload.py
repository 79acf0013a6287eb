"""The process on the failing disk: it runs histories there, and checks the results.

It is started with the environment of `shim.environment`. Each line of its standard input has a round in JSON, which it
answers with a line. Starting a process takes longer than a round, so one process runs many.
"""

import asyncio
import faulthandler
import gc
import json
import logging
import os
import shutil
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import memstore
from memstore import CommitUnknownError, LoadError, MemstoreError, Store
from memstore.database.transactions import raw
from tests.support.history_checker import (
    DIMENSION,
    Acknowledgements,
    History,
    Workload,
    acknowledged,
    hold,
    matched,
    verify,
)

from .shim import Disk, Fault

T = TypeVar("T")

Phase = Literal["opening", "recovering", "running", "closing"]

BOUND = 30.0  # seconds that anything may take before it counts as hanging
FAILED_ENOUGH = 3  # failed operations after which a sticky fault is removed


async def bounded(work: Awaitable[T]) -> T:
    """Return the result of *work*; the round fails if it does not end."""
    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait([task], timeout=BOUND)
    assert done, f"{work!r} hangs"
    return task.result()


async def opened(path: Path, **options: Any) -> Store:
    defaults: dict[str, Any] = {"dimension": DIMENSION, "index": "graph", "timeout": 5.0}
    return await memstore.open(path, **(defaults | options))


class Breakable(Protocol):
    """A disk that can be made to fail: `shim.Disk`, or a full one."""

    @property
    def fired(self) -> int:
        """The number of calls that failed, as far as is known."""
        ...

    def arm(self, fault: Fault) -> None: ...

    def heal(self) -> None: ...


@dataclass
class Round:
    """One history with one fault: while a store is created, recovered at its opening, in use, or being closed.

    The store is in *folder* on the disk, the acknowledgements in *lines* on another. *errors* counts the errors of the
    callers, *resolved* the commits of unknown outcome that a later write resolved.
    """

    folder: Path
    lines: Path
    seed: int
    count: int
    fault: Fault
    phase: Phase
    disk: Breakable
    errors: Counter[str] = field(default_factory=Counter)
    resolved: int = 0

    def __post_init__(self) -> None:
        self.path = self.folder / "store.db"
        self.well = self.phase == "closing"  # there is no fault before

    def history(self) -> History:
        return History.read(self.lines, self.seed)

    async def run(self, template: Path) -> None:
        """Check all requirements of a store whose disk fails and works again later."""
        with Acknowledgements(self.lines) as lines:
            done = 0
            if self.phase == "recovering":
                done = self.count // 2
                await self.leave_unclosed(template, done, lines)
            elif self.phase != "opening":
                shutil.copyfile(template, self.path)
            store = await self.open()
            if self.phase == "recovering":
                await hold(store, self.history().possible())
            await store.memories.search([1.0] * DIMENSION)  # now there is an index, which follows every commit
            if self.phase == "running":
                self.disk.arm(self.fault)
            store = await self.work(store, done, lines)
            if self.phase != "closing":
                self.heal()
                await hold(store, self.history().possible())
            await self.close(store)
        await verify(self.path, self.history().possible(), timeout=5.0)

    async def work(self, store: Store, first: int, lines: Acknowledgements) -> Store:
        """Run the operations from *first* on. None may fail without a fault, and a single fault fails one operation."""
        failed = 0
        for n in range(first, self.count):
            struck = self.disk.fired > 0
            operation = Workload(self.seed).operation(n)
            errors = await bounded(acknowledged(store, operation, lines, self.folder))
            self.note(errors)
            if not errors:
                continue
            assert not self.well, f"{operation.kind} {n} fails on a disk that is well: {errors!r}"
            assert self.fault.sticky or not struck, f"{operation.kind} {n} fails after the fault: {errors!r}"
            failed += 1
            if failed == FAILED_ENOUGH or not self.fault.sticky:
                self.heal()
            store = await self.after(store, errors, lines)
        return store

    async def leave_unclosed(self, template: Path, count: int, lines: Acknowledgements) -> None:
        """Copy the files of a store that is still open: the log is not written back."""
        path = template.with_name("left.db")
        shutil.copyfile(template, path)
        store = await opened(path)
        for n in range(count):
            assert not await acknowledged(store, Workload(self.seed).operation(n), lines, self.folder)
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{path}{suffix}", f"{self.path}{suffix}")
        await store.close()

    def note(self, errors: list[MemstoreError]) -> None:
        self.errors.update(type(error).__name__ for error in errors)

    def heal(self) -> None:
        self.disk.heal()
        self.well = True

    async def open(self) -> Store:
        if self.phase in ("opening", "recovering"):
            self.disk.arm(self.fault)
            try:
                store = await bounded(opened(self.path))
            except MemstoreError as error:
                self.note([error])
                self.heal()
                store = await bounded(opened(self.path))
            self.heal()
            return store
        return await bounded(opened(self.path))

    async def after(self, store: Store, errors: list[MemstoreError], lines: Acknowledgements) -> Store:
        """Check the store right after the errors; return the store to continue with."""
        causes = [error.__cause__ if isinstance(error, LoadError) else error for error in errors]
        if not any(isinstance(cause, CommitUnknownError) for cause in causes):
            if not {"read", "open"} & set(self.fault.calls):
                await bounded(matched(store, self.history().possible()))
                assert await bounded(store.check()) == []
                await self.killed()
            return store
        self.heal()
        await bounded(store.memories.add("settles", id="settles"))  # the next write settles the unknown one
        await bounded(store.memories.delete("settles"))
        self.resolved += 1
        lines.write("found", await hold(store, self.history().possible()))
        assert await bounded(store.check()) == []
        await self.killed()
        return store

    async def killed(self) -> None:
        """Check a copy of the files as if the process ended here: a failed write must not reappear."""
        copy = self.lines.with_suffix(".db")
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{self.path}{suffix}", f"{copy}{suffix}")
        again = await bounded(opened(copy))
        await matched(again, self.history().possible())
        await again.close()
        copy.unlink()

    async def close(self, store: Store) -> None:
        if self.phase == "closing":
            self.disk.arm(self.fault)
        try:
            await bounded(store.close())
        except MemstoreError as error:
            if self.phase != "closing":
                raise AssertionError("a store on a disk that is well cannot be closed") from error
            self.note([error])
            self.heal()
            await bounded(store.close())
        self.heal()


async def judged(options: dict[str, Any], template: Path) -> dict[str, Any]:
    """Run a round; return the result. The files of a failed round stay."""
    unheard: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(repr(context)))
    folder = Path(tempfile.mkdtemp(dir=os.environ["MEMSTORE_FAULT_FOLDER"]))
    lines = template.with_name(f"{folder.name}.ack")
    options["fault"]["calls"] = tuple(options["fault"]["calls"])
    fault = Fault(**options.pop("fault"))
    disk = Disk.here()
    disk.rest()
    round_ = Round(folder, lines, fault=fault, disk=disk, **options)
    answer: dict[str, Any] = {}
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            await round_.run(template)
            gc.collect()
        assert not unheard, unheard
        assert not warned, [str(warning.message) for warning in warned]
        shutil.rmtree(folder)
    except BaseException:
        answer["failure"] = f"{traceback.format_exc()}\n{lines.read_text()}"
    finally:
        round_.heal()
        lines.unlink()
    return answer | {
        "tally": disk.tally,
        "fired": disk.fired,
        "errors": round_.errors,
        "resolved": round_.resolved,
    }


async def record(path: Path, lines: Path, *, seed: int, count: int, durability: Any, unsynced: bool) -> None:
    """Run a history for the journal: the store is closed and opened again every ten operations.

    With *unsynced* SQLite is told not to sync at all, which no setting of ours does.
    """
    with Acknowledgements(lines) as acknowledgements:
        for first in range(0, count, 10):
            store = await opened(path, durability=durability)
            acknowledgements.write("opened")
            if unsynced:
                for driver in (store._database._writer.thread, store._database._upkeep):
                    await driver.submit(lambda c: raw(c).execute("PRAGMA synchronous=OFF"))
            for n in range(first, min(first + 10, count)):
                assert not await acknowledged(store, Workload(seed).operation(n), acknowledgements, path.parent)
            await store.close()
            acknowledgements.write("closed")


async def empty(path: Path) -> None:
    store = await opened(path)
    await store.close()


def main() -> None:
    """Record the history that the argument describes in JSON; without one, run rounds until the input ends."""
    if sys.argv[1:]:
        options = json.loads(sys.argv[1])
        asyncio.run(record(Path(options.pop("path")), Path(options.pop("lines")), **options))
        return
    logging.getLogger("memstore").addHandler(logging.NullHandler())  # log records do not go to stderr
    with tempfile.TemporaryDirectory(prefix="memstore-template-") as folder_name:
        template = Path(folder_name) / "template.db"
        asyncio.run(empty(template))
        with suppress(BrokenPipeError):
            for line in sys.stdin:
                faulthandler.dump_traceback_later(4 * BOUND, exit=True)
                answer = asyncio.run(judged(json.loads(line), template))
                faulthandler.cancel_dump_traceback_later()
                sys.stdout.write(json.dumps(answer) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()

"""kill -9 at random times, and what must be true of the file after each.

A child works on a store (`works`) or brings an old file up to date (`migrates`) until it is killed: after a delay,
after a number of acknowledgements, or after a number of calls of Python functions in all its threads, so that kills
hit every part of the library. Then the file is compared with what was acknowledged (`tests.support.history_checker`):
nothing acknowledged is lost, what had begun is there completely or not at all, index and rows agree, and SQLite finds
no fault. The next child goes on in the same file. A new file is begun after `LIVES` kills.
"""

import asyncio
import os
import shutil
import signal
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import memstore
from memstore import Store
from memstore.database import database, raw, transactions
from memstore.index import planner
from memstore.repository.sqlite_only import change_log
from memstore.sync.follower import Follower
from tests.database.test_migrations import everything, frozen
from tests.support.children import PATIENCE, Child, Link
from tests.support.history_checker import (
    DIMENSION,
    Acknowledgements,
    History,
    Kind,
    Operation,
    Step,
    Workload,
    acknowledged,
    verify,
)
from tests.support.model import Command, Model

LIVES = 6
"""The number of kills in one file."""

LONGEST = 0.5  # seconds of CPU time after which a child is killed at the latest: a busy machine changes nothing
CALLS = 200_000  # of functions: about an open and a few operations
WORDS = 40  # acknowledged lines
CHECKED = 0.05  # the share of operations after which a child compares rows and index itself


class KillTime(NamedTuple):
    """When a child dies: the unit, and the number of them."""

    what: str
    much: float


def kill_times(rng: np.random.Generator) -> Iterator[KillTime]:
    while True:
        what = str(rng.choice(["delay", "words", "calls"], p=(0.5, 0.15, 0.35)))
        if what == "delay":
            yield KillTime(what, float(rng.random() * LONGEST))
        elif what == "words":
            yield KillTime(what, int(rng.integers(1, WORDS)))
        else:
            yield KillTime(what, int(np.exp(rng.uniform(np.log(500), np.log(CALLS)))))


class Mixed(Workload):
    """A workload with a write that is refused after it has written, among writes that share a transaction."""

    def _steps(self, kind: Kind, rng: np.random.Generator, n: int) -> Iterator[Step]:
        for i, step in enumerate(super()._steps(kind, rng, n)):
            yield step
            if kind == "together" and i == 1:
                yield (Command("assemblies", "upsert", (), {"id": "half", "name": "half", "members": ["nobody"]}),)


# -- in the child


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_after(seconds: float) -> None:
    """Die when this process has used *seconds* of CPU time from now on, whatever its other threads are doing."""

    def watch() -> None:
        while time.process_time() < end:
            time.sleep(0.001)
        _die()

    end = time.process_time() + seconds
    threading.Thread(target=watch, daemon=True).start()


def _die_after_calls(calls: int) -> None:
    counter = count(1)  # next() is atomic between threads

    def called(frame: Any, event: str, argument: Any) -> None:
        if event == "call" and next(counter) == calls:
            _die()

    threading.setprofile(called)
    sys.setprofile(called)


def _small() -> None:
    """Make checkpoints, merges into the graph, snapshots and trims of the change log frequent."""
    database.CHECKPOINT_BYTES = 300_000
    change_log.KEEP = 100
    planner.MERGE_MIN = planner.REBUILD_MIN_DELETED = 20
    planner.MIN_GRAPH_VECTORS = 50


def _break(what: str) -> None:
    """Remove one of the steps that the test is about: the test must fail."""
    if what == "following":
        Follower.after_commit = lambda self, connection: None
    elif what == "rollback":
        transactions.rollback = lambda connection: (
            raw(connection).execute("COMMIT") if transactions.in_write(connection) else None
        )
    elif what == "savepoint":
        transactions.undo_savepoint = transactions.end_savepoint


async def works(
    link: Link, path: Path, lines: Path, seed: int, first: int, kill_time: KillTime, broken: str | None
) -> None:
    """Run the operations of a workload from *first* on, with acknowledgements, until the process is killed."""
    _small()
    if broken is not None:
        _break(broken)
    line_numbers = count(1)

    def moved(line: str) -> None:
        if kill_time.what == "words" and next(line_numbers) == kill_time.much:
            _die()

    if kill_time.what == "delay":
        _die_after(kill_time.much)
    elif kill_time.what == "calls":
        _die_after_calls(int(kill_time.much))
    workload, rng = Mixed(seed), np.random.default_rng([seed, first, 1])
    async with memstore.open(path, dimension=DIMENSION, index="graph") as store:
        with Acknowledgements(lines, moved) as acknowledgements:
            for n in count(first):
                errors = await acknowledged(store, workload.operation(n), acknowledgements, lines.parent)
                assert errors == []
                _followed(store)
                if rng.random() < CHECKED:
                    assert await store.check() == []


def _followed(store: Store) -> None:
    """Check that the index, if there is one, has followed every acknowledged write without a search."""
    applied = store._follower.indexes.applied
    with closing(sqlite3.connect(f"file:{store._database.settings.path}?mode=ro", uri=True)) as base:
        row = base.execute("SELECT seq FROM sqlite_sequence WHERE name = 'change_log'").fetchone()
    assert applied is None or applied == row[0], f"the index is at change {applied}, the file at {row[0]}"


async def migrates(link: Link, path: Path, kill_time: KillTime) -> None:
    if kill_time.what == "delay":
        _die_after(kill_time.much)
    else:
        _die_after_calls(int(kill_time.much))
    async with memstore.open(path):
        pass
    _die()


# -- in the parent


class Tally:
    """The kills, and what they interrupted."""

    def __init__(self) -> None:
        self.kills: Counter[str] = Counter()
        self.caught: Counter[str] = Counter()
        self.operations = 0
        self.steps = 0

    def lines(self) -> Iterator[str]:
        kills = ", ".join(f"{number} by {what}" for what, number in sorted(self.kills.items()))
        yield f"{self.kills.total()} kills ({kills}); {self.operations} operations, {self.steps} acknowledged steps"
        yield "caught: " + ", ".join(f"{number} {what}" for what, number in self.caught.most_common())


class Run:
    """One file and its history, over any number of kills."""

    def __init__(self, folder: Path, seed: int, broken: str | None) -> None:
        self.folder = folder
        self.seed = seed
        self.broken = broken
        self.path = folder / "store.db"
        self.lines = folder / "acknowledged"
        self.lines.touch()
        self.began = 0
        self.lives = 0

    def kill(self, kill_time: KillTime, tally: Tally) -> None:
        """Run a child until *kill_time*, and compare the file with its acknowledgements."""
        already = self.began
        self.lives += 1
        with Child(works, self.path, self.lines, self.seed, already, kill_time, self.broken) as child:
            _end(child)
        history = History.read(self.lines, self.seed)
        history.workload = Mixed(self.seed)
        self.began = len(history.events)
        _count(tally, history, already)
        _backups(self.folder, history, already, tally)
        which = asyncio.run(verify(self.path, history.possible(), index="graph"))
        if len(history.possible()) > 1:
            tally.caught["complete" if which == len(history.possible()) - 1 else "incomplete"] += 1
            with self.lines.open("a") as lines:
                lines.write(f"found {which}\n")
        assert {file.name for file in self.folder.iterdir()} == {"store.db", "acknowledged"}


def _end(child: Child) -> None:
    """Wait until the child has killed itself. Fails if it ends in any other way, or hangs."""
    child.process.join(PATIENCE)
    while child._link.poll():
        try:
            kind, word = child._link.recv()
        except EOFError:
            break
        raise AssertionError(f"the child {kind}:\n{word}")
    assert child.process.exitcode == -signal.SIGKILL


def _count(tally: Tally, history: History, already: int) -> None:
    for n, letters in history.events[already:]:
        tally.operations += 1
        tally.steps += (letters or "").count("d")
        if letters is None:
            tally.caught[f"in a {history.workload.operation(n).kind}"] += 1
    if len(history.events) == already:
        tally.caught["while opening"] += 1
    elif history.events[-1][1] is not None:
        tally.caught["between operations"] += 1


def _backups(folder: Path, history: History, already: int, tally: Tally) -> None:
    """Compare each acknowledged backup with the state of its time; another one may also be an empty store."""
    for place, (n, letters) in enumerate(history.events[already:], already):
        operation: Operation = history.workload.operation(n)
        if operation.kind != "backup":
            continue
        path = folder / f"backup-{n}.db"
        states = history.possible(place)
        if letters is None:
            states = [*states, Model("cosine")]
            tally.caught["half a backup"] += path.exists()
        else:
            assert path.exists(), f"backup {n} was acknowledged and is not there"
            tally.caught["backup whole"] += 1
        if path.exists():
            asyncio.run(verify(path, states))
        for file in folder.glob(f"backup-{n}.db*"):
            file.unlink()


class OldFile:
    """A file of revision 0001, and its contents after a migration without a kill."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = frozen(folder / "0001.db", "0001")
        asyncio.run(_checkpointed(shutil.copy(self._file, folder / "whole.db")))
        self._contents = asyncio.run(everything(folder / "whole.db"))

    def kill(self, kill_time: KillTime, tally: Tally) -> None:
        """Kill a child that migrates a copy; after the next open its contents are the same."""
        path = Path(shutil.copy(self._file, self._folder / "migrated.db"))
        with Child(migrates, path, kill_time) as child:
            _end(child)
        with closing(sqlite3.connect(path)) as base:
            (revision,) = base.execute("SELECT version_num FROM memstore_version").fetchone()
            assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        tally.caught[f"a migration, at {revision}"] += 1
        assert asyncio.run(everything(path)) == self._contents
        for file in self._folder.glob("migrated.db*"):
            file.unlink()


async def _checkpointed(path: str) -> None:
    async with memstore.open(path):
        pass


def killed(kills: int, seed: int, folder: Path, *, broken: str | None = None) -> Tally:
    """Kill *kills* times, all drawn from *seed*. Fails where a file does not match its history.

    A failure names the kill; its files stay in *folder*. *broken* is the step that children leave out.
    """
    rng = np.random.default_rng(seed)
    tally, drawn = Tally(), kill_times(rng)
    old_folder = folder / "old"
    old_folder.mkdir(parents=True)
    old, run = OldFile(old_folder), None
    for number in range(kills):
        kill_time = next(drawn)
        tally.kills[kill_time.what] += 1
        try:
            if rng.random() < 0.1:
                old.kill(kill_time, tally)
                continue
            if run is None or run.lives == LIVES:
                if run is not None:
                    shutil.rmtree(run.folder)
                place = folder / str(number)
                place.mkdir()
                run = Run(place, int(rng.integers(2**32)), broken)
            run.kill(kill_time, tally)
        except AssertionError as error:
            error.add_note(f"kill {number} of seed {seed}, {kill_time}, files in {folder}")
            raise
    return tally

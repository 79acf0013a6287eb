"""The long form: `python -m tests.reliability.faults --seed N`. Prints its seed first and the results last."""

import argparse
import asyncio
import itertools
import random
import shutil
import sqlite3
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import memstore

from .journal import recorded
from .machine import Machine, Tally, Task
from .replay import Judge, cuts

Durability = Literal["full", "relaxed"]
PER_RECORDING = 500  # power cuts of one history


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def faults(tasks: Iterator[Task], machine: Machine) -> Tally:
    """Rounds on the failing disk; each failure is told as it comes."""
    tally = Tally()
    told = time.monotonic()
    for task in tasks:
        answer = machine.run(task)
        tally.add(task, answer)
        if "failure" in answer:
            say(tally.failures[-1])
        if time.monotonic() - told > 60:
            say(f"  {tally}")
            told = time.monotonic()
    return tally


def power(folder: Path, seed: int, operations: int, count: int, durability: Durability, *, unsynced: bool) -> int:
    """*count* power cuts of histories of their own for each `PER_RECORDING`; how many broke the promise."""
    draw = random.Random(seed)
    lost: Counter[int] = Counter()
    broken = 0
    for first in range(0, count, PER_RECORDING):
        here = folder / f"{durability}-{unsynced}-{first}"
        own = draw.randrange(2**32)
        recording = recorded(here, seed=own, count=operations, durability=durability, unsynced=unsynced)
        judge = Judge(recording, durability)
        for i, cut in enumerate(cuts(recording, min(PER_RECORDING, count - first), draw)):
            path = cut.put(here / str(i))
            try:
                asyncio.run(judge.hold(cut, path))
            except Exception:
                broken += 1
                if not unsynced:
                    say(f"seed {own}, after {cut.at} records, {cut.how}, in {path}\n{traceback.format_exc()}")
                    continue
            shutil.rmtree(path.parent)
        lost.update(judge.lost)
    what = "synchronous=OFF, judged as full" if unsynced else durability
    told = ", ".join(f"{n} lost {k}" for k, n in sorted(lost.items()))
    say(f"power cuts, {what}: {count:,}; {broken} broke the promise; operations lost by the others: {told}")
    return broken


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--rounds", type=int, default=2_000, help="faults drawn at random")
    parser.add_argument("--every", action="store_true", help="instead: each call of one history, in every way")
    parser.add_argument("--cuts", type=int, default=2_000, help="power cuts, for each durability")
    parser.add_argument("--operations", type=int, default=20, help="of one history")
    told = parser.parse_args()
    say(f"seed {told.seed}; memstore {memstore.__version__}, SQLite {sqlite3.sqlite_version}, Python {sys.version}")
    folder = Path(tempfile.mkdtemp(prefix="memstore-faults-"))
    began = time.monotonic()
    (folder / "machine").mkdir()
    with Machine(folder / "machine") as machine:
        if told.every:
            tasks = machine.every(told.seed, told.operations)
        else:
            drawn = machine.some(random.Random(told.seed), 1 + told.rounds // 100, told.operations)
            tasks = itertools.islice(drawn, told.rounds)
        tally = faults(tasks, machine)
    say(f"faults: {tally}")
    broken = len(tally.failures)
    for durability in get_args(Durability):
        broken += power(folder, told.seed, told.operations, told.cuts, durability, unsynced=False)
    blind = told.cuts > 0 and not power(
        folder, told.seed, told.operations, max(50, told.cuts // 10), "full", unsynced=True
    )
    if blind:
        say("power cuts of a history that was never synced broke nothing: the judge is blind")
    say(f"{broken} failures in {time.monotonic() - began:,.0f} s")
    if broken:
        say(f"their files are in {folder}")
    else:
        shutil.rmtree(folder)
    return bool(broken or blind)


if __name__ == "__main__":
    sys.exit(main())

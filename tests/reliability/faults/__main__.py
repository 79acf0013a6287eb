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
    """Rounds on the failing disk; each failure is printed at once."""
    tally = Tally()
    reported_at = time.monotonic()
    for task in tasks:
        answer = machine.run(task)
        tally.add(task, answer)
        if "failure" in answer:
            say(tally.failures[-1])
        if time.monotonic() - reported_at > 60:
            say(f"  {tally}")
            reported_at = time.monotonic()
    return tally


def power(folder: Path, seed: int, operations: int, count: int, durability: Durability, *, unsynced: bool) -> int:
    """*count* power cuts of one history for each `PER_RECORDING`; return the number that broke the promise."""
    draw = random.Random(seed)
    lost: Counter[int] = Counter()
    broken = 0
    for first in range(0, count, PER_RECORDING):
        here = folder / f"{durability}-{unsynced}-{first}"
        workload_seed = draw.randrange(2**32)
        recording = recorded(here, seed=workload_seed, count=operations, durability=durability, unsynced=unsynced)
        judge = Judge(recording, durability)
        for i, cut in enumerate(cuts(recording, min(PER_RECORDING, count - first), draw)):
            path = cut.put(here / str(i))
            try:
                asyncio.run(judge.hold(cut, path))
            except Exception:
                broken += 1
                if not unsynced:
                    say(f"seed {workload_seed}, after {cut.at} records, {cut.how}, in {path}\n{traceback.format_exc()}")
                    continue
            shutil.rmtree(path.parent)
        lost.update(judge.lost)
    what = "synchronous=OFF, judged as full" if unsynced else durability
    losses = ", ".join(f"{n} lost {k}" for k, n in sorted(lost.items()))
    say(f"power cuts, {what}: {count:,}; {broken} broke the promise; operations lost by the others: {losses}")
    return broken


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--rounds", type=int, default=2_000, help="faults drawn at random")
    parser.add_argument("--every", action="store_true", help="instead: each call of one history, in every way")
    parser.add_argument("--cuts", type=int, default=2_000, help="power cuts, for each durability")
    parser.add_argument("--operations", type=int, default=20, help="of one history")
    options = parser.parse_args()
    say(f"seed {options.seed}; memstore {memstore.__version__}, SQLite {sqlite3.sqlite_version}, Python {sys.version}")
    folder = Path(tempfile.mkdtemp(prefix="memstore-faults-"))
    began = time.monotonic()
    (folder / "machine").mkdir()
    with Machine(folder / "machine") as machine:
        if options.every:
            tasks = machine.all_tasks(options.seed, options.operations)
        else:
            drawn = machine.random_tasks(random.Random(options.seed), 1 + options.rounds // 100, options.operations)
            tasks = itertools.islice(drawn, options.rounds)
        tally = faults(tasks, machine)
    say(f"faults: {tally}")
    broken = len(tally.failures)
    for durability in get_args(Durability):
        broken += power(folder, options.seed, options.operations, options.cuts, durability, unsynced=False)
    blind = options.cuts > 0 and not power(
        folder, options.seed, options.operations, max(50, options.cuts // 10), "full", unsynced=True
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

"""The failing machine: starts the process of `workload`, sends it rounds, and notices when it hangs or dies."""

import dataclasses
import errno
import json
import random
import selectors
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, get_args

from .shim import CALLS, Call, Fault, How, built, environment
from .workload import BOUND, Phase

ROOT = Path(__file__).parents[3]
NEVER = 2**62

WAYS: tuple[tuple[Call, int, How], ...] = (
    ("write", errno.EIO, "fail"),
    ("write", errno.ENOSPC, "fail"),
    ("write", errno.EIO, "torn"),
    ("write", errno.ENOSPC, "torn"),
    ("write", errno.EIO, "short"),
    ("sync", errno.EIO, "fail"),
    ("sync", errno.ENOSPC, "fail"),
    ("truncate", errno.EIO, "fail"),
    ("read", errno.EIO, "fail"),
    ("open", errno.EMFILE, "fail"),
    ("unlink", errno.EIO, "fail"),
)
"""The faults of a call."""

PHASES: tuple[Phase, ...] = get_args(Phase)


@dataclass(frozen=True)
class Task:
    """The parameters of a round."""

    seed: int
    count: int
    phase: Phase
    fault: Fault

    def __str__(self) -> str:
        return f"seed {self.seed}, {self.count} operations, {self.phase}: {self.fault}"


@dataclass
class Tally:
    """The results of many rounds."""

    rounds: int = 0
    fired: int = 0
    resolved: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    by_phase: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, task: Task, answer: dict[str, Any]) -> None:
        self.rounds += 1
        self.fired += answer["fired"] > 0
        self.resolved += answer["resolved"]
        self.errors.update(answer["errors"])
        self.by_phase[task.phase] += 1
        if "failure" in answer:
            self.failures.append(f"{task}\n{answer['failure']}")

    def __str__(self) -> str:
        return (
            f"{self.rounds:,} rounds ({', '.join(f'{n:,} {phase}' for phase, n in self.by_phase.items())}), "
            f"in {self.fired:,} a call failed; errors: {dict(self.errors)}; {self.resolved} unknown commits resolved; "
            f"{len(self.failures)} failures"
        )


class Machine:
    """A process on a failing disk in *folder*."""

    def __init__(self, folder: Path) -> None:
        self.disk = folder / "disk"
        self.disk.mkdir()
        self._environment = environment(built(folder), self.disk, folder / "control")
        self._environment["PYTHONPATH"] = str(ROOT)
        self._process: subprocess.Popen[str] | None = None
        self._tallies: dict[tuple[int, int, Phase], dict[Call, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def run(self, task: Task) -> dict[str, Any]:
        """Run *task*; the result has `fired`, `errors`, `resolved`, `tally`, and, if it failed, `failure`."""
        if self._process is None:
            command = [sys.executable, "-m", "tests.reliability.faults.workload"]
            self._process = subprocess.Popen(
                command, env=self._environment, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(dataclasses.asdict(task)) + "\n")
        process.stdin.flush()
        line = process.stdout.readline() if _readable(process.stdout, 5 * BOUND) else ""
        if line:
            answer: dict[str, Any] = json.loads(line)
            if "failure" in answer:
                self._stop()  # its store is still open
            return answer
        self._stop()
        return {"failure": "the process hung or died", "fired": 0, "resolved": 0, "errors": {}, "tally": {}}

    def calls(self, seed: int, count: int, phase: Phase) -> dict[Call, int]:
        """How many calls of each kind a phase makes. It varies a little from run to run: threads share the work."""
        key = seed, count, phase
        if key not in self._tallies:
            answer = self.run(Task(seed, count, phase, Fault(tuple(CALLS), NEVER)))
            assert "failure" not in answer, answer["failure"]
            self._tallies[key] = answer["tally"]
        return self._tallies[key]

    def all_tasks(self, seed: int, count: int) -> Iterator[Task]:
        """A fault at each call of each phase, of every kind, once and sticky."""
        for phase in PHASES:
            calls = self.calls(seed, count, phase)
            for kind, error, how in WAYS:
                for sticky in (False, True):
                    for at in range(calls[kind]):
                        yield Task(seed, count, phase, Fault((kind,), at, error, how, sticky))

    def random_tasks(self, draw: random.Random, seeds: int, count: int) -> Iterator[Task]:
        """An endless sequence of random faults in *seeds* workloads."""
        pool = [draw.randrange(2**32) for _ in range(seeds)]
        while True:
            seed, (phase,) = draw.choice(pool), draw.choices(PHASES, weights=(2, 2, 8, 1))
            calls = self.calls(seed, count, phase)
            kind, error, how = draw.choice([way for way in WAYS if calls[way[0]]])
            yield Task(seed, count, phase, Fault((kind,), draw.randrange(calls[kind]), error, how, draw.random() < 0.5))

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _readable(pipe: Any, seconds: float) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        return bool(selector.select(seconds))

"""One run: the workset, the filled stores, the workers that take turns, and the records."""

import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.adapters import SYSTEMS
from benchmarks.adapters.raw import EMPTY, FILE, TEMPLATE
from benchmarks.ground_truth import GroundTruth
from benchmarks.worker import ROOT, Skipped, Worker
from benchmarks.workset import Workset

Record = dict[str, Any]
"""One result: `phase`, `system`, `case`, then figures and `rounds` (figures of each), or `skipped` (the reason)."""

STREAMED_ROWS = 200_000
"""Larger stores of memstore are filled with `load`, because `add_many` takes all rows in one list."""


@dataclass(kw_only=True)
class Bench:
    """One run.

    Attributes:
        workset: the data.
        work: a folder on a real disk for filled stores and their copies.
        systems: names of the systems to measure.
        rounds: how often each system takes its turn.
        time_limit: seconds for one command of a worker.
        seconds: least duration of an event-loop load.
        records: the results.
        calibration: seconds of a fixed piece of work at the start of every round, the noise of the machine.
    """

    workset: Workset
    work: Path
    systems: Sequence[str]
    rounds: int
    time_limit: float
    seconds: float
    records: list[Record] = field(default_factory=list)
    calibration: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.truth = GroundTruth(self.workset)
        self._stores = self.work / "stores"
        self._unfilled: dict[str, Skipped] = {}
        key = json.dumps({"sources": _source_digest(), "workset": self.workset.facts})
        key_file = self._stores / "key.json"
        if not key_file.is_file() or key_file.read_text(encoding="utf-8") != key:
            shutil.rmtree(self._stores, ignore_errors=True)
            (self.workset.folder / TEMPLATE).unlink(missing_ok=True)
            self._stores.mkdir(parents=True)
            key_file.write_text(key, encoding="utf-8")

    def select(self, *names: str) -> list[str]:
        """The systems of *names* that this run measures, in that order. Writes the template of the raw baseline."""
        selection = [name for name in names if name in self.systems]
        if "raw" in selection:
            self.write_template()
        return selection

    def worker(self, system: str, *, traced: bool = False, **options: object) -> Worker:
        """A new worker process."""
        return Worker(system, self.workset.folder, time_limit=self.time_limit, traced=traced, **options)

    def record(self, phase: str, system: str, case: str = "", **figures: Any) -> None:
        """Keep one result and print it."""
        self.records.append({"phase": phase, "system": system, "case": case, **figures})
        numbers = ", ".join(f"{key} {value:,.4g}" for key, value in figures.items() if isinstance(value, int | float))
        text = f"skipped, {figures['skipped']}" if "skipped" in figures else numbers
        print(f"  {phase}: {SYSTEMS[system].label}{', ' + case if case else ''}: {text}", flush=True)

    def start_round(self) -> None:
        """Measure the present speed of the machine."""
        start = time.perf_counter()
        total = 0
        for i in range(1_000_000):
            total += i & 3
        np.linalg.norm(np.ones((200, 20_000), np.float32), axis=1)
        self.calibration.append(time.perf_counter() - start)

    @contextmanager
    def empty_folder(self) -> Iterator[Path]:
        """A temporary folder. Earlier writes are flushed to disk first."""
        with tempfile.TemporaryDirectory(prefix="store-", dir=self.work) as folder:
            os.sync()
            yield Path(folder)

    @contextmanager
    def store_copy(self, system: str) -> Iterator[Path]:
        """A copy of the system's filled store."""
        source = self.filled_store(system)
        with self.empty_folder() as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True)
            os.sync()
            yield folder

    def has_store(self, system: str) -> bool:
        """Whether a filled store of the system exists."""
        return (self._stores / system).exists()

    def keep_store(self, system: str, folder: Path) -> None:
        """Keep a filled and closed store for later phases."""
        shutil.rmtree(self._stores / system, ignore_errors=True)
        shutil.copytree(folder, self._stores / system)

    def filled_store(self, system: str) -> Path:
        """The folder of the system's filled, settled and closed store, made at the first call. Open only copies of it.

        Raises:
            Skipped: it cannot be filled.
        """
        if not self.has_store(system):
            base = SYSTEMS[system].base
            with self.store_copy(base) if base else self.empty_folder() as folder, self.worker(system) as worker:
                worker.call("open", folder=str(folder))
                if not base:
                    self.fill(worker)
                worker.call("settle")
                worker.call("close")
                self.keep_store(system, folder)
        return self._stores / system

    def fill(self, worker: Worker) -> float:
        """Store all rows; return the seconds of the bulk.

        Raises:
            Skipped: the system's documentation recommends smaller stores, or the bulk exceeds the time limit.
        """
        if worker.system in self._unfilled:
            raise self._unfilled[worker.system]
        rows, spec = self.workset.rows, SYSTEMS[worker.system]
        if spec.most_rows is not None and rows > spec.most_rows:
            raise Skipped(f"its documentation recommends at most {spec.most_rows:,} rows")
        try:
            if worker.system.startswith("memstore") and rows > STREAMED_ROWS:
                return float(worker.call("load", rows=rows)["seconds"])
            worker.call("prepare", start=0, stop=rows)
            return float(worker.call("bulk")["seconds"])
        except Skipped as reason:
            self._unfilled[worker.system] = reason  # later phases do not try again
            raise

    def write_template(self) -> None:
        """Write the rows of the raw baseline: an empty store, and one that memstore filled with every row."""
        template = self.workset.folder / TEMPLATE
        if template.exists():
            return
        with self.empty_folder() as folder, self.worker("memstore") as worker:
            worker.call("open", folder=str(folder))
            worker.call("close")
            shutil.copyfile(folder / FILE, self.workset.folder / EMPTY)
            worker.call("open", folder=str(folder))
            worker.call("load", rows=self.workset.rows + self.workset.extra_rows)
            worker.call("close")
            connection = sqlite3.connect(folder / FILE)
            statement = "SELECT count(*) FROM memory WHERE pk != json_extract(metadata, '$.row') + 1"
            (mismatches,) = connection.execute(statement).fetchone()
            connection.close()
            if mismatches:
                raise RuntimeError(f"{mismatches} primary keys do not follow the order of insertion.")
            shutil.copyfile(folder / FILE, template)

    def take_turns(
        self,
        phase: str,
        workers: dict[str, Worker],
        turn: Callable[[str, Worker, int], dict[str, Any]],
        *,
        case: str = "",
        rounds: int | None = None,
    ) -> dict[str, list[dict[str, Any]]]:
        """Call *turn* for every worker in every round, and return its results round by round.

        Every round starts with another worker. A worker that raises `Skipped` is recorded and left out from then on.
        """
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
        order = list(workers)
        for number in range(rounds or self.rounds):
            self.start_round()
            shift = number % len(order) if order else 0
            for name in order[shift:] + order[:shift]:
                if name not in results:
                    continue
                try:
                    results[name].append(turn(name, workers[name], number))
                except Skipped as reason:
                    del results[name]
                    self.record(phase, name, case, skipped=str(reason))
        return results

    @contextmanager
    def opened(self, phase: str, systems: Sequence[str]) -> Iterator[dict[str, Worker]]:
        """Workers of these systems, each with a copy of its filled store open; failures are recorded."""
        with ExitStack() as stack:
            workers = {}
            for name in systems:
                try:
                    folder = stack.enter_context(self.store_copy(name))
                    worker = stack.enter_context(self.worker(name))
                    worker.call("open", folder=str(folder))
                    workers[name] = worker
                except Skipped as reason:
                    self.record(phase, name, skipped=str(reason))
            yield workers


def _source_digest() -> str:
    """A digest of the code that writes the stores, so that stores of other code are not reused."""
    digest = hashlib.sha256()
    for folder in ("memstore", "migrations", "benchmarks/adapters", "benchmarks/requirements"):
        for file in sorted((ROOT / folder).rglob("*")):
            if file.suffix in (".py", ".txt"):
                digest.update(file.read_bytes())
    return digest.hexdigest()


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """`p50_ms`, `p99_ms` and the count `n` of times in seconds."""
    p50, p99 = np.quantile(np.asarray(seconds), [0.5, 0.99]) * 1e3
    return {"p50_ms": float(p50), "p99_ms": float(p99), "n": len(seconds)}

"""What the phases share: the workset, filled stores to copy, workers that take turns, and the machine's own noise."""

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
from benchmarks.adapters.raw import EMPTY, TEMPLATE
from benchmarks.data import Judge
from benchmarks.worker import ROOT, Skipped, Worker
from benchmarks.workset import Workset

Record = dict[str, Any]
"""One result: `phase`, `system`, `case`, then either `rounds` (a list of figures) and more, or `skipped` (why)."""


TRIAL = 2_000
"""Rows of a peer's first bulk, by which it is foreseen how long all of them would take."""


class Slow(Skipped):
    """A peer is too slow to be filled: it stored *rows* in *seconds*."""

    def __init__(self, rows: int, seconds: float, wanted: int) -> None:
        rate = rows / seconds
        super().__init__(f"{rate:,.0f} rows/s in its first {rows:,}: {wanted:,} would take {wanted / rate:,.0f} s")
        self.rows_per_second = rate


@dataclass(kw_only=True)
class Bench:
    """One run.

    Attributes:
        made: the workset.
        work: a folder on a real disk: filled stores, and copies of them to spoil.
        systems: names of those to measure.
        rounds: how often each takes its turn.
        patience: seconds one command of a worker may take.
        seconds: the least an event-loop load lasts.
        records: what was measured so far.
        calibration: seconds of a fixed piece of work, taken at the start of every round: the machine's noise.
    """

    made: Workset
    work: Path
    systems: Sequence[str]
    rounds: int
    patience: float
    seconds: float
    records: list[Record] = field(default_factory=list)
    calibration: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.judge = Judge(self.made)
        self._built = self.work / "built"
        self._unfillable: dict[str, Slow] = {}
        key = json.dumps({"sources": _sources(), "workset": self.made.facts})
        kept = self._built / "key.json"
        if not kept.is_file() or kept.read_text(encoding="utf-8") != key:
            shutil.rmtree(self._built, ignore_errors=True)
            (self.made.folder / TEMPLATE).unlink(missing_ok=True)
            self._built.mkdir(parents=True)
            kept.write_text(key, encoding="utf-8")

    def among(self, *names: str) -> list[str]:
        """Those of *names* that are to be measured, in that order."""
        return [name for name in names if name in self.systems]

    def worker(self, system: str, *, traced: bool = False, **options: object) -> Worker:
        """A fresh process."""
        return Worker(system, self.made.folder, patience=self.patience, traced=traced, **options)

    def record(self, phase: str, system: str, case: str = "", **more: Any) -> None:
        """Keep one result and show that it is there."""
        self.records.append({"phase": phase, "system": system, "case": case, **more})
        print(f"  {phase}: {SYSTEMS[system].label}{', ' + case if case else ''}: {_brief(more)}", flush=True)

    def round(self) -> None:
        """Begin a round: measure how fast the machine is just now."""
        start = time.perf_counter()
        total = 0
        for i in range(1_000_000):
            total += i & 3
        np.linalg.norm(np.ones((200, 20_000), np.float32), axis=1)
        self.calibration.append(time.perf_counter() - start)

    @contextmanager
    def fresh(self) -> Iterator[Path]:
        """An empty folder, gone afterwards; nothing is left to write back from before."""
        with tempfile.TemporaryDirectory(prefix="fresh-", dir=self.work) as made:
            os.sync()
            yield Path(made)

    @contextmanager
    def copied(self, system: str) -> Iterator[Path]:
        """A copy of the system's filled store."""
        with self.fresh() as folder:
            shutil.copytree(self.built(system), folder, dirs_exist_ok=True)
            os.sync()
            yield folder

    def keep(self, system: str, folder: Path) -> None:
        """Keep a filled and closed store."""
        place = self._built / system
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(folder, place)

    def built(self, system: str) -> Path:
        """The folder of the system's store, filled, settled and closed. Filled now if it was not yet.

        Nothing opens it: take a copy.

        Raises:
            Skipped: it cannot be filled.
        """
        place = self._built / system
        if place.exists():
            return place
        if system in self._unfillable:
            raise self._unfillable[system]
        base = "memstore" if system in ("memstore-exact", "memstore-graph") else None
        with self.copied(base) if base else self.fresh() as folder, self.worker(system) as worker:
            worker.ask("open", folder=str(folder))
            if base is None:
                self.filled(worker)
            worker.ask("settle")
            worker.ask("close")
            self.keep(system, folder)
        return place

    def filled(self, worker: Worker) -> float:
        """Put all rows into the open store; how many seconds the storing took.

        Raises:
            Slow: a peer that stored the first of them so slowly that all would take longer than `patience`.
        """
        rows, stored = self.made.rows, 0
        if worker.system.startswith("memstore") and rows > 200_000:
            return float(worker.ask("load", rows=rows)["seconds"])  # a million mappings are no one's input
        seconds = 0.0
        if SYSTEMS[worker.system].peer and rows > TRIAL:
            worker.ask("prepare", start=0, stop=TRIAL)
            seconds, stored = float(worker.ask("bulk")["seconds"]), TRIAL
            if seconds * rows / TRIAL > self.patience:
                self._unfillable[worker.system] = Slow(TRIAL, seconds, rows)
                raise self._unfillable[worker.system]
        worker.ask("prepare", start=stored, stop=rows)
        return seconds + float(worker.ask("bulk")["seconds"])

    def template(self) -> None:
        """The ready-made rows of the raw baseline: a store that memstore filled with every row, and an empty one."""
        place = self.made.folder / TEMPLATE
        if place.exists():
            return
        with self.fresh() as folder, self.worker("memstore") as worker:
            worker.ask("open", folder=str(folder))
            worker.ask("close")
            shutil.copyfile(folder / "memories.db", self.made.folder / EMPTY)
            worker.ask("open", folder=str(folder))
            worker.ask("load", rows=self.made.rows + self.made.extra)
            worker.ask("close")
            base = sqlite3.connect(folder / "memories.db")
            strays = base.execute("SELECT count(*) FROM memory WHERE pk != json_extract(metadata, '$.row') + 1")
            if strays.fetchone()[0]:
                raise RuntimeError("keys do not follow the order of adding: the raw baseline cannot take its rows")
            base.close()
            shutil.copyfile(folder / "memories.db", place)

    def turns(
        self,
        workers: dict[str, Worker],
        do: Callable[[str, Worker, int], dict[str, Any]],
        skipped: Callable[[str, str], object],
        rounds: int | None = None,
    ) -> dict[str, list[dict[str, Any]]]:
        """Every worker in every round, each round beginning with another; what *do* gave, round by round.

        A worker that cannot is left out from then on, and *skipped* is told its name and the reason.
        """
        told: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
        order = list(workers)
        for number in range(rounds or self.rounds):
            self.round()
            for name in order[number % len(order) :] + order[: number % len(order)] if order else []:
                if name not in told:
                    continue
                try:
                    told[name].append(do(name, workers[name], number))
                except Skipped as why:
                    del told[name]
                    skipped(name, str(why))
        return told

    @contextmanager
    def opened(self, phase: str, systems: Sequence[str]) -> Iterator[dict[str, Worker]]:
        """Workers of these systems, each with a copy of its filled store open; those that cannot are recorded."""
        with ExitStack() as stack:
            workers = {}
            for name in systems:
                try:
                    folder = stack.enter_context(self.copied(name))
                    worker = stack.enter_context(self.worker(name))
                    worker.ask("open", folder=str(folder))
                    workers[name] = worker
                except Skipped as why:
                    self.record(phase, name, skipped=str(why))
            yield workers


def _sources() -> str:
    """What the code of memstore and of the adapters is, so that no store of older code is taken for one of this."""
    mark = hashlib.sha256()
    for folder in ("memstore", "migrations", "benchmarks/adapters", "benchmarks/requirements"):
        for file in sorted((ROOT / folder).rglob("*")):
            if file.suffix in (".py", ".txt"):
                mark.update(file.read_bytes())
    return mark.hexdigest()


def _brief(more: dict[str, Any]) -> str:
    if "skipped" in more:
        return f"skipped, {more['skipped']}"
    shown = {
        key: value for key, value in more.items() if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return ", ".join(f"{key} {value:,.4g}" for key, value in shown.items())


def quantile(values: Sequence[float], share: float) -> float:
    """The *share* quantile of *values*."""
    return float(np.quantile(np.asarray(values), share))


def milliseconds(times: Sequence[float]) -> dict[str, float]:
    """Of times in seconds: `p50_ms`, `p99_ms`, `n`."""
    return {"p50_ms": quantile(times, 0.5) * 1e3, "p99_ms": quantile(times, 0.99) * 1e3, "n": len(times)}

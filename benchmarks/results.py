"""What runs have left in JSON files, put together: later files win, and a ratio never spans two runs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.adapters import SYSTEMS

FORMAT = 1
Record = dict[str, Any]
Of = tuple[str, str, str]
"""Phase, system, case."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median of the rounds' ratios, and the least and the greatest of them."""

    value: float
    least: float
    most: float
    rounds: int

    def __str__(self) -> str:
        spread = f" ({self.least:.2f} to {self.most:.2f} in {self.rounds} rounds)" if self.rounds > 1 else ""
        return f"{self.value:.2f}{spread}"


class Results:
    """The records of one size of store, from any number of runs."""

    def __init__(self, runs: Sequence[dict[str, Any]], rows: int) -> None:
        self.rows = rows
        self.runs = [run for run in runs if run["facts"]["rows"] == rows]
        self._tables = [{(r["phase"], r["system"], r["case"]): r for r in run["records"]} for run in self.runs]

    @property
    def facts(self) -> dict[str, Any]:
        """Of the last run."""
        facts: dict[str, Any] = self.runs[-1]["facts"]
        return facts

    def get(self, phase: str, system: str, case: str = "") -> Record | None:
        """The last record of that that is not a skip, or else the last."""
        found = [table[key] for table in self._tables if (key := (phase, system, case)) in table]
        done = [record for record in found if "skipped" not in record]
        return (done or found or [None])[-1]

    def of(self, phase: str, case: str | None = None) -> list[Record]:
        """The records of a phase, one a system and case, systems in their order; skips among them."""
        keys = {key: None for table in self._tables for key in table if key[0] == phase}
        kept = [self.get(*key) for key in sorted(keys, key=lambda key: list(SYSTEMS).index(key[1]))]
        return [record for record in kept if record is not None and case in (None, record["case"])]

    def pair(self, ours: Of, theirs: Of, figure: str) -> Ratio | None:
        """How *ours* compares with *theirs*, round by round of the last run that has both: ours / theirs."""
        for table in reversed(self._tables):
            if ours in table and theirs in table:
                ratio = _ratio(table[ours], table[theirs], figure)
                if ratio is not None:
                    return ratio
        return None

    def rates(self, ours: Of, theirs: Of) -> Ratio | None:
        """Rows a second of *ours* over those of *theirs*, where the rounds are not pairs."""
        for table in reversed(self._tables):
            if ours in table and theirs in table and "rows_per_second" in table[ours].keys() & table[theirs].keys():
                value = table[ours]["rows_per_second"] / table[theirs]["rows_per_second"]
                return Ratio(value, value, value, 1)
        return None


def _ratio(ours: Record, theirs: Record, figure: str) -> Ratio | None:
    if "rounds" not in ours or "rounds" not in theirs:
        return None
    ratios = [a[figure] / b[figure] for a, b in zip(ours["rounds"], theirs["rounds"], strict=False)]
    return Ratio(median(ratios), min(ratios), max(ratios), len(ratios)) if ratios else None


def read(files: Sequence[Path]) -> list[dict[str, Any]]:
    """The runs in these files, in the order of the files.

    Raises:
        ValueError: a file is of another format.
    """
    runs: list[dict[str, Any]] = []
    for file in files:
        told = json.loads(file.read_text(encoding="utf-8"))
        if told.get("format") != FORMAT:
            raise ValueError(f"{file}: not written by this version of the benchmarks")
        runs += told["runs"]
    return runs

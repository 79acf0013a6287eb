"""The records of one or more runs. A later run replaces what an earlier one measured."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.adapters import SYSTEMS

FORMAT = 3
Key = tuple[str, str, str]
"""Phase, system, case."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median of the ratios of the rounds, with the least and the greatest of them."""

    value: float
    least: float
    most: float
    rounds: int

    def __str__(self) -> str:
        spread = f" ({self.least:.2f} to {self.most:.2f} in {self.rounds} rounds)" if self.rounds > 1 else ""
        return f"{self.value:.2f}{spread}"


def read(files: Sequence[Path]) -> list[dict[str, Any]]:
    """The runs in these files, in order.

    Raises:
        ValueError: a file has another format.
    """
    runs: list[dict[str, Any]] = []
    for file in files:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content.get("format") != FORMAT:
            raise ValueError(f"{file}: expected format {FORMAT}, found {content.get('format')}. Run again.")
        runs += content["runs"]
    return runs


class Results:
    """The records of one store size.

    Attributes:
        rows: memories in the stores.
        runs: the runs of this size; the facts of the last one are `facts`.
        records: one for each phase, system and case, in the order of `SYSTEMS`; a skip only where no run measured.
    """

    def __init__(self, runs: Sequence[dict[str, Any]], rows: int) -> None:
        self.rows = rows
        self.runs = [run for run in runs if run["facts"]["rows"] == rows]
        self.facts: dict[str, Any] = self.runs[-1]["facts"]
        records = [record for run in self.runs for record in run["records"]]
        records.sort(key=lambda record: "skipped" not in record)  # stable: measured records replace skips
        self._latest = {_key(record): record for record in records}
        order = list(SYSTEMS)
        self.records = sorted(self._latest.values(), key=lambda record: order.index(record["system"]))

    def phase(self, name: str, *, skipped: bool = False) -> list[dict[str, Any]]:
        """The measured records of a phase, or those of what was skipped."""
        return [record for record in self.records if record["phase"] == name and ("skipped" in record) == skipped]

    def figure(self, key: Key, name: str) -> float | None:
        """One figure of a record, or None."""
        return self._latest.get(key, {}).get(name)

    def ratio(self, numerator: Key, denominator: Key, figure: str) -> Ratio | None:
        """The ratio of a figure round by round, from the last run that has both. A ratio never spans two runs."""
        for run in reversed(self.runs):
            rounds = {_key(record): record["rounds"] for record in run["records"] if record.get("rounds")}
            if numerator in rounds and denominator in rounds:
                frames = [pd.DataFrame(rounds[key]) for key in (numerator, denominator)]
                ratios = (frames[0][figure] / frames[1][figure]).dropna()  # drops rounds that only one system has
                return Ratio(ratios.median(), ratios.min(), ratios.max(), len(ratios))
        return None


def _key(record: dict[str, Any]) -> Key:
    return record["phase"], record["system"], record["case"]

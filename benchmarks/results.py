"""The records of one or more runs, as pandas tables. A later run replaces what an earlier one measured."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.adapters import SYSTEMS

FORMAT = 2
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
            raise ValueError(
                f"{file}: expected format {FORMAT}, found {content.get('format')}. Run the benchmarks again."
            )
        runs += content["runs"]
    return runs


class Results:
    """The records of one store size.

    Attributes:
        rows: memories in the stores.
        runs: the runs of this size.
        records: the measured records, one for each phase, system and case, in the order of `SYSTEMS`.
        skipped: the records of what no run measured.
    """

    def __init__(self, runs: Sequence[dict[str, Any]], rows: int) -> None:
        self.rows = rows
        self.runs = [run for run in runs if run["facts"]["rows"] == rows]
        self._measured = [
            {_key(record): record for record in run["records"] if "skipped" not in record} for run in self.runs
        ]
        self._latest = {key: record for records in self._measured for key, record in records.items()}
        skipped = {_key(record): record for run in self.runs for record in run["records"] if "skipped" in record}
        self.records = _table(self._latest)
        self.skipped = _table({key: record for key, record in skipped.items() if key not in self._latest})

    @property
    def facts(self) -> dict[str, Any]:
        """The facts of the last run."""
        facts: dict[str, Any] = self.runs[-1]["facts"]
        return facts

    def phase(self, name: str) -> pd.DataFrame:
        """The measured records of a phase."""
        return self.records[self.records["phase"] == name]

    def figure(self, key: Key, name: str) -> float | None:
        """One figure of a record, or None."""
        return self._latest.get(key, {}).get(name)

    def ratio(self, numerator: Key, denominator: Key, figure: str) -> Ratio | None:
        """The ratio of a figure round by round, from the last run that has both. A ratio never spans two runs."""
        for records in reversed(self._measured):
            if numerator in records and denominator in records:
                rounds = [pd.DataFrame(records[key]["rounds"]) for key in (numerator, denominator)]
                ratios = (rounds[0][figure] / rounds[1][figure]).dropna()  # rounds that only one system has are dropped
                return Ratio(ratios.median(), ratios.min(), ratios.max(), len(ratios))
        return None


def _key(record: dict[str, Any]) -> Key:
    return record["phase"], record["system"], record["case"]


def _table(records: dict[Key, dict[str, Any]]) -> pd.DataFrame:
    """The records in the order of `SYSTEMS`."""
    order = list(SYSTEMS)
    rows = sorted(records.values(), key=lambda record: order.index(record["system"]))
    return pd.DataFrame(rows, columns=None if rows else ["phase", "system", "case"])

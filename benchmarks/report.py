"""The page: `python -m benchmarks.report results.json more.json` writes `docs/performance.md` and its charts.

A later file replaces what an earlier one measured. The text of the page is `page.md`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from string import Template
from typing import Any

from benchmarks.adapters import SYSTEMS
from benchmarks.charts import write_charts
from benchmarks.results import Results, read
from benchmarks.tables import PHASES, markdown, section
from benchmarks.targets import target_table
from benchmarks.worker import ROOT

PAGE = ROOT / "docs" / "performance.md"
_TEMPLATE = Path(__file__).parent / "page.md"
_BUSY_LOAD = 1.5
"""Load average per core above which the page warns."""


def main() -> None:
    """Write the page and its charts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="files written by `python -m benchmarks --json`")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page (default docs/performance.md)")
    options = parser.parse_args()
    write(read(options.files), options.page)
    print(f"written: {options.page}")


def write(runs: Sequence[dict[str, Any]], page: Path) -> None:
    """Write the page of these runs, and its charts beside it. The store size with the most records comes first."""
    counts: dict[int, int] = {}
    for run in runs:
        counts[run["facts"]["rows"]] = counts.get(run["facts"]["rows"], 0) + len(run["records"])
    results, *other_sizes = (Results(runs, rows) for rows in sorted(counts, key=lambda rows: -counts[rows]))
    charts = "\n\n".join(f"![{title}]({name})" for name, title in write_charts(results, page).items())
    text = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        {phase: section(results, phase) or "Not measured." for phase in PHASES},
        rows=f"{results.rows:,}",
        row_count=results.rows,
        data=results.facts["data"],
        busy=_busy_warning(results),
        charts=charts,
        targets=_targets(results),
        other_sizes="\n\n".join(_other_size(other) for other in other_sizes),
        runs="\n\n".join(_run(number, run) for number, run in enumerate(results.runs, 1)),
        versions=_versions(results),
    )
    lines = text.split("\n")
    squeezed = [line for number, line in enumerate(lines) if line or (number and lines[number - 1])]
    page.write_text("\n".join(squeezed).strip("\n") + "\n", encoding="utf-8")


def _targets(results: Results) -> str:
    table = target_table(results)
    met, measured = (table["result"] == "met").sum(), (table["result"] != "").sum()
    return f"{met} of {measured} measured targets are met.\n\n{markdown(table)}"


def _other_size(results: Results) -> str:
    tables = [text for phase in PHASES if (text := section(results, phase))]
    return "\n\n".join([f"## At {results.rows:,} memories", _targets(results), *tables])


def _busy_warning(results: Results) -> str:
    """A warning, if a phase started on a machine with other work."""
    cores = results.facts["cores"] or 1
    load = max((phase["load_before"] or 0 for run in results.runs for phase in run["phases"].values()), default=0)
    if load <= _BUSY_LOAD * cores:
        return ""
    return (
        f"**The machine had other work** (load average up to {load:.1f} on {cores} cores): absolute times,\n"
        "worst cases and event-loop delays are unreliable, and ratios only as good as their spread."
    )


def _run(number: int, run: dict[str, Any]) -> str:
    facts = "; ".join(f"{key.replace('_', ' ')} {value}" for key, value in run["facts"].items() if key != "command")
    lines = [
        (
            name,
            f"{phase['seconds']:,.0f} s",
            "" if phase["load_before"] is None else f"{phase['load_before']:.2f}",
            _noise(phase),
        )
        for name, phase in run["phases"].items()
    ]
    table = markdown(lines, ("phase", "duration", "load average before", "fixed loop, ms: median (least to most)"))
    missing = ", ".join(SYSTEMS[name].label for name in run["missing"])
    note = f"\n\nNot installed: {missing}." if missing else ""
    return f"Run {number}: {facts}.\nCommand: `{run['facts']['command']}`.\n\n{table}{note}"


def _noise(phase: dict[str, Any]) -> str:
    times = [seconds * 1e3 for seconds in phase["calibration"]]
    return f"{median(times):.0f} ({min(times):.0f} to {max(times):.0f})" if times else ""


def _versions(results: Results) -> str:
    facts = {record["system"]: record["facts"] for phase in ("search", "bulk") for record in results.phase(phase)}
    lines = [
        (
            SYSTEMS[name].label,
            ", ".join(" ".join(version) for version in fact["versions"].items()),
            fact["python"],
            fact["sqlite"],
        )
        for name, fact in facts.items()
    ]
    return markdown(lines, ("system", "packages", "Python", "SQLite")) if lines else ""


if __name__ == "__main__":
    main()

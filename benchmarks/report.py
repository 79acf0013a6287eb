"""The page: `python -m benchmarks.report results.json more.json` writes `docs/performance.md` and its pictures.

Several files are put together: what a later one measured replaces what an earlier one did. A ratio is always of one
run, whose rounds are pairs.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import plots, targets
from benchmarks.adapters import SYSTEMS
from benchmarks.pictures import PICTURES
from benchmarks.results import Results, read
from benchmarks.tables import SECTIONS, table
from benchmarks.worker import ROOT

PAGE = ROOT / "docs" / "performance.md"
TEXTS = Path(__file__).parent / "page"


def main() -> None:
    """Write the page and its pictures; or with `--merge` one file of several."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="what `python -m benchmarks --json` wrote")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the page goes (default docs/performance.md)")
    parser.add_argument("--merge", type=Path, metavar="FILE", help="also write all runs into one JSON file")
    options = parser.parse_args()
    runs = read(options.files)
    if options.merge:
        options.merge.write_text(json.dumps({"format": 1, "runs": runs}, indent=1), encoding="utf-8")
    write(runs, options.page)
    print(f"written: {options.page}")


def write(runs: Sequence[dict[str, Any]], page: Path) -> None:
    """The page of these runs at *page*, its pictures beside it. The size with the most records comes first."""
    counts: dict[int, int] = {}
    for run in runs:
        rows = run["facts"]["rows"]
        counts[rows] = counts.get(rows, 0) + len(run["records"])
    sizes = [Results(runs, rows) for rows in sorted(counts, key=lambda rows: -counts[rows])]
    main, others = sizes[0], sizes[1:]
    pictures = {name: picture for name, made in PICTURES.items() if (picture := made(main)) is not None}
    for name, picture in pictures.items():
        (page.parent / f"{page.stem}-{name}.svg").write_text(plots.svg(picture), encoding="utf-8")
    parts = [
        _text("opening").format(rows=f"{main.rows:,}", data=main.facts["data"], size=main.rows),
        *(f"![{picture.title}]({page.stem}-{name}.svg)\n" for name, picture in pictures.items()),
        "## Targets\n\n" + _targets(main),
        *_sections(main, "##"),
    ]
    for other in others:
        parts += [f"## At {other.rows:,} memories\n\n" + _targets(other), *_sections(other, "###")]
    parts += [_run(main), _text("closing")]
    page.write_text("\n".join(part.strip("\n") + "\n" for part in parts if part), encoding="utf-8")


def _text(name: str) -> str:
    return (TEXTS / f"{name}.md").read_text(encoding="utf-8")


def _targets(results: Results) -> str:
    said = {True: "reached", False: "**missed**", None: "-"}
    rows = [(line.what, line.asked, line.reached, said[line.met]) for line in targets.lines(results)]
    met = sum(row[3] == "reached" for row in rows)
    measured = sum(row[3] != "-" for row in rows)
    return f"{met} of {measured} measured targets reached.\n\n" + table(("what", "asked", "reached", ""), rows)


def _sections(results: Results, mark: str) -> list[str]:
    made = []
    for title, note, section in SECTIONS:
        table = section(results)
        if table:
            made.append(f"{mark} {title}\n\n{_text(note)}\n{table}")
    return made


def _run(results: Results) -> str:
    lines = ["## The machine, the versions, the noise\n"]
    for number, run in enumerate(results.runs, 1):
        facts = run["facts"]
        told = [f"{key.replace('_', ' ')} {value}" for key, value in facts.items() if key != "command"]
        lines.append(f"Run {number}: {'; '.join(told)}.\nMade by `{facts['command']}`.\n")
        noise = [
            (
                phase,
                f"{about['seconds']:,.0f} s",
                "" if about.get("load_before") is None else f"{about['load_before']:.2f}",
                _noise(about["calibration"]),
            )
            for phase, about in run["phases"].items()
        ]
        lines.append(table(("phase", "took", "load average before", "fixed loop, ms: median (least to most)"), noise))
        if run.get("skipped"):
            names = ", ".join(SYSTEMS[name].label for name in run["skipped"])
            lines.append(f"Skipped, because not installed: {names}.\n")
    versions = {}
    for record in [*results.of("search"), *results.of("bulk")]:
        if "facts" in record:
            told = record["facts"]
            packages = ", ".join(f"{name} {value}" for name, value in told["versions"].items())
            versions[SYSTEMS[record["system"]].label] = (packages, told["python"], told["sqlite"])
    lines.append(table(("system", "packages", "Python", "SQLite"), [(name, *told) for name, told in versions.items()]))
    return "\n".join(lines)


def _noise(times: Sequence[float]) -> str:
    if not times:
        return ""
    return f"{median(times) * 1e3:.0f} ({min(times) * 1e3:.0f} to {max(times) * 1e3:.0f})"


if __name__ == "__main__":
    main()

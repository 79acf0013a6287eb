"""The charts of the page: dots on a logarithmic axis, with a line from the median to the tail."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from benchmarks.adapters import SYSTEMS
from benchmarks.results import Results
from benchmarks.tables import bulk_label

_COLOURS = ("#0969da", "#bc4c00", "#8250df")
_PEER_COLOUR = "#6e7781"
_LEAST = 0.01
"""Smaller values are drawn here, because the axis is logarithmic."""

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "memstore",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def write_charts(results: Results, page: Path) -> dict[str, str]:
    """Write the charts beside *page*; return the title of each file."""
    titles = {}
    with mpl.rc_context(_STYLE):
        for name, (title, unit, points) in _charts(results).items():
            if not points.empty:
                file = page.parent / f"{page.stem}-{name}.svg"
                dot_chart(points, title, unit).savefig(file, metadata={"Date": None})
                titles[file.name] = title
    return titles


def dot_chart(points: pd.DataFrame, title: str, unit: str) -> Figure:
    """One line per row of *points*, from the top.

    Args:
        points: columns `label`, `note` (text at the right), `strong` (bool: memstore), `tail` (end of the line from
            the first dot, NaN for none), and one or more columns of values.
        title: of the chart.
        unit: label of the axis.
    """
    series = [column for column in points if column not in ("label", "note", "strong", "tail")]
    figure = Figure(figsize=(8.4, 1.1 + 0.27 * len(points)), layout="constrained")
    axes = figure.subplots()
    positions = range(len(points))
    axes.hlines(positions, points[series[0]], points["tail"], color="#8c959f", linewidth=1.5)
    for number, name in enumerate(series):
        offset = (number - (len(series) - 1) / 2) * 0.18  # keeps equal values of one line apart
        single = [_COLOURS[0] if strong else _PEER_COLOUR for strong in points["strong"]]
        colour = single if len(series) == 1 else _COLOURS[number]
        axes.scatter(points[name], [y + offset for y in positions], c=colour, s=28, zorder=3, label=name)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(unit)
    axes.set_title(title, loc="left", fontweight="bold")
    axes.grid(axis="x", color="#e4e8ec")
    notes = axes.twinx()
    for side, labels in ((axes, points["label"]), (notes, points["note"])):
        side.set_ylim(len(points) - 0.5, -0.5)
        side.set_yticks(positions, labels)
        side.tick_params(axis="y", length=0)
    for label, strong in zip(axes.get_yticklabels(), points["strong"], strict=True):
        label.set_fontweight("bold" if strong else "normal")
    if len(series) > 1:
        figure.legend(loc="outside upper right", ncols=len(series), frameon=False)
    return figure


def _charts(results: Results) -> dict[str, tuple[str, str, pd.DataFrame]]:
    """For each chart its title, its unit and its points."""
    rows = f"{results.rows:,}"
    latency = "milliseconds, dot p50, line to p99; left is better"
    search = results.phase("search")
    gaps = results.phase("gaps")
    return {
        "search": (
            f"One search: 10 hits with content, tags, metadata; {rows} memories",
            latency,
            _points(search[search["system"] != "raw"], "p50_ms", "p99_ms", _search_note).sort_values("p50_ms"),
        ),
        "filters": (
            f"Search under a metadata filter, {rows} memories",
            "milliseconds, p50; left is better",
            _filter_points(results.phase("filters")),
        ),
        "bulk": (
            f"Bulk add of {rows} memories",
            "rows a second; right is better",
            _points(results.phase("bulk"), "rows_per_second", None, _bulk_note).sort_values("rows_per_second")[::-1],
        ),
        "add": (
            f"One memory added to {rows}",
            latency,
            _points(results.phase("add"), "p50_ms", "p99_ms", _add_note).sort_values("p50_ms"),
        ),
        "gaps": (
            "Delay of the event loop beyond the median of the idle loop",
            "milliseconds, dot p99, line to the worst; left is better",
            _points(gaps[~gaps["case"].str.contains(",")], "p99_ms", "max_ms", _gap_note),
        ),
    }


def _points(records: pd.DataFrame, dot: str, tail: str | None, note: Callable[[Any], str]) -> pd.DataFrame:
    """One dot for each record, and the end of its line."""
    points = [
        {
            "label": _label(record),
            "note": note(record),
            "strong": record.system.startswith("memstore"),
            "tail": max(_LEAST, getattr(record, tail)) if tail else float("nan"),
            dot: max(_LEAST, getattr(record, dot)),
        }
        for record in records.itertuples()
    ]
    return pd.DataFrame(points, columns=["label", "note", "strong", "tail", dot])


def _label(record: Any) -> str:
    if record.phase == "gaps":
        return record.case
    return bulk_label(record.system, record.case) if record.phase == "bulk" else SYSTEMS[record.system].label


def _search_note(record: Any) -> str:
    return f"{record.p50_ms:.2f} ms, recall {record.recall:.3f}"


def _bulk_note(record: Any) -> str:
    return f"{record.rows_per_second:,.0f}/s, {record.facts['durability_label']}"


def _add_note(record: Any) -> str:
    return f"{record.p50_ms:.2f} ms" + ("" if pd.isna(record.fsyncs) else f", {record.fsyncs:.0f} fsync")


def _gap_note(record: Any) -> str:
    return f"p99 {record.p99_ms:.1f} ms, worst {record.max_ms:.0f}"


def _filter_points(records: pd.DataFrame) -> pd.DataFrame:
    """Three dots for each system: the metadata filters."""
    records = records[records["case"].str.startswith("metadata")]
    if records.empty:
        return records
    points = records.pivot_table(index="system", columns="case", values="p50_ms", sort=False).dropna()
    points = points.sort_values(points.columns[1])
    recall = records.groupby("system")["recall"].min()
    return points.assign(
        label=[SYSTEMS[name].label for name in points.index],
        note=[f"least recall {recall[name]:.3f}" for name in points.index],
        strong=points.index.str.startswith("memstore"),
        tail=float("nan"),
    )

"""The charts of the page: dots on a logarithmic axis."""

import re
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from benchmarks.results import Results
from benchmarks.tables import label

_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "memstore", "font.size": 9}
_LEAST = 0.01
"""Smaller values are drawn as this one, because the axis is logarithmic."""


def write_charts(results: Results, page: Path) -> dict[str, str]:
    """Write the charts beside *page*; return the title of each file."""
    rows = f"{results.rows:,}"
    titles = {
        "search": f"One search of {rows} memories with content, tags and metadata: milliseconds",
        "filters": f"Search of {rows} memories under a metadata filter: milliseconds, p50",
        "bulk": f"Bulk add of {rows} memories: rows a second",
        "add": f"One memory added to {rows}: milliseconds",
        "gaps": "Delay of the event loop beyond the median of the idle loop: milliseconds",
    }
    files = {}
    for name, title in titles.items():
        values = _values(results, name)
        if not values.empty:
            file = page.parent / f"{page.stem}-{name}.svg"
            with mpl.rc_context(_STYLE):
                dot_chart(values, title).savefig(file, metadata={"Date": None})
            file.write_text(re.sub(r">\s*\n\s*<", "><", file.read_text()) + "\n")  # generated: one line for the diff
            files[file.name] = title
    return files


def dot_chart(values: pd.DataFrame, title: str) -> Figure:
    """A line for each row of *values*, a dot for each column. Names that start with "memstore" are bold."""
    values, lines = values.clip(lower=_LEAST), range(len(values))
    figure = Figure(figsize=(8.4, 0.9 + 0.27 * len(values)), layout="constrained")
    axes = figure.subplots()
    axes.hlines(lines, values.min(axis=1), values.max(axis=1), color="#8c959f")
    for column, colour in zip(values, ("#0969da", "#bc4c00", "#8250df"), strict=False):
        axes.plot(values[column], lines, "o", color=colour, label=column)
    axes.set_yticks(lines, values.index)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(axis="x", color="#e4e8ec")
    axes.set_title(title, loc="left", fontweight="bold")
    axes.legend().set_visible(values.shape[1] > 1)
    for tick in axes.get_yticklabels():
        tick.set_fontweight("bold" if tick.get_text().startswith("memstore") else "normal")
    return figure


def _values(results: Results, name: str) -> pd.DataFrame:
    """The rows of a chart, best first; the loads of the event loop in their order."""
    records = [record for record in results.phase(name) if (name, record["system"]) != ("search", "raw")]
    if not records:
        return pd.DataFrame()
    frame = pd.DataFrame(records).assign(name=[label(record).strip("*") for record in records])
    if name == "gaps":
        frame = frame[~frame["case"].str.contains(",")].assign(name=frame["case"])
        return frame.set_index("name")[["p99_ms", "max_ms"]].set_axis(["p99", "worst"], axis=1)
    if name == "bulk":
        return frame.set_index("name")[["rows_per_second"]].sort_values("rows_per_second", ascending=False)
    if name == "filters":
        frame = frame[frame["case"].str.startswith("metadata")]
        values = frame.pivot_table(index="name", columns="case", values="p50_ms", sort=False).dropna()
        return values.sort_values(values.columns[1])
    return frame.set_index("name")[["p50_ms", "p99_ms"]].set_axis(["p50", "p99"], axis=1).sort_values("p50")

"""The tables of the page: for each phase the headings of the columns and what fills them."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pandas as pd

from benchmarks.adapters import SYSTEMS
from benchmarks.results import Results
from benchmarks.workset import FILTERS

Record = dict[str, Any]
Column = str | tuple[str, ...] | Callable[[Results, Record], object]
"""A format string for a record, several of which the first that fits is used, or a function."""


def label(record: Record) -> str:
    """The name of the system, with the verb of a bulk add of memstore; bold for the default configuration."""
    text = SYSTEMS[record["system"]].label
    if record["phase"] == "bulk" and record["system"] == "memstore":
        text += f", {record['case'] or 'add_many'}"
    return f"**{text}**" if record["system"] == "memstore" else text


def _system(results: Results, record: Record) -> str:  # noqa: ARG001
    return label(record)


def _ratio(other: str, figure: str, *, inverse: bool = False) -> Column:
    """The ratio to another system, or its inverse: the ratio of rates is the inverse of that of seconds."""

    def ratio(results: Results, record: Record) -> object:
        keys = [(record["phase"], record["system"], record["case"])]
        keys.append((record["phase"], other, "" if record["phase"] == "bulk" else record["case"]))
        return results.ratio(*(reversed(keys) if inverse else keys), figure) or ""

    return ratio


_LATENCY = {"p50 ms": "{p50_ms:,.2f}", "p99 ms": "{p99_ms:,.2f}"}
_INDEX = ("{plan[method]}, {plan[engine]}", "{facts[index]}; effort {effort:d}", "{facts[index]}")
_COLUMNS: dict[str, dict[str, Column]] = {
    "bulk": {
        "system": _system,
        "rows/s": "{rows_per_second:,.0f}",
        "share of the raw baseline": _ratio("raw", "seconds", inverse=True),
        "recall@10 after it": "{recall:.3f}",
        "settling, s": "{settle_seconds:.1f}",
        "on disk, MB": "{megabytes:,.0f}",
        "durability": "{facts[durability]}",
    },
    "add": {
        "system": _system,
        **_LATENCY,
        "times raw": _ratio("raw", "p50_ms"),
        "fsyncs per add": "{fsyncs:.1f}",
        "durability": "{facts[durability]}",
    },
    "concurrent": {
        "system": _system,
        "adds": "{adds}",
        "concurrent, ms": "{concurrent_ms:,.1f}",
        "in a row, ms": "{sequential_ms:,.1f}",
        "share": "{share:.0%}",
    },
    "change": {
        "verb": "{case}",
        "system": _system,
        "rows/s": "{rows_per_second:,.0f}",
        "share of the raw baseline": _ratio("raw", "seconds", inverse=True),
    },
    "search": {
        "system": _system,
        **_LATENCY,
        "recall@10": "{recall:.4f}",
        "searches": "{n:,}",
        "times usearch by hand": _ratio("usearch", "p50_ms"),
        "index": _INDEX,
    },
    "unindexed": {
        "graph": "{case}",
        "vectors in it": "{graph_nodes:,}",
        "outside": "{unindexed:,}",
        **_LATENCY,
        "recall@10": "{recall:.4f}",
        "method": "{method}",
    },
    "many": {
        "system": _system,
        "100 in one call, ms": "{together_ms:,.1f}",
        "one by one, ms": "{single_ms:,.1f}",
        "times faster": "{speedup:.2f}",
        "recall@10": "{recall:.4f}",
    },
    "open": {
        "what": "{case}",
        "system": _system,
        "seconds": "{seconds:.3f}",
        "rounds": "{least:.3f} to {most:.3f}",
        "imports before, s": "{import_seconds:.2f}",
    },
    "gaps": {
        "load": "{case}",
        **_LATENCY,
        "worst ms": "{max_ms:,.1f}",
        "ticks": "{ticks:,}",
        "idle loop: p99 / worst": "{idle_p99_ms:.2f} / {idle_max_ms:.1f}",
    },
    "memory": {
        "system": _system,
        "process before, MiB": "{start_mib:,.0f}",
        "peak over it: loading": "{load_mib:,.0f}",
        "building the graph": "{build_mib:,.0f}",
        "reopened and searching": "{reopen_mib:,.0f}",
        "the index itself": "{index_mib:,.0f}",
        "largest total": "{peak_mib:,.0f}",
        "load / build, s": "{load_seconds:,.1f} / {build_seconds:,.1f}",
        "search p50 ms": "{p50_ms:.2f}, recall {recall:.4f}",
    },
}
PHASES = (*_COLUMNS, "filters")


def markdown(lines: Iterable[Sequence[object]] | pd.DataFrame, columns: Sequence[str] = ()) -> str:
    """A Markdown table."""
    table = lines if isinstance(lines, pd.DataFrame) else pd.DataFrame(list(lines), columns=list(columns))
    cells = table.map(lambda value: str(value).replace("|", "/"))
    return cells.to_markdown(index=False, disable_numparse=True)


def section(results: Results, phase: str) -> str:
    """The table of a phase with a sentence about what was not measured; "" if the phase did not run."""
    records = results.phase(phase)
    if phase == "filters":
        kinds = ([r for r in records if r["case"].startswith(kind)] for kind in ("tag", "metadata", "adverse"))
        tables = [_filter_table(results, kind) for kind in kinds if kind]
    else:
        columns = _COLUMNS[phase]
        order = dict.fromkeys(record["case"] for record in records)
        if phase in ("change", "open"):  # one case after the other
            records = sorted(records, key=lambda record: list(order).index(record["case"]))
        lines = [[_cell(results, record, column) for column in columns.values()] for record in records]
        tables = [markdown(lines, tuple(columns))] if lines else []
    return "\n\n".join(text for text in (*tables, _skipped(results.phase(phase, skipped=True))) if text)


def _cell(results: Results, record: Record, column: Column) -> object:
    if callable(column):
        return column(results, record)
    for text in (column,) if isinstance(column, str) else column:
        try:
            return text.format(**record)
        except (KeyError, TypeError):  # the record has no such figure
            continue
    return ""


def _filter_table(results: Results, records: list[Record]) -> str:
    """One table for one kind of filter, with a column for each filter."""
    frame = pd.DataFrame(records)
    ratio = _ratio("faiss", "p50_ms")
    frame["cell"] = [
        f"{r['p50_ms']:,.2f} / {r['p99_ms']:,.2f}, {r['recall']:.3f}"
        + (f", {factor.value:.1f}x" if (factor := ratio(results, r)) and r["system"] != "faiss" else "")
        for r in records
    ]
    frame["system"] = [label(record) for record in records]
    frame["case"] = [f"{r['case']}: {r['matches']:,} rows" for r in records]
    table = frame.pivot_table(index="system", columns="case", values="cell", aggfunc="first", sort=False).fillna("")
    order = [column for name in FILTERS for column in table if column.startswith(f"{name}:")]
    counts = frame.groupby("system")[["short", "n"]].sum()
    table = table[order].assign(**{"too few hits": [f"{counts.short[s]:,} of {counts.n[s]:,}" for s in table.index]})
    return markdown(table.reset_index())


def _skipped(records: list[Record]) -> str:
    """A sentence about what was not measured, or ""."""
    reasons: dict[str, list[str]] = {}
    for record in records:
        name = label(record).strip("*") + (f" ({record['case']})" if record["case"] else "")
        reasons.setdefault(record["skipped"].replace("<", "&lt;")[:160], []).append(name)
    text = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
    return f"Not measured: {text}." if text else ""

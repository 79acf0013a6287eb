"""The tables of the page: one function per phase, from records to Markdown."""

from collections.abc import Iterable, Sequence
from statistics import median

import pandas as pd

from benchmarks.adapters import SYSTEMS
from benchmarks.results import Ratio, Results
from benchmarks.workset import FILTERS

_OPEN_CASES = {
    "cached": "open to first hit, file in the page cache",
    "uncached": "open to first hit, file not in the page cache",
    "read": "bare read of the same vectors, cached",
    "read uncached": "bare read of the same vectors, not cached",
}


def markdown(lines: Iterable[Sequence[object]] | pd.DataFrame, columns: Sequence[str] = ()) -> str:
    """A Markdown table; empty cells for None."""
    table = lines if isinstance(lines, pd.DataFrame) else pd.DataFrame(list(lines), columns=list(columns))
    cells = table.map(lambda value: "" if value is None else str(value).replace("|", "/"))
    return cells.to_markdown(index=False, disable_numparse=True) + "\n"


def bulk_label(system: str, case: str) -> str:
    """The name of a system with its way of bulk add."""
    verb = {"": "add_many", "load": "load"}[case]
    return f"{SYSTEMS[system].label}, {verb}" if system == "memstore" else SYSTEMS[system].label


def _name(system: str, label: str = "") -> str:
    label = label or SYSTEMS[system].label
    return f"**{label}**" if system == "memstore" else label


def _ms(value: float) -> str:
    value = max(0.0, value)
    return f"{value:,.3f}" if value < 1 else f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


def _optional(value: float | None, format: str) -> str:
    return "" if value is None or pd.isna(value) else format.format(value)


def _ratio(
    results: Results, phase: str, numerator: tuple[str, str], denominator: tuple[str, str], figure: str
) -> Ratio | None:
    return results.ratio((phase, *numerator), (phase, *denominator), figure)


def skipped(results: Results, phase: str) -> str:
    """A sentence about what was not measured, or ""."""
    records = results.skipped[results.skipped["phase"] == phase]
    reasons: dict[str, list[str]] = {}
    for record in records.itertuples():
        name = SYSTEMS[record.system].label + (f" ({record.case})" if record.case else "")
        reasons.setdefault(record.skipped.replace("<", "&lt;")[:160], []).append(name)
    text = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
    return f"\nNot measured: {text}.\n" if text else ""


def bulk(results: Results) -> str:
    lines = []
    for record in results.phase("bulk").itertuples():
        settle = record.settle_seconds
        if pd.isna(settle) and not record.case:  # the memory phase settled the same store
            settle = results.figure(("memory", record.system, ""), "build_seconds")
        lines.append(
            (
                _name(record.system, bulk_label(record.system, record.case)),
                f"{record.rows_per_second:,.0f}",
                _ratio(results, "bulk", ("raw", ""), (record.system, record.case), "seconds"),
                _optional(record.recall, "{:.3f}"),
                _optional(settle, "{:.1f} s"),
                f"{record.bytes / 1e6:,.0f} MB",
                record.facts["durability"],
            )
        )
    columns = (
        "system",
        "rows/s",
        "share of the raw baseline",
        "recall@10 after it",
        "settling",
        "on disk",
        "durability",
    )
    return markdown(lines, columns)


def add(results: Results) -> str:
    lines = [
        (
            _name(record.system),
            _ms(record.p50_ms),
            _ms(record.p99_ms),
            _ratio(results, "add", (record.system, ""), ("raw", ""), "p50_ms"),
            _optional(record.fsyncs, "{:.1f}"),
            record.facts["durability"],
        )
        for record in results.phase("add").itertuples()
    ]
    return markdown(lines, ("system", "p50 ms", "p99 ms", "times raw", "fsyncs per add", "durability"))


def concurrent(results: Results) -> str:
    lines = [
        (_name(r.system), f"{r.adds:.0f}", _ms(r.concurrent_ms), _ms(r.sequential_ms), f"{r.share:.0%}")
        for r in results.phase("concurrent").itertuples()
    ]
    return markdown(lines, ("system", "adds", "concurrent, ms", "in a row, ms", "share"))


def change(results: Results) -> str:
    lines = [
        (
            record.case,
            _name(record.system),
            f"{record.rows_per_second:,.0f}",
            _ratio(results, "change", ("raw", record.case), (record.system, record.case), "seconds"),
        )
        for record in results.phase("change").sort_values("case", ascending=False, kind="stable").itertuples()
    ]
    return markdown(lines, ("verb", "system", "rows/s", "share of the raw baseline"))


def search(results: Results) -> str:
    lines = []
    for record in results.phase("search").itertuples():
        index = record.facts["index"] + _optional(record.effort, "; effort {:.0f}")
        if isinstance(record.plan, dict):
            index = f"{record.plan['method']}, {record.plan['engine']}"
        lines.append(
            (
                _name(record.system),
                _ms(record.p50_ms),
                _ms(record.p99_ms),
                f"{record.recall:.4f}",
                f"{record.n:,.0f}",
                _ratio(results, "search", (record.system, ""), ("usearch", ""), "p50_ms"),
                index,
            )
        )
    return markdown(lines, ("system", "p50 ms", "p99 ms", "recall@10", "searches", "times usearch by hand", "index"))


def unindexed(results: Results) -> str:
    lines = [
        (
            r.case,
            f"{r.graph_nodes:,.0f}",
            f"{r.unindexed:,.0f}",
            _ms(r.p50_ms),
            _ms(r.p99_ms),
            f"{r.recall:.4f}",
            r.method,
        )
        for r in results.phase("unindexed").itertuples()
    ]
    return markdown(lines, ("graph", "vectors in it", "outside", "p50 ms", "p99 ms", "recall@10", "method"))


def filters(results: Results) -> str:
    """One table for each kind of filter."""
    records = results.phase("filters")
    tables = []
    for kind in ("tag", "metadata", "adverse"):
        group = records[records["case"].str.startswith(kind)]
        if group.empty:
            continue
        cells = group.assign(cell=[_filter_cell(results, record) for record in group.itertuples()])
        table = cells.pivot_table(index="system", columns="case", values="cell", aggfunc="first", sort=False).fillna("")
        table = table[[name for name in FILTERS if name in table]]
        counts = group.groupby("system")[["short", "n"]].sum()
        matches = group.groupby("case")["matches"].first()
        table = table.rename(columns={name: f"{name}: {matches[name]:,.0f} rows" for name in table})
        table["too few hits"] = [f"{counts.short[name]:,.0f} of {counts.n[name]:,.0f}" for name in table.index]
        table.insert(0, "system", [_name(name) for name in table.index])
        tables.append(markdown(table))
    return "\n".join(tables)


def _filter_cell(results: Results, record: object) -> str:
    ratio = _ratio(results, "filters", (record.system, record.case), ("faiss", record.case), "p50_ms")
    factor = f", {ratio.value:.1f}x" if ratio and record.system != "faiss" else ""
    return f"{_ms(record.p50_ms)} / {_ms(record.p99_ms)}, {record.recall:.3f}{factor}"


def many(results: Results) -> str:
    lines = [
        (_name(r.system), _ms(r.together_ms), _ms(r.single_ms), f"{r.speedup:.2f}", f"{r.recall:.4f}")
        for r in results.phase("many").itertuples()
    ]
    return markdown(lines, ("system", "100 in one call, ms", "one by one, ms", "times faster", "recall@10"))


def open_store(results: Results) -> str:
    lines = []
    records = results.phase("open")
    for case, words in _OPEN_CASES.items():
        for record in records[records["case"] == case].itertuples():
            seconds = [result["seconds"] for result in record.rounds]
            imports = [result["import_seconds"] for result in record.rounds if "import_seconds" in result]
            spread = f"{min(seconds):.3f} to {max(seconds):.3f}"
            before = f"{median(imports):.2f}" if imports else ""
            lines.append((words, _name(record.system), f"{record.seconds:.3f}", spread, before))
    return markdown(lines, ("what", "system", "seconds", "rounds", "imports before, s"))


def gaps(results: Results) -> str:
    lines = [
        (
            r.case,
            _ms(r.p50_ms),
            _ms(r.p99_ms),
            _ms(r.max_ms),
            f"{r.ticks:,.0f}",
            f"{_ms(r.idle_p99_ms)} / {_ms(r.idle_max_ms)}",
        )
        for r in results.phase("gaps").itertuples()
    ]
    return markdown(lines, ("load", "p50 ms", "p99 ms", "worst ms", "ticks", "idle loop: p99 / worst"))


def memory(results: Results) -> str:
    def mib(value: float) -> str:
        return f"{value / 2**20:,.0f}"

    lines = [
        (
            _name(r.system),
            mib(r.start),
            mib(r.load_peak - r.start),
            mib(r.build_peak - r.start),
            mib(r.reopen_peak - r.reopen_start),
            mib(r.index_bytes),
            mib(max(r.load_peak, r.build_peak, r.reopen_peak)),
            f"{r.load_seconds:,.1f} / {r.build_seconds:,.1f}",
            f"{r.p50_ms:.2f}, recall {r.recall:.4f}",
        )
        for r in results.phase("memory").itertuples()
    ]
    columns = (
        "system", "process before, MiB", "peak over it: loading", "building the graph", "reopened and searching",
        "the index itself", "largest total", "load / build, s", "search p50 ms",
    )  # fmt: skip
    return markdown(lines, columns)


SECTIONS = {
    "bulk": bulk,
    "add": add,
    "concurrent": concurrent,
    "change": change,
    "search": search,
    "unindexed": unindexed,
    "filters": filters,
    "many": many,
    "open": open_store,
    "gaps": gaps,
    "memory": memory,
}
"""For each phase the function that makes its table."""


def section(results: Results, phase: str) -> str:
    """The table of a phase with a sentence about what was not measured; "" if the phase did not run."""
    table = "" if results.phase(phase).empty else SECTIONS[phase](results)
    return (table + skipped(results, phase)).strip("\n")

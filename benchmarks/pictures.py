"""The pictures of the page: what each shows, from what runs left. None where nothing was measured."""

from collections.abc import Callable

from benchmarks.adapters import SYSTEMS
from benchmarks.phases.stalls import LOADS
from benchmarks.plots import Picture, Row
from benchmarks.results import Record, Results
from benchmarks.tables import split


def _row(record: Record, values: tuple[float, ...], tail: float | None, note: str, label: str = "") -> Row:
    ours = record["system"].startswith("memstore")
    return Row(label=label or SYSTEMS[record["system"]].label, values=values, tail=tail, note=note, ours=ours)


def _search_picture(results: Results) -> Picture | None:
    done, _ = split(results.of("search"))
    rows = [
        _row(r, (r["p50_ms"],), r["p99_ms"], f"{r['p50_ms']:.2f} ms, recall {r['recall']:.3f}")
        for r in sorted(done, key=lambda r: float(r["p50_ms"]))
        if r["system"] != "raw"
    ]
    title = f"One search: 10 hits with content, tags, metadata; {results.rows:,} memories"
    unit = "milliseconds, dot p50, line to p99; left is better"
    return Picture(title=title, unit=unit, rows=tuple(rows), notes="p50, recall@10") if rows else None


def _filter_picture(results: Results) -> Picture | None:
    names = ("metadata 10 %", "metadata 1 %", "metadata 0.1 %")
    tables = [{r["system"]: r for r in split(results.of("filters", name))[0]} for name in names]
    rows = []
    for system in tables[0]:
        if all(system in table for table in tables):
            each = [table[system] for table in tables]
            least, short = min(r["recall"] for r in each), sum(r["short"] for r in each)
            note = f"least recall {least:.3f}" + (f", {short} short" if short else "")
            rows.append(_row(each[0], tuple(r["p50_ms"] for r in each), None, note))
    rows.sort(key=lambda row: row.values[1])
    title = f"Search under a filter, {results.rows:,} memories"
    unit = "milliseconds, p50; left is better"
    return Picture(title=title, unit=unit, rows=tuple(rows), series=("10 %", "1 %", "0.1 %")) if rows else None


def _bulk_picture(results: Results) -> Picture | None:
    done, _ = split(results.of("bulk"))
    rows = []
    for r in sorted(done, key=lambda r: -float(r["rows_per_second"])):
        way = {"": ", add_many", "load": ", load"}[r["case"]] if r["system"] == "memstore" else ""
        note = f"{r['rows_per_second']:,.0f}/s, {r['facts']['kept']}"
        rows.append(_row(r, (r["rows_per_second"],), None, note, label=SYSTEMS[r["system"]].label + way))
    title = f"Bulk add of {results.rows:,} memories"
    unit = "rows a second; right is better"
    return Picture(title=title, unit=unit, rows=tuple(rows), notes="rows/s, durability") if rows else None


def _add_picture(results: Results) -> Picture | None:
    done, _ = split(results.of("add"))
    rows = []
    for r in sorted(done, key=lambda r: float(r["p50_ms"])):
        synced = "" if r["fsyncs"] is None else f", {r['fsyncs']:.0f} fsync{'s' if round(r['fsyncs']) != 1 else ''}"
        rows.append(_row(r, (r["p50_ms"],), r["p99_ms"], f"{r['p50_ms']:.2f} ms{synced}"))
    title = f"One memory added to {results.rows:,}"
    unit = "milliseconds, dot p50, line to p99; left is better"
    return Picture(title=title, unit=unit, rows=tuple(rows), notes="p50, fsyncs an add") if rows else None


def _gaps_picture(results: Results) -> Picture | None:
    records = [r for load in LOADS for r in split(results.of("gaps", load))[0]]
    names = {"searches": "500 searches at once", "together": "fold, bulk and searches"}
    rows = [
        _row(
            r,
            (max(0.01, r["p99_ms"]),),
            max(0.01, r["max_ms"]),
            f"p99 {r['p99_ms']:.1f} ms, worst {r['max_ms']:.0f}",
            label=names.get(r["case"], r["case"]),
        )
        for r in records
    ]
    title = "How late the event loop comes back, beyond the idle loop's median"
    unit = "milliseconds, dot p99, line to the worst of all; left is better"
    return Picture(title=title, unit=unit, rows=tuple(rows), notes="p99, worst") if rows else None


PICTURES: dict[str, Callable[[Results], Picture | None]] = {
    "search": _search_picture,
    "filters": _filter_picture,
    "bulk": _bulk_picture,
    "add": _add_picture,
    "gaps": _gaps_picture,
}

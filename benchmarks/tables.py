"""The tables of the page: one function a phase, from what runs left to Markdown. "" where nothing was measured."""

from collections.abc import Callable, Iterable, Sequence
from statistics import median

from benchmarks import targets
from benchmarks.adapters import SYSTEMS
from benchmarks.phases.opening import CACHED, UNCACHED
from benchmarks.phases.stalls import LOADS, UNFROZEN
from benchmarks.results import Record, Results
from benchmarks.workset import FILTERS


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _name(record: Record) -> str:
    label = SYSTEMS[record["system"]].label
    return f"**{label}**" if record["system"] == "memstore" else label


def _ms(value: float) -> str:
    return f"{value:,.3f}" if value < 1 else f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


def split(records: Sequence[Record]) -> tuple[list[Record], str]:
    """Those that were measured, and a sentence about those that were not."""
    done = [record for record in records if "skipped" not in record]
    reasons: dict[str, list[str]] = {}
    for record in records:
        if "skipped" in record:
            name = SYSTEMS[record["system"]].label + (f" ({record['case']})" if record["case"] else "")
            reasons.setdefault(record["skipped"].replace("|", "/").replace("<", "&lt;")[:160], []).append(name)
    said = "; ".join(f"{', '.join(names)}: {why}" for why, names in reasons.items())
    return done, f"\nNot measured: {said}.\n" if said else ""


def _bulk(results: Results) -> str:
    done, skipped = split(results.of("bulk"))
    rows = []
    for record in done:
        way = {"": " (`add_many`)", "load": " (`load`)"}[record["case"]] if record["system"] == "memstore" else ""
        ratio = results.pair(("bulk", "raw", ""), ("bulk", record["system"], record["case"]), "seconds")
        size = f"{record['bytes'] / 1e6:,.0f} MB" if "bytes" in record else ""
        settled = f"{record['settle_seconds']:.1f} s" if record.get("settle_seconds", 0) >= 0.05 else ""
        facts = record.get("facts", {})
        recall = f"{record['recall']:.3f}" if record.get("recall") is not None else ""
        rows.append(
            (
                _name(record) + way,
                f"{record['rows_per_second']:,.0f}",
                str(ratio) if ratio else "",
                recall,
                settled,
                size,
                facts["durability"] + (f"; {record['partial']}" if "partial" in record else ""),
            )
        )
    head = (
        "system",
        "rows/s",
        "of the raw baseline",
        "recall@10 right after",
        "then settling",
        "on disk",
        "durability",
    )
    return table(head, rows) + skipped if rows else ""


def _add(results: Results) -> str:
    done, skipped = split(results.of("add"))
    rows = []
    for record in done:
        ratio = results.pair(("add", record["system"], ""), ("add", "raw", ""), "p50_ms")
        fsyncs = "" if record["fsyncs"] is None else f"{record['fsyncs']:.1f}"
        rows.append(
            (
                _name(record),
                _ms(record["p50_ms"]),
                _ms(record["p99_ms"]),
                str(ratio or ""),
                fsyncs,
                record["facts"]["durability"],
            )
        )
    head = ("system", "p50 ms", "p99 ms", "times raw", "fsyncs an add", "durability")
    text = table(head, rows) + skipped if rows else ""
    for record in split(results.of("concurrent"))[0]:
        case = f" ({record['case']})" if record["case"] else ""
        text += (
            f"\n{record['adds']} concurrent adds{case} take {_ms(record['concurrent_ms'])} ms, as many in a row "
            f"{_ms(record['alone_ms'])} ms: {record['share']:.0%}.\n"
        )
    return text


def _search(results: Results) -> str:
    done, skipped = split(results.of("search"))
    rows = []
    for record in done:
        ratio = results.pair(("search", record["system"], ""), ("search", "usearch", ""), "p50_ms")
        index = record["facts"]["index"] + (f"; effort {record['effort']}" if "effort" in record else "")
        plan = record["state"].get("plan")
        if plan:
            index = f"{plan['method']}, {plan['engine']}"
        rows.append(
            (
                _name(record),
                _ms(record["p50_ms"]),
                _ms(record["p99_ms"]),
                f"{record['recall']:.4f}",
                f"{record['n']:,}",
                str(ratio or ""),
                index,
            )
        )
    head = ("system", "p50 ms", "p99 ms", "recall@10", "searches", "times usearch by hand", "index")
    return table(head, rows) + skipped if rows else ""


def _tail(results: Results) -> str:
    done, skipped = split(results.of("tail"))
    rows = []
    for record in done:
        state = record["state"]
        plan = state.get("plan", {})
        rows.append(
            (
                "all in the graph" if record["case"] == "folded" else "with a tail",
                f"{state.get('graph_nodes', 0):,}",
                f"{state.get('tail', 0):,}",
                _ms(record["p50_ms"]),
                _ms(record["p99_ms"]),
                f"{record['recall']:.4f}",
                str(plan.get("method", "")),
            )
        )
    head = ("store", "in the graph", "not in it", "p50 ms", "p99 ms", "recall@10", "method")
    return table(head, rows) + skipped if rows else skipped


def _filters(results: Results) -> str:
    tables = []
    for kind in ("tag", "metadata", "against"):
        names = [name for name in FILTERS if name.startswith(kind)]
        cells: dict[str, dict[str, Record]] = {}
        for name in names:
            for record in split(results.of("filters", name))[0]:
                cells.setdefault(record["system"], {})[name] = record
        if not cells:
            continue
        allowed = {name: next(r[name]["allowed"] for r in cells.values() if name in r) for name in names}
        head = ["system", *(f"{name}: {allowed[name]:,} rows" for name in names), "short of limit"]
        rows = []
        for records in cells.values():
            first = next(iter(records.values()))
            short = f"{sum(r['short'] for r in records.values())} of {sum(r['n'] for r in records.values()):,}"
            each = [_filtered(results, records[name]) if name in records else "" for name in names]
            rows.append((_name(first), *each, short))
        tables.append(table(head, rows))
    if not tables:
        return ""
    how = split(results.of("filters"))[1]
    return "Each cell: p50 / p99 in milliseconds, recall@10, times FAISS flat by hand.\n\n" + "\n".join(tables) + how


def _filtered(results: Results, record: Record) -> str:
    name = record["case"]
    ratio = results.pair(("filters", record["system"], name), ("filters", "faiss", name), "p50_ms")
    times = f", {ratio.value:.1f}x" if ratio and record["system"] != "faiss" else ""
    return f"{_ms(record['p50_ms'])} / {_ms(record['p99_ms'])}, {record['recall']:.3f}{times}"


def _many(results: Results) -> str:
    done, skipped = split(results.of("many"))
    rows = [
        (
            _name(record),
            _ms(record["together_ms"]),
            _ms(record["alone_ms"]),
            f"{record['times_faster']:.2f}",
            f"{record['recall']:.4f}",
        )
        for record in done
    ]
    head = ("system", "100 in one call, ms", "one by one, ms", "times faster", "recall@10")
    return table(head, rows) + skipped if rows else ""


def _open(results: Results) -> str:
    done, skipped = split(results.of("open"))
    said = {
        CACHED: "open to first hit, file in the page cache",
        UNCACHED: "open to first hit, file not in the page cache",
        "read": "bare read of the same file's vectors, cached",
        "read uncached": "bare read of the same file's vectors, not cached",
    }
    rows = []
    for case, words in said.items():
        for record in done:
            if record["case"] == case:
                seconds = [told["seconds"] for told in record["rounds"]]
                spread = f"{min(seconds):.3f} to {max(seconds):.3f}"
                imported = [told["import_seconds"] for told in record["rounds"] if "import_seconds" in told]
                before = f"{median(imported):.2f}" if imported else ""
                rows.append((words, _name(record), f"{record['seconds']:.3f}", spread, before))
    head = ("what", "system", "seconds", "rounds", "its imports before, s")
    return table(head, rows) + skipped if rows else ""


def _change(results: Results) -> str:
    done, skipped = split(results.of("change"))
    rows = []
    for verb in ("upsert", "delete"):
        for record in done:
            if record["case"] == verb:
                ratio = results.pair(("change", "raw", verb), ("change", record["system"], verb), "seconds")
                rows.append((verb, _name(record), f"{record['rows_per_second']:,.0f}", str(ratio or "")))
    return table(("verb", "system", "rows/s", "of raw sqlite3"), rows) + skipped if rows else ""


def _gaps(results: Results) -> str:
    done, skipped = split(results.of("gaps"))
    order = [*LOADS, *(load + UNFROZEN for load in LOADS)]
    rows = [_gap(record) for record in sorted(done, key=lambda record: order.index(record["case"]))]
    head = ("load", "p50 ms", "p99 ms", "worst ms", "worst of a round, median", "beats", "idle loop: p99 / worst")
    return table(head, rows) + skipped if rows else ""


def _gap(record: Record) -> tuple[str, ...]:
    load = record["case"].removesuffix(UNFROZEN)
    return (
        f"`{load}`{record['case'].removeprefix(load)}",
        _ms(max(0.0, record["p50_ms"])),
        _ms(record["p99_ms"]),
        _ms(record["max_ms"]),
        _ms(record["median_max_ms"]),
        f"{record['beats']:,}",
        f"{_ms(max(0.0, record['idle_p99_ms']))} / {_ms(record['idle_max_ms'])}",
    )


def _memory(results: Results) -> str:
    done, skipped = split(results.of("memory"))

    def mib(value: float) -> str:
        return f"{value / 2**20:,.0f}"

    rows = []
    for record in done:
        folding = mib(record["fold_peak"] - record["start"]) if "fold_peak" in record else "no graph"
        seconds = f"{record['load_seconds']:,.1f} / " + (
            f"{record['fold_seconds']:,.1f}" if "fold_seconds" in record else "-"
        )
        rows.append(
            (
                _name(record),
                mib(record["start"]),
                mib(record["load_peak"] - record["start"]),
                folding,
                mib(record["reopen_peak"] - record["reopen_start"]),
                mib(record["index_bytes"]),
                mib(targets.peak_bytes(record)),
                seconds,
                f"{record['p50_ms']:.2f}, recall {record['recall']:.4f}",
            )
        )
    head = (
        "system",
        "process before, MiB",
        "peak over it: loading",
        "building the graph",
        "reopened and searching",
        "the index itself",
        "most of all",
        "load / build, s",
        "search p50 ms",
    )
    return table(head, rows) + skipped if rows else ""


SECTIONS: tuple[tuple[str, str, Callable[[Results], str]], ...] = (
    ("Bulk add", "bulk", _bulk),
    ("One durable add", "add", _add),
    ("One search", "search", _search),
    ("Vectors not yet in the graph", "tail", _tail),
    ("Under a filter", "filters", _filters),
    ("Many queries at once", "many", _many),
    ("Cold open", "open", _open),
    ("Delete and upsert", "change", _change),
    ("Event-loop gaps", "gaps", _gaps),
    ("Memory", "memory", _memory),
)

"""What memstore's speed is to be, and whether a run reached it."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from benchmarks.phases.stalls import LOADS
from benchmarks.results import Ratio, Record, Results
from benchmarks.workset import FILTERS

MS = 0.3
"""Milliseconds that a search under the narrowest filter may take beyond one and a half times the one by hand."""

MILLION = 1_000_000
_LARGE = 500_000


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table. *met* is None where nothing was measured."""

    what: str
    asked: str
    reached: str
    met: bool | None


def lines(results: Results) -> list[Line]:
    """Every target with what was reached, in the order of the phases."""
    return [line for part in _PARTS for line in part(results)]


def _missing(what: str, asked: str) -> Line:
    return Line(what, asked, "not measured", None)


def _at_least(what: str, ratio: Ratio | None, bound: float, asked: str) -> Line:
    return _missing(what, asked) if ratio is None else Line(what, asked, str(ratio), ratio.value >= bound)


def _at_most(what: str, ratio: Ratio | None, bound: float, asked: str) -> Line:
    return _missing(what, asked) if ratio is None else Line(what, asked, str(ratio), ratio.value <= bound)


def _done(record: Record | None) -> Record | None:
    return None if record is None or "skipped" in record else record


def _adding(results: Results) -> Iterator[Line]:
    raw, chroma = ("bulk", "raw", ""), ("bulk", "chroma", "")
    for case, name in (("", "add_many"), ("load", "load")):
        ours = ("bulk", "memstore", case)
        inverse = results.pair(raw, ours, "seconds")  # seconds of the one are a rate of the other
        yield _at_least(f"bulk, `{name}`, of the raw baseline's rows/s", inverse, 0.7, "at least 0.7")
    yield _at_least("bulk, times Chroma's rows/s", results.rates(("bulk", "memstore", ""), chroma), 20, "at least 20")
    ratio = results.pair(("add", "memstore", ""), ("add", "raw", ""), "p50_ms")
    yield _at_most("one add, times a raw FULL commit of the same rows", ratio, 2.2, "at most 2.2")
    what, asked = "50 concurrent adds, of the time of 50 in a row", "at most 15 %"
    record = _done(results.get("concurrent", "memstore"))
    yield Line(what, asked, f"{record['share']:.0%}", record["share"] <= 0.15) if record else _missing(what, asked)


def _asking(results: Results) -> Iterator[Line]:
    ours, what = ("search", "memstore", ""), "search, recall@10"
    record = _done(results.get(*ours))
    bound = 0.95 if results.rows >= _LARGE else 0.99
    asked = f"at least {bound}"
    yield Line(what, asked, f"{record['recall']:.4f}", record["recall"] >= bound) if record else _missing(what, asked)
    ratio = results.pair(ours, ("search", "usearch", ""), "p50_ms")
    yield _at_most("search, times usearch + sqlite3 by hand", ratio, 1.3, "at most 1.3")
    ratio = results.pair(ours, ("search", "chroma", ""), "p50_ms")
    yield _at_most("search, times Chroma", ratio, 1.0, "below 1")
    ratio = results.pair(("tail", "memstore-graph", "tail"), ("tail", "memstore-graph", "folded"), "p50_ms")
    record = _done(results.get("tail", "memstore-graph", "tail"))
    tail = (record or {}).get("state", {}).get("unindexed")
    said = f"search with {tail:,} vectors not in the graph" if tail is not None else "search with a tail"
    yield _at_most(f"{said}, times all in it", ratio, 3.0, "at most 3")
    what, asked = "100 queries by `search_many`, times faster than 100 searches", "at least 2"
    record = _done(results.get("many", "memstore"))
    faster = record["times_faster"] if record else 0.0
    yield Line(what, asked, f"{faster:.2f}", faster >= 2) if record else _missing(what, asked)


def _filtered(results: Results) -> Iterator[Line]:
    for name, rule in FILTERS.items():
        ours, theirs = ("filters", "memstore", name), ("filters", "faiss", name)
        if rule.against:
            continue
        if rule.share >= 0.01:
            ratio = results.pair(ours, theirs, "p50_ms")
            yield _at_most(f"{name}, times FAISS flat by hand", ratio, 1.5, "at most 1.5")
            continue
        mine, hand = _done(results.get(*ours)), _done(results.get(*theirs))
        what, asked = f"{name}, beyond 1.5 times FAISS flat by hand", f"at most {MS} ms"
        if mine is None or hand is None:
            yield _missing(what, asked)
            continue
        beyond = median(a["p50_ms"] - 1.5 * b["p50_ms"] for a, b in zip(mine["rounds"], hand["rounds"], strict=False))
        yield Line(what, asked, f"{beyond:.2f} ms", beyond <= MS)
    records = [record for name in FILTERS if (record := _done(results.get("filters", "memstore", name)))]
    if len(records) < len(FILTERS):
        yield _missing("filters, least recall@10 of all", "at least 0.99")
        yield _missing("filters, answers short of limit", "none")
        return
    worst = min(records, key=lambda record: float(record["recall"]))
    yield Line(
        "filters, least recall@10 of all, those against the query too",
        "at least 0.99",
        f"{worst['recall']:.4f} ({worst['case']})",
        worst["recall"] >= 0.99,
    )
    short = sum(record["short"] for record in records)
    yield Line("filters, answers short of limit", "none", f"{short:,}", short == 0)


def _opening(results: Results) -> Iterator[Line]:
    bound = 4.0 if results.rows >= _LARGE else 0.4
    what, asked = "cold open to first hit, file in the page cache", f"at most {bound} s"
    opened, reopened = _done(results.get("open", "memstore", "cached")), _done(results.get("memory", "memstore"))
    seconds = opened["seconds"] if opened else reopened["reopen_seconds"] if reopened else None
    yield _missing(what, asked) if seconds is None else Line(what, asked, f"{seconds:.2f} s", seconds <= bound)
    ratio = results.pair(("open", "memstore", "uncached"), ("open", "memstore", "read uncached"), "seconds")
    yield _at_most("the same, not in the page cache, times reading the table raw", ratio, 1.5, "at most 1.5")
    for verb in ("delete", "upsert"):
        ours, raw = ("change", "memstore", verb), ("change", "raw", verb)
        ratio = results.pair(raw, ours, "seconds")
        yield _at_least(f"{verb}, of raw sqlite3's rows/s", ratio, 0.8, "at least 0.8")


def _stalls(results: Results) -> Iterator[Line]:
    for load in LOADS:
        both = load == "together"
        bound = 8.0 if both else 5.0
        what = "fold, bulk and searches together" if both else f"`{load}`"
        record = _done(results.get("gaps", "memstore", load))
        asked = f"p99 at most {bound:.0f} ms" + ("" if both else ", worst 30 ms")
        if record is None:
            yield _missing(f"loop gaps, {what}", asked)
            continue
        reached = f"p99 {record['p99_ms']:.1f} ms, worst {record['max_ms']:.1f} ms"
        met = record["p99_ms"] <= bound and (both or record["max_ms"] <= 30)
        yield Line(f"loop gaps, {what}", asked, reached, met)


def _memory(results: Results) -> Iterator[Line]:
    if results.rows < MILLION:
        return
    for system, bound in (("memstore", 6), ("memstore-float16", 4)):
        record = _done(results.get("memory", system))
        what = f"{results.rows:,} built, closed, reopened, searched: {system}"
        asked = f"within {bound} GiB, recall@10 at least 0.95"
        if record is None:
            yield _missing(what, asked)
            continue
        peak = peak_bytes(record) / 2**30
        met = peak <= bound and record["recall"] >= 0.95
        yield Line(what, asked, f"{peak:.2f} GiB, recall {record['recall']:.4f}", met)


def peak_bytes(record: Record) -> int:
    """The most memory any process of the memory phase took, its own start included."""
    return max(int(record[key]) for key in ("load_peak", "fold_peak", "settled_peak", "reopen_peak") if key in record)


_PARTS = (_adding, _asking, _filtered, _opening, _stalls, _memory)

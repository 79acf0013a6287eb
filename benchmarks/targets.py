"""The speed targets of memstore, and whether the runs met them: in the default configuration, and in a variant."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from benchmarks.adapters import SYSTEMS
from benchmarks.event_loop import LOADS
from benchmarks.results import Ratio, Results
from benchmarks.workset import FILTERS

MILLION = 1_000_000
_LARGE = 500_000
_WORDS = {True: "met", False: "**missed**", None: ""}

Measure = Callable[[Results, str], Ratio | float | None]
"""The figure of a system; None if it was not measured."""


@dataclass(frozen=True, slots=True)
class Target:
    """One target: what it is, its figure, the bound, which of the two bounds it is, and other systems to show."""

    what: str
    measure: Measure
    bound: float
    at_least: bool = False
    format: str = "{:.2f}"
    system: str = "memstore"
    variant: str = ""

    def evaluate(self, results: Results, system: str) -> tuple[str, bool | None]:
        """The figure as text, and whether it meets the bound; None if it was not measured."""
        figure = self.measure(results, system)
        if figure is None:
            return "not measured", None
        value = figure.value if isinstance(figure, Ratio) else figure
        text = str(figure) if isinstance(figure, Ratio) else self.format.format(figure)
        return text, value >= self.bound if self.at_least else value <= self.bound


def target_table(results: Results) -> pd.DataFrame:
    """Every target with its bound, the figure, whether it is met, and the figure of the variant."""
    lines = []
    for target in targets(results.rows):
        bound = ("at least " if target.at_least else "at most ") + target.format.format(target.bound)
        text, met = target.evaluate(results, target.system)
        variant = ""
        if target.variant:
            variant_text, variant_met = target.evaluate(results, target.variant)
            name = SYSTEMS[target.variant].label.removeprefix("memstore, ")
            variant = f"{name}: {variant_text} {_WORDS[variant_met]}".strip()
        lines.append((target.what, bound, text, _WORDS[met], variant))
    return pd.DataFrame(lines, columns=["target", "bound", "default", "result", "variant"])


def targets(rows: int) -> list[Target]:
    """The targets for stores of this size."""
    history, indexed = "memstore-no-history", "memstore-indexed"
    large = rows >= _LARGE
    recall = 0.95 if large else 0.99
    concurrent, cold_open = _figure("concurrent", "share"), _figure("open", "seconds", "cached")
    least_recall, short = _over("filters", FILTERS, "recall", min), _over("filters", FILTERS, "short", sum)
    share, hand = "share of the raw baseline's rows/s", "times FAISS flat by hand"
    wide = [filter.name for filter in FILTERS.values() if not filter.adverse and filter.share >= 0.01]
    narrow = [filter.name for filter in FILTERS.values() if not filter.adverse and filter.share < 0.01]
    single = [load for load in LOADS if load != "combined"]
    delay, many = "event-loop delay", "100 queries by `search_many`, times faster than 100 searches"
    beyond, ms = "time beyond 1.5 times FAISS flat by hand", "{:.1f} ms"
    result = [
        Target(f"bulk, `add_many`, {share}", _inverse("bulk", "seconds"), 0.7, True, variant=history),
        Target(f"bulk, `load`, {share}", _inverse("bulk", "seconds", "load", ""), 0.7, True),
        Target("bulk, times Chroma's rows/s", _inverse("bulk", "seconds", other="chroma"), 20, True, variant=history),
        Target("one add, times a raw FULL commit", _ratio("add", "raw", "p50_ms"), 2.2, variant=history),
        Target("50 concurrent adds, share of 50 in a row", concurrent, 0.15, format="{:.0%}", variant=history),
        Target(f"upsert, {share}", _inverse("change", "seconds", "upsert", "upsert"), 0.8, True, variant=history),
        Target(f"delete, {share}", _inverse("change", "seconds", "delete", "delete"), 0.8, True, variant=history),
        Target("search, recall@10", _figure("search", "recall"), recall, True, "{:.4f}", variant=history),
        Target("search, times usearch + sqlite3 by hand", _ratio("search", "usearch", "p50_ms"), 1.3, variant=history),
        Target("search, times Chroma", _ratio("search", "chroma", "p50_ms"), 1.0, variant=history),
        Target("search with vectors outside the graph, times all inside", _unindexed, 3, system="memstore-graph"),
        Target(many, _figure("many", "speedup"), 2, True),
        *(Target(f"{name}, {hand}", _ratio("filters", "faiss", "p50_ms", name), 1.5, variant=indexed) for name in wide),
        *(Target(f"{name}, {beyond}", _beyond(name), 0.3, format="{:.2f} ms", variant=indexed) for name in narrow),
        Target("filters, least recall@10", least_recall, 0.99, True, "{:.4f}", variant=indexed),
        Target("filters, answers with too few hits", short, 0, format="{:.0f}", variant=indexed),
        Target("cold open to first hit, cached file", cold_open, 4 if large else 0.4, format="{:.2f} s"),
        Target("the same, uncached, times a bare read of the vectors", _uncached, 1.5),
        Target(f"{delay} under one load, largest p99", _over("gaps", single, "p99_ms", max), 5, format=ms),
        Target(f"{delay} under one load, worst", _over("gaps", single, "max_ms", max), 30, format=ms),
        Target(f"{delay} under the combined load, p99", _figure("gaps", "p99_ms", "combined"), 8, format=ms),
    ]  # fmt: skip
    if rows >= MILLION:
        for system, bound in (("memstore", 6), ("memstore-float16", 4)):
            name, peak = SYSTEMS[system].label, _figure("memory", "peak_mib")
            result.append(Target(f"peak memory, {name}", peak, bound * 1024, format="{:,.0f} MiB", system=system))
            what = f"recall@10 of that store, {name}"
            result.append(Target(what, _figure("memory", "recall"), 0.95, True, "{:.4f}", system))
    return result


def _figure(phase: str, figure: str, case: str = "") -> Measure:
    return lambda results, system: results.figure((phase, system, case), figure)


def _ratio(phase: str, other: str, figure: str, case: str = "") -> Measure:
    return lambda results, system: results.ratio((phase, system, case), (phase, other, case), figure)


def _inverse(phase: str, figure: str, case: str = "", other_case: str = "", other: str = "raw") -> Measure:
    """Seconds of the other system over seconds of the system: the ratio of their rates."""
    return lambda results, system: results.ratio((phase, other, other_case), (phase, system, case), figure)


def _beyond(case: str) -> Measure:
    def measure(results: Results, system: str) -> float | None:
        times = [results.figure(("filters", name, case), "p50_ms") for name in (system, "faiss")]
        return None if None in times else times[0] - 1.5 * times[1]

    return measure


def _over(phase: str, cases: list[str], figure: str, reduce: Callable[[list[float]], float]) -> Measure:
    """One figure over all cases."""

    def measure(results: Results, system: str) -> float | None:
        figures = [results.figure((phase, system, case), figure) for case in cases]
        return None if None in figures else reduce(figures)

    return measure


def _unindexed(results: Results, system: str) -> Ratio | None:
    return results.ratio(("unindexed", system, "unindexed"), ("unindexed", system, "complete"), "p50_ms")


def _uncached(results: Results, system: str) -> Ratio | None:
    return results.ratio(("open", system, "uncached"), ("open", system, "read uncached"), "seconds")

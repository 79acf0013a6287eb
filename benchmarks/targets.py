"""The speed targets of memstore, and whether the runs met them: in the default configuration, and in a variant."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import pandas as pd

from benchmarks.adapters import SYSTEMS
from benchmarks.event_loop import LOADS
from benchmarks.results import Ratio, Results
from benchmarks.workset import FILTERS

MILLION = 1_000_000
_LARGE = 500_000
_SINGLE_LOADS = tuple(load for load in LOADS if load != "combined")

Measure = Callable[[Results, str], Ratio | float | None]
"""A figure of a system; None if it was not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One target.

    Attributes:
        what: the figure, in words.
        measure: computes the figure.
        least: the lower bound, or None.
        most: the upper bound, or None.
        format: how to write the figure and the bound.
        system: the system that the target is for.
        variant: another configuration to compare with the bound, or "".
    """

    what: str
    measure: Measure
    least: float | None = None
    most: float | None = None
    format: str = "{:.2f}"
    system: str = "memstore"
    variant: str = ""

    @property
    def bound(self) -> str:
        """The bound in words."""
        word, value = ("at most", self.most) if self.least is None else ("at least", self.least)
        return f"{word} {self.format.format(value)}"

    def evaluate(self, results: Results, system: str) -> tuple[str, bool | None]:
        """The figure as text, and whether it meets the bound; None if it was not measured."""
        figure = self.measure(results, system)
        if figure is None:
            return "not measured", None
        value = figure.value if isinstance(figure, Ratio) else figure
        text = str(figure) if isinstance(figure, Ratio) else self.format.format(figure)
        return text, value >= self.least if self.least is not None else value <= self.most


def target_table(results: Results) -> pd.DataFrame:
    """Every target with its bound, the figure of its system and whether it is met, and the figure of the variant."""
    words = {True: "met", False: "**missed**", None: ""}
    lines = []
    for target in targets(results.rows):
        text, met = target.evaluate(results, target.system)
        variant = ""
        if target.variant:
            variant_text, variant_met = target.evaluate(results, target.variant)
            label = SYSTEMS[target.variant].label.removeprefix("memstore, ")
            variant = f"{label}: {variant_text}" + (f", {words[variant_met]}" if words[variant_met] else "")
        lines.append((target.what, target.bound, text, words[met], variant))
    return pd.DataFrame(lines, columns=["target", "bound", "default", "result", "variant"])


def targets(rows: int) -> Iterator[Target]:
    """The targets for stores of this size."""
    yield from _write_targets()
    yield from _search_targets(rows)
    yield from _filter_targets()
    yield from _resource_targets(rows)


def _ratio(
    numerator: str, denominator: str, phase: str, case: str, figure: str, results: Results, name: str
) -> Ratio | None:
    """The ratio of two systems; "" stands for the system under test."""
    keys = [(phase, system or name, case) for system in (numerator, denominator)]
    return results.ratio(keys[0], keys[1], figure)


def _figure(phase: str, case: str, figure: str, results: Results, name: str) -> float | None:
    return results.figure((phase, name, case), figure)


def _write_targets() -> Iterator[Target]:
    variant = "memstore-no-history"
    share = "share of the raw baseline's rows/s"
    for case, verb in (("", "add_many"), ("load", "load")):
        # seconds of the baseline over seconds of memstore are the inverse ratio of their rates
        measure = partial(_ratio, "raw", "", "bulk", case, "seconds") if not case else _load_ratio
        yield Target(what=f"bulk, `{verb}`, {share}", measure=measure, least=0.7, variant="" if case else variant)
    yield Target(what="bulk, times Chroma's rows/s", measure=_chroma_ratio, least=20, variant=variant)
    measure = partial(_ratio, "", "raw", "add", "", "p50_ms")
    yield Target(what="one add, times a raw FULL commit of the same rows", measure=measure, most=2.2, variant=variant)
    measure = partial(_figure, "concurrent", "", "share")
    what = "50 concurrent adds, share of the time of 50 in a row"
    yield Target(what=what, measure=measure, most=0.15, format="{:.0%}", variant=variant)
    for verb in ("upsert", "delete"):
        measure = partial(_ratio, "raw", "", "change", verb, "seconds")
        yield Target(what=f"{verb}, {share}", measure=measure, least=0.8, variant=variant)


def _load_ratio(results: Results, name: str) -> Ratio | None:
    return results.ratio(("bulk", "raw", ""), ("bulk", name, "load"), "seconds")


def _chroma_ratio(results: Results, name: str) -> float | None:
    rates = [results.figure(("bulk", system, ""), "rows_per_second") for system in (name, "chroma")]
    return None if None in rates else rates[0] / rates[1]


def _search_targets(rows: int) -> Iterator[Target]:
    recall = 0.95 if rows >= _LARGE else 0.99
    variant = "memstore-no-history"
    measure = partial(_figure, "search", "", "recall")
    yield Target(what="search, recall@10", measure=measure, least=recall, format="{:.4f}", variant=variant)
    for peer, name, bound in (("usearch", "usearch + sqlite3 by hand", 1.3), ("chroma", "Chroma", 1.0)):
        measure = partial(_ratio, "", peer, "search", "", "p50_ms")
        yield Target(what=f"search, times {name}", measure=measure, most=bound, variant=variant)
    what = "search with vectors outside the graph, times all inside it"
    yield Target(what=what, measure=_unindexed_ratio, most=3, system="memstore-graph")
    measure = partial(_figure, "many", "", "speedup")
    yield Target(what="100 queries by `search_many`, times faster than 100 searches", measure=measure, least=2)


def _unindexed_ratio(results: Results, name: str) -> Ratio | None:
    return results.ratio(("unindexed", name, "unindexed"), ("unindexed", name, "complete"), "p50_ms")


def _filter_targets() -> Iterator[Target]:
    variant = "memstore-indexed"
    for name, rule in FILTERS.items():
        if rule.adverse:
            continue
        if rule.share >= 0.01:
            measure = partial(_ratio, "", "faiss", "filters", name, "p50_ms")
            yield Target(what=f"{name}, times FAISS flat by hand", measure=measure, most=1.5, variant=variant)
        else:
            what = f"{name}, time beyond 1.5 times FAISS flat by hand"
            measure = partial(_time_beyond, name)
            yield Target(what=what, measure=measure, most=0.3, format="{:.2f} ms", variant=variant)
    least_recall, short = partial(_over_filters, "recall", min), partial(_over_filters, "short", sum)
    what = "filters, least recall@10, adverse filters included"
    yield Target(what=what, measure=least_recall, least=0.99, format="{:.4f}", variant=variant)
    yield Target(what="filters, answers with too few hits", measure=short, most=0, format="{:.0f}", variant=variant)


def _time_beyond(filter: str, results: Results, name: str) -> float | None:
    times = [results.figure(("filters", system, filter), "p50_ms") for system in (name, "faiss")]
    return None if None in times else times[0] - 1.5 * times[1]


def _over_filters(figure: str, reduce: Callable[[list[float]], float], results: Results, name: str) -> float | None:
    figures = [results.figure(("filters", name, filter), figure) for filter in FILTERS]
    return None if None in figures else reduce(figures)


def _resource_targets(rows: int) -> Iterator[Target]:
    what = "cold open to first hit, file in the page cache"
    measure = partial(_figure, "open", "cached", "seconds")
    yield Target(what=what, measure=measure, most=4.0 if rows >= _LARGE else 0.4, format="{:.2f} s")
    what = "the same, not in the page cache, times a bare read of the vectors"
    yield Target(what=what, measure=_uncached_ratio, most=1.5)
    for figure, bound in (("p99_ms", 5), ("max_ms", 30)):
        what = f"event-loop delay under one load, {'p99' if figure == 'p99_ms' else 'worst'}, largest of all loads"
        yield Target(what=what, measure=partial(_largest_delay, figure), most=bound, format="{:.1f} ms")
    what, measure = "event-loop delay under the combined load, p99", partial(_figure, "gaps", "combined", "p99_ms")
    yield Target(what=what, measure=measure, most=8, format="{:.1f} ms")
    if rows >= MILLION:
        for system, bound in (("memstore", 6), ("memstore-float16", 4)):
            what = f"peak memory, built, reopened and searched, {SYSTEMS[system].label}"
            yield Target(what=what, measure=_peak_gib, most=bound, format="{:.2f} GiB", system=system)
            what, measure = (
                f"recall@10 of the same store, {SYSTEMS[system].label}",
                partial(_figure, "memory", "", "recall"),
            )
            yield Target(what=what, measure=measure, least=0.95, format="{:.4f}", system=system)


def _uncached_ratio(results: Results, name: str) -> Ratio | None:
    return results.ratio(("open", name, "uncached"), ("open", name, "read uncached"), "seconds")


def _largest_delay(figure: str, results: Results, name: str) -> float | None:
    delays = [results.figure(("gaps", name, load), figure) for load in _SINGLE_LOADS]
    return None if None in delays else max(delays)


def _peak_gib(results: Results, name: str) -> float | None:
    peaks = [results.figure(("memory", name, ""), figure) for figure in ("load_peak", "build_peak", "reopen_peak")]
    return None if None in peaks else max(peaks) / 2**30

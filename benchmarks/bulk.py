"""Bulk add: every memory stored, durable and in the index, against the same rows by hand."""

from pathlib import Path
from statistics import median

from benchmarks.data import Data
from benchmarks.measures import Line, fresh, ratios, spread, timed
from benchmarks.systems import RAW, named

MEASURE = "bulk add"
TARGET = 0.4


async def run(data: Data, pairs: int, folder: Path | None) -> list[Line]:
    """One line a system: rows a second as a share of the raw baseline's. Each round begins with another system."""
    systems = named(["raw, no triggers", "add_many", "load"])
    times: dict[str, list[float]] = {name: [] for name in systems}
    order = list(systems)
    for i in range(pairs):
        for name in order[i % len(order) :] + order[: i % len(order)]:
            async with fresh(systems[name], data, folder) as system:
                times[name].append(await timed(system.bulk))
    return [_line(name, taken, times[RAW], len(data.items)) for name, taken in times.items()]


def _line(name: str, taken: list[float], raw: list[float], rows: int) -> Line:
    shares = ratios(raw, taken)
    share = median(shares)
    ours = not name.startswith(RAW)
    return Line(
        measure=MEASURE,
        name=name,
        reached=f"{share:.2f} of raw",
        target=f"at least {TARGET}" if ours else "",
        met=share >= TARGET if ours else None,
        detail=f"{rows / median(taken):,.0f} rows/s, rounds {spread(shares)}, seconds {spread(taken)}",
        figures={"ratio": share, "ratios": shares, "seconds": taken, "rows_per_second": rows / median(taken)},
    )

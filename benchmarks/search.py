"""One search with hydration, against a bare scan and a bare fetch of the same rows."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.data import Data
from benchmarks.measures import Line, fresh, milliseconds, ratios, spread, timed
from benchmarks.systems import RAW, System, named

MEASURE = "search, 10 hits"
TARGET = 2.0
LIMIT = 10


async def run(data: Data, searches: int, pairs: int, folder: Path | None) -> list[Line]:
    """One line a system: its time as a multiple of the raw baseline's, the median of the rounds.

    Within a round systems take turns, search by search. Each round opens all of them anew: where in memory a matrix
    happens to lie changes the time of a scan by a quarter, for the life of the matrix.

    Args:
        data: what is stored and asked.
        searches: how many of each system, in all rounds together.
        pairs: how many rounds.
        folder: where the files are made.
    """
    systems = named(["raw, on a thread", "add_many"])
    rounds = [await _round(systems, data, searches // pairs, folder) for _ in range(pairs)]
    return [_line(name, [times[name] for times in rounds], [times[RAW] for times in rounds]) for name in systems]


async def _round(
    systems: dict[str, Callable[[], System]], data: Data, searches: int, folder: Path | None
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in systems}
    async with AsyncExitStack() as stack:
        opened = {}
        for name, make in systems.items():
            opened[name] = await stack.enter_async_context(fresh(make, data, folder))
            await opened[name].bulk()
            await opened[name].ready()
        for query in data.queries[:20]:
            answers = [await system.search(query, LIMIT) for system in opened.values()]
            if any(answer != answers[0] for answer in answers):
                raise RuntimeError("the systems give different answers to one query: there is nothing to compare")
        order = list(opened)
        for i in range(searches):
            query = data.queries[i % len(data.queries)]
            for name in order[i % len(order) :] + order[: i % len(order)]:
                times[name].append(await timed(partial(opened[name].search, query, LIMIT)))
    return times


def _line(name: str, taken: list[list[float]], raw: list[list[float]]) -> Line:
    multiples = ratios([median(times) for times in taken], [median(times) for times in raw])
    multiple = median(multiples)
    paired = median(ratios([*chain(*taken)], [*chain(*raw)]))
    quiet = median(ratios([float(np.quantile(t, 0.1)) for t in taken], [float(np.quantile(t, 0.1)) for t in raw]))
    ours = not name.startswith(RAW)
    return Line(
        measure=MEASURE,
        name="memstore" if ours else name,
        reached=f"{multiple:.2f} times raw",
        target=f"at most {TARGET}" if ours else "",
        met=multiple <= TARGET if ours else None,
        detail=f"median {milliseconds([*chain(*taken)]):.2f} ms, rounds {spread(multiples)}, "
        f"of paired ratios {paired:.2f}, of 10th percentiles {quiet:.2f}",
        figures={"ratio": multiple, "rounds": multiples, "paired_ratio": paired, "p10_ratio": quiet, "seconds": taken},
    )

"""One search with hydration, against a bare scan and a bare fetch of the same rows."""

from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.data import Data
from benchmarks.measures import Line, fresh, milliseconds, quartiles, ratios, timed
from benchmarks.systems import RAW, named

MEASURE = "search, 10 hits"
TARGET = 2.0
LIMIT = 10


async def run(data: Data, searches: int, folder: Path | None) -> list[Line]:
    """One line a system: its time as a multiple of the raw baseline's.

    Systems take turns, search by search. The tenth percentiles are given too: a busy machine delays what changes
    threads more than what does not, and least in its quiet moments.
    """
    systems = named(["raw, on a thread", "add_many"])
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
    return [_line(name, taken, times[RAW]) for name, taken in times.items()]


def _line(name: str, taken: list[float], raw: list[float]) -> Line:
    multiples = ratios(taken, raw)
    multiple, paired = median(taken) / median(raw), median(multiples)
    ours = not name.startswith(RAW)
    quiet = float(np.quantile(taken, 0.1) / np.quantile(raw, 0.1))
    return Line(
        measure=MEASURE,
        name="memstore" if ours else name,
        reached=f"{multiple:.2f} times raw",
        target=f"at most {TARGET}" if ours else "",
        met=multiple <= TARGET if ours else None,
        detail=f"median {milliseconds(taken):.2f} ms, paired ratios {paired:.2f}, quartiles {quartiles(multiples)}, "
        f"10th percentiles {quiet:.2f}",
        figures={"ratio": multiple, "paired_ratio": paired, "p10_ratio": quiet, "ratios": multiples, "seconds": taken},
    )

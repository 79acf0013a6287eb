"""One search with hydration, against a bare scan and a bare fetch of the same rows."""

from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.data import Data
from benchmarks.measures import Line, fresh, milliseconds, quartiles, ratios, timed
from benchmarks.systems import RAW, named

MEASURE = "search, 10 hits"
TARGET = 2.0
LIMIT = 10


async def run(data: Data, searches: int, folder: Path | None) -> list[Line]:
    """One line a system: its time as a multiple of the raw baseline's. Systems take turns, search by search."""
    systems = named(["add_many"])
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
            for name in order if i % 2 else order[::-1]:
                times[name].append(await timed(partial(opened[name].search, query, LIMIT)))
    return [_line(name, taken, times[RAW]) for name, taken in times.items()]


def _line(name: str, taken: list[float], raw: list[float]) -> Line:
    multiples = ratios(taken, raw)
    multiple, paired = median(taken) / median(raw), median(multiples)
    ours = name != RAW
    return Line(
        measure=MEASURE,
        name="memstore" if ours else name,
        reached=f"{multiple:.2f} times raw",
        target=f"at most {TARGET}" if ours else "",
        met=multiple <= TARGET if ours else None,
        detail=f"median {milliseconds(taken):.2f} ms, of paired ratios {paired:.2f}, quartiles {quartiles(multiples)}",
        figures={"ratio": multiple, "paired_ratio": paired, "ratios": multiples, "seconds": taken},
    )

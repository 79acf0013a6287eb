"""How late the event loop comes back while the store works: a coroutine that wants to wake every millisecond.

What counts is how much later it wakes than in an idle loop, whose own median lateness is subtracted. Each load goes
on for some seconds. Python's garbage collector stops every thread while it looks at every object, the benchmark's
own among them; so each load is measured with these left out of its sight (`gc.freeze`) and with them in it.
"""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np

from benchmarks.data import Data
from benchmarks.measures import Line, fresh
from benchmarks.systems import SYSTEMS

MEASURE = "loop gaps"
TARGET = 10.0  # milliseconds, the 99th percentile
BEAT = 0.001

Late = list[float]
"""How much later than asked the loop came back, in seconds, beat by beat."""


async def run(data: Data, seconds: float, folder: Path | None) -> list[Line]:
    """One line a load, first with the benchmark's objects frozen, then without. *seconds* is the least a load lasts."""
    gc.freeze()
    idle = await _during(lambda: asyncio.sleep(seconds))
    lines = [_line("idle loop itself", idle, 0.0)]
    own = float(np.median(idle))
    for frozen in (True, False):
        if not frozen:
            gc.unfreeze()
        late = {name: await _filling(name, data, seconds, folder) for name in ("add_many", "load")}
        late[f"{len(data.queries)} searches at once"] = await _searching(data, seconds, folder)
        lines += [_line(_named(name, frozen), beats, own, TARGET) for name, beats in late.items()]
    return lines


def _named(name: str, frozen: bool) -> str:
    return name if frozen else f"{name}, not frozen"


async def _filling(name: str, data: Data, seconds: float, folder: Path | None) -> Late:
    late: Late = []
    while sum(late) + BEAT * len(late) < seconds:
        async with fresh(SYSTEMS[name], data, folder) as system:
            late += await _during(system.bulk)
    return late


async def _searching(data: Data, seconds: float, folder: Path | None) -> Late:
    late: Late = []
    async with fresh(SYSTEMS["add_many"], data, folder) as system:
        await system.bulk()
        await system.ready()
        while sum(late) + BEAT * len(late) < seconds:
            late += await _during(lambda: asyncio.gather(*(system.search(query, 10) for query in data.queries)))
    return late


async def _during(work: Callable[[], Awaitable[object]]) -> Late:
    late: Late = []
    working = True

    async def beat() -> None:
        while working:
            start = time.perf_counter()
            await asyncio.sleep(BEAT)
            late.append(time.perf_counter() - start - BEAT)

    heart = asyncio.create_task(beat())
    await asyncio.sleep(0)
    await work()
    working = False
    await heart  # its last beat saw how the work ended
    return late


def _line(name: str, late: Late, own: float, target: float | None = None) -> Line:
    p50, p99, most = (float(q) for q in (np.quantile(late, [0.5, 0.99, 1.0]) - own) * 1000)
    return Line(
        measure=MEASURE,
        name=name,
        reached=f"p99 {p99:.1f} ms",
        target=f"at most {target:.0f} ms" if target else "",
        met=p99 <= target if target else None,
        detail=f"p50 {p50:.2f}, max {most:.1f} ms, {len(late):,} beats in {sum(late) + BEAT * len(late):.1f} s",
        figures={"p50_ms": p50, "p99_ms": p99, "max_ms": most, "beats": len(late)},
    )

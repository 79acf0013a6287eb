"""How late the event loop wakes while the store works: a coroutine sleeps one millisecond at a time. Runs in a worker.

The median delay of the idle loop, measured before in the same process, is subtracted.
"""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.adapters.memstore import Memstore
from benchmarks.workset import Item, Workset

LOADS = ("add_many", "load", "searches", "open", "optimize", "rebuild", "combined")
_TICK = 0.001
_IDLE_SECONDS = 1.0
_SEARCHES = 500
_OPTIMIZE_ROWS = 2_000
_BULK_ROWS = 20_000
"""Most memories of one bulk: half a second to a second of work, repeated until the time is over."""


async def measure(load: str, folder: Path, workset: Workset, seconds: float, *, frozen: bool) -> dict[str, Any]:
    """The delays under one load, for at least *seconds*, in milliseconds. Changes the filled store in *folder*.

    Args:
        load: a method of `_Loads`.
        folder: the folder of the store.
        workset: the data.
        seconds: the least duration.
        frozen: hide the benchmark's own objects from the garbage collector.
    """
    items = list(workset.items(0, min(workset.rows, _BULK_ROWS)))
    await asyncio.to_thread(lambda: None)  # starts the thread pool
    gc.collect()
    if frozen:
        gc.freeze()
    idle: list[float] = []
    await record_delays(lambda: asyncio.sleep(_IDLE_SECONDS), idle)
    delays: list[float] = []
    await getattr(_Loads(workset, folder, seconds, delays, items), load)()
    offset = float(np.median(idle))
    return {**_summary(delays, offset), **{f"idle_{key}": value for key, value in _summary(idle, offset).items()}}


def _summary(delays: list[float], offset: float) -> dict[str, Any]:
    p50, p99, worst = (float(q) for q in (np.quantile(delays, [0.5, 0.99, 1.0]) - offset) * 1e3)
    return {"p50_ms": p50, "p99_ms": p99, "max_ms": worst, "ticks": len(delays)}


async def record_delays(work: Callable[[], Awaitable[object]], delays: list[float]) -> None:
    """Run *work* and append to *delays*, in seconds, how late each sleep of one millisecond ends meanwhile."""
    working = True

    async def tick() -> None:
        while working:
            start = time.perf_counter()
            await asyncio.sleep(_TICK)
            delays.append(time.perf_counter() - start - _TICK)

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0)
    try:
        await work()
    finally:
        working = False
        await ticker  # the last tick includes the end of the work


class _Loads:
    """The loads; each method is one."""

    def __init__(self, workset: Workset, folder: Path, seconds: float, delays: list[float], items: list[Item]) -> None:
        self._workset = workset
        self._folder = folder
        self._seconds = seconds
        self._delays = delays
        self._items = items

    def _unfinished(self) -> bool:
        return sum(self._delays) + _TICK * len(self._delays) < self._seconds

    async def _open(self, **options: object) -> Memstore:
        system = Memstore(self._workset, dict(options))
        await system.open(self._folder)
        await system.search(0)
        return system

    async def _bulk(self, bulk: str) -> None:
        number = 0
        while self._unfinished():
            number += 1
            folder = self._folder / f"new-{number}"
            folder.mkdir()
            system = Memstore(self._workset, {"bulk": bulk})
            rows = system.prepare(self._items)
            await system.open(folder)
            await record_delays(partial(system.bulk, rows), self._delays)
            await system.close()

    async def add_many(self) -> None:
        """Bulk after bulk, each into a new file with one call."""
        await self._bulk("add_many")

    async def load(self) -> None:
        """The same, committed chunk by chunk."""
        await self._bulk("load")

    async def searches(self) -> None:
        """Five hundred concurrent searches, again and again."""
        system = await self._open()
        queries = [i % len(self._workset.queries) for i in range(_SEARCHES)]
        while self._unfinished():
            await record_delays(lambda: asyncio.gather(*map(system.search, queries)), self._delays)
        await system.close()

    async def open(self) -> None:
        """Open, first hit, close."""

        async def open_once() -> None:
            await (await self._open()).close()

        while self._unfinished():
            await record_delays(open_once, self._delays)

    async def optimize(self) -> None:
        """Merge new vectors into the graph, some thousand at a time."""
        system = await self._open(index="graph")
        await system.optimize()
        first, count = self._workset.rows, min(_OPTIMIZE_ROWS, self._workset.extra_rows)
        start = first
        while self._unfinished():
            await system.bulk(system.prepare(list(self._workset.items(start, start + count))))
            start = first + (start - first + count) % max(1, self._workset.extra_rows - count + 1)
            await record_delays(system.optimize, self._delays)
        await system.close()

    async def rebuild(self) -> None:
        """Rebuild the index from the rows."""
        system = await self._open()
        while self._unfinished():
            await record_delays(system.store.repair, self._delays)
        await system.close()

    async def combined(self) -> None:
        """Merges into the graph, bulks and searches at the same time."""
        system = await self._open(index="graph")
        await system.optimize()
        rows = system.prepare(self._items[:5_000])
        end = time.perf_counter() + self._seconds

        async def repeat(call: Callable[[], Awaitable[object]]) -> None:
            while time.perf_counter() < end:
                await call()

        async def search() -> None:
            await asyncio.gather(*(system.search(query) for query in range(8)))

        async def work() -> None:
            await asyncio.gather(*map(repeat, (lambda: system.store.load(rows), system.optimize, search)))

        await record_delays(work, self._delays)
        await system.close()

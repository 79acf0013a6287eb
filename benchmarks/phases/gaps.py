"""How late the event loop comes back while the store works: a coroutine that wants to wake every millisecond.

Runs in a worker. What counts is how much later it wakes than in an idle loop, whose own median lateness, measured in
the same process just before, is subtracted.
"""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.adapters.ours import Memstore
from benchmarks.workset import Workset

BEAT = 0.001
_IDLE = 1.0
_SEARCHES = 500
_FOLDED = 2_000
_BULK = 20_000
"""Most memories of one bulk: half a second to a second; it is repeated until the time is over."""

Late = list[float]
"""How much later than asked the loop came back, in seconds, beat by beat."""


async def under(load: str, folder: Path, made: Workset, seconds: float, frozen: bool) -> dict[str, Any]:
    """The beats under one load, for *seconds* at least. *folder* holds a filled store, which is changed."""
    items = list(made.items(0, min(made.rows, _BULK)))
    await asyncio.to_thread(lambda: None)
    gc.collect()
    if frozen:
        gc.freeze()
    idle: Late = []
    await _during(lambda: asyncio.sleep(_IDLE), idle)
    late: Late = []
    work = _Work(made, folder, seconds, late, items)
    await getattr(work, load)()
    own = float(np.median(idle))
    return {**_told(late, own), "idle": _told(idle, own), "own_ms": own * 1e3, "lasted": _lasted(late)}


def _told(late: Late, own: float) -> dict[str, Any]:
    p50, p99, most = (float(q) for q in (np.quantile(late, [0.5, 0.99, 1.0]) - own) * 1e3)
    return {"p50_ms": p50, "p99_ms": p99, "max_ms": most, "beats": len(late)}


def _lasted(late: Late) -> float:
    return sum(late) + BEAT * len(late)


async def _during(work: Callable[[], Awaitable[object]], late: Late) -> None:
    working = True

    async def beat() -> None:
        while working:
            start = time.perf_counter()
            await asyncio.sleep(BEAT)
            late.append(time.perf_counter() - start - BEAT)

    heart = asyncio.create_task(beat())
    await asyncio.sleep(0)
    try:
        await work()
    finally:
        working = False
        await heart  # its last beat saw how the work ended


class _Work:
    """The loads; each method is one."""

    def __init__(self, made: Workset, folder: Path, seconds: float, late: Late, items: list[Any]) -> None:
        self._made = made
        self._folder = folder
        self._seconds = seconds
        self._late = late
        self._items = items

    def _more(self) -> bool:
        return _lasted(self._late) < self._seconds

    def _system(self, **options: object) -> Memstore:
        return Memstore(self._made, dict(options))

    async def add_many(self) -> None:
        """Bulk after bulk, each into a new file by one call."""
        await self._fill("add_many")

    async def load(self) -> None:
        """The same, committed chunk by chunk."""
        await self._fill("load")

    async def _fill(self, by: str) -> None:
        number = 0
        while self._more():
            number += 1
            folder = self._folder / f"new-{number}"
            folder.mkdir()
            system = self._system(by=by)
            prepared = system.prepare(self._items)
            await system.open(folder)
            await _during(partial(system.bulk, prepared), self._late)
            await system.close()

    async def searches(self) -> None:
        """Five hundred searches at once, again and again."""
        system = await self._opened()
        numbers = [i % len(self._made.queries) for i in range(_SEARCHES)]
        while self._more():
            await _during(lambda: asyncio.gather(*map(system.search, numbers)), self._late)
        await system.close()

    async def open(self) -> None:
        """Open, first hit, close."""
        while self._more():
            await _during(self._once, self._late)

    async def _once(self) -> None:
        await (await self._opened()).close()

    async def _opened(self) -> Memstore:
        system = self._system()
        await system.open(self._folder)
        await system.search(0)
        return system

    async def fold(self) -> None:
        """Bring new vectors into the graph, some thousand at a time."""
        system = self._system(index="graph")
        await system.open(self._folder)
        await system.fold()
        row = self._made.rows
        while self._more():
            start = self._made.rows + (row - self._made.rows) % max(1, self._made.extra - _FOLDED + 1)
            await system.bulk(system.prepare(list(self._made.items(start, start + min(_FOLDED, self._made.extra)))))
            row += _FOLDED
            await _during(system.fold, self._late)
        await system.close()

    async def rebuild(self) -> None:
        """Build the index anew from the rows."""
        system = await self._opened()
        while self._more():
            await _during(system.store.repair, self._late)
        await system.close()

    async def together(self) -> None:
        """A fold, a bulk and searches, all at once, for as long."""
        system = self._system(index="graph")
        await system.open(self._folder)
        await system.fold()
        prepared = system.prepare(self._items)
        end = time.perf_counter() + self._seconds

        async def over_and_over(call: Callable[[], Awaitable[object]]) -> None:
            while time.perf_counter() < end:
                await call()

        async def searched() -> None:
            await asyncio.gather(*(system.search(i) for i in range(8)))

        async def everything() -> None:
            loads = (lambda: system.store.load(prepared[:5_000]), system.fold, searched)
            await asyncio.gather(*map(over_and_over, loads))

        await _during(everything, self._late)
        await system.close()

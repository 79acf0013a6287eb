"""One process that holds one system: commands come as JSON lines on standard input, answers go as JSON lines out.

`python -m benchmarks.runner SYSTEM WORKSET`. All timing is done here, around the one call that is measured, so the
pipe between the processes is in no figure. Imports NumPy and the standard library, and what the adapter imports.
"""

import asyncio
import gc
import importlib.metadata
import json
import os
import platform
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from benchmarks.adapters import SYSTEMS, Item, System, Unsupported
from benchmarks.workset import FILTERS, Workset

Answer = dict[str, Any]


class Runner:
    """The commands. Each is a method; its keyword arguments are the command's, and it returns what is answered."""

    def __init__(self, system: System, made: Workset, imported: float) -> None:
        self._system = system
        self._made = made
        self._imported = imported
        self._prepared: Any = None

    async def facts(self) -> Answer:
        """Versions, and what the adapter says of itself."""
        sqlite3 = sys.modules.get("sqlite3") or importlib.import_module("sqlite3")
        return {
            "durability": self._system.durability,
            "kept": self._system.kept,
            "index": self._system.index,
            "versions": {name: _version(name) for name in self._system.packages},
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            "import_seconds": self._imported,
        }

    async def prepare(self, start: int, stop: int) -> Answer:
        """Read memories and bring them into the system's own form."""
        self._prepared = self._system.prepare(list(self._made.items(start, stop)))
        _quiet()
        return {}

    async def open(self, folder: str) -> Answer:
        """Open or create the store."""
        return {"seconds": await _timed(lambda: self._system.open(Path(folder)))}

    async def first(self, folder: str, query: int) -> Answer:
        """Open the store and ask it once."""
        _quiet()
        start = time.perf_counter()
        await self._system.open(Path(folder))
        opened = time.perf_counter() - start
        found = await self._system.search(query)
        return {"seconds": time.perf_counter() - start, "open_seconds": opened, "found": [hit.row for hit in found]}

    async def close(self) -> Answer:
        """Close the store."""
        return {"seconds": await _timed(self._system.close)}

    async def bulk(self) -> Answer:
        """Store what was prepared."""
        return {"seconds": await _timed(lambda: self._system.bulk(self._prepared))}

    async def settle(self) -> Answer:
        """What is recommended after a bulk."""
        return {"seconds": await _timed(self._system.settle)}

    async def state(self) -> Answer:
        """What the system says of itself."""
        return await self._system.state()

    async def search(self, queries: list[int], filter: str = "", budget: float = 1e9, warm: int = 0) -> Answer:
        """Ask one query after the other, until *budget* seconds are used, but three of them at least.

        The first *warm* are asked twice, and the first time is not counted.
        """
        rule = FILTERS[filter] if filter else None
        for query in queries[:warm]:
            await self._system.search(query, rule)
        times, found = [], []
        for query in queries:
            start = time.perf_counter()
            hits = await self._system.search(query, rule)
            times.append(time.perf_counter() - start)
            found.append([hit.row for hit in hits])
            if sum(times) > budget and len(times) >= 3:
                break
        return {"seconds": times, "queries": queries[: len(times)], "found": found}

    async def probe(self, query: int) -> Answer:
        """One answer in full, to be compared with what was stored."""
        hits = await self._system.search(query)
        told = [(h.metadata if isinstance(h.metadata, dict) else json.loads(h.metadata)) for h in hits]
        return {"hits": [[h.row, h.content, sorted(h.tags), m] for h, m in zip(hits, told, strict=True)]}

    async def many(self, queries: list[int], budget: float = 1e9) -> Answer:
        """All queries in one call, and one by one."""
        start = time.perf_counter()
        answers = await self._system.search_many(queries)
        together = time.perf_counter() - start
        one = await self.search(queries, budget=budget)
        found = [[hit.row for hit in hits] for hits in answers]
        alone = sum(one["seconds"]) / len(one["seconds"]) * len(queries)
        return {"together": together, "alone": alone, "found": found}

    async def add(self, start: int, stop: int, budget: float = 1e9) -> Answer:
        """Store memories one by one, each durable before the next, until *budget* seconds are used."""
        times = []
        for item in list(self._made.items(start, stop)):
            prepared = self._one(item)
            times.append(await _timed(prepared))
            if sum(times) > budget:
                break
        return {"seconds": times}

    def _one(self, item: Item) -> Callable[[], Awaitable[None]]:
        if type(self._system).add is not System.add:
            return lambda: self._system.add(item)
        prepared = self._system.prepare([item])  # what a bulk does not time, an add does not time either
        return lambda: self._system.bulk(prepared)

    async def together(self, start: int, stop: int) -> Answer:
        """The first half by as many concurrent calls, the second one after the other."""
        if not hasattr(self._system, "add_together"):
            raise Unsupported("no concurrent adds")
        items = list(self._made.items(start, stop))
        half = len(items) // 2
        concurrent = await _timed(lambda: self._system.add_together(items[:half]))  # type: ignore[attr-defined]
        alone = 0.0
        for item in items[half:]:
            alone += await _timed(lambda item=item: self._system.add(item))
        return {"concurrent": concurrent, "alone": alone}

    async def look_up(self) -> Answer:
        """Learn ids, where the system needs to."""
        if hasattr(self._system, "look_up"):
            await self._system.look_up()
        return {}

    async def change(self, verb: str, start: int, stop: int, batch: int, budget: float) -> Answer:
        """Delete or upsert rows, *batch* of them a transaction."""
        if type(self._system).rows_for_changes is System.rows_for_changes:
            raise Unsupported("not measured for this system")
        seconds, rows = 0.0, 0
        for first in range(start, stop, batch):
            prepared = self._system.rows_for_changes(first, first + batch)
            gc.collect()
            seconds += await _timed(lambda prepared=prepared: getattr(self._system, verb)(prepared))
            rows += batch
            if seconds > budget:
                break
        return {"seconds": seconds, "rows": rows}

    async def tell(self, rows: list[list[int]]) -> Answer:
        """The exact answers, for a system that searches nothing."""
        if hasattr(self._system, "tell"):
            self._system.tell(rows)
        return {}

    async def tune(self, effort: int) -> Answer:
        """How hard to search, where it can be said."""
        if hasattr(self._system, "tune"):
            self._system.tune(effort)
            return {"tuned": True}
        return {"tuned": False}

    async def memory(self, reset: bool = False) -> Answer:
        """Bytes of memory now and at most, since the start or the last *reset* (before which it is read)."""
        gc.collect()
        read = Path("/proc/self/status").read_text()
        told = {key: int(line.split()[1]) * 1024 for line in read.splitlines() for key in [line[:5]] if key in _SIZES}
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        return {"now": told["VmRSS"], "peak": told["VmHWM"]}

    async def load(self, rows: int) -> Answer:
        """Store memories that are read as they are stored, so that the process holds nothing but the store."""
        gc.collect()
        return {"seconds": await _timed(lambda: self._system.load(self._made.items(0, rows)))}  # type: ignore[attr-defined]

    async def fold(self) -> Answer:
        """Bring everything into the graph."""
        return {"seconds": await _timed(lambda: self._system.fold())}  # type: ignore[attr-defined]

    async def tail(self, start: int, stop: int) -> Answer:
        """Store memories in one call."""
        prepared = self._system.prepare(list(self._made.items(start, stop)))
        return {"seconds": await _timed(lambda: self._system.bulk(prepared))}

    async def read(self) -> Answer:
        """Read every stored vector by bare sqlite3."""
        start = time.perf_counter()
        read = self._system.read()  # type: ignore[attr-defined]
        return {"seconds": time.perf_counter() - start, "rows": len(read)}

    async def gaps(self, load: str, folder: str, seconds: float, frozen: bool) -> Answer:
        """How late the event loop comes back under a load."""
        from benchmarks.phases import gaps  # late: it imports memstore, which a peer's Python has not

        return await gaps.under(load, Path(folder), self._made, seconds, frozen)


_SIZES = ("VmRSS", "VmHWM")


def _quiet() -> None:
    """Hide what was made so far from the garbage collector, which stops every thread to look at it."""
    gc.collect()
    gc.freeze()


async def _timed(call: Callable[[], Awaitable[object]]) -> float:
    start = time.perf_counter()
    await call()
    return time.perf_counter() - start


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(importlib.import_module(name), "__version__", "unknown"))


async def _serve(runner: Runner, out: TextIO) -> None:
    """Answer command after command. Lines are read on a thread, so that the loop is free for the system's own tasks."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str] = asyncio.Queue()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line)
        loop.call_soon_threadsafe(lines.put_nowait, "")

    threading.Thread(target=read, daemon=True).start()
    while line := await lines.get():
        command = json.loads(line)
        try:
            answer = await getattr(runner, command.pop("do"))(**command)
        except Unsupported as no:
            answer = {"unsupported": str(no)}
        except Exception as error:  # noqa: BLE001 - whatever a system raises is reported as its result
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer, default=_plain), file=out, flush=True)


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else str(value)


def main() -> None:
    """Take the pipe for ourselves (a library that prints must not garble it), load the adapter, and serve."""
    name, folder, options = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    made = Workset(folder)
    start = time.perf_counter()
    named = SYSTEMS[name]
    make = named.load()
    imported = time.perf_counter() - start
    asyncio.run(_serve(Runner(make(made, named.options | options), made, imported), out))
    # a peer's own threads may never end; what matters was written when the store was closed
    sys.stdout.flush()
    out.flush()
    os._exit(0)


if __name__ == "__main__":
    main()

"""The worker process: holds one system, reads commands as JSON lines, writes answers as JSON lines.

`python -m benchmarks.runner SYSTEM WORKSET OPTIONS`. All times are taken here, around the measured call, so the pipe
is in no figure. Imports NumPy, the standard library, and what the adapter imports.
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

from benchmarks.adapters import SYSTEMS, Hit, System, Unsupported
from benchmarks.workset import FILTERS, Workset

Answer = dict[str, Any]


class Runner:
    """The commands: methods of this class, then those of the system, with the same keyword arguments."""

    def __init__(self, system: Any, workset: Workset, import_seconds: float) -> None:
        self._system = system
        self._workset = workset
        self._import_seconds = import_seconds
        self._rows: Any = None

    async def run(self, command: str, **arguments: Any) -> Answer:
        """Run one command. The answer of a method of the system is its result and its duration."""
        if hasattr(self, command):
            answer: Answer = await getattr(self, command)(**arguments)
            return answer
        start = time.perf_counter()
        result = await getattr(self._system, command)(**arguments)
        return {"seconds": time.perf_counter() - start, "result": result}

    async def facts(self) -> Answer:
        """Versions, and the adapter's description of the system."""
        sqlite3 = sys.modules.get("sqlite3") or importlib.import_module("sqlite3")
        return {
            "durability": self._system.durability,
            "durability_label": self._system.durability_label,
            "index": self._system.index,
            "versions": {name: _version(name) for name in self._system.packages},
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
        }

    async def prepare(self, start: int, stop: int) -> Answer:
        """Convert memories into the system's own format."""
        self._rows = self._system.prepare(list(self._workset.items(start, stop)))
        _freeze()
        return {}

    async def open(self, folder: str) -> Answer:
        """Open or create the store."""
        return {"seconds": await _timed(lambda: self._system.open(Path(folder)))}

    async def first_hit(self, folder: str, query: int) -> Answer:
        """Open the store and search once."""
        _freeze()
        start = time.perf_counter()
        await self._system.open(Path(folder))
        hits = await self._system.search(query)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "import_seconds": self._import_seconds, "rows": _rows(hits)}

    async def bulk(self) -> Answer:
        """Store the prepared rows."""
        return {"seconds": await _timed(lambda: self._system.bulk(self._rows))}

    async def load(self, rows: int) -> Answer:
        """Store a stream of memories, so that the process holds nothing but the store."""
        gc.collect()
        return {"seconds": await _timed(lambda: self._system.load(self._workset.items(0, rows)))}

    async def search(self, queries: list[int], filter: str = "", budget: float = 1e9, warm: int = 0) -> Answer:
        """Search one query after the other until *budget* seconds are used, at least three.

        The first *warm* queries run before without being counted, for at most a quarter of *budget*.
        """
        rule = FILTERS[filter] if filter else None
        end = time.perf_counter() + budget / 4
        for query in queries[:warm]:
            await self._system.search(query, rule)
            if time.perf_counter() > end:
                break
        times, answers = [], []
        for query in queries:
            start = time.perf_counter()
            hits = await self._system.search(query, rule)
            times.append(time.perf_counter() - start)
            answers.append(_rows(hits))
            if sum(times) > budget and len(times) >= 3:
                break
        return {"seconds": times, "queries": queries[: len(times)], "answers": answers}

    async def search_many(self, queries: list[int]) -> Answer:
        """All queries in one call, and one by one."""
        start = time.perf_counter()
        answers = await self._system.search_many(queries)
        together = time.perf_counter() - start
        single = await self.search(queries)
        return {"together": together, "single": sum(single["seconds"]), "answers": [_rows(hits) for hits in answers]}

    async def probe(self, query: int) -> Answer:
        """One full answer, for comparison with the stored data."""
        hits = await self._system.search(query)
        metadata = [hit.metadata if isinstance(hit.metadata, dict) else json.loads(hit.metadata) for hit in hits]
        return {"hits": [[h.row, h.content, sorted(h.tags), m] for h, m in zip(hits, metadata, strict=True)]}

    async def add(self, start: int, stop: int, budget: float = 1e9) -> Answer:
        """Store memories one by one, each durable before the next, until *budget* seconds are used."""
        single = type(self._system).add is not System.add
        times: list[float] = []
        for item in list(self._workset.items(start, stop)):
            if single:
                times.append(await _timed(lambda item=item: self._system.add(item)))
            else:
                rows = self._system.prepare([item])
                times.append(await _timed(lambda rows=rows: self._system.bulk(rows)))
            if sum(times) > budget:
                break
        return {"seconds": times}

    async def add_concurrently(self, start: int, stop: int) -> Answer:
        """The first half with one concurrent call each, the second half one after the other."""
        items = list(self._workset.items(start, stop))
        half = len(items) // 2
        concurrent = await _timed(lambda: self._system.add_concurrently(items[:half]))
        sequential = 0.0
        for item in items[half:]:
            sequential += await _timed(lambda item=item: self._system.add(item))
        return {"concurrent": concurrent, "sequential": sequential}

    async def change(self, verb: str, start: int, stop: int) -> Answer:
        """Delete or upsert rows in one transaction."""
        changes = self._system.prepare_changes(start, stop)
        gc.collect()
        return {"seconds": await _timed(lambda: getattr(self._system, verb)(changes))}

    async def memory(self, reset: bool = False) -> Answer:
        """Bytes of resident memory: now, and the peak since the start or the last *reset*."""
        gc.collect()
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        return {key: int(status[field].split()[0]) * 1024 for key, field in (("now", "VmRSS"), ("peak", "VmHWM"))}

    async def event_loop(self, load: str, folder: str, seconds: float, frozen: bool) -> Answer:
        """How late the event loop wakes under a load."""
        from benchmarks import event_loop  # lazy: imports memstore, which the peers' environments do not have

        return await event_loop.measure(load, Path(folder), self._workset, seconds, frozen=frozen)


def _rows(hits: list[Hit]) -> list[int]:
    return [hit.row for hit in hits]


def _freeze() -> None:
    """Hide the benchmark's own objects from the garbage collector, which stops every thread to scan them."""
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
    """Answer the commands in order. A thread reads the lines, so that the loop is free for the system's own tasks."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str] = asyncio.Queue()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line)
        loop.call_soon_threadsafe(lines.put_nowait, "")

    threading.Thread(target=read, daemon=True).start()
    while line := await lines.get():
        try:
            answer = await runner.run(**json.loads(line))
        except Unsupported as unsupported:
            answer = {"unsupported": str(unsupported)}
        except Exception as error:  # noqa: BLE001 - any error of a system is its result
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer, default=_to_json), file=out, flush=True)


def _to_json(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else str(value)


def main() -> None:
    """Load the adapter and serve commands."""
    name, folder, options = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")  # the pipe; what a library prints goes to standard error
    os.dup2(2, 1)
    workset = Workset(folder)
    start = time.perf_counter()
    spec = SYSTEMS[name]
    adapter = spec.load()
    import_seconds = time.perf_counter() - start
    asyncio.run(_serve(Runner(adapter(workset, spec.options | options), workset, import_seconds), out))
    sys.stdout.flush()
    out.flush()
    os._exit(0)  # threads of a peer may never end


if __name__ == "__main__":
    main()

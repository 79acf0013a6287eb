"""Times in pairs, and what is made of them.

On a machine that others use too, a time means little and a ratio of two times taken one right after the other means
much. So everything is timed in rounds in which every system has its turn, and the median of the rounds' ratios is
what counts.
"""

import gc
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.data import Data
from benchmarks.systems import System


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the report.

    Attributes:
        measure: what was measured.
        name: of what.
        reached: the figure that counts.
        target: what it is to be, in words; empty when this line has none.
        met: whether it is; None without a target.
        detail: other figures, in words.
        figures: everything measured, for the JSON file.
    """

    measure: str
    name: str
    reached: str
    target: str = ""
    met: bool | None = None
    detail: str = ""
    figures: dict[str, Any]


@asynccontextmanager
async def fresh(make: Callable[[], System], data: Data, folder: Path | None) -> AsyncIterator[System]:
    """An open system on a new file, with nothing left to write back from the one before."""
    with tempfile.TemporaryDirectory(prefix="memstore-bench-", dir=folder) as made:
        getattr(os, "sync", lambda: None)()
        system = make()
        await system.open(Path(made) / "bench.db", data)
        gc.collect()
        try:
            yield system
        finally:
            await system.close()


async def timed(call: Callable[[], Awaitable[object]]) -> float:
    """How many seconds *call* takes."""
    start = time.perf_counter()
    await call()
    return time.perf_counter() - start


def ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """What each round says of *ours* against *theirs*: ours / theirs."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def spread(values: list[float]) -> str:
    """Least to greatest."""
    return f"{min(values):.2f} to {max(values):.2f}"


def milliseconds(times: list[float]) -> float:
    """The median of *times* (seconds), in milliseconds."""
    return median(times) * 1000

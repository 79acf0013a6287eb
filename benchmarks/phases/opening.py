"""From a closed file to the first hit: in a fresh process each time, after its imports; the file cached, and not."""

import ctypes
import mmap
import os
import sys
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bench import Bench
from benchmarks.worker import Skipped

PHASE = "open"
_ALL = (
    "memstore", "memstore-exact", "memstore-graph", "memstore-float16", "faiss", "usearch",
    "chroma", "lancedb", "sqlite-vec", "qdrant", "langgraph",
)  # fmt: skip
_GONE = 0.05
"""A file of which more than this share is still in the page cache was not evicted, and is not measured."""

CACHED, UNCACHED = "cached", "uncached"


def run(bench: Bench) -> None:
    """All systems with their files in the page cache; memstore and a bare read of its table also without."""
    ours = bench.among("memstore", "memstore-exact")
    for name in bench.among(*_ALL):
        rounds: list[dict[str, Any]] = []
        try:
            with bench.copied(name) as folder:
                _first(bench, name, folder)
                for _ in range(bench.rounds):
                    bench.round()
                    rounds.append(_first(bench, name, folder))
        except Skipped as why:
            bench.record(PHASE, name, CACHED, skipped=str(why))
            continue
        _record(bench, name, CACHED, rounds)
    for name in ours:
        _beside_reading(bench, name)


def _record(bench: Bench, name: str, case: str, rounds: list[dict[str, Any]], **more: Any) -> None:
    bench.record(PHASE, name, case, seconds=median(told["seconds"] for told in rounds), **more, rounds=rounds)


def _first(bench: Bench, name: str, folder: Path) -> dict[str, Any]:
    with bench.worker(name) as worker:
        facts = worker.ask("facts")
        told = worker.ask("first", folder=str(folder), query=0)
        worker.ask("close")
    share = bench.judge.recall("", 0, told["found"])
    return {
        "seconds": told["seconds"],
        "open_seconds": told["open_seconds"],
        "import_seconds": facts["import_seconds"],
        "recall": share,
    }


def _beside_reading(bench: Bench, name: str) -> None:
    """Open and first hit, and a bare read of the same table, in turns, each from a copy that is not in memory."""
    rounds: dict[str, list[dict[str, Any]]] = {"read": [], "read uncached": [], UNCACHED: []}
    try:
        with bench.copied(name) as folder:
            if "raw" in bench.systems:
                bench.template()
            for _ in range(bench.rounds):
                bench.round()
                if "raw" in bench.systems:
                    _read(bench, folder)
                    rounds["read"].append(_read(bench, folder))
                    evict(folder)
                    rounds["read uncached"].append(_read(bench, folder))
                evict(folder)
                rounds[UNCACHED].append(_first(bench, name, folder))
    except Skipped as why:
        bench.record(PHASE, name, UNCACHED, skipped=str(why))
        return
    for case, told in rounds.items():
        if told:
            _record(bench, name, case, told)


def _read(bench: Bench, folder: Path) -> dict[str, Any]:
    with bench.worker("raw") as worker:
        worker.ask("open", folder=str(folder))
        told = worker.ask("read")
        worker.ask("close")
    return told


def evict(folder: Path) -> None:
    """Have the system drop what it holds of the files of a folder that nobody has open.

    Never for a live database: closing a file that SQLite has open in this process would drop its locks.

    Raises:
        Skipped: it cannot, or did not.
    """
    if not hasattr(os, "posix_fadvise"):
        raise Skipped("this system has no posix_fadvise")
    for file in folder.rglob("*"):
        if not file.is_file() or not file.stat().st_size:
            continue
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
        if (share := resident(file)) > _GONE:
            raise Skipped(f"{share:.0%} of the file stayed in the page cache")


def resident(file: Path) -> float:
    """The share of a file that is in the page cache."""
    if not sys.platform.startswith("linux"):
        raise Skipped("what is in the page cache is looked up on Linux only")
    size = file.stat().st_size
    pages = -(-size // mmap.PAGESIZE)
    told = (ctypes.c_ubyte * pages)()
    libc = ctypes.CDLL(None, use_errno=True)
    with (
        file.open("rb") as opened,
        mmap.mmap(opened.fileno(), size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as view,
    ):
        anchor = ctypes.c_char.from_buffer(view)
        failed = libc.mincore(ctypes.c_void_p(ctypes.addressof(anchor)), ctypes.c_size_t(size), told)
        del anchor
    if failed:
        raise Skipped("mincore failed")
    return sum(byte & 1 for byte in told) / pages

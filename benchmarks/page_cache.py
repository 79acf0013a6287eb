"""Drops files from the operating system's page cache, and checks that they are gone. Linux only."""

import ctypes
import mmap
import os
import sys
from pathlib import Path

from benchmarks.worker import Skipped

_MOST_RESIDENT = 0.05
"""A file with a larger share still in the cache counts as not evicted."""


def evict(folder: Path) -> None:
    """Drop the cached pages of all files in a folder that no process has open.

    Never call it on an open database: closing a file that SQLite has open in this process drops SQLite's locks.

    Raises:
        Skipped: the platform cannot do it, or the pages stayed.
    """
    if not hasattr(os, "posix_fadvise"):
        raise Skipped("this platform has no posix_fadvise")
    for file in folder.rglob("*"):
        if not file.is_file() or not file.stat().st_size:
            continue
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
        if (share := resident_share(file)) > _MOST_RESIDENT:
            raise Skipped(f"{share:.0%} of the file stayed in the page cache")


def resident_share(file: Path) -> float:
    """The share of a file's pages that are in the page cache.

    Raises:
        Skipped: the platform is not Linux, or `mincore` failed.
    """
    if not sys.platform.startswith("linux"):
        raise Skipped("the page cache can be inspected on Linux only")
    size = file.stat().st_size
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    libc = ctypes.CDLL(None, use_errno=True)
    with (
        file.open("rb") as handle,
        mmap.mmap(handle.fileno(), size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as view,
    ):
        anchor = ctypes.c_char.from_buffer(view)
        failed = libc.mincore(ctypes.c_void_p(ctypes.addressof(anchor)), ctypes.c_size_t(size), pages)
        del anchor  # the map cannot be closed while it is referenced
    if failed:
        raise Skipped("mincore failed")
    return sum(page & 1 for page in pages) / len(pages)

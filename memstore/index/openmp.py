"""The OpenMP runtimes loaded in this process, and whether FAISS can be loaded beside them.

The LLVM and Intel runtimes (libomp, libiomp) abort the process with "OMP: Error #15" when two copies are used in it.
GNU's libgomp and Microsoft's vcomp have no such check. FAISS bundles libgomp on Linux, libomp on macOS, vcomp on
Windows. Libraries are identified by their paths only: a call into a runtime would count as its first use.
"""

import ctypes
import re
import sys
from ctypes import wintypes
from pathlib import Path

_OPENMP = re.compile(r"(?:lib)?(?:g?omp(?!target)|iomp5|vcomp)[\w.-]*", re.IGNORECASE)
_LLVM = re.compile(r"(?:lib)?(?:omp|iomp5)", re.IGNORECASE)
_VENDORS = {"gomp": "GNU", "iomp": "Intel", "vcomp": "Microsoft", "omp": "LLVM"}  # by the first part in the name


def openmp_runtimes() -> list[str]:
    """Paths of the OpenMP runtimes loaded in this process, sorted."""
    return sorted({path for path in _loaded() if _OPENMP.match(Path(path).name)})


def describe_runtime(path: str) -> str:
    """The runtime at *path*, with the name of its vendor."""
    name = Path(path).name.lower()
    return f"{next(vendor for part, vendor in _VENDORS.items() if part in name)}'s, {path}"


def faiss_bundles_libomp() -> bool:
    """Whether FAISS bundles an LLVM runtime on this platform."""
    return sys.platform == "darwin"


def faiss_conflict() -> str | None:
    """Why loading FAISS could abort the process; None if it cannot."""
    if not faiss_bundles_libomp() or "faiss" in sys.modules:
        return None
    others = [path for path in openmp_runtimes() if _LLVM.match(Path(path).name)]
    if not others:
        return None
    return (
        f"FAISS bundles an OpenMP runtime, and another one is loaded already ({others[0]}): with both in use the "
        "process aborts (OMP: Error #15). Use engine='numpy', or install faiss and the other library from conda-forge, "
        "where they share one runtime."
    )


def _loaded() -> list[str]:
    if sys.platform == "linux":
        with Path("/proc/self/maps").open(encoding="utf-8", errors="surrogateescape") as maps:
            return [line.split(maxsplit=5)[5].strip() for line in maps if "/" in line]
    if sys.platform == "darwin":
        return _loaded_macos()
    if sys.platform == "win32":
        return _loaded_windows()
    return []


def _loaded_macos() -> list[str]:
    dyld = ctypes.CDLL(None)
    name_of, count = dyld["_dyld_get_image_name"], dyld["_dyld_image_count"]
    name_of.restype = ctypes.c_char_p
    names = (name_of(i) for i in range(count()))
    return [name.decode(errors="surrogateescape") for name in names if name]


def _loaded_windows() -> list[str]:
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined]
    process = kernel.GetCurrentProcess()
    modules = (wintypes.HMODULE * 4096)()
    needed = wintypes.DWORD()
    kernel.K32EnumProcessModules(process, modules, ctypes.sizeof(modules), ctypes.byref(needed))
    paths = []
    for module in modules[: needed.value // ctypes.sizeof(wintypes.HMODULE)]:
        buffer = ctypes.create_unicode_buffer(32_768)
        kernel.GetModuleFileNameW(wintypes.HMODULE(module), buffer, len(buffer))
        paths.append(buffer.value)
    return paths

"""What loading FAISS does to a process: run as a process of its own by `doctor`, which stays clean."""

import importlib
import json
import sys
from typing import Any

from memstore.index.openmp import faiss_conflict, openmp_runtimes


def probe() -> dict[str, Any]:
    """FAISS's version, what it was compiled with, and the OpenMP runtimes before and after it."""
    found: dict[str, Any] = {
        "before": openmp_runtimes(),
        "conflict": faiss_conflict(),
        "error": None,
        "version": None,
    }
    if found["conflict"] is None:
        try:
            faiss = importlib.import_module("faiss")
            found["version"] = faiss.__version__
            found["simd"] = faiss.get_compile_options().strip()
        except ImportError as error:
            found["error"] = str(error)
    return {**found, "after": openmp_runtimes()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe()))

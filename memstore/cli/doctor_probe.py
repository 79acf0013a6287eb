"""Imports FAISS and reports the OpenMP runtimes before and after. `doctor` runs it in a process of its own."""

import importlib
import json
import sys
from typing import Any

from memstore.index.openmp import faiss_conflict, openmp_runtimes


def probe() -> dict[str, Any]:
    """The version of FAISS, its compile options, and the OpenMP runtimes before and after its import."""
    report: dict[str, Any] = {
        "before": openmp_runtimes(),
        "conflict": faiss_conflict(),
        "error": None,
        "version": None,
    }
    if report["conflict"] is None:
        try:
            faiss = importlib.import_module("faiss")
            report["version"] = faiss.__version__
            report["simd"] = faiss.get_compile_options().strip()
        except ImportError as error:
            report["error"] = str(error)
    return {**report, "after": openmp_runtimes()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe()))

"""Tests that attack a store. Each has a short form, which runs by default, and a long one.

`MEMSTORE_<NAME>=<number>` sets the number of cases of a test, and `MEMSTORE_SEED` the only seed. A test prints its
seed and a summary, which `pytest -rP` shows.
"""

import os


def cases(name: str, default: int) -> int:
    """The number of cases that the environment sets."""
    return int(os.environ.get(f"MEMSTORE_{name}", default))


def seeds(*default: int) -> list[int]:
    """The seeds of a test."""
    return [int(os.environ["MEMSTORE_SEED"])] if "MEMSTORE_SEED" in os.environ else list(default)

"""Fixtures. At the end of a test, `check` must find nothing in the store of the fixture."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import pytest_asyncio

import memstore
from memstore.database.sqlite import sqlite3
from tests.guard import sitecustomize as guard

# Tests read files with the SQLite of the store: two SQLite libraries in one process drop each other's locks.
sys.modules["sqlite3"] = sqlite3

# A shell starts background jobs with SIGINT ignored, and children inherit that: tests of Ctrl-C need the default.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

DIMENSION = 8
GUARD = str(Path(guard.__file__).parent)
if GUARD not in os.environ.get("PYTHONPATH", "").split(os.pathsep):
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [GUARD, os.environ.get("PYTHONPATH")]))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One worker per core; none if a test is named by its id: one process starts faster and can be debugged."""
    if any("::" in argument for argument in config.args):
        return 0
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name a set by its sorted elements: all workers must collect the same test names."""
    return str(sorted(val, key=repr)) if isinstance(val, set | frozenset) else None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Set, before the fixtures of a test, whether it may use a network."""
    os.environ[guard.ALLOWED] = "allowed" if item.get_closest_marker("network") else "forbidden"


@pytest.fixture(autouse=True)
def _children_use_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the guard to the environment of processes that get their own."""
    start = subprocess.Popen.__init__

    def guarded(self: Any, *arguments: Any, **options: Any) -> None:
        if options.get("env") is not None:
            paths = [GUARD, options["env"].get("PYTHONPATH")]
            allowed = os.environ[guard.ALLOWED]
            options["env"] = {
                **options["env"],
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                guard.ALLOWED: allowed,
            }
        start(self, *arguments, **options)

    monkeypatch.setattr(subprocess.Popen, "__init__", guarded)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20_240_601)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of a database file that does not exist yet."""
    return tmp_path / "store.db"


@pytest_asyncio.fixture
async def store(path: Path) -> AsyncIterator[memstore.Store]:
    """A new cosine store of dimension 8; `check` must find nothing at the end."""
    async with memstore.open(path, dimension=DIMENSION, timeout=10.0) as opened:
        yield opened
        assert await opened.check() == []


def vectors(rng: np.random.Generator, count: int, dimension: int = DIMENSION) -> npt.NDArray[np.float32]:
    return rng.standard_normal((count, dimension)).astype(np.float32)

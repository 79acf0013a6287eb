"""Fixtures: every store ends its test whole."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import pytest_asyncio

import memstore
from memstore.database.sqlite import sqlite3

# Tests look into files by the SQLite that the store has: two in one process would drop each other's locks.
sys.modules["sqlite3"] = sqlite3

DIMENSION = 8


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20_240_601)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database file that does not exist yet."""
    return tmp_path / "store.db"


@pytest_asyncio.fixture
async def store(path: Path) -> AsyncIterator[memstore.Store]:
    """A fresh cosine store of dimension 8; the test ends with `check` finding nothing."""
    async with memstore.open(path, dimension=DIMENSION, timeout=10.0) as opened:
        yield opened
        assert await opened.check() == []


def vectors(rng: np.random.Generator, count: int, dimension: int = DIMENSION) -> npt.NDArray[np.float32]:
    return rng.standard_normal((count, dimension)).astype(np.float32)

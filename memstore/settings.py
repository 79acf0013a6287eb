"""One validated settings record; the part that gives data its meaning is stored in the file.

`Settings` is what the caller asked for. `Space` is what the file says its vectors are; it never changes after the
file is made, and a store whose caller asks for something else is not opened.
"""

import os
from dataclasses import dataclass
from typing import Literal, get_args

from memstore.errors import InvalidError

Metric = Literal["cosine", "inner_product", "l2"]
Durability = Literal["full", "relaxed"]
Engine = Literal["auto", "numpy", "faiss"]

MAX_DIMENSION = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What the vectors of a file are.

    Attributes:
        dimension: numbers per vector.
        metric: how they are compared.
        embedder: the name of the embedder that made them; None while nobody named one.
    """

    dimension: int
    metric: Metric
    embedder: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a store is opened.

    Attributes:
        path: the database file.
        dimension: numbers per vector; None means as stored, or the embedder's.
        metric: None means as stored, and `"cosine"` for a new file.
        timeout: seconds a write waits for other writers.
        durability: `"full"` syncs every commit to the disk; `"relaxed"` may lose the last commits at a power cut.
        read_only: refuse every write.
        engine: what computes distances; `"auto"` chooses.
        indexed_metadata: paths in metadata, as keys, that are to be indexed besides those that are.
    """

    path: str
    dimension: int | None = None
    metric: Metric | None = None
    timeout: float = 30.0
    durability: Durability = "full"
    read_only: bool = False
    engine: Engine = "auto"
    indexed_metadata: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        _one_of("metric", self.metric, (*get_args(Metric), None))
        _one_of("durability", self.durability, get_args(Durability))
        _one_of("engine", self.engine, get_args(Engine))
        if self.dimension is not None:
            check_dimension(self.dimension)
        if not isinstance(self.timeout, int | float) or isinstance(self.timeout, bool) or not 0 <= self.timeout < 1e6:
            raise InvalidError(f"timeout is in seconds, 0 to a million; got {self.timeout!r}")


def check_dimension(dimension: object) -> int:
    """*dimension* as a number of components a store can have, else `InvalidError`."""
    if not isinstance(dimension, int) or isinstance(dimension, bool) or not 1 <= dimension <= MAX_DIMENSION:
        raise InvalidError(f"dimension is a whole number, 1 to {MAX_DIMENSION:,}; got {dimension!r}")
    return dimension


def path_text(path: str | os.PathLike[str]) -> str:
    """*path* as an absolute path without links, as SQLite names the files beside it; anything else is refused."""
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str) or "\0" in text or not text:
        raise InvalidError(f"path is a text path to the database file; got {path!r}")
    if text == ":memory:":
        raise InvalidError(
            "a store is a file, so that several connections can share it; "
            "memstore.testing.temporary_store() gives one that goes away"
        )
    return os.path.realpath(text)


def _one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        words = ", ".join(repr(a) for a in allowed if a is not None)
        raise InvalidError(f"{name} is one of {words}; got {value!r}")

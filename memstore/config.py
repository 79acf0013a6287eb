"""One validated settings record; the part that gives data its meaning is stored in the file.

`Settings` is what the caller asked for. `Space` is what the file says its vectors are; it never changes after the
file is made, and a store whose caller asks for something else is not opened. `IndexSettings` say how the vectors are
searched: they are stored in the file, and each open may change them by `IndexOptions`.
"""

import os
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, Literal, get_args

from memstore.errors import InvalidError, short_repr
from memstore.vectors.space import ANGULAR_METRICS, MAX_CURVATURE, MAX_DIMENSION, MIN_CURVATURE, Metric, Space

Durability = Literal["full", "relaxed"]
Engine = Literal["auto", "numpy", "faiss"]
IndexKind = Literal["auto", "exact", "graph"]
VectorType = Literal["float32", "float16"]
Keep = Literal["full", "off"] | int
"""How much of its past a file keeps: all, nothing, or so many seconds of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphOptions:
    """Parameters of the search graph, by their usual names (HNSW: Malkov and Yashunin, arXiv:1603.09320).

    Attributes:
        m: links a vector has on the upper layers, 4 to 128; twice as many on the lowest. More find more and cost
            memory: about 8.3 * m + 12 bytes a vector.
        ef_construction: candidates that are looked at to link a new vector, 8 to 4,096. More make a better graph, and
            take as much longer to build.
        ef_search: candidates a search keeps, 8 to 65,536. More find more of the true neighbours and take as much
            longer. None measures what it takes on a sample of the stored vectors.
    """

    m: int = 16
    ef_construction: int = 128
    ef_search: int | None = None

    def __post_init__(self) -> None:
        _whole("m", self.m, 4, 128)
        _whole("ef_construction", self.ef_construction, 8, 4_096)
        if self.ef_search is not None:
            _whole("ef_search", self.ef_search, 8, 65_536)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOptions:
    """How vectors are searched: the argument `index` of `memstore.open`.

    Every attribute but `engine` is stored in the file. None means the stored value; a new file starts with
    `kind="auto"`, `vector_type="float32"` and `GraphOptions()`.

    Attributes:
        kind: `"exact"` compares the query with every allowed vector. `"graph"` walks a graph (FAISS's HNSW).
            `"auto"` is exact until an exact search takes about a millisecond, then uses the graph where it is faster.
        engine: `"numpy"`, `"faiss"`, or `"auto"`: FAISS from 5,000 vectors on where it can be loaded safely.
        vector_type: how the index stores vectors in memory. `"float16"` halves the memory and needs the cosine or the
            spherical metric. Rows are float32 in both cases, and hits are scored by the rows.
        graph: the parameters of the graph.
    """

    kind: IndexKind | None = None
    engine: Engine = "auto"
    vector_type: VectorType | None = None
    graph: GraphOptions | None = None

    def __post_init__(self) -> None:
        _one_of("kind", self.kind, (*get_args(IndexKind), None))
        _one_of("engine", self.engine, get_args(Engine))
        _one_of("vector_type", self.vector_type, (*get_args(VectorType), None))
        if self.graph is not None and not isinstance(self.graph, GraphOptions):
            raise InvalidError(
                f"graph is a memstore.GraphOptions, such as GraphOptions(m=32); got {short_repr(self.graph)}"
            )
        if self.kind == "graph" and self.engine == "numpy":
            raise InvalidError("the graph needs FAISS: leave out engine='numpy', or use kind='exact'")


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSettings:
    """The index options of an open store, all of them known. The file stores them as JSON.

    Attributes:
        kind: see `IndexOptions`.
        graph: see `IndexOptions`.
        vector_type: see `IndexOptions`.
    """

    kind: IndexKind = "auto"
    graph: GraphOptions = field(default_factory=GraphOptions)
    vector_type: VectorType = "float32"

    def __post_init__(self) -> None:
        _one_of("kind", self.kind, get_args(IndexKind))
        _one_of("vector_type", self.vector_type, get_args(VectorType))

    @classmethod
    def stored(cls, values: dict[str, Any] | None) -> "IndexSettings":
        """The settings of which `as_stored` made *values*; the defaults for None and for unreadable values."""
        try:
            fields = {"kind" if name == "index" else name: value for name, value in (values or {}).items()}
            return cls(**{**fields, "graph": GraphOptions(**fields.get("graph", {}))})
        except (TypeError, ValueError, AttributeError):
            return cls()

    def as_stored(self) -> dict[str, Any]:
        """The settings as JSON."""
        return {"index": self.kind, "graph": asdict(self.graph), "vector_type": self.vector_type}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a store is opened.

    Attributes:
        path: the database file.
        dimension: numbers per vector; None means as stored, or the embedder's.
        metric: None means as stored, and `"cosine"` for a new file.
        curvature: of the ball of `"hyperbolic"`; None means as stored, and 1.0 for a new file.
        timeout: seconds a write waits for other writers.
        durability: `"full"` syncs every commit to the disk; `"relaxed"` may lose the last commits at a power cut.
        read_only: refuse every write.
        index: how vectors are searched.
        history: how much of its past the file keeps; None means as the file was last opened.
        indexed_metadata: paths in metadata, as keys, that are to be indexed besides those that are.
        half_life: seconds in which the activation of an assembly comes down to half.
    """

    path: str
    dimension: int | None = None
    metric: Metric | None = None
    curvature: float | None = None
    timeout: float = 30.0
    durability: Durability = "full"
    read_only: bool = False
    index: IndexOptions = field(default_factory=IndexOptions)
    history: Keep | None = None
    indexed_metadata: tuple[tuple[str, ...], ...] = ()
    half_life: float = 86_400.0

    def __post_init__(self) -> None:
        _one_of("metric", self.metric, (*get_args(Metric), None))
        _one_of("durability", self.durability, get_args(Durability))
        if self.dimension is not None:
            check_dimension(self.dimension)
        if self.curvature is not None:
            check_curvature(self.curvature, self.metric)
        check_timeout(self.timeout)

    def new_space(self, dimension: int) -> Space:
        """What the vectors of a new file are. Raises `InvalidError` for a curvature without the metric that has one."""
        metric = self.metric or "cosine"
        if self.curvature is not None:
            check_curvature(self.curvature, metric)
        curvature = 1.0 if self.curvature is None else float(self.curvature)
        return Space(dimension=dimension, metric=metric, curvature=curvature if metric == "hyperbolic" else None)

    def index_settings(self, stored: IndexSettings, metric: Metric) -> IndexSettings:
        """The options asked for, and the *stored* ones for the rest.

        Raises:
            InvalidError: *metric* does not allow the vector type.
        """
        vector_type = self.index.vector_type or (stored.vector_type if metric in ANGULAR_METRICS else "float32")
        if vector_type == "float16" and metric not in ANGULAR_METRICS:
            raise InvalidError(
                "vector_type='float16' needs the cosine metric or spherical, whose vectors have length 1: under "
                f"{metric} a component may exceed the range of float16. Use vector_type='float32'"
            )
        return IndexSettings(
            kind=self.index.kind or stored.kind, graph=self.index.graph or stored.graph, vector_type=vector_type
        )


def check_index(index: object) -> IndexOptions:
    """*index*, a kind or `IndexOptions` or None, as `IndexOptions`, else `InvalidError`."""
    if isinstance(index, IndexOptions):
        return index
    _one_of("index", index, (*get_args(IndexKind), None))
    return IndexOptions(kind=index)  # type: ignore[arg-type]


def check_keep(history: object) -> Keep | None:
    """*history* as what a file keeps of its past, else `InvalidError`."""
    if history is None or (isinstance(history, str) and history in ("full", "off")):
        return history  # type: ignore[return-value]
    if isinstance(history, timedelta) and history >= timedelta(seconds=1):
        return int(history.total_seconds())
    raise InvalidError(
        f"history is 'full', 'off', or a timedelta of a second or more to keep; got {short_repr(history)}"
    )


def check_dimension(dimension: object) -> int:
    """*dimension* as a number of components a store can have, else `InvalidError`."""
    return _whole("dimension", dimension, 1, MAX_DIMENSION)


def check_curvature(curvature: object, metric: Metric | None) -> float:
    """*curvature* as that of a ball, else `InvalidError`; so too where *metric*, if it is known, has none."""
    real = isinstance(curvature, int | float) and not isinstance(curvature, bool)
    if not real or not MIN_CURVATURE <= curvature <= MAX_CURVATURE:  # type: ignore[operator]
        raise InvalidError(
            f"curvature is a number, {MIN_CURVATURE:g} to {MAX_CURVATURE:g}: the space is curved by minus so much; "
            f"got {short_repr(curvature)}"
        )
    if metric not in ("hyperbolic", None):
        raise InvalidError(f"the metric {metric!r} has no curvature: leave it out, or say metric='hyperbolic'")
    return curvature  # type: ignore[return-value]


def check_timeout(timeout: object) -> float:
    """*timeout* as seconds to wait, else `InvalidError`."""
    if not isinstance(timeout, int | float) or isinstance(timeout, bool) or not 0 <= timeout < 1e6:
        raise InvalidError(f"timeout is in seconds, 0 to a million; got {short_repr(timeout)}")
    return timeout


def path_text(path: str | os.PathLike[str]) -> str:
    """*path* as an absolute path without links, as SQLite names the files beside it; anything else is refused."""
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str) or "\0" in text or not text:
        raise InvalidError(f"path is a text path to the database file; got {short_repr(path)}")
    if text == ":memory:":
        raise InvalidError(
            "a store is a file, so that several connections can share it; "
            "memstore.testing.temporary_store() gives one that goes away"
        )
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        raise InvalidError(
            f"path {short_repr(text)} holds half of a surrogate pair, which no file's name does"
        ) from error
    try:
        return os.path.realpath(text)
    except OSError as error:
        raise InvalidError(f"path {short_repr(path)} leads where one may not look ({error.strerror})") from error


def _whole(name: str, value: object, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidError(f"{name} is a whole number, {least:,} to {most:,}; got {short_repr(value)}")
    return value


def _one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if not (value is None or isinstance(value, str)) or value not in allowed:
        words = ", ".join(repr(a) for a in allowed if a is not None)
        raise InvalidError(f"{name} is one of {words}; got {short_repr(value)}")

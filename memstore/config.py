"""The validated settings of a store.

`Settings` are the arguments of `open`. `Space` describes the vectors of a file: it is fixed when the file is created,
and an `open` that requests another one fails. `IndexSettings` say how vectors are searched: the file stores them, and
each `open` may change them by `IndexOptions`.
"""

import os
from dataclasses import asdict, dataclass, field, fields
from datetime import timedelta
from typing import Any, Literal, get_args

import numpy as np

from memstore.errors import InvalidError, short_repr
from memstore.vectors.scalars import plain_scalar
from memstore.vectors.space import ANGULAR_METRICS, MAX_CURVATURE, MAX_DIMENSION, MIN_CURVATURE, Metric, Space

Durability = Literal["full", "relaxed"]
EngineName = Literal["auto", "numpy", "faiss"]
IndexKind = Literal["auto", "exact", "graph"]
VectorType = Literal["float32", "float16"]
Keep = Literal["full", "off"] | int
"""How much history a file keeps: all, none, or a number of seconds."""

DEFAULT_KEEP: Keep = 30 * 86_400
"""How much history a new file keeps: 30 days."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphOptions:
    """Parameters of the search graph, by their usual names (HNSW: Malkov and Yashunin, arXiv:1603.09320).

    Attributes:
        m: links of a vector on each upper layer, 4 to 128; twice as many on the lowest. More links raise recall and
            memory: about 8.3 * m + 12 bytes a vector.
        ef_construction: candidates that are compared to link a new vector, 8 to 4,096. More candidates raise recall,
            and build time in proportion.
        ef_search: candidates of a search, 8 to 65,536. More candidates raise recall, and search time in proportion.
            None measures the number that is needed on a sample of the stored vectors.
    """

    m: int = 16
    ef_construction: int = 128
    ef_search: int | None = None

    def __post_init__(self) -> None:
        _set_plain(self)
        _check_whole("m", self.m, 4, 128)
        _check_whole("ef_construction", self.ef_construction, 8, 4_096)
        if self.ef_search is not None:
            _check_whole("ef_search", self.ef_search, 8, 65_536)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOptions:
    """How vectors are searched: the argument `index` of `memstore.open`.

    Every attribute but `engine` is stored in the file. None means the stored value; a new file starts with
    `kind="auto"`, `vector_type="float32"` and `GraphOptions()`.

    Attributes:
        kind: `"exact"` compares the query with every allowed vector. `"graph"` walks a graph (FAISS's HNSW), unless it
            is measured to find less than 95 % of the nearest. `"auto"` is exact until an exact search takes about a
            millisecond, then uses the graph where it is faster.
        engine: `"numpy"`, `"faiss"`, or `"auto"`: FAISS from 5,000 vectors on where it can be loaded safely.
        vector_type: how the index stores vectors in memory. `"float16"` halves the memory and needs the cosine or the
            spherical metric. Rows are float32 in both cases, and hits are scored by the rows; an exact search finds
            the same hits with both.
        graph: the parameters of the graph.
    """

    kind: IndexKind | None = None
    engine: EngineName = "auto"
    vector_type: VectorType | None = None
    graph: GraphOptions | None = None

    def __post_init__(self) -> None:
        _set_plain(self)
        _check_one_of("kind", self.kind, (*get_args(IndexKind), None))
        _check_one_of("engine", self.engine, get_args(EngineName))
        _check_one_of("vector_type", self.vector_type, (*get_args(VectorType), None))
        if self.graph is not None and not isinstance(self.graph, GraphOptions):
            raise InvalidError(
                "Invalid graph: expected a memstore.GraphOptions, such as GraphOptions(m=32), "
                f"found {short_repr(self.graph)}"
            )
        if self.kind == "graph" and self.engine == "numpy":
            raise InvalidError("The graph needs FAISS: leave out engine='numpy', or use kind='exact'")


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
        _check_one_of("kind", self.kind, get_args(IndexKind))
        _check_one_of("vector_type", self.vector_type, get_args(VectorType))

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
        path: the database file, without symbolic links.
        link: the path that the caller gave, if symbolic links are in it.
        dimension: components per vector; None means as stored, and for a new file as its first vector.
        embedder_dimension: the dimension that the embedder states: expected of vectors, stored with the first one.
        metric: None means as stored, and `"cosine"` for a new file.
        curvature: magnitude c > 0 of the curvature -c of the Poincaré ball, for `"hyperbolic"`; None means as stored,
            and 1.0 for a new file.
        timeout: seconds a write waits for other writers.
        durability: `"full"` syncs every commit to the disk; `"relaxed"` may lose the last commits at a power cut.
        read_only: refuse every write.
        index: how vectors are searched.
        history: how much history the file keeps; None means as the file was last opened, 30 days for a new file.
        indexed_metadata: paths in metadata, as keys, to index in addition to those that are indexed.
        half_life: seconds in which the activation of an assembly decays to half.
    """

    path: str
    dimension: int | None = None
    embedder_dimension: int | None = None
    metric: Metric | None = None
    curvature: float | None = None
    timeout: float = 30.0
    durability: Durability = "full"
    read_only: bool = False
    index: IndexOptions = field(default_factory=IndexOptions)
    history: Keep | None = None
    indexed_metadata: tuple[tuple[str, ...], ...] = ()
    half_life: float = 86_400.0
    link: str | None = None

    def __post_init__(self) -> None:
        _set_plain(self)
        _check_one_of("metric", self.metric, (*get_args(Metric), None))
        _check_one_of("durability", self.durability, get_args(Durability))
        if self.dimension is not None:
            check_dimension(self.dimension)
        if self.curvature is not None:
            check_curvature(self.curvature, self.metric)
        check_timeout(self.timeout)

    def new_space(self) -> Space:
        """The space of a new file. Raises `InvalidError` for a curvature under a metric that has none."""
        metric = self.metric or "cosine"
        if self.curvature is not None:
            check_curvature(self.curvature, metric)
        curvature = 1.0 if self.curvature is None else float(self.curvature)
        return Space(
            dimension=self.dimension or 0, metric=metric, curvature=curvature if metric == "hyperbolic" else None
        )

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
    index = plain_scalar(index)
    _check_one_of("index", index, (*get_args(IndexKind), None))
    return IndexOptions(kind=index)  # type: ignore[arg-type]


def check_keep(history: object) -> Keep | None:
    """*history* as the history that a file keeps, else `InvalidError`."""
    history = plain_scalar(history)
    if history is None or (isinstance(history, str) and history in ("full", "off")):
        return history  # type: ignore[return-value]
    if isinstance(history, timedelta) and history >= timedelta(seconds=1):
        return int(history.total_seconds())
    raise InvalidError(
        f"Invalid history: expected 'full', 'off' or a timedelta of at least one second, found {short_repr(history)}"
    )


def check_dimension(dimension: object) -> int:
    """*dimension* as the dimension of a store, else `InvalidError`."""
    return _check_whole("dimension", dimension, 1, MAX_DIMENSION)


def check_curvature(curvature: object, metric: Metric | None) -> float:
    """*curvature* as the magnitude of a curvature, else `InvalidError`; also if *metric* has no curvature."""
    curvature = plain_scalar(curvature)
    is_number = isinstance(curvature, int | float) and not isinstance(curvature, bool)
    if not is_number or not MIN_CURVATURE <= curvature <= MAX_CURVATURE:  # type: ignore[operator]
        raise InvalidError(
            f"Invalid curvature: expected a number from {MIN_CURVATURE:g} to {MAX_CURVATURE:g} (the curvature of the "
            f"space is minus that number), found {short_repr(curvature)}"
        )
    if metric not in ("hyperbolic", None):
        raise InvalidError(f"The metric {metric!r} has no curvature: leave curvature out, or use metric='hyperbolic'")
    return curvature  # type: ignore[return-value]


def check_timeout(timeout: object) -> float:
    """*timeout* as seconds to wait, else `InvalidError`."""
    timeout = plain_scalar(timeout)
    if not isinstance(timeout, int | float) or isinstance(timeout, bool) or not 0 <= timeout < 1e6:
        raise InvalidError(f"Invalid timeout: expected seconds from 0 to 1,000,000, found {short_repr(timeout)}")
    return timeout


def path_text(path: str | os.PathLike[str]) -> str:
    """*path* as an absolute path without symbolic links, as SQLite names the files beside it, else `InvalidError`."""
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str) or "\0" in text or not text:
        raise InvalidError(f"Invalid path: expected the text path of a database file, found {short_repr(path)}")
    if text == ":memory:":
        raise InvalidError(
            "A store needs a file, because several connections share it: "
            "use memstore.testing.temporary_store() for a temporary one"
        )
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        raise InvalidError(
            f"Invalid path {short_repr(text)}: it contains half of a surrogate pair, which a file name cannot contain"
        ) from error
    try:
        return os.path.realpath(text)
    except OSError as error:
        raise InvalidError(
            f"Cannot read path {short_repr(path)} ({error.strerror}): check the permissions of its folders"
        ) from error


def linked_path(path: str | os.PathLike[str]) -> str | None:
    """*path*, absolute, if symbolic links are in it; else None."""
    absolute = os.path.abspath(path)
    return None if absolute == path_text(path) else absolute


def _set_plain(options: object) -> None:
    """Replace NumPy's scalars among the attributes of a frozen dataclass by the Python values they equal."""
    for attribute in fields(options):  # type: ignore[arg-type]  # of a dataclass
        value = getattr(options, attribute.name)
        if isinstance(value, np.generic):
            object.__setattr__(options, attribute.name, plain_scalar(value))


def _check_whole(name: str, value: object, minimum: int, maximum: int) -> int:
    value = plain_scalar(value)
    if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
        raise InvalidError(
            f"Invalid {name}: expected a whole number from {minimum:,} to {maximum:,}, found {short_repr(value)}"
        )
    return value


def _check_one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if not (value is None or isinstance(value, str)) or value not in allowed:
        choices = ", ".join(repr(choice) for choice in allowed if choice is not None)
        raise InvalidError(f"Invalid {name}: expected one of {choices}, found {short_repr(value)}")

"""The systems under test: one adapter each, run in a process of its own by `benchmarks.runner`.

An adapter works as the documentation of its system recommends. An adapter of a peer runs on the Python of the peer's
virtual environment, so it imports neither memstore nor any benchmark module except this one and `workset`.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.workset import Filter, Item, Workset


class Unsupported(Exception):  # noqa: N818 - a result of a measurement, not a failure
    """The system does not have this feature; the message says which."""


class Hit(NamedTuple):
    """One hit with everything that was stored except the vector. *metadata* may be JSON text."""

    row: int
    content: str
    tags: Sequence[str]
    metadata: Any


class System(ABC):
    """One store. All operations are coroutines, so that one piece of code times them all.

    Attributes:
        durability: what is on disk when a write returns.
        durability_label: the same in one or two words, for charts.
        index: the kind of search.
        packages: distributions whose versions the report lists.
    """

    durability: str
    durability_label: str
    index: str
    packages: tuple[str, ...] = ()

    def __init__(self, workset: Workset, options: dict[str, Any]) -> None:
        self.workset = workset
        self.options = options

    @abstractmethod
    async def open(self, folder: Path) -> None:
        """Open the store in *folder* so that it can be searched; create it in an empty folder."""

    def prepare(self, items: list[Item]) -> Any:
        """Convert *items* into the system's own row format. Not timed."""
        return items

    @abstractmethod
    async def bulk(self, rows: Any) -> None:
        """Store prepared rows. Afterwards they are searchable, and durable as `durability` states."""

    async def settle(self) -> None:  # noqa: B027 - most systems need nothing here
        """Do what the documentation recommends once after a bulk: build an index, compact, checkpoint."""

    async def add(self, item: Item) -> None:  # noqa: ARG002
        """Store one memory and wait until it is durable."""
        raise Unsupported("no single add")

    @abstractmethod
    async def search(self, query: int, filter: Filter | None = None) -> list[Hit]:
        """The `LIMIT` nearest memories to a query, best first, with content, tags and metadata."""

    async def search_many(self, queries: list[int]) -> list[list[Hit]]:  # noqa: ARG002
        """Answer all queries in one call."""
        raise Unsupported("no search for many queries in one call")

    def prepare_changes(self, start: int, stop: int) -> Any:  # noqa: ARG002
        """Prepare the deletion and the replacement of these rows. Not timed."""
        raise Unsupported("changes are not measured for this system")

    async def delete(self, changes: Any) -> None:
        """Delete the prepared rows in one transaction."""
        raise NotImplementedError

    async def upsert(self, changes: Any) -> None:
        """Replace the prepared rows by other memories with the same ids, in one transaction."""
        raise NotImplementedError

    async def load_ids(self) -> None:  # noqa: B027
        """Read the ids of all rows, where the system assigns them. Not timed."""

    async def set_effort(self, effort: int) -> bool:  # noqa: ARG002
        """Set the search effort. False if the system has no such setting."""
        return False

    async def set_answers(self, rows: list[list[int]]) -> None:  # noqa: B027
        """Receive the exact answers, for a baseline that fetches rows and searches nothing."""

    async def state(self) -> dict[str, Any]:
        """Statistics that the system reports about itself."""
        return {}

    @abstractmethod
    async def close(self) -> None:
        """Close the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemSpec:
    """How to run a system.

    Attributes:
        adapter: `module:Class` in `benchmarks.adapters`.
        label: the name in tables and charts.
        options: for the adapter.
        peer: the virtual environment; "" for memstore's own.
        base: the system whose filled store this one opens, or "" if it is filled itself.
        most_rows: the largest store that the system's documentation recommends, or None.
    """

    adapter: str
    label: str
    options: dict[str, Any] = field(default_factory=dict)
    peer: str = ""
    base: str = ""
    most_rows: int | None = None

    def load(self) -> Callable[[Workset, dict[str, Any]], System]:
        """Import the adapter and return its class."""
        module, _, name = self.adapter.partition(":")
        adapter: Callable[[Workset, dict[str, Any]], System] = getattr(
            importlib.import_module(f"benchmarks.adapters.{module}"), name
        )
        return adapter


def _memstore(label: str, *, base: str = "memstore", **options: Any) -> SystemSpec:
    return SystemSpec(adapter="memstore:Memstore", label=label, options=options, base=base)


SYSTEMS = {
    "memstore": _memstore("memstore", base=""),  # the default configuration: no option is passed to `open`
    "memstore-no-history": _memstore("memstore, history off", history="off"),
    "memstore-indexed": _memstore("memstore, indexed metadata", indexed_metadata=True),
    "memstore-exact": _memstore("memstore, exact", index="exact"),
    "memstore-graph": _memstore("memstore, graph", index="graph"),
    "memstore-float16": _memstore("memstore, float16", vector_type="float16"),
    "raw": SystemSpec(adapter="raw:Raw", label="sqlite3, rows only"),
    "faiss": SystemSpec(adapter="by_hand:Flat", label="FAISS flat + sqlite3 by hand"),
    "faiss-tuned": SystemSpec(adapter="by_hand:Tuned", label="FAISS by hand, tuned", base="faiss"),
    "usearch": SystemSpec(adapter="by_hand:Graph", label="usearch + sqlite3 by hand", peer="usearch"),
    "chroma": SystemSpec(adapter="chroma:Chroma", label="Chroma", peer="chroma"),
    "lancedb": SystemSpec(adapter="lance:Lance", label="LanceDB", peer="lancedb"),
    "sqlite-vec": SystemSpec(adapter="sqlite_vec:SqliteVec", label="sqlite-vec", peer="sqlite-vec"),
    "qdrant": SystemSpec(adapter="qdrant:Qdrant", label="Qdrant local", peer="qdrant", most_rows=20_000),
    "langgraph": SystemSpec(adapter="langgraph:LangGraph", label="LangGraph AsyncSqliteStore", peer="langgraph"),
}

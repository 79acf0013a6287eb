"""What is compared: one adapter a system, each run in a process of its own by `benchmarks.runner`.

An adapter does the work as its system's own documentation recommends. Those of peers import neither memstore nor
anything of these benchmarks but `workset` and this module; they run on their own virtual environment's Python.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.workset import LIMIT, Filter, Item, Vectors, Workset


class Unsupported(Exception):  # noqa: N818 - an answer, not a failure: what this system does not do is left out
    """The system cannot do this; the message says why."""


class Found(NamedTuple):
    """One hit, with everything that was stored but its vector. *metadata* may be JSON text."""

    row: int
    content: str
    tags: Sequence[str]
    metadata: Any


class System(ABC):
    """One way to keep memories. Methods are coroutines for all, so that all are timed by the same code.

    Attributes:
        durability: what is on disk when a write returns, in words.
        kept: the same in a word or two, for pictures.
        index: how it searches, in words.
        packages: distributions whose versions are told.
    """

    durability: str
    kept: str
    index: str
    packages: tuple[str, ...] = ()

    def __init__(self, made: Workset, options: dict[str, Any]) -> None:
        self.made = made
        self.options = options

    @abstractmethod
    async def open(self, folder: Path) -> None:
        """Open the store in *folder*, creating it if it is empty. After it the first search may be asked."""

    def prepare(self, items: list[Item]) -> Any:
        """Whatever of storing *items* need not be timed: the form in which the system takes rows."""
        return items

    @abstractmethod
    async def bulk(self, prepared: Any) -> None:
        """Store many, durably as `durability` says, and searchable."""

    async def settle(self) -> None:  # noqa: B027 - most systems have nothing to do
        """What the system's documentation recommends to do once after a bulk: build an index, compact."""

    async def add(self, item: Item) -> None:
        """Store one memory and wait until it is durable."""
        await self.bulk(self.prepare([item]))

    @abstractmethod
    async def search(self, query: int, filter: Filter | None = None) -> list[Found]:
        """The `LIMIT` nearest memories to the query of that number, best first, with content, tags and metadata."""

    async def search_many(self, queries: list[int]) -> list[list[Found]]:  # noqa: ARG002
        """All of them in one call, if the system has one."""
        raise Unsupported("no search for many queries in one call")

    def rows_for_changes(self, start: int, stop: int) -> Any:  # noqa: ARG002
        """Whatever of deleting or replacing these rows need not be timed."""
        raise Unsupported("not measured for this system")

    async def delete(self, prepared: Any) -> None:  # noqa: ARG002
        """Delete what `rows_for_changes` named, in one transaction."""
        raise Unsupported("not measured for this system")

    async def upsert(self, prepared: Any) -> None:  # noqa: ARG002
        """Replace what `rows_for_changes` named by other memories of the same ids, in one transaction."""
        raise Unsupported("not measured for this system")

    async def state(self) -> dict[str, Any]:
        """What the system says of itself: sizes and kinds of its index."""
        return {}

    @abstractmethod
    async def close(self) -> None:
        """Let go of the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """Where a system's adapter is and what Python runs it.

    Attributes:
        place: `module:Class` below `benchmarks.adapters`.
        options: for the adapter.
        peer: whose virtual environment it needs; "" when memstore's own Python runs it.
        label: what tables and plots call it.
    """

    place: str
    label: str
    peer: str = ""
    options: dict[str, Any]

    def load(self) -> Callable[[Workset, dict[str, Any]], System]:
        """The adapter's class."""
        module, _, name = self.place.partition(":")
        made: Callable[[Workset, dict[str, Any]], System] = getattr(
            importlib.import_module(f"benchmarks.adapters.{module}"), name
        )
        return made


def _ours(label: str, **options: Any) -> Named:
    return Named(place="ours:Memstore", label=label, options=options)


def _peer(place: str, peer: str, label: str) -> Named:
    return Named(place=place, label=label, peer=peer, options={})


SYSTEMS = {
    "memstore": _ours("memstore"),
    "memstore-exact": _ours("memstore, exact", index="exact"),
    "memstore-graph": _ours("memstore, graph", index="graph"),
    "memstore-float16": _ours("memstore, float16", vector_type="float16"),
    "raw": Named(place="raw:Raw", label="sqlite3 rows only", options={}),
    "faiss": Named(place="byhand:Flat", label="FAISS flat + sqlite3 by hand", options={}),
    "faiss-tuned": Named(place="byhand:Tuned", label="FAISS by hand, tuned", options={}),
    "usearch": _peer("byhand:Graph", "usearch", "usearch + sqlite3 by hand"),
    "chroma": _peer("chroma:Chroma", "chroma", "Chroma"),
    "lancedb": _peer("lance:Lance", "lancedb", "LanceDB"),
    "sqlite-vec": _peer("sqlitevec:SqliteVec", "sqlite-vec", "sqlite-vec"),
    "qdrant": _peer("qdrant:Qdrant", "qdrant", "Qdrant local"),
    "langgraph": _peer("langgraph:LangGraph", "langgraph", "LangGraph AsyncSqliteStore"),
}

__all__ = ["LIMIT", "SYSTEMS", "Found", "Item", "Named", "System", "Unsupported", "Vectors"]

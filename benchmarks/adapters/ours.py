"""memstore, by its public API; the one exception is `held`."""

import asyncio
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import memstore
from benchmarks.adapters import Found, Item, System
from benchmarks.workset import LIMIT, Filter
from memstore.index import planner

FILE = "memories.db"
SELECTED = ("shelf", "near")
"""Metadata keys that filters ask for."""


class Memstore(System):
    """The defaults, but that no past is kept, and for what the options say.

    Options: `index` and `vector_type` as of `memstore.open`; `by`: "load", or else bulks are one call of `add_many`;
    `held`: nothing is folded into the graph by itself; `indexed`: whether what filters ask for is declared.
    """

    durability = "full: WAL, synchronous=FULL, one fsync a commit"
    kept = "FULL"
    index = "as chosen by itself"
    packages = ("memstore", "sqlalchemy", "aiosqlite", "numpy", "faiss-cpu")

    async def open(self, folder: Path) -> None:
        index = memstore.IndexOptions(kind=self.options.get("index"), vector_type=self.options.get("vector_type"))
        if self.options.get("held"):
            planner.FOLD_LEAST = planner.FOLD_MOST = 1_000_000_000  # there is no other way to look at a tail for long
        new = not (folder / FILE).exists()
        self.store = await memstore.open(
            folder / FILE,
            dimension=self.made.dimension,
            indexed_metadata=SELECTED if self.options.get("indexed", True) else (),
            history="off",  # no other system here keeps a past; what it costs is measured by `benchmarks.history`
            index=index,
        )
        if new:  # loads the index, so that it follows every commit from now on
            await self.store.memories.search(self.made.queries[0])

    def prepare(self, items: list[Item]) -> list[dict[str, Any]]:
        return [self._mapping(item) for item in items]

    @staticmethod
    def _mapping(item: Item) -> dict[str, Any]:
        return {"content": item.content, "embedding": item.vector, "tags": item.tags, "metadata": item.metadata}

    async def bulk(self, prepared: list[dict[str, Any]]) -> None:
        if self.options.get("by") == "load":
            await self.store.load(prepared)
        else:
            await self.store.memories.add_many(prepared)

    async def load(self, items: Iterator[Item]) -> None:
        """Store memories as they come, a thousand a transaction; nothing of them is kept."""
        await self.store.load(map(self._mapping, items))

    async def settle(self) -> None:
        await self.store.optimize()
        await self.store.compact()

    async def fold(self) -> None:
        """Bring every vector into the graph, and nothing else."""
        await self.store.optimize()

    async def add(self, item: Item) -> None:
        await self.store.memories.add(item.content, embedding=item.vector, tags=item.tags, metadata=item.metadata)

    async def add_together(self, items: list[Item]) -> None:
        """Store them by as many concurrent calls of `add`."""
        await asyncio.gather(*(self.add(item) for item in items))

    async def search(self, query: int, filter: Filter | None = None) -> list[Found]:
        hits = await self.store.memories.search(self.made.queries[query], LIMIT, **_asked(filter))
        self.plan = hits.plan
        return [_found(hit.memory) for hit in hits]

    async def search_many(self, queries: list[int]) -> list[list[Found]]:
        answers = await self.store.memories.search_many(self.made.queries[queries], LIMIT)
        return [[_found(hit.memory) for hit in hits] for hits in answers]

    def rows_for_changes(self, start: int, stop: int) -> Any:
        # replaced by the memories of other rows, so that texts, tags and vectors all change
        new = self.made.items(self.made.rows - stop, self.made.rows - start)
        return range(start, stop), [self._mapping(item) for item in new]

    async def look_up(self) -> None:
        """Learn the ids of all rows; not timed."""
        self._ids = {memory.metadata["row"]: memory.id async for memory in self.store.memories.list()}

    async def delete(self, prepared: Any) -> None:
        rows, _ = prepared
        await self.store.memories.delete_many(ids=[self._ids[row] for row in rows])

    async def upsert(self, prepared: Any) -> None:
        rows, new = prepared
        await self.store.memories.upsert_many(
            {**item, "id": self._ids[row]} for row, item in zip(rows, new, strict=True)
        )

    async def state(self) -> dict[str, Any]:
        told = asdict(await self.store.stats())
        told = {name: told[name] for name in told if name != "path"}
        if hasattr(self, "plan"):
            told["plan"] = asdict(self.plan)
        return told

    async def close(self) -> None:
        await self.store.close()


def _asked(filter: Filter | None) -> dict[str, Any]:
    if filter is None:
        return {}
    return {"tags": {filter.tag}} if filter.tag else {"where": {f"metadata.{filter.field}": {"$lt": filter.below}}}


def _found(memory: memstore.Memory) -> Found:
    return Found(memory.metadata["row"], memory.content, memory.tags, memory.metadata)

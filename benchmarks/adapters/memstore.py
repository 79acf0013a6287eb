"""memstore, through its public API."""

import asyncio
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import memstore
from benchmarks.adapters import Hit, Item, System
from benchmarks.workset import FIELDS, LIMIT, Filter

FILE = "memories.db"


class Memstore(System):
    """A store in the default configuration, changed by the options only.

    Options: `index` and `history` as in `memstore.open`; `vector_type` as in `memstore.IndexOptions`;
    `indexed_metadata`: whether the metadata fields of the filters are declared; `bulk`: "load" or, by default, one call
    of `add_many`.
    """

    durability = "full: WAL, synchronous=FULL, one fsync a commit"
    durability_label = "FULL"
    index = "automatic"
    packages = ("memstore", "sqlalchemy", "aiosqlite", "numpy", "faiss-cpu")

    async def open(self, folder: Path) -> None:
        arguments = {name: self.options[name] for name in ("index", "history") if name in self.options}
        if "vector_type" in self.options:
            arguments["index"] = memstore.IndexOptions(vector_type=self.options["vector_type"])
        if self.options.get("indexed_metadata"):
            arguments["indexed_metadata"] = FIELDS
        created = not (folder / FILE).exists()
        self.store = await memstore.open(folder / FILE, dimension=self.workset.dimension, **arguments)
        if created:  # loads the index, so that every commit updates it
            await self.store.memories.search(self.workset.queries[0])

    def prepare(self, items: list[Item]) -> list[dict[str, Any]]:
        return [_record(item) for item in items]

    async def bulk(self, rows: list[dict[str, Any]]) -> None:
        if self.options.get("bulk") == "load":
            await self.store.load(rows)
        else:
            await self.store.memories.add_many(rows)

    async def load(self, items: Iterator[Item]) -> None:
        """Store a stream of memories in chunks; no other reference to them is kept."""
        await self.store.load(map(_record, items))

    async def optimize(self) -> None:
        """Put every vector into the graph."""
        await self.store.optimize()

    async def settle(self) -> None:
        await self.store.optimize()
        await self.store.compact()

    async def add(self, item: Item) -> None:
        await self.store.memories.add(item.content, embedding=item.vector, tags=item.tags, metadata=item.metadata)

    async def add_concurrently(self, items: list[Item]) -> None:
        """Store the memories with one concurrent call of `add` each."""
        await asyncio.gather(*(self.add(item) for item in items))

    async def search(self, query: int, filter: Filter | None = None) -> list[Hit]:
        hits = await self.store.memories.search(self.workset.queries[query], LIMIT, **_condition(filter))
        self.plan = hits.plan
        return [_hit(hit.memory) for hit in hits]

    async def search_many(self, queries: list[int]) -> list[list[Hit]]:
        answers = await self.store.memories.search_many(self.workset.queries[queries], LIMIT)
        return [[_hit(hit.memory) for hit in hits] for hits in answers]

    async def load_ids(self) -> None:
        self._ids = {memory.metadata["row"]: memory.id async for memory in self.store.memories.list()}

    def prepare_changes(self, start: int, stop: int) -> Any:
        # the memories of other rows are the replacements, so that content, tags and vectors all change
        replacements = self.workset.items(self.workset.rows - stop, self.workset.rows - start)
        ids = [self._ids[row] for row in range(start, stop)]
        return ids, [_record(item) | {"id": id} for id, item in zip(ids, replacements, strict=True)]

    async def delete(self, changes: Any) -> None:
        await self.store.memories.delete_many(ids=changes[0])

    async def upsert(self, changes: Any) -> None:
        await self.store.memories.upsert_many(changes[1])

    async def state(self) -> dict[str, Any]:
        stats = asdict(await self.store.stats())
        del stats["path"]
        return stats | ({"plan": asdict(self.plan)} if hasattr(self, "plan") else {})

    async def close(self) -> None:
        await self.store.close()


def _record(item: Item) -> dict[str, Any]:
    return {"content": item.content, "embedding": item.vector, "tags": item.tags, "metadata": item.metadata}


def _condition(filter: Filter | None) -> dict[str, Any]:
    if filter is None:
        return {}
    return {"tags": {filter.tag}} if filter.tag else {"where": {f"metadata.{filter.field}": {"$lt": filter.below}}}


def _hit(memory: memstore.Memory) -> Hit:
    return Hit(memory.metadata["row"], memory.content, memory.tags, memory.metadata)

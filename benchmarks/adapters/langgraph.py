"""LangGraph's `AsyncSqliteStore`: one namespace, batches of puts, an embedder that looks up known vectors."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import benchmarks.adapters.extension_sqlite3  # noqa: F401  # isort: skip - before aiosqlite imports sqlite3
from langgraph.store.base import PutOp
from langgraph.store.sqlite.aio import AsyncSqliteStore

from benchmarks.adapters import Hit, Item, System, Unsupported
from benchmarks.workset import LIMIT, Filter, item_key

_BATCH = 500
_NAMESPACE = ("memories",)


class LangGraph(System):
    """Values with content, tags and metadata; the content is embedded."""

    durability = "rollback journal, SQLite's default synchronous=FULL, one commit a batch"
    durability_label = "FULL"
    index = "sqlite-vec functions in SQL: exact, compares every vector"
    packages = ("langgraph-checkpoint-sqlite", "langgraph-checkpoint", "aiosqlite", "sqlite-vec", "pysqlite3")

    async def open(self, folder: Path) -> None:
        self._vectors: dict[str, list[float]] = {
            f"query {number}": vector.tolist() for number, vector in enumerate(self.workset.queries)
        }
        self._stack = AsyncExitStack()
        self._store = await self._stack.enter_async_context(
            AsyncSqliteStore.from_conn_string(
                str(folder / "memories.db"),
                index={"dims": self.workset.dimension, "embed": self._embed},
            )
        )
        await self._store.setup()

    async def _embed(self, texts: list[str]) -> list[list[float]]:
        return [self._vectors[text] for text in texts]

    def prepare(self, items: list[Item], keys: list[str] | None = None) -> list[list[PutOp]]:
        keys = keys or [item.key for item in items]
        self._vectors |= {item.content: item.vector.tolist() for item in items}
        puts = [
            PutOp(_NAMESPACE, key, item.metadata | {"content": item.content, "tags": item.tags}, index=["content"])
            for key, item in zip(keys, items, strict=True)
        ]
        return [puts[start : start + _BATCH] for start in range(0, len(puts), _BATCH)]

    async def bulk(self, rows: list[list[PutOp]]) -> None:
        for batch in rows:
            await self._store.abatch(batch)

    async def search(self, query: int, filter: Filter | None = None) -> list[Hit]:
        if filter is not None and filter.tag:
            raise Unsupported("its filters cannot test list membership")
        condition = None if filter is None else {filter.field: {"$lt": filter.below}}
        hits = await self._store.asearch(_NAMESPACE, query=f"query {query}", filter=condition, limit=LIMIT)
        return [_hit(dict(hit.value)) for hit in hits]

    def prepare_changes(self, start: int, stop: int) -> Any:
        replacements = list(self.workset.items(self.workset.rows - stop, self.workset.rows - start))
        keys = [item_key(row) for row in range(start, stop)]
        return self.prepare(replacements, keys), [[PutOp(_NAMESPACE, key, None) for key in keys]]

    async def delete(self, changes: Any) -> None:
        await self.bulk(changes[1])

    async def upsert(self, changes: Any) -> None:
        await self.bulk(changes[0])

    async def close(self) -> None:
        await self._stack.aclose()


def _hit(value: dict[str, Any]) -> Hit:
    return Hit(value["row"], value.pop("content"), value.pop("tags"), value)

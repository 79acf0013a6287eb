"""LangGraph's `AsyncSqliteStore`: one namespace, batches of puts; its embedder looks up vectors that are there."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import benchmarks.adapters.withvec  # noqa: F401  # isort: skip - before aiosqlite imports sqlite3
from langgraph.store.base import PutOp
from langgraph.store.sqlite.aio import AsyncSqliteStore

from benchmarks.adapters import Found, Item, System, Unsupported
from benchmarks.workset import LIMIT, Filter

_BATCH = 500
_PLACE = ("memories",)


class LangGraph(System):
    """Values with content, tags and metadata; the content is what is embedded."""

    durability = "rollback journal, SQLite's default synchronous=FULL, one commit a batch"
    kept = "FULL"
    index = "sqlite-vec functions in SQL: exact, every vector is compared"
    packages = ("langgraph-checkpoint-sqlite", "langgraph-checkpoint", "aiosqlite", "sqlite-vec", "pysqlite3")

    async def open(self, folder: Path) -> None:
        self._vectors: dict[str, list[float]] = {
            f"query {number}": vector.tolist() for number, vector in enumerate(self.made.queries)
        }
        self._stack = AsyncExitStack()
        self._store = await self._stack.enter_async_context(
            AsyncSqliteStore.from_conn_string(
                str(folder / "memories.db"),
                index={"dims": self.made.dimension, "embed": self._embed},
            )
        )
        await self._store.setup()

    async def _embed(self, texts: list[str]) -> list[list[float]]:
        return [self._vectors[text] for text in texts]

    def prepare(self, items: list[Item], keys: list[str] | None = None) -> list[list[PutOp]]:
        keys = keys or [item.key for item in items]
        self._vectors |= {item.content: item.vector.tolist() for item in items}
        puts = [
            PutOp(_PLACE, key, item.metadata | {"content": item.content, "tags": item.tags}, index=["content"])
            for key, item in zip(keys, items, strict=True)
        ]
        return [puts[start : start + _BATCH] for start in range(0, len(puts), _BATCH)]

    async def bulk(self, prepared: list[list[PutOp]]) -> None:
        for batch in prepared:
            await self._store.abatch(batch)

    async def search(self, query: int, filter: Filter | None = None) -> list[Found]:
        if filter is not None and filter.tag:
            raise Unsupported("its filter knows no member of a list")
        asked = None if filter is None else {filter.field: {"$lt": filter.below}}
        hits = await self._store.asearch(_PLACE, query=f"query {query}", filter=asked, limit=LIMIT)
        found = []
        for hit in hits:
            told = dict(hit.value)
            found.append(Found(told["row"], told.pop("content"), told.pop("tags"), told))
        return found

    def rows_for_changes(self, start: int, stop: int) -> Any:
        new = list(self.made.items(self.made.rows - stop, self.made.rows - start))
        keys = [f"m-{row:07d}" for row in range(start, stop)]
        return self.prepare(new, keys), [[PutOp(_PLACE, key, None) for key in keys]]

    async def delete(self, prepared: Any) -> None:
        await self.bulk(prepared[1])

    async def upsert(self, prepared: Any) -> None:
        await self.bulk(prepared[0])

    async def close(self) -> None:
        await self._stack.aclose()

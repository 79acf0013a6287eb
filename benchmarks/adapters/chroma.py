"""Chroma's persistent client: batches as large as it allows, cosine, its HNSW defaults, arrays of tags in metadata."""

from pathlib import Path
from typing import Any

import chromadb
import numpy as np
from chromadb.config import Settings

from benchmarks.adapters import Found, Item, System
from benchmarks.workset import LIMIT, Filter


class Chroma(System):
    """Documents with embeddings given, so that no model is loaded."""

    durability = "its own SQLite file, with fsyncs for every batch; the HNSW files are written every 1,000 rows"
    kept = "fsync a batch"
    index = "HNSW, its defaults: 16 neighbours, ef 100 when building and searching"
    packages = ("chromadb",)

    async def open(self, folder: Path) -> None:
        self._client = chromadb.PersistentClient(str(folder), settings=Settings(anonymized_telemetry=False))
        self._memories = self._client.get_or_create_collection(
            "memories", configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
        )
        self._batch = self._client.get_max_batch_size()

    def prepare(self, items: list[Item]) -> list[dict[str, Any]]:
        return [self._batched(items[start : start + self._batch]) for start in range(0, len(items), self._batch)]

    def _batched(self, items: list[Item]) -> dict[str, Any]:
        return {
            "ids": [item.key for item in items],
            "embeddings": np.stack([item.vector for item in items]),
            "documents": [item.content for item in items],
            "metadatas": [item.metadata | {"tags": item.tags} for item in items],
        }

    async def bulk(self, prepared: list[dict[str, Any]]) -> None:
        for batch in prepared:
            self._memories.add(**batch)

    async def search(self, query: int, filter: Filter | None = None) -> list[Found]:
        answer = self._memories.query(
            query_embeddings=self.made.queries[query : query + 1],
            n_results=LIMIT,
            where=_where(filter),
            include=["documents", "metadatas"],
        )
        hits = zip(answer["documents"][0], answer["metadatas"][0], strict=True)
        return [
            Found(told["row"], text, told["tags"], {k: v for k, v in told.items() if k != "tags"})
            for text, told in hits
        ]

    def rows_for_changes(self, start: int, stop: int) -> Any:
        new = self._batched(list(self.made.items(self.made.rows - stop, self.made.rows - start)))
        return new | {"ids": [f"m-{row:07d}" for row in range(start, stop)]}

    async def delete(self, prepared: Any) -> None:
        self._memories.delete(ids=prepared["ids"])

    async def upsert(self, prepared: Any) -> None:
        self._memories.upsert(**prepared)

    async def close(self) -> None:
        self._client.close()


def _where(filter: Filter | None) -> Any:
    if filter is None:
        return None
    return {"tags": {"$contains": filter.tag}} if filter.tag else {filter.field: {"$lt": filter.below}}

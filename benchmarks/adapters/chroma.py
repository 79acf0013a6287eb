"""Chroma's persistent client: the largest batches it allows, cosine, its HNSW defaults, tags as a metadata array."""

from pathlib import Path
from typing import Any

import chromadb
import numpy as np
from chromadb.config import Settings

from benchmarks.adapters import Hit, Item, System
from benchmarks.workset import LIMIT, Filter, item_key


class Chroma(System):
    """Documents with their embeddings, so that Chroma loads no model."""

    durability = "its own SQLite file, with fsyncs for every batch; the HNSW files are written every 1,000 rows"
    durability_label = "fsync a batch"
    index = "HNSW, its defaults: 16 neighbours, ef 100 when building and searching"
    packages = ("chromadb",)

    async def open(self, folder: Path) -> None:
        self._client = chromadb.PersistentClient(str(folder), settings=Settings(anonymized_telemetry=False))
        self._memories = self._client.get_or_create_collection(
            "memories", configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
        )
        self._batch_size = self._client.get_max_batch_size()

    def prepare(self, items: list[Item]) -> list[dict[str, Any]]:
        return [
            self._batch(items[start : start + self._batch_size]) for start in range(0, len(items), self._batch_size)
        ]

    def _batch(self, items: list[Item]) -> dict[str, Any]:
        return {
            "ids": [item.key for item in items],
            "embeddings": np.stack([item.vector for item in items]),
            "documents": [item.content for item in items],
            "metadatas": [item.metadata | {"tags": item.tags} for item in items],
        }

    async def bulk(self, rows: list[dict[str, Any]]) -> None:
        for batch in rows:
            self._memories.add(**batch)

    async def search(self, query: int, filter: Filter | None = None) -> list[Hit]:
        answer = self._memories.query(
            query_embeddings=self.workset.queries[query : query + 1],
            n_results=LIMIT,
            where=_where(filter),
            include=["documents", "metadatas"],
        )
        hits = zip(answer["documents"][0], answer["metadatas"][0], strict=True)
        return [
            Hit(metadata["row"], content, metadata["tags"], {k: v for k, v in metadata.items() if k != "tags"})
            for content, metadata in hits
        ]

    def prepare_changes(self, start: int, stop: int) -> Any:
        replacements = self._batch(list(self.workset.items(self.workset.rows - stop, self.workset.rows - start)))
        return replacements | {"ids": [item_key(row) for row in range(start, stop)]}

    async def delete(self, changes: Any) -> None:
        self._memories.delete(ids=changes["ids"])

    async def upsert(self, changes: Any) -> None:
        self._memories.upsert(**changes)

    async def close(self) -> None:
        self._client.close()


def _where(filter: Filter | None) -> Any:
    if filter is None:
        return None
    return {"tags": {"$contains": filter.tag}} if filter.tag else {filter.field: {"$lt": filter.below}}

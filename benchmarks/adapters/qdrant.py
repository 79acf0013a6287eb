"""Qdrant's client in its local mode, `QdrantClient(path=...)`: what is embedded, not its server."""

import warnings
from pathlib import Path
from typing import Any

from qdrant_client import QdrantClient, models

from benchmarks.adapters import Found, Item, System
from benchmarks.workset import LIMIT, Filter

_BATCH = 1_000
_NAME = "memories"
warnings.filterwarnings("ignore", message=".*more than 20,000 points.*")  # the page says what the local mode is


class Qdrant(System):
    """Points with payloads; the local mode has no indexes of payloads."""

    durability = "its own SQLite file, rollback journal, synchronous=FULL: a commit for every point"
    kept = "fsync a row"
    index = "local mode: NumPy, exact, every vector is compared"
    packages = ("qdrant-client", "numpy")

    async def open(self, folder: Path) -> None:
        self._client = QdrantClient(path=str(folder))
        if not self._client.collection_exists(_NAME):
            self._client.create_collection(
                _NAME, vectors_config=models.VectorParams(size=self.made.dimension, distance=models.Distance.COSINE)
            )

    def prepare(self, items: list[Item]) -> list[list[models.PointStruct]]:
        points = [self._point(item, item.row) for item in items]
        return [points[start : start + _BATCH] for start in range(0, len(points), _BATCH)]

    @staticmethod
    def _point(item: Item, key: int) -> models.PointStruct:
        payload = item.metadata | {"content": item.content, "tags": item.tags}
        return models.PointStruct(id=key, vector=item.vector.tolist(), payload=payload)

    async def bulk(self, prepared: list[list[models.PointStruct]]) -> None:
        for batch in prepared:
            self._client.upsert(_NAME, batch)

    async def search(self, query: int, filter: Filter | None = None) -> list[Found]:
        answer = self._client.query_points(
            _NAME, query=self.made.queries[query], limit=LIMIT, query_filter=_where(filter), with_payload=True
        )
        found = []
        for point in answer.points:
            told = dict(point.payload)
            found.append(Found(told["row"], told.pop("content"), told.pop("tags"), told))
        return found

    def rows_for_changes(self, start: int, stop: int) -> Any:
        new = self.made.items(self.made.rows - stop, self.made.rows - start)
        return [self._point(item, row) for row, item in zip(range(start, stop), new, strict=True)]

    async def delete(self, prepared: Any) -> None:
        self._client.delete(_NAME, points_selector=[point.id for point in prepared])

    async def upsert(self, prepared: Any) -> None:
        self._client.upsert(_NAME, prepared)

    async def close(self) -> None:
        self._client.close()


def _where(filter: Filter | None) -> models.Filter | None:
    if filter is None:
        return None
    if filter.tag:
        condition = models.FieldCondition(key="tags", match=models.MatchValue(value=filter.tag))
    else:
        condition = models.FieldCondition(key=filter.field, range=models.Range(lt=filter.below))
    return models.Filter(must=[condition])

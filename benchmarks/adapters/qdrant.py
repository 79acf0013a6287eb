"""Qdrant's client in its local mode, `QdrantClient(path=...)`: the embedded library, not the server."""

import warnings
from pathlib import Path
from typing import Any

from qdrant_client import QdrantClient, models

from benchmarks.adapters import Hit, Item, System
from benchmarks.workset import LIMIT, Filter

_BATCH = 1_000
_NAME = "memories"
warnings.filterwarnings("ignore", message=".*more than 20,000 points.*")


class Qdrant(System):
    """Points with payloads. The local mode has no payload indexes."""

    durability = "its own SQLite file, rollback journal, synchronous=FULL: a commit for every point"
    durability_label = "fsync a row"
    index = "local mode: NumPy, exact, compares every vector"
    packages = ("qdrant-client", "numpy")

    async def open(self, folder: Path) -> None:
        self._client = QdrantClient(path=str(folder))
        if not self._client.collection_exists(_NAME):
            self._client.create_collection(
                _NAME, vectors_config=models.VectorParams(size=self.workset.dimension, distance=models.Distance.COSINE)
            )

    def prepare(self, items: list[Item]) -> list[list[models.PointStruct]]:
        points = [self._point(item, item.row) for item in items]
        return [points[start : start + _BATCH] for start in range(0, len(points), _BATCH)]

    @staticmethod
    def _point(item: Item, key: int) -> models.PointStruct:
        payload = item.metadata | {"content": item.content, "tags": item.tags}
        return models.PointStruct(id=key, vector=item.vector.tolist(), payload=payload)

    async def bulk(self, rows: list[list[models.PointStruct]]) -> None:
        for batch in rows:
            self._client.upsert(_NAME, batch)

    async def search(self, query: int, filter: Filter | None = None) -> list[Hit]:
        answer = self._client.query_points(
            _NAME, query=self.workset.queries[query], limit=LIMIT, query_filter=_where(filter), with_payload=True
        )
        return [_hit(dict(point.payload)) for point in answer.points]

    def prepare_changes(self, start: int, stop: int) -> Any:
        replacements = self.workset.items(self.workset.rows - stop, self.workset.rows - start)
        return [self._point(item, row) for row, item in zip(range(start, stop), replacements, strict=True)]

    async def delete(self, changes: Any) -> None:
        self._client.delete(_NAME, points_selector=[point.id for point in changes])

    async def upsert(self, changes: Any) -> None:
        self._client.upsert(_NAME, changes)

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


def _hit(payload: dict[str, Any]) -> Hit:
    return Hit(payload["row"], payload.pop("content"), payload.pop("tags"), payload)

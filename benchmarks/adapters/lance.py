"""LanceDB on a local folder: Arrow tables in, its approximate index and indexes on what filters ask for after it."""

from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa

from benchmarks.adapters import Found, Item, System
from benchmarks.workset import LIMIT, Filter

_INDEXED_FROM = 5_000
"""Rows from which an index is built: below, its documentation says, comparing all is as fast."""


class Lance(System):
    """One row a memory; filters are settled before the search, as its default is."""

    durability = "new files for every write; nothing asks the disk to keep them (no fsync)"
    kept = "no fsync"
    index = "IVF_HNSW_SQ, cosine, its defaults, with refine_factor 10; rows added later are compared, all of them"
    packages = ("lancedb", "pyarrow")

    async def open(self, folder: Path) -> None:
        self._base = lancedb.connect(folder)
        self._schema = pa.schema(
            [
                ("id", pa.string()), ("content", pa.string()), ("tags", pa.list_(pa.string())), ("row", pa.int64()),
                ("source", pa.string()), ("sure", pa.bool_()), ("shelf", pa.int64()), ("near", pa.int64()),
                ("vector", pa.list_(pa.float32(), self.made.dimension)),
            ]
        )  # fmt: skip
        self._table = self._base.create_table("memories", schema=self._schema, exist_ok=True)
        self._told = [name for name in self._schema.names if name not in ("id", "vector")]

    def prepare(self, items: list[Item]) -> pa.Table:
        vectors = np.concatenate([item.vector for item in items])
        columns: dict[str, Any] = {
            "id": [item.key for item in items],
            "content": [item.content for item in items],
            "tags": [item.tags for item in items],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors), self.made.dimension),
        }
        columns |= {name: [item.metadata[name] for item in items] for name in items[0].metadata}
        return pa.table({name: columns[name] for name in self._schema.names}, schema=self._schema)

    async def bulk(self, prepared: pa.Table) -> None:
        self._table.add(prepared)

    async def settle(self) -> None:
        if self._table.count_rows() < _INDEXED_FROM:
            return
        self._table.create_index(metric="cosine", index_type="IVF_HNSW_SQ")
        self._table.create_scalar_index("id")
        self._table.create_scalar_index("shelf")
        self._table.create_scalar_index("near")
        self._table.create_scalar_index("tags", index_type="LABEL_LIST")
        self._table.optimize()

    async def search(self, query: int, filter: Filter | None = None) -> list[Found]:
        asked = self._table.search(self.made.queries[query]).distance_type("cosine").limit(LIMIT).select(self._told)
        if filter is not None:
            asked = asked.where(
                f"array_has(tags, '{filter.tag}')" if filter.tag else f"{filter.field} < {filter.below}"
            )
        found = []
        for told in asked.refine_factor(10).to_list():
            told.pop("_distance", None)
            found.append(Found(told["row"], told.pop("content"), told.pop("tags"), told))
        return found

    def rows_for_changes(self, start: int, stop: int) -> Any:
        new = list(self.made.items(self.made.rows - stop, self.made.rows - start))
        ids = [f"m-{row:07d}" for row in range(start, stop)]
        table = self.prepare(new)
        return ids, table.set_column(0, "id", pa.array(ids))

    async def delete(self, prepared: Any) -> None:
        ids, _ = prepared
        self._table.delete("id IN ({})".format(",".join(f"'{id}'" for id in ids)))

    async def upsert(self, prepared: Any) -> None:
        _, table = prepared
        self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(table)

    async def close(self) -> None:
        del self._table, self._base

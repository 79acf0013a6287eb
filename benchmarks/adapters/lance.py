"""LanceDB in a local folder: Arrow tables, its approximate index, and scalar indexes for the filters."""

from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa

from benchmarks.adapters import Hit, Item, System
from benchmarks.workset import LIMIT, Filter, item_key

_LEAST_INDEXED = 5_000
"""Least rows for an index: its documentation says that an exact search is as fast below."""


class Lance(System):
    """One row a memory. Filters are applied before the search, its default."""

    durability = "new files for every write; no fsync"
    durability_label = "no fsync"
    index = "IVF_HNSW_SQ, cosine, its defaults, with refine_factor 10; rows added later are compared exactly"
    packages = ("lancedb", "pyarrow")

    async def open(self, folder: Path) -> None:
        self._database = lancedb.connect(folder)
        self._schema = pa.schema(
            [
                ("id", pa.string()), ("content", pa.string()), ("tags", pa.list_(pa.string())), ("row", pa.int64()),
                ("source", pa.string()), ("sure", pa.bool_()), ("bucket", pa.int64()), ("closeness", pa.int64()),
                ("vector", pa.list_(pa.float32(), self.workset.dimension)),
            ]
        )  # fmt: skip
        self._table = self._database.create_table("memories", schema=self._schema, exist_ok=True)
        self._columns = [name for name in self._schema.names if name not in ("id", "vector")]

    def prepare(self, items: list[Item]) -> pa.Table:
        vectors = np.concatenate([item.vector for item in items])
        columns: dict[str, Any] = {
            "id": [item.key for item in items],
            "content": [item.content for item in items],
            "tags": [item.tags for item in items],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors), self.workset.dimension),
        }
        columns |= {name: [item.metadata[name] for item in items] for name in items[0].metadata}
        return pa.table({name: columns[name] for name in self._schema.names}, schema=self._schema)

    async def bulk(self, rows: pa.Table) -> None:
        self._table.add(rows)

    async def settle(self) -> None:
        if self._table.count_rows() < _LEAST_INDEXED:
            return
        self._table.create_index(metric="cosine", index_type="IVF_HNSW_SQ")
        self._table.create_scalar_index("id")
        self._table.create_scalar_index("bucket")
        self._table.create_scalar_index("closeness")
        self._table.create_scalar_index("tags", index_type="LABEL_LIST")
        self._table.optimize()

    async def search(self, query: int, filter: Filter | None = None) -> list[Hit]:
        request = (
            self._table.search(self.workset.queries[query]).distance_type("cosine").limit(LIMIT).select(self._columns)
        )
        if filter is not None:
            request = request.where(
                f"array_has(tags, '{filter.tag}')" if filter.tag else f"{filter.field} < {filter.below}"
            )
        hits = []
        for record in request.refine_factor(10).to_list():
            record.pop("_distance", None)
            hits.append(Hit(record["row"], record.pop("content"), record.pop("tags"), record))
        return hits

    def prepare_changes(self, start: int, stop: int) -> Any:
        replacements = list(self.workset.items(self.workset.rows - stop, self.workset.rows - start))
        ids = [item_key(row) for row in range(start, stop)]
        table = self.prepare(replacements)
        return ids, table.set_column(0, "id", pa.array(ids))

    async def delete(self, changes: Any) -> None:
        ids, _ = changes
        self._table.delete("id IN ({})".format(",".join(f"'{id}'" for id in ids)))

    async def upsert(self, changes: Any) -> None:
        _, table = changes
        self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(table)

    async def close(self) -> None:
        del self._table, self._database

"""`vectors()`: the vectors of many records as one matrix."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import memstore
from memstore import UsageError
from memstore.models import Vectors
from tests.conftest import vectors

METRICS = ["cosine", "inner_product", "l2", "spherical", "hyperbolic"]


def rows_of(metric: str, rng: np.random.Generator, count: int) -> npt.NDArray[np.float32]:
    rows = vectors(rng, count)
    return rows / (1 + np.linalg.norm(rows, axis=1))[:, None].astype(np.float32) if metric == "hyperbolic" else rows


def nested_items(rng: np.random.Generator) -> list[dict[str, Any]]:
    return [
        {"id": f"{i}", "content": "x", "namespace": ("a", "b")[: i % 3], "embedding": row}
        for i, row in enumerate(vectors(rng, 9))
    ]


async def expected(noun: Any, field: str, **options: Any) -> tuple[list[str], npt.NDArray[np.float32]]:
    records = [record async for record in noun.list(**options) if getattr(record, field) is not None]
    matrix = np.array([getattr(record, field) for record in records], dtype=np.float32)
    return [record.id for record in records], matrix.reshape(len(records), 8)


async def agrees(noun: Any, field: str, **options: Any) -> Vectors:
    ids, matrix = await expected(noun, field, **options)
    actual = await noun.vectors(**options)
    assert actual.ids == ids
    assert (actual.matrix.dtype, actual.matrix.shape) == (np.float32, matrix.shape)
    assert actual.matrix.tobytes() == matrix.tobytes()  # to the bit
    assert (actual.namespaces is None) == (not options.get("recursive", False))
    assert len(actual) == len(ids)
    return actual


CASES = [*product(METRICS, ["loaded", "not loaded"]), ("cosine", "float16"), ("spherical", "float16")]


@pytest.mark.parametrize(("metric", "index"), CASES)
async def test_the_matrix_has_the_vectors_of_the_list_to_the_bit(
    path: Path, metric: Any, index: str, rng: np.random.Generator
) -> None:
    options: Any = {"index": memstore.IndexOptions(vector_type="float16")} if index == "float16" else {}
    rows = rows_of(metric, rng, 700)
    async with memstore.open(path, dimension=8, metric=metric, **options) as store:
        await store.memories.add_many(
            [
                {
                    "id": str(i),
                    "content": "x",
                    "namespace": ("n",) * (i % 3),
                    "embedding": None if i % 10 == 0 else row,
                    "tags": {"t"} if i % 4 == 0 else set(),
                    "ttl": 0.001 if i % 50 == 7 else None,
                }
                for i, row in enumerate(rows)
            ]
        )
        await store.assemblies.add_many([{"id": f"g{i}", "members": [str(3 * i), str(3 * i + 9)]} for i in range(1, 9)])
        if index != "not loaded":
            await store.memories.search(rows[0])
        await store.memories.upsert("y", id="3", embedding=rows[4])
        await store.memories.update("6", embedding=None)
        await store.memories.delete("9")
        for where in ({}, {"where": {"id": {"$in": ["3", "12", "30", "6"]}}}, {"tags": ["t"]}, {"tags": ["none"]}):
            await agrees(store.memories, "embedding", **where)
            nested = await agrees(store.memories, "embedding", recursive=True, **where)
            records = [m async for m in store.memories.list(recursive=True, **where)]  # type: ignore[arg-type]
            assert nested.namespaces == [m.namespace for m in records if m.embedding is not None]
            await agrees(store.namespace("n").memories, "embedding", **where)
        await agrees(store.assemblies, "composite")
        async with store.transaction() as tx:
            await tx.memories.update("15", embedding=rows[1])
            await tx.memories.delete("18")
            await agrees(tx.memories, "embedding")
            await agrees(tx.assemblies, "composite")


async def test_an_empty_selection_is_an_empty_matrix(store: memstore.Store) -> None:
    for noun in (store.memories, store.assemblies):
        empty = await noun.vectors()
        assert (empty.ids, empty.matrix.shape, empty.namespaces) == ([], (0, 8), None)
    assert (await store.memories.vectors(recursive=True)).namespaces == []


async def test_the_matrix_is_the_callers_own(store: memstore.Store) -> None:
    await store.memories.add("x", id="a", embedding=[1.0] * 8)
    matrix = (await store.memories.vectors()).matrix
    matrix[0] = 0
    assert (await store.memories.vectors()).matrix[0].tolist() == [1.0] * 8


async def test_the_vectors_are_a_pandas_frame(store: memstore.Store, rng: np.random.Generator) -> None:
    pandas = pytest.importorskip("pandas")
    await store.memories.add_many(nested_items(rng))
    result = await store.memories.vectors()
    frame = result.to_pandas()
    assert frame.index.name == "id"
    assert list(frame.index) == result.ids == ["0", "3", "6"]
    assert frame.to_numpy().tobytes() == result.matrix.tobytes()
    assert np.shares_memory(frame.to_numpy(), result.matrix)
    nested = (await store.memories.vectors(recursive=True)).to_pandas()
    assert isinstance(nested.index, pandas.MultiIndex)
    assert list(nested.index)[:3] == [((), "0"), (("a",), "1"), (("a", "b"), "2")]
    assert (await store.memories.vectors(tags=["none"])).to_pandas().shape == (0, 8)


async def test_the_vectors_are_an_arrow_table(store: memstore.Store, rng: np.random.Generator) -> None:
    pytest.importorskip("pyarrow")
    await store.memories.add_many(nested_items(rng))
    result = await store.memories.vectors(recursive=True)
    table = result.to_arrow()
    assert table.column_names == ["namespace", "id", "vector"]
    assert str(table.schema.field("vector").type) == "fixed_size_list<item: float>[8]"
    assert table["id"].to_pylist() == result.ids
    assert table["namespace"].to_pylist()[:3] == [[], ["a"], ["a", "b"]]
    assert np.array(table["vector"].to_pylist(), dtype=np.float32).tobytes() == result.matrix.tobytes()
    assert (await store.memories.vectors(tags=["none"])).to_arrow().num_rows == 0


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    empty = Vectors(ids=[], namespaces=None, matrix=np.empty((0, 3), dtype=np.float32))
    for package, call in (("pandas", empty.to_pandas), ("pyarrow", empty.to_arrow)):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(UsageError, match=rf"{package} is not installed.*memstore\[dataframe\]"):
            call()

"""How the index is asked to be: what is refused, what the file remembers, and what a change of it does."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memstore
from memstore import GraphOptions, InvalidError
from memstore.config import IndexSettings
from memstore.repository.sqlite_only import change_log
from tests.support.clusters import DIMENSION, by_hand, closeness, clustered, small_graphs, sql, wait_until_idle
from tests.support.index_options import with_index


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_graphs(monkeypatch)
    monkeypatch.setattr(change_log, "KEEP", 10_000)


def opened(path: Path, **options: Any) -> Any:
    return memstore.open(path, **with_index({"dimension": DIMENSION, "durability": "relaxed", **options}))


def remembered(path: Path) -> Any:
    ((text,),) = sql(path, "SELECT index_options FROM store_meta")
    return None if text is None else json.loads(text)


ROWS = clustered(np.random.default_rng(1), 400)[0]


async def filled(path: Path, **options: Any) -> None:
    async with opened(path, **options) as store:
        by_hand(store)
        await store.memories.add_many([{"id": str(i), "content": "", "embedding": r} for i, r in enumerate(ROWS)])
        await store.optimize()


async def right(store: memstore.Store) -> set[str]:
    queries, metric = ROWS[::20], store.metric
    answers = await store.memories.search_many(queries)
    for hits, scores in zip(answers, closeness(metric, queries, ROWS), strict=True):
        places = [int(hit.memory.id) for hit in hits]
        np.testing.assert_allclose([hit.score for hit in hits], scores[places], rtol=2e-6, atol=2e-7)
        assert places[0] == scores.argmax()
        assert len(set(places) & set(np.argsort(-scores)[:10].tolist())) >= 9
    return {hits.plan.method for hits in answers}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"index": "hnsw"}, "Invalid kind: expected one of 'auto', 'exact', 'graph', found 'hnsw'"),
        ({"index": True}, "Invalid kind: expected one of 'auto', 'exact', 'graph', found True"),
        ({"vector_type": "int8"}, "Invalid vector_type: expected one of 'float32', 'float16', found 'int8'"),
        (
            {"graph": {"m": 16}},
            "Invalid graph: expected a memstore.GraphOptions, such as GraphOptions(m=32), found {'m': 16}",
        ),
        ({"graph": 16}, "Invalid graph: expected a memstore.GraphOptions"),
        ({"index": "graph", "engine": "numpy"}, "The graph needs FAISS: leave out engine='numpy', or use kind='exact'"),
    ],
)
def test_what_is_no_option_is_refused_at_the_call(path: Path, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidError) as caught:
        memstore.open(path, dimension=3, **with_index(arguments))
    assert str(caught.value).startswith(said)
    assert not path.exists()


@pytest.mark.parametrize("index", ["hnsw", True, GraphOptions(), {"kind": "graph"}])
def test_an_index_that_is_neither_a_kind_nor_options_is_refused(path: Path, index: Any) -> None:
    with pytest.raises(InvalidError, match=r"^Invalid index: expected one of 'auto', 'exact', 'graph', found "):
        memstore.open(path, dimension=3, index=index)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"m": 3}, "Invalid m: expected a whole number from 4 to 128, found 3"),
        ({"m": 129}, "Invalid m: expected a whole number from 4 to 128, found 129"),
        ({"m": 16.0}, "Invalid m: expected a whole number from 4 to 128, found 16.0"),
        ({"m": True}, "Invalid m: expected a whole number from 4 to 128, found True"),
        ({"m": None}, "Invalid m: expected a whole number from 4 to 128, found None"),
        ({"ef_construction": 7}, "Invalid ef_construction: expected a whole number from 8 to 4,096, found 7"),
        ({"ef_construction": 4_097}, "Invalid ef_construction: expected a whole number from 8 to 4,096, found 4097"),
        ({"ef_search": 7}, "Invalid ef_search: expected a whole number from 8 to 65,536, found 7"),
        ({"ef_search": 65_537}, "Invalid ef_search: expected a whole number from 8 to 65,536, found 65537"),
        ({"ef_search": "64"}, "Invalid ef_search: expected a whole number from 8 to 65,536, found '64'"),
    ],
)
def test_graph_options_are_whole_numbers_within_bounds(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidError) as caught:
        GraphOptions(**arguments)
    assert str(caught.value) == said


@pytest.mark.parametrize("options", [GraphOptions(m=4, ef_construction=8, ef_search=8), GraphOptions(m=128)])
async def test_the_bounds_themselves_are_within(path: Path, options: GraphOptions) -> None:
    async with opened(path, index="graph", graph=options) as store:
        await store.memories.add_many([{"content": "", "embedding": row} for row in ROWS[:150]])
        await store.optimize()
        assert (await store.stats()).graph_nodes == 150
        hits = await store.memories.search(ROWS[0], 1)
        assert hits[0].score == pytest.approx(1.0)


def test_graph_options_are_a_frozen_value() -> None:
    assert GraphOptions() == GraphOptions(m=16, ef_construction=128, ef_search=None)
    assert len({GraphOptions(), GraphOptions(m=16), GraphOptions(m=17)}) == 2
    with pytest.raises(AttributeError):
        GraphOptions().m = 4  # type: ignore[misc]


@pytest.mark.parametrize("metric", ["l2", "inner_product"])
async def test_float16_is_refused_where_vectors_may_be_of_any_length(path: Path, metric: Any) -> None:
    with pytest.raises(InvalidError, match="float16"):
        await opened(path, metric=metric, vector_type="float16")
    async with opened(path, metric=metric) as store:
        assert (await store.stats()).vector_type == "float32"
    with pytest.raises(InvalidError, match="needs the cosine metric"):
        await opened(path, vector_type="float16")
    async with opened(path) as store:
        await store.memories.add("", embedding=np.full(DIMENSION, 1e6))
        assert remembered(path) is None


async def test_the_file_remembers_what_was_asked_for(path: Path) -> None:
    async with opened(path) as store:
        assert (await store.stats()).vector_type == "float32"
    assert remembered(path) is None, "nobody asked for anything"
    options = GraphOptions(m=8, ef_search=50)
    async with opened(path, index="graph", graph=options, vector_type="float16"):
        pass
    assert IndexSettings.stored(remembered(path)) == IndexSettings(kind="graph", graph=options, vector_type="float16")
    for arguments, expected in (
        ({}, {}),
        ({"index": "exact"}, {"kind": "exact"}),
        ({"vector_type": "float32"}, {"kind": "exact", "vector_type": "float32"}),
        ({"index": "auto"}, {"vector_type": "float32", "kind": "auto"}),
        ({"graph": GraphOptions()}, {"graph": GraphOptions(), "vector_type": "float32", "kind": "auto"}),
    ):
        async with opened(path, **arguments) as store:
            is_now = IndexSettings(**({"kind": "graph", "graph": options, "vector_type": "float16"} | expected))
            assert store._follower.indexes.options == is_now
        assert IndexSettings.stored(remembered(path)) == is_now
    async with opened(path, read_only=True, index="graph") as store:
        assert store._follower.indexes.options.kind == "graph"
    assert IndexSettings.stored(remembered(path)).kind == "auto", "a reader changes nothing"


async def test_a_graph_of_other_options_is_rebuilt(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "memstore")
    await filled(path, graph=GraphOptions(m=8))
    sizes = {}
    for m in (8, 24, 24, 8):
        async with opened(path, graph=GraphOptions(m=m)) as store:
            assert await right(store) <= {"exact", "graph"}
            await wait_until_idle(store)
            assert await right(store) == {"graph"}
            stats = await store.stats()
            assert stats.graph_nodes == 400
            assert sizes.setdefault(m, stats.graph_bytes) == pytest.approx(stats.graph_bytes, rel=0.05)
            assert store._follower.indexes.by_kind["memory"].graph.options.m == m
            assert await store.check() == []
        said = sql(path, "SELECT json_extract(parameters, '$.m') FROM index_snapshot ORDER BY pk")
        assert said == [(m,)], "the one that does not fit is no use to anyone any more"
    assert sizes[24] > 2 * sizes[8]


async def test_another_ef_search_needs_no_other_graph(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await filled(path, graph=GraphOptions(ef_search=40))
    monkeypatch.setattr("memstore.sync.maintainer.IndexMaintainer._merge", None)
    async with opened(path, graph=GraphOptions(ef_search=99)) as store:
        await wait_until_idle(store)
        assert (await store.stats()).ef_search == 99
        assert await right(store) == {"graph"}


async def test_exact_drops_the_graph_and_what_it_takes_in_the_file(path: Path) -> None:
    await filled(path)
    assert sql(path, "SELECT count(*) FROM index_snapshot") == [(1,)]
    async with opened(path, index="exact") as store:
        await wait_until_idle(store)
        await store.optimize()
        stats = await store.stats()
        assert (stats.index, stats.index_reason, stats.snapshot_bytes) == ("exact", "requested", 0)
        assert await right(store) == {"exact"}
    async with opened(path, index="auto") as store:
        await wait_until_idle(store)
        assert await right(store) == {"graph"}


async def test_float16_keeps_half_and_finds_the_same(path: Path) -> None:
    await filled(path)
    sizes = {}
    for vector_type in ("float32", "float16", "float32"):
        async with opened(path, vector_type=vector_type, index="exact") as store:
            assert await right(store) == {"exact"}
            stats = await store.stats()
            assert stats.vector_type == vector_type
            sizes[vector_type] = store._follower.indexes.by_kind["memory"].table.storage.rows.nbytes
            assert await store.check() == []
            assert (await store.memories.get("3")).embedding.tobytes() == ROWS[3].tobytes()
    assert sizes["float32"] == 2 * sizes["float16"]


async def test_numpy_serves_a_file_that_remembers_a_graph_and_says_why_there_is_none(path: Path) -> None:
    await filled(path, index="graph")
    async with opened(path, engine="numpy") as store:
        await wait_until_idle(store)
        assert await right(store) == {"exact"}
        stats = await store.stats()
        assert (stats.engine, stats.index) == ("numpy", "exact")
        assert "needs FAISS" in stats.index_reason
        await store.optimize()
        assert await store.check() == []


GARBAGE = [
    "null", "[]", "{}", "5", '"graph"', "true", '{"index": 5}', '{"index": "hnsw"}', '{"index": ["graph"]}',
    '{"graph": 5}',
    '{"graph": null}', '{"graph": {"m": 5000}}', '{"graph": {"m": "16"}}', '{"graph": {"links": 16}}', '{"more": 1}',
    '{"vector_type": "int4"}', '{"index": {"a": 1}}', '{"graph": [1, 2]}', "[[1, 2]]", "1e999",
]  # fmt: skip


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_what_the_file_remembers_and_nobody_can_read_is_the_default(path: Path, garbage: str) -> None:
    async with opened(path) as store:
        await store.memories.add("", id="0", embedding=ROWS[0])
    sql(path, "UPDATE store_meta SET index_options = :text", text=garbage)
    async with opened(path) as store:
        assert store._follower.indexes.options == IndexSettings()
        assert [hit.memory.id for hit in await store.memories.search(ROWS[0])] == ["0"]
    async with opened(path, index="graph"):
        pass
    assert IndexSettings.stored(remembered(path)) == IndexSettings(kind="graph")


@pytest.mark.parametrize("garbage", ["", "{graph", "\x00", '{"vector_type": "float16"}'])
async def test_nothing_that_is_remembered_keeps_a_file_from_opening(path: Path, garbage: str) -> None:
    async with opened(path, metric="l2") as store:
        await store.memories.add("", id="0", embedding=ROWS[0])
    sql(path, "UPDATE store_meta SET index_options = :text", text=garbage)
    async with opened(path) as store:
        assert [hit.memory.id for hit in await store.memories.search(ROWS[0])] == ["0"]

"""Graph snapshots: attached at the next open, equal to the log, and harmless when damaged."""

import asyncio
import json
import os
import shutil
import signal
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from memstore import GraphOptions, Store
from memstore.index.faiss_engine import FaissEngine
from memstore.index.hnsw import BrokenLinksError, Graph, GraphConstruction, GraphLinks
from memstore.index.protocol import VectorStorage
from memstore.repository.sqlite_only import change_log, index_snapshots
from memstore.repository.sqlite_only.index_snapshots import Header
from memstore.sync import maintainer, snapshot, snapshot_writer
from memstore.sync.snapshot import DELETED_KEY
from tests.support.children import PATIENCE, Child, Link
from tests.support.clusters import (
    DIMENSION,
    Rows,
    attached,
    by_hand,
    check_hits,
    clustered,
    items,
    opened,
    put,
    small_graphs,
    sql,
    wait_until_idle,
)

COUNT, GROUPS, M = 320, 130, 8
CHUNK = 4_096


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_graphs(monkeypatch, MIN_GRAPH_VECTORS=100)
    monkeypatch.setattr(snapshot, "CHUNK", CHUNK)
    monkeypatch.setattr(change_log, "KEEP", 1_000)


@dataclass
class Corpus:
    """What a file holds: which memory has which vector, and the vectors of the assemblies."""

    vectors: dict[str, Rows]
    queries: Rows

    def items(self, ids: Iterable[str], **fields: Any) -> list[dict[str, Any]]:
        """The memories *ids*, with *fields*."""
        return [{"id": id, "content": "", "embedding": self.vectors[id], **fields} for id in ids]

    async def check(self, store: Store, *, recall: float = 0.99) -> set[str]:
        """Check searches for memories and assemblies; return the methods that they used."""
        answers = await store.memories.search_many(self.queries, recursive=True)
        methods = check_hits(
            answers, self.queries, list(self.vectors), np.stack(list(self.vectors.values())), recall=recall
        )
        assembly_answers = await store.assemblies.search_many(self.queries, 5, recursive=True)
        composites = {a.id: a.composite async for a in store.assemblies.list(recursive=True) if a.composite is not None}
        return methods | check_hits(
            assembly_answers,
            self.queries,
            list(composites),
            np.stack(list(composites.values())),
            limit=5,
            recall=recall,
            atol=2e-6,
        )


async def saved(path: Path) -> Corpus:
    rng = np.random.default_rng(4)
    rows, _ = clustered(rng, COUNT)
    async with opened(path, graph=GraphOptions(m=M)) as store:
        by_hand(store)
        await put(store, rows[:310])
        await store.memories.add_many(items(rows[310:], 310, ttl=3_600))
        async with store.transaction() as tx:
            for i in range(GROUPS):
                await tx.assemblies.add(f"g{i}", members=[str(i), str(i + GROUPS)])
        await store.optimize()
        assert (await store.stats()).graph_nodes == COUNT
        assert store._follower.indexes.by_kind["assembly"].nodes == GROUPS
    queries = rows[:12] + 0.2 * rng.standard_normal((12, DIMENSION)).astype(np.float32)
    return Corpus({str(i): row for i, row in enumerate(rows)}, queries)


@pytest.fixture(scope="module")
def saved_store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Corpus]:
    path = tmp_path_factory.mktemp("made") / "made.db"
    with pytest.MonkeyPatch.context() as patch:
        small_graphs(patch, MIN_GRAPH_VECTORS=100)
        patch.setattr(snapshot, "CHUNK", CHUNK)
        return path, asyncio.run(saved(path))


@pytest.fixture
def corpus(saved_store: tuple[Path, Corpus], path: Path) -> Corpus:
    """What is in the file at *path*: a store closed with a snapshot of both its graphs, in many chunks."""
    shutil.copyfile(saved_store[0], path)
    assert sql(path, "SELECT space_pk, complete FROM index_snapshot ORDER BY 1") == [(1, 1), (2, 1)]
    assert sql(path, "SELECT count(*) FROM index_chunk")[0][0] > 8
    return replace(saved_store[1], vectors=dict(saved_store[1].vectors))


def forbid_building(patch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        raise AssertionError("a graph was built or merged")

    patch.setattr(maintainer.IndexMaintainer, "_merge", refuse)


@pytest.fixture
def no_building(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph can come from a snapshot, and from nowhere else."""
    forbid_building(monkeypatch)


@asynccontextmanager
async def opened_without_building(path: Path) -> AsyncIterator[Store]:
    """Open a store whose graphs come from its snapshots, and wait until they are attached."""
    with pytest.MonkeyPatch.context() as patch:
        forbid_building(patch)
        async with opened(path) as store:
            await attached(store)
            yield store


def nodes(store: Store) -> dict[str, int]:
    return {kind: index.nodes for kind, index in store._follower.indexes.by_kind.items()}


def generations(path: Path) -> list[tuple[int, int]]:
    return sql(path, "SELECT space_pk, pk FROM index_snapshot ORDER BY 1, 2")


# -- attached at the next open


@pytest.mark.usefixtures("no_building")
async def test_the_next_open_finds_the_graphs_of_memories_and_assemblies_in_the_file(
    path: Path, corpus: Corpus
) -> None:
    before = generations(path)
    async with opened(path) as store:
        await store.memories.search(corpus.queries[0])
        await wait_until_idle(store)
        assert nodes(store) == {"memory": COUNT, "assembly": GROUPS}
        stats = await store.stats()
        assert (stats.graph_nodes, stats.unindexed, stats.graph_deleted, stats.index) == (COUNT, 0, 0, "graph")
        assert stats.recall is not None
        assert stats.ef_search is not None
        assert stats.snapshot_bytes == sql(path, "SELECT sum(length(data)) FROM index_chunk")[0][0]
        assert await corpus.check(store) == {"graph"}
        assert await store.check() == []
    assert generations(path) == before, "it was written again, though nothing had changed"


@pytest.mark.usefixtures("no_building")
async def test_searches_are_exact_until_the_graph_is_there(path: Path, corpus: Corpus) -> None:
    async with opened(path) as store:
        by_hand(store)
        assert await corpus.check(store) == {"exact"}
        assert await store.check() == []
        await store.memories.delete("3")
        await store.memories.upsert("", id="4", embedding=corpus.vectors["5"])
        await store.memories.add("", id="late", embedding=corpus.vectors["9"])
        del corpus.vectors["3"]
        corpus.vectors |= {"4": corpus.vectors["5"], "late": corpus.vectors["9"]}
        assert await corpus.check(store) == {"exact"}
        assert await store.check() == []
        store._maintainer._retry_at = 0.0
        await store.memories.touch(["4"])
        await store.memories.update("6", embedding=corpus.vectors["7"])
        corpus.vectors["6"] = corpus.vectors["7"]
        await attached(store)
        assert await corpus.check(store) == {"graph"}
        assert nodes(store) == {"memory": COUNT, "assembly": GROUPS}
        assert await store.check() == []


async def changed(store: Store, corpus: Corpus) -> None:
    """Every kind of change that the log tells of."""
    rng = np.random.default_rng(12)
    rows, _ = clustered(rng, 40)
    new_vectors = {f"new{i}": row for i, row in enumerate(rows)} | {str(i): rows[i] for i in range(20)}
    corpus.vectors |= new_vectors
    await store.memories.upsert_many(corpus.items(new_vectors))
    await store.memories.delete_many(ids=[str(i) for i in range(30, 50)])
    await store.memories.upsert_many(corpus.items(map(str, range(60, 70)), ttl=3_600))
    await store.memories.upsert_many(corpus.items(map(str, range(70, 90)), ttl=0.01))
    for i in (*range(30, 50), *range(70, 90)):
        del corpus.vectors[str(i)]
    await store.memories.delete("91")
    await store.memories.add("", id="91", embedding=corpus.vectors["91"])
    for i in range(10):
        await store.assemblies.delete(f"g{i}")
    await asyncio.sleep(0.02)
    await store.assemblies.add("late", members=["100", "101"])  # and what has expired is deleted


@pytest.mark.usefixtures("no_building")
async def test_what_changed_since_is_replayed_over_it(path: Path, corpus: Corpus) -> None:
    async with opened(path) as store:
        by_hand(store)
        await changed(store, corpus)
    raw = "INSERT INTO namespace (pk, path) VALUES (7, 'far/')"
    sql(path, raw, "UPDATE memory SET namespace_pk = 7 WHERE id IN ('200', '201', '202')")
    async with opened(path) as store:
        await attached(store)
        assert nodes(store) == {"memory": COUNT, "assembly": GROUPS}
        index = store._follower.indexes.by_kind["memory"]
        assert index.table.deleted == 20 + 20 + 20 + 1 + 10 + 3
        assert index.unindexed == 40 + 20 + 1 + 10 + 3
        assert "graph" in await corpus.check(store)
        far = [hit.memory.id for hit in await store.namespace("far").memories.search(corpus.vectors["201"])]
        assert far[0] == "201"
        assert sorted(far) == ["200", "201", "202"]
        hits_of_201 = await store.memories.search(corpus.vectors["201"], 300)
        assert not {hit.memory.id for hit in hits_of_201} & {"200", "201", "202"}
        assert {f.kind for f in await store.check()} <= {"composite"}  # raw SQL moved members away
        await store.memories.update("61", ttl=0.01)
        await asyncio.sleep(0.02)
        del corpus.vectors["61"]
        await corpus.check(store)


async def test_a_snapshot_of_a_graph_with_deleted_nodes_is_as_good(path: Path, corpus: Corpus) -> None:
    async with opened(path, graph=GraphOptions(m=M, ef_search=64)) as store:
        await changed(store, corpus)
        await store.optimize()
        deleted = store._follower.indexes.by_kind["memory"].table.deleted
        assert deleted > 0
        assert "graph" in await corpus.check(store)
    async with opened_without_building(path) as store:
        index = store._follower.indexes.by_kind["memory"]
        assert (index.table.deleted, index.unindexed) == (deleted, 0)
        assert "graph" in await corpus.check(store)
        assert await store.check() == []


@pytest.mark.parametrize("vector_type", ["float32", "float16"])
@pytest.mark.usefixtures("no_building")
async def test_a_graph_serves_whatever_type_the_vectors_are_kept_in(
    path: Path, corpus: Corpus, vector_type: Any
) -> None:
    async with opened(path, vector_type=vector_type) as store:
        await attached(store)
        assert nodes(store) == {"memory": COUNT, "assembly": GROUPS}
        assert await corpus.check(store) == {"graph"}


# -- damage


def parameters(**values: Any) -> tuple[str, ...]:
    assignments = "".join(f", '$.{name}', json('{json.dumps(value)}')" for name, value in values.items())
    return (f"UPDATE index_snapshot SET parameters = json_set(parameters{assignments})",)


def column(name: str, value: str) -> tuple[str, ...]:
    return (f"UPDATE index_snapshot SET {name} = {value}",)


def chunk(number: int | str, assignment: str) -> tuple[str, ...]:
    return (f"UPDATE index_chunk SET {assignment} WHERE snapshot_pk = 1 AND number = {number}",)


def without_chunk(number: int | str) -> tuple[str, ...]:
    return (f"DELETE FROM index_chunk WHERE snapshot_pk = 1 AND number = {number}",)


CONTENT: dict[str, tuple[str, ...]] = {
    "a chunk missing": without_chunk(2),
    "the first missing": without_chunk(0),
    "the last missing": without_chunk("(SELECT max(number) FROM index_chunk WHERE snapshot_pk = 1)"),
    "no chunk": ("DELETE FROM index_chunk",),
    "truncated": chunk(1, "data = substr(data, 1, 100)"),
    "an empty chunk": chunk(0, "data = x''"),
    "text": chunk(1, "data = 'text'"),
    "longer": chunk(1, "data = CAST(data || x'00' AS BLOB)"),
    "a digest": chunk(1, "digest = zeroblob(16)"),
    "swapped": (*chunk(0, "number = -1"), *chunk(1, "number = 0"), *chunk(-1, "number = 1")),
    "of another snapshot": chunk(
        0, "(data, digest) = (SELECT data, digest FROM index_chunk WHERE snapshot_pk = 2 AND number = 0)"
    ),
    "all of another snapshot": (
        "DELETE FROM index_chunk WHERE snapshot_pk = 1",
        "UPDATE index_chunk SET snapshot_pk = 1",
    ),
    "spaces swapped": column("space_pk", "3 - space_pk"),
    "fewer nodes": parameters(nodes=200),
    "one node more": parameters(nodes=COUNT + 1),
    "another number of links": parameters(links=17),
    "another entry": parameters(entry=3),
    "another top": parameters(top=1),
    "another effort": parameters(effort=8),
    "another recall": parameters(recall=1e300),
    "an entry far out": parameters(entry=2**39),
    "a top far out": parameters(top=2**39),
    "an effort far out": parameters(effort=2**39),
    "chunks": column("chunks", "3"),
    "chunks far out": column("chunks", "1 << 60"),
    "seq": column("seq", "seq - 1"),
}
UNFIT: dict[str, tuple[str, ...]] = {
    "another epoch": column("epoch", "'another'"),
    "below the floor": (
        "INSERT INTO change_log (space_pk, pk) VALUES (1, 1), (1, 2), (2, 1)",
        "UPDATE store_meta SET log_floor = (SELECT max(seq) FROM change_log)",
    ),
    "incomplete": column("complete", "0"),
}
IMPOSSIBLE: dict[str, tuple[str, ...]] = {
    "negative nodes": parameters(nodes=-1, links=0),
    "no nodes, many links": parameters(nodes=0, links=2**39),
    "words": parameters(nodes="many"),
    "parameters without anything": column("parameters", "'{}'"),
    "parameters that are a list": column("parameters", "'[]'"),
    "parameters that are null": column("parameters", "'null'"),
    "parameters that are not JSON": column("parameters", "'{nodes'"),
    "above the top": column("seq", "1000000"),
    "far above the top": column("seq", "9223372036854775807"),
    "seq of text": column("seq", "'x'"),
    "a chunk of invalid text": ("UPDATE index_chunk SET data = CAST(x'ff00fe' AS TEXT) WHERE number = 0",),
}
OTHER_PARAMETERS: list[dict[str, Any]] = [
    {"m": M + 1},
    {"format": 3},
    {"ef_construction": 129},
    {"metric": "l2"},
    {"dimension": DIMENSION + 1},
    {"nodes": 5 * COUNT},
    {"nodes": 10**25},
    {"nodes": COUNT + 0.5},
    {"effort": -1},
    {"entry": None},
    {"top": True},
]


async def harmless(path: Path, corpus: Corpus, *, reported: bool | None, also: str = "snapshot") -> None:
    """Exact answers at once, `check` says so, `repair` mends it, and the graph comes back by itself."""
    async with opened(path) as store:
        by_hand(store)
        assert await corpus.check(store) == {"exact"}
        kinds = {finding.kind for finding in await store.check()}
        assert kinds <= {"snapshot", also}
        assert reported is None or kinds == ({"snapshot"} if reported else set())
        if reported is None:
            assert "memory" not in store._follower.indexes.pending_snapshots, "it was taken for one that fits"
        store._maintainer._retry_at = 0.0
        corpus.vectors["0"] = -corpus.vectors["1"]
        await store.memories.upsert("", id="0", embedding=corpus.vectors["0"])
        await wait_until_idle(store)
        assert await corpus.check(store) == {"graph"}
        assert all(there > 0.95 * many for there, many in zip(nodes(store).values(), (COUNT, GROUPS), strict=True))
        assert (await store.repair()).remaining == []
        await corpus.check(store)
        assert await store.check() == []


@pytest.mark.parametrize("which", CONTENT)
async def test_a_damaged_snapshot_is_reported_and_does_no_harm(path: Path, corpus: Corpus, which: str) -> None:
    sql(path, *CONTENT[which])
    async with opened(path, read_only=True) as store:
        details = [finding.detail for finding in await store.check()]
        assert details
        messages = ("differs from what was written", "is missing", "invalid graph snapshot header")
        if which == "text":
            messages += ("Corrupt value in index_chunk.data of the row with snapshot_pk 1, number 1: expected bytes",)
            assert messages[-1] in details[0]
        assert all(any(words in detail for words in messages) for detail in details), details
    await harmless(path, corpus, reported=True)


@pytest.mark.parametrize("which", [*UNFIT, *IMPOSSIBLE])
async def test_a_snapshot_with_an_unfit_or_impossible_header_is_not_used(
    path: Path, corpus: Corpus, which: str
) -> None:
    sql(path, *(UNFIT | IMPOSSIBLE)[which], checked=False)
    await harmless(path, corpus, reported=None, also="integrity" if which in IMPOSSIBLE else "snapshot")


@pytest.mark.parametrize("values", OTHER_PARAMETERS, ids=str)
async def test_a_snapshot_of_a_graph_with_other_parameters_is_not_used(
    path: Path, corpus: Corpus, values: dict[str, Any]
) -> None:
    _, keys, links = contents(path)
    forge(path, keys, links, **values)
    async with opened(path) as store:
        by_hand(store)
        await store.memories.search(corpus.queries[0])
        assert "memory" not in store._follower.indexes.pending_snapshots
        await store.optimize()
        assert nodes(store)["memory"] == COUNT
        assert "graph" in await corpus.check(store)


async def test_a_snapshot_of_mostly_deleted_nodes_is_not_used(path: Path, corpus: Corpus) -> None:
    _, keys, links = contents(path)
    levels = np.append(links.levels, np.ones(4 * COUNT, dtype=np.int32))
    neighbors = np.append(links.neighbors, np.full(4 * COUNT * 2 * M, -1, dtype=np.int32))
    forge(path, np.append(keys, np.full(4 * COUNT, DELETED_KEY)), links._replace(levels=levels, neighbors=neighbors))
    async with opened(path) as store:
        by_hand(store)
        await store.memories.search(corpus.queries[0])
        assert "memory" not in store._follower.indexes.pending_snapshots
        assert await store.check() == []


async def test_repair_deletes_a_damaged_snapshot(path: Path, corpus: Corpus) -> None:
    sql(path, *CONTENT["a digest"])
    async with opened(path) as store:
        by_hand(store)
        repaired = await store.repair()
        assert {finding.kind for finding in repaired.findings} == {"snapshot"}
        assert repaired.remaining == []
        assert generations(path) == []
        assert await corpus.check(store) == {"exact"}


async def test_a_flipped_bit_in_any_chunk_is_reported(
    path: Path, corpus: Corpus, caplog: pytest.LogCaptureFixture
) -> None:
    total = sql(path, "SELECT chunks FROM index_snapshot WHERE pk = 1")[0][0]
    for number in range(total):
        (data,) = sql(path, "SELECT data FROM index_chunk WHERE snapshot_pk = 1 AND number = :n", n=number)[0]
        flipped = bytearray(data)
        flipped[(number * 977) % len(data)] ^= 1 << number % 8
        write = "UPDATE index_chunk SET data = :data WHERE snapshot_pk = 1 AND number = :n"
        sql(path, write, data=bytes(flipped), n=number)
        caplog.clear()
        async with opened(path, read_only=True) as store:
            assert [finding.kind for finding in await store.check()] == ["snapshot"]
            await wait_until_idle(store)
            assert f"chunk {number} differs from what was written" in caplog.text
            assert nodes(store) == {"memory": COUNT, "assembly": GROUPS}
        sql(path, write, data=data, n=number)
    async with opened(path, read_only=True) as store:
        assert await store.check() == []


async def test_a_damaged_snapshot_is_replaced_once_the_graph_was_rebuilt(path: Path, corpus: Corpus) -> None:
    """Though nothing has changed since it was written: else each open builds the graph anew."""
    sql(path, *CONTENT["a digest"])
    async with opened(path) as store:
        await wait_until_idle(store)
        assert nodes(store) == {"memory": COUNT, "assembly": GROUPS}
    async with opened_without_building(path) as store:
        assert nodes(store) == {"memory": COUNT, "assembly": GROUPS}
        assert await store.check() == []


# -- snapshots with valid digests and invalid content


MISSING = object()
"""Instead of a value of the header: there is none."""


def contents(path: Path) -> tuple[Header, npt.NDArray[np.int64], GraphLinks]:
    """What the snapshot of the memories holds."""
    with closing(sqlite3.connect(path)) as connection:
        row = connection.execute("SELECT * FROM index_snapshot WHERE space_pk = 1").fetchone()
        header = Header(*row[:4], json.loads(row[4]), row[5])
        ordered = connection.execute("SELECT data FROM index_chunk WHERE snapshot_pk = ? ORDER BY number", row[:1])
        blobs = [data for (data,) in ordered]
    keys = snapshot.read_keys(header.parameters, blobs.__getitem__)
    return header, keys, snapshot.read_graph(header.parameters, blobs.__getitem__).links


def forge(path: Path, keys: npt.NDArray[np.int64], links: GraphLinks, **others: Any) -> None:
    """Write a snapshot with valid digests, whatever its content; *others* replace parameters, or remove them."""
    header = contents(path)[0]
    counts = {"nodes": len(keys), "links": len(links.neighbors), "entry": links.entry, "top": links.top}
    counts |= {"duplicates": 0, "outliers": 0}
    values = {name: value for name, value in {**header.parameters, **counts, **others}.items() if value is not MISSING}
    data = keys.astype("<i8").tobytes() + links.levels.astype("<u1").tobytes() + links.neighbors.astype("<i4").tobytes()
    blobs = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
    header = header._replace(parameters=values, chunks=len(blobs))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM index_chunk WHERE snapshot_pk = ?", (header.pk,))
        connection.execute(
            "UPDATE index_snapshot SET parameters = ?, chunks = ? WHERE pk = ?",
            (json.dumps(values), len(blobs), header.pk),
        )
        connection.executemany(
            "INSERT INTO index_chunk VALUES (?, ?, ?, ?)",
            [(header.pk, n, blob, index_snapshots._digest(header, n, blob)) for n, blob in enumerate(blobs)],
        )


def starts(levels: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum((levels.astype(np.int64) + 1) * M)])


def raised(links: GraphLinks, top: int) -> GraphLinks:
    """The entry point lifted to a layer that no graph has, its links there to nobody."""
    levels, begin = links.levels.copy(), starts(links.levels)[links.entry + 1]
    more = np.full((top + 1 - int(levels[links.entry])) * M, -1, dtype=np.int32)
    levels[links.entry] = top + 1
    return GraphLinks(levels, np.insert(links.neighbors, begin, more), links.entry, top)


def with_link(links: GraphLinks, place: int, to: int) -> GraphLinks:
    neighbors = links.neighbors.copy()
    neighbors[place] = to
    return links._replace(neighbors=neighbors)


def upper(links: GraphLinks) -> int:
    """The place of the entry point's first link on the layer above the lowest."""
    return int(starts(links.levels)[links.entry]) + 2 * M


def lowly(links: GraphLinks) -> int:
    return int(np.flatnonzero(links.levels == 1)[0])


def levels_with(links: GraphLinks, node: int, level: int) -> GraphLinks:
    levels = links.levels.copy()
    levels[node] = level
    return links._replace(levels=levels)


HOSTILE: dict[str, Callable[[GraphLinks], GraphLinks]] = {
    "a link out of range": lambda links: with_link(links, 5, COUNT),
    "a link far out of range": lambda links: with_link(links, 5, 2**31 - 1),
    "a link below": lambda links: with_link(links, 5, -2),
    "a link far below": lambda links: with_link(links, 5, -(2**31)),
    "a link up to one that is not there": lambda links: with_link(links, upper(links), lowly(links)),
    "an entry out of range": lambda links: links._replace(entry=COUNT),
    "an entry that is not on top": lambda links: links._replace(entry=lowly(links)),
    "a top too high": lambda links: links._replace(top=links.top + 1),
    "a top too low": lambda links: links._replace(top=links.top - 1),
    "no level": lambda links: levels_with(links, 3, 0),
    "a level too many": lambda links: levels_with(links, lowly(links), 2),
    "links missing": lambda links: links._replace(neighbors=links.neighbors[:-1]),
    "links left over": lambda links: links._replace(neighbors=np.append(links.neighbors, np.int32(0))),
    # FAISS looks up the links of a layer in a table that ends with the highest layer that it would ever draw.
    **{f"{top} layers": partial(raised, top=top) for top in (16, 25, 60, 61)},
}


@pytest.mark.parametrize("which", HOSTILE)
def test_links_that_lead_out_of_the_graph_are_refused(saved_store: tuple[Path, Corpus], which: str) -> None:
    links = contents(saved_store[0])[2]
    links.check(M)
    with pytest.raises(BrokenLinksError):
        HOSTILE[which](links).check(M)


@pytest.mark.parametrize("which", ["a link out of range", "an entry out of range", "no level", "links missing"])
async def test_a_snapshot_with_valid_digests_and_invalid_links_does_no_harm(
    path: Path, corpus: Corpus, which: str
) -> None:
    _, keys, links = contents(path)
    forge(path, keys, HOSTILE[which](links))
    await harmless(path, corpus, reported=True)


@pytest.mark.parametrize(
    ("change_keys", "reported", "recall"),
    [
        (lambda keys: np.where(np.arange(len(keys)) == 1, keys[0], keys), True, 0.99),
        (lambda keys: keys + 10**9, False, 0.99),
        (lambda keys: np.full_like(keys, DELETED_KEY), False, 0.99),
        (lambda keys: np.roll(keys, 1), False, 0.0),
    ],
    ids=["a key twice", "keys of nobody", "no keys", "another order"],
)
async def test_keys_that_are_not_those_of_the_nodes_cost_no_answer(
    path: Path, corpus: Corpus, change_keys: Callable[..., Any], reported: bool, recall: float
) -> None:
    """GraphLinks among other vectors are a bad graph, but each answer is still scored by what is stored."""
    _, keys, links = contents(path)
    forge(path, change_keys(keys), links)
    async with opened(path) as store:
        by_hand(store)
        assert await corpus.check(store) == {"exact"}
        assert bool(await store.check()) is reported
        store._maintainer._retry_at = 0.0
        corpus.vectors["0"] = -corpus.vectors["1"]
        await store.memories.upsert("", id="0", embedding=corpus.vectors["0"])
        await wait_until_idle(store)
        await corpus.check(store, recall=recall)
        assert (await store.repair()).remaining == []


@pytest.mark.usefixtures("no_building")
async def test_where_a_graph_gives_fewer_than_are_wanted_the_exact_search_answers(path: Path, corpus: Corpus) -> None:
    """Unused links are valid: nothing is out of range."""
    _, keys, links = contents(path)
    forge(path, keys, links._replace(neighbors=np.full_like(links.neighbors, -1)))
    async with opened(path) as store:
        await attached(store)
        assert nodes(store)["memory"] == COUNT
        (hits,) = await store.memories.search_many(corpus.queries[:1])
        assert (hits.plan.method, hits.plan.reason) == ("exact", "the graph found too few")
        await corpus.check(store, recall=1.0)


@pytest.mark.parametrize(
    "values",
    [
        {"recall": None},
        {"recall": "good"},
        {"recall": MISSING},
        {"recall": 1e308},
        {"effort": 0},
        {"effort": 2**39},
    ],
    ids=["recall null", "recall a word", "recall missing", "recall too high", "effort 0", "effort too high"],
)
async def test_a_forged_ef_search_or_recall_breaks_nothing(path: Path, corpus: Corpus, values: dict[str, Any]) -> None:
    _, keys, links = contents(path)
    forge(path, keys, links, **values)
    async with opened(path) as store:
        await wait_until_idle(store)
        assert await corpus.check(store) == ({"graph"} if values.get("effort", 0) < COUNT else {"exact", "graph"})
        await store.stats()
        assert await store.check() == []
        await store.optimize()
        await corpus.check(store)


def build_graph(storage: VectorStorage, options: GraphOptions, base: Graph | None = None, *, nodes: int) -> Graph:
    """A graph of the first *nodes* rows of *storage*."""
    construction = FaissEngine.load().graphs.start(options, storage, base)
    while construction.nodes < nodes:
        construction.link(storage, min(100, nodes - construction.nodes))
    return construction.finish(storage)


async def follow_random_links(_: Link, rounds: int) -> None:
    """In a process of its own, because FAISS crashes if it follows invalid links."""
    graphs, options, nodes = FaissEngine.load().graphs, GraphOptions(m=4), 300
    rows = np.random.default_rng(0).standard_normal((nodes, 8)).astype(np.float32)
    storage = graphs.allocate("l2", 8, "float32", 2 * nodes)
    storage.rows[:] = np.concatenate([rows, rows + 0.1])
    intact = build_graph(storage, options, nodes=nodes).links()
    intact.check(4)
    assert intact.top >= 2
    refused = 0
    for seed in range(rounds):
        rng = np.random.default_rng(seed)
        links = with_random_faults(rng, intact)
        try:
            links.check(4)
        except BrokenLinksError:
            refused += 1
            continue
        check_targets(links, 4)
        graph = graphs.from_links(links, options, storage)
        positions, _ = graph.search(rows[:5], 10, 32)
        assert positions.max() < nodes
        assert positions.min() >= -1
        graph = build_graph(storage, options, graph, nodes=2 * nodes)
        graph.links().check(4)
        assert graph.search(rows[:5], 10, 32)[0].max() < 2 * nodes
    assert 20 < refused < rounds - 20


def with_random_faults(rng: np.random.Generator, intact: GraphLinks) -> GraphLinks:
    """Links of m = 4 with random changes, some of which are valid."""
    levels, neighbors, nodes = intact.levels.copy(), intact.neighbors.copy(), len(intact.levels)
    entry, top = intact.entry, intact.top
    changed = rng.choice(len(neighbors), int(rng.choice([0, 1, 5, 200, len(neighbors)])), replace=False)
    low, high = [(-1, nodes), (-1, nodes), (-3, nodes + 3), (-(2**31), 2**31 - 1)][rng.integers(4)]
    neighbors[changed] = rng.integers(low, high, len(changed))
    if rng.random() < 0.2:
        entry = int(rng.integers(-2, nodes + 2))
    if rng.random() < 0.2:
        top = int(rng.integers(-2, 12))
    if rng.random() < 0.3:
        levels[rng.integers(0, nodes, 2)] = rng.integers(0, 12, 2)
        if rng.random() < 0.7:
            neighbors = rng.integers(-1, nodes, int(((levels.astype(int) + 1) * 4).sum())).astype(np.int32)
            top, entry = int(levels.max()) - 1, int(levels.argmax())
    return GraphLinks(levels, neighbors, entry, top)


def test_links_that_pass_the_check_are_safe_in_searches_and_merges() -> None:
    with Child(follow_random_links, 150) as child:
        child.receive()


def check_targets(links: GraphLinks, m: int) -> None:
    """Follow every link, one by one: it leads to a node that exists on its layer, or nowhere."""
    levels, first = links.levels.tolist(), 0
    assert set(levels) <= set(range(1, links.top + 2))
    assert levels[links.entry] == links.top + 1
    for level in levels:
        for layer in range(level):
            count = m if layer else 2 * m
            targets = links.neighbors[first : first + count].tolist()
            assert all(target == -1 or (0 <= target < len(levels) and levels[target] > layer) for target in targets)
            first += count
    assert first == len(links.neighbors)


# -- generations


async def test_one_generation_is_kept_and_no_other_file_ever_exists(path: Path, corpus: Corpus) -> None:
    file_names: set[str] = set()
    rng = np.random.default_rng(2)
    async with opened(path) as store:
        await attached(store)
        for turn in range(4):
            rows, _ = clustered(rng, 120)
            await store.memories.add_many([{"content": "", "embedding": row} for row in rows])
            await store.optimize()
            file_names |= set(os.listdir(path.parent))
            assert [space for space, _ in generations(path)] == [1, 2]
            assert sql(path, "SELECT count(*) FROM index_snapshot WHERE complete = 0") == [(0,)]
            assert nodes(store)["memory"] == COUNT + 120 * (turn + 1)
            left_over = "SELECT count(*) FROM index_chunk WHERE snapshot_pk NOT IN (SELECT pk FROM index_snapshot)"
            assert sql(path, left_over) == [(0,)]
        assert generations(path)[0][1] > 4
    file_names |= set(os.listdir(path.parent))
    assert file_names <= {path.name, path.name + "-wal", path.name + "-shm"}


async def test_deleting_a_generation_does_not_write_its_bytes_once_more(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "CHUNK", 1 << 18)
    grown: list[tuple[int, int]] = []
    forget = snapshot_writer.SnapshotWriter.delete_others

    async def measured(self: Any, space_pk: int, kept_pk: int | None) -> None:
        (old_bytes,) = sql(
            path,
            "SELECT coalesce(sum(length(data)), 0) FROM index_chunk WHERE snapshot_pk <> :kept_pk",
            kept_pk=kept_pk,
        )[0]
        before = self._database.wal_bytes()
        await forget(self, space_pk, kept_pk)
        grown.append((old_bytes, self._database.wal_bytes() - before))

    monkeypatch.setattr(snapshot_writer.SnapshotWriter, "delete_others", measured)
    rows, _ = clustered(np.random.default_rng(1), 2_400)
    async with opened(path, graph=GraphOptions(m=64, ef_construction=16)) as store:
        by_hand(store)
        for batch in (rows[:2_000], rows[2_000:]):
            await store.memories.add_many([{"content": "", "embedding": row} for row in batch])
            await store.optimize()
    (nothing, _), (size, written) = grown
    assert nothing == 0
    assert size > 1_000_000
    assert 0 < written < size / 5, f"deleting {size:,} bytes wrote {written:,}"


async def test_the_log_keeps_what_the_snapshots_need_and_drops_those_too_far_behind(
    path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is trimmed at every 50 changes here; a snapshot may be as far behind as there are memories."""
    monkeypatch.setattr(change_log, "KEEP", 50)
    (seq,) = sql(path, "SELECT min(seq) FROM index_snapshot")[0]
    async with opened(path) as store:
        by_hand(store)
        for turn in range(40):
            await store.memories.upsert_many(items(np.stack([corpus.vectors[str(i + turn)] for i in range(30)])))
            top = sql(path, "SELECT max(seq) FROM change_log")[0][0]
            (floor,) = sql(path, "SELECT log_floor FROM store_meta")[0]
            remaining = generations(path)
            assert remaining == [] or floor <= seq, "what a snapshot needs was forgotten"
            if top - seq < COUNT:
                assert len(remaining) == 2
            if top - seq > COUNT + 150:
                assert remaining == []
                assert floor > seq
        assert floor > top - 300
        corpus.vectors |= {str(i): corpus.vectors[str(i + 39)] for i in range(30)}
        await corpus.check(store)
    async with opened(path, graph=GraphOptions(m=M, ef_search=64)) as store:
        await wait_until_idle(store)
        assert await corpus.check(store) == {"graph"}
        assert await store.check() == []


async def test_compact_leaves_the_snapshots_that_count(path: Path, corpus: Corpus) -> None:
    async with opened(path) as store:
        by_hand(store)
        await store.memories.delete_many(ids=[str(i) for i in range(20)])
        await store.compact()
        for i in range(20):
            del corpus.vectors[str(i)]
    async with opened_without_building(path) as store:
        assert "graph" in await corpus.check(store)


async def test_a_backup_with_a_snapshot_in_it_opens_and_is_right(path: Path, corpus: Corpus, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    async with opened(path) as store:
        await attached(store)
        await changed(store, corpus)
        await store.backup(copy)
        await store.memories.delete("300")
        async with opened(copy) as other:
            assert await corpus.check(other) <= {"exact", "graph"}
            assert await other.check() == []
            await other.memories.delete("301")
            await wait_until_idle(other)
            assert other._follower.indexes.by_kind["memory"].nodes > 200
            copy_vectors = {name: row for name, row in corpus.vectors.items() if name != "301"}
            await replace(corpus, vectors=copy_vectors).check(other)
            await other.optimize()
            assert [space for space, _ in generations(copy)] == [1, 2]
            epoch = sql(copy, "SELECT epoch FROM store_meta")
            assert sql(copy, "SELECT DISTINCT epoch FROM index_snapshot") == epoch
        del corpus.vectors["300"]
        await corpus.check(store)
        assert await store.check() == []
    async with opened_without_building(copy) as other:
        await replace(corpus, vectors=copy_vectors).check(other)


# -- killed


async def optimize_until_killed(_: Link, path: Path, when: str, rows: Rows) -> None:
    """In a process of its own: add *rows*, and merge them; the process kills itself at the step *when*."""
    small_graphs(pytest.MonkeyPatch(), MIN_GRAPH_VECTORS=100)
    snapshot.CHUNK = CHUNK
    calls = Counter[str]()

    def killed(step: str, function: Callable[..., Any], call: int, *, after: bool = False) -> Callable[..., Any]:
        """*function*, with the process killed at its *call* number of those that count for *step*."""

        def run(*arguments: Any, **options: Any) -> Any:
            calls[step] += 1
            is_due = step == when and calls[step] == call
            if is_due and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*arguments, **options)
            if is_due:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return run

    def link(self: GraphConstruction, storage: Any, count: int) -> None:
        original_link(self, storage, min(count, 50))

    def drop_part(connection: Any, pk: int) -> bool:
        return original_drop(connection, pk, 2)

    original_link, original_drop = GraphConstruction.link, index_snapshots.drop_part
    index_snapshots.add = killed("between chunks", index_snapshots.add, 3)
    GraphConstruction.link = killed("merging", link, 3)
    index_snapshots.complete = killed("completing", index_snapshots.complete, 1, after=True)
    index_snapshots.drop_part = killed("complete", killed("deleting", drop_part, 3, after=True), 1)
    async with opened(path) as store:
        await store.memories.add_many([{**item, "id": f"k{item['id']}"} for item in items(rows)])
        await store.optimize()


@pytest.mark.parametrize("when", ["between chunks", "merging", "completing", "complete", "deleting"])
async def test_a_killed_process_leaves_a_file_that_opens_right(path: Path, corpus: Corpus, when: str) -> None:
    rows, _ = clustered(np.random.default_rng(21), 260)
    with Child(optimize_until_killed, path, when, rows) as child:
        child.process.join(PATIENCE)
        assert child.process.exitcode == -signal.SIGKILL
    corpus.vectors |= {f"k{i}": row for i, row in enumerate(rows)}
    async with opened(path) as store:
        await corpus.check(store)
        assert await store.check() == []
        await wait_until_idle(store)
        assert nodes(store)["memory"] >= COUNT
        await corpus.check(store)
        await store.optimize()
        assert nodes(store)["memory"] == COUNT + 260
        await store.memories.upsert_many(items(np.stack([rows[0]] * 5)))
        corpus.vectors |= {str(i): rows[0] for i in range(5)}
        await store.optimize()
        assert [space for space, _ in generations(path)] == [1, 2]
        assert sql(path, "SELECT count(*) FROM index_snapshot WHERE complete = 0") == [(0,)]
        assert await corpus.check(store) == {"graph"}
        assert await store.check() == []


@pytest.mark.usefixtures("corpus")
async def test_incomplete_snapshots_of_an_ended_process_are_deleted_when_the_graph_is_attached(path: Path) -> None:
    columns = "space_pk, epoch, seq, parameters, chunks"
    sql(path, f"INSERT INTO index_snapshot ({columns}, complete) SELECT {columns}, 0 FROM index_snapshot")
    assert len(sql(path, "SELECT pk FROM index_snapshot")) == 4
    async with opened(path) as store:
        await attached(store)
        await wait_until_idle(store)
    assert sql(path, "SELECT complete FROM index_snapshot") == [(1,), (1,)]

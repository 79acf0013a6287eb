"""Cases of damage that random mutations found, each made by hand."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import memstore
from memstore import DamagedError, Store
from memstore.repository import assemblies
from memstore.repository.corruption import only
from tests.conftest import DIMENSION, vectors
from tests.support.clusters import clustered, small_graphs, wait_until_idle


async def filled(path: Path, rng: np.random.Generator, count: int = 6) -> np.ndarray:
    rows = vectors(rng, count)
    async with memstore.open(path, dimension=DIMENSION) as store:
        items = [
            {"content": f"content {i}", "id": f"id {i}", "embedding": row, "metadata": {"i": i}}
            for i, row in enumerate(rows)
        ]
        await store.memories.add_many(items)
        await store.assemblies.add("group", members=["id 1"])
    return rows


def overwrite(path: Path, old: bytes, new: bytes) -> None:
    """Replace the bytes *old* in the file by *new*."""
    data = path.read_bytes()
    assert old in data
    assert len(old) == len(new)
    path.write_bytes(data.replace(old, new))


def root_page(path: Path, name: str) -> slice:
    """The bytes of the root page of a table or an index."""
    with closing(sqlite3.connect(path)) as base:
        (size,) = base.execute("PRAGMA page_size").fetchone()
        (root,) = base.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    return slice((root - 1) * size, root * size)


def clear_page(path: Path, page: slice) -> None:
    data = bytearray(path.read_bytes())
    data[page] = bytes(page.stop - page.start)
    path.write_bytes(data)


async def expect_repair(store: Store) -> None:
    """`check` finds damage of SQLite's structures, and `repair` removes it."""
    assert {finding.kind for finding in await store.check()} == {"integrity"}
    assert (await store.repair()).remaining == []


async def test_a_text_that_is_no_utf_8_is_damage(path: Path, rng: np.random.Generator) -> None:
    rows = await filled(path, rng)
    overwrite(path, b"content 3", b"conten\xff 3")
    async with memstore.open(path) as store:
        with pytest.raises(DamagedError, match="UTF-8"):
            await store.memories.get("id 3")
        with pytest.raises(DamagedError, match="UTF-8"):
            await store.memories.search(rows[3])
        assert (await store.memories.get("id 2")).content == "content 2"


async def test_metadata_that_is_no_json_is_damage_to_a_filter_and_to_check(
    path: Path, rng: np.random.Generator
) -> None:
    await filled(path, rng)
    overwrite(path, b'{"i":3}', b'{"i"!3}')
    async with memstore.open(path) as store:
        with pytest.raises(DamagedError, match="malformed JSON"):
            await store.memories.count(where={"metadata.i": {"$gt": 2}})
        assert {finding.kind for finding in await store.check()} == {"integrity", "value"}


async def test_a_vector_that_sqlite_s_own_index_does_not_lead_to_is_found_by_nobody(
    path: Path, rng: np.random.Generator
) -> None:
    """The index of memory_vector has no entry for a row of the table."""
    rows = await filled(path, rng)
    start, data = root_page(path, "sqlite_autoindex_memory_vector_1").start, bytearray(path.read_bytes())
    # A leaf page of an index has a header of 8 bytes, then 2 bytes for each cell: reduce the number of cells by one.
    cells = int.from_bytes(data[start + 3 : start + 5])
    data[start + 3 : start + 5] = (cells - 1).to_bytes(2)
    path.write_bytes(data)
    async with memstore.open(path) as store:
        with pytest.raises(DamagedError, match="Run `memstore check` to list them"):
            await store.memories.search(rows[5])
        await expect_repair(store)
        assert (await store.memories.search(rows[5]))[0].memory.id == "id 5"


async def test_an_index_that_leads_to_the_vector_of_another_is_damage(path: Path, rng: np.random.Generator) -> None:
    rows = await filled(path, rng)
    # An entry: the types of its three numbers, then the key and the row id; space 1 needs no byte.
    overwrite(path, b"\x04\x01\x09\x01\x05\x05", b"\x04\x01\x09\x01\x05\x06")
    async with memstore.open(path) as store:
        for verb in (store.memories.get("id 4"), store.memories.search(rows[4])):
            with pytest.raises(DamagedError, match="memory 'id 4' refers to the vector of another record"):
                await verb
        await expect_repair(store)
        assert (await store.memories.get("id 4")).embedding.tobytes() == rows[4].tobytes()


async def test_an_index_that_leads_to_the_composite_of_another_is_damage(path: Path, rng: np.random.Generator) -> None:
    await filled(path, rng)
    async with memstore.open(path) as store:
        await store.assemblies.add("other", members=["id 2"])
    # Keys and rows are 1 and 2, the space is 2: an entry is the key, the space, and the row id.
    with closing(sqlite3.connect(path)) as base:
        keys = base.execute("SELECT assembly_pk, space_pk, rowid FROM assembly_vector").fetchall()
        assert keys == [(1, 2, 1), (2, 2, 2)]
    overwrite(path, b"\x04\x01\x01\x01\x02\x02\x02", b"\x04\x01\x01\x01\x02\x02\x01")
    async with memstore.open(path) as store:
        with pytest.raises(DamagedError, match="assembly 'other' refers to the vector of another record"):
            await store.assemblies.get("other")
        assert (await store.repair()).remaining == []
        assert (await store.assemblies.get("other")).composite is not None


def test_a_record_of_which_there_is_no_whole_row_is_damage() -> None:
    with pytest.raises(DamagedError, match="no complete row"):
        only([])
    assert only(["one"]) == "one"


async def test_an_index_of_ids_that_leads_to_another_record_is_damage(path: Path, rng: np.random.Generator) -> None:
    await filled(path, rng, 200)
    overwrite(path, b"id 89Z", b"iz 89Z")  # an index entry: the id, then the key 90
    with closing(sqlite3.connect(path)) as base:
        query = "SELECT id FROM memory WHERE namespace_pk = 1 AND id IN (?)"
        ids = [f"id {i}" for i in range(200)]
        led = [id for id in ids for (other,) in base.execute(query, (id,)) if other != id]
    assert led, "SQLite finds every id in spite of it"
    async with memstore.open(path) as store:
        with pytest.raises(DamagedError, match="leads to records with other ids"):
            await store.memories.upsert("new", id=led[0], embedding=None)
        await expect_repair(store)
        assert (await store.memories.upsert("new", id=led[0], embedding=None)).id == led[0]
        assert await store.memories.count() == 200


async def test_check_names_what_it_can_where_a_table_cannot_be_read(path: Path, rng: np.random.Generator) -> None:
    await filled(path, rng, 200)
    with closing(sqlite3.connect(path)) as base, base:
        base.execute("UPDATE assembly_vector SET checksum = 1")
    clear_page(path, root_page(path, "memory_vector"))
    async with memstore.open(path) as store:
        findings = await store.check()
        assert any("cannot be read to its end" in finding.detail for finding in findings)
        assert {(finding.kind, finding.id) for finding in findings} == {("integrity", ""), ("checksum", "group")}


async def test_a_file_that_was_emptied_is_no_new_one(path: Path, rng: np.random.Generator) -> None:
    async with memstore.open(path, dimension=DIMENSION) as store:
        await store.memories.add("kept in the log", embedding=vectors(rng, 1)[0])
        log = Path(f"{path}-wal").read_bytes()
    path.write_bytes(b"")
    Path(f"{path}-wal").write_bytes(log)
    with pytest.raises(DamagedError, match="the log beside it is not"):
        await memstore.open(path, dimension=DIMENSION)
    assert Path(f"{path}-wal").read_bytes() == log


async def test_a_graph_whose_page_cannot_be_read_is_built_anew(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_graphs(monkeypatch, MIN_GRAPH_VECTORS=100)
    rows, _ = clustered(rng, 240)
    async with memstore.open(path, dimension=rows.shape[1], index="graph") as store:
        await store.memories.add_many([{"content": "x", "id": str(i), "embedding": row} for i, row in enumerate(rows)])
        await store.optimize()
    clear_page(path, root_page(path, "index_chunk"))
    async with memstore.open(path) as store:
        assert (await store.memories.search(rows[7]))[0].memory.id == "7"
        await wait_until_idle(store)
        assert store._follower.indexes.by_kind["memory"].nodes == 240
        assert (await store.memories.search(rows[7]))[0].memory.id == "7"
        findings = await store.check()
        assert {finding.kind for finding in findings} == {"integrity", "snapshot"}


async def test_an_assembly_that_indexes_lead_to_and_that_is_not_there_is_damage(
    path: Path, rng: np.random.Generator
) -> None:
    await filled(path, rng)
    async with memstore.open(path) as store:
        with pytest.raises(DamagedError, match="does not exist"):
            await store._session.read(lambda connection: assemblies.revision(connection, 99))


async def test_a_schema_that_is_no_text_is_damage(path: Path, rng: np.random.Generator) -> None:
    await filled(path, rng)
    overwrite(path, b"CREATE INDEX ix_memory_expires_at", b"CREATE \xffNDEX ix_memory_expires_at")
    with pytest.raises(DamagedError, match="schema is not valid UTF-8"):
        await memstore.open(path)

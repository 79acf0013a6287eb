"""A damaged vector is in no search result, `check` names it, and it can be replaced."""

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import memstore
from memstore import DamagedError, Store
from tests.conftest import DIMENSION, vectors
from tests.support.index_options import with_index

OTHERS = ["0", "1", "3", "4", "5", "6", "7", "8"]
WRONG = np.eye(DIMENSION, dtype=np.float32)[0]


def damage(path: Path, id: str, vector: bytes = WRONG.tobytes(), *, noun: str = "memory") -> None:
    """Replace the vector of a record without its checksum, and without an entry in the change log."""
    with closing(sqlite3.connect(path)) as base, base:
        (key,) = base.execute(f"SELECT pk FROM {noun} WHERE id = ?", (id,)).fetchone()
        top = base.execute("SELECT max(seq) FROM change_log").fetchone()[0]
        where = f"WHERE {noun}_pk = {key}"
        (written,) = base.execute(f"SELECT checksum FROM {noun}_vector {where}").fetchone()
        revisions = base.execute("SELECT revision, pk FROM assembly").fetchall()
        base.execute(f"UPDATE {noun}_vector SET vector = ? {where}", (vector,))
        base.execute(f"UPDATE {noun}_vector SET checksum = ? {where}", (written,))
        base.executemany("UPDATE assembly SET revision = ? WHERE pk = ?", revisions)
        base.execute("DELETE FROM change_log WHERE seq > ?", (top,))
        base.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'change_log'", (top,))


async def filled(path: Path, rows: np.ndarray, **options: object) -> None:
    async with memstore.open(path, dimension=DIMENSION, **with_index(options)) as store:
        await store.memories.add_many([{"content": "x", "id": str(i), "embedding": row} for i, row in enumerate(rows)])
        await store.assemblies.add("few", members=["1", "2", "3"])
        await store.assemblies.add("other", members=["4", "5"])


@pytest.fixture
async def rows(path: Path, rng: np.random.Generator) -> np.ndarray:
    """The vectors of nine memories in the file at *path*."""
    rows = vectors(rng, 9)
    await filled(path, rows)
    return rows


async def expect_damage_only_in_history(store: Store, path: Path, id: str) -> None:
    """`check` finds nothing but the version before the last change; nothing at all once the history is deleted."""
    (finding,) = await store.check()
    assert (finding.kind, finding.record_kind, finding.id) == ("history", "memory", id)
    assert "the embedding before it does not match its checksum" in finding.detail
    async with memstore.open(path, history="off"):
        assert await store.check() == []


async def hit_ids(store: Store, query: np.ndarray) -> list[str]:
    return [hit.memory.id for hit in await store.memories.search(query, limit=100)]


@pytest.mark.parametrize("vector_type", ["float32", "float16"])
async def test_a_damaged_vector_is_no_neighbour_and_is_named(
    path: Path, rng: np.random.Generator, caplog: pytest.LogCaptureFixture, vector_type: str
) -> None:
    rows = vectors(rng, 20)
    await filled(path, rows, vector_type=vector_type)
    damage(path, "2")
    async with memstore.open(path) as store:
        caplog.set_level(logging.WARNING, "memstore")
        for query in (WRONG, rows[2]):
            assert sorted(await hit_ids(store, query), key=int) == [str(i) for i in range(20) if i != 2]
        assert "1 stored vectors are damaged" in caplog.text
        findings = {(finding.kind, finding.id) for finding in await store.check()}
        assert findings == {("checksum", "2")}
        with pytest.raises(DamagedError, match="stored vector of memory '2': the checksum does not match"):
            await store.memories.get("2")
        with pytest.raises(DamagedError, match="memory '2'"):
            [memory async for memory in store.memories.list()]

        await store.memories.update("2", embedding=rows[2])
        assert (await hit_ids(store, rows[2]))[0] == "2"
        assert (await store.memories.get("2")).embedding.tobytes() == rows[2].tobytes()
        await expect_damage_only_in_history(store, path, "2")


async def test_what_is_damaged_while_the_store_is_open_is_never_returned(path: Path, rows: np.ndarray) -> None:
    async with memstore.open(path) as store:
        assert (await hit_ids(store, rows[2]))[0] == "2"
        damage(path, "2")
        with pytest.raises(DamagedError, match="memory '2'"):
            await hit_ids(store, rows[2])
        await store.memories.update("2", embedding=None)
        assert "2" not in await hit_ids(store, rows[2])
        await expect_damage_only_in_history(store, path, "2")


async def test_the_log_brings_no_damaged_vector_into_the_index(path: Path, rows: np.ndarray) -> None:
    async with memstore.open(path) as store:
        await hit_ids(store, rows[2])
        with closing(sqlite3.connect(path)) as base, base:
            base.execute("UPDATE memory_vector SET vector = ? WHERE memory_pk = 3", (WRONG.tobytes(),))
            base.execute("UPDATE memory_vector SET checksum = 1 WHERE memory_pk = 3")
        assert sorted(await hit_ids(store, WRONG)) == OTHERS
        async with store.transaction() as tx:
            await tx.memories.update("0", importance=1.0)
            await tx.memories.touch(["2"])
            assert sorted([hit.memory.id for hit in await tx.memories.search(WRONG)]) == OTHERS
        await store.memories.delete("2")
        await expect_damage_only_in_history(store, path, "2")


async def test_an_unknown_checksum_is_no_damage(path: Path, rows: np.ndarray) -> None:
    with closing(sqlite3.connect(path)) as base, base:
        base.execute("UPDATE memory_vector SET vector = ? WHERE memory_pk = 3", (WRONG.tobytes(),))
    async with memstore.open(path) as store:
        assert (await hit_ids(store, WRONG))[0] == "2"
        assert (await store.memories.get("2")).embedding.tobytes() == WRONG.tobytes()
        assert await store.check() == []


async def test_a_composite_is_made_without_a_damaged_member(path: Path, rows: np.ndarray) -> None:
    damage(path, "2")
    async with memstore.open(path) as store:
        await store.assemblies.remove_members("few", ["3"])
        composite = (await store.assemblies.get("few")).composite
        np.testing.assert_allclose(composite, rows[1] / np.linalg.norm(rows[1]), rtol=1e-6)
        await store.assemblies.add_members("other", ["2"])
        expected = sum(row / np.linalg.norm(row) for row in (rows[4], rows[5]))
        composite = (await store.assemblies.get("other")).composite
        np.testing.assert_allclose(composite, expected / np.linalg.norm(expected), rtol=1e-5)
        assert [finding.kind for finding in await store.check()] == ["checksum"]


async def test_a_damaged_composite_is_named_and_mended(path: Path, rows: np.ndarray) -> None:
    damage(path, "few", noun="assembly")
    async with memstore.open(path) as store:
        assert [hit.assembly.id for hit in await store.assemblies.search(WRONG)] == ["other"]
        with pytest.raises(DamagedError, match="assembly 'few'"):
            await store.assemblies.get("few")
        report = await store.repair()
        assert ("checksum", "few") in {(finding.kind, finding.id) for finding in report.findings}
        assert report.remaining == []
        assert len(await store.assemblies.search(WRONG)) == 2


@pytest.mark.parametrize(
    "change", ["sum = zeroblob(length(sum))", "length = 1e30", "count = -1", "sum = substr(sum, 4)"]
)
@pytest.mark.usefixtures("rows")
async def test_a_damaged_sum_is_not_added_to(path: Path, change: str) -> None:
    with closing(sqlite3.connect(path)) as base, base:
        base.execute(f"UPDATE assembly_vector SET {change} WHERE assembly_pk = 1")
    async with memstore.open(path) as store:
        await store.assemblies.add_members("few", ["7"])
        assert await store.check() == []

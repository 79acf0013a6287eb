"""SQL that others put into a file ends by itself, in memstore's own statements too."""

import asyncio
import shutil
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import memstore
from memstore import DamagedError, StorageError
from memstore.database import statement_limits
from memstore.database.sqlite import sqlite3
from memstore.database.statement_limits import StatementLimit, distrusts_schema, harden, has_foreign_sql

ENDLESS = "(SELECT count(*) FROM change_log a, change_log b, change_log c, change_log d, change_log e)"
HEAVY = "length(replace(hex(zeroblob(5000000 + pk)), '0', '1'))"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "store.db"

    async def make() -> None:
        async with memstore.open(path, dimension=2, indexed_metadata=["a", "it's"]) as store:
            await store.memories.add_many(
                {"content": "x", "id": f"m{i}", "embedding": [1, i], "metadata": {"a": i}} for i in range(100)
            )

    asyncio.run(make())
    return path


@pytest.fixture
def file(sound: Path, path: Path) -> Path:
    return Path(shutil.copy(sound, path))


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statement_limits, "_SECONDS", 0.2)


def change(file: Path, *statements: str) -> None:
    base = sqlite3.connect(file, isolation_level=None)
    base.execute("PRAGMA writable_schema=ON")
    for statement in statements:
        base.execute(statement)
    base.close()


def redefine(file: Path, table: str, before: str, after: str) -> None:
    base = sqlite3.connect(file)
    (sql,) = base.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    assert before in sql
    base.execute("PRAGMA writable_schema=ON")
    base.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (sql.replace(before, after, 1), table))
    base.commit()
    base.close()


WRITES = {
    "a trigger on every commit": f"CREATE TRIGGER x AFTER UPDATE ON store_meta WHEN {ENDLESS} < 0 BEGIN SELECT 1; END",
    "a trigger on a memory": f"CREATE TRIGGER x AFTER INSERT ON memory BEGIN DELETE FROM tag WHERE pk = {ENDLESS}; END",
    "a trigger that computes": "CREATE TRIGGER x AFTER INSERT ON memory "
    f"WHEN (SELECT sum({HEAVY}) FROM memory) < 0 BEGIN SELECT 1; END",
}


@pytest.mark.parametrize(
    "case", [next(iter(WRITES)), *(pytest.param(case, marks=pytest.mark.slow) for case in list(WRITES)[1:])]
)
async def test_a_write_ends_and_the_store_goes_on(case: str, file: Path) -> None:
    change(file, WRITES[case])
    async with memstore.open(file) as store:
        with pytest.raises(StorageError, match=r"more processor time|longer than SQLite's limit"):
            await store.memories.add("x", id="new", embedding=[1, 1])
        assert await store.memories.count() == 100
        assert len(await store.memories.search([1, 0])) == 10


@pytest.mark.slow
async def test_an_index_of_others_ends_a_write_too(file: Path) -> None:
    change(file, f"CREATE INDEX x ON memory ({HEAVY.replace('5000000', '10')})")
    redefine(file, "x", "zeroblob(10", "zeroblob(5000000")
    async with memstore.open(file) as store:
        with pytest.raises(StorageError):
            await store.memories.add_many({"content": "x", "embedding": [1, 1]} for _ in range(200))


@pytest.mark.slow
async def test_a_constraint_of_a_host_ends_check_with_a_finding(file: Path) -> None:
    change(file, "CREATE TABLE host (pk INTEGER PRIMARY KEY CHECK (pk > 0))", "INSERT INTO host SELECT pk FROM memory")
    redefine(file, "host", "pk > 0", f"{HEAVY} > 0")
    assert {finding.kind for finding in (await memstore.verify(file)).findings} <= {"integrity"}
    async with memstore.open(file) as store:
        (finding,) = await store.check()
    assert (finding.kind, "integrity_check failed" in finding.detail) == ("integrity", True)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("store_meta", "CHECK (pk = 1)", "CHECK (pk = 1 OR length(hex(zeroblob(490000000 + pk))) > 0)"),
        ("memory", "CHECK (importance BETWEEN 0 AND 1)", f"CHECK ({HEAVY} > 0)"),
        ("memory", "content TEXT NOT NULL", "content TEXT NOT NULL COLLATE NOCASE"),
        ("journal", "actor TEXT", f"actor TEXT DEFAULT ({HEAVY.replace('pk', '1')})"),
        ("ix_memory_expires_at", "expires_at IS NOT NULL", "expires_at IS NOT NULL AND hex(zeroblob(9)) > ''"),
    ],
)
async def test_a_table_or_an_index_of_ours_with_other_sql_is_refused_before_it_runs(
    name: str, before: str, after: str, file: Path
) -> None:
    redefine(file, name, before, after)
    for options in ({}, {"read_only": True}):
        with pytest.raises(DamagedError, match=f"another definition of the (table|index) {name}"):
            await memstore.open(file, **options)
    assert "another definition" in (await memstore.verify(file)).findings[0].detail
    with pytest.raises(DamagedError, match="another definition"):
        await memstore.restore_backup(file, file.with_name("restored.db"))


async def test_a_plain_column_of_a_host_is_not_another_definition(file: Path) -> None:
    change(file, "ALTER TABLE memory ADD COLUMN colour TEXT")
    async with memstore.open(file) as store:
        assert await store.check() == []


async def test_a_backup_of_a_file_with_an_endless_trigger_ends(file: Path) -> None:
    async with memstore.open(file) as store:
        change(file, WRITES["a trigger on every commit"])
        with pytest.raises(StorageError):
            await store.backup(file.with_name("copy.bak"))
    assert not file.with_name("copy.bak").exists()


def test_foreign_sql_is_a_trigger_or_an_index_that_memstore_did_not_make(file: Path) -> None:
    base = sqlite3.connect(file)
    assert not has_foreign_sql(base)
    for statement in ("CREATE INDEX x ON memory (hex(content))", WRITES["a trigger on a memory"]):
        base.execute(statement)
        assert has_foreign_sql(base)
        base.execute("DROP INDEX IF EXISTS x")
    base.close()


def test_a_connection_has_the_limits_that_the_build_has(file: Path) -> None:
    base = sqlite3.connect(file)
    harden(base, size=1)
    assert base.execute("PRAGMA trusted_schema").fetchone()[0] == (not distrusts_schema())
    if hasattr(base, "setlimit"):
        with pytest.raises(sqlite3.Error, match="too big"):
            base.execute("SELECT length(hex(zeroblob(490000000)))").fetchone()
        with pytest.raises(sqlite3.Error, match="too complex"):
            base.execute(f"SELECT 'x' LIKE '{'%a' * 1_000}'").fetchone()
    if sys.version_info >= (3, 12) and hasattr(base, "getconfig"):
        assert base.getconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE)  # type: ignore[attr-defined,unused-ignore]
    base.close()


def test_time_that_passes_between_statements_does_not_count(file: Path) -> None:
    base = sqlite3.connect(file)
    StatementLimit(str(file)).watch(base, often=True)
    for _ in range(20):
        statement_limits.STATEMENT.is_new = True
        assert base.execute("SELECT count(*) FROM memory a, memory b").fetchone()[0] == 10_000
        start = time.thread_time()
        while time.thread_time() - start < 0.05:
            pass
    base.close()


@pytest.fixture
async def many(file: Path) -> AsyncIterator[memstore.Store]:
    trigger = "CREATE TRIGGER x AFTER INSERT ON memory BEGIN INSERT INTO host VALUES (1); END"
    change(file, "CREATE TABLE host (a)", trigger)
    async with memstore.open(file) as store:
        yield store


async def test_a_large_write_beside_a_trigger_of_a_host_is_not_ended(many: memstore.Store) -> None:
    assert len(await many.memories.add_many({"content": "x", "embedding": [1, 1]} for _ in range(2_000))) == 2_000

"""The SQLite in use, and the checkpoints that its WAL-reset bug forbids."""

import importlib.util
from contextlib import closing
from types import SimpleNamespace

import pytest
from sqlalchemy import Connection

import memstore
from memstore.cli import doctor
from memstore.database import sqlite
from memstore.database.checkpoint import write_back
from memstore.database.sqlite import select, sqlite3
from memstore.database.transactions import raw
from tests.support.programs import run_python

OLDER, NEWER = SimpleNamespace(sqlite_version_info=(3, 40, 1)), SimpleNamespace(sqlite_version_info=(3, 53, 4))
CORE = ("tests/database/test_sqlite.py", "tests/database/test_commit.py", "tests/api/test_transactions.py")


@pytest.mark.parametrize(
    ("python", "extra", "name", "selected"),
    [
        (OLDER, None, None, OLDER),
        (OLDER, NEWER, None, NEWER),
        (OLDER, NEWER, "", NEWER),
        (NEWER, OLDER, None, NEWER),
        (OLDER, NEWER, "stdlib", OLDER),
        (NEWER, OLDER, "pysqlite3", OLDER),
    ],
)
def test_the_newer_sqlite_is_used_unless_one_is_named(python, extra, name, selected):
    assert select(python, extra, name) is selected


def test_sqlite_that_is_not_installed_is_refused():
    with pytest.raises(ImportError, match=r"memstore\[sqlite\]"):
        select(OLDER, None, "pysqlite3")
    with pytest.raises(ImportError, match="'stdlib' or 'pysqlite3', found 'apsw'"):
        select(OLDER, NEWER, "apsw")


async def test_every_connection_uses_the_selected_sqlite(store):
    def used(connection: Connection) -> type:
        return type(raw(connection))

    database = store._database
    threads = [database._writer.thread, database._upkeep, *database._readers.threads]
    assert {await driver.submit(used) for driver in threads} == {sqlite3.Connection}
    version = await store._session.read(lambda c: c.exec_driver_sql("SELECT sqlite_version()").scalar_one())
    stats = await store.stats()
    assert (stats.sqlite, stats.sqlite_source) == (version, sqlite.SOURCE)
    assert stats.wal_reset_bug is sqlite.wal_reset_bug(tuple(map(int, version.split("."))))


async def test_commit_never_checkpoints(path):
    async with memstore.open(path, dimension=2) as store:
        await store._database.checkpoint()
        size = path.stat().st_size
        for _ in range(3):  # 12 MB: SQLite by itself would write back after 8
            await store.memories.add_many([{"content": "x" * 10_000} for _ in range(400)])
        assert (await store.stats()).wal_bytes > 12_000_000
        assert path.stat().st_size == size


async def test_checkpoint_is_left_for_later_while_another_connection_writes(path):
    async with memstore.open(path, dimension=2) as store:
        await store._database.checkpoint()
        size = path.stat().st_size
        await store.memories.add_many([{"content": "x" * 10_000} for _ in range(100)])
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await store._database.checkpoint()
            if sqlite.BUG:
                assert path.stat().st_size == size  # nothing was written back, not even passively
            assert (await store.stats()).wal_bytes > 0
            other.execute("ROLLBACK")
        await store._database.checkpoint()
        assert path.stat().st_size > size
        assert (await store.stats()).wal_bytes == 0


async def test_checkpoint_under_the_bug_is_complete_or_does_nothing(path):
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add_many([{"content": "x" * 10_000} for _ in range(100)])
        size = path.stat().st_size
        with closing(sqlite3.connect(path, isolation_level=None)) as base:
            async with store.transaction() as tx:
                await tx.memories.add("one more")
                assert not write_back(base, 0.01)
                assert (path.stat().st_size == size) is sqlite.BUG, "a mended SQLite writes back beside a writer"
            assert write_back(base, 0.01)
            assert not base.in_transaction
        assert path.stat().st_size > size


def test_a_first_program_prints_nothing_with_an_affected_sqlite(path):
    code = "from memstore.database import sqlite; sqlite.BUG = True; from memstore.cli.main import run; run()"
    process = run_python("-c", code, "add", path, "tea", "--embedding", "[1, 2]")
    assert (process.returncode, process.stderr) == (0, "")
    program = f"""
import asyncio, memstore
from memstore.database import sqlite
sqlite.BUG = True
async def main():
    async with memstore.open({str(path)!r}) as store:
        await store.memories.add("coffee", embedding=[2, 1])
asyncio.run(main())
"""
    process = run_python("-c", program)
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")


def test_doctor_names_the_sqlite_and_its_path():
    facts = {fact.name: fact.value for fact in doctor._sqlite()}
    owner = "Python" if sqlite.SOURCE == "sqlite3" else "pysqlite3"
    assert facts["version"] == f"{sqlite3.sqlite_version}, from {owner}"
    assert "sqlite3" in facts["library"] or facts["library"] == "built into Python"
    assert ("fixed" in facts["WAL-reset bug"]) is not sqlite.BUG


@pytest.mark.timeout(600)
@pytest.mark.skipif(importlib.util.find_spec("pysqlite3") is None, reason="pysqlite3 is not installed here")
@pytest.mark.skipif(sqlite.SOURCE == "pysqlite3", reason="these tests run on it already")
def test_core_tests_pass_on_pysqlite3():
    options = ("-q", "-n", "0", "-p", "no:cacheprovider")
    process = run_python("-m", "pytest", *options, *CORE, timeout=500, MEMSTORE_SQLITE="pysqlite3")
    assert process.returncode == 0, process.stdout[-5_000:]
    assert " passed" in process.stdout

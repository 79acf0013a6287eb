"""A value that a column cannot have is named, whatever the table, the column, and the way in which the file is read.

The columns are read from the schema, so a new column is tested with the values that its type cannot have.
"""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memstore
from memstore import DamagedError, StorageError, Store
from memstore.database.sqlite import sqlite3
from memstore.schema.column_rules import rules
from memstore.schema.tables import metadata

BAD_TEXT = "CAST(x'41ff' AS TEXT)"
BY_STORAGE = {
    "integer": ["'x'", "1.5", "x'00'", BAD_TEXT],
    "real": ["'x'", "x'00'", "9e999"],
    "text": ["x'ff41'", BAD_TEXT],
    "blob": ["'x'", "5", BAD_TEXT],
}
"""SQL of values that no column of a type can have."""

IMPOSSIBLE = {
    **{name: ["1 << 62"] for name in ("created_at", "updated_at", "expires_at", "accessed_at", "activated_at", "at")},
    **{name: ["-(1 << 62)"] for name in ("composed_at", "undone_at")},
    "memory.importance": ["7.0", "-0.5"],
    "memory.access_count": ["-1"],
    "memory.pinned": ["2"],
    "memory.metadata": ["'['", "'[]'", "'{\"a\":1e999}'", "'{\"a\":NaN}'", "'{\"a\":' || (1 << 62) || '99999}'"],
    "memory.id": ["''"],
    "assembly.topics": ["'{}'", "'[1]'", '\'["a","a"]\''],
    "assembly.metadata": ["'null'"],
    "assembly.activation": ["1.5"],
    "assembly.activation_count": ["-1"],
    "namespace.path": ["'a'", "'~2/'"],
    "tag.name": ["''"],
    "vector_space.kind": ["'x'"],
    "vector_space.metric": ["'x'"],
    "vector_space.dimension": ["-1", "70000"],
    "tombstone.cause": ["'x'"],
    "tombstone.kind": ["'x'"],
    "tombstone.record": ["'[]'", "'{'"],
    "assembly_merge.brought": ["'[]'"],
    "journal.what": ["'x'"],
    "journal.kind": ["'x'"],
    "checksum": ["-1", "1 << 40"],
}
"""SQL of values of the right type that a column cannot have, by `table.column` or by the column in every table."""

READABLE = {BAD_TEXT, "''", "'{\"a\":1e999}'", "'{\"a\":NaN}'", "'{\"a\":' || (1 << 62) || '99999}'"}
"""Values that `check` names, and that a read returns, or refuses by an error of SQLite's driver."""

RESTORED = {"assembly_vector", "index_snapshot", "index_chunk", "journal"}
"""Tables whose damage a restore reports; it computes them again, but for the history."""


def cases() -> Iterator[tuple[str, str, str]]:
    for table in metadata.tables.values():
        for column in table.c:
            if column.primary_key and len(table.primary_key) == 1:
                continue  # SQLite stores nothing but integers there
            name = f"{table.name}.{column.name}"
            values = BY_STORAGE[rules(table.name)[column.name].storage]
            values = values + IMPOSSIBLE.get(name, IMPOSSIBLE.get(column.name, []))
            yield from ((str(table.name), column.name, value) for value in values)


async def make(path: Path) -> None:
    """A file with a row in every table."""
    rows = np.random.default_rng(1).standard_normal((60, 4)).astype(np.float32)
    async with memstore.open(path, dimension=4, index=memstore.IndexOptions(kind="graph"), history="full") as store:
        await store.memories.add_many(
            {"content": f"m {i}", "id": f"m{i}", "embedding": row, "tags": {"t"}} for i, row in enumerate(rows)
        )
        for i in range(4):
            await store.assemblies.add(f"g{i}", members=[f"m{i}", f"m{i + 1}"], topics=["t"], tags={"t"})
        await store.memories.update("m5", importance=0.7, metadata={"a": 1})
        await store.assemblies.merge(["g0", "g1"], into="merged")
        await store.memories.forget(await store.memories.plan_forget(memstore.ForgetPolicy(where={"id": "m59"})))
        await store.optimize()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "store.db"
    asyncio.run(make(path))
    return path


def damage(sound: Path, path: Path, table: str, column: str, value: str) -> bool:
    """Set the column of one row to the value, past every check; whether SQLite stored it so."""
    shutil.copy(sound, path)
    base = sqlite3.connect(path, isolation_level=None)
    try:
        for pragma in ("foreign_keys=OFF", "ignore_check_constraints=ON", "recursive_triggers=OFF"):
            base.execute(f"PRAGMA {pragma}")
        keys = ", ".join(key.name for key in metadata.tables[table].primary_key)
        row = f"({keys}) IN (SELECT {keys} FROM {table} ORDER BY {keys} LIMIT 1)"
        base.execute(f"UPDATE {table} SET {column} = {value} WHERE {row}")
        stored = base.execute(f"SELECT count(*) FROM {table} WHERE {column} IS NOT NULL").fetchone()[0]
        return bool(stored)
    finally:
        base.close()


def test_every_table_has_a_row(sound: Path) -> None:
    base = sqlite3.connect(sound)
    empty = [name for name in metadata.tables if not base.execute(f"SELECT count(*) FROM {name}").fetchone()[0]]
    base.close()
    assert empty == []


async def outcomes(path: Path, **options: Any) -> str:
    """What `open` raises, or what `check` finds, as one text."""
    try:
        async with memstore.open(path, **options) as store:
            return await findings(store)
    except StorageError as error:
        return str(error)


async def restored(path: Path, target: Path, table: str) -> str:
    """What `restore_backup` raises, or what it has found and repaired."""
    try:
        report = await memstore.restore_backup(path, target)
    except DamagedError as error:
        return str(error)
    assert table in RESTORED
    assert table == "journal" or (await memstore.verify(target)).findings == []
    for file in target.parent.glob(f"{target.name}*"):
        file.unlink()
    return "\n".join(map(str, report.findings))


async def findings(store: Store) -> str:
    return "\n".join(map(str, await store.check()))


@pytest.mark.parametrize("table", metadata.tables)
async def test_a_value_that_a_column_cannot_have_is_named_by_verify_check_and_restore(
    table: str, sound: Path, path: Path
) -> None:
    for name, column, value in cases():
        if name != table:
            continue
        assert damage(sound, path, table, column, value)
        place = f"{table}.{column}"
        report = await memstore.verify(path)
        named = [finding for finding in report.findings if place in finding.detail]
        assert named, (place, value, report.findings)
        outcome = await outcomes(path, read_only=True)
        # Without readable spaces there is no open store: the error names the table at least.
        assert place in outcome or f"column '{column}'" in outcome or "value in vector_space" in outcome, (place, value)
        assert place in await restored(path, path.with_name("restored.db"), table), (place, value)


@pytest.mark.parametrize("column", [column.name for column in metadata.tables["memory"].c if column.name != "pk"])
async def test_the_error_about_a_memory_names_the_column_and_the_record(column: str, sound: Path, path: Path) -> None:
    for table, name, value in cases():
        if (name, value) == ("expires_at", "1.5"):
            continue  # it has expired, so no read returns it
        if (table, name) == ("memory", column) and name != "namespace_pk" and value not in READABLE:
            assert damage(sound, path, table, column, value)
            async with memstore.open(path, read_only=True) as store:
                with pytest.raises(DamagedError) as damaged:
                    [memory async for memory in store.memories.list(recursive=True, order="id")]
            assert f"memory.{column} of " in str(damaged.value), (value, str(damaged.value))


async def test_check_of_an_open_store_names_a_value_that_changes_under_it(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("x", id="a", embedding=[1, 0])
        base = sqlite3.connect(path)
        base.execute("PRAGMA ignore_check_constraints=ON")
        base.execute("UPDATE memory SET importance = 7")
        base.commit()
        base.close()
        finding = next(finding for finding in await store.check() if finding.kind == "value")
    assert (finding.record_kind, finding.id) == ("memory", "a")
    assert finding.detail == (
        "Corrupt value in memory.importance of the row with pk 1: expected float from 0 to 1, found 7.0"
    )

"""Indexes on values in metadata: how they are asked for, kept in the file, and used by filters."""

import asyncio
import json
import multiprocessing
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import memstore
from memstore import DamagedError, InvalidError, filters
from memstore.filters.json_paths import MAX_INDEXED, from_json_path, json_path, keys
from memstore.repository.sqlite_only import metadata_indexes

HOSTILE = (
    "it's",
    "'; DROP TABLE memory; --",
    "') OR 1=1 --",
    "__[POSTCOMPILE_param_1]",
    "%(param_1)s",
    "%s %%",
    "x?1:y@z$w",
    "a.b",
    "[0]",
    "#-1",
    "",
    " ",
    "/* é \U0001f375 */",
    "$",
)
"""Keys that would end a literal, a path or a statement if anything were pasted."""


def bracketed(key: str) -> str:
    return f"[{json.dumps(key)}]"


async def paths_of(path: Path, **options: object) -> tuple[str, ...]:
    async with memstore.open(path, **options) as store:
        return (await store.stats()).indexed_metadata


def statements_of(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [
            sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE name LIKE 'ix_memory_metadata%'")
        ]


# How they are asked for


async def test_they_add_to_those_the_file_has_and_stay(path: Path) -> None:
    assert await paths_of(path, dimension=2) == ()
    assert await paths_of(path, indexed_metadata=("user_id", "source.kind")) == ("source.kind", "user_id")
    assert await paths_of(path, indexed_metadata=["b", "user_id"]) == ("b", "source.kind", "user_id")
    for nothing in (None, (), []):
        assert await paths_of(path, indexed_metadata=nothing) == ("b", "source.kind", "user_id")
    assert await paths_of(path) == ("b", "source.kind", "user_id")
    assert len(statements_of(path)) == 3


@pytest.mark.parametrize(
    "paths",
    [
        "user_id",
        b"user_id",
        5,
        [5],
        [None],
        [""],
        ["a..b"],
        [".a"],
        ["a."],
        ['["a'],
        ["[0]"],
        ["a[0]"],
        ['a["b"]c'],
        ['["a\\"b"]'],
        ['["a\\\\b"]'],
        ['["a\\u0000"]'],
        ["a\nb"],
        ["\ud800"],
        ["x" * 1_100],
        [f"k{n}" for n in range(MAX_INDEXED + 1)],
    ],
    ids=repr,
)
def test_what_a_filter_could_not_name_is_refused_at_the_call(path: Path, paths: object) -> None:
    with pytest.raises(InvalidError):
        memstore.open(path, dimension=2, indexed_metadata=paths)  # type: ignore[arg-type]
    assert not path.exists()


async def test_a_path_is_the_same_however_it_is_written(path: Path) -> None:
    spellings = ["a.b", '["a"].b', '["a"]["b"]', 'a["b"]', '["a.b"]', "A.b"]
    assert await paths_of(path, dimension=2, indexed_metadata=spellings) == ("A.b", "a.b", '["a.b"]')


async def test_a_file_has_sixteen_at_most_counting_those_it_has(path: Path) -> None:
    first = [f"a{n}" for n in range(MAX_INDEXED - 1)]
    assert len(await paths_of(path, dimension=2, indexed_metadata=first)) == MAX_INDEXED - 1
    with pytest.raises(InvalidError, match="at most 16"):
        await memstore.open(path, indexed_metadata=["b", "c"])
    assert len(await paths_of(path, indexed_metadata=[*first, "b"])) == MAX_INDEXED
    assert len(await paths_of(path, indexed_metadata=["a0", "b"])) == MAX_INDEXED


async def test_a_reader_builds_none_and_uses_what_there_is(path: Path) -> None:
    await paths_of(path, dimension=2, indexed_metadata=["a"])
    assert await paths_of(path, read_only=True, indexed_metadata=["b"]) == ("a",)
    assert await paths_of(path) == ("a",)


async def test_one_is_built_over_what_is_stored_off_the_event_loop(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.load({"content": "x", "id": str(n), "metadata": {"n": n}} for n in range(500))
    threads = []
    build = metadata_indexes.add

    def noted(*arguments: object) -> None:
        threads.append(threading.get_ident())
        build(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(metadata_indexes, "add", noted)
    async with memstore.open(path, indexed_metadata=["n"]) as store:
        assert await store.memories.count(where={"metadata.n": {"$gte": 490}}) == 10
        assert await store.check() == []
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    await paths_of(path, indexed_metadata=["n"])
    assert len(threads) == 1, "with nothing to build the writer lock is not taken"


def race(barrier: object, path: str, names: list[str], answers: object) -> None:
    barrier.wait(60)  # type: ignore[attr-defined]
    try:
        answers.put(asyncio.run(paths_of(Path(path), indexed_metadata=names)))  # type: ignore[attr-defined]
    except Exception as error:
        answers.put(repr(error))  # type: ignore[attr-defined]


async def test_processes_that_ask_at_once_build_each_once(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.load({"content": "x", "metadata": {"a": n, "b": n}} for n in range(2_000))
    spawn = multiprocessing.get_context("spawn")
    barrier, answers = spawn.Barrier(3), spawn.Queue()
    requests = [["a", "b"], ["b", "a"], ["c"]]
    racers = [spawn.Process(target=race, args=(barrier, str(path), names, answers)) for names in requests]
    for racer in racers:
        racer.start()
    got = [answers.get(timeout=90) for _ in racers]
    for racer in racers:
        racer.join(30)
    assert all(isinstance(paths, tuple) for paths in got), got
    assert await paths_of(path) == ("a", "b", "c")


async def test_metadata_that_is_no_json_says_how_the_file_is_opened_and_mended(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("x", id="x", metadata={"a": 1})
    with closing(sqlite3.connect(path, isolation_level=None)) as base:
        base.execute("PRAGMA ignore_check_constraints=ON")
        base.execute("UPDATE memory SET metadata = '{'")
    with pytest.raises(DamagedError, match="without indexed_metadata"):
        await memstore.open(path, indexed_metadata=["a"])
    async with memstore.open(path) as store:
        await store.memories.update("x", metadata={"a": 2})
    assert await paths_of(path, indexed_metadata=["a"]) == ("a",)


# How they are kept


steps = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\'), max_size=5)


@given(st.lists(steps | st.sampled_from(HOSTILE), min_size=1, max_size=4).map(tuple))
def test_a_path_is_read_back_as_it_was_written(path: tuple[str, ...]) -> None:
    assert from_json_path(json_path(path)) == path
    assert filters.indexed([filters.written(path)]) == (path,)
    assert keys("metadata" + "".join(map(bracketed, path))) == path


async def test_indexes_of_others_are_not_taken_for_ours(path: Path) -> None:
    await paths_of(path, dimension=2, indexed_metadata=["a"])
    (ours,) = statements_of(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as base:
        base.execute("CREATE INDEX host_index ON memory (json_extract(metadata, '$.\"b\"'))")
        base.execute(ours.replace("ix_memory_metadata_", "host_").replace('"a"', '"c"'))
        base.execute(ours.replace("ix_memory_metadata_", "ix_memory_metadata_0").replace('"a"', '"d"'))
        base.execute(f"{ours.replace('ix_memory_metadata_', 'ix_memory_metadata_1')} WHERE importance > 0")
    assert await paths_of(path) == ("a",)
    assert await paths_of(path, indexed_metadata=["b", "c", "d"]) == ("a", "b", "c", "d")


async def test_they_survive_compact_backup_and_an_emptied_store(path: Path) -> None:
    async with memstore.open(path, dimension=2, indexed_metadata=["a", '["it\'s"]']) as store:
        await store.load({"content": "x", "metadata": {"a": n}} for n in range(100))
        await store.clear()
        await store.compact()
        await store.backup(path.with_suffix(".copy"))
    assert await paths_of(path) == ("a", "it's")
    assert await paths_of(path.with_suffix(".copy")) == ("a", "it's")

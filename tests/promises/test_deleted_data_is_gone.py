"""Deleted data is gone from the file, and private data stays private."""

import asyncio
import json
import logging
import os
import re
import sqlite3
import stat
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import memstore
from memstore.visualize import write_map
from tests.support.clock import clock
from tests.support.residue import traces

# Erase.

WORD = "a-person"


async def test_an_erased_memory_is_in_no_read_no_trash_no_history_and_no_file(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add(WORD, id=WORD, embedding=[1, 0], tags={WORD}, metadata={"who": WORD})
        before = datetime.now(UTC)
        await store.memories.update(WORD, content=f"{WORD} again", embedding=[0, 1])
        report = await store.memories.erase(ids=[WORD])
        assert (report.ids, report.memories, report.changes, report.tags) == ((WORD,), 1, 2, 1)
        assert await store.memories.search([0, 1]) == []
        assert [memory async for memory in store.memories.list(as_of=before)] == []
        with pytest.raises(memstore.NotFoundError):
            await store.memories.history(WORD)
        await store.compact(secure=True)
    assert traces(path, WORD) == {}


async def test_erase_reaches_what_is_only_in_the_trash_or_only_in_the_history(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        for id in ("live", "forgotten", "deleted"):
            await store.memories.add(WORD, id=id, embedding=[1, 0], metadata={"who": WORD})
        await store.memories.forget(await store.memories.plan_forget(memstore.ForgetPolicy(where={"id": "forgotten"})))
        await store.memories.delete("deleted")
        report = await store.memories.erase(where={"metadata.who": WORD})
        assert report.ids == ("deleted", "forgotten", "live")
        await store.compact(secure=True)
    assert traces(path, WORD) == {}


async def test_purge_leaves_nothing_of_a_forgotten_record(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add(WORD, id="m", embedding=[1, 0])
        await store.memories.forget(await store.memories.plan_forget(memstore.ForgetPolicy(where={"id": "m"})))
        assert await store.memories.purge(older_than=0) == 1
        with pytest.raises(memstore.NotFoundError):
            await store.memories.history("m")
        await store.compact(secure=True)
    assert traces(path, WORD) == {}


@pytest.mark.parametrize("verb", ["clear", "erase"])
async def test_an_emptied_namespace_leaves_no_record_no_merge_and_not_its_path(path: Path, verb: str) -> None:
    async with memstore.open(path, dimension=2) as store:
        person = store.namespace("users", WORD)
        await person.memories.add(WORD, id="m", embedding=[1, 0])
        for id in ("a", "b"):
            await person.assemblies.add(id, name=WORD, members=["m"])
        await person.assemblies.merge(["a", "b"], into="a", reason=WORD)
        await person.memories.delete("m")
        await getattr(person, verb)()
        await store.compact(secure=True)
    assert traces(path, WORD) == {}


async def test_an_expired_memory_leaves_no_text_in_the_history(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add(f"code {WORD}", id="code", embedding=[1, 0], ttl=0.05)
        await asyncio.sleep(0.1)
        await store.memories.add("later")
        expired = (await store.memories.history("code"))[0]
        assert (expired.kind, expired.old, expired.new) == ("expired", {}, {})
        await store.compact(secure=True)
    assert traces(path, WORD) == {}


async def test_nothing_of_an_erased_member_is_left_in_an_assembly_and_its_history(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("x", id=WORD, embedding=[1, 0])
        await store.memories.add("y", id="y", embedding=[0, 1])
        await store.assemblies.add("group", members=[WORD, "y"])
        before = datetime.now(UTC)
        await store.memories.erase(ids=[WORD])
        for group in (await store.assemblies.get("group"), await store.assemblies.get("group", as_of=before)):
            assert group.member_count == 1
            assert group.composite is not None
            assert group.composite.tolist() == [0, 1]
        await store.compact(secure=True)
    assert traces(path, WORD) == {}


# History is bounded.


async def test_a_new_store_keeps_thirty_days_of_history(path: Path) -> None:
    with clock() as moved:
        async with memstore.open(path, dimension=2) as store:
            await store.memories.add("x", id="m")
            for day in range(40):
                moved.offset = timedelta(days=day)
                await store.memories.update("m", importance=day / 100)
            moved.offset += timedelta(seconds=1)
            oldest = (await store.memories.history("m"))[-1]
            assert timedelta(days=29) < moved.now() - oldest.at < timedelta(days=32)
            await store.memories.get("m", as_of=moved.now() - timedelta(days=29))
            with pytest.raises(memstore.HistoryError):
                await store.memories.get("m", as_of=moved.now() - timedelta(days=33))


async def test_the_history_of_a_memory_that_is_updated_without_end_stops_growing(path: Path) -> None:
    with clock() as moved:
        options = {"history": timedelta(seconds=50), "durability": "relaxed"}
        async with memstore.open(path, dimension=2, **options) as store:
            await store.memories.add("x", id="m")
            sizes = []
            for number in range(1, 601):
                moved.offset = timedelta(seconds=number)
                await store.memories.update("m", importance=number % 100 / 100)
                if number % 200 == 0:
                    sizes.append((await store.stats()).history_bytes)
    assert max(sizes) < 1.2 * min(sizes)


async def test_statistics_say_what_history_and_trash_take(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("x" * 10_000, id="m", embedding=[1, 0])
        before = await store.stats()
        assert (before.history_bytes < 1_000, before.trash_bytes) == (True, 0)
        await store.memories.update("m", content="y" * 5_000, embedding=None)
        await store.memories.forget(await store.memories.plan_forget(memstore.ForgetPolicy(where={"id": "m"})))
        after = await store.stats()
        assert 15_000 < after.history_bytes < 16_000
        assert 5_000 < after.trash_bytes < 6_000
        await store.memories.purge(older_than=0)
        emptied = await store.stats()
        assert (emptied.history_bytes, emptied.trash_bytes) == (0, 0)


async def test_history_is_read_page_by_page(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("x", id="m")
        for number in range(25):
            await store.memories.update("m", importance=number / 100)
        changes = await store.memories.history("m")
        pages = [await store.memories.history("m", limit=10)]
        while pages[-1]:
            pages.append(await store.memories.history("m", limit=10, before=pages[-1][-1]))
        assert [len(page) for page in pages] == [10, 10, 6, 0]
        assert [change for page in pages for change in page] == changes


# File modes.


@pytest.fixture(params=[0o022, 0o000, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir() if path.is_file()}


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
@pytest.mark.usefixtures("umask")
async def test_the_files_of_a_new_store_and_its_copies_are_private_whatever_the_umask(tmp_path: Path) -> None:
    async with memstore.open(tmp_path / "a.db", dimension=2) as store:
        await store.memories.add("private", embedding=[1, 0])
        await store.backup(tmp_path / "a.bak")
        await write_map(store, tmp_path / "map.html")
        await memstore.restore_backup(tmp_path / "a.bak", tmp_path / "b.db")
        every = modes(tmp_path)
    assert {"a.db", "a.db-wal", "a.db-shm", "a.bak", "b.db", "map.html"} <= set(every)
    assert set(every.values()) == {0o600}


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
async def test_an_export_is_private(tmp_path: Path) -> None:
    async with memstore.open(tmp_path / "a.db", dimension=2) as store:
        await store.memories.add("private", embedding=[1, 0])
    command = [sys.executable, "-m", "memstore.cli", "export", "--file", tmp_path / "a.db", tmp_path / "a.jsonl"]
    subprocess.run(command, check=True, umask=0, capture_output=True, timeout=120)
    assert modes(tmp_path)["a.jsonl"] == 0o600


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
async def test_a_copy_is_as_private_as_a_store_that_its_owner_opened_to_others(tmp_path: Path) -> None:
    async with memstore.open(tmp_path / "a.db", dimension=2) as store:
        (tmp_path / "a.db").chmod(0o640)
        await store.backup(tmp_path / "a.bak")
        await write_map(store, tmp_path / "map.html")
    assert modes(tmp_path) == {"a.db": 0o640, "a.bak": 0o640, "map.html": 0o640}


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
@pytest.mark.parametrize("mode", [0o400, 0o600, 0o664], ids=oct)
async def test_a_file_that_is_replaced_keeps_its_permissions(mode: int, tmp_path: Path) -> None:
    async with memstore.open(tmp_path / "a.db", dimension=2) as store:
        await write_map(store, tmp_path / "map.html")
        (tmp_path / "map.html").chmod(mode)
        await write_map(store, tmp_path / "map.html")
        await store.backup(tmp_path / "a.bak")
    (tmp_path / "b.db").touch()
    (tmp_path / "b.db").chmod(mode | 0o600)
    await memstore.restore_backup(tmp_path / "a.bak", tmp_path / "b.db")
    assert modes(tmp_path)["map.html"] == mode
    assert modes(tmp_path)["b.db"] == mode | 0o600


# Errors and terminals show no contents.

SECRET = "SECRET-diagnosis"


async def test_an_error_of_sqlite_contains_nothing_of_the_record_in_its_message_or_traceback(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("x", id="a", embedding=[1, 0])
    with sqlite3.connect(path) as base:
        base.execute("CREATE TRIGGER refuse BEFORE INSERT ON memory BEGIN SELECT RAISE(ABORT, 'no'); END")
    base.close()
    async with memstore.open(path) as store:
        with pytest.raises(memstore.StorageError) as refused:
            await store.memories.add(SECRET, metadata={"a": SECRET}, tags={SECRET})
    assert SECRET not in "".join(traceback.format_exception(refused.value))


async def test_an_error_about_a_damaged_value_does_not_contain_the_value(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("x", id="a", embedding=[1, 0])
        with sqlite3.connect(path) as base:
            base.execute("UPDATE memory SET content = CAST(? || x'ff' AS TEXT)", (SECRET,))
        base.close()
        with pytest.raises(memstore.DamagedError) as damaged:
            await store.memories.get("a")
    assert SECRET not in "".join(traceback.format_exception(damaged.value))


async def test_messages_and_log_lines_are_one_line_without_control_characters(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    forged = "\x1b]0;title\x07\n\u202eERROR memstore: all is well\x9b31m"
    async with memstore.open(path, dimension=2) as store:
        with pytest.raises(memstore.NotFoundError) as missing:
            await store.namespace(forged).memories.get(forged)
        await store.namespace(forged).memories.add("x", id=forged, embedding=[1, 0])
        with sqlite3.connect(path) as base:
            base.execute("UPDATE memory_vector SET vector = zeroblob(4)")
        base.close()
        with caplog.at_level(logging.INFO, "memstore"):
            await store.repair()
    lines = [str(missing.value), *(record.getMessage() for record in caplog.records)]
    assert any("all is well" in line for line in lines[1:])
    assert all(line.isprintable() for line in lines)


def test_no_command_lets_a_stored_text_control_the_terminal_or_forge_a_line(path: Path) -> None:
    evil = "\x1b]0;title\x07\x9b31m\u202egpj\u2066\u200b\u2028\r\nFORGED LINE"
    command = [sys.executable, "-m", "memstore"]
    for arguments in (
        ["add", path, evil, "--id", evil, "--tag", evil, "--embedding", "[1, 2]"],
        ["show", path, evil],
        ["list", path],
        ["list", path, "--json"],
        ["export", path],
        ["show", path, evil + "missing"],
    ):
        done = subprocess.run([*command, *map(str, arguments)], capture_output=True, encoding="utf-8", timeout=240)
        for output in (done.stdout, done.stderr):
            assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u2028-\u202e\u2066]", output)
            assert not any(line.startswith("FORGED") for line in output.splitlines())
    (record,) = subprocess.run([*command, "list", path, "--json"], capture_output=True, timeout=240).stdout.splitlines()
    assert json.loads(record)["content"] == evil


# Namespaces. `tests/reliability/test_tenants.py` tries every verb with every argument.


async def test_explain_reaches_its_own_namespace_and_those_below_and_no_other(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        for namespace in ((), ("a",), ("b",), ("b", "inner")):
            await store.namespace(*namespace).memories.add("x", id="m", embedding=[1, 0])
        b = store.namespace("b").memories
        for namespace in ((), ("a",)):
            with pytest.raises(memstore.InvalidError, match="expected \\('b',\\) or one below it"):
                await b.explain([1, 0], "m", namespace=namespace)
        assert (await b.explain([1, 0], "m", namespace=("b", "inner"))).base_score == 1.0


async def test_a_plan_that_names_records_of_another_namespace_forgets_none_of_them(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.namespace("a").memories.add("x", id="m", embedding=[1, 0])
        plan = await store.namespace("a").memories.plan_forget(memstore.ForgetPolicy(where={"id": "m"}))
        with pytest.raises(memstore.StalePlanError):
            await store.namespace("b").memories.forget(replace(plan, namespace=("b",)))
        assert await store.namespace("a").memories.count() == 1

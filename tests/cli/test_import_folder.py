"""`import-folder`: what can be imported is, and everything else is reported with the reason."""

import asyncio
import json
import os
import shutil
import tracemalloc
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import memstore
from memstore import InvalidError, Memory, Store
from memstore.importers import FolderReport, folder, import_folder, vector_sizes
from memstore.importers.fields import members_of, time_of
from memstore.testing import temporary_store
from tests.cli.commands import invoke, lines
from tests.support.folders import DIMENSION, assembly, faulty, file_name, memory, write

WHEN = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


def remarks_of(report: FolderReport, outcome: str) -> set[tuple[str, str, str | None]]:
    """What, where and whose: the remarks of one outcome."""
    return {(r.what, r.place, r.id) for r in report.remarks if r.outcome == outcome}


async def everything(store: Store) -> list[object]:
    """All records of a store, with the members of its assemblies."""
    rows: list[object] = [m async for m in store.memories.list(recursive=True)]
    async for group in store.assemblies.list(recursive=True):
        rows += [group, [id async for id in store.assemblies.members(group.id)]]
    return rows


async def test_every_field_goes_where_the_page_says(tmp_path: Path) -> None:
    path = write(
        tmp_path / "folder",
        [memory("user:1", quickrecal_updated="2023-11-15T00:00:00Z", hyperbolic_embedding=[0.5])],
        [assembly("asm:1", memory_ids=["user:1"])],
    )
    async with temporary_store(dimension=DIMENSION) as store:
        report = await import_folder(store, path)
        assert report.remarks == ()
        assert await store.memories.get("user:1") == Memory(
            id="user:1",
            content="the text of user:1",
            embedding=np.array([0.5, 0.25, -1.0, 0.125], dtype=np.float32),
            tags=frozenset({"one", "two"}),
            metadata={"source": "chat", "imported": {"hyperbolic_embedding": [0.5]}},
            importance=0.75,
            created_at=WHEN.replace(microsecond=250_000),
            updated_at=datetime(2023, 11, 15, tzinfo=UTC),
            accessed_at=datetime(2023, 11, 14, 22, 15, 0, 500_000, tzinfo=UTC),
            access_count=3,
        )
        group = await store.assemblies.get("asm:1")
        assert (group.name, group.tags, group.topics) == ("the name of asm:1", {"group"}, ("b", "a"))
        assert group.created_at == group.updated_at == WHEN
        assert group.member_count == 1
        np.testing.assert_allclose(group.composite, np.array([0.5, 0.25, -1, 0.125]) / np.sqrt(1.328125), atol=1e-6)
        assert (group.activation_level, group.activation_count) == (0.25, 2)
        assert group.activated_at == datetime(2023, 11, 15, tzinfo=UTC), "when it was last used: nobody said more"
        mapped = {"assembly_id", "name", "description", "creation_time", "memory_ids", "composite_embedding"}
        mapped |= {"activation_level", "activation_count", "tags", "topics"}
        unmapped = {k: v for k, v in assembly("asm:1").items() if v is not None and k not in mapped}
        assert group.metadata == {"imported": unmapped}
        assert await store.check() == []


@pytest.mark.parametrize(
    ("fields", "level", "at", "imported"),
    [
        ({"last_activation": 1_700_000_000.0}, 0.25, WHEN, {}),
        ({"activation_level": 1.5, "last_activation": "2023-11-14T22:13:20Z"}, 1.0, WHEN, {"activation_level": 1.5}),
        ({"activation_level": 0, "last_access_time": None}, 0.0, None, {}),
        ({"activation_level": "high", "last_access_time": None}, 0.0, None, {"activation_level": "high"}),
        ({"last_access_time": None}, 0.25, WHEN, {}),
    ],
)
async def test_the_activation_of_an_assembly_is_imported(
    tmp_path: Path, fields: dict[str, Any], level: float, at: datetime | None, imported: dict[str, Any]
) -> None:
    folder = write(tmp_path / "folder", [], [assembly("asm:1", **fields)])
    async with temporary_store(dimension=DIMENSION) as store:
        await import_folder(store, folder)
        group = await store.assemblies.get("asm:1")
    assert (group.activation_level, group.activated_at) == (level, at)
    level_only = {name: value for name, value in group.metadata["imported"].items() if name == "activation_level"}
    assert level_only == imported


async def test_every_known_fault_is_imported_or_reported(tmp_path: Path) -> None:
    async with temporary_store(dimension=DIMENSION) as store:
        report = await import_folder(store, faulty(tmp_path / "folder"))
        assert remarks_of(report, "left_out") == {
            ("index entry", "memory_index.json", "nothing"),
            ("index entry", "memory_index.json", "gone"),
            ("index entry", "memory_index.json", "shared"),
            ("file", "memories/half.json.tmp", None),
            ("file", "memories/folder.json", None),
            ("memory", "memories/broken.json", None),
            ("memory", "memories/claims-the-same.json", "mem:1"),
            ("memory", "memories/deep.json", "deep"),
            ("memory", "memories/empty.json", None),
            ("memory", "memories/latin.json", None),
            ("memory", "memories/list.json", None),
            ("memory", "memories/textless.json", "textless"),
            ("vector", "memories/nan.json", "nan"),
            ("vector", "memories/wide.json", "wide"),
            ("vector", "memories/zero.json", "zero"),
            ("assembly", "assemblies/torn.json", None),
            ("member", "assemblies/asm-1.json", "nobody"),
            ("member", "assemblies/asm-copies.json", "broken"),
            ("member", "assemblies/asm-copies.json", "asm:copies"),
        }
        assert {(r.what, r.place, r.id) for r in report.left_out} == remarks_of(report, "left_out")
        assert remarks_of(report, "mended") == {
            ("field", "memories/no-time.json", "no-time"),
            ("field", "memories/odd-metadata.json", "odd-metadata"),
            ("field", "memories/odd-tags.json", "odd-tags"),
            ("field", "memories/surrogate.json", "surrogate"),
            ("field", "memories/nameless.json", "nameless"),
            ("memory", "assemblies/asm-copies.json", "only-a-copy"),
            ("copy", "assemblies/asm-copies.json", "mem:1"),
        }
        assert remarks_of(report, "ignored") == {
            ("file", "faiss_index.bin", None),
            ("file", "id_to_index_mapping.json", None),
            ("file", "notes.txt", None),
        }
        assert (report.memory_files, report.assembly_files, report.unindexed) == (20, 4, 8)
        assert (report.memories, report.rescued, report.assemblies, report.members) == (14, 1, 3, 4)
        assert await store.check() == []


async def test_the_valid_fields_of_a_faulty_record_are_imported(tmp_path: Path) -> None:
    async with temporary_store(dimension=DIMENSION) as store:
        await import_folder(store, faulty(tmp_path / "folder"))
        memories = {m.id: m async for m in store.memories.list()}
        assert memories["mem:1"].content == "the text of mem:1"
        assert memories["string-time"].created_at == WHEN.replace(microsecond=250_000)
        assert memories["string-time"].accessed_at == WHEN.replace(microsecond=500_000)
        assert memories["no-time"].created_at == WHEN  # the index's
        assert memories["no-time"].metadata["imported"] == {"timestamp": "yesterday"}
        assert memories["unknown-key"].metadata["imported"] == {
            "favourite": {"colour": "green"},
            "hyperbolic_embedding": [0.1, 0.2],
        }
        assert all(memories[id].embedding is None for id in ("nan", "wide", "zero"))
        assert memories["beyond"].importance == 1.0
        assert memories["beyond"].metadata["imported"] == {"quickrecal_score": 1.5}
        assert memories["odd-tags"].tags == {"good"}
        assert memories["odd-tags"].metadata["imported"] == {"tags": ["good", 7, ""]}
        assert memories["odd-metadata"].metadata == {
            "score": "NaN",
            "limit": "Infinity",
            "big": str(2**70),
            "imported": {"metadata": {"imported": "mine"}},
        }
        assert memories["surrogate"].content == "half \ufffd of one"
        assert memories["only-a-copy"].embedding is not None
        assert [id async for id in store.assemblies.members("asm:copies")] == ["mem:1", "only-a-copy"]
        assert (await store.assemblies.get("empty-asm")).topics == ("one",)


async def test_two_files_with_one_id_are_reported_and_the_index_decides(tmp_path: Path) -> None:
    path = write(tmp_path / "folder", [memory("m:1"), memory("other")])
    (path / "memories" / "a-first-by-name.json").write_text(json.dumps(memory("m:1", content="the other")))
    async with temporary_store(dimension=DIMENSION) as store:
        report = await import_folder(store, path)
        assert (await store.memories.get("m:1")).content == "the text of m:1"
    (remark,) = report.left_out
    assert (remark.place, remark.id) == ("memories/a-first-by-name.json", "m:1")
    assert "memories/m-1.json" in remark.reason


@pytest.mark.parametrize(
    ("value", "when"),
    [
        (1_700_000_000, WHEN),
        (1_700_000_000.25, WHEN.replace(microsecond=250_000)),
        (" 1700000000 ", WHEN),
        ("2023-11-14T22:13:20", WHEN),
        ("2023-11-14T23:13:20+01:00", WHEN),
        ("2023-11-14 22:13:20Z", WHEN),
        (-1, datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
        *(
            (value, None)
            for value in (True, "soon", "", "nan", float("nan"), 1e300, "0001-01-01T00:00:00+05:00", [1], {})
        ),
    ],
)
def test_times_are_read_however_they_were_written(value: object, when: datetime | None) -> None:
    assert time_of(value) == when


@pytest.mark.parametrize(
    ("values", "members", "refused"),
    [
        ({}, {}, []),
        ({"memories": None, "memory_ids": ["a", "b", "a"]}, {"a": None, "b": None}, []),
        ({"memories": "a"}, {"a": None}, []),
        ({"memories": ["a", {"id": "a", "content": "x"}]}, {"a": {"id": "a", "content": "x"}}, []),
        ({"memories": [{"memory_id": "a"}], "memory_ids": ["a"]}, {"a": {"memory_id": "a"}}, []),
        ({"memories": {"a": {"content": "x"}, "b": 1}}, {"a": {"id": "a", "content": "x"}, "b": None}, []),
        ({"memories": [1, None, "", {"id": 2}], "memory_ids": 3}, {}, [1, None, "", {"id": 2}, 3]),
    ],
)
def test_members_are_read_in_every_format(values: Any, members: Any, refused: Any) -> None:
    assert members_of(values) == (members, refused)


async def test_a_second_import_changes_nothing_and_says_so(tmp_path: Path) -> None:
    path = faulty(tmp_path / "folder")
    async with temporary_store(dimension=DIMENSION) as store:
        first = await import_folder(store, path)
        before = await everything(store)
        again = await import_folder(store, path)
        assert await everything(store) == before
        assert (again.memories, again.assemblies, again.members, again.rescued) == (0, 0, 0, 0)
        assert again.memories_present == first.memories - first.rescued
        assert again.assemblies_present == first.assemblies


async def test_records_of_the_store_stay_without_upsert(tmp_path: Path) -> None:
    path = write(tmp_path / "folder", [memory("a"), memory("b")], [assembly("g", memory_ids=["a"])])
    async with temporary_store(dimension=DIMENSION) as store:
        await store.memories.add("mine", id="a")
        await store.assemblies.add("g", name="mine")
        report = await import_folder(store, path)
        assert (report.memories_present, report.assemblies_present, report.memories) == (1, 1, 1)
        assert (await store.memories.get("a")).content == "mine"
        assert (await store.assemblies.get("g")).member_count == 0
        await import_folder(store, path, upsert=True)
        assert (await store.memories.get("a")).content == "the text of a"
        assert (await store.assemblies.get("g")).member_count == 1
        before = [m async for m in store.memories.list()]
        await import_folder(store, path, upsert=True)
        assert [m async for m in store.memories.list()] == before


async def test_a_stopped_import_is_complete_up_to_its_last_transaction_and_can_continue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "CHUNK", 3)
    path = write(tmp_path / "folder", [memory(f"m{i}") for i in range(8)], [assembly("g", memory_ids=["m0", "m7"])])
    progress: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        progress.append((done, total))
        if done == 6:
            raise KeyboardInterrupt

    async with temporary_store(dimension=DIMENSION) as store:
        with pytest.raises(KeyboardInterrupt):
            await import_folder(store, path, on_progress=stop)
        assert progress == [(3, 9), (6, 9)]
        assert await store.memories.count() == 6
        report = await import_folder(store, path)
        assert (report.memories_present, report.memories, report.members) == (6, 2, 2)


async def test_an_import_stays_below_its_namespace(tmp_path: Path) -> None:
    path = write(tmp_path / "folder", [memory("a")], [assembly("g", memory_ids=["a"])])
    async with temporary_store(dimension=DIMENSION) as store:
        await import_folder(store, path, namespace=("old", "one"))
        assert await store.namespaces() == [("old", "one")]
        assert (await store.namespace("old", "one").assemblies.get("g")).member_count == 1


async def test_the_index_may_name_files_by_the_paths_of_another_machine(tmp_path: Path) -> None:
    paths = ["/srv/memories/m:1.json", "C:\\data\\memories\\m-2.json", None, "memories/m-4.json"]
    entries = {f"m:{k}": {"path": path, "type": "memory", "timestamp": 1.0} for k, path in enumerate(paths, 1)}
    path = write(tmp_path / "folder", [memory(id, timestamp=None) for id in entries], **entries)
    async with temporary_store(dimension=DIMENSION) as store:
        report = await import_folder(store, path)
        assert (report.remarks, report.unindexed) == ((), 0)
        assert {m.created_at.timestamp() async for m in store.memories.list()} == {1.0}


async def test_a_folder_without_an_index_is_imported_from_its_files(tmp_path: Path) -> None:
    path = write(tmp_path / "folder", [memory("m:1")])
    (path / "memory_index.json").unlink()
    async with temporary_store(dimension=DIMENSION) as store:
        report = await import_folder(store, path)
        assert (report.memories, report.unindexed, report.left_out) == (1, 1, ())
        assert remarks_of(report, "mended") == {("file", "memory_index.json", None)}
        (path / "memory_index.json").write_bytes(b"\xff")
        report = await import_folder(store, path)
        assert remarks_of(report, "left_out") == {("file", "memory_index.json", None)}


async def test_a_file_that_cannot_be_read_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "CHUNK", 1)
    path = write(tmp_path / "folder", [memory("a"), memory("b")])

    def lose(done: int, total: int) -> None:
        (path / "memories" / "b.json").unlink(missing_ok=True)

    async with temporary_store(dimension=DIMENSION) as store:
        report = await import_folder(store, path, on_progress=lose)
        assert remarks_of(report, "left_out") == {("memory", "memories/b.json", "b")}


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.touch()])
async def test_a_path_that_is_not_such_a_folder_is_refused(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "other")
    async with temporary_store(dimension=DIMENSION) as store:
        with pytest.raises(InvalidError, match="other"):
            await import_folder(store, tmp_path / "other")


async def test_an_import_does_not_change_the_folder(tmp_path: Path) -> None:
    path = faulty(tmp_path / "folder")

    def state() -> list[tuple[str, float, bytes]]:
        files = sorted(p for p in path.rglob("*") if p.is_file())
        return [(str(p), p.stat().st_mtime, p.read_bytes()) for p in files]

    before = state()
    async with temporary_store(dimension=DIMENSION) as store:
        await import_folder(store, path)
    assert state() == before


def test_vector_sizes_are_counted_most_frequent_first(tmp_path: Path) -> None:
    assert vector_sizes(faulty(tmp_path / "folder")) == [(4, 14), (5, 1)]


async def test_memory_does_not_grow_with_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "CHUNK_BYTES", 1_000_000)
    text = "x" * 200_000
    path = write(tmp_path / "folder", [memory(f"m{i}", content=text) for i in range(150)])
    async with temporary_store(dimension=DIMENSION) as store:
        await import_folder(store, write(tmp_path / "small", [memory("warm")]))
        tracemalloc.start()
        try:
            report = await import_folder(store, path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert report.memories == 150
    assert peak < 12_000_000  # of 30 MB


IDS = st.text(st.sampled_from("ab:-é"), min_size=1, max_size=3)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
VECTORS = st.lists(st.floats(width=32), min_size=3, max_size=5) | JUNK
TIMES = st.sampled_from([1.0, "2", "2023-11-14", "never", None])
MEMORIES = st.fixed_dictionaries(
    {"content": st.text(max_size=5) | JUNK},
    optional={
        "id": IDS | JUNK,
        "embedding": VECTORS,
        "timestamp": TIMES | JUNK,
        "quickrecal_score": st.floats() | JUNK,
        "quickrecal_updated": TIMES | JUNK,
        "metadata": st.fixed_dictionaries({}, optional={"tags": st.lists(st.text(max_size=2) | JUNK), "x": JUNK})
        | JUNK,
        "access_count": st.integers() | JUNK,
        "last_access_time": TIMES | JUNK,
        "unknown": JUNK,
    },
)
MEMBERS = st.lists(IDS | MEMORIES | JUNK, max_size=4) | st.dictionaries(IDS, MEMORIES | JUNK, max_size=3) | JUNK
ASSEMBLIES = st.fixed_dictionaries(
    {},
    optional={
        "assembly_id": IDS | JUNK,
        "name": st.text(max_size=3) | JUNK,
        "creation_time": TIMES | JUNK,
        "memories": MEMBERS,
        "memory_ids": MEMBERS,
        "tags": JUNK,
        "topics": st.lists(st.text(max_size=2)) | JUNK,
        "composite_embedding": JUNK,
        "metadata": JUNK,
    },
)
BYTES = st.binary(max_size=8)
INDEX = st.dictionaries(
    IDS,
    st.fixed_dictionaries(
        {}, optional={"path": IDS.map(file_name).map("memories/{}".format) | JUNK, "type": JUNK, "timestamp": TIMES}
    )
    | JUNK,
    max_size=4,
)


def as_bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@settings(max_examples=int(os.environ.get("MEMSTORE_EXAMPLES", "60")), deadline=None)
@given(
    memories=st.dictionaries(IDS.map(file_name), MEMORIES | JUNK | BYTES, max_size=5),
    assemblies=st.dictionaries(IDS.map(file_name), ASSEMBLIES | JUNK | BYTES, max_size=3),
    index=INDEX | JUNK | BYTES,
)
def test_every_file_of_any_folder_is_imported_or_reported_once(
    tmp_path_factory: pytest.TempPathFactory, memories: dict[str, Any], assemblies: dict[str, Any], index: Any
) -> None:
    path = tmp_path_factory.mktemp("folder")
    for name, files in (("memories", memories), ("assemblies", assemblies)):
        (path / name).mkdir()
        for file, value in files.items():
            (path / name / file).write_bytes(as_bytes(value))
    (path / "memory_index.json").write_bytes(as_bytes(index))
    asyncio.run(_hold(path, len(memories), len(assemblies)))
    shutil.rmtree(path)


async def _hold(path: Path, memories: int, assemblies: int) -> None:
    async with temporary_store(dimension=DIMENSION) as store:
        report = await import_folder(store, path)
        assert (report.memory_files, report.assembly_files) == (memories, assemblies)
        out = Counter(r.what for r in report.left_out)
        assert memories == report.memories - report.rescued + out["memory"]
        assert assemblies == report.assemblies + out["assembly"]
        assert all(r.reason for r in report.remarks)
        assert await store.memories.count() == report.memories
        assert await store.assemblies.count() == report.assemblies
        assert sum([a.member_count async for a in store.assemblies.list()]) == report.members
        assert await store.memories.count() == len([m async for m in store.memories.list()])
        assert await store.check() == []
        before = await everything(store)
        again = await import_folder(store, path)
        assert (again.memories, again.assemblies) == (0, 0)
        assert await everything(store) == before


def command(store: Path, folder: Path, *arguments: object) -> Any:
    return invoke(store, "import-folder", folder, *arguments, columns=120)


def test_import_folder_creates_a_store_of_the_dimension_and_lists_what_it_left_out(tmp_path: Path) -> None:
    path, file = faulty(tmp_path / "folder"), tmp_path / "store.db"
    done = command(file, path)
    assert done.exit_code == 3, done.output
    for line in ("memories/latin.json", "the file is not UTF-8", "14 stored, 0 already present", "left out: 19 items"):
        assert line in done.stdout
    again = command(file, path, "--json")
    assert again.exit_code == 3
    summary = json.loads(again.stdout)
    assert summary["memories"] == 0
    assert summary["memories_present"] == 13
    assert summary["memory_files"] == 20
    assert {"what": "file", "place": "notes.txt", "id": None, "reason": "not part of the import"} in summary["ignored"]
    assert {entry["id"] for entry in summary["left_out"]} >= {"nan", "wide", "gone", "mem:1"}
    assert all(set(entry) == {"what", "place", "id", "reason"} for entry in summary["left_out"] + summary["mended"])

    async def stats() -> memstore.models.Stats:
        async with memstore.open(file) as store:
            return await store.stats()

    assert asyncio.run(stats()).dimension == DIMENSION


def test_import_folder_succeeds_if_nothing_was_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "folder", [memory("a")], [assembly("g", memory_ids=["a"])])
    done = command(tmp_path / "store.db", path, "--metric", "l2", "--namespace", "old")
    assert done.exit_code == 0, done.output
    assert "everything was imported" in done.stdout


def test_a_folder_without_a_vector_leaves_the_dimension_open(tmp_path: Path) -> None:
    path = write(tmp_path / "folder", [memory("a", embedding=None)])
    for store, options, dimension in ((tmp_path / "a.db", (), None), (tmp_path / "b.db", ("--dimension", 3), 3)):
        assert command(store, path, *options).exit_code == 0
        assert lines(store, "stats --json")[0]["dimension"] == dimension

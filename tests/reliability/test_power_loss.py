"""Power cuts: with `durability="full"` nothing acknowledged is lost, with `"relaxed"` only the last of it.

A history runs once on a disk with a journal. The states that power cuts may leave are made from the journal
(`faults/replay.py`), opened and judged. `MEMSTORE_CUTS` sets the number of power cuts.
"""

import random
import shutil
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal

import pytest

import memstore
from memstore.database.inspect import HEAD, inspect
from tests.database.test_migrations import everything, frozen
from tests.reliability import cases, seeds
from tests.reliability.faults import shim
from tests.reliability.faults.journal import Record, Recording, recorded, watched
from tests.reliability.faults.replay import Cut, Judge, Replay, cuts

(SEED,), COUNT = seeds(11), 30
CUTS = cases("CUTS", 80)

needs_shim = pytest.mark.skipif(shim.unavailable() is not None, reason=str(shim.unavailable()))


History = Callable[..., Recording]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    """A function that runs the history with a durability, once for all tests."""

    @cache
    def run(durability: str, *, unsynced: bool = False) -> Recording:
        folder = tmp_path_factory.mktemp("history")
        return recorded(folder, seed=SEED, count=COUNT, durability=durability, unsynced=unsynced)

    return run


async def judge_cut(judge: Judge, cut: Cut, folder: Path) -> None:
    """Judge *cut* in *folder*; the files stay there if it fails."""
    path = cut.put(folder)
    try:
        await judge.hold(cut, path)
    except Exception as error:
        error.add_note(f"after {cut.at} records: {cut.how}; the files are in {folder}")
        raise
    shutil.rmtree(folder)


async def is_broken(judge: Judge, cut: Cut, folder: Path) -> bool:
    """Whether the judge finds a broken promise after *cut*."""
    try:
        await judge_cut(judge, cut, folder)
    except Exception:
        return True
    return False


@needs_shim
@pytest.mark.timeout(8 * CUTS)
@pytest.mark.parametrize("durability", ["full", "relaxed"])
async def test_power_cut_loses_nothing_or_with_relaxed_durability_the_end_of_the_history(
    history: History, durability: Literal["full", "relaxed"], tmp_path: Path
) -> None:
    judge = Judge(history(durability), durability)
    for i, cut in enumerate(cuts(judge.recording, CUTS, random.Random(SEED))):
        await judge_cut(judge, cut, tmp_path / str(i))
    assert (max(judge.lost) > 0) == (durability == "relaxed"), "relaxed cuts that lose nothing test nothing"


@needs_shim
@pytest.mark.timeout(600)
async def test_judge_finds_losses_when_sqlite_does_not_sync(history: History, tmp_path: Path) -> None:
    unsynced = history("full", unsynced=True)
    counts: Counter[str] = Counter()
    for i, cut in enumerate(cuts(unsynced, 24, random.Random(SEED))):
        for durability in ("full", "relaxed"):
            judge = Judge(unsynced, durability)
            counts[durability] += await is_broken(judge, cut, tmp_path / f"{i}-{durability}")
    assert counts["full"] >= 4, "acknowledged operations are lost"
    assert counts["relaxed"] >= 1, "the file is damaged, or what was written back is lost"


@needs_shim
def test_the_journal_is_complete(history: History) -> None:
    """A replay of the whole journal gives the same files, byte by byte."""
    full = history("full")
    replay = Replay(full)
    replay.advance(len(full.records))
    complete = next(cut for draw in map(random.Random, range(10_000)) if all_of_it(cut := replay.cut(draw)))
    assert {Path(name).name for name in complete.files} == {file.name for file in full.disk.iterdir()}
    assert len(complete.files) > 1, "a backup is among them"
    for name, content in complete.files.items():
        assert Path(name).read_bytes() == content, name


@needs_shim
@pytest.mark.timeout(600)
async def test_an_upgrade_that_is_cut_short_is_done_at_the_next_open(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    path = frozen(str(disk / "store.db"), "0001")
    assert [file.name for file in disk.iterdir()] == ["store.db"]
    recording = watched(tmp_path, "-c", f"import memstore; memstore.migrate({path!r})")
    expected = await everything(path)
    counts: Counter[str | None] = Counter()
    for i, cut in enumerate(cuts(recording, 40, random.Random(SEED))):
        path_after = cut.put(tmp_path / str(i))
        counts[inspect(str(path_after))] += 1
        assert await everything(path_after) == expected, cut.how
    assert set(counts) == {"0001", HEAD}, "some are before it, some after"


@needs_shim
@pytest.mark.timeout(600)
async def test_a_file_whose_making_is_cut_short_is_made_at_the_next_open(tmp_path: Path) -> None:
    path = tmp_path / "disk" / "store.db"
    recording = watched(tmp_path, "-c", f"import memstore; memstore.migrate({str(path)!r})")
    for i, cut in enumerate(cuts(recording, 60, random.Random(SEED))):
        path_after = cut.put(tmp_path / str(i))
        try:
            async with memstore.open(path_after, dimension=2) as store:
                await store.memories.add("first", embedding=[1, 0])
                assert await store.check() == []
        except Exception as error:
            error.add_note(f"after {cut.at} records: {cut.how}; the files were in {path_after.parent}")
            raise


def all_of_it(cut: Cut) -> bool:
    names, *files = cut.how.split(", ")
    return names.startswith("1.0 ") and all(" all of " in word or word.endswith(" of 0") for word in files)


# -- the model of the disk


def states(*records: Record, count: int = 400) -> list[dict[str, bytes]]:
    """The disks after *count* random power cuts after *records*."""
    replay = Replay(Recording(0, Path(), list(records)))
    replay.advance(len(records))
    return [replay.cut(draw).files for draw in map(random.Random, range(count))]


MADE = Record("c", 1, 0, b"/a")
SYNCED = Record("s", 1, 0, b"")
FOLDER_SYNCED = Record("d", 0, 0, b"")


def wrote(offset: int, text: bytes) -> Record:
    return Record("w", 1, offset, text)


def test_what_was_synced_is_there_and_what_was_not_may_be() -> None:
    disks = states(MADE, FOLDER_SYNCED, wrote(0, b"old"), SYNCED, wrote(3, b"A"), wrote(4, b"B"))
    contents = {files["/a"] for files in disks}
    assert contents == {b"old", b"oldA", b"old\0B", b"oldAB"}


def test_a_file_whose_folder_was_not_synced_may_be_gone_and_a_deleted_one_back() -> None:
    assert {"/a" in files for files in states(MADE, wrote(0, b"x"), SYNCED)} == {True, False}
    removed = Record("u", 0, 0, b"/a")
    assert {"/a" in files for files in states(MADE, FOLDER_SYNCED, removed)} == {True, False}
    assert {"/a" in files for files in states(MADE, FOLDER_SYNCED, removed, FOLDER_SYNCED)} == {False}
    moved = Record("r", 1, 0, b"/b")
    names = {frozenset(files) for files in states(MADE, FOLDER_SYNCED, removed, moved)}
    assert names >= {frozenset({"/a"}), frozenset({"/b"})}


def test_a_cut_file_may_have_its_end_still() -> None:
    cut_to_one = Record("t", 1, 1, b"")
    disks = states(MADE, FOLDER_SYNCED, wrote(0, b"abc"), SYNCED, cut_to_one)
    assert {files["/a"] for files in disks} == {b"abc", b"a"}


def test_a_write_may_be_torn_at_sectors_and_nowhere_else() -> None:
    old, new = b"o" * 2048, b"n" * 1024
    disks = states(MADE, FOLDER_SYNCED, wrote(0, old), SYNCED, wrote(512, new))
    contents = {files["/a"] for files in disks}
    assert contents == {
        old,
        old[:512] + new + old[1536:],
        old[:512] + new[:512] + old[1024:],
        old[:1024] + new[:512] + old[1536:],
    }

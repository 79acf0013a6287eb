"""Stores on disks that fail: errors are memstore errors, nothing acknowledged is lost, the store works afterwards."""

import errno
import itertools
import os
import random
import resource
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.reliability import cases, seeds
from tests.reliability.faults import shim
from tests.reliability.faults.machine import NEVER, Machine, Tally, Task
from tests.reliability.faults.shim import CALLS, Fault
from tests.reliability.faults.workload import Breakable, Round, empty

pytestmark = pytest.mark.skipif(shim.unavailable() is not None, reason=str(shim.unavailable()))

(SEED,) = seeds(20_260)
COUNT = 16  # operations a round
ROUNDS = cases("FAULTS", 60)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("faults")) as started:
        yield started


def run_all(machine: Machine, tasks: Iterable[Task]) -> Tally:
    tally = Tally()
    for task in tasks:
        tally.add(task, machine.run(task))
    print(f"seed {SEED}: {tally}")  # noqa: T201
    assert not tally.failures, "\n\n".join(tally.failures[:3])
    return tally


def test_the_shim_sees_what_sqlite_and_python_ask_of_the_disk(machine: Machine) -> None:
    making, running = machine.calls(SEED, 2, "opening"), machine.calls(SEED, 40, "running")
    assert making.keys() == running.keys() == CALLS.keys()
    assert all(making[call] > 0 for call in CALLS if call != "truncate"), making
    assert all(running[call] > 0 for call in CALLS), running


@pytest.mark.timeout(10 * ROUNDS)
def test_a_fault_anywhere_costs_nothing_that_was_acknowledged(machine: Machine) -> None:
    drawn = machine.random_tasks(random.Random(SEED), 2 + ROUNDS // 100, COUNT)
    tally = run_all(machine, itertools.islice(drawn, ROUNDS))
    assert tally.fired > 0.9 * ROUNDS, "faults that never happen show nothing"
    assert {"StorageError", "CommitUnknownError"} <= tally.errors.keys()


@pytest.mark.timeout(0)
@pytest.mark.skipif("MEMSTORE_EVERY_FAULT" not in os.environ, reason="an hour; set MEMSTORE_EVERY_FAULT=1")
def test_a_fault_at_every_call_of_a_history_costs_nothing_that_was_acknowledged(machine: Machine) -> None:
    run_all(machine, machine.all_tasks(SEED, COUNT))


def test_one_sync_that_fails_is_settled_and_the_store_goes_on(machine: Machine) -> None:
    tally = run_all(machine, [Task(SEED, COUNT, "running", Fault(("sync",), 0))])
    assert tally.errors.keys() == {"StorageError"}
    assert not tally.resolved


def test_when_no_sync_succeeds_the_outcome_is_unknown_until_the_next_write(machine: Machine) -> None:
    tally = run_all(machine, [Task(SEED, COUNT, "running", Fault(("sync",), 0, sticky=True))])
    assert "CommitUnknownError" in tally.errors
    assert tally.resolved == 1


def test_a_write_that_the_system_cuts_short_is_written_on(machine: Machine) -> None:
    task = Task(SEED, COUNT, "running", Fault(("write",), 30, how="short", sticky=True))
    tally = run_all(machine, [task])
    assert tally.fired
    assert not tally.errors


def test_a_round_that_goes_wrong_is_a_failure(machine: Machine) -> None:
    """A fault of an unknown kind makes the round a failure; the next round runs."""
    answer = machine.run(Task(SEED, COUNT, "running", Fault(("flood",), 0)))  # type: ignore[arg-type]
    assert "failure" in answer
    assert "failure" not in machine.run(Task(SEED, 2, "running", Fault(("write",), NEVER))), "the next is served"


# -- full disks


class FileLimit:
    """No file may grow: the system returns EFBIG, and Python ignores its signal."""

    fired = 0

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def arm(self, fault: Fault) -> None:
        largest = max(file.stat().st_size for file in self._folder.iterdir())
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest + fault.at, self._before[1]))

    def heal(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)


class FullDisk:
    """A small file system, filled by another file."""

    fired = 0

    def __init__(self, folder: Path) -> None:
        self._ballast = folder / "ballast"

    def arm(self, fault: Fault) -> None:
        free = os.statvfs(self._ballast.parent)
        self._ballast.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - fault.at)))

    def heal(self) -> None:
        self._ballast.unlink(missing_ok=True)


async def full(folder: Path, tmp_path: Path, disk: Breakable, room: int) -> Round:
    template = tmp_path / "template.db"
    await empty(template)
    fault = Fault(("write",), room, errno.ENOSPC, sticky=True)
    round_ = Round(folder, tmp_path / "lines", SEED, 40, fault, "running", disk)
    try:
        await round_.run(template)
    finally:
        disk.heal()
    assert round_.errors, "the disk was not full"
    return round_


@pytest.mark.parametrize("room", [0, 20_000, 150_000])
async def test_a_file_that_may_not_grow_costs_nothing_that_was_acknowledged(tmp_path: Path, room: int) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    await full(folder, tmp_path, FileLimit(folder), room)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mounted = tmp_path / "small"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "memstore-small", str(mounted)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can be mounted by root alone")
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True)


@pytest.mark.parametrize("room", [0, 40_000, 200_000])
async def test_a_full_disk_costs_nothing_that_was_acknowledged(small_disk: Path, tmp_path: Path, room: int) -> None:
    await full(small_disk, tmp_path, FullDisk(small_disk), room)

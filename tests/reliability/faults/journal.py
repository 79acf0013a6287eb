"""The journal of a disk: every call that changed it and every acknowledgement, in order."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from typing import Literal

from .shim import built, environment

ROOT = Path(__file__).parents[3]

_HEAD = Struct("=IIQQ")

What = Literal["c", "o", "w", "t", "s", "u", "r", "d", "m"]


@dataclass(frozen=True, slots=True)
class Record:
    """One successful call.

    Attributes:
        what: `c` a file was made, `o` one opened that was there before, `w` written to, `t` cut to a length, `s`
            synced; `u` a name was removed, `r` given to a file; `d` the folder was synced; `m` a line of
            acknowledgements was written.
        file: the file's number, which stays with it whatever its name.
        offset: of a write; of `t` the length.
        data: what was written; the name, for `c`, `o`, `u` and `r`; the line, for `m`.
    """

    what: What
    file: int
    offset: int
    data: bytes


def read(path: Path) -> list[Record]:
    """The records of a complete journal."""
    content = path.read_bytes()
    records: list[Record] = []
    at = 0
    while at < len(content):
        what, file, offset, length = _HEAD.unpack_from(content, at)
        at += _HEAD.size
        records.append(Record(chr(what), file, offset, content[at : at + length]))  # type: ignore[arg-type]
        at += length
    assert at == len(content), "the journal was cut short"
    return records


@dataclass(frozen=True)
class Recording:
    """The journal of one history on *disk*; *before* has the synced files that were there at its start."""

    seed: int
    disk: Path
    records: list[Record]
    before: Mapping[str, bytes] = field(default_factory=dict)


def watched(folder: Path, *arguments: str, seed: int = 0) -> Recording:
    """Run Python with *arguments* in a process of its own, on the disk in *folder*, with a journal.

    The disk is `folder/disk`; what is written to `folder/lines` are acknowledgements.
    """
    disk, journal = folder / "disk", folder / "journal"
    disk.mkdir(parents=True, exist_ok=True)
    before = {str(file): file.read_bytes() for file in disk.iterdir()}
    around = environment(built(folder), disk, folder / "control", journal=journal, marks=folder / "lines")
    subprocess.run([sys.executable, *arguments], env=around | {"PYTHONPATH": str(ROOT)}, cwd=ROOT, check=True)
    return Recording(seed, disk, read(journal), before)


def recorded(folder: Path, *, seed: int, count: int, durability: str, unsynced: bool = False) -> Recording:
    """Run a history of *count* operations with a journal; see `workload.record`."""
    options = {
        "path": str(folder / "disk" / "store.db"),
        "lines": str(folder / "lines"),
        "seed": seed,
        "count": count,
        "durability": durability,
        "unsynced": unsynced,
    }
    return watched(folder, "-m", "tests.reliability.faults.workload", json.dumps(options), seed=seed)

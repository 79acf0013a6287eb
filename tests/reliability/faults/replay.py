"""The states of a disk after a power cut: everything synced, and any part of the rest.

The model is as strict as POSIX allows and SQLite expects. Of a file, what was written or cut since its last sync
may have reached the disk or not, in any order, and a write by sectors. Of names, what was made or removed since the
folder's last sync may be there or not. Two things are sure: a sector is old or new (never garbage), and bytes that
nobody wrote to keep their value.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.support.history_checker import History, Model, verify

from .journal import Record, Recording

Mode = Literal["none", "all", "first", "last", "some", "torn"]
MODES: tuple[Mode, ...] = ("none", "all", "first", "last", "some", "torn")


@dataclass
class _File:
    synced: bytearray = field(default_factory=bytearray)
    since: list[Record] = field(default_factory=list)

    def sync(self) -> None:
        for change in self.since:
            _apply(self.synced, change)
        self.since.clear()

    def after_cut(self, draw: random.Random) -> tuple[bytes, str]:
        """The contents after a cut, and a description of what reached the disk."""
        content = bytearray(self.synced)
        mode, sector = draw.choice(MODES), draw.choice((512, 4096))
        share, place = draw.random(), draw.randint(0, len(self.since))
        for i, change in enumerate(self.since):
            if mode == "all" or (mode == "first" and i < place) or (mode == "last" and i >= place):
                _apply(content, change)
            elif mode in ("some", "torn") and draw.random() < share:
                if mode == "torn" and change.what == "w":
                    _tear(content, change, sector, draw)
                else:
                    _apply(content, change)
        return bytes(content), f"{mode} of {len(self.since)}"


def _apply(content: bytearray, change: Record) -> None:
    if change.what == "t":
        del content[change.offset :]
        content.extend(bytes(change.offset - len(content)))
        return
    if len(content) < change.offset:
        content.extend(bytes(change.offset - len(content)))
    content[change.offset : change.offset + len(change.data)] = change.data


def _tear(content: bytearray, change: Record, sector: int, draw: random.Random) -> None:
    """Apply some sectors of *change*."""
    end = change.offset + len(change.data)
    at = change.offset
    while at < end:
        upto = min(end, (at // sector + 1) * sector)
        if draw.random() < 0.5:
            part = change.data[at - change.offset : upto - change.offset]
            _apply(content, Record("w", change.file, at, part))
        at = upto


@dataclass(frozen=True)
class Cut:
    """One state of the disk after *at* records of the journal; *how* describes what reached the disk."""

    at: int
    files: dict[str, bytes]
    acknowledged: str
    how: str

    def put(self, folder: Path) -> Path:
        """Write the files to *folder*; return the path of the store."""
        folder.mkdir()
        for name, content in self.files.items():
            (folder / Path(name).name).write_bytes(content)
        return folder / "store.db"


class Replay:
    """A disk that replays a journal."""

    def __init__(self, recording: Recording) -> None:
        self.records = recording.records
        self.at = 0
        self._files: dict[int, _File] = {}
        self._names: dict[str, int] = {}  # at the last sync of the folder
        self._renamed: list[tuple[str, int | None]] = []  # changes since then: a name and its file
        self._lines: list[bytes] = []
        for number, (name, content) in enumerate(recording.before.items()):
            self._names[name] = -1 - number  # until the journal gives it a number
            self._files[-1 - number] = _File(bytearray(content))

    def advance(self, upto: int) -> None:
        for record in self.records[self.at : upto]:
            match record.what:
                case "c":
                    self._files[record.file] = _File()
                    self._renamed.append((record.data.decode(), record.file))
                case "o":
                    name = record.data.decode()
                    self._files[record.file] = self._files[self._names[name]]
                    self._names[name] = record.file
                case "r":
                    self._renamed.append((record.data.decode(), record.file))
                case "u":
                    self._renamed.append((record.data.decode(), None))
                case "w" | "t":
                    self._files[record.file].since.append(record)
                case "s":
                    self._files[record.file].sync()
                case "d":
                    self._names = _named(self._names, self._renamed)
                    self._renamed.clear()
                case "m":
                    self._lines.append(record.data)
        self.at = upto

    def cut(self, draw: random.Random) -> Cut:
        """Draw one state of the disk after a power cut."""
        share = draw.choice((0.0, 0.5, 1.0))
        names = _named(self._names, [change for change in self._renamed if draw.random() < share])
        files: dict[str, bytes] = {}
        how: list[str] = [f"{share} of {len(self._renamed)} names"]
        for name, number in names.items():
            files[name], word = self._files[number].after_cut(draw)
            how.append(f"{Path(name).name}: {word}")
        return Cut(self.at, files, b"".join(self._lines).decode(), ", ".join(how))


def _named(names: dict[str, int], changes: list[tuple[str, int | None]]) -> dict[str, int]:
    after = dict(names)
    for name, number in changes:
        if number is None:
            after.pop(name, None)
        else:
            after[name] = number
    return after


def cuts(recording: Recording, count: int, draw: random.Random) -> Iterator[Cut]:
    """*count* power cuts in order: a third each at any time, before a sync, and after an acknowledgement."""
    records = recording.records
    moments = list(range(len(records) + 1))
    before_sync = [i for i, record in enumerate(records) if record.what in ("s", "d")]
    answered = [i + 1 for i, record in enumerate(records) if record.what == "m"]
    replay = Replay(recording)
    kinds = [kind for kind in (moments, before_sync, answered) if kind]
    for at in sorted(draw.choice(kinds[i % len(kinds)]) for i in range(count)):
        replay.advance(at)
        yield replay.cut(draw)


# -- judging the files


@dataclass
class Judge:
    """Compares the files after a power cut with the acknowledgements before it.

    With `full` durability nothing acknowledged is lost. With `relaxed` only the end of the history is lost, and nothing
    from before the last time that the log was written back, by a `compact` or a close. *lost* has the number of lost
    operations for each cut.
    """

    recording: Recording
    durability: Literal["full", "relaxed"]
    lost: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        acknowledged = b"".join(record.data for record in self.recording.records if record.what == "m").decode()
        self.history = History.parse(acknowledged, self.recording.seed)

    async def hold(self, cut: Cut, path: Path) -> None:
        """Fail if the store at *path*, made from *cut*, is in no state that it may be in."""
        ended = cut.acknowledged.count("\ndone ")
        first = ended if self.durability == "full" else self._written_back(cut.acknowledged)
        allowed: list[tuple[int, Model]] = []
        for i in range(first, ended):
            allowed += [(ended - i, model) for model in self.history.began(i)]
        begun = cut.acknowledged.count("begin ") > ended
        allowed += [(0, model) for model in (self.history.began(ended) if begun else self.history.possible(ended))]
        which = await verify(path, [model for _, model in allowed], timeout=5.0)
        self.lost.append(allowed[which][0])
        await self._backups(cut, path)

    async def _backups(self, cut: Cut, path: Path) -> None:
        """Each acknowledged backup must be there in the state of its time."""
        for i, (n, _) in enumerate(self.history.events):
            if f"\ndone {n} " in cut.acknowledged and self.history.workload.operation(n).kind == "backup":
                copy = path.with_name(f"backup-{n}.db")
                assert copy.exists(), f"the backup of operation {n} is lost"
                await verify(copy, self.history.possible(i + 1), timeout=5.0)

    def _written_back(self, acknowledged: str) -> int:
        """The number of operations that had ended at the last checkpoint."""
        ended = safe = 0
        for line in acknowledged.splitlines():
            if line.startswith("done "):
                ended += 1
                if self.history.workload.operation(self.history.events[ended - 1][0]).kind == "compact":
                    safe = ended
            elif line == "closed":
                safe = ended
        return safe

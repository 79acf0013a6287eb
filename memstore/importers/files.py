"""The files of the folder: its index, its JSON files in order, and their contents.

Only regular files in the folder itself are read. A link may lead out of the folder, and reading a pipe or a device may
never end: each is left out with a remark.

The content of a file never raises an error: an unreadable file gets a remark. Names, ids and the index stay in memory,
the contents of the files do not.
"""

import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from memstore.config import path_text
from memstore.errors import InvalidError, short_repr
from memstore.importers.report import Remark, Remarks
from memstore.models.records import RecordKind

INDEX = "memory_index.json"
MAX_FILE_BYTES = 256 * 1024 * 1024
"""The largest file that is read. It exceeds the JSON of the longest text of a memory and a vector."""

MAX_FILES = 1_000_000
"""The most files of one folder: their names are in memory."""

FOLDERS: dict[RecordKind, str] = {"memory": "memories", "assembly": "assemblies"}
_LINK = "it is a link, which may lead out of the folder"
_NO_LINK, _NO_WAIT, _BINARY = (getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
_DERIVED = re.compile(r"faiss|mapping|\.index$|\.npy$", re.IGNORECASE)


class IndexEntry(NamedTuple):
    """An entry of the index: the kind, id, file and time of a record."""

    kind: RecordKind
    id: str
    file: str
    timestamp: object


@dataclass(slots=True)
class Source:
    """A JSON file in one of the two folders.

    Attributes:
        kind: the kind of its record.
        name: the name of the file.
        size: the size of the file in bytes.
        values: its JSON; None if it cannot be read, with a remark.
        remarks: the remarks on it.
    """

    kind: RecordKind
    name: str
    size: int
    values: dict[str, Any] | None
    remarks: Remarks


@dataclass(slots=True)
class Folder:
    """The names of the files of a folder, and its index.

    Attributes:
        path: the path of the folder.
        files: the names of the JSON files: first those in the index, each part sorted by name.
        index: the entries of the index, by kind and file.
        remarks: the remarks on other files and on the index.
    """

    path: Path
    files: dict[RecordKind, list[str]] = field(default_factory=dict)
    index: dict[tuple[RecordKind, str], list[IndexEntry]] = field(default_factory=dict)
    remarks: list[Remark] = field(default_factory=list)

    def sources(self, kind: RecordKind) -> Iterator[Source]:
        """The files of one kind. Each is read when the iterator reaches it."""
        for name in self.files[kind]:
            place = f"{FOLDERS[kind]}/{name}"
            remarks = Remarks(place)
            entries = self.entries(kind, name)
            remarks.id = entries[0].id if len(entries) == 1 else None
            values, size = _read(self.path / FOLDERS[kind] / name)
            if isinstance(values, str):
                remarks.add("left_out", kind, values)
            yield Source(kind, name, size, None if isinstance(values, str) else values, remarks)

    def entries(self, kind: RecordKind, name: str) -> list[IndexEntry]:
        """The entries of the index for a file."""
        return self.index.get((kind, name), [])


def scan_folder(path: str | os.PathLike[str]) -> Folder:
    """The folder at *path*. Raises `InvalidError` if it does not exist or has another layout."""
    folder = Folder(Path(path_text(path)))
    if not folder.path.is_dir():
        raise InvalidError(f"Folder {str(folder.path)!r} does not exist: give the path of the folder to import")
    if not any((folder.path / name).exists() for name in (INDEX, *FOLDERS.values())):
        raise InvalidError(
            f"Invalid folder {str(folder.path)!r}: expected {INDEX}, memories/ or assemblies/ in it, found none of them"
        )
    _read_entries(folder)
    used = {INDEX, *FOLDERS.values()}
    for entry in _entries(folder.path):
        if entry.name not in used:
            derived = _DERIVED.search(entry.name)
            reason = "a vector index: the store builds its own" if derived else "not part of the import"
            _remark(folder, "ignored", entry.name, reason)
    for kind, name in FOLDERS.items():
        folder.files[kind] = _names(folder, kind, folder.path / name)
    return folder


def vector_sizes(path: str | os.PathLike[str]) -> list[tuple[int, int]]:
    """The dimensions of the vectors of the memories in a folder with their counts, the most frequent first."""
    sizes: Counter[int] = Counter()
    for source in scan_folder(path).sources("memory"):
        vector = (source.values or {}).get("embedding")
        if isinstance(vector, list) and vector:
            sizes[len(vector)] += 1
    return sorted(sizes.items(), key=lambda size_count: (-size_count[1], -size_count[0]))


def _names(folder: Folder, kind: RecordKind, path: Path) -> list[str]:
    if path.is_symlink():
        _remark(folder, "left_out", path.name, _LINK)
        return []
    if not path.is_dir():
        return []
    names = []
    for entry in _entries(path):
        place = f"{path.name}/{entry.name}"
        if not entry.name.lower().endswith(".json"):
            _remark(folder, "left_out", place, "the name does not end in .json")
        elif entry.is_symlink():
            _remark(folder, "left_out", place, _LINK)
        elif not entry.is_file(follow_symlinks=False):
            _remark(folder, "left_out", place, "it is not a file")
        else:
            names.append(entry.name)
    return sorted(names, key=lambda name: ((kind, name) not in folder.index, name))


def _entries(path: Path) -> list["os.DirEntry[str]"]:
    """The entries of a folder, by name. Raises `InvalidError` where there are too many."""
    with os.scandir(path) as entries:
        first = list(islice(entries, MAX_FILES + 1))
    if len(first) > MAX_FILES:
        raise InvalidError(
            f"Too many files in {str(path)!r}: expected at most {MAX_FILES:,}. Import them in several folders"
        )
    return sorted(first, key=lambda entry: entry.name)


def _read(path: Path) -> tuple[dict[str, Any] | str, int]:
    """The JSON object of a file, or the reason why there is none; and the number of bytes read."""
    try:
        if path.is_symlink():
            return _LINK, 0
        # Another program may replace the file by a link or a pipe: neither is followed, and neither is waited for.
        descriptor = os.open(path, os.O_RDONLY | _NO_LINK | _NO_WAIT | _BINARY)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return "it is not a file", 0
            if status.st_size > MAX_FILE_BYTES:
                size = f"{status.st_size:,}"
                return f"the file is too large: expected at most {MAX_FILE_BYTES:,} bytes, found {size}", 0
            data = file.read(status.st_size)
    except OSError as error:
        return f"cannot read the file: {error.strerror or error}", 0
    return _parsed(data), len(data)


def _parsed(data: bytes) -> dict[str, Any] | str:
    if not data.strip():
        return "the file is empty"
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return f"the file is not UTF-8: {error.reason} at byte {error.start:,}"
    except (ValueError, RecursionError) as error:
        return f"the file is not JSON: {error}"
    return value if isinstance(value, dict) else f"expected a JSON object, found {type(value).__name__}"


def _read_entries(folder: Folder) -> None:
    if not os.path.lexists(folder.path / INDEX):
        _remark(folder, "mended", INDEX, "the file does not exist: ids and kinds are taken from the other files")
        return
    values, _ = _read(folder.path / INDEX)
    if isinstance(values, str):
        _remark(folder, "left_out", INDEX, f"{values}. Ids and kinds are taken from the other files")
        return
    for id, value in values.items():
        entry = _index_entry(id, value)
        if entry is None:
            reason = f"expected an entry with the path of a file, found {short_repr(value)}"
            folder.remarks.append(Remark(outcome="left_out", what="index entry", place=INDEX, id=id, reason=reason))
        else:
            folder.index.setdefault((entry.kind, entry.file), []).append(entry)


def _index_entry(id: str, value: object) -> IndexEntry | None:
    """An entry of the index. Only the file name of its path is used: the path can be of another machine."""
    if isinstance(value, str):
        value = {"path": value}
    if not isinstance(value, dict):
        return None
    path = value.get("path")
    parts = re.split(r"[\\/]", path) if isinstance(path, str) and path else [f"{id}.json"]
    kind: RecordKind = "memory"
    if "assembl" in str(value.get("type", "")).lower() or FOLDERS["assembly"] in parts[:-1]:
        kind = "assembly"
    return IndexEntry(kind, id, parts[-1].replace(":", "-"), value.get("timestamp"))


def _remark(folder: Folder, outcome: Literal["left_out", "mended", "ignored"], place: str, reason: str) -> None:
    folder.remarks.append(Remark(outcome=outcome, what="file", place=place, id=None, reason=reason))

"""The files of the folder: its index, its JSON files in order, and their contents.

The content of a file never raises an error: an unreadable file gets a remark. Names, ids and the index stay in memory,
the contents of the files do not.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from memstore.config import path_text
from memstore.errors import InvalidError, short_repr
from memstore.importers.report import Remark, Remarks
from memstore.models.records import RecordKind

INDEX = "memory_index.json"
MAX_FILE_BYTES = 256 * 1024 * 1024
"""The largest file that is read. It exceeds the JSON of the longest text of a memory and a vector."""

FOLDERS: dict[RecordKind, str] = {"memory": "memories", "assembly": "assemblies"}
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
    for entry in sorted(folder.path.iterdir()):
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
    if not path.is_dir():
        return []
    names = []
    for entry in sorted(path.iterdir()):
        if entry.suffix.lower() != ".json":
            _remark(folder, "left_out", f"{path.name}/{entry.name}", "the name does not end in .json")
        elif not entry.is_file():
            _remark(folder, "left_out", f"{path.name}/{entry.name}", "it is not a file")
        else:
            names.append(entry.name)
    return sorted(names, key=lambda name: ((kind, name) not in folder.index, name))


def _read(path: Path) -> tuple[dict[str, Any] | str, int]:
    """The JSON object of a file, or the reason why there is none; and the number of bytes read."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            return f"the file is too large: expected at most {MAX_FILE_BYTES:,} bytes, found {size:,}", 0
        data = path.read_bytes()
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
    if not (folder.path / INDEX).exists():
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

"""The folder as it lies on the disk: its index, its files in order, and the JSON in each.

Nothing that a file holds raises: what cannot be read is a remark. Names and ids stay in memory; what files hold does
not, but for the index.
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
"""Of one file of the folder: JSON of the longest text a memory can have, with room for a vector."""

FOLDERS: dict[RecordKind, str] = {"memory": "memories", "assembly": "assemblies"}
_DERIVED = re.compile(r"faiss|mapping|\.index$|\.npy$", re.IGNORECASE)


class Named(NamedTuple):
    """What the index says of a record."""

    kind: RecordKind
    id: str
    file: str
    timestamp: object


@dataclass(slots=True)
class Source:
    """A file that holds a record, or should.

    Attributes:
        kind: what it holds.
        name: of the file.
        size: of the file, in bytes.
        values: its JSON; None where it cannot be read, which the remarks then say.
        remarks: what there is to say of it.
    """

    kind: RecordKind
    name: str
    size: int
    values: dict[str, Any] | None
    remarks: Remarks


@dataclass(slots=True)
class Folder:
    """A folder, looked through: which files there are, and what its index names.

    Attributes:
        path: where it is.
        files: the names of the files that should hold a record, those that the index names first, then by name.
        named: what the index names, by kind and file.
        remarks: what is in the folder and is not read, and what is wrong with its index.
    """

    path: Path
    files: dict[RecordKind, list[str]] = field(default_factory=dict)
    named: dict[tuple[RecordKind, str], list[Named]] = field(default_factory=dict)
    remarks: list[Remark] = field(default_factory=list)

    def sources(self, kind: RecordKind) -> Iterator[Source]:
        """The files of one kind, each read when it is asked for."""
        for name in self.files[kind]:
            place = f"{FOLDERS[kind]}/{name}"
            remarks = Remarks(place)
            named = self.indexed(kind, name)
            remarks.id = named[0].id if len(named) == 1 else None
            found, size = _read(self.path / FOLDERS[kind] / name)
            if isinstance(found, str):
                remarks.add("left_out", kind, found)
            yield Source(kind, name, size, None if isinstance(found, str) else found, remarks)

    def indexed(self, kind: RecordKind, name: str) -> list[Named]:
        """What the index names in a file."""
        return self.named.get((kind, name), [])


def look_through(path: str | os.PathLike[str]) -> Folder:
    """The folder at *path*. Raises `InvalidError` where there is none, or none of this kind."""
    folder = Folder(Path(path_text(path)))
    if not folder.path.is_dir():
        raise InvalidError(f"there is no folder {str(folder.path)!r} to import")
    if not any((folder.path / name).exists() for name in (INDEX, *FOLDERS.values())):
        raise InvalidError(f"{str(folder.path)!r} holds neither {INDEX} nor memories/ nor assemblies/: give the folder")
    _read_entries(folder)
    known = {INDEX, *FOLDERS.values()}
    for entry in sorted(folder.path.iterdir()):
        if entry.name not in known:
            derived = _DERIVED.search(entry.name)
            reason = "an index of vectors: the store makes its own" if derived else "no part of what is imported"
            _remark(folder, "ignored", entry.name, reason)
    for kind, name in FOLDERS.items():
        folder.files[kind] = _names(folder, kind, folder.path / name)
    return folder


def vector_sizes(path: str | os.PathLike[str]) -> list[tuple[int, int]]:
    """The lengths of the vectors of the memories in a folder, each with how many have it; the most frequent first."""
    sizes: Counter[int] = Counter()
    for source in look_through(path).sources("memory"):
        vector = (source.values or {}).get("embedding")
        if isinstance(vector, list) and vector:
            sizes[len(vector)] += 1
    return sorted(sizes.items(), key=lambda found: (-found[1], -found[0]))


def _names(folder: Folder, kind: RecordKind, path: Path) -> list[str]:
    if not path.is_dir():
        return []
    names = []
    for entry in sorted(path.iterdir()):
        if entry.suffix.lower() != ".json":
            _remark(folder, "left_out", f"{path.name}/{entry.name}", "its name does not end in .json")
        elif not entry.is_file():
            _remark(folder, "left_out", f"{path.name}/{entry.name}", "it is no file")
        else:
            names.append(entry.name)
    return sorted(names, key=lambda name: ((kind, name) not in folder.named, name))


def _read(path: Path) -> tuple[dict[str, Any] | str, int]:
    """The object in a file, or why there is none; and how many bytes the file has."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            return f"it has {size:,} bytes; at most {MAX_FILE_BYTES:,} are read", 0
        data = path.read_bytes()
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}", 0
    return _parsed(data), len(data)


def _parsed(data: bytes) -> dict[str, Any] | str:
    if not data.strip():
        return "it is empty"
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return f"it is not UTF-8: {error.reason} at byte {error.start:,}"
    except (ValueError, RecursionError) as error:
        return f"it is not JSON: {error}"
    return value if isinstance(value, dict) else f"it holds no JSON object but {type(value).__name__}"


def _read_entries(folder: Folder) -> None:
    if not (folder.path / INDEX).exists():
        _remark(folder, "mended", INDEX, "there is none: files say themselves what they hold")
        return
    found, _ = _read(folder.path / INDEX)
    if isinstance(found, str):
        _remark(folder, "left_out", INDEX, f"{found}; files say themselves what they hold")
        return
    for id, entry in found.items():
        named = _named(id, entry)
        if named is None:
            reason = f"it is {short_repr(entry)}, which names no file"
            folder.remarks.append(Remark(outcome="left_out", what="index entry", place=INDEX, id=id, reason=reason))
        else:
            folder.named.setdefault((named.kind, named.file), []).append(named)


def _named(id: str, entry: object) -> Named | None:
    """An entry of the index. Its path may be that of another machine: the name of the file is what counts."""
    if isinstance(entry, str):
        entry = {"path": entry}
    if not isinstance(entry, dict):
        return None
    said = entry.get("path")
    parts = re.split(r"[\\/]", said) if isinstance(said, str) and said else [f"{id}.json"]
    kind: RecordKind = "memory"
    if "assembl" in str(entry.get("type", "")).lower() or FOLDERS["assembly"] in parts[:-1]:
        kind = "assembly"
    return Named(kind, id, parts[-1].replace(":", "-"), entry.get("timestamp"))


def _remark(folder: Folder, outcome: Literal["left_out", "mended", "ignored"], place: str, reason: str) -> None:
    folder.remarks.append(Remark(outcome=outcome, what="file", place=place, id=None, reason=reason))

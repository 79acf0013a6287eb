"""What every system is given, as it lies in a folder: memories, queries, filters. Reads; `data` writes.

Every worker process reads it, those of the peers among them: NumPy and the standard library are all it may import.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

LIMIT = 10
"""Hits of every search."""

CONTENT = 200
"""Characters of a memory's text."""

BUCKETS = 1_000
"""Values of the metadata fields that filters ask for: `recursive` such and such many of them is a share of the rows."""

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """One condition on memories: a tag, or a whole number in the metadata that is below a bound.

    Attributes:
        name: what reports call it.
        share: how much of the rows it allows, 0 to 1.
        tag: the tag it asks for, or None.
        field: the metadata field it asks for when there is no tag.
        below: the bound, not included.
        against: whether what it allows lies far from the queries that are asked under it.
    """

    name: str
    share: float
    tag: str | None = None
    field: str = ""
    recursive: int = 0
    against: bool = False


FILTERS = {
    f.name: f
    for f in (
        Filter(name="tag 10 %", share=0.1, tag="one-in-10"),
        Filter(name="tag 1 %", share=0.01, tag="one-in-100"),
        Filter(name="tag 0.1 %", share=0.001, tag="one-in-1000"),
        Filter(name="metadata 10 %", share=0.1, field="shelf", recursive=100),
        Filter(name="metadata 1 %", share=0.01, field="shelf", recursive=10),
        Filter(name="metadata 0.1 %", share=0.001, field="shelf", recursive=1),
        Filter(name="against 30 %", share=0.3, field="near", recursive=300, against=True),
        Filter(name="against 10 %", share=0.1, field="near", recursive=100, against=True),
        Filter(name="against 1 %", share=0.01, field="near", recursive=10, against=True),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One memory to store. *row* is its number, and also stands in its metadata."""

    row: int
    content: str
    tags: list[str]
    metadata: dict[str, Any]
    vector: Vectors

    @property
    def key(self) -> str:
        """The id for systems that want one."""
        return f"m-{self.row:07d}"


class Workset:
    """The folder: `vectors.f32` and `items.jsonl` (rows, then extra ones to add later), `queries.npy`, `facts.json`.

    Attributes:
        rows: memories every store begins with.
        extra: further ones, numbered from `rows` on.
        dimension: numbers per vector.
        queries: float32, shape (queries, dimension), each of length 1.
        against: numbers of the queries that are asked under the filters that go against them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        self.rows: int = self.facts["rows"]
        self.extra: int = self.facts["extra"]
        self.dimension: int = self.facts["dimension"]
        self.queries: Vectors = np.load(folder / "queries.npy")
        self.against: list[int] = np.load(folder / "against.npy").tolist()

    def vectors(self, start: int, stop: int) -> Vectors:
        """Float32, shape (stop - start, dimension): read into memory, not mapped, so that what is kept is counted."""
        width = 4 * self.dimension
        read = np.fromfile(
            self.folder / "vectors.f32", np.float32, (stop - start) * self.dimension, offset=start * width
        )
        return read.reshape(-1, self.dimension)

    def items(self, start: int, stop: int, chunk: int = 1_000) -> Iterator[Item]:
        """The memories from *start* to before *stop*, read chunk by chunk."""
        width = self.facts["line"]  # every line is as long as the longest: a row's place is known
        with (self.folder / "items.jsonl").open("rb") as file:
            file.seek(start * width)
            for first in range(start, stop, chunk):
                last = min(first + chunk, stop)
                vectors = self.vectors(first, last)
                for row in range(first, last):
                    yield Item(row=row, vector=vectors[row - first], **json.loads(file.read(width)))

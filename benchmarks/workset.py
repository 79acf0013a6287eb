"""The data that every system receives: memories, queries and filters, read from a folder. `corpus` writes the folder.

Every worker process imports this module, also those of peers, so it may import only NumPy and the standard library.
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
"""Number of distinct values of the metadata fields that filters compare."""

FIELDS = ("bucket", "closeness")
"""The metadata fields that filters compare."""

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """One condition: a tag, or an integer metadata field below a bound.

    Attributes:
        name: the name in reports.
        share: the share of the rows that match, 0 to 1.
        tag: the required tag, or None.
        field: the metadata field, where there is no tag.
        below: the exclusive upper bound of the field.
        adverse: whether the matching rows are far from the queries asked under this filter.
    """

    name: str
    share: float
    tag: str | None = None
    field: str = ""
    below: int = 0
    adverse: bool = False

    def matches(self, tags: list[str], metadata: dict[str, Any]) -> bool:
        """Whether a memory with these tags and metadata matches."""
        return self.tag in tags if self.tag else metadata[self.field] < self.below


FILTERS = {
    filter.name: filter
    for filter in (
        Filter(name="tag 10 %", share=0.1, tag="one-in-10"),
        Filter(name="tag 1 %", share=0.01, tag="one-in-100"),
        Filter(name="tag 0.1 %", share=0.001, tag="one-in-1000"),
        Filter(name="metadata 10 %", share=0.1, field="bucket", below=100),
        Filter(name="metadata 1 %", share=0.01, field="bucket", below=10),
        Filter(name="metadata 0.1 %", share=0.001, field="bucket", below=1),
        Filter(name="adverse 30 %", share=0.3, field="closeness", below=300, adverse=True),
        Filter(name="adverse 10 %", share=0.1, field="closeness", below=100, adverse=True),
        Filter(name="adverse 1 %", share=0.01, field="closeness", below=10, adverse=True),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One memory to store. Its metadata holds *row*, its number, too."""

    row: int
    content: str
    tags: list[str]
    metadata: dict[str, Any]
    vector: Vectors

    @property
    def key(self) -> str:
        """The id for systems that need one."""
        return item_key(self.row)


def item_key(row: int) -> str:
    """The id of a row."""
    return f"m-{row:07d}"


class Workset:
    """Reads the folder: `vectors.f32` and `items.jsonl` (rows, then extra rows), `queries.npy`, `facts.json`.

    Attributes:
        rows: memories in every filled store.
        extra_rows: further memories that phases add later, numbered from `rows`.
        dimension: numbers per vector.
        queries: float32, shape (queries, dimension), each of length 1.
        adverse_queries: numbers of the queries for adverse filters.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        self.rows: int = self.facts["rows"]
        self.extra_rows: int = self.facts["extra_rows"]
        self.dimension: int = self.facts["dimension"]
        self.queries: Vectors = np.load(folder / "queries.npy")
        self.adverse_queries: list[int] = np.load(folder / "adverse_queries.npy").tolist()

    def vectors(self, start: int, stop: int) -> Vectors:
        """Float32, shape (stop - start, dimension). Read, not mapped, so that memory measurements count it."""
        offset = start * 4 * self.dimension
        values = np.fromfile(self.folder / "vectors.f32", np.float32, (stop - start) * self.dimension, offset=offset)
        return values.reshape(-1, self.dimension)

    def items(self, start: int, stop: int, chunk: int = 1_000) -> Iterator[Item]:
        """The memories from *start* up to *stop*, read in chunks."""
        width = self.facts["line_bytes"]  # lines are padded to one length, so a row's offset is known
        with (self.folder / "items.jsonl").open("rb") as file:
            file.seek(start * width)
            for first in range(start, stop, chunk):
                last = min(first + chunk, stop)
                vectors = self.vectors(first, last)
                for row in range(first, last):
                    yield Item(row=row, vector=vectors[row - first], **json.loads(file.read(width)))

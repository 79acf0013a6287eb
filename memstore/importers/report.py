"""The report of an import: counts, and a remark for every difference between the folder and the store."""

from dataclasses import dataclass
from typing import Literal

RemarkOutcome = Literal["left_out", "mended", "ignored"]
What = Literal["memory", "assembly", "member", "vector", "field", "copy", "index entry", "file"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """One difference between the folder and the store.

    Attributes:
        outcome: `"left_out"`: it is not in the store. `"mended"`: it is in the store with changes. `"ignored"`: the
            import does not use it.
        what: the kind of thing.
        place: the path of the file in the folder, with `/`.
        id: of the memory, assembly or member; None if unknown.
        reason: the cause.
    """

    outcome: RemarkOutcome
    what: What
    place: str
    id: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderReport:
    """The counts and remarks of an import. Every file is counted once.

    `memory_files` are `memories` less `rescued`, `memories_present`, and the memories left out; `assembly_files` are
    `assemblies`, `assemblies_present`, and the assemblies left out.

    Attributes:
        memory_files: JSON files in `memories/`.
        assembly_files: JSON files in `assemblies/`.
        memories: memories stored.
        assemblies: assemblies stored.
        members: memberships stored.
        rescued: those of `memories` that were only in a copy in an assembly.
        memories_present: memories that were in the store before, and were not changed.
        assemblies_present: the same of assemblies.
        unindexed: files that the index of the folder does not name. They are imported like the others.
        remarks: the differences, in the order of the import.
    """

    memory_files: int
    assembly_files: int
    memories: int
    assemblies: int
    members: int
    rescued: int
    memories_present: int
    assemblies_present: int
    unindexed: int
    remarks: tuple[Remark, ...]

    @property
    def left_out(self) -> tuple[Remark, ...]:
        """The remarks on what is not in the store."""
        return tuple(remark for remark in self.remarks if remark.outcome == "left_out")


class Remarks:
    """Collects the remarks on one file. *id* is the id of its record, once known."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.id: str | None = None
        self.entries: list[Remark] = []

    def add(self, outcome: RemarkOutcome, what: What, reason: str, *, id: str | None = None) -> None:
        """Add a remark on *id*, or else on the record of the file."""
        id = self.id if id is None else id
        self.entries.append(Remark(outcome=outcome, what=what, place=self.place, id=id, reason=reason))

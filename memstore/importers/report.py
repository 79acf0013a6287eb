"""What an import says it did: counts, and a remark for everything that is not as it was in the folder."""

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["left_out", "mended", "ignored"]
What = Literal["memory", "assembly", "member", "vector", "field", "copy", "index entry", "file"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """One thing in the folder that is not in the store as it was.

    Attributes:
        outcome: `"left_out"`: it is not in the store. `"mended"`: it is, but not as it was. `"ignored"`: it is no part
            of what is imported.
        what: what it is about.
        place: the file, by its path in the folder, with `/`.
        id: of the memory, assembly or member; None where it is not known.
        reason: why.
    """

    outcome: Outcome
    what: What
    place: str
    id: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderReport:
    """What an import did. Every file it met is counted once.

    `memory_files` are `memories` less `rescued`, `memories_present`, and the memories left out; `assembly_files` are
    `assemblies`, `assemblies_present`, and the assemblies left out.

    Attributes:
        memory_files: files in `memories/` that should hold one.
        assembly_files: files in `assemblies/` that should hold one.
        memories: memories stored.
        assemblies: assemblies stored.
        members: memberships stored.
        rescued: of `memories`, those that only an assembly's copy held.
        memories_present: memories that were in the store already, and were not touched.
        assemblies_present: assemblies that were, likewise.
        unindexed: files that the folder's index did not name; they are taken like the others.
        remarks: everything that is not as it was, in the order in which it was met.
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
        """What is not in the store; empty when everything is."""
        return tuple(remark for remark in self.remarks if remark.outcome == "left_out")


class Remarks:
    """The remarks of one file, as they are made."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.id: str | None = None
        self.made: list[Remark] = []

    def add(self, outcome: Outcome, what: What, reason: str, *, id: str | None = None) -> None:
        """Note one thing, about *id* or else about the record that the file holds."""
        told = self.id if id is None else id
        self.made.append(Remark(outcome=outcome, what=what, place=self.place, id=told, reason=reason))

"""The records of merging: merges, merged assemblies, lineage and merge candidates."""

from dataclasses import dataclass, field
from datetime import datetime

from memstore.models.record import INTERNAL, Record
from memstore.models.records import Assembly, Namespace


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Merge(Record):
    """One merge of assemblies.

    Attributes:
        id: number of the merge; later merges have higher numbers.
        namespace: namespace of the assemblies.
        target: id of the assembly that the sources were merged into.
        sources: ids of the merged assemblies, in the order in which the caller gave them.
        at: time of the merge, UTC.
        similarity: the lowest score between two of their composites, or the value the caller gave; None if fewer than
            two had a composite.
        threshold: the lowest similarity the caller allowed; None for any.
        actor: who merged them; None if unknown.
        reason: why; None if unknown.
        undone_at: time at which the merge was undone, UTC; None if it was not.
        origin: the store and the content of its file that the merge was read from; `unmerge` takes no merge of another
            origin. Not compared.
    """

    id: int
    namespace: Namespace = ()
    target: str
    sources: tuple[str, ...]
    at: datetime
    similarity: float | None = None
    threshold: float | None = None
    actor: str | None = None
    reason: str | None = None
    undone_at: datetime | None = None
    origin: str = field(default="", repr=False, compare=False, metadata=INTERNAL)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MergedAssembly(Record):
    """An assembly that was merged into another, as it was before the merge.

    Attributes:
        assembly: the record, with its stored composite.
        members: ids of its member memories, in order of creation.
        merge: the merge that merged it.
    """

    assembly: Assembly
    members: tuple[str, ...]
    merge: Merge


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class LineageEntry(Record):
    """An ancestor or descendant of an assembly through merges.

    Attributes:
        depth: number of merges between the two, 1 or more; the lowest if there are several paths.
        exists: whether the assembly still exists; otherwise it was merged or deleted.
        merge: the merge next to it on that path.
    """

    id: str
    depth: int
    exists: bool
    merge: Merge


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Lineage(Record):
    """The ancestors and descendants of an assembly through merges that were not undone.

    Attributes:
        id: id of the assembly.
        exists: whether it still exists.
        ancestors: the assemblies merged into it, directly or indirectly, nearest first; each once.
        descendants: the assemblies it was merged into, directly or indirectly, nearest first; each once.
    """

    id: str
    namespace: Namespace = ()
    exists: bool
    ancestors: tuple[LineageEntry, ...] = ()
    descendants: tuple[LineageEntry, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MergeCandidate(Record):
    """Two assemblies whose composites are near each other.

    Attributes:
        a: id of the older assembly.
        b: id of the other one.
        similarity: the score between their composites, by the store's metric; higher is closer.
    """

    a: str
    b: str
    similarity: float

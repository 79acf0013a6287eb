"""The records of how assemblies become one, and of how memories become assemblies."""

from dataclasses import dataclass
from datetime import datetime

from memstore.models.records import Assembly, Namespace


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """One merge of assemblies.

    Attributes:
        id: its number; later ones are higher.
        namespace: where the assemblies live.
        target: the id of the assembly that the others went into.
        sources: the ids of those that went, in the order in which they were named.
        at: when, UTC.
        similarity: how alike they were: the least score between two of their composites, or what the caller said;
            None where fewer than two had a composite.
        threshold: what the caller asked of the similarity; None for nothing.
        actor: who asked for it, in the caller's words.
        reason: why, in the caller's words.
        undone_at: when it was undone, UTC; None for a merge that stands.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedAssembly:
    """An assembly that was merged into another, as it was.

    Attributes:
        assembly: the record, its composite as it was stored.
        members: ids of the memories that were its members, in order of their creation.
        merge: the merge that it went by.
    """

    assembly: Assembly
    members: tuple[str, ...]
    merge: Merge


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageEntry:
    """An assembly that another came of, or went into.

    Attributes:
        id: the id it has, or had.
        depth: over how many merges, 1 or more; the least, where several ways lead there.
        alive: whether it is an assembly still; one that is not was merged or deleted.
        merge: the merge nearest to it on the way.
    """

    id: str
    depth: int
    alive: bool
    merge: Merge


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """What an assembly came of, and what became of it, by the merges that stand.

    Attributes:
        id: the assembly's.
        namespace: where it lives.
        alive: whether it is an assembly still.
        ancestors: those that were merged into it, and into those, nearest first; each once.
        descendants: what it was merged into, and what that was merged into, nearest first; each once.
    """

    id: str
    namespace: Namespace = ()
    alive: bool
    ancestors: tuple[LineageEntry, ...] = ()
    descendants: tuple[LineageEntry, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeCandidate:
    """Two assemblies whose composites are near each other.

    Attributes:
        a: the id of the one that was added first.
        b: the id of the other.
        similarity: the metric's score between their composites (see `memstore.geometry`); higher is closer.
    """

    a: str
    b: str
    similarity: float

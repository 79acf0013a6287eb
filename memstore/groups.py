"""The records of how assemblies become one, and of how memories become assemblies."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from memstore.records import Assembly, Namespace

LeftReason = Literal["no_vector", "no_neighbour", "too_few"]


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
class Kin:
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
    ancestors: tuple[Kin, ...] = ()
    descendants: tuple[Kin, ...] = ()


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """An assembly that could be formed. Change it with `dataclasses.replace` before it is.

    Attributes:
        leader: the id of the memory whose neighbourhood it is; a member.
        members: ids of the memories it would have, the leader first, then those nearest to it.
        similarity: the least score between the leader and another member; higher is closer.
        id: what the assembly's id is to be; None for a new one.
        name: what its name is to be: the beginning of what the leader says.
        tags: what it is to be tagged.
        topics: what its topics are to be.
    """

    leader: str
    members: tuple[str, ...]
    similarity: float
    id: str | None = None
    name: str = ""
    tags: frozenset[str] = frozenset()
    topics: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposals:
    """What could be formed of the memories that are in no assembly.

    Attributes:
        groups: the assemblies, in the order in which they were found: where memories lie most densely, first.
        left: ids of the memories that are in none of them, each with the reason: `no_vector` (no search finds it),
            `no_neighbour` (none of the others is near enough), `too_few` (not enough are that are in no other group).
        threshold: the least score between the leader of a group and another of its members.
        min_size: how many members a group has at least.
        max_size: how many it has at most.
    """

    groups: tuple[Proposal, ...]
    left: dict[str, LeftReason] = field(default_factory=dict)
    threshold: float
    min_size: int
    max_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Formed:
    """What became of proposals.

    Attributes:
        assemblies: ids of the assemblies that were made, in the order of their proposals.
        stale: the proposals of which none was made, because a member is gone, or in an assembly by now.
    """

    assemblies: tuple[str, ...]
    stale: tuple[Proposal, ...]

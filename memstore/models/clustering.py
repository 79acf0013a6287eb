"""Records of clustering: suggested assemblies and the ones created from them."""

from dataclasses import dataclass, field
from typing import Literal

LeftReason = Literal["no_vector", "no_neighbour", "too_few"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AssemblySuggestion:
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
class AssemblySuggestions:
    """What could be formed of the memories that are in no assembly.

    Attributes:
        groups: the assemblies, in the order in which they were found: where memories lie most densely, first.
        left: ids of the memories that are in none of them, each with the reason: `no_vector` (no search finds it),
            `no_neighbour` (none of the others is near enough), `too_few` (not enough are that are in no other group).
        threshold: the least score between the leader of a group and another of its members.
        min_size: how many members a group has at least.
        max_size: how many it has at most.
    """

    groups: tuple[AssemblySuggestion, ...]
    left: dict[str, LeftReason] = field(default_factory=dict)
    threshold: float
    min_size: int
    max_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterResult:
    """What became of proposals.

    Attributes:
        assemblies: ids of the assemblies that were made, in the order of their proposals.
        stale: the proposals of which none was made, because a member is gone, or in an assembly by now.
    """

    assemblies: tuple[str, ...]
    stale: tuple[AssemblySuggestion, ...]

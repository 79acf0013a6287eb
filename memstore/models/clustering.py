"""The records of clustering: suggested assemblies, and the assemblies created from them."""

from dataclasses import dataclass, field
from typing import Literal

from memstore.models.record import INTERNAL, Record

UnassignedReason = Literal["no_vector", "no_neighbour", "too_few"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class AssemblySuggestion(Record):
    """A suggested assembly. Change it with `dataclasses.replace` before `create_from` creates it.

    Attributes:
        leader: id of the memory whose neighbours form the group; it is a member.
        members: ids of the member memories: the leader, then the others by falling similarity to it.
        similarity: the lowest score between the leader and another member, by the store's metric; higher is closer.
        id: id of the new assembly; None for a generated id.
        name: name of the new assembly; by default the first characters of the leader's content.
        tags: tags of the new assembly.
        topics: topics of the new assembly.
        origin: the store and the content of its file that the suggestion is of; empty for any. Not compared.
    """

    leader: str
    members: tuple[str, ...]
    similarity: float
    id: str | None = None
    name: str = ""
    tags: frozenset[str] = frozenset()
    topics: tuple[str, ...] = ()
    origin: str = field(default="", repr=False, compare=False, metadata=INTERNAL)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class AssemblySuggestions(Record):
    """The assemblies suggested for the memories that are members of none.

    Attributes:
        groups: the suggestions, densest neighbourhood first.
        unassigned: ids of the memories in no suggestion, each with the reason: `no_vector` (no search finds it),
            `no_neighbour` (no other memory reaches the threshold), `too_few` (too few neighbours are unassigned).
        threshold: the lowest score allowed between a leader and another member.
        min_size: the lowest number of members of a suggestion.
        max_size: the highest number of members of a suggestion.
    """

    groups: tuple[AssemblySuggestion, ...]
    unassigned: dict[str, UnassignedReason] = field(default_factory=dict)
    threshold: float
    min_size: int
    max_size: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ClusterResult(Record):
    """The result of `create_from`.

    Attributes:
        assemblies: ids of the new assemblies, in the order of their suggestions.
        stale: suggestions that created nothing, because a member was deleted or joined an assembly in the meantime, or
            because they are of another file or of the time before a backup was restored.
    """

    assemblies: tuple[str, ...]
    stale: tuple[AssemblySuggestion, ...]

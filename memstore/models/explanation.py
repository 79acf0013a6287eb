"""Why a memory has its rank: the parts of its score, and what excluded it."""

from dataclasses import dataclass
from typing import Literal

from memstore.models.activation import SyncState
from memstore.models.records import Namespace
from memstore.models.search import Activated, Reason, SearchPlan

Cause = Literal["namespace", "expired", "tags", "where", "no_embedding", "min_score", "limit"]
Outcome = Literal["activated", "below_threshold", "beyond_limit", "stale", "too_old", "no_composite"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """One thing that kept a memory out of the hits.

    Attributes:
        cause: `namespace`: it is in none that was searched; `expired`; `tags`: it lacks one; `where`: a clause of the
            filter does not match; `no_embedding`: it has none, and no search finds it; `min_score`: its base score is
            less; `limit`: nothing but that others come first.
        detail: which tag or clause, or the figures, in words.
    """

    cause: Cause
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AssemblyExplanation:
    """What came of one assembly that the memory is a member of.

    Attributes:
        id: the assembly's, of the memory's namespace.
        outcome: `activated`; `below_threshold`; `beyond_limit`: near enough, but others are nearer; `stale`: out of
            step with the index; `too_old`: its composite is older than was asked for; `no_composite`: it has none.
        score: of its composite in the index against the query; None where that has none.
        threshold: what the score had to reach.
        level: its stored activation, decayed to the moment of the search.
        strength: how strongly it was activated; 0.0 where it was not.
        boost: what its members gained by it; exactly 0.0 where it was not activated.
        sync: its revisions, in the file and in the index.
    """

    id: str
    outcome: Outcome
    score: float | None
    threshold: float
    level: float
    strength: float
    boost: float
    sync: SyncState


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a memory ranks where it does in one search.

    Attributes:
        id: the memory's.
        namespace: where it lives.
        rank: its place among the hits, 1 is the first; None where it is not among them.
        base_score: as a plain search scores it, whatever excluded it; None where it has no embedding.
        boost: what an assembly adds; exactly 0.0 unless the reason is `boosted`.
        score: both together.
        reason: why that boost; see `memstore.Gain`.
        assembly: which one gave it.
        assemblies: what came of each it is a member of, in order of their creation; empty where the search used none.
        excluded: what kept it out of the hits; empty where it is among them.
        activated: the assemblies that the search used, whether it is a member or not, nearest first.
        plan: how the search was answered.
    """

    id: str
    namespace: Namespace
    rank: int | None
    base_score: float | None
    boost: float
    score: float | None
    reason: Reason
    assembly: str | None
    assemblies: tuple[AssemblyExplanation, ...]
    excluded: tuple[Exclusion, ...]
    activated: tuple[Activated, ...]
    plan: SearchPlan

    def __str__(self) -> str:
        found = f"hit {self.rank}" if self.rank is not None else "not among the hits"
        scored = "" if self.score is None else f", score {self.score:.6g} = {self.base_score:.6g} + {self.boost:.6g}"
        lines = [f"{self.id}: {found}{scored}"]
        lines += [f"kept out by {each.cause}: {each.detail}" for each in self.excluded]
        if self.reason != "none":
            lines.append(f"boost: {self.reason}" + (f" by {self.assembly}" if self.assembly is not None else ""))
        for each in self.assemblies:
            near = "no score" if each.score is None else f"score {each.score:.6g}, threshold {each.threshold:.6g}"
            sync = each.sync
            lines.append(
                f"assembly {each.id}: {each.outcome}, {near}, boost {each.boost:.6g}; revision {sync.revision}, "
                f"composite of {sync.composite_revision}, index of {sync.indexed_revision}"
            )
        return "\n".join(lines)

"""Why a memory has its rank in a search: the parts of its score, and what excluded it from the hits."""

from dataclasses import dataclass
from typing import Literal

from memstore.escaping import escape_text
from memstore.models.activation import SyncState
from memstore.models.record import Record
from memstore.models.records import Namespace
from memstore.models.search import ActivatedAssembly, BoostReason, SearchPlan

ExclusionCause = Literal["namespace", "expired", "tags", "where", "no_embedding", "min_score", "limit"]
ActivationOutcome = Literal["activated", "below_threshold", "beyond_limit", "stale", "too_old", "no_composite"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Exclusion(Record):
    """One reason why a memory is not among the hits.

    Attributes:
        cause: `namespace`: its namespace was not searched; `expired`: it has expired; `tags`: it lacks a tag;
            `where`: a clause of the filter does not match; `no_embedding`: it has no vector; `min_score`: its base
            score is too low; `limit`: nothing excludes it, but other memories rank higher.
        detail: the tag, the clause or the numbers, as a sentence.
    """

    cause: ExclusionCause
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class AssemblyExplanation(Record):
    """What one assembly contributed to the score of a memory that is a member of it.

    Attributes:
        id: its id; its namespace is that of the memory.
        outcome: `activated`; `below_threshold`: its score is too low; `beyond_limit`: `AssemblyBoost.limit` other
            assemblies score higher; `stale`: its composite in the index is of an older revision; `too_old`: its
            composite is older than `AssemblyBoost.max_age`; `no_composite`: it has none.
        score: the score of its indexed composite against the query; None without a composite.
        threshold: the lowest score that activates.
        level: its stored activation, decayed to the time of the search, 0 to 1.
        strength: its activation strength, 0.5 to 1; 0.0 if it was not activated.
        boost: what its members gain; exactly 0.0 if it was not activated.
        sync: its revisions in the file and in the index.
    """

    id: str
    outcome: ActivationOutcome
    score: float | None
    threshold: float
    level: float
    strength: float
    boost: float
    sync: SyncState


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Explanation(Record):
    """Why a memory has its rank in one search.

    Attributes:
        id: id of the memory.
        namespace: namespace of the memory.
        rank: its rank among the hits, 1 for the first; None if it is not among them.
        base_score: its score in a search without boost, even if it is excluded; None without an embedding.
        boost: what an assembly adds; exactly 0.0 unless the reason is `boosted`.
        score: the base score plus the boost.
        reason: why it has that boost; see `ScoreBoost`.
        assembly: id of the assembly that gave the boost; None without one.
        assemblies: what each assembly of the memory contributed, in order of creation; empty without `boost=`.
        exclusions: what excluded it from the hits; empty if it is among them.
        activated: the assemblies that the query activated, nearest first.
        plan: how the search was executed.
    """

    id: str
    namespace: Namespace
    rank: int | None
    base_score: float | None
    boost: float
    score: float | None
    reason: BoostReason
    assembly: str | None
    assemblies: tuple[AssemblyExplanation, ...]
    exclusions: tuple[Exclusion, ...]
    activated: tuple[ActivatedAssembly, ...]
    plan: SearchPlan

    def __str__(self) -> str:
        rank = f"hit {self.rank}" if self.rank is not None else "not among the hits"
        score = "" if self.score is None else f", score {self.score:.6g} = {self.base_score:.6g} + {self.boost:.6g}"
        lines = [f"{self.id}: {rank}{score}"]
        lines += [f"excluded by {exclusion.cause}: {exclusion.detail}" for exclusion in self.exclusions]
        if self.reason != "none":
            lines.append(f"boost: {self.reason}" + (f" by {self.assembly}" if self.assembly is not None else ""))
        for assembly in self.assemblies:
            score = "no score" if assembly.score is None else f"score {assembly.score:.6g}"
            sync = assembly.sync
            lines.append(
                f"assembly {assembly.id}: {assembly.outcome}, {score}, threshold {assembly.threshold:.6g}, "
                f"boost {assembly.boost:.6g}; revision {sync.revision}, composite of {sync.composite_revision}, "
                f"index of {sync.indexed_revision}"
            )
        return "\n".join(map(escape_text, lines))  # an id may contain line breaks

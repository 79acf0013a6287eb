"""The records of a search: hits, the plan that found them, and the boosts that assemblies added."""

from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from memstore.models.record import PydanticField, Record, as_json
from memstore.models.records import Assembly, Memory, Namespace

HitT = TypeVar("HitT")

BoostReason = Literal["none", "no_assembly", "not_activated", "stale", "boosted"]
NearestOutcome = Literal["activated", "below_threshold", "stale", "too_old"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ScoreBoost(Record):
    """What assemblies added to the score of one hit.

    Attributes:
        base_score: the score without a boost.
        boost: what was added, 0 or more; exactly 0.0 unless the reason is `boosted`.
        assembly: id of the assembly that gave the boost, in the namespace of the memory; None without a boost.
        reason: `boosted`; `no_assembly`: the memory is a member of none; `not_activated`: the query activated none of
            its assemblies; `stale`: no assembly boosted it, and the composite of one of its assemblies is out of date
            in the index or older than `AssemblyBoost.max_age`; `none`: the search had no `boost=`.
    """

    base_score: float
    boost: float
    assembly: str | None
    reason: BoostReason


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ActivatedAssembly(Record):
    """An assembly that a query activated.

    Attributes:
        score: the score of its composite against the query, by the store's metric; higher is closer.
        strength: its activation strength, 0.5 to 1; see `memstore.search.activation`.
        boost: what each of its members gains.
        level: its stored activation, decayed to the time of the search, 0 to 1.
    """

    id: str
    namespace: Namespace
    score: float
    strength: float
    boost: float
    level: float


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NearestAssembly(Record):
    """The assembly whose composite is nearest to a query, and what it lacks to be activated.

    Attributes:
        score: the score of its composite against the query, by the store's metric; higher is closer.
        threshold: the score that activates: the one of the `AssemblyBoost`, or the one relative to this query.
        missing: by how much the score is below the threshold; 0.0 if it reaches it.
        outcome: `activated`; `below_threshold`; `stale`: its composite in the index is of another revision; `too_old`:
            its composite is older than `AssemblyBoost.max_age`.
    """

    id: str
    namespace: Namespace
    score: float
    threshold: float
    missing: float
    outcome: NearestOutcome


@dataclass(frozen=True, slots=True, repr=False)
class Hit(Record):
    """A memory that a search found.

    Attributes:
        memory: the memory.
        score: its score with the boost; higher is closer. The metric sets its range (see `memstore.vectors.metrics`).
        score_boost: what assemblies added to the score; None without `boost=`.
    """

    memory: Memory
    score: float
    score_boost: ScoreBoost | None = None

    @property
    def base_score(self) -> float:
        """The score without a boost."""
        return self.score if self.score_boost is None else self.score_boost.base_score

    @property
    def boost(self) -> float:
        """What an assembly added to the score; exactly 0.0 unless the reason is `boosted`."""
        return 0.0 if self.score_boost is None else self.score_boost.boost

    @property
    def assembly(self) -> str | None:
        """Id of the assembly that gave the boost, in the namespace of the memory; None without a boost."""
        return None if self.score_boost is None else self.score_boost.assembly

    @property
    def reason(self) -> BoostReason:
        """Why the hit has that boost; see `ScoreBoost`."""
        return "none" if self.score_boost is None else self.score_boost.reason


@dataclass(frozen=True, slots=True, repr=False)
class AssemblyHit(Record):
    """An assembly that a search found by its composite.

    Attributes:
        assembly: the assembly.
        score: the score of its composite by the store's metric; higher is closer.
    """

    assembly: Assembly
    score: float


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SearchPlan(Record):
    """How a search was executed.

    Attributes:
        method: `"exact"`: every allowed vector was compared. `"graph"`: a graph was searched, and vectors that are not
            in it yet were compared; `Stats.recall` and `Stats.recall_observed` are its recall.
        reason: why this method.
        engine: `"faiss"` or `"numpy"`, which computed the distances.
        rows: number of vectors in the index.
        allowed: number of vectors that namespace, expiry and filter allow.
        ef_search: HNSW's ef in this search; 0 if the graph was not searched.
        unindexed: number of allowed vectors that are not in the graph and were compared one by one.
        uncommitted: number of allowed vectors that the caller's own open transaction wrote.
        nearest_assembly: the assembly nearest to the query, activated or not; None without `boost=`, or if no assembly
            of the searched namespaces has a composite.
    """

    method: Literal["exact", "graph"]
    reason: str = ""
    engine: Literal["faiss", "numpy"]
    rows: int
    allowed: int
    ef_search: int = 0
    unindexed: int = 0
    uncommitted: int = 0
    nearest_assembly: NearestAssembly | None = None


class Hits(PydanticField, list[HitT], Generic[HitT]):
    """The hits of one search, best first.

    Attributes:
        plan: how the search was executed.
        activated: the assemblies that the query activated, nearest first; empty without `boost=`.
    """

    __slots__ = ("activated", "plan")

    def __init__(self, hits: list[HitT], plan: SearchPlan, activated: tuple[ActivatedAssembly, ...] = ()) -> None:
        super().__init__(hits)
        self.plan = plan
        self.activated = activated

    def to_dict(self) -> dict[str, Any]:
        """The hits, the plan and the activated assemblies, as of `Memory.to_dict`."""
        return {"hits": as_json(list(self)), "plan": as_json(self.plan), "activated": as_json(self.activated)}

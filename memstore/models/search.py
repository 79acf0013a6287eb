"""What a search returns: hits, how they were found, and what assemblies added to them."""

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from memstore.models.records import Assembly, Memory, Namespace

HitT = TypeVar("HitT")

Reason = Literal["none", "no_assembly", "not_activated", "stale", "boosted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreBoost:
    """What assemblies added to the score of one hit.

    Attributes:
        base_score: its score as a plain search gives it.
        boost: what was added to it, 0 or more; exactly 0.0 unless the reason is `boosted`.
        assembly: the id of the assembly that gave the boost, which is in the memory's own namespace; None where
            there was none.
        reason: `boosted`; `no_assembly`: the memory is a member of none; `not_activated`: of none that was near
            enough, or among the nearest; `stale`: one it is a member of is out of step with the index, or older than
            was asked for, and none that is in step boosted it; `none`: the search used no assemblies.
    """

    base_score: float
    boost: float
    assembly: str | None
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Activated:
    """An assembly that was near enough to a query to boost its members.

    Attributes:
        id: its id.
        namespace: where it lives.
        score: of its composite against the query, by the store's metric.
        strength: how strongly it was activated, 0.5 to 1 (see `memstore.Activation`).
        boost: what each of its members gained by it.
        level: its stored activation, decayed to the moment of the search.
    """

    id: str
    namespace: Namespace
    score: float
    strength: float
    boost: float
    level: float


@dataclass(frozen=True, slots=True)
class Hit:
    """A memory a search found. Higher *score* is closer; its range is the metric's (see `memstore.geometry`).

    *gain* says what assemblies added to the score, where the search used them.
    """

    memory: Memory
    score: float
    gain: ScoreBoost | None = None

    @property
    def base_score(self) -> float:
        """Its score without a boost."""
        return self.score if self.gain is None else self.gain.base_score

    @property
    def boost(self) -> float:
        """What was added to that; exactly 0.0 unless the reason is `boosted`."""
        return 0.0 if self.gain is None else self.gain.boost

    @property
    def assembly(self) -> str | None:
        """The id of the assembly that gave the boost, of the memory's namespace; None where none did."""
        return None if self.gain is None else self.gain.assembly

    @property
    def reason(self) -> Reason:
        """Why so; see `memstore.ScoreBoost`."""
        return "none" if self.gain is None else self.gain.reason


@dataclass(frozen=True, slots=True)
class AssemblyHit:
    """An assembly a search found by its composite. Higher *score* is closer."""

    assembly: Assembly
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """How a search was answered.

    Attributes:
        method: `"exact"`: every allowed vector was compared. `"graph"`: a graph was walked, and what is not in it yet
            compared; it finds the share of the neighbours that `Stats.recall` says.
        reason: why so, in words.
        engine: `"faiss"` or `"numpy"`, which computed the distances.
        rows: vectors the index held.
        allowed: vectors that scope, expiry and filter left to find.
        candidates: how many the graph was asked to keep (HNSW's ef); 0 when it was not asked.
        tail: how many of the allowed ones were not in the graph, and compared one by one beside it.
        uncommitted: vectors of the caller's own open transaction among the allowed ones.
    """

    method: Literal["exact", "graph"]
    reason: str = ""
    engine: Literal["faiss", "numpy"]
    rows: int
    allowed: int
    candidates: int = 0
    tail: int = 0
    uncommitted: int = 0


class Hits(list[HitT], Generic[HitT]):
    """The hits of one search, best first, with the plan by which they were found.

    *activated* are the assemblies that the search used, nearest first.
    """

    __slots__ = ("activated", "plan")

    def __init__(self, hits: list[HitT], plan: SearchPlan, activated: tuple[Activated, ...] = ()) -> None:
        super().__init__(hits)
        self.plan = plan
        self.activated = activated

"""Why a memory ranks where it does: each part of its score, the assemblies that had a say, what kept it out.

Nothing is computed here in other words: figures come from the search's own hits, and where the memory is not among
them from the same functions, asked about it alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from sqlalchemy import Connection

from memstore import filters
from memstore.activation import SyncState
from memstore.boosting import Boosted, Boosting
from memstore.collection import Asked
from memstore.errors import shown
from memstore.filters import Where
from memstore.hits import Activated, Gain, Hit, Hits, Plan, Reason
from memstore.index import Scope, View
from memstore.records import Memory, Namespace
from memstore.repository import activation as stored
from memstore.repository import namespaces, selection
from memstore.repository.nouns import MEMORY
from memstore.repository.selection import Selection

Cause = Literal["namespace", "expired", "tags", "where", "no_embedding", "min_score", "limit"]
Outcome = Literal["activated", "below_threshold", "beyond_limit", "stale", "too_old", "no_composite"]

_BEFORE_ALL = int(np.iinfo(np.int64).min)


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
    plan: Plan

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


@dataclass(frozen=True, slots=True)
class Case:
    """One memory, by key and record, and the search it is asked about, in its read transaction.

    *tags* and *where* are as they were given, *hits* what the search found, *boosted* with what the assemblies did.
    """

    connection: Connection
    view: View
    asked: Asked
    tags: frozenset[str]
    where: Where | None
    key: int
    record: Memory
    hits: Hits[Hit]
    boosted: Boosted | None

    def explained(self) -> Explanation:
        """Why it ranks where it does."""
        rank = next((i for i, hit in enumerate(self.hits, 1) if hit.memory == self.record), None)
        score, gain = self._figures(rank)
        return Explanation(
            id=self.record.id,
            namespace=self.record.namespace,
            rank=rank,
            base_score=gain.base_score if score is not None else None,
            boost=gain.boost,
            score=score,
            reason=gain.reason,
            assembly=gain.assembly,
            assemblies=self._assemblies(),
            excluded=() if rank is not None else tuple(self._excluded(gain.base_score if score is not None else None)),
            activated=self.hits.activated,
            plan=self.hits.plan,
        )

    def _figures(self, rank: int | None) -> tuple[float | None, Gain]:
        """Its score, and what it is made of."""
        if rank is not None:
            hit = self.hits[rank - 1]
            whole = Gain(base_score=hit.base_score, boost=hit.boost, assembly=hit.assembly, reason=hit.reason)
            return hit.score, whole
        alone = Scope(now=_BEFORE_ALL, allowed=np.array([self.key], dtype=np.int64))
        ((found, _),) = self.view.search("memory", self.asked.vectors[:1], 1, alone)
        nothing = Gain(base_score=0.0, boost=0.0, assembly=None, reason="none")
        if self.boosted is None:
            gain = nothing
        else:
            values = found.scores if len(found.keys) else np.zeros(1)
            keys = np.array([self.key], dtype=np.int64)
            near = self.boosted.near
            gain = self.boosted.boosting.gains(keys, values, *near.boosts(keys), near)[0]
        if not len(found.keys):
            return None, gain
        base = float(found.scores[0])
        whole = Gain(base_score=base, boost=gain.boost, assembly=gain.assembly, reason=gain.reason)
        return base + gain.boost, whole

    def _assemblies(self) -> tuple[AssemblyExplanation, ...]:
        if self.boosted is None:
            return ()
        boosting, near = self.boosted.boosting, self.boosted.near
        owners = stored.owners(self.connection, [self.key]).get(self.key, [])
        groups = {group.key: group.said for group in near.groups}
        threshold, made = boosting.activation.threshold, []
        for key, (standing, state) in boosting.known(owners).items():
            said = groups.get(key)
            score = said.score if said is not None else boosting.score(self.asked.vectors[0], key)
            made.append(
                AssemblyExplanation(
                    id=standing.id,
                    outcome="activated" if said is not None else _outcome(boosting, score, state),
                    score=score,
                    threshold=threshold,
                    level=boosting.level(standing),
                    strength=0.0 if said is None else said.strength,
                    boost=0.0 if said is None else said.boost,
                    sync=state,
                )
            )
        return tuple(made)

    def _excluded(self, base: float | None) -> list[Exclusion]:
        found = [*self._out_of_scope(), *self._unmatched()]
        if self.record.embedding is None:
            found.append(Exclusion(cause="no_embedding", detail="it has no embedding: no search finds it"))
        if base is not None and self.asked.min_score is not None and base < self.asked.min_score:
            found.append(
                Exclusion(cause="min_score", detail=f"its base score is {base:.6g}, less than {self.asked.min_score}")
            )
        if not found:
            last = f", the last of them with {self.hits[-1].score:.6g}" if self.hits else ""
            found.append(Exclusion(cause="limit", detail=f"others come first: {len(self.hits)}{last}"))
        return found

    def _out_of_scope(self) -> list[Exclusion]:
        found = []
        searched, own = self.asked.scope.namespaces, namespaces.key(self.connection, self.record.namespace)
        if searched is not None and own not in searched.tolist():
            detail = f"it is in {self.record.namespace!r}, which was not searched"
            found.append(Exclusion(cause="namespace", detail=detail))
        expires = self.record.expires_at
        if expires is not None and expires <= self.asked.at:
            found.append(Exclusion(cause="expired", detail=f"it expired at {expires.isoformat()}"))
        return found

    def _unmatched(self) -> list[Exclusion]:
        """The tags it lacks, and the clauses of the filter that it does not match."""
        if self.asked.scope.allowed is None or (self.asked.scope.allowed == self.key).any():
            return []
        found = [
            Exclusion(cause="tags", detail=f"it lacks the tag {tag!r}")
            for tag in sorted(self.tags)
            if not self._holds(tags=frozenset({tag}))
        ]
        clauses: Mapping[str, object] = self.where or {}
        for name, operand in clauses.items():
            if not self._holds(where=filters.parse({name: operand}, "memory")):
                found.append(Exclusion(cause="where", detail=f"{shown({name: operand})} does not match"))
        return found

    def _holds(self, *, tags: frozenset[str] = frozenset(), where: filters.Node | None = None) -> bool:
        asked = Selection(noun=MEMORY, namespace=self.record.namespace, now=self.asked.at, tags=tags, where=where)
        return selection.holds(self.connection, asked, self.key)


def _outcome(boosting: Boosting, score: float | None, state: SyncState) -> Outcome:
    """Why an assembly that a memory is a member of was not activated."""
    if not state.synced:
        return "stale"
    if score is None:
        return "no_composite"
    if not boosting.reached(score):
        return "below_threshold"
    return "too_old" if boosting.activation.too_old(state.age) else "beyond_limit"

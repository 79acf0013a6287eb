"""Why a memory ranks where it does: each part of its score, the assemblies that had a say, what kept it out.

Nothing is computed here in other words: figures come from the search's own hits, and where the memory is not among
them from the same functions, asked about it alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection

from memstore import filters
from memstore.api.collection import Asked
from memstore.errors import short_repr
from memstore.filters import Where
from memstore.index.protocol import SearchScope
from memstore.models.activation import SyncState
from memstore.models.explanation import ActivationOutcome, AssemblyExplanation, Exclusion, Explanation
from memstore.models.records import Memory
from memstore.models.search import Hit, Hits, ScoreBoost
from memstore.repository import assembly_activation as stored
from memstore.repository import namespaces, selection
from memstore.repository.record_types import MEMORY
from memstore.repository.selection import Selection
from memstore.search.assembly_boost import Boosted, Boosting
from memstore.sync.view import View

_BEFORE_ALL = int(np.iinfo(np.int64).min)


@dataclass(frozen=True, slots=True)
class Explainer:
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
        base_score = None if score is None else gain.base_score
        return Explanation(
            id=self.record.id,
            namespace=self.record.namespace,
            rank=rank,
            base_score=base_score,
            boost=gain.boost,
            score=score,
            reason=gain.reason,
            assembly=gain.assembly,
            assemblies=self._assemblies(),
            exclusions=() if rank is not None else tuple(self._excluded(base_score)),
            activated=self.hits.activated,
            plan=self.hits.plan,
        )

    def _figures(self, rank: int | None) -> tuple[float | None, ScoreBoost]:
        """Its score, and what it is made of."""
        if rank is not None:
            hit = self.hits[rank - 1]
            whole = ScoreBoost(base_score=hit.base_score, boost=hit.boost, assembly=hit.assembly, reason=hit.reason)
            return hit.score, whole
        alone = SearchScope(now=_BEFORE_ALL, allowed=np.array([self.key], dtype=np.int64))
        ((found, _),) = self.view.search("memory", self.asked.vectors[:1], 1, alone)
        nothing = ScoreBoost(base_score=0.0, boost=0.0, assembly=None, reason="none")
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
        whole = ScoreBoost(base_score=base, boost=gain.boost, assembly=gain.assembly, reason=gain.reason)
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
                found.append(Exclusion(cause="where", detail=f"{short_repr({name: operand})} does not match"))
        return found

    def _holds(self, *, tags: frozenset[str] = frozenset(), where: filters.Node | None = None) -> bool:
        asked = Selection(
            record_type=MEMORY, namespace=self.record.namespace, now=self.asked.at, tags=tags, where=where
        )
        return selection.holds(self.connection, asked, self.key)


def _outcome(boosting: Boosting, score: float | None, state: SyncState) -> ActivationOutcome:
    """Why an assembly that a memory is a member of was not activated."""
    if not state.synced:
        return "stale"
    if score is None:
        return "no_composite"
    if not boosting.reached(score):
        return "below_threshold"
    return "too_old" if boosting.activation.too_old(state.age) else "beyond_limit"

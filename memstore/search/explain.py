"""Why a memory has its rank in a search: the parts of its score, its assemblies, and what excludes it from the hits.

The search runs once more, and nothing is computed in a second way: the values come from the hits of that search, and
for a memory that is not among them from the same functions, applied to it alone.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import cast

import numpy as np
from sqlalchemy import Connection

from memstore import filters
from memstore.errors import NotFoundError, short_repr
from memstore.filters import Where
from memstore.index.protocol import SearchScope
from memstore.models.activation import SyncState
from memstore.models.explanation import ActivationOutcome, AssemblyExplanation, Exclusion, Explanation
from memstore.models.records import Memory, Namespace
from memstore.models.search import Hit, Hits, ScoreBoost
from memstore.repository import memberships, memories, namespaces, records, selection
from memstore.repository.corruption import only
from memstore.repository.record_types import MEMORY
from memstore.repository.selection import Selection
from memstore.repository.vectors import Spaces
from memstore.search.activation import AssemblyBoost
from memstore.search.assembly_boost import AssemblyBooster, QueryActivation
from memstore.search.query import Search, SearchRequest
from memstore.sync.view import View

_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)
_BEFORE_ALL_MICROS = int(np.iinfo(np.int64).min)


def explain(
    connection: Connection,
    view: View,
    spaces: Spaces,
    request: SearchRequest,
    query: object,
    boost: AssemblyBoost | None,
    where: Where | None,
    memory: tuple[Namespace, str],
) -> Explanation:
    """See `Memories.explain`. *where* is the filter of *request* as the caller gave it, to quote its clauses."""
    search = Search(connection, view, spaces, request, [query])
    namespace, id = memory
    key = records.key_of(connection, MEMORY, namespace, id, _BEFORE_ALL)  # also one that has expired
    if key is None:
        raise NotFoundError("memory", id, namespace)
    record = only(memories.read(connection, spaces["memory"], [key]))
    if boost is None:
        return Explainer(search, key, record, search.plain_hits()[0], None, where).explanation()
    booster = AssemblyBooster(search, boost)
    ((hits, activation),) = booster.search()
    return Explainer(search, key, record, hits, (booster, activation), where).explanation()


class Explainer:
    """One memory in one search, with the hits of that search and what its query activated."""

    def __init__(
        self,
        search: Search,
        key: int,
        record: Memory,
        hits: Hits[Hit],
        boosting: tuple[AssemblyBooster, QueryActivation] | None,
        where: Where | None,
    ) -> None:
        self._search = search
        self._key = key
        self._record = record
        self._hits = hits
        self._boosting = boosting
        self._where = where

    def explanation(self) -> Explanation:
        """Why the memory has its rank."""
        rank = next((i for i, hit in enumerate(self._hits, 1) if hit.memory == self._record), None)
        score, score_boost = self._score(rank)
        base_score = None if score is None else score_boost.base_score
        return Explanation(
            id=self._record.id,
            namespace=self._record.namespace,
            rank=rank,
            base_score=base_score,
            boost=score_boost.boost,
            score=score,
            reason=score_boost.reason,
            assembly=score_boost.assembly,
            assemblies=self._assemblies(),
            exclusions=() if rank is not None else tuple(self._exclusions(base_score)),
            activated=self._hits.activated,
            plan=self._hits.plan,
        )

    def _score(self, rank: int | None) -> tuple[float | None, ScoreBoost]:
        """Its score and the parts of it; None without an embedding."""
        if rank is not None:
            hit = self._hits[rank - 1]
            parts = ScoreBoost(base_score=hit.base_score, boost=hit.boost, assembly=hit.assembly, reason=hit.reason)
            return hit.score, parts
        keys = np.array([self._key], dtype=np.int64)
        alone = SearchScope(now=_BEFORE_ALL_MICROS, allowed=keys)
        ((result, _),) = self._search.view.search("memory", self._search.queries[:1], 1, alone)
        base_scores = result.scores if len(result.keys) else np.zeros(1)
        base_score = float(base_scores[0])
        if self._boosting is None:
            parts = ScoreBoost(base_score=base_score, boost=0.0, assembly=None, reason="none")
        else:
            booster, activation = self._boosting
            (parts,) = booster.score_boosts(keys, base_scores, activation.boosts(keys), activation)
        return (base_score + parts.boost if len(result.keys) else None), parts

    def _assemblies(self) -> tuple[AssemblyExplanation, ...]:
        if self._boosting is None:
            return ()
        booster, activation = self._boosting
        owners = memberships.assemblies_of(self._search.connection, [self._key]).get(self._key, [])
        activated = {group.key: group.assembly for group in activation.groups}
        explanations = []
        for key, (state, sync) in booster.states(owners).items():
            assembly = activated.get(key)
            score = assembly.score if assembly is not None else booster.score(self._search.queries[0], key)
            explanations.append(
                AssemblyExplanation(
                    id=state.id,
                    outcome="activated" if assembly is not None else _outcome(activation.boost, score, sync),
                    score=score,
                    threshold=cast("float", activation.boost.threshold),
                    level=booster.level(state),
                    strength=0.0 if assembly is None else assembly.strength,
                    boost=0.0 if assembly is None else assembly.boost,
                    sync=sync,
                )
            )
        return tuple(explanations)

    def _exclusions(self, base_score: float | None) -> list[Exclusion]:
        exclusions = [*self._scope_exclusions(), *self._filter_exclusions()]
        min_score = self._search.request.min_score
        if self._record.embedding is None:
            exclusions.append(Exclusion(cause="no_embedding", detail="it has no embedding, so no search finds it"))
        if base_score is not None and min_score is not None and base_score < min_score:
            detail = f"its base score is {base_score:.6g}, less than {min_score}"
            exclusions.append(Exclusion(cause="min_score", detail=detail))
        if not exclusions:
            last = f", the last with score {self._hits[-1].score:.6g}" if self._hits else ""
            detail = f"hits that rank higher: {len(self._hits)}{last}"
            exclusions.append(Exclusion(cause="limit", detail=detail))
        return exclusions

    def _scope_exclusions(self) -> list[Exclusion]:
        exclusions = []
        searched = self._search.scope.namespaces
        namespace = namespaces.key(self._search.connection, self._record.namespace)
        if searched is not None and namespace not in searched.tolist():
            detail = f"it is in namespace {self._record.namespace!r}, which was not searched"
            exclusions.append(Exclusion(cause="namespace", detail=detail))
        expires_at = self._record.expires_at
        if expires_at is not None and expires_at <= self._search.now:
            exclusions.append(Exclusion(cause="expired", detail=f"it expired at {expires_at.isoformat()}"))
        return exclusions

    def _filter_exclusions(self) -> list[Exclusion]:
        """The tags it lacks, and the clauses of the filter that do not match it."""
        allowed = self._search.scope.allowed
        if allowed is None or (allowed == self._key).any():
            return []
        exclusions = [
            Exclusion(cause="tags", detail=f"it lacks the tag {tag!r}")
            for tag in sorted(self._search.request.tags)
            if not self._matches(tags=frozenset({tag}))
        ]
        clauses: Mapping[str, object] = self._where or {}
        for name, operand in clauses.items():
            if not self._matches(where=filters.parse({name: operand}, "memory")):
                detail = f"{short_repr({name: operand})} does not match"
                exclusions.append(Exclusion(cause="where", detail=detail))
        return exclusions

    def _matches(self, *, tags: frozenset[str] = frozenset(), where: filters.Node | None = None) -> bool:
        criteria = Selection(
            record_type=MEMORY, namespace=self._record.namespace, now=self._search.now, tags=tags, where=where
        )
        return selection.holds(self._search.connection, criteria, self._key)


def _outcome(boost: AssemblyBoost, score: float | None, sync: SyncState) -> ActivationOutcome:
    """Why an assembly of the memory was not activated."""
    if not sync.synced:
        return "stale"
    if score is None:
        return "no_composite"
    if boost.threshold is not None and score < boost.threshold:
        return "below_threshold"
    return "too_old" if boost.too_old(sync.age) else "beyond_limit"

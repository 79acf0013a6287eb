"""Searches that use assemblies: which assemblies a query activates, and how their boosts change the ranking.

An assembly is activated by its composite in the index, and only if that composite is of the assembly's current
revision; a stale composite gives no boost. All values of one search are of one read transaction and one time.

The boost of a member depends only on its assembly. So boosting does not reorder the members of one assembly, and the
best hits overall are among the best of a search without boost and the best members of each activated assembly. That is
why it suffices to search the members of each activated assembly once more.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

import numpy as np
from sqlalchemy import Connection

from memstore.index.protocol import SearchResult, SearchScope
from memstore.models.activation import SyncState, decayed
from memstore.models.search import (
    ActivatedAssembly,
    BoostReason,
    Hit,
    Hits,
    NearestAssembly,
    NearestOutcome,
    ScoreBoost,
)
from memstore.repository import assembly_activation, memberships
from memstore.repository.assembly_activation import ActivationState
from memstore.repository.vectors import Spaces, VectorSpace
from memstore.search.activation import FEW_ASSEMBLIES, AssemblyBoost, nearness_threshold, standout_threshold
from memstore.search.query import Search, SearchRequest
from memstore.sync.view import View
from memstore.timestamps import to_micros
from memstore.vectors.arrays import Doubles, Keys, Rows


def sync_state(assembly: ActivationState, view: View, at: datetime) -> SyncState:
    """How the revisions of *assembly*, in the file and in the index of *view*, agree.

    All three count the members that have expired *at* that time as removed, as every read does.
    """
    indexed = view.revision(assembly.key)
    expected = assembly.revision if assembly.has_composite else None
    expired = view.expired_members(to_micros(at)).get(assembly.key)
    removals = 0 if expired is None else expired.members
    composite_revision = assembly.composite_revision
    return SyncState(
        revision=assembly.revision + removals,
        composite_revision=None if composite_revision is None else composite_revision + removals,
        indexed_revision=None if indexed is None else indexed + removals,
        synced=composite_revision == assembly.revision and indexed == expected,
        age=None if assembly.composed_at is None else at - assembly.composed_at,
    )


def read_sync_state(connection: Connection, view: View, space: VectorSpace, key: int, at: datetime) -> SyncState:
    """The sync state *at* a time of the assembly *key*, which exists."""
    return sync_state(assembly_activation.states(connection, space, [key])[key], view, at)


@dataclass(frozen=True, slots=True)
class ActivatedGroup:
    """An activated assembly and its members, by key."""

    key: int
    assembly: ActivatedAssembly
    members: Keys


@dataclass(frozen=True, slots=True)
class QueryActivation:
    """What one query activates.

    Attributes:
        boost: the boost with the threshold for this query.
        groups: the activated assemblies, nearest first.
        too_old: keys of the assemblies that are near enough, but whose composite is older than `max_age`.
        nearest: the assembly nearest to the query; None if no assembly has a composite.
    """

    boost: AssemblyBoost
    groups: list[ActivatedGroup]
    too_old: set[int]
    nearest: NearestAssembly | None

    def boosts(self, keys: Keys) -> tuple[Keys, Doubles]:
        """For each memory of *keys* the group that boosts it most, as an index into `groups` or -1, and the boost."""
        group_of = np.full(len(keys), -1, dtype=np.int64)
        boosts = np.zeros(len(keys))
        for i, group in enumerate(self.groups):
            higher = np.isin(keys, group.members) & (group.assembly.boost > boosts)
            group_of[higher], boosts[higher] = i, group.assembly.boost
        return group_of, boosts


class BoostedHits(NamedTuple):
    """The hits of one query with what it activates."""

    hits: Hits[Hit]
    activation: QueryActivation


class AssemblyBooster:
    """The assemblies of one search: their composites, activation and boosts."""

    def __init__(self, search: Search, boost: AssemblyBoost) -> None:
        self.boost = boost
        self._search = search
        self._scope = SearchScope(now=to_micros(search.now), namespaces=search.scope.namespaces)
        self._states: dict[int, tuple[ActivationState, SyncState]] = {}

    def states(self, keys: Iterable[int]) -> dict[int, tuple[ActivationState, SyncState]]:
        """The stored state and the sync state of each assembly of *keys* that exists. Each is read once a search."""
        unique = list(keys)
        unread = [key for key in unique if key not in self._states]
        search = self._search
        for key, row in assembly_activation.states(search.connection, search.spaces["assembly"], unread).items():
            self._states[key] = row, sync_state(row, search.view, search.now)
        return {key: self._states[key] for key in unique if key in self._states}

    def level(self, assembly: ActivationState) -> float:
        """The stored activation of *assembly*, decayed to the time of the search."""
        return decayed(assembly.level, assembly.activated_at, self._search.now, self._search.request.half_life)

    def score(self, query: Rows, key: int) -> float | None:
        """The score of the composite of one assembly; None if the index has none."""
        scope = replace(self._scope, allowed=np.array([key], dtype=np.int64))
        ((result, _),) = self._search.view.search("assembly", query[np.newaxis], 1, scope)
        return float(result.scores[0]) if len(result.scores) else None

    def activate(self, query: Rows, base: SearchResult) -> QueryActivation:
        """The assemblies that *query* activates: those that are synced and not too old, nearest first.

        *base* is the result of the search without boost.
        """
        threshold = self._threshold(query, base)
        boost = replace(self.boost, threshold=threshold)
        limit = size = boost.limit
        while True:  # assemblies that are skipped must not take the place of others, so more are asked for
            ((result, _),) = self._search.view.search("assembly", query[np.newaxis], size, self._scope)
            ranked = list(zip(result.keys.tolist(), result.scores.tolist(), strict=True))
            scores = {key: score for key, score in ranked if score >= threshold}
            states = self.states(scores)
            synced = [key for key, (_, state) in states.items() if state.synced]
            too_old = {key for key in synced if boost.too_old(states[key][1].age)}
            keys = [key for key in synced if key not in too_old][:limit]
            if len(keys) == limit or len(scores) < size:
                groups = [self._group(boost, states[key][0], scores[key]) for key in keys]
                return QueryActivation(boost, groups, too_old, self._nearest(boost, threshold, ranked[:1]))
            size *= 4

    def _threshold(self, query: Rows, base: SearchResult) -> float:
        """The threshold of the caller, or the one relative to the scores of *query*."""
        if self.boost.threshold is not None:
            return self.boost.threshold
        view = self._search.view
        composites, count = view.sample_scores("assembly", query, self._scope)
        if count >= FEW_ASSEMBLIES:
            return standout_threshold(composites, count)
        memories, _ = view.sample_scores("memory", query, self._search.scope)
        if not count or not len(memories) or not len(base.scores):
            return 0.0  # nothing can be boosted
        return nearness_threshold(memories, float(base.scores[0]))

    def _nearest(
        self, boost: AssemblyBoost, threshold: float, ranked: Sequence[tuple[int, float]]
    ) -> NearestAssembly | None:
        """The first of *ranked* and what it lacks; None without one."""
        for state, sync in self.states(key for key, _ in ranked).values():
            score = ranked[0][1]
            outcome: NearestOutcome = "activated"
            if not sync.synced:
                outcome = "stale"
            elif score < threshold:
                outcome = "below_threshold"
            elif boost.too_old(sync.age):
                outcome = "too_old"
            missing = max(0.0, threshold - score)
            return NearestAssembly(
                id=state.id,
                namespace=state.namespace,
                score=score,
                threshold=threshold,
                missing=missing,
                outcome=outcome,
            )
        return None

    def _group(self, boost: AssemblyBoost, assembly: ActivationState, score: float) -> ActivatedGroup:
        level = self.level(assembly)
        activated = ActivatedAssembly(
            id=assembly.id,
            namespace=assembly.namespace,
            score=score,
            strength=boost.strength(score, level),
            boost=boost.boost(score, level),
            level=level,
        )
        members = memberships.live_members(self._search.connection, assembly.key, self._search.now)
        return ActivatedGroup(assembly.key, activated, members)

    def search(self) -> list[BoostedHits]:
        """The hits of each query of the search, with their boosts."""
        search = self._search
        results, score_boosts, activations = [], [], []
        for query, (base, uncommitted) in zip(search.queries, search.nearest(), strict=True):
            activation = self.activate(query, base)
            result, boosts = self._rank(query, base, activation)
            results.append((result, uncommitted))
            score_boosts.append(boosts)
            activations.append(activation)
        boosted = []
        for hits, boosts, activation in zip(search.hits(results), score_boosts, activations, strict=True):
            boosts = boosts[search.request.offset :]
            with_boosts = [Hit(hit.memory, hit.score, boost) for hit, boost in zip(hits, boosts, strict=True)]
            activated = tuple(group.assembly for group in activation.groups)
            plan = replace(hits.plan, nearest_assembly=activation.nearest)
            boosted.append(BoostedHits(Hits(with_boosts, plan, activated), activation))
        return boosted

    def _rank(
        self, query: Rows, base: SearchResult, activation: QueryActivation
    ) -> tuple[SearchResult, list[ScoreBoost]]:
        """The best memories with their boosts, where a search without boost returned *base*."""
        search = self._search
        limit, min_score, scope = search.request.limit, search.request.min_score, search.scope
        scores = dict(zip(base.keys.tolist(), base.scores.tolist(), strict=True))
        for group in activation.groups:
            allowed = group.members if scope.allowed is None else np.intersect1d(group.members, scope.allowed)
            if len(allowed):
                members = replace(scope, allowed=allowed)
                ((result, _),) = search.view.search("memory", query[np.newaxis], limit, members)
                for key, score in zip(result.keys.tolist(), result.scores.tolist(), strict=True):
                    scores.setdefault(key, score)
        keys = np.fromiter(scores, dtype=np.int64, count=len(scores))
        base_scores = np.fromiter(scores.values(), dtype=np.float64, count=len(scores))
        if min_score is not None:
            reached = base_scores >= min_score
            keys, base_scores = keys[reached], base_scores[reached]
        group_of, boosts = activation.boosts(keys)
        totals = base_scores + boosts
        order = np.lexsort((keys, -totals))[:limit]
        best = keys[order]
        result = base._replace(keys=best, closeness=totals[order], scores=totals[order])
        return result, self.score_boosts(best, base_scores[order], (group_of[order], boosts[order]), activation)

    def score_boosts(
        self, keys: Keys, base_scores: Doubles, group_boosts: tuple[Keys, Doubles], activation: QueryActivation
    ) -> list[ScoreBoost]:
        """The boost of each memory of *keys*, with its reason; *group_boosts* is `activation.boosts(keys)`."""
        group_of, boosts = group_boosts
        owners = memberships.assemblies_of(self._search.connection, keys[group_of < 0].tolist())
        self.states({owner for keys_of_one in owners.values() for owner in keys_of_one})
        rows = zip(keys.tolist(), base_scores.tolist(), group_of.tolist(), boosts.tolist(), strict=True)
        return [
            ScoreBoost(
                base_score=base_score,
                boost=boost,
                assembly=activation.groups[group].assembly.id if group >= 0 else None,
                reason="boosted" if group >= 0 else self._reason(owners.get(key, []), activation),
            )
            for key, base_score, group, boost in rows
        ]

    def _reason(self, owners: list[int], activation: QueryActivation) -> BoostReason:
        """Why a member of the assemblies *owners* has no boost."""
        if not owners:
            return "no_assembly"
        states = {key: self._states[key][1] for key in owners if key in self._states}
        stale = any(key in activation.too_old or not state.synced for key, state in states.items())
        return "stale" if stale else "not_activated"


def search_boosted(
    connection: Connection,
    view: View,
    spaces: Spaces,
    request: SearchRequest,
    queries: Sequence[object],
    boost: AssemblyBoost,
) -> list[BoostedHits]:
    """The boosted hits of each query, in order; arguments and errors as of `query.search`."""
    return AssemblyBooster(Search(connection, view, spaces, request, queries), boost).search()


def strengths(boosted: Iterable[BoostedHits]) -> dict[int, float]:
    """The highest strength with which the queries of a search activated each assembly, by key."""
    highest: dict[int, float] = {}
    for _, activation in boosted:
        for group in activation.groups:
            highest[group.key] = max(group.assembly.strength, highest.get(group.key, 0.0))
    return highest

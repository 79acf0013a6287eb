"""The search that uses assemblies: which of them a query activates, and what that makes of the order of memories.

An assembly takes part by the entry of its composite in the index, if that is of the assembly's present revision: one
that is out of step gives exactly nothing. All that a search says is of one read transaction and one moment.

A member's boost is a number of its assembly alone. So the best of one assembly's members are the same with the boost
and without, and the best of all are among the best of a plain search and the best of each activated assembly.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

import numpy as np
from sqlalchemy import Connection

from memstore.api.collection import Asked
from memstore.index.protocol import SearchResult, SearchScope
from memstore.models.activation import SyncState, decayed
from memstore.models.search import ActivatedAssembly, BoostReason, Hit, Hits, ScoreBoost
from memstore.repository import assembly_activation as stored
from memstore.repository.assembly_activation import Standing
from memstore.repository.key_lists import Keys
from memstore.repository.vectors import VectorSpace
from memstore.search.activation import AssemblyBoost
from memstore.sync.view import View
from memstore.timestamps import to_micros
from memstore.vectors.arrays import Rows


def sync_state(standing: Standing, view: View, at: datetime) -> SyncState:
    """How an assembly's revisions, in the file and in the index, agree."""
    indexed = view.revision(standing.key)
    there = standing.revision if standing.composed else None
    return SyncState(
        revision=standing.revision,
        composite_revision=standing.composite_revision,
        indexed_revision=indexed,
        synced=standing.composite_revision == standing.revision and indexed == there,
        age=None if standing.composed_at is None else at - standing.composed_at,
    )


@dataclass(frozen=True, slots=True)
class Group:
    """An activated assembly, and the keys of its members."""

    key: int
    said: ActivatedAssembly
    members: Keys


@dataclass(frozen=True, slots=True)
class Near:
    """What came of one query: the assemblies it activates, nearest first, and those passed over as too old."""

    groups: list[Group]
    too_old: set[int]

    @property
    def activated(self) -> tuple[ActivatedAssembly, ...]:
        """What is said of them."""
        return tuple(group.said for group in self.groups)

    @property
    def strengths(self) -> dict[int, float]:
        """How strongly each was activated, by key."""
        return {group.key: group.said.strength for group in self.groups}

    def boosts(self, keys: Keys) -> tuple[Keys, np.ndarray[tuple[int], np.dtype[np.float64]]]:
        """For each of *keys*, the place among the groups of the one that boosts it most, -1 for none, and the boost."""
        givers = np.full(len(keys), -1, dtype=np.int64)
        boosts = np.zeros(len(keys))
        for place, group in enumerate(self.groups):
            more = np.isin(keys, group.members) & (group.said.boost > boosts)
            givers[more], boosts[more] = place, group.said.boost
        return givers, boosts


@dataclass(frozen=True, slots=True)
class Answer:
    """What a search found: keys and scores in order, with what each gained."""

    found: SearchResult
    gains: list[ScoreBoost]
    near: Near


class Boosted(NamedTuple):
    """The hits of one query, what it activated, and what knows the assemblies."""

    hits: Hits[Hit]
    near: Near
    boosting: "Boosting"


class Boosting:
    """The use that one search makes of assemblies."""

    def __init__(
        self,
        connection: Connection,
        view: View,
        space: VectorSpace,
        activation: AssemblyBoost,
        at: datetime,
        half_life: float,
        namespaces: Keys | None,
    ) -> None:
        self.activation = activation
        self._connection = connection
        self._view = view
        self._space = space
        self._at = at
        self._half_life = half_life
        self._scope = SearchScope(now=to_micros(at), namespaces=namespaces)
        self._known: dict[int, tuple[Standing, SyncState]] = {}

    def known(self, keys: Iterable[int]) -> dict[int, tuple[Standing, SyncState]]:
        """Where the assemblies of *keys* stand, and whether each is in step."""
        wanted = list(keys)
        new = [key for key in wanted if key not in self._known]
        for key, standing in stored.standing(self._connection, self._space, new).items():
            self._known[key] = standing, sync_state(standing, self._view, self._at)
        return {key: self._known[key] for key in wanted if key in self._known}

    def level(self, standing: Standing) -> float:
        """How active an assembly is by what is stored, now."""
        return decayed(standing.level, standing.activated_at, self._at, self._half_life)

    def score(self, query: Rows, key: int) -> float | None:
        """The score of one assembly's composite; None where it has none that a search finds."""
        scope = replace(self._scope, allowed=np.array([key], dtype=np.int64))
        ((found, _),) = self._view.search("assembly", query[np.newaxis], 1, scope)
        return float(found.scores[0]) if len(found.scores) else None

    def near(self, query: Rows) -> Near:
        """The assemblies that *query* activates: those in step and young enough, nearest first."""
        wanted, size = self.activation.limit, self.activation.limit
        while True:  # those that are passed over take nobody's place
            ((found, _),) = self._view.search("assembly", query[np.newaxis], size, self._scope)
            scores = {k: s for k, s in zip(found.keys.tolist(), found.scores.tolist(), strict=True) if self.reached(s)}
            known = self.known(scores)
            fresh = [key for key, (_, state) in known.items() if state.synced]
            old = {key for key in fresh if self.activation.too_old(known[key][1].age)}
            chosen = [key for key in fresh if key not in old][:wanted]
            if len(chosen) == wanted or len(scores) < size:
                break
            size *= 4
        return Near([self._group(known[key][0], scores[key]) for key in chosen], old)

    def reached(self, score: float) -> bool:
        """Whether a composite of this *score* activates its assembly."""
        return score >= self.activation.threshold

    def _group(self, standing: Standing, score: float) -> Group:
        level = self.level(standing)
        said = ActivatedAssembly(
            id=standing.id,
            namespace=standing.namespace,
            score=score,
            strength=self.activation.strength(score, level),
            boost=self.activation.boost(score, level),
            level=level,
        )
        return Group(standing.key, said, stored.members(self._connection, standing.key))

    def searched(
        self,
        asked: Asked,
        limit: int,
        hits_of: Callable[[list[tuple[SearchResult, int]]], list[Hits[Hit]]],
    ) -> list["Boosted"]:
        """What comes of each query; *hits_of* reads the records of what was found."""
        plain = self._view.search("memory", asked.vectors, limit, asked.scope)
        answers = [
            self.answer(query, found, limit, asked.scope, asked.min_score)
            for query, (found, _) in zip(asked.vectors, plain, strict=True)
        ]
        read = hits_of([(answer.found, own) for answer, (_, own) in zip(answers, plain, strict=True)])
        return [
            Boosted(
                Hits(
                    [Hit(hit.memory, hit.score, gain) for hit, gain in zip(hits, answer.gains, strict=True)],
                    hits.plan,
                    answer.near.activated,
                ),
                answer.near,
                self,
            )
            for hits, answer in zip(read, answers, strict=True)
        ]

    def answer(
        self, query: Rows, base: SearchResult, limit: int, scope: SearchScope, min_score: float | None
    ) -> Answer:
        """The best *limit* in *scope* with their boosts, where a plain search found *base*."""
        near = self.near(query)
        scores = dict(zip(base.keys.tolist(), base.scores.tolist(), strict=True))
        for group in near.groups:
            among = group.members if scope.allowed is None else np.intersect1d(group.members, scope.allowed)
            if len(among):
                within = replace(scope, allowed=among)
                ((best, _),) = self._view.search("memory", query[np.newaxis], limit, within)
                for key, score in zip(best.keys.tolist(), best.scores.tolist(), strict=True):
                    scores.setdefault(key, score)
        keys = np.fromiter(scores, dtype=np.int64, count=len(scores))
        values = np.fromiter(scores.values(), dtype=np.float64, count=len(scores))
        if min_score is not None:
            close = values >= min_score
            keys, values = keys[close], values[close]
        givers, boosts = near.boosts(keys)
        totals = values + boosts
        order = np.lexsort((keys, -totals))[:limit]
        keys = keys[order]
        gains = self.gains(keys, values[order], givers[order], boosts[order], near)
        return Answer(base._replace(keys=keys, scores=totals[order]), gains, near)

    def gains(
        self,
        keys: Keys,
        values: np.ndarray[tuple[int], np.dtype[np.float64]],
        givers: Keys,
        boosts: np.ndarray[tuple[int], np.dtype[np.float64]],
        near: Near,
    ) -> list[ScoreBoost]:
        """What memories of these *keys* and base scores gain, and why."""
        left = keys[givers < 0].tolist()
        owners = stored.owners(self._connection, left)
        self.known({owner for some in owners.values() for owner in some})
        made = []
        for key, value, giver, boost in zip(
            keys.tolist(), values.tolist(), givers.tolist(), boosts.tolist(), strict=True
        ):
            reason: BoostReason = "boosted" if giver >= 0 else self._reason(owners.get(key, []), near)
            assembly = near.groups[giver].said.id if giver >= 0 else None
            made.append(ScoreBoost(base_score=value, boost=boost, assembly=assembly, reason=reason))
        return made

    def _reason(self, owners: list[int], near: Near) -> BoostReason:
        """Why a memory of these assemblies, none of which boosted it, gains nothing."""
        if not owners:
            return "no_assembly"
        stale = any(key in near.too_old or not self._known[key][1].synced for key in owners if key in self._known)
        return "stale" if stale else "not_activated"

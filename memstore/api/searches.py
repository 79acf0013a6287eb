"""The verbs that search memories: by themselves, with the help of assemblies, and to say why."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

import numpy as np
from sqlalchemy import Connection

from memstore.api.collection import Asked, Collection, Query
from memstore.errors import NotFoundError
from memstore.filters import Where
from memstore.forgetting.policies import AssemblyForgetPolicy, ForgetPolicy
from memstore.models.explanation import Explanation
from memstore.models.records import Embedding, Memory, Namespace
from memstore.models.search import Hit, Hits
from memstore.repository import assembly_activation as stored
from memstore.repository import memories, records
from memstore.repository.corruption import only
from memstore.repository.record_types import MEMORY, RecordType
from memstore.search.activation import AssemblyBoost, check_boost
from memstore.search.assembly_boost import Boosted, Boosting
from memstore.search.explain import Explainer
from memstore.sync.view import View
from memstore.validation.values import check_id, check_namespace, check_tags

_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)


class MemorySearches(Collection[Memory, Hit, ForgetPolicy]):
    """What `Memories` can be asked; the verbs that change them stand there."""

    _noun: ClassVar[RecordType] = MEMORY
    _policy: ClassVar[type[ForgetPolicy | AssemblyForgetPolicy]] = ForgetPolicy

    async def search(
        self,
        query: Query,
        limit: int = 10,
        *,
        tags: Iterable[str] = (),
        where: Where | None = None,
        min_score: float | None = None,
        recursive: bool = False,
        boost: AssemblyBoost | None = None,
    ) -> Hits[Hit]:
        """Find the memories nearest to *query*; with *boost*, those of assemblies that are near it before others.

        Args:
            query: numbers, shape (dimension,), rounded to float32; need not be normalised. With an embedder also text.
            limit: how many at most, 1 to 10,000.
            tags: only memories that have all of these.
            where: only memories that match this filter.
            min_score: only memories at least this close, whatever an assembly adds.
            recursive: also from all namespaces below this one.
            boost: lets assemblies whose composite is near *query* boost their members, wherever a plain search
                would have ranked them: `score = base_score + boost`. What may be found stays as it is. Formulas stand
                in `memstore.activation`; each hit says what it gained and why, `hits.activated` from which assemblies.

        Returns:
            At most *limit* hits, best first; equal scores in order of creation. Score is the metric's (see
            `memstore.geometry`), with a boost at most `boost.weight` more; higher is closer. Fewer than *limit* only
            when fewer match. `hits.plan` says how they were found.

        Raises:
            DimensionError, EmbeddingError: *query* is no vector of this store.
            EmbedderError: *query* is text, and there is no embedder.
            FilterError: *where* is not of the language.
            BusyError: `boost.record`, and the writer was not to be had within the timeout.
        """
        options = {"tags": tags, "where": where, "min_score": min_score, "recursive": recursive}
        return (await self.search_many([query], limit, boost=boost, **options))[0]  # type: ignore[arg-type]

    async def search_many(
        self,
        queries: Sequence[Query] | np.ndarray[Any, np.dtype[Any]],
        limit: int = 10,
        *,
        tags: Iterable[str] = (),
        where: Where | None = None,
        min_score: float | None = None,
        recursive: bool = False,
        boost: AssemblyBoost | None = None,
    ) -> list[Hits[Hit]]:
        """One `Hits` a query, in order, all of one state of the store; arguments as of `search`."""
        if boost is None:
            return await super().search_many(
                queries, limit, tags=tags, where=where, min_score=min_score, recursive=recursive
            )
        check_boost(boost)
        activated: dict[int, float] = {}

        def answered(connection: Connection, view: View, asked: Asked) -> list[Hits[Hit]]:
            found = self._boosted(connection, view, asked, limit, boost)
            activated.clear()  # a search may be done twice
            for each in found:
                for key, strength in each.near.strengths.items():
                    activated[key] = max(strength, activated.get(key, 0.0))
            return [each.hits for each in found]

        options = {"tags": tags, "where": where, "min_score": min_score, "recursive": recursive}
        hits = await self._asked(queries, limit, answered, "assembly", **options)
        if boost.record and activated:
            await self._session.write(lambda context: stored.activate(context.connection, activated, context.now))
        return hits

    def _boosted(
        self, connection: Connection, view: View, asked: Asked, limit: int, activation: AssemblyBoost
    ) -> list[Boosted]:
        session = self._session
        space, namespaces = session.spaces["assembly"], asked.scope.namespaces
        boosting = Boosting(connection, view, space, activation, asked.at, session.half_life, namespaces)
        return boosting.searched(asked, limit, lambda answers: self._hits(connection, view, asked.at, answers, None))

    async def explain(
        self,
        query: Query,
        id: str,
        limit: int = 10,
        *,
        tags: Iterable[str] = (),
        where: Where | None = None,
        min_score: float | None = None,
        recursive: bool = False,
        boost: AssemblyBoost | None = None,
        namespace: Namespace | None = None,
    ) -> Explanation:
        """Say why a memory ranks where it does in a search with the same arguments, or why it is not among the hits.

        The search is done once more: every figure is the one that ranked. It writes nothing, `boost.record` or not.

        Args:
            query: as of `search`, like the arguments that are not named here.
            id: the memory's.
            limit: as of `search`.
            tags: as of `search`.
            where: as of `search`.
            min_score: as of `search`.
            recursive: as of `search`.
            boost: as of `search`.
            namespace: where the memory lives, as `memory.namespace` says it; this one if left out.

        Raises:
            NotFoundError: there is no such memory.
            Everything that `search` raises.
        """
        check_id(id)
        path = self._namespace if namespace is None else check_namespace(namespace)
        words = check_tags(tags)
        if boost is not None:
            check_boost(boost)

        def answered(connection: Connection, view: View, asked: Asked) -> list[Explanation]:
            key = records.key_of(connection, MEMORY, path, id, _BEFORE_ALL)  # one that has expired too
            if key is None:
                raise NotFoundError("memory", id, path)
            record = only(memories.read(connection, self._space, [key]))
            boosted = None
            if boost is None:
                answers = view.search("memory", asked.vectors, limit, asked.scope)
                hits = self._hits(connection, view, asked.at, answers, asked.min_score)[0]
            else:
                boosted = self._boosted(connection, view, asked, limit, boost)[0]
                hits = boosted.hits
            return [Explainer(connection, view, asked, words, where, key, record, hits, boosted).explained()]

        options = {"tags": words, "where": where, "min_score": min_score, "recursive": recursive}
        return (await self._asked([query], limit, answered, "memory" if boost is None else "assembly", **options))[0]

    def _read(self, connection: Connection, keys: Sequence[int], at: datetime) -> list[Memory]:  # noqa: ARG002
        return memories.read(connection, self._space, keys)

    def _vector_of(self, record: Memory) -> Embedding | None:
        return record.embedding

    def _hit(self, record: Memory, score: float) -> Hit:
        return Hit(record, score)

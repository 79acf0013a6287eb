"""The verbs by which memories become assemblies, and assemblies one."""

from collections.abc import Callable, Iterable
from functools import partial

from memstore.actor import as_actor
from memstore.api.collection import Collection
from memstore.assemblies import cluster
from memstore.assemblies import lineage as lineage_module
from memstore.assemblies import merge as merge_module
from memstore.errors import InvalidError, short_repr
from memstore.filters import EVERYTHING, Where, parse
from memstore.forgetting.policies import AssemblyForgetPolicy
from memstore.models.clustering import AssemblySuggestion, AssemblySuggestions, ClusterResult
from memstore.models.merging import Lineage, Merge, MergeCandidate, MergedAssembly
from memstore.models.records import Assembly
from memstore.models.search import AssemblyHit
from memstore.repository.record_types import MEMORY
from memstore.repository.selection import Selection
from memstore.timestamps import now
from memstore.validation.arguments import listed
from memstore.validation.text import check_text
from memstore.validation.values import MAX_LIMIT, check_count, check_id, check_number, check_tags

Progress = Callable[[int, int], None]


class Grouping(Collection[Assembly, AssemblyHit, AssemblyForgetPolicy]):
    """The part of `Assemblies` that makes them of memories, and one of several."""

    async def merge(
        self,
        ids: Iterable[str],
        *,
        into: str | None = None,
        name: str | None = None,
        similarity: float | None = None,
        threshold: float | None = None,
        actor: str | None = None,
        reason: str | None = None,
    ) -> Merge:
        """Make one assembly of several. Takes the writer lock; one transaction, all or nothing.

        The one has the members of all, and their tags, their topics in order, and their metadata key by key; of a
        name, a description or a value in metadata, the first that is there, its own before those of the others, which
        come in the order of *ids*. The others are set aside: no search, list or count sees them, `merged` reads them,
        `unmerge` brings them back.

        Args:
            ids: of two assemblies or more, 1,000 at most, each once.
            into: the id of the one: of an assembly, in *ids* or not, which then stays what it is and takes the others
                in; or one that is free, for a new assembly. None makes a new one with a new id.
            name: its name; None for the first there is.
            similarity: how alike they are, if you know it; None for the least score between two of their composites.
            threshold: merge only if the similarity is at least this; kept with the merge.
            actor: who asks for it; kept with the merge.
            reason: why; kept with the merge.

        Returns:
            The merge. Its `target` is the id of the one.

        Raises:
            NotFoundError: one of *ids* does not exist.
            InvalidError: fewer than two, an id given twice, less alike than *threshold*, or together they have more
                tags, topics or metadata than a record may.
        """
        asked = listed(ids, "ids is a list of ids")
        target = None if into is None else check_id(into)
        like, least = (
            merge_module.check_similarity("similarity", similarity),
            merge_module.check_similarity("threshold", threshold),
        )
        title = None if name is None else check_text("name", name)
        with as_actor(actor, reason=reason):
            return await self._session.write(
                lambda context: merge_module.merge(
                    context,
                    self._namespace,
                    merge_module.check_sources(asked),
                    into=target,
                    name=title,
                    similarity=like,
                    threshold=least,
                ),
                batch=True,
            )

    async def unmerge(self, merge: Merge | int | str, *, actor: str | None = None, reason: str | None = None) -> Merge:
        """Undo a merge. Takes the writer lock; one transaction, all or nothing.

        The assemblies that went by it are back as they were, with those of their members that there still are. What
        only the merge brought is taken out of the one it made of them; what was added or changed there since stays. An
        assembly that the merge itself made is deleted.

        Args:
            merge: a merge, or its number; or the id of an assembly, for the last merge into it that stands.
            actor: who asks for it; kept with the merge.
            reason: why; kept with the merge.

        Returns:
            The merge, with the time at which it was undone.

        Raises:
            NotFoundError: there is no such merge in this namespace.
            UnmergeError: it is undone already, or something later depends on it: another merge, or changes of an
                assembly that would be deleted. The message says what to do first.
            DuplicateError: another assembly has the id of one of those that would come back.
        """
        which = merge.id if isinstance(merge, Merge) else merge
        which = check_id(which) if isinstance(which, str) else check_count("the number of a merge", which, 1, 2**62)
        with as_actor(actor, reason=reason):
            return await self._session.write(
                lambda context: merge_module.unmerge(context, self._namespace, which), batch=True
            )

    async def get_merged(self, id: str) -> MergedAssembly:
        """The assembly that last went by *id* into another, as it was.

        Raises:
            NotFoundError: there is none, or its merge was undone, or it was purged.
        """
        check_id(id)
        return await self._session.read(
            lambda connection: merge_module.get_merged(connection, self._session.spaces, self._namespace, id)
        )

    async def lineage(self, id: str) -> Lineage:
        """What an assembly came of, and what became of it, by the merges that stand.

        Each assembly is in it once, at the least number of merges between. Where several went by *id* one after
        the other, it is the one that there is, else the last.

        Raises:
            NotFoundError: there is no such assembly, and no merge that tells of one.
        """
        check_id(id)
        return await self._session.read(lambda connection: lineage_module.lineage(connection, self._namespace, id))

    async def merge_candidates(
        self, threshold: float, *, limit: int = 100, on_progress: Progress | None = None
    ) -> list[MergeCandidate]:
        """Pairs of assemblies of this namespace whose composites are near each other: those that could be merged.

        The index is asked for the neighbours of each assembly, 64 in one search, and those whose neighbours are all
        near are asked for more: all pairs are found where the index is exact, and at its recall where it has a graph.

        Args:
            threshold: the least score between the two (see `memstore.vectors.metrics`).
            limit: how many pairs at most, 1 to 10,000: the best.
            on_progress: called after each search with how many assemblies were looked at and how many will be; begins
                anew with those that are asked for more.

        Returns:
            The pairs, best first; equal ones in order of creation.
        """
        least = check_number("threshold", threshold)
        most = check_count("limit", limit, 1, MAX_LIMIT)
        self._session.check_usable()
        return await cluster.candidates(
            self._session, self._namespace, threshold=least, limit=most, on_progress=on_progress
        )

    async def suggest(
        self,
        threshold: float,
        *,
        min_size: int = 3,
        max_size: int = 50,
        tags: Iterable[str] = (),
        where: Where | None = None,
        on_progress: Progress | None = None,
    ) -> AssemblySuggestions:
        """Groups of memories that could be assemblies, of those that are in none; nothing is written.

        Where memories lie most densely one leads a group of itself and those near it, then where they do among the
        rest, and so on (see `memstore.assemblies.cluster`). Every memory that is in no assembly is in just
        one group, or left
        with a reason. Files of equal content give equal groups where the index is exact, or has read the same graph.

        Args:
            threshold: the least score between the leader of a group and another member (see
                `memstore.vectors.metrics`).
            min_size: how many members a group has at least, 2 or more.
            max_size: how many at most, up to 1,000; twelve bytes of memory for each, for each memory that has as many
                neighbours.
            tags: only memories that have all of these.
            where: only memories that match this filter.
            on_progress: called after each search of 64 with how many memories were looked at, and how many will be:
                a few are looked at again, and add to that.

        Returns:
            The groups, and what is in none. `form` makes assemblies of them.

        Raises:
            InvalidError: an argument is out of its range.
            FilterError: *where* is not of the language.
        """
        least = check_number("threshold", threshold)
        low = check_count("min_size", min_size, 2, cluster.MAX_GROUP)
        high = check_count("max_size", max_size, 2, cluster.MAX_GROUP)
        node, wanted = None if where is None else parse(where, MEMORY.kind), check_tags(tags)
        node = None if node == EVERYTHING else node
        self._session.check_usable()
        chosen = partial(Selection, record_type=MEMORY, namespace=self._namespace, tags=wanted, where=node)
        return await cluster.suggest(
            self._session,
            lambda: chosen(now=now()),
            threshold=least,
            min_size=low,
            max_size=high,
            on_progress=on_progress,
        )

    async def create_from(
        self,
        proposals: AssemblySuggestions | Iterable[AssemblySuggestion],
        *,
        actor: str | None = None,
        reason: str | None = None,
    ) -> ClusterResult:
        """Make assemblies of proposals. Takes the writer lock; one transaction, all or nothing.

        Args:
            proposals: what `propose` gave, or some of its groups, changed or not; 100,000 at most.
            actor: who asks for it, for the history.
            reason: why, for the history.

        Returns:
            The ids of the new assemblies, and the proposals of which none was made, because a member is gone or in an
            assembly by now.

        Raises:
            DuplicateError: the id of a proposal is taken.
            InvalidError: a proposal cannot be stored.
        """
        asked = (
            proposals.groups
            if isinstance(proposals, AssemblySuggestions)
            else listed(proposals, "form takes proposals")
        )
        if len(asked) > cluster.MAX_PROPOSED:
            raise InvalidError(f"form takes at most {cluster.MAX_PROPOSED:,} proposals at once; got {len(asked):,}")
        for each in asked:
            if not isinstance(each, AssemblySuggestion):
                raise InvalidError(f"form takes proposals, as propose gives them; got {short_repr(each)}")
        with as_actor(actor, reason=reason):
            return await self._session.write(
                lambda context: cluster.create_from(context, self._namespace, asked), batch=True
            )

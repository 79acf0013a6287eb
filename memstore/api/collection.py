"""`Collection`: the verbs that mean the same on memories and on assemblies.

A verb checks its arguments and runs one function of a capability in its session. A collection has no state of its own.
"""

import builtins
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar, cast

import numpy as np
from sqlalchemy import Connection

from memstore import filters
from memstore.actor import as_actor
from memstore.api.handle import Handle
from memstore.api.paging import pages
from memstore.concurrency import CHUNK_SIZE
from memstore.errors import EmbedderError, FilterError, InvalidError, NotFoundError, short_repr
from memstore.filters import Where
from memstore.forgetting import apply, planner, trash
from memstore.forgetting.policies import AssemblyForgetPolicy, ForgetPlan, ForgetPolicy, check_duration
from memstore.history import changes
from memstore.history.as_of import FormerRecords
from memstore.history.listing import AsOfListing
from memstore.models.forgetting import TrashEntry
from memstore.models.history import Change
from memstore.models.records import Assembly, Memory
from memstore.models.search import Hits
from memstore.repository import history_writer, records, selection
from memstore.repository.context import WriteContext
from memstore.repository.corruption import only
from memstore.repository.record_types import RecordType
from memstore.repository.records import Position, SortOrder
from memstore.repository.selection import Selection
from memstore.repository.vectors import VectorSpace
from memstore.search import query as plain_search
from memstore.search.query import SearchRequest
from memstore.session import Session
from memstore.timestamps import now
from memstore.validation.arguments import as_list, id_list
from memstore.validation.values import MAX_LIMIT, check_count, check_id, check_ids, check_number, check_tags, check_time
from memstore.vectors.encoding import EmbeddingLike

RecordT = TypeVar("RecordT", bound=Memory | Assembly)
HitT = TypeVar("HitT")
PolicyT = TypeVar("PolicyT", bound=ForgetPolicy | AssemblyForgetPolicy)

Query = str | EmbeddingLike
Queries = Sequence[Query] | np.ndarray[Any, np.dtype[Any]]

_MAX_COUNT = 2**62


class Collection(Handle, ABC, Generic[RecordT, HitT, PolicyT]):
    """The records of one type in one namespace, in one session."""

    _record_type: ClassVar[RecordType]
    _sort_fields: ClassVar[frozenset[str]]
    _policy_type: ClassVar[type[ForgetPolicy | AssemblyForgetPolicy]]

    @abstractmethod
    def _read(self, connection: Connection, keys: Sequence[int], at: datetime) -> list[RecordT]:
        """The records of *keys*, in their order; those that do not exist are left out."""

    @property
    def _space(self) -> VectorSpace:
        return self._session.spaces[self._record_type.kind]

    async def get(self, id: str, *, as_of: datetime | None = None) -> RecordT:
        """Read the record *id* of this namespace.

        Args:
            id: id of the record.
            as_of: a time-zone-aware time; returns the record as it was then, with every change committed by then.
                `access_count`, `accessed_at` and activation are not part of the history.

        Raises:
            NotFoundError: there is no such record, or there was none at *as_of*.
            HistoryError: the history of the file does not reach back to *as_of*.
        """
        check_id(id)
        if as_of is None:
            return await self._session.read(partial(self._get, id=id))
        time = check_time("as_of", as_of)
        return await self._session.read(
            lambda connection: cast("RecordT", self._former(connection).get(self._namespace, id, time))
        )

    def _former(self, connection: Connection) -> FormerRecords:
        return FormerRecords(connection, self._session.spaces, self._record_type)

    def _get(self, connection: Connection, id: str) -> RecordT:
        at = now()
        return only(self._read(connection, [self._key(connection, id, at)], at))

    async def get_many(self, ids: Iterable[str]) -> dict[str, RecordT]:
        """Read the records *ids*.

        Returns:
            The records by id, in the order of *ids*; ids without a record are left out.
        """
        unchecked = id_list(ids)

        def step(connection: Connection) -> dict[str, RecordT]:
            at = now()
            keys = records.keys_of(connection, self._record_type, self._namespace, check_ids(unchecked), at)
            return dict(zip(keys, self._read(connection, list(keys.values()), at), strict=True))

        return await self._session.read(step)

    async def delete(self, id: str) -> int:
        """Delete the record *id*; how many were deleted, 0 or 1. Takes the writer lock."""
        return await self.delete_many(ids=[id])

    async def delete_many(self, *, ids: Iterable[str] | None = None, where: Where | None = None) -> int:
        """Delete the records *ids*, or those that match *where*. Takes the writer lock; all or nothing.

        Deleted records do not go to the trash; `forget` moves records there.

        Returns:
            How many records were deleted.

        Raises:
            InvalidError: none or both of the arguments are given.
            FilterError: *where* is not a valid filter, or it is empty and would match everything.
        """
        if (ids is None) == (where is None):
            raise InvalidError("Invalid call: delete_many takes exactly one of ids= and where=")
        unchecked = None if ids is None else id_list(ids)
        node = None if where is None else filters.parse(where, self._record_type.kind)
        if node == filters.EVERYTHING:
            raise FilterError("An empty filter would delete every record of the namespace: use clear() for that")

        def step(context: WriteContext) -> int:
            connection = context.connection
            if unchecked is None:
                keys = selection.selected(connection, self._selection(context.now, where=node))
            else:
                ids = check_ids(unchecked)
                keys = list(records.keys_of(connection, self._record_type, self._namespace, ids, context.now).values())
            history_writer.delete_records(context, self._record_type, keys)
            return len(keys)

        return await self._session.write(step, batch=unchecked is None or len(unchecked) > CHUNK_SIZE)

    def list(
        self,
        *,
        where: Where | None = None,
        tags: Iterable[str] = (),
        order: str = "created_at",
        recursive: bool = False,
        limit: int | None = None,
        as_of: datetime | None = None,
    ) -> AsyncIterator[RecordT]:
        """Read every record that matches, page by page. No lock is held between pages.

        A record may change between two pages. If it then sorts after the current position, it is listed again; if it
        then sorts before it, it is not listed. So, to change records while you list them, sort by a field that the
        change does not touch.

        Args:
            where: only records that match this filter.
            tags: only records that have all of these.
            order: the field to sort by, descending with a `-` in front. Missing values sort first.
            recursive: also records of all namespaces below this one.
            limit: at most so many records; None for all.
            as_of: a time-zone-aware time; lists the records as they were then, whatever changes meanwhile. Needs about
                200 bytes of memory for each record that has changed since, or for each assembly.

        Raises:
            FilterError: *where* is not a valid filter.
            InvalidError: *order* is not a field to sort by, or another argument is invalid.
            HistoryError: the history of the file does not reach back to *as_of*.
        """
        criteria = {"where": self._node(where), "tags": check_tags(tags), "recursive": recursive}
        sort = self._order(order)
        maximum = None if limit is None else check_count("limit", limit, 1, _MAX_COUNT)
        if as_of is None:
            return pages(self._session, partial(self._page, sort=sort, criteria=criteria), maximum)
        selected = self._selection(check_time("as_of", as_of), **criteria)  # type: ignore[arg-type]
        listing: AsOfListing[Any] = AsOfListing(self._session.spaces, selected, sort)

        def read_page(
            connection: Connection, _position: bool | None, size: int
        ) -> tuple[Sequence[RecordT], bool | None]:
            page = listing.page(connection, size)
            return page, True if len(page) == size else None

        return pages(self._session, read_page, maximum)

    def _page(
        self, connection: Connection, position: Position | None, size: int, *, sort: SortOrder, criteria: dict[str, Any]
    ) -> tuple[Sequence[RecordT], Position | None]:
        at = now()
        positions, end = records.page(connection, self._selection(at, **criteria), sort, position, size)
        return self._read(connection, [row.pk for row in positions], at), end

    async def count(self, *, where: Where | None = None, tags: Iterable[str] = (), recursive: bool = False) -> int:
        """How many records match; arguments and errors as of `list`."""
        node, checked_tags = self._node(where), check_tags(tags)
        return await self._session.read(
            lambda connection: selection.count(
                connection, self._selection(now(), where=node, tags=checked_tags, recursive=recursive)
            )
        )

    async def history(self, id: str, *, limit: int | None = None) -> builtins.list[Change]:
        """Read the changes of the record *id*, and of earlier records with that id, latest first.

        Args:
            id: id of a record, which may be deleted.
            limit: at most so many changes; None for all that the file keeps, each with the vectors that it changed.

        Raises:
            NotFoundError: there is no such record, and no change of one.
        """
        check_id(id)
        maximum = None if limit is None else check_count("limit", limit, 1, _MAX_COUNT)
        return await self._session.read(
            lambda connection: changes.history(self._former(connection), self._namespace, id, maximum)
        )

    async def search(
        self,
        query: Query,
        limit: int = 10,
        *,
        tags: Iterable[str] = (),
        where: Where | None = None,
        min_score: float | None = None,
        recursive: bool = False,
    ) -> Hits[HitT]:
        """Find the records nearest to *query*; arguments, hits and errors as of `Memories.search` without `boost`."""
        options: dict[str, Any] = {"tags": tags, "where": where, "min_score": min_score, "recursive": recursive}
        return (await self.search_many([query], limit, **options))[0]

    async def search_many(
        self,
        queries: Queries,
        limit: int = 10,
        *,
        tags: Iterable[str] = (),
        where: Where | None = None,
        min_score: float | None = None,
        recursive: bool = False,
    ) -> builtins.list[Hits[HitT]]:
        """Search for several queries in one state of the store; arguments and errors as of `search`.

        Returns:
            One `Hits` for each query, in order.
        """
        request = self._request(limit, tags, where, min_score, recursive=recursive)
        vectors = await self._query_vectors(queries)
        if not vectors:
            return []
        run = partial(plain_search.search, spaces=self._session.spaces, request=request, queries=vectors)
        return await self._session.search(run, self._record_type.kind)

    async def plan_forget(self, policy: PolicyT, *, recursive: bool = False) -> ForgetPlan:
        """Select the records that *policy* forgets, with the reasons. Changes nothing; `forget` applies the plan.

        Args:
            policy: a `memstore.ForgetPolicy` for memories, a `memstore.AssemblyForgetPolicy` for assemblies.
            recursive: also from all namespaces below this one.

        Raises:
            InvalidError: *policy* is of another type.
        """
        if not isinstance(policy, self._policy_type):
            raise InvalidError(
                f"Invalid policy for {self._record_type.kind} records: expected {self._policy_type.__name__}, "
                f"found {type(policy).__name__}"
            )
        return await self._session.read(
            lambda connection: planner.plan(
                connection, self._session.spaces, self._namespace, policy, recursive=recursive
            )
        )

    async def forget(self, plan: ForgetPlan, *, actor: str | None = None, reason: str | None = None) -> int:
        """Move the records of *plan* to the trash. Takes the writer lock; one transaction, all or nothing.

        Forgotten records are invisible to every search, list, count and get. Composites are recomputed without
        forgotten memories; the members of a forgotten assembly stay. `trash` lists forgotten records, `recover` brings
        them back, `purge` deletes them. Memories that expired after the plan was made are skipped.

        Args:
            plan: a plan that `plan_forget` made for these records in this namespace.
            actor: who forgets them; stored with each record.
            reason: why; stored with each record. None takes the reason of `memstore.as_actor`; without one, the names
                of the criteria that the record met are stored.

        Returns:
            How many records were moved.

        Raises:
            StalePlanError: a record has changed since the plan was made. An assembly also changes with its members.
            InvalidError: *plan* is for another namespace or for the other type of records.
        """
        if not isinstance(plan, ForgetPlan) or plan.record_kind != self._record_type.kind:
            raise InvalidError(
                f"Invalid plan: expected one that plan_forget of {self._record_type.kind} records returned"
            )
        if plan.namespace != self._namespace:
            raise InvalidError(
                f"The plan is for namespace {plan.namespace!r}, and this is {self._namespace!r}: apply it there"
            )
        with as_actor(actor, reason=reason):
            return await self._session.write(partial(apply.forget, plan=plan), batch=True)

    def trash(self) -> AsyncIterator[TrashEntry[RecordT]]:
        """Read every forgotten record of this namespace, latest first, page by page."""

        def read_page(
            connection: Connection, position: int | None, size: int
        ) -> tuple[Sequence[TrashEntry[RecordT]], int | None]:
            return trash.page(connection, self._record_type, self._space, self._namespace, position, size)

        return pages(self._session, read_page)

    async def recover(
        self, ids: Iterable[str], *, actor: str | None = None, reason: str | None = None
    ) -> builtins.list[RecordT]:
        """Bring forgotten records back from the trash. Takes the writer lock; one transaction, all or nothing.

        A recovered record has every field and the exact vector it had. Its memberships are recovered if the other end
        exists; if the other end is in the trash too, they are recovered with it. If several records were forgotten
        under one id, the latest is recovered.

        Args:
            ids: ids of forgotten records.
            actor: who recovers them, for the history.
            reason: why, for the history.

        Returns:
            The records, in the order of *ids*.

        Raises:
            NotFoundError: the trash of this namespace does not contain one of *ids*.
            DuplicateError: another record has one of the ids.
            InvalidError: one of the memories expired in the trash.
        """
        unchecked = id_list(ids)

        def step(context: WriteContext) -> builtins.list[RecordT]:
            keys = trash.recover(context, self._record_type, self._namespace, check_ids(unchecked))
            return self._read(context.connection, keys, context.now)

        with as_actor(actor, reason=reason):
            return await self._session.write(step, batch=len(unchecked) > CHUNK_SIZE)

    async def purge(self, *, older_than: timedelta | float, recursive: bool = False) -> int:
        """Delete records that have been in the trash for longer than *older_than*. Takes the writer lock.

        Purged records cannot be recovered. `Store.compact` then returns their space to the disk.

        Args:
            older_than: a timedelta, or seconds; 0 deletes all of them.
            recursive: also in all namespaces below this one.

        Returns:
            How many records were deleted.
        """
        age = check_duration("older_than", older_than)
        return await self._session.write(
            lambda context: trash.purge(context, self._record_type, self._namespace, age, recursive=recursive),
            batch=True,
        )

    def _request(
        self,
        limit: int,
        tags: Iterable[str],
        where: Where | None,
        min_score: float | None,
        *,
        recursive: bool,
    ) -> SearchRequest:
        """The arguments of a search, checked."""
        node, checked_tags = self._node(where), check_tags(tags)
        return SearchRequest(
            record_type=self._record_type,
            namespace=self._namespace,
            recursive=recursive,
            tags=checked_tags,
            where=node,
            limit=check_count("limit", limit, 1, MAX_LIMIT),
            min_score=None if min_score is None else check_number("min_score", min_score),
            half_life=self._session.half_life,
        )

    async def _query_vectors(self, queries: Queries) -> builtins.list[object]:
        """The queries as vectors that are not checked yet; texts are embedded."""
        vectors = as_list(queries, "queries", "queries (search takes one query)")
        if not vectors:
            self._session.check_usable()
        texts = {i: query for i, query in enumerate(vectors) if isinstance(query, str)}
        if texts:
            for i, vector in zip(texts, await embed(self._session, [*texts.values()]), strict=True):
                vectors[i] = vector
        return vectors

    def _node(self, where: Where | None, record_type: RecordType | None = None) -> filters.Node | None:
        """The parsed filter on these records, or on those of *record_type*; None if it matches everything."""
        node = None if where is None else filters.parse(where, (record_type or self._record_type).kind)
        return None if node == filters.EVERYTHING else node

    def _selection(
        self,
        at: datetime,
        *,
        where: filters.Node | None = None,
        tags: frozenset[str] = frozenset(),
        recursive: bool = False,
    ) -> Selection:
        return Selection(
            record_type=self._record_type,
            namespace=self._namespace,
            now=at,
            recursive=recursive,
            tags=tags,
            where=where,
        )

    def _order(self, order: object) -> SortOrder:
        column = order.removeprefix("-") if isinstance(order, str) else None
        if column not in self._sort_fields:
            names = ", ".join(sorted(self._sort_fields))
            raise InvalidError(
                f"Invalid order: expected one of {names}, with or without a leading -, found {short_repr(order)}"
            )
        return SortOrder(column, descending=column != order)

    def _key(self, connection: Connection, id: str, at: datetime) -> int:
        """The key of the record *id*; raises `NotFoundError`."""
        key = records.key_of(connection, self._record_type, self._namespace, id, at)
        if key is None:
            raise NotFoundError(self._record_type.kind, id, self._namespace)
        return key


async def embed(session: Session, texts: builtins.list[str]) -> Sequence[object]:
    """The vectors of *texts* by the embedder of *session*. Raises `EmbedderError` if it has none."""
    session.check_usable()  # before the thread of the embedder is used, which a forked child does not have
    if session.embedder is None:
        raise EmbedderError(
            "This store has no embedder to turn text into a vector: open it with embedder=, or pass a vector"
        )
    return await session.embedder.embed(texts, session.spaces["memory"])

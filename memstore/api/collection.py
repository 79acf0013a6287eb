"""`Collection`: the verbs that mean the same on memories and on assemblies.

A verb checks its arguments and runs one function of a capability in its session. A collection has no state of its own.
"""

import builtins
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import repeat
from typing import Any, ClassVar, Generic, TypeVar, cast, overload

from sqlalchemy import Connection

from memstore import filters
from memstore.actor import verb_actor
from memstore.api.arguments import Changes, Queries, Query, SearchOptions
from memstore.api.cursors import Cursors
from memstore.api.embedding import embed
from memstore.api.handle import Handle
from memstore.api.listing import CurrentListing, Listing, PastListing
from memstore.api.paging import pages
from memstore.concurrency import CHUNK_SIZE
from memstore.errors import FilterError, InvalidError, NotFoundError, short_repr
from memstore.filters import Where
from memstore.forgetting import apply, planner, trash
from memstore.forgetting.policies import AssemblyForgetPolicy, ForgetPlan, ForgetPolicy, check_duration
from memstore.history import changes
from memstore.history.as_of import FormerRecords
from memstore.history.erase import erase_ids, erase_matching
from memstore.models.forgetting import TrashEntry
from memstore.models.history import Change
from memstore.models.records import Address, Assembly, Memory
from memstore.models.reports import EraseReport
from memstore.models.results import Page
from memstore.models.search import Hits
from memstore.models.vectors import Vectors
from memstore.repository import history_writer, records, selection, store_meta, updates
from memstore.repository.context import WriteContext
from memstore.repository.corruption import only
from memstore.repository.record_types import RecordType
from memstore.repository.records import Position, SortOrder
from memstore.repository.selection import Selection
from memstore.repository.vectors import VectorSpace
from memstore.search import query as plain_search
from memstore.search.query import SearchRequest
from memstore.search.vector_matrix import read_vectors
from memstore.validation.arguments import as_list, id_list
from memstore.validation.values import (
    MAX_LIMIT,
    check_address,
    check_count,
    check_flag,
    check_id,
    check_ids,
    check_number,
    check_tags,
    check_time,
)

RecordT = TypeVar("RecordT", bound=Memory | Assembly)
HitT = TypeVar("HitT")
PolicyT = TypeVar("PolicyT", bound=ForgetPolicy | AssemblyForgetPolicy)

SHORT_SEARCH = 16
"""Queries of one call up to which it is not long; see `Database.call`."""

_MAX_COUNT = 2**62


class Collection(Handle, ABC, Generic[RecordT, HitT, PolicyT]):
    """The records of one type in one namespace, in one session."""

    _record_type: ClassVar[RecordType]
    _sort_fields: ClassVar[frozenset[str]]
    _policy_type: ClassVar[type[ForgetPolicy | AssemblyForgetPolicy]]

    @abstractmethod
    def _read(
        self, connection: Connection, keys: Sequence[int], at: datetime, *, embeddings: bool = True
    ) -> list[RecordT]:
        """The records of *keys*, in their order; those that do not exist are left out."""

    @property
    def _space(self) -> VectorSpace:
        return self._session.spaces[self._record_type.kind]

    async def get(self, id: str, *, as_of: datetime | None = None, embeddings: bool = True) -> RecordT:
        """Read the record *id* of this namespace.

        Args:
            id: id of the record.
            as_of: a time-zone-aware time; returns the record as it was then, with every change committed by then.
                `access_count`, `accessed_at` and activation are not part of the history.
            embeddings: False leaves the vector out, which is not read then: `embedding` (of an assembly `composite`) is
                None.

        Raises:
            NotFoundError: there is no such record, or there was none at *as_of*.
            HistoryError: the history of the file does not reach back to *as_of*.
        """
        check_id(id)
        check_flag("embeddings", embeddings)
        if as_of is None:
            return await self._session.read(partial(self._get, id=id, embeddings=embeddings))
        time = check_time("as_of", as_of)
        return await self._session.read(
            lambda connection: cast("RecordT", self._former(connection, embeddings).get(self._namespace, id, time))
        )

    def _former(self, connection: Connection, embeddings: bool = True) -> FormerRecords:
        return FormerRecords(connection, self._session.spaces, self._record_type, embeddings)

    def _get(self, connection: Connection, id: str, embeddings: bool) -> RecordT:
        at = self._session.clock()
        return only(self._read(connection, [self._key(connection, id, at)], at, embeddings=embeddings))

    @overload
    async def get_many(self, ids: Iterable[str], *, embeddings: bool = True) -> dict[str, RecordT]: ...

    @overload
    async def get_many(self, ids: Iterable[Address], *, embeddings: bool = True) -> dict[Address, RecordT]: ...

    async def get_many(
        self, ids: Iterable[str] | Iterable[Address], *, embeddings: bool = True
    ) -> dict[str, RecordT] | dict[Address, RecordT]:
        """Read the records *ids*.

        Args:
            ids: ids of records of this namespace; or pairs of a namespace, which is this one or one below it, and an
                id. Namespaces are written as in `Memory.namespace`, from the root.
            embeddings: False leaves the vectors out, as of `get`.

        Returns:
            The records by id, or by pair, in the order of *ids*; those that do not exist are left out.
        """
        unchecked = id_list(ids)
        check_flag("embeddings", embeddings)

        def step(connection: Connection) -> dict[Any, RecordT]:
            at = self._session.clock()
            keys: dict[Any, int]
            if unchecked and isinstance(unchecked[0], tuple | builtins.list):
                pairs = dict.fromkeys(check_address(value, self._namespace) for value in unchecked)
                keys = records.keys_of_addresses(connection, self._record_type, builtins.list(pairs), at)
            else:
                keys = records.keys_of(connection, self._record_type, self._namespace, check_ids(unchecked), at)
            return dict(zip(keys, self._read(connection, [*keys.values()], at, embeddings=embeddings), strict=True))

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
        if where is not None and filters.parse(where, self._record_type.kind) == filters.EVERYTHING:
            raise FilterError("An empty filter would delete every record of the namespace: use clear() for that")
        targets, batch = self._targets("delete_many", ids, where)

        def step(context: WriteContext) -> int:
            keys = targets(context)
            history_writer.delete_records(context, self._record_type, keys)
            return len(keys)

        return await self._session.write(step, batch=batch)

    def _targets(
        self, verb: str, ids: Iterable[str] | None, where: Where | None
    ) -> tuple[Callable[[WriteContext], builtins.list[int]], bool]:
        """The keys of the records that *verb* means by `ids=` or `where=`, and whether they can be many."""
        if (ids is None) == (where is None):
            raise InvalidError(f"Invalid call: {verb} takes exactly one of ids= and where=")
        if where is not None:
            node = self._node(where)
            return lambda context: selection.selected(
                context.connection, self._selection(context.now, where=node)
            ), True
        unchecked = id_list(ids)

        def keys_of_ids(context: WriteContext) -> builtins.list[int]:
            keys = records.keys_of(
                context.connection, self._record_type, self._namespace, check_ids(unchecked), context.now
            )
            return builtins.list(keys.values())

        return keys_of_ids, len(unchecked) > CHUNK_SIZE

    async def _update_many(self, ids: Iterable[str] | None, where: Where | None, change: Changes) -> int:
        """Change the fields that *change* checks in the records of `ids=` or `where=`; how many they are."""
        targets, batch = self._targets("update_many", ids, where)

        def step(context: WriteContext) -> int:
            keys = targets(context)
            updates.update(context, self._record_type, self._namespace, keys, *change(context))
            return len(keys)

        return await self._session.write(step, batch=batch)

    async def erase(
        self, *, ids: Iterable[str] | None = None, where: Where | None = None, recursive: bool = False
    ) -> EraseReport:
        """Erase records for good: rows, vectors, trash, history, merges and unused tags. Takes the writer lock.

        Nothing can bring an erased record back: it is in no search, list, trash, history and read as of an earlier
        time. Composites and the history of assemblies no longer contain an erased member. An erased assembly takes
        the assemblies with it that were merged into it. One transaction, all or nothing. `Store.compact(secure=True)`
        then removes the last bytes from the file and its log; backups keep what they contain.

        Args:
            ids: erase every record that has or had one of these ids: live ones, those in the trash, those that a merge
                archived, and deleted ones of which the history has changes.
            where: erase the records that match this filter: live ones as they are, archived and deleted ones as they
                were at the end. Earlier versions of a live record are not compared.
            recursive: also in all namespaces below this one; only with *where*.

        Returns:
            What was erased, what was not found, and what could not be read.

        Raises:
            InvalidError: none or both of *ids* and *where* are given, or *recursive* with *ids*.
            FilterError: *where* is not a valid filter, or it is empty and would match everything.
        """
        if (ids is None) == (where is None):
            raise InvalidError("Invalid call: erase takes exactly one of ids= and where=")
        if where is None:
            if recursive:
                raise InvalidError("Invalid call: recursive=True needs where=, because an id belongs to one namespace")
            unchecked = id_list(ids if ids is not None else ())
            return await self._session.write(
                lambda context: erase_ids(context, self._record_type, self._namespace, check_ids(unchecked)), batch=True
            )
        node = filters.parse(where, self._record_type.kind)
        if node == filters.EVERYTHING:
            raise FilterError("An empty filter would erase every record: use erase() of the namespace for that")
        return await self._session.write(
            lambda context: erase_matching(context, self._selection(context.now, where=node, recursive=recursive)),
            batch=True,
        )

    def list(
        self,
        *,
        where: Where | None = None,
        tags: Iterable[str] = (),
        order: str = "created_at",
        recursive: bool = False,
        limit: int | None = None,
        offset: int = 0,
        as_of: datetime | None = None,
        embeddings: bool = True,
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
            offset: how many records to skip first. They are not read, but counted one by one: `page` continues a list
                without that.
            as_of: a time-zone-aware time; lists the records as they were then, whatever changes meanwhile. Needs about
                200 bytes of memory for each record that has changed since, or for each assembly.
            embeddings: False leaves the vectors out, as of `get`.

        Raises:
            FilterError: *where* is not a valid filter.
            InvalidError: *order* is not a field to sort by, or another argument is invalid.
            HistoryError: the history of the file does not reach back to *as_of*.
        """
        listing, _ = self._listing(where, tags, order, recursive, as_of, embeddings)
        maximum = None if limit is None else check_count("limit", limit, 1, _MAX_COUNT)
        skipped = check_count("offset", offset, 0, _MAX_COUNT)

        def read_page(
            connection: Connection, position: Position | None, size: int
        ) -> tuple[Sequence[RecordT], Position | None]:
            return listing.page(connection, position, size, 0 if position else skipped)

        return pages(self._session, read_page, maximum)

    async def page(
        self,
        *,
        limit: int = 100,
        after: str | None = None,
        where: Where | None = None,
        tags: Iterable[str] = (),
        order: str = "created_at",
        recursive: bool = False,
        as_of: datetime | None = None,
        embeddings: bool = True,
    ) -> Page[RecordT]:
        """Read one page of the list that `list` reads, in one state of the store.

        The next page starts after the last record of this one, by its place in the order: whatever is written between
        two pages, no record that stays is left out or occurs twice. A record whose sort value changes can move into the
        part that is read already, or out of it.

        Args:
            limit: at most so many records, 1 to 10,000.
            after: `Page.next` of the page before; None for the first page. It contains the sort value of the last
                record, is valid in any process, and is not secret.
            where: this and the following arguments are as of `list`, and equal for all pages of one list.
            tags: only records that have all of these.
            order: the field to sort by, descending with a `-` in front.
            recursive: also records of all namespaces below this one.
            as_of: a time-zone-aware time, as of `list`.
            embeddings: False leaves the vectors out, as of `get`. May differ from page to page.

        Returns:
            The records, and `next`: None if there are no more.

        Raises:
            InvalidError: *after* is not a cursor, or is one of another list, order or store; or as of `list`.
            FilterError: *where* is not a valid filter.
            HistoryError: the history of the file does not reach back to *as_of*.
        """
        listing, arguments = self._listing(where, tags, order, recursive, as_of, embeddings)
        size = check_count("limit", limit, 1, MAX_LIMIT)

        def step(connection: Connection) -> Page[RecordT]:
            cursors = Cursors(store_meta.epoch(connection), order, arguments)
            items, end = listing.page(connection, None if after is None else cursors.decode(after), size)
            return Page(builtins.list(items), None if end is None else cursors.encode(end))

        return await self._session.read(step)

    def _listing(
        self,
        where: Where | None,
        tags: Iterable[str],
        order: str,
        recursive: bool,
        as_of: datetime | None,
        embeddings: bool,
    ) -> tuple[Listing[RecordT], Sequence[object]]:
        """The list with these arguments, checked; and those that decide which records it has."""
        node, checked_tags, sort = self._node(where), check_tags(tags), self._order(order)
        select = partial(self._selection, where=node, tags=checked_tags, recursive=recursive)
        check_flag("embeddings", embeddings)
        time = None if as_of is None else check_time("as_of", as_of)
        arguments = self._record_type.kind, self._namespace, recursive, checked_tags, node, time
        if time is not None:
            return PastListing(self._session.spaces, select(time), sort, embeddings=embeddings), arguments

        def read(connection: Connection, keys: Sequence[int], selected: Selection) -> builtins.list[RecordT]:
            return self._read(connection, keys, selected.now, embeddings=embeddings)

        return CurrentListing(lambda: select(self._session.clock()), sort, read), arguments

    async def count(self, *, where: Where | None = None, tags: Iterable[str] = (), recursive: bool = False) -> int:
        """How many records match; arguments and errors as of `list`."""
        node, checked_tags = self._node(where), check_tags(tags)
        select = partial(self._selection, where=node, tags=checked_tags, recursive=recursive)
        return await self._session.read(lambda connection: selection.count(connection, select(self._session.clock())))

    async def vectors(
        self, *, where: Where | None = None, tags: Iterable[str] = (), recursive: bool = False
    ) -> Vectors:
        """Read the vectors of the records that match as one matrix, in order of creation.

        They are copied from the index if it has them as they are stored (float32, under inner product, l2 and
        hyperbolic metrics), else read in one pass over the table of vectors. No record is built.

        Args:
            where: this and the other arguments are as of `list`.
            tags: only records that have all of these.
            recursive: also records of all namespaces below this one.

        Returns:
            Ids and a float32 matrix; records without a vector are left out. Of assemblies these are the composites.
        """
        select = partial(self._selection, where=self._node(where), tags=check_tags(tags), recursive=recursive)
        return await self._session.read_by_index(
            lambda connection, view: read_vectors(connection, view, self._session.spaces, select(self._session.clock()))
        )

    async def history(
        self, id: str, *, limit: int | None = None, before: Change | int | None = None, embeddings: bool = True
    ) -> builtins.list[Change]:
        """Read the changes of the record *id*, and of earlier records with that id, latest first.

        A change that is damaged has a `damage` text, and leaves out what cannot be read.

        Args:
            id: id of a record, which may be deleted.
            limit: at most so many changes; None for all that the file keeps, each with the vectors that it changed.
            before: only changes before this one, or before this number: for the next page, the last change of the
                previous one.
            embeddings: False leaves the vectors out of the old and new fields.

        Raises:
            NotFoundError: there is no such record, and no change of one.
        """
        check_id(id)
        check_flag("embeddings", embeddings)
        maximum = None if limit is None else check_count("limit", limit, 1, _MAX_COUNT)
        number = before.number if isinstance(before, Change) else before
        end = None if number is None else check_count("before", number, 1, _MAX_COUNT)
        return await self._session.read(
            lambda connection: changes.history(self._former(connection, embeddings), self._namespace, id, maximum, end)
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
        offset: int = 0,
        embeddings: bool = True,
    ) -> Hits[HitT]:
        """Find the records nearest to *query*; arguments, hits and errors as of `Memories.search` without `boost`."""
        options = SearchOptions(tags, where, min_score, recursive, offset, embeddings)
        return (await self._search_many([query], limit, options))[0]

    async def search_many(
        self,
        queries: Queries,
        limit: int = 10,
        *,
        tags: Iterable[str] = (),
        where: Where | None = None,
        min_score: float | None = None,
        recursive: bool = False,
        offset: int = 0,
        embeddings: bool = True,
    ) -> builtins.list[Hits[HitT]]:
        """Search for several queries in one state of the store; arguments and errors as of `search`.

        Returns:
            One `Hits` for each query, in order.
        """
        options = SearchOptions(tags, where, min_score, recursive, offset, embeddings)
        return await self._search_many(queries, limit, options)

    async def _search_many(self, queries: Queries, limit: int, options: SearchOptions) -> builtins.list[Hits[HitT]]:
        request = self._request(limit, options)
        vectors = await self._query_vectors(queries)
        if not vectors:
            return []
        run = partial(plain_search.search, spaces=self._session.spaces, request=request, queries=vectors)
        return await self._session.search(run, self._record_type.kind, long=len(vectors) > SHORT_SEARCH)

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
                connection, self._session.spaces, self._namespace, policy, self._session.clock(), recursive=recursive
            ),
            long=True,
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
        with verb_actor(actor, reason):
            return await self._session.write(partial(apply.forget, plan=plan), batch=True)

    def trash(self, *, embeddings: bool = True) -> AsyncIterator[TrashEntry[RecordT]]:
        """Read every forgotten record of this namespace, latest first, page by page.

        Args:
            embeddings: False leaves the vectors out, as of `get`.
        """
        check_flag("embeddings", embeddings)

        def read_page(
            connection: Connection, position: int | None, size: int
        ) -> tuple[Sequence[TrashEntry[RecordT]], int | None]:
            space = self._space if embeddings else None
            return trash.page(connection, self._record_type, space, self._namespace, position, size)

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

        with verb_actor(actor, reason):
            return await self._session.write(step, batch=len(unchecked) > CHUNK_SIZE)

    async def purge(self, *, older_than: timedelta | float, recursive: bool = False) -> int:
        """Erase records that have been in the trash for longer than *older_than*. Takes the writer lock.

        As `erase`: nothing of a purged record is left in the history or in merges. `Store.compact` then returns the
        space to the disk.

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

    def _request(self, limit: int, options: SearchOptions) -> SearchRequest:
        """The arguments of a search, checked."""
        node, checked_tags = self._node(options.where), check_tags(options.tags)
        count = check_count("limit", limit, 1, MAX_LIMIT)
        offset = check_count("offset", options.offset, 0, MAX_LIMIT - count)
        return SearchRequest(
            record_type=self._record_type,
            namespace=self._namespace,
            recursive=options.recursive,
            tags=checked_tags,
            where=node,
            limit=count + offset,
            offset=offset,
            min_score=None if options.min_score is None else check_number("min_score", options.min_score),
            half_life=self._session.half_life,
            embeddings=options.embeddings is True or check_flag("embeddings", options.embeddings),
            clock=self._session.clock,
        )

    async def _query_vectors(self, queries: Queries) -> builtins.list[object]:
        """The queries as vectors that are not checked yet; texts are embedded."""
        vectors = as_list(queries, "queries", "queries (search takes one query)")
        if not vectors:
            self._session.check_usable()
        if any(map(isinstance, vectors, repeat(str))):
            texts = {i: query for i, query in enumerate(vectors) if isinstance(query, str)}
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

"""The verbs that mean the same on memories and on assemblies: read, list, count, delete, search.

Each verb checks its arguments, then runs one function of a connection in the session; nothing here holds state.
"""

import builtins
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, cast

import numpy as np
from sqlalchemy import Connection

from memstore import filters
from memstore.actor import as_actor
from memstore.concurrency import CHUNK_SIZE
from memstore.errors import EmbedderError, FilterError, InvalidError, NotFoundError, short_repr
from memstore.filters import Where
from memstore.forgetting import apply, planner, trash
from memstore.forgetting.policies import AssemblyForgetPolicy, ForgetPlan, ForgetPolicy, span
from memstore.history import as_of as as_of_module
from memstore.index.protocol import DriftError, SearchResult, SearchScope
from memstore.models.forgetting import TrashEntry
from memstore.models.history import Change
from memstore.models.records import Assembly, Embedding, Memory, Namespace, RecordKind
from memstore.models.search import Hits, SearchPlan
from memstore.repository import history_writer, namespaces, selection
from memstore.repository import records as record_rows
from memstore.repository.context import WriteContext
from memstore.repository.corruption import only
from memstore.repository.record_types import RecordType
from memstore.repository.records import Order, Position
from memstore.repository.selection import Selection
from memstore.repository.vectors import VectorSpace
from memstore.session import Session
from memstore.sync.view import View
from memstore.timestamps import now, to_micros
from memstore.validation.arguments import list_of_ids, listed
from memstore.validation.values import MAX_LIMIT, check_count, check_id, check_ids, check_number, check_tags
from memstore.vectors.encoding import EmbeddingLike, as_embedding

RecordT = TypeVar("RecordT", bound=Memory | Assembly)
HitT = TypeVar("HitT")
PolicyT = TypeVar("PolicyT", bound=ForgetPolicy | AssemblyForgetPolicy)
T = TypeVar("T")

PAGE = 100
"""Records read at a time by `list`: each page is one read transaction, and none is held between pages."""

Query = str | EmbeddingLike


class Asked(NamedTuple):
    """A search whose arguments are checked: when, queries (float32, shape (q, dimension)), and what may be found."""

    at: datetime
    vectors: np.ndarray[Any, np.dtype[np.float32]]
    scope: SearchScope
    min_score: float | None


class Collection(ABC, Generic[RecordT, HitT, PolicyT]):
    """One noun of one namespace, in one session."""

    _noun: ClassVar[RecordType]
    _orders: ClassVar[frozenset[str]]
    _policy: ClassVar[type[ForgetPolicy | AssemblyForgetPolicy]]

    def __init__(self, session: Session, namespace: Namespace) -> None:
        self._session = session
        self._namespace = namespace

    @abstractmethod
    def _read(self, connection: Connection, keys: Sequence[int], at: datetime) -> list[RecordT]: ...

    @abstractmethod
    def _vector_of(self, record: RecordT) -> Embedding | None: ...

    @abstractmethod
    def _hit(self, record: RecordT, score: float) -> HitT: ...

    @property
    def _space(self) -> VectorSpace:
        return self._session.spaces[self._noun.kind]

    async def get(self, id: str, *, as_of: datetime | None = None) -> RecordT:
        """The record *id* of this namespace.

        Args:
            id: the record's.
            as_of: aware; the record as it was at that moment, with all that was committed by then. See
                `memstore.Change` for what is kept; how often a record was used is not.

        Raises:
            NotFoundError: there is none, or was none then.
            HistoryError: what was there then is not known.
        """
        check_id(id)
        then = None if as_of is None else as_of_module.moment(as_of)

        def step(connection: Connection) -> RecordT:
            if then is not None:
                found = as_of_module.get(connection, self._session.spaces, self._noun, self._namespace, id, then)
                return cast("RecordT", found)
            at = now()
            return only(self._read(connection, [self._key(connection, id, at)], at))

        return await self._session.read(step)

    async def get_many(self, ids: Iterable[str]) -> dict[str, RecordT]:
        """The records among *ids* that exist, by id, in the order asked for; the others are left out."""
        asked = list_of_ids(ids)

        def step(connection: Connection) -> dict[str, RecordT]:
            at, wanted = now(), check_ids(asked)
            keys = record_rows.keys_of(connection, self._noun, self._namespace, wanted, at)
            found = [id for id in wanted if id in keys]
            records = self._read(connection, [keys[id] for id in found], at)
            return dict(zip(found, records, strict=True))

        return await self._session.read(step)

    async def delete(self, id: str) -> int:
        """Delete the record *id*; how many there were, 0 or 1. Takes the writer lock."""
        return await self.delete_many(ids=[id])

    async def delete_many(self, *, ids: Iterable[str] | None = None, where: Where | None = None) -> int:
        """Delete the records with these *ids*, or those that match *where*; how many there were.

        Takes the writer lock. All or nothing.

        Raises:
            InvalidError: not just one of the two was given.
            FilterError: *where* is empty, and would delete everything: `clear` does that.
        """
        if (ids is None) == (where is None):
            raise InvalidError("delete_many takes ids= or where=, one of them")
        asked = None if ids is None else list_of_ids(ids)
        node = None if where is None else filters.parse(where, self._noun.kind)
        if node == filters.EVERYTHING:
            raise FilterError("an empty filter would delete everything here: use clear() for that")

        def step(context: WriteContext) -> int:
            connection = context.connection
            if asked is None:
                keys = selection.selected(connection, self._selection(context.now, where=node))
            else:
                ids = check_ids(asked)
                keys = list(record_rows.keys_of(connection, self._noun, self._namespace, ids, context.now).values())
            history_writer.delete_records(context, self._noun, keys)
            return len(keys)

        return await self._session.write(step, batch=asked is None or len(asked) > CHUNK_SIZE)

    async def list(
        self,
        *,
        where: Where | None = None,
        tags: Iterable[str] = (),
        order: str = "created_at",
        recursive: bool = False,
        limit: int | None = None,
        as_of: datetime | None = None,
    ) -> AsyncIterator[RecordT]:
        """Every record that matches, one after the other, read page by page.

        No lock is held between pages. A record that is changed meanwhile so that it sorts behind the present place is
        seen again, and one that sorts before it is not seen: change what you list in an order that does not move it.

        Args:
            where: a filter.
            tags: only records that have all of these.
            order: a field to sort by, with `-` before it for descending; what is missing counts as lowest.
            recursive: also from all namespaces below this one.
            limit: how many at most; None for all.
            as_of: aware; records as they were at that moment, every page of it, whatever is changed meanwhile. Takes
                some 200 bytes of memory for every record that was changed since, or every assembly there is.

        Raises:
            FilterError: *where* is not of the language.
            InvalidError: *order* is no field one can sort by.
            HistoryError: what was there then is not known.
        """
        node, wanted = self._filter(where, tags)
        sort = self._order(order)
        left = None if limit is None else check_count("limit", limit, 1, 2**62)
        then = None if as_of is None else as_of_module.moment(as_of)
        if then is not None:
            async for record in self._past(
                self._selection(then, where=node, tags=wanted, recursive=recursive), sort, left
            ):
                yield record
            return
        place: Position | None = None
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            records, place = await self._session.read(self._page(node, wanted, sort, place, size, recursive))
            for record in records:
                yield record
                self._session.check_usable()  # of a page that is read already, too
            if place is None:
                return
            left = None if left is None else left - len(records)

    async def _past(self, chosen: Selection, order: Order, left: int | None) -> AsyncIterator[RecordT]:
        listing: as_of_module.Listing[Any] = as_of_module.Listing(self._session.spaces, chosen, order)
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            records = await self._session.read(partial(listing.page, size=size))
            for record in records:
                yield cast("RecordT", record)
                self._session.check_usable()
            if len(records) < size:
                return
            left = None if left is None else left - len(records)

    async def history(self, id: str, *, limit: int | None = None) -> builtins.list[Change]:
        """What happened to the record *id*, and to those that had the id before it, the latest first.

        Args:
            id: of a record that is there, or was.
            limit: how many changes at most; None for all that are kept, each with the vectors that it changed.

        Raises:
            NotFoundError: there is no such record, and no change of one is known.
        """
        check_id(id)
        most = None if limit is None else check_count("limit", limit, 1, 2**62)

        def step(connection: Connection) -> builtins.list[Change]:
            return as_of_module.history(connection, self._session.spaces, self._noun, self._namespace, id, most)

        return await self._session.read(step)

    def _page(
        self,
        node: filters.Node | None,
        tags: frozenset[str],
        order: Order,
        place: Position | None,
        size: int,
        recursive: bool,
    ) -> Callable[[Connection], tuple[Sequence[RecordT], Position | None]]:
        def step(connection: Connection) -> tuple[Sequence[RecordT], Position | None]:
            at = now()
            selection = self._selection(at, where=node, tags=tags, recursive=recursive)
            positions, last = record_rows.page(connection, selection, order, place, size)
            return self._read(connection, [position.pk for position in positions], at), last

        return step

    async def count(self, *, where: Where | None = None, tags: Iterable[str] = (), recursive: bool = False) -> int:
        """How many records match; arguments as of `list`."""
        node, wanted = self._filter(where, tags)

        def step(connection: Connection) -> int:
            return selection.count(connection, self._selection(now(), where=node, tags=wanted, recursive=recursive))

        return await self._session.read(step)

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
        """Find the records nearest to *query*.

        Args:
            query: numbers, shape (dimension,), rounded to float32; need not be normalised. With an embedder also text.
            limit: how many at most, 1 to 10,000.
            tags: only records that have all of these.
            where: only records that match this filter.
            min_score: only records at least this close.
            recursive: also from all namespaces below this one.

        Returns:
            At most *limit* hits, best first; equal scores in order of creation. Score is the metric's (see
            `memstore.geometry`); higher is closer. Fewer than *limit* only when fewer match. `hits.plan` says how
            they were found.

        Raises:
            DimensionError, EmbeddingError: *query* is no vector of this store.
            EmbedderError: *query* is text, and there is no embedder.
            FilterError: *where* is not of the language.
        """
        return (
            await self.search_many([query], limit, tags=tags, where=where, min_score=min_score, recursive=recursive)
        )[0]

    async def search_many(
        self,
        queries: Sequence[Query] | np.ndarray[Any, np.dtype[Any]],
        limit: int = 10,
        *,
        tags: Iterable[str] = (),
        where: Where | None = None,
        min_score: float | None = None,
        recursive: bool = False,
    ) -> builtins.list[Hits[HitT]]:
        """One `Hits` a query, in order, all of one state of the store; arguments as of `search`."""

        def answered(connection: Connection, view: View, asked: Asked) -> builtins.list[Hits[HitT]]:
            answers = view.search(self._noun.kind, asked.vectors, limit, asked.scope)
            return self._hits(connection, view, asked.at, answers, asked.min_score)

        options = {"tags": tags, "where": where, "min_score": min_score, "recursive": recursive}
        return await self._asked(queries, limit, answered, self._noun.kind, **options)

    async def plan_forget(self, policy: PolicyT, *, recursive: bool = False) -> ForgetPlan:
        """Select the records that *policy* forgets, with the reasons. Changes nothing; `forget` applies the plan.

        Args:
            policy: a `memstore.ForgetPolicy` for memories, a `memstore.AssemblyForgetPolicy` for assemblies.
            recursive: also from all namespaces below this one.

        Raises:
            InvalidError: *policy* is of another type.
        """
        if not isinstance(policy, self._policy):
            raise InvalidError(
                f"plan_forget of {self._noun.kind} records takes a memstore.{self._policy.__name__}; "
                f"got {type(policy).__name__}"
            )
        place = planner.Place(self._session.spaces, self._namespace, recursive)
        return await self._session.read(lambda connection: planner.plan(connection, place, policy))

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
            InvalidError: *plan* is for another namespace or for the other kind of records.
        """
        if not isinstance(plan, ForgetPlan) or plan.noun != self._noun.kind:
            raise InvalidError(f"forget of {self._noun.kind} records takes a plan that their plan_forget made")
        if plan.namespace != self._namespace:
            raise InvalidError(
                f"the plan is for namespace {plan.namespace!r}, and this is {self._namespace!r}: apply it there"
            )
        with as_actor(actor, reason=reason):
            return await self._session.write(lambda context: apply.forget(context, plan), batch=True)

    async def trash(self) -> AsyncIterator[TrashEntry[RecordT]]:
        """Every forgotten record of this namespace, latest first, read page by page."""
        before: int | None = None
        while True:
            page, before = await self._session.read(
                partial(
                    trash.page, noun=self._noun, space=self._space, namespace=self._namespace, before=before, limit=PAGE
                )
            )
            for entry in page:
                yield cast("TrashEntry[RecordT]", entry)
                self._session.check_usable()
            if before is None:
                return

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
        unchecked = list_of_ids(ids)

        def step(context: WriteContext) -> builtins.list[RecordT]:
            keys = trash.recover(context, self._noun, self._namespace, check_ids(unchecked))
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
        age = span("older_than", older_than)
        return await self._session.write(
            lambda context: trash.purge(context, self._noun, self._namespace, age, recursive=recursive), batch=True
        )

    async def _asked(
        self,
        queries: Sequence[Query] | np.ndarray[Any, np.dtype[Any]],
        limit: int,
        answered: Callable[[Connection, View, "Asked"], builtins.list[T]],
        kind: RecordKind,
        **options: Any,
    ) -> builtins.list[T]:
        """What *answered* makes of queries, once they and the *options* of a search are checked.

        It runs in a read transaction that the indexes equal, composites included where *kind* is that of assemblies.
        """
        node, wanted = self._filter(options["where"], options["tags"])
        check_count("limit", limit, 1, MAX_LIMIT)
        least = None if options["min_score"] is None else check_number("min_score", options["min_score"])
        asked = await self._vectors(queries)
        if not len(asked):
            self._session.check_usable()
            return []

        def step(connection: Connection, view: View) -> builtins.list[T]:
            at = now()
            vectors = np.stack([self._checked(query) for query in asked])
            scope = self._scope(connection, at, node, wanted, recursive=options["recursive"])
            return answered(connection, view, Asked(at, vectors, scope, least))

        return await self._session.search(step, kind)

    def _hits(
        self,
        connection: Connection,
        view: View,
        at: datetime,
        answers: builtins.list[tuple[SearchResult, int]],
        min_score: float | None,
    ) -> builtins.list[Hits[HitT]]:
        """The answers with their records, which are read together, each once."""
        if min_score is not None:
            answers = [(_at_least(found, min_score), own) for found, own in answers]
        keys = list(dict.fromkeys(key for found, _ in answers for key in found.keys.tolist()))
        records = dict(zip(keys, self._read(connection, keys, at), strict=False))
        if len(records) < len(keys) or any(self._vector_of(record) is None for record in records.values()):
            raise DriftError
        return [
            Hits(
                [self._hit(records[k], s) for k, s in zip(found.keys.tolist(), found.scores.tolist(), strict=True)],
                self._plan(view, found, own),
            )
            for found, own in answers
        ]

    def _plan(self, view: View, found: SearchResult, own: int) -> SearchPlan:
        return SearchPlan(
            method=found.method.name,
            reason=found.method.reason,
            engine=view.engine.name,
            rows=view.count(self._noun.kind),
            allowed=found.allowed_count,
            ef_search=found.method.candidates,
            unindexed=found.method.unindexed,
            uncommitted=own,
        )

    def _checked(self, query: object) -> np.ndarray[Any, np.dtype[np.float32]]:
        space = self._space
        return as_embedding(query, space.dimension, allow_zero=space.allow_zero, max_norm=space.max_norm)

    async def _vectors(self, queries: Sequence[Query] | np.ndarray[Any, np.dtype[Any]]) -> Sequence[object]:
        """The queries as vectors not yet checked, texts embedded."""
        asked: builtins.list[object] = listed(queries, "search_many takes a list of queries; search takes one")
        texts = {i: query for i, query in enumerate(asked) if isinstance(query, str)}
        if texts:
            made = await embed(self._session, list(texts.values()))
            for i, vector in zip(texts, made, strict=True):
                asked[i] = vector
        return asked

    def _scope(
        self, connection: Connection, at: datetime, node: filters.Node | None, tags: frozenset[str], *, recursive: bool
    ) -> SearchScope:
        """Which entries of the index may be found: settled before the search, never after."""
        keys = namespaces.scope(connection, self._namespace, recursive=recursive)
        held = None if keys is None else np.array(keys, dtype=np.int64)
        if node is None and not tags:
            return SearchScope(now=to_micros(at), namespaces=held)
        chosen = self._selection(at, where=node, tags=tags, recursive=recursive)
        return SearchScope(now=to_micros(at), namespaces=held, allowed=selection.allowed(connection, chosen))

    def _filter(self, where: Where | None, tags: Iterable[str]) -> tuple[filters.Node | None, frozenset[str]]:
        node = None if where is None else filters.parse(where, self._noun.kind)
        return None if node == filters.EVERYTHING else node, check_tags(tags)

    def _selection(
        self,
        at: datetime,
        *,
        where: filters.Node | None = None,
        tags: frozenset[str] = frozenset(),
        recursive: bool = False,
    ) -> Selection:
        return Selection(
            record_type=self._noun, namespace=self._namespace, now=at, recursive=recursive, tags=tags, where=where
        )

    def _order(self, order: object) -> Order:
        column = order.removeprefix("-") if isinstance(order, str) else None
        if column not in self._orders:
            raise InvalidError(
                f"order is one of {', '.join(sorted(self._orders))}, with - before it or not; got {short_repr(order)}"
            )
        return Order(column, descending=column != order)

    def _key(self, connection: Connection, id: str, at: datetime) -> int:
        key = record_rows.key_of(connection, self._noun, self._namespace, id, at)
        if key is None:
            raise NotFoundError(self._noun.kind, id, self._namespace)
        return key


def _at_least(found: SearchResult, score: float) -> SearchResult:
    size = int((found.scores >= score).sum())
    return found._replace(keys=found.keys[:size], scores=found.scores[:size])


async def embed(session: Session, texts: list[str]) -> Sequence[object]:
    """The vectors of *texts*, by the session's embedder. Raises `EmbedderError` where there is none."""
    session.check_usable()  # before the embedder's thread is: a forked child has none
    if session.embedder is None:
        raise EmbedderError("this store has no embedder to turn text into a vector: open it with one, or give a vector")
    return await session.embedder.embed(texts, session.spaces["memory"])

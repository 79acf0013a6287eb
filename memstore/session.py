"""Sessions: the transaction that surrounds a verb.

`Autocommit` gives every write a transaction of its own. `OpenTransaction` is a transaction that the caller opened:
each verb runs in a savepoint, and its searches see the uncommitted changes. Every write, in both, starts with the
deletion of expired memories, of a limited number, and ends with the update of composites, so that no verb has to do
either (`_run_write`).
"""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from memstore.actor import Actor, current_actor
from memstore.database import Database
from memstore.database.database import ReadSnapshot
from memstore.database.transactions import (
    ROLLED_BACK,
    begin_savepoint,
    end_savepoint,
    in_write,
    savepoint,
    undo_savepoint,
)
from memstore.database.writer import BatchableOperation, WriteSession
from memstore.embedders.bound import BoundEmbedder
from memstore.errors import BusyError, DamagedError, ReadOnlyError, StorageError, TransactionError
from memstore.escaping import library_logger
from memstore.index.protocol import DriftError
from memstore.models.records import RecordKind
from memstore.repository import history_writer
from memstore.repository.context import TransactionTime, WriteContext
from memstore.repository.sqlite_only import change_log
from memstore.repository.sqlite_only.change_log import State
from memstore.repository.vectors import VectorSpace
from memstore.sync import composites
from memstore.sync.expiry import ExpirySweeper
from memstore.sync.follower import Follower
from memstore.sync.past_state import PastState
from memstore.sync.view import View
from memstore.timestamps import now

T = TypeVar("T")

_REPAIR_WAIT = 0.1  # seconds to wait for the writer; a chunk of an index snapshot takes a few hundredths

_SWEEP_WAIT = 1.0  # seconds that a background deletion waits for the writer, and closing for it

_log = library_logger()


class Session(Protocol):
    """Where verbs run. The functions it is given are synchronous, and run as a whole on a thread of the database."""

    database: Database
    spaces: dict[RecordKind, VectorSpace]
    embedder: BoundEmbedder | None
    half_life: float
    clock: Callable[[], datetime]
    """The time of a read: what has expired by then is invisible to it."""

    def check_usable(self) -> None:
        """Raise where the session cannot be used."""
        ...

    async def read(self, function: Callable[[Connection], T], *, long: bool = False) -> T:
        """Run *function* in a read transaction; *long*: it is known to take long, see `Database.call`."""
        ...

    async def write(
        self, function: Callable[[WriteContext], T], *, before: Callable[[], None] | None = None, batch: bool = False
    ) -> T:
        """Run *function* in a write transaction: all of its changes are stored, or none.

        Args:
            function: the write step. A `BatchableOperation` may be run together with others of its kind.
            before: preparation that needs no transaction; runs first.
            batch: the write takes long, so it shares its transaction with no other.
        """
        ...

    async def search(
        self, function: Callable[[Connection, View], T], kind: RecordKind = "memory", *, long: bool = False
    ) -> T:
        """Run *function*, a search for records of *kind*, in a read transaction whose state the indexes equal."""
        ...

    async def read_by_index(self, function: Callable[[Connection, View | None], T]) -> T:
        """Run *function* as `search` does if the indexes are loaded, else as `read`, without a view."""
        ...

    async def delete_expired(self) -> None:
        """Delete the rows of all memories that have expired."""
        ...


def _run_write(
    context: WriteContext,
    follower: Follower,
    sweeper: ExpirySweeper,
    first_unread: int | None,
    function: Callable[..., T],
    *arguments: object,
) -> T:
    """Run one write step, `function(context, *arguments)`, with what surrounds it.

    The change log is trimmed at most up to *first_unread*, the last change that the index has read; None: up to the
    beginning of this write.
    """
    connection = context.connection
    state = change_log.state(connection)
    guard = follower.guard
    guard.check(connection, state.epoch)
    start = state.top
    if not guard.is_settled:
        context = replace(context, spaces=guard.spaces_of(connection))
    expiry = history_writer.delete_expired(context)
    if expiry.deleted:
        composites.follow(context, start)
    if expiry.more or expiry.postponed:
        context = replace(context, has_expired_rows=True)
        sweeper.requested = sweeper.requested or expiry.more
    result = function(context, *arguments)
    if not guard.is_settled:
        context = replace(context, spaces=guard.settle(connection, start))
    history_writer.trim(context)
    end = composites.follow(context, start)
    if end // change_log.KEEP != start // change_log.KEEP:
        change_log.trim(connection, start if first_unread is None else min(start, first_unread))
    return result


class Autocommit:
    """Every write is a transaction of its own, from BEGIN to the update of the index."""

    def __init__(
        self,
        database: Database,
        follower: Follower,
        spaces: dict[RecordKind, VectorSpace],
        embedder: BoundEmbedder | None,
    ) -> None:
        self.database = database
        self.follower = follower
        self.spaces = spaces
        self.embedder = embedder
        self.half_life = database.settings.half_life
        self.clock = now
        self.sweeper = ExpirySweeper(self._sweep)

    def check_usable(self) -> None:
        """See `Session.check_usable`."""
        self.database.check_usable()

    async def read(self, function: Callable[[Connection], T], *, long: bool = False) -> T:
        """See `Session.read`."""
        try:
            return await self.database.read(function, long=long)
        except DamagedError:
            # A vector of another length: either it is damaged, or the file was replaced by one of another dimension.
            await self.database.read(self.follower.guard.check)
            raise

    async def search(
        self, function: Callable[[Connection, View], T], kind: RecordKind = "memory", *, long: bool = False
    ) -> T:
        """See `Session.search`. Composites that raw SQL made stale are updated first if nobody writes."""
        if kind == "memory":
            return await search_or_rebuild(self.follower, self.database, partial(self._search, function, long=long))

        def step(connection: Connection, view: View) -> tuple[T, bool]:
            return function(connection, view), bool(self.follower.indexes.outdated)

        result, stale = await search_or_rebuild(self.follower, self.database, partial(self._search, step, long=long))
        if stale and not self._has_open_transaction() and await self.update_composites():
            result = await self._search(function, long=long)
        return result

    async def read_by_index(self, function: Callable[[Connection, View | None], T]) -> T:
        """See `Session.read_by_index`."""
        if self.follower.indexes.applied is None:
            return await self.read(lambda connection: function(connection, None))
        return await self.search(function)

    def _search(self, function: Callable[[Connection, View], T], *, long: bool) -> Awaitable[T]:
        return self.database.call(partial(self.follower.run_current, function=function), long=long)

    async def update_composites(self) -> bool:
        """Recompute every composite that is older than its assembly's revision; False if that is not possible now.

        Reads call this, so it waits only briefly for the writer, and a failure to write is not raised.
        """
        if self.database.settings.read_only:
            return False
        try:
            await self.database.write(self._update_stale, after_commit=self.follower.after_commit, wait=_REPAIR_WAIT)
        except (BusyError, StorageError) as error:
            _log.info("stale composites were not recomputed, the next search tries again: %s", error)
            return False
        return True

    def _update_stale(self, connection: Connection, transaction: TransactionTime | None = None) -> State:
        """Delete some expired memories and recompute stale composites; the state of the file before that."""
        base = change_log.state(connection)
        self.follower.guard.check(connection, base.epoch)
        context = WriteContext(connection, self.spaces, now(), Actor(), transaction or TransactionTime())
        self._delete_expired(context)
        composites.recompute(context, self.follower.outdated_composites(connection))
        return base

    def _delete_expired(self, context: WriteContext) -> bool:
        """Delete rows of expired memories, a limited number; whether there may be more."""
        more = history_writer.delete_expired(context).more
        if more:
            self.sweeper.requested = True
        return more

    async def _sweep(self, wait: float | None = _SWEEP_WAIT, *, by_request: bool = False) -> bool:
        """Delete rows of expired memories in a transaction of its own; whether there may be more."""

        def step(connection: Connection) -> bool:
            context = WriteContext(connection, self.spaces, now())
            state = change_log.state(connection)
            self.follower.guard.check(connection, state.epoch)
            more = history_writer.delete_expired(context, by_request=by_request).more
            history_writer.trim(context)
            composites.follow(context, state.top)
            return more

        return await self.database.write(step, after_commit=self.follower.after_commit, wait=wait, batch=True)

    async def delete_expired(self) -> None:
        """Delete the rows of all memories that have expired, in several transactions."""
        self.check_no_open_transaction()
        while await self._sweep(wait=None, by_request=True):
            pass

    async def write(
        self, function: Callable[[WriteContext], T], *, before: Callable[[], None] | None = None, batch: bool = False
    ) -> T:
        """See `Session.write`. Waits for the writer, at most the store's timeout."""
        self.check_no_open_transaction()
        actor = current_actor()
        step = function.run if isinstance(function, BatchableOperation) else function

        def run(connection: Connection, *parts: object) -> Any:
            context = WriteContext(connection, self.spaces, now(), actor)
            return _run_write(context, self.follower, self.sweeper, self.follower.indexes.applied, step, *parts)

        operation: Callable[[Connection], T] = run
        if isinstance(function, BatchableOperation):
            operation = BatchableOperation((function.kind, actor), run, function.part, function.size)
        after_commit = self.follower.after_commit
        try:
            return await self.database.write(operation, before=before, after_commit=after_commit, batch=batch)
        finally:
            if self.sweeper.requested:
                self.sweeper.start()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["OpenTransaction"]:
        """Open a transaction for the caller; it is committed if the block ends, rolled back if it raises."""
        self.check_no_open_transaction()
        async with self.database.session(self.follower.after_commit) as session:
            time = TransactionTime()
            base = await session.run(lambda connection: self._update_stale(connection, time))
            opened = OpenTransaction(self, session, base, time)
            _open_transactions.set((*_open_transactions.get(), opened))
            try:
                yield opened
                opened.check_usable()
                await session.commit()
            finally:
                opened.ended = True
                _open_transactions.set(tuple(t for t in _open_transactions.get() if not t.ended))
                self.sweeper.start()

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator["SnapshotSession"]:
        """Open a snapshot for the caller: a read transaction of the state of now."""
        async with self.database.snapshot() as snapshot:
            at = self.clock()
            past = await snapshot.read(self._past_state)
            yield SnapshotSession(self, snapshot, past, at)

    def _past_state(self, connection: Connection) -> PastState:
        guard = self.follower.guard
        guard.check(connection)
        return PastState(self.follower.indexes, guard.spaces_of(connection), connection)

    def _has_open_transaction(self) -> bool:
        transactions = _open_transactions.get()
        return bool(transactions) and any(t.database is self.database and not t.ended for t in transactions)

    def check_no_open_transaction(self) -> None:
        """Raise `TransactionError` in a task that has a transaction open on this store: it would wait for itself."""
        self.database.check_usable()
        if self._has_open_transaction():
            raise TransactionError(
                "This task, or the task that started it, has a transaction open on this store, so the call would wait "
                "for itself: use tx, the open transaction, or end it first."
            )


class OpenTransaction:
    """A transaction that the caller opened, for one task at a time.

    The shared indexes hold committed data only; searches add the changes that the change log shows for this
    transaction.
    """

    def __init__(self, owner: Autocommit, session: WriteSession, base: State, time: TransactionTime) -> None:
        self.database = owner.database
        self.spaces = dict(owner.spaces)
        self.embedder = owner.embedder
        self.half_life = owner.half_life
        self.clock = now
        self.ended = False
        self._owner = owner
        self._session = session
        self._base = base
        self._busy = False
        self._savepoint_numbers = itertools.count()
        self._time = time

    async def read(self, function: Callable[[Connection], T], *, long: bool = False) -> T:  # noqa: ARG002
        """See `Session.read`: on the transaction's own connection, so it sees its changes."""
        return await self._run(function)

    async def search(
        self,
        function: Callable[[Connection, View], T],
        kind: RecordKind = "memory",
        *,
        long: bool = False,  # noqa: ARG002 - on the transaction's own connection
    ) -> T:
        """See `Session.search`."""
        if kind == "assembly":
            await self.write(lambda context: None)  # noqa: ARG005 - deletes expired memories and updates composites
        return await search_or_rebuild(self._owner.follower, self.database, lambda: self._search(function))

    async def read_by_index(self, function: Callable[[Connection, View | None], T]) -> T:
        """See `Session.read_by_index`; always from the rows, which have the changes of the transaction."""
        return await self.read(lambda connection: function(connection, None))

    async def delete_expired(self) -> None:
        """See `Session.delete_expired`: in this transaction."""

        def step(context: WriteContext) -> None:
            while history_writer.delete_expired(context).more:
                pass

        await self.write(step)

    async def _search(self, function: Callable[[Connection, View], T]) -> T:
        follower = self._owner.follower
        for _ in range(2):
            result = await self._run(
                lambda connection: (follower.run_in_transaction(connection, self._base, _boxed(function)),)
            )
            if result[0] is not None:
                return result[0][0]
            # The indexes are not loaded, or are behind. A reader brings them to the state this transaction began in.
            await self.database.call(lambda connection: follower.run_current(connection, lambda c, v: None))  # noqa: ARG005
        raise TransactionError(
            "The index could not be brought to the state in which this transaction began. Start the transaction again."
        )

    async def write(
        self,
        function: Callable[[WriteContext], T],
        *,
        before: Callable[[], None] | None = None,
        batch: bool = False,  # noqa: ARG002 - the transaction has the writer to itself
    ) -> T:
        """See `Session.write`: in a savepoint; if it raises, the transaction can continue without it."""
        actor = current_actor()

        def step(connection: Connection) -> T:
            if before is not None:
                before()
            with savepoint(connection, "verb"):
                context = WriteContext(connection, self.spaces, now(), actor, self._time)
                return _run_write(context, self._owner.follower, self._owner.sweeper, self._base.top, function)

        return await self._run(step)

    @asynccontextmanager
    async def nested(self) -> AsyncIterator[None]:
        """A part of the transaction that is rolled back alone if its block raises."""
        name = f"nested_{next(self._savepoint_numbers)}"
        begun = False

        def begin(connection: Connection) -> None:
            nonlocal begun
            begin_savepoint(connection, name)
            begun = True

        try:
            await self._run(begin)
            yield
            await self._run(lambda connection: end_savepoint(connection, name))
        except BaseException:
            if begun and not self.ended:
                # Not by `_run`: the rollback must happen even while another task uses the transaction.
                await self._session.run(lambda connection: undo_savepoint(connection, name))
            raise

    def check_usable(self) -> None:
        """Raise `TransactionError` where the transaction cannot be used."""
        self.database.check_usable()
        if self.ended:
            raise TransactionError("This transaction has ended. Open a new one.")
        if self._busy:
            raise TransactionError(
                "This transaction is in use by another task. Use a transaction from one task at a time."
            )

    async def _run(self, function: Callable[[Connection], T]) -> T:
        self.check_usable()

        def step(connection: Connection) -> T:
            if not in_write(connection):
                raise TransactionError(ROLLED_BACK)
            if not self._owner.follower.guard.is_settled:
                self.spaces.update(self._owner.follower.guard.spaces_of(connection))
            return function(connection)

        self._busy = True
        try:
            return await self._session.run(step)
        finally:
            self._busy = False


class SnapshotSession:
    """Reads of one state of the store, and of one time. Any number of tasks may use it; writes raise.

    The transaction of the snapshot's connection fixes the rows. Searches compare the vectors of the same state, see
    `PastState`.
    """

    def __init__(self, owner: Autocommit, snapshot: ReadSnapshot, past: PastState, at: datetime) -> None:
        self.database = owner.database
        self.spaces = past.spaces
        self.embedder = owner.embedder
        self.half_life = owner.half_life
        self._owner = owner
        self._snapshot = snapshot
        self._past = past
        self.clock = lambda: at

    def check_usable(self) -> None:
        """See `Session.check_usable`."""
        self.database.check_usable()
        if self._snapshot.ended:
            raise TransactionError("This snapshot has ended. Open a new one.")

    async def read(self, function: Callable[[Connection], T], *, long: bool = False) -> T:  # noqa: ARG002
        """See `Session.read`."""
        self.check_usable()
        return await self._snapshot.read(function)

    async def write(
        self,
        function: Callable[[WriteContext], T],  # noqa: ARG002 - the form of `Session.write`
        *,
        before: Callable[[], None] | None = None,  # noqa: ARG002
        batch: bool = False,  # noqa: ARG002
    ) -> T:
        """Raise `ReadOnlyError`."""
        self.check_usable()
        raise ReadOnlyError("A snapshot only reads: write through the store, or through store.transaction()")

    async def delete_expired(self) -> None:
        """Raise `ReadOnlyError`."""
        await self.write(lambda context: None)  # noqa: ARG005

    async def search(
        self,
        function: Callable[[Connection, View], T],
        kind: RecordKind = "memory",  # noqa: ARG002 - the form of `Session.search`
        *,
        long: bool = False,  # noqa: ARG002
    ) -> T:
        """See `Session.search`."""
        follower = self._owner.follower
        try:
            for _ in range(2):
                result = await self.read(partial(self._past.run, function=function))
                if result is not None:
                    return result[0]
                if not await self.database.call(partial(follower.run_current, function=self._past.attach)):
                    break
        except DriftError:
            _log.error("the index names a record that does not exist: a snapshot reads its vectors from the rows")
        try:
            return await self.read(partial(self._past.run_alone, function=function))
        except DriftError:
            raise _unreadable_vectors() from None

    async def read_by_index(self, function: Callable[[Connection, View | None], T]) -> T:
        """See `Session.read_by_index`; always from the rows."""
        return await self.read(lambda connection: function(connection, None))


def check_no_open_transaction(path: str) -> None:
    """Raise `TransactionError` in a task that has a transaction open on a store in the file *path*."""
    if any(t.database.settings.path == path and not t.ended for t in _open_transactions.get()):
        raise TransactionError(
            f"This task, or the task that started it, has a transaction open on {path!r}, so the call would wait for "
            "itself. End the transaction first."
        )


def _boxed(function: Callable[[Connection, View], T]) -> Callable[[Connection, View], tuple[T]]:
    """*function* with its result in a tuple, so that a result of None differs from no result."""
    return lambda connection, view: (function(connection, view),)


async def search_or_rebuild(follower: Follower, database: Database, search: Callable[[], Awaitable[T]]) -> T:
    """The result of *search*; if the index names a record that does not exist, the index is rebuilt once first."""
    try:
        return await search()
    except DriftError:
        _log.error("the index names a record that does not exist: it is rebuilt from the rows")
        await database.call(lambda _: follower.drop())
    try:
        return await search()
    except DriftError:
        raise _unreadable_vectors() from None


def _unreadable_vectors() -> DamagedError:
    return DamagedError(
        "The file has vectors of records that cannot be read. Run `memstore check` to list them, or restore a backup."
    )


_open_transactions: ContextVar[tuple[OpenTransaction, ...]] = ContextVar("memstore_transactions", default=())

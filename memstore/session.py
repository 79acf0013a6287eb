"""Sessions: where a verb's statements run, and what surrounds them.

`Autocommit` gives every write a transaction of its own. `OpenTransaction` is one that the caller opened: every verb
in a savepoint, its searches seeing what it has changed. Both end every write in the same way (`_step`): expired
memories are deleted first, composites follow last.
"""

import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from memstore.actor import Actor, author
from memstore.database import Database
from memstore.database.transactions import begin_savepoint, end_savepoint, in_write, savepoint, undo_savepoint
from memstore.database.writer import BatchableOperation, WriteSession
from memstore.embedders.bound import BoundEmbedder
from memstore.errors import BusyError, DamagedError, StorageError, TransactionError
from memstore.index.protocol import DriftError
from memstore.models.records import RecordKind
from memstore.repository import history_writer, records
from memstore.repository.history_writer import TransactionTime
from memstore.repository.sqlite_only import change_log
from memstore.repository.sqlite_only.change_log import State
from memstore.repository.vectors import VectorSpace
from memstore.sync import composites
from memstore.sync.follower import Follower, View
from memstore.timestamps import now

S = TypeVar("S")
T = TypeVar("T")

_MOMENT = 0.1  # seconds; a chunk of a snapshot takes a few hundredths

_log = logging.getLogger("memstore")


class Session(Protocol):
    """Where verbs run. Functions given to it are plain, and run whole on a thread of the database's."""

    spaces: dict[RecordKind, VectorSpace]
    embedder: BoundEmbedder | None
    half_life: float

    def check_usable(self) -> None:
        """Raise where the session cannot be used."""
        ...

    async def read(self, function: Callable[[Connection], T]) -> T:
        """Run *function* in a read transaction."""
        ...

    async def write(
        self, function: Callable[[Connection], T], *, before: Callable[[], None] | None = None, batch: bool = False
    ) -> T:
        """Run *function* so that all it does is done, or nothing; *before* it, what needs no transaction.

        A *batch* takes long enough to hold up other writes that would share its transaction: they do not. One that is
        `BatchableOperation` others may be done together with them.
        """
        ...

    async def search(self, function: Callable[[Connection, View], T], kind: RecordKind = "memory") -> T:
        """Run *function*, a search for records of *kind*, in a read transaction that the indexes equal."""
        ...


def _step(
    connection: Connection,
    follower: Follower,
    function: Callable[[Connection], T],
    unread: int | None,
    by: Actor,
    moment: TransactionTime,
) -> T:
    """One write. What the log says after *unread* is still to be read, and kept; None: what it says after this began.

    The transaction may hold more than this write, and all that it changed is to be read after COMMIT. What it changes
    is *by* somebody, at the *moment* of the transaction.
    """
    follower.history.check(connection)
    since = change_log.top(connection)
    with history_writer.written_by(connection, by, moment):
        history_writer.purge_expired(connection, now())
        result = function(connection)
        history_writer.trim(connection, moment)
    top = composites.follow(connection, follower.spaces, since)
    if top // change_log.KEEP != since // change_log.KEEP:
        change_log.trim(connection, since if unread is None else min(since, unread))
    return result


class Autocommit:
    """Every write is a transaction of its own, from BEGIN to the index."""

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

    def check_usable(self) -> None:
        """See `Session.check_usable`."""
        self.database.check_usable()

    async def read(self, function: Callable[[Connection], T]) -> T:
        """See `Session.read`."""
        try:
            return await self.database.read(function)
        except DamagedError:  # a vector of another length: is it damaged, or are all of them other ones by now?
            await self.database.read(self.follower.history.check)
            raise

    async def search(self, function: Callable[[Connection, View], T], kind: RecordKind = "memory") -> T:
        """See `Session.search`. Composites that raw SQL or time left behind are mended first, if nobody is writing."""

        def step(connection: Connection, view: View) -> tuple[T, bool]:
            behind = kind == "assembly" and (bool(self.follower.lagging) or records.any_expired(connection, now()))
            return function(connection, view), behind

        found, behind = await healed(self.follower, self.database, lambda: self._searched(step))
        if behind and not self._inside_own() and await self.mend_composites():
            found = await self._searched(function)
        return found

    async def _searched(self, function: Callable[[Connection, View], T]) -> T:
        return await self.database.call(lambda connection: self.follower.consistent(connection, function))

    async def mend_composites(self) -> bool:
        """Compute again every composite that is not of its assembly's present revision; False if not just now.

        Reads call this: it waits for no more than a piece of the store's own upkeep, and what keeps it from writing is
        no error of theirs.
        """
        if self.database.settings.read_only:
            return False
        try:
            await self.database.write(self._mend, wait=_MOMENT)
        except (BusyError, StorageError) as error:
            _log.info("composites that are out of date could not be computed again just now: %s", error)
            return False
        return True

    def _mend(self, connection: Connection, moment: TransactionTime | None = None) -> State:
        self.follower.history.check(connection)
        base = change_log.state(connection)
        with history_writer.written_by(connection, Actor(), moment or TransactionTime()):
            history_writer.purge_expired(connection, now())
        composites.recompute(connection, self.spaces, self.follower.lagging_now(connection))
        return base

    async def write(
        self, function: Callable[[Connection], T], *, before: Callable[[], None] | None = None, batch: bool = False
    ) -> T:
        """See `Session.write`. Waits for the writer, at most the store's timeout."""
        self.refuse_inside_own()
        by = author()

        def around(connection: Connection, function: Callable[[Connection], S]) -> S:
            return _step(connection, self.follower, function, self.follower.applied, by, TransactionTime())

        step: Callable[[Connection], T]
        step = (
            function.inside(around, by) if isinstance(function, BatchableOperation) else lambda c: around(c, function)
        )
        return await self.database.write(step, before=before, batch=batch)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["OpenTransaction"]:
        """Open a transaction of the caller's; it is committed if the block ends well, rolled back if it raises."""
        self.refuse_inside_own()
        async with self.database.session() as session:
            moment = TransactionTime()
            base = await session.run(lambda connection: self._mend(connection, moment))
            opened = OpenTransaction(self, session, base, moment)
            _of_this_task.set((*_of_this_task.get(), opened))
            try:
                yield opened
                opened.check_usable()
                await session.commit()
            finally:
                opened.ended = True
                _of_this_task.set(tuple(t for t in _of_this_task.get() if not t.ended))

    def _inside_own(self) -> bool:
        return any(t.database is self.database and not t.ended for t in _of_this_task.get())

    def refuse_inside_own(self) -> None:
        """Raise `TransactionError` in a task whose own transaction on this store is open: it would wait for itself."""
        self.database.check_usable()
        if self._inside_own():
            raise TransactionError(
                "this task, or the one that started it, has a transaction open on this store, and would wait for it: "
                "use tx"
            )


class OpenTransaction:
    """A transaction of the caller's, for one task at a time.

    Nothing of it is in the shared indexes: its searches lay over them what the change log says it has changed.
    """

    def __init__(self, owner: Autocommit, session: WriteSession, base: State, moment: TransactionTime) -> None:
        self.database = owner.database
        self.spaces = owner.spaces
        self.embedder = owner.embedder
        self.half_life = owner.half_life
        self.ended = False
        self._owner = owner
        self._session = session
        self._base = base
        self._busy = False
        self._marks = itertools.count()
        self._moment = moment

    async def read(self, function: Callable[[Connection], T]) -> T:
        """See `Session.read`: on the transaction's own connection, so it sees its changes."""
        return await self._run(function)

    async def search(self, function: Callable[[Connection, View], T], kind: RecordKind = "memory") -> T:
        """See `Session.search`."""
        if kind == "assembly":
            await self.write(lambda connection: None)  # noqa: ARG005 - what has expired leaves its assemblies
        return await healed(self._owner.follower, self.database, lambda: self._searched(function))

    async def _searched(self, function: Callable[[Connection, View], T]) -> T:
        follower = self._owner.follower
        for _ in range(2):
            found = await self._run(lambda connection: (follower.at(connection, self._base, _boxed(function)),))
            if found[0] is not None:
                return found[0][0]
            # The indexes are not loaded, or behind. A reader sees just what was committed when this began.
            await self.database.call(lambda connection: follower.consistent(connection, lambda c, v: None))  # noqa: ARG005
        raise TransactionError("the index could not be brought to the state this transaction began in: try again")

    async def write(
        self,
        function: Callable[[Connection], T],
        *,
        before: Callable[[], None] | None = None,
        batch: bool = False,  # noqa: ARG002 - it has the writer to itself
    ) -> T:
        """See `Session.write`: in a savepoint of its own; if it raises, the transaction may go on without it."""
        by = author()

        def step(connection: Connection) -> T:
            if before is not None:
                before()
            with savepoint(connection, "verb"):
                return _step(connection, self._owner.follower, function, self._base.top, by, self._moment)

        return await self._run(step)

    @asynccontextmanager
    async def nested(self) -> AsyncIterator[None]:
        """A part of the transaction that is undone alone if its block raises."""
        mark = f"nested_{next(self._marks)}"
        begun = False

        def begin(connection: Connection) -> None:
            nonlocal begun
            begin_savepoint(connection, mark)
            begun = True

        try:
            await self._run(begin)
            yield
            await self._run(lambda connection: end_savepoint(connection, mark))
        except BaseException:
            if begun and not self.ended:
                # Straight to the thread, behind whatever another task has there: it must be undone in any case.
                await self._session.run(lambda connection: undo_savepoint(connection, mark))
            raise

    def check_usable(self) -> None:
        """Raise `TransactionError` where the transaction cannot be used."""
        self.database.check_usable()
        if self.ended:
            raise TransactionError("this transaction has ended: open another")
        if self._busy:
            raise TransactionError("this transaction is in use by another task: one task at a time may use it")

    async def _run(self, function: Callable[[Connection], T]) -> T:
        self.check_usable()

        def step(connection: Connection) -> T:
            if not in_write(connection):
                raise TransactionError(
                    "SQLite gave this transaction up after a failure: nothing of it was stored, start again"
                )
            return function(connection)

        self._busy = True
        try:
            return await self._session.run(step)
        finally:
            self._busy = False


def refuse_inside_own(path: str) -> None:
    """Raise `TransactionError` in a task whose own transaction on a store in the file *path* is open."""
    if any(t.database.settings.path == path and not t.ended for t in _of_this_task.get()):
        raise TransactionError(
            f"this task, or the one that started it, has a transaction open on {path!r}, and would wait for it: end it"
        )


def _boxed(function: Callable[[Connection, View], T]) -> Callable[[Connection, View], tuple[T]]:
    return lambda connection, view: (function(connection, view),)


async def healed(follower: Follower, database: Database, search: Callable[[], Awaitable[T]]) -> T:
    """The outcome of *search*; where the index names a record that does not exist it is built anew, once."""
    try:
        return await search()
    except DriftError:
        _log.error("the index named a record that does not exist: it is built anew from the rows")
        await database.call(lambda _: follower.drop())
    try:
        return await search()
    except DriftError:
        raise DamagedError("the file has vectors of records that cannot be read: see what `check` finds") from None


_of_this_task: ContextVar[tuple[OpenTransaction, ...]] = ContextVar("memstore_transactions", default=())

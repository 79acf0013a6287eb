"""The connection that writes. Writes that wait for it at the same time share one transaction, and one COMMIT.

From BEGIN to after-commit a transaction is one function on one thread. It takes in what has queued up while the
thread was busy: nobody waits for others to come. Each write but the first has a savepoint of its own, so that one that
raises leaves nothing and the others go on; the first needs none, for it is undone with the transaction. Neighbours
that are `BatchableOperation` are done by one call, in one savepoint; if it fails they are done one by one. All are
answered together, after COMMIT and after the indexes have followed it.

Nobody's answer is to wait long for the work of others. So a batch shares its transaction with nobody, and one that is
`_LONG` seconds old takes in no more. `MOST` bounds what is prepared in one go, and cannot share the interpreter.
"""

import asyncio
import copy
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Generic, TypeVar, cast

from sqlalchemy import Connection

from memstore.concurrency import tell
from memstore.database import driver_errors, transactions
from memstore.database.connection_thread import ConnectionThread, Step
from memstore.database.file_identity import OpenedFile
from memstore.database.write_queue import WriteQueue, WriteRequest
from memstore.errors import BusyError, ClosedError, CommitUnknownError, StorageError, TransactionError

T = TypeVar("T")
TargetT = TypeVar("TargetT")
PartT = TypeVar("PartT")

MOST = 64
"""Writes that share a transaction at most."""

_LONG = 0.02
_TOGETHER = (
    100  # rows, or whatever `BatchableOperation.size` counts, that one call brings at most: a few milliseconds of work
)
_SLOW_WAIT = 1.0  # seconds after which a wait for the writer is worth a line in the log
_log = logging.getLogger("memstore")


class BatchableOperation(Generic[TargetT, PartT, T]):
    """A step that can be done together with others of its *kind*, for less than one after the other.

    Args:
        kind: equal for steps whose *run* is the same.
        run: does all that the parts it is given say, in their order, or raises; what comes of each.
        part: this step's own; it may be filled while the step is prepared.
        size: about how many rows it brings.
    """

    __slots__ = ("kind", "part", "run", "size")

    def __init__(
        self, kind: Hashable, run: Callable[[TargetT, Sequence[PartT]], Sequence[T]], part: PartT, size: int
    ) -> None:
        self.kind = kind
        self.run = run
        self.part = part
        self.size = size

    def __call__(self, target: TargetT) -> T:
        """Do it alone."""
        return self.run(target, [self.part])[0]

    def inside(
        self, around: Callable[[Connection, Callable[[TargetT], Sequence[T]]], Sequence[T]], by: Hashable
    ) -> "BatchableOperation[Connection, PartT, T]":
        """The same step, but that *around* runs it, once however many *by* the same are done together."""

        def run(connection: Connection, parts: Sequence[PartT]) -> Sequence[T]:
            return around(connection, lambda target: self.run(target, parts))

        return BatchableOperation((self.kind, by), run, self.part, self.size)


class Job(WriteRequest[T]):
    """A write: *before*, which needs no transaction, then *function* in one that it shares unless it is a *batch*."""

    def __init__(
        self, line: WriteQueue, wait: float, function: Step[T], before: Callable[[], None] | None, *, batch: bool
    ) -> None:
        super().__init__(line, wait, alone=batch)
        self.function = function
        self.before = before

    def prepare(self) -> None:
        """Do, once, what needs no transaction. Its time is no time of waiting for others."""
        before, self.before = self.before, None
        if before is None:
            return
        began, deadline = time.monotonic(), self.deadline
        self.deadline = math.inf
        try:
            before()
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            self.error = error
        self.deadline = deadline + time.monotonic() - began

    def run(self, connection: Connection) -> None:
        """Do what needs a transaction."""
        self.value = self.function(connection)
        if not transactions.in_write(connection):
            raise TransactionError(transactions.GIVEN_UP)


class ExclusiveRequest(WriteRequest[None]):
    """The writer for oneself, in a transaction that *begins* with it or in none."""

    def __init__(self, line: WriteQueue, wait: float, *, begins: bool) -> None:
        super().__init__(line, wait, alone=True)
        self.begins = begins
        self.granted = False


class Writer:
    """The connection that writes, and the line of those who wait for it.

    Args:
        driver: the connection and its thread.
        timeout: seconds to wait for other writers.
        file: what it writes to.

    Attributes:
        turns: how many transactions have ended, counted by the event loop alone.
    """

    def __init__(self, driver: ConnectionThread, timeout: float, file: OpenedFile) -> None:
        self.driver = driver
        self._file = file
        self.closed = False
        self.committed: Callable[[Connection], None] = lambda connection: None  # noqa: ARG005
        self._unknown: CommitUnknownError | None = None
        self.turns = 0
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._line = WriteQueue(self._begin)

    async def write(
        self, function: Step[T], before: Callable[[], None] | None, *, wait: float | None, batch: bool
    ) -> T:
        """See `Database.write`."""
        wait = self._timeout if wait is None else wait
        return await self._line.enter(Job(self._line, wait, function, before, batch=batch))

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Be the only one who may write, in no transaction; also where nobody may any more."""
        turn = ExclusiveRequest(self._line, self._timeout, begins=False)
        try:
            await self._line.enter(turn)
            yield
        finally:
            if turn.granted and not self.driver.forked:
                self._line.hand_on()

    @asynccontextmanager
    async def session(self) -> AsyncIterator["WriteSession"]:
        """See `Database.session`."""
        session = WriteSession(self)
        turn = ExclusiveRequest(self._line, self._timeout, begins=True)
        try:
            await self._line.enter(turn)
            yield session
        finally:
            if turn.granted and not self.driver.forked:
                try:
                    if not session.committed:
                        await self.driver.submit(transactions.rollback)
                finally:
                    self.turns += 1
                    self._line.hand_on()

    def commit(self, connection: Connection) -> None:
        """COMMIT to after-commit, on the thread; what cannot be committed is rolled back."""
        try:
            self._file.check()  # a transaction of a user's may have taken long
            transactions.commit(connection)
        except CommitUnknownError as error:
            self._unknown = error
            raise
        except BaseException:
            transactions.rollback(connection)
            raise
        self.committed(connection)

    def _begin(self, place: WriteRequest[Any]) -> bool:
        """Have the turn of *place* begin; False where it may not write, and was told so."""
        if isinstance(place, ExclusiveRequest) and not place.begins:
            place.granted = self._line.take(place)
            place.answer()
            return place.granted
        refusal = ClosedError("the store is closed: open it again") if self.closed else self._unknown
        if refusal is None:
            self.driver.post(partial(self._open, place) if isinstance(place, ExclusiveRequest) else self._write)
            return True
        if self._line.take(place):
            place.error = _own(refusal)
            place.answer()
        return False

    # What follows runs on the thread, but for `_opened` and `_written`, with which it hands back.

    def _open(self, turn: ExclusiveRequest, connection: Connection) -> None:
        """The transaction of a session begins."""
        try:
            if self._locked(connection, [turn]):
                turn.granted = self._took(turn)
                if not turn.granted:
                    transactions.rollback(connection)
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            self._fail([turn], error)
        tell(self._loop, self._opened, turn)

    def _opened(self, turn: ExclusiveRequest) -> None:
        if turn.granted:
            turn.answer()
        else:
            self._line.hand_on()

    def _write(self, connection: Connection) -> None:
        """One transaction, of the jobs that are first in line."""
        jobs: list[Job[Any]] = []  # those whose turn it was, in order
        try:
            self._share(connection, jobs)
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            for job in jobs:
                job.error = job.error or _own(error)
        tell(self._loop, self._written, jobs)

    def _written(self, jobs: list[Job[Any]]) -> None:
        self.turns += 1
        self._line.hand_on()
        for job in jobs:
            job.answer()

    def _share(self, connection: Connection, jobs: list[Job[Any]]) -> None:
        # What had this turn may have been cancelled, and a session be the first now: it gets a turn of its own.
        front = [place for place in self._line.front(MOST) if isinstance(place, Job)]
        for job in front:
            job.prepare()
            if job.error is not None and self._took(job):
                jobs.append(job)
        if self._locked(connection, front):
            try:
                if self._run(connection, front, jobs):
                    self.commit(connection)
            finally:
                transactions.rollback(connection)  # if it is still open

    def _run(self, connection: Connection, front: Sequence[Job[Any]], jobs: list[Job[Any]]) -> bool:
        """Run those of *front* that are in line still; whether there is anything to commit."""
        began = time.monotonic()
        done = 0
        for group in _neighbours(front):
            if done and time.monotonic() - began > _LONG:
                break  # the rest is still in line, and first
            taken = [job for job in group if self._took(job)]
            jobs += taken
            if len(taken) > 1 and _together(connection, taken):
                done += len(taken)
                continue
            marked = done > 0 or len(taken) > 1
            for job in taken:
                try:
                    with transactions.savepoint(connection, "job") if marked else driver_errors.translated():
                        job.run(connection)
                    done += 1
                except BaseException as error:  # noqa: BLE001 - handed to whoever waits
                    job.error = error
                    if not marked:
                        return False
                    _check_open(connection, error)
        return done > 0

    def _locked(self, connection: Connection, places: Sequence[WriteRequest[Any]]) -> bool:
        """Take the file's write lock for *places*; False when none of them waits for it any more."""
        while waiting := [place for place in places if self._line.holds(place)]:
            left = min(place.deadline for place in waiting) - time.monotonic()
            try:
                self._file.check()  # before a page of it reaches a log that may be another file's by now
                transactions.begin_write(connection, left, lambda: any(map(self._line.holds, waiting)))
                return True
            except BusyError as error:
                over = [place for place in waiting if place.deadline <= time.monotonic()]
                self._fail(over, error)
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits
                self._fail(waiting, error)
        return False

    def _fail(self, places: Sequence[WriteRequest[Any]], error: BaseException) -> None:
        for place in places:
            if self._line.take(place):
                place.error = _own(error)
                tell(self._loop, place.answer)

    def _took(self, place: WriteRequest[Any]) -> bool:
        """Whether the turn of *place* begins with this: it is still in line, and from here on nothing takes it out."""
        waited, taken = time.monotonic() - place.since, self._line.take(place)
        if taken and waited > _SLOW_WAIT:
            _log.info("a write waited %.1f s for its turn", waited)
        return taken


class WriteSession:
    """A write transaction that takes several hops; `Database.session` opens and ends it."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.committed = False

    async def run(self, function: Step[T]) -> T:
        """Run *function* inside the transaction, on the writer's thread."""

        def step(connection: Connection) -> T:
            with driver_errors.translated():
                return function(connection)

        return await self._writer.driver.submit(step)

    async def commit(self) -> None:
        """COMMIT to after-commit, as one function; once it has begun, only its outcome counts."""
        try:
            await self._writer.driver.submit(self._writer.commit)
        finally:
            self.committed = True  # it ended, one way or the other: there is nothing left to roll back


def _neighbours(jobs: Sequence[Job[Any]]) -> Iterator[list[Job[Any]]]:
    """*jobs* in order: those that are alike and stand side by side together, every other alone."""
    group: list[Job[Any]] = []
    kind: Hashable | None = None
    size = 0
    for job in jobs:
        step = job.function
        mine, more = (step.kind, step.size) if isinstance(step, BatchableOperation) else (None, 0)
        size += more
        if group and (mine is None or mine != kind or size > _TOGETHER):
            yield group
            group, size = [], more
        kind = mine
        group.append(job)
    if group:
        yield group


def _together(connection: Connection, jobs: Sequence[Job[Any]]) -> bool:
    """Do jobs that are alike by one call; False where it failed, and left nothing."""
    steps: list[BatchableOperation[Any, Any, Any]] = [
        cast("BatchableOperation[Any, Any, Any]", job.function) for job in jobs
    ]
    try:
        with transactions.savepoint(connection, "job"):
            values = steps[0].run(connection, [step.part for step in steps])
    except Exception as error:  # noqa: BLE001 - it is raised again to whoever is at fault, when each is done alone
        _check_open(connection, error)
        return False
    for job, value in zip(jobs, values, strict=True):
        job.value = value
    return True


def _check_open(connection: Connection, error: BaseException) -> None:
    """Raise where the failure of one write ended the transaction that it shared."""
    if not transactions.in_write(connection):
        raise StorageError(f"{transactions.GIVEN_UP} (it was shared with a write that failed: {error})") from error


def _own(error: BaseException) -> BaseException:
    """*error* for one more who is told of it: one exception raised by two tasks would mix their tracebacks."""
    if not isinstance(error, StorageError | BusyError | TransactionError | ClosedError):
        return error
    made = copy.copy(error).with_traceback(error.__traceback__)
    made.__cause__ = error.__cause__
    return made

"""The connection that writes. Pending writes share one transaction, and one COMMIT.

From BEGIN to the after-commit callback, a transaction is one function on one thread. It takes the requests that were
queued while the thread was busy; no request waits for others to come. Each write but the first has a savepoint, so
that a write that raises leaves nothing and the others go on. The first write needs none: the rollback of the
transaction undoes it. Adjacent requests with a `BatchableOperation` of one kind are one call in one savepoint; if that
call fails, they run one by one. All requests are answered together, after COMMIT and after the indexes have followed.

No answer may wait long for the work of others. So a batch shares its transaction with no other write, and a
transaction that is `_MAX_SHARED_TIME` old takes no more requests. `MAX_SHARED` limits how many are prepared at once.
"""

import asyncio
import copy
import math
import time
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any, Generic, TypeVar, cast

from sqlalchemy import Connection

from memstore.concurrency import call_on_loop, monotonic
from memstore.database import driver_errors, transactions
from memstore.database.checkpoint import write_back
from memstore.database.connection_thread import ConnectionThread, Step
from memstore.database.file_identity import OpenedFile
from memstore.database.file_locks import FileLocks
from memstore.database.write_queue import WriteQueue, WriteRequest
from memstore.errors import BusyError, ClosedError, StorageError, StoreReplacedError, TransactionError
from memstore.escaping import library_logger

T = TypeVar("T")
TargetT = TypeVar("TargetT")
PartT = TypeVar("PartT")
AfterCommit = Callable[[Connection], None]
"""Runs on the writer's thread right after COMMIT, before the caller is answered."""

MAX_SHARED = 64
"""Requests that share a transaction at most."""

_MAX_SHARED_TIME = 0.02  # seconds
_MAX_BATCH_SIZE = 100  # sum of `BatchableOperation.size` in one call: a few milliseconds of work
_MIN_POLL_INTERVAL, _MAX_POLL_INTERVAL = 0.001, 0.02  # seconds between two attempts to get the write byte
_RESCUE_WAIT = 1.0  # seconds that the log of a store is written back before it is given up
_SLOW_WAIT = 1.0  # seconds after which a wait for the writer is logged
_log = library_logger()


@dataclass(slots=True, eq=False)
class BatchableOperation(Generic[TargetT, PartT, T]):
    """An operation that costs less when it runs together with others of its *kind* than one after the other.

    Attributes:
        kind: equal for operations whose *run* is the same.
        run: does what all the parts say, in their order, and returns a result for each; or raises.
        part: the arguments of this operation; they may be filled in while the operation is prepared.
        size: about how many rows it writes.
    """

    kind: Hashable
    run: Callable[[TargetT, Sequence[PartT]], Sequence[T]]
    part: PartT
    size: int

    def __call__(self, target: TargetT) -> T:
        """Run it alone."""
        return self.run(target, [self.part])[0]


class OperationRequest(WriteRequest[T]):
    """A write that runs as one function.

    Args:
        queue: the queue it is in.
        wait: seconds it waits for other writers.
        function: runs in the transaction.
        before: runs on the thread before the transaction.
        after_commit: runs after the COMMIT of the transaction.
        batch: the write shares its transaction with no other.
    """

    def __init__(
        self,
        queue: WriteQueue,
        wait: float,
        function: Step[T],
        *,
        before: Callable[[], None] | None,
        after_commit: AfterCommit | None,
        batch: bool,
    ) -> None:
        super().__init__(queue, wait, exclusive=batch)
        self.function = function
        self.before = before
        self.after_commit = after_commit

    def prepare(self) -> None:
        """Run, once, what needs no transaction. Its time does not count as waiting for others."""
        before, self.before = self.before, None
        if before is None:
            return
        start, deadline = monotonic(), self.deadline
        self.deadline = math.inf
        try:
            before()
        except BaseException as error:  # noqa: BLE001 - raised by `answer`
            self.error = error
        self.deadline = deadline + monotonic() - start

    def run(self, connection: Connection) -> None:
        """Run what needs a transaction."""
        try:
            self.value = self.function(connection)
        except driver_errors.DRIVER_ERRORS as error:
            raise driver_errors.translate(error) from error
        if not transactions.in_write(connection):
            raise TransactionError(transactions.ROLLED_BACK)


class ExclusiveRequest(WriteRequest[None]):
    """A request for the writer alone, in a transaction (*begins*) or in none."""

    def __init__(self, queue: WriteQueue, wait: float, *, begins: bool) -> None:
        super().__init__(queue, wait, exclusive=True)
        self.begins = begins
        self.granted = False


class Writer:
    """The connection that writes, and the queue of pending writes.

    Args:
        thread: the connection and its thread.
        timeout: seconds to wait for other writers.
        file: the file it writes to.

    Attributes:
        transaction_count: transactions that have ended, counted by the event loop alone.
    """

    def __init__(self, thread: ConnectionThread, timeout: float, file: OpenedFile) -> None:
        self.thread = thread
        self.transaction_count = 0
        self._closed = False
        self._file = file
        self._write_locks: FileLocks | None = None  # while a transaction holds the write byte
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._queue = WriteQueue(self._begin)

    def write(
        self,
        function: Step[T],
        *,
        before: Callable[[], None] | None,
        after_commit: AfterCommit | None,
        wait: float | None,
        batch: bool,
    ) -> OperationRequest[T]:
        """See `Database.write`; the request is the future result."""
        wait = self._timeout if wait is None else wait
        request = OperationRequest(self._queue, wait, function, before=before, after_commit=after_commit, batch=batch)
        return self._queue.enqueue(request)

    def close(self) -> None:
        """Accept no more writes."""
        self._closed = True

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Keep every other writer out, without a transaction; also where no more writes are accepted."""
        request = ExclusiveRequest(self._queue, self._timeout, begins=False)
        try:
            await self._queue.enqueue(request)
            yield
        finally:
            if request.granted and not self.thread.forked:
                self._queue.start_next()

    @asynccontextmanager
    async def session(self, after_commit: AfterCommit | None) -> AsyncIterator["WriteSession"]:
        """See `Database.session`."""
        session = WriteSession(self, after_commit)
        request = ExclusiveRequest(self._queue, self._timeout, begins=True)
        try:
            await self._queue.enqueue(request)
            yield session
        finally:
            if request.granted and not self.thread.forked:
                try:
                    if not session.ended:
                        await self.thread.submit(self._roll_back)
                finally:
                    self.transaction_count += 1
                    self._queue.start_next()

    def commit(self, connection: Connection, callbacks: Iterable[AfterCommit | None]) -> None:
        """COMMIT, then the after-commit callbacks, on the thread; rolls back what cannot be committed."""
        try:
            self._file.check()  # a user's transaction may have taken long
            transactions.commit(connection)
        except BaseException:
            self._roll_back(connection)
            raise
        if self._write_locks is not None:
            self._write_locks.unlock_write()
            self._write_locks = None
        for callback in callbacks:
            if callback is not None:
                callback(connection)

    def _begin(self, request: WriteRequest[Any]) -> bool:
        """Start *request*; False where no write is accepted, and the request was answered with the reason."""
        if isinstance(request, ExclusiveRequest) and not request.begins:
            request.granted = self._queue.claim(request)
            request.answer()
            return request.granted
        if not self._closed:
            self.thread.post(
                partial(self._begin_session, request) if isinstance(request, ExclusiveRequest) else self._write
            )
            return True
        if self._queue.claim(request):
            request.error = ClosedError("The store is closed: open it again")
            request.answer()
        return False

    # The methods below run on the thread, except `_session_begun` and `_written`, which run on the event loop.

    def _begin_session(self, request: ExclusiveRequest, connection: Connection) -> None:
        try:
            if self._lock_file(connection, [request]):
                request.granted = self._claim(request)
                if not request.granted:
                    self._roll_back(connection)
        except BaseException as error:  # noqa: BLE001 - raised by `answer`
            self._fail([request], error)
        call_on_loop(self._loop, self._session_begun, request)

    def _session_begun(self, request: ExclusiveRequest) -> None:
        if request.granted:
            request.answer()
        else:
            self._queue.start_next()

    def _write(self, connection: Connection) -> None:
        """Run one transaction of the requests at the head of the queue."""
        claimed: list[OperationRequest[Any]] = []  # in order
        try:
            self._run_shared(connection, claimed)
        except BaseException as error:  # noqa: BLE001 - raised by `answer`
            for request in claimed:
                request.error = request.error or _separate(error)
        call_on_loop(self._loop, self._written, claimed)

    def _written(self, claimed: list[OperationRequest[Any]]) -> None:
        self.transaction_count += 1
        self._queue.start_next()
        for request in claimed:
            request.answer()

    def _run_shared(self, connection: Connection, claimed: list[OperationRequest[Any]]) -> None:
        # The request that started this may have been cancelled, so that a session is first now: it is started alone.
        head: list[OperationRequest[Any]] = []
        for request in self._queue.head(MAX_SHARED):
            if not isinstance(request, OperationRequest):
                return
            head.append(request)
            request.prepare()
            if request.error is not None and self._claim(request):
                claimed.append(request)
        if self._lock_file(connection, head):
            try:
                if self._run(connection, head, claimed):
                    self.commit(connection, dict.fromkeys(map(attrgetter("after_commit"), claimed)))
            finally:
                self._roll_back(connection)  # if it is still open

    def _run(
        self,
        connection: Connection,
        head: Sequence[OperationRequest[Any]],
        claimed: list[OperationRequest[Any]],
    ) -> bool:
        """Claim and run the requests of *head* that are still pending; whether there is anything to commit."""
        start = monotonic()
        done = 0
        for group in _groups(head):
            if done and monotonic() - start > _MAX_SHARED_TIME:
                break  # the rest is still first in the queue
            requests = list(filter(self._claim, group))
            claimed += requests
            if len(requests) > 1 and _run_together(connection, requests):
                done += len(requests)
                continue
            in_savepoint = done > 0 or len(requests) > 1
            for request in requests:
                try:
                    with transactions.savepoint(connection, "job") if in_savepoint else nullcontext():
                        request.run(connection)
                    done += 1
                except BaseException as error:  # noqa: BLE001 - raised by `answer`
                    request.error = error
                    if not in_savepoint:
                        return False
                    _check_open(connection, error)
        return done > 0

    def _lock_file(self, connection: Connection, requests: Sequence[WriteRequest[Any]]) -> bool:
        """Take the file's write lock for *requests*; False when none of them is pending any more."""
        while pending := self._queue.pending(requests):
            wait = min(map(attrgetter("deadline"), pending)) - monotonic()
            try:
                self._begin_write(connection, wait, pending)
                return True
            except BusyError as error:
                self._fail([request for request in pending if request.deadline <= monotonic()], error)
            except BaseException as error:  # noqa: BLE001 - raised by `answer`
                self._fail(pending, error)
        return False

    def _begin_write(self, connection: Connection, wait: float, requests: Sequence[WriteRequest[Any]]) -> None:
        try:
            self._file.check()  # before a page of it reaches a log that may belong to another file now
        except StoreReplacedError:
            with self._file.lost_log() as is_lost:
                if is_lost:
                    write_back(transactions.raw(connection), _RESCUE_WAIT)
            raise
        deadline, pause = monotonic() + wait, _MIN_POLL_INTERVAL
        # Before BEGIN: while another process that has lost SQLite's lock commits, the snapshot of BEGIN would be stale.
        while (locks := self._file.locks) is not None and not locks.lock_write():
            if monotonic() + pause > deadline or not self._queue.pending(requests):
                raise BusyError("Another process was writing for longer than the timeout: try again")
            time.sleep(pause)
            pause = min(2 * pause, _MAX_POLL_INTERVAL)
        self._write_locks = locks
        try:
            transactions.begin_write(connection, deadline - monotonic(), lambda: bool(self._queue.pending(requests)))
        except BaseException:
            self._roll_back(connection)
            raise

    def _roll_back(self, connection: Connection) -> None:
        """Roll the transaction back, if it is still open."""
        try:
            if transactions.in_write(connection):
                transactions.rollback(connection)
        finally:
            if self._write_locks is not None:
                self._write_locks.unlock_write()
                self._write_locks = None

    def _fail(self, requests: Sequence[WriteRequest[Any]], error: BaseException) -> None:
        for request in requests:
            if self._queue.claim(request):
                request.error = _separate(error)
                call_on_loop(self._loop, request.answer)

    def _claim(self, request: WriteRequest[Any]) -> bool:
        """Claim *request* to run it; False if it was removed from the queue before."""
        waited, claimed = monotonic() - request.since, self._queue.claim(request)
        if claimed and waited > _SLOW_WAIT:
            _log.info("a write waited %.1f s for the writer", waited)
        return claimed


class WriteSession:
    """A write transaction of several calls; `Database.session` opens and ends it."""

    def __init__(self, writer: Writer, after_commit: AfterCommit | None) -> None:
        self._writer = writer
        self._after_commit = [after_commit]
        self.ended = False

    async def run(self, function: Step[T]) -> T:
        """Run *function* inside the transaction, on the writer's thread."""

        def step(connection: Connection) -> T:
            with driver_errors.translated():
                return function(connection)

        return await self._writer.thread.submit(step)

    async def commit(self) -> None:
        """COMMIT and the after-commit callback, as one function that runs to its end."""
        try:
            await self._writer.thread.submit(lambda connection: self._writer.commit(connection, self._after_commit))
        finally:
            self.ended = True  # committed or rolled back


def _groups(requests: Sequence[OperationRequest[Any]]) -> list[list[OperationRequest[Any]]]:
    """*requests* in order: adjacent batchable operations of one kind as one group, every other request alone."""
    groups: list[list[OperationRequest[Any]]] = []
    group_kind: Hashable | None = None
    group_size = 0
    for request in requests:
        operation = request.function
        kind, size = (operation.kind, operation.size) if isinstance(operation, BatchableOperation) else (None, 0)
        group_size += size
        if kind is not None and kind == group_kind and group_size <= _MAX_BATCH_SIZE:
            groups[-1].append(request)
        else:
            groups.append([request])
            group_kind, group_size = kind, size
    return groups


def _run_together(connection: Connection, requests: Sequence[OperationRequest[Any]]) -> bool:
    """Run batchable operations of one kind as one call; False where it failed, and left nothing."""
    operations: list[BatchableOperation[Any, Any, Any]] = [
        cast("BatchableOperation[Any, Any, Any]", request.function) for request in requests
    ]
    try:
        with transactions.savepoint(connection, "job"):
            values = operations[0].run(connection, [operation.part for operation in operations])
    except Exception as error:  # noqa: BLE001 - the request at fault raises again when each runs alone
        _check_open(connection, error)
        return False
    for request, value in zip(requests, values, strict=True):
        request.value = value
    return True


def _check_open(connection: Connection, error: BaseException) -> None:
    """Raise if the failure of one write ended the shared transaction."""
    if not transactions.in_write(connection):
        raise StorageError(f"{transactions.ROLLED_BACK} (a write in the same transaction failed: {error})") from error


def _separate(error: BaseException) -> BaseException:
    """A copy of *error* for one more task: one exception raised in two tasks would mix their tracebacks."""
    if not isinstance(error, StorageError | BusyError | TransactionError | ClosedError):
        return error
    separate = copy.copy(error).with_traceback(error.__traceback__)
    separate.__cause__ = error.__cause__
    return separate

"""FIFO queue of pending writes.

A writer enqueues a `WriteRequest` and awaits it. Until the request is claimed, a cancellation or its deadline removes
it, and nothing of it is ever done. Once it is claimed, only its result counts.

One request, or one group of requests that share a transaction, is active at a time. The event loop adds requests and
removes cancelled ones; the writer's thread claims the requests that it runs. Removing a request claims it, and a claim
is atomic. No thread waits for anything while it holds the queue's lock.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, TypeVar

from memstore.concurrency import Timer, UncancellableFuture, call_later, monotonic, resolve
from memstore.errors import BusyError

T = TypeVar("T")
RequestT = TypeVar("RequestT", bound="WriteRequest[Any]")

_RECHECK = 1.0  # seconds until requests whose deadlines are suspended are looked at again


class WriteRequest(UncancellableFuture[T]):
    """One pending write and its result: `error` if there is one, else `value`.

    Args:
        queue: the queue it is in.
        wait: seconds it waits for other writers.
        exclusive: it shares its transaction with no other request.
    """

    def __init__(self, queue: "WriteQueue", wait: float, *, exclusive: bool) -> None:
        super().__init__()
        self.exclusive = exclusive
        self.since = monotonic()
        self.deadline = self.since + wait
        self.wait = wait
        self.value: T | None = None
        self.error: BaseException | None = None
        self._queue = queue

    def cancel(self, msg: Any | None = None) -> bool:
        """Remove the request from the queue, if it is not claimed; else as `UncancellableFuture`."""
        if not self.orphaned and not self._queue.claim(self):
            return False
        return self.cancel_now(msg)

    def answer(self) -> None:
        """Resolve the request with its `value` or `error`; called on the event loop."""
        resolve(self, self.value, self.error)
        self.value = self.error = None


class WriteQueue:
    """The pending requests, in the order in which they came.

    One timer serves all of them: most are answered long before their deadline, and a timer for each would cost more
    than all else that a request does.

    Args:
        begin: starts the request that is first; False where it could not, and claimed the request instead.
    """

    def __init__(self, begin: Callable[[WriteRequest[Any]], bool]) -> None:
        self._begin = begin
        self._requests: OrderedDict[WriteRequest[Any], None] = OrderedDict()
        self._lock = threading.Lock()
        self._active = False
        self._timer: Timer | None = None
        self._timer_end = math.inf  # meaningful while there is a timer

    def enqueue(self, request: RequestT) -> RequestT:
        """Add *request*; it starts at once if no other is active."""
        with self._lock:
            self._requests[request] = None
        if self._active:
            self._set_timer(request.deadline)
        else:
            self.start_next()
        return request

    def start_next(self) -> None:
        """Start the first request; called when none is active, or when the active one has ended."""
        self._active = True
        while True:
            with self._lock:
                first = next(iter(self._requests), None)
            if first is None:
                break
            if self._begin(first):
                return
        self._active = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def claim(self, request: WriteRequest[Any]) -> bool:
        """Remove *request*; False if it was removed before."""
        with self._lock:
            return self._requests.pop(request, self) is None

    def pending(self, requests: Iterable[RequestT]) -> list[RequestT]:
        """Those of *requests* that are still in the queue."""
        with self._lock:
            return list(filter(self._requests.__contains__, requests))

    def head(self, limit: int) -> list[WriteRequest[Any]]:
        """The first request and those directly behind it that can share its transaction, at most *limit*."""
        requests: list[WriteRequest[Any]] = []
        with self._lock:
            for request in islice(self._requests, limit):
                if request.exclusive:
                    return requests or [request]
                requests.append(request)
        return requests

    def _set_timer(self, deadline: float) -> None:
        """Check the deadlines at *deadline* or before."""
        if self._timer is not None:
            if self._timer_end <= deadline:
                return
            self._timer.cancel()
        self._timer_end = deadline
        self._timer = call_later(deadline - monotonic(), self._expire)

    def _expire(self) -> None:
        """Remove the requests whose deadline has passed. The thread moves a deadline while it prepares the request."""
        self._timer, current = None, monotonic()
        with self._lock:
            requests = list(self._requests)
        for request in requests:
            if request.deadline <= current and self.claim(request):
                request.error = BusyError(
                    f"Other tasks of this store were writing for {request.wait} s: keep transactions short, or raise "
                    "`timeout`"
                )
                request.answer()
        deadlines = [request.deadline for request in requests if request.deadline > current]
        if deadlines:
            self._set_timer(min(*deadlines, current + _RECHECK))

"""A fair readers-writer lock: access is granted in the order of requests.

Threads hold it, within one function, and never while they wait for an asyncio lock.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class FairLock:
    """Shared by any number of readers, or exclusive to one writer. Waiters are served first in, first out.

    So a stream of searches cannot starve a writer, nor writers a search.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[tuple[bool, threading.Event]] = deque()
        self._readers = 0
        self._exclusive = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold it shared."""
        self._acquire(exclusive=False)
        try:
            yield
        finally:
            with self._guard:
                self._readers -= 1
                if self._waiting:
                    self._grant_waiting()

    @contextmanager
    def exclusive(self) -> Iterator["ExclusiveHold"]:
        """Hold it exclusively; the block may downgrade to shared access (`ExclusiveHold.downgrade`)."""
        self._acquire(exclusive=True)
        hold = ExclusiveHold(self)
        try:
            yield hold
        finally:
            with self._guard:
                if hold.downgraded:
                    self._readers -= 1
                else:
                    self._exclusive = False
                if self._waiting:
                    self._grant_waiting()

    def _acquire(self, *, exclusive: bool) -> None:
        with self._guard:
            if not self._waiting and not self._exclusive and not (exclusive and self._readers):
                if exclusive:
                    self._exclusive = True
                else:
                    self._readers += 1
                return
            granted = threading.Event()
            self._waiting.append((exclusive, granted))
        granted.wait()

    def _grant_waiting(self) -> None:
        """Grant the first waiter, and all readers directly behind a reader."""
        while self._waiting and not self._exclusive:
            exclusive, granted = self._waiting[0]
            if exclusive and self._readers:
                return
            self._waiting.popleft()
            if exclusive:
                self._exclusive = True
            else:
                self._readers += 1
            granted.set()

    def _downgrade(self) -> None:
        with self._guard:
            self._exclusive = False
            self._readers += 1
            self._grant_waiting()


class ExclusiveHold:
    """Exclusive access, for as long as the block of `FairLock.exclusive` runs."""

    __slots__ = ("_lock", "downgraded")

    def __init__(self, lock: FairLock) -> None:
        self._lock = lock
        self.downgraded = False

    def downgrade(self) -> None:
        """Change to shared access; no other thread gets exclusive access in between."""
        self.downgraded = True
        self._lock._downgrade()  # noqa: SLF001 - the two classes are one lock

"""A readers/writer lock that starves nobody: whoever came first is let in first.

Held by threads, each time within one function only, and never while waiting for an asyncio lock.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class FairLock:
    """Many share it or one has it alone. Waiters are served in the order they came; neighbouring readers together."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[tuple[bool, threading.Event]] = deque()
        self._sharing = 0
        self._alone = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold it with others that share it."""
        self._enter(alone=False)
        try:
            yield
        finally:
            with self._guard:
                self._sharing -= 1
                self._admit()

    @contextmanager
    def exclusive(self) -> Iterator["Exclusive"]:
        """Hold it alone; the block may go on sharing it (`Exclusive.share`) without letting go in between."""
        self._enter(alone=True)
        hold = Exclusive(self)
        try:
            yield hold
        finally:
            with self._guard:
                if hold.alone:
                    self._alone = False
                else:
                    self._sharing -= 1
                self._admit()

    def _enter(self, *, alone: bool) -> None:
        with self._guard:
            if not self._waiting and not self._alone and not (alone and self._sharing):
                self._take(alone)
                return
            turn = threading.Event()
            self._waiting.append((alone, turn))
        turn.wait()

    def _take(self, alone: bool) -> None:
        if alone:
            self._alone = True
        else:
            self._sharing += 1

    def _admit(self) -> None:
        """Let in whoever is first in line, and the readers right behind a reader."""
        while self._waiting and not self._alone:
            alone, turn = self._waiting[0]
            if alone and self._sharing:
                return
            self._waiting.popleft()
            self._take(alone)
            turn.set()

    def _downgrade(self) -> None:
        with self._guard:
            self._alone = False
            self._sharing += 1
            self._admit()


class Exclusive:
    """The lock, held alone."""

    __slots__ = ("_lock", "alone")

    def __init__(self, lock: FairLock) -> None:
        self._lock = lock
        self.alone = True

    def share(self) -> None:
        """From now on share it; nobody held it alone in between."""
        self.alone = False
        self._lock._downgrade()  # noqa: SLF001 - the two classes are one lock

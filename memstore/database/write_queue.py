"""Who writes next: whoever asked first.

A writer takes a `WriteRequest` and awaits it. A request is queued until its turn begins; until then a cancellation or
its deadline takes it out, and nothing of it is ever done. From then on only what comes
of it counts.

One at a time has the turn. The event loop puts places in and takes them out, and the writer's thread takes out what
it begins: whoever takes a place out has it. The lock that settles this is never held while anything is waited for.
"""

import asyncio
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import Any, TypeVar

from memstore.concurrency import UncancellableFuture, settle
from memstore.errors import BusyError

T = TypeVar("T")
RequestT = TypeVar("RequestT", bound="WriteRequest[Any]")

_AGAIN = 1.0  # seconds until places whose deadlines are suspended are looked at again


class WriteRequest(UncancellableFuture[T]):
    """One who wants to write, and what comes of it: `error` if there is one, else `value`.

    Args:
        line: where it stands.
        wait: seconds it waits for others.
        alone: its turn is shared with nobody.
    """

    def __init__(self, line: "WriteQueue", wait: float, *, alone: bool) -> None:
        super().__init__()
        self.alone = alone
        self.since = time.monotonic()
        self.deadline = self.since + wait
        self.wait = wait
        self.value: T | None = None
        self.error: BaseException | None = None
        self._line = line

    def cancel(self, msg: Any | None = None) -> bool:
        """Leave the line, if the turn has not begun; else as of `UncancellableFuture`."""
        if not self.orphaned and not self._line.take(self):
            return False
        return asyncio.Future.cancel(self, msg)

    def answer(self) -> None:
        """Tell whoever awaits this what came of it."""
        settle(self, self.value, self.error)
        self.value = self.error = None


class WriteQueue:
    """The places of those who want to write, in the order in which they asked.

    One timer watches over them all: most are answered long before their deadline, so that one each would cost more
    than all else that a place does.

    Args:
        begin: has the turn of the place that is first begun; False where it could not be, and the place was taken out.
    """

    def __init__(self, begin: Callable[[WriteRequest[Any]], bool]) -> None:
        self._begin = begin
        self._places: OrderedDict[WriteRequest[Any], None] = OrderedDict()
        self._guard = threading.Lock()
        self._taken = False
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf  # when the timer ends, if there is one

    def enter(self, place: RequestT) -> RequestT:
        """Stand in line; the turn begins at once if nobody has it."""
        with self._guard:
            self._places[place] = None
        if self._taken:
            self._watch(place.deadline)
        else:
            self.hand_on()
        return place

    def hand_on(self) -> None:
        """Nobody has the turn, or its holder has done: whoever is first has it now."""
        self._taken = True
        while (first := self._first()) is not None:
            if self._begin(first):
                return
        self._taken = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def take(self, place: WriteRequest[Any]) -> bool:
        """Take *place* out of the line; False where that was done before."""
        with self._guard:
            return self._places.pop(place, self) is None

    def holds(self, place: WriteRequest[Any]) -> bool:
        """Whether *place* is in the line still."""
        with self._guard:
            return place in self._places

    def front(self, most: int) -> list[WriteRequest[Any]]:
        """Whoever is first and those right behind, *most* in all, who share a turn."""
        with self._guard:
            front = list(islice(self._places, most))
        alone = next((i for i, place in enumerate(front) if place.alone), len(front))
        return front[: max(1, alone)]

    def _first(self) -> WriteRequest[Any] | None:
        with self._guard:
            return next(iter(self._places), None)

    def _watch(self, deadline: float) -> None:
        """Have the places be looked at when *deadline* has come, if not before."""
        if self._timer is not None:
            if self._due <= deadline:
                return
            self._timer.cancel()
        self._due = deadline
        self._timer = asyncio.get_running_loop().call_later(deadline - time.monotonic(), self._look)

    def _look(self) -> None:
        """Take out the places whose deadline has come; the thread moves that while it prepares a place's work."""
        self._timer, here = None, time.monotonic()
        with self._guard:
            waiting = list(self._places)
        for place in waiting:
            if place.deadline <= here and self.take(place):
                place.error = BusyError(
                    f"other tasks of this store were writing for {place.wait} s: keep transactions short, or raise "
                    "timeout"
                )
                place.answer()
        left = [place.deadline for place in waiting if place.deadline > here]
        if left:
            self._watch(min(*left, here + _AGAIN))

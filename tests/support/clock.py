"""A clock that tests set: what the library takes for the time."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import ModuleType

from memstore import timestamps


class Clock:
    """The time of the library, which runs on, moved by *offset*."""

    def __init__(self) -> None:
        self.offset = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset

    @contextmanager
    def moved(self, offset: timedelta) -> Iterator[None]:
        """Move the clock by *offset* inside the block."""
        before, self.offset = self.offset, self.offset + offset
        try:
            yield
        finally:
            self.offset = before


@contextmanager
def clock() -> Iterator[Clock]:
    """Replace the time in all modules of the library."""
    replacement, original = Clock(), timestamps.now
    places = [(module, name) for module in _modules() for name, value in vars(module).items() if value is original]
    for module, name in places:
        setattr(module, name, replacement.now)
    try:
        yield replacement
    finally:
        for module, name in places:
            setattr(module, name, original)


def _modules() -> list[ModuleType]:
    return [module for name, module in sys.modules.items() if name.partition(".")[0] == "memstore"]

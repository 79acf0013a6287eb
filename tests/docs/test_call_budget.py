"""How many calls and modules one verb takes on its way through the package."""

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

import memstore

PACKAGE = str(Path(memstore.__file__).parent)


class Trace:
    """The modules of the package whose functions were called, in order; in all threads."""

    def __init__(self) -> None:
        self.modules: list[str] = []
        self.active = False

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if self.active and event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            self.modules.append(frame.f_code.co_filename)

    async def of(self, verb: Callable[[], Awaitable[object]]) -> tuple[int, int]:
        """The number of calls and of modules while *verb* runs."""
        self.modules.clear()
        self.active = True
        await verb()
        await asyncio.sleep(0.05)  # what a thread does after its answer counts too
        self.active = False
        return len(self.modules), len(set(self.modules))


@contextmanager
def tracing() -> Iterator[Trace]:
    """A trace of this thread and of those started inside the block."""
    trace = Trace()
    threading.setprofile(trace)
    sys.setprofile(trace)
    try:
        yield trace
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


async def calls(path: Path, verb: str) -> tuple[int, int]:
    with tracing() as trace:
        async with memstore.open(path, dimension=4) as store:
            for i in range(3):
                await store.memories.add(f"m{i}", embedding=[1, i, 0, 0], tags={"x"}, metadata={"a": 1})
            await store.memories.search([1, 0, 0, 0])
            verbs = {
                "add": lambda: store.memories.add("new", id="n", embedding=[1, 2, 3, 4], tags={"x"}, metadata={"a": 1}),
                "search": lambda: store.memories.search([1, 0, 0, 0], limit=3, tags={"x"}, where={"metadata.a": 1}),
            }
            return await trace.of(verbs[verb])


@pytest.mark.parametrize(("verb", "most_calls", "most_modules"), [("add", 180, 44), ("search", 175, 44)])
async def test_a_verb_takes_few_calls_in_few_modules(path: Path, verb: str, most_calls: int, most_modules: int) -> None:
    count, modules = await calls(path, verb)
    assert count <= most_calls, count
    assert modules <= most_modules, modules

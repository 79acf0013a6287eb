"""Waiting for a condition instead of a time: a busy machine takes longer, and the test passes all the same."""

import asyncio
import time
from collections.abc import Callable

PATIENCE = 60.0
"""Seconds after which a condition counts as one that never comes true."""


async def eventually(condition: Callable[[], bool], *, seconds: float = PATIENCE) -> None:
    """Wait until *condition* is true, while the event loop goes on. Fails after *seconds*."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.005)

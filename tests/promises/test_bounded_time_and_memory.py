"""Nothing hangs, blocks other calls, or grows without limit."""

from pathlib import Path

import pytest

import memstore
from tests.support.programs import run_python

# Reads.

# Embedders.

# Compact, members, expiry.

# Memory of the index.

# Event loops and frozen clocks.

WRITE_BEHIND_A_TRANSACTION = """
import asyncio, sys
import memstore
{before}

async def main():
    {inside}
    async with memstore.open(sys.argv[1], dimension=2, timeout={timeout}) as store:
        async def hold():
            async with store.transaction() as tx:
                await tx.memories.add("a")
                began.set()
                await ended.wait()
        began, ended = asyncio.Event(), asyncio.Event()
        holder = asyncio.create_task(hold())
        await began.wait()
        try:
            {write}
        except TimeoutError as error:
            print(type(error).__name__)
        ended.set()
        await holder
        print(await store.memories.count())
asyncio.run(main())
"""


def test_nest_asyncio_applied_after_the_import_lets_a_write_time_out(path: Path) -> None:
    pytest.importorskip("nest_asyncio")
    program = WRITE_BEHIND_A_TRANSACTION.format(
        before="import nest_asyncio; nest_asyncio.apply()",
        inside="pass",
        timeout=60,
        write="async with asyncio.timeout(0.1): await store.memories.add('b')",
    )
    result = run_python("-c", program, path, timeout=60)
    assert result.stdout.split() == ["TimeoutError", "1"], result.stderr


def test_a_frozen_clock_does_not_stop_the_timeout_of_a_write(path: Path) -> None:
    pytest.importorskip("freezegun")
    program = WRITE_BEHIND_A_TRANSACTION.format(
        before="import freezegun",
        inside="freezegun.freeze_time('2026-01-01').start()",
        timeout=0.2,
        write="await store.memories.add('b')",
    )
    result = run_python("-c", program, path, timeout=60)
    assert result.stdout.split() == ["BusyError", "1"], result.stderr


LOCK_OF_ANOTHER_PROCESS = """
import asyncio, subprocess, sys
import freezegun
import memstore

HOLD = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('BEGIN IMMEDIATE'); print(flush=True); input()"

async def main():
    async with memstore.open(sys.argv[1], dimension=2, timeout=0.2) as store:
        await store.memories.add("a")
        holder = subprocess.Popen([sys.executable, "-c", HOLD, sys.argv[1]], stdin=-1, stdout=-1)
        holder.stdout.readline()
        with freezegun.freeze_time("2026-01-01"):
            try:
                await store.memories.add("b")
            except memstore.BusyError as error:
                print(type(error).__name__)
        holder.communicate(b"\\n")
        print(await store.memories.count())
asyncio.run(main())
"""


def test_a_frozen_clock_does_not_stop_the_wait_for_another_process(path: Path) -> None:
    pytest.importorskip("freezegun")
    result = run_python("-c", LOCK_OF_ANOTHER_PROCESS, path, timeout=60)
    assert result.stdout.split() == ["BusyError", "1"], result.stderr


def test_another_event_loop_library_gets_one_clear_error(path: Path) -> None:
    trio = pytest.importorskip("trio")

    async def use() -> None:
        async with memstore.open(path, dimension=2):
            raise AssertionError

    with pytest.raises(memstore.EventLoopError, match="needs an event loop of asyncio"):
        trio.run(use)
    with pytest.raises(memstore.EventLoopError, match="needs an event loop of asyncio"):
        memstore.verify(path).send(None)
    assert not path.exists()

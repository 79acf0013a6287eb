"""Programs that end early: by Ctrl-C, without closing a store, or by an error while a store is busy.

Each runs in a process with a limit of time. It ends by itself, and leaves an intact file.
"""

# ruff: noqa: E501 - programs of one line

import asyncio
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import memstore
from tests.support.programs import run_python

# -- the end of an interpreter

PROGRAM = """
import asyncio, gc, os, signal, sys
import numpy as np
import memstore
from memstore.index import planner
planner.MERGE_MIN = 50

async def main():
    global store, kept
    store = await memstore.open({path!r}, dimension=8, timeout=5, index=memstore.IndexOptions(kind="graph", engine="faiss"))
    rows = np.random.default_rng(1).standard_normal((3_000, 8)).astype("f4")
    await store.memories.add_many([{{"content": "x", "id": str(i), "embedding": r}} for i, r in enumerate(rows)])
    print("ready", flush=True)
{body}

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(130)
"""

BODIES = {
    "open": "return",
    "upkeep": "await store.memories.search(rows[0]); await asyncio.sleep(0)",
    "a search in flight": "kept = asyncio.ensure_future(store.memories.search_many(rows)); await asyncio.sleep(0)",
    "a batch in flight": "kept = asyncio.ensure_future(store.memories.upsert_many([{'content': 'y', 'id': 'z'}] * 3_000)); await asyncio.sleep(0)",
    "an open transaction": "kept = store.transaction(); tx = await kept.__aenter__(); await tx.memories.add('lost', id='lost')",
    "a backup in flight": "kept = asyncio.ensure_future(store.backup({path!r} + '.bak')); await asyncio.sleep(0)",
    "an error": "raise SystemExit(3)",
    "an error in a transaction": "async with store.transaction() as tx:\n        await tx.memories.add('lost', id='lost'); raise SystemExit(3)",
    "collected": "global store; await store.memories.count(); del store; gc.collect()",
}  # fmt: skip


def program(path: Path, body: str) -> str:
    code = PROGRAM.format(path=str(path), body="    " + body.replace("{path!r}", repr(str(path))))
    return code.replace("    global store; await", "    await")


@pytest.mark.parametrize("name", BODIES)
def test_program_that_does_not_close_its_store_ends_and_its_file_is_intact(path: Path, name: str) -> None:
    process = run_python("-W", "default", "-c", program(path, BODIES[name]))
    assert process.returncode == (3 if "error" in name else 0), process.stderr
    assert process.stderr.count("was not closed: use `async with`") == 1
    asyncio.run(expect_intact(path))


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait for the end of *process*, and return its output; kill it if it hangs."""
    try:
        return process.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


async def expect_intact(path: Path, min_count: int = 3_000) -> None:
    """The file is intact, and takes a write that a search finds."""
    async with memstore.open(path, timeout=5) as store:
        assert await store.check() == []
        assert await store.memories.count() >= min_count
        assert "lost" not in await store.memories.get_many(["lost"])
        await store.memories.add("after", id="after", embedding=[1.0] * store.dimension)
        assert "after" in [hit.memory.id for hit in await store.memories.search([1.0] * store.dimension, 10)]
        assert await store.check() == []


BUSY = {
    "searches": "while True: await store.memories.search_many(rows[:50])",
    "writes": "while True: await store.memories.upsert_many([{'content': 'y', 'id': str(i)} for i in range(200)])",
    "a transaction": "async with store.transaction() as tx:\n        while True: await tx.memories.upsert('lost', id='lost')",
    "upkeep": "while True: await store.optimize()",
}


@pytest.mark.parametrize("name", BUSY)
def test_ctrl_c_ends_a_busy_program_and_its_file_is_intact(path: Path, name: str) -> None:
    body = "async with store:\n        " + BUSY[name].replace("\n", "\n    ")
    process = subprocess.Popen(
        [sys.executable, "-c", program(path, body)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    out, err = ended(process)
    assert (process.returncode, out) == (130, "interrupted\n"), err
    assert err == ""
    asyncio.run(expect_intact(path))


# -- Ctrl-C in the command line


def filled(path: Path, count: int) -> None:
    async def fill() -> None:
        async with memstore.open(path, dimension=8, durability="relaxed") as store:
            await store.load(
                {"content": f"m {i}", "id": f"m:{i}", "embedding": [1.0, i, *[0.0] * 6]} for i in range(count)
            )

    asyncio.run(fill())


def commands(path: Path, folder: Path) -> dict[str, list[Any]]:
    lines = folder / "lines.jsonl"
    lines.write_text(
        "".join(f'{{"content": "n {i}", "embedding": [1, {i}, 0, 0, 0, 0, 0, 0]}}\n' for i in range(8_000))
    )
    return {
        "add": ["add", "tea", "--embedding", "[1,1,1,1,1,1,1,1]", "--file", path],
        "import": ["import", lines, "--file", path],
        "optimize": ["optimize", "--file", path],
        "backup": ["backup", folder / "copy.db", "--file", path],
        "restore": ["restore", folder / "good.bak", "--yes", "--file", path],
        "check": ["check", "--file", path],
        "export": ["export", folder / "out.jsonl", "--file", path],
        "demo": ["demo", "--file", folder / "demo.db"],
    }


# The signal comes after the start of Python and the imports, which do not handle it.
STARTED = """
import importlib, pkgutil, sys
import memstore.cli
for module in pkgutil.iter_modules(memstore.cli.__path__, "memstore.cli."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
sys.stderr.write("started\\n"); sys.stderr.flush()
sys.argv = ["memstore", *sys.argv[1:]]
from memstore.cli.main import run
run()
"""


SWALLOWED = re.compile(
    r"Exception ignored in: [^\n]*\nTraceback [^\n]*\n  File [^\n]*pydantic.*?KeyboardInterrupt: *\n+", re.DOTALL
)
"""typer builds pydantic validators for the arguments of a command; a Ctrl-C in pydantic's Rust code is lost there."""


@pytest.mark.parametrize("name", ["add", "import", "optimize", "backup", "restore", "check", "export", "demo"])
def test_ctrl_c_stops_a_command_with_130_or_the_command_completes(path: Path, tmp_path: Path, name: str) -> None:
    filled(path, 4_000)
    shutil.copy(path, tmp_path / "good.bak")
    line = [sys.executable, "-c", STARTED, *map(str, commands(path, tmp_path)[name])]
    rng = random.Random(name)
    for _ in range(3):
        for file in ("copy.db", "out.jsonl"):
            (tmp_path / file).unlink(missing_ok=True)
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stderr.readline() == "started\n"
        try:
            process.wait(rng.random() * 0.6)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
        out, err = ended(process)
        err = SWALLOWED.sub("", err)
        assert "Traceback" not in out + err, err
        if process.returncode == 130:
            assert err in ("", "memstore: interrupted. Committed changes are stored, and the store is intact.\n")
            if (tmp_path / "copy.db").exists():  # the copy was complete before the signal
                assert asyncio.run(memstore.verify(tmp_path / "copy.db")).findings == []
            if (tmp_path / "out.jsonl").exists():
                assert (tmp_path / "out.jsonl").read_bytes().count(b"\n") == 4_001  # the store, and its memories
        else:
            assert process.returncode in (0, -signal.SIGINT), err  # the signal came when Python had removed its handler
            assert out != "" or name == "export", err
    asyncio.run(expect_intact(path, 4_000))
    if (tmp_path / "demo.db").exists():
        process = run_python("-m", "memstore.cli.main", "check", "--file", tmp_path / "demo.db")
        assert process.returncode in (0, 1), process.stderr


# A copy that never ends: after its first pages it calls the progress function again and again.
ENDLESS = r"""
import sys, time
from memstore.maintenance import backup as backups

def endless(*arguments):
    *rest, step = arguments

    def again(*progress):
        sys.stderr.write("copying\n"); sys.stderr.flush()
        while True:
            step(*progress)
            time.sleep(0.001)

    copy_file(*rest, again)

copy_file, backups.copy_file = backups.copy_file, endless
"""


def test_first_ctrl_c_stops_a_backup_and_leaves_no_part_of_it(path: Path, tmp_path: Path) -> None:
    filled(path, 100)
    code = ENDLESS + STARTED
    line = [sys.executable, "-c", code, "backup", str(tmp_path / "copy.db"), "--file", str(path)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert [process.stderr.readline() for _ in range(2)] == ["started\n", "copying\n"]
    assert (tmp_path / "copy.db").exists()
    process.send_signal(signal.SIGINT)
    _, err = ended(process)
    assert process.returncode == 130, err
    assert err == "memstore: interrupted. Committed changes are stored, and the store is intact.\n"
    assert not list(tmp_path.glob("copy.db*"))

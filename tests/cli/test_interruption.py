"""Ctrl-C, and readers that close the pipe."""

import json
import os
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from contextlib import closing

import pytest

from tests.cli.commands import PROGRAM, environment, lines, ok, script

if os.name != "nt":
    import fcntl
    import termios


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals and pipes")
def test_export_ends_without_a_message_when_its_reader_closes_the_pipe(small):
    async def fill(store):
        await store.memories.add_many([{"content": "x" * 1000, "embedding": [1, 2, i]} for i in range(2000)])

    script(fill, small)
    line = [*PROGRAM, "export", str(small)]
    with subprocess.Popen(line, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert json.loads(running.stdout.readline())["kind"] == "store"
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait(240) == 141


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals and pipes")
def test_ctrl_c_while_import_waits_for_stdin_keeps_what_was_committed(path):
    line = [*PROGRAM, "import", str(path), "-"]
    pipe = subprocess.PIPE
    with subprocess.Popen(line, env=environment(), stdin=pipe, stdout=pipe, stderr=pipe, text=True) as running:
        for i in range(700):
            running.stdin.write(json.dumps({"content": f"text {i}", "embedding": [1, i, 2]}) + "\n")
        running.stdin.flush()
        deadline = time.monotonic() + 60
        while not _stored(path) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)
        running.send_signal(signal.SIGINT)
        message = running.stderr.read()
        assert running.wait(240) == 130
    assert message == "memstore: interrupted. Committed changes are stored, and the store is intact.\n"
    assert ok(path, "check") == "clean\n"
    assert lines(path, "stats --json")[0]["memories"] == 500


def _unread(pipe):
    """The number of bytes in a pipe that its reader has not read."""
    return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0]


ENDLESS_EXPORT = """
import asyncio, sys
from memstore.cli import import_export
from memstore.cli.main import run

async def endless(store, path):
    async for line in lines(store, path):
        yield line
    sys.stderr.write("exporting\\n"); sys.stderr.flush()
    while True:
        await asyncio.sleep(0.001)
        yield line

lines, import_export._lines = import_export._lines, endless
sys.argv = ["memstore", *sys.argv[1:]]
run()
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals and pipes")
def test_ctrl_c_while_export_writes_a_file_deletes_it(small, tmp_path):
    target = tmp_path / "out.jsonl"
    line = [sys.executable, "-c", ENDLESS_EXPORT, "export", str(small), str(target)]
    with subprocess.Popen(line, env=environment(), stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr.readline() == "exporting\n"
        assert target.exists()
        running.send_signal(signal.SIGINT)
        message = running.stderr.read()
        assert running.wait(200) == 130
    assert message == "memstore: interrupted. Committed changes are stored, and the store is intact.\n"
    assert not target.exists()


def _stored(path):
    if not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return connection.execute("SELECT count(*) FROM memory").fetchone()[0]
    except sqlite3.OperationalError:
        return 0

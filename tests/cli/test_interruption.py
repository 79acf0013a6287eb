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

from memstore.cli.interrupts import INTERRUPTION
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
    assert message == INTERRUPTION + "\n"
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
@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_export_to_a_file_that_is_interrupted_or_killed_leaves_nothing(small, tmp_path, number):
    target = tmp_path / "out.jsonl"
    line = [sys.executable, "-c", ENDLESS_EXPORT, "export", str(small), str(target)]
    with subprocess.Popen(line, env=environment(), stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr.readline() == "exporting\n"
        running.send_signal(number)
        message = running.stderr.read()
        assert running.wait(200) == (130 if number == signal.SIGINT else -number)
    if number == signal.SIGINT:
        assert message == INTERRUPTION + "\n"
    assert not target.exists()
    assert not list(tmp_path.glob("*.jsonl*"))


def _stored(path):
    if not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return connection.execute("SELECT count(*) FROM memory").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals and pipes")
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["add", "tea"],
        pytest.param(["stats"], marks=pytest.mark.slow),
        pytest.param(["import", "lines.jsonl"], marks=pytest.mark.slow),
    ],
    ids=lambda words: words[0],
)
def test_ctrl_c_at_any_moment_of_the_start_prints_no_traceback(small, tmp_path, monkeypatch, arguments):
    """The moments are those in the first second, from the first line of the program on."""
    monkeypatch.chdir(tmp_path)
    records = ({"content": str(number), "embedding": [1, number, 2]} for number in range(3_000))
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    name, *others = arguments
    line = [sys.executable, "-c", STARTING, name, *([] if name == "--help" else [str(small)]), *others]
    extra = ["--embedding", "[1, 2, 3]"] if name == "add" else []
    codes, pipe = set(), subprocess.PIPE
    for step in range(8):
        with subprocess.Popen([*line, *extra], env=environment(), stdout=pipe, stderr=pipe, text=True) as running:
            assert running.stderr.readline() == "started\n"
            time.sleep(step / 8)
            running.send_signal(signal.SIGINT)
            output = running.stdout.read() + running.stderr.read()
            codes.add(running.wait(240))
        assert "Traceback" not in output
        assert "KeyboardInterrupt" not in output
        assert "never awaited" not in output
    assert codes <= {0, 1, 130, -signal.SIGINT}  # 1: the id exists; the signal may come when Python has ended
    assert 130 in codes
    assert ok(small, "check") == "clean\n"


STARTING = """
import sys
from memstore.cli import interrupts
exit_on_interrupt = interrupts.exit_on_interrupt
def announce():
    exit_on_interrupt()
    sys.stderr.write("started\\n"); sys.stderr.flush()
interrupts.exit_on_interrupt = announce
sys.argv = ["memstore", *sys.argv[1:]]
from memstore.cli.main import run
run()
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_second_ctrl_c_ends_a_command_that_does_not_stop(small):
    code = """
import asyncio, sys
from memstore.cli import maintenance
async def endless(file, json=False):
    while True:
        try:
            sys.stderr.write("working\\n"); sys.stderr.flush()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
maintenance.stats.__code__ = endless.__code__
maintenance.sys = sys; maintenance.asyncio = asyncio
sys.argv = ["memstore", *sys.argv[1:]]
from memstore.cli.main import run
run()
"""
    line = [sys.executable, "-c", code, "stats", str(small)]
    with subprocess.Popen(line, env=environment(), stderr=subprocess.PIPE, text=True) as running:
        for _ in range(2):
            assert running.stderr.readline() == "working\n"
            running.send_signal(signal.SIGINT)
        assert (
            running.stderr.read() == "memstore: interrupted. Committed changes are stored, and the store is intact.\n"
        )
        assert running.wait(240) == 130


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_process_that_ignores_ctrl_c_goes_on_ignoring_it(small):
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + STARTING
    line = [sys.executable, "-c", code, "stats", str(small)]
    pipe = subprocess.PIPE
    with subprocess.Popen(line, env=environment(), stdout=pipe, stderr=pipe, text=True) as running:
        assert running.stderr.readline() == "started\n"
        running.send_signal(signal.SIGINT)
        assert "memories" in running.stdout.read()
        assert running.wait(240) == 0

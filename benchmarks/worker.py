"""A worker process, seen from the process that controls it."""

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from benchmarks import peers
from benchmarks.adapters import SYSTEMS

ROOT = Path(__file__).parents[1]

_ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "ANONYMIZED_TELEMETRY": "False",
    "MEMSTORE_SQLITE": "stdlib",  # the SQLite that the baselines use
}
_SYNC_CALLS = "trace=fsync,fdatasync,msync"


class Skipped(Exception):  # noqa: N818 - a result, not a failure of the benchmark
    """The system is not installed, lacks the feature, failed, or exceeded the time limit; the message says which."""


class Worker:
    """Starts the process. As a context manager it ends the process on exit.

    Args:
        system: a key of `SYSTEMS`.
        workset: the folder of the workset.
        time_limit: seconds for one command.
        traced: count the calls that flush files to disk (needs `strace`).
        options: for the adapter.
    """

    def __init__(
        self, system: str, workset: Path, *, time_limit: float = 300, traced: bool = False, **options: object
    ) -> None:
        self.system = system
        self.time_limit = time_limit
        peer = SYSTEMS[system].peer
        python = peers.python(peer) if peer else Path(sys.executable)
        if python is None:
            raise Skipped(f"not installed: python -m benchmarks.peers install {peer}")
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._trace = Path(tempfile.mkstemp(prefix="trace-")[1]) if traced else None
        tracer = ["strace", "-f", "-qq", "-e", _SYNC_CALLS, "-o", str(self._trace)] if traced else []
        self._process = subprocess.Popen(
            [*tracer, str(python), "-m", "benchmarks.runner", system, str(workset), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
            env=os.environ | _ENVIRONMENT,
        )
        self._buffer = b""

    def call(self, command: str, **arguments: object) -> dict[str, Any]:
        """Send one command and wait for its answer.

        Raises:
            Skipped: the system lacks the feature, failed, or exceeded the time limit.
        """
        try:
            self._process.stdin.write(json.dumps({"command": command, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Skipped(self._exit_reason()) from None
        answer: dict[str, Any] = json.loads(self._read_line(command))
        if "unsupported" in answer:
            raise Skipped(answer["unsupported"])
        if "error" in answer:
            raise Skipped(f"failed at {command}: {answer['error']}")
        return answer

    def _read_line(self, command: str) -> bytes:
        pipe = self._process.stdout
        deadline = time.monotonic() + self.time_limit
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                remaining = deadline - time.monotonic()
                if remaining <= 0 or not selector.select(remaining):
                    self._process.kill()
                    raise Skipped(f"stopped: {command} took longer than {self.time_limit:.0f} s")
                data = os.read(pipe.fileno(), 1 << 20)
                if not data:
                    raise Skipped(self._exit_reason())
                self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _exit_reason(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        last_line = self._errors.read().strip().splitlines()[-1:]
        return f"exited with {self._process.returncode}: {' '.join(last_line)}"

    def sync_calls(self) -> int:
        """How many times the process has flushed a file to disk."""
        if self._trace is None:
            return 0
        time.sleep(0.1)  # strace writes its lines with a delay
        return sum("sync" in line and "resumed" not in line for line in self._trace.read_text().splitlines())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()
        if self._trace is not None:
            self._trace.unlink(missing_ok=True)

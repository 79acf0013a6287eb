"""A process that holds one system, as the one that measures sees it."""

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks import peers
from benchmarks.adapters import SYSTEMS

ROOT = Path(__file__).parents[1]


class Skipped(Exception):  # noqa: N818 - not a failure of ours
    """The system is not installed, cannot do this, failed, or took too long; the message says which."""


_VARIABLES = {
    "PYTHONPATH": str(ROOT),
    "ANONYMIZED_TELEMETRY": "False",
    "MEMSTORE_SQLITE": "stdlib",  # what everything it is compared with runs on
}


class Worker:
    """Starts the process at once. Use it with `with`; leaving the block ends the process.

    Args:
        system: one of `SYSTEMS`.
        workset: the folder of the workset.
        patience: seconds one command may take.
        options: for the adapter.
        traced: count what asks the disk to keep data (needs `strace`).
    """

    def __init__(
        self, system: str, workset: Path, *, patience: float = 300, traced: bool = False, **options: object
    ) -> None:
        self.system = system
        self.patience = patience
        named = SYSTEMS[system]
        python = peers.python(named.peer) if named.peer else Path(sys.executable)
        if python is None:
            raise Skipped(f"not installed: python -m benchmarks.peers install {named.peer}")
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._trace = Path(tempfile.mkstemp(prefix="trace-")[1]) if traced else None
        watch = ["strace", "-f", "-qq", "-e", "trace=fsync,fdatasync,msync", "-o", str(self._trace)] if traced else []
        self._process = subprocess.Popen(
            [*watch, str(python), "-m", "benchmarks.runner", system, str(workset), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
            env=os.environ | _VARIABLES,
        )
        self._buffer = b""

    def ask(self, do: str, **arguments: object) -> dict[str, Any]:
        """Give one command and wait for its answer.

        Raises:
            Skipped: the system cannot do it, failed, or took too long.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Skipped(self._died()) from None
        answer: dict[str, Any] = json.loads(self._line(do))
        if "unsupported" in answer:
            raise Skipped(answer["unsupported"])
        if "error" in answer:
            raise Skipped(f"failed at {do}: {answer['error']}")
        return answer

    def _line(self, do: str) -> bytes:
        pipe = self._process.stdout
        assert pipe is not None
        deadline = time.monotonic() + self.patience
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    self._process.kill()
                    raise Skipped(f"stopped: {do} took longer than {self.patience:.0f} s")
                some = os.read(pipe.fileno(), 1 << 20)
                if not some:
                    raise Skipped(self._died())
                self._buffer += some
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _died(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        last = self._errors.read().strip().splitlines()[-1:]
        return f"ended with {self._process.returncode}: {' '.join(last)}"

    def synced(self) -> int:
        """How often the process has asked the disk to keep data, so far."""
        if self._trace is None:
            return 0
        time.sleep(0.1)  # strace writes line by line, a little later
        return sum("sync" in line and "resumed" not in line for line in self._trace.read_text().splitlines())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
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

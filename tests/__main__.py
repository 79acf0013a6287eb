"""Run every check: `python -m tests`.

ruff (format and lint) and mypy run beside pytest, each in a process of its own. Arguments go to pytest:
`python -m tests -m slow` runs the slow tests instead of the others. The exit status is 0 if every check passed.
The last line of the output is pytest's summary.
"""

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

ROOT = Path(__file__).parents[1]
CHECKS = {
    "format": ("ruff", "format", "--check", "."),
    "lint": ("ruff", "check", "."),
    "types": ("mypy",),
}


@dataclass
class Check:
    """A check that runs in the background, with its output in a temporary file."""

    name: str
    process: subprocess.Popen[bytes]
    output: IO[bytes]

    @classmethod
    def start(cls, name: str, module: tuple[str, ...]) -> Self:
        """Start `python -m` *module*."""
        output = tempfile.TemporaryFile()  # noqa: SIM115 - it is open for as long as the process writes to it
        command = [sys.executable, "-m", *module]
        return cls(name, subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT), output)

    def wait(self) -> bool:
        """Wait for the end of the check, print its output if it failed, and return whether it passed."""
        passed = self.process.wait() == 0
        if not passed:
            self.output.seek(0)
            print(f"\n--- {self.name}\n{self.output.read().decode(errors='replace')}", flush=True)
        self.output.close()
        return passed


def run_pytest(arguments: list[str]) -> tuple[int, str]:
    """Run pytest, print its output as it comes, and return the exit status and the last line, which is not printed."""
    command = [sys.executable, "-m", "pytest", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, errors="replace")
    assert process.stdout is not None
    last = ""
    for line in process.stdout:
        print(last, end="", flush=True)
        last = line
    return process.wait(), last


def main() -> int:
    """Run the checks and print a summary of one line for each."""
    began = time.monotonic()
    checks = [Check.start(name, module) for name, module in CHECKS.items()]
    status, last = run_pytest(sys.argv[1:])
    results = {check.name: check.wait() for check in checks} | {"tests": status == 0}
    print(f"\n{time.monotonic() - began:.0f} s in all")
    for name, passed in results.items():
        print(f"{name:8}{'passed' if passed else 'FAILED'}")
    print(last, end="", flush=True)
    return int(not all(results.values()))


if __name__ == "__main__":
    sys.exit(main())

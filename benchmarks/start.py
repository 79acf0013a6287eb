"""What starting costs, each in fresh processes: `python -m benchmarks.start`. Half a minute.

Times are seconds of processor time, the smallest of some rounds: what else the computer does counts little. Python's
compiled files must be there, so that a first round is not counted.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 7
IMPORT = "import time; start = time.process_time(); {statement}; print(time.process_time() - start)"
OPEN = """
import asyncio, sys, time
from memstore import open
async def main():
    start = time.process_time()
    async with open(sys.argv[1], dimension=8):
        return time.process_time() - start
print(asyncio.run(main()))
"""
HELP = """
import sys, time
sys.argv = ["memstore", "--help"]
start = time.process_time()
from memstore.cli.main import run
try:
    run()
except SystemExit:
    print(time.process_time() - start)
"""


def main() -> None:
    """Print one line for each of the starts."""
    print(f"{_smallest(IMPORT.format(statement='import sqlalchemy, numpy')):.3f} s  import sqlalchemy, numpy")
    print(f"{_smallest(IMPORT.format(statement='import memstore')):.3f} s  import memstore")
    print(f"{_smallest(IMPORT.format(statement='from memstore import open')):.3f} s  from memstore import open")
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / f"{number}.db") for number in range(ROUNDS + 1)]
        new, existing = (min(_seconds(OPEN, path) for path in paths) for _ in range(2))
    print(f"{new:.3f} s  first open of a new file, {new / existing:.2f} of that of an existing one")
    print(f"{existing:.3f} s  first open of an existing file")
    print(f"{_smallest(HELP):.3f} s  memstore --help")


def _smallest(code: str) -> float:
    return min(_seconds(code) for _ in range(ROUNDS + 1))


def _seconds(code: str, *arguments: str) -> float:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()

"""The long form of `test_corruption.py`: `python -m tests.reliability.corruption --mutations 2000 --seed 1`."""

import argparse
import secrets
import sys
import tempfile
import time
from pathlib import Path

from . import corrupted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="memstore-corruption-"))
    tally = corrupted(options.mutations, options.seed, folder)
    for line in tally.lines():
        print(line)
    for failure in tally.failures:
        print(failure)
    print(f"{tally.mutations} mutations, {len(tally.failures)} failures, {time.monotonic() - began:.0f} s; {folder}")
    sys.exit(bool(tally.failures))


if __name__ == "__main__":
    main()

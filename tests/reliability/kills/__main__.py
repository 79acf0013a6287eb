"""`python -m tests.reliability.kills --kills 2000 --seed 1`: the long form of `tests/reliability/test_kills.py`."""

import argparse
import secrets
import tempfile
import time
from pathlib import Path

from . import killed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="memstore-kills-"))
    for line in killed(options.kills, options.seed, folder).lines():
        print(line)
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()

"""The peers' own virtual environments: `python -m benchmarks.peers install chroma lancedb`, or `install all`.

Each has its own list of pinned packages in `requirements/`, so no two peers, and no peer and memstore, share a
package. They lie in the cache folder of the user, or where MEMSTORE_BENCHMARK_PEERS says.
"""

import argparse
import os
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements"
NAMES = ("usearch", "chroma", "lancedb", "sqlite-vec", "qdrant", "langgraph")
_DONE = "installed.txt"


def folder() -> Path:
    """Where the environments lie."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("MEMSTORE_BENCHMARK_PEERS") or cache / "memstore-benchmarks" / "peers")


def python(peer: str) -> Path | None:
    """The peer's Python; None if the peer is not installed."""
    place = folder() / peer
    found = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    return found if (place / _DONE).is_file() else None


def install(peer: str) -> None:
    """Make the peer's environment anew from its list, unless it is there and the list has not changed."""
    wanted = (REQUIREMENTS / f"{peer}.txt").read_text(encoding="utf-8")
    place = folder() / peer
    done = place / _DONE
    if done.is_file() and done.read_text(encoding="utf-8") == wanted:
        print(f"{peer}: there already, {place}")
        return
    done.unlink(missing_ok=True)
    venv.create(place, with_pip=True, clear=True)
    at = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    subprocess.run([at, "-m", "pip", "install", "--quiet", "-r", REQUIREMENTS / f"{peer}.txt"], check=True)
    done.write_text(wanted, encoding="utf-8")
    print(f"{peer}: installed in {place}")


def main() -> None:
    """Install, or say what is installed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("do", choices=("install", "list"))
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"all, or some of {', '.join(NAMES)}")
    options = parser.parse_args()
    asked = NAMES if options.peers in ([], ["all"]) else tuple(options.peers)
    if wrong := set(asked) - set(NAMES):
        parser.error(f"no such peer: {', '.join(sorted(wrong))}")
    failed = []
    for peer in asked:
        if options.do == "list":
            print(f"{peer}: {python(peer) or 'not installed'}")
            continue
        try:
            install(peer)
        except (subprocess.CalledProcessError, OSError) as error:
            print(f"{peer}: not installed: {error}", file=sys.stderr)
            failed.append(peer)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

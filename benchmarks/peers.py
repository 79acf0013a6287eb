"""The peers' virtual environments: `python -m benchmarks.peers install chroma lancedb`, or `install all`.

Each has its own list of pinned packages in `requirements/`, so no peer shares a package with memstore or with another
peer. The environments are in the user's cache folder, or in the folder MEMSTORE_BENCHMARK_PEERS.
"""

import argparse
import os
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements"
NAMES = ("usearch", "chroma", "lancedb", "sqlite-vec", "qdrant", "langgraph")
_MARKER = "installed.txt"


def _environment(peer: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("MEMSTORE_BENCHMARK_PEERS") or cache / "memstore-benchmarks" / "peers") / peer


def _executable(peer: str) -> Path:
    return _environment(peer) / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def python(peer: str) -> Path | None:
    """The peer's Python; None if the peer is not installed."""
    return _executable(peer) if (_environment(peer) / _MARKER).is_file() else None


def install(peer: str) -> None:
    """Create the peer's environment from its list, unless it exists and the list is unchanged."""
    requirements = REQUIREMENTS / f"{peer}.txt"
    marker = _environment(peer) / _MARKER
    if not marker.is_file() or marker.read_text(encoding="utf-8") != requirements.read_text(encoding="utf-8"):
        marker.unlink(missing_ok=True)
        venv.create(_environment(peer), with_pip=True, clear=True)
        subprocess.run([_executable(peer), "-m", "pip", "install", "--quiet", "-r", requirements], check=True)
        marker.write_text(requirements.read_text(encoding="utf-8"), encoding="utf-8")
    print(f"{peer}: installed in {_environment(peer)}")


def main() -> None:
    """Install peers, or list which are installed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("action", choices=("install", "list"))
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"all, or some of {', '.join(NAMES)}")
    options = parser.parse_args()
    selection = NAMES if options.peers in ([], ["all"]) else tuple(options.peers)
    if unknown := set(selection) - set(NAMES):
        parser.error(f"unknown peer: {', '.join(sorted(unknown))}")
    failures = 0
    for peer in selection:
        if options.action == "list":
            print(f"{peer}: {python(peer) or 'not installed'}")
            continue
        try:
            install(peer)
        except (subprocess.CalledProcessError, OSError) as error:
            print(f"{peer}: not installed: {error}", file=sys.stderr)
            failures += 1
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()

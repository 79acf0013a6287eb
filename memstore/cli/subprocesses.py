"""Modules of memstore run in a process of their own."""

import subprocess
import sys
from pathlib import Path

import memstore

_RUN = (
    "import runpy, sys; sys.path.append({place!r}); runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
)


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run *module* with this Python and wait for its end, at most two minutes; what it wrote is UTF-8.

    It finds memstore where this process did, also in a checkout that is installed nowhere.
    """
    code = _RUN.format(place=str(Path(memstore.__file__).parents[1]), module=module)
    line = [sys.executable, "-c", code, *arguments]
    return subprocess.run(line, capture_output=True, encoding="utf-8", errors="replace", timeout=120, check=False)  # noqa: S603 - our own

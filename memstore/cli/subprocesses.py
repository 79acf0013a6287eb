"""Runs a module of memstore in a new process."""

import subprocess
import sys
from pathlib import Path

import memstore

_CODE = (
    "import runpy, sys; sys.path.append({root!r}); runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
)


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run *module* with this Python and wait for it, at most two minutes; its output is decoded as UTF-8.

    The new process imports memstore from the same place as this one, even from a checkout that is not installed.
    """
    code = _CODE.format(root=str(Path(memstore.__file__).parents[1]), module=module)
    line = [sys.executable, "-c", code, *arguments]
    return subprocess.run(line, capture_output=True, encoding="utf-8", errors="replace", timeout=120, check=False)  # noqa: S603 - our own

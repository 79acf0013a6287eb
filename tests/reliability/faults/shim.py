"""Builds the failing disk (`shim.c`), and controls it, from the process that runs on it or from another."""

import errno
import mmap
import os
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

SOURCE = Path(__file__).with_name("shim.c")

Call = Literal["read", "write", "sync", "truncate", "open", "unlink"]
How = Literal["fail", "torn", "short"]
CALLS: dict[Call, int] = {"read": 1, "write": 2, "sync": 4, "truncate": 8, "open": 16, "unlink": 32}
HOWS: dict[How, int] = {"fail": 0, "torn": 1, "short": 2}

_CONTROL = struct.Struct("=14Q")  # as `struct control` in shim.c
_KINDS, _, _AT, _STICKY, _ERROR, _HOW, _ARMED, _FIRED, _TALLY = range(9)


def unavailable() -> str | None:
    """The reason why there is no failing disk on this system; None if there is one."""
    if sys.platform != "linux":
        return "the failing disk is made with LD_PRELOAD, which is Linux's"
    if compiler() is None:
        return "the failing disk is compiled by cc, and there is no C compiler here"
    return None


def compiler() -> str | None:
    return shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")


def built(folder: Path) -> Path:
    """Compile the shim to a shared library in *folder*."""
    library = folder / "shim.so"
    command = [str(compiler()), "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library)]
    subprocess.run([*command, str(SOURCE), "-ldl", "-lpthread"], check=True)
    return library


@dataclass(frozen=True)
class Fault:
    """A fault of the disk.

    Attributes:
        calls: the kinds of calls that count.
        at: the number, from 0, of the one that fails.
        error: errno. `how` says what a write does before: nothing (`fail`), half of it (`torn`), or half of it without
            an error (`short`), as the system is free to do at any time.
        sticky: all after it fail too, until the disk is well again.
    """

    calls: tuple[Call, ...]
    at: int
    error: int = errno.EIO
    how: How = "fail"
    sticky: bool = False

    def __str__(self) -> str:
        what = f"{'+'.join(self.calls)} {self.at} {errno.errorcode[self.error]}"
        return f"{what}{'' if self.how == 'fail' else f' {self.how}'}{' sticky' if self.sticky else ''}"


class Disk:
    """The control file, mapped. Every process that maps it controls the same disk."""

    def __init__(self, control: Path) -> None:
        with control.open("a+b") as file:
            if file.tell() < _CONTROL.size:
                file.truncate(_CONTROL.size)
            self._words = memoryview(mmap.mmap(file.fileno(), _CONTROL.size)).cast("Q")

    @classmethod
    def here(cls) -> Self:
        """The disk of this process."""
        return cls(Path(os.environ["MEMSTORE_FAULT_CONTROL"]))

    def rest(self) -> None:
        """Remove the fault, and reset the counters."""
        for i in range(len(self._words)):
            self._words[i] = 0

    def arm(self, fault: Fault) -> None:
        """Set *fault*; calls are counted from now on."""
        self.rest()
        words = self._words
        words[_KINDS] = sum(CALLS[call] for call in fault.calls)
        words[_AT], words[_STICKY], words[_ERROR], words[_HOW] = (
            fault.at,
            fault.sticky,
            fault.error,
            HOWS[fault.how],
        )
        words[_ARMED] = 1

    def heal(self) -> None:
        """Remove the fault, and stop counting."""
        self._words[_ARMED] = 0
        self._words[_KINDS] = 0

    @property
    def tally(self) -> dict[Call, int]:
        """The number of calls of each kind between `arm` and `heal`."""
        return {call: int(self._words[_TALLY + i]) for i, call in enumerate(CALLS)}

    @property
    def fired(self) -> int:
        """The number of calls that failed."""
        return int(self._words[_FIRED])


def environment(library: Path, folder: Path, control: Path, **others: Path) -> dict[str, str]:
    """The environment of a process whose files below *folder* are on the failing disk.

    Args:
        library: what `built` made.
        folder: everything below it is on the disk.
        control: the control file; it is made if there is none.
        **others: `journal`, `marks`: see shim.c.
    """
    Disk(control)
    names = {"folder": Path(os.path.realpath(folder)), "control": control, **others}
    return {
        **os.environ,
        "LD_PRELOAD": str(library),
        **{f"MEMSTORE_FAULT_{name.upper()}": str(path) for name, path in names.items()},
    }

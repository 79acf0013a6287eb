"""Names of activities of processes, by which another process of the same machine sees that one has ended.

A name is that of the process and a random part. On Linux a process is named by a digest of the boot and of its
namespace of process numbers, by its number, and by the time of its start, because numbers are used again. Elsewhere,
and for a process of another machine or container, nobody can tell: then an activity counts as running.
"""

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_running: set[str] = set()  # of this process


@contextmanager
def activity() -> Iterator[str]:
    """The name of an activity that ends with the block."""
    name = f"{_process(os.getpid())}#{uuid.uuid4().hex}"
    _running.add(name)
    try:
        yield name
    finally:
        _running.discard(name)


def has_ended(name: object) -> bool:
    """Whether the activity *name* was one of this machine, and runs no more."""
    if not isinstance(name, str) or name in _running:
        return False
    process, _, _ = name.partition("#")
    machine, _, number = process.rpartition(":")[0].rpartition(":")
    if not machine or machine != _machine() or not number.isdecimal() or len(number) > 9:
        return False
    return int(number) == os.getpid() or _process(int(number)) != process


def _process(number: int) -> str:
    """The name of a running process; empty where it cannot be known, or there is none."""
    try:
        stat = Path(f"/proc/{number}/stat").read_bytes()
    except OSError:
        return ""
    fields = stat[stat.rfind(b")") + 2 :].split()  # the name in parentheses can contain anything
    state, start, machine = fields[0], fields[19].decode(), _machine()
    return "" if not machine or state in (b"Z", b"X") else f"{machine}:{number}:{start}"


def _machine() -> str:
    """A digest of the boot and of the namespace of process numbers; empty where it cannot be known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
    return hashlib.blake2b(boot + namespace.encode(), digest_size=8).hexdigest()

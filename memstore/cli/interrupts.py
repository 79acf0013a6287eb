"""Ctrl-C in the command line: the code 130 and no traceback, at any time. Imports nothing of memstore's API.

Until a command begins, and after it has ended, Ctrl-C ends the process at once: nothing is open then, and a
KeyboardInterrupt in the middle of an import would be printed as a traceback, or lost in a callback. A running command
gets the KeyboardInterrupt. In an event loop, the first Ctrl-C cancels the command, which then closes the store; a
second one ends the process at once, which SQLite survives.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from memstore.cli.exit_codes import INTERRUPTED

INTERRUPTION = "memstore: interrupted. Committed changes are stored, and the store is intact."
_SHOW_CURSOR = "\x1b[?25h"


def exit_at_once(*_: object) -> None:
    """End the process with the code 130 and one line on stderr, without running anything else."""
    with suppress(OSError, ValueError, AttributeError):  # stderr may be closed, or absent
        prefix = _SHOW_CURSOR if sys.stderr.isatty() else ""  # a progress bar hides it
        os.write(2, f"{prefix}{INTERRUPTION}\n".encode())
    os._exit(INTERRUPTED)


def exit_on_interrupt() -> None:
    """From now on, end the process at Ctrl-C, unless it ignores Ctrl-C, as background jobs of a shell do."""
    if _is_handled():
        signal.signal(signal.SIGINT, exit_at_once)


@contextmanager
def on_interrupt(handler: Callable[..., None]) -> Iterator[None]:
    """Call *handler* at Ctrl-C during the block, unless the process ignores Ctrl-C."""
    if not _is_handled():
        yield
        return
    previous = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _is_handled() -> bool:
    """Whether this thread may set a handler, and Ctrl-C is not ignored."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    return in_main_thread and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN

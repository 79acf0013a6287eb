"""Asks before a command destroys data."""

import sys

from memstore import InvalidError
from memstore.escaping import escape_text


def confirm(question: str) -> None:
    """Return only if the user answers *question*, one or more sentences, with yes.

    Raises:
        InvalidError: the user did not, or cannot be asked, because the input is not a terminal.
    """
    question = " ".join(escape_text(question).split())
    if not is_interactive():
        raise InvalidError(f"{question} Nothing was changed; pass --yes to do it.")
    sys.stderr.write(f"{question} Continue? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise InvalidError("Nothing was changed.")


def is_interactive() -> bool:
    """Whether a person can answer."""
    return sys.stdin.isatty()

"""Who acts, and why: what the history of a store says of a change besides what was changed.

It is a matter of the task, not of a store: whoever takes a request says once whose it is, and everything done for it,
in whatever store, transaction or task that it starts, is said to be theirs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from memstore.validation.text import check_text

MAX_ACTOR_BYTES = 1_024
MAX_REASON_BYTES = 65_536


class Actor(NamedTuple):
    """Who made a change, and why; None where nobody said."""

    actor: str | None = None
    reason: str | None = None


@contextmanager
def as_actor(actor: str, *, reason: str | None = None) -> Iterator[None]:
    """Have the history say that what the block changes was changed by *actor*, for *reason*.

    It holds for everything the block calls and for tasks that it starts, on every store; tasks that run beside it are
    not touched. An inner block takes the place of an outer one.

    Args:
        actor: who, 1 to 1,024 bytes of UTF-8.
        reason: why, at most 65,536 bytes of UTF-8.

    Raises:
        InvalidError: one of them is no such text.
    """
    token = _acting.set(author(actor, reason))
    try:
        yield
    finally:
        _acting.reset(token)


def author(actor: str | None = None, reason: str | None = None) -> Actor:
    """Who acts here and now: whom a caller named, else whom the block of `as_actor` around it names."""
    if actor is None and reason is None:
        return _acting.get()
    actor, reason = checked(actor, reason)
    return Actor(_acting.get().actor if actor is None else actor, reason)


def checked(actor: object, reason: object) -> Actor:
    """Who asks for a change and why, in the caller's words or None, else `InvalidError`."""
    return Actor(
        None if actor is None else check_text("actor", actor, least=1, most=MAX_ACTOR_BYTES),
        None if reason is None else check_text("reason", reason, most=MAX_REASON_BYTES),
    )


_NOBODY = Actor()
_acting: ContextVar[Actor] = ContextVar("memstore_acting", default=_NOBODY)

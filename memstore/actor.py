"""Who makes a change, and why: the actor and the reason that a store records with each change.

The actor is a context variable. It belongs to the task, not to a store: it applies to every store, transaction and
task that is used or started inside the block. Verbs with `actor=` and `reason=` enter it for their own duration, and a
session reads it once for each write.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from memstore.validation.text import check_text

MAX_ACTOR_BYTES = 1_024
MAX_REASON_BYTES = 65_536


class Actor(NamedTuple):
    """Who makes a change, and why; None where it is not given."""

    name: str | None = None
    reason: str | None = None


@contextmanager
def as_actor(actor: str | None, *, reason: str | None = None) -> Iterator[None]:
    """Record *actor* and *reason* with every change that is made inside the block.

    Applies to everything the block calls and to tasks it starts, on every store; tasks that run beside the block are
    not affected. An inner block replaces the reason of an outer one, and its actor too unless *actor* is None.

    Args:
        actor: who makes the changes, 1 to 1,024 bytes of UTF-8. None keeps the actor of the surrounding block.
        reason: why, at most 65,536 bytes of UTF-8. Without an actor and a reason the block changes nothing.

    Raises:
        InvalidError: *actor* or *reason* is not such a text.
    """
    token = _current.set(_combined(actor, reason))
    try:
        yield
    finally:
        _current.reset(token)


def current_actor() -> Actor:
    """The actor of the innermost `as_actor` block of this task."""
    return _current.get()


def _combined(actor: object, reason: object) -> Actor:
    outer = _current.get()
    if actor is None and reason is None:
        return outer
    return Actor(
        outer.name if actor is None else check_text("actor", actor, least=1, most=MAX_ACTOR_BYTES),
        None if reason is None else check_text("reason", reason, most=MAX_REASON_BYTES),
    )


_NOBODY = Actor()
_current: ContextVar[Actor] = ContextVar("memstore_actor", default=_NOBODY)

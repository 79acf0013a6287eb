"""Who makes a change, and why: the actor and the reason that a store records with each change.

The actor is a context variable. It belongs to the task, not to a store: it applies to every store, transaction and
task that is used or started inside the block. Verbs with `actor=` and `reason=` enter it for their own duration, and a
session reads it once for each write.

FastAPI enters a plain `def` dependency with `yield` on a thread, in a copy of the request's context, and leaves it on
another one. What is set in a copy is lost, so the block also notes its actor for the task that waits for the thread.
"""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

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
    outer, inner, task = current_actor(), _combined(actor, reason), _waiting_task()
    before = None if task is None else _of_waiting.get(task)
    if task is not None:
        _of_waiting[task] = (outer, inner)
    token = _current.set(inner)
    try:
        yield
    finally:
        with suppress(ValueError):  # the block began in another context
            _current.reset(token)
        if before is not None:
            _of_waiting[task] = before
        elif task is not None:
            _of_waiting.pop(task, None)


@contextmanager
def verb_actor(actor: str | None, reason: str | None) -> Iterator[None]:
    """As `as_actor`, for the arguments of a verb: one that is None is that of the block around the call."""
    with as_actor(actor, reason=current_actor().reason if reason is None else reason):
        yield


def current_actor() -> Actor:
    """The actor of the innermost `as_actor` block of this task."""
    actor = _current.get()
    if _of_waiting:
        try:
            outer, inner = _of_waiting.get(asyncio.current_task(), (None, actor))
        except RuntimeError:  # a thread without an event loop
            return actor
        return inner if actor is outer else actor
    return actor


def _waiting_task() -> Any:
    """The task that waits for this thread, if anyio runs a function of a task on it; else None."""
    anyio = sys.modules.get("anyio._core._eventloop")  # has no public name
    scope = getattr(getattr(anyio, "threadlocals", None), "current_cancel_scope", None)
    return getattr(scope, "_host_task", None)


def _combined(actor: object, reason: object) -> Actor:
    outer = current_actor()
    if actor is None and reason is None:
        return outer
    return Actor(
        outer.name if actor is None else check_text("actor", actor, least=1, most=MAX_ACTOR_BYTES),
        None if reason is None else check_text("reason", reason, most=MAX_REASON_BYTES),
    )


_NOBODY = Actor()
_current: ContextVar[Actor] = ContextVar("memstore_actor", default=_NOBODY)
_of_waiting: WeakKeyDictionary[Any, tuple[Actor, Actor]] = WeakKeyDictionary()
"""For a task that waited for a thread on which a block began: its actor before, and that of the block."""

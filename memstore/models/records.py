"""The records callers receive: frozen, complete, and equal when every field is.

Arrays in records are read-only float32. Times are aware datetimes in UTC. Metadata is made of plain
`dict`, `list`, `str`, `int`, `float`, `bool` and None, and is the caller's own copy.
"""

from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Literal

import numpy as np
import numpy.typing as npt

Embedding = npt.NDArray[np.float32]
"""A vector as memstore returns it: float32, shape (dimension,), read-only."""

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None
"""What metadata is made of."""

Namespace = tuple[str, ...]

RecordKind = Literal["memory", "assembly"]


class _Record:
    """Equality by every field (arrays by their bytes), and a hash by identity in the store."""

    __slots__ = ()

    def _values(self) -> tuple[object, ...]:
        values = (getattr(self, f.name) for f in fields(self) if f.compare)  # type: ignore[arg-type]
        return tuple((v.dtype.str, v.shape, v.tobytes()) if isinstance(v, np.ndarray) else v for v in values)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self.namespace, self.id))  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Memory(_Record):
    """One memory.

    Attributes:
        id: unique in its namespace.
        namespace: where it lives; `()` is the root.
        content: its text.
        embedding: float32, shape (dimension,), read-only, as it was given; None for a memory that no search finds.
        tags: a set of words.
        metadata: a JSON object.
        importance: 0 to 1.
        created_at: when it was added, UTC.
        updated_at: when a verb last changed it, UTC.
        expires_at: from when on no read sees it, UTC; None for never.
        accessed_at: when `touch` last named it, UTC; None for never.
        access_count: how often `touch` named it.
        pinned: whether no policy may ever forget it.
    """

    id: str
    namespace: Namespace = ()
    content: str
    embedding: Embedding | None = None
    tags: frozenset[str] = frozenset()
    metadata: dict[str, Json] = field(default_factory=dict)
    importance: float = 0.5
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None
    accessed_at: datetime | None = None
    access_count: int = 0
    pinned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Assembly(_Record):
    """A group of memories of one namespace, with the mean of their vectors.

    Attributes:
        id: unique in its namespace among assemblies; memories have ids of their own.
        namespace: where it and its members live; `()` is the root.
        name: a title.
        description: a text.
        tags: a set of words.
        topics: words in the caller's order.
        metadata: a JSON object.
        member_count: how many members it has.
        composite: float32, shape (dimension,), read-only: the mean of the members' vectors (under cosine and
            spherical of their directions, at length 1; under hyperbolic the Einstein midpoint). None when no
            member has a vector, or when they cancel out.
        revision: a number that grows whenever the members or their vectors change.
        created_at: when it was added, UTC.
        updated_at: when a verb last changed it or its membership, UTC.
        activation: how active it was when it was read, 0 to 1: `activation_level`, decayed since `activated_at` by the
            store's half-life. Two readings of one assembly are equal whatever it is.
        activation_level: how active it was when it was last activated.
        activated_at: when that was, UTC; None for never.
        activation_count: how often it was.
    """

    id: str
    namespace: Namespace = ()
    name: str = ""
    description: str = ""
    tags: frozenset[str] = frozenset()
    topics: tuple[str, ...] = ()
    metadata: dict[str, Json] = field(default_factory=dict)
    member_count: int = 0
    composite: Embedding | None = None
    revision: int = 0
    created_at: datetime
    updated_at: datetime
    activation: float = field(default=0.0, compare=False)
    activation_level: float = 0.0
    activated_at: datetime | None = None
    activation_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """A tag in use in one namespace, with how many memories and assemblies carry it."""

    name: str
    memory_count: int
    assembly_count: int


def memory(
    id: str,
    namespace: Namespace,
    content: str,
    embedding: Embedding | None,
    tags: frozenset[str],
    metadata: dict[str, Json],
    importance: float,
    created_at: datetime,
    updated_at: datetime,
    expires_at: datetime | None,
    accessed_at: datetime | None,
    access_count: int,
    pinned: bool,
) -> Memory:
    """`Memory(...)` in less than half the time: a frozen dataclass looks up by name every field that it sets."""
    made = _new(Memory)
    _set_id(made, id)
    _set_namespace(made, namespace)
    _set_content(made, content)
    _set_embedding(made, embedding)
    _set_tags(made, tags)
    _set_metadata(made, metadata)
    _set_importance(made, importance)
    _set_created_at(made, created_at)
    _set_updated_at(made, updated_at)
    _set_expires_at(made, expires_at)
    _set_accessed_at(made, accessed_at)
    _set_access_count(made, access_count)
    _set_pinned(made, pinned)
    return made


def remember(made: Memory, created_at: datetime, accessed_at: datetime | None, access_count: int, pinned: bool) -> None:
    """Give a memory that nobody was handed yet the history of the one it replaces, in place.

    Only the rows know it, and a second record would cost four times as much.
    """
    _set_created_at(made, created_at)
    _set_accessed_at(made, accessed_at)
    _set_access_count(made, access_count)
    _set_pinned(made, pinned)


_new = object.__new__
(
    _set_id,
    _set_namespace,
    _set_content,
    _set_embedding,
    _set_tags,
    _set_metadata,
    _set_importance,
    _set_created_at,
    _set_updated_at,
    _set_expires_at,
    _set_accessed_at,
    _set_access_count,
    _set_pinned,
) = (vars(Memory)[f.name].__set__ for f in fields(Memory))

"""The records `Memory`, `Assembly` and `Tag`: frozen, complete, and equal if all their fields are equal.

Arrays are read-only float32. Times are aware datetimes in UTC. Metadata consists of plain `dict`, `list`, `str`, `int`,
`float`, `bool` and None, and is the caller's own copy.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal, Protocol, SupportsFloat

import numpy as np
import numpy.typing as npt

from memstore.models.record import Record

Embedding = npt.NDArray[np.float32]
"""A vector as memstore returns it: float32, shape (dimension,), read-only."""


class SupportsArray(Protocol):
    """What NumPy converts to an array: a pandas Series, a tensor."""

    def __array__(self) -> npt.NDArray[Any]:
        """The values as an array."""
        ...


EmbeddingLike = Sequence[SupportsFloat] | npt.NDArray[np.floating] | npt.NDArray[np.integer] | SupportsArray
"""What callers may pass as an embedding: any sequence of real numbers, of shape (dimension,)."""

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None
"""A value of metadata."""

Namespace = tuple[str, ...]
"""The path of a namespace; `()` is the root."""

Address = tuple[Namespace, str]
"""The namespace and the id of a record, which name it in the file."""

RecordKind = Literal["memory", "assembly"]


class _Record(Record):
    """Equality by all fields (arrays by their bytes); a hash by type, namespace and id."""

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Memory(_Record):
    """One memory.

    Attributes:
        id: unique among the memories of its namespace.
        namespace: its namespace; `()` is the root.
        content: its text.
        embedding: float32, shape (dimension,), read-only, as the caller gave it; None if no search finds the memory.
        metadata: a JSON object.
        importance: 0 to 1.
        created_at: time of creation, UTC.
        updated_at: time of the last change, UTC.
        expires_at: time from which on the memory is invisible to every read, UTC; None for never.
        accessed_at: time of the last `touch`, UTC; None for never.
        access_count: number of calls of `touch`.
        pinned: whether no policy ever forgets the memory.
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Assembly(_Record):
    """A group of memories of one namespace, with the mean of their vectors.

    Attributes:
        id: unique among the assemblies of its namespace.
        namespace: namespace of the assembly and of its members; `()` is the root.
        name: a title.
        description: a text.
        topics: words in the caller's order.
        metadata: a JSON object.
        member_count: number of members.
        composite: float32, shape (dimension,), read-only: the mean of the members' vectors. Under cosine and spherical
            it is the mean of their directions at length 1, under hyperbolic the Einstein midpoint. None if no member
            has a vector, or if the vectors cancel out.
        revision: a number that grows whenever the members or their vectors change.
        created_at: time of creation, UTC.
        updated_at: time of the last change of the assembly or of its membership, UTC.
        activation: its activation when it was read, 0 to 1: `activation_level`, decayed since `activated_at` with the
            store's half-life. Not compared by `==`.
        activation_level: its activation when it was last activated, 0 to 1.
        activated_at: time of the last activation, UTC; None for never.
        activation_count: number of activations.
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


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Tag(Record):
    """A tag of one namespace, with the number of memories and assemblies that have it."""

    name: str
    memory_count: int
    assembly_count: int


def address_of(record: Memory | Assembly) -> Address:
    """The namespace and the id of *record*."""
    return record.namespace, record.id


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
    """`Memory(...)` in less than half the time: a frozen dataclass looks up every field by name to set it."""
    record = _new(Memory)
    _set_id(record, id)
    _set_namespace(record, namespace)
    _set_content(record, content)
    _set_embedding(record, embedding)
    _set_tags(record, tags)
    _set_metadata(record, metadata)
    _set_importance(record, importance)
    _set_created_at(record, created_at)
    _set_updated_at(record, updated_at)
    _set_expires_at(record, expires_at)
    _set_accessed_at(record, accessed_at)
    _set_access_count(record, access_count)
    _set_pinned(record, pinned)
    return record


def set_kept_fields(
    record: Memory, created_at: datetime, accessed_at: datetime | None, access_count: int, pinned: bool
) -> None:
    """Set in place what an upsert keeps of the replaced memory. No caller has received *record* yet.

    Only the rows contain these values, and a second record would cost four times as much.
    """
    _set_created_at(record, created_at)
    _set_accessed_at(record, accessed_at)
    _set_access_count(record, access_count)
    _set_pinned(record, pinned)


def set_metadata(record: Memory, metadata: dict[str, Json]) -> None:
    """Set in place the metadata that an upsert patched; as `set_kept_fields`."""
    _set_metadata(record, metadata)


def set_updated_at(record: Memory, updated_at: datetime) -> None:
    """Set in place the time of the last change, where an upsert changes nothing; as `set_kept_fields`."""
    _set_updated_at(record, updated_at)


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

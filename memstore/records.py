"""The records callers receive: frozen, complete, and equal when every field is.

Arrays in records are read-only float32. Times are aware datetimes in UTC. Metadata is made of plain
`dict`, `list`, `str`, `int`, `float`, `bool` and None, and is the caller's own copy.
"""

import os
import time
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Literal

import numpy as np
import numpy.typing as npt

from memstore.threads import ProcessLock

Embedding = npt.NDArray[np.float32]
"""A vector as memstore returns it: float32, shape (dimension,), read-only."""

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None
"""What metadata is made of."""

Namespace = tuple[str, ...]


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


FindingKind = Literal[
    "missing",
    "ghost",
    "stale",
    "swapped",
    "wrong_dimension",
    "checksum",
    "unusable",
    "composite",
    "foreign_key",
    "integrity",
    "graph",
    "snapshot",
    "tombstone",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that `check` found wrong.

    Attributes:
        kind: `missing` (a stored vector is not in the index), `ghost` (the index has a vector that is not stored),
            `stale` (the index has another vector, scope or expiry than is stored), `swapped` (the index has another
            record's vector), `wrong_dimension` (a vector that is not of the store's dimension, in the index or
            stored), `checksum` (a stored vector that is not what was written), `unusable` (a stored vector that is
            not finite, or without a place in the metric), `composite` (an assembly's vector is
            not the mean of its members'), `foreign_key` (a row whose owner does not exist), `integrity` (SQLite's
            own integrity check), `graph` (the search graph's links are not those it was made with), `snapshot` (the
            stored copy of the graph is not what was written), `tombstone` (a record that was set aside is not what was
            written, and cannot be brought back).
        noun: `"memory"`, `"assembly"` or `"file"`.
        id: the record's id; for a ghost, whose record does not exist, the key it had in the file; empty for what is
            not of one record.
        namespace: the record's namespace.
        detail: what was compared, in words.
    """

    kind: FindingKind
    noun: Literal["memory", "assembly", "file"]
    id: str
    namespace: Namespace = ()
    detail: str

    def __str__(self) -> str:
        where = f" in {'/'.join(self.namespace)}" if self.namespace else ""
        return f"{self.kind}: {self.noun} {self.id!r}{where}: {self.detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What `repair` did.

    Attributes:
        found: what was wrong before.
        remaining: what is wrong still; empty unless stored data itself is damaged.
        reindexed: vectors loaded into the new index.
        recomposed: assemblies whose composite was computed again.
        checksums: unknown checksums filled in.
        orphans: rows removed whose owner did not exist.
    """

    found: list[Finding]
    remaining: list[Finding]
    reindexed: int
    recomposed: int
    checksums: int
    orphans: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What `verify` found a file to be. Counts are of the whole file, expired memories left out.

    Attributes:
        path: the file.
        file_bytes: its size.
        revision: its schema revision; an older one than this release's is brought up to date when it is opened.
        dimension: numbers per embedding.
        metric: how embeddings are compared.
        curvature: by minus which a hyperbolic space is curved; None under every other metric.
        embedder: the name of what makes them; None where none is named.
        memories: how many.
        assemblies: how many.
        changed_at: when a memory or an assembly was last added or updated; None where there is none.
        findings: what is wrong; empty for a file that is whole. A file that is damaged too badly to be read further
            has one of kind `integrity`, and None or 0 in the fields before.
    """

    path: str
    file_bytes: int
    revision: str | None
    dimension: int | None
    metric: str | None
    curvature: float | None
    embedder: str | None
    memories: int
    assemblies: int
    changed_at: datetime | None
    findings: list[Finding]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What a store holds and how. Sizes in bytes; counts are of the whole file, expired memories left out.

    Of the index of memories: `index` says by what it answers now (`"exact"` or `"graph"`), `index_reason` why;
    `graph_nodes` vectors are in the graph, `graph_dead` of them of records that are gone, and `tail` are not in it yet;
    `ef_search` is the effort of a search for ten, `recall` the share of the nearest ten that a sample of the vectors
    found at it (None where there is no graph). `index_bytes` is all memory of the indexes, `graph_bytes` the graph's
    share; `snapshot_bytes` is what the graph takes in the file.

    `trashed` is how many memories and assemblies lie in the trash; they are in none of the other counts.

    `sqlite` is the version of the SQLite in use, `sqlite_source` where it comes from: `"sqlite3"` is Python's own,
    `"pysqlite3"` that of the extra; `wal_reset_bug` says whether that version can lose commits to the checkpoints of
    other programs.
    """

    path: str
    dimension: int
    metric: str
    curvature: float | None
    embedder: str | None
    durability: str
    revision: str
    sqlite: str
    sqlite_source: str
    wal_reset_bug: bool
    memories: int
    assemblies: int
    tags: int
    namespaces: int
    vectors: int
    trashed: int
    file_bytes: int
    wal_bytes: int
    engine: Literal["faiss", "numpy"]
    engine_reason: str
    indexed: int
    index_bytes: int
    index_loaded: bool
    index: Literal["exact", "graph"]
    index_reason: str
    vector_type: Literal["float32", "float16"]
    graph_nodes: int
    graph_dead: int
    tail: int
    graph_bytes: int
    ef_search: int | None
    recall: float | None
    snapshot_bytes: int
    indexed_metadata: tuple[str, ...]


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

_id_lock = ProcessLock()
_last_id = 0
_VARIANT = bytes(0b10 << 6 | byte & 0b111111 for byte in range(256))


def new_id() -> str:
    """A new id: UUID version 7 (RFC 9562, section 5.7), which sorts by the time it was made.

    The 12 bits of `rand_a` carry the fraction of the millisecond (method 3 of its section 6.2), and ids made by
    one process strictly increase. Time-ordered ids halve the cost of the unique index against random ones.
    """
    return new_ids(1)[0]


def new_ids(count: int) -> list[str]:
    """*count* new ids, ascending, for a third of what as many calls of `new_id` cost."""
    global _last_id
    with _id_lock:
        stamp = time.time_ns() * 4096 // 1_000_000  # milliseconds in the upper bits, their 4096th parts below
        first = max(stamp, _last_id + 1)
        _last_id = first + count - 1
    random = bytearray(os.urandom(8 * count))
    random[::8] = random[::8].translate(_VARIANT)
    tails = random.hex()
    return [
        f"{n >> 28:08x}-{n >> 12 & 0xFFFF:04x}-7{n & 0xFFF:03x}-{tails[at : at + 4]}-{tails[at + 4 : at + 16]}"
        for n, at in enumerate(range(0, 16 * count, 16), first)
    ]

"""What maintenance returns: findings, repair and verify reports, statistics."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from memstore.models.records import Namespace

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
class RepairReport:
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
class VerifyReport:
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

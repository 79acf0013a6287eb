"""The records of maintenance: findings, repair and verify reports, statistics."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from memstore.models.record import Record
from memstore.models.records import Namespace

FindingKind = Literal[
    "value",
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
    "history",
]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Finding(Record):
    """One defect that `check` or `verify` found.

    Attributes:
        kind: `value` (a stored value that memstore never writes), `missing` (the index lacks a stored vector), `ghost`
            (the index has a vector that is not stored), `stale` (the index has another vector, namespace or expiry than
            the row), `swapped` (the index has the vector of another record), `wrong_dimension` (a vector in the index
            or the file has another dimension), `checksum` (a stored vector does not match its checksum), `unusable` (a
            stored vector is not finite or not valid under the metric), `composite` (a composite is not the mean of the
            members' vectors), `foreign_key` (a row refers to a row that does not exist), `integrity` (SQLite's
            integrity check failed), `graph` (the links of the search graph changed after it was built), `snapshot` (the
            stored copy of the graph does not match its checksum), `tombstone` (an archived record is damaged and cannot
            be recovered), `history` (a change of the history is damaged).
        record_kind: `"memory"`, `"assembly"` or `"file"`.
        id: id of the record; the key in the file for a ghost, which has no record; empty for a defect of the file.
        namespace: namespace of the record.
        detail: what was compared, as a sentence.
    """

    kind: FindingKind
    record_kind: Literal["memory", "assembly", "file"]
    id: str
    namespace: Namespace = ()
    detail: str

    def __str__(self) -> str:
        where = f" in {'/'.join(self.namespace)}" if self.namespace else ""
        return f"{self.kind}: {self.record_kind} {self.id!r}{where}: {self.detail}"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RepairReport(Record):
    """The result of `repair`.

    Attributes:
        findings: the defects before the repair.
        remaining: the defects after it; empty unless stored data itself is damaged.
        reindexed: number of vectors loaded into the new index.
        recomposed: number of assemblies whose composite was recomputed.
        checksums: number of missing checksums computed.
        orphans: number of rows deleted because they referred to a row that does not exist.
    """

    findings: list[Finding]
    remaining: list[Finding]
    reindexed: int
    recomposed: int
    checksums: int
    orphans: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class EraseReport(Record):
    """What `erase` removed. `compact(secure=True)` then removes the bytes from the file and its log.

    Attributes:
        ids: ids of the erased records, sorted; live ones, archived ones, and deleted ones that the history had. Empty
            for `namespace.erase`, which erases all.
        namespaces: the erased namespaces, sorted; empty for `memories.erase` and `assemblies.erase`.
        memories: number of live memories deleted.
        assemblies: number of live assemblies deleted.
        archived: number of records deleted from the trash and from the archives of merges.
        changes: number of changes of the history that were deleted, or that name an erased record no more.
        merges: number of merges that were deleted, or that name an erased assembly no more.
        tags: number of tags deleted because no record has them any more.
        missing: those of the given ids of which the file had nothing.
        unreadable: ids of archived or deleted records that `where` could not be compared with, because they are
            damaged; they were not erased.
    """

    ids: tuple[str, ...] = ()
    namespaces: tuple[Namespace, ...] = ()
    memories: int = 0
    assemblies: int = 0
    archived: int = 0
    changes: int = 0
    merges: int = 0
    tags: int = 0
    missing: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class VerifyReport(Record):
    """The result of `verify`. Counts are of the whole file, without expired memories.

    Attributes:
        file_bytes: its size in bytes.
        revision: its schema revision. Opening a file of an older revision migrates it.
        curvature: curvature magnitude c > 0 of the Poincaré ball (the curvature is -c); None under other metrics.
        embedder: name of the embedder of the file; None if none is stored.
        changed_at: time of the last change of a memory or an assembly, UTC; None if the file contains none.
        findings: the defects; empty for a sound file. If the damage prevents further reading, there is one finding of
            kind `integrity`, and the fields above it are None or 0.
    """

    path: str
    file_bytes: int
    revision: str | None = None
    dimension: int | None = None
    metric: str | None = None
    curvature: float | None = None
    embedder: str | None = None
    memories: int = 0
    assemblies: int = 0
    changed_at: datetime | None = None
    findings: list[Finding]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Stats(Record):
    """The contents and the state of a store. Counts are of the whole file, without expired memories.

    Attributes:
        dimension: numbers per vector; None while no vector has fixed it.
        curvature: curvature magnitude c > 0 of the Poincaré ball (the curvature is -c); None under other metrics.
        embedder: name of the embedder of the file; None if none is stored.
        durability: `"full"` or `"relaxed"`.
        sqlite: version of the SQLite library in use.
        sqlite_source: `"sqlite3"` for Python's own SQLite, `"pysqlite3"` for that of the extra `sqlite`.
        wal_reset_bug: whether that version can lose commits to the checkpoints of other programs.
        tags: number of tags in use.
        namespaces: number of namespaces in use.
        vectors: number of memories with an embedding.
        trashed: number of memories and assemblies in the trash; no other count includes them.
        history_bytes: bytes that the change history takes in the file; an estimate from 2,000 changes on.
        trash_bytes: bytes that the trash takes in the file; an estimate from 2,000 records on.
        file_bytes: size of the database file in bytes.
        wal_bytes: size of the write-ahead log in bytes.
        engine: `"faiss"` or `"numpy"`, which computes distances.
        engine_reason: why that engine.
        indexed: number of vectors in the indexes.
        index_bytes: memory of all indexes in bytes.
        index_loaded: whether the indexes are loaded.
        index: how the index of memories answers searches now: `"exact"` or `"graph"`.
        index_reason: why.
        vector_type: how the index stores vectors in memory.
        graph_nodes: number of vectors in the search graph.
        graph_deleted: how many of them belong to deleted records.
        unindexed: number of vectors that are not in the graph yet; they are compared one by one.
        graph_bytes: memory of the graph in bytes, a part of `index_bytes`.
        ef_search: HNSW's ef for a search of ten; None without a graph.
        recall: share of the ten nearest vectors that the graph finds at this ef, measured on a sample, 0 to 1; None
            without a graph.
        recall_observed: the same for a small share of the searches that were really made, which are answered exactly as
            well in the background: the mean of the last 200, at the limits asked; None while there are none.
        snapshot_bytes: size of the stored copy of the graph in the file, in bytes.
        indexed_metadata: paths in metadata that have an index.
    """

    path: str
    dimension: int | None
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
    history_bytes: int
    trash_bytes: int
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
    graph_deleted: int
    unindexed: int
    graph_bytes: int
    ef_search: int | None
    recall: float | None
    recall_observed: float | None
    snapshot_bytes: int
    indexed_metadata: tuple[str, ...]

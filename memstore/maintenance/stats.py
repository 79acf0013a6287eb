"""The statistics of a store."""

from pathlib import Path

from sqlalchemy import Connection

from memstore import filters
from memstore.database.inspect import HEAD
from memstore.database.sqlite import BUG, SOURCE, sqlite3
from memstore.models.reports import Stats
from memstore.repository import namespaces, records, selection, stored_sizes, tags, tombstones, vectors
from memstore.repository.record_types import RECORD_TYPES
from memstore.repository.selection import Selection
from memstore.repository.sqlite_only import index_snapshots, metadata_indexes
from memstore.session import Autocommit
from memstore.timestamps import now


def read_stats(connection: Connection, session: Autocommit) -> Stats:
    """The contents and the state of the store of *session*; see `Stats`."""
    session.follower.guard.check(connection)
    settings, space, indexes = session.database.settings, session.spaces["memory"], session.follower.indexes
    at = now()
    counts = {
        record_type.kind: selection.count(
            connection, Selection(record_type=record_type, namespace=(), now=at, recursive=True)
        )
        for record_type in RECORD_TYPES
    }
    return Stats(
        path=settings.path,
        dimension=space.dimension or None,
        metric=space.metric,
        curvature=space.curvature,
        embedder=space.embedder,
        durability=settings.durability,
        revision=HEAD,
        sqlite=sqlite3.sqlite_version,
        sqlite_source=SOURCE,
        wal_reset_bug=BUG,
        memories=counts["memory"],
        assemblies=counts["assembly"],
        tags=tags.count(connection, at),
        namespaces=len(namespaces.used(connection, (), at)),
        vectors=vectors.count_vectors(connection, space) - records.expired_vectors(connection, at),
        trashed=sum(tombstones.count(connection, record_type, "forgotten") for record_type in RECORD_TYPES),
        history_bytes=stored_sizes.history_bytes(connection),
        trash_bytes=stored_sizes.trash_bytes(connection),
        file_bytes=Path(settings.path).stat().st_size,
        wal_bytes=session.database.wal_bytes(),
        engine=indexes.engine.name,
        engine_reason=indexes.engines.reason,
        indexed=sum(len(index) for index in indexes.by_kind.values()),
        index_bytes=sum(index.bytes for index in indexes.by_kind.values()),
        index_loaded=indexes.applied is not None,
        snapshot_bytes=index_snapshots.stored_bytes(connection),
        **indexes.stats("memory"),
        indexed_metadata=tuple(filters.written(path) for path in sorted(metadata_indexes.paths(connection))),
    )

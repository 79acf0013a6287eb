"""Stored rows as index entries, and the load of a whole index.

Vectors are read in one scan of their own table; the namespaces and expiries of their owners come from indexes of the
owners' table. If there is a snapshot of the graph, entries are placed in the order of its nodes, so that the graph can
be attached later.
"""

from collections.abc import Sequence
from itertools import compress

import numpy as np
from sqlalchemy import Connection

from memstore.escaping import library_logger
from memstore.index import planner
from memstore.index.faiss_engine import FaissEngine
from memstore.index.hybrid import HybridIndex
from memstore.index.protocol import NEVER, IndexEntries
from memstore.models.records import RecordKind
from memstore.repository import vectors
from memstore.repository.corruption import expect_stored
from memstore.repository.sqlite_only import change_log, index_snapshots
from memstore.repository.sqlite_only.change_log import State
from memstore.repository.sqlite_only.index_snapshots import BrokenSnapshotError, Header
from memstore.repository.sqlite_only.vector_handoff import VectorHandoff
from memstore.repository.vectors import VectorRows, VectorSpace
from memstore.sync.index_set import IndexSet
from memstore.sync.snapshot import DELETED_KEY, matches, read_keys
from memstore.vectors.arrays import Keys
from memstore.vectors.encoding import decode_rows, is_intact
from memstore.vectors.metrics import valid_index_form

_MAX_NODES_PER_VECTOR = 4  # a graph with more nodes is mostly deleted, and not worth its load
_SPARE_CAPACITY = 16  # a loaded index gets spare capacity for one sixteenth more vectors

_log = library_logger()


def load_index(connection: Connection, indexes: IndexSet, kind: RecordKind, state: State, count: int) -> None:
    """Load the *count* stored vectors of *kind* into a new index of *indexes*. Needs exclusive access."""
    space = indexes.spaces[kind]
    index = HybridIndex(
        space.dimension,
        space.measure,
        kind=indexes.options.kind,
        capacity=count + count // _SPARE_CAPACITY,
        allocate=indexes.allocator(space),
    )
    header = _usable_snapshot(connection, indexes, space, state, count)
    if header is not None:
        try:
            changed = change_log.changed(connection, header.seq, state.top).get(space.pk, [])
            _begin_load(connection, index, header, np.array([*changed, DELETED_KEY], dtype=np.int64))
        except BrokenSnapshotError as error:
            _log.warning("a graph snapshot is damaged (%s): the graph is rebuilt", error)
        else:
            index.table.radius = header.parameters["radius"]
            # Set before `by_kind`: the maintainer reads both without the lock, and must not drop this layout.
            indexes.pending_snapshots[kind] = header
    _load_vectors(connection, space, index)
    indexes.by_kind[kind] = index


def _usable_snapshot(
    connection: Connection, indexes: IndexSet, space: VectorSpace, state: State, count: int
) -> Header | None:
    """The newest graph snapshot, if a graph is wanted for *count* vectors and the log holds all changes since."""
    options = indexes.options
    if not isinstance(indexes.engine, FaissEngine):
        return None
    if not planner.wants_graph(options.kind, count, space.dimension, has_graph=True)[0]:
        return None
    header = index_snapshots.latest(connection, space.pk, state.top)
    if header is None or header.epoch != state.epoch or header.seq < state.floor:
        return None
    if not matches(header.parameters, options.graph, space):
        return None
    return None if header.parameters["nodes"] > _MAX_NODES_PER_VECTOR * count else header


def _begin_load(connection: Connection, index: HybridIndex, header: Header, stale: Keys) -> None:
    """Reserve the positions of a snapshot's nodes in *index*; nodes with a *stale* key are deleted."""
    keys = read_keys(header.parameters, lambda number: index_snapshots.chunk(connection, header, number))
    if not index.table.begin_load(keys, ~np.isin(keys, stale)):
        raise BrokenSnapshotError("a key occurs twice")


def _load_vectors(connection: Connection, space: VectorSpace, index: HybridIndex) -> None:
    owners = vectors.ScopeTable(connection, space)
    damaged = 0
    for keys, blobs, checksums in vectors.scan(connection, space):
        exist, namespaces, expiries = owners.find(keys, NEVER)
        if not exist.all():
            mask = exist.tolist()
            keys, blobs, checksums = keys[exist], list(compress(blobs, mask)), list(compress(checksums, mask))
        entries = _entries(keys, namespaces, expiries, blobs, checksums, space)
        index.load(entries)
        damaged += len(keys) - len(entries.keys)
    index.table.end_load()
    if damaged:
        _log.warning("%d stored vectors are damaged: searches skip them, and check() lists them", damaged)


def as_entries(chunk: VectorRows, space: VectorSpace) -> IndexEntries:
    """Stored rows as index entries. Damaged vectors, and vectors invalid for the metric, are omitted."""
    with expect_stored("memory.pk, namespace_pk or expires_at"):
        keys = np.array(chunk.keys, dtype=np.int64)
        namespaces = np.array(chunk.namespaces, dtype=np.int64)
        expiries = np.array([NEVER if expiry is None else expiry for expiry in chunk.expiries], dtype=np.int64)
    return _entries(keys, namespaces, expiries, chunk.blobs, chunk.checksums, space)


def written_entries(written: VectorHandoff) -> IndexEntries:
    """Vectors that a write handed over, as index entries; see `as_entries`."""
    keys = np.array(written.keys, dtype=np.int64)
    namespaces = np.full(len(keys), written.namespace, dtype=np.int64)
    expiries = np.full(len(keys), NEVER, dtype=np.int64)
    positions = {key: position for position, key in enumerate(written.keys)} if written.exceptions else {}
    for key, namespace, expiry in written.exceptions:
        position = positions.get(key)
        if position is not None:
            namespaces[position] = namespace
            expiries[position] = NEVER if expiry is None else expiry
    return _valid_entries(keys, namespaces, expiries, written.blobs, written.space)  # no checksum: none was read


def _entries(
    keys: Keys,
    namespaces: Keys,
    expiries: Keys,
    blobs: Sequence[bytes],
    checksums: Sequence[int | None],
    space: VectorSpace,
) -> IndexEntries:
    """Columns of stored rows as index entries; see `as_entries`."""
    size = 4 * space.dimension
    intact = [is_intact(blob, crc) and len(blob) == size for blob, crc in zip(blobs, checksums, strict=True)]
    if not all(intact):
        blobs = list(compress(blobs, intact))
        keys, namespaces, expiries = keys[intact], namespaces[intact], expiries[intact]
    return _valid_entries(keys, namespaces, expiries, blobs, space)


def _valid_entries(
    keys: Keys, namespaces: Keys, expiries: Keys, blobs: Sequence[bytes], space: VectorSpace
) -> IndexEntries:
    """Columns of intact vectors as index entries, but for those that are invalid for the metric."""
    valid, rows = valid_index_form(space.measure, decode_rows(blobs, space.dimension))
    if not valid.all():
        keys, namespaces, expiries = keys[valid], namespaces[valid], expiries[valid]
    return IndexEntries(keys, namespaces, expiries, rows)

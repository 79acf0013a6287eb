"""Stored rows as entries, and all of them as an index.

Vectors are read in one scan of their own table; whose they are comes from indexes of the owners' table. Where there
is a snapshot of the graph, entries are laid out in the order of its nodes, and the graph can come later.
"""

import logging
from collections.abc import Sequence
from itertools import compress

import numpy as np
from sqlalchemy import Connection

from memstore.config import IndexSettings
from memstore.index import planner
from memstore.index.hybrid import HybridIndex
from memstore.index.protocol import NEVER, Entries, Keys
from memstore.repository import vectors
from memstore.repository.corruption import expect_stored
from memstore.repository.sqlite_only import change_log, index_snapshots
from memstore.repository.sqlite_only.change_log import State
from memstore.repository.sqlite_only.index_snapshots import BrokenSnapshotError, Header
from memstore.repository.sqlite_only.vector_handoff import Written
from memstore.repository.vectors import VectorRows, VectorSpace
from memstore.sync.snapshot import GONE, fits, keys_of
from memstore.vectors.encoding import decode_rows, intact
from memstore.vectors.metrics import usable_form

_MOST = 4  # a graph of so many times more nodes than there are vectors is mostly dead

_log = logging.getLogger("memstore")


def usable_snapshot(
    connection: Connection, space: VectorSpace, state: State, options: IndexSettings, count: int
) -> Header | None:
    """The newest snapshot of the graph that is wanted for *count* vectors, if the log says all that happened since."""
    if not planner.wanted(options.kind, count, space.dimension, had=True)[0]:
        return None
    header = index_snapshots.latest(connection, space.pk, state.top)
    if header is None or header.epoch != state.epoch or header.seq < state.floor:
        return None
    if not fits(header.parameters, options.graph, space) or header.parameters["nodes"] > _MOST * count:
        return None
    return header


def load(connection: Connection, space: VectorSpace, index: HybridIndex, state: State, header: Header | None) -> None:
    """Fill an empty *index* with all stored vectors, in the order of the snapshot *header*, if there is one."""
    if header is not None:
        try:
            changed = change_log.changed(connection, header.seq, state.top).get(space.pk, [])
            _expect(connection, index, header, np.array([*changed, GONE], dtype=np.int64))
        except BrokenSnapshotError as error:
            _log.warning("a snapshot of the graph is damaged (%s): the graph is built anew", error)
    owners = vectors.Owners(connection, space)
    left_out = 0
    for keys, blobs, checksums in vectors.scan(connection, space):
        there, namespaces, expiries = owners.find(keys, NEVER)
        if not there.all():
            known = there.tolist()
            keys, blobs, checksums = keys[there], list(compress(blobs, known)), list(compress(checksums, known))
        entries = entries_of(keys, namespaces, expiries, blobs, checksums, space)
        index.load(entries)
        left_out += len(keys) - len(entries.keys)
    index.table.loaded()
    if left_out:
        _log.warning("%d stored vectors are damaged: no search finds them, and check() names them", left_out)


def as_entries(chunk: VectorRows, space: VectorSpace) -> Entries:
    """Stored rows as index entries; what no verb stored is no neighbour of anything, and is left out."""
    with expect_stored("a key, a namespace or an expiry"):
        keys = np.array(chunk.keys, dtype=np.int64)
        namespaces = np.array(chunk.namespaces, dtype=np.int64)
        expiries = np.array([NEVER if expiry is None else expiry for expiry in chunk.expiries], dtype=np.int64)
    return entries_of(keys, namespaces, expiries, chunk.blobs, chunk.checksums, space)


def written_entries(told: Written) -> Entries:
    """What a write told of its new vectors as index entries, as `as_entries`."""
    keys = np.array(told.keys, dtype=np.int64)
    namespaces = np.full(len(keys), told.namespace, dtype=np.int64)
    expiries = np.full(len(keys), NEVER, dtype=np.int64)
    places = {key: place for place, key in enumerate(told.keys)} if told.apart else {}
    for key, namespace, expiry in told.apart:
        place = places.get(key)
        if place is not None:
            namespaces[place] = namespace
            expiries[place] = NEVER if expiry is None else expiry
    return entries_of(keys, namespaces, expiries, told.blobs, [None] * len(keys), told.space)  # nobody wrote them since


def _expect(connection: Connection, index: HybridIndex, header: Header, gone: Keys) -> None:
    """Lay *index* out for the nodes of a snapshot, of which those with a key that is *gone* are dead."""
    keys = keys_of(header.parameters, lambda number: index_snapshots.chunk(connection, header, number))
    if not index.table.expect(keys, ~np.isin(keys, gone)):
        raise BrokenSnapshotError("a key is in it twice")
    index.expected = header


def entries_of(
    keys: Keys,
    namespaces: Keys,
    expiries: Keys,
    blobs: Sequence[bytes],
    checksums: Sequence[int | None],
    space: VectorSpace,
) -> Entries:
    """Columns of stored rows as index entries, as `as_entries`."""
    size, metric = 4 * space.dimension, space.measure
    whole = [intact(blob, written) and len(blob) == size for blob, written in zip(blobs, checksums, strict=True)]
    if not all(whole):
        blobs = list(compress(blobs, whole))
        keys, namespaces, expiries = keys[whole], namespaces[whole], expiries[whole]
    rows = decode_rows(blobs, space.dimension)
    good, form = usable_form(metric, rows)
    if not good.all():
        keys, namespaces, expiries = keys[good], namespaces[good], expiries[good]
    return Entries(keys, namespaces, expiries, form)

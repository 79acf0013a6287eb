"""The vectors of a selection of records as one matrix: from the index if it has them as stored, else from the rows.

The rows are read in one pass over the table of vectors, or by key where the selection is a small part of it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from sqlalchemy import Connection

from memstore.index.protocol import Mask
from memstore.models.records import Embedding, Namespace
from memstore.models.vectors import Vectors
from memstore.repository import namespaces, record_keys, selection, vectors
from memstore.repository.corruption import expect_stored
from memstore.repository.record_types import ASSEMBLY, BY_KIND
from memstore.repository.selection import Selection
from memstore.repository.vectors import Spaces, VectorSpace
from memstore.sync import composites
from memstore.sync.view import View
from memstore.vectors.arrays import Keys, Rows
from memstore.vectors.encoding import decode, decode_rows, is_intact

_SCAN_FROM = 0.25  # share of all vectors from which on one pass over the table is faster than look-ups by key


def read_vectors(connection: Connection, view: View | None, spaces: Spaces, matching: Selection) -> Vectors:
    """The vectors of the records of *matching*. Raises `DamagedError` where one is damaged.

    Args:
        connection: in a read transaction.
        view: the indexes in the state of that transaction; None to read rows.
        spaces: the vector space of each kind of record.
        matching: which records.
    """
    space = spaces[matching.record_type.kind]
    keys = np.array(selection.selected(connection, matching), dtype=np.int64)
    indexed = None if view is None else view.stored_vectors(space.kind, keys)
    if indexed is None or vectors.count_of(connection, space, keys[~indexed[0]].tolist()):
        present, matrix = _from_rows(connection, space, keys)
    else:
        present, matrix = indexed
    if matching.record_type is ASSEMBLY:
        current = composites.changed(connection, spaces["memory"], keys.tolist(), matching.now)
        present, matrix = _replaced(keys, present, matrix, current)
    ids: list[str] = []
    owners: list[Namespace] = []
    paths: dict[int, Namespace] = {}
    with expect_stored(f"{space.kind}.id"):
        rows = record_keys.ids_and_namespaces(connection, matching.record_type, keys[present].tolist())
        for id, owner in rows:
            ids.append(id)
            if matching.recursive:
                owners.append(paths.get(owner) or paths.setdefault(owner, namespaces.path(connection, owner)))
    return Vectors(ids=ids, namespaces=owners if matching.recursive else None, matrix=matrix)


def _replaced(keys: Keys, present: Mask, matrix: Rows, current: Mapping[int, Embedding | None]) -> tuple[Mask, Rows]:
    """Which of *keys*, which ascend, have a vector, and their vectors, with those that are *current* in place."""
    if not current:
        return present, matrix
    rows = np.zeros((len(keys), matrix.shape[1]), dtype=np.float32)
    rows[present] = matrix
    present = present.copy()
    for key, vector in current.items():
        position = int(np.searchsorted(keys, key))
        present[position] = vector is not None
        if vector is not None:
            rows[position] = vector
    return present, rows[present]


def _from_rows(connection: Connection, space: VectorSpace, keys: Keys) -> tuple[Mask, Rows]:
    """Which of *keys*, which ascend, have a vector; and their vectors."""
    matrix = np.empty((len(keys), space.dimension), dtype=np.float32)
    present = np.zeros(len(keys), dtype=np.bool_)
    for owners, blobs, checksums in _stored(connection, space, keys):
        positions = np.searchsorted(keys, owners)
        positions[positions == len(keys)] = 0
        selected = keys[positions] == owners if len(keys) else np.zeros(len(owners), dtype=np.bool_)
        if not selected.all():
            places = np.flatnonzero(selected).tolist()
            blobs, checksums = [blobs[i] for i in places], [checksums[i] for i in places]
            owners, positions = owners[selected], positions[selected]
        _check(connection, space, owners, blobs, checksums)
        matrix[positions] = decode_rows(blobs, space.dimension)
        present[positions] = True
    return present, matrix if present.all() else matrix[present]


def _stored(
    connection: Connection, space: VectorSpace, keys: Keys
) -> Iterator[tuple[Keys, Sequence[bytes], Sequence[int | None]]]:
    """Owners, stored vectors and checksums, of *keys* at least."""
    if len(keys) >= _SCAN_FROM * vectors.count_vectors(connection, space):
        yield from vectors.scan(connection, space)
        return
    for rows in vectors.vectors(connection, space, keys.tolist()):
        yield np.array(rows.keys, dtype=np.int64), rows.blobs, rows.checksums


def _check(
    connection: Connection,
    space: VectorSpace,
    owners: Keys,
    blobs: Iterable[bytes],
    checksums: Iterable[int | None],
) -> None:
    """Raise `DamagedError`, with the id of its owner, for a vector that is damaged."""
    size = 4 * space.dimension
    for owner, blob, checksum in zip(owners.tolist(), blobs, checksums, strict=True):
        if not is_intact(blob, checksum) or len(blob) != size:
            ids = record_keys.ids(connection, BY_KIND[space.kind], [owner])
            decode(blob, space.dimension, f"{space.kind} {ids.get(owner)!r}", checksum)

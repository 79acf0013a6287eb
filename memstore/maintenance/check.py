"""Checking a store: the file against itself, and the index against the rows, by content. Changes nothing.

Changes that the change log lists and the index has not applied yet are not defects.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection

from memstore.concurrency import chunks, yield_gil
from memstore.database.driver_errors import translated
from memstore.database.transactions import snapshot
from memstore.errors import DamagedError, describe_content
from memstore.index.hnsw import BrokenLinksError
from memstore.index.hybrid import HybridIndex
from memstore.models.records import Namespace, RecordKind
from memstore.models.reports import Finding, FindingKind
from memstore.repository import history_check, memberships, tombstones, vectors
from memstore.repository.record_types import BY_KIND
from memstore.repository.sqlite_only import change_log, index_snapshots, integrity, stored_values
from memstore.repository.sqlite_only.index_snapshots import BrokenSnapshotError
from memstore.repository.vectors import VectorRows, VectorSpace
from memstore.schema.tables import metadata
from memstore.session import Autocommit
from memstore.sync import composites
from memstore.sync.follower import Follower
from memstore.sync.loader import as_entries
from memstore.sync.snapshot import DELETED_KEY, FORMAT, is_valid_header, read_graph, read_keys
from memstore.timestamps import now
from memstore.vectors.encoding import checksum, decode, decode_rows
from memstore.vectors.mean import CANCELLATION_LIMIT, Mean, tolerance_scale
from memstore.vectors.metrics import valid_rows

TOLERANCE = 1e-6
"""Allowed distance of a vector from the expected one, relative to its length: a few roundings of float32."""

RecordNames = Mapping[int, tuple[str, Namespace]]


async def check(session: Autocommit) -> list[Finding]:
    """The defects of the file and of the index of *session*; see `Store.check`."""
    findings = await session.database.read(partial(_check_current_file, session=session), long=True)
    return findings + await session.database.call(partial(check_index, follower=session.follower), long=True)


def _check_current_file(connection: Connection, session: Autocommit) -> list[Finding]:
    session.follower.guard.check(connection)
    findings = check_file(connection, session.spaces.values())
    if session.database.settings.read_only:
        findings += _expired_members(connection, session.spaces["assembly"])
    return findings


def _expired_members(connection: Connection, space: VectorSpace) -> list[Finding]:
    """Stored composites that include expired members. The next write updates them, but a read-only store has none."""
    expired = memberships.expired_members(connection, now())
    names = integrity.names(connection, "assembly", expired)
    return [
        _finding(
            "composite",
            space,
            key,
            names,
            f"its stored composite includes {members:,} members that have expired. Reads leave them out, and a store "
            "that is open for writing deletes them",
        )
        for key, (members, _) in sorted(expired.items())
    ]


def check_file(connection: Connection, spaces: Iterable[VectorSpace]) -> list[Finding]:
    """The defects of the file: values, structure, foreign keys, checksums, composites, snapshots, tombstones."""
    by_kind = {space.kind: space for space in spaces}
    checks = [*(_values(connection, table) for table in metadata.tables), _sequences(connection)]
    checks += [_integrity(connection), _orphans(connection)]
    for space in by_kind.values():
        checks += [_vectors(connection, space), _snapshots(connection, space)]
    checks.append(_composites(connection, by_kind["memory"], by_kind["assembly"]))
    checks += [_tombstones(connection, space) for space in by_kind.values()]
    checks += [_history(connection, kind, by_kind["memory"]) for kind in by_kind]
    return [finding for findings in checks for finding in _until_unreadable(findings)]


def check_values(connection: Connection) -> list[Finding]:
    """The values that memstore never writes, in every table that can be read."""
    return [finding for table in metadata.tables for finding in _until_unreadable(_values(connection, table))]


def _until_unreadable(findings: Iterator[Finding]) -> Iterator[Finding]:
    """*findings* up to data that cannot be read, which is a finding too; the other checks go on."""
    try:
        with translated():
            yield from findings
    except DamagedError as error:
        yield _file_finding(f"it cannot be read to its end: {error.__cause__ or error}")


def _file_finding(detail: str) -> Finding:
    return Finding(kind="integrity", record_kind="file", id="", detail=detail)


_TOLERABLE: dict[str, FindingKind] = {
    "assembly_vector": "composite",
    "index_snapshot": "snapshot",
    "index_chunk": "snapshot",
    "journal": "history",
}
"""Tables whose damage does not prevent a restore, with the kind of their findings."""


def _values(connection: Connection, table: str) -> Iterator[Finding]:
    """Values in *table* that memstore never writes."""
    keys = {column.name for column in metadata.tables[table].c if column.primary_key or column.foreign_keys}
    for value in stored_values.corrupt_values(connection, table):
        id = f"{table} row" if value.kind is None else value.id
        kind = "value" if value.column in keys else _TOLERABLE.get(table, "value")
        yield Finding(kind=kind, record_kind=value.kind or "file", id=id, namespace=value.namespace, detail=str(value))


def _sequences(connection: Connection) -> Iterator[Finding]:
    for table, least, actual in integrity.wrong_sequences(connection):
        place = f"sqlite_sequence.seq of table {table}"
        detail = f"Corrupt value in {place}: expected int of {least} or more, found {describe_content(actual)}"
        yield Finding(kind="value", record_kind="file", id="sqlite_sequence row", detail=detail)


def _integrity(connection: Connection) -> Iterator[Finding]:
    yield from map(_file_finding, integrity.integrity(connection))


def _orphans(connection: Connection) -> Iterator[Finding]:
    for location, parent in integrity.orphans(connection):
        detail = f"it refers to a row of {parent} that does not exist"
        yield Finding(kind="foreign_key", record_kind="file", id=location, detail=detail)


def check_structure(connection: Connection) -> Iterator[Finding]:
    """The defects that SQLite finds in a file of any schema revision."""
    return _until_unreadable(_integrity(connection))


def _vectors(connection: Connection, space: VectorSpace) -> Iterator[Finding]:
    wrong: dict[int, tuple[FindingKind, str]] = {}
    for key, blob, stored_checksum in integrity.stored_vectors(connection, space):
        if type(blob) is not bytes:
            wrong[key] = ("wrong_dimension", f"its stored vector is not bytes but {type(blob).__name__}")
        elif len(blob) != space.dimension * 4:
            detail = f"its stored vector has {len(blob)} bytes; expected {space.dimension * 4}"
            wrong[key] = ("wrong_dimension", detail)
        elif stored_checksum is not None and checksum(blob) != stored_checksum:
            wrong[key] = ("checksum", "its stored vector does not match its checksum")
        elif not valid_rows(space.measure, decode_rows([blob], space.dimension))[0]:
            detail = "is not finite, or zero under a metric of directions, or outside the ball of a hyperbolic space"
            wrong[key] = ("unusable", f"its stored vector {detail}; no search finds it")
    names = integrity.names(connection, space.kind, wrong)
    for key, (kind, detail) in wrong.items():
        yield _finding(kind, space, key, names, detail)


def _composites(connection: Connection, memories: VectorSpace, assemblies: VectorSpace) -> Iterator[Finding]:
    stale = set(vectors.lagging(connection))
    details: dict[int, str] = dict.fromkeys(stale, "its composite is of an older revision of its members")
    for key, blob in integrity.stored_composites(connection, assemblies):
        if key not in stale:
            mean, damaged = composites.computed(connection, memories, key)
            # A composite cannot be checked if the vector of a member is damaged.
            detail = None if damaged else _difference(mean, blob, memories)
            if detail is not None:
                details[key] = detail
        yield_gil()
    names = integrity.names(connection, "assembly", details)
    for key, detail in sorted(details.items()):
        yield _finding("composite", assemblies, key, names, detail)


def _difference(mean: Mean, blob: bytes | None, space: VectorSpace) -> str | None:
    """How a stored composite differs from the *mean* of the members; None if it does not."""
    expected = mean.vector(space.measure)
    if blob is not None and (type(blob) is not bytes or len(blob) != space.dimension * 4):
        return None  # reported as wrong_dimension
    stored = None if blob is None else decode(blob, space.dimension, "", None)
    if expected is None or stored is None:
        # Sums in another order may be on different sides of the limit at which vectors cancel out.
        if expected is stored or _near_cancellation(mean):
            return None
        return "it has a composite, but its members have no mean" if expected is None else "it has no composite"
    distance = float(np.linalg.norm(expected.astype(np.float64) - stored))
    if distance <= TOLERANCE * tolerance_scale(space.measure, expected):
        return None
    return f"its composite is {distance:.3g} away from the mean of its members"


def _near_cancellation(mean: Mean) -> bool:
    if mean.count == 0 or mean.length == 0:
        return False
    share = float(np.linalg.norm(mean.total)) / mean.length
    return abs(share - CANCELLATION_LIMIT) < CANCELLATION_LIMIT * 0.01


def _tombstones(connection: Connection, space: VectorSpace) -> Iterator[Finding]:
    for chunk in chunks(integrity.tombstones(connection, space.kind)):
        if _read_error(connection, space, [pk for pk, _, _ in chunk]) is None:
            continue
        for pk, id, namespace in chunk:
            error = _read_error(connection, space, [pk])
            if error is not None:
                detail = f"it cannot be recovered, only purged: {error}"
                yield Finding(kind="tombstone", record_kind=space.kind, id=id, namespace=namespace, detail=detail)


def _history(connection: Connection, kind: RecordKind, memories: VectorSpace) -> Iterator[Finding]:
    for change in history_check.damaged_changes(connection, kind, memories):
        detail = (
            f"change {change.number} of its history is damaged, so versions before it cannot be read: {change.problem} "
            "The present record and other changes are not affected. Restore a backup, or erase the record"
        )
        yield Finding(kind="history", record_kind=kind, id=change.id, namespace=change.namespace, detail=detail)


def _read_error(connection: Connection, space: VectorSpace, keys: list[int]) -> DamagedError | None:
    """The error of reading the tombstones *keys*; None if all can be read."""
    try:
        for row in tombstones.read(connection, BY_KIND[space.kind], keys):
            tombstones.to_record(row, space)
    except DamagedError as error:
        return error
    return None


def check_index(connection: Connection, follower: Follower) -> list[Finding]:
    """The defects of the index, by comparing every entry; none if it is not loaded or will be rebuilt anyway."""
    findings: list[Finding] = []
    with follower.indexes.lock.shared(), snapshot(connection):
        pending = follower.pending(connection)
        if pending is None:
            return []
        for space in follower.indexes.spaces.values():
            comparison = _Comparison(connection, follower, space, set(pending.get(space.pk, ())))
            findings += _until_unreadable(comparison.findings())
            findings += _graph(follower.indexes.by_kind[space.kind], space)
    return findings


def _graph(index: HybridIndex, space: VectorSpace) -> Iterator[Finding]:
    graph = index.graph
    if graph is None:
        return
    links = graph.links()
    detail = "" if graph.nodes <= index.table.pinned else "the graph covers entries that can move in memory"
    try:
        links.check(graph.options.m)
    except BrokenLinksError as error:
        detail = f"the graph has invalid links: {error}"
    if links.digest() != graph.digest:
        detail = "the links of the graph have changed since it was built"
    if detail:
        yield Finding(kind="graph", record_kind=space.kind, id="", detail=detail)


def _snapshots(connection: Connection, space: VectorSpace) -> Iterator[Finding]:
    header = index_snapshots.latest(connection, space.pk, change_log.top(connection))
    if header is None or header.parameters.get("format") != FORMAT:
        return
    if not is_valid_header(header.parameters):
        yield Finding(kind="snapshot", record_kind=space.kind, id="", detail="invalid graph snapshot header")
        return
    detail = ""
    try:
        keys = read_keys(header.parameters, lambda number: index_snapshots.chunk(connection, header, number))
        read_graph(header.parameters, lambda number: index_snapshots.chunk(connection, header, number))
        if len(np.unique(keys[keys != DELETED_KEY])) != np.count_nonzero(keys != DELETED_KEY):
            detail = "a key occurs twice"
    except BrokenSnapshotError as error:
        detail = str(error)
    if detail:
        yield Finding(kind="snapshot", record_kind=space.kind, id="", detail=f"the graph snapshot is damaged: {detail}")


class _Comparison:
    """The entries of one index against the stored vectors of its space."""

    def __init__(self, connection: Connection, follower: Follower, space: VectorSpace, pending: set[int]) -> None:
        self._connection = connection
        self._space = space
        self._pending = pending
        self._table = follower.indexes.by_kind[space.kind].table
        self._details: dict[int, tuple[FindingKind, str]] = {}
        self._different: dict[int, tuple[bytes, bytes]] = {}  # stored vector and indexed vector, in index form

    def findings(self) -> Iterator[Finding]:
        expected, dimension = self._space.dimension, self._table.rows.shape[1]
        if dimension != expected:
            detail = f"the index has a vector of dimension {dimension}; expected {expected}"
            for key in self._table.keys[self._table.live].tolist():
                self._details[key] = ("wrong_dimension", detail)
        else:
            self._compare()
        names = integrity.names(self._connection, self._space.kind, self._details)
        for key, (kind, detail) in sorted(self._details.items()):
            yield _finding(kind, self._space, key, names, detail)

    def _compare(self) -> None:
        is_stored = np.zeros(self._table.size, dtype=bool)
        for chunk in vectors.vectors(self._connection, self._space):
            self._compare_chunk(chunk, is_stored)
            yield_gil()
        for key in self._table.keys[self._table.live & ~is_stored].tolist():
            self._note(key, "ghost", "the index has it, but no vector of it is stored")
        by_vector = {stored: key for key, (stored, _) in self._different.items()}
        for key, (_, indexed) in self._different.items():
            other = by_vector.get(indexed)
            if other is None:
                self._note(key, "stale", "the index has another vector than the file")
            else:
                self._note(key, "swapped", f"the index has the vector of the record with key {other}")

    def _compare_chunk(self, chunk: VectorRows, is_stored: npt.NDArray[np.bool_]) -> None:
        stored = as_entries(chunk, self._space)
        keys = stored.keys
        positions = self._table.find(keys)
        is_indexed = positions >= 0
        for key in keys[~is_indexed].tolist():
            self._note(key, "missing", "its vector is stored, but the index does not have it")
        positions = positions[is_indexed]
        is_stored[positions] = True
        stored_rows, indexed_rows = stored.rows[is_indexed], self._table.rows[positions]
        for i in np.flatnonzero(~_are_equal(stored_rows, indexed_rows)).tolist():
            stored_form = stored_rows[i].astype(indexed_rows.dtype).tobytes()
            self._different[int(keys[is_indexed][i])] = (stored_form, indexed_rows[i].tobytes())
        entries = self._table.entries_at(positions)
        equal = entries.namespaces == stored.namespaces[is_indexed]
        equal &= entries.expiries == stored.expiries[is_indexed]
        for key in keys[is_indexed][~equal].tolist():
            self._note(key, "stale", "the index has another namespace or expiry than the file")

    def _note(self, key: int, kind: FindingKind, detail: str) -> None:
        if key not in self._pending:
            self._details[key] = (kind, detail)


def _are_equal(stored: npt.NDArray[np.float32], indexed: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    if indexed.dtype == np.float16:
        equal: npt.NDArray[np.bool_] = (stored.astype(np.float16) == indexed).all(axis=1)
        return equal
    doubles = stored.astype(np.float64)
    distances = np.linalg.norm(doubles - indexed, axis=1)
    close: npt.NDArray[np.bool_] = distances <= TOLERANCE * np.linalg.norm(doubles, axis=1)
    return close


def _finding(kind: FindingKind, space: VectorSpace, key: int, names: RecordNames, detail: str) -> Finding:
    id, namespace = names.get(key, (f"key {key}", ()))
    return Finding(kind=kind, record_kind=space.kind, id=id, namespace=namespace, detail=detail)

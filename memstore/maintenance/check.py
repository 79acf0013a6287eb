"""Rows against index, by content; and the way back.

`check` looks and changes nothing. What the change log says the index has not taken in yet is no drift. `repair`
throws the index away and builds it from the rows: nothing is invented, and nothing stored is lost but rows that
belong to nothing.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection

from memstore.concurrency import chunks, yield_gil
from memstore.database.driver_errors import translated
from memstore.database.transactions import snapshot
from memstore.errors import DamagedError
from memstore.index.hnsw import BrokenLinksError
from memstore.index.hybrid import HybridIndex
from memstore.models.records import Namespace
from memstore.models.reports import Finding, FindingKind
from memstore.repository import recalled, tombstones, vectors
from memstore.repository.context import WriteContext
from memstore.repository.record_types import BY_KIND
from memstore.repository.sqlite_only import change_log, index_snapshots, integrity
from memstore.repository.sqlite_only.index_snapshots import BrokenSnapshotError
from memstore.repository.vectors import VectorRows, VectorSpace
from memstore.sync import composites
from memstore.sync.follower import Follower
from memstore.sync.loader import as_entries
from memstore.sync.snapshot import DELETED_KEY, FORMAT, is_valid_header, read_keys, read_links
from memstore.vectors.encoding import checksum, decode, decode_rows
from memstore.vectors.mean import CANCELLATION_LIMIT, Mean, tolerance_scale
from memstore.vectors.metrics import valid_rows

TOLERANCE = 1e-6
"""How far, as a share of its length, a vector may lie from what it is compared with: a few roundings of float32."""

_NOWHERE = "zero where only directions count, or outside the ball of a hyperbolic space"

Named = Mapping[int, tuple[str, Namespace]]


def stored(connection: Connection, spaces: Iterable[VectorSpace]) -> list[Finding]:
    """What is wrong in the file itself: SQLite's structure, owners, checksums, composites. One read transaction."""
    by_kind = {space.kind: space for space in spaces}
    parts = [_integrity(connection), _orphans(connection)]
    for space in by_kind.values():
        parts += [_vectors(connection, space), _snapshots(connection, space)]
    parts.append(_composites(connection, by_kind["memory"], by_kind["assembly"]))
    parts += [_tombstones(connection, space) for space in by_kind.values()]
    return [finding for part in parts for finding in _as_far_as_it_goes(part)]


def _as_far_as_it_goes(part: Iterator[Finding]) -> Iterator[Finding]:
    """What *part* finds until it comes to what cannot be read, which is a finding too and ends no other part."""
    try:
        with translated():
            yield from part
    except DamagedError as error:
        yield _file(f"it cannot be read to its end: {error.__cause__ or error}")


def _file(detail: str) -> Finding:
    return Finding(kind="integrity", noun="file", id="", detail=detail)


def _integrity(connection: Connection) -> Iterator[Finding]:
    yield from map(_file, integrity.integrity(connection))


def _orphans(connection: Connection) -> Iterator[Finding]:
    for place, parent in integrity.orphans(connection):
        detail = f"it belongs to a row of {parent} that does not exist"
        yield Finding(kind="foreign_key", noun="file", id=place, detail=detail)


def structure(connection: Connection) -> Iterator[Finding]:
    """What SQLite finds wrong with the file, whichever revision it has."""
    return _as_far_as_it_goes(_integrity(connection))


def _vectors(connection: Connection, space: VectorSpace) -> Iterator[Finding]:
    wrong: dict[int, tuple[FindingKind, str]] = {}
    for key, blob, written in integrity.stored_vectors(connection, space):
        if type(blob) is not bytes:
            wrong[key] = ("wrong_dimension", f"its stored vector is no bytes but {type(blob).__name__}")
        elif len(blob) != space.dimension * 4:
            wrong[key] = (
                "wrong_dimension",
                f"its stored vector has {len(blob)} bytes, not {space.dimension * 4}",
            )
        elif written is not None and checksum(blob) != written:
            wrong[key] = ("checksum", "its stored vector is not what was written")
        elif not valid_rows(space.measure, decode_rows([blob], space.dimension))[0]:
            wrong[key] = ("unusable", f"its stored vector is not finite, or {_NOWHERE}: no search finds it")
    names = integrity.names(connection, space.kind, wrong)
    for key, (kind, detail) in wrong.items():
        yield _finding(kind, space, key, names, detail)


def _composites(connection: Connection, memories: VectorSpace, assemblies: VectorSpace) -> Iterator[Finding]:
    lagging = set(vectors.lagging(connection))
    wrong: dict[int, str] = dict.fromkeys(lagging, "its composite is of an older revision of its members")
    for key, blob in integrity.stored_composites(connection, assemblies):
        if key not in lagging:
            mean, damaged = composites.computed(connection, memories, key)
            # What a damaged member was, only the composite still knows: nobody can say that it is wrong.
            detail = None if damaged else _differs(mean, blob, memories)
            if detail is not None:
                wrong[key] = detail
        yield_gil()
    names = integrity.names(connection, "assembly", wrong)
    for key, detail in sorted(wrong.items()):
        yield _finding("composite", assemblies, key, names, detail)


def _differs(mean: Mean, blob: bytes | None, space: VectorSpace) -> str | None:
    fresh = mean.vector(space.measure)
    if blob is not None and (type(blob) is not bytes or len(blob) != space.dimension * 4):
        return None  # reported as wrong_dimension
    kept = None if blob is None else decode(blob, space.dimension, "", None)
    if fresh is None or kept is None:
        # Sums in another order may end on the two sides of the limit at which members cancel out.
        if fresh is kept or _near_limit(mean):
            return None
        return "it has a composite, but its members have no mean" if fresh is None else "it has no composite"
    distance = float(np.linalg.norm(fresh.astype(np.float64) - kept))
    if distance <= TOLERANCE * tolerance_scale(space.measure, fresh):
        return None
    return f"its composite is {distance:.3g} away from the mean of its members"


def _near_limit(mean: Mean) -> bool:
    if mean.count == 0 or mean.length == 0:
        return False
    share = float(np.linalg.norm(mean.total)) / mean.length
    return abs(share - CANCELLATION_LIMIT) < CANCELLATION_LIMIT * 0.01


def _tombstones(connection: Connection, space: VectorSpace) -> Iterator[Finding]:
    for some in chunks(integrity.tombstones(connection, space.kind)):
        if _not_to_be_read(connection, space, [pk for pk, _, _ in some]) is None:
            continue
        for pk, id, namespace in some:
            error = _not_to_be_read(connection, space, [pk])
            if error is not None:
                detail = f"it cannot be brought back, only purged: {error}"
                yield Finding(kind="tombstone", noun=space.kind, id=id, namespace=namespace, detail=detail)


def _not_to_be_read(connection: Connection, space: VectorSpace, keys: list[int]) -> DamagedError | None:
    """Why one of the tombstones *keys* is no record; None where all are."""
    try:
        for each in tombstones.read(connection, BY_KIND[space.kind], keys):
            recalled.record_of(each, space)
    except DamagedError as error:
        return error
    return None


def indexed(connection: Connection, follower: Follower) -> list[Finding]:
    """What is wrong in the index, entry by entry; nothing where it is not loaded, or would be built anew anyhow."""
    findings: list[Finding] = []
    with follower.indexes.lock.shared(), snapshot(connection):
        pending = follower.pending(connection)
        if pending is None:
            return []
        for space in follower.indexes.spaces.values():
            compared = _Comparison(connection, follower, space, set(pending.get(space.pk, ())))
            findings += _as_far_as_it_goes(compared.findings())
            findings += _graph(follower.indexes.by_kind[space.kind], space)
    return findings


def _graph(index: HybridIndex, space: VectorSpace) -> Iterator[Finding]:
    graph = index.graph
    if graph is None:
        return
    links = graph.links()
    detail = "" if graph.nodes <= index.table.pinned else "the graph covers entries that can move"
    try:
        links.check(graph.options.m)
    except BrokenLinksError as error:
        detail = f"the graph has invalid links: {error}"
    if links.digest() != graph.digest:
        detail = "the links of the graph have changed since it was built"
    if detail:
        yield Finding(kind="graph", noun=space.kind, id="", detail=detail)


def _snapshots(connection: Connection, space: VectorSpace) -> Iterator[Finding]:
    header = index_snapshots.latest(connection, space.pk, change_log.top(connection))
    if header is None or header.parameters.get("format") != FORMAT:
        return
    if not is_valid_header(header.parameters):
        yield Finding(kind="snapshot", noun=space.kind, id="", detail="invalid graph snapshot header")
        return
    detail = ""
    try:
        keys = read_keys(header.parameters, lambda number: index_snapshots.chunk(connection, header, number))
        read_links(header.parameters, lambda number: index_snapshots.chunk(connection, header, number))
        if len(np.unique(keys[keys != DELETED_KEY])) != np.count_nonzero(keys != DELETED_KEY):
            detail = "a key occurs twice"
    except BrokenSnapshotError as error:
        detail = str(error)
    if detail:
        yield Finding(kind="snapshot", noun=space.kind, id="", detail=f"the graph snapshot is damaged: {detail}")


class _Comparison:
    """The entries of one index against the stored vectors of its space."""

    def __init__(self, connection: Connection, follower: Follower, space: VectorSpace, pending: set[int]) -> None:
        self._connection = connection
        self._space = space
        self._pending = pending
        self._table = follower.indexes.by_kind[space.kind].table
        self._wrong: dict[int, tuple[FindingKind, str]] = {}
        self._differing: dict[int, tuple[bytes, bytes]] = {}  # stored form and index form

    def findings(self) -> Iterator[Finding]:
        dimension, held = self._space.dimension, self._table.rows.shape[1]
        if held != dimension:
            for key in self._table.keys[self._table.live].tolist():
                self._wrong[key] = ("wrong_dimension", f"the index has a vector of dimension {held}, not {dimension}")
        else:
            self._compare()
        names = integrity.names(self._connection, self._space.kind, self._wrong)
        order = sorted(self._wrong.items())
        for key, (kind, detail) in order:
            yield _finding(kind, self._space, key, names, detail)

    def _compare(self) -> None:
        seen = np.zeros(self._table.size, dtype=bool)
        for chunk in vectors.vectors(self._connection, self._space):
            self._compare_chunk(chunk, seen)
            yield_gil()
        for key in self._table.keys[self._table.live & ~seen].tolist():
            self._note(key, "ghost", "the index has it, but no vector of it is stored")
        by_stored = {stored: key for key, (stored, _) in self._differing.items()}
        for key, (_, held) in self._differing.items():
            other = by_stored.get(held)
            if other is None:
                self._note(key, "stale", "the index has another vector than is stored")
            else:
                self._note(key, "swapped", f"the index has the vector of the record with key {other}")

    def _compare_chunk(self, chunk: VectorRows, seen: npt.NDArray[np.bool_]) -> None:
        stored = as_entries(chunk, self._space)
        keys = stored.keys
        places = self._table.find(keys)
        found = places >= 0
        for key in keys[~found].tolist():
            self._note(key, "missing", "its vector is stored, but the index does not have it")
        at = places[found]
        seen[at] = True
        fresh = stored.rows[found]
        held = self._table.rows[at]
        for i in np.flatnonzero(~_equal(fresh, held)).tolist():
            self._differing[int(keys[found][i])] = (fresh[i].astype(held.dtype).tobytes(), held[i].tobytes())
        entries = self._table.entries_at(at)
        scoped = entries.namespaces == stored.namespaces[found]
        scoped &= entries.expiries == stored.expiries[found]
        for key in keys[found][~scoped].tolist():
            self._note(key, "stale", "the index has another namespace or expiry than is stored")

    def _note(self, key: int, kind: FindingKind, detail: str) -> None:
        if key not in self._pending:
            self._wrong[key] = (kind, detail)


def _equal(fresh: npt.NDArray[np.float32], held: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    if held.dtype == np.float16:
        same: npt.NDArray[np.bool_] = (fresh.astype(np.float16) == held).all(axis=1)
        return same
    wide = fresh.astype(np.float64)
    away = np.linalg.norm(wide - held, axis=1)
    near: npt.NDArray[np.bool_] = away <= TOLERANCE * np.linalg.norm(wide, axis=1)
    return near


def _finding(kind: FindingKind, space: VectorSpace, key: int, names: Named, detail: str) -> Finding:
    id, namespace = names.get(key, (f"key {key}", ()))
    return Finding(kind=kind, noun=space.kind, id=id, namespace=namespace, detail=detail)


def mend(context: WriteContext, findings: list[Finding]) -> tuple[int, int, int]:
    """Set right in the file what can be: orphans removed, unknown checksums filled, composites computed again.

    How many of each. Runs inside a write transaction.
    """
    connection = context.connection
    if any(finding.kind == "integrity" for finding in findings):
        integrity.reindex(connection)
    if any(finding.kind == "snapshot" for finding in findings):
        index_snapshots.drop_older(connection, change_log.top(connection) + 1)
    orphans = integrity.remove_orphans(connection)
    filled = sum(integrity.fill_checksums(connection, space) for space in context.spaces.values())
    stored_wrong = {"composite", "checksum", "unusable"}
    keys = integrity.keys(connection, [f for f in findings if f.noun == "assembly" and f.kind in stored_wrong])
    wrong = sorted({*keys, *vectors.lagging(connection)})
    composites.recompute(context, wrong)
    return orphans, filled, len(wrong)

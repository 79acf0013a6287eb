"""What the index follows: the change log, the vectors it points at, and the file's own facts."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import count
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from sqlalchemy import (
    Connection,
    Text,
    bindparam,
    column,
    delete,
    func,
    insert,
    literal,
    null,
    select,
    table,
    type_coerce,
    update,
)
from sqlalchemy.sql.expression import TableValuedAlias

from memstore.repository import snapshots
from memstore.repository.nouns import BY_KIND, NOUNS, Kind, Noun
from memstore.repository.prepared import Prepared
from memstore.repository.reading import as_written, odd
from memstore.schema import assembly, assembly_vector, change_log, memory, namespace, store_meta, vector_space
from memstore.settings import MAX_CURVATURE, MAX_DIMENSION, MIN_CURVATURE, Metric, Space
from memstore.threads import breathe

KEEP = 10_000
"""The log keeps at least as many numbers, and a tenth as many as there are memories."""

_CHUNK = 500  # vectors that are read before others may run
_PIECE = 1 << 18  # characters of a list of keys that NumPy reads without letting go of the interpreter, 0.5 ms
_SCAN = 256  # vectors of a scan that are read at a time: they fit a processor's cache

Keys = npt.NDArray[np.int64]

sqlite_sequence = table("sqlite_sequence", column("name"), column("seq"))

_TOP = Prepared(select(sqlite_sequence.c.seq).where(sqlite_sequence.c.name == "change_log"))
_EPOCH = Prepared(select(store_meta.c.epoch))
_STATE = Prepared(
    select(
        store_meta.c.epoch,
        store_meta.c.log_floor,
        select(sqlite_sequence.c.seq).where(sqlite_sequence.c.name == "change_log").scalar_subquery(),
    )
)
_CHANGED = Prepared(
    select(change_log.c.space_pk, change_log.c.pk).where(
        change_log.c.seq > bindparam("after"), change_log.c.seq <= bindparam("top")
    )
)
_CHANGED_SINCE = Prepared(
    select(
        func.max(change_log.c.seq),
        func.group_concat(change_log.c.pk).filter(change_log.c.space_pk == bindparam("space")),
    ).where(change_log.c.seq > bindparam("after"))
)

_composed = select(assembly_vector.c.assembly_pk, assembly_vector.c.revision).where(
    assembly_vector.c.space_pk == bindparam("space")
)
_COMPOSED = Prepared(_composed)


def keys_in(name: str = "keys") -> TableValuedAlias:
    """A table of integer keys, bound as one JSON array (`keys_json`): one parameter, however many keys."""
    return func.json_each(bindparam(name)).table_valued("value")


_COMPOSED_AMONG = Prepared(_composed.where(assembly_vector.c.assembly_pk.in_(select(keys_in().c.value))))


def keys_json(keys: Sequence[int] | np.ndarray[Any, np.dtype[np.int64]]) -> str:
    """*keys* as `keys_in` takes them."""
    return json.dumps(keys.tolist() if isinstance(keys, np.ndarray) else list(keys))


def keys_joined(text: str | None) -> Keys:
    """Keys as SQLite's `group_concat` joins them. NumPy holds the interpreter lock: hence in pieces."""
    if text is None:
        return np.empty(0, dtype=np.int64)
    pieces, start = [], 0
    while start < len(text):
        comma = text.find(",", start + _PIECE)
        end = len(text) if comma < 0 else comma
        with as_written("keys"):
            pieces.append(np.fromstring(text[start:end], dtype=np.int64, sep=","))
        start = end + 1
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


class VectorSpace(NamedTuple):
    """A row of `vector_space`."""

    pk: int
    kind: Kind
    space: Space


class State(NamedTuple):
    """Where the log stands: a follower at `applied` catches up by `(applied, top]` if it is not below `floor`."""

    epoch: str
    floor: int
    top: int


class VectorRows(NamedTuple):
    """Stored vectors, side by side; an expiry of None is never, a checksum of None is unknown."""

    keys: tuple[int, ...]
    namespaces: tuple[int, ...]
    expiries: tuple[int | None, ...]
    blobs: tuple[bytes, ...]
    checksums: tuple[int | None, ...]


def top(connection: Connection) -> int:
    """The highest sequence number the log has reached."""
    row = _TOP.run(connection).fetchone()
    if row is None:
        return 0
    if type(row[0]) is not int:
        raise odd("the number its log has reached", row[0])
    return row[0]


def epoch(connection: Connection) -> str:
    """Which history the file has: another where one file was given the content of another."""
    row = _EPOCH.run(connection).fetchone()
    if row is None or type(row[0]) is not str:
        raise odd("which history it has", row and row[0])
    return row[0]


def state(connection: Connection) -> State:
    """Where the log stands in this transaction's snapshot."""
    row = _STATE.run(connection).fetchone()
    if row is None:
        raise odd("its row of `store_meta`", None)
    epoch, floor, top = row
    if type(epoch) is not str or type(floor) is not int or not (top is None or type(top) is int):
        raise odd("where its log stands", tuple(row))
    return State(epoch, floor, top or 0)


def changed(connection: Connection, after: int, upto: int) -> dict[int, list[int]]:
    """Keys that changed in `(after, upto]`, by space; what became of them is read from the tables."""
    keys: dict[int, dict[int, None]] = {}
    cursor = _CHANGED.run(connection, after=after, top=upto)
    while rows := cursor.fetchmany(_CHUNK):
        for space_pk, pk in rows:
            keys.setdefault(space_pk, {})[pk] = None  # each once, in order
        if len(rows) < _CHUNK:
            break
        breathe()
    return {space_pk: [key for key in found if type(key) is int] for space_pk, found in keys.items()}


def changed_since(connection: Connection, after: int, space: VectorSpace) -> tuple[int, list[int]]:
    """Where the log stands, which stood at *after*, and the keys of *space* that changed meanwhile, ascending."""
    top, keys = _CHANGED_SINCE.run(connection, after=after, space=space.pk).fetchone()
    return (after, []) if top is None else (int(top), np.unique(keys_joined(keys)).tolist())


def _vectors_of(noun: Noun, *, some: bool) -> Prepared:
    expiry = noun.table.c.expires_at if noun.expires else null()
    statement = (
        select(noun.vector_owner, noun.table.c.namespace_pk, expiry, noun.vectors.c.vector, noun.vectors.c.checksum)
        .join(noun.table, noun.table.c.pk == noun.vector_owner)
        .join(namespace, namespace.c.pk == noun.table.c.namespace_pk)  # or there is no record to be found
        .where(noun.vectors.c.space_pk == bindparam("space"), noun.vectors.c.vector.is_not(None))
    )
    if some:
        statement = statement.where(noun.vector_owner.in_(select(keys_in().c.value)))
    return Prepared(statement)


def _scanned(noun: Noun) -> Prepared:
    columns = noun.vector_owner, noun.vectors.c.vector, noun.vectors.c.checksum
    held = select(*columns).where(noun.vectors.c.space_pk == bindparam("space"))
    return Prepared(held.where(noun.vectors.c.vector.is_not(None)) if noun.vectors.c.vector.nullable else held)


def _owned(noun: Noun) -> Prepared:
    owned = select(noun.table.c.namespace_pk, func.group_concat(noun.table.c.pk))
    known = noun.table.c.namespace_pk.in_(select(namespace.c.pk))  # or there is no record to be found
    return Prepared(owned.where(known).group_by(noun.table.c.namespace_pk))


_SCANNED = {noun.kind: _scanned(noun) for noun in NOUNS}
_OWNED = {noun.kind: _owned(noun) for noun in NOUNS}
_EXPIRING = Prepared(select(memory.c.pk, memory.c.expires_at).where(memory.c.expires_at.is_not(None)))
_VECTORS = {(noun.kind, some): _vectors_of(noun, some=some) for noun in NOUNS for some in (True, False)}


def vectors(connection: Connection, space: VectorSpace, keys: list[int] | None = None) -> Iterator[VectorRows]:
    """The stored vectors of *keys*, or all, in chunks; a key without one, or without an owner, is left out."""
    if keys is None:
        yield from _chunks(_VECTORS[space.kind, False].run(connection, space=space.pk))
        return
    for start in range(0, len(keys), 10_000):
        some = keys_json(keys[start : start + 10_000])
        yield from _chunks(_VECTORS[space.kind, True].run(connection, space=space.pk, keys=some))


def _chunks(cursor: Any) -> Iterator[VectorRows]:
    while rows := cursor.fetchmany(_CHUNK):
        yield VectorRows(*zip(*rows, strict=True))
        if len(rows) < _CHUNK:
            return
        breathe()


def scan(connection: Connection, space: VectorSpace) -> Iterator[tuple[Keys, list[bytes], list[int | None]]]:
    """Keys of the owners, stored vectors and checksums of a space, in chunks: one scan of their own table."""
    cursor = _SCANNED[space.kind].run(connection, space=space.pk)
    for turn in count(1):
        rows = cursor.fetchmany(_SCAN)
        if rows:
            keys, blobs, checksums = zip(*rows, strict=True)
            with as_written("the key of a vector's owner"):
                held = np.array(keys, dtype=np.int64)
            yield held, list(blobs), list(checksums)
        if len(rows) < _SCAN:
            return
        if turn % 2 == 0:
            breathe()


class Owners:
    """Which namespace each record of a kind is in, and when it expires: read from indexes, without a row a record."""

    def __init__(self, connection: Connection, space: VectorSpace) -> None:
        noun = BY_KIND[space.kind]
        keys, namespaces = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
        for namespace_pk, text in _OWNED[noun.kind].run(connection):
            held = keys_joined(text)
            keys.append(held)
            namespaces.append(np.full(len(held), namespace_pk, dtype=np.int64))
        self._keys, self._namespaces = _sorted(np.concatenate(keys), np.concatenate(namespaces))
        expiring = _EXPIRING.run(connection).fetchall() if noun.expires else []
        with as_written("the time at which a memory expires"):
            held = np.array(expiring, dtype=np.int64).reshape(len(expiring), 2)
        self._expiring, self._expiries = _sorted(held[:, 0], held[:, 1])

    def find(self, keys: Keys, never: int) -> tuple[npt.NDArray[np.bool_], Keys, Keys]:
        """Which of *keys* exist, and of those their namespaces and expiries, *never* for none."""
        there, at = _found(self._keys, keys)
        expiries = np.full(len(at), never, dtype=np.int64)
        if len(self._expiring):
            some, when = _found(self._expiring, keys[there])
            expiries[some] = self._expiries[when]
        return there, self._namespaces[at], expiries


def _sorted(keys: Keys, values: Keys) -> tuple[Keys, Keys]:
    if (keys[1:] > keys[:-1]).all():
        return keys, values
    order = np.argsort(keys)
    return keys[order], values[order]


def _found(known: Keys, keys: Keys) -> tuple[npt.NDArray[np.bool_], Keys]:
    """Which of *keys* are among the *known* ones, which ascend, and where those are."""
    at = np.searchsorted(known, keys)
    there = at < len(known)
    there[there] = known[at[there]] == keys[there]
    return there, at[there]


def count_vectors(connection: Connection, space: VectorSpace) -> int:
    """How many vectors of a space are stored, an index scan; room for an index that is to be built."""
    noun = BY_KIND[space.kind]
    held = select(func.count()).select_from(noun.vectors).where(noun.vectors.c.space_pk == space.pk)
    return int(connection.execute(held).scalar_one())


def spaces(connection: Connection) -> dict[Kind, VectorSpace]:
    """What the vectors of this file are, by kind; empty for a file nobody has opened as a store yet."""
    rows = connection.execute(select(vector_space).where(vector_space.c.name == literal(""))).all()
    found: dict[Kind, VectorSpace] = {}
    for r in rows:
        sound = type(r.dimension) is int and 0 < r.dimension <= MAX_DIMENSION and r.metric in get_args(Metric)
        if (
            not sound
            or not _has_curvature(r.metric, r.curvature)
            or r.kind not in BY_KIND
            or not (r.embedder is None or type(r.embedder) is str)
        ):
            raise odd("what its vectors are", tuple(r))
        found[r.kind] = VectorSpace(
            r.pk,
            r.kind,
            Space(dimension=r.dimension, metric=r.metric, embedder=r.embedder, curvature=r.curvature),
        )
    if found and (len(found) < len(NOUNS) or len({s.space for s in found.values()}) > 1):
        raise odd("what the vectors of each kind are", sorted(found))
    return found


def _has_curvature(metric: str, curvature: object) -> bool:
    if metric != "hyperbolic":
        return curvature is None
    return type(curvature) is float and MIN_CURVATURE <= curvature <= MAX_CURVATURE


def add_spaces(connection: Connection, space: Space) -> None:
    """Fix, once, what the vectors of this file are."""
    row = asdict(space)
    connection.execute(insert(vector_space), [{"kind": noun.kind, **row} for noun in NOUNS])


def index_options(connection: Connection) -> dict[str, Any] | None:
    """How the index was last asked to be; None while nobody asked for anything, or where that cannot be read."""
    text = connection.execute(select(type_coerce(store_meta.c.index_options, Text))).scalar()
    try:
        found = json.loads(text or "null")
    except (TypeError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def remember_index(connection: Connection, options: dict[str, Any], *, graph: bool) -> None:
    """Write down how the index is asked to be; without a *graph*, its snapshots go."""
    connection.execute(update(store_meta).values(index_options=options))
    if not graph:
        snapshots.drop_older(connection, top(connection) + 1)


def name_embedder(connection: Connection, name: str) -> None:
    """Write down who makes the vectors of a file that named nobody yet."""
    connection.execute(update(vector_space).where(vector_space.c.embedder.is_(None)).values(embedder=name))


def trim(connection: Connection, most: int) -> None:
    """Forget the older part of the log, up to *most* at most; a follower behind that rebuilds.

    What a snapshot of the index needs is kept, until that is more than there are memories.
    """
    here, held = top(connection), max(KEEP, count_memories(connection))
    snapshots.drop_older(connection, here - held)
    floor = min(most, here - max(KEEP, held // 10), snapshots.floor(connection, here))
    if floor > state(connection).floor:
        connection.execute(delete(change_log).where(change_log.c.seq <= floor))
        connection.execute(update(store_meta).values(log_floor=floor))


def lagging(connection: Connection, keys: list[int] | None = None) -> list[int]:
    """Keys of assemblies, among *keys* or all, whose stored composite is not of their present revision."""
    lag = (
        select(assembly.c.pk)
        .outerjoin(assembly_vector, assembly_vector.c.assembly_pk == assembly.c.pk)
        .where(assembly_vector.c.revision.is_distinct_from(assembly.c.revision))
        .order_by(assembly.c.pk)
    )
    if keys is None:
        return [int(pk) for pk in connection.execute(lag).scalars()]
    some = lag.where(assembly.c.pk.in_(select(keys_in().c.value)))
    return [int(pk) for pk in connection.execute(some, {"keys": keys_json(keys)}).scalars()]


def composed(connection: Connection, space: VectorSpace, keys: list[int] | None = None) -> dict[int, int]:
    """The revision that each stored composite is of, by the key of its assembly: of *keys*, or of all."""
    if keys is None:
        found = _COMPOSED.run(connection, space=space.pk)
    else:
        found = _COMPOSED_AMONG.run(connection, space=space.pk, keys=keys_json(keys))
    return {key: revision for key, revision in found if type(revision) is int}


def count_memories(connection: Connection) -> int:
    """Rows of `memory`, expired ones too: an index scan."""
    return int(connection.execute(select(func.count()).select_from(memory)).scalar_one())

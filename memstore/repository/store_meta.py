"""Facts about the file: vector spaces, index options, epoch."""

import json
from dataclasses import replace
from typing import Any, get_args

from sqlalchemy import Connection, Text, bindparam, insert, literal_column, select, type_coerce, update

from memstore.models.records import RecordKind
from memstore.repository.corruption import corrupt_value
from memstore.repository.record_types import BY_KIND, RECORD_TYPES
from memstore.repository.sqlite_only import index_snapshots
from memstore.repository.sqlite_only.change_log import top
from memstore.repository.statements import Prepared, stored
from memstore.repository.vectors import VectorSpace
from memstore.schema.tables import store_meta, vector_space
from memstore.vectors.space import MAX_CURVATURE, MAX_DIMENSION, MIN_CURVATURE, NO_DIMENSION, Metric, Space

_SPACE = ("dimension", "metric", "embedder", "curvature")

_EPOCH = Prepared(lambda: select(store_meta.c.epoch))
_ORIGIN = Prepared(lambda: select(store_meta.c.store_uuid, store_meta.c.epoch))
_SPACES = Prepared(
    lambda: select(*(vector_space.c[name] for name in ("pk", "kind", *_SPACE))).where(
        vector_space.c.name == literal_column("''")
    )
)
_ADD_SPACE = Prepared(lambda: insert(vector_space).values({name: bindparam(name) for name in ("kind", *_SPACE)}))
_INDEX_OPTIONS = Prepared(lambda: select(type_coerce(store_meta.c.index_options, Text)))
_SET_INDEX_OPTIONS = Prepared(lambda: update(store_meta).values(index_options=bindparam("options")))
_SET_DIMENSION = Prepared(lambda: update(vector_space).values(dimension=bindparam("dimension")))
_NAME_EMBEDDER = Prepared(
    lambda: update(vector_space).where(vector_space.c.embedder.is_(None)).values(embedder=bindparam("name"))
)


def epoch(connection: Connection) -> str:
    """The identity of the file's history: a file that was given the content of another has another epoch."""
    row = _EPOCH.run(connection).fetchone()
    if row is None or type(row[0]) is not str:
        raise corrupt_value("store_meta.epoch", "str", row and row[0])
    return row[0]


def origin(connection: Connection) -> str:
    """The identity of this content of the file: the store and its epoch.

    Records that are passed back to the store (changes, merges, plans, suggestions) have it. Keys and numbers of a file
    with another origin can mean other records.
    """
    row = _ORIGIN.run(connection).fetchone()
    if row is None or {type(value) for value in row} != {str}:
        raise corrupt_value("store_meta.store_uuid or epoch", "str", row)
    return "/".join(row)


def spaces(connection: Connection) -> dict[RecordKind, VectorSpace]:
    """The vector spaces of this file, by kind of record; empty for a file that was never opened as a store."""
    spaces: dict[RecordKind, VectorSpace] = {}
    for pk, kind, dimension, metric, embedder, curvature in _SPACES.run(connection).fetchall():
        if kind not in BY_KIND:
            raise corrupt_value("vector_space.kind", " or ".join(map(repr, BY_KIND)), kind)
        if dimension == NO_DIMENSION and type(dimension) is int:
            dimension = 0
        elif type(dimension) is not int or not 0 < dimension <= MAX_DIMENSION:
            raise corrupt_value("vector_space.dimension", f"int from 1 to {MAX_DIMENSION}", dimension)
        if metric not in get_args(Metric):
            raise corrupt_value("vector_space.metric", f"one of {', '.join(get_args(Metric))}", metric)
        if embedder is not None and type(embedder) is not str:
            raise corrupt_value("vector_space.embedder", "str or NULL", embedder)
        _check_curvature(metric, curvature)
        spaces[kind] = VectorSpace(
            pk=pk, kind=kind, dimension=dimension, metric=metric, embedder=embedder, curvature=curvature
        )
    settings = {replace(space, pk=0, kind="memory") for space in spaces.values()}
    if spaces and (len(spaces) < len(RECORD_TYPES) or len(settings) > 1):
        raise corrupt_value("vector_space", f"equal rows for {' and '.join(BY_KIND)}", sorted(spaces))
    return spaces


def _check_curvature(metric: str, curvature: object) -> None:
    if metric != "hyperbolic":
        if curvature is not None:
            raise corrupt_value("vector_space.curvature", f"NULL for {metric}", curvature)
    elif type(curvature) is not float or not MIN_CURVATURE <= curvature <= MAX_CURVATURE:
        raise corrupt_value("vector_space.curvature", f"float from {MIN_CURVATURE} to {MAX_CURVATURE}", curvature)


def add_spaces(connection: Connection, space: Space) -> None:
    """Store, once, the settings of the file's vectors."""
    for record_type in RECORD_TYPES:
        values = {name: getattr(space, name) for name in _SPACE}
        _ADD_SPACE.run(connection, kind=record_type.kind, **{**values, "dimension": space.dimension or NO_DIMENSION})


def index_options(connection: Connection) -> dict[str, Any] | None:
    """The stored options of the index; None where none are stored, or where they cannot be read."""
    text = _INDEX_OPTIONS.value(connection)
    try:
        options = json.loads(text or "null")
    except (TypeError, ValueError, RecursionError):
        return None
    return options if isinstance(options, dict) else None


def remember_index(connection: Connection, options: dict[str, Any], *, graph: bool) -> None:
    """Store the options of the index; without a *graph*, delete its snapshots."""
    _SET_INDEX_OPTIONS.run(connection, options=stored(options))
    if not graph:
        index_snapshots.drop_older(connection, top(connection) + 1)


def set_dimension(connection: Connection, dimension: int) -> None:
    """Store the dimension of the vectors in a file that has none yet."""
    _SET_DIMENSION.run(connection, dimension=dimension)


def name_embedder(connection: Connection, name: str) -> None:
    """Store the name of the embedder in a file that has none yet."""
    _NAME_EMBEDDER.run(connection, name=name)

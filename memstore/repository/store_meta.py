"""Facts about the file: vector spaces, index options, epoch."""

import json
from dataclasses import asdict, replace
from typing import Any, get_args

from sqlalchemy import (
    Connection,
    Text,
    insert,
    literal,
    select,
    type_coerce,
    update,
)

from memstore.models.records import RecordKind
from memstore.repository.corruption import corrupt_value
from memstore.repository.record_types import BY_KIND, RECORD_TYPES
from memstore.repository.sqlite_only import index_snapshots
from memstore.repository.sqlite_only.change_log import top
from memstore.repository.statements import Prepared
from memstore.repository.vectors import VectorSpace
from memstore.schema.tables import store_meta, vector_space
from memstore.vectors.space import MAX_CURVATURE, MAX_DIMENSION, MIN_CURVATURE, Metric, Space

_EPOCH = Prepared(select(store_meta.c.epoch))


def epoch(connection: Connection) -> str:
    """Which history the file has: another where one file was given the content of another."""
    row = _EPOCH.run(connection).fetchone()
    if row is None or type(row[0]) is not str:
        raise corrupt_value("which history it has", row and row[0])
    return row[0]


def spaces(connection: Connection) -> dict[RecordKind, VectorSpace]:
    """What the vectors of this file are, by kind; empty for a file nobody has opened as a store yet."""
    rows = connection.execute(select(vector_space).where(vector_space.c.name == literal(""))).all()
    found: dict[RecordKind, VectorSpace] = {}
    for r in rows:
        sound = type(r.dimension) is int and 0 < r.dimension <= MAX_DIMENSION and r.metric in get_args(Metric)
        if (
            not sound
            or not _has_curvature(r.metric, r.curvature)
            or r.kind not in BY_KIND
            or not (r.embedder is None or type(r.embedder) is str)
        ):
            raise corrupt_value("what its vectors are", tuple(r))
        found[r.kind] = VectorSpace(
            pk=r.pk, kind=r.kind, dimension=r.dimension, metric=r.metric, embedder=r.embedder, curvature=r.curvature
        )
    if found and (
        len(found) < len(RECORD_TYPES) or len({replace(space, pk=0, kind="memory") for space in found.values()}) > 1
    ):
        raise corrupt_value("what the vectors of each kind are", sorted(found))
    return found


def _has_curvature(metric: str, curvature: object) -> bool:
    if metric != "hyperbolic":
        return curvature is None
    return type(curvature) is float and MIN_CURVATURE <= curvature <= MAX_CURVATURE


def add_spaces(connection: Connection, space: Space) -> None:
    """Fix, once, what the vectors of this file are."""
    row = asdict(space)
    connection.execute(insert(vector_space), [{"kind": noun.kind, **row} for noun in RECORD_TYPES])


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
        index_snapshots.drop_older(connection, top(connection) + 1)


def name_embedder(connection: Connection, name: str) -> None:
    """Write down who makes the vectors of a file that named nobody yet."""
    connection.execute(update(vector_space).where(vector_space.c.embedder.is_(None)).values(embedder=name))

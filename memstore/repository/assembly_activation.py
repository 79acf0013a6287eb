"""How active assemblies are, and whether their composites are of their present revision."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Integer, LargeBinary, bindparam, literal_column, select, type_coerce, update

from memstore.models.records import Namespace
from memstore.repository.corruption import corrupt_value, expect_stored
from memstore.repository.key_lists import listed_keys
from memstore.repository.statements import Prepared
from memstore.repository.vectors import VectorSpace
from memstore.schema.namespace_path import namespace_parts
from memstore.schema.tables import assembly, assembly_vector, namespace
from memstore.timestamps import from_micros, to_micros

_STATES = Prepared(
    lambda: (
        select(
            assembly.c.pk,
            assembly.c.id,
            namespace.c.path,
            assembly.c.revision,
            assembly.c.activation,
            assembly.c.activated_at,
            assembly_vector.c.revision,
            assembly_vector.c.composed_at,
            type_coerce(assembly_vector.c.vector, LargeBinary).is_not(None),
        )
        .join(namespace, namespace.c.pk == assembly.c.namespace_pk)
        .outerjoin(
            assembly_vector,
            (assembly_vector.c.assembly_pk == assembly.c.pk) & (assembly_vector.c.space_pk == bindparam("space")),
        )
        .where(assembly.c.pk.in_(listed_keys()))
    )
)
_ACTIVATE = Prepared(
    lambda: (
        update(assembly)
        .values(
            activation=bindparam("level"),
            activated_at=bindparam("at", type_=Integer),
            activation_count=assembly.c.activation_count + literal_column("1"),
        )
        .where(assembly.c.pk == bindparam("key"))
    )
)


class ActivationState(NamedTuple):
    """The activation of an assembly, and the revisions of it and of its composite.

    Attributes:
        level: its activation at `activated_at`, 0 to 1.
        activated_at: when it was last activated; None for never.
        composite_revision: the revision of which its composite is; None where it has no row, as for `composed_at`.
    """

    key: int
    id: str
    namespace: Namespace
    revision: int
    level: float
    activated_at: datetime | None
    composite_revision: int | None
    composed_at: datetime | None
    has_composite: bool


def states(connection: Connection, space: VectorSpace, keys: Iterable[int]) -> dict[int, ActivationState]:
    """The states of the assemblies of *keys* that exist, by key. Raises `DamagedError`."""
    by_key: dict[int, ActivationState] = {}
    for row in _STATES.of_keys(connection, sorted(keys), space=space.pk):
        by_key[row[0]] = _state(row)
    return by_key


def _state(row: tuple[Any, ...]) -> ActivationState:
    key, id, path, revision, level, activated_at, composite_revision, composed_at, has_composite = row
    texts_valid = type(id) is str and type(path) is str and type(revision) is int
    times_valid = type(activated_at) in (int, type(None)) and type(composed_at) in (int, type(None))
    level_valid = type(level) is float and 0 <= level <= 1
    if not (texts_valid and times_valid and level_valid and type(composite_revision) in (int, type(None))):
        raise corrupt_value("assembly", "an id and path as str, numbers and times", row)
    with expect_stored("assembly"):
        return ActivationState(
            key,
            id,
            namespace_parts(path),
            revision,
            level,
            None if activated_at is None else from_micros(activated_at),
            composite_revision,
            None if composed_at is None else from_micros(composed_at),
            bool(has_composite),
        )


def activate(connection: Connection, levels: Mapping[int, float], at: datetime) -> None:
    """Store that assemblies, named by key, were activated *at* that time to these levels."""
    values = [{"at": to_micros(at), "level": level, "key": key} for key, level in levels.items()]
    _ACTIVATE.many(connection, [[row[name] for name in _ACTIVATE.names] for row in values])

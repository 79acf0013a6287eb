"""What a forget plan reads of each record. Nothing here changes a row."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import reduce
from operator import add
from typing import Any, NamedTuple

from sqlalchemy import Connection, LargeBinary, Select, bindparam, cast, func, select

from memstore.models.records import Namespace, RecordKind
from memstore.repository import memberships
from memstore.repository.corruption import corrupt_value, expect_stored
from memstore.repository.key_lists import listed_keys
from memstore.repository.record_types import ASSEMBLY, MEMORY, RecordType
from memstore.repository.statements import prepared_by_kind
from memstore.repository.vectors import VectorSpace
from memstore.schema.namespace_path import namespace_parts
from memstore.schema.tables import assembly_member, namespace

STATE_COLUMNS: dict[RecordKind, tuple[str, ...]] = {
    "memory": ("created_at", "updated_at", "expires_at", "accessed_at", "access_count", "importance", "pinned"),
    "assembly": ("created_at", "updated_at", "revision", "activated_at", "activation_count"),
}
"""The columns whose values show whether a record has changed since the plan was made; times as they are stored."""

_TEXT_COLUMNS: dict[RecordKind, tuple[str, ...]] = {
    "memory": ("id", "content", "metadata"),
    "assembly": ("id", "name", "description", "topics", "metadata"),
}


class RecordState(NamedTuple):
    """A record as a plan reads it.

    Attributes:
        bytes: of its texts and metadata in UTF-8, and of its vector.
        members: how many members an assembly has; 0 for a memory.
        values: the values of the columns in `STATE_COLUMNS`, of an assembly as it is without its expired members.
    """

    pk: int
    namespace: Namespace
    id: str
    bytes: int
    members: int
    values: tuple[Any, ...]


def states(
    connection: Connection, record_type: RecordType, space: VectorSpace, keys: Sequence[int], now: datetime
) -> Iterator[RecordState]:
    """The records of *keys* that exist, in no order; expired members do not count. Raises `DamagedError`."""
    expired = memberships.expired_members(connection, now) if record_type is ASSEMBLY else {}
    for row in _STATES[record_type.kind].of_keys(connection, keys, space=space.pk):
        with expect_stored(record_type.kind):
            pk, path, id, size, vector_size, members, *values = row
            if type(id) is not str or any(type(value) not in (int, float, type(None)) for value in values):
                raise corrupt_value(record_type.kind, "an id as str and times and counts as numbers", row)
            if pk in expired:
                members -= expired[pk].members
                vector_size = vector_size if members else 0
                values[UPDATED] = max(values[UPDATED], expired[pk].last_expiry)
                values[REVISION] += expired[pk].members
            yield RecordState(pk, namespace_parts(path), id, size + vector_size, members, tuple(values))


def _states(record_type: RecordType) -> Select[Any]:
    c, vectors = record_type.table.c, record_type.vectors.c
    vector_size = select(func.length(vectors.vector)).where(
        record_type.vector_owner == c.pk, vectors.space_pk == bindparam("space")
    )
    # As bytes: the length of a text in SQLite is in characters, and only up to the first U+0000.
    size = reduce(add, (func.length(cast(c[name], LargeBinary)) for name in _TEXT_COLUMNS[record_type.kind]))
    vector_bytes = func.coalesce(vector_size.scalar_subquery(), 0)
    count = select(func.count()).select_from(assembly_member).where(assembly_member.c.assembly_pk == c.pk)
    members = count.scalar_subquery() if record_type is ASSEMBLY else func.length("")
    columns = select(
        c.pk,
        namespace.c.path,
        c.id,
        size,
        vector_bytes,
        members,
        *(c[name] for name in STATE_COLUMNS[record_type.kind]),
    )
    joined = columns.join_from(record_type.table, namespace, namespace.c.pk == c.namespace_pk)
    return joined.where(c.pk.in_(listed_keys()))


_STATES = prepared_by_kind(_states)
CREATED, EXPIRES, ACCESSED = (
    STATE_COLUMNS[MEMORY.kind].index(name) for name in ("created_at", "expires_at", "accessed_at")
)
IMPORTANCE, PINNED = (STATE_COLUMNS[MEMORY.kind].index(name) for name in ("importance", "pinned"))
UPDATED, REVISION = (STATE_COLUMNS[ASSEMBLY.kind].index(name) for name in ("updated_at", "revision"))
ACTIVATED, ACTIVATIONS = (STATE_COLUMNS[ASSEMBLY.kind].index(name) for name in ("activated_at", "activation_count"))

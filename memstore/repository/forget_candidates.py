"""What a plan to forget has to know of each record, read in pieces; nothing here changes a row."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, LargeBinary, bindparam, cast, func, select

from memstore.concurrency import chunks
from memstore.models.records import Namespace, RecordKind
from memstore.repository.corruption import corrupt_value, expect_stored
from memstore.repository.key_lists import keys_in, keys_json
from memstore.repository.record_types import ASSEMBLY, MEMORY, RECORD_TYPES, RecordType
from memstore.repository.statements import Prepared
from memstore.repository.vectors import VectorSpace
from memstore.schema.namespace_path import namespace_parts
from memstore.schema.tables import assembly_member, namespace

STATE: dict[RecordKind, tuple[str, ...]] = {
    "memory": ("created_at", "updated_at", "expires_at", "accessed_at", "access_count", "importance", "pinned"),
    "assembly": ("created_at", "updated_at", "revision", "activated_at", "activation_count"),
}
"""The columns that say whether a record is still what a plan took it to be: times as they are stored."""

_TEXTS: dict[RecordKind, tuple[str, ...]] = {
    "memory": ("id", "content", "metadata"),
    "assembly": ("id", "name", "description", "topics", "metadata"),
}


class State(NamedTuple):
    """A record as a plan sees it: *values* are those of the columns in `STATE`; only an assembly has members."""

    pk: int
    namespace: Namespace
    id: str
    bytes: int
    members: int
    values: tuple[Any, ...]


def states(connection: Connection, noun: RecordType, space: VectorSpace, keys: Sequence[int]) -> Iterator[State]:
    """The records of *keys* that exist, in no order. Raises `DamagedError`."""
    for some in chunks(keys):
        with expect_stored(noun.kind):
            for row in _STATES[noun.kind].run(connection, keys=keys_json(some), space=space.pk):
                pk, path, id, size, members, *values = row
                if type(id) is not str or any(type(value) not in (int, float, type(None)) for value in values):
                    raise corrupt_value(noun.kind, "an id as str and numbers or NULL", row)
                yield State(pk, namespace_parts(path), id, size, members, tuple(values))


def _statement(noun: RecordType) -> Prepared:
    c, vectors = noun.table.c, noun.vectors.c
    vector = select(func.length(vectors.vector)).where(
        noun.vector_owner == c.pk, vectors.space_pk == bindparam("space")
    )
    size: ColumnElement[int] = func.coalesce(vector.scalar_subquery(), 0)
    for name in _TEXTS[noun.kind]:
        size = size + func.length(cast(c[name], LargeBinary))  # of a text SQLite counts characters, up to U+0000
    held = select(func.count()).select_from(assembly_member).where(assembly_member.c.assembly_pk == c.pk)
    members = held.scalar_subquery() if noun is ASSEMBLY else func.length("")
    read = select(c.pk, namespace.c.path, c.id, size, members, *(c[name] for name in STATE[noun.kind]))
    joined = read.join_from(noun.table, namespace, namespace.c.pk == c.namespace_pk)
    return Prepared(joined.where(c.pk.in_(select(keys_in().c.value))))


_STATES = {noun.kind: _statement(noun) for noun in RECORD_TYPES}
CREATED, EXPIRES, ACCESSED = (STATE[MEMORY.kind].index(name) for name in ("created_at", "expires_at", "accessed_at"))
IMPORTANCE, PINNED = (STATE[MEMORY.kind].index(name) for name in ("importance", "pinned"))
ACTIVATED, ACTIVATIONS = (STATE[ASSEMBLY.kind].index(name) for name in ("activated_at", "activation_count"))
